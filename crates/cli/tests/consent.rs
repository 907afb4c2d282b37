//! What moves traffic is seen once more by who types it, and is said to be meant in a script.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests; it does not see that these are"
)]

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// No agent answers there.
const NOWHERE: &str = "--socket=/nonexistent/buoy/api.sock";

const ORDERS: [(&[&str], &str); 5] = [
    (&["move", "web", "--to", "n2"], "Move web to n2? What its clients do goes there. [y/N]"),
    (&["drain"], "Take this node out of service? Its VIPs go to the other nodes. [y/N]"),
    (&["node", "drain", "n3"], "Take n3 out of service? Its VIPs go to the other nodes. [y/N]"),
    (
        &["backend", "drain", "web:80", "web1", "--for", "10m"],
        "Drain web1 of web:80? It gets no new connections, and what is left then is cut. [y/N]",
    ),
    (
        &["backend", "disable", "web:80", "web1"],
        "Disable web1 of web:80? Its connections are cut. [y/N]",
    ),
];

/// Runs it on a terminal, where somebody types that.
fn typed(arguments: &[&str], answer: &str) -> Output {
    let line = [&[env!("CARGO_BIN_EXE_buoy")], arguments, &[NOWHERE]].concat().join(" ");
    let mut script = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
    script.wait_with_output().unwrap()
}

#[test]
fn orders_that_move_traffic_ask_on_a_terminal() {
    for (order, question) in ORDERS {
        let refused = typed(order, "n\n");
        let said = String::from_utf8_lossy(&refused.stdout);
        assert!(said.contains(question), "{order:?}: {said}");
        assert!(said.contains("nothing was changed"), "{order:?}: {said}");
        assert_eq!(refused.status.code(), Some(0), "{order:?}: {said}");

        // It goes on, and finds that nobody is there.
        for (answer, yes, asks) in [("y\n", None, true), ("", Some("--yes"), false)] {
            let order: Vec<&str> = order.iter().copied().chain(yes).collect();
            let done = typed(&order, answer);
            let said = String::from_utf8_lossy(&done.stdout);
            assert_eq!(said.contains("[y/N]"), asks, "{order:?}: {said}");
            assert_eq!(done.status.code(), Some(3), "{order:?}: {said}");
        }
    }
}

#[test]
fn a_script_says_that_it_means_it_or_nothing_is_done() {
    for (order, question) in ORDERS {
        for (more, code) in [(&[][..], 4), (&["-o", "json"], 4), (&["--yes"], 3)] {
            let output = Command::new(env!("CARGO_BIN_EXE_buoy"))
                .args(order)
                .args(more)
                .arg(NOWHERE)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            assert!(output.stdout.is_empty(), "{order:?}");
            assert_eq!(output.status.code(), Some(code), "{order:?} {more:?}");
            let said = String::from_utf8_lossy(&output.stderr);
            let is_asked = said.contains(question.trim_end_matches(" [y/N]"));
            assert_eq!(is_asked && said.contains("say --yes"), code == 4, "{said}");
        }
    }
}

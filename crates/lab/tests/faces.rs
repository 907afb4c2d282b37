//! The API of real agents: orders by way of any node, and what an agent says of itself and of its host.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::{
    BackendOrderRequest, ClientError, ConfigRequest, HoldRequest, MoveRequest, NodePatch,
    ReleaseRequest,
};
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use support::{Cluster, LOCAL, SERVICES, SOON, VIP, cluster};

#[test]
fn an_order_is_followed_by_the_node_that_it_is_about_wherever_it_is_given() {
    let test = "an_order_is_followed_by_the_node_that_it_is_about_wherever_it_is_given";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let mut others = ["n1", "n2", "n3"].into_iter().filter(|node| *node != owner);
    let (asked, next) = (others.next().expect("of three"), others.next().expect("of three"));
    let client = cluster.buoy.client(asked).unwrap();
    let knows = |wanted: &str| {
        let wanted = wanted.to_owned();
        move |status: &buoy_api::ClusterStatus| status.vips[0].owner.as_ref() == Some(&wanted)
    };
    cluster.buoy.wait_status(asked, SOON, "the owner", knows(&owner)).unwrap();
    // It goes from one to the other by the word of the third, who asked stands where it was done.
    let reason = Some("rack work".to_owned());
    let moved = client.move_vip("web", &MoveRequest { to: next.into(), reason }).unwrap();
    assert_eq!((&moved.node, moved.to.as_deref()), (&owner, Some(next)));
    let expected = format!("rack work (by root on {asked})");
    assert_eq!(moved.reason, expected);
    assert_eq!(cluster.wait_other(&observer, VIP, &owner), next);
    let told = |node: &str, what: &str| {
        let events = cluster.buoy.client(node).unwrap().events(100).unwrap().events;
        events.iter().any(|event| event.sentence.contains(what))
    };
    assert!(told(&owner, &expected), "the old owner knows who wanted it");
    cluster.buoy.wait_status(asked, SOON, "the next owner", knows(next)).unwrap();
    // Why that is so is known to the new owner, and said by the third.
    let why = client.why("web").unwrap();
    assert_eq!((why.node.as_str(), why.told_by.as_deref()), (asked, Some(next)));
    assert!(why.answer.contains(&format!("{next} took it over")), "{}", why.answer);
    client.release("web", &ReleaseRequest::default()).unwrap();
    let hold = HoldRequest { reason: Some("audit".into()), for_ms: None };
    assert_eq!(client.hold("web", &hold).unwrap().node, next);
    assert!(told(next, &format!("audit (by root on {asked})")));
    // The same for nodes.
    let drain = |on: bool| NodePatch { drain: Some(on), ..NodePatch::default() };
    let drained = client.patch_node(next, &drain(true)).unwrap();
    assert_eq!((drained.node.as_str(), drained.owned), (next, 1));
    let last = cluster.wait_other(&observer, VIP, next);
    client.patch_node(next, &drain(false)).unwrap();
    let cordon = NodePatch { cordon: Some(true), ..NodePatch::default() };
    client.patch_node(next, &cordon).unwrap();
    assert!(cluster.buoy.status(next).unwrap().cordoned.is_some());
    // Whose agent is dead does nothing, and that is said.
    cluster.buoy.process(next).unwrap().signal(Signal::SIGKILL).unwrap();
    let mut said = None;
    wait_until(SOON, "the agent to be gone", || {
        said = client.patch_node(next, &drain(true)).err();
        Ok(said.is_some())
    })
    .unwrap();
    let is_told = |problem: &buoy_api::Problem| ["unreachable", "unsure"].contains(&&*problem.code);
    assert!(matches!(&said, Some(ClientError::Refused(it)) if is_told(it)), "{said:?}");
    assert_eq!(cluster.wait_answerer(&observer, VIP), last);
}

/// What there is on a host that an order could have changed, without counters.
fn host(cluster: &Cluster, node: &str) -> String {
    let inside = cluster.segment.inside(node).unwrap();
    let addresses = inside.ip("-oneline addr show").unwrap();
    // Lifetimes run and are renewed.
    let lines = addresses.lines().map(|line| line.split("valid_lft").next().unwrap_or_default());
    let nft = buoy_lab::command::require("nft", "apt-get install nftables").unwrap();
    let rules = ["--stateless", "list", "ruleset"];
    let rules = inside.enter(|| Command::new(nft).args(rules).output()).unwrap().unwrap();
    lines.collect::<String>() + &String::from_utf8_lossy(&rules.stdout)
}

/// What an agent says to a request, whatever it is.
fn asked(cluster: &Cluster, node: &str, line: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(cluster.buoy.socket(node)).unwrap();
    let length = body.len();
    write!(stream, "{line} HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn no_question_changes_anything_of_a_real_agent_or_its_host() {
    let test = "no_question_changes_anything_of_a_real_agent_or_its_host";
    let pool =
        "[[pool]]\nname = \"more\"\naddresses = \"10.77.0.150-159/24\"\nauto_assign = true\n";
    let Some(cluster) = cluster(test, 3, &format!("{pool}{LOCAL}{SERVICES}")) else { return };
    let client = cluster.buoy.client("n1").unwrap();
    let state = || {
        let status = client.status().unwrap();
        let vips = status.vips.iter().map(|vip| (vip.owner.clone(), vip.epoch, vip.held.clone()));
        let orders = (status.draining, status.cordoned, status.generation, status.digest);
        let config = client.config().unwrap();
        let kept = client.reservations().unwrap().reservations;
        let backends = client.services().unwrap().services;
        let backends = backends.into_iter().flat_map(|known| known.service.backends);
        let ordered = backends.map(|backend| (backend.name, backend.weight, backend.order));
        let all = (vips.collect::<Vec<_>>(), orders, config.text, config.revision, kept);
        (format!("{all:?} {:?}", ordered.collect::<Vec<_>>()), host(&cluster, "n1"))
    };
    let text = client.text("/v1/openapi.json").unwrap();
    let described: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let names = [
        ("{vip}", "web"),
        ("{node}", "n1"),
        ("{service}", "web:80-tcp"),
        ("{backend}", "web1"),
        ("{pool}", "more"),
        ("{address}", "10.77.0.155"),
    ];
    let before = state();
    let mut answered = 0;
    for path in described["paths"].as_object().unwrap().keys() {
        let path = names.iter().fold(path.clone(), |path, (name, is)| path.replace(name, is));
        for query in ["", "?dry_run=0", "?from=10.77.0.50:1&to=10.77.0.100:80&reason=x"] {
            let body = r#"{"reason":"x","to":"n2","drain":true,"weight":"0","revision":0}"#;
            let answer = asked(&cluster, "n1", &format!("GET {path}{query}"), body);
            let status = answer.lines().next().unwrap_or_default();
            assert!(!status.contains(" 500 "), "{path}{query}: {answer}");
            answered += usize::from(status.contains(" 200 "));
        }
    }
    assert!(answered > 60, "{answered} were answered");
    assert_eq!(state(), before);
    // What is compared shows what an order does.
    client
        .order_backend(("web:80/tcp", "web1"), "disable", &BackendOrderRequest::default())
        .unwrap();
    assert_ne!(state().0, before.0);
}

#[test]
fn an_agent_gives_out_the_support_archive_of_its_host() {
    let test = "an_agent_gives_out_the_support_archive_of_its_host";
    let Some(cluster) = cluster(test, 3, LOCAL) else { return };
    let client = cluster.buoy.client("n1").unwrap();
    let me = client.me().unwrap();
    assert_eq!((me.node.as_str(), me.role.as_str(), me.uid), ("n1", "admin", Some(0)));
    // What is edited lies over the file, and has secrets too.
    let config = client.config().unwrap();
    let service = "\n[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"web1 10.77.0.21:80\"]\n\
                   check = { http = \"GET /?token=hunter2\", headers = [\"Authorization: hunter2\"] }\n";
    let text = config.text.clone() + service;
    let reason = Some("a check with a secret".to_owned());
    client.config_apply(&ConfigRequest { text, reason }, config.revision).unwrap();
    let archive = client.support().unwrap();
    let tar = |arguments: &[&str]| {
        let mut tar = Command::new("tar");
        tar.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tar.spawn().unwrap();
        let mut into = child.stdin.take().expect("it is piped");
        let bytes = archive.clone();
        let writer = std::thread::spawn(move || into.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        writer.join().expect("it does not panic").unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let parts = tar(&["-tzf", "-"]);
    for part in [
        "/version",
        "/configuration.toml",
        "/configuration-in-force.toml",
        "/edits",
        "/status.json",
        "/pools.json",
        "/matrix.json",
        "/budget.json",
        "/doctor",
        "/addresses",
    ] {
        assert!(parts.lines().any(|line| line.ends_with(part)), "{part}: {parts}");
    }
    let status = tar(&["-xzOf", "-", "--wildcards", "*/status.json"]);
    assert!(status.contains("\"node\": \"n1\""), "{status}");
    let file = tar(&["-xzOf", "-", "--wildcards", "*/configuration.toml"]);
    assert!(file.contains("address = \"10.77.0.100/24\""), "{file}");
    let part = |name: &str| tar(&["-xzOf", "-", "--wildcards", &format!("*/{name}")]);
    let (held, edits) = (part("configuration-in-force.toml"), part("edits"));
    assert!(held.contains("GET /?token=***") && held.contains("Authorization: ***"), "{held}");
    assert!(edits.contains("reason = \"a check with a secret\""), "{edits}");
    assert!(edits.contains("by = \"root\"") && edits.contains("of = [\"vip/web\"]"), "{edits}");
    let all = tar(&["-xzOf", "-"]);
    assert!(!all.contains("hunter2"), "a secret is in some part of it");
}

/// What a command says by way of a node, and whether it is well.
fn command(cluster: &Cluster, node: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(cluster.buoy.program());
    command.args(arguments).arg("--socket").arg(cluster.buoy.socket(node)).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn vips_services_and_backends_are_added_and_removed_by_commands() {
    let test = "vips_services_and_backends_are_added_and_removed_by_commands";
    let Some(cluster) = cluster(test, 3, LOCAL) else { return };
    let done = |arguments: &[&str]| {
        let (well, said) = command(&cluster, "n2", arguments);
        assert!(well, "{arguments:?}: {said}");
        said
    };
    let vip = ["vip", "add", "new", "10.77.0.101/24", "--set", "failback=now"];
    let (well, said) = command(&cluster, "n2", &vip);
    assert!(!well && said.contains("+ address = \"10.77.0.101/24\""), "{said}");
    assert!(said.contains("say --yes"), "{said}");
    let with_yes = |arguments: &[&'static str]| [arguments, &["--yes"]].concat();
    let said = done(&with_yes(&vip));
    assert!(said.contains("=> vip new is new") && said.contains("revision 1 is taken"), "{said}");
    let service = ["service", "add", "new", "80/tcp", "--backend", "web1 10.77.0.21:80"];
    done(&with_yes(&service));
    let add = ["service", "backend", "add", "new:80/tcp", "web2", "10.77.0.22:80"];
    done(&with_yes(&[&add[..], &["--set", "weight=3"]].concat()));
    let backends = |node: &str| -> Vec<(String, u16)> {
        let services = cluster.buoy.client(node).unwrap().services().unwrap().services;
        let all = services.into_iter().flat_map(|known| known.service.backends);
        all.map(|backend| (backend.name, backend.weight)).collect()
    };
    let both = [("web1".to_owned(), 1), ("web2".to_owned(), 3)];
    assert_eq!(backends("n2"), both);
    wait_until(SOON, "the edits on another node", || Ok(backends("n1") == both)).unwrap();
    let all = done(&["vip", "ls"]);
    assert!(all.contains("web") && all.contains("new  10.77.0.101/24"), "{all}");
    let shown = done(&["vip", "show", "10.77.0.101"]);
    assert!(shown.contains("failback = \"now\"") && shown.contains("[[vip.service]]"), "{shown}");
    done(&with_yes(&["service", "backend", "rm", "new:80/tcp", "web1"]));
    assert_eq!(backends("n2"), both[1..]);
    done(&with_yes(&["service", "rm", "new:80"]));
    assert_eq!(backends("n2"), []);
    cluster.wait_owned("n2");
    done(&with_yes(&["vip", "rm", "new", "--reason", "nobody used it"]));
    let history = cluster.buoy.client("n2").unwrap().config_history().unwrap().revisions;
    assert_eq!(history.last().unwrap().reason, "nobody used it");
    // What happened to it is still told, by its name: by whoever had it, at least.
    let told = ["n1", "n2", "n3"].map(|node| command(&cluster, node, &["events", "--vip", "new"]));
    let is_so = |(_, told): &(bool, String)| told.contains("  new  ") && !told.contains('#');
    assert!(told.iter().any(is_so), "{told:?}");
    let (well, said) = command(&cluster, "n2", &["vip", "rm", "new", "--yes"]);
    assert!(!well && said.contains("new"), "there is none any more: {said}");
    let names = |node: &str| -> Vec<String> {
        let status = cluster.buoy.status(node).unwrap();
        status.vips.into_iter().map(|vip| vip.name).collect()
    };
    wait_until(SOON, "the VIP to be gone everywhere", || Ok(names("n1") == ["web"])).unwrap();
}

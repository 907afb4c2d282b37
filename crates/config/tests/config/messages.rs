//! What people read: whole reports, compared to the letter.

use crate::support::{self, SMALL, check};
use buoy_config::{Code, Severity};

const WRONG: &str = r#"peers  = ["10.0.0.11", "10.0.0.12"]
secret = "file:gone.key"
hartbeat = "10ms"

[[vip]]
address  = "10.0.1.100/24"
fallback = "30s"
follow   = "db"

  [[vip.service]]
  port     = "443"
  backends = ["web1 10.0.0.21", "web2 10.0.0.22:80 weight=1000"]
  check    = { http = "/health", timeout = "2s" }
"#;

const WRONG_SAID: &str = r#"error[V0602]: cannot read the key file /etc/buoy/gone.key
 --> /etc/buoy/buoy.toml:2:10
  |
2 | secret = "file:gone.key"
  |          ^^^^^^^^^^^^^^^ there is no such file
  |
  = fix: run `buoy key new /etc/buoy/gone.key` on one host, and copy the file to the others

error[V0101]: unknown key `hartbeat` at the top of the file
 --> /etc/buoy/buoy.toml:3:1
  |
3 | hartbeat = "10ms"
  | ^^^^^^^^
  |
  = fix: did you mean `heartbeat`?

error[V0504]: no subnet of this host contains the VIP 10.0.1.100
 --> /etc/buoy/buoy.toml:6:12
  |
6 | address  = "10.0.1.100/24"
  |            ^^^^^^^^^^^^^^^ lb1 has 10.0.0.11/24 (eth0), 2001:db8::11/64 (eth0) and 192.168.5.11/24 (eth1)
  |
  = fix: did you mean "10.0.0.100/24"? Else set `interface = "..."`, or name the hosts that have the subnet in `nodes`

error[V0101]: unknown key `fallback` in [[vip]]
 --> /etc/buoy/buoy.toml:7:1
  |
7 | fallback = "30s"
  | ^^^^^^^^
  |
  = fix: did you mean `failback`?

error[V0102]: `follow` is not in this version of Buoy
 --> /etc/buoy/buoy.toml:8:1
  |
8 | follow   = "db"
  | ^^^^^^ a later version has it
  |
  = fix: remove it; this version chooses the owner by `nodes`, `prefer` and who is alive
"#;

#[test]
fn every_problem_is_told_at_once_with_line_column_reason_and_fix() {
    let report = check(WRONG).unwrap_err();
    let text = report.to_string();
    assert!(text.starts_with(WRONG_SAID), "{text}");
    let found: Vec<_> = report.problems().iter().map(|p| (p.code, p.line, p.column)).collect();
    let expected = [
        (Code::KeyUnreadable, 2, 10),
        (Code::UnknownKey, 3, 1),
        (Code::NoSubnet, 6, 12),
        (Code::UnknownKey, 7, 1),
        (Code::NotInThisVersion, 8, 1),
        (Code::BadPort, 11, 14),
        (Code::BadBackend, 12, 21),
        (Code::OutOfRange, 12, 52),
        (Code::BadCheck, 13, 23),
        (Code::SlowCheck, 13, 44),
    ];
    assert_eq!(found, expected);
    assert_eq!((report.errors(), report.warnings()), (9, 1));
}

#[test]
fn a_log_line_names_the_first_error_and_counts_the_rest() {
    let summary = check(WRONG).unwrap_err().summary();
    assert_eq!(
        summary,
        "/etc/buoy/buoy.toml:2:10: V0602: cannot read the key file /etc/buoy/gone.key (and 9 more problems)"
    );
    let warning = support::report(&format!("{SMALL}safety = \"exclusive\"\n"));
    assert_eq!(warning.problems()[0].severity, Severity::Warning);
    assert!(warning.summary().contains("V0206"));
}

#[test]
fn two_places_are_shown_when_two_things_do_not_fit_together() {
    let text = format!("{SMALL}\n[[vip]]\nname = \"two\"\naddress = \"10.0.0.100/24\"\n");
    let said = r#"error[V0304]: 10.0.0.100 is a VIP twice
 --> /etc/buoy/buoy.toml:9:11
  |
5 | address = "10.0.0.100/24"
  |           --------------- first here
...
9 | address = "10.0.0.100/24"
  |           ^^^^^^^^^^^^^^^ again here
  |
  = fix: remove one of them
"#;
    assert_eq!(support::report(&text).to_string(), said);
}

#[test]
fn a_problem_of_the_file_itself_has_no_line() {
    let report = buoy_config::load_offline("/nonexistent/buoy.toml".as_ref()).unwrap_err();
    let said = "error[V0001]: cannot read /nonexistent/buoy.toml
--> /nonexistent/buoy.toml
 |
 = reason: there is no such file
 = fix: write the file, or name another one; examples are in examples/
";
    assert_eq!(report.to_string(), said);
    assert_eq!((report.problems()[0].line, report.problems()[0].column), (0, 0));
}

#[test]
fn a_file_without_a_vip_is_taken_and_told() {
    let (cluster, _) = SMALL.split_once("[[vip]]").unwrap();
    let checked = support::accepted(cluster);
    let problem = &checked.warnings.problems()[0];
    assert_eq!((problem.code, problem.line), (Code::NoVip, 0));
    assert!(problem.fix.contains("[[vip]]"));
}

#[test]
fn a_secret_in_the_file_is_never_printed() {
    for line in [
        "secret = \"hunter2hunter2\"",
        "secret = hunter2hunter2",
        "secret = [\"hunter2hunter2\"]",
        "auth_pass = \"hunter2hunter2\"",
        "secret: hunter2hunter2",
        "[[vip]]\nauthentication = { auth_pass = \"hunter2hunter2\" }",
        "password = \"hunter2hunter2\"",
    ] {
        let text = format!("peers = [\"10.0.0.11\"]\n{line}\n[[vip]]\naddress = \"10.0.0.100\"\n");
        let report = support::report(&text);
        assert!(report.errors() > 0, "{line}");
        let everything = format!("{report} {report:?} {}", report.summary());
        assert!(!everything.contains("hunter2"), "{line}:\n{everything}");
    }
}

#[test]
fn the_content_of_a_key_file_is_never_printed() {
    let text = SMALL.replace("cluster.key", "short.key");
    let report = support::report(&text);
    let everything = format!("{report} {report:?}");
    assert!(
        everything.contains("40 hexadecimal digits") && !everything.contains("000102"),
        "{everything}"
    );
}

#[test]
fn one_syntax_error_hides_only_what_follows_from_it() {
    for (wrong, codes) in [
        // The parser goes on in the next line, and so do we.
        ("name = web\nfallback = \"30s\"", vec![Code::UnknownKey, Code::Syntax, Code::UnknownKey]),
        (
            "name = \"web\nfallback = \"30s\"",
            vec![Code::UnknownKey, Code::Syntax, Code::UnknownKey],
        ),
        (
            "address = 10.0.0.1\nfailback = 10",
            vec![Code::UnknownKey, Code::Syntax, Code::WrongType],
        ),
        // What follows was meant otherwise.
        ("prefer = [\"a\"\nfallback = \"30s\"", vec![Code::UnknownKey, Code::Syntax]),
        ("[[vip\nfallback = \"30s\"", vec![Code::UnknownKey, Code::Syntax]),
        // What is not there may be in the part that could not be read.
        ("name = web\nprefer = [\"nobody\"]", vec![Code::UnknownKey, Code::Syntax]),
    ] {
        let report = support::report(&format!("hartbeat = \"10ms\"\n{SMALL}{wrong}\n"));
        let found: Vec<Code> = report.problems().iter().map(|p| p.code).collect();
        assert_eq!(found, codes, "{report}");
    }
}

#[test]
fn what_a_user_wrote_cannot_write_to_the_terminal() {
    let text = format!(
        "\"\\u001b[31mred\" = 1\n\"{}\" = 1\n{SMALL}name = \"a\\u0007b\"\n",
        "x".repeat(5_000)
    );
    let report = support::report(&text);
    assert_eq!(report.errors(), 3);
    let said = report.to_string();
    assert!(!said.contains(['\u{1b}', '\u{7}']), "{said:?}");
    assert!(said.len() < 8_000, "a long line is cut: {}", said.len());
}

#[test]
fn columns_are_counted_in_characters_and_carets_in_cells() {
    let text = format!("{SMALL}name = \"\u{6d6e}\u{6a19}\"\n# \u{6d6e}\u{6a19}\n");
    let report = support::report(&text);
    assert_eq!((report.problems()[0].line, report.problems()[0].column), (6, 8));
    assert!(report.to_string().contains("|        ^^^^^^ "), "{report}");
    let windows = SMALL.replace('\n', "\r\n").replace("/24", "");
    let problem = &support::report(&windows).problems()[0].clone();
    assert_eq!((problem.code, problem.line, problem.column), (Code::BadPrefix, 5, 11));
}

#[test]
fn colour_only_when_asked() {
    let report = check(WRONG).unwrap_err();
    assert!(!report.render(80, false).contains('\u{1b}'));
    assert!(report.render(80, true).contains('\u{1b}'));
}

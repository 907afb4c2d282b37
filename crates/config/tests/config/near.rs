//! Where peers and backends are, and what is said where that leads nowhere.

use crate::support::{SMALL, accepted, report};
use buoy_config::Code;
use buoy_model::{Locality, Location, NodeId};

const PEERS: &str = r#"{ lb1 = "10.0.0.11", lb2 = "10.0.0.12" }"#;
const ZONES: &str = r#"zones = { lb1 = "a", lb2 = "b" }"#;

/// A file with these lines at its top, and these at its service's end.
fn text(top: &str, lines: &str) -> String {
    let head = SMALL.replace(r#"["10.0.0.11", "10.0.0.12"]"#, PEERS);
    format!("{top}\n{head}[[vip.service]]\nport = \"80/tcp\"\n{lines}")
}

#[test]
fn a_service_says_whether_near_backends_come_first() {
    let lines = "locality = \"zone\"\n\
                 backends = [\"web1 10.0.0.21:80 zone=a weight=2\", \"10.0.0.22:80 node=lb2\", \"10.0.0.23:80\"]";
    let checked = accepted(&text(ZONES, lines));
    assert!(checked.warnings.problems().is_empty(), "{}", checked.warnings);
    let desired = &checked.desired;
    let zone = |name: &str| desired.node(NodeId::of(name)).and_then(|node| node.zone.as_deref());
    assert_eq!((zone("lb1"), zone("lb2")), (Some("a"), Some("b")));
    let service = &desired.groups[0].services[0];
    assert_eq!(service.life.locality, Some(Locality::Zone));
    let locations: Vec<_> = service.backends.iter().map(|b| b.location.clone()).collect();
    let (a, lb2) = (Location::Zone("a".into()), Location::Node("lb2".into()));
    assert_eq!(locations, [Some(a), Some(lb2), None]);
    assert_eq!(service.backends[0].weight, 2);
    // A backend that has a peer's address is on that peer, without a word.
    let own = text("", "locality = \"node\"\nbackends = [\"10.0.0.11:8080\", \"10.0.0.21:80\"]");
    assert_eq!(accepted(&own).desired.groups[0].services[0].life.locality, Some(Locality::Node));
    // All of it is the same on all hosts.
    let others = [
        text(ZONES, &lines.replace("zone=a", "zone=b")),
        text(ZONES, &lines.replace("\"zone\"", "\"node\"")),
        text(ZONES, &lines.replace("node=lb2", "node=lb1")),
        text(&ZONES.replace("\"b\"", "\"a\""), lines),
    ];
    for other in others {
        assert_ne!(accepted(&other).desired.digest, desired.digest, "{other}");
    }
}

#[test]
fn what_tells_nobody_who_is_near_is_said() {
    let near =
        |word: &str, backends: &str| format!("locality = \"{word}\"\nbackends = [{backends}]");
    let table = [
        (ZONES, near("zone", "\"10.0.0.21:80\""), Code::BadLocality, "zone=a"),
        ("", near("node", "\"10.0.0.21:80 zone=a\""), Code::BadLocality, "node=lb1"),
        (
            "zones = { lb1 = \"a\" }",
            near("zone", "\"10.0.0.21:80 zone=a\""),
            Code::BadLocality,
            "add lb2",
        ),
        (
            ZONES,
            near("zone", "\"10.0.0.21:80 zone=a\", \"10.0.0.22:80 zone=bb\""),
            Code::LonelyZone,
            "zone=b?",
        ),
        (
            ZONES,
            near("zone", "\"10.0.0.21:80 zone=a\", \"10.0.0.22:80 node=lb3\""),
            Code::UnknownNode,
            "name of a peer",
        ),
        (ZONES, near("near", "\"10.0.0.21:80\""), Code::UnknownWord, "locality = "),
        (ZONES, near("zone", "\"10.0.0.21:80 zone=a node=lb1\""), Code::BadBackend, "remove one"),
        (ZONES, near("zone", "\"10.0.0.21:80 zone=\""), Code::BadName, "short name"),
        (ZONES, "backends = [\"10.0.0.21:80 zone=a\"]".into(), Code::NeedsOther, "locality = "),
        (
            "zones = { lb9 = \"a\" }",
            "backends = [\"10.0.0.21:80\"]".into(),
            Code::UnknownNode,
            "peer",
        ),
        (
            "zones = { lb1 = 1 }",
            "backends = [\"10.0.0.21:80\"]".into(),
            Code::WrongType,
            "zones = ",
        ),
        ("zones = \"a\"", "backends = [\"10.0.0.21:80\"]".into(), Code::WrongType, "zones = "),
        (
            ZONES,
            format!(
                "{}\nsni = {{ \"a.example\" = \"web1\" }}",
                near("zone", "\"web1 10.0.0.21:443 zone=a\", \"10.0.0.22:443 zone=b\"")
            ),
            Code::Contradiction,
            "remove `locality`",
        ),
    ];
    for (top, lines, code, fix) in table {
        let report = report(&text(top, &lines));
        let is_it =
            |problem: &&buoy_config::Problem| problem.code == code && problem.fix.contains(fix);
        assert!(report.problems().iter().any(|p| is_it(&p)), "{top} {lines}:\n{report}");
    }
}

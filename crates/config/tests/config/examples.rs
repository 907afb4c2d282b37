//! The example files are what a newcomer copies: every one must be accepted without a word.

use crate::support::{KEY, KEY_2, host};
use buoy_config::FileFacts;
use buoy_model::{Forward, Mode, NodeId, Safety, Service};
use core::net::IpAddr;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every example with its file name.
pub(crate) fn texts() -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "toml") {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            texts.push((name, std::fs::read_to_string(path).unwrap()));
        }
    }
    texts.sort();
    assert!(texts.len() >= 9, "the examples are not where this test looks");
    texts
}

fn checked(name: &str) -> buoy_config::Checked {
    let (_, text) = texts().into_iter().find(|(n, _)| n == name).unwrap();
    let files = |path: &str| {
        let key = if path.ends_with("previous.key") { KEY_2 } else { KEY };
        Ok(FileFacts { content: key.as_bytes().to_vec(), mode: 0o600 })
    };
    let checked = buoy_config::check(&text, name, &host(), &files);
    checked.unwrap_or_else(|report| panic!("{name} is refused:\n{report}"))
}

/// Lines that say something: neither blank nor comment.
fn lines(name: &str) -> usize {
    let (_, text) = texts().into_iter().find(|(n, _)| n == name).unwrap();
    text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).count()
}

#[test]
fn every_example_is_accepted_without_a_warning() {
    for (name, text) in texts() {
        let checked = checked(&name);
        assert!(checked.warnings.is_empty(), "{name}:\n{}", checked.warnings);
        let offline = buoy_config::check_offline(&text, &name).unwrap();
        assert_eq!(offline.digest, checked.desired.digest, "{name}");
    }
}

#[test]
fn four_lines_make_a_failover_and_seven_balance() {
    assert_eq!(lines("failover.toml"), 4);
    assert_eq!(checked("failover.toml").desired.groups.len(), 1);
    assert_eq!(lines("balanced.toml"), 7);
    let balanced = checked("balanced.toml").desired;
    assert_eq!(balanced.groups[0].services[0].backends.len(), 2);
    assert!(
        balanced.groups[0].services[0].check.is_some(),
        "backends are checked without being asked"
    );
}

#[test]
fn the_larger_examples_are_what_their_comments_say() {
    let pair = checked("pair.toml").desired;
    let web = pair.find_group("web").unwrap();
    assert_eq!((web.addresses.len(), web.services[0].mode), (2, Mode::Proxy));
    assert_eq!(web.safety, Safety::Available);
    let direct = checked("direct.toml").desired;
    let dsr = |s: &Service| matches!(s.mode, Mode::Xdp { forward: Forward::Dsr, .. });
    assert!(direct.groups[0].services.len() == 3 && direct.groups[0].services.iter().all(dsr));
    let three = checked("three-nodes.toml").desired;
    let db = three.find_group("db").unwrap();
    assert_eq!((db.safety, db.nodes.len()), (Safety::Exclusive, 2));
}

#[test]
fn the_examples_of_pairs_pools_and_groups_are_what_their_comments_say() {
    let witness = checked("witness.toml").desired;
    let db = witness.find_group("db").unwrap();
    assert_eq!((db.safety, db.nodes.len(), db.checks.len()), (Safety::Exclusive, 2, 2));
    assert_eq!(witness.nodes.iter().filter(|n| n.witness).count(), 1);
    let paths = checked("two-paths.toml").desired;
    assert!(paths.leg_links.len() == 2 && paths.leg_links.iter().all(Option::is_some));
    let pool = checked("pool.toml").desired;
    assert_eq!(pool.groups.len(), 100);
    assert!(
        pool.groups.iter().all(|g| g.name.starts_with("web-") && g.safety == Safety::Exclusive)
    );
    assert_eq!(pool.node(NodeId::of("lb3")).unwrap().weight, 2);
    let asked = checked("addresses.toml").desired;
    let has = |name: &str| {
        let group = asked.find_group(name).unwrap();
        let pool = |a: IpAddr| asked.pools.iter().find(|p| p.contains(a)).unwrap().name.as_str();
        let addresses = group.addresses.iter().map(|a| a.cidr.address());
        addresses.map(|a| (pool(a), a.is_ipv4())).collect::<Vec<_>>()
    };
    assert_eq!(has("shop"), [("lan", true), ("lan", false)]);
    assert_eq!((has("api"), has("files")), (vec![("lan", true)], vec![("office", true)]));
    let together = checked("together.toml").desired;
    assert_eq!((together.groups.len(), together.groups[0].addresses.len()), (1, 3));
    assert_eq!(together.find_group("inside"), together.find_group("router"));
    let apart = checked("apart.toml").desired;
    assert!(apart.groups.iter().all(|g| g.apart.as_deref() == Some("dns")));
}

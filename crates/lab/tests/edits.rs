//! What is edited on one node, and served by all, with real agents.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_api::{ClientError, ConfigRequest, EditReply};
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::time::Duration;
use support::{Cluster, LOCAL, SOON, VIP, cluster};

/// The VIP that is in no file.
const EDITED: Ipv4Addr = buoy_lab::topology::ipv4(101);

/// Makes a text of what the node has, and applies it there.
fn edit(
    cluster: &Cluster,
    node: &str,
    change: impl Fn(&str) -> String,
) -> Result<EditReply, ClientError> {
    let config = cluster.buoy.client(node).unwrap().config()?;
    apply(cluster, node, change(&config.text), config.revision)
}

/// Applies a text there, of somebody who has seen that revision.
fn apply(cluster: &Cluster, node: &str, text: String, seen: u64) -> Result<EditReply, ClientError> {
    let reason = Some("a test".to_owned());
    let client = cluster.buoy.client(node).unwrap();
    client.config_apply(&ConfigRequest { text, reason }, seen)
}

/// Waits until the node has that revision in force.
fn wait_in_force(cluster: &Cluster, node: &str, revision: u64) {
    let client = cluster.buoy.client(node).unwrap();
    let is_so = || Ok(client.config().is_ok_and(|config| config.in_force == revision));
    wait_until(SOON, &format!("revision {revision} in force on {node}"), is_so).unwrap();
}

#[test]
fn an_edit_on_one_node_is_served_by_all_and_outlives_who_was_away_or_lost_it() {
    let test = "an_edit_on_one_node_is_served_by_all_and_outlives_who_was_away_or_lost_it";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let nodes = cluster.buoy.nodes();
    let added =
        |text: &str| format!("{text}\n[[vip]]\nname = \"new\"\naddress = \"{EDITED}/24\"\n");
    let reply = edit(&cluster, nodes[1], added).unwrap();
    assert_eq!((reply.revision, reply.refused_here), (1, None));
    assert_eq!(reply.changes, ["vip new is new"]);
    nodes.iter().for_each(|node| wait_in_force(&cluster, node, 1));
    let observer = cluster.observer(&[EDITED]);
    cluster.wait_answerer(&observer, EDITED);

    // Two at once, on two nodes, of the same VIP, by people who have seen the same: one of them is told of the other.
    let seen = cluster.buoy.client(nodes[0]).unwrap().config().unwrap();
    let set = |name: &str| {
        let prefer = format!("name = \"new\"\nprefer = [\"{name}\"]");
        seen.text.replace("name = \"new\"", &prefer)
    };
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| apply(&cluster, nodes[0], set("n1"), seen.revision));
        let other = scope.spawn(|| apply(&cluster, nodes[2], set("n2"), seen.revision));
        (one.join().unwrap(), other.join().unwrap())
    });
    let won = match (&one, &other) {
        (Ok(taken), Err(ClientError::Refused(problem))) => (taken, problem, "n1"),
        (Err(ClientError::Refused(problem)), Ok(taken)) => (taken, problem, "n2"),
        both => panic!("exactly one is taken: {both:?}"),
    };
    assert_eq!((won.0.revision, won.1.code.as_str(), won.1.status), (2, "conflict", 412));
    assert!(won.1.detail.contains("by root, at "), "who was first: {}", won.1.detail);
    for node in &nodes {
        wait_in_force(&cluster, node, 2);
        let text = cluster.buoy.client(node).unwrap().config().unwrap().text;
        let held = [("n1", set("n1")), ("n2", set("n2"))]
            .map(|(name, _)| text.contains(&format!("prefer = [\"{name}\"]")).then_some(name));
        assert_eq!(held.into_iter().flatten().collect::<Vec<_>>(), [won.2], "on {node}");
    }

    // One is away during an edit, and has it when it is back; then it loses what it kept.
    let away = nodes[2];
    cluster.buoy.process(away).unwrap().signal(Signal::SIGKILL).unwrap();
    let hidden = |text: &str| text.replace("name = \"web\"", "name = \"web\"\nfailback = \"1m\"");
    wait_until(SOON, "an edit by the other two", || {
        Ok(edit(&cluster, nodes[0], hidden).is_ok_and(|reply| reply.revision == 3))
    })
    .unwrap();
    let Cluster { buoy, segment } = &mut cluster;
    buoy.start(segment, away).unwrap();
    wait_in_force(&cluster, away, 3);
    cluster.buoy.process(away).unwrap().signal(Signal::SIGKILL).unwrap();
    let store = format!("{}.store", cluster.buoy.socket(away).display());
    std::fs::remove_dir_all(store).unwrap();
    let Cluster { buoy, segment } = &mut cluster;
    buoy.start(segment, away).unwrap();
    let config = cluster.buoy.client(away).unwrap().config().unwrap();
    assert_eq!(config.in_force, 3, "its peers told it before it began");
    cluster.wait_answerer(&observer, EDITED);
    let rolled = cluster.buoy.client(nodes[1]).unwrap();
    let request = buoy_api::RollbackRequest { revision: 0, reason: None };
    assert_eq!(rolled.config_rollback(&request, Some(3)).unwrap().revision, 4);
    nodes.iter().for_each(|node| wait_in_force(&cluster, node, 4));
    let status = cluster.buoy.status(away).unwrap();
    assert_eq!(status.vips.len(), 1, "the file alone");
}

/// Who owns what since which epoch, as every node says.
fn owners(cluster: &Cluster) -> Vec<(String, Option<String>, u32)> {
    let mut all = Vec::new();
    for node in cluster.buoy.nodes() {
        let status = cluster.buoy.status(node).unwrap();
        all.extend(status.vips.into_iter().map(|vip| (vip.name, vip.owner, vip.epoch)));
    }
    all
}

#[test]
fn an_address_stays_where_it_is_whatever_becomes_of_the_store() {
    let test = "an_address_stays_where_it_is_whatever_becomes_of_the_store";
    let Some(cluster) = cluster(test, 3, LOCAL) else { return };
    let nodes = cluster.buoy.nodes();
    let added =
        |text: &str| format!("{text}\n[[vip]]\nname = \"new\"\naddress = \"{EDITED}/24\"\n");
    assert_eq!(edit(&cluster, nodes[0], added).unwrap().revision, 1);
    nodes.iter().for_each(|node| wait_in_force(&cluster, node, 1));
    let observer = cluster.observer(&[VIP, EDITED]);
    let at = [VIP, EDITED].map(|address| cluster.wait_answerer(&observer, address));
    let before = owners(&cluster);
    assert!(before.iter().all(|(_, owner, _)| owner.is_some()), "{before:?}");
    // All at once, for good: what is in their place can be no folder.
    for node in &nodes {
        let store = format!("{}.store", cluster.buoy.socket(node).display());
        std::fs::remove_dir_all(&store).unwrap();
        std::fs::write(&store, "no folder").unwrap();
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(owners(&cluster), before);
    // Whether it is taken or refused: nothing moves for it.
    let said = edit(&cluster, nodes[1], |text| text.replace("\"web\"\n", "\"web\"\nnote = 1\n"));
    assert!(said.is_err(), "a key that there is not: {said:?}");
    let hidden = |text: &str| text.replace("name = \"web\"", "name = \"web\"\nfailback = \"1m\"");
    let said = edit(&cluster, nodes[1], hidden);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(owners(&cluster), before, "after {said:?}");
    assert_eq!([VIP, EDITED].map(|address| cluster.wait_answerer(&observer, address)), at);
    eprintln!("an edit without a store: {said:?}");
}

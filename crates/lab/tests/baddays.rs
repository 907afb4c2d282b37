//! Bad days: each is a message that says what to do, and none is a panic.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use std::net::UdpSocket;
use support::{Cluster, LOCAL, SERVICES, SOON, VIP, cluster, config_head, prepared};

/// Starts the agent of `n1`, which must end by itself with a message and no panic.
fn ends_with_a_message(cluster: &mut Cluster) -> String {
    cluster.buoy.launch(&cluster.segment, "n1").unwrap();
    let status = cluster.buoy.process("n1").unwrap().wait_end(SOON).unwrap();
    let said = cluster.buoy.process("n1").unwrap().output();
    assert!(!status.success(), "it ended well: {said}");
    assert!(status.code().is_some_and(|code| code != 101), "{status}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn no_panic(cluster: &Cluster) {
    for node in cluster.buoy.nodes() {
        let log = std::fs::read_to_string(cluster.buoy.log(node)).unwrap_or_default();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let Some(mut cluster) = prepared("a_port_in_use_is_named", 3, LOCAL) else { return };
    let inside = cluster.segment.inside("n1").unwrap();
    let _taken = inside.enter(|| UdpSocket::bind("0.0.0.0:4747").unwrap()).unwrap();
    let said = ends_with_a_message(&mut cluster);
    assert!(said.contains("4747"), "{said}");
}

#[test]
fn a_file_with_three_mistakes_gets_three_messages() {
    let test = "a_file_with_three_mistakes_gets_three_messages";
    let Some(mut cluster) = prepared(test, 3, LOCAL) else { return };
    let head = config_head(&cluster.segment.topology);
    let vips = "[[vip]]\naddres = \"10.77.0.100/24\"\n\n[[vip]]\naddress = \"192.0.2.1/24\"\n\
                failback = \"sometimes\"\n";
    cluster.buoy.write_config("n1", &format!("{head}{vips}")).unwrap();
    let said = ends_with_a_message(&mut cluster);
    for word in ["addres", "192.0.2.1", "failback"] {
        assert!(said.contains(word), "nothing about {word}: {said}");
    }
}

#[test]
fn a_missing_key_is_named() {
    let Some(mut cluster) = prepared("a_missing_key_is_named", 3, LOCAL) else { return };
    let key = cluster.buoy.config("n1").with_file_name("cluster.key");
    std::fs::remove_file(&key).unwrap();
    let said = ends_with_a_message(&mut cluster);
    assert!(said.contains("cluster.key"), "{said}");
}

#[test]
fn without_nft_the_address_is_kept_and_the_lack_is_said() {
    let test = "without_nft_the_address_is_kept_and_the_lack_is_said";
    let Some(mut cluster) = prepared(test, 3, &format!("{LOCAL}{SERVICES}")) else { return };
    // The administrator's programs are hidden from the agents, in a mount namespace of their own.
    let script = "mount -t tmpfs none /usr/sbin && exec \"$0\" \"$@\"";
    cluster.buoy.through = ["unshare", "--mount", "sh", "-c", script].map(str::to_owned).to_vec();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let told = |status: &buoy_api::ClusterStatus| {
        let services = status.vips.iter().flat_map(|vip| &vip.services);
        let mut problems = services.filter_map(|service| service.problem.as_ref());
        problems.any(|problem| problem.contains("nft"))
            || status.problems.iter().any(|problem| problem.contains("nft"))
    };
    cluster.buoy.wait_status(&owner, SOON, "a problem that names nft", told).unwrap();
    no_panic(&cluster);
}

#[test]
fn a_wrong_key_is_counted_and_changes_nothing() {
    let test = "a_wrong_key_is_counted_and_changes_nothing";
    let Some(mut cluster) = prepared(test, 3, LOCAL) else { return };
    cluster.buoy.write_key("n3", &"5a".repeat(32)).unwrap();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    let counted = |status: &buoy_api::ClusterStatus| {
        status.loop_.counters.get("rejected_unknown_key").is_some_and(|count| *count > 10)
    };
    for node in ["n1", "n2"] {
        let status = cluster.buoy.wait_status(node, SOON, "refused datagrams", counted).unwrap();
        let n3 = status.nodes.iter().find(|n| n.name == "n3").unwrap();
        assert!(!n3.alive, "{n3:?}");
    }
    cluster.wait_owned("n1");
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    assert_ne!(owner, "n3", "without the key it has no votes");
    no_panic(&cluster);
}

#[test]
fn garbage_on_the_port_is_counted_and_changes_nothing() {
    let test = "garbage_on_the_port_is_counted_and_changes_nothing";
    let Some(cluster) = cluster(test, 3, LOCAL) else { return };
    let owner = cluster.buoy.owner("n1", "web").unwrap();
    let client = cluster.segment.inside("client").unwrap();
    let socket = client.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    for length in [0, 1, 7, 8, 60, 61, 200, 1400, 9000] {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
        socket.send_to(&bytes, "10.77.0.11:4747").unwrap();
    }
    let counted = |status: &buoy_api::ClusterStatus| {
        let counters = status.loop_.counters.iter();
        let refused = counters.filter(|(name, _)| name.starts_with("rejected_"));
        refused.map(|(_, count)| count).sum::<u64>() >= 8
    };
    cluster.buoy.wait_status("n1", SOON, "refused datagrams", counted).unwrap();
    assert_eq!(cluster.buoy.owner("n1", "web"), Some(owner));
    no_panic(&cluster);
}

#[test]
fn two_agents_with_one_name_are_told_apart_and_reported() {
    let test = "two_agents_with_one_name_are_told_apart_and_reported";
    let Some(mut cluster) = prepared(test, 3, LOCAL) else { return };
    // n3 is set up with the address of n1: the classic copy of a virtual machine.
    let inside = cluster.segment.inside("n3").unwrap();
    inside.ip("addr add 10.77.0.11/24 dev eth0").unwrap();
    let head = config_head(&cluster.segment.topology);
    cluster.buoy.write_config("n3", &format!("node = \"n1\"\n{head}{LOCAL}")).unwrap();
    for node in ["n1", "n2", "n3"] {
        cluster.buoy.launch(&cluster.segment, node).unwrap();
    }
    let nodes = cluster.buoy.nodes();
    wait_until(SOON, "a word about the second n1", || {
        let told = |node: &&str| {
            let text = std::fs::read_to_string(cluster.buoy.log(node)).unwrap_or_default();
            text.contains("duplicate")
                || text.contains("another agent")
                || text.contains("same name")
        };
        Ok(nodes.iter().any(told))
    })
    .unwrap();
    no_panic(&cluster);
}

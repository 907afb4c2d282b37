//! One owner, whatever happens: the promises of ownership on the real kernel, judged by who answers ARP.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::NodePatch;
use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::topology::ipv4;
use std::time::{Duration, Instant};
use support::{Cluster, LOCAL, MS, SERVICES, SOON, VIP, cluster, prepared, watch};

fn balanced() -> String {
    format!("{LOCAL}{SERVICES}")
}

/// One fault at the owner: somebody else takes over, and never do two answer.
fn survives(test: &str, fault: Fault) {
    let Some(mut cluster) = cluster(test, 3, &balanced()) else { return };
    let figures = cluster.session().trial(fault, |_, _| {}).unwrap().unwrap();
    assert!(figures.to.is_some(), "nobody took over: {figures:?}");
    assert_ne!(figures.to.as_ref(), Some(&figures.from));
    assert_eq!(figures.two_answerers, Duration::ZERO, "{figures:?}");
    assert!(figures.outage < 2000 * MS, "{figures:?}");
}

#[test]
fn a_crash_moves_the_address_and_never_two_answer() {
    survives("a_crash_moves_the_address_and_never_two_answer", Fault::Kill);
}

#[test]
fn a_freeze_moves_the_address_and_the_thawed_owner_stays_silent() {
    survives("a_freeze_moves_the_address_and_the_thawed_owner_stays_silent", Fault::Freeze);
}

#[test]
fn a_silent_cut_moves_the_address_and_never_two_answer() {
    survives("a_silent_cut_moves_the_address_and_never_two_answer", Fault::SilentCut);
}

#[test]
fn a_pulled_cable_moves_the_address_and_never_two_answer() {
    survives("a_pulled_cable_moves_the_address_and_never_two_answer", Fault::Unplug);
}

#[test]
fn an_owner_that_nobody_hears_is_replaced() {
    survives("an_owner_that_nobody_hears_is_replaced", Fault::DeafSwitch);
}

#[test]
fn an_owner_that_hears_nobody_is_replaced() {
    survives("an_owner_that_hears_nobody_is_replaced", Fault::DeafHost);
}

#[test]
fn a_host_without_power_is_replaced() {
    survives("a_host_without_power_is_replaced", Fault::PowerOff);
}

#[test]
fn a_stopped_agent_gives_its_addresses_away() {
    survives("a_stopped_agent_gives_its_addresses_away", Fault::Terminate);
}

#[test]
fn a_cluster_forms_with_one_owner_for_each_address_and_spreads_them() {
    let test = "a_cluster_forms_with_one_owner_for_each_address_and_spreads_them";
    let vips: String = (100..106)
        .map(|n| format!("[[vip]]\nname = \"v{n}\"\naddress = \"10.77.0.{n}/24\"\n"))
        .collect();
    let Some(cluster) = cluster(test, 3, &vips) else { return };
    let addresses: Vec<_> = (100..106).map(ipv4).collect();
    let observer = cluster.observer(&addresses);
    let window = watch(&observer, 300);
    for address in &addresses {
        assert_eq!(observer.answered_by_two(*address, window), []);
        cluster.wait_answerer(&observer, *address);
    }
    for node in cluster.buoy.nodes() {
        let agreed = |status: &buoy_api::ClusterStatus| {
            let owns: Vec<usize> = status.nodes.iter().map(|node| node.owns).collect();
            owns == [2, 2, 2]
        };
        cluster.buoy.wait_status(node, SOON, "two VIPs on each node", agreed).unwrap();
    }
}

#[test]
fn nobody_answers_without_a_majority() {
    let Some(mut cluster) = cluster("nobody_answers_without_a_majority", 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let others: Vec<_> = cluster.buoy.nodes().into_iter().filter(|n| *n != owner).collect();
    let from = Instant::now();
    for other in &others {
        Fault::SilentCut.inject(&cluster.segment, &mut cluster.buoy, other).unwrap();
    }
    wait_until(SOON, "silence", || Ok(observer.unanswered(VIP, whole(from)) > 500 * MS)).unwrap();
    for other in &others {
        Fault::SilentCut.heal(&cluster.segment, &mut cluster.buoy, other).unwrap();
    }
    cluster.wait_answerer(&observer, VIP);
    assert_eq!(observer.answered_by_two(VIP, whole(from)), []);
}

#[test]
fn the_addresses_of_dead_agents_disappear_by_themselves() {
    let test = "the_addresses_of_dead_agents_disappear_by_themselves";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    for node in cluster.buoy.nodes() {
        Fault::Kill.inject(&cluster.segment, &mut cluster.buoy, node).unwrap();
    }
    assert!(cluster.has_address(&owner, "10.77.0.100"), "this test would prove nothing");
    wait_until(SOON, "the kernel to remove the address", || {
        Ok(!cluster.has_address(&owner, "10.77.0.100"))
    })
    .unwrap();
}

#[test]
fn a_restarted_agent_takes_leftovers_over_or_away() {
    let test = "a_restarted_agent_takes_leftovers_over_or_away";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let from = Instant::now();
    for _ in 0..3 {
        let owner = cluster.wait_answerer(&observer, VIP);
        Fault::Kill.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
        Fault::Kill.heal(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
        watch(&observer, 300);
        let owner = cluster.wait_answerer(&observer, VIP);
        for node in cluster.buoy.nodes().into_iter().filter(|node| *node != owner) {
            wait_until(SOON, "no leftover", || Ok(!cluster.has_address(node, "10.77.0.100")))
                .unwrap();
        }
    }
    assert_eq!(observer.answered_by_two(VIP, whole(from)), []);
}

#[test]
fn loss_never_makes_two_owners() {
    let Some(mut cluster) = cluster("loss_never_makes_two_owners", 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    for node in cluster.buoy.nodes() {
        Fault::Loss(15).inject(&cluster.segment, &mut cluster.buoy, node).unwrap();
    }
    watch(&observer, 4000);
    for node in cluster.buoy.nodes() {
        Fault::Loss(15).heal(&cluster.segment, &mut cluster.buoy, node).unwrap();
    }
    cluster.wait_answerer(&observer, VIP);
    assert_eq!(observer.answered_by_two(VIP, whole(from)), []);
}

#[test]
fn a_drained_node_owns_nothing_until_it_is_undrained() {
    let test = "a_drained_node_owns_nothing_until_it_is_undrained";
    let Some(mut cluster) = cluster(test, 3, &balanced()) else { return };
    let observer = cluster.observer(&[VIP]);
    let first = cluster.wait_answerer(&observer, VIP);
    cluster.buoy.drain(&first, true).unwrap();
    let second = cluster.wait_other(&observer, VIP, &first);
    cluster.buoy.drain(&second, true).unwrap();
    let third = cluster.wait_other(&observer, VIP, &second);
    assert_ne!(third, first, "a drained node took the address");
    cluster.buoy.drain(&first, false).unwrap();
    cluster.buoy.drain(&third, true).unwrap();
    assert_eq!(cluster.wait_other(&observer, VIP, &third), first, "only the undrained one is left");
}

#[test]
fn a_cordoned_node_takes_nothing_until_it_is_uncordoned_and_gives_nothing_away() {
    let test = "a_cordoned_node_takes_nothing_until_it_is_uncordoned_and_gives_nothing_away";
    let Some(mut cluster) = cluster(test, 3, &balanced()) else { return };
    let observer = cluster.observer(&[VIP]);
    let first = cluster.wait_answerer(&observer, VIP);
    let mut others = ["n1", "n2", "n3"].into_iter().filter(|node| *node != first);
    let (cordoned, last) = (others.next().expect("of three"), others.next().expect("of three"));
    let cordon = |cluster: &Cluster, node: &str, on: bool| {
        let patch =
            NodePatch { cordon: Some(on), reason: Some("disk".into()), ..NodePatch::default() };
        cluster.buoy.client(node).unwrap().patch_node(node, &patch).unwrap()
    };
    let said = cordon(&cluster, cordoned, true).cordoned.expect("it is");
    assert!(said.starts_with("disk (by "), "{said}");
    let status = cluster.buoy.status(cordoned).unwrap();
    assert_eq!(status.cordoned.as_ref(), Some(&said));
    assert!(status.nodes.iter().any(|node| node.me && node.state == "cordoned"));
    let why = cluster.buoy.client(cordoned).unwrap().why("web").unwrap();
    let own = why.vip.candidates.iter().find(|known| known.node == cordoned).expect("a member");
    assert_eq!(own.reason, "cordoned by the operator: takes it only if nobody else can");
    let last_in_line = |status: &buoy_api::ClusterStatus| {
        let mut line = status.vips.iter().flat_map(|vip| &vip.candidates);
        line.any(|known| known.node == cordoned && known.reason.starts_with("takes it only if"))
    };
    cluster.buoy.wait_status(&first, SOON, "word of the cordon", last_in_line).unwrap();
    // The owner is cordoned too, and keeps it; then it goes where it may.
    cordon(&cluster, &first, true);
    assert_eq!(cluster.wait_answerer(&observer, VIP), first);
    cluster.buoy.drain(&first, true).unwrap();
    assert_eq!(cluster.wait_other(&observer, VIP, &first), last);
    cluster.buoy.drain(last, true).unwrap();
    assert_eq!(cluster.wait_other(&observer, VIP, last), cordoned, "rather there than nowhere");
    cluster.buoy.drain(&first, false).unwrap();
    cordon(&cluster, &first, false);
    cluster.buoy.drain(cordoned, true).unwrap();
    assert_eq!(cluster.wait_other(&observer, VIP, cordoned), first);
}

#[test]
fn two_available_nodes_both_serve_while_cut_and_one_remains() {
    let test = "two_available_nodes_both_serve_while_cut_and_one_remains";
    let Some(mut cluster) = cluster(test, 2, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_answerer(&observer, VIP);
    Fault::SilentCut.inject(&cluster.segment, &mut cluster.buoy, "n1").unwrap();
    for node in ["n1", "n2"] {
        let mine = |status: &buoy_api::ClusterStatus| status.vips.iter().all(|vip| vip.mine);
        cluster.buoy.wait_status(node, SOON, "the VIP on both sides", mine).unwrap();
    }
    Fault::SilentCut.heal(&cluster.segment, &mut cluster.buoy, "n1").unwrap();
    wait_until(SOON, "one owner", || Ok(owners(&cluster).len() == 1)).unwrap();
    // A machine that lets an agent wait may cause a second split: it must heal as well.
    wait_until(SOON, "half a second with one answerer", || {
        let quiet = watch(&observer, 500);
        Ok(observer.answered_by_two(VIP, quiet).is_empty() && owners(&cluster).len() == 1)
    })
    .unwrap();
    assert_eq!(owners(&cluster), [cluster.wait_answerer(&observer, VIP)]);
}

#[test]
fn a_preferred_node_gets_its_address_back_when_failback_says_so() {
    let test = "a_preferred_node_gets_its_address_back_when_failback_says_so";
    let vip = format!("{LOCAL}prefer = [\"n2\"]\nfailback = \"now\"\n");
    let Some(mut cluster) = cluster(test, 3, &vip) else { return };
    let observer = cluster.observer(&[VIP]);
    let at_n2 =
        || Ok(cluster.segment.host("n2")?.mac()).map(|mac| observer.owner(VIP) == Some(mac));
    wait_until(SOON, "n2 as owner", at_n2).unwrap();
    let from = Instant::now();
    Fault::Kill.inject(&cluster.segment, &mut cluster.buoy, "n2").unwrap();
    cluster.wait_other(&observer, VIP, "n2");
    Fault::Kill.heal(&cluster.segment, &mut cluster.buoy, "n2").unwrap();
    let at_n2 =
        || Ok(cluster.segment.host("n2")?.mac()).map(|mac| observer.owner(VIP) == Some(mac));
    wait_until(SOON, "n2 as owner again", at_n2).unwrap();
    assert_eq!(observer.answered_by_two(VIP, whole(from)), []);
}

#[test]
fn a_cluster_talks_over_ipv6() {
    let Some(mut cluster) = prepared("a_cluster_talks_over_ipv6", 3, "") else { return };
    let config = format!(
        "peers = {{ n1 = \"fd77::11\", n2 = \"fd77::12\", n3 = \"fd77::13\" }}\n\
         secret = \"file:cluster.key\"\n{LOCAL}"
    );
    for node in cluster.buoy.nodes() {
        cluster.buoy.write_config(node, &config).unwrap();
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    Fault::Kill.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    cluster.wait_other(&observer, VIP, &owner);
    assert_eq!(observer.answered_by_two(VIP, whole(from)), []);
}

fn whole(from: Instant) -> buoy_lab::probe::Window {
    buoy_lab::probe::Window { from, to: Instant::now() }
}

/// The nodes that say that the VIP is theirs.
fn owners(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.buoy.nodes().into_iter();
    nodes
        .filter(|node| {
            let status = cluster.buoy.status(node);
            status.is_ok_and(|status| status.vips.iter().any(|vip| vip.mine))
        })
        .map(str::to_owned)
        .collect()
}

//! The segment learns who has an address at once, and keeps knowing it when somebody interferes.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::arp;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::LOCAL_PORT;
use buoy_lab::topology::ipv6;
use std::time::Instant;
use support::{Cluster, LOCAL, MS, SOON, VIP, cluster, watch};

fn wait_event(cluster: &Cluster, node: &str, kind: &str) -> String {
    let mut sentence = String::new();
    let client = cluster.buoy.client(node).unwrap();
    wait_until(SOON, &format!("event {kind} at {node}"), || {
        let events = client.events(100).map(|reply| reply.events).unwrap_or_default();
        let found = events.into_iter().rev().find(|event| event.kind == kind);
        sentence = found.map(|event| event.sentence).unwrap_or_default();
        Ok(!sentence.is_empty())
    })
    .unwrap();
    sentence
}

#[test]
fn a_new_owner_announces_itself_in_request_form_and_again() {
    let test = "a_new_owner_announces_itself_in_request_form_and_again";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let old = cluster.wait_answerer(&observer, VIP);
    let from = Instant::now();
    Fault::Kill.inject(&cluster.segment, &mut cluster.buoy, &old).unwrap();
    let new = cluster.wait_other(&observer, VIP, &old);
    let mac = cluster.segment.host(&new).unwrap().mac();
    let announced = || {
        let all = observer.announcements(VIP, Window { from, to: Instant::now() });
        all.into_iter().filter(|a| a.mac == mac && a.request).map(|a| a.heard).collect::<Vec<_>>()
    };
    wait_until(SOON, "a second announcement", || Ok(announced().len() >= 2)).unwrap();
    let window = Window { from, to: Instant::now() };
    let old_mac = cluster.segment.host(&old).unwrap().mac();
    let answered = observer.changes(VIP, window, Some(old_mac)).first().unwrap().at;
    let first = announced()[0];
    let apart = first.max(answered) - first.min(answered);
    assert!(apart < 50 * MS, "announced {apart:?} from the first answer");
}

#[test]
fn an_address_that_somebody_deletes_comes_back() {
    let test = "an_address_that_somebody_deletes_comes_back";
    let Some(cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    cluster.segment.inside(&owner).unwrap().ip("addr del 10.77.0.100/24 dev eth0").unwrap();
    wait_event(&cluster, &owner, "restored");
    wait_until(SOON, "the address", || Ok(cluster.has_address(&owner, "10.77.0.100"))).unwrap();
    assert_eq!(cluster.wait_answerer(&observer, VIP), owner);
}

#[test]
fn a_foreign_claim_is_reported_and_answered() {
    let Some(cluster) = cluster("a_foreign_claim_is_reported_and_answered", 3, LOCAL) else {
        return;
    };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_answerer(&observer, VIP);
    let claim = arp::gratuitous([2, 0, 0, 0, 0, 0x66], VIP);
    let conflict = |node: &str| {
        let client = cluster.buoy.client(node).unwrap();
        let events = client.events(100).map(|reply| reply.events).unwrap_or_default();
        events.into_iter().find(|event| event.kind == "conflict").map(|event| event.sentence)
    };
    // The schedule of announcements after the takeover must be over.
    watch(&observer, 3000);
    let from = Instant::now();
    let mut told = None;
    // On a machine that stands still now and then the address may move before the claim is heard.
    wait_until(SOON, "a report of the claim", || {
        arp::inject(cluster.segment.inside("client").unwrap(), &claim).unwrap();
        told = cluster
            .buoy
            .nodes()
            .into_iter()
            .find_map(|node| conflict(node).map(|said| (node, said)));
        Ok(told.is_some())
    })
    .unwrap();
    let (owner, sentence) = told.unwrap();
    assert!(sentence.contains("02:00:00:00:00:66"), "{sentence}");
    let mac = cluster.segment.host(owner).unwrap().mac();
    wait_until(SOON, "a defence", || {
        let all = observer.announcements(VIP, Window { from, to: Instant::now() });
        Ok(all.iter().any(|announcement| announcement.mac == mac))
    })
    .unwrap();
}

#[test]
fn an_owner_without_carrier_says_so() {
    let Some(mut cluster) = cluster("an_owner_without_carrier_says_so", 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    Fault::Unplug.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    cluster.wait_other(&observer, VIP, &owner);
    wait_event(&cluster, &owner, "link_down");
    assert_eq!(cluster.buoy.owner(&owner, "web").as_deref().filter(|o| *o == owner), None);
    Fault::Unplug.heal(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    wait_event(&cluster, &owner, "link_up");
}

#[test]
fn an_ipv6_address_fails_over_like_any_other() {
    let test = "an_ipv6_address_fails_over_like_any_other";
    let vip = "[[vip]]\nname = \"web\"\naddress = [\"10.77.0.100/24\", \"fd77::100/64\"]\n";
    let Some(mut cluster) = cluster(test, 3, vip) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let client = cluster.segment.inside("client").unwrap();
    let probe = UdpProbe::start(client, (ipv6(100), LOCAL_PORT).into()).unwrap();
    wait_until(SOON, "a stream over IPv6", || Ok(100 * MS < probe.well_for())).unwrap();

    let from = Instant::now();
    Fault::PowerOff.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    let new = cluster.wait_other(&observer, VIP, &owner);
    wait_until(SOON, "the stream again", || Ok(100 * MS < probe.well_for())).unwrap();
    let figures = probe.figures(Window { from, to: Instant::now() - 50 * MS });
    assert_eq!(figures.by.last(), Some(&new), "{figures:?}");
    assert!(figures.outage < 2000 * MS, "{figures:?}");
    assert!(cluster.buoy.nodes().contains(&new.as_str()));
}

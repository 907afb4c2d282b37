//! Near backends come first, whoever looks, and another owner is a change of the table like any other.

use super::*;
use crate::fast::{self, Fast};
use alloc::vec;
use buoy_model::limits::FAST_DRAIN;
use buoy_model::{
    Backend, BackendLife, Cidr, FlowFields, Forward, GroupId, Instant, LinkId, Locality, Location,
    Node, Ports, Presence, Safety, VipAddress,
};
use core::time::Duration;

const UP: BackendState = BackendState::Up;
const DOWN: BackendState = BackendState::Down;

/// lb1 and lb2 are in zone a, lb3 in b.
fn nodes() -> Vec<Node> {
    let node = |(n, zone): (u8, &str)| Node {
        zone: Some(zone.into()),
        ..Node::new(&alloc::format!("lb{n}"), ([10, 0, 0, n], 4747).into())
    };
    let mut nodes: Vec<Node> = [(1, "a"), (2, "a"), (3, "b")].into_iter().map(node).collect();
    nodes.sort_by_key(|node| node.id);
    nodes
}

/// Where it is: a zone, `@` and a node, or nothing; `!` before it: a backup.
fn backend((n, at): (usize, &&str)) -> Backend {
    let host = if *at == "own" { 1 } else { 20 + u8::try_from(n).unwrap() };
    let text = at.trim_start_matches('!');
    let location = match text.strip_prefix('@') {
        Some(node) => Some(Location::Node(node.into())),
        None if text.is_empty() || text == "own" => None,
        None => Some(Location::Zone(text.into())),
    };
    let backup = at.starts_with('!');
    let name = alloc::format!("web{n}");
    Backend { location, backup, ..Backend::new(&name, ([10, 0, 0, host], 80).into()) }
}

fn desired(mode: Mode, life: BackendLife, backends: &[&str]) -> Desired {
    let _beat = Duration::from_millis(10);
    let vip = [10, 0, 0, 100].into();
    let service = Service {
        life,
        ..Service::new(
            mode,
            vec![vip],
            Ports::one(80),
            backends.iter().enumerate().map(backend).collect(),
        )
    };
    let address = VipAddress {
        cidr: Cidr::new(vip, 24).unwrap(),
        link: Some(LinkId(1)),
        link_name: "eth0".into(),
        vip_name: "web".into(),
        presence: Presence::Assigned,
    };
    let group = Group {
        safety: Safety::Available,
        nodes: vec![NodeId::of("lb1"), NodeId::of("lb2"), NodeId::of("lb3")],
        services: vec![service],
        ..Group::new(GroupId(1), "web", vec![address])
    };
    Desired::new("test", NodeId::of("lb1"), nodes(), vec![group])
}

fn near(locality: Locality, quorum: u16) -> BackendLife {
    BackendLife { locality: Some(locality), quorum, ..BackendLife::default() }
}

#[test]
fn those_near_to_the_owner_come_first_and_all_take_part_when_they_are_too_few() {
    use Locality::{Node as OnNode, Zone};
    type Case = (
        Locality,
        u16,
        &'static [&'static str],
        &'static str,
        &'static [BackendState],
        &'static [usize],
    );
    let table: [Case; 12] = [
        // Those that rest, by their places.
        (Zone, 1, &["a", "a", "b"], "lb1", &[], &[2]),
        (Zone, 1, &["a", "a", "b"], "lb2", &[UP, UP, UP], &[2]),
        (Zone, 1, &["a", "a", "b"], "lb3", &[], &[0, 1]),
        (Zone, 1, &["a", "a", "b"], "lb1", &[DOWN, UP, UP], &[2]),
        (Zone, 1, &["a", "a", "b"], "lb1", &[DOWN, DOWN, UP], &[]),
        (Zone, 2, &["a", "a", "b"], "lb1", &[DOWN, UP, UP], &[]),
        // A backup is nobody's neighbour, and stays what it is; a zone of nobody is far.
        (Zone, 1, &["a", "!a", "!b", "c"], "lb1", &[], &[3]),
        (Zone, 1, &["!a", "b"], "lb1", &[], &[]),
        // What is on a node is in its zone.
        (Zone, 1, &["@lb2", "b", ""], "lb1", &[], &[1, 2]),
        (OnNode, 1, &["@lb1", "@lb2", "@lb3"], "lb2", &[], &[0, 2]),
        (OnNode, 1, &["own", "@lb2", "b"], "lb1", &[], &[1, 2]),
        (OnNode, 1, &["@lb1", "b"], "lb3", &[], &[]),
    ];
    for (locality, quorum, backends, owner, states, expected) in table {
        let desired = desired(Mode::Kernel, near(locality, quorum), backends);
        let service = &desired.groups[0].services[0];
        let resting = resting(&desired, service, Some(NodeId::of(owner)), states);
        let places: Vec<usize> = (0..resting.len()).filter(|i| resting[*i]).collect();
        assert_eq!(places, expected, "{locality:?} {quorum} {backends:?} {owner} {states:?}");
    }
    let plain = desired(Mode::Kernel, BackendLife::default(), &["a", "b"]);
    let of =
        |desired: &Desired, owner| resting(desired, &desired.groups[0].services[0], owner, &[]);
    assert_eq!(of(&plain, Some(NodeId::of("lb1"))), [false, false]);
    assert!(!is_followed(&plain.groups[0]));
    let asked = desired(Mode::Kernel, near(Zone, 1), &["a", "b"]);
    assert_eq!(of(&asked, None), [false, false], "nobody owns it");
    assert_eq!(of(&asked, Some(NodeId::of("lb9"))), [false, false], "a stranger");
    assert!(is_followed(&asked.groups[0]));
}

#[test]
fn a_backend_of_the_other_ip_version_is_near_to_nobody_but_in_a_proxy() {
    for (mode, expected) in
        [(Mode::Kernel, [false, false, true]), (Mode::Proxy, [false, true, true])]
    {
        let mut desired = desired(mode, near(Locality::Zone, 1), &["a", "b", "b"]);
        let service = &mut desired.groups[0].services[0];
        service.backends[1].address = "[2001:db8::22]:80".parse().unwrap();
        let service = &desired.groups[0].services[0];
        assert_eq!(resting(&desired, service, Some(NodeId::of("lb1")), &[]), expected);
    }
}

/// The table of a host that knows this owner, and these backends to be down.
fn follow(host: &mut Fast, now: u64, desired: &Desired, (owner, down): (&str, &[&str])) {
    let mut near = desired.clone();
    let service = &desired.groups[0].services[0];
    let state = |backend: &Backend| if down.contains(&backend.name.as_str()) { DOWN } else { UP };
    let states: Vec<BackendState> = service.backends.iter().map(state).collect();
    let resting = resting(desired, service, Some(NodeId::of(owner)), &states);
    let backends = &mut near.groups[0].services[0].backends;
    for (backend, _) in backends.iter_mut().zip(resting).filter(|(_, rests)| *rests) {
        backend.weight = 0;
    }
    host.change(Instant::from_nanos(now * 1_000_000_000), &near, |_, service, b| {
        fast::standing(service, state(b), false)
    });
}

/// How many slots each backend has for new flows, and for those of before.
fn slots(fast: &Fast) -> (Vec<usize>, Vec<usize>) {
    let path = fast.path();
    let service = &path.services[0];
    let count = |n: u8, is_new: bool| {
        let at = service.backends.iter().position(|b| b.address == ([10, 0, 0, 20 + n], 80).into());
        let place = at.and_then(|at| u16::try_from(at).ok());
        let of = |slot: &&buoy_model::Slot| {
            Some(if is_new { slot.current } else { slot.previous }) == place
        };
        service.slots.iter().filter(of).count()
    };
    ((0..3).map(|n| count(n, true)).collect(), (0..3).map(|n| count(n, false)).collect())
}

#[test]
fn another_owner_is_a_change_of_the_table_that_leaves_flows_where_they_are() {
    let mode = Mode::Xdp { forward: Forward::Nat, flow: FlowFields::Connection };
    let desired = desired(mode, near(Locality::Zone, 1), &["a", "b", "b"]);
    let mut hosts = [Fast::new(7), Fast::new(7)];
    let mut all = |now, known| {
        for host in &mut hosts {
            follow(host, now, &desired, known);
            host.tick(Instant::from_nanos(now * 1_000_000_000));
        }
        // Whoever owns the VIP, both have the same table and the same past.
        let histories = |host: &Fast| host.histories().collect::<Vec<_>>();
        assert_eq!(histories(&hosts[0]), histories(&hosts[1]), "at {now}");
        assert_eq!(hosts[0].path(), hosts[1].path(), "at {now}");
        slots(&hosts[0])
    };
    let (now, _) = all(0, ("lb1", &[]));
    let whole = now[0];
    assert_eq!(now, [whole, 0, 0]);
    // lb3 takes it: new flows are its zone's, and all that are open stay.
    let (now, before) = all(10, ("lb3", &[]));
    assert!(now[0] == 0 && now[1].abs_diff(now[2]) <= 1 && now[1] + now[2] == whole, "{now:?}");
    assert_eq!(before, [whole, 0, 0]);
    // Its zone fails: all take part, and that is web0.
    let (now, before) = all(20, ("lb3", &["web1", "web2"]));
    assert_eq!((now, before), (vec![whole, 0, 0], vec![whole, 0, 0]));
    // It is back, and later nothing of that is left.
    all(30, ("lb3", &[]));
    let (now, before) = all(40 + FAST_DRAIN.as_secs(), ("lb3", &[]));
    assert_eq!((now[0], before), (0, now), "settled");
}

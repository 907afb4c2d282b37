//! Which services a host has in its fast path, and how they follow the file and the checks.

use super::*;
use alloc::string::{String, ToString as _};
use alloc::{format, vec};
use buoy_model::limits::FAST_DRAIN;
use buoy_model::{Cidr, GroupId, LinkId, NodeId, Safety, Slot, SourceAddress, VipAddress};
use core::time::Duration;

const SEED: u64 = 7;
const XDP: Mode = Mode::Xdp { forward: Forward::Dsr, flow: FlowFields::Connection };

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `name address:port weight`, with `b` before the weight of a backup.
fn backend(text: &str) -> Backend {
    let words: Vec<&str> = text.split(' ').collect();
    let weight = words[2].trim_start_matches('b');
    Backend {
        weight: weight.parse().unwrap(),
        backup: weight != words[2],
        ..Backend::new(words[0], words[1].parse().unwrap())
    }
}

fn service(mode: Mode, vips: &[&str], port: u16, backends: &[&str]) -> Service {
    Service::new(
        mode,
        vips.iter().map(|vip| ip(vip)).collect(),
        Ports::one(port),
        backends.iter().map(|text| backend(text)).collect(),
    )
}

/// A group with these addresses; this host cannot own those that begin with `!`.
fn group(id: u32, vips: &[&str], services: Vec<Service>) -> Group {
    let address = |vip: &&str| VipAddress {
        cidr: Cidr::new(ip(vip.trim_start_matches('!')), 24).unwrap(),
        link: (!vip.starts_with('!')).then_some(LinkId(1)),
        link_name: "eth0".into(),
        vip_name: "vip".into(),
        presence: Presence::Assigned,
    };
    Group {
        safety: Safety::Available,
        nodes: vec![NodeId(1)],
        services,
        ..Group::new(GroupId(id), &id.to_string(), vips.iter().map(address).collect())
    }
}

fn desired(groups: Vec<Group>) -> Desired {
    let _beat = Duration::from_millis(10);
    Desired::new("test", NodeId(1), vec![], groups)
}

/// The fast path at the beginning, with these backends down.
fn fast(desired: &Desired, down: &[&str]) -> Fast {
    let mut fast = Fast::new(SEED);
    change(&mut fast, 0, desired, down);
    fast
}

fn change(fast: &mut Fast, now: u64, desired: &Desired, down: &[&str]) {
    fast.change(at(now), desired, |_, service, backend| {
        let is_down = down.contains(&backend.name.as_str());
        let state = if is_down { BackendState::Down } else { BackendState::Unknown };
        standing(service, state, false)
    });
}

/// How many slots each backend of the only service has, by name of the file's order: new flows, then
/// those of the past.
fn shares(fast: &Fast, backends: &[&str]) -> Vec<(usize, usize)> {
    let path = fast.path();
    let [service] = &path.services[..] else { panic!("{}", path.services.len()) };
    let count = |text: &&str| {
        let address = backend(text).address;
        let place = service.backends.iter().position(|b| b.address == address);
        let Some(place) = place.and_then(|p| u16::try_from(p).ok()) else { return (0, 0) };
        let current = service.slots.iter().filter(|s| s.current == place).count();
        let moving = |s: &&Slot| s.previous == place && s.current != place;
        (current, service.slots.iter().filter(moving).count())
    };
    backends.iter().map(count).collect()
}

const TWO: [&str; 2] = ["a 10.0.0.1:80 1", "b 10.0.0.2:80 1"];

/// Of each VIP's own version, at once when it changes.
#[test]
fn backends_see_whom_the_file_says() {
    let vips = ["10.0.0.100", "2001:db8::1"];
    let of = |source: SourceAddress| {
        let backends = ["a 10.0.0.1:80 1", "c [2001:db8::9]:80 1"];
        let nat = Mode::Xdp { forward: Forward::Nat, flow: FlowFields::Connection };
        let service = Service { source, ..service(nat, &vips, 80, &backends) };
        desired(vec![group(1, &vips, vec![service])])
    };
    let pools =
        |fast: &Fast| fast.services().map(|service| service.pool.to_vec()).collect::<Vec<_>>();
    let mut fast = fast(&of(SourceAddress::Client), &[]);
    assert!(pools(&fast).iter().all(Vec::is_empty));
    change(&mut fast, 1, &of(SourceAddress::Vip), &[]);
    assert_eq!(pools(&fast), [[ip("10.0.0.100")], [ip("2001:db8::1")]]);
    let list = ["2001:db8::2", "10.0.0.99", "2001:db8::1"].map(ip);
    change(&mut fast, 2, &of(SourceAddress::Pool(list.into())), &[]);
    assert_eq!(pools(&fast), [vec![list[1]], vec![list[0], list[2]]]);
    let adopted = Fast::adopt(SEED, at(3), &fast.path());
    assert_eq!(pools(&adopted), pools(&fast));
}

#[test]
fn a_host_has_the_services_of_mode_xdp_on_addresses_that_it_may_own() {
    let vips = ["10.0.0.100", "2001:db8::1", "10.0.0.99"];
    let backends = ["a 10.0.0.1:80 1", "a6 [2001:db8::11]:80 1"];
    let mut udp = service(XDP, &vips[..1], 80, &backends);
    udp.protocol = Protocol::Udp;
    let wish = desired(vec![
        group(
            1,
            &vips,
            vec![
                service(XDP, &vips, 443, &backends),
                service(Mode::Kernel, &vips, 81, &backends),
                service(Mode::Proxy, &vips, 82, &backends),
                udp,
                service(XDP, &vips[..1], 80, &backends),
            ],
        ),
        group(2, &["!10.0.0.50"], vec![service(XDP, &["10.0.0.50"], 80, &backends)]),
        group(3, &["10.0.0.60"], vec![]),
    ]);
    let path = fast(&wish, &[]).path();
    assert_eq!(path.seed, SEED);
    let got: Vec<_> = path.services.iter().map(|s| (s.address, s.protocol, s.ports)).collect();
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    assert_eq!(
        got,
        [
            (ip("10.0.0.99"), tcp, (443, 443)),
            (ip("10.0.0.100"), tcp, (80, 80)),
            (ip("10.0.0.100"), tcp, (443, 443)),
            (ip("10.0.0.100"), udp, (80, 80)),
            (ip("2001:db8::1"), tcp, (443, 443)),
        ]
    );
    for service in &path.services {
        assert_eq!((service.forward, service.flow), (Forward::Dsr, FlowFields::Connection));
        assert_eq!((service.backends.len(), service.slots.len()), (1, 4096));
        assert_eq!(service.backends[0].address.is_ipv4(), service.address.is_ipv4());
    }
}

#[test]
fn an_address_without_a_backend_of_its_family_has_an_empty_table() {
    let vips = ["2001:db8::1"];
    let path = fast(&desired(vec![group(1, &vips, vec![service(XDP, &vips, 80, &TWO)])]), &[]);
    let path = path.path();
    assert_eq!((path.services.len(), path.services[0].slots.len()), (1, 0));
}

fn one(backends: &[&str]) -> Desired {
    let vips = ["10.0.0.100"];
    desired(vec![group(1, &vips, vec![service(XDP, &vips, 80, backends)])])
}

#[test]
fn who_takes_new_flows_and_who_keeps_old_ones() {
    const ALL: usize = 4096;
    let set = ["a 10.0.0.1:80 1", "b 10.0.0.2:80 3", "sorry 10.0.0.9:80 b1"];
    let drained = ["a 10.0.0.1:80 0", "b 10.0.0.2:80 3", "sorry 10.0.0.9:80 b1"];
    let removed = &set[1..];
    let (a, b) = (ALL / 4, ALL * 3 / 4);
    // What becomes of `set` with everybody up.
    type Case<'c> = (&'c [&'c str], &'c [&'c str], [(usize, usize); 3]);
    let cases: [Case<'_>; 7] = [
        (&set, &[], [(a, 0), (b, 0), (0, 0)]),
        (&drained, &[], [(0, a), (ALL, 0), (0, 0)]),
        (removed, &[], [(0, 0), (ALL, 0), (0, 0)]),
        (&set, &["a"], [(0, 0), (ALL, 0), (0, 0)]),
        (&set, &["a", "b"], [(0, 0), (0, 0), (ALL, 0)]),
        (&drained, &["b"], [(0, a), (0, 0), (ALL, 0)]),
        (&set, &["a", "b", "sorry"], [(0, 0), (0, 0), (0, 0)]),
    ];
    for (backends, down, expected) in cases {
        let mut fast = fast(&one(&set), &[]);
        change(&mut fast, 1, &one(backends), down);
        assert_eq!(shares(&fast, &set), expected, "{backends:?} without {down:?}");
        let moves = expected.iter().any(|(_, kept)| *kept != 0);
        assert_eq!(fast.deadline(), moves.then_some(at(1) + FAST_DRAIN));
        fast.tick(at(1) + FAST_DRAIN);
        let settled = expected.map(|(new, _)| (new, 0));
        assert_eq!(shares(&fast, &set), settled, "{backends:?} without {down:?}: over");
        assert_eq!((fast.deadline(), fast.moving()), (None, 0));
    }
}

#[test]
fn below_the_quorum_backups_take_new_flows_and_a_new_quorum_is_followed() {
    let set = ["a 10.0.0.1:80 1", "b 10.0.0.2:80 1", "sorry 10.0.0.9:80 b1"];
    let mut wish = one(&set);
    let mut fast = fast(&wish, &["a"]);
    assert_eq!(shares(&fast, &set), [(0, 0), (4096, 0), (0, 0)]);
    wish.groups[0].services[0].life.quorum = 2;
    change(&mut fast, 1, &wish, &["a"]);
    assert_eq!(shares(&fast, &set), [(0, 0), (0, 4096), (4096, 0)], "b keeps what it has");
    change(&mut fast, 2, &wish, &["a", "sorry"]);
    let new: Vec<usize> = shares(&fast, &set).iter().map(|(new, _)| *new).collect();
    assert_eq!(new, [0, 4096, 0], "few are better than none");
}

#[test]
fn a_backup_that_is_not_needed_any_more_finishes_what_it_has() {
    let set = ["a 10.0.0.1:80 1", "sorry 10.0.0.9:80 b1"];
    let mut fast = fast(&one(&set), &["a"]);
    assert_eq!(shares(&fast, &set), [(0, 0), (4096, 0)]);
    change(&mut fast, 1, &one(&set), &[]);
    assert_eq!(shares(&fast, &set), [(4096, 0), (0, 4096)]);
}

#[test]
fn nodes_that_know_the_same_have_the_same_path() {
    let reversed: Vec<&str> = TWO.iter().rev().copied().collect();
    let (left, right) = (fast(&one(&TWO), &[]), fast(&one(&reversed), &[]));
    assert_eq!(left.digest(), right.digest());
    assert_eq!(left.path(), right.path(), "places too");
    // The past does not count for the digest, and everything else does.
    let mut other = fast(&one(&TWO[..1]), &[]);
    assert_ne!(other.digest(), left.digest());
    change(&mut other, 1, &one(&TWO), &[]);
    assert_eq!(other.digest(), left.digest());
    assert_ne!(other.path(), left.path());
    assert_ne!(fast(&one(&TWO), &["a"]).digest(), left.digest());
    assert_ne!(Fast::new(8).digest(), Fast::new(7).digest());
    assert_eq!(
        left.digest(),
        2_790_067_755,
        "of today and tomorrow: a changed number here breaks upgrades"
    );
}

#[test]
fn what_is_not_in_the_file_any_more_is_not_in_the_path() {
    let mut fast = fast(&one(&TWO), &[]);
    change(&mut fast, 1, &desired(vec![]), &[]);
    assert_eq!(fast.path(), FastPath { seed: SEED, services: vec![] });
    assert_eq!(fast.deadline(), None);
}

#[test]
fn another_way_to_forward_keeps_the_table_and_another_hash_does_not() {
    let with = |mode| {
        let vips = ["10.0.0.100"];
        desired(vec![group(1, &vips, vec![service(mode, &vips, 80, &TWO)])])
    };
    let drained = ["a 10.0.0.1:80 0", TWO[1]];
    let mut fast = fast(&one(&TWO), &[]);
    change(&mut fast, 1, &one(&drained), &[]);
    let moving = fast.moving();
    assert_eq!(moving, 2048);
    change(
        &mut fast,
        2,
        &with(Mode::Xdp { forward: Forward::Nat, flow: FlowFields::Connection }),
        &[],
    );
    assert_eq!(fast.path().services[0].forward, Forward::Nat);
    assert_eq!(fast.moving(), moving, "a has them again, and those of b in between are remembered");
    change(&mut fast, 3, &with(Mode::Xdp { forward: Forward::Nat, flow: FlowFields::Client }), &[]);
    assert_eq!(fast.moving(), 0, "flows are in other slots now");
    assert_eq!(fast.path().services[0].flow, FlowFields::Client);
}

#[test]
fn another_list_of_clients_keeps_the_table_and_is_kept_by_the_next_run() {
    let prefix = Cidr::new(ip("10.0.0.0"), 8).unwrap();
    let list = Arc::new(Sources::new([buoy_model::SourceRule { prefix, allows: true }]).unwrap());
    let mut wanted = one(&TWO);
    let mut fast = fast(&wanted, &[]);
    let before = fast.path();
    wanted.groups[0].services[0].sources = Arc::clone(&list);
    change(&mut fast, 1, &wanted, &[]);
    let after = fast.path();
    assert!(Arc::ptr_eq(&after.services[0].sources, &list));
    assert!(Arc::ptr_eq(&after.services[0].slots, &before.services[0].slots));
    assert!(Arc::ptr_eq(&after.services[0].backends, &before.services[0].backends));
    assert_eq!(fast.deadline(), None, "no slot changes hands");
    assert_eq!(Fast::adopt(SEED, at(2), &after).path(), after);
}

#[test]
fn an_agent_that_starts_again_changes_nothing_of_the_path() {
    let drained = ["a 10.0.0.1:80 0", TWO[1]];
    let mut first = fast(&one(&TWO), &[]);
    change(&mut first, 1, &one(&drained), &[]);
    let path = first.path();
    let mut second = Fast::adopt(SEED, at(100), &path);
    assert_eq!(second.path(), path);
    change(&mut second, 100, &one(&drained), &[]);
    assert_eq!(second.path(), path);
    assert_eq!(second.digest(), first.digest());
    assert_eq!(second.deadline(), Some(at(100) + FAST_DRAIN));
    let stranger = Fast::adopt(SEED + 1, at(100), &path);
    assert!(stranger.path().services.is_empty(), "another seed: other slots");
}

#[test]
fn a_pool_of_many_addresses_has_the_table_of_one() {
    let vips: Vec<_> = (0..200).map(|i| format!("10.0.1.{i}")).collect();
    let pool = |vip: &String| group(name(vip), &[vip], vec![service(XDP, &[vip], 80, &TWO)]);
    fn name(vip: &str) -> u32 {
        buoy_model::name_key(vip)
    }
    let desired = desired(vips.iter().map(pool).collect());
    let mut fast = fast(&desired, &[]);
    let hold = |fast: &Fast, moving: usize| {
        let path = fast.path();
        assert_eq!(path.services.len(), 200);
        let one = &path.services[0];
        assert!(path.services.iter().all(|s| Arc::ptr_eq(&s.slots, &one.slots)));
        assert!(path.services.iter().all(|s| Arc::ptr_eq(&s.backends, &one.backends)));
        assert_eq!(fast.moving(), moving * 200);
        path
    };
    let first = hold(&fast, 0);
    change(&mut fast, 1, &desired, &["b"]);
    hold(&fast, 0);
    change(&mut fast, 2, &desired, &[]);
    hold(&fast, 2048);
    let adopted = Fast::adopt(SEED, at(3), &fast.path());
    hold(&adopted, 2048);
    fast.tick(at(2) + FAST_DRAIN);
    let last = hold(&fast, 0);
    assert_eq!(first.services[0].slots, last.services[0].slots);
}

#[test]
fn a_range_is_one_service_and_stands_beside_one_of_its_ports() {
    let mut all = service(XDP, &["10.0.0.100"], 80, &["a 10.0.0.1:0 1", "b 10.0.0.2:0 1"]);
    all.ports = Ports::ALL;
    let mut some = service(XDP, &["10.0.0.100"], 80, &["c 10.0.0.3:8000 1"]);
    some.ports = Ports::new(8000, 8099).unwrap();
    let one = service(XDP, &["10.0.0.100"], 8000, &["d 10.0.0.4:8000 1"]);
    let desired = desired(vec![group(1, &["10.0.0.100"], vec![some, one, all])]);
    let mut fast = fast(&desired, &[]);
    let path = fast.path();
    let ports: Vec<_> = path.services.iter().map(|s| (s.ports, s.backends.len())).collect();
    assert_eq!(ports, [((0, 65535), 2), ((8000, 8000), 1), ((8000, 8099), 1)]);
    // Another end is another service, and tells in the digest.
    let mut longer = desired.clone();
    longer.groups[0].services[0].ports = Ports::new(8000, 8100).unwrap();
    let digest = fast.digest();
    change(&mut fast, 1, &longer, &[]);
    assert_ne!(fast.digest(), digest);
    // The next run knows all of them again.
    let mut next = Fast::adopt(SEED, at(1), &path);
    change(&mut next, 2, &desired, &[]);
    assert_eq!(next.path(), path);
}

#[test]
fn nftables_sends_to_neighbours_on_the_interface_of_the_vip() {
    use Substitute::Direct;
    let stands_in = |vips: &[&str], backends: &[&str]| {
        let group = group(1, vips, vec![service(XDP, vips, 80, backends)]);
        let mut desired = desired(vec![]);
        desired.nodes = vec![Node::new("n1", "10.0.0.11:4747".parse().unwrap())];
        substitute(&desired, &group, &group.services[0])
    };
    let near = ["a 10.0.0.1:80 1", "b 10.0.0.2:80 1"];
    assert_eq!(stands_in(&["10.0.0.100"], &near), Some(Direct));
    let far = [near[0], "b 10.9.0.2:80 1"];
    assert_eq!(stands_in(&["10.0.0.100"], &far), None, "behind a router, or another interface");
    let node = [near[0], "n1 10.0.0.11:80 1"];
    assert_eq!(stands_in(&["10.0.0.100"], &node), None, "a node may be this host");
    let both = [near[0], "b [fd00::2]:80 1"];
    assert_eq!(stands_in(&["10.0.0.100", "fd00::100"], &both), Some(Direct));
    let far = [near[0], "b [fd09::2]:80 1"];
    assert_eq!(stands_in(&["10.0.0.100", "fd00::100"], &far), None);
}

#[test]
fn nftables_stands_in_where_ports_keep_their_numbers_or_are_few() {
    let nat = Mode::Xdp { forward: Forward::Nat, flow: FlowFields::Connection };
    let of = |first, last, mode, backends: &[&str]| Service {
        ports: Ports::new(first, last).unwrap(),
        ..service(mode, &["10.0.0.100"], 1, backends)
    };
    let table: [(u16, u16, Mode, &[&str], bool); 7] = [
        (80, 80, nat, &["a 10.0.0.1:81 1", "b 10.0.0.2:82 1"], true),
        (0, 65535, nat, &["a 10.0.0.1:0 1", "b 10.0.0.2:0 1"], true),
        (8000, 9999, nat, &["a 10.0.0.1:8000 1", "b [fd00::1]:8000 1"], true),
        (8000, 9023, nat, &["a 10.0.0.1:9000 1", "b 10.0.0.2:9000 1"], true),
        (8000, 9023, nat, &["a 10.0.0.1:9000 1", "b [fd00::1]:9001 1"], true),
        (8000, 9023, nat, &["a 10.0.0.1:9000 1", "b 10.0.0.2:9001 1"], false),
        (8000, 9024, nat, &["a 10.0.0.1:9000 1", "b 10.0.0.2:9000 1"], false),
    ];
    for (first, last, mode, backends, expected) in table {
        let service = of(first, last, mode, backends);
        let mut group = group(1, &["10.0.0.100"], vec![service]);
        let found = |group: &Group| substitute(&desired(vec![]), group, &group.services[0]);
        let expected = expected.then_some(Substitute::Translate);
        assert_eq!(found(&group), expected, "{first}-{last} {backends:?}");
        group.addresses[0].presence = Presence::Answered;
        assert_eq!(found(&group), None, "nobody would answer for the address");
    }
}

#[test]
fn who_is_down_keeps_its_connections_where_the_file_says_so_and_gets_no_new_ones() {
    for (on_down, left, is_left) in [
        (None, 0, Standing::Down),
        (Some(OnDown::Reset), 0, Standing::Down),
        (Some(OnDown::Keep), 2048, Standing::Keeps),
    ] {
        let mut tcp = service(XDP, &["10.0.0.100"], 80, &TWO);
        tcp.life.on_down = on_down;
        let client = FlowFields::Client;
        tcp.life.stick = Some(buoy_model::Stick { timeout: Duration::from_secs(60), client });
        let mut udp = tcp.clone();
        udp.protocol = Protocol::Udp;
        let both = |services| desired(vec![group(1, &["10.0.0.100"], services)]);
        let mut one = fast(&both(vec![tcp.clone()]), &[]);
        assert_eq!(shares(&one, &TWO), [(2048, 0), (2048, 0)]);
        change(&mut one, 1, &both(vec![tcp.clone()]), &["b"]);
        assert_eq!(shares(&one, &TWO), [(4096, 0), (0, left)], "{on_down:?}");
        assert_eq!(one.path().services[0].backends[1].standing, is_left);
        // It was down for a moment: what it had is there, and its share is.
        change(&mut one, 4, &both(vec![tcp.clone()]), &[]);
        assert_eq!(shares(&one, &TWO)[1].0, 2048);
        assert_eq!(one.path().services[0].backends[1].standing, Standing::Up);
        let mut other = fast(&both(vec![udp.clone()]), &[]);
        change(&mut other, 1, &both(vec![udp]), &["b"]);
        assert_eq!(shares(&other, &TWO), [(4096, 0), (0, 0)], "datagrams go on at once");
        // By order it has nothing, whatever the file says.
        let desired = both(vec![tcp]);
        one.change(at(9), &desired, |_, service, backend| {
            standing(service, BackendState::Down, backend.name == "b")
        });
        assert_eq!(one.path().services[0].backends[1].standing, Standing::Down);
    }
}

#[test]
fn backends_have_the_names_that_connection_ids_call_them() {
    let mut quic = service(XDP, &["10.0.0.100"], 443, &TWO);
    quic.protocol = Protocol::Udp;
    quic.front.quic = Some(Quic { config: 1, length: 1 });
    for (n, backend) in (7..).zip(&mut quic.backends) {
        backend.server_id = buoy_model::ServerId::new(&[n]);
    }
    let path = fast(&desired(vec![group(1, &["10.0.0.100"], vec![quic])]), &["b"]).path();
    let [service] = &path.services[..] else { panic!("{}", path.services.len()) };
    let ids = service.backends.iter().map(|b| (b.server_id.map(|id| id.number()), b.standing));
    let ids: Vec<_> = ids.collect();
    assert_eq!(ids, [(Some(7), Standing::Up), (None, Standing::Down)], "who is down is nobody");
    assert_eq!(service.quic, Some(Quic { config: 1, length: 1 }));
}

/// Groups, each with a service of its own backends on two VIPs, but for the last two, which have the same.
fn many() -> Desired {
    let one = |n: u32| {
        let vips = [format!("10.0.1.{n}"), format!("fd00::{n}")];
        let pool = n.min(4);
        let backends: Vec<String> = (0..3)
            .flat_map(|at| {
                [
                    format!("{pool}-{at} 10.0.{pool}.{at}:80 1"),
                    format!("{pool}+{at} [fd01:{pool}::{at}]:80 1"),
                ]
            })
            .collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let vips: Vec<&str> = vips.iter().map(String::as_str).collect();
        group(n, &vips, vec![service(XDP, &vips, 80, &backends)])
    };
    desired((0..6).map(one).collect())
}

/// Random states of random backends: one path follows all services, one those that are said to be other, and one is
/// put together of what `changed` tells.
#[test]
fn a_path_that_follows_what_changed_is_the_one_that_follows_everything() {
    let desired = many();
    let mut down: Vec<String> = vec![];
    let (mut whole, mut some) = (fast(&desired, &[]), fast(&desired, &[]));
    assert_eq!(some.changed(), None, "all of it has come");
    let mut told = some.path();
    let (mut word, mut now, mut most) = (1, 0, 0);
    for _ in 0..400 {
        word = mix(word);
        now += 1 + (word >> 32) % 60;
        let pool = word % 5;
        let name = format!("{pool}-{}", (word >> 8) % 3);
        match down.iter().position(|known| *known == name) {
            Some(place) => drop(down.remove(place)),
            None => down.push(name),
        }
        let down: Vec<&str> = down.iter().map(String::as_str).collect();
        whole.tick(at(now));
        change(&mut whole, now, &desired, &down);
        some.tick(at(now));
        let groups = desired.groups.iter().filter(|g| u64::from(g.id.0.min(4)) == pool);
        let services = groups.flat_map(|g| g.services.iter().map(move |s| (g, s)));
        some.change_of(at(now), services, |_, service, backend| {
            let is_down = down.contains(&backend.name.as_str());
            let state = if is_down { BackendState::Down } else { BackendState::Unknown };
            standing(service, state, false)
        });
        let changed = some.changed().expect("nothing came or went");
        most = most.max(changed.len());
        for service in changed {
            let key = |s: &FastService| (s.address, s.protocol, s.ports);
            let place = told.services.iter().position(|s| key(s) == key(&service)).unwrap();
            told.services[place] = service;
        }
        let path = whole.path();
        assert_eq!(some.path(), path);
        assert_eq!(told, path);
        assert_eq!((some.deadline(), some.moving()), (whole.deadline(), whole.moving()));
        assert_eq!(some.digest(), whole.digest());
    }
    assert!(most < told.services.len(), "never all of them");
    assert_eq!(some.changed(), Some(vec![]));
    change(&mut some, now, &one(&TWO), &[]);
    assert_eq!(some.changed(), None, "others have come, and those have gone");
}

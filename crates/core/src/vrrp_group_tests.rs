//! Hosts that know each other by VRRP only: who serves, what is refused, and what others do not notice.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for one kind of action")]

use crate::{Fence, Node, RouterState, Settings};
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::{format, vec, vec::Vec};
use buoy_model::{
    Action, Advert, AdvertReject, Cause, Cidr, Desired, Event, Fact, Failback, Fitness, Group,
    GroupId, HeardAdvert, HmacMode, Incarnation, Instant, LinkId, Node as Member, NodeId, Order,
    Password, Presence, Proof, Safety, Stamp, Timing, VipAddress, VirtualRouter, VrrpAuth,
    VrrpChecksum, VrrpHmac, VrrpVersion,
};
use core::net::IpAddr;
use core::time::Duration;

const LINK: LinkId = LinkId(3);
const SECOND: Duration = Duration::from_secs(1);

fn source(host: u8) -> IpAddr {
    [10, 0, 0, host].into()
}

fn vip(router: u8) -> IpAddr {
    [10, 0, 0, 100 + router].into()
}

fn router(id: u8, host: u8, priority: u8) -> VirtualRouter {
    VirtualRouter {
        id,
        v6: false,
        link: Some(LINK),
        source: Some(source(host)),
        addresses: vec![vip(id)],
        version: VrrpVersion::V3,
        priority,
        interval: SECOND,
        peers: vec![],
        accept: true,
        virtual_mac: false,
        min_ttl: 255,
        checksum: VrrpChecksum::Auto,
        auth: VrrpAuth::None,
    }
}

/// One host, a cluster of its own, with one group of these virtual routers.
fn desired(host: u8, routers: Vec<VirtualRouter>) -> Desired {
    let name = format!("lb{host}");
    let me = NodeId::of(&name);
    let address = |router: &VirtualRouter| VipAddress {
        cidr: Cidr::new(vip(router.id), 24).unwrap(),
        link: Some(LINK),
        link_name: "eth0".into(),
        vip_name: "web".into(),
        presence: Presence::Assigned,
    };
    let addresses = routers.iter().map(address).collect();
    let group = Group {
        safety: Safety::Available,
        nodes: vec![me],
        failback: Failback::After(Duration::ZERO),
        vrrp: routers.into_iter().map(Arc::new).collect(),
        ..Group::new(GroupId(1), "web", addresses)
    };
    let members = vec![Member::new(&name, "10.0.0.1:4747".parse().unwrap())];
    Desired {
        leg_links: vec![Some(LINK)],
        timing: Timing {
            heartbeat: Duration::from_millis(10),
            lease: Duration::from_millis(50),
            lease_max: Duration::from_millis(50),
        },
        ..Desired::new("buoy", me, members, vec![group])
    }
}

/// Hosts on one segment, with one clock; those that are cut neither speak nor hear.
struct Segment {
    now: Instant,
    hosts: Vec<Node>,
    cut: Vec<usize>,
    done: Vec<(usize, Action)>,
}

impl Segment {
    fn new(hosts: Vec<Desired>) -> Self {
        let start = |(i, desired)| {
            let incarnation = Incarnation(i as u64 + 1);
            let settings = Settings {
                incarnation,
                seed: incarnation.0,
                fence: Fence::Gate,
                #[cfg(feature = "mutants")]
                mutation: None,
            };
            Node::new(Instant::ZERO, Arc::new(desired), settings)
        };
        let hosts = hosts.into_iter().enumerate().map(start).collect();
        Self { now: Instant::ZERO, hosts, cut: vec![], done: vec![] }
    }

    /// Hosts 1, 2, ... with these priorities for one virtual router.
    fn of(priorities: &[u8]) -> Self {
        let hosts = (1..).zip(priorities);
        Self::new(hosts.map(|(host, p)| desired(host, vec![router(1, host, *p)])).collect())
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = (0..self.hosts.len()).filter_map(|i| Some((self.hosts[i].deadline()?, i)));
            let Some((at, i)) = due.min().filter(|(at, _)| *at <= end) else { break };
            self.now = self.now.max(at);
            self.give(i, Event::Tick);
        }
        self.now = end;
    }

    fn give(&mut self, i: usize, event: Event<'_>) {
        let mut out = vec![];
        self.hosts[i].handle(self.now, event, &mut out);
        let said = out.iter().filter_map(|action| match action {
            Action::Advertise { router, priority, .. } => Some((Arc::clone(router), *priority)),
            _ => None,
        });
        let said: Vec<_> = said.collect();
        self.done.extend(out.into_iter().map(|action| (i, action)));
        for (router, priority) in said {
            let heard = advert(&router, priority);
            for other in (0..self.hosts.len()).filter(|other| *other != i) {
                if !self.cut.contains(&i) && !self.cut.contains(&other) {
                    self.give(other, Event::Advert(&heard));
                }
            }
        }
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|i| self.hosts[*i].serves_now() > 0).collect()
    }

    fn causes(&self, host: usize) -> Vec<Cause> {
        let of = |(i, action): &(usize, Action)| match action {
            Action::Record(record) if *i == host => match &record.fact {
                Fact::Acquired { cause, .. } | Fact::Released { cause, .. } => Some(cause.clone()),
                _ => None,
            },
            _ => None,
        };
        self.done.iter().filter_map(of).collect()
    }

    fn refused(&mut self, host: usize, heard: &HeardAdvert) -> Option<AdvertReject> {
        let before = self.hosts[host].status(self.now).groups[0].refused.clone();
        self.give(host, Event::Advert(heard));
        let after = self.hosts[host].status(self.now).groups[0].refused.clone();
        after.into_iter().find(|count| !before.contains(count)).map(|(reason, _)| reason)
    }
}

fn advert(router: &VirtualRouter, priority: u8) -> HeardAdvert {
    HeardAdvert {
        link: LINK,
        source: router.source.unwrap(),
        multicast: router.peers.is_empty(),
        ttl: 255,
        id: router.id,
        advert: Ok(Advert {
            version: router.version,
            id: router.id,
            priority,
            interval: router.interval,
            addresses: router.addresses.clone(),
            plain_checksum: false,
            proof: Proof::None,
        }),
        clock_apart: Duration::ZERO,
    }
}

fn with(heard: &HeardAdvert, change: impl Fn(&mut Advert)) -> HeardAdvert {
    let mut heard = heard.clone();
    if let Ok(advert) = &mut heard.advert {
        change(advert);
    }
    heard
}

#[test]
fn the_best_priority_owns_and_is_succeeded_within_three_intervals_and_the_skew() {
    let mut segment = Segment::of(&[100, 200, 150]);
    segment.run(SECOND * 10);
    assert_eq!(segment.owners(), [1]);
    segment.cut = vec![1];
    segment.run(SECOND * 2);
    assert_eq!(segment.owners(), [1], "the silence is not over");
    segment.run(SECOND + SECOND * 106 / 256);
    assert_eq!(segment.owners(), [1, 2], "cut in two, both own it: that is VRRP");
    let silent = matches!(segment.causes(2).last(), Some(Cause::RouterSilent { .. }));
    assert!(silent, "{:?}", segment.causes(2));
    segment.cut = vec![];
    segment.run(SECOND);
    assert_eq!(segment.owners(), [1], "the better one stays, the other steps back");
    let better = Cause::RouterBetter { source: source(2), priority: 200 };
    assert_eq!(segment.causes(2).last(), Some(&better));
}

#[test]
fn a_tie_goes_to_the_greater_address() {
    let mut segment = Segment::of(&[100, 100]);
    segment.cut = vec![0, 1];
    segment.run(SECOND * 5);
    assert_eq!(segment.owners(), [0, 1]);
    segment.cut = vec![];
    segment.run(SECOND);
    assert_eq!(segment.owners(), [1]);
}

#[test]
fn a_drain_and_a_stop_hand_over_after_the_skew_alone() {
    for order in [true, false] {
        let mut segment = Segment::of(&[100, 200]);
        segment.run(SECOND * 10);
        let reason = "disk".to_string();
        let event =
            if order { Event::Order(Order::Drain { reason, until: None }) } else { Event::Stop };
        segment.give(1, event);
        assert_eq!(segment.owners(), [0; 0], "silent before it is said");
        segment.run(SECOND * 157 / 256);
        assert_eq!(segment.owners(), [0], "order: {order}");
        assert_eq!(segment.causes(0), [Cause::RouterReleased]);
        let closed = segment.done.iter().rposition(|(i, action)| {
            *i == 1 && matches!(action, Action::Fence { until: Instant::ZERO, .. })
        });
        let said = segment.done.iter().rposition(|(i, action)| {
            *i == 1 && matches!(action, Action::Advertise { priority: 0, .. })
        });
        assert!(closed < said && closed.is_some(), "{closed:?} {said:?}");
    }
}

#[test]
fn a_better_one_comes_back_at_once_never_or_after_its_delay() {
    let cases = [
        (Failback::After(Duration::ZERO), 6, 1),
        (Failback::After(SECOND * 30), 2, 0),
        (Failback::Never, 600, 0),
    ];
    for (failback, seconds, owner) in cases {
        let mut segment = Segment::of(&[100, 200]);
        for host in &mut segment.hosts {
            let mut desired = Desired::clone(&host.desired);
            desired.groups[0].failback = failback;
            host.desired = Arc::new(desired);
        }
        segment.run(SECOND * 10);
        segment.give(1, Event::Link { link: LINK, up: false });
        segment.run(SECOND);
        assert_eq!(segment.owners(), [0]);
        segment.give(1, Event::Link { link: LINK, up: true });
        segment.run(SECOND * seconds);
        assert_eq!(segment.owners(), [owner], "{failback:?} after {seconds} s");
        segment.run(SECOND * 31);
        let at_last = usize::from(failback != Failback::Never);
        assert_eq!(segment.owners(), [at_last], "{failback:?} at last");
    }
}

#[test]
fn a_check_without_weight_gives_up_and_one_with_weight_changes_the_order() {
    let group = GroupId(1);
    let mut segment = Segment::of(&[100, 110]);
    segment.run(SECOND * 10);
    assert_eq!(segment.owners(), [1]);
    segment.give(1, Event::Weight { group, weight: -20 });
    segment.run(SECOND * 157 / 256);
    assert_eq!(segment.owners(), [0], "make before break, not a silence later");
    assert_eq!(segment.causes(0), [Cause::RouterWorse { source: source(2), priority: 90 }]);
    segment.give(1, Event::Weight { group, weight: 0 });
    segment.run(SECOND * 2);
    assert_eq!(segment.owners(), [1]);
    let fails = Fitness::CheckFails { check: "nginx".into() };
    segment.give(1, Event::Fitness { group, fitness: fails.clone() });
    segment.run(SECOND);
    assert_eq!(segment.owners(), [0]);
    segment.give(0, Event::Fitness { group, fitness: fails });
    segment.run(SECOND * 10);
    assert_eq!(segment.owners(), [0; 0], "as keepalived: who fails is in no election");
    segment.give(1, Event::Fitness { group, fitness: Fitness::NoBackend });
    segment.run(SECOND * 10);
    assert_eq!(segment.owners(), [1], "without backends it owns if nobody else does");
    let router = segment.hosts[1].status(segment.now).groups[0].vrrp[0].clone();
    assert_eq!((router.state, router.priority), (RouterState::Active, 1));
    assert!(router.gives_precedence, "that is why");
}

#[test]
fn a_sync_group_moves_as_one() {
    // Each is better at one of the two.
    let both = |host, a, b| desired(host, vec![router(1, host, a), router(2, host, b)]);
    let mut segment = Segment::new(vec![both(1, 200, 100), both(2, 100, 200)]);
    segment.run(SECOND * 20);
    let owners = segment.owners();
    assert_eq!(owners.len(), 1, "one owner of both");
    let changes = segment.causes(0).len() + segment.causes(1).len();
    segment.run(SECOND * 100);
    assert_eq!(segment.owners(), owners, "and it stays there");
    assert_eq!(segment.causes(0).len() + segment.causes(1).len(), changes);
    // One of the two is heard better elsewhere: both go.
    let owner = owners[0];
    let id = if owner == 0 { 2 } else { 1 };
    let better = advert(&router(id, 9, 250), 250);
    segment.give(owner, Event::Advert(&better));
    assert!(!segment.owners().contains(&owner));
}

#[test]
fn the_lease_is_what_the_protocol_promises() {
    let mut segment = Segment::of(&[100]);
    segment.run(SECOND * 10);
    assert_eq!(segment.owners(), [0]);
    let mut untils = segment.done.iter().rev().filter_map(|(_, action)| match action {
        Action::Fence { until, lease, .. } if *until > Instant::ZERO => Some((*until, *lease)),
        _ => None,
    });
    let (until, lease) = untils.next().expect("it serves");
    assert_eq!(lease, None, "its own, not that of the loop");
    let said = until - SECOND * 3;
    assert!(said <= segment.now && segment.now.since(said) <= SECOND, "{said:?}");
    // A loop that was frozen for longer has lost it, and listens before it takes it again.
    segment.now = until + Duration::from_millis(1);
    segment.give(0, Event::Tick);
    assert_eq!(segment.owners(), [0; 0]);
    assert_eq!(segment.causes(0).last(), Some(&Cause::Stalled));
    segment.run(SECOND * 4);
    assert_eq!(segment.owners(), [0]);
}

#[test]
fn what_is_wrong_with_a_packet_is_counted_by_its_reason_and_moves_nothing() {
    let mut segment = Segment::of(&[100, 50]);
    segment.run(SECOND * 10);
    let good = advert(&router(1, 9, 250), 250);
    let cases = [
        (HeardAdvert { ttl: 254, ..good.clone() }, AdvertReject::Ttl),
        (
            HeardAdvert { advert: Err(AdvertReject::Checksum), ..good.clone() },
            AdvertReject::Checksum,
        ),
        (with(&good, |a| a.version = VrrpVersion::V2), AdvertReject::Version),
        (HeardAdvert { multicast: false, ..good.clone() }, AdvertReject::Destination),
        (HeardAdvert { source: source(1), ..good.clone() }, AdvertReject::Ourselves),
        (with(&good, |a| a.interval = Duration::ZERO), AdvertReject::Interval),
        (
            with(&good, |a| a.proof = Proof::Password(Password(*b"password"))),
            AdvertReject::Password,
        ),
    ];
    for (heard, reason) in cases {
        for _ in 0..100 {
            assert_eq!(segment.refused(0, &heard), Some(reason), "{heard:?}");
        }
    }
    assert_eq!(segment.owners(), [0]);
    let told = segment.done.iter().filter(|(_, action)| match action {
        Action::Record(record) => matches!(record.fact, Fact::AdvertRefused { .. }),
        _ => false,
    });
    assert_eq!(told.count(), 7, "an event for each reason, not for each packet");
    // What is about another router, another link or another family is not ours to judge.
    for heard in [
        HeardAdvert { id: 2, ..good.clone() },
        HeardAdvert { link: LinkId(9), ..good.clone() },
        HeardAdvert { source: "fe80::1".parse().unwrap(), ..good.clone() },
    ] {
        assert_eq!(segment.refused(0, &heard), None);
    }
    assert_eq!(segment.hosts[0].status(segment.now).ignored.foreign_router, 3);
    assert_eq!(segment.owners(), [0]);
    let traffic =
        |host: usize| segment.hosts[host].status(segment.now).groups[0].vrrp[0].traffic.clone();
    assert_eq!(
        (traffic(0).sent, traffic(0).heard),
        (traffic(1).heard, 0),
        "what one says the other hears"
    );
    assert!(traffic(0).sent > 5 && traffic(1).sent == 0);
    assert_eq!(
        (traffic(0).refused.len(), traffic(1).refused.len()),
        (7, 0),
        "only reasons that there were"
    );
    assert!(traffic(0).refused.iter().all(|(_, count)| *count == 100));
}

#[test]
fn other_addresses_are_told_once_and_gate_nothing() {
    let mut segment = Segment::of(&[100]);
    segment.run(SECOND * 10);
    let other = with(&advert(&router(1, 9, 250), 250), |a| a.addresses.push(vip(9)));
    for _ in 0..3 {
        segment.give(0, Event::Advert(&other));
    }
    assert_eq!(segment.owners(), [0; 0]);
    let told = segment.done.iter().filter(|(_, action)| match action {
        Action::Record(record) => matches!(record.fact, Fact::AdvertDiffers { .. }),
        _ => false,
    });
    assert_eq!(told.count(), 1);
}

fn unicast(host: u8, priority: u8) -> VirtualRouter {
    VirtualRouter { peers: vec![source(1), source(2)], ..router(1, host, priority) }
}

#[test]
fn unicast_listens_to_its_peers_from_as_far_as_it_is_told() {
    let mut segment =
        Segment::new(vec![desired(1, vec![unicast(1, 100)]), desired(2, vec![unicast(2, 200)])]);
    segment.run(SECOND * 10);
    assert_eq!(segment.owners(), [1]);
    let stranger = advert(&unicast(9, 250), 250);
    assert_eq!(segment.refused(1, &stranger), Some(AdvertReject::Stranger));
    let far = HeardAdvert { ttl: 250, ..advert(&unicast(1, 250), 250) };
    assert_eq!(segment.refused(1, &far), Some(AdvertReject::Ttl));
    let everybody = HeardAdvert { multicast: true, ..advert(&unicast(1, 250), 250) };
    assert_eq!(segment.refused(1, &everybody), Some(AdvertReject::Destination));
    let mut far_router = unicast(2, 200);
    far_router.min_ttl = 240;
    segment.give(1, Event::Reload(Arc::new(desired(2, vec![far_router]))));
    assert_eq!(segment.owners(), [1], "a reload that changes no router changes no owner");
    assert_eq!(segment.refused(1, &far), None);
    assert_eq!(segment.owners(), [0; 0], "it is a better one now");
}

fn signed(mode: HmacMode) -> VirtualRouter {
    let hmac = VrrpHmac { keys: vec![], mode, window: SECOND * 5 };
    VirtualRouter { auth: VrrpAuth::Hmac(hmac), ..router(1, 1, 100) }
}

#[test]
fn who_must_sign_is_believed_once_and_in_time() {
    let stamp = |counter| Stamp { seconds: 7, fraction: 0, counter };
    let good = advert(&router(1, 9, 250), 250);
    let proof = |proof| with(&good, move |a| a.proof = proof);
    let late = HeardAdvert { clock_apart: SECOND * 6, ..proof(Proof::Signed(stamp(9))) };
    let cases = [
        (HmacMode::Enforce, proof(Proof::None), Some(AdvertReject::Unsigned)),
        (HmacMode::Enforce, proof(Proof::Unknown(3)), Some(AdvertReject::Unsigned)),
        (HmacMode::Enforce, proof(Proof::Forged), Some(AdvertReject::Forged)),
        (HmacMode::Enforce, late.clone(), Some(AdvertReject::Replayed)),
        (HmacMode::Enforce, proof(Proof::Signed(stamp(1))), None),
        (HmacMode::Permissive, proof(Proof::None), None),
        (HmacMode::Permissive, proof(Proof::Forged), Some(AdvertReject::Forged)),
        (HmacMode::ReceiveOnly, proof(Proof::None), None),
        (HmacMode::ReceiveOnly, proof(Proof::Forged), Some(AdvertReject::Forged)),
        (HmacMode::ReceiveOnly, late, Some(AdvertReject::Replayed)),
    ];
    for (mode, heard, reason) in cases {
        let mut segment = Segment::new(vec![desired(1, vec![signed(mode)])]);
        segment.run(SECOND * 10);
        assert_eq!(segment.refused(0, &heard), reason, "{mode:?} {heard:?}");
        assert_eq!(segment.owners().is_empty(), reason.is_none(), "{mode:?} {heard:?}");
    }
    let mut segment = Segment::new(vec![desired(1, vec![signed(HmacMode::Enforce)])]);
    segment.run(SECOND * 10);
    let said = |counter| with(&good, move |a| a.proof = Proof::Signed(stamp(counter)));
    assert_eq!(segment.refused(0, &said(5)), None);
    for counter in [5, 4, 0] {
        assert_eq!(segment.refused(0, &said(counter)), Some(AdvertReject::Replayed), "{counter}");
    }
    assert_eq!(segment.refused(0, &said(6)), None);
}

#[test]
fn version_2_wants_the_same_interval_and_the_same_password() {
    let old = |host, priority| VirtualRouter {
        version: VrrpVersion::V2,
        auth: VrrpAuth::Password(Password(*b"secret\0\0")),
        ..router(1, host, priority)
    };
    let mut segment = Segment::new(vec![desired(1, vec![old(1, 100)])]);
    segment.run(SECOND * 10);
    let right = |a: &mut Advert| a.proof = Proof::Password(Password(*b"secret\0\0"));
    let good = with(&advert(&old(9, 250), 250), right);
    let slow = with(&good, |a| a.interval = SECOND * 2);
    assert_eq!(segment.refused(0, &slow), Some(AdvertReject::Interval));
    let wrong = with(&good, |a| a.proof = Proof::Password(Password(*b"secreT\0\0")));
    assert_eq!(segment.refused(0, &wrong), Some(AdvertReject::Password));
    assert_eq!(
        segment.refused(0, &with(&good, |a| a.proof = Proof::None)),
        Some(AdvertReject::Password)
    );
    assert_eq!(segment.refused(0, &good), None);
    assert_eq!(segment.owners(), [0; 0]);
}

#[test]
fn the_checksum_follows_the_peers_where_it_is_left_to_us() {
    let mut segment = Segment::of(&[100]);
    segment.run(SECOND * 10);
    let said_plain = |segment: &Segment| {
        let mut said = segment.done.iter().rev().filter_map(|(_, action)| match action {
            Action::Advertise { peers_are_plain, .. } => Some(*peers_are_plain),
            _ => None,
        });
        said.next().unwrap()
    };
    assert!(!said_plain(&segment), "nobody is heard");
    let plain = with(&advert(&router(1, 9, 50), 50), |a| a.plain_checksum = true);
    segment.give(0, Event::Advert(&plain));
    assert!(said_plain(&segment));
    segment.give(0, Event::Advert(&advert(&router(1, 8, 50), 50)));
    segment.run(SECOND);
    assert!(!said_plain(&segment), "one that needs the other form is heard");
}

#[test]
fn orders_that_vrrp_does_not_know_say_what_to_do() {
    let mut segment = Segment::of(&[100]);
    segment.run(SECOND * 10);
    let order = Order::Hold { group: GroupId(1), reason: "x".into(), until: None };
    let error = segment.hosts[0].can_follow(segment.now, &order).unwrap_err();
    assert_eq!(
        error.to_string(),
        "web belongs to whoever has the best VRRP priority: drain this node, or change `priority`"
    );
}

#[test]
fn a_reload_to_another_way_of_owning_begins_anew() {
    let mut segment = Segment::of(&[100, 90]);
    segment.run(SECOND * 10);
    let mut lease = desired(1, vec![router(1, 1, 100)]);
    lease.groups[0].vrrp.clear();
    segment.give(0, Event::Reload(Arc::new(lease)));
    assert!(segment.causes(0).contains(&Cause::Reload));
    segment.run(SECOND);
    assert_eq!(segment.owners(), [0, 1], "the lease of one node, and VRRP's next");
    segment.give(0, Event::Reload(Arc::new(desired(1, vec![router(1, 1, 100)]))));
    segment.run(SECOND * 2);
    assert_eq!(segment.owners(), [0]);
}

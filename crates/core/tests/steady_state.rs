//! The loop's promise: in steady state nothing is allocated, from the sealed bytes to the actions.

use buoy_core::{Fence, Node, Settings};
use buoy_model::limits::{DATAGRAM_MAX, KEY_LEN, LEASE_MAX};
use buoy_model::{
    Action, Cidr, ClusterId, Desired, Event, Group, GroupId, Incarnation, Instant, Leg, LinkId,
    Message, Node as Member, NodeId, Timing, VipAddress,
};
use buoy_wire::{Key, Keyring};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NAMES: [&str; 3] = ["lb1", "lb2", "lb3"];

struct Host {
    node: Node,
    id: NodeId,
    message: Message,
    out: Vec<Action>,
}

/// Datagrams on their way, each in a buffer that is used again.
struct Wire {
    slots: Vec<(NodeId, Vec<u8>)>,
    used: usize,
}

#[test]
fn steady_state_allocates_nothing() {
    let keyring = Keyring::new(vec![Key::new([7; KEY_LEN])]).unwrap();
    let mut hosts: Vec<Host> = (0..3).map(host).collect();
    let mut wire = Wire {
        slots: (0..64).map(|_| (NodeId(0), Vec::with_capacity(DATAGRAM_MAX))).collect(),
        used: 0,
    };
    let warm = Instant::ZERO + LEASE_MAX * 2;
    let mut now = Instant::ZERO;
    let mut turns = 0;
    while now < warm {
        now = turn(&mut hosts, &keyring, &mut wire, &mut turns);
    }
    let region = Region::new(ALLOCATOR);
    let begun = turns;
    while now < warm + Duration::from_secs(20) {
        now = turn(&mut hosts, &keyring, &mut wire, &mut turns);
    }
    let change = region.change();
    assert!(turns - begun > 6_000, "three nodes beat for 20 s: {} turns", turns - begun);
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

/// Lets the next node act and delivers all that follows from it.
fn turn(hosts: &mut [Host], keyring: &Keyring, wire: &mut Wire, turns: &mut u64) -> Instant {
    *turns += 1;
    let due = hosts.iter().enumerate().filter_map(|(i, h)| Some((h.node.deadline()?, i))).min();
    let (now, i) = due.expect("a node always has a next beat");
    let host = &mut hosts[i];
    host.node.handle(now, Event::Tick, &mut host.out);
    act(host, now, keyring, wire);
    let mut delivered = 0;
    while delivered < wire.used {
        let (to, datagram) = &wire.slots[delivered];
        let host = hosts.iter_mut().find(|h| h.id == *to).expect("a known node");
        let mut message = std::mem::take(&mut host.message);
        keyring
            .open(ClusterId::of("buoy"), host.id, datagram, &mut message)
            .expect("our own bytes");
        host.node.handle(now, Event::Heard { message: &message, leg: Leg(0) }, &mut host.out);
        host.message = message;
        delivered += 1;
        act(host, now, keyring, wire);
    }
    wire.used = 0;
    now
}

fn act(host: &mut Host, now: Instant, keyring: &Keyring, wire: &mut Wire) {
    for action in host.out.drain(..) {
        // Kept for the supervisor, not sent.
        if matches!(action, Action::PrepareGoodbye { .. }) {
            continue;
        }
        if let Some(to) = host.node.compose(now, &action, &mut host.message) {
            let slot = &mut wire.slots[wire.used];
            slot.0 = to;
            keyring.seal(&host.message, &mut slot.1);
            wire.used += 1;
        }
    }
}

fn host(i: usize) -> Host {
    let id = NodeId::of(NAMES[i]);
    let settings = Settings {
        incarnation: Incarnation(i as u64 + 1),
        seed: i as u64,
        fence: Fence::Gate,
        #[cfg(feature = "mutants")]
        mutation: None,
    };
    let node = Node::new(Instant::ZERO, Arc::new(desired(id)), settings);
    let out = Vec::with_capacity(256);
    Host { node, id, message: Message::default(), out }
}

fn desired(me: NodeId) -> Desired {
    let mut nodes: Vec<Member> =
        NAMES.iter().map(|name| Member::new(name, ([10, 0, 0, 1], 4747).into())).collect();
    nodes.sort_by_key(|n| n.id);
    let ids: Vec<NodeId> = nodes.iter().map(|n| n.id).collect();
    let mut groups: Vec<Group> = (0..20)
        .map(|n| Group {
            nodes: ids.clone(),
            ..Group::new(
                GroupId::of([10, 0, 0, 100 + n].into()),
                &format!("vip{n}"),
                vec![VipAddress {
                    cidr: Cidr::new(([10, 0, 0, 100 + n]).into(), 24).expect("a prefix"),
                    link: Some(LinkId(2)),
                    link_name: "eth0".into(),
                    vip_name: "web".into(),
                    presence: buoy_model::Presence::Assigned,
                }],
            )
        })
        .collect();
    groups.sort_by_key(|g| g.id);
    Desired {
        leg_links: vec![Some(LinkId(2))],
        timing: Timing {
            heartbeat: Duration::from_millis(10),
            lease: Duration::from_millis(50),
            lease_max: Duration::from_millis(50),
        },
        ..Desired::new("buoy", me, nodes, groups)
    }
}

//! Hosts on one segment that know each other by VRRP only, under seeded faults: over `core` and `wire`, byte by byte.
//!
//! Held: while nothing is lost and nobody preempts, two hosts never answer for longer than a packet takes, however long
//! hosts are frozen or dead, since the lease in the gate ends where VRRP lets others begin. A better host that preempts
//! one that is frozen at that moment has it beside it until that lease ends: three intervals. Whatever was lost or cut,
//! one host is left after it heals: the best one that lives.

use buoy_core::{Fence, Node, Settings};
use buoy_model::{
    Action, Cidr, Desired, Event, Failback, Group, GroupId, HeardAdvert, Incarnation, Instant,
    LinkId, Node as Member, NodeId, Presence, Safety, Stamp, Timing, VipAddress, VirtualRouter,
    VrrpAuth, VrrpChecksum, VrrpVersion,
};
use buoy_wire::vrrp::{self, Envelope, GROUP_V4, Said};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const LINK: LinkId = LinkId(3);
const HOSTS: usize = 3;
const INTERVAL: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_millis(2);
/// Three intervals, the longest skew and a little: after so long whoever lives has taken it.
const TAKEN: Duration = Duration::from_millis(3 * 100 + 100 + 50);
/// Seeds of each kind of run.
const SEEDS: u64 = 48;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.max(1)))
    }
}

fn source(host: usize) -> IpAddr {
    [10, 0, 0, 11 + u8::try_from(host).unwrap_or(0)].into()
}

fn priority(host: usize) -> u8 {
    [100, 200, 150][host % HOSTS]
}

fn vip() -> IpAddr {
    [10, 0, 0, 100].into()
}

fn desired(host: usize, failback: Failback) -> Desired {
    let name = format!("lb{host}");
    let me = NodeId::of(&name);
    let router = VirtualRouter {
        id: 51,
        v6: false,
        link: Some(LINK),
        source: Some(source(host)),
        addresses: vec![vip()],
        version: VrrpVersion::V3,
        priority: priority(host),
        interval: INTERVAL,
        peers: vec![],
        accept: true,
        virtual_mac: false,
        min_ttl: 255,
        checksum: VrrpChecksum::Auto,
        auth: VrrpAuth::None,
    };
    let address = VipAddress {
        cidr: Cidr::new(vip(), 24).expect("a prefix"),
        link: Some(LINK),
        link_name: "eth0".into(),
        vip_name: "web".into(),
        presence: Presence::Assigned,
    };
    let beat = Duration::from_millis(10);
    Desired {
        leg_links: vec![Some(LINK)],
        timing: Timing { heartbeat: beat, lease: beat * 5, lease_max: beat * 5 },
        ..Desired::new(
            "buoy",
            me,
            vec![Member::new(&name, "10.0.0.1:4747".parse().expect("an address"))],
            vec![Group {
                safety: Safety::Available,
                nodes: vec![me],
                failback,
                vrrp: vec![Arc::new(router)],
                ..Group::new(GroupId(1), "web", vec![address])
            }],
        )
    }
}

struct Host {
    /// `None`: its agent is dead.
    node: Option<Node>,
    frozen_until: Instant,
    /// What came in while it was frozen.
    inbox: Vec<HeardAdvert>,
    /// The kernel's, which outlives the agent.
    present: bool,
    gate: Instant,
    lives: u64,
}

struct World {
    now: Instant,
    random: Random,
    failback: Failback,
    hosts: Vec<Host>,
    /// On their way: to whom.
    wire: BTreeMap<(Instant, u64), (usize, HeardAdvert)>,
    sent: u64,
    lost_permille: u64,
    /// One host neither hears nor is heard.
    cut: Option<usize>,
    two_since: Option<Instant>,
    longest_two: Duration,
}

impl World {
    fn new(seed: u64, failback: Failback) -> Self {
        let host = |_| Host {
            node: None,
            frozen_until: Instant::ZERO,
            inbox: vec![],
            present: false,
            gate: Instant::ZERO,
            lives: 0,
        };
        let mut world = Self {
            now: Instant::ZERO,
            random: Random(seed),
            failback,
            hosts: (0..HOSTS).map(host).collect(),
            wire: BTreeMap::new(),
            sent: 0,
            lost_permille: 0,
            cut: None,
            two_since: None,
            longest_two: Duration::ZERO,
        };
        (0..HOSTS).for_each(|i| world.boot(i));
        world
    }

    fn boot(&mut self, i: usize) {
        self.hosts[i].lives += 1;
        let incarnation = Incarnation(self.hosts[i].lives * 10 + i as u64 + 1);
        let settings = Settings {
            incarnation,
            seed: self.random.next(),
            fence: Fence::Gate,
            #[cfg(feature = "mutants")]
            mutation: None,
        };
        self.hosts[i].node =
            Some(Node::new(self.now, Arc::new(desired(i, self.failback)), settings));
        self.hosts[i].inbox.clear();
        self.give(i, Event::Link { link: LINK, up: true });
    }

    fn give(&mut self, i: usize, event: Event<'_>) {
        let Some(node) = self.hosts[i].node.as_mut() else { return };
        let mut out = vec![];
        node.handle(self.now, event, &mut out);
        for action in out {
            self.apply(i, action);
        }
    }

    fn apply(&mut self, i: usize, action: Action) {
        match action {
            Action::Fence { until, .. } => self.hosts[i].gate = until,
            Action::AddAddress { .. } => self.hosts[i].present = true,
            Action::RemoveAddress { .. } => self.hosts[i].present = false,
            Action::Advertise { router, priority, peers_are_plain } => {
                let envelope = Envelope { source: source(i), destination: GROUP_V4.into() };
                let said = Said { priority, peers_are_plain, stamp: Stamp::default() };
                let message = vrrp::emit(&router, envelope, said);
                for to in (0..HOSTS).filter(|to| *to != i) {
                    self.send(i, to, envelope, &message);
                }
            }
            Action::Heartbeat { .. }
            | Action::Answer { .. }
            | Action::PrepareGoodbye { .. }
            | Action::Renew { .. }
            | Action::Announce { .. }
            | Action::Record(_)
            | Action::Stopped => {}
        }
        self.look();
    }

    fn send(&mut self, from: usize, to: usize, envelope: Envelope, message: &[u8]) {
        let is_cut = self.cut == Some(from) || self.cut == Some(to);
        if is_cut || self.random.below(1000) < self.lost_permille {
            return;
        }
        let heard = HeardAdvert {
            link: LINK,
            source: envelope.source,
            multicast: true,
            ttl: 255,
            id: vrrp::router_id(message).expect("it has one"),
            advert: vrrp::parse(message, envelope, None),
            clock_apart: Duration::ZERO,
        };
        self.sent += 1;
        let at = self.now + self.random.up_to(DELAY_MAX);
        self.wire.insert((at, self.sent), (to, heard));
    }

    /// Who would answer a neighbour now.
    fn answering(&self) -> Vec<usize> {
        let answers = |i: &usize| self.hosts[*i].present && self.now < self.hosts[*i].gate;
        (0..HOSTS).filter(answers).collect()
    }

    fn look(&mut self) {
        match (self.answering().len() > 1, self.two_since) {
            (true, None) => self.two_since = Some(self.now),
            (true, Some(since)) => self.longest_two = self.longest_two.max(self.now.since(since)),
            (false, _) => self.two_since = None,
        }
    }

    fn is_frozen(&self, i: usize) -> bool {
        self.now < self.hosts[i].frozen_until
    }

    /// When a host has something to do by itself.
    fn due(&self, i: usize) -> Option<Instant> {
        let host = &self.hosts[i];
        let at = host.node.as_ref()?.deadline()?;
        Some(at.max(host.frozen_until))
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let due = (0..HOSTS).filter_map(|i| Some((self.due(i)?, i))).min();
            let packet = self.wire.keys().next().copied();
            // A gate that ends is seen when it ends.
            let gates = self.hosts.iter().map(|host| host.gate).filter(|gate| self.now < *gate);
            let gate = gates.min();
            let next = [due.map(|(at, _)| at), packet.map(|(at, _)| at), gate];
            let Some(at) = next.into_iter().flatten().min().filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            self.look();
            if let Some(key) = packet.filter(|(at, _)| *at <= self.now) {
                let Some((to, heard)) = self.wire.remove(&key) else { continue };
                if self.is_frozen(to) {
                    self.hosts[to].inbox.push(heard);
                } else {
                    self.give(to, Event::Advert(&heard));
                }
            } else if let Some((_, i)) = due.filter(|(at, _)| *at <= self.now) {
                // As in the agent: what waits in the sockets is read first.
                for heard in std::mem::take(&mut self.hosts[i].inbox) {
                    self.give(i, Event::Advert(&heard));
                }
                self.give(i, Event::Tick);
            }
        }
        self.now = end;
        self.look();
    }

    fn alive(&self) -> Vec<usize> {
        (0..HOSTS).filter(|i| self.hosts[*i].node.is_some()).collect()
    }

    /// A host is frozen, killed, started or drained of its carrier.
    fn fault(&mut self) {
        let i = usize::try_from(self.random.below(HOSTS as u64)).unwrap_or(0);
        match self.random.below(4) {
            0 | 1 => {
                let time = self.random.up_to(Duration::from_secs(3));
                self.hosts[i].frozen_until = self.now + time;
            }
            2 if self.alive().len() > 1 => self.hosts[i].node = None,
            _ if self.hosts[i].node.is_none() => self.boot(i),
            _ => {}
        }
    }
}

/// Freezes, deaths and new lives, with nothing lost: how long two answered at most, and who does at last.
fn days_of_freezes(seed: u64, failback: Failback) -> (Duration, Vec<usize>, World) {
    let mut world = World::new(seed, failback);
    world.run(TAKEN);
    for _ in 0..60 {
        world.fault();
        let time = world.random.up_to(Duration::from_secs(2));
        world.run(time);
    }
    let longest = world.longest_two;
    world.hosts.iter_mut().for_each(|host| host.frozen_until = Instant::ZERO);
    world.run(TAKEN * 2);
    (longest, world.answering(), world)
}

#[test]
fn freezes_and_deaths_alone_never_make_two_owners_for_longer_than_a_packet_takes() {
    for seed in 0..SEEDS {
        let (longest, answering, _) = days_of_freezes(seed, Failback::Never);
        assert!(longest <= DELAY_MAX * 2, "seed {seed}: two owners for {longest:?}");
        assert_eq!(answering.len(), 1, "seed {seed}");
    }
}

#[test]
fn a_frozen_owner_that_is_preempted_is_silent_after_three_intervals() {
    for seed in 0..SEEDS {
        let now = Failback::After(Duration::ZERO);
        let (longest, answering, world) = days_of_freezes(seed, now);
        assert!(longest <= INTERVAL * 3, "seed {seed}: two owners for {longest:?}");
        let best = world.alive().into_iter().max_by_key(|i| priority(*i)).expect("one lives");
        assert_eq!(answering, [best], "seed {seed}");
    }
}

#[test]
fn whatever_was_lost_or_cut_the_best_one_that_lives_is_left() {
    for seed in 1000..1000 + SEEDS {
        let mut world = World::new(seed, Failback::After(Duration::ZERO));
        for _ in 0..60 {
            world.lost_permille = [0, 100, 500, 900][usize::try_from(seed % 4).unwrap_or(0)];
            let cut = world.random.below(HOSTS as u64 + 2);
            world.cut = usize::try_from(cut).ok().filter(|i| *i < HOSTS);
            world.fault();
            let time = world.random.up_to(Duration::from_secs(1));
            world.run(time);
        }
        (world.lost_permille, world.cut) = (0, None);
        world.hosts.iter_mut().for_each(|host| host.frozen_until = Instant::ZERO);
        world.run(TAKEN * 3);
        let best = world.alive().into_iter().max_by_key(|i| priority(*i)).expect("one lives");
        assert_eq!(world.answering(), [best], "seed {seed}");
        // And it stays so.
        for _ in 0..20 {
            world.run(INTERVAL);
            assert_eq!(world.answering(), [best], "seed {seed}");
        }
    }
}

#[test]
fn the_checker_bites_where_a_gate_outlives_its_lease() {
    let mut bitten = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed, Failback::After(Duration::ZERO));
        world.run(TAKEN);
        let owner = world.answering()[0];
        world.hosts[owner].node = None;
        // What keepalived does when it is killed: its host goes on answering.
        world.hosts[owner].gate = world.now + Duration::from_secs(60);
        world.run(TAKEN * 2);
        bitten += u64::from(world.longest_two > DELAY_MAX * 2);
    }
    assert_eq!(bitten, SEEDS);
}

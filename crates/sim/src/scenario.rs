//! Who is there and what breaks when: everything about a run that is decided before it begins.

use crate::fault::Fault;
use crate::ledger::Watch;
use crate::network::Weather;
use crate::random::Random;
use crate::schedule::{self, Ground};
use crate::{days, random};
use buoy_core::Fence;
use buoy_model::limits::LEASE_MAX;
use buoy_model::{
    Cidr, Desired, Failback, Group, GroupId, LinkId, Node, NodeId, Presence, Safety, Timing,
    VipAddress, WireVersion,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The interface that carries all VIPs, on every host.
pub(crate) const LINK: LinkId = LinkId(2);
/// An interface that carries none.
pub(crate) const OTHER_LINK: LinkId = LinkId(1);
/// Clock rates of two hosts may differ by 1 in 64 (`DRIFT_DIVISOR`); two clocks that are wrong by
/// this much in opposite directions stay just below.
pub(crate) const DRIFT_MAX: i64 = 7_500;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where all chance comes from.
    pub seed: u64,
    /// The hosts; their nodes' ids ascend.
    pub hosts: Vec<HostPlan>,
    /// The interface of each leg, the same on every host.
    pub legs: Vec<LinkId>,
    /// Beats and terms of all nodes.
    pub timing: Timing,
    /// All groups that any configuration may have, sorted by id.
    pub groups: Vec<Group>,
    /// Their addresses, sorted; filled in by the world.
    pub addresses: Vec<IpAddr>,
    /// The network at the start.
    pub weather: Weather,
    /// What breaks, in order of time.
    pub faults: Vec<(u64, Fault)>,
    /// What may change its owner when.
    pub watches: Vec<Watch>,
    /// When everything is mended, in nanoseconds.
    pub calm_at: u64,
    /// Hosts whose agents stay dead when all is calm.
    pub down: Vec<usize>,
    /// Hosts whose nodes stay drained when all is calm.
    pub drained: Vec<usize>,
    /// Hosts whose nodes stay cordoned when all is calm.
    pub cordoned: Vec<usize>,
    /// A host that stays unheard where the VIPs are when all is calm, while another leg hears it.
    pub unheard: Option<usize>,
    /// Whether to watch the whole bound, or to end once the cluster is settled.
    pub patient: bool,
    /// Whether datagrams are sealed and opened, or handed over as they are.
    pub sealed: bool,
    /// The fault put into every machine on purpose.
    #[cfg(feature = "mutants")]
    pub mutation: Option<buoy_core::Mutation>,
}

/// A host at its start.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Its node.
    pub id: NodeId,
    /// What it has against a dead agent.
    pub fence: Fence,
    /// What its clock shows at the start, in nanoseconds.
    pub clock: u64,
    /// By how many parts per million its clock is too fast.
    pub drift: i64,
    /// Whether a supervisor watches the agent.
    pub supervised: bool,
    /// Votes and never owns.
    pub witness: bool,
    /// Its share of a pool.
    pub weight: u16,
    /// What the program on it understands at the start.
    pub speaks: WireVersion,
}

impl Scenario {
    /// The run that belongs to a seed: a day with all kinds of faults, or now and then one of the
    /// days that are about one thing.
    pub fn of_seed(seed: u64) -> Self {
        match seed % 32 {
            9 => days::toggling(seed),
            13 => days::cordon(seed),
            21 => days::tide(seed),
            _ => Self::day(seed),
        }
    }

    fn day(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hosts = random.pick(&[2, 3, 3, 3, 3, 4, 5, 5, 6, 7]);
        let pool = random.permille(60);
        let groups = if pool { random.within(12..40) } else { random.within(1..5) };
        let mut scenario = Self::quiet(seed, hosts, groups as usize);
        scenario.timing = timing(&mut random);
        let drift = scenario.furnish(&mut random, pool);
        // Voters are silent for the first seconds: some runs begin to break things before that.
        let silence = LEASE_MAX.as_nanos() as u64;
        let start = random.pick(&[SECOND / 5, silence + SECOND / 2, silence + SECOND]);
        let length = if pool { random.within(2..5) } else { random.within(4..16) };
        scenario.calm_at = start + length * SECOND;
        let every = random.pick(&[60, 150, 400, 1_000]) * MS;
        scenario.fill(&mut random, drift, 1, every, start);
        scenario.patient = random.permille(100);
        scenario
    }

    /// Makes the hosts and groups different from each other; answers by how much clocks drift.
    pub(crate) fn furnish(&mut self, random: &mut Random, pool: bool) -> i64 {
        let hosts = self.hosts.len();
        let drift = random.pick(&[0, 200, 5_000, DRIFT_MAX]);
        // Most clusters are gated throughout, some have one host without, a few have none.
        let one = 1 << random.index(hosts);
        let ungated: u64 = random.pick(&[0, 0, 0, one, one, u64::MAX]);
        let supervised = random.permille(600);
        let old = random.permille(150);
        let weighted = random.permille(200);
        for (i, host) in self.hosts.iter_mut().enumerate() {
            host.drift = random.drift(drift.max(1));
            host.clock = random.within(SECOND..1_000_000 * SECOND);
            host.fence = if ungated >> i & 1 == 1 { Fence::Lifetime } else { Fence::Gate };
            host.supervised = supervised;
            host.weight = if weighted { random.pick(&[0, 1, 1, 2, 3]) } else { 1 };
            if old && random.permille(600) {
                host.speaks = WireVersion::V1;
            }
        }
        if hosts >= 3 && random.permille(250) {
            self.make_witness(random.index(hosts));
        }
        let (link, other) = (LINK, OTHER_LINK);
        let legs = [vec![link], vec![other], vec![link, other], vec![other, link]];
        self.legs = legs[random.index(legs.len())].clone();
        let apart = random.permille(200);
        let like = random.clone();
        for group in &mut self.groups {
            // The groups of a pool are alike.
            let mut chance = if pool { like.clone() } else { random.fork() };
            vary(&mut chance, group, hosts);
            if apart && random.permille(700) {
                group.apart = Some("service".into());
            }
        }
        self.weather = match random.index(4) {
            0 => Weather::BUSY,
            1 => Weather::BAD,
            _ => Weather::CALM,
        };
        drift.max(1)
    }

    /// Takes a host out of all groups and lets it vote.
    pub(crate) fn make_witness(&mut self, host: usize) {
        self.hosts[host].witness = true;
        let id = self.hosts[host].id;
        for group in &mut self.groups {
            group.nodes.retain(|node| *node != id);
        }
    }

    /// Plans the faults of the day and what stays broken after it.
    pub(crate) fn fill(
        &mut self,
        random: &mut Random,
        drift_max: i64,
        pace: u64,
        every: u64,
        start: u64,
    ) {
        let hosts = self.hosts.len();
        let (legs, groups) = (self.legs.len(), self.groups.len());
        let ground = Ground { hosts, legs, groups, drift_max, pace, every };
        let span = start..self.calm_at;
        self.faults = schedule::schedule(&mut random.fork(), &ground, span.clone());
        for host in 0..hosts {
            if self.hosts[host].speaks == WireVersion::V1 && random.permille(800) {
                self.faults.push((random.within(span.clone()), Fault::Upgrade { host }));
            }
        }
        self.faults.sort_by_key(|(at, _)| *at);
        let all: Vec<_> = (0..hosts).collect();
        if random.permille(250) {
            self.down = random::some(random, &all, (hosts - 1) / 2);
        }
        if random.permille(250) {
            self.drained = random::some(random, &all, hosts - 1);
        }
        if legs == 2 && hosts >= 3 && random.permille(300) {
            self.unheard = Some(random.index(hosts));
        }
    }

    /// Equal hosts with true clocks and gates, equal exclusive groups, and nothing breaks.
    pub fn quiet(seed: u64, hosts: usize, groups: usize) -> Self {
        let mut ids: Vec<_> = (0..hosts).map(|i| NodeId::of(&format!("node{i}"))).collect();
        ids.sort();
        let safety = if hosts < 3 { Safety::Available } else { Safety::Exclusive };
        let mut plans: Vec<_> = (0..groups).map(|i| group(i, &ids, safety)).collect();
        plans.sort_by_key(|group| group.id);
        let host = |id| HostPlan {
            id,
            fence: Fence::Gate,
            clock: 10 * SECOND,
            drift: 0,
            supervised: false,
            witness: false,
            weight: 1,
            speaks: WireVersion::V2,
        };
        Self {
            seed,
            hosts: ids.into_iter().map(host).collect(),
            legs: vec![OTHER_LINK],
            timing: Timing {
                heartbeat: Duration::from_millis(10),
                lease: Duration::from_millis(50),
                lease_max: Duration::from_millis(50),
            },
            groups: plans,
            addresses: Vec::new(),
            weather: Weather::CALM,
            faults: Vec::new(),
            watches: Vec::new(),
            calm_at: SECOND,
            down: Vec::new(),
            drained: Vec::new(),
            cordoned: Vec::new(),
            unheard: None,
            patient: false,
            sealed: true,
            #[cfg(feature = "mutants")]
            mutation: None,
        }
    }

    /// The configuration of one host with a set of the groups.
    pub(crate) fn desired(
        &self,
        me: usize,
        groups: u64,
        timing: Timing,
        generation: u64,
    ) -> Desired {
        let id = self.hosts[me].id;
        let leg = |i: usize, leg: usize| SocketAddr::from(([10, leg as u8, 1, i as u8], 4747));
        let node = |(i, host): (usize, &HostPlan)| Node {
            id: host.id,
            addresses: (0..self.legs.len()).map(|n| leg(i, n)).collect(),
            weight: host.weight,
            witness: host.witness,
            ..Node::new(&format!("n{i}"), leg(i, 0))
        };
        let mine = |group: &Group| {
            let mut group = group.clone();
            if group.nodes.binary_search(&id).is_err() {
                group.addresses.iter_mut().for_each(|address| address.link = None);
            }
            group
        };
        let wanted = self.groups.iter().enumerate().filter(|(i, _)| groups >> (i % 64) & 1 == 1);
        Desired {
            generation,
            leg_links: self.legs.iter().copied().map(Some).collect(),
            digest: groups as u32,
            timing,
            ..Desired::new(
                "sim",
                id,
                self.hosts.iter().enumerate().map(node).collect(),
                wanted.map(|(_, group)| mine(group)).collect(),
            )
        }
    }

    /// The place of a node among the hosts.
    pub(crate) fn place(&self, id: NodeId) -> Option<usize> {
        self.hosts.binary_search_by_key(&id, |host| host.id).ok()
    }

    /// The place of an address among all addresses.
    pub(crate) fn address(&self, address: IpAddr) -> Option<usize> {
        self.addresses.binary_search(&address).ok()
    }

    /// The addresses of a group: interface, address, place among all addresses.
    pub(crate) fn places(&self, group: usize) -> Vec<(LinkId, IpAddr, usize)> {
        let addresses = self.groups[group].addresses.iter().map(|a| a.cidr.address());
        addresses.filter_map(|a| self.address(a).map(|place| (LINK, a, place))).collect()
    }
}

/// Beats and terms as people write them into their files, and the longest.
pub(crate) fn timing(random: &mut Random) -> Timing {
    let (heartbeat, lease) = random.pick(&[
        (10, 36),
        (10, 36),
        (10, 50),
        (10, 100),
        (20, 100),
        (20, 80),
        (50, 250),
        (25, 1_000),
        (40, LEASE_MAX.as_millis() as u64),
    ]);
    let (heartbeat, lease) = (Duration::from_millis(heartbeat), Duration::from_millis(lease));
    let lease_max = match random.index(3) {
        0 => lease,
        1 => lease.max(Duration::from_millis(300)),
        _ => LEASE_MAX,
    };
    Timing { heartbeat, lease, lease_max }
}

fn vip(name: &str, address: IpAddr) -> VipAddress {
    let prefix = if address.is_ipv4() { 16 } else { 64 };
    VipAddress {
        cidr: Cidr::new(address, prefix).expect("the prefixes of the simulator fit"),
        link: Some(LINK),
        link_name: "eth0".into(),
        vip_name: name.into(),
        presence: Presence::Assigned,
    }
}

fn group(i: usize, nodes: &[NodeId], safety: Safety) -> Group {
    let name = format!("vip{i}");
    let v4 = IpAddr::from(Ipv4Addr::new(10, 0, (i / 200) as u8, (i % 200) as u8 + 50));
    Group {
        safety,
        nodes: nodes.to_vec(),
        ..Group::new(GroupId::of(v4), &name, vec![vip(&name, v4)])
    }
}

fn vary(random: &mut Random, group: &mut Group, hosts: usize) {
    let exclusive = if hosts == 2 { 400 } else { 750 };
    group.safety = if random.permille(exclusive) { Safety::Exclusive } else { Safety::Available };
    let all = group.nodes.clone();
    if random.permille(300) {
        group.nodes = random::some(random, &all, hosts);
    }
    if random.permille(400) {
        group.prefer = random::some(random, &group.nodes, hosts);
        if random.permille(500) {
            group.prefer.reverse();
        }
    }
    group.failback = match random.index(4) {
        0 => Failback::After(Duration::ZERO),
        1 => Failback::After(Duration::from_millis(random.within(1..1_000))),
        _ => Failback::Never,
    };
    if random.permille(300) {
        // VIPs that move together.
        let id = group.id.0;
        for n in 0..random.within(1..5) as u16 {
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, (id >> 16) as u16, id as u16, 1);
            group.addresses.push(vip(&format!("{}-{n}", group.name), v6.into()));
        }
    }
}

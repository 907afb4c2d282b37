//! Who is there and what breaks when: everything about a run that is decided before it begins.

use crate::fault::{self, Fault};
use crate::network::Weather;
use crate::random::Random;
use buoy_core::Fence;
use buoy_model::limits::LEASE_MAX;
use buoy_model::{
    Cidr, ClusterId, Desired, Failback, Group, GroupId, LinkId, Node, NodeId, Safety, Timing,
    VipAddress,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The interface that carries all VIPs, on every host.
pub(crate) const LINK: LinkId = LinkId(2);
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
    /// Beats and terms of all nodes.
    pub timing: Timing,
    /// All groups that any configuration may have, sorted by id.
    pub groups: Vec<Group>,
    /// The network at the start.
    pub weather: Weather,
    /// What breaks, in order of time.
    pub faults: Vec<(u64, Fault)>,
    /// When everything is mended, in nanoseconds.
    pub calm_at: u64,
    /// Hosts whose agents stay dead when all is calm.
    pub down: Vec<usize>,
    /// Hosts whose nodes stay drained when all is calm.
    pub drained: Vec<usize>,
    /// Whether to watch the whole bound, or to end once the cluster is settled.
    pub patient: bool,
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
}

impl Scenario {
    /// The run that belongs to a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hosts = random.pick(&[2, 3, 3, 3, 3, 4, 5, 5, 6, 7]);
        let mut scenario = Self::quiet(seed, hosts, random.within(1..5) as usize);
        scenario.timing = timing(&mut random);
        let drift = random.pick(&[0, 200, 5_000, DRIFT_MAX]);
        // Most clusters are gated throughout, some have one host without, a few have none.
        let one = 1 << random.index(hosts);
        let ungated: u64 = random.pick(&[0, 0, 0, one, one, u64::MAX]);
        for (i, host) in scenario.hosts.iter_mut().enumerate() {
            host.drift = random.drift(drift.max(1));
            host.clock = random.within(SECOND..1_000_000 * SECOND);
            host.fence = if ungated >> i & 1 == 1 { Fence::Lifetime } else { Fence::Gate };
        }
        for group in &mut scenario.groups {
            vary(&mut random, group, hosts);
        }
        scenario.weather = match random.index(4) {
            0 => Weather::BUSY,
            1 => Weather::BAD,
            _ => Weather::CALM,
        };
        // Voters are silent for the first seconds: some runs begin to break things before that.
        let silence = LEASE_MAX.as_nanos() as u64;
        let start = random.pick(&[SECOND / 5, silence + SECOND / 2, silence + SECOND]);
        scenario.calm_at = start + random.within(4..16) * SECOND;
        let span = start..scenario.calm_at;
        let groups = scenario.groups.len();
        scenario.faults = fault::schedule(&mut random.fork(), hosts, groups, drift.max(1), span);
        let all: Vec<_> = (0..hosts).collect();
        if random.permille(250) {
            scenario.down = some(&mut random, &all, (hosts - 1) / 2);
        }
        if random.permille(250) {
            scenario.drained = some(&mut random, &all, hosts - 1);
        }
        scenario.patient = random.permille(100);
        scenario
    }

    /// Equal hosts with true clocks and gates, equal exclusive groups, and nothing breaks.
    pub fn quiet(seed: u64, hosts: usize, groups: usize) -> Self {
        let mut ids: Vec<_> = (0..hosts).map(|i| NodeId::of(&format!("node{i}"))).collect();
        ids.sort();
        let safety = if hosts < 3 { Safety::Available } else { Safety::Exclusive };
        let mut plans: Vec<_> = (0..groups).map(|i| group(i, &ids, safety)).collect();
        plans.sort_by_key(|group| group.id);
        Self {
            seed,
            hosts: ids
                .into_iter()
                .map(|id| HostPlan { id, fence: Fence::Gate, clock: 10 * SECOND, drift: 0 })
                .collect(),
            timing: Timing {
                heartbeat: Duration::from_millis(10),
                lease: Duration::from_millis(50),
                lease_max: Duration::from_millis(50),
            },
            groups: plans,
            weather: Weather::CALM,
            faults: Vec::new(),
            calm_at: SECOND,
            down: Vec::new(),
            drained: Vec::new(),
            patient: false,
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
        let node = |(i, host): (usize, &HostPlan)| Node {
            id: host.id,
            ..Node::new(&format!("n{i}"), SocketAddr::from(([10, 0, 1, i as u8], 4747)))
        };
        let mine = |group: &Group| {
            let mut group = group.clone();
            if group.nodes.binary_search(&id).is_err() {
                group.addresses.iter_mut().for_each(|address| address.link = None);
            }
            group
        };
        let wanted = self.groups.iter().enumerate().filter(|(i, _)| groups >> i & 1 == 1);
        Desired {
            generation,
            leg_links: vec![Some(LINK)],
            digest: groups as u32,
            cluster: ClusterId::of("sim"),
            cluster_name: "sim".into(),
            me: id,
            nodes: self.hosts.iter().enumerate().map(node).collect(),
            timing,
            groups: wanted.map(|(_, group)| mine(group)).collect(),
        }
    }

    /// The place of a node among the hosts.
    pub(crate) fn place(&self, id: NodeId) -> Option<usize> {
        self.hosts.binary_search_by_key(&id, |host| host.id).ok()
    }
}

/// Beats and terms as people write them into their files, and the longest.
pub(crate) fn timing(random: &mut Random) -> Timing {
    let (heartbeat, lease) = random.pick(&[
        (10, 50),
        (10, 50),
        (10, 100),
        (20, 100),
        (20, 80),
        (50, 250),
        (25, 1_000),
        (40, LEASE_MAX.as_millis() as u64),
    ]);
    let (heartbeat, lease) = (Duration::from_millis(heartbeat), Duration::from_millis(lease));
    Timing { heartbeat, lease, lease_max: lease }
}

fn group(i: usize, nodes: &[NodeId], safety: Safety) -> Group {
    let name = format!("vip{i}");
    let v4 = IpAddr::from(Ipv4Addr::new(10, 0, (i / 200) as u8, (i % 200) as u8 + 50));
    let address = |address, prefix| VipAddress {
        cidr: Cidr::new(address, prefix).expect("the prefixes of the simulator fit"),
        link: Some(LINK),
        link_name: "eth0".into(),
        vip_name: "web".into(),
    };
    Group {
        id: GroupId::of(v4),
        name,
        addresses: vec![address(v4, 16)],
        safety,
        nodes: nodes.to_vec(),
        prefer: Vec::new(),
        failback: Failback::Never,
        apart: None,
        checks: vec![],
        services: Vec::new(),
    }
}

fn vary(random: &mut Random, group: &mut Group, hosts: usize) {
    let exclusive = if hosts == 2 { 400 } else { 750 };
    group.safety = if random.permille(exclusive) { Safety::Exclusive } else { Safety::Available };
    let all = group.nodes.clone();
    if random.permille(300) {
        group.nodes = some(random, &all, hosts);
    }
    if random.permille(400) {
        group.prefer = some(random, &group.nodes, hosts);
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
        let mut second = group.addresses[0].clone();
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, group.id.0 as u16, 1);
        second.cidr = Cidr::new(v6.into(), 64).expect("the prefixes of the simulator fit");
        group.addresses.push(second);
    }
}

/// At least one of these and at most so many, in their order.
fn some<T: Copy>(random: &mut Random, from: &[T], max: usize) -> Vec<T> {
    if max == 0 {
        return Vec::new();
    }
    let mut picked: Vec<_> = from.iter().copied().filter(|_| random.permille(500)).collect();
    picked.truncate(max);
    if picked.is_empty() { vec![random.pick(from)] } else { picked }
}

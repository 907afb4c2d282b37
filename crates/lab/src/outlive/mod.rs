//! Connections that are open for long, while owners of their VIP die and backends come and go: which of them live?
//!
//! `run` is the story, the same for every system; `buoy` and `peers` are the systems. A test asks it of Buoy alone,
//! `buoy lab bench connections` of all of them.

mod buoy;
mod peers;

use crate::probe::crowd::{Crowd, Figures, Speech, Way};
use crate::process::wait_until;
use crate::segment::{ECHO_PORT, HTTP_PORT, Segment};
use crate::topology::{Host, Role, Topology, ipv4};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

pub use buoy::Agents;
pub use peers::{Behind, Conntrackd, Haproxy, Software};

/// The VIP of most connections.
const VIP: Ipv4Addr = ipv4(100);
/// The servers, of which the last one is there and unused at first.
pub const SERVERS: [&str; 3] = ["web1", "web2", "web3"];
/// How long the next owner may take.
const OWNER_MAX: Duration = Duration::from_secs(15);
/// How long the connections have to answer; what is lost is sent again after 1 s, and then after 2 s more.
const ANSWER_MAX: Duration = Duration::from_secs(4);

/// A server, and its weight.
pub type Server = (&'static str, u16);

/// A system that balances what comes to the VIP, on the three nodes of a segment.
pub trait Balancer {
    /// Its name, for tables.
    const NAME: &'static str;
    /// How connections go through it.
    fn ways(&self) -> Vec<Way>;
    /// Starts it everywhere, with these backends.
    fn start(&mut self, segment: &Segment, servers: &[Server]) -> Result<()>;
    /// Who has the VIP, if anybody.
    fn owner(&mut self, segment: &Segment) -> Result<Option<String>>;
    /// Gives its nodes time to tell each other about so many flows of each way; `anew`: to one that has come back.
    fn settle(&mut self, segment: &Segment, flows: usize, anew: Option<&str>) -> Result<()>;
    /// Gives all nodes that run other backends.
    fn change(&mut self, segment: &Segment, servers: &[Server]) -> Result<()>;
    /// A node loses its power.
    fn power_off(&mut self, segment: &Segment, node: &str) -> Result<()>;
    /// It comes back, without any memory.
    fn come_back(&mut self, segment: &Segment, node: &str, servers: &[Server]) -> Result<()>;
    /// A node is taken out of service as an operator does it.
    fn leave(&mut self, segment: &Segment, node: &str) -> Result<()>;
}

/// How many connections take part.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Opened of each way before anything happens.
    pub at_first: usize,
    /// Opened of each way after each of three changes.
    pub between: usize,
}

/// What had become of the connections at one moment of the story.
#[derive(Clone, Debug)]
pub struct Stage {
    /// What had happened.
    pub when: &'static str,
    /// The connections of each way.
    pub figures: BTreeMap<&'static str, Figures>,
    /// How long the last of them took to answer.
    pub took: Duration,
}

impl Stage {
    /// How many had been opened, and how many of them live.
    pub fn sum(&self) -> (usize, usize) {
        let all = self.figures.values();
        all.fold((0, 0), |(opened, alive), f| (opened + f.opened, alive + f.survived))
    }
}

/// The hosts of the story.
pub fn segment(note: &mut dyn FnMut(&str)) -> Result<Segment> {
    let mut topology = Topology::with_nodes(3);
    topology.hosts.push(Host { name: SERVERS[2], number: 23, role: Role::Backend });
    Segment::build(topology, note)
}

/// Lines and HTTP over the VIP, for systems that have one way to forward.
fn plain_ways() -> Vec<Way> {
    let way = |kind, port, speech| Way {
        kind,
        from: ipv4(50).into(),
        to: SocketAddr::new(VIP.into(), port),
        speech,
    };
    vec![way("lines", ECHO_PORT, Speech::Lines), way("HTTP", HTTP_PORT, Speech::Http)]
}

/// The address of a server.
fn address(server: &str) -> Result<Ipv4Addr> {
    let place = SERVERS.iter().position(|name| *name == server);
    let number = place.and_then(|place| u8::try_from(21 + place).ok());
    let unknown = || Error::Unknown { what: format!("server {server}") };
    number.map(ipv4).ok_or_else(unknown)
}

/// One telling of the story.
struct Story<'a, B> {
    segment: &'a Segment,
    system: &'a mut B,
    crowd: Crowd,
    stages: Vec<Stage>,
    heard: &'a mut dyn FnMut(&Stage),
}

/// Tells the story; `heard` is told of each stage as it is known.
pub fn run<B: Balancer>(
    segment: &Segment,
    system: &mut B,
    size: Size,
    heard: &mut dyn FnMut(&Stage),
) -> Result<Vec<Stage>> {
    let Size { at_first, between } = size;
    let two = [("web1", 1), ("web2", 1)];
    let three = [("web1", 1), ("web2", 1), ("web3", 1)];
    let drained = [("web1", 0), ("web2", 1), ("web3", 1)];
    system.start(segment, &two)?;
    let mut story = Story { segment, system, crowd: Crowd::default(), stages: Vec::new(), heard };
    let first = story.owner_but(None)?;
    story.open(at_first)?;
    story.look("at first");

    story.system.settle(segment, at_first, None)?;
    story.system.power_off(segment, &first)?;
    let second = story.owner_but(Some(&first))?;
    story.look("the owner was killed");
    story.open(between)?;
    story.system.change(segment, &three)?;
    story.open(between)?;
    story.look("a backend was added");
    story.system.change(segment, &drained)?;
    story.open(between)?;
    story.look("another one is drained");

    story.system.come_back(segment, &first, &drained)?;
    story.system.settle(segment, at_first + 3 * between, Some(&first))?;
    story.system.leave(segment, &second)?;
    let third = story.owner_but(Some(&second))?;
    story.look("the new owner is drained");
    story.system.leave(segment, &third)?;
    story.owner_but(Some(&third))?;
    story.look("and the next one");
    Ok(story.stages)
}

impl<B: Balancer> Story<'_, B> {
    fn owner_but(&mut self, than: Option<&str>) -> Result<String> {
        let mut owner = None;
        let awaited = format!("an owner of {VIP}");
        wait_until(OWNER_MAX, &awaited, || {
            owner = self.system.owner(self.segment)?;
            Ok(owner.as_deref().is_some_and(|name| Some(name) != than))
        })?;
        owner.ok_or(Error::Late { awaited, log: None })
    }

    fn open(&mut self, count: usize) -> Result<()> {
        let client = self.segment.inside("client")?;
        let ways = self.system.ways();
        ways.into_iter().try_for_each(|way| self.crowd.open(client, way, count))
    }

    fn look(&mut self, when: &'static str) {
        let began = Instant::now();
        let figures = self.crowd.ask(ANSWER_MAX);
        let stage = Stage { when, figures, took: began.elapsed() };
        (self.heard)(&stage);
        self.stages.push(stage);
    }
}

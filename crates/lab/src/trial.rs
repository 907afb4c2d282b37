//! One trial: a steady cluster, one fault, what every probe saw, and a steady cluster again.

use crate::fault::{Fault, Injected};
use crate::peer::Peer;
use crate::probe::arp::ArpObserver;
use crate::probe::http::HttpProbe;
use crate::probe::tcp::TcpProbe;
use crate::probe::udp::UdpProbe;
use crate::probe::{Window, http, udp};
use crate::process::wait_until;
use crate::segment::{ECHO_PORT, HTTP_PORT, Segment};
use crate::topology::Role;
use crate::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Connections that are held open across every fault.
pub const CONNECTIONS: usize = 50;
/// Time from one short request to the next: 200 a second.
pub const REQUEST_EVERY: Duration = Duration::from_millis(5);
/// How long the cluster may take to be steady.
pub const STEADY_MAX: Duration = Duration::from_secs(30);

/// How long a fault lasts after another node has taken over, so that second thoughts are seen too.
const FAULT_GOES_ON: Duration = Duration::from_millis(1_000);
/// How long after a fault another node may take to answer.
pub const TAKEOVER_MAX: Duration = Duration::from_secs(8);
/// For how long all is watched after the fault is healed.
const AFTER: Duration = Duration::from_millis(700);
/// How long connections that retransmit are waited for.
const STRAGGLERS_MAX: Duration = Duration::from_secs(8);

/// Everything that runs while faults happen.
pub struct Session<'a> {
    /// Where.
    pub segment: &'a Segment,
    /// The system under test.
    pub peer: &'a mut dyn Peer,
    /// The address that is asked.
    pub vip: Ipv4Addr,
    /// The stream of questions through the VIP to a backend.
    pub udp: UdpProbe,
    /// The short requests.
    pub http: HttpProbe,
    /// Who answers for the VIP.
    pub arp: ArpObserver,
}

/// What one trial showed.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// The node that the fault hit.
    pub from: String,
    /// The node that took over.
    pub to: Option<String>,
    /// From the fault to the first question that the new owner answered.
    pub takeover: Option<Duration>,
    /// The longest outage of the UDP stream during the fault.
    pub outage: Duration,
    /// The longest when the fault was healed.
    pub outage_at_return: Duration,
    /// UDP questions lost over the whole trial.
    pub datagrams_lost: usize,
    /// The short requests over the whole trial.
    pub requests: http::Figures,
    /// Long connections that were open, and that survived.
    pub connections: usize,
    /// See `connections`.
    pub survived: usize,
    /// How connections were broken; one that only waits is not listed.
    pub breaks: Vec<String>,
    /// Time with two answerers over the whole trial.
    pub two_answerers: Duration,
    /// The longest time in which nobody answered ARP.
    pub unanswered: Duration,
    /// The longest time that the machine did not run the observer.
    pub stall: Duration,
}

impl<'a> Session<'a> {
    /// Starts the probes; the system under test runs already.
    pub fn begin(segment: &'a Segment, peer: &'a mut dyn Peer, vip: Ipv4Addr) -> Result<Self> {
        let client = segment.inside("client")?;
        let arp = ArpObserver::start(segment.inside("observer")?, &[vip])?;
        let at = |port| SocketAddr::from((vip, port));
        let udp = UdpProbe::start(client, at(ECHO_PORT))?;
        let http = HttpProbe::start(client, at(HTTP_PORT), REQUEST_EVERY)?;
        Ok(Self { segment, peer, vip, udp, http, arp })
    }

    /// Waits until exactly one node answers, the stream flows and every node could take over.
    pub fn steady(&mut self) -> Result<String> {
        let mut missing = String::new();
        let mut owner = None;
        let awaited = format!("a steady {}", self.peer.name());
        wait_until(STEADY_MAX, &awaited, || {
            owner = self.owner();
            let unready: Vec<_> =
                self.peer.nodes().into_iter().filter(|node| !self.peer.is_ready(node)).collect();
            let flows = Duration::from_millis(150) < self.udp.well_for();
            missing = format!("owner {owner:?}, not ready {unready:?}, stream well: {flows}");
            Ok(owner.is_some() && unready.is_empty() && flows)
        })
        .map_err(|_late| Error::Late { awaited: format!("{awaited} ({missing})"), log: None })?;
        owner.ok_or(Error::Unknown { what: "owner".to_owned() })
    }

    /// The node that answers for the VIP, if exactly one does.
    pub fn owner(&self) -> Option<String> {
        let mac = self.arp.owner(self.vip)?;
        self.segment.topology.by_mac(mac).map(|host| host.name.to_owned())
    }

    /// Lets a fault happen to the owner and heals it; `None`: the peer knows no such fault.
    pub fn trial(
        &mut self,
        fault: Fault,
        mut during: impl FnMut(&mut Self, &Figures),
    ) -> Result<Option<Figures>> {
        self.steady()?;
        self.forget_neighbours()?;
        let owner = self.steady()?;
        let before = self.segment.host(&owner)?.mac();
        let connections = TcpProbe::start(
            self.segment.inside("client")?,
            (self.vip, ECHO_PORT).into(),
            CONNECTIONS,
        )?;
        std::thread::sleep(Duration::from_millis(120));
        let from = Instant::now();
        if fault.inject(self.segment, self.peer, &owner)? == Injected::NotApplicable {
            return Ok(None);
        }
        let mut figures = Figures { from: owner.clone(), ..Figures::default() };
        self.await_takeover(from, before, &mut figures);
        std::thread::sleep(FAULT_GOES_ON);
        let healed = Instant::now();
        figures.outage = self.udp.figures(Window { from, to: healed }).outage;
        during(self, &figures);

        let healed = Instant::now().max(healed);
        fault.heal(self.segment, self.peer, &owner)?;
        self.steady()?;
        let steady = Instant::now();
        std::thread::sleep(AFTER);
        let to = Instant::now();
        // Questions and requests of the last moment still have their time to be answered.
        std::thread::sleep(udp::ANSWER_MAX + Duration::from_millis(20));
        let _never =
            wait_until(2 * http::ANSWER_MAX, "the last requests", || Ok(self.http.all_ended(to)));
        self.read(from, healed, to, &mut figures);
        read_connections(&connections, steady, &mut figures);
        Ok(Some(figures))
    }

    /// Makes everybody ask anew who has the VIP: after a past split some may still know another.
    fn forget_neighbours(&self) -> Result<()> {
        for host in self.segment.topology.hosts.iter().filter(|host| host.role != Role::Node) {
            self.segment.inside(host.name)?.ip(&format!("neigh flush to {}", self.vip))?;
        }
        Ok(())
    }

    fn await_takeover(&self, from: Instant, before: [u8; 6], figures: &mut Figures) {
        let changed = || {
            let window = Window { from, to: Instant::now() };
            let changes = self.arp.changes(self.vip, window, Some(before));
            changes.into_iter().find(|change| change.mac != before)
        };
        let mut first = None;
        let _never = wait_until(TAKEOVER_MAX, "another owner", || {
            first = changed();
            Ok(first.is_some() && Duration::from_millis(100) < self.udp.well_for())
        });
        if let Some(change) = first {
            figures.takeover = Some(change.at - from);
            figures.to = self.segment.topology.by_mac(change.mac).map(|h| h.name.to_owned());
        }
    }

    fn read(&self, from: Instant, healed: Instant, to: Instant, figures: &mut Figures) {
        let whole = Window { from, to };
        figures.outage = self.udp.figures(Window { from, to: healed }).outage;
        figures.outage_at_return = self.udp.figures(Window { from: healed, to }).outage;
        figures.datagrams_lost = self.udp.figures(whole).lost;
        figures.requests = self.http.figures(whole);
        let doubles = self.arp.answered_by_two(self.vip, whole).len();
        figures.two_answerers = crate::probe::TICK * u32::try_from(doubles).unwrap_or(u32::MAX);
        figures.stall = self.arp.stall(whole);
        figures.unanswered = self.arp.unanswered(self.vip, whole);
    }
}

fn read_connections(connections: &TcpProbe, since: Instant, figures: &mut Figures) {
    let settled = || {
        let now = connections.figures(since);
        Ok(now.survived + now.broken == now.opened)
    };
    // Those that are neither by then have not survived.
    let _stragglers = wait_until(STRAGGLERS_MAX, "the connections", settled);
    let seen = connections.figures(since);
    figures.connections = seen.opened;
    figures.survived = seen.survived;
    figures.breaks = seen.how.iter().map(ToString::to_string).collect();
}

//! One fault at the owner of a steady system: when somebody else serves, and what was lost meanwhile.

use super::stand::{FORWARDED, LOCAL, Stand};
use super::{Case, System};
use crate::fault::Injected;
use crate::probe::arp::ArpObserver;
use crate::probe::stall::StallMeter;
use crate::probe::tcp::TcpProbe;
use crate::probe::udp::{self, UdpProbe};
use crate::probe::{TICK, Window};
use crate::process::wait_until;
use crate::segment::{ECHO_PORT, LOCAL_PORT};
use crate::{Error, Result};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Long connections that are held open across every fault.
const CONNECTIONS: usize = 20;
/// How long another node may take to serve.
const TAKEOVER_MAX: Duration = Duration::from_secs(8);
/// How long a fault goes on after the takeover.
const FAULT_GOES_ON: Duration = Duration::from_millis(300);
/// For how long all is watched after the fault is healed.
const AFTER: Duration = Duration::from_millis(700);
/// How long connections that retransmit are waited for.
const STRAGGLERS_MAX: Duration = Duration::from_millis(2_500);

/// What one trial showed.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Who.
    pub system: System,
    /// What happened.
    pub case: Case,
    /// The owner that it happened to.
    pub from: String,
    /// From the fault until the client first had an answer of another node; `None`: never.
    pub served: Option<Duration>,
    /// Datagrams of the stream (one a millisecond) without an answer.
    pub lost: usize,
    /// The longest time without an answer.
    pub gap: Duration,
    /// Long connections that were open, and that survived.
    pub connections: usize,
    /// See `connections`.
    pub survived: usize,
    /// Time in which two hosts answered one ARP question, for either VIP the longer.
    pub two_answerers: Duration,
    /// The longest time that the machine itself stood still meanwhile.
    pub stall: Duration,
}

impl Stand {
    /// Lets a fault happen and begins to heal it; the next trial waits until all is well again.
    pub(super) fn trial(&mut self, case: Case, meter: &StallMeter) -> Result<Sample> {
        let arp = ArpObserver::start(self.segment.inside("observer")?, &[LOCAL, FORWARDED])?;
        self.steady(&arp)?;
        let client = self.segment.inside("client")?;
        // After a past split some may still know another owner, and never be told.
        for host in self.segment.topology.hosts.iter().filter(|host| !host.is_member()) {
            self.segment.inside(host.name)?.ip("neigh flush dev eth0")?;
        }
        let stream = UdpProbe::start(client, SocketAddr::from((LOCAL, LOCAL_PORT)))?;
        let to = SocketAddr::from((FORWARDED, ECHO_PORT));
        let connections = TcpProbe::start(client, to, CONNECTIONS)?;
        let flows = || Ok(Duration::from_millis(100) < stream.well_for());
        wait_until(TAKEOVER_MAX, "an undisturbed stream", flows)?;
        let owner = self.steady(&arp)?;

        let before = Instant::now();
        let fault = case.fault(self.system);
        if fault.inject(&self.segment, self.daemons.peer(), &owner)? == Injected::NotApplicable {
            return Err(Error::Unknown {
                what: format!("{} of {}", case.name(), self.system.name()),
            });
        }
        let from = begin(case, &stream, Window { from: before, to: Instant::now() });
        let served = await_takeover(&stream, &owner, from);
        std::thread::sleep(FAULT_GOES_ON);
        fault.heal(&self.segment, self.daemons.peer(), &owner)?;
        let healed = Instant::now();
        std::thread::sleep(AFTER);
        let whole = Window { from: before, to: Instant::now() };
        // Questions of the last moment still have their time to be answered.
        std::thread::sleep(udp::ANSWER_MAX + Duration::from_millis(10));
        let settled = || {
            let now = connections.figures(healed);
            Ok(now.survived + now.broken == now.opened)
        };
        // Those that are neither by then have not survived.
        let _stragglers = wait_until(STRAGGLERS_MAX, "the connections", settled);
        let seen = connections.figures(healed);
        let flow = stream.figures(whole);
        Ok(Sample {
            system: self.system,
            case,
            from: owner,
            served,
            lost: flow.lost,
            gap: flow.outage,
            connections: seen.opened,
            survived: seen.survived,
            two_answerers: two_answerers(&arp, whole),
            stall: meter.worst(whole),
        })
    }
}

/// When a fault began. A signal hits at once; a command that cuts a cable takes a few milliseconds, and
/// the first datagram without an answer says when it did.
fn begin(case: Case, stream: &UdpProbe, injected: Window) -> Instant {
    match case {
        Case::Planned | Case::Crash | Case::CrashAll | Case::Freeze => injected.from,
        Case::Unplug | Case::SilentCut => {
            // An answer needs a moment; what is younger proves nothing.
            std::thread::sleep(Duration::from_millis(2));
            stream.first_lost(injected).unwrap_or(injected.to)
        }
    }
}

fn await_takeover(stream: &UdpProbe, owner: &str, from: Instant) -> Option<Duration> {
    let mut first = None;
    let _never = wait_until(TAKEOVER_MAX, "another node to serve", || {
        first = stream.first_answer_not_by(owner, Window { from, to: Instant::now() });
        Ok(first.is_some())
    });
    first.map(|at| at - from)
}

fn two_answerers(arp: &ArpObserver, window: Window) -> Duration {
    let questions = |address| arp.answered_by_two(address, window).len();
    let most = questions(LOCAL).max(questions(FORWARDED));
    TICK * u32::try_from(most).unwrap_or(u32::MAX)
}

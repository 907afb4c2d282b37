//! The XDP engine: keeps the fast path of this host what `core::fast` says it should be.
//!
//! A thread of its own, since a change waits until no program looks at what it replaces. It turns once a
//! second, and with every change of the configuration or of a backend: neighbours and routes are read
//! again, and the seconds that remembered flows get old by are counted. What it forwards goes on without
//! it; only a configuration without services of mode "xdp" takes the programs away.

mod company;
mod running;
mod trusted;
mod turned;

use super::Place;
use crate::health::{Key, States};
use buoy_kernel::clock;
use buoy_kernel::fast::{Count, Fast, FastError, Fate, Packet};
use buoy_kernel::gate::Answerer;
use buoy_model::{Desired, Forward, Instant, LinkId, Mode, Ports, Presence, Protocol, Service};
pub(crate) use company::Peers;
use company::{About, Company, LOOK};
use running::Running;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use trusted::Trusted;

/// How often neighbours are read, and flows get older.
const TURN: Duration = Duration::from_secs(1);
/// Counts are read again after so many times the time that reading took: of a million backends it takes long.
const COUNT_REST: u32 = 20;
/// What could not be loaded or attached is tried again after so long.
const RETRY: Duration = Duration::from_secs(30);

/// What people want, what is known of the backends, and the seed of flows.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) desired: Arc<Desired>,
    pub(super) states: Arc<States>,
    /// Backends that get no new connections, whatever their state.
    pub(super) out: Arc<BTreeSet<Key>>,
    pub(super) seed: u64,
}

/// What the engine found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Found {
    /// Services that it cannot forward on this host, and why: another engine may.
    pub(super) refused: BTreeMap<Place, String>,
    /// What is wrong with services that it forwards.
    pub(super) problems: BTreeMap<Place, String>,
    /// Hash of who gets which flow, of each service that it forwards: the same on every host that knows the same
    /// backends to be up.
    pub(super) tables: BTreeMap<Place, u32>,
    /// How the program sees the frames of each interface, as in "eth0: driver".
    pub(super) attached: Vec<String>,
    /// What is wrong as a whole.
    pub(super) host: Vec<String>,
}

/// How many packets were dropped for which reason.
pub(super) type Reasons = BTreeMap<&'static str, u64>;

/// What the engine has counted, for whoever asks: unlike what it found, it changes all the time.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) totals: BTreeMap<&'static str, u64>,
    pub(super) backends: BTreeMap<(Place, SocketAddr), Count>,
    /// Packets that services did not get, by reason.
    pub(super) lost: BTreeMap<Place, Reasons>,
    /// Those of them that were for a backend.
    pub(super) lost_by: BTreeMap<(Place, SocketAddr), Reasons>,
    /// Backends that are left alone, and for how much longer.
    pub(super) ejected: BTreeMap<(Place, SocketAddr), Duration>,
    /// While it stays, all that was counted of services is the same.
    pub(super) number: u64,
}

impl Counted {
    /// This comes after that.
    pub(super) fn follow(&mut self, before: &Self) {
        let Self { totals: _, backends, lost, lost_by, ejected, number: _ } = &*self;
        let are_same = (backends, lost) == (&before.backends, &before.lost)
            && (lost_by, ejected) == (&before.lost_by, &before.ejected);
        self.number = before.number + u64::from(!are_same);
    }

    /// Connections of a service that were refused for the rate of their client.
    pub(super) fn refused(&self, of: &Place) -> u64 {
        let first = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let here = self.backends.range((*of, first)..).take_while(|((place, _), _)| place == of);
        here.map(|(_, count)| count.refused).sum()
    }
}

/// What became of a made-up packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Traced {
    /// What the program did.
    pub fate: Fate,
    /// The backend that gets it.
    pub backend: Option<SocketAddr>,
    /// The interface that it leaves by.
    pub link: Option<String>,
}

/// What the engine is told.
#[derive(Debug)]
enum Message {
    Follow(Order),
    Join(Peers),
    Trace(Packet, oneshot::Sender<Result<Traced, String>>),
}

/// The engine's thread. It ends when this is dropped; what is forwarded goes on.
#[derive(Debug)]
pub(super) struct Engine {
    messages: mpsc::Sender<Message>,
    /// `None` until it has turned once.
    pub(super) found: watch::Receiver<Option<Found>>,
    pub(super) counted: Arc<Mutex<Counted>>,
}

impl Engine {
    pub(super) fn start(answerer: Result<Answerer, String>) -> std::io::Result<Self> {
        let (messages, told) = mpsc::channel();
        let (tell, found) = watch::channel(None);
        let counted = Arc::new(Mutex::new(Counted::default()));
        let count = Arc::clone(&counted);
        let work = Work::new(answerer);
        let live = move || live(work, &told, &tell, &count);
        std::thread::Builder::new().name("xdp".into()).spawn(live)?;
        Ok(Self { messages, found, counted })
    }

    pub(super) fn order(&self, order: Order) {
        // A thread that has ended has aborted the process.
        let _ = self.messages.send(Message::Follow(order));
    }

    /// From now on flows are told to other nodes, and theirs are heard of.
    pub(super) fn joiner(&self) -> Joiner {
        Joiner(self.messages.clone())
    }

    /// Who asks the program about packets.
    pub(super) fn tracer(&self) -> Tracer {
        Tracer(self.messages.clone())
    }
}

/// Brings the engine together with other nodes.
#[derive(Clone, Debug)]
pub(super) struct Joiner(mpsc::Sender<Message>);

impl Joiner {
    /// By this way.
    pub(super) fn join(&self, peers: Peers) {
        // A thread that has ended has aborted the process.
        let _ = self.0.send(Message::Join(peers));
    }
}

/// Asks the program what it does with a packet.
#[derive(Clone, Debug)]
pub(super) struct Tracer(mpsc::Sender<Message>);

impl Tracer {
    /// Runs it on a made-up packet; why not, in words.
    pub(super) async fn trace(&self, packet: Packet) -> Result<Traced, String> {
        let (reply, answer) = oneshot::channel();
        let _ = self.0.send(Message::Trace(packet, reply));
        answer.await.unwrap_or_else(|_| Err("the XDP engine has ended".into()))
    }
}

fn live(
    mut work: Work,
    messages: &mpsc::Receiver<Message>,
    tell: &watch::Sender<Option<Found>>,
    count: &Mutex<Counted>,
) {
    let mut order: Option<Order> = None;
    let mut trusted = Trusted::default();
    let (mut is_new, mut count_at, mut turn_at) = (false, Instant::ZERO, Instant::ZERO);
    loop {
        // Only the latest order counts.
        let next = if order.is_none() || work.is_idle() {
            messages.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            messages.recv_timeout(if work.company.is_some() { LOOK } else { TURN })
        };
        let is_asked = next.is_ok();
        let mut waiting = match next {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        while let Some(message) = waiting {
            match message {
                Message::Follow(newer) => {
                    (order, is_new) = (Some(trusted.applied_to(&newer)), true);
                }
                Message::Join(peers) => work.company = Some(Company::new(clock::now(), peers)),
                Message::Trace(packet, reply) => {
                    // Nobody waits any more, if it cannot be sent.
                    let _ = reply.send(work.trace(order.as_ref(), &packet));
                }
            }
            waiting = messages.try_recv().ok();
        }
        let Some(order) = &mut order else { continue };
        let has_followed = work.talk(clock::now(), order);
        if !is_asked && !has_followed && clock::now() < turn_at {
            continue;
        }
        turn_at = clock::now() + TURN;
        let now = clock::now();
        if count_at <= now {
            let mut counted = work.count(order);
            if trusted.look(now, &order.desired, &mut counted) {
                (*order, is_new) = (trusted.applied_to(order), true);
            }
            let mut known = count.lock().unwrap_or_else(PoisonError::into_inner);
            counted.follow(&known);
            *known = counted;
            drop(known);
            let done = clock::now();
            // What clients ask for has the time to be answered until the next look.
            count_at = (done + done.since(now) * COUNT_REST).max(now + TURN / 2);
        }
        let found = Some(work.turn(clock::now(), order, std::mem::take(&mut is_new)));
        tell.send_if_modified(|before| {
            let changed = *before != found;
            *before = found;
            changed
        });
    }
}

/// What was done so far.
struct Work {
    /// What answers for addresses that are on no interface; why there is nothing.
    answerer: Result<Arc<Answerer>, String>,
    running: Option<Running>,
    company: Option<Company>,
    /// Whether it was looked for what an earlier run has left.
    looked: bool,
    /// Why nothing could be loaded, and when to try again.
    failed: Option<(Instant, FastError)>,
    barred: Barred,
}

/// Interfaces that the program could not be attached to: why, and when to try again.
type Barred = BTreeMap<LinkId, (Instant, String)>;

impl Work {
    fn new(answerer: Result<Answerer, String>) -> Self {
        let answerer = answerer.map(Arc::new);
        Self {
            answerer,
            running: None,
            company: None,
            looked: false,
            failed: None,
            barred: Barred::new(),
        }
    }

    /// Nothing to do until the next order.
    fn is_idle(&self) -> bool {
        self.running.is_none() && self.failed.is_none()
    }

    fn turn(&mut self, now: Instant, order: &Order, is_new: bool) -> Found {
        let mut found = Found::default();
        let services = services(&order.desired);
        if services.is_empty() {
            self.take_away(&mut found);
            return found;
        }
        match self.forward(now, order, (&services, is_new), &mut found) {
            Ok(()) => self.failed = None,
            Err(error) if self.running.as_ref().is_some_and(Running::stands) => {
                // What is in the kernel goes on. Netlink answers late while a thousand addresses come.
                found.host.push(format!("XDP forwarding goes on as it was: {error}"));
                if let Some(running) = &self.running {
                    running.report(now, &services, &self.barred, &mut found);
                }
            }
            Err(error) => {
                let all = services.iter().map(|service| (service.place, error.to_string()));
                found.refused.extend(all);
                let until = match &self.failed {
                    Some((until, known)) if now < *until && *known == error => *until,
                    Some(_) | None => now + RETRY,
                };
                self.failed = Some((until, error));
            }
        }
        if let Err(reason) = &self.answerer {
            for wanted in services.iter().filter(|s| s.presence == Presence::Answered) {
                let (vip, _, _) = wanted.key;
                found.refused.insert(wanted.place, format!("nothing answers for {vip}: {reason}"));
            }
        }
        found
    }

    /// Talks with the other nodes; whether some table has another past now.
    fn talk(&mut self, now: Instant, order: &Order) -> bool {
        let (Some(running), Some(company)) = (&mut self.running, &mut self.company) else {
            return false;
        };
        let has_followed = company.turn(now, &mut running.about(), &services(&order.desired));
        if has_followed {
            running.follow_anew();
        }
        has_followed
    }

    fn trace(&mut self, order: Option<&Order>, packet: &Packet) -> Result<Traced, String> {
        let why_not = || match &self.failed {
            Some((_, error)) => error.to_string(),
            None => "no program is loaded".to_owned(),
        };
        let Some(running) = &mut self.running else { return Err(why_not()) };
        let services = order.map_or_else(Vec::new, |order| services(&order.desired));
        running.trace(&services, packet).map_err(|error| error.to_string())
    }

    fn count(&self, order: &Order) -> Counted {
        let running = self.running.as_ref();
        let count = |running: &Running| running.count(&services(&order.desired));
        let mut counted = running.map_or_else(Counted::default, count);
        if let Some(company) = &self.company {
            counted.totals.extend(company.counts.named());
        }
        counted
    }

    fn take_away(&mut self, found: &mut Found) {
        self.failed = None;
        self.barred.clear();
        if let Some(running) = self.running.take() {
            running.detach();
            tracing::info!("no service of mode \"xdp\" is left: its programs are taken away");
        } else if !std::mem::replace(&mut self.looked, true)
            && Fast::kept()
            && let Err(reason) = Fast::detach_earlier()
        {
            found.host.push(format!("XDP programs of an earlier run stay: {reason}"));
        }
    }

    fn forward(
        &mut self,
        now: Instant,
        order: &Order,
        (services, is_new): (&[Wanted<'_>], bool),
        found: &mut Found,
    ) -> Result<(), FastError> {
        if let Some(running) = self.running.as_mut().filter(|_| is_new) {
            running.hear_of_order();
        }
        if let Some((_, error)) = self.failed.as_ref().filter(|(until, _)| now < *until) {
            return Err(error.clone());
        }
        self.looked = true;
        let known = self.barred.len();
        self.barred.retain(|_, (until, _)| now < *until);
        if self.barred.len() != known
            && let Some(running) = &mut self.running
        {
            running.follow_anew();
        }
        if self.running.is_none() {
            self.running = Some(Running::open(now, order, self.answerer.as_ref().ok())?);
        }
        let Some(running) = &mut self.running else { return Ok(()) };
        running.turn(now, order, services, &mut self.barred, found)
    }
}

/// Address, protocol and ports.
type ServiceKey = (IpAddr, Protocol, Ports);

/// A service of mode "xdp" on one address that this host may own.
struct Wanted<'d> {
    key: ServiceKey,
    place: Place,
    service: &'d Service,
    forward: Forward,
    /// Where the address is announced.
    link: LinkId,
    /// How it is there.
    presence: Presence,
}

fn services(desired: &Desired) -> Vec<Wanted<'_>> {
    let mut all = Vec::new();
    for group in &desired.groups {
        for service in &group.services {
            let Mode::Xdp { forward, flow: _ } = service.mode else { continue };
            let place = Place::of(group, service);
            let here = group.addresses.iter().filter_map(|a| Some((a, a.link?)));
            let here = here.map(|(a, link)| (a.cidr.address(), link, a.presence));
            let here = here.filter(|(address, ..)| service.addresses.contains(address));
            all.extend(here.map(|(address, link, presence)| Wanted {
                key: (address, service.protocol, service.ports),
                place,
                service,
                forward,
                link,
                presence,
            }));
        }
    }
    all
}

//! Carries what agents tell each other beside the lease protocol: orders, answers of checks, flows.
//!
//! A task of the slow side with sockets of its own, one for each leg, at the port after the heartbeat's. A parcel
//! goes to a peer on the leg on which that was last heard. Nothing waits for it: queues are bounded, and what does
//! not fit is counted and lost, as on the network. So whoever uses it repeats what holds, and gives a peer that
//! came all there is ([`News::Came`]).
//!
//! What is believed is decided by [`buoy_core::exchange`], who has written it by [`buoy_wire::Keyring`].

use crate::counters::Counters;
use buoy_core::exchange::{Due, Exchange as Sessions, Heard};
use buoy_kernel::clock;
use buoy_model::limits::{EXCHANGE_DATAGRAM_MAX, EXCHANGE_QUEUE_MAX};
use buoy_model::{Desired, ExchangeHeader, Incarnation, NodeId, Topic};
use buoy_wire::exchange::BODY_MAX;
use buoy_wire::{Keyring, Reject};
use std::collections::BTreeMap;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time;

/// How soon an address that could not be listened on is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);
/// How long nobody waits for where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// What came over the exchange, for who reads a topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// A life of a peer is there that was not: tell it all there is.
    Came(NodeId),
    /// Nothing is heard of a peer any more.
    Left(NodeId),
    /// What a peer says.
    Parcel(NodeId, Vec<u8>),
}

/// The exchange of this node; ends when it is dropped.
#[derive(Debug)]
pub struct Exchange {
    handle: Handle,
    task: AbortHandle,
}

/// The way to the exchange for those who use it.
#[derive(Clone, Debug)]
pub struct Handle {
    outgoing: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Outgoing {
    to: Option<NodeId>,
    topic: Topic,
    body: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shared {
    readers: Mutex<Readers>,
    problems: Mutex<Vec<String>>,
    sent: AtomicU64,
    received: AtomicU64,
    /// For want of room in a queue, or because the kernel refused it.
    dropped: AtomicU64,
    /// Heard before, or of no session.
    stale: AtomicU64,
    rejected: [AtomicU64; Reject::ALL.len()],
}

#[derive(Debug, Default)]
struct Readers {
    present: Vec<NodeId>,
    of: [Option<mpsc::Sender<News>>; Topic::ALL.len()],
}

impl Exchange {
    /// Starts to listen and to greet. To be called inside a tokio runtime.
    pub fn start(
        desired: watch::Receiver<Arc<Desired>>,
        keyring: watch::Receiver<Keyring>,
    ) -> io::Result<Self> {
        let random = || getrandom::u64().map_err(io::Error::other);
        let (life, seed) = (Incarnation(random()?.max(1)), random()?);
        let (outgoing, orders) = mpsc::channel(EXCHANGE_QUEUE_MAX);
        let shared = Arc::new(Shared::default());
        let turn = Turn::new(desired, keyring, Arc::clone(&shared), life, seed);
        let task = tokio::spawn(turn.run(orders)).abort_handle();
        Ok(Self { handle: Handle { outgoing, shared }, task })
    }

    /// The way to it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handle {
    /// Gives a parcel of at most `BODY_MAX` bytes to a peer, or to all that are there. Never waits.
    pub fn send(&self, to: Option<NodeId>, topic: Topic, body: Vec<u8>) {
        debug_assert!(body.len() <= BODY_MAX && topic != Topic::Hello);
        if body.len() > BODY_MAX || self.outgoing.try_send(Outgoing { to, topic, body }).is_err() {
            count(&self.shared.dropped);
        }
    }

    /// What comes of a topic from now on, and first who is there. A topic has one reader, the latest.
    pub fn subscribe(&self, topic: Topic) -> mpsc::Receiver<News> {
        let (sender, receiver) = mpsc::channel(EXCHANGE_QUEUE_MAX);
        let mut readers = self.shared.readers();
        for peer in &readers.present {
            // There are fewer nodes than room.
            let _ = sender.try_send(News::Came(*peer));
        }
        readers.of[topic.index()] = Some(sender);
        receiver
    }

    /// Peers that are there.
    pub fn present(&self) -> Vec<NodeId> {
        self.shared.readers().present.clone()
    }

    /// What does not work, in sentences that say what to do.
    pub fn problems(&self) -> Vec<String> {
        self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it has done, by name.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let shared = &self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let rejected = shared.rejected.iter().map(read).sum::<u64>();
        BTreeMap::from([
            ("exchange_sent".into(), read(&shared.sent)),
            ("exchange_received".into(), read(&shared.received)),
            ("exchange_dropped".into(), read(&shared.dropped)),
            ("exchange_stale".into(), read(&shared.stale)),
            ("exchange_rejected".into(), rejected),
        ])
    }
}

impl Shared {
    /// Nothing that holds the lock can panic halfway through a change.
    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, topic: Topic, news: News) {
        let readers = self.readers();
        if let Some(reader) = &readers.of[topic.index()]
            && reader.try_send(news).is_err()
        {
            count(&self.dropped);
        }
    }

    fn tell_all(&self, news: &News) {
        Topic::ALL.into_iter().for_each(|topic| self.tell(topic, news.clone()));
    }
}

fn count(counter: &AtomicU64) {
    Counters::count(counter);
}

/// The task's own.
struct Turn {
    desired: watch::Receiver<Arc<Desired>>,
    keyring: watch::Receiver<Keyring>,
    shared: Arc<Shared>,
    sessions: Sessions,
    /// By leg; `None` where it could not be listened on yet.
    legs: Vec<Option<net::UdpSocket>>,
    /// On which leg a peer was heard last.
    heard_on: BTreeMap<NodeId, usize>,
    datagram: Vec<u8>,
}

impl Turn {
    fn new(
        mut desired: watch::Receiver<Arc<Desired>>,
        keyring: watch::Receiver<Keyring>,
        shared: Arc<Shared>,
        life: Incarnation,
        seed: u64,
    ) -> Self {
        let sessions = Sessions::new(clock::now(), &desired.borrow_and_update(), life, seed);
        let legs = own_legs(&desired.borrow()).len();
        Self {
            desired,
            keyring,
            shared,
            sessions,
            legs: (0..legs).map(|_| None).collect(),
            heard_on: BTreeMap::new(),
            datagram: Vec::with_capacity(EXCHANGE_DATAGRAM_MAX),
        }
    }

    async fn run(mut self, mut orders: mpsc::Receiver<Outgoing>) {
        let (arrived, mut incoming) = mpsc::channel::<(usize, Vec<u8>)>(EXCHANGE_QUEUE_MAX);
        let mut readers = JoinSet::new();
        let mut bind = time::interval(BIND_AGAIN);
        bind.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            let now = clock::now();
            let due = self.sessions.deadline().map_or(IDLE, |at| at.since(now));
            tokio::select! {
                Some((leg, datagram)) = incoming.recv() => self.heard(leg, &datagram),
                order = orders.recv() => match order {
                    Some(order) => self.send(&order),
                    None => return,
                },
                () = time::sleep(due) => self.tick(),
                _ = bind.tick() => self.bind(&arrived, &mut readers),
                changed = self.desired.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.adopt();
                }
            }
        }
    }

    /// Listens wherever it does not yet.
    fn bind(&mut self, arrived: &mpsc::Sender<(usize, Vec<u8>)>, readers: &mut JoinSet<()>) {
        let legs = own_legs(&self.desired.borrow());
        // Nobody is there to be talked to.
        let is_alone = self.desired.borrow().nodes.len() < 2;
        let mut problems = Vec::new();
        for (leg, at) in legs.into_iter().enumerate().filter(|_| !is_alone) {
            if self.legs.get(leg).is_none_or(Option::is_some) {
                continue;
            }
            match open(at) {
                Ok((sender, receiver)) => {
                    readers.spawn(read(leg, receiver, arrived.clone()));
                    self.legs[leg] = Some(sender);
                }
                Err(cause) => problems.push(format!(
                    "the exchange between agents cannot listen on UDP {at}: {cause}; what other nodes say of \
                     backends and flows does not reach this one there"
                )),
            }
        }
        *self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner) = problems;
    }

    fn heard(&mut self, leg: usize, datagram: &[u8]) {
        let keyring = self.keyring.borrow().clone();
        let (cluster, me) = {
            let desired = self.desired.borrow();
            (desired.cluster, desired.me)
        };
        let frame = match keyring.open_exchange(cluster, me, datagram) {
            Ok(frame) => frame,
            Err(reason) => return count(&self.shared.rejected[reason.index()]),
        };
        let from = frame.header.from;
        match self.sessions.hear(clock::now(), &frame.header) {
            Heard::Refused => return count(&self.shared.stale),
            Heard::Answer(answer) => {
                count(&self.shared.stale);
                return self.emit(Some(leg), answer, Topic::Hello, &[]);
            }
            Heard::Came => {
                self.heard_on.insert(from, leg);
                // First the hello that is due: what readers say is believed only after it.
                self.tick();
                self.shared.readers().present = self.sessions.present().collect();
                self.shared.tell_all(&News::Came(from));
            }
            Heard::Believed => {
                self.heard_on.insert(from, leg);
            }
        }
        count(&self.shared.received);
        if frame.topic != Topic::Hello {
            self.shared.tell(frame.topic, News::Parcel(from, frame.body.to_vec()));
        }
    }

    fn send(&mut self, order: &Outgoing) {
        let all = || self.sessions.present().collect::<Vec<NodeId>>();
        let receivers = order.to.map_or_else(all, |one| vec![one]);
        for to in receivers {
            if let Some(header) = self.sessions.header(to) {
                let leg = self.heard_on.get(&to).copied();
                self.emit(leg, header, order.topic, &order.body);
            }
        }
    }

    fn tick(&mut self) {
        let mut due = Vec::new();
        self.sessions.tick(clock::now(), &mut due);
        for due in due {
            match due {
                Due::Hello(header) => self.emit(None, header, Topic::Hello, &[]),
                Due::Left(node) => self.left(node),
            }
        }
    }

    fn adopt(&mut self) {
        let desired = Arc::clone(&self.desired.borrow_and_update());
        for node in self.sessions.adopt(clock::now(), &desired) {
            self.left(node);
        }
    }

    fn left(&mut self, node: NodeId) {
        self.shared.readers().present = self.sessions.present().collect();
        self.shared.tell_all(&News::Left(node));
    }

    /// Sends a datagram on one leg, or on all.
    fn emit(&mut self, leg: Option<usize>, header: ExchangeHeader, topic: Topic, body: &[u8]) {
        self.keyring.borrow().seal_exchange(header, topic, body, &mut self.datagram);
        let desired = self.desired.borrow();
        let Some(node) = desired.node(header.to) else { return };
        for (n, at) in node.exchange().enumerate() {
            if leg.is_some_and(|leg| leg != n) {
                continue;
            }
            let Some(Some(socket)) = self.legs.get(n) else { continue };
            match socket.send_to(&self.datagram, at) {
                Ok(_) => count(&self.shared.sent),
                Err(_) => count(&self.shared.dropped),
            }
        }
    }
}

fn own_legs(desired: &Desired) -> Vec<SocketAddr> {
    desired.node(desired.me).map(|me| me.exchange().collect()).unwrap_or_default()
}

/// One socket, twice: to send without a runtime's leave, and to wait for what arrives.
fn open(at: SocketAddr) -> io::Result<(net::UdpSocket, UdpSocket)> {
    let sender = net::UdpSocket::bind(at)?;
    sender.set_nonblocking(true)?;
    let receiver = UdpSocket::from_std(sender.try_clone()?)?;
    Ok((sender, receiver))
}

/// Hands on what arrives on a leg; what arrives faster than it is looked at is lost in the socket.
async fn read(leg: usize, socket: UdpSocket, arrived: mpsc::Sender<(usize, Vec<u8>)>) {
    let mut buffer = vec![0; EXCHANGE_DATAGRAM_MAX + 1];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, _)) => {
                if arrived.send((leg, buffer[..length].to_vec())).await.is_err() {
                    return;
                }
            }
            // Of a datagram that was sent (nobody listened there), or of the interface.
            Err(_) => time::sleep(Duration::from_millis(10)).await,
        }
    }
}

#[cfg(test)]
mod tests;

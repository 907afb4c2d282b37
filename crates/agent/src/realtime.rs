//! The real-time loop: one thread that reads what the kernel and the peers say, lets the core
//! decide and applies what it decided. It never waits for anything but news, and in steady state it
//! allocates nothing. The slow side reaches it through bounded channels only.

use crate::counters::Counters;
use crate::hardware::{Hardware, StartError};
use buoy_core::{Node, Settings, Status};
use buoy_kernel::wake::{self, Waker, Wakeups};
use buoy_kernel::{clock, packet, realtime};
use buoy_model::limits::{DATAGRAM_MAX, LOOP_COMMANDS_MAX, LOOP_REPORTS_MAX};
use buoy_model::{
    Action, Desired, Event, Fitness, GroupId, Incarnation, Instant, Leg, Message, Order, Record,
};
use buoy_wire::Keyring;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Datagrams read before anything else is looked at: a flood must not keep the loop from its leases.
const DATAGRAMS_PER_TURN: usize = 256;

/// An order to the loop.
#[derive(Debug)]
pub enum Command {
    /// A new configuration that passed every check.
    Reload(Box<(Arc<Desired>, Keyring)>),
    /// What an operator wants.
    Order(Order),
    /// Whether this host could serve each group well.
    Fitness(Vec<(GroupId, Fitness)>),
    /// What the node knows.
    Status(oneshot::Sender<Status>),
    /// Give everything away and end.
    Stop,
}

/// What the loop tells the slow side.
#[derive(Debug)]
pub enum Report {
    /// A fact worth keeping.
    Record(Record),
    /// Something that the kernel refused, as a sentence.
    Problem(String),
    /// The loop has ended; nothing is served here any more.
    Stopped,
}

/// The slow side's end of the loop.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: SyncSender<Command>,
    waker: Waker,
    /// What the loop counts.
    pub counters: Arc<Counters>,
    /// How the loop is scheduled, as a sentence.
    pub scheduling: String,
    /// The lines of defence, one sentence each.
    pub defences: Vec<String>,
}

/// The loop's thread and what comes out of it.
#[derive(Debug)]
pub struct Running {
    /// For orders.
    pub handle: Handle,
    /// For news; ends with `Report::Stopped`.
    pub reports: mpsc::Receiver<Report>,
    /// Ends when the loop has ended.
    pub thread: JoinHandle<()>,
}

impl Handle {
    /// Hands an order over; an error when the loop has ended or takes no more.
    pub fn order(&self, command: Command) -> Result<(), Gone> {
        match self.commands.try_send(command) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => Err(Gone),
        }
    }

    /// Asks what the node knows.
    pub async fn status(&self) -> Result<Status, Gone> {
        let (answer, asked) = oneshot::channel();
        self.order(Command::Status(answer))?;
        asked.await.map_err(|_| Gone)
    }
}

/// The loop does not take orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gone;

/// Opens everything the loop needs, so that what is missing is said before anything changes; then
/// starts it on a thread of its own.
pub fn start(desired: Arc<Desired>, keyring: Keyring) -> Result<Running, StartError> {
    let hardware = Hardware::open(&desired)?;
    let defences = hardware.defences.clone();
    let settings = Settings {
        incarnation: Incarnation(random()?.max(1)),
        seed: random()?,
        fence: hardware.fence,
    };
    let (commands, orders) = sync_channel(LOOP_COMMANDS_MAX);
    let (report, reports) = mpsc::channel(LOOP_REPORTS_MAX);
    let (waker, wakeups) = wake::pair().map_err(StartError::Wake)?;
    let counters = Arc::new(Counters::default());
    let (scheduled, scheduling) = sync_channel(1);
    let counted = Arc::clone(&counters);
    let thread = std::thread::Builder::new().name("buoy-loop".into()).spawn(move || {
        let _ = scheduled.send(describe(&realtime::enter()));
        let now = clock::now();
        let heartbeat = desired.timing.heartbeat;
        let turn = Loop {
            node: Node::new(now, desired, settings),
            hardware,
            keyring,
            orders,
            report,
            wakeups,
            counters: counted,
            message: Message::default(),
            datagram: Vec::with_capacity(DATAGRAM_MAX),
            out: Vec::with_capacity(64),
            news: Vec::with_capacity(64),
            heartbeat,
            stopped: false,
        };
        turn.run();
    });
    let thread = thread.map_err(StartError::Thread)?;
    let scheduling = scheduling.recv().unwrap_or_default();
    let handle = Handle { commands, waker, counters, scheduling, defences };
    Ok(Running { handle, reports, thread })
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|_| StartError::Random)
}

fn describe(got: &realtime::Realtime) -> String {
    let priority = match &got.priority {
        Ok(()) => "real-time scheduling (SCHED_FIFO)".to_owned(),
        Err(missing) => missing.to_string(),
    };
    let locked = match &got.locked {
        Ok(()) => "memory locked".to_owned(),
        Err(missing) => missing.to_string(),
    };
    format!("{priority}; {locked}")
}

struct Loop {
    node: Node,
    hardware: Hardware,
    keyring: Keyring,
    orders: Receiver<Command>,
    report: mpsc::Sender<Report>,
    wakeups: Wakeups,
    counters: Arc<Counters>,
    message: Message,
    datagram: Vec<u8>,
    out: Vec<Action>,
    news: Vec<Event<'static>>,
    heartbeat: std::time::Duration,
    /// Everything is given away.
    stopped: bool,
}

impl Loop {
    fn run(mut self) {
        self.hardware.watch_wakeups(&self.wakeups);
        self.hardware.look(&mut |event| self.news.push(event));
        self.take_news();
        while !self.stopped && self.turn() {}
        let Self { hardware, report, .. } = self;
        if let Err(error) = hardware.close() {
            let _ = report.try_send(Report::Problem(error.to_string()));
        }
        let _ = report.try_send(Report::Stopped);
    }

    /// Waits, reads everything there is, and only then looks at the time: silence is silence only
    /// when the sockets are empty. Whether to go on.
    fn turn(&mut self) -> bool {
        let deadline = self.node.deadline();
        if self.hardware.wait(deadline).is_err() {
            self.tell(Report::Problem("the loop cannot wait for its sockets".into()));
            return false;
        }
        if deadline.is_some_and(|at| clock::now().since(at) > self.heartbeat) {
            Counters::count(&self.counters.late);
        }
        self.read_datagrams();
        self.read_kernel();
        self.read_orders();
        if self.node.deadline().is_some_and(|at| at <= clock::now()) {
            self.node.handle(clock::now(), Event::Tick, &mut self.out);
        }
        self.act();
        true
    }

    fn read_datagrams(&mut self) {
        let mut buffer = [0; DATAGRAM_MAX + 1];
        for _ in 0..DATAGRAMS_PER_TURN {
            let Ok(Some((length, _, leg))) = self.hardware.transport.receive(&mut buffer) else {
                return;
            };
            let desired = &self.hardware.desired;
            let opened = self.keyring.open(
                desired.cluster,
                desired.me,
                &buffer[..length],
                &mut self.message,
            );
            match opened {
                Err(reason) => self.counters.reject(reason),
                Ok(()) => {
                    Counters::count(&self.counters.received);
                    let event = Event::Heard { message: &self.message, leg };
                    self.node.handle(clock::now(), event, &mut self.out);
                    // An answer is made from what was just heard: it leaves before the next is read.
                    self.act();
                }
            }
        }
    }

    fn read_kernel(&mut self) {
        let Self { hardware, news, .. } = self;
        hardware.read_news(&mut |event| news.push(event));
        hardware.read_packets(&mut |heard| {
            let packet::Heard::Claim { link, address, mac } = heard;
            news.push(Event::ForeignClaim { link, address, mac });
        });
        self.take_news();
    }

    /// One by one: what an event leads to is done, and said, before the next is looked at. Else a
    /// heartbeat of the first would be composed after the second, and could say "released" before it is.
    fn take_news(&mut self) {
        let mut news = std::mem::take(&mut self.news);
        for event in news.drain(..) {
            self.node.handle(clock::now(), event, &mut self.out);
            self.act();
        }
        self.news = news;
    }

    fn read_orders(&mut self) {
        self.wakeups.clear();
        while let Ok(command) = self.orders.try_recv() {
            let now = clock::now();
            match command {
                Command::Reload(new) => self.reload(now, *new),
                Command::Order(order) => {
                    self.node.handle(now, Event::Order(order), &mut self.out);
                }
                Command::Fitness(groups) => {
                    for (group, fitness) in groups {
                        let event = Event::Fitness { group, fitness };
                        self.node.handle(now, event, &mut self.out);
                        self.act();
                    }
                }
                Command::Status(answer) => {
                    let _ = answer.send(self.node.status(now));
                }
                Command::Stop => self.node.handle(now, Event::Stop, &mut self.out),
            }
            self.act();
        }
    }

    fn reload(&mut self, now: Instant, (desired, keyring): (Arc<Desired>, Keyring)) {
        self.keyring = keyring;
        self.heartbeat = desired.timing.heartbeat;
        let before = Arc::clone(&self.hardware.desired);
        for problem in self.hardware.reload(Arc::clone(&desired)) {
            self.tell(Report::Problem(problem));
        }
        // Before the node takes anything new: an interface that could not be fenced is down.
        self.hardware.look(&mut |event| self.news.push(event));
        self.take_news();
        self.node.handle(now, Event::Reload(desired), &mut self.out);
        self.act();
        self.hardware.forget_what_left(&before);
    }

    /// Applies what was decided, in order.
    fn act(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        for action in out.drain(..) {
            match action {
                Action::Heartbeat { .. } | Action::Answer { .. } => self.send(&action),
                Action::Record(record) => self.tell(Report::Record(record)),
                Action::Stopped => self.stopped = true,
                Action::PrepareGoodbye { .. } => {}
                Action::Fence { .. }
                | Action::Renew { .. }
                | Action::AddAddress { .. }
                | Action::RemoveAddress { .. }
                | Action::Announce { .. } => {
                    if let Err(error) = self.hardware.apply.apply(&action) {
                        Counters::count(&self.counters.failed);
                        self.tell(Report::Problem(error.to_string()));
                    }
                }
            }
        }
        self.out = out;
    }

    fn send(&mut self, action: &Action) {
        let Some(to) = self.node.compose(clock::now(), action, &mut self.message) else { return };
        let Some(peer) = self.hardware.desired.node(to) else { return };
        let address = peer.address();
        self.keyring.seal(&self.message, &mut self.datagram);
        let sent = self.hardware.transport.send(Leg(0), address, &self.datagram);
        Counters::count(if sent.is_ok() { &self.counters.sent } else { &self.counters.unsent });
    }

    fn tell(&self, report: Report) {
        if self.report.try_send(report).is_err() {
            Counters::count(&self.counters.unreported);
        }
    }
}

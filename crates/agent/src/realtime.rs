//! The real-time loop: one thread that reads what the kernel and the peers say, lets the core
//! decide and applies what it decided. It never waits for anything but news, and in steady state it
//! allocates nothing. The slow side reaches it through bounded channels only.

use crate::advert::{self, Stamps};
use crate::counters::Counters;
use crate::fitness::Judged;
use crate::hardware::{Hardware, StartError};
use crate::log::Format;
use crate::phases::Phases;
use crate::pulse::Pulse;
use crate::supervision::Supervision;
use crate::systemd::{Feeder, Systemd};
use buoy_core::{Node, OrderError, Settings, Status};
use buoy_kernel::gate::Answerer;
use buoy_kernel::lifeline::Lifeline;
use buoy_kernel::wake::{self, Waker, Wakeups};
use buoy_kernel::{clock, memory, packet, realtime};
use buoy_model::limits::{DATAGRAM_MAX, LOOP_COMMANDS_MAX, LOOP_REPORTS_MAX};
use buoy_model::{
    Action, Desired, Event, GroupId, HeardAdvert, Incarnation, Instant, Leg, Message, MessageKind,
    Order, Record,
};
use buoy_wire::Keyring;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Datagrams read before anything else is looked at: a flood must not keep the loop from its leases.
const DATAGRAMS_PER_TURN: usize = 256;

/// An order to the loop.
#[derive(Debug)]
pub enum Command {
    /// A new configuration that passed every check.
    Reload(Box<(Arc<Desired>, Keyring)>),
    /// What an operator wants; answered by how many groups the node served before, or why it cannot be.
    Order(Order, oneshot::Sender<Result<usize, OrderError>>),
    /// Whether this host could serve each group well.
    Fitness(Vec<Judged>),
    /// What the node knows, of all groups or of one alone.
    Status(Option<Vec<GroupId>>, oneshot::Sender<Status>),
    /// Whether it takes orders.
    Alive(oneshot::Sender<()>),
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
    /// The lines of defence as they were at the start, one sentence each.
    pub defences: Vec<String>,
    supervision: Supervision,
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
    /// What answers for addresses that are on no interface, under the leases of the loop; why there is nothing.
    pub answerer: Result<Answerer, String>,
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

    /// The lines of defence that stand now, one sentence each.
    pub fn defences_now(&self) -> Vec<String> {
        let mut defences = self.defences.clone();
        if let Some(line) = defences.iter_mut().find(|line| *line == SUPERVISED)
            && !self.supervision.stands()
        {
            UNSUPERVISED.clone_into(line);
        }
        defences
    }

    /// Gives an operator's order: how many groups the node served when it took it, or why it cannot be.
    pub async fn follow(&self, order: Order) -> Result<Result<usize, OrderError>, Gone> {
        let (answer, asked) = oneshot::channel();
        self.order(Command::Order(order, answer))?;
        asked.await.map_err(|_| Gone)
    }

    /// Asks whether the loop takes orders: what the node knows of a thousand groups takes it a while.
    pub async fn is_alive(&self) -> Result<(), Gone> {
        let (answer, asked) = oneshot::channel();
        self.order(Command::Alive(answer))?;
        asked.await.map_err(|_| Gone)
    }

    /// Asks what the node knows, of all groups or of some alone, in the order of their ids.
    pub async fn status(&self, of: Option<Vec<GroupId>>) -> Result<Status, Gone> {
        let (answer, asked) = oneshot::channel();
        self.order(Command::Status(of, answer))?;
        asked.await.map_err(|_| Gone)
    }
}

/// The loop does not take orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Gone;

const SUPERVISED: &str = "supervisor: a crash or a hang of the agent is said to the peers at once, by a process of its own";
const UNSUPERVISED: &str = "NO supervisor (it died; another is being started): a crash of the agent is noticed by its silence";

/// Opens everything the loop needs, so that what is missing is said before anything changes; then
/// starts it on a thread of its own, and the supervisor beside it.
pub(crate) fn start(
    desired: Arc<Desired>,
    keyring: Keyring,
    systemd: &Systemd,
    log: Format,
) -> Result<Running, StartError> {
    let hardware = Hardware::open(&desired)?;
    let mut defences = hardware.defences.clone();
    let (leases, answerer) = (hardware.leases(), hardware.answerer());
    let legs = desired.node(desired.me).map(|me| me.addresses.clone()).unwrap_or_default();
    let settings = Settings {
        incarnation: Incarnation(random()?.max(1)),
        seed: random()?,
        fence: hardware.fence,
    };
    let (commands, orders) = sync_channel(LOOP_COMMANDS_MAX);
    let (report, reports) = mpsc::channel(LOOP_REPORTS_MAX);
    let (waker, wakeups) = wake::pair().map_err(StartError::Wake)?;
    let counters = Arc::new(Counters::default());
    let (begun, beginning) = sync_channel(1);
    let (counted, told) = (Arc::clone(&counters), report.clone());
    let feeder = systemd.feeder();
    let thread = std::thread::Builder::new().name("buoy-loop".into()).spawn(move || {
        let got = realtime::enter();
        // Before the node is made: what it decides with is of this memory. Without it the loop may wait for others.
        if let Err(error) = memory::claim(desired.groups.len()) {
            tracing::warn!("the loop has no memory of its own: {error}");
        }
        let lifeline = Lifeline::create();
        let (pulse, unheld) = Pulse::take(lifeline.as_ref().ok(), got.priority.is_ok());
        let lifeline = unheld.map_or(lifeline, Err);
        let _ = begun.send((describe(&got), lifeline));
        let turn = Loop {
            term: desired.timing.lease,
            heartbeat: desired.timing.heartbeat,
            node: Node::new(clock::now(), Arc::clone(&hardware.desired), settings),
            hardware,
            keyring,
            orders,
            report,
            wakeups,
            counters: counted,
            pulse,
            feeder,
            phases: Phases::new(),
            message: Message::default(),
            received: vec![0; DATAGRAM_MAX + 1].into_boxed_slice(),
            datagram: Vec::with_capacity(DATAGRAM_MAX),
            out: Vec::with_capacity(64),
            news: Vec::with_capacity(64),
            adverts: Vec::new(),
            stamps: Stamps::default(),
            stopped: false,
        };
        turn.run();
    });
    let thread = thread.map_err(StartError::Thread)?;
    let (scheduling, lifeline) = beginning.recv().map_err(|_| StartError::LoopEnded)?;
    let supervision = lifeline.map_err(|error| error.to_string()).and_then(|lifeline| {
        lifeline.set_legs(legs);
        Supervision::start(lifeline, leases, log, told).map_err(|error| error.to_string())
    });
    defences.push(supervised(&supervision));
    defences.push(watched(systemd));
    let supervision = supervision.unwrap_or_else(|_| Supervision::none());
    let handle = Handle { commands, waker, counters, scheduling, defences, supervision };
    Ok(Running { handle, reports, thread, answerer })
}

fn supervised(supervision: &Result<Supervision, String>) -> String {
    match supervision {
        Ok(_) => SUPERVISED.into(),
        Err(why) => format!(
            "NO supervisor ({why}): a crash of the agent is noticed by its silence, after the lease"
        ),
    }
}

fn watched(systemd: &Systemd) -> String {
    match systemd.watchdog() {
        Some(after) => format!(
            "systemd watchdog: the agent is killed when the loop has not turned for {} ms",
            after.as_millis()
        ),
        None => {
            "NO systemd watchdog (WatchdogSec= of the unit): nobody restarts an agent that hangs \
                 while its supervisor is dead"
                .into()
        }
    }
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
    pulse: Pulse,
    feeder: Feeder,
    phases: Phases,
    message: Message,
    /// What came in.
    received: Box<[u8]>,
    /// What goes out.
    datagram: Vec<u8>,
    out: Vec<Action>,
    news: Vec<Event<'static>>,
    adverts: Vec<HeardAdvert>,
    stamps: Stamps,
    heartbeat: Duration,
    /// The term that was asked for last.
    term: Duration,
    /// Everything is given away.
    stopped: bool,
}

impl Loop {
    fn run(mut self) {
        self.hardware.watch_wakeups(&self.wakeups);
        self.hardware.look(&mut |event| self.news.push(event));
        self.take_news();
        while !self.stopped && self.turn() {}
        let Self { hardware, report, pulse, stopped, .. } = self;
        // A loop that could not go on has given nothing away: its gate stays, and the supervisor acts.
        if stopped {
            if let Err(error) = pulse.slowly(|| hardware.close()) {
                let _ = report.try_send(Report::Problem(error.to_string()));
            }
            pulse.end();
        }
        let _ = report.try_send(Report::Stopped);
    }

    /// Waits, reads everything there is, and only then looks at the time: silence is silence only
    /// when the sockets are empty. Whether to go on.
    fn turn(&mut self) -> bool {
        let deadline = self.node.deadline();
        self.pulse.settle(self.node.interval(), self.term, self.hardware.desired.groups.len());
        self.pulse.beat(clock::now());
        if self.hardware.wait(deadline).is_err() {
            self.tell(Report::Problem("the loop cannot wait for its sockets".into()));
            return false;
        }
        let now = clock::now();
        if deadline.is_some_and(|at| now.since(at) > self.heartbeat) {
            Counters::count(&self.counters.late);
        }
        self.feeder.feed(now);
        self.read_datagrams();
        self.read_kernel();
        self.read_orders();
        if self.node.deadline().is_some_and(|at| at <= clock::now()) {
            self.node.handle(clock::now(), Event::Tick, &mut self.out);
        }
        self.act();
        self.measure();
        true
    }

    fn read_datagrams(&mut self) {
        for _ in 0..DATAGRAMS_PER_TURN {
            let received = self.hardware.transport.receive(&mut self.received);
            let Ok(Some((length, _, leg))) = received else { return };
            let desired = &self.hardware.desired;
            let opened = self.keyring.open(
                desired.cluster,
                desired.me,
                &self.received[..length],
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
        let Self { hardware, news, pulse, .. } = self;
        hardware.read_news(pulse, &mut |event| news.push(event));
        hardware.read_packets(&mut |heard| {
            let packet::Heard::Claim { link, address, mac } = heard;
            news.push(Event::ForeignClaim { link, address, mac });
        });
        self.take_news();
        self.read_adverts();
    }

    /// One by one, as with the news.
    fn read_adverts(&mut self) {
        let mut adverts = std::mem::take(&mut self.adverts);
        self.hardware.read_routers(&mut |desired, packet| {
            adverts.extend(advert::read(desired, &packet));
        });
        for heard in adverts.drain(..) {
            self.node.handle(clock::now(), Event::Advert(&heard), &mut self.out);
            self.act();
        }
        self.adverts = adverts;
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
        if self.hardware.is_called() {
            self.wakeups.clear();
        }
        while let Ok(command) = self.orders.try_recv() {
            let now = clock::now();
            match command {
                Command::Reload(new) => self.reload(now, *new),
                Command::Order(order, answer) => {
                    let can = self.node.can_follow(now, &order);
                    let can = can.map(|()| self.node.serves_now());
                    if can.is_ok() {
                        self.node.handle(now, Event::Order(order), &mut self.out);
                        // What the peers wait for goes first.
                        self.act();
                    }
                    let _ = answer.send(can);
                }
                Command::Fitness(groups) => {
                    for Judged { group, fitness, weight } in groups {
                        let weighed = Event::Weight { group, weight };
                        self.node.handle(now, weighed, &mut self.out);
                        let judged = Event::Fitness { group, fitness };
                        self.node.handle(now, judged, &mut self.out);
                        self.act();
                    }
                }
                Command::Status(of, answer) => {
                    let all = || self.node.status(now);
                    let _ = answer.send(of.map_or_else(all, |of| self.node.status_about(now, &of)));
                }
                Command::Alive(answer) => {
                    let _ = answer.send(());
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
        let Self { hardware, pulse, news, .. } = self;
        let problems = pulse.slowly(|| {
            memory::make_room(desired.groups.len());
            let problems = hardware.reload(Arc::clone(&desired));
            // Before the node takes anything new: an interface that could not be fenced is down.
            hardware.look(&mut |event| news.push(event));
            problems
        });
        problems.into_iter().for_each(|problem| self.tell(Report::Problem(problem)));
        self.take_news();
        let desired = Arc::clone(&self.hardware.desired);
        self.node.handle(now, Event::Reload(Arc::clone(&desired)), &mut self.out);
        self.act();
        let Self { hardware, pulse, .. } = self;
        pulse.slowly(|| hardware.forget_what_left(&before));
        // Sealed anew: the key may be another one.
        for peer in self.pulse.keep_members(&desired).into_iter().flatten() {
            self.send(&Action::PrepareGoodbye { to: peer });
        }
    }

    /// Applies what was decided, in order.
    fn act(&mut self) {
        let mut out = std::mem::take(&mut self.out);
        let mut last = clock::now();
        let mut stalled = false;
        for action in out.drain(..) {
            let now = clock::now();
            self.pulse.beat(now);
            // Whoever was frozen here may not have the lease any more that this was decided with.
            // Announcements are repeated, if there is still something to announce.
            stalled |= now.since(last) > self.heartbeat;
            last = now;
            match action {
                Action::Heartbeat { .. }
                | Action::Answer { .. }
                | Action::PrepareGoodbye { .. } => {
                    self.send(&action);
                }
                Action::Record(record) => {
                    self.phases.recorded(&record, &self.hardware.desired);
                    self.tell(Report::Record(record));
                }
                Action::Stopped => self.stopped = true,
                Action::Advertise { .. } => {
                    let Self { hardware, stamps, counters, .. } = self;
                    let (sent, unsent) = hardware.advertise(&action, stamps);
                    Counters::add(&counters.adverts, sent);
                    Counters::add(&counters.unadvertised, unsent);
                }
                Action::Announce { .. } if stalled => Counters::count(&self.counters.stalled),
                Action::Announce { address, .. } => {
                    if self.apply(&action) {
                        self.phases.announced(clock::now(), address);
                    }
                }
                Action::Fence { .. }
                | Action::Renew { .. }
                | Action::AddAddress { .. }
                | Action::RemoveAddress { .. } => {
                    self.apply(&action);
                }
            }
        }
        self.phases.carried_out();
        self.out = out;
    }

    fn apply(&mut self, action: &Action) -> bool {
        let result = self.hardware.apply.apply(action);
        if let Err(error) = &result {
            Counters::count(&self.counters.failed);
            self.tell(Report::Problem(error.to_string()));
        }
        result.is_ok()
    }

    /// Composes and seals a datagram once, and sends it on every leg; a goodbye is kept.
    fn send(&mut self, action: &Action) {
        let Some(to) = self.node.compose(clock::now(), action, &mut self.message) else { return };
        let Self { hardware, pulse, datagram, counters, .. } = self;
        let Some(peer) = hardware.desired.node(to) else { return };
        self.keyring.seal(&self.message, datagram);
        let legs = peer.addresses.iter().copied().take(hardware.transport.fds().count());
        match self.message.kind {
            MessageKind::Goodbye => {
                if !pulse.keep_goodbye(to, legs, datagram) {
                    Counters::count(&counters.failed);
                }
            }
            MessageKind::Heartbeat | MessageKind::Answer => {
                for (leg, address) in (0..).map(Leg).zip(legs) {
                    let sent = hardware.transport.send(leg, address, datagram);
                    Counters::count(if sent.is_ok() { &counters.sent } else { &counters.unsent });
                }
            }
        }
        if self.message.kind == MessageKind::Heartbeat {
            self.term = self.message.term;
        }
    }

    /// Tells how the takeovers of a second ago went on.
    fn measure(&mut self) {
        let now = clock::now();
        if self.phases.wait_for_addresses()
            && let Some(at) = self.hardware.apply.carried_out_at()
        {
            self.phases.on_link(at);
        }
        loop {
            let Self { hardware, phases, .. } = self;
            let first_packet = |link, address| hardware.first_packet(link, address);
            let Some(record) = phases.complete(now, first_packet) else { return };
            self.tell(Report::Record(record));
        }
    }

    fn tell(&self, report: Report) {
        if self.report.try_send(report).is_err() {
            Counters::count(&self.counters.unreported);
        }
    }
}

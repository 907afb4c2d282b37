//! The supervisor: a small process beside the agent that sees it die, or hang, and says so to the peers.
//!
//! It sleeps on the lifeline (`buoy_kernel::lifeline`). When the loop's thread dies, it closes the
//! gate with one store, says goodbye to every peer on every leg, takes the addresses off, and ends.
//! Where there is no gate, the addresses go first: nobody may be told before nothing answers.
//! When the loop stands still while the supervisor itself is on time, it kills the agent and does
//! the same. The loop notes when it turned, so the supervisor sleeps until that is long ago: a machine
//! that does nothing else pays for each time that somebody wakes. A loop that could not even die (it waits for a lock or a device in the kernel) is neither
//! killed nor said to be dead: its peers wait for the end of the lease, and the gate closes by itself.
//!
//! Absent on purpose: threads, the runtime, the configuration, keys. Everything is opened, and tried
//! once, before it is needed; words for the log come last, because a log can be slow.

use crate::log::{self, Format};
use buoy_kernel::gate::{GateError, MasterSwitch};
use buoy_kernel::lifeline::{
    LifelineError, Process, Seen, Watch, Whereabouts, on_processor, schedule_supervisor,
};
use buoy_kernel::netlink::{NetlinkError, Requests};
use buoy_kernel::{clock, program, realtime};
use buoy_model::Instant;
use buoy_model::limits::LEGS_MAX;
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::unistd::getppid;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::Duration;

/// How often every goodbye is said: one datagram may be lost.
const GOODBYES: usize = 2;
/// A quarter of its patience is how long a loop is watched before it is given up, and how late we may be.
const QUARTER: u32 = 4;
/// At least so often, also while the loop does slow work.
const NAP_MAX: Duration = Duration::from_millis(100);
/// Shortest patience with a loop that stands still.
const PATIENCE_MIN: Duration = Duration::from_millis(30);
/// How long the loop is looked at on its own processor before it is killed.
const CONFIRM: Duration = Duration::from_millis(5);
/// A supervisor that sleeps so much longer than it wanted finds a world that has gone on: every lease
/// of the dead agent is over, its gate closed, and a new agent may serve here.
const TOO_LATE: Duration = Duration::from_secs(1);
/// How long a killed loop may take to die before we say why nothing is said.
const DEATH_SLOW: Duration = Duration::from_secs(1);
/// How often addresses are taken off, where the kernel does not do it at once.
const REMOVALS_MAX: usize = 5;

/// What is said of a loop that no signal reaches.
const WAITS: &str = "the agent's loop waits for the kernel: it is not killed, for it would not die before \
                     the kernel lets it go; its addresses stop answering when their leases end";

/// Why a loop stands still.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cause {
    /// It turns again, or had no processor.
    Turns,
    /// It waits for the kernel, where it cannot be killed.
    Kernel,
    /// It does not come back by itself.
    Hangs,
}

/// Why there is no supervisor.
#[derive(Debug)]
pub enum SuperviseError {
    /// It was not started by an agent.
    Lifeline(LifelineError),
    /// The kernel takes no requests.
    Netlink(NetlinkError),
    /// The gate's array is not what it was given.
    Gate(GateError),
}

impl fmt::Display for SuperviseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lifeline(cause) => {
                write!(f, "{cause}: this command is for the agent, which starts it by itself")
            }
            Self::Netlink(cause) => cause.fmt(f),
            Self::Gate(cause) => cause.fmt(f),
        }
    }
}

impl std::error::Error for SuperviseError {}

/// What the supervisor is told on its command line.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The agent's process.
    pub agent: u32,
    /// Standard output is the array of leases of a gate.
    pub gated: bool,
    /// How log lines look.
    pub log: Format,
}

/// Runs the supervisor until the agent has ended, in whatever way. Standard input is the lifeline,
/// standard output the gate's array: so nothing has to be passed on the command line, and nothing
/// leaks into other children of the agent.
pub fn run(options: Options) -> Result<(), SuperviseError> {
    // Who stops the service stops the agent, and the agent's orderly end is what ends us.
    let _ = SigSet::all().thread_block();
    let _ = prctl::set_name(c"buoy-supervise");
    let watch = Watch::open(&io::stdin()).map_err(SuperviseError::Lifeline)?;
    log::start(options.log);
    let array = io::stdout();
    let switch = options.gated.then(|| MasterSwitch::open(array.as_fd())).transpose();
    let switch = switch.map_err(SuperviseError::Gate)?;
    let mut supervisor = Supervisor::new(watch, agent(options.agent)?, switch)?;
    let exempt = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let got = realtime::enter_supervisor();
    program::give_back();
    let ahead = schedule_supervisor();
    tracing::debug!(
        locked = got.locked.is_ok(),
        priority = ahead.is_ok(),
        oom_exempt = exempt.is_ok(),
        "the supervisor watches the agent"
    );
    supervisor.watch();
    Ok(())
}

/// The agent that started us, unless it is gone already: then its number may be another's.
fn agent(pid: u32) -> Result<Option<Process>, SuperviseError> {
    let process = Process::open(pid);
    if getppid().as_raw().cast_unsigned() != pid {
        return Ok(None);
    }
    process.map(Some).map_err(SuperviseError::Lifeline)
}

/// Everything it needs, open.
pub struct Supervisor {
    watch: Watch,
    agent: Option<Process>,
    switch: Option<MasterSwitch>,
    requests: Requests,
    legs: [Option<UdpSocket>; LEGS_MAX],
    /// For a leg whose own address cannot be used any more.
    anywhere: [Option<UdpSocket>; 2],
    /// In which calls of the kernel the loop stood before it was killed.
    stood_in: Option<String>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The agent ended in order.
    Ended,
    /// The agent died.
    Died,
    /// The agent hung and was killed.
    Hung,
    /// The agent died, but that is too long ago to do anything about it.
    TooLate,
    /// The agent cannot die: nothing was said.
    Undying,
}

impl Supervisor {
    /// Opens the sockets and tries what will be needed, so that nothing of it is the first time.
    pub fn new(
        watch: Watch,
        agent: Option<Process>,
        switch: Option<MasterSwitch>,
    ) -> Result<Self, SuperviseError> {
        let mut requests = Requests::open().map_err(SuperviseError::Netlink)?;
        requests.list_ours().map_err(SuperviseError::Netlink)?;
        let mut legs = [const { None }; LEGS_MAX];
        for (socket, address) in legs.iter_mut().zip(watch.legs()) {
            *socket = address.and_then(|address| bind(address.ip()));
        }
        let anywhere = [bind(IpAddr::from([0; 4])), bind(IpAddr::from([0; 16]))];
        Ok(Self { watch, agent, switch, requests, legs, anywhere, stood_in: None })
    }

    /// Watches until the end, and does what is to be done then.
    pub fn watch(&mut self) -> End {
        let mut stillness = Stillness::new(clock::now());
        loop {
            let patience = self.watch.patience().max(PATIENCE_MIN);
            let before = clock::now();
            let nap = stillness.nap(before, patience);
            let seen = self.watch.wait(nap);
            let now = clock::now();
            match seen {
                Seen::Ended => return End::Ended,
                Seen::Died if now.since(before) > nap + TOO_LATE => {
                    tracing::error!(
                        late = ?now.since(before),
                        "the agent has died while this host stood still; its leases are over, and \
                         nothing was said"
                    );
                    return End::TooLate;
                }
                Seen::Died => return self.bury(End::Died),
                Seen::Alive(turned) => {
                    if !stillness.look(now, turned, nap, patience) {
                        continue;
                    }
                    match self.cause(turned) {
                        Cause::Turns => {}
                        Cause::Kernel => {
                            if stillness.forgive() {
                                let calls = self.calls();
                                tracing::warn!(calls, "{WAITS}");
                            }
                        }
                        Cause::Hangs => return self.put_down(),
                    }
                }
            }
        }
    }

    /// Why the loop stands still. The processor of a virtual machine may be taken away for a while, and a
    /// loop that waits for it is not to be killed; nor is one that waits for the kernel, as for the lock
    /// of all of its interfaces (RTNL), which others may hold for long.
    fn cause(&self, turned: Instant) -> Cause {
        let Some(there) = self.whereabouts() else { return Cause::Hangs };
        if there.waits_for_kernel {
            return Cause::Kernel;
        }
        on_processor(there.processor, || {
            let before = clock::now();
            let stands = self.watch.wait(CONFIRM) == Seen::Alive(turned);
            match self.whereabouts() {
                _ if !stands || clock::now().since(before) >= CONFIRM * 2 => Cause::Turns,
                Some(Whereabouts { waits_for_kernel: true, .. }) => Cause::Kernel,
                Some(_) | None => Cause::Hangs,
            }
        })
    }

    fn whereabouts(&self) -> Option<Whereabouts> {
        self.agent.as_ref().and_then(|agent| self.watch.whereabouts(agent.pid()))
    }

    fn calls(&self) -> String {
        self.agent.as_ref().map(|agent| self.watch.calls(agent.pid())).unwrap_or_default()
    }

    /// Kills an agent that hangs. Until it is dead it may wake up and answer, so nothing is said before.
    fn put_down(&mut self) -> End {
        self.stood_in = Some(self.calls());
        let killed = self.agent.as_ref().map_or(Ok(()), Process::kill);
        let since = clock::now();
        let mut warned = false;
        loop {
            match self.watch.wait(DEATH_SLOW) {
                Seen::Died => break,
                Seen::Ended => return End::Ended,
                Seen::Alive(_) => {}
            }
            if clock::now().since(since) > DEATH_SLOW && !warned {
                warned = true;
                tracing::error!(
                    ?killed,
                    "the agent hangs and does not die (it waits for the kernel): nothing is said; the \
                     end of its leases stops it"
                );
            }
        }
        if warned { End::Undying } else { self.bury(End::Hung) }
    }

    /// The agent is dead: nothing may answer here, and all may know it.
    fn bury(&mut self, end: End) -> End {
        let said = if let Some(switch) = &self.switch {
            switch.close_all();
            self.say_goodbye()
        } else {
            0
        };
        // Threads that outlive the loop's for a moment must not put an address back.
        if let Some(agent) = &self.agent {
            let _ = agent.kill();
        }
        let removed = self.remove_addresses();
        let said = match (&self.switch, &removed) {
            (None, Ok(_)) => self.say_goodbye(),
            (None, Err(_)) | (Some(_), _) => said,
        };
        // One of them may have waited in the kernel, with the order to add an address.
        if self.agent.as_ref().is_some_and(|agent| agent.wait_end(DEATH_SLOW)) {
            let _ = self.remove_addresses();
        }
        report(end, self.stood_in.as_deref(), said, &removed);
        end
    }

    /// Says all that lies ready; how many datagrams left.
    fn say_goodbye(&self) -> usize {
        let mut sent = 0;
        for _ in 0..GOODBYES {
            self.watch.goodbyes(|leg, to, sealed| {
                let [v4, v6] = &self.anywhere;
                let anywhere = if to.is_ipv4() { v4 } else { v6 };
                let ways = [self.legs[leg].as_ref(), anywhere.as_ref()];
                let left = |socket: &UdpSocket| socket.send_to(sealed, to).is_ok();
                sent += usize::from(ways.into_iter().flatten().any(left));
            });
        }
        sent
    }

    /// Takes off every address with our mark; how many there were. An error: one may still be there.
    fn remove_addresses(&mut self) -> Result<usize, NetlinkError> {
        let mut removed = 0;
        let mut result = Ok(0);
        for _ in 0..REMOVALS_MAX {
            result = self.requests.list_ours().and_then(|ours| {
                for address in &ours {
                    removed +=
                        usize::from(self.requests.remove_address(address.link, address.cidr)?);
                }
                Ok(ours.len())
            });
            // What counts is a look that finds nothing.
            if result.as_ref().is_ok_and(|left| *left == 0) {
                // Last, for a host may have a million others to look through. What stays is the next agent's to remove.
                let _ = self.requests.remove_all_virtual();
                return Ok(removed);
            }
        }
        result.map(|_| removed)
    }
}

fn report(end: End, stood_in: Option<&str>, said: usize, removed: &Result<usize, NetlinkError>) {
    let what = match end {
        End::Hung => "hung and was killed",
        End::Died | End::Ended | End::TooLate | End::Undying => "died",
    };
    match removed {
        Ok(removed) => tracing::error!(
            goodbyes = said,
            addresses = removed,
            stood_in,
            "the agent {what}; its addresses are off this host, and its peers were told"
        ),
        Err(error) => tracing::error!(
            goodbyes = said,
            stood_in,
            "the agent {what}, and its addresses cannot be taken off: {error}; the kernel forgets them \
             when their lifetime ends"
        ),
    }
}

/// A socket that sends from an address, through whatever interface the host's routes say.
fn bind(from: IpAddr) -> Option<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(from, 0)).ok()?;
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// For how long the loop has stood still, while we were on time ourselves.
struct Stillness {
    /// The last look.
    at: Instant,
    /// The last turn that was seen.
    turned: Instant,
    /// From then on it has its whole time, even if it turned before.
    anew: Instant,
    /// It had stood for three quarters of its time at the last look, so since then it is watched.
    doubted: bool,
    /// The turn that was forgiven.
    forgiven: Option<Instant>,
}

impl Stillness {
    const fn new(now: Instant) -> Self {
        Self { at: now, turned: Instant::ZERO, anew: now, doubted: false, forgiven: None }
    }

    /// How long to sleep: until three quarters of its time are over. A quarter is left to watch it in,
    /// for a sleep that ends in time says nothing of who was kept from running in the middle of it.
    fn nap(&self, now: Instant, patience: Duration) -> Duration {
        let quarter = patience / QUARTER;
        let rest = (patience - quarter).saturating_sub(self.still(now));
        let nap = if rest.is_zero() { quarter } else { rest };
        nap.min(NAP_MAX)
    }

    /// Takes a look at when it turned; whether the loop hangs.
    fn look(&mut self, now: Instant, turned: Instant, nap: Duration, patience: Duration) -> bool {
        let quarter = patience / QUARTER;
        // Whoever kept us from waking may have kept the loop too: a host that stands still kills nobody.
        if now.since(self.at) > nap + quarter.min(NAP_MAX) {
            self.anew = now;
        }
        (self.at, self.turned) = (now, turned);
        let still = self.still(now);
        let was_doubted = std::mem::replace(&mut self.doubted, still >= patience - quarter);
        was_doubted && still >= patience
    }

    fn still(&self, now: Instant) -> Duration {
        now.since(self.turned.max(self.anew))
    }

    /// It stood still for a good reason, and has its whole time again; whether that is new.
    fn forgive(&mut self) -> bool {
        (self.anew, self.doubted) = (self.at, false);
        self.forgiven.replace(self.turned) != Some(self.turned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(40);
    /// A moment long after the start of the clock.
    const START: u64 = 1_000_000;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos((START + millis) * 1_000_000)
    }

    /// Sleeps as it says, each time so many milliseconds too long (and in time from then on), beside a
    /// loop that turns at these moments. When it looked, and the look that gave the loop up.
    fn looks(turns: &[u64], late: &[u64]) -> (Vec<u64>, Option<u64>) {
        let (mut now, mut seen) = (0, Vec::new());
        let mut stillness = Stillness::new(at(0));
        let mut late = late.iter().copied();
        while now < 200 {
            let nap = stillness.nap(at(now), PATIENCE);
            now += u64::try_from(nap.as_millis()).unwrap() + late.next().unwrap_or(0);
            seen.push(now);
            let turned = turns.iter().filter(|turn| **turn <= now).max().copied().unwrap_or(0);
            if stillness.look(at(now), at(turned), nap, PATIENCE) {
                return (seen, Some(now));
            }
        }
        (seen, None)
    }

    #[test]
    fn a_loop_hangs_when_it_stands_still_while_we_are_on_time() {
        let turning: Vec<u64> = (0..=200).step_by(5).collect();
        for (case, turns, late, expected) in [
            ("it turns", &turning[..], &[][..], None),
            ("it never turned", &[], &[], Some(40)),
            ("it stands after a turn", &[0, 5, 10, 15, 20, 25], &[], Some(65)),
            ("its turn was just before a look", &[29], &[], Some(69)),
            ("it stands a while", &[0, 36, 70, 100, 135, 170, 200], &[], None),
            ("we are late by less than a quarter", &[], &[9], Some(49)),
            ("by less than a quarter when it is watched", &[], &[0, 9], Some(49)),
            ("the host stood still while nobody watched", &[], &[11], Some(81)),
            ("the host stood still while it was watched", &[], &[0, 11], Some(91)),
            ("the host slept for long", &[], &[100], Some(170)),
        ] {
            assert_eq!(looks(turns, late).1, expected, "{case}");
        }
    }

    /// However late the first look is: who was kept from running until then is watched for a quarter.
    #[test]
    fn no_loop_is_given_up_that_was_not_watched_in_time() {
        for late in 0..100 {
            let (seen, given_up) = looks(&[], &[late]);
            let [.., before, last] = seen[..] else { panic!("one look: {seen:?}") };
            assert_eq!(given_up, Some(last));
            assert!(before + 10 <= last, "late by {late}: {seen:?}");
        }
    }

    #[test]
    fn a_loop_that_turns_is_looked_at_rarely() {
        let turning: Vec<u64> = (0..=200).step_by(5).collect();
        assert_eq!(looks(&turning, &[]).0, [30, 60, 90, 120, 150, 180, 210]);
        let seldom: Vec<u64> = (0..=200).step_by(20).collect();
        assert_eq!(looks(&seldom, &[]).0, [30, 50, 70, 90, 110, 130, 150, 170, 190, 210]);
    }

    #[test]
    fn a_loop_that_does_slow_work_is_looked_at_often_enough_to_see_its_end() {
        let slow = Duration::from_secs(10);
        assert_eq!(Stillness::new(at(0)).nap(at(0), slow), NAP_MAX);
        assert_eq!(Stillness::new(at(0)).nap(at(9_000), slow), NAP_MAX);
    }

    #[test]
    fn a_loop_that_waited_for_the_kernel_has_its_whole_time_again() {
        let mut now = 0;
        let mut stillness = Stillness::new(at(0));
        let mut hangs_after = |stillness: &mut Stillness, turned| {
            let before = now;
            loop {
                let nap = stillness.nap(at(now), PATIENCE);
                now += u64::try_from(nap.as_millis()).unwrap();
                if stillness.look(at(now), at(turned), nap, PATIENCE) {
                    return now - before;
                }
            }
        };
        assert_eq!(hangs_after(&mut stillness, 0), 40);
        assert!(stillness.forgive(), "it is said once");
        assert_eq!(hangs_after(&mut stillness, 0), 40);
        assert!(!stillness.forgive(), "and not again for the same turn");
        assert_eq!(hangs_after(&mut stillness, 90), 50);
        assert!(stillness.forgive(), "the next time is another");
    }
}

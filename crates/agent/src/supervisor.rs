//! The supervisor: a small process beside the agent that sees it die, or hang, and says so to the peers.
//!
//! It sleeps on the lifeline (`buoy_kernel::lifeline`). When the loop's thread dies, it closes the
//! gate with one store, says goodbye to every peer on every leg, takes the addresses off, and ends.
//! Where there is no gate, the addresses go first: nobody may be told before nothing answers.
//! When the loop stands still while the supervisor itself is on time, it kills the agent and does
//! the same. A loop that could not even die (it waits for a lock or a device in the kernel) is neither
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
/// Looks at the loop within its patience.
const LOOKS: u32 = 4;
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
            let nap = (patience / LOOKS).min(NAP_MAX);
            let before = clock::now();
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
                Seen::Alive(beats) => {
                    if !stillness.look(now, beats, nap, patience) {
                        continue;
                    }
                    match self.cause(beats) {
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
    fn cause(&self, beats: u32) -> Cause {
        let Some(there) = self.whereabouts() else { return Cause::Hangs };
        if there.waits_for_kernel {
            return Cause::Kernel;
        }
        on_processor(there.processor, || {
            let before = clock::now();
            let stands = self.watch.wait(CONFIRM) == Seen::Alive(beats);
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
    at: Instant,
    beats: Option<u32>,
    still: Duration,
    /// The turn that was forgiven.
    forgiven: Option<u32>,
}

impl Stillness {
    const fn new(now: Instant) -> Self {
        Self { at: now, beats: None, still: Duration::ZERO, forgiven: None }
    }

    /// Takes a look at the count of turns; whether the loop hangs.
    fn look(&mut self, now: Instant, beats: u32, nap: Duration, patience: Duration) -> bool {
        let slept = now.since(self.at);
        // Whoever kept us from waking may have kept the loop too: a host that stands still kills nobody.
        let is_late = slept > nap * 2;
        if self.beats != Some(beats) || is_late {
            self.still = Duration::ZERO;
        } else {
            self.still += slept;
        }
        (self.at, self.beats) = (now, Some(beats));
        self.still >= patience
    }

    /// It stood still for a good reason, and has its whole time again; whether that is new.
    fn forgive(&mut self) -> bool {
        self.still = Duration::ZERO;
        std::mem::replace(&mut self.forgiven, self.beats) != self.beats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAP: Duration = Duration::from_millis(8);
    const PATIENCE: Duration = Duration::from_millis(40);

    /// Looks: each so many milliseconds after the one before, and the count that was seen.
    type Looks = Vec<(u64, u32)>;

    /// After which look it hangs.
    fn hangs_at(looks: &[(u64, u32)]) -> Option<usize> {
        let mut now = Instant::from_nanos(1);
        let mut stillness = Stillness::new(now);
        looks.iter().position(|&(millis, beats)| {
            now = now + Duration::from_millis(millis);
            stillness.look(now, beats, NAP, PATIENCE)
        })
    }

    #[test]
    fn a_loop_hangs_when_it_stands_still_while_we_are_on_time() {
        let on_time = |beats: &[u32]| -> Looks { beats.iter().map(|b| (8, *b)).collect() };
        let table: [(&str, Looks, Option<usize>); 6] = [
            ("it turns", on_time(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), None),
            ("it stands", on_time(&[1, 1, 1, 1, 1, 1, 1]), Some(5)),
            ("it stands a while", on_time(&[1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]), None),
            ("the count goes round", on_time(&[u32::MAX, u32::MAX, 0, 0, 0, 1]), None),
            ("the host stood still", vec![(8, 1), (5000, 1), (8, 1), (8, 1), (8, 1), (8, 2)], None),
            (
                "it stands still after that too",
                vec![(8, 1), (8, 1), (8, 1), (300, 1), (8, 1), (8, 1), (8, 1), (8, 1), (8, 1)],
                Some(8),
            ),
        ];
        for (case, looks, expected) in table {
            assert_eq!(hangs_at(&looks), expected, "{case}");
        }
    }

    #[test]
    fn a_loop_that_waited_for_the_kernel_has_its_whole_time_again() {
        let mut now = Instant::from_nanos(1);
        let mut stillness = Stillness::new(now);
        let mut hangs_after = |stillness: &mut Stillness, beats| {
            (1..20).find(|_| {
                now = now + NAP;
                stillness.look(now, beats, NAP, PATIENCE)
            })
        };
        assert_eq!(hangs_after(&mut stillness, 1), Some(6));
        assert!(stillness.forgive(), "it is said once");
        assert_eq!(hangs_after(&mut stillness, 1), Some(5));
        assert!(!stillness.forgive(), "and not again for the same turn");
        assert_eq!(hangs_after(&mut stillness, 2), Some(6));
        assert!(stillness.forgive(), "the next time is another");
    }
}

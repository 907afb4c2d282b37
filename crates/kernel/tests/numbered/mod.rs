//! Numbered datagrams, one a millisecond, and of those that do not come back: which, when, and where they were seen last.

use buoy_kernel::clock;
use buoy_kernel::poll::Poller;
use buoy_model::Instant;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::echo::WAIT;

const INTERVAL: Duration = Duration::from_millis(1);
/// A socket takes some 270 of them until it is read, and a veth 256.
const UNANSWERED_MAX: usize = 100;

/// What became of them.
pub(crate) struct Stream {
    /// When each was sent.
    sent: Vec<Instant>,
    /// Those that came back.
    pub(crate) heard: BTreeSet<usize>,
}

/// What was done meanwhile, and when.
#[derive(Default)]
pub(crate) struct Steps(Vec<(Instant, String)>);

impl Steps {
    pub(crate) fn add(&mut self, what: String) {
        self.0.push((clock::now(), what));
    }

    fn last_before(&self, moment: Instant) -> &str {
        self.0.iter().rev().find(|(at, _)| *at <= moment).map_or("nothing", |(_, what)| what)
    }
}

/// Those that a server has heard.
#[derive(Clone, Default)]
pub(crate) struct Arrived(Arc<Mutex<BTreeSet<usize>>>);

impl Arrived {
    /// Sends back for ever what comes to an address of this thread's namespace.
    pub(crate) fn serve(address: &str) -> Self {
        let (echo, all) = (UdpSocket::bind(address).unwrap(), Self::default());
        let theirs = all.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 8];
            while let Ok((_, from)) = echo.recv_from(&mut buffer) {
                theirs.0.lock().unwrap().insert(usize::from_be_bytes(buffer));
                let _ = echo.send_to(&buffer, from);
            }
        });
        all
    }
}

impl Stream {
    /// Sends until told to stop, and then waits for the last ones. However busy the machine is, no queue on the way gets
    /// longer than it may be: with so many unanswered none is sent, and they are lost when none of them comes any more.
    pub(crate) fn send(to: &str, stop: &AtomicBool) -> Self {
        let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
        socket.connect(to).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut all = Self { sent: Vec::new(), heard: BTreeSet::new() };
        while !stop.load(Ordering::Relaxed) && all.has_heard(&socket, UNANSWERED_MAX) {
            socket.send(&all.sent.len().to_be_bytes()).unwrap();
            all.sent.push(clock::now());
            Poller::new().wait(Some(clock::now() + INTERVAL)).unwrap();
        }
        all.has_heard(&socket, 1);
        all
    }

    /// Waits until less than so many are unanswered; not for ever.
    fn has_heard(&mut self, socket: &UdpSocket, unanswered: usize) -> bool {
        let (mut buffer, mut deadline) = ([0; 8], clock::now() + WAIT);
        loop {
            while socket.recv(&mut buffer).is_ok() {
                self.heard.insert(usize::from_be_bytes(buffer));
                deadline = clock::now() + WAIT;
            }
            if self.sent.len() - self.heard.len() < unanswered {
                return true;
            }
            if clock::now() > deadline {
                return false;
            }
            Poller::new().wait(Some(clock::now() + INTERVAL)).unwrap();
        }
    }

    pub(crate) const fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Each stretch without a gap, with what was done before it, and how many of it the server has heard.
    pub(crate) fn lost(&self, arrived: &Arrived, steps: &Steps) -> String {
        let arrived = arrived.0.lock().unwrap();
        let (mut words, mut at) = (String::new(), 0);
        while at < self.sent.len() {
            let end = (at..self.sent.len()).find(|n| self.heard.contains(n));
            let end = end.unwrap_or(self.sent.len());
            if end > at {
                let (begin, last) = (self.sent[at], self.sent[end - 1]);
                let (from, took) = (begin.since(self.sent[0]), last.since(begin));
                let after = steps.last_before(begin);
                let there = arrived.range(at..end).count();
                let count = end - at;
                let line = format!(
                    "{count} from {from:?} on, within {took:?}, after {after}; {there} arrived"
                );
                writeln!(words, "{line}").unwrap();
            }
            at = end + 1;
        }
        words
    }
}

/// What the kernel lost or refused in this thread's namespace.
pub(crate) fn counted() -> String {
    let read = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
    let udp = read("snmp")
        .lines()
        .filter(|line| line.starts_with("Udp:"))
        .fold(String::new(), |all, line| all + line + "\n");
    udp + &read("dev")
}

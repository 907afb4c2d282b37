//! Hundreds of checks whose servers mean harm, beside heartbeats: the address stays, and each backend says its reason.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ClusterStatus;
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::{Cluster, LOCAL, MS, SOON, prepared_on};

/// Servers of each kind.
const EACH: u16 = 60;
/// Asked so often, and given up after as long.
const EVERY: Duration = Duration::from_secs(1);
/// How long the address is watched after all have said their reasons.
const WATCHED: Duration = Duration::from_secs(5);

/// A way to harm who asks.
struct Harm {
    /// The check that asks it.
    check: &'static str,
    /// What it answers at once, and what then, without end, at these times.
    first: &'static [u8],
    then: &'static [u8],
    pause: Duration,
    /// Why its backends are down.
    reason: &'static str,
}

const HARMS: [Harm; 5] = [
    Harm {
        check: "http = \"GET /\"",
        first: b"HTTP/1.1 200 OK\r\nX-Endless: ",
        then: &[b'a'; 1 << 16],
        pause: Duration::ZERO,
        reason: "the answer's head is too long",
    },
    Harm {
        check: "http = \"GET /\"",
        first: b"H",
        then: b"T",
        pause: Duration::from_secs(1),
        reason: "timed out after 1s",
    },
    Harm {
        check: "tls = true",
        first: &[0x16, 3, 3, 0xff, 0xff, 0x99],
        then: &[0xa5; 1 << 16],
        pause: Duration::ZERO,
        reason: "the answer is not TLS",
    },
    Harm {
        check: "http = \"GET /\", body = \"needle\"",
        first: b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        then: &[b'h'; 1 << 16],
        pause: Duration::ZERO,
        reason: "\"needle\" is not in the first 64 KiB of the answer",
    },
    Harm {
        check: "http = \"GET /\", expect = 200",
        first: b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        then: b"",
        pause: Duration::ZERO,
        reason: "HTTP 302 instead of 200",
    },
];

fn port(kind: usize, number: u16) -> u16 {
    2000 + u16::try_from(kind).unwrap() * 100 + number
}

fn vips() -> String {
    let service = |(kind, harm): (usize, &Harm)| {
        let backends = (0..EACH).map(|n| format!("\"h{n} 10.77.0.21:{}\"", port(kind, n)));
        let backends = backends.collect::<Vec<_>>().join(", ");
        format!(
            "[[vip.service]]\nport = \"{}/tcp\"\nmode = \"proxy\"\nbackends = [{backends}]\n\
             check = {{ {}, every = \"1s\", timeout = \"1s\", fall = 1, rise = 1 }}\n",
            1000 + kind,
            harm.check
        )
    };
    LOCAL.to_owned() + &HARMS.iter().enumerate().map(service).collect::<String>()
}

/// The servers, on a thread of their host, until the end of the test.
struct Servers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    fn start(cluster: &Cluster) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let its_stop = Arc::clone(&stop);
        let serve = move || {
            let listen = |(kind, n): (usize, u16)| {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port(kind, n))).unwrap();
                listener.set_nonblocking(true).unwrap();
                (kind, listener)
            };
            let all = (0..HARMS.len()).flat_map(|kind| (0..EACH).map(move |n| (kind, n)));
            let listeners: Vec<_> = all.map(listen).collect();
            let mut victims = Vec::new();
            while !its_stop.load(Ordering::Relaxed) {
                for (kind, listener) in &listeners {
                    while let Ok((stream, _)) = listener.accept() {
                        victims.extend(Victim::begin(stream, &HARMS[*kind]));
                    }
                }
                victims.retain_mut(Victim::goes_on);
                std::thread::sleep(10 * MS);
            }
        };
        let thread = cluster.segment.inside("web1").unwrap().spawn("harm", serve).unwrap();
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

/// Who asked.
struct Victim {
    stream: TcpStream,
    harm: &'static Harm,
    /// When it hears more; `None`: it has not asked yet.
    next: Option<Instant>,
}

impl Victim {
    fn begin(stream: TcpStream, harm: &'static Harm) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        Some(Self { stream, harm, next: None })
    }

    /// Whether it still listens.
    fn goes_on(&mut self) -> bool {
        let waits = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        let (has_asked, is_there) = match self.stream.read(&mut [0; 4096]) {
            Ok(length) => (length != 0, length != 0),
            Err(error) => (false, waits(error)),
        };
        let answer = match self.next {
            None if has_asked => self.harm.first,
            Some(at) if at <= Instant::now() => self.harm.then,
            None | Some(_) => return is_there,
        };
        self.next = Some(Instant::now() + self.harm.pause);
        match self.stream.write(answer) {
            Ok(sent) => sent != 0,
            Err(error) => waits(error),
        }
    }
}

/// The backends of each kind that are down, and say why: those that say what their kind does, and those that say
/// anything else. One whose turn comes late on a busy machine is timed out.
fn down(status: &ClusterStatus) -> [Vec<String>; 2] {
    let mut all = [vec![], vec![]];
    for (service, harm) in status.vips.iter().flat_map(|vip| &vip.services).zip(&HARMS) {
        for backend in service.backends.iter().filter(|b| b.state == "down" && !b.reason.is_empty())
        {
            let other = usize::from(backend.reason != harm.reason);
            all[other].push(format!("{} of {}", backend.name, harm.reason));
        }
    }
    all
}

#[test]
fn hundreds_of_checks_that_meet_harm_move_no_address_and_each_says_its_reason() {
    let test = "hundreds_of_checks_that_meet_harm_move_no_address_and_each_says_its_reason";
    // A machine that stands still is no matter of checks.
    let lease = "lease = \"1s\"\n";
    let cluster = prepared_on(test, Topology::with_nodes(3), lease, &vips());
    let Some(mut cluster) = cluster else { return };
    let _servers = Servers::start(&cluster);
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
    }
    let epochs = |cluster: &Cluster| {
        let of = |node| cluster.buoy.status(node).unwrap().vips[0].epoch;
        cluster.buoy.nodes().into_iter().map(of).collect::<Vec<_>>()
    };
    let number = HARMS.len() * usize::from(EACH);
    for node in cluster.buoy.nodes() {
        let mut said = BTreeSet::new();
        let waited = wait_until(2 * SOON, "all reasons", || {
            said.extend(down(&cluster.buoy.status(node).unwrap())[0].drain(..));
            Ok(said.len() == number)
        });
        assert!(waited.is_ok(), "{node}: {} of {number}: {said:?}", said.len());
    }
    let owner = cluster.buoy.owner("n1", "web").unwrap();
    let (before, begun) = (epochs(&cluster), Instant::now());
    wait_until(SOON, "some rounds", || Ok(WATCHED.max(4 * EVERY) < begun.elapsed())).unwrap();
    assert_eq!(epochs(&cluster), before);
    for node in cluster.buoy.nodes() {
        assert_eq!(cluster.buoy.owner(node, "web").as_ref(), Some(&owner), "{node}");
        let [said, otherwise] = down(&cluster.buoy.status(node).unwrap());
        assert_eq!(said.len() + otherwise.len(), number, "{node}: {otherwise:?}");
    }
}

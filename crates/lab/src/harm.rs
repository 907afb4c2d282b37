//! Servers that mean harm to who checks them: heads without end, a byte a second, what is not TLS, bodies without
//! end, and redirects to themselves. A test and a benchmark have them.

use crate::segment::Segment;
use crate::topology::ipv4;
use crate::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A way to harm who asks.
#[derive(Debug)]
pub struct Harm {
    /// The check that asks it.
    check: &'static str,
    /// What it answers at once, and what then, without end, at these times.
    first: &'static [u8],
    then: &'static [u8],
    pause: Duration,
    /// Why its backends are down.
    pub reason: &'static str,
}

/// All of them.
pub const HARMS: [Harm; 5] = [
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

/// Servers of each kind; a hundred at most.
pub const EACH: u16 = 60;
/// Asked so often, and given up after as long.
pub const EVERY: Duration = Duration::from_secs(1);

/// A service for each kind of harm, in the words of the file, for the VIP that stands before them.
pub fn services() -> String {
    let service = |(kind, harm): (u16, &Harm)| {
        let backend = |n| format!("\"h{n} {}:{}\"", ipv4(21), port(kind, n));
        let backends: Vec<String> = (0..EACH).map(backend).collect();
        let every = format!("{}s", EVERY.as_secs());
        format!(
            "[[vip.service]]\nport = \"{}/tcp\"\nmode = \"proxy\"\nbackends = [{}]\n\
             check = {{ {}, every = \"{every}\", timeout = \"{every}\", fall = 1, rise = 1 }}\n",
            1000 + kind,
            backends.join(", "),
            harm.check
        )
    };
    (0..).zip(&HARMS).map(service).collect()
}

const fn port(kind: u16, number: u16) -> u16 {
    2000 + kind * 100 + number
}

/// The servers of all kinds, on a thread of their host, until dropped.
#[derive(Debug)]
pub struct Servers {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// On the first of the backends' hosts.
    pub fn start(segment: &Segment) -> Result<Self> {
        let inside = segment.inside("web1")?;
        let all = (0..).zip(&HARMS).flat_map(|kind| (0..EACH).map(move |n| (kind, n)));
        let listen = |((kind, harm), n): ((u16, &'static Harm), u16)| {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port(kind, n)))?;
            listener.set_nonblocking(true)?;
            Ok((listener, harm))
        };
        let listeners = inside.enter(|| all.map(listen).collect::<std::io::Result<Vec<_>>>())?;
        let listeners = listeners.map_err(Error::system("listen for harmful servers"))?;
        let stop: Arc<AtomicBool> = Arc::default();
        let asked: Arc<AtomicU64> = Arc::default();
        let (its_stop, its_asked) = (Arc::clone(&stop), Arc::clone(&asked));
        let run = move || serve(&listeners, &its_stop, &its_asked);
        let thread = inside.spawn("harm", run)?;
        Ok(Self { stop, asked, thread: Some(thread) })
    }

    /// How many connections they have had.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

fn serve(listeners: &[(TcpListener, &'static Harm)], stop: &AtomicBool, asked: &AtomicU64) {
    let mut victims = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for (listener, harm) in listeners {
            while let Ok((stream, _)) = listener.accept() {
                asked.fetch_add(1, Ordering::Relaxed);
                victims.extend(Victim::begin(stream, harm));
            }
        }
        victims.retain_mut(Victim::goes_on);
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It ends by itself only if it has panicked, which it has said then.
        let _ended = self.thread.take().map(JoinHandle::join);
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

//! Short HTTP requests, each on a connection of its own, so many a second: which are lost?

use super::Window;
use crate::namespace::Namespace;
use crate::{Error, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request without its answer by then is lost: a user has gone elsewhere.
pub const ANSWER_MAX: Duration = Duration::from_secs(3);
/// An answer that took longer was late: a lost SYN costs a second.
pub const LATE: Duration = Duration::from_millis(500);

/// How one request ended.
#[derive(Clone, Debug, Eq, PartialEq)]
enum End {
    Answered { took: Duration, backend: String, client: String },
    Lost { why: String },
}

/// What a window of the requests looks like.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Requests begun and ended.
    pub sent: usize,
    /// Without an answer in `ANSWER_MAX`, refused, reset, or answered with another status than 200.
    pub lost: usize,
    /// Answered, but later than `LATE`.
    pub late: usize,
    /// Why requests were lost, each reason once.
    pub why: Vec<String>,
    /// How many answers each backend gave.
    pub by: std::collections::BTreeMap<String, usize>,
    /// Which clients the backends saw (address without port).
    pub clients: std::collections::BTreeSet<String>,
}

/// The stream of requests; it ends when dropped.
#[derive(Debug)]
pub struct HttpProbe {
    done: Arc<Mutex<Vec<(Instant, End)>>>,
    oldest: Arc<Mutex<Option<Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpProbe {
    /// Sends a `GET /` every so often.
    pub fn start(inside: &Namespace, to: SocketAddr, every: Duration) -> Result<Self> {
        let done = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let oldest = Arc::new(Mutex::new(None));
        let (its_done, its_stop) = (Arc::clone(&done), Arc::clone(&stop));
        let its_oldest = Arc::clone(&oldest);
        let thread = Some(inside.spawn("http probe", move || {
            let mut requests: Vec<Request> = Vec::new();
            let mut next = Instant::now();
            while !its_stop.load(Ordering::Relaxed) {
                if next <= Instant::now() {
                    // Requests that came too late to be sent are left out, not sent in a burst.
                    next = (next + every).max(Instant::now());
                    match Request::begin(to) {
                        Ok(request) => requests.push(request),
                        Err(error) => keep(&its_done, Instant::now(), End::lost(&error)),
                    }
                }
                wait(&requests, next);
                requests.retain_mut(|request| match request.go_on() {
                    Some(end) => {
                        keep(&its_done, request.begun, end);
                        false
                    }
                    None => true,
                });
                *its_oldest.lock().unwrap_or_else(PoisonError::into_inner) =
                    requests.iter().map(|request| request.begun).min();
            }
        })?);
        Ok(Self { done, oldest, stop, thread })
    }

    /// Whether every request begun before that moment has ended, one way or the other.
    pub fn all_ended(&self, before: Instant) -> bool {
        let oldest = *self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        oldest.is_none_or(|begun| before <= begun)
    }

    /// What became of the requests begun in a window, and ended by now.
    pub fn figures(&self, window: Window) -> Figures {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let mut figures = Figures::default();
        for (_begun, end) in done.iter().filter(|(begun, _)| window.holds(*begun)) {
            figures.sent += 1;
            match end {
                End::Answered { took, backend, client } => {
                    figures.late += usize::from(LATE < *took);
                    *figures.by.entry(backend.clone()).or_default() += 1;
                    figures.clients.insert(client.clone());
                }
                End::Lost { why } => {
                    figures.lost += 1;
                    if !figures.why.contains(why) {
                        figures.why.push(why.clone());
                    }
                }
            }
        }
        figures
    }
}

impl Drop for HttpProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// One GET from inside a namespace, to its end: status line, headers and body.
pub fn get(inside: &Namespace, to: SocketAddr, at_most: Duration) -> Result<String> {
    inside
        .enter(|| {
            let mut stream = std::net::TcpStream::connect_timeout(&to, at_most)?;
            stream.set_read_timeout(Some(at_most))?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?
        .map_err(Error::system(format!("GET http://{to}/")))
}

fn keep(done: &Mutex<Vec<(Instant, End)>>, begun: Instant, end: End) {
    done.lock().unwrap_or_else(PoisonError::into_inner).push((begun, end));
}

fn wait(requests: &[Request], next: Instant) {
    let mut sockets: Vec<PollFd<'_>> = requests
        .iter()
        .map(|r| {
            let awaited = if r.asked { PollFlags::POLLIN } else { PollFlags::POLLOUT };
            PollFd::new(r.socket.as_fd(), awaited)
        })
        .collect();
    let left = next.saturating_duration_since(Instant::now()).as_millis();
    // Rounded up, so that the last fraction is not spent spinning.
    let timeout = u8::try_from(left + 1).unwrap_or(u8::MAX);
    let _interrupted = poll(&mut sockets, PollTimeout::from(timeout));
}

#[derive(Debug)]
struct Request {
    socket: Socket,
    begun: Instant,
    asked: bool,
    heard: Vec<u8>,
}

impl Request {
    fn begin(to: SocketAddr) -> io::Result<Self> {
        let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        let begun = Instant::now();
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        Ok(Self { socket, begun, asked: false, heard: Vec::new() })
    }

    /// `Some` when it has ended.
    fn go_on(&mut self) -> Option<End> {
        if ANSWER_MAX < self.begun.elapsed() {
            let why = if self.asked { "no answer" } else { "no connection" };
            return Some(End::Lost { why: why.to_owned() });
        }
        match self.step() {
            Ok(true) => Some(self.judge()),
            Ok(false) => None,
            Err(error) => Some(End::lost(&error)),
        }
    }

    fn step(&mut self) -> io::Result<bool> {
        if !self.asked {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            if self.socket.peer_addr().is_err() {
                return Ok(false);
            }
            self.asked = true;
            (&self.socket)
                .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
        }
        let mut bytes = [0; 1024];
        loop {
            match (&self.socket).read(&mut bytes) {
                Ok(0) => return Ok(true),
                Ok(length) => self.heard.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn judge(&self) -> End {
        let text = String::from_utf8_lossy(&self.heard);
        if !text.starts_with("HTTP/1.1 200") {
            let line = text.lines().next().unwrap_or("an empty answer");
            return End::Lost { why: line.to_owned() };
        }
        let header = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let client = header("X-Client:");
        let client = client.rsplit_once(':').map_or(client.as_str(), |(ip, _port)| ip).to_owned();
        End::Answered { took: self.begun.elapsed(), backend: header("X-Backend:"), client }
    }
}

impl End {
    fn lost(error: &io::Error) -> Self {
        Self::Lost { why: error.kind().to_string() }
    }
}

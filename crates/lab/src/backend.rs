//! Tiny servers that name themselves in every answer: HTTP, a line echo over TCP, an echo over UDP.
//!
//! One thread per host, and one `poll` for all its sockets: the lab must leave the processor to
//! what it measures.

use crate::namespace::Namespace;
use crate::segment::{ECHO_PORT, HTTP_PORT, PROXY_PORT};
use crate::topology::Host;
use crate::{Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;

/// How long a server may take to notice that it should stop.
const NOTICE: u16 = 20;
/// A request that grows beyond this is none of ours.
const REQUEST_MAX: usize = 64 << 10;
/// What PROXY protocol v2 begins with.
const PROXY_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Switches of a running server, shared with its thread.
#[derive(Debug)]
struct Switches {
    stop: AtomicBool,
    listening: AtomicBool,
    healthy: AtomicBool,
    /// In percent; more: it says nothing.
    load: AtomicU8,
}

/// The servers of one backend host.
#[derive(Debug)]
pub struct Backend {
    name: &'static str,
    switches: Arc<Switches>,
    thread: Option<JoinHandle<()>>,
}

/// An echo over UDP alone.
#[derive(Debug)]
pub struct EchoServer {
    switches: Arc<Switches>,
    thread: Option<JoinHandle<()>>,
}

impl Switches {
    fn on() -> Arc<Self> {
        Arc::new(Self {
            stop: AtomicBool::new(false),
            listening: AtomicBool::new(true),
            healthy: AtomicBool::new(true),
            load: AtomicU8::new(u8::MAX),
        })
    }
}

impl Backend {
    /// Starts all servers of a host, on its own addresses.
    pub fn start(inside: &Namespace, host: &Host) -> Result<Self> {
        Self::start_at(inside, host.name, &[host.ipv4().into(), host.ipv6().into()])
    }

    /// Starts all servers of a host, on these addresses of it.
    pub fn start_at(inside: &Namespace, name: &'static str, addresses: &[IpAddr]) -> Result<Self> {
        let switches = Switches::on();
        let mut server = Server::new(name, addresses, Arc::clone(&switches));
        inside
            .enter(|| server.open())?
            .map_err(Error::system(format!("start the servers of {name}")))?;
        let thread = Some(inside.spawn(name, move || server.run())?);
        Ok(Self { name, switches, thread })
    }

    /// The host's name, which is in every answer.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Closes the TCP servers with all their connections, as a crash would, or opens them again.
    pub fn set_listening(&self, on: bool) {
        self.switches.listening.store(on, Ordering::Relaxed);
    }

    /// Whether `GET /health` answers 200 or 503.
    pub fn set_healthy(&self, on: bool) {
        self.switches.healthy.store(on, Ordering::Relaxed);
    }

    /// Says from now on that it is loaded so, in percent, in the header `X-Load` of every answer.
    pub fn set_load(&self, load: u8) {
        self.switches.load.store(load, Ordering::Relaxed);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        end(&self.switches, self.thread.take());
    }
}

impl EchoServer {
    /// Starts an echo on addresses that may not be there yet.
    pub fn start(inside: &Namespace, name: &'static str, at: &[SocketAddr]) -> Result<Self> {
        let sockets = inside
            .enter(|| at.iter().map(|at| bind_free(*at)).collect::<io::Result<Vec<_>>>())?
            .map_err(Error::system(format!("start the echo of {name}")))?;
        let switches = Switches::on();
        let mut server = Server::new(name, &[], Arc::clone(&switches));
        server.datagrams = sockets;
        let thread = Some(inside.spawn(name, move || server.run())?);
        Ok(Self { switches, thread })
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        end(&self.switches, self.thread.take());
    }
}

fn end(switches: &Switches, thread: Option<JoinHandle<()>>) {
    switches.stop.store(true, Ordering::Relaxed);
    if let Some(thread) = thread {
        // A panic of the server was printed already.
        let _ended = thread.join();
    }
}

/// What is spoken on a TCP port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Speech {
    Http,
    HttpBehindProxy,
    Lines,
}

#[derive(Debug)]
struct Conversation {
    stream: TcpStream,
    speech: Speech,
    client: String,
    heard: Vec<u8>,
    over: bool,
}

#[derive(Debug)]
struct Server {
    name: &'static str,
    addresses: Vec<IpAddr>,
    switches: Arc<Switches>,
    listeners: Vec<(TcpListener, Speech)>,
    datagrams: Vec<UdpSocket>,
    conversations: Vec<Conversation>,
}

impl Server {
    fn new(name: &'static str, addresses: &[IpAddr], switches: Arc<Switches>) -> Self {
        Self {
            name,
            addresses: addresses.to_vec(),
            switches,
            listeners: Vec::new(),
            datagrams: Vec::new(),
            conversations: Vec::new(),
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.listen()?;
        for address in &self.addresses {
            self.datagrams.push(bind_free(SocketAddr::new(*address, ECHO_PORT))?);
        }
        Ok(())
    }

    fn listen(&mut self) -> io::Result<()> {
        for address in self.addresses.clone() {
            for (port, speech) in [
                (HTTP_PORT, Speech::Http),
                (PROXY_PORT, Speech::HttpBehindProxy),
                (ECHO_PORT, Speech::Lines),
            ] {
                let listener = TcpListener::bind((address, port))?;
                listener.set_nonblocking(true)?;
                self.listeners.push((listener, speech));
            }
        }
        Ok(())
    }

    fn run(mut self) {
        while !self.switches.stop.load(Ordering::Relaxed) {
            let wanted = self.switches.listening.load(Ordering::Relaxed);
            if !wanted {
                self.listeners.clear();
                self.conversations.clear();
            } else if self.listeners.is_empty() && self.listen().is_err() {
                self.listeners.clear();
            }
            self.wait();
            self.answer_datagrams();
            self.accept();
            self.converse();
        }
    }

    fn wait(&self) {
        let ready = PollFlags::POLLIN;
        let mut sockets: Vec<PollFd<'_>> = Vec::new();
        sockets.extend(self.listeners.iter().map(|(l, _)| PollFd::new(l.as_fd(), ready)));
        sockets.extend(self.datagrams.iter().map(|d| PollFd::new(d.as_fd(), ready)));
        sockets.extend(self.conversations.iter().map(|c| PollFd::new(c.stream.as_fd(), ready)));
        // An interrupted wait is as good as a short one.
        let _interrupted = poll(&mut sockets, PollTimeout::from(NOTICE));
    }

    fn answer_datagrams(&self) {
        let mut bytes = [0; 2048];
        for socket in &self.datagrams {
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let mut answer = bytes[..length].to_vec();
                answer.extend_from_slice(self.name.as_bytes());
                // A client that is gone needs no answer.
                let _lost = socket.send_to(&answer, from);
            }
        }
    }

    fn accept(&mut self) {
        for (listener, speech) in &self.listeners {
            while let Ok((stream, from)) = listener.accept() {
                if stream.set_nonblocking(true).is_ok() && stream.set_nodelay(true).is_ok() {
                    self.conversations.push(Conversation {
                        stream,
                        speech: *speech,
                        client: from.to_string(),
                        heard: Vec::new(),
                        over: false,
                    });
                }
            }
        }
    }

    fn converse(&mut self) {
        let healthy = self.switches.healthy.load(Ordering::Relaxed);
        let load = self.switches.load.load(Ordering::Relaxed);
        for conversation in &mut self.conversations {
            conversation.listen();
            conversation.speak(self.name, (healthy, load));
        }
        self.conversations.retain(|c| !c.over);
    }
}

impl Conversation {
    fn listen(&mut self) {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    self.over = true;
                    return;
                }
                Ok(length) => self.heard.extend_from_slice(&bytes[..length]),
                Err(error) => {
                    self.over |= error.kind() != io::ErrorKind::WouldBlock;
                    return;
                }
            }
        }
    }

    fn speak(&mut self, name: &str, (healthy, load): (bool, u8)) {
        self.over |= REQUEST_MAX < self.heard.len();
        if self.speech == Speech::HttpBehindProxy && !self.take_proxy_header() {
            return;
        }
        match self.speech {
            Speech::Lines => {
                while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.heard.drain(..=end).collect();
                    let mut answer = format!("{name} ").into_bytes();
                    answer.extend(line);
                    self.say(&answer);
                }
            }
            Speech::Http | Speech::HttpBehindProxy => {
                while let Some(end) = find(&self.heard, b"\r\n\r\n") {
                    let request: Vec<u8> = self.heard.drain(..end + 4).collect();
                    self.answer_http(name, (healthy, load), &String::from_utf8_lossy(&request));
                }
            }
        }
    }

    fn answer_http(&mut self, name: &str, (healthy, load): (bool, u8), request: &str) {
        let ill = request.starts_with("GET /health") && !healthy;
        let status = if ill { "503 Service Unavailable" } else { "200 OK" };
        let close = request.to_ascii_lowercase().contains("connection: close");
        let body = format!("{name}\n");
        let load = if load <= 100 { format!("X-Load: {load}\r\n") } else { String::new() };
        let answer = format!(
            "HTTP/1.1 {status}\r\nX-Backend: {name}\r\n{load}X-Client: {}\r\nContent-Length: {}\r\n{}\r\n{body}",
            self.client,
            body.len(),
            if close { "Connection: close\r\n" } else { "" },
        );
        self.say(answer.as_bytes());
        self.over |= close;
    }

    fn say(&mut self, bytes: &[u8]) {
        // Answers are far smaller than a socket's buffer: what does not fit has lost its reader.
        self.over |= self.stream.write_all(bytes).is_err();
    }

    /// Takes the header off the front; `false` while it is not complete (or not there at all).
    fn take_proxy_header(&mut self) -> bool {
        if self.speech == Speech::Http || self.heard.len() < 16 {
            return false;
        }
        let length = 16 + usize::from(u16::from_be_bytes([self.heard[14], self.heard[15]]));
        if !self.heard.starts_with(PROXY_SIGNATURE) {
            self.over = true;
            return false;
        }
        if self.heard.len() < length {
            return false;
        }
        let header: Vec<u8> = self.heard.drain(..length).collect();
        self.client = proxied_client(&header).unwrap_or_else(|| "unknown".to_owned());
        self.speech = Speech::Http;
        true
    }
}

/// The client that a PROXY v2 header names.
fn proxied_client(header: &[u8]) -> Option<String> {
    let rest = header.get(16..)?;
    match header.get(13)? >> 4 {
        1 => {
            let ip: [u8; 4] = rest.get(..4)?.try_into().ok()?;
            let port: [u8; 2] = rest.get(8..10)?.try_into().ok()?;
            Some(SocketAddr::from((ip, u16::from_be_bytes(port))).to_string())
        }
        2 => {
            let ip: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            let port: [u8; 2] = rest.get(32..34)?.try_into().ok()?;
            Some(SocketAddr::from((ip, u16::from_be_bytes(port))).to_string())
        }
        _ => None,
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// A UDP socket on an address, whether or not the host has it at this moment.
fn bind_free(at: SocketAddr) -> io::Result<UdpSocket> {
    let domain = if at.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if at.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_of_a_proxy_header_is_understood() {
        let mut header = PROXY_SIGNATURE.to_vec();
        header.extend([0x21, 0x11, 0, 12, 10, 77, 0, 50, 10, 77, 0, 100, 0x12, 0x34, 0, 80]);
        assert_eq!(proxied_client(&header).as_deref(), Some("10.77.0.50:4660"));
        assert_eq!(proxied_client(&header[..20]), None);
    }
}

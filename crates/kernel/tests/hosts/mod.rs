//! Three hosts in a row: a client, this one with the fast path, and a server. Namespaces that vanish with the test.
#![allow(dead_code)] // Each test takes what it needs.

use buoy_kernel::fast::{Fast, Neighbours};
use buoy_kernel::offload::{self, Offload};
use buoy_kernel::poll::Poller;
use buoy_kernel::{clock, sysctl};
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, id};
use std::time::Duration;

/// `client` -- `to-client` (here) `to-server` -- `server`: 10.1.0.0/24 and 10.2.0.0/24, fd01:: and fd02::.
pub(crate) struct Hosts {
    home: File,
    here: File,
    client: File,
    server: File,
}

impl Hosts {
    /// `None`, and a line that says so, where namespaces are not permitted.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let home = namespace();
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: {test}: no network namespace: {errno}");
            return None;
        }
        let client = namespace();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let server = namespace();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let hosts = Self { home, here: namespace(), client, server };
        let names = [("client", &hosts.client, 1), ("server", &hosts.server, 2)];
        for (name, there, net) in names {
            ip(&format!("link add to-{name} type veth peer name {name}"));
            ip(&format!("link set {name} netns /proc/{}/fd/{}", id(), there.as_raw_fd()));
            bring_up(&format!("to-{name}"), net, 1);
            hosts.at(there, || {
                bring_up(name, net, 2);
                ip(&format!("route add default via 10.{net}.0.1"));
                ip(&format!("-6 route add default via fd0{net}::1"));
            });
        }
        // A namespace may have the number of one whose test has failed.
        let _ = Fast::detach_earlier();
        for setting in [sysctl::IPV4_FORWARD, sysctl::IPV6_FORWARD] {
            sysctl::write(setting, "1").unwrap();
        }
        Some(hosts)
    }

    pub(crate) fn at_client<T>(&self, act: impl FnOnce() -> T) -> T {
        self.at(&self.client, act)
    }

    pub(crate) fn at_server<T>(&self, act: impl FnOnce() -> T) -> T {
        self.at(&self.server, act)
    }

    fn at<T>(&self, there: &File, act: impl FnOnce() -> T) -> T {
        setns(there, CloneFlags::CLONE_NEWNET).unwrap();
        let result = act();
        setns(&self.here, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }
}

impl std::ops::Drop for Hosts {
    fn drop(&mut self) {
        let _ = setns(&self.home, CloneFlags::CLONE_NEWNET);
    }
}

fn namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

/// A driver's XDP sends to a veth only if its peer runs XDP too, or gathers packets (GRO); and it loses
/// what the sender has left to the checksum offload.
fn bring_up(name: &str, net: u8, number: u8) {
    ip("link set lo up");
    ip(&format!("addr add 10.{net}.0.{number}/24 dev {name}"));
    ip(&format!("addr add fd0{net}::{number}/64 dev {name} nodad"));
    ip(&format!("link set {name} up"));
    // Only of an interface that is up its peer learns that it gathers.
    offload::set(name, Offload::Gather, true).unwrap();
    offload::set(name, Offload::SendChecksums, false).unwrap();
}

/// Asks until the way to every backend is known.
pub(crate) fn know_all(fast: &mut Fast, neighbours: &mut Neighbours) {
    let deadline = clock::now() + Duration::from_secs(10);
    let mut nothing = Poller::new();
    loop {
        neighbours.read().unwrap();
        if fast.refresh(&mut |to| neighbours.resolve(to)).is_empty() {
            return;
        }
        assert!(clock::now() < deadline, "a backend's neighbour entry does not come");
        nothing.wait(Some(clock::now() + Duration::from_millis(5))).unwrap();
    }
}

/// A connection that begins, answered or not.
pub(crate) fn begin(to: &str) -> Socket {
    let to: SocketAddr = to.parse().unwrap();
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&to.into());
    socket
}

/// The protocol that an IP header says comes next.
pub(crate) fn outer_protocol(frame: &[u8]) -> Option<u8> {
    match frame.get(12..14)? {
        [8, 0] => frame.get(23).copied(),
        [0x86, 0xdd] => frame.get(20).copied(),
        _ => None,
    }
}

/// Sees all frames that come in by an interface.
pub(crate) struct Sniffer {
    socket: Socket,
}

impl Sniffer {
    /// In this thread's namespace, where the interface is the only one but loopback.
    pub(crate) fn open() -> Self {
        // ETH_P_ALL
        let every_protocol = i32::from(0x0003_u16.to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(every_protocol.into())).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket }
    }

    /// Whether such a frame is among those that have come and were not looked at.
    pub(crate) fn has_seen(&self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let mut buffer = [0; 2048];
        while let Ok(length) = (&self.socket).read(&mut buffer) {
            if is_it(&buffer[..length]) {
                return true;
            }
        }
        false
    }

    pub(crate) fn wait_for(&self, is_it: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = clock::now() + Duration::from_secs(10);
        let mut buffer = [0; 2048];
        let mut nothing = Poller::new();
        while clock::now() < deadline {
            while let Ok(length) = (&self.socket).read(&mut buffer) {
                if is_it(&buffer[..length]) {
                    return buffer[..length].to_vec();
                }
            }
            nothing.wait(Some(clock::now() + Duration::from_millis(5))).unwrap();
        }
        panic!("no such frame came");
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) -> String {
    run("ip", words)
}

pub(crate) fn run(command: &str, words: &str) -> String {
    let output = Command::new(command).args(words.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

//! Two hosts on one segment: namespaces that vanish with the test, and what is asked of them.
#![allow(dead_code)] // Each test takes what it needs.

use buoy_kernel::packet::{Announcer, Heard, Listener};
use buoy_kernel::{clock, host, poll::Poller};
use buoy_model::{Cidr, LinkId, Mac};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, id};
use std::time::Duration;

/// How long a condition may take before the test fails. Far more than it ever takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A veth pair between this thread's namespace (`near`) and another one (`far`).
pub(crate) struct Segment {
    home: File,
    here: File,
    there: File,
    /// The interface on this side.
    pub(crate) near: LinkId,
    /// Its Ethernet address.
    pub(crate) near_mac: Mac,
    /// The interface on the other side.
    pub(crate) far: LinkId,
    /// Its Ethernet address.
    pub(crate) far_mac: Mac,
}

impl Segment {
    /// `None`, and a line that says so, where namespaces are not permitted.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let home = namespace();
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("SKIPPED: {test}: no network namespace: {errno}");
            return None;
        }
        let there = namespace();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let here = namespace();
        let unknown = (LinkId(0), Mac::default());
        let mut segment = Self {
            home,
            here,
            there,
            near: unknown.0,
            near_mac: unknown.1,
            far: unknown.0,
            far_mac: unknown.1,
        };
        ip("link add near type veth peer name far");
        ip(&format!("link set far netns /proc/{}/fd/{}", id(), segment.there.as_raw_fd()));
        (segment.near, segment.near_mac) = bring_up("near", "1");
        (segment.far, segment.far_mac) = segment.there(|| bring_up("far", "2"));
        let carries = |link| {
            wait_until("the segment carries", || {
                host::facts().unwrap().link(link).is_some_and(|l| l.up)
            });
        };
        carries(segment.near);
        segment.there(|| carries(segment.far));
        Some(segment)
    }

    /// Does something on the other host.
    pub(crate) fn there<T>(&self, act: impl FnOnce() -> T) -> T {
        setns(&self.there, CloneFlags::CLONE_NEWNET).unwrap();
        let result = act();
        setns(&self.here, CloneFlags::CLONE_NEWNET).unwrap();
        result
    }

    /// A host on the other side that asks for addresses.
    pub(crate) fn asker(&self) -> Asker {
        self.there(|| {
            let mut announcer = Announcer::open().unwrap();
            announcer.set_link(self.far, self.far_mac, false);
            let listener = Listener::open(self.far, self.far_mac).unwrap();
            Asker { announcer, listener, link: self.far, late: 0 }
        })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = setns(&self.home, CloneFlags::CLONE_NEWNET);
    }
}

fn namespace() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn bring_up(name: &str, number: &str) -> (LinkId, Mac) {
    ip("link set lo up");
    ip(&format!("addr add 10.0.0.{number}/24 dev {name}"));
    ip(&format!("addr add fd00::{number}/64 dev {name} nodad"));
    ip(&format!("link set {name} up"));
    let facts = host::facts().unwrap();
    let link = facts.links.iter().find(|l| l.name == name).unwrap();
    (link.id, link.mac.unwrap())
}

/// Asks who has an address, and listens for the answer.
pub(crate) struct Asker {
    announcer: Announcer,
    listener: Listener,
    link: LinkId,
    /// How many claims came after the time given for them, and before the next question.
    pub(crate) late: u32,
}

impl Asker {
    /// Asks once, and gives who says within that time that the address is theirs.
    pub(crate) fn ask(&mut self, address: IpAddr, within: Duration) -> Option<Mac> {
        // The answer to an earlier question is no answer to this one.
        self.listener.read(&mut |Heard::Claim { .. }| self.late += 1).unwrap();
        let from = if address.is_ipv4() { "10.0.0.2" } else { "fd00::2" };
        self.announcer.ask(self.link, from.parse().unwrap(), address).unwrap();
        self.hear(address, within)
    }

    /// Asks until somebody says that the address is theirs; a host that has just added an IPv6
    /// address needs a moment until it hears the group that questions are sent to.
    pub(crate) fn find(&mut self, address: IpAddr) -> Option<Mac> {
        let deadline = clock::now() + PATIENCE;
        let mut found = None;
        while found.is_none() && clock::now() < deadline {
            found = self.ask(address, Duration::from_millis(20));
        }
        found
    }

    /// Who says within that time that the address is theirs.
    pub(crate) fn hear(&mut self, address: IpAddr, within: Duration) -> Option<Mac> {
        let deadline = clock::now() + within;
        let mut poller = Poller::new();
        for (token, fd) in self.listener.fds().iter().enumerate() {
            assert!(poller.watch(token, fd));
        }
        let mut heard = None;
        while heard.is_none() && clock::now() < deadline {
            poller.wait(Some(deadline)).unwrap();
            self.listener
                .read(&mut |Heard::Claim { address: said, mac, .. }| {
                    heard = heard.or((said == address).then_some(mac));
                })
                .unwrap();
        }
        heard
    }
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) -> String {
    run("ip", words)
}

/// Runs a command that must succeed, and gives what it says.
pub(crate) fn run(command: &str, words: &str) -> String {
    let output = Command::new(command).args(words.split(' ')).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command} {words}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Looks until it is so; fails after `PATIENCE`.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    let mut nothing = Poller::new();
    while !is_so() {
        assert!(clock::now() < deadline, "not so after {PATIENCE:?}: {what}");
        nothing.wait(Some(clock::now() + Duration::from_millis(1))).unwrap();
    }
}

pub(crate) fn cidr(text: &str) -> Cidr {
    let (address, prefix) = text.split_once('/').unwrap();
    Cidr::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
}

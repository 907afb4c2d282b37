//! Asks a backend on the VIPs of its service, on the way that clients' packets take.
//!
//! What makes it possible is in `buoy_kernel::via`. A host that cannot do it asks the backend's own address
//! instead, and says so: to call all backends down for it would be worse than to know less of them.

use super::{Answer, explain};
use buoy_kernel::via::{Handshake, Mark, Out, Target, Via, ViaError, Wrap};
use buoy_model::Via as Word;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// The programs, for all who ask by them.
pub(crate) type Programs = Arc<Mutex<Via>>;

/// Where a backend is asked.
#[derive(Debug)]
pub(crate) enum Path {
    /// At its own address.
    Itself,
    /// The same in place of on its VIPs.
    Instead(Aside),
    /// On VIPs, one after the other.
    Vips(Vips),
}

/// What is to be said of an answer that is not one of the VIP.
#[derive(Clone, Debug)]
pub(crate) struct Aside {
    /// Why it is not.
    pub(crate) reason: String,
    /// Whether somebody should see to it.
    pub(crate) urgent: bool,
}

/// The VIPs of one IP version, as ways to one backend.
#[derive(Debug)]
pub(crate) struct Vips {
    programs: Programs,
    all: Vec<Way>,
    wrap: Wrap,
    /// Which was asked last, for the words of a silence.
    last: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    vip: IpAddr,
    mark: Mark,
}

/// What becomes of a question.
pub(crate) enum Turn {
    /// It is asked by this door.
    Ask(Door),
    /// It is asked at the backend's own address.
    Instead(Aside),
}

impl Vips {
    /// The ways to a backend, which end when this is dropped; why there are none.
    pub(crate) fn new(
        programs: &Programs,
        vips: &[IpAddr],
        backend: IpAddr,
        wrap: Wrap,
    ) -> Result<Self, String> {
        let programs = Arc::clone(programs);
        let mut ways = Self { programs, all: Vec::new(), wrap, last: AtomicUsize::new(0) };
        for &vip in vips {
            let mark = ways.programs().add(Target { vip, backend, wrap });
            ways.all.push(Way { vip, mark: mark.map_err(|error| error.to_string())? });
        }
        Ok(ways)
    }

    fn programs(&self) -> MutexGuard<'_, Via> {
        // What it has is true after each step.
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ways, in the order in which they are asked.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (usize, Way)> + use<'_> {
        self.all.iter().copied().enumerate()
    }

    /// How the question on one of them leaves now; why it cannot be asked.
    pub(crate) fn turn(
        &self,
        (at, Way { vip, mark }): (usize, Way),
        backend: SocketAddr,
    ) -> Result<Turn, String> {
        self.last.store(at, Relaxed);
        match self.programs().out(mark) {
            Ok(Out::Local) => Ok(Turn::Ask(Door::to(SocketAddr::new(vip, backend.port())))),
            Ok(out) => Ok(Turn::Ask(Door { to: backend, out: Some(out) })),
            Err(ViaError::Unable(reason)) => Ok(Turn::Instead(Aside { reason, urgent: true })),
            Err(ViaError::NoWay(reason)) => Err(reason),
        }
    }

    /// Why the VIP that was asked last is not well.
    pub(crate) fn complain(&self, reason: &str) -> String {
        format!("on the VIP {}: {reason}", self.vip())
    }

    /// The same, where it did not answer.
    pub(crate) fn silent(&self, timeout: Duration) -> String {
        let vip = self.vip();
        let (word, tunnel) = match self.wrap {
            Wrap::Not => (Word::Direct, String::new()),
            Wrap::InIp => (Word::Tunnel, " --tunnel".to_owned()),
            Wrap::InUdp(port) => (Word::Tunnel, format!(" --tunnel=gue:{port}")),
        };
        format!(
            "does not answer on the VIP {vip} (via {}) within {timeout:?}: if it is up, run \
             `buoy backend add {vip}{tunnel}` there",
            word.name()
        )
    }

    fn vip(&self) -> String {
        let last = self.all.get(self.last.load(Relaxed));
        last.map_or_else(String::new, |way| way.vip.to_string())
    }
}

impl Drop for Vips {
    fn drop(&mut self) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        for way in &self.all {
            programs.remove(way.mark);
        }
    }
}

/// Adds to an answer that it is not one of the VIP.
pub(crate) fn instead(Aside { reason, urgent }: &Aside, answer: Answer) -> Answer {
    let mut said = answer?;
    if !said.warning.is_empty() {
        said.warning.push_str("; ");
    }
    said.warning.push_str("asked at its own address and not on the VIP: ");
    said.warning.push_str(reason);
    said.urgent |= urgent;
    Ok(said)
}

/// Where a question goes in, and how it gets there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Door {
    to: SocketAddr,
    /// `None`: as the kernel sends everything.
    out: Option<Out>,
}

impl Door {
    /// As the kernel sends everything.
    pub(crate) const fn to(to: SocketAddr) -> Self {
        Self { to, out: None }
    }

    /// A connection to speak over.
    pub(super) async fn connect(self) -> Result<TcpStream, String> {
        self.open(Handshake::Whole).await
    }

    /// Whether there could be one: the server's program is not woken where that can be avoided.
    pub(super) async fn knock(self) -> Result<(), String> {
        self.open(Handshake::HeldBack).await.map(drop)
    }

    async fn open(self, handshake: Handshake) -> Result<TcpStream, String> {
        let stream = match self.out {
            None => TcpStream::connect(self.to).await,
            Some(out) => {
                let socket = out.stream(self.to.ip(), handshake);
                let socket = socket.map_err(|e| format!("no socket: {e}"))?;
                TcpSocket::from_std_stream(socket).connect(self.to).await
            }
        };
        stream.map_err(|e| explain(&e))
    }

    /// From a port of its own, so that an answer to the last question does not count for this one; what goes wrong
    /// is told by what it is to be said with.
    pub(super) async fn datagrams(
        self,
        explain: impl Fn(&std::io::Error) -> String,
    ) -> Result<UdpSocket, String> {
        if let Some(out) = self.out {
            let socket = out.datagrams(self.to).map_err(|e| explain(&e))?;
            return UdpSocket::from_std(socket).map_err(|e| format!("no socket: {e}"));
        }
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await.map_err(|e| format!("no socket: {e}"))?;
        socket.connect(self.to).await.map_err(|e| explain(&e))?;
        Ok(socket)
    }
}

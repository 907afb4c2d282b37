//! What the fast path of a host should be: services with their tables, as the kernel crate writes them
//! into the maps of its programs. Made by `core`, the same on every node that knows the same backends.

use crate::flow_fields::FlowFields;
use crate::quic::{Quic, ServerId};
use crate::{Protocol, Rate, Sources};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

/// The UDP port of GUE where nothing else is said (IANA).
pub const GUE_PORT: u16 = 6080;

/// The whole fast path of a host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FastPath {
    /// Seed of the hash over a flow's addresses and ports: the same on all nodes, unknown to clients.
    pub seed: u64,
    /// Sorted by address, protocol and first port.
    pub services: Vec<FastService>,
}

/// A range of ports of one VIP.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FastService {
    /// The VIP.
    pub address: IpAddr,
    /// The transport.
    pub protocol: Protocol,
    /// The first and the last port, both included; all ports: 0 and 65535.
    pub ports: (u16, u16),
    /// How packets get to a backend.
    pub forward: Forward,
    /// What makes packets one flow.
    pub flow: FlowFields,
    /// Whom it is there for; what others send is dropped.
    pub sources: Arc<Sources>,
    /// How many connections one client may open; of TCP only, since UDP does not say what is new.
    pub new_connections: Option<Rate>,
    /// For how long a client that was silent still gets the backend it had, whatever became of the slots;
    /// `None`: slots alone decide.
    pub stick: Option<Duration>,
    /// Datagrams that name their server by a connection id go there.
    pub quic: Option<Quic>,
    /// Addresses of this host whose ports take the place of the client's address and port, for
    /// `Forward::Nat`; empty: backends see the client itself. Of the VIP's family.
    pub pool: Arc<[IpAddr]>,
    /// Whom `Slot`s name, by place. A place keeps its meaning as long as anything refers to it.
    /// Services with the same past share one list.
    pub backends: Arc<[FastBackend]>,
    /// A power of two of slots; empty: nobody takes connections, and what comes is dropped. A flow's
    /// slot is its hash modulo the number of slots: a table written twice in a row means the same.
    /// Services with the same past share one.
    pub slots: Arc<[Slot]>,
}

/// How a packet gets to its backend, and the answer to the client.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Forward {
    /// With the backend's Ethernet address; the backend has the VIP and answers the client itself.
    Dsr,
    /// In an IP packet to the backend (RFC 2003, RFC 2473), which answers the client itself.
    Tunnel,
    /// In a UDP packet to this port of the backend (GUE, variant 1), which answers the client itself.
    Gue {
        /// Where the backend takes it out.
        port: u16,
    },
    /// With the backend's address instead of the VIP; the answer comes back through the VIP's owner.
    Nat,
    /// To nobody: whoever owns the VIP takes it itself. `core` puts the VIP in the place of a backend.
    Local,
}

/// One server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FastBackend {
    /// Its address, and its port for `Forward::Nat` (the others keep the VIP's port). Unspecified:
    /// nobody is here now, and a flow remembered for this place goes the way of its slot.
    pub address: SocketAddr,
    /// Whether it keeps what it has, and gets again who had it.
    pub standing: Standing,
    /// What connection ids call it.
    pub server_id: Option<ServerId>,
}

impl FastBackend {
    /// One that is up, or nobody.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, standing: Standing::Up, server_id: None }
    }
}

/// What a server gets beside the new flows of its slots.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Nothing: it is down.
    Down,
    /// The connections that it has: it is down, and keeps them.
    Keeps,
    /// New flows of clients that had it, and datagrams that name it, too: it is up.
    Up,
}

/// Who takes the flows whose hash falls here. Where the two differ, a change is in progress: a new
/// TCP connection goes to `current` and is remembered; any other flow, and all UDP, which does not say
/// what is new, goes to the backend it is remembered for, else to `previous`, else to `current`,
/// whichever of them is somebody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot {
    /// The place of the backend that takes new flows; `NOBODY`: a new flow is dropped.
    pub current: u16,
    /// The one that had the slot before the last change and still serves its flows; equal to
    /// `current` when no change is in progress; `REMEMBERED`: only remembered flows go elsewhere.
    pub previous: u16,
}

impl Slot {
    /// Stands for no backend.
    pub const NOBODY: u16 = u16::MAX;
    /// Stands for no backend either, and is never `current`: where nobody takes new flows, remembered
    /// ones must still be looked up.
    pub const REMEMBERED: u16 = u16::MAX - 1;
}

//! What operators order of a backend while the agents run, and how two orders are told apart.

use crate::{NodeId, Ports, Protocol, Service};
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr};

/// A backend of a service, in the words of every host: addresses and ports belong to one service.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BackendId {
    /// The first address of the service.
    pub address: IpAddr,
    /// The service's protocol.
    pub protocol: Protocol,
    /// The service's ports.
    pub ports: Ports,
    /// The backend's name.
    pub name: String,
}

impl BackendId {
    /// The backend of that name of that service.
    pub fn of(service: &Service, name: &str) -> Self {
        let address = service.addresses.first().copied();
        Self {
            address: address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            protocol: service.protocol,
            ports: service.ports,
            name: name.into(),
        }
    }
}

/// What a backend is there for. Moments are milliseconds since 1970 by the wall clock of the host that
/// reads them: they end what was ordered, and decide nothing between nodes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Duty {
    /// As the file and its checks say.
    #[default]
    Configured,
    /// It takes connections while its checks pass, also where its agent asks for none.
    Ready,
    /// It takes no new connections; those that it has go on.
    Drain {
        /// What is left then is cut; `None`: it may take as long as it takes.
        until: Option<u64>,
    },
    /// It takes no connections and has none, and is not checked.
    Maint,
}

/// What weight a backend has.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum OrderedWeight {
    /// That of the file, or the share of it that its agent asks for.
    #[default]
    Configured,
    /// This one, at most `BACKEND_WEIGHT_MAX`.
    Fixed(u16),
    /// So many hundredths of that of the file, at most `CHECK_SHARE_MAX`.
    Percent(u16),
}

/// When an order was given, and where: of two for one backend the larger one holds, on every node. The
/// clocks of hosts differ, so of two orders that two nodes are given within that difference, and before they
/// have heard of each other's, either may be the one that holds; all nodes agree on which.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OrderVersion {
    /// Microseconds since 1970, or one more than the version that it follows.
    pub micros: u64,
    /// Who was given it.
    pub node: NodeId,
}

/// All that holds for a backend by order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BackendOrder {
    /// Which.
    pub backend: BackendId,
    /// What it is there for.
    pub duty: Duty,
    /// What weight it has.
    pub weight: OrderedWeight,
    /// When it was given, and where.
    pub version: OrderVersion,
    /// Who gave it, and why, as in "patching (by ann)".
    pub reason: String,
}

impl BackendOrder {
    /// Whether it says no more than the file does.
    pub fn is_configured(&self) -> bool {
        (self.duty, self.weight) == (Duty::Configured, OrderedWeight::Configured)
    }
}

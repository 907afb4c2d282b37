//! Observes this host: its name, its interfaces and their addresses.

use crate::netlink::{NetlinkError, Requests};
use buoy_config::{Host, HostAddress, HostLink};
use buoy_model::{Cidr, LinkId, Mac};

/// This host, at the moment of asking.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// Its name.
    pub hostname: String,
    /// Its interfaces, by index.
    pub links: Vec<Link>,
}

/// An interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its index.
    pub id: LinkId,
    /// Its name.
    pub name: String,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// The addresses on it.
    pub addresses: Vec<Address>,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Address {
    /// Which, with its prefix.
    pub cidr: Cidr,
    /// Whether it carries a mark of ours: put there by the agent, or by `buoy backend`.
    pub ours: bool,
}

/// Asks the kernel for everything.
pub fn facts() -> Result<Facts, NetlinkError> {
    let mut requests = Requests::open()?;
    let addresses = requests.addresses()?;
    let links = requests.links()?.into_iter().map(|link| Link {
        id: link.id,
        name: link.name,
        up: link.up,
        mac: link.mac,
        addresses: addresses
            .iter()
            .filter(|a| a.link == link.id)
            .map(|a| Address { cidr: a.cidr, ours: a.ours || a.prepared })
            .collect(),
    });
    let mut links: Vec<Link> = links.collect();
    links.sort_by_key(|link| link.id);
    Ok(Facts { hostname: hostname(), links })
}

impl From<&Facts> for Host {
    /// What a configuration is checked against.
    fn from(facts: &Facts) -> Self {
        let address = |a: &Address| HostAddress { cidr: a.cidr, ours: a.ours };
        let link = |link: &Link| HostLink {
            id: link.id,
            name: link.name.clone(),
            up: link.up,
            addresses: link.addresses.iter().map(address).collect(),
        };
        let links = facts.links.iter().map(link).collect();
        Self { hostname: facts.hostname.clone(), links }
    }
}

impl Facts {
    /// The interface of that index.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.iter().find(|link| link.id == id)
    }
}

/// As the host calls itself; empty where it does not say.
pub fn hostname() -> String {
    let name = nix::sys::utsname::uname().map(|names| names.nodename().to_owned());
    name.map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned())
}

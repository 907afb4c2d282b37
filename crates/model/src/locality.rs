//! Where backends are, and which of them are near to an owner.

use crate::{Backend, Node};
use alloc::string::String;

/// Where a backend is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location {
    /// On the node of that name, and in its zone.
    Node(String),
    /// In that zone.
    Zone(String),
}

/// Which backends take connections before others do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Locality {
    /// Those on the owner of the VIP.
    Node,
    /// Those in the zone of the owner of the VIP.
    Zone,
}

impl Locality {
    /// Whether a backend is near to an owner; `nodes` are all members.
    pub fn is_near(self, nodes: &[Node], owner: &Node, backend: &Backend) -> bool {
        let on = node_of(nodes, backend);
        match self {
            Self::Node => on.is_some_and(|node| node.id == owner.id),
            Self::Zone => {
                let zone = match &backend.location {
                    Some(Location::Zone(zone)) => Some(zone),
                    Some(Location::Node(_)) | None => on.and_then(|node| node.zone.as_ref()),
                };
                zone.is_some() && zone == owner.zone.as_ref()
            }
        }
    }
}

/// The node that a backend runs on: the one that the file names, or whose address it has.
fn node_of<'n>(nodes: &'n [Node], backend: &Backend) -> Option<&'n Node> {
    match &backend.location {
        Some(Location::Node(name)) => nodes.iter().find(|node| node.name == *name),
        Some(Location::Zone(_)) | None => {
            let ip = backend.address.ip();
            nodes.iter().find(|node| node.addresses.iter().any(|leg| leg.ip() == ip))
        }
    }
}

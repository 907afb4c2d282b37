//! Lets this host hear questions for IPv6 addresses that it does not have.
//!
//! Who asks for an address by NDP asks a multicast group (RFC 4291 §2.7.1). An interface passes on only what the
//! kernel has told it to, and a switch that watches memberships (RFC 4541) only what somebody has joined. The
//! kernel joins for the addresses that it has; for the others it is done here, on every host that may own them and
//! at all times: joining may wait for the kernel, and a failover must not.

use buoy_model::LinkId;
use buoy_wire::ndp::solicited_node;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;

/// A socket has room for so many groups, with the smallest `net.core.optmem_max` that any kernel has.
const GROUPS_PER_SOCKET: usize = 128;

/// A group on an interface.
type Membership = (LinkId, Ipv6Addr);

/// The groups that were joined. They are left when this is dropped.
#[derive(Debug, Default)]
pub struct Solicited {
    sockets: Vec<Socket>,
    /// By which socket.
    joined: BTreeMap<Membership, usize>,
}

impl Solicited {
    /// Hears questions for these addresses, and no others; for which it could not be arranged, and why.
    pub fn hear(&mut self, addresses: &BTreeSet<(LinkId, Ipv6Addr)>) -> Vec<(Ipv6Addr, String)> {
        let group = |(link, address): &(LinkId, Ipv6Addr)| (*link, solicited_node(*address));
        let wanted: BTreeSet<Membership> = addresses.iter().map(group).collect();
        self.joined.retain(|membership, socket| {
            let (link, group) = membership;
            let stays = wanted.contains(membership);
            if !stays {
                // Of an interface that is gone there is nothing to leave.
                let _ = self.sockets[*socket].leave_multicast_v6(group, link.0);
            }
            stays
        });
        let mut refused = BTreeMap::new();
        for membership in wanted {
            if let Err(error) = self.join(membership) {
                refused.insert(membership, error.to_string());
            }
        }
        let why = |asked: &(LinkId, Ipv6Addr)| Some((asked.1, refused.get(&group(asked))?.clone()));
        addresses.iter().filter_map(why).collect()
    }

    fn join(&mut self, membership: Membership) -> io::Result<()> {
        if self.joined.contains_key(&membership) {
            return Ok(());
        }
        let socket = self.roomy()?;
        let (link, group) = membership;
        match self.sockets[socket].join_multicast_v6(&group, link.0) {
            // Joined before an interface of this index was another one.
            Err(error) if error.raw_os_error() == Some(Errno::EADDRINUSE as i32) => {}
            joined => joined?,
        }
        self.joined.insert(membership, socket);
        Ok(())
    }

    /// A socket with room for one more.
    fn roomy(&mut self) -> io::Result<usize> {
        let has_room = |at: &usize| {
            self.joined.values().filter(|socket| *socket == at).count() < GROUPS_PER_SOCKET
        };
        if let Some(at) = (0..self.sockets.len()).find(has_room) {
            return Ok(at);
        }
        self.sockets.push(Socket::new(Domain::IPV6, Type::DGRAM, None)?);
        Ok(self.sockets.len() - 1)
    }
}

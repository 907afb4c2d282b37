//! How often a client may open a connection, once more and simply.
//!
//! Time stands still here: the limits of the tests take an hour to let another one through.

use super::{Mirror, Seen};
use buoy_model::client;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// What each client owes each service.
pub(super) type Limits = HashMap<(IpAddr, (u16, u16), IpAddr), Duration>;

impl Mirror<'_> {
    /// Whether this packet opens a connection that its client may not open; if it may, it counts.
    pub(super) fn is_over(&mut self, at: usize, seen: &Seen) -> bool {
        let service = &self.path.services[at];
        let Some(rate) = service.new_connections.filter(|_| seen.opens) else { return false };
        let key = (service.address, service.ports, client(seen.client));
        let debt = self.limits.entry(key).or_default();
        match rate.after(*debt) {
            Some(after) => {
                *debt = after;
                false
            }
            None => true,
        }
    }
}

//! Which backend a packet gets, once more and simply: by the hash and its slot, by what its client had, or by the
//! server that a datagram names.
//!
//! Time stands still here, so whoever had a backend has come again in time.

use super::read::half;
use super::{Mirror, Seen};
use crate::packets::UDP;
use buoy_model::{FastService, Named, Slot, Standing};
use buoy_xdp::forward::hash_flow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

/// By VIP, ports, protocol and client: the place of the backend, and who that was.
pub(super) type Clients = HashMap<(IpAddr, (u16, u16), u8, IpAddr), (usize, SocketAddr)>;

/// Who is at a place, if somebody is.
fn address(service: &FastService, place: usize) -> Option<SocketAddr> {
    let backend = service.backends.get(place).map(|b| b.address);
    backend.filter(|address| !address.ip().is_unspecified())
}

impl Mirror<'_> {
    /// `frame`: the packet itself, and not one that an error quotes.
    pub(super) fn choose(&mut self, at: usize, seen: &Seen, frame: Option<&[u8]>) -> Option<usize> {
        let named = frame.and_then(|frame| self.named(at, seen, frame));
        if named.is_some() {
            return named;
        }
        let slot = self.slot(at, seen)?;
        if self.path.services[at].stick.is_some() {
            return self.again(at, seen, slot, frame.is_none());
        }
        if slot.current == slot.previous {
            let current = usize::from(slot.current);
            return (current < self.path.services[at].backends.len()).then_some(current);
        }
        self.choose_in_change(at, seen, slot)
    }

    pub(super) fn slot(&self, at: usize, seen: &Seen) -> Option<Slot> {
        let service = &self.path.services[at];
        let (client, port) = service.flow.of(SocketAddr::new(seen.client, seen.client_port));
        let hash = hash_flow(self.path.seed, client, port);
        let slot = (hash & (service.slots.len() as u64).wrapping_sub(1)) as usize;
        service.slots.get(slot).copied()
    }

    fn choose_in_change(&mut self, at: usize, seen: &Seen, slot: Slot) -> Option<usize> {
        let service = &self.path.services[at];
        let [current, previous] = [slot.current, slot.previous].map(usize::from);
        let old = if address(service, previous).is_some() { previous } else { current };
        let flow = (seen.client, seen.client_port, seen.vip, seen.vip_port, seen.protocol);
        if seen.opens {
            self.remembered.insert(flow, (current, address(service, current)?));
            return Some(current);
        }
        match self.remembered.get(&flow) {
            Some(&(place, server)) if address(service, place) == Some(server) => Some(place),
            Some(_) | None => address(service, old).map(|_| old),
        }
    }

    fn again(&mut self, at: usize, seen: &Seen, slot: Slot, is_quoted: bool) -> Option<usize> {
        let service = &self.path.services[at];
        let (client, _) = service.flow.of(SocketAddr::new(seen.client, seen.client_port));
        let key = (seen.vip, service.ports, seen.protocol, client);
        let begins = seen.opens || seen.protocol == UDP;
        let moves = slot.current != slot.previous;
        let known = self.clients.get(&key).copied();
        let its = known.filter(|(place, server)| address(service, *place) == Some(*server));
        let its =
            its.map(|(place, _)| place).filter(|place| match service.backends[*place].standing {
                Standing::Up => true,
                Standing::Keeps => !begins,
                Standing::Down => false,
            });
        let place = match its {
            Some(its) if seen.protocol == UDP || !moves => Some(its),
            Some(its) if begins => {
                let slot = Slot { current: u16::try_from(its).unwrap(), ..slot };
                self.choose_in_change(at, seen, slot)
            }
            Some(_) | None if moves => self.choose_in_change(at, seen, slot),
            Some(_) | None => Some(usize::from(slot.current)),
        }?;
        let now = address(service, place).map(|server| (place, server));
        if let Some(now) =
            now.filter(|now| !is_quoted && (begins || known.is_none_or(|k| k == *now)))
        {
            self.clients.insert(key, now);
        }
        (place < service.backends.len()).then_some(place)
    }

    /// The server that a datagram names, if it is up.
    fn named(&self, at: usize, seen: &Seen, frame: &[u8]) -> Option<usize> {
        let service = &self.path.services[at];
        let udp = 14 + seen.header;
        let end = usize::from(half(frame, udp + 4)).min(seen.length - seen.header);
        let id = match service.quic?.named(&frame[udp + 8..udp + end]) {
            Named::Server(id) | Named::Perhaps(id) => id,
            Named::Stranger | Named::Nobody => return None,
        };
        let place = service.backends.iter().position(|b| b.server_id == Some(id))?;
        let is_up = service.backends[place].standing == Standing::Up;
        (is_up && address(service, place).is_some()).then_some(place)
    }
}

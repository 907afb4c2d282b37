//! Remembers which backend each client had, for as long as it comes again in time (mode "proxy").
//!
//! The engines in the kernel have tables of their own for it. What is remembered is a client as far as it counts
//! (`FlowFields::of`) and the key of a backend's name; whether that one takes it is the caller's to see. There are
//! `STICK_CLIENTS_MAX` at most: a new one takes the place of who was silent for longest.

use alloc::collections::BTreeMap;
use buoy_model::limits::STICK_CLIENTS_MAX;
use core::net::IpAddr;
use core::time::Duration;

/// The clients of one port.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    known: BTreeMap<IpAddr, Known>,
    /// The same, by when they came last.
    order: BTreeMap<u64, IpAddr>,
    /// Grows with each client that comes.
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    backend: u32,
    /// Since whatever the caller counts from.
    at: Duration,
    turn: u64,
}

impl Clients {
    /// The backend that a client had, if it is not longer ago than that.
    pub fn get(&self, now: Duration, client: IpAddr, stick: Duration) -> Option<u32> {
        let known = self.known.get(&client)?;
        (now.saturating_sub(known.at) <= stick).then_some(known.backend)
    }

    /// It has this one now.
    pub fn put(&mut self, now: Duration, client: IpAddr, backend: u32) {
        self.turn += 1;
        let known = Known { backend, at: now, turn: self.turn };
        if let Some(before) = self.known.insert(client, known) {
            self.order.remove(&before.turn);
        }
        self.order.insert(self.turn, client);
        if self.known.len() > STICK_CLIENTS_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.known.remove(&oldest);
        }
        debug_assert_eq!(self.known.len(), self.order.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    const MINUTE: Duration = Duration::from_secs(60);

    fn client(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    #[test]
    fn a_client_has_its_backend_as_long_as_it_comes_again_in_time() {
        let mut clients = Clients::default();
        assert_eq!(clients.get(MINUTE, client(1), MINUTE), None);
        clients.put(MINUTE, client(1), 7);
        assert_eq!(clients.get(2 * MINUTE, client(1), MINUTE), Some(7));
        assert_eq!(clients.get(2 * MINUTE, client(2), MINUTE), None);
        let late = 2 * MINUTE + Duration::from_nanos(1);
        assert_eq!(clients.get(late, client(1), MINUTE), None);
        clients.put(2 * MINUTE, client(1), 8);
        assert_eq!(clients.get(late, client(1), MINUTE), Some(8));
    }

    #[test]
    fn who_was_silent_for_longest_makes_room() {
        let mut clients = Clients::default();
        let all = u32::try_from(STICK_CLIENTS_MAX).unwrap();
        for n in 0..all {
            clients.put(MINUTE, client(n), n);
        }
        clients.put(MINUTE, client(0), 5);
        for n in all..all + 10 {
            clients.put(MINUTE, client(n), n);
        }
        let get = |n| clients.get(MINUTE, client(n), MINUTE);
        assert_eq!((get(0), get(10), get(11)), (Some(5), None, Some(11)));
        assert_eq!(clients.known.len(), STICK_CLIENTS_MAX);
    }
}

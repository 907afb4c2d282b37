//! Keeps every datagram that is under way, in a host's socket, or recorded, and reuses its memory.
//!
//! Most runs seal and open real bytes. Long ones may hand the message over as it is: what sealing
//! promises is shown by the others, and a simulated hour costs half.

use buoy_model::Message;

/// All datagrams, by their number.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    all: Vec<Datagram>,
    free: Vec<u32>,
}

/// One datagram.
#[derive(Debug, Default)]
pub(crate) struct Datagram {
    /// Who still needs it.
    users: u32,
    /// As it is on the wire; empty where it is not sealed.
    pub(crate) bytes: Vec<u8>,
    /// What it says, where it is not sealed.
    pub(crate) message: Message,
}

impl Datagrams {
    /// A datagram with one user, whose content is still that of an earlier one.
    pub(crate) fn take(&mut self) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.all.push(Datagram::default());
            (self.all.len() - 1) as u32
        });
        self.all[at as usize].users = 1;
        at
    }

    /// One user more.
    pub(crate) fn keep(&mut self, at: u32) {
        self.all[at as usize].users += 1;
    }

    /// One user less.
    pub(crate) fn leave(&mut self, at: u32) {
        let users = &mut self.all[at as usize].users;
        debug_assert!(*users > 0, "who leaves a datagram has kept it");
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.free.push(at);
        }
    }

    pub(crate) fn content(&mut self, at: u32) -> &mut Datagram {
        &mut self.all[at as usize]
    }

    /// How many are in use.
    #[cfg(test)]
    fn used(&self) -> usize {
        self.all.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_reused_when_the_last_user_has_left() {
        let mut datagrams = Datagrams::default();
        let first = datagrams.take();
        datagrams.keep(first);
        datagrams.leave(first);
        assert_ne!(datagrams.take(), first);
        assert_eq!(datagrams.used(), 2);
        datagrams.leave(first);
        assert_eq!(datagrams.used(), 1);
        assert_eq!(datagrams.take(), first);
    }
}

//! Waits for sockets and for a deadline at once, without allocating.

use crate::{clock, sys};
use buoy_model::Instant;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Descriptors that one poller can watch.
pub const FDS_MAX: usize = 32;

/// The descriptors of the loop, each at the place that the caller calls it by.
pub struct Poller {
    fds: [libc::pollfd; FDS_MAX],
}

/// Which places can be read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ready(u32);

const _: () = assert!(FDS_MAX <= u32::BITS as usize);

impl Ready {
    /// Whether this place can be read.
    pub const fn contains(self, token: usize) -> bool {
        token < FDS_MAX && self.0 & 1 << token != 0
    }

    /// The places that can be read, lowest first.
    pub fn tokens(self) -> impl Iterator<Item = usize> {
        (0..FDS_MAX).filter(move |&token| self.contains(token))
    }

    /// Whether the deadline came first.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Default for Poller {
    fn default() -> Self {
        Self::new()
    }
}

impl Poller {
    /// Watches nothing yet.
    pub const fn new() -> Self {
        // A negative descriptor is skipped by the kernel.
        Self { fds: [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; FDS_MAX] }
    }

    /// Watches this descriptor in that place, in place of what was there; `false` when there is
    /// no such place. The caller must `forget` it before closing it.
    pub fn watch(&mut self, token: usize, fd: &impl AsFd) -> bool {
        self.fds.get_mut(token).map(|slot| slot.fd = fd.as_fd().as_raw_fd()).is_some()
    }

    /// Watches nothing in that place any more.
    pub fn forget(&mut self, token: usize) {
        if let Some(slot) = self.fds.get_mut(token) {
            slot.fd = -1;
        }
    }

    /// Waits until something can be read or the deadline has come. A deadline in the past still
    /// looks at every descriptor once. A signal ends the wait with nothing ready.
    pub fn wait(&mut self, deadline: Option<Instant>) -> io::Result<Ready> {
        let timeout = deadline.map(|deadline| deadline.since(clock::now()));
        match sys::poll(&mut self.fds, timeout) {
            Ok(0) => Ok(Ready::default()),
            Ok(_) => Ok(self.ready()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Ready::default()),
            Err(error) => Err(error),
        }
    }

    /// Errors and hang-ups count as readable: reading says what they are.
    fn ready(&self) -> Ready {
        let readable = |&(_, slot): &(usize, &libc::pollfd)| slot.fd >= 0 && slot.revents != 0;
        Ready(self.fds.iter().enumerate().filter(readable).fold(0, |bits, (i, _)| bits | 1 << i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wake;
    use std::time::Duration;

    #[test]
    fn a_wait_ends_with_the_one_that_can_be_read() {
        let (_idle_waker, idle) = wake::pair().unwrap();
        let (waker, woken) = wake::pair().unwrap();
        let mut poller = Poller::new();
        assert!(poller.watch(3, &idle));
        assert!(poller.watch(31, &woken));
        assert!(!poller.watch(32, &woken));
        waker.wake();
        let ready = poller.wait(None).unwrap();
        assert_eq!(ready.tokens().collect::<Vec<_>>(), [31]);
        poller.forget(31);
        assert!(poller.wait(Some(clock::now())).unwrap().is_empty());
    }

    #[test]
    fn a_wait_lasts_until_its_deadline_and_a_past_deadline_still_looks() {
        let (waker, woken) = wake::pair().unwrap();
        let mut poller = Poller::new();
        assert!(poller.watch(0, &woken));
        let deadline = clock::now() + Duration::from_millis(5);
        assert!(poller.wait(Some(deadline)).unwrap().is_empty());
        assert!(deadline <= clock::now());
        waker.wake();
        assert!(poller.wait(Some(Instant::ZERO)).unwrap().contains(0));
    }
}

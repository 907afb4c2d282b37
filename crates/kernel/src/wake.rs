//! Wakes the loop from another thread.

use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// The other threads' end.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

/// The loop's end: readable since somebody woke it.
#[derive(Debug)]
pub struct Wakeups(Arc<EventFd>);

/// Both ends.
pub fn pair() -> io::Result<(Waker, Wakeups)> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let event = Arc::new(EventFd::from_flags(flags)?);
    Ok((Waker(Arc::clone(&event)), Wakeups(event)))
}

impl Waker {
    /// Wakes the loop; any number of calls before it looks are one.
    pub fn wake(&self) {
        // It can only fail when the counter is full, and then the loop is awake already.
        let _ = self.0.write(1);
    }
}

impl Wakeups {
    /// Forgets the calls so far: to be called before looking at what they were for.
    pub fn clear(&self) {
        let _ = self.0.read();
    }
}

impl AsFd for Wakeups {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::poll::Poller;

    #[test]
    fn many_calls_are_one_and_none_is_lost() {
        let (waker, wakeups) = pair().unwrap();
        let mut poller = Poller::new();
        assert!(poller.watch(0, &wakeups));
        let mut woken = || poller.wait(Some(clock::now())).unwrap().contains(0);
        assert!(!woken());
        let other = waker.clone();
        std::thread::spawn(move || (0..1000).for_each(|_| other.wake())).join().unwrap();
        assert!(woken());
        wakeups.clear();
        assert!(!woken());
        waker.wake();
        assert!(woken());
        // Nothing to forget is fine.
        wakeups.clear();
        wakeups.clear();
    }
}

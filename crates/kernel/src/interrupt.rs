//! Lets a command end well that a person stops: Ctrl-C becomes something that can be waited for.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Can be read when this process was asked to end; until then that does not end it.
#[derive(Debug)]
pub struct Interrupt(SignalFd);

impl Interrupt {
    /// From now on, for this thread and those that it starts.
    pub fn open() -> io::Result<Self> {
        let signals: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// Whether it was.
    pub fn has_come(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::poll::Poller;
    use nix::sys::signal::raise;
    use std::time::Duration;

    #[test]
    fn who_is_asked_to_end_can_finish_first() {
        let interrupt = Interrupt::open().unwrap();
        let mut poller = Poller::new();
        poller.watch(0, &interrupt);
        assert!(!interrupt.has_come());
        raise(Signal::SIGINT).unwrap();
        assert!(poller.wait(Some(clock::now() + Duration::from_secs(5))).unwrap().contains(0));
        assert!(interrupt.has_come());
    }
}

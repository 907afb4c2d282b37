//! Runs the program on one frame, and nothing is sent: what would become of it?

use super::FastError;
use super::error::refused;
use crate::sys;
use std::os::fd::{BorrowedFd, OwnedFd};

/// More than any outer header.
const GROWTH_MAX: usize = 256;

/// The program, to be run on frames; with it the tables as they are at the moment.
#[derive(Debug)]
pub struct Probe {
    program: OwnedFd,
}

/// What became of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tried {
    /// What XDP does with it.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// What XDP does with a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Something went wrong in the program.
    Aborted,
    /// It is gone.
    Drop,
    /// The kernel has it.
    Pass,
    /// Out of the interface that it came in by.
    Transmit,
    /// Out of another one.
    Redirect,
}

impl Probe {
    pub(super) fn new(program: BorrowedFd<'_>) -> Result<Self, FastError> {
        let program = program.try_clone_to_owned().map_err(|e| refused(&e))?;
        Ok(Self { program })
    }

    /// Runs the program on a frame of at least 14 bytes that comes in by the loopback interface. It is
    /// counted like any other.
    pub fn try_frame(&self, frame: &[u8]) -> Result<Tried, FastError> {
        let mut output = vec![0; frame.len() + GROWTH_MAX];
        let (code, length) =
            sys::run_program(&self.program, sys::Trial::Again(1, frame), &mut output)
                .map_err(|e| refused(&e))?;
        output.truncate(length);
        Ok(Tried { verdict: Verdict::from(code), frame: output })
    }
}

impl From<u32> for Verdict {
    fn from(code: u32) -> Self {
        match code {
            1 => Self::Drop,
            2 => Self::Pass,
            3 => Self::Transmit,
            4 => Self::Redirect,
            _ => Self::Aborted,
        }
    }
}

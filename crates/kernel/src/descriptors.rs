//! Keeps what this process has open from the programs that it starts.

use crate::sys;
use std::io;

/// The first one that is not input, output or errors.
const FIRST: u32 = 3;

/// Makes every descriptor end at the next `exec`. All that is opened here has that mark from the start;
/// what came from whoever started this process may not.
pub fn keep_from_programs() -> io::Result<()> {
    sys::close_on_exec_from(FIRST)
}

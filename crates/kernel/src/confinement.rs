//! Takes from the programs of one thread every way to rights that their user does not have.

use crate::sys;
use std::io;

/// From here on no program that this thread starts has a capability because of the agent, and none gets rights by
/// the marks of its file (set-user-id, file capabilities). There is no way back: a thread for it, and its end.
pub fn begin() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    sys::pass_no_capability_on()
}

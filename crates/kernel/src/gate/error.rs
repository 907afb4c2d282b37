//! Why there is no gate, or why it did not take something: in words that say what to do.

use crate::netlink::NetlinkError;
use aya::programs::ProgramError;
use buoy_model::LinkId;
use nix::errno::Errno;
use std::fmt;
use std::net::IpAddr;

/// Why there is no gate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum GateError {
    /// This process may not load BPF programs.
    Permission,
    /// The kernel looked at the programs and refused them.
    Verifier {
        /// Its log.
        log: String,
    },
    /// The kernel could not load programs or maps for another reason.
    Load {
        /// In the words of the loader.
        reason: String,
    },
    /// The programs could not be attached to an interface.
    Attach {
        /// Which.
        link: LinkId,
        /// Why.
        cause: NetlinkError,
    },
    /// Somebody else's filter is where ours goes.
    Occupied {
        /// On which interface.
        link: LinkId,
        /// Its name.
        name: String,
    },
    /// The address is on no interface, and nothing here answers for it.
    Unanswered {
        /// Where it should be answered for.
        link: LinkId,
        /// Which address.
        address: IpAddr,
    },
    /// A deadline could not be written: this address is fenced by its kernel lifetime only.
    Write {
        /// Which address.
        address: IpAddr,
        /// The kernel's reason.
        errno: Errno,
    },
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => f.write_str(
                "this process may not load BPF programs: run it as root of the host, or give it \
                 CAP_BPF and CAP_NET_ADMIN",
            ),
            Self::Verifier { log } => {
                write!(f, "this kernel refuses the gate's program (5.8 or newer is needed): {log}")
            }
            Self::Load { reason } => write!(f, "the gate's program cannot be loaded: {reason}"),
            Self::Attach { link, cause } => write!(
                f,
                "the gate cannot be attached to interface {}: {cause}; the kernel needs \
                 NET_SCH_INGRESS and NET_CLS_BPF, and no old `ingress` qdisc may be there \
                 (`tc qdisc show`)",
                link.0
            ),
            Self::Occupied { link, name } => write!(
                f,
                "interface {} has the filter `{name}` at priority 1, handle 0xb0, where the gate \
                 goes: remove it (`tc filter show dev ... ingress`)",
                link.0
            ),
            Self::Unanswered { link, address } => write!(
                f,
                "nothing answers for {address} on interface {}, and it is not put there: the \
                 interface needs an Ethernet address",
                link.0
            ),
            Self::Write { address, errno } => {
                write!(f, "the gate cannot take a deadline for {address}: {}", errno.desc())
            }
        }
    }
}

impl std::error::Error for GateError {}

/// Why the kernel refused to load something.
pub(super) fn refused(error: &(dyn std::error::Error + 'static)) -> GateError {
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref()
        && errno(error) != Some(Errno::EPERM)
    {
        return GateError::Verifier { log: verifier_log.to_string() };
    }
    match errno(error) {
        Some(Errno::EPERM | Errno::EACCES) => GateError::Permission,
        Some(errno) => GateError::Load { reason: format!("{error}: {}", errno.desc()) },
        None => GateError::Load { reason: error.to_string() },
    }
}

/// The error number at the bottom of an error.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<std::io::Error>();
        if let Some(code) = io.and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw(code));
        }
        next = error.source();
    }
    None
}

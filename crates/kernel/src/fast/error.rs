//! Why there is no fast path, or why it did not take something: in words that say what to do.

use crate::gate::errno_of;
use crate::netlink::NetlinkError;
use aya::programs::ProgramError;
use buoy_model::LinkId;
use nix::errno::Errno;
use std::fmt;

/// Why there is no fast path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FastError {
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
    /// The program could not be attached to an interface.
    Attach {
        /// Which.
        link: LinkId,
        /// The kernel's reasons, for each mode that was tried.
        reason: String,
    },
    /// Somebody else's XDP program is on the interface.
    Occupied {
        /// On which interface.
        link: LinkId,
    },
    /// There are more of these than there is room for.
    Full {
        /// What.
        what: &'static str,
    },
    /// A service cannot be forwarded as it is.
    Service {
        /// Which, as its address, protocol and ports.
        service: String,
        /// Why not.
        reason: &'static str,
    },
    /// The kernel was asked about neighbours and routes and did not say.
    Netlink(NetlinkError),
}

impl fmt::Display for FastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission => f.write_str(
                "this process may not load BPF programs: run it as root of the host, or give it \
                 CAP_BPF and CAP_NET_ADMIN",
            ),
            Self::Verifier { log } => {
                write!(f, "this kernel refuses the fast path (5.12 or newer is needed): {log}")
            }
            Self::Load { reason } => write!(f, "the fast path cannot be loaded: {reason}"),
            Self::Attach { link, reason } => {
                write!(f, "the fast path cannot be attached to interface {}: {reason}", link.0)
            }
            Self::Occupied { link } => write!(
                f,
                "interface {} has another XDP program: remove it (`ip link set dev ... xdp off`)",
                link.0
            ),
            Self::Full { what } => {
                write!(f, "too many {what}: open the fast path with more room")
            }
            Self::Service { service, reason } => write!(f, "service {service}: {reason}"),
            Self::Netlink(cause) => write!(f, "neighbours and routes cannot be read: {cause}"),
        }
    }
}

impl std::error::Error for FastError {}

impl From<NetlinkError> for FastError {
    fn from(cause: NetlinkError) -> Self {
        Self::Netlink(cause)
    }
}

/// Why the kernel refused to load something.
pub(crate) fn refused(error: &(dyn std::error::Error + 'static)) -> FastError {
    let errno = errno_of(error);
    if let Some(ProgramError::LoadError { verifier_log, .. }) = error.downcast_ref()
        && errno != Some(Errno::EPERM)
    {
        return FastError::Verifier { log: verifier_log.to_string() };
    }
    match errno {
        Some(Errno::EPERM | Errno::EACCES) => FastError::Permission,
        Some(errno) => FastError::Load { reason: format!("{error}: {}", errno.desc()) },
        None => FastError::Load { reason: error.to_string() },
    }
}

//! Why a real server was not prepared, in words that say what to do.

use super::plan::{Obstacle, Step};
use crate::netlink::NetlinkError;
use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

/// Why nothing was done, or not all of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BackendError {
    /// The kernel does not tell its interfaces and addresses.
    Netlink(NetlinkError),
    /// What is done cannot be remembered, and so is not done.
    File {
        /// Which file or folder.
        path: PathBuf,
        /// What kind of refusal it is.
        kind: ErrorKind,
        /// In the words of the system.
        cause: String,
    },
    /// There is a record, and it is not understood.
    Record {
        /// Where.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Something is in the way. Nothing was changed.
    Obstacles(Vec<Obstacle>),
    /// No interface is the obvious one.
    Interface(IpAddr),
    /// A step could not be done.
    Step {
        /// Which.
        step: Box<Step>,
        /// Why not.
        cause: String,
        /// What was done before it and could not be undone, each with the reason.
        left: Vec<(Step, String)>,
    },
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netlink(cause) => write!(f, "interfaces and addresses cannot be read: {cause}"),
            Self::File { path, kind: ErrorKind::PermissionDenied, cause } => {
                write!(f, "{}: {cause}: run it as root (sudo buoy backend ...)", path.display())
            }
            Self::File { path, kind: _, cause } => write!(
                f,
                "{}: {cause}; without a record of what was before, nothing is changed",
                path.display()
            ),
            Self::Record { file, reason } => write!(
                f,
                "{} says what was changed on this host, but {reason}: it was written by another \
                 release, or by hand; mend it or remove it",
                file.display()
            ),
            Self::Obstacles(obstacles) => {
                f.write_str("nothing was changed, because")?;
                let is_one = obstacles.len() == 1;
                for Obstacle { found, fix } in obstacles {
                    f.write_str(if is_one { " " } else { "\n  " })?;
                    write!(f, "{found}\n  fix: {fix}")?;
                }
                Ok(())
            }
            Self::Interface(vip) => write!(
                f,
                "by which interface do packets for {vip} come? No interface has an address in its \
                 subnet, and there is no default route: say it with --interface"
            ),
            Self::Step { step, cause, left } if left.is_empty() => write!(
                f,
                "this could not be done: {step}: {cause}\nwhat was done before it is undone, so \
                 nothing is changed"
            ),
            Self::Step { step, cause, left } => {
                write!(
                    f,
                    "this could not be done: {step}: {cause}\nand this could not be undone:"
                )?;
                for (step, cause) in left {
                    write!(f, "\n  {step}: {cause}")?;
                }
                f.write_str("\n`buoy backend remove --all` tries again to undo it")
            }
        }
    }
}

impl std::error::Error for BackendError {}

impl From<NetlinkError> for BackendError {
    fn from(cause: NetlinkError) -> Self {
        Self::Netlink(cause)
    }
}

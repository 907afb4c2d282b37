//! Decides how the lab may make namespaces on this host: as root, or in a user namespace of its own.

use crate::{Error, Result, command};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set in the process that runs inside the user namespace, so that it does not try again; holds
/// the id of the user outside.
const INSIDE: &str = "BUOY_LAB_ROOTLESS";

/// How the lab got its rights.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// Real root: everything is there.
    Root,
    /// Root of a user namespace: BPF is not permitted, so the kernel gate is missing.
    UserNamespace,
}

impl Mode {
    /// For people, with what is missing.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Root => "as root: everything is real, the kernel gate included",
            Self::UserNamespace => {
                "without root, in a user namespace: BPF is not permitted there, so the kernel's \
                 address lifetime is the fence and leases are longer"
            }
        }
    }
}

/// Makes sure that namespaces can be made, if need be by starting this program anew in a user
/// namespace; then it does not return.
pub fn acquire() -> Result<Mode> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(Mode::UserNamespace);
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(Mode::Root);
    }
    let unshare = command::require("unshare", "apt-get install util-linux")?;
    let probe = Command::new(&unshare)
        .args(["--user", "--map-root-user", "--net", "--mount", "true"])
        .output()
        .map_err(Error::system("try a user namespace"))?;
    if !probe.status.success() {
        return Err(Error::Forbidden {
            reason: format!(
                "this host does not allow user namespaces ({}): run as root, or allow them \
                 (sysctl kernel.unprivileged_userns_clone=1, or \
                 kernel.apparmor_restrict_unprivileged_userns=0)",
                String::from_utf8_lossy(&probe.stderr).trim()
            ),
        });
    }
    let program = std::env::current_exe().map_err(Error::system("find this program"))?;
    // `ip netns` keeps its names in /run, where a plain user may not write: give it one of its own.
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/netns && exec \"$0\" \"$@\"";
    let failure = Command::new(unshare)
        .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", script])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, nix::unistd::getuid().to_string())
        .exec();
    Err(Error::System { doing: "enter a user namespace".to_owned(), source: failure })
}

/// The user who started the lab, whoever that is inside a user namespace.
pub fn user() -> String {
    std::env::var(INSIDE).unwrap_or_else(|_| nix::unistd::getuid().to_string())
}

/// Why this process cannot make namespaces, for tests, which do not start themselves anew.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root (or a user namespace) to make network namespaces".to_owned());
    }
    ["ip", "nft"]
        .into_iter()
        .find(|program| command::find(program).is_none())
        .map(|program| format!("{program} is not installed"))
}

//! Opens the agent's UNIX socket: never steals it from a running agent, never leaves a dead one.

use super::account;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};
use tokio::net::UnixListener;

/// Owner and group may ask; nobody else.
const MODE: u32 = 0o660;
/// Everybody may ask, where the directory lets him in.
const QUESTIONS_MODE: u32 = 0o666;
/// Members of this group may use the socket without being root, where the group exists.
const GROUP: &str = "buoy";

/// The open socket; its file goes with it.
#[derive(Debug)]
pub struct Socket {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// Why the agent cannot listen.
#[derive(Debug)]
pub enum SocketError {
    /// Another agent answers there.
    InUse {
        /// Which socket.
        path: PathBuf,
    },
    /// There is something else in its place.
    NotASocket {
        /// Which file.
        path: PathBuf,
    },
    /// The kernel refused a step.
    Refused {
        /// Which socket.
        path: PathBuf,
        /// Which step.
        step: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl Socket {
    /// Makes the socket, with its directory. To be called inside a tokio runtime.
    pub fn open(path: &Path) -> Result<Self, SocketError> {
        Self::with_mode(path, MODE)
    }

    /// The socket beside it for those who may only ask: `ro.sock` beside `api.sock`, else the same name with
    /// `.ro`.
    pub fn open_questions(beside: &Path) -> Result<Self, SocketError> {
        Self::with_mode(&questions_path(beside), QUESTIONS_MODE)
    }

    fn with_mode(path: &Path, mode: u32) -> Result<Self, SocketError> {
        let refused = |step: &'static str| {
            move |cause| SocketError::Refused { path: path.to_path_buf(), step, cause }
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(refused("make the directory of"))?;
        }
        make_way(path)?;
        // Made under another name and moved into place, so that nobody finds it with the
        // permissions of the umask.
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}", std::process::id()));
        let mut file = SocketFile { path: PathBuf::from(new) };
        let listener = UnixListener::bind(&file.path).map_err(refused("bind"))?;
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode))
            .map_err(refused("set the permissions of"))?;
        give_to_group(&file.path);
        fs::rename(&file.path, path).map_err(refused("put in place"))?;
        file.path = path.to_path_buf();
        Ok(Self { listener, file })
    }
}

fn questions_path(beside: &Path) -> PathBuf {
    if beside.file_name().is_some_and(|name| name == "api.sock") {
        return beside.with_file_name("ro.sock");
    }
    let mut path = beside.as_os_str().to_owned();
    path.push(".ro");
    path.into()
}

/// A socket's file, removed when it is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file stays behind");
        }
    }
}

/// Whether the path is free, or has a socket that nobody answers on.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let path_buf = || path.to_path_buf();
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => {
            return Err(SocketError::Refused { path: path_buf(), step: "look at", cause });
        }
    };
    if !kind.is_socket() {
        return Err(SocketError::NotASocket { path: path_buf() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse { path: path_buf() }),
        // A dead agent's socket: the rename replaces it.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(cause) => Err(SocketError::Refused { path: path_buf(), step: "try", cause }),
    }
}

/// Without the group, or without the right to give it away, the socket is for root alone.
fn give_to_group(path: &Path) {
    let Some(group) = account::group_id(GROUP) else { return };
    if let Err(error) = nix::unistd::chown(path, None, Some(group.into())) {
        tracing::info!(group = GROUP, %error, "the API socket stays with the agent's own group");
    }
}

impl fmt::Display for SocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse { path } => write!(
                f,
                "another agent is running: it answers on {}; stop it first \
                 (systemctl stop buoy), or give this one its own --socket",
                path.display()
            ),
            Self::NotASocket { path } => write!(
                f,
                "{} exists and is not a socket: remove it, or name another path with --socket",
                path.display()
            ),
            Self::Refused { path, step, cause } => write!(
                f,
                "cannot {step} the API socket {}: {cause}; run as root, or name another path \
                 with --socket",
                path.display()
            ),
        }
    }
}

impl std::error::Error for SocketError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_group_and_goes_with_the_agent() {
        let folder = folder();
        let path = folder.path().join("sub/api.sock");
        let socket = Socket::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "the temporary name is gone");
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_socket_for_questions_is_beside_it_and_open_to_all() {
        let folder = folder();
        let path = folder.path().join("api.sock");
        let socket = Socket::open_questions(&path).unwrap();
        let beside = folder.path().join("ro.sock");
        assert_eq!(fs::metadata(&beside).unwrap().permissions().mode() & 0o777, 0o666);
        drop(socket);
        assert!(!beside.exists());
        assert_eq!(questions_path(Path::new("/x/lb1")), Path::new("/x/lb1.ro"));
    }

    #[tokio::test]
    async fn a_running_agents_socket_is_not_stolen() {
        let folder = folder();
        let path = folder.path().join("api.sock");
        let _running = Socket::open(&path).unwrap();
        let error = Socket::open(&path).expect_err("somebody answers there");
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        assert!(error.to_string().starts_with("another agent is running"), "{error}");
        assert!(UnixStream::connect(&path).is_ok(), "it still answers");
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced() {
        let folder = folder();
        let path = folder.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a killed agent leaves its file");
        let _socket = Socket::open(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        let folder = folder();
        let path = folder.path().join("api.sock");
        fs::write(&path, "precious").unwrap();
        let error = Socket::open(&path).expect_err("it is not ours");
        assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}

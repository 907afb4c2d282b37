//! What was done to this host to make it a real server, so that it can be undone: a small text file.
//!
//! It is below `/run`, which is emptied at boot, as are the things that it speaks of; and not in `/run/buoy`,
//! which systemd empties whenever the agent stops. Each network namespace has a file of its own, by the number that
//! the kernel gives to no other until the next boot (`SO_NETNS_COOKIE`). The file says what was before each change
//! and is written before it, so that whatever ends the command, there is a record of what to undo.

use super::BackendError;
use super::tunnel::Tunnel;
use crate::sys;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the files are.
pub const FOLDER: &str = "/run/buoy-backend";
const FIRST_LINE: &str = "buoy backend, format 1";

/// A VIP that this host is prepared for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prepared {
    /// By which interface its packets come.
    pub interface: String,
    /// They come wrapped into others, or not.
    pub tunnel: Tunnel,
    /// It was on the loopback interface already, so it stays there.
    pub found: bool,
}

/// A setting of the kernel that was changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Changed {
    pub(super) before: String,
    pub(super) set: String,
}

/// All VIPs that this host is prepared for, by address.
pub type Vips = BTreeMap<IpAddr, Prepared>;

/// What was done to this host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct State {
    pub(super) vips: Vips,
    pub(super) settings: BTreeMap<String, Changed>,
}

impl State {
    /// All that either speaks of: what may have been done while the one becomes the other.
    pub(super) fn and(&self, other: &Self) -> Self {
        let mut both = other.clone();
        for (address, vip) in &self.vips {
            both.vips.entry(*address).or_insert_with(|| vip.clone());
        }
        for (setting, changed) in &self.settings {
            both.settings.entry(setting.clone()).or_insert_with(|| changed.clone());
        }
        both
    }

    fn emit(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        for (address, Prepared { interface, tunnel, found }) in &self.vips {
            let forward = emit_forward(*tunnel);
            let was = if *found { "found" } else { "added" };
            let _ = writeln!(text, "vip {address} {interface} {forward} {was}");
        }
        for (setting, Changed { before, set }) in &self.settings {
            let _ = writeln!(text, "setting {setting} {before} {set}");
        }
        text
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return Err(format!("its first line is not \"{FIRST_LINE}\""));
        }
        let mut state = Self::default();
        for line in lines {
            let understood = state.parse_line(line);
            understood.ok_or_else(|| format!("this line is not understood: {line}"))?;
        }
        Ok(state)
    }

    fn parse_line(&mut self, line: &str) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["vip", address, interface, forward, was] => {
                let prepared = Prepared {
                    interface: interface.to_owned(),
                    tunnel: parse_forward(forward)?,
                    found: yes(was, "found", "added")?,
                };
                self.vips.insert(address.parse().ok()?, prepared);
            }
            ["setting", setting, before, set] => {
                let changed = Changed { before: before.to_owned(), set: set.to_owned() };
                self.settings.insert(setting.to_owned(), changed);
            }
            _ => return None,
        }
        Some(())
    }
}

/// As earlier releases wrote it, where they could.
fn emit_forward(tunnel: Tunnel) -> String {
    match tunnel {
        Tunnel::NONE => "dsr".to_owned(),
        Tunnel::IPIP => "tunnel".to_owned(),
        other => format!("tunnel={other}"),
    }
}

fn parse_forward(word: &str) -> Option<Tunnel> {
    match word.split_once('=') {
        None if word == "dsr" => Some(Tunnel::NONE),
        None if word == "tunnel" => Some(Tunnel::IPIP),
        Some(("tunnel", tunnel)) => tunnel.parse().ok(),
        None | Some(_) => None,
    }
}

fn yes(word: &str, yes: &str, no: &str) -> Option<bool> {
    if word == yes { Some(true) } else { (word == no).then_some(false) }
}

/// The file of this network namespace.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    file: PathBuf,
}

impl Store {
    pub(super) fn new(folder: &Path) -> Self {
        let namespace = namespace().unwrap_or_else(|_| "net-unknown".to_owned());
        Self { folder: folder.to_owned(), file: folder.join(namespace) }
    }

    /// Waits until no other command changes anything, and keeps others away until this is dropped.
    pub(super) fn lock(&self) -> Result<Lock, BackendError> {
        let lock = || {
            loop {
                match fs::create_dir(&self.folder) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                    Ok(()) | Err(_) => {}
                }
                // Others take it away whenever nothing is in it.
                let folder = match File::open(&self.folder) {
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    folder => folder?,
                };
                folder.lock()?;
                // Who had it before may have taken the folder away, and with it the lock's meaning.
                let number = folder.metadata()?.ino();
                if fs::metadata(&self.folder).is_ok_and(|now| now.ino() == number) {
                    return Ok(Lock { folder: self.folder.clone(), _held: folder });
                }
            }
        };
        lock().map_err(|cause| self.refused(&self.folder, &cause))
    }

    /// Nothing was done where there is no file.
    pub(super) fn read(&self) -> Result<State, BackendError> {
        match fs::read_to_string(&self.file) {
            Ok(text) => State::parse(&text)
                .map_err(|reason| BackendError::Record { file: self.file.clone(), reason }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
            Err(cause) => Err(self.refused(&self.file, &cause)),
        }
    }

    /// In one step; nothing to speak of is no file.
    pub(super) fn write(&self, state: &State) -> Result<(), BackendError> {
        let write = || {
            if *state == State::default() {
                return match fs::remove_file(&self.file) {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                    Ok(()) | Err(_) => Ok(()),
                };
            }
            let new = self.file.with_extension("new");
            fs::write(&new, state.emit())?;
            fs::rename(&new, &self.file)
        };
        write().map_err(|cause: io::Error| self.refused(&self.file, &cause))
    }

    fn refused(&self, path: &Path, cause: &io::Error) -> BackendError {
        BackendError::File { path: path.to_owned(), kind: cause.kind(), cause: cause.to_string() }
    }
}

/// Nobody else changes anything meanwhile.
#[derive(Debug)]
pub(super) struct Lock {
    folder: PathBuf,
    _held: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not while files are in it, of this namespace or of others.
        let _ = fs::remove_dir(&self.folder);
    }
}

fn namespace() -> io::Result<String> {
    let cookie = crate::netlink::any_socket().and_then(|socket| sys::namespace_cookie(&socket));
    match cookie {
        Ok(cookie) => Ok(format!("net-{cookie}")),
        // Before Linux 5.14: a number that another namespace may get later.
        Err(_) => Ok(format!("net-inode-{}", fs::metadata("/proc/thread-self/ns/net")?.ino())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let prepared = |interface: &str, tunnel, found| Prepared {
            interface: interface.to_owned(),
            tunnel,
            found,
        };
        let changed = Changed { before: "0".to_owned(), set: "1".to_owned() };
        let both = "ipip,gue:9886".parse().unwrap();
        State {
            vips: Vips::from([
                ("10.0.0.100".parse().unwrap(), prepared("eth0", Tunnel::NONE, true)),
                ("fd00::100".parse().unwrap(), prepared("eth0.7", Tunnel::IPIP, false)),
                ("fd00::101".parse().unwrap(), prepared("eth0", both, false)),
            ]),
            settings: BTreeMap::from([("net/ipv4/conf/eth0.7/arp_ignore".to_owned(), changed)]),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = state().emit();
        assert_eq!(
            text,
            "buoy backend, format 1\nvip 10.0.0.100 eth0 dsr found\nvip fd00::100 eth0.7 tunnel added\n\
             vip fd00::101 eth0 tunnel=ipip,gue:9886 added\nsetting net/ipv4/conf/eth0.7/arp_ignore 0 1\n"
        );
        assert_eq!(State::parse(&text), Ok(state()));
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_and_not_guessed_at() {
        let head = "buoy backend, format 1\n";
        for text in [
            String::new(),
            "buoy backend, format 2\n".to_owned(),
            format!("{head}vip 10.0.0.100 eth0 dsr\n"),
            format!("{head}vip 10.0.0.300 eth0 dsr added\n"),
            format!("{head}vip 10.0.0.100 eth0 nat added\n"),
            format!("{head}vip 10.0.0.100 eth0 tunnel=gre added\n"),
            format!("{head}setting net/ipv4/conf/all/arp_ignore 0\n"),
            format!("{head}\n"),
        ] {
            assert!(State::parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_record_of_a_change_speaks_of_both_of_its_ends() {
        let (state, nothing) = (state(), State::default());
        assert_eq!(state.and(&nothing), state);
        assert_eq!(nothing.and(&state), state);
    }

    #[test]
    fn one_command_at_a_time_changes_anything_and_the_last_one_leaves_no_folder() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let folder = std::env::temp_dir().join(format!("buoy-lock-{}", std::process::id()));
        let inside = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = Store::new(&folder).lock().unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert!(!folder.exists());
    }
}

//! Tells systemd that the agent is ready, that it ends, and (from the loop itself) that it lives.
//!
//! The protocol is one datagram of text (sd_notify(3)), so this is not a dependency: the crate for it
//! opens a socket and allocates for every message, and the watchdog is fed from the loop.

use buoy_model::Instant;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// The way to systemd, if it started us.
#[derive(Clone, Debug, Default)]
pub(crate) struct Systemd {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// From what systemd put into the environment.
    pub(crate) fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET");
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        Self::new(socket.as_deref(), number("WATCHDOG_USEC").filter(|_| meant))
    }

    fn new(socket: Option<&OsStr>, watchdog_micros: Option<u64>) -> Self {
        let socket = socket.and_then(|name| connect(name).ok()).map(Arc::new);
        let watchdog = watchdog_micros.filter(|micros| *micros > 0).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// Everything runs.
    pub(crate) fn ready(&self) {
        self.say(b"READY=1");
    }

    /// Everything is being given away.
    pub(crate) fn stopping(&self) {
        self.say(b"STOPPING=1");
    }

    /// After how long without food it kills us; `None`: it does not watch.
    pub(crate) const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The socket to it.
    pub(crate) fn manager(&self) -> Option<Arc<UnixDatagram>> {
        self.socket.clone()
    }

    /// What the loop feeds.
    pub(crate) fn feeder(&self) -> Feeder {
        Feeder { systemd: self.clone(), due: Instant::ZERO }
    }

    /// Never waits, never allocates; a message that is lost is followed by the next.
    fn say(&self, message: &[u8]) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(message);
        }
    }
}

/// Feeds the watchdog, at a third of its time.
#[derive(Debug)]
pub(crate) struct Feeder {
    systemd: Systemd,
    due: Instant,
}

impl Feeder {
    /// To be called every turn.
    pub(crate) fn feed(&mut self, now: Instant) {
        let Some(watchdog) = self.systemd.watchdog else { return };
        if self.due <= now {
            self.due = now + watchdog / 3;
            self.systemd.say(b"WATCHDOG=1");
        }
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        let mut all = Vec::new();
        while let Ok(length) = socket.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        all
    }

    #[test]
    fn systemd_hears_when_we_are_ready_and_when_we_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("buoy-test-{}", std::process::id());
        let listeners = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                format!("@{name}").into(),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (place, listener) in listeners {
            let systemd = Systemd::new(Some(&place), None);
            systemd.ready();
            systemd.feeder().feed(Instant::from_nanos(1));
            systemd.stopping();
            assert_eq!(heard(&listener), ["READY=1", "STOPPING=1"]);
        }
    }

    #[test]
    fn the_watchdog_is_fed_at_a_third_of_its_time_and_only_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let mut feeder = Systemd::new(Some(path.as_os_str()), Some(3_000_000)).feeder();
        for tenths in 0..31 {
            feeder.feed(Instant::from_nanos(tenths * 100_000_000));
        }
        assert_eq!(heard(&listener), ["WATCHDOG=1"; 4]);
        for (place, micros) in [(None, Some(3_000_000)), (Some(path.as_os_str()), Some(0))] {
            assert_eq!(Systemd::new(place, micros).watchdog(), None);
        }
    }
}

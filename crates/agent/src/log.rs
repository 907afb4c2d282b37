//! How the agent logs: fields and a sentence, for people, for programs, or for systemd's journal.

use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Format {
    /// For people; where standard error is the journal, its own entries with fields.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged unless somebody says otherwise: what the store's library says of its own working helps nobody.
const USUAL: &str = "info,openraft=warn";

/// Starts logging to standard error; `BUOY_LOG` sets the level.
pub(crate) fn start(format: Format) {
    let filter = EnvFilter::try_from_env("BUOY_LOG").unwrap_or_else(|_| EnvFilter::new(USUAL));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr);
    let layer = match (format, journal()) {
        (Format::Json, _) => lines.json().boxed(),
        // `journalctl VIP=web`, and `-o json` with all of them.
        (Format::Text, Some(journal)) => journal.boxed(),
        (Format::Text, None) => lines.with_target(false).boxed(),
    };
    // A second start in one process keeps the first one's settings.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
}

/// The journal, where standard error goes to it and it listens.
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
    if !is_stream(&stream, (stderr.dev(), stderr.ino())) {
        return None;
    }
    let layer = tracing_journald::layer().ok()?;
    Some(layer.with_field_prefix(None).with_syslog_identifier("buoy".to_owned()))
}

/// Whether a file is the stream that systemd names, by device and inode: what was sent elsewhere since is none
/// (systemd.exec(5), `$JOURNAL_STREAM`).
fn is_stream(named: &str, (device, inode): (u64, u64)) -> bool {
    let numbers = named.split_once(':');
    numbers.is_some_and(|(d, i)| (d.parse(), i.parse()) == (Ok(device), Ok(inode)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_where_systemd_says_and_nowhere_else() {
        let table = [
            ("8:1234", true),
            ("8:1235", false),
            ("9:1234", false),
            ("8", false),
            ("", false),
            ("8:x", false),
        ];
        for (named, is) in table {
            assert_eq!(is_stream(named, (8, 1234)), is, "{named}");
        }
    }
}

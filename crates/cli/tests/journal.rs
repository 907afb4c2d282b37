//! What an agent tells systemd's journal: entries with fields, one for each event, at a socket that stands in for it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy.toml allows it in tests; it does not see that these functions are in one"
)]

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ended with the test, with all that it started.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ended = Command::new("kill").arg(self.0.id().to_string()).status();
        let _reaped = self.0.wait();
    }
}

/// The fields of an entry (https://systemd.io/JOURNAL_NATIVE_PROTOCOL): `NAME=value`, or the length before the value.
fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&entry[..end]).into_owned();
        entry = &entry[end + 1..];
        match line.split_once('=') {
            Some((name, value)) => all.push((name.to_owned(), value.to_owned())),
            None => {
                let (length, rest) = entry.split_at(8);
                let length = u64::from_le_bytes(length.try_into().unwrap()) as usize;
                all.push((line, String::from_utf8_lossy(&rest[..length]).into_owned()));
                entry = &rest[length + 1..];
            }
        }
    }
    all
}

#[test]
fn an_event_is_an_entry_of_the_journal_with_its_vip_and_kind_as_fields() {
    let test = "an_event_is_an_entry_of_the_journal_with_its_vip_and_kind_as_fields";
    let permitted = Command::new("unshare").args(["--net", "--mount", "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        return eprintln!("SKIPPED: {test}: no namespaces are permitted here");
    }
    let folder = tempfile::tempdir().unwrap();
    let journal = UnixDatagram::bind(folder.path().join("socket")).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let file = "peers = { lb1 = \"10.99.0.11\" }\nsecret = \"file:cluster.key\"\nsafety = \"available\"\n\
                [[vip]]\nname = \"web\"\naddress = \"10.99.0.100/24\"\n";
    std::fs::write(folder.path().join("buoy.toml"), file).unwrap();
    // Its standard error is what systemd would have connected to the journal, by the word of JOURNAL_STREAM.
    let script = "set -e
        ip link set lo up
        ip link add eth0 type veth peer name far
        ip link set eth0 up
        ip link set far up
        ip address add 10.99.0.11/24 dev eth0
        mount -t tmpfs none /run
        mkdir -p /run/systemd/journal
        mount --bind . /run/systemd/journal
        $BUOY key new cluster.key > /dev/null
        export JOURNAL_STREAM=$(stat --dereference --format %d:%i /proc/self/fd/2)
        exec $BUOY agent --config buoy.toml --socket ./api.sock";
    let child = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", script])
        .current_dir(folder.path())
        .env("BUOY", env!("CARGO_BIN_EXE_buoy"))
        .env_remove("BUOY_LOG")
        .stderr(Stdio::piped())
        .spawn();
    let _agent = Agent(child.unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut entry = vec![0; 1 << 16];
    let mut seen = Vec::new();
    loop {
        assert!(Instant::now() < deadline, "no entry of a VIP among {seen:?}");
        let Ok(length) = journal.recv(&mut entry) else { continue };
        // Whoever begins sends nothing, to see whether somebody listens.
        let fields = fields(&entry[..length]);
        if fields.is_empty() {
            continue;
        }
        let of =
            |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(of("SYSLOG_IDENTIFIER"), Some("buoy"), "{fields:?}");
        assert!(of("PRIORITY").is_some_and(|n| n.parse::<u8>().is_ok()), "{fields:?}");
        if of("KIND") == Some("acquired") {
            assert_eq!(of("VIP"), Some("web"), "{fields:?}");
            assert!(of("MESSAGE").is_some_and(|said| said.contains("took it over")), "{fields:?}");
            return;
        }
        seen.push(fields);
    }
}

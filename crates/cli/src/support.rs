//! `buoy support dump`: one file with all that somebody needs who is to find a fault, without secrets.
//!
//! Nothing here changes the host. What cannot be had (no agent, no tool) is said in the archive, and the rest is still
//! collected: a dump is made when something is broken.

use crate::AgentSocket;
use crate::config::FILE_DEFAULT;
use crate::failure::Failure;
use crate::output;
use buoy_api::{Client, HistoryReply};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes of one part; what is longer is cut, and says so.
const PART_MAX: u64 = 16 << 20;
/// How long a program may take.
const PROGRAM_MAX: Duration = Duration::from_secs(10);
/// Records that are asked for.
const EVENTS: usize = 10_000;

/// Files of the kernel, as they are.
const FILES: &[&str] = &[
    "/etc/os-release",
    "/proc/version",
    "/proc/cmdline",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/net/dev",
    "/proc/net/snmp",
    "/proc/net/netstat",
    "/proc/net/softnet_stat",
    "/proc/net/igmp",
    "/sys/kernel/security/lockdown",
];

/// What programs say, by the name of the part.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("addresses", &["ip", "-details", "-statistics", "address"]),
    ("links.json", &["ip", "-json", "-details", "-statistics", "link"]),
    ("routes", &["ip", "route", "show", "table", "all"]),
    ("routes-ipv6", &["ip", "-6", "route", "show", "table", "all"]),
    ("rules", &["ip", "rule"]),
    ("neighbours", &["ip", "-statistics", "neighbour"]),
    ("sockets", &["ss", "--numeric", "--listening", "--processes", "--tcp", "--udp", "--raw"]),
    ("settings", &["sysctl", "--all", "--pattern", r"^net\.(ipv4|ipv6)\.(conf|ip_|neigh|tcp_)"]),
    ("nft", &["nft", "list", "ruleset"]),
    ("bpf-programs.json", &["bpftool", "--json", "prog", "show"]),
    ("bpf-maps.json", &["bpftool", "--json", "map", "show"]),
    ("bpf-links.json", &["bpftool", "--json", "link", "show"]),
    ("bpf-net.json", &["bpftool", "--json", "net", "show"]),
    ("unit", &["systemctl", "status", "--no-pager", "--lines=0", "buoy"]),
    ("log", &["journalctl", "--unit", "buoy", "--no-pager", "--lines", "20000"]),
    ("kernel-log", &["journalctl", "--dmesg", "--no-pager", "--lines", "2000"]),
];

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write one archive: status, events, configuration without secrets, doctor, kernel; changes nothing
    Dump(DumpArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct DumpArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = FILE_DEFAULT)]
    config: PathBuf,
    /// Where to write it, - for standard output; without it, buoy-support-HOST-TIME.tar.gz in this folder
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dump(arguments) => dump(&arguments),
    }
}

fn dump(arguments: &DumpArguments) -> Result<(), Failure> {
    let name = name();
    if arguments.into.as_ref().is_some_and(|into| into.as_os_str() == "-") {
        let cannot = |error: io::Error| Failure::failed(format!("cannot write it: {error}"));
        let mut archive = Archive::new(io::stdout(), name);
        collect(arguments, &mut archive).map_err(cannot)?;
        archive.finish().and_then(|(mut out, _)| out.flush()).map_err(cannot)?;
        output::progress("");
        return Ok(());
    }
    let file = arguments.into.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let cannot =
        |error: io::Error| Failure::failed(format!("cannot write {}: {error}", file.display()));
    // Only for who made it: addresses and names of a network are nobody else's business.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file);
    let mut archive = Archive::new(opened.map_err(cannot)?, name);
    collect(arguments, &mut archive).map_err(cannot)?;
    let (written, parts) = archive.finish().map_err(cannot)?;
    written.sync_all().map_err(cannot)?;
    output::progress("");
    output::text(&format!(
        "{}: {parts} parts; keys, passwords and headers of checks are left out. Look into it before you give it away: \
         it names your hosts and addresses\n",
        file.display()
    ))
}

/// As in `buoy-support-lb1-20261127-063000`.
fn name() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| c.is_alphanumeric() || *c == '-').collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let moment = crate::events::moment(crate::time::millis(now));
    let digits: String = moment.chars().filter(char::is_ascii_digit).take(14).collect();
    let (day, time) = digits.split_at(digits.len().min(8));
    format!("buoy-support-{host}-{day}-{time}")
}

fn collect<W: Write>(arguments: &DumpArguments, archive: &mut Archive<W>) -> io::Result<()> {
    archive.add("version", format!("buoy {}\n", env!("CARGO_PKG_VERSION")).as_bytes())?;
    archive.add("configuration.toml", configuration(&arguments.config).as_bytes())?;
    match arguments.agent.client() {
        Ok(client) => agent(&client, archive)?,
        Err(failure) => archive.add("agent.missing", failure.message.as_bytes())?,
    }
    archive.told("doctor");
    match crate::doctor::examine(&arguments.agent, &arguments.config) {
        Ok(findings) => {
            let screen = crate::doctor::screen(&findings, false, usize::MAX);
            archive.add("doctor", screen.as_bytes())?;
        }
        Err(failure) => archive.add("doctor.missing", failure.message.as_bytes())?,
    }
    for file in FILES {
        let part = format!("kernel{file}");
        match read(Path::new(file)) {
            Ok(bytes) => archive.add(&part, &bytes)?,
            Err(error) => archive.add(&format!("{part}.missing"), error.to_string().as_bytes())?,
        }
    }
    for (part, line) in PROGRAMS {
        archive.told(part);
        match output_of(line) {
            Ok(bytes) => archive.add(part, &bytes)?,
            Err(error) => archive.add(&format!("{part}.missing"), error.as_bytes())?,
        }
    }
    Ok(())
}

fn configuration(file: &Path) -> String {
    match fs::read_to_string(file) {
        Ok(text) => masked(&text),
        Err(error) => format!("# {}: {error}\n", file.display()),
    }
}

fn masked(text: &str) -> String {
    buoy_config::mask(text).unwrap_or_else(|| {
        "# It is not TOML, so nobody knows what in it is secret: left out.\n".to_owned()
    })
}

/// Who edited what, when and why, as TOML; what it was is in the configuration that holds.
fn edits(history: &HistoryReply) -> String {
    let mut text = String::new();
    for revision in &history.revisions {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let keys =
            revision.entries.iter().map(|entry| quoted(entry)).collect::<Vec<_>>().join(", ");
        text.push_str(&format!(
            "[[edit]]\nrevision = {}\nat = {}\nby = {}\non = {}\nof = [{keys}]\nreason = {}\n\n",
            revision.revision,
            quoted(&crate::events::moment(revision.at_ms)),
            quoted(&revision.user),
            quoted(&revision.node),
            quoted(&revision.reason),
        ));
    }
    text
}

/// What the agent knows, each question for itself.
fn agent<W: Write>(client: &Client, archive: &mut Archive<W>) -> io::Result<()> {
    archive.told("agent");
    archive.json("status.json", client.status())?;
    archive.json("events.json", client.events(EVENTS))?;
    archive.json("services.json", client.services())?;
    archive.json("budget.json", client.budget())?;
    archive.json("matrix.json", client.matrix())?;
    archive.json("pools.json", client.pools())?;
    // What was edited lies over the file, and may hold what the file may.
    archive.masked("configuration-in-force.toml", client.config().map(|config| config.text))?;
    archive.masked("edits", client.config_history().map(|history| edits(&history)))?;
    match client.metrics() {
        Ok(page) => archive.add("metrics", page.as_bytes()),
        Err(error) => archive.add("metrics.missing", error.to_string().as_bytes()),
    }
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(PART_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a program writes, in the time that it has; what it complains about comes last.
fn output_of(line: &[&str]) -> Result<Vec<u8>, String> {
    let [program, arguments @ ..] = line else { return Err("no program".into()) };
    let spawned = Process::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| format!("{program}: {error}"))?;
    let reader = |stream: Option<Box<dyn io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(stream) = stream {
                // What cannot be read is not there; the program's own words say why.
                drop(stream.take(PART_MAX).read_to_end(&mut bytes));
            }
            bytes
        })
    };
    let out = reader(child.stdout.take().map(|s| Box::new(s) as Box<dyn io::Read + Send>));
    let complaints = reader(child.stderr.take().map(|s| Box::new(s) as Box<dyn io::Read + Send>));
    let deadline = Instant::now() + PROGRAM_MAX;
    let is_late = loop {
        match child.try_wait() {
            Ok(Some(_)) => break false,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) | Err(_) => break true,
        }
    };
    if is_late {
        // It may have ended just now.
        drop(child.kill());
        drop(child.wait());
    }
    let mut bytes = out.join().unwrap_or_default();
    bytes.extend(complaints.join().unwrap_or_default());
    if is_late {
        bytes.extend(format!("\n[{program} was ended after {PROGRAM_MAX:?}]\n").into_bytes());
    }
    Ok(bytes)
}

/// The file under way.
struct Archive<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    folder: String,
    parts: usize,
}

impl<W: Write> Archive<W> {
    fn new(file: W, folder: String) -> Self {
        let tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        Self { tar, folder, parts: 0 }
    }

    fn told(&self, part: &str) {
        output::progress(&format!("collecting {part}"));
    }

    fn add(&mut self, part: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_cksum();
        self.parts += 1;
        self.tar.append_data(&mut header, format!("{}/{part}", self.folder), bytes)
    }

    fn json<T: Serialize>(
        &mut self,
        part: &str,
        answer: Result<T, buoy_api::ClientError>,
    ) -> io::Result<()> {
        match answer {
            Ok(answer) => self.add(part, &serde_json::to_vec_pretty(&answer)?),
            Err(error) => self.add(&format!("{part}.missing"), error.to_string().as_bytes()),
        }
    }

    /// A text in the language of the file, without what is secret in it.
    fn masked(
        &mut self,
        part: &str,
        answer: Result<String, buoy_api::ClientError>,
    ) -> io::Result<()> {
        match answer {
            Ok(text) => self.add(part, masked(&text).as_bytes()),
            Err(error) => self.add(&format!("{part}.missing"), error.to_string().as_bytes()),
        }
    }

    /// What was written to, with all parts, and their number.
    fn finish(self) -> io::Result<(W, usize)> {
        Ok((self.tar.into_inner()?.finish()?, self.parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use flate2::read::GzDecoder;
    use std::collections::BTreeMap;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        arguments: DumpArguments,
    }

    #[test]
    fn a_dump_has_all_that_can_be_had_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = at("buoy.toml");
        fs::write(&config, "peers = []\nsecret = \"00112233\"\n").unwrap();
        let into = at("dump.tar.gz");
        let socket = at("none.sock");
        let line = ["x", "--config", &config, "--into", &into, "--socket", &socket];
        let arguments = Line::parse_from(line).arguments;
        dump(&arguments).unwrap();
        let mut parts = BTreeMap::new();
        let mut archive = tar::Archive::new(GzDecoder::new(fs::File::open(&into).unwrap()));
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().into_owned();
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            let part: PathBuf = path.components().skip(1).collect();
            parts.insert(part.display().to_string(), String::from_utf8_lossy(&text).into_owned());
        }
        assert_eq!(parts["configuration.toml"], "peers = []\nsecret = \"***\"\n");
        assert!(parts["status.json.missing"].contains("none.sock"), "{parts:?}");
        assert!(parts["kernel/proc/version"].starts_with("Linux"));
        assert!(parts.contains_key("doctor") && parts.contains_key("addresses"), "{parts:?}");
        assert!(parts.values().all(|text| !text.contains("00112233")));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&into).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(dump(&arguments).is_err(), "an earlier dump is not written over");
    }

    #[test]
    fn a_program_that_is_not_there_is_said() {
        assert!(output_of(&["buoy-no-such-program"]).unwrap_err().contains("No such file"));
        assert_eq!(output_of(&["echo", "well"]).unwrap(), b"well\n");
    }
}

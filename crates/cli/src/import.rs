//! `buoy import`: a file of another program as Buoy's, with what could not be carried on standard error.

use crate::failure::{Exit, Failure};
use crate::output;
use buoy_import::{Imported, Options};
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// From a vaddrs file: lines of a VIP, its interface and its sub-interface
    Vaddrs(File),
    /// From HAProxy's file: what is about TCP in frontends, listens and backends
    Haproxy(Haproxy),
    /// From keepalived's file: virtual routers under VRRP, virtual servers, checks and scripts
    Keepalived(Keepalived),
}

#[derive(clap::Args, Debug)]
pub(crate) struct File {
    /// The file to read
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The hosts that will run Buoy, as in lb1=10.0.0.11,lb2=10.0.0.12 or 10.0.0.11,10.0.0.12
    #[arg(long, value_name = "PEERS", value_delimiter = ',', value_parser = peer)]
    peers: Vec<Peer>,
}

/// A host that will run Buoy, with its name or without.
type Peer = (Option<String>, String);

#[derive(clap::Args, Debug)]
pub(crate) struct Haproxy {
    #[command(flatten)]
    file: File,
    /// The VIP of what listens on every address, as in 10.0.0.100/24
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    vip: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Keepalived {
    #[command(flatten)]
    file: File,
    /// The host that the file is for: its lines `@host`, and a name of --peers for its priority
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// All hosts will run Buoy: VIPs are owned by lease, which is safer and faster than VRRP
    #[arg(long)]
    native: bool,
}

fn peer(text: &str) -> Result<Peer, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (Some(name.to_owned()), address),
        None => (None, text),
    };
    match address.parse::<std::net::IpAddr>() {
        Ok(_) => Ok((name, address.to_owned())),
        Err(_) => Err("give addresses, as in lb1=10.0.0.11,lb2=10.0.0.12".to_owned()),
    }
}

pub(crate) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Vaddrs(file) => {
            let (text, name) = read(&file.file)?;
            hand_out(&name, buoy_import::vaddrs(&text, &name, &file.options()))
        }
        Command::Haproxy(Haproxy { file, vip }) => {
            let (text, name) = read(&file.file)?;
            let options = Options { vip: vip.clone(), ..file.options() };
            hand_out(&name, buoy_import::haproxy(&text, &name, &options))
        }
        Command::Keepalived(Keepalived { file, host, native }) => {
            let (text, name) = read(&file.file)?;
            let options = Options { host: host.clone(), native: *native, ..file.options() };
            hand_out(&name, buoy_import::keepalived(&text, &name, &options, &include))
        }
    }
}

impl File {
    fn options(&self) -> Options {
        Options { peers: self.peers.clone(), ..Options::default() }
    }
}

/// The text, which need not be UTF-8 in its comments, and what the file is called.
fn read(path: &Path) -> Result<(String, String), Failure> {
    let name = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => Ok((String::from_utf8_lossy(&bytes).into_owned(), name)),
        Err(error) => {
            let message = format!("cannot read {name}: {error}");
            Err(Failure { exit: Exit::Nothing, message })
        }
    }
}

/// The files that a file includes: a path beside it, whose last part may have `*` and `?`.
fn include(pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
    let beside = Path::new(from).parent().unwrap_or(Path::new("."));
    let path = beside.join(pattern);
    let name = path.file_name().ok_or("it names no file")?.to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new("/"));
    let text = |path: &Path| {
        let bytes = std::fs::read(path).map_err(|error| format!("cannot read it: {error}"))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok::<_, String>((path.display().to_string(), text))
    };
    if !pattern.contains(['*', '?', '[', '{']) {
        return Ok(vec![text(&path)?]);
    }
    let wild = folder.to_string_lossy().contains(['*', '?', '[', '{']) || name.contains(['[', '{']);
    if wild {
        return Err("of wildcards `*` and `?` in the last part of a path are understood".into());
    }
    let entries = std::fs::read_dir(folder);
    let entries = entries.map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| {
        let is_it = path.file_name().is_some_and(|own| fits(&name, &own.to_string_lossy()));
        is_it && path.is_file()
    });
    paths.sort();
    paths.iter().map(|path| text(path)).collect()
}

/// Whether a name is as the pattern has it: `*` is anything, `?` one character.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match (rest.next(), name.chars().next()) {
        (None, first) => first.is_none(),
        (Some('*'), _) => {
            let tails = name.char_indices().map(|(at, _)| &name[at..]).chain([""]);
            tails.into_iter().any(|tail| fits(rest.as_str(), tail))
        }
        (Some(_), None) => false,
        (Some(wanted), Some(c)) => {
            (wanted == '?' || wanted == c) && fits(rest.as_str(), &name[c.len_utf8()..])
        }
    }
}

fn hand_out(name: &str, imported: Imported) -> Result<(), Failure> {
    let mut all = String::new();
    for note in &imported.notes {
        all.push_str(&note.to_string());
        all.push('\n');
    }
    std::io::stderr().write_all(all.as_bytes()).map_err(Failure::failed)?;
    match imported.toml {
        Some(text) => output::text(&text),
        None => {
            let message = format!("{name}: nothing in it could be read");
            Err(Failure { exit: Exit::Nothing, message })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_as_a_shell_has_it() {
        let cases = [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("a?c*", "abc", true),
            ("a?c*", "ac", false),
            ("*", "", true),
            ("x", "x", true),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}

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

//! Reads files of other programs and writes Buoy's, with a note for all that could not be carried.
//!
//! Text comes in, and text goes out: nothing here opens a file. What is written is checked by Buoy's own checker before it is
//! handed out, and what that finds is a note like any other, so an import never looks better than it is.

mod draft;
mod haproxy;
mod keepalived;
mod notes;
mod vaddrs;

pub use haproxy::haproxy;
pub use keepalived::{Include, keepalived};
pub use notes::Note;
pub use vaddrs::vaddrs;

use draft::{Table, list, quoted};
use notes::Notes;

/// What the file itself does not say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// The hosts that will run Buoy: addresses, each with a name or without.
    pub peers: Vec<(Option<String>, String)>,
    /// The VIP of services that listen on every address, as `ADDRESS/PREFIX`.
    pub vip: Option<String>,
    /// keepalived: the host that the file is read for.
    pub host: Option<String>,
    /// keepalived: all hosts will run Buoy, so VIPs are owned by lease and not by VRRP.
    pub native: bool,
}

/// What became of a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Imported {
    /// Buoy's file; `None`: nothing in the file could be read.
    pub toml: Option<String>,
    /// What was left out or changed, and why, in the order of the file.
    pub notes: Vec<Note>,
}

/// Stands for addresses that nobody gave (RFC 5737).
const PEERS_UNKNOWN: [&str; 2] = ["192.0.2.11", "192.0.2.12"];

/// Hands it out: with what every file of Buoy begins with, in order, and checked.
fn finish(mut tables: Vec<Table>, top: Table, options: &Options, mut notes: Notes) -> Imported {
    if tables.is_empty() {
        return Imported { toml: None, notes: notes.into_list() };
    }
    let mut text = String::from(
        "# The same file on every host; `buoy config check` looks at it, and `buoy key new` makes the key.\n",
    );
    let mut head = Table::new("");
    write_peers(&mut head, options, &mut notes);
    head.set("secret", quoted("file:cluster.key"));
    head.take(top);
    tables.insert(0, head);
    for table in &tables {
        table.write(0, &mut text);
    }
    let text = buoy_config::format::format(&text).unwrap_or(text);
    let report = match buoy_config::check_offline(&text, "output") {
        Ok(checked) => checked.warnings,
        Err(report) => report,
    };
    for problem in report.problems() {
        let (line, kind) = (problem.line, problem.severity.name());
        notes.add_in("output", line, format!("{kind}: {}: {}", problem.message, problem.fix));
    }
    Imported { toml: Some(text), notes: notes.into_list() }
}

fn write_peers(head: &mut Table, options: &Options, notes: &mut Notes) {
    if options.peers.is_empty() {
        head.comment(
            "not in the file that was read: write the addresses of the hosts that run Buoy",
        );
        head.set("peers", list(PEERS_UNKNOWN.iter().map(|peer| quoted(peer))));
        let said = "`peers` holds made-up addresses: the file does not say which hosts run Buoy; give them as --peers lb1=10.0.0.11,lb2=10.0.0.12";
        notes.add_in("output", 0, said.to_owned());
        return;
    }
    let is_named = options.peers.iter().any(|(name, _)| name.is_some());
    let peers = options.peers.iter().enumerate().map(|(place, (name, address))| {
        let name = name.clone().unwrap_or_else(|| format!("node{}", place + 1));
        (is_named, quoted(&name), quoted(address))
    });
    let peers: Vec<(bool, String, String)> = peers.collect();
    head.set(
        "peers",
        match is_named {
            true => draft::inline(peers.into_iter().map(|(_, name, address)| (name, address))),
            false => list(peers.into_iter().map(|(_, _, address)| address)),
        },
    );
}

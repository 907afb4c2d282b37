//! `buoy key`: writes a cluster key that nobody else can read, and never over another; says which node has which.
//!
//! Keys are known by their ids, which tell nothing about them.

mod rotate;

use crate::Asking;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::table::{Align, Table, Tone};
use buoy_api::{MatrixReply, MatrixRow};
use buoy_model::limits::KEY_LEN;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where the key goes, unless told otherwise; beside the configuration.
const PATH_DEFAULT: &str = "/etc/buoy/cluster.key";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Write a new random key; an existing file is never overwritten
    New(NewArguments),
    /// Which keys each node has and signs with, and what comes next where the key is being changed: exit 1 where two do not
    /// understand each other, or one does not say
    Status(StatusArguments),
    /// Bring this host a step further to a new key, once all others have come far enough: accept it, sign with it, accept
    /// it alone. The same command on every host, in any order, until all are done
    Rotate(rotate::Arguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    asking: Asking,
    /// The file of the key that is to be the new one: says how far each node has come
    #[arg(long, value_name = "FILE")]
    new: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct NewArguments {
    /// Where to write it; `-` is standard output
    #[arg(value_name = "PATH", default_value = PATH_DEFAULT)]
    path: PathBuf,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::New(arguments) => new(&arguments.path),
        Command::Rotate(arguments) => rotate::run(&arguments),
        Command::Status(arguments) => {
            let new = arguments.new.as_deref().map(rotate::id_of).transpose()?;
            let asking = &arguments.asking;
            let keys = Keys::of(&asking.client()?.matrix()?, new.as_deref());
            asking.show(&keys, |keys| keys.screen(output::colour()))?;
            if keys.ok { Ok(()) } else { Err(Failure::said(Exit::Failed)) }
        }
    }
}

/// Which node has which keys.
#[derive(Serialize)]
struct Keys {
    /// All are known, and each accepts what each signs.
    ok: bool,
    nodes: Vec<Has>,
    /// What to know about it, and what comes next.
    says: Vec<String>,
}

/// The keys of one node.
#[derive(Serialize)]
struct Has {
    node: String,
    signs_with: Option<String>,
    accepts: Vec<String>,
    /// How far it has come to the new key, of 3 steps; null: no new key is named, or its keys are not known.
    step: Option<u8>,
    /// Why its keys are not known.
    unknown: Option<String>,
}

impl Keys {
    fn of(reply: &MatrixReply, new: Option<&str>) -> Self {
        let has = |row: &MatrixRow| {
            let unsaid = || "its agent is older than this question".to_owned();
            let unknown = row.unknown.clone().or_else(|| row.keys.is_empty().then(unsaid));
            let (signs_with, accepts) = (row.keys.first().cloned(), row.keys.clone());
            let step = new.filter(|_| unknown.is_none()).map(|new| step(&accepts, new));
            Has { node: row.node.clone(), signs_with, accepts, step, unknown }
        };
        let nodes: Vec<Has> = reply.rows.iter().map(has).collect();
        let known: Vec<&Has> = nodes.iter().filter(|node| node.unknown.is_none()).collect();
        let mut ok = known.len() == nodes.len();
        let signs: BTreeSet<&String> = known.iter().filter_map(|n| n.signs_with.as_ref()).collect();
        let mut says = Vec::new();
        for key in &signs {
            let deaf = known.iter().filter(|node| !node.accepts.contains(key));
            let deaf: Vec<&str> = deaf.map(|node| node.node.as_str()).collect();
            if !deaf.is_empty() {
                ok = false;
                let deaf = deaf.join(", ");
                says.push(format!("{deaf} does not believe what is signed with {key}: add its file to `secret` there"));
            }
        }
        if ok {
            says.push(next(&known, &signs));
        }
        Self { ok, nodes, says }
    }

    fn screen(&self, colour: bool) -> String {
        let says: String = self.says.iter().map(|line| format!("{line}\n")).collect();
        format!("{}\n{says}", self.table(colour))
    }

    fn table(&self, colour: bool) -> String {
        let mut table = Table::new([
            ("NODE", Align::Left),
            ("SIGNS WITH", Align::Left),
            ("ACCEPTS", Align::Left),
            ("STEP", Align::Left),
            ("UNKNOWN", Align::Left),
        ]);
        for node in &self.nodes {
            let tone = if node.unknown.is_some() { Tone::Wrong } else { Tone::Plain };
            let signs = node.signs_with.clone().unwrap_or_default();
            let unknown = node.unknown.clone().unwrap_or_default();
            let step = match node.step {
                Some(0) => "0 of 3: old key alone",
                Some(1) => "1 of 3: accepts",
                Some(2) => "2 of 3: signs",
                Some(_) => "3 of 3: new key alone",
                None => "",
            };
            let accepts = node.accepts.join(", ");
            table.row(tone, [node.node.clone(), signs, accepts, step.into(), unknown]);
        }
        table.render(colour)
    }
}

/// How far a node with these keys has come to the new one.
fn step(keys: &[String], new: &str) -> u8 {
    match keys.iter().position(|key| key == new) {
        None => 0,
        Some(0) if keys.len() == 1 => 3,
        Some(0) => 2,
        Some(_) => 1,
    }
}

/// What comes next, where all nodes understand each other.
fn next(known: &[&Has], signs: &BTreeSet<&String>) -> String {
    let lists =
        |nodes: Vec<&&Has>| nodes.iter().map(|n| n.node.as_str()).collect::<Vec<_>>().join(", ");
    let all: BTreeSet<&String> = known.iter().flat_map(|node| &node.accepts).collect();
    let lacking = |key: &String| lists(known.iter().filter(|n| !n.accepts.contains(key)).collect());
    if let Some((key, nodes)) =
        all.iter().map(|key| (key, lacking(key))).find(|(_, nodes)| !nodes.is_empty())
    {
        return format!(
            "the key is being changed: {nodes} does not have {key} yet, or not any more"
        );
    }
    match (signs.len(), all.len()) {
        (1, 1) => "all nodes have one key, and sign with it".into(),
        (1, n) => format!(
            "all nodes sign with the same key and accept {n}: put the new one first in `secret` on each, or, where \
             that is done, take the old one out"
        ),
        (_, _) => "all nodes accept all keys; put the new one first in `secret` on those that sign with the old one".into(),
    }
}

fn new(path: &Path) -> Result<(), Failure> {
    let mut key = [0; KEY_LEN];
    getrandom::fill(&mut key)
        .map_err(|error| Failure::failed(format!("the kernel gives no random bytes: {error}")))?;
    let text = buoy_config::key::format(&key);
    if path == Path::new("-") {
        return output::text(&text);
    }
    write_new(path, &text).map_err(|error| Failure::failed(explain(path, &error)))?;
    output::text(&next_steps(path))
}

/// Writes the file and makes sure that it is on the disk; half a key is no key.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        // The file is our own, made a moment ago. If it cannot even be removed, the first error counts.
        drop(fs::remove_file(path));
    }
    written
}

fn explain(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.kind() == io::ErrorKind::AlreadyExists {
        return format!(
            "{path} exists and stays as it is: write the new key to another file, copy that to every host, and \
             `buoy key rotate FILE` on each changes the key without an outage"
        );
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!("{path} cannot be written by this user: use sudo, or name another path");
    }
    format!("cannot write {path}: {error}")
}

fn next_steps(path: &Path) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    format!(
        "{path} is written, readable by its owner only.\n\
         Next: copy it to every host of the cluster, beside buoy.toml, over a channel you trust\n\
         (scp -p {path} HOST:{path}), and name it in buoy.toml: secret = \"file:{file}\"\n",
        path = path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_key_is_followed_step_by_step() {
        let keys = |rows: &[&[&str]]| {
            let row = |(n, keys): (usize, &&[&str])| MatrixRow {
                node: format!("lb{}", n + 1),
                keys: keys.iter().map(|key| (*key).to_owned()).collect(),
                ..MatrixRow::default()
            };
            let rows = rows.iter().enumerate().map(row).collect();
            let keys = Keys::of(&MatrixReply { node: "lb1".into(), rows }, None);
            (keys.ok, keys.says.join("; "))
        };
        let table: [(&[&[&str]], bool, &str); 7] = [
            (&[&["a"], &["a"]], true, "all nodes have one key, and sign with it"),
            (&[&["a", "b"], &["a"]], true, "lb2 does not have b yet, or not any more"),
            (&[&["a", "b"], &["a", "b"]], true, "put the new one first"),
            (&[&["b", "a"], &["a", "b"]], true, "on those that sign with the old one"),
            (&[&["b", "a"], &["a"]], false, "lb2 does not believe what is signed with b"),
            (&[&["b"], &["a"]], false, "lb1 does not believe what is signed with a"),
            (&[&["a"], &[]], false, ""),
        ];
        for (rows, ok, says) in table {
            let (is_ok, said) = keys(rows);
            assert_eq!(is_ok, ok, "{rows:?}: {said}");
            assert!(said.contains(says), "{rows:?}: {said}");
        }
        let silent = MatrixRow::unknown("lb2", "no answer within 1 s");
        let keys = Keys::of(&MatrixReply { node: "lb1".into(), rows: vec![silent] }, Some("b"));
        assert!(!keys.ok && keys.screen(false).contains("no answer within 1 s"));
    }
}

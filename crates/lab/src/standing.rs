//! The lab that `buoy lab up` left standing, seen from other commands: where its agents listen, and
//! how to break and mend its hosts.
//!
//! The process that stays with the lab owns its daemons, so it is asked: one line over a UNIX socket,
//! `inject kill n1` or `heal kill n1`, answered by `ok` or by what went wrong.

use crate::agent::Buoy;
use crate::fault::{Fault, Injected};
use crate::peer::Peer;
use crate::segment::Segment;
use crate::up::{folder, running};
use crate::{Error, Result};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a fault may take to be injected or healed: a new agent must answer.
const DONE_MAX: Duration = Duration::from_secs(20);
/// A longer line is no order.
const LINE_MAX: u64 = 256;

/// What can be done to a host of a standing lab.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drill {
    /// The agent is killed.
    Kill,
    /// The agent is frozen.
    Freeze,
    /// The cable is pulled.
    Link,
    /// The node is taken out of service.
    Drain,
}

impl Drill {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kill, Self::Freeze, Self::Link, Self::Drain];

    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Link => "link",
            Self::Drain => "drain",
        }
    }

    const fn fault(self) -> Fault {
        match self {
            Self::Kill => Fault::Crash,
            Self::Freeze => Fault::Hang,
            Self::Link => Fault::Unplug,
            Self::Drain => Fault::Drain,
        }
    }
}

/// A lab that stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Its nodes with the sockets of their agents.
    pub agents: Vec<(String, PathBuf)>,
    control: PathBuf,
}

impl Standing {
    /// The lab of this user, if one stands.
    pub fn find() -> Option<Self> {
        running()?;
        let text = std::fs::read_to_string(folder().join("agents")).ok()?;
        let agent = |line: &str| {
            let (node, socket) = line.split_once(' ')?;
            Some((node.to_owned(), PathBuf::from(socket)))
        };
        let agents = text.lines().filter_map(agent).collect();
        Some(Self { agents, control: control(&folder()) })
    }

    /// Breaks a node.
    pub fn inject(&self, drill: Drill, node: &str) -> Result<()> {
        self.order("inject", drill, node)
    }

    /// Mends it again.
    pub fn heal(&self, drill: Drill, node: &str) -> Result<()> {
        self.order("heal", drill, node)
    }

    fn order(&self, verb: &str, drill: Drill, node: &str) -> Result<()> {
        let line = format!("{verb} {} {node}", drill.name());
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(&self.control)?;
            stream.set_read_timeout(Some(DONE_MAX))?;
            writeln!(stream, "{line}")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(Error::system(format!("ask the lab to {line}")))?;
        match answer.trim() {
            "ok" => Ok(()),
            said => Err(Error::Command { line, said: said.to_owned() }),
        }
    }
}

/// Says where the agents are, and listens for orders.
pub(crate) fn listen(folder: &Path, buoy: &Buoy) -> Result<UnixListener> {
    let lines: Vec<String> = buoy
        .nodes()
        .iter()
        .map(|node| format!("{node} {}\n", buoy.socket(node).display()))
        .collect();
    std::fs::write(folder.join("agents"), lines.concat())
        .map_err(Error::system("write where the agents are"))?;
    UnixListener::bind(control(folder)).map_err(Error::system("listen for orders to the lab"))
}

/// Carries out one order.
pub(crate) fn obey(orders: &UnixListener, segment: &Segment, buoy: &mut Buoy) {
    let Ok((mut stream, _)) = orders.accept() else { return };
    let mut line = String::new();
    let _cut_off = BufReader::new((&stream).take(LINE_MAX)).read_line(&mut line);
    let answer = match carry_out(line.trim(), segment, buoy) {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    // Whoever asked may have gone.
    let _unheard = writeln!(stream, "{answer}");
}

fn carry_out(line: &str, segment: &Segment, buoy: &mut Buoy) -> Result<()> {
    let unknown = || Error::Unknown { what: format!("order `{line}`") };
    let words: Vec<&str> = line.split(' ').collect();
    let [verb, drill, node] = words[..] else { return Err(unknown()) };
    let drill = Drill::ALL.into_iter().find(|d| d.name() == drill).ok_or_else(unknown)?;
    if !buoy.nodes().contains(&node) {
        return Err(Error::Unknown { what: format!("node {node}") });
    }
    match verb {
        "inject" => match drill.fault().inject(segment, buoy, node)? {
            Injected::Yes => Ok(()),
            Injected::NotApplicable => Err(unknown()),
        },
        "heal" => drill.fault().heal(segment, buoy, node),
        _ => Err(unknown()),
    }
}

fn control(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

//! Speaks a part of the language of HAProxy's runtime socket, so that tools which watch and drain servers there do
//! so here: `hatop`, exporters of its counters, the Ansible module, scripts.
//!
//! A service is a proxy of HAProxy with a frontend and a backend of one name (`web:443-tcp`); a backend is a
//! server of it. A line has one or more commands, parted by `;`; each answer ends with an empty line, and the
//! connection with the line, unless `prompt` was said. What is not known is empty; what is not there is refused
//! in HAProxy's words. Orders go the way of `buoy backend`, and hold on all nodes.

mod set;
mod show;

use super::follow::{self, Named, Problem};
use super::socket::{Socket, SocketError};
use super::{Agent, account};
use buoy_model::Desired;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

/// Connections at the same time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a line, as with HAProxy.
const LINE_MAX: usize = 16 << 10;
/// How long a client may say nothing, as with HAProxy; `set timeout cli` makes it longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that it can be made.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// How long to wait when the host is out of file descriptors.
const RETRY: Duration = Duration::from_secs(10);

/// The socket, as the configuration has it.
struct Spoken<A> {
    agent: Arc<A>,
    /// When the agent began to listen.
    started: Instant,
}

impl<A: Agent> Named for Spoken<A> {
    type Wish = Desired;
    type Place = PathBuf;
    type Socket = Socket;

    fn named(&self, desired: &Desired) -> Option<PathBuf> {
        desired.haproxy_socket.as_ref().map(PathBuf::from)
    }

    async fn open(&self, path: &PathBuf) -> Result<Socket, String> {
        Socket::open(path).map_err(|error| said(path, &error))
    }

    async fn serve(&self, socket: Socket) {
        serve(socket, &self.agent, self.started).await;
    }
}

/// Keeps the socket that the configuration names, for as long as it names it.
pub(crate) async fn keep<A: Agent>(
    agent: Arc<A>,
    desired: watch::Receiver<Arc<Desired>>,
    problem: Problem,
) {
    follow::follow(&Spoken { agent, started: Instant::now() }, desired, problem).await;
}

fn said(path: &Path, error: &SocketError) -> String {
    let why = match error {
        SocketError::InUse { .. } => "another process answers there".to_owned(),
        SocketError::NotASocket { .. } => "what is there is not a socket: remove it".into(),
        SocketError::Refused { step, cause, .. } => format!("cannot {step} it: {cause}"),
    };
    format!("`haproxy_socket` {} is not there: {why}", path.display())
}

async fn serve<A: Agent>(socket: Socket, agent: &Arc<A>, started: Instant) {
    let Socket { listener, file } = socket;
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // With this future, so that nobody is served over a socket that is not in the file any more.
    let mut served = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { break };
        match listener.accept().await {
            Ok((stream, _)) => {
                let agent = Arc::clone(agent);
                served.spawn(async move {
                    converse(&*agent, stream, started).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the HAProxy socket does not accept");
                tokio::time::sleep(RETRY).await;
            }
        }
        while served.try_join_next().is_some() {}
    }
    drop(file);
}

/// What holds for one connection.
struct Session {
    /// Who is at the other end, by the kernel's word.
    who: String,
    prompts: bool,
    timeout: Duration,
    /// When the agent began to listen.
    started: Instant,
}

/// What follows an answer.
enum Next {
    Goes(String),
    Ends,
}

async fn converse<A: Agent>(agent: &A, stream: UnixStream, started: Instant) {
    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
    let who = uid.map_or_else(|| "an unknown user".into(), account::user_name);
    let mut session = Session { who, prompts: false, timeout: TIMEOUT, started };
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Ok(Some(line)) = timeout(session.timeout, line(&mut read)).await {
        let mut out = String::new();
        let mut ends = false;
        for command in line.split(';') {
            match answer(agent, &mut session, command).await {
                Next::Goes(text) => out.push_str(&text),
                Next::Ends => {
                    ends = true;
                    break;
                }
            }
            out.push('\n');
            if session.prompts {
                out.push_str("> ");
            }
        }
        let written = timeout(session.timeout, write.write_all(out.as_bytes())).await;
        if ends || !session.prompts || !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}

/// The next line without its end; `None`: there is none, or it is too long.
async fn line(read: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    read.take(LINE_MAX as u64).read_until(b'\n', &mut line).await.ok()?;
    if line.is_empty() || line.len() == LINE_MAX && line.last() != Some(&b'\n') {
        return None;
    }
    let line = String::from_utf8_lossy(&line);
    Some(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// Commands that are understood, for `help`.
const COMMANDS: &str = "  disable server (DEPRECATED)             : disable a server for maintenance (use 'set server' instead)
  enable server  (DEPRECATED)             : enable a disabled server (use 'set server' instead)
  get weight <bk>/<srv>                   : report a server's current weight
  set server <bk>/<srv> [opts]            : change a server's state or weight
  set timeout [cli] <delay>               : change a timeout setting
  set weight <bk>/<srv>  (DEPRECATED)     : change a server's weight (use 'set server' instead)
  show backend                            : list backends in the current running config
  show info                               : report information about the running process
  show servers state [<backend>]          : dump volatile server information (all or for a single backend)
  show stat [{<iid>|<proxy>} <type> <sid>] [up|no-maint] : report counters for each proxy and server
  show version                            : show version of the current process
  shutdown sessions server <bk>/<srv>     : kill sessions on a server (here: one in maintenance has none)
  help [<command>]                        : list matching or all commands
  prompt                                  : toggle interactive mode with prompt
  quit                                    : disconnect
";

async fn answer<A: Agent>(agent: &A, session: &mut Session, command: &str) -> Next {
    let words: Vec<&str> = command.split_whitespace().collect();
    Next::Goes(match &words[..] {
        ["quit", ..] => return Next::Ends,
        ["prompt", ..] => {
            session.prompts = !session.prompts;
            String::new()
        }
        ["help", ..] => format!("The following commands are valid at this level:\n{COMMANDS}"),
        ["show", "stat", options @ ..] => show::stat(agent, options).await,
        ["show", "info"] => show::info(agent, session.started),
        ["show", "servers", "state", backend @ ..] => {
            show::servers_state(agent, backend.first().copied())
        }
        ["show", "backend"] => show::backends(agent),
        ["show", "version"] => show::version(),
        ["get", "weight", server @ ..] => set::weight_of(agent, server),
        ["set", "timeout", "cli", delay @ ..] => set::timeout(session, delay),
        ["set", "server", rest @ ..] => set::server(agent, &session.who, rest).await,
        ["set", "weight", rest @ ..] => set::weight(agent, &session.who, rest).await,
        ["disable", "server", rest @ ..] => set::state(agent, &session.who, rest, "maint").await,
        ["enable", "server", rest @ ..] => set::state(agent, &session.who, rest, "ready").await,
        ["shutdown", "sessions", "server", rest @ ..] => set::shut(agent, rest),
        _ => {
            format!("Unknown command. Please enter one of the following commands only:\n{COMMANDS}")
        }
    })
}

//! Asks other nodes over TCP: a connection for each peer and kind of question, kept as long as it works.

use crate::errand::{Done, Errand, Lost};
use crate::frame;
use crate::raft::Types;
use crate::state::{Edit, State};
use crate::tls::Tls;
use crate::{Peer, Peers, Refused};
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{
    BasicNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot, SnapshotMeta, Vote,
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// How long one address of a peer may take to answer a call.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long everything that is remembered may take on its way.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked, and of whom.
#[derive(Deserialize, Serialize)]
pub(crate) struct Envelope {
    /// The name of who asks.
    pub(crate) from: String,
    /// The directory that is meant; 0: whichever that node has.
    pub(crate) to: u64,
    /// The history that is meant; 0: none yet.
    pub(crate) history: u64,
    pub(crate) ask: Ask,
}

/// A question.
#[derive(Deserialize, Serialize)]
pub(crate) enum Ask {
    /// Who are you, and what do you know?
    Hello {
        with_state: bool,
    },
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<u64>),
    Snapshot(Vote<u64>, SnapshotMeta<u64, BasicNode>, Box<State>),
    /// Take this, if you lead.
    Edit(Edit),
    /// Do this, for it is about you.
    Errand(Errand),
}

/// An answer.
#[derive(Deserialize, Serialize)]
pub(crate) enum Answer {
    Hello(Box<Greeting>),
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(SnapshotResponse<u64>),
    Edit(Result<u64, Refused>),
    /// `None`: it was taken, and who does it has ended meanwhile.
    Errand(Option<Done>),
    /// It was meant for another directory or another history.
    Stranger,
    Failed(String),
}

/// Who a node is.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Greeting {
    pub(crate) incarnation: u64,
    pub(crate) history: u64,
    /// The name of who leads, as far as it knows.
    pub(crate) leader: Option<String>,
    pub(crate) state: Option<State>,
}

/// Questions that must not wait for each other.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Lane {
    Raft,
    Vote,
    Snapshot,
    Edit,
    Hello,
}

type Line = Arc<tokio::sync::Mutex<Option<TlsStream<TcpStream>>>>;

/// The way to the others.
pub(crate) struct Net {
    pub(crate) peers: watch::Receiver<Arc<Peers>>,
    /// Which history this node is of; 0: of none yet.
    pub(crate) history: AtomicU64,
    tls: RwLock<Tls>,
    lines: Mutex<HashMap<(String, Lane), Line>>,
}

impl Net {
    pub(crate) fn new(peers: watch::Receiver<Arc<Peers>>, history: u64, tls: Tls) -> Self {
        let lines = Mutex::default();
        Self { peers, history: AtomicU64::new(history), tls: RwLock::new(tls), lines }
    }

    /// With other keys from now on: also on connections that there are.
    pub(crate) fn change_keys(&self, tls: Tls) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn tls(&self) -> Tls {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn line(&self, peer: &str, lane: Lane) -> Line {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry((peer.to_owned(), lane)).or_default())
    }

    /// Asks a peer, and waits for the answer so long.
    pub(crate) async fn ask(
        &self,
        name: &str,
        (lane, to): (Lane, u64),
        ask: Ask,
        limit: Duration,
    ) -> io::Result<Answer> {
        let peers = self.peers.borrow().clone();
        let peer = peers.nodes.iter().find(|peer| peer.name == name);
        let peer = peer.ok_or_else(|| io::Error::other(format!("{name} is not in the file")))?;
        let history = self.history.load(Ordering::SeqCst);
        let envelope = Envelope { from: peers.me.clone(), to, history, ask };
        let line = self.line(name, lane);
        let asked = async {
            let mut line = line.lock().await;
            // Taken out: after half an exchange, whoever gave up, it is of no more use.
            if let Some(mut stream) = line.take()
                && let Ok(answer) = exchange(&mut stream, &envelope).await
            {
                *line = Some(stream);
                return Ok(answer);
            }
            let mut stream = self.connect(peer).await?;
            let answer = exchange(&mut stream, &envelope).await?;
            *line = Some(stream);
            Ok(answer)
        };
        timeout(limit, asked).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Sends an errand, once.
    pub(crate) async fn send(
        &self,
        name: &str,
        errand: Errand,
        limit: Duration,
    ) -> Result<Done, Lost> {
        let peers = self.peers.borrow().clone();
        let peer = peers.nodes.iter().find(|peer| peer.name == name);
        let peer = peer.ok_or_else(|| Lost::Unsent(format!("{name} is not in the file")))?;
        let history = self.history.load(Ordering::SeqCst);
        let ask = Ask::Errand(errand);
        let envelope = Envelope { from: peers.me.clone(), to: 0, history, ask };
        let connected = timeout(limit, self.connect(peer)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut stream = connected.map_err(|cause| Lost::Unsent(cause.to_string()))?;
        let answer = timeout(limit, exchange(&mut stream, &envelope)).await;
        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(Answer::Errand(Some(report))) => Ok(report),
            Ok(Answer::Errand(None)) => Err(Lost::Unsure("its agent ends".into())),
            Ok(Answer::Failed(why)) => Err(Lost::Unsent(why)),
            Ok(answer) => Err(Lost::Unsent(odd(answer).to_string())),
            Err(cause) => Err(Lost::Unsure(cause.to_string())),
        }
    }

    async fn connect(&self, peer: &Peer) -> io::Result<TlsStream<TcpStream>> {
        let mut last = io::Error::other("it has no address");
        for address in &peer.addresses {
            let tls = self.tls();
            let connect = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                tls.connector.connect(tls.name.clone(), stream).await
            };
            match timeout(CONNECT_TIMEOUT, connect).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(cause)) => last = cause,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    /// Asks all peers at once who they are; those that answer in time.
    pub(crate) async fn greet(
        self: &Arc<Self>,
        with_state: bool,
        limit: Duration,
    ) -> Vec<(String, Greeting)> {
        let peers = self.peers.borrow().clone();
        let mut asking = tokio::task::JoinSet::new();
        for peer in peers.nodes.iter().filter(|peer| peer.name != peers.me) {
            let (net, name) = (Arc::clone(self), peer.name.clone());
            asking.spawn(async move {
                let ask = Ask::Hello { with_state };
                match net.ask(&name, (Lane::Hello, 0), ask, limit).await {
                    Ok(Answer::Hello(greeting)) => Some((name, *greeting)),
                    Ok(_) | Err(_) => None,
                }
            });
        }
        let mut heard: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
        heard.sort_by(|(a, _), (b, _)| a.cmp(b));
        heard
    }
}

async fn exchange(stream: &mut TlsStream<TcpStream>, envelope: &Envelope) -> io::Result<Answer> {
    frame::write(stream, envelope).await?;
    frame::read(stream).await
}

/// What the consensus uses to reach one member.
pub(crate) struct Member {
    net: Arc<Net>,
    name: String,
    incarnation: u64,
}

/// Makes the above.
pub(crate) struct Members(pub(crate) Arc<Net>);

impl RaftNetworkFactory<Types> for Members {
    type Network = Member;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Member {
        Member { net: Arc::clone(&self.0), name: node.addr.clone(), incarnation: target }
    }
}

impl Member {
    async fn ask(&self, lane: Lane, ask: Ask, limit: Duration) -> Result<Answer, Unreachable> {
        let asked = self.net.ask(&self.name, (lane, self.incarnation), ask, limit).await;
        asked.map_err(|cause| Unreachable::new(&cause))
    }
}

/// What should not have been the answer.
fn odd(answer: Answer) -> NetworkError {
    let why = match answer {
        Answer::Failed(why) => why,
        Answer::Stranger => "its directory is another one".into(),
        Answer::Hello(_)
        | Answer::Append(_)
        | Answer::Vote(_)
        | Answer::Snapshot(_)
        | Answer::Edit(_)
        | Answer::Errand(_) => "an answer to another question".into(),
    };
    NetworkError::new(&io::Error::other(why))
}

type Asked<T> = Result<T, RPCError<u64, BasicNode, RaftError<u64>>>;

impl RaftNetwork<Types> for Member {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Asked<AppendEntriesResponse<u64>> {
        let answer = self.ask(Lane::Raft, Ask::Append(rpc), option.hard_ttl()).await?;
        if let Answer::Append(answer) = answer {
            return Ok(answer);
        }
        Err(Unreachable::new(&odd(answer)).into())
    }

    async fn vote(&mut self, rpc: VoteRequest<u64>, option: RPCOption) -> Asked<VoteResponse<u64>> {
        let answer = self.ask(Lane::Vote, Ask::Vote(rpc), option.hard_ttl()).await?;
        if let Answer::Vote(answer) = answer {
            return Ok(answer);
        }
        Err(Unreachable::new(&odd(answer)).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<u64>,
        snapshot: Snapshot<Types>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Types, Fatal<u64>>> {
        let ask = Ask::Snapshot(vote, snapshot.meta, snapshot.snapshot);
        let answer = tokio::select! {
            answer = self.ask(Lane::Snapshot, ask, SNAPSHOT_TIMEOUT) => answer?,
            closed = cancel => return Err(closed.into()),
        };
        if let Answer::Snapshot(answer) = answer {
            return Ok(answer);
        }
        Err(Unreachable::new(&odd(answer)).into())
    }
}

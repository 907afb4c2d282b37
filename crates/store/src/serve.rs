//! Answers what other nodes ask, on the addresses of this one, to whoever has the cluster's key.

use crate::embedded::Shared;
use crate::frame;
use crate::net::{Answer, Ask, Envelope, Greeting};
use openraft::Snapshot;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at a time: each peer needs five.
const CONNECTIONS_MAX: usize = 128;
/// How long a caller may take to show that it has the key.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that is silent so long is closed; who needs it makes another one.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// How long an answer may take on its way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How soon an address that could not be listened on is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(3);

/// Listens on every address of this node, for ever.
pub(crate) async fn listen(shared: Arc<Shared>) {
    let mut peers = shared.net.peers.clone();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let now = peers.borrow_and_update().clone();
        let own = now.nodes.iter().find(|peer| peer.name == now.me);
        // Alone there is nobody to listen to.
        let addresses = own.filter(|_| now.nodes.len() > 1).map(|peer| peer.addresses.clone());
        let mut listening = JoinSet::new();
        for address in addresses.unwrap_or_default() {
            listening.spawn(one(Arc::clone(&shared), address, Arc::clone(&room)));
        }
        // Dropping the set ends them.
        while peers.changed().await.is_ok() {
            let next = peers.borrow_and_update().clone();
            if next.nodes.len() != now.nodes.len() || next.me != now.me {
                break;
            }
        }
        if peers.has_changed().is_err() {
            return;
        }
    }
}

async fn one(shared: Arc<Shared>, address: SocketAddr, room: Arc<Semaphore>) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                shared.say(address.to_string(), None);
                accept(&shared, &listener, &room).await;
            }
            Err(cause) => shared.say(
                address.to_string(),
                Some(format!(
                    "edits of other nodes do not come here: {address} (TCP) cannot be listened on: {cause}; it is \
                     tried again"
                )),
            ),
        }
        sleep(BIND_AGAIN).await;
    }
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener, room: &Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                connections.spawn(async move {
                    let _permit = permit;
                    // Whoever called knows that it failed; here it is no news.
                    let served = converse(shared, stream).await;
                    tracing::trace!(?served, "a connection of the store ended");
                });
            }
            // For want of descriptors: others may close theirs.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(shared: Arc<Shared>, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut keys = shared.keys.clone();
    keys.mark_unchanged();
    let handshake = shared.net.tls().acceptor.accept(stream);
    let mut stream = timeout(HANDSHAKE_TIMEOUT, handshake).await??;
    loop {
        let envelope: Envelope = tokio::select! {
            envelope = timeout(IDLE_TIMEOUT, frame::read(&mut stream)) => envelope??,
            // The key by which it was let in may be gone.
            _ = keys.changed() => return Ok(()),
        };
        let answer = answer(&shared, envelope).await;
        timeout(ANSWER_TIMEOUT, frame::write(&mut stream, &answer)).await??;
    }
}

async fn answer(shared: &Arc<Shared>, envelope: Envelope) -> Answer {
    let Envelope { to, history, ask, from } = envelope;
    let is_member = shared.net.peers.borrow().nodes.iter().any(|peer| peer.name == from);
    if !is_member || (to != 0 && to != shared.incarnation) {
        return Answer::Stranger;
    }
    match ask {
        Ask::Hello { with_state } => Answer::Hello(Box::new(Greeting {
            incarnation: shared.incarnation,
            history: shared.history(),
            leader: shared.leader(),
            state: with_state.then(|| shared.state().as_ref().clone()),
        })),
        Ask::Edit(edit) => Answer::Edit(shared.edit_here(&edit).await),
        Ask::Errand(errand) => match shared.run(from, errand).await {
            Ok(report) => Answer::Errand(report),
            Err(why) => Answer::Failed(why.into()),
        },
        Ask::Append(_) | Ask::Vote(_) | Ask::Snapshot(..)
            if shared.join_history(history).await.is_err() =>
        {
            Answer::Stranger
        }
        Ask::Append(request) => match shared.raft.append_entries(request).await {
            Ok(answer) => Answer::Append(answer),
            Err(cause) => Answer::Failed(cause.to_string()),
        },
        Ask::Vote(request) => match shared.raft.vote(request).await {
            Ok(answer) => Answer::Vote(answer),
            Err(cause) => Answer::Failed(cause.to_string()),
        },
        Ask::Snapshot(vote, meta, state) => {
            let snapshot = Snapshot { meta, snapshot: state };
            match shared.raft.install_full_snapshot(vote, snapshot).await {
                Ok(answer) => Answer::Snapshot(answer),
                Err(cause) => Answer::Failed(cause.to_string()),
            }
        }
    }
}

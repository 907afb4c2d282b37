//! Carries UDP: one session per client address, answered from the VIP itself.
//!
//! A session is a socket of its own towards one backend, so that answers find their client; it ends
//! after `idle_timeout` without a datagram, or when its backend leaves and the client speaks
//! again. Datagrams that cannot be passed on at once are dropped, as on any network.

use crate::front::Caller;
use crate::header;
use crate::pool::{Given, Pool, Seat, Turn};
use crate::tcp::Activity;
use buoy_model::{Protocol, SendProxy};
use socket2::SockRef;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{Interest, Ready};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// The largest datagram. Buffers of this size live on the stack between two waits, not in sessions.
const DATAGRAM: usize = 65_535;
/// Datagrams handled before others get their turn.
const BURST: usize = 64;

/// Sessions by the client's address.
#[derive(Debug, Default)]
struct Sessions(Mutex<HashMap<SocketAddr, Session>>);

#[derive(Debug)]
struct Session {
    flow: Arc<Flow>,
    task: AbortHandle,
}

/// One session: what its task and the listener share.
#[derive(Debug)]
struct Flow {
    client: SocketAddr,
    socket: UdpSocket,
    turn: Turn,
    activity: Activity,
    /// Keeps the place among the sessions taken.
    _seat: Seat,
}

/// Ends all sessions when the listener ends: their answers go through its socket.
impl Drop for Sessions {
    fn drop(&mut self) {
        for session in self.lock().values() {
            session.task.abort();
        }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries datagrams for ever.
pub(crate) async fn listen(socket: UdpSocket, pool: Arc<Pool>) {
    let listener = Arc::new(socket);
    let sessions = Arc::new(Sessions::default());
    // The tasks of sessions have the table only weakly, so that it ends with this function.
    while listener.readable().await.is_ok() {
        receive(&listener, &pool, &sessions);
        tokio::task::yield_now().await;
    }
}

/// Takes what has arrived from clients, at most a burst of it.
fn receive(listener: &Arc<UdpSocket>, pool: &Arc<Pool>, sessions: &Arc<Sessions>) {
    let mut buffer = [0; DATAGRAM];
    for _ in 0..BURST {
        match listener.try_recv_from(&mut buffer) {
            // A session that it has from before ends by itself.
            Ok((_, client)) if !pool.admits(client) => {}
            Ok((length, client)) => {
                forward(&buffer[..length], client, listener, pool, sessions);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // An ICMP error about a client that went away: the next datagram is another's.
            Err(_) => {}
        }
    }
}

fn forward(
    data: &[u8],
    client: SocketAddr,
    listener: &Arc<UdpSocket>,
    pool: &Arc<Pool>,
    sessions: &Arc<Sessions>,
) {
    let mut table = sessions.lock();
    if let Some(session) = table.get(&client)
        && !pool.is_current(&session.flow.turn.entry)
    {
        session.task.abort();
        table.remove(&client);
    }
    let flow = match table.get(&client) {
        Some(session) => Arc::clone(&session.flow),
        // It may come again, and is not heard until then.
        None if !pool.admits_new(client) => return,
        None => {
            let Some(flow) = open(data, client, pool) else { return pool.count_refused() };
            let task = tokio::spawn(answer(
                Arc::clone(&flow),
                Arc::clone(listener),
                Arc::clone(pool),
                Arc::downgrade(sessions),
            ));
            let session = Session { flow: Arc::clone(&flow), task: task.abort_handle() };
            table.insert(client, session);
            flow
        }
    };
    drop(table);
    flow.activity.touch();
    let sent = match pool.settings().send_proxy {
        SendProxy::Off => send(&flow.socket, data),
        // Version 1 has no word for UDP; `config` refuses both here.
        SendProxy::V1 | SendProxy::V2 => {
            let service = listener.local_addr().unwrap_or(client);
            let mut with_header = header::binary(Protocol::Udp, client, service);
            with_header.extend_from_slice(data);
            send(&flow.socket, &with_header)
        }
    };
    if sent.is_ok() {
        flow.turn.entry.bytes_to.fetch_add(data.len() as u64, Relaxed);
    }
}

/// A new session; `None` at the limit, or when there is no backend.
fn open(data: &[u8], client: SocketAddr, pool: &Arc<Pool>) -> Option<Arc<Flow>> {
    let Some(seat) = pool.take_seat() else {
        pool.count_limited();
        return None;
    };
    let mut caller = Caller::new(client);
    if let Some(quic) = pool.settings().front.quic {
        caller.named = quic.named(data);
    }
    let Given::Turn(turn) = pool.pick(&caller, None) else { return None };
    match towards(turn.entry.address) {
        Ok(socket) => {
            pool.count_accepted();
            let activity = Activity::new();
            Some(Arc::new(Flow { client, socket, turn, activity, _seat: seat }))
        }
        Err(error) => {
            tracing::debug!(backend = turn.entry.name, %error, "cannot open a session");
            pool.count_failure(&turn.entry);
            None
        }
    }
}

fn towards(backend: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match backend {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(backend)?;
    UdpSocket::from_std(socket)
}

/// Sends at once or not at all. The runtime would refuse a new socket until its next round of
/// polling, and so lose the first datagram of every session.
fn send(socket: &UdpSocket, data: &[u8]) -> io::Result<usize> {
    SockRef::from(socket).send(data)
}

/// Passes a backend's answers on until the session is idle.
async fn answer(
    flow: Arc<Flow>,
    listener: Arc<UdpSocket>,
    pool: Arc<Pool>,
    sessions: std::sync::Weak<Sessions>,
) {
    let idle = flow.activity.idle_for(pool.settings().idle_timeout);
    tokio::pin!(idle);
    loop {
        tokio::select! {
            () = &mut idle => break,
            ready = flow.socket.ready(Interest::READABLE | Interest::ERROR) => {
                let told_off = ready.map_or(true, |ready: Ready| ready.is_error());
                if told_off {
                    // An ICMP error: nobody is there. The client's next datagram may find another.
                    pool.count_failure(&flow.turn.entry);
                }
                if told_off || !relay(&flow, &listener, &pool) {
                    break;
                }
            }
        }
        tokio::task::yield_now().await;
    }
    if let Some(sessions) = sessions.upgrade() {
        let mut table = sessions.lock();
        // The client may have a newer session by now.
        if table.get(&flow.client).is_some_and(|s| Arc::ptr_eq(&s.flow, &flow)) {
            table.remove(&flow.client);
        }
    }
}

/// Passes on what has arrived from the backend; false when the backend says that nobody is there.
fn relay(flow: &Flow, listener: &UdpSocket, pool: &Pool) -> bool {
    let mut buffer = [0; DATAGRAM];
    for _ in 0..BURST {
        match flow.socket.try_recv(&mut buffer) {
            Ok(length) => {
                flow.activity.touch();
                pool.count_success(&flow.turn.entry);
                let client = flow.client.into();
                if SockRef::from(listener).send_to(&buffer[..length], &client).is_ok() {
                    flow.turn.entry.bytes_from.fetch_add(length as u64, Relaxed);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) => {
                tracing::debug!(backend = flow.turn.entry.name, %error, "backend refuses datagrams");
                pool.count_failure(&flow.turn.entry);
                return false;
            }
        }
    }
    true
}

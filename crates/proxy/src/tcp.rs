//! Carries TCP connections: accept, find a backend, copy both ways until both have ended.
//!
//! Each direction has one buffer of `PROXY_BUFFER`; nothing is read while it is not written, and so
//! a slow reader slows its writer down and not this host. An end in one direction is passed on, and the
//! other direction goes on. An error in either is passed on as a reset, because a clean end would
//! say that all of the data had come.

use crate::header;
use crate::pool::{Pool, Seat, Turn};
use buoy_model::limits::PROXY_BUFFER;
use buoy_model::{Protocol, SendProxy};
use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long to wait when the host is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many backends a connection is offered to.
const ATTEMPTS: usize = 2;

/// Accepts connections for ever; at the limit it leaves them to the kernel's backlog.
pub(crate) async fn listen(listener: TcpListener, pool: Arc<Pool>) {
    loop {
        // Nobody else takes seats, so there is room still when somebody has come.
        pool.wait_for_room().await;
        match listener.accept().await {
            // Without a byte, and without a seat that another could have.
            Ok((client, from)) if !pool.admits(from) || !pool.admits_new(from) => {
                reset_on_close(&client);
            }
            Ok((client, from)) => {
                pool.count_accepted();
                tokio::spawn(carry(client, from, pool.clone(), pool.sit()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, from: SocketAddr, pool: Arc<Pool>, seat: Seat) {
    let connected = connect(&pool, from, &client).await;
    match connected {
        Some((mut backend, turn)) => {
            let ended = tokio::select! {
                ended = relay(&mut client, &mut backend, from, &pool, &turn) => ended,
                () = turn.entry.cut() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            if let Err(error) = ended {
                tracing::debug!(client = %from, backend = turn.entry.name, %error, "connection ended");
                reset_on_close(&client);
                reset_on_close(&backend);
            }
        }
        None => {
            pool.count_refused();
            reset_on_close(&client);
        }
    }
    drop(seat);
}

/// A connected backend; another one gets its chance when the first does not accept.
async fn connect(pool: &Pool, from: SocketAddr, client: &TcpStream) -> Option<(TcpStream, Turn)> {
    // Who has reset the connection need not wait; who has said all that there is to say waits for the answer.
    let gone = || async {
        let _ = client.ready(Interest::ERROR).await;
    };
    let mut failed: Option<Turn> = None;
    for _ in 0..ATTEMPTS {
        let turn = pool.turn(from, failed.as_ref(), gone()).await?;
        let limit = pool.settings().connect_timeout;
        match timeout(limit, TcpStream::connect(turn.entry.address)).await {
            Ok(Ok(stream)) => return Some((stream, turn)),
            Ok(Err(error)) => {
                tracing::debug!(backend = turn.entry.name, %error, "backend does not accept");
            }
            Err(_) => {
                tracing::debug!(backend = turn.entry.name, "backend does not accept in time");
            }
        }
        turn.entry.count_failure();
        failed = Some(turn);
    }
    None
}

async fn relay(
    client: &mut TcpStream,
    backend: &mut TcpStream,
    from: SocketAddr,
    pool: &Pool,
    turn: &Turn,
) -> io::Result<()> {
    // What arrives is passed on at once; waiting for more is the ends' business.
    client.set_nodelay(true)?;
    backend.set_nodelay(true)?;
    let settings = pool.settings();
    match settings.send_proxy {
        SendProxy::Off => {}
        SendProxy::V2 => {
            let header = header::emit(Protocol::Tcp, from, client.local_addr()?);
            backend.write_all(&header).await?;
        }
    }
    let activity = Activity::new();
    let (client_in, client_out) = client.split();
    let (backend_in, backend_out) = backend.split();
    let there = pump(client_in, backend_out, &activity, &turn.entry.bytes_to);
    let back = pump(backend_in, client_out, &activity, &turn.entry.bytes_from);
    tokio::select! {
        ended = async { tokio::try_join!(there, back) } => ended.map(|_| ()),
        () = activity.idle_for(settings.idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Copies one direction until its end, and passes the end on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; PROXY_BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        activity.touch();
        if length == 0 {
            return match to.shutdown().await {
                // The other end is gone already, and so needs no word of it.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                ended => ended,
            };
        }
        let mut rest = &buffer[..length];
        // Piece by piece, so that a reader that is slow but not dead counts as active.
        while !rest.is_empty() {
            let written = to.write(rest).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            activity.touch();
            bytes.fetch_add(written as u64, Relaxed);
            rest = &rest[written..];
        }
    }
}

/// Makes the end of the connection a reset.
fn reset_on_close(stream: &TcpStream) {
    // A socket that is closed already needs none.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// When the last byte went through a connection.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    last: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), last: AtomicU64::new(0) }
    }

    pub(crate) fn touch(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(millis, Relaxed);
    }

    /// Returns when nothing has happened for so long.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        loop {
            let end = self.start + Duration::from_millis(self.last.load(Relaxed)) + limit;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_byte_starts_the_idle_time_anew() {
        let limit = Duration::from_secs(60);
        let activity = Activity::new();
        let start = Instant::now();
        let bytes = async {
            for _ in 0..5 {
                sleep(Duration::from_secs(50)).await;
                activity.touch();
            }
        };
        tokio::join!(activity.idle_for(limit), bytes);
        assert_eq!(start.elapsed().as_secs(), 5 * 50 + 60);
    }
}

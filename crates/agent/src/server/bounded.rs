//! Bounds what the API's clients can take: so many connections, each for so long.
//!
//! Without it a client that connects and says nothing would keep a descriptor of the agent for ever.

use axum::serve::Listener;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

/// Connections at the same time; further ones wait in the kernel's queue.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// A connection is closed after so long: longer than any request takes, a reload included.
pub(super) const CONNECTION_LIFETIME: Duration = Duration::from_secs(120);

/// A listener that accepts no more than it has room for.
#[derive(Debug)]
pub(super) struct Bounded<L> {
    listener: L,
    room: Arc<Semaphore>,
    lifetime: Duration,
}

impl<L> Bounded<L> {
    /// Room for so many connections, each for so long.
    pub(super) fn new(listener: L, connections: usize, lifetime: Duration) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(connections)), lifetime }
    }
}

impl<L: Listener> Listener for Bounded<L>
where
    L::Io: Unpin,
{
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Connection<L::Io>, L::Addr) {
        // A semaphore that nobody closes always gives its permit in the end.
        let permit = Arc::clone(&self.room).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(tokio::time::sleep(self.lifetime));
        (Connection { stream, end, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// One connection with its place among the others.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection<UnixStream> {
    /// Who is at the other end, by the kernel's word.
    pub(super) fn peer(&self) -> io::Result<UCred> {
        self.stream.peer_cred()
    }
}

impl<S> Connection<S> {
    fn check_end(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_end(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_end(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    fn listener(name: &str) -> (UnixListener, std::path::PathBuf) {
        let name = format!("buoy-bounded-{}-{name}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_file(&path));
        (UnixListener::bind(&path).unwrap(), path)
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_for_another_to_end() {
        let (inner, path) = listener("room");
        let mut bounded = Bounded::new(inner, 1, CONNECTION_LIFETIME);
        let _clients = [UnixStream::connect(&path).await, UnixStream::connect(&path).await];
        let (first, _) = bounded.accept().await;
        {
            let mut second = Box::pin(bounded.accept());
            let waits = poll_fn(|context| Poll::Ready(second.as_mut().poll(context).is_pending()));
            assert!(waits.await, "there is no room");
            drop(first);
            second.await;
        }
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_sent_away() {
        let (inner, path) = listener("silent");
        let mut bounded = Bounded::new(inner, 1, Duration::from_millis(20));
        let _client = UnixStream::connect(&path).await.unwrap();
        let (mut connection, _) = bounded.accept().await;
        let error = connection.read_u8().await.expect_err("nothing was said");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        std::fs::remove_file(path).unwrap();
    }
}

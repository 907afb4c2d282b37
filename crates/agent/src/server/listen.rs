//! Speaks HTTP on connections, and bounds what each client can take of the agent.
//!
//! So many connections at a time, so long for a request to say what it wants, so long without taking what it
//! asked for: a client that connects and says nothing, says it a byte at a time, or never reads costs one of the
//! places for some seconds, and nothing else.

use super::Asker;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;

/// How long the head of a request may take, and a connection may be idle before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of a request's head.
pub(super) const HEAD_MAX: usize = 32 << 10;
/// Lines of a request's head.
const HEADERS_MAX: usize = 64;
/// How long a client may take nothing of what it asked for.
const STALL_MAX: Duration = Duration::from_secs(15);
/// Requests under way have so long to end, when the agent does.
const STOP_MAX: Duration = Duration::from_secs(3);
/// How long to wait when the host is out of file descriptors.
const RETRY: Duration = Duration::from_millis(500);

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    head: Duration,
    stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { head: HEAD_TIMEOUT, stall: STALL_MAX }
    }
}

/// What connections come from.
pub(super) trait Door: Send + Sync {
    type Connection: Send;
    fn accept(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Door for UnixListener {
    type Connection = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(Self::accept(self).await?.0)
    }
}

impl Door for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        Ok(Self::accept(self).await?.0)
    }
}

/// Places for connections, and the end of them all.
#[derive(Clone, Debug)]
pub(super) struct Hall {
    room: Arc<Semaphore>,
    places: u32,
    patience: Patience,
    stop: watch::Receiver<bool>,
}

impl Hall {
    /// Room for so many connections, until `stop` says true.
    pub(super) fn new(places: u32, stop: watch::Receiver<bool>) -> Self {
        let room = Arc::new(Semaphore::new(places as usize));
        Self { room, places, patience: Patience::default(), stop }
    }

    /// Answers each connection that comes by the door, until the end; connections too many wait in the kernel's
    /// queue. `greet` says who is there, on a task of the connection's own, or sends him away with `None`.
    pub(super) async fn answer<D, S, G>(
        mut self,
        door: D,
        greet: impl Fn(D::Connection) -> G,
        router: Router,
    ) where
        D: Door,
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        G: Future<Output = Option<(S, Asker)>> + Send + 'static,
    {
        loop {
            // A semaphore that nobody closes always gives its permit in the end.
            let Ok(place) = Arc::clone(&self.room).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = door.accept() => accepted,
                _ = self.stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok(connection) => {
                    let greeted = greet(connection);
                    let talk = self.clone().talk(greeted, router.clone(), place);
                    drop(tokio::spawn(talk));
                }
                // The client went away again, or the host is out of descriptors.
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
        // All places are free again when all connections have ended.
        let _ = tokio::time::timeout(STOP_MAX, self.room.acquire_many(self.places)).await;
    }

    async fn talk<S>(
        mut self,
        greeted: impl Future<Output = Option<(S, Asker)>>,
        router: Router,
        _place: OwnedSemaphorePermit,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let greeted = tokio::time::timeout(self.patience.head, greeted).await;
        let Ok(Some((stream, asker))) = greeted else { return };
        let inner = TowerToHyperService::new(router);
        let service = service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(asker.clone()));
            inner.call(request)
        });
        let stream = Stalling { stream, limit: self.patience.stall, stalled: None };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.head)
            .max_buf_size(HEAD_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = self.stop.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(STOP_MAX, connection).await;
    }
}

/// A connection that breaks when its client takes nothing for too long.
#[derive(Debug)]
struct Stalling<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalling<S> {
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => {
                tracing::info!("a client of the API took nothing for {limit:?}: sent away");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalling<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalling<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.bounded(context, polled)
    }

    /// What is to be written is copied into one place where it is not.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// A hall with one place and little patience.
    async fn opened() -> (std::net::SocketAddr, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let short = Duration::from_millis(80);
        let patience = Patience { head: short, stall: short };
        let hall = Hall { patience, ..Hall::new(1, stopped) };
        let long = || async { "x".repeat(64 << 20) };
        let router = Router::new().route("/", get(|| async { "here\n" })).route("/long", get(long));
        let greet = |stream: TcpStream| async {
            Some((stream, Asker::local(None, buoy_config::Role::Read)))
        };
        drop(tokio::spawn(hall.answer(listener, greet, router)));
        (address, stop)
    }

    async fn said(stream: &mut TcpStream) -> String {
        let mut all = String::new();
        // A reset is an end too.
        let _ = stream.read_to_string(&mut all).await;
        all
    }

    #[tokio::test]
    async fn clients_who_say_nothing_or_too_slowly_are_sent_away_and_others_have_their_place() {
        let (address, _stop) = opened().await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(said(&mut silent).await, "", "it said nothing");

        let mut slow = TcpStream::connect(address).await.unwrap();
        let drips = async {
            while slow.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), drips).await.expect("it is sent away");

        // Asked while another has the place: the answer comes when that one is gone.
        let mut greedy = TcpStream::connect(address).await.unwrap();
        greedy.write_all(b"GET /long HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut next = TcpStream::connect(address).await.unwrap();
        next.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), said(&mut next)).await.unwrap();
        assert!(answer.ends_with("here\n"), "{answer}");
        assert!(said(&mut greedy).await.len() < 64 << 20, "it never read, so it was sent away");
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused() {
        let (address, _stop) = opened().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n", "y".repeat(2 * HEAD_MAX));
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = said(&mut stream).await;
        assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
    }
}

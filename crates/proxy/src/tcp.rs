//! Carries TCP connections: accept, hear whose it is, find a backend, copy both ways until both have ended.
//!
//! A thread has one buffer for all of its connections: what is read is written at once, and only what the
//! other end does not take is kept for it, so an idle connection has no buffer. Nothing is read while something is
//! kept, and so a slow reader slows its writer down and not this host. An end in one direction is passed on, and the
//! other direction goes on. An error in either is passed on as a reset, because a clean end would
//! say that all of the data had come.

use crate::Settings;
use crate::front::{self, Caller};
use crate::handover::{self, Handed, Listening, Opening, Pair, Waiting};
use crate::header;
use crate::pool::{Pool, Seat, Turn};
use buoy_model::SendProxy;
use buoy_model::limits::{PROXY_BUFFER, PROXY_BUFFER_MAX};
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How long to wait when the host is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How many backends a connection is offered to.
const ATTEMPTS: usize = 2;

thread_local! {
    /// What all connections of a thread read into; written, or kept aside, before another one has its turn.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PROXY_BUFFER_MAX]);
}

/// Listens on the thread that this is spawned on.
pub(crate) async fn start(listener: std::net::TcpListener, address: SocketAddr, pool: Arc<Pool>) {
    // An earlier run may have left it otherwise.
    let listener = SockRef::from(&listener)
        .set_tcp_nodelay(true)
        .and_then(|()| listener.set_nonblocking(true))
        .and_then(|()| TcpListener::from_std(listener));
    match listener {
        Ok(listener) => {
            listen(Listening { listener, address, _opening: Opening::new() }, pool).await;
        }
        Err(error) => tracing::error!(%address, %error, "a thread of the proxy cannot listen"),
    }
}

/// Accepts connections for ever; at the limit it leaves them to the kernel's backlog.
async fn listen(listening: Listening, pool: Arc<Pool>) {
    let listener: &TcpListener = &listening.listener;
    loop {
        pool.wait_for_room().await;
        match listener.accept().await {
            // Without a byte, and without a seat that another could have.
            Ok((client, from)) if !pool.greets(from) => reset_on_close(&client),
            Ok((client, from)) => {
                let arrived = Arrived::new(client, from, pool.address());
                // Another thread may have given away the last one.
                let seat = loop {
                    match pool.take_seat() {
                        Some(seat) => break seat,
                        None => pool.wait_for_room().await,
                    }
                };
                pool.count_accepted();
                let opening = Opening::new();
                tokio::spawn(carry(arrived, Arc::clone(&pool), (seat, opening)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Goes on with a client that had no backend yet when an earlier run of the agent ended.
pub(crate) async fn arrive(waiting: Waiting, pool: Arc<Pool>) {
    // The run before may have accepted it before it listened so.
    let client =
        waiting.client.set_nodelay(true).and_then(|()| TcpStream::from_std(waiting.client));
    match client {
        Ok(client) => {
            let mut arrived = Arrived::new(client, waiting.from, pool.address());
            arrived.said = waiting.said;
            let seat = pool.sit();
            carry(arrived, pool, (seat, Opening::new())).await;
        }
        Err(error) => tracing::warn!(%error, "a connection of the run before is lost"),
    }
}

#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, for each connection"
)]
fn carry(
    mut arrived: Arrived,
    pool: Arc<Pool>,
    (seat, opening): (Seat, Opening),
) -> impl Future<Output = ()> {
    async move {
        let settings = pool.settings();
        let caller = match front::is_heard(&settings, arrived.from) {
            false => arrived.greet(),
            true => Box::pin(front::hear(&mut arrived, &pool, &settings)).await,
        };
        let Some(caller) = caller else { return arrived.reset() };
        let connected = connect(&pool, &settings, &caller, &arrived).await;
        let Some((backend, turn)) = connected else {
            pool.count_refused();
            return arrived.reset();
        };
        let Some(client) = arrived.client.take() else { return };
        // The caller has what it said.
        drop(arrived);
        let mut link = Link::new(client, backend, turn, seat, pool);
        if let Err(error) = link.begin(&settings, caller) {
            return link.broken(&error);
        }
        drop(opening);
        let idle_timeout = settings.idle_timeout;
        drop(settings);
        link.run(idle_timeout).await;
    }
}

/// Goes on with a connection that an earlier run of the agent had.
pub(crate) async fn go_on(pair: Pair, pool: Arc<Pool>) {
    let idle_timeout = pool.settings().idle_timeout;
    match Link::adopt(pair, pool) {
        Ok(mut link) => link.run(idle_timeout).await,
        Err(error) => tracing::warn!(%error, "a connection of the run before is lost"),
    }
}

/// A connected backend; another one gets its chance when the first does not accept.
async fn connect(
    pool: &Pool,
    settings: &Settings,
    caller: &Caller,
    arrived: &Arrived,
) -> Option<(TcpStream, Turn)> {
    // Who has reset the connection need not wait; who has said all that there is to say waits for the answer.
    let gone = || async {
        if let Some(client) = &arrived.client {
            let _ = client.ready(Interest::ERROR).await;
        }
    };
    let has_words = !caller.said.is_empty() || settings.send_proxy != SendProxy::Off;
    let mut failed: Option<Turn> = None;
    for _ in 0..ATTEMPTS {
        let turn = pool.turn(caller, failed.as_ref(), gone()).await?;
        match timeout(settings.connect_timeout, open(turn.entry.address, has_words)).await {
            Ok(Ok(stream)) => return Some((stream, turn)),
            Ok(Err(error)) => {
                tracing::debug!(backend = turn.entry.name, %error, "backend does not accept");
            }
            Err(_) => {
                tracing::debug!(backend = turn.entry.name, "backend does not accept in time");
            }
        }
        pool.count_failure(&turn.entry);
        failed = Some(turn);
    }
    None
}

/// Connects to a backend. Where there is something to say, the end of the handshake goes with it: the kernel would send a
/// packet of its own before that, and wake the backend for each.
async fn open(to: SocketAddr, has_words: bool) -> io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if has_words {
        let _works_without = SockRef::from(&socket).set_tcp_quickack(false);
    }
    socket.connect(to).await
}

/// A client that has no backend yet.
#[derive(Debug)]
pub(crate) struct Arrived {
    /// Until it has one, or is reset.
    pub(crate) client: Option<TcpStream>,
    pub(crate) from: SocketAddr,
    /// All that it has said.
    pub(crate) said: Vec<u8>,
    service: SocketAddr,
}

impl Arrived {
    fn new(client: TcpStream, from: SocketAddr, service: SocketAddr) -> Self {
        Self { client: Some(client), from, said: Vec::new(), service }
    }

    /// Who calls, and what has come already of what it says: mostly all of a question. `None`: it is gone. An end is
    /// met again where it is passed on; an error would not be.
    fn greet(&mut self) -> Option<Caller> {
        let Self { client, said, .. } = self;
        if let Some(client) = client
            && said.is_empty()
        {
            let read = BUFFER.with_borrow_mut(|buffer| {
                let length = (&*SockRef::from(&*client)).read(&mut buffer[..PROXY_BUFFER])?;
                said.extend_from_slice(&buffer[..length]);
                Ok(())
            });
            if read.is_err_and(|error: io::Error| error.kind() != io::ErrorKind::WouldBlock) {
                return None;
            }
        }
        Some(Caller { said: said.clone(), ..Caller::new(self.from) })
    }

    fn reset(&mut self) {
        if let Some(client) = self.client.take() {
            reset_on_close(&client);
        }
    }
}

/// While the agent hands its connections over, one that is dropped is not over.
impl Drop for Arrived {
    fn drop(&mut self) {
        if let Some(client) = &self.client {
            handover::collect(|| {
                let said = std::mem::take(&mut self.said);
                let (service, from, client) = (self.service, self.from, copy(client)?);
                Some(Handed::Waiting(Waiting { service, from, client, said }))
            });
        }
    }
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// What was read and not taken yet.
    rest: Mutex<Vec<u8>>,
    /// Whether the end was passed on.
    ended: AtomicBool,
}

impl Way {
    fn rest(&self) -> MutexGuard<'_, Vec<u8>> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client and its backend.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    backend: TcpStream,
    there: Way,
    back: Way,
    /// The backend has said something.
    answered: AtomicBool,
    /// It reset the connection before that.
    dismissed: AtomicBool,
    activity: Activity,
    turn: Turn,
    pool: Arc<Pool>,
    _seat: Seat,
}

impl Link {
    fn new(client: TcpStream, backend: TcpStream, turn: Turn, seat: Seat, pool: Arc<Pool>) -> Self {
        Self {
            client,
            backend,
            there: Way::default(),
            back: Way::default(),
            answered: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            activity: Activity::new(),
            turn,
            pool,
            _seat: seat,
        }
    }

    fn adopt(pair: Pair, pool: Arc<Pool>) -> io::Result<Self> {
        let client = TcpStream::from_std(pair.client)?;
        let backend = TcpStream::from_std(pair.backend)?;
        let turn = pool.turn_of(&pair.name, pair.address);
        let seat = pool.sit();
        let link = Self::new(client, backend, turn, seat, pool);
        for (way, half) in [(&link.there, pair.there), (&link.back, pair.back)] {
            *way.rest() = half.rest;
            way.ended.store(half.ended, Relaxed);
        }
        // What it said before is not known, and nothing is held against it.
        link.answered.store(true, Relaxed);
        Ok(link)
    }

    /// What the backend hears first: whose it is, and what was heard already.
    fn begin(&mut self, settings: &Settings, caller: Caller) -> io::Result<()> {
        // What arrives is passed on at once; waiting for more is the ends' business.
        // The client's socket has it from the one that listens.
        self.backend.set_nodelay(true)?;
        let mut first = match settings.send_proxy {
            SendProxy::Off => Vec::new(),
            version @ (SendProxy::V1 | SendProxy::V2) => {
                let service = match caller.service {
                    Some(service) => service,
                    None => self.client.local_addr()?,
                };
                header::emit(version, caller.client, service)
            }
        };
        let header = first.len();
        first.extend(caller.said);
        if first.is_empty() {
            return Ok(());
        }
        let sent = at_once(&self.backend, &first)?;
        // The rest is counted when it is written.
        self.turn.entry.bytes_to.fetch_add(sent.saturating_sub(header) as u64, Relaxed);
        first.drain(..sent);
        *self.there.rest() = first;
        Ok(())
    }

    async fn run(&mut self, idle_timeout: Duration) {
        if let Err(error) = self.relay(idle_timeout).await {
            if self.dismissed.load(Relaxed) {
                self.pool.count_failure(&self.turn.entry);
            }
            self.broken(&error);
        }
    }

    fn broken(&self, error: &io::Error) {
        tracing::debug!(backend = self.turn.entry.name, %error, "connection ended");
        reset_on_close(&self.client);
        reset_on_close(&self.backend);
    }

    async fn relay(&mut self, idle_timeout: Duration) -> io::Result<()> {
        let Self {
            client, backend, there, back, answered, dismissed, activity, turn, pool, ..
        } = self;
        let (client_in, client_out) = client.split();
        let (backend_in, backend_out) = backend.split();
        let (activity, entry) = (&*activity, &turn.entry);
        let (there, back) = (&*there, &*back);
        let (bytes_to, bytes_from) = (&entry.bytes_to, &entry.bytes_from);
        let (from, to) = (client_in, backend_out);
        let piece = PROXY_BUFFER;
        let mut ahead =
            Pump { from, to, way: there, other: back, activity, bytes: bytes_to, piece };
        let (from, to) = (backend_in, client_out);
        let mut behind =
            Pump { from, to, way: back, other: there, activity, bytes: bytes_from, piece };
        let heard = |seen: &io::Result<usize>| match seen {
            Ok(0) => {}
            Ok(_) => {
                if !answered.swap(true, Relaxed) {
                    pool.count_success(entry);
                }
            }
            Err(_) => dismissed.store(!answered.load(Relaxed), Relaxed),
        };
        // By reference all the way down: a future keeps what it is given twice, as it came and where it is used.
        let both = async { tokio::try_join!(ahead.run(|_| {}), behind.run(&heard)) };
        tokio::select! {
            ended = both => ended.map(|_| ()),
            () = activity.idle_for(idle_timeout) => Err(io::ErrorKind::TimedOut.into()),
            () = entry.cut() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// While the agent hands its connections over, one that is dropped is not over.
impl Drop for Link {
    fn drop(&mut self) {
        handover::collect(|| {
            let half = |way: &Way| handover::Half {
                rest: std::mem::take(&mut *way.rest()),
                ended: way.ended.load(Relaxed),
            };
            let both = (half(&self.there), half(&self.back));
            if both.0.ended && both.1.ended {
                return None;
            }
            Some(
                Pair {
                    service: self.pool.address(),
                    name: self.turn.entry.name.clone(),
                    address: self.turn.entry.address,
                    client: copy(&self.client)?,
                    backend: copy(&self.backend)?,
                    there: both.0,
                    back: both.1,
                }
                .into(),
            )
        });
    }
}

/// Another descriptor of the same socket, of which the runtime knows nothing.
fn copy(stream: &TcpStream) -> Option<std::net::TcpStream> {
    Some(stream.as_fd().try_clone_to_owned().ok()?.into())
}

/// Copies one direction until its end, and passes the end on.
struct Pump<'l> {
    from: ReadHalf<'l>,
    to: WriteHalf<'l>,
    way: &'l Way,
    /// The other direction.
    other: &'l Way,
    activity: &'l Activity,
    bytes: &'l AtomicU64,
    /// How much is read at once: more while there is more and all of it is taken, because each read and each write
    /// costs the same whatever it carries. Who is slow gets little, and so little is kept for it.
    piece: usize,
}

impl Pump<'_> {
    async fn run(&mut self, seen: impl Fn(&io::Result<usize>)) -> io::Result<()> {
        if self.way.ended.load(Relaxed) {
            return Ok(());
        }
        loop {
            // Of the run before, or of what the client said before there was a backend.
            poll_fn(|cx| self.drain(cx)).await?;
            let read = poll_fn(|cx| self.step(cx)).await;
            seen(&read);
            if read? == 0 {
                if self.other.ended.load(Relaxed) {
                    // That was the last of both, and the sockets are closed, which says as much.
                    self.way.ended.store(true, Relaxed);
                    return Ok(());
                }
                let ended = match self.to.shutdown().await {
                    // The other end is gone already, and so needs no word of it.
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                    ended => ended,
                };
                self.way.ended.store(true, Relaxed);
                return ended;
            }
        }
    }

    /// Reads once, and writes what it can of that; how much was read.
    fn step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut read = ReadBuf::new(&mut buffer[..self.piece]);
            ready!(Pin::new(&mut self.from).poll_read(cx, &mut read))?;
            self.activity.touch();
            let data = read.filled();
            if data.is_empty() {
                return Poll::Ready(Ok(0));
            }
            // An error is told where it is written next, so that only errors of reading count as such.
            let sent = at_once(self.to.as_ref(), data).unwrap_or_default();
            self.bytes.fetch_add(sent as u64, Relaxed);
            if sent < data.len() {
                self.piece = PROXY_BUFFER;
                *self.way.rest() = data[sent..].to_vec();
            } else if data.len() == self.piece {
                self.piece = (2 * self.piece).min(PROXY_BUFFER_MAX);
            }
            Poll::Ready(Ok(data.len()))
        })
    }

    /// Writes what was kept, piece by piece, so that a reader that is slow but not dead counts as active.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        use tokio::io::AsyncWrite as _;
        let mut rest = self.way.rest();
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut self.to).poll_write(cx, &rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.activity.touch();
            self.bytes.fetch_add(written as u64, Relaxed);
            rest.drain(..written);
        }
        // An idle connection has no buffer.
        *rest = Vec::new();
        Poll::Ready(Ok(()))
    }
}

/// Writes what the kernel takes now. The runtime would wait for its next round of polling first.
fn at_once(to: &TcpStream, data: &[u8]) -> io::Result<usize> {
    match SockRef::from(to).send(data) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        sent => sent,
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
    use buoy_model::Backend;
    use tokio::io::AsyncReadExt as _;

    /// The size of what `f` returns.
    fn returned<A, B, C, F>(_: impl Fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_takes_little_memory_of_its_thread() {
        assert!(returned(carry) <= 1536, "{} bytes", returned(carry));
    }

    /// Without the option the kernel tells the backend at once, and this waits for ever.
    #[tokio::test]
    async fn the_end_of_the_handshake_waits_for_what_is_said() {
        let backend = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        backend.set_nonblocking(true).unwrap();
        let address = backend.local_addr().unwrap();
        let looks = async {
            loop {
                let stream = open(address, true).await.unwrap();
                match backend.accept() {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return stream,
                    // The kernel waits for a fifth of a second, and this thread had no processor for that long.
                    accepted => drop(accepted.unwrap()),
                }
            }
        };
        let mut stream = timeout(Duration::from_secs(30), looks).await.expect("told at once");
        stream.write_all(b"a question").await.unwrap();
        backend.set_nonblocking(false).unwrap();
        let (mut accepted, _) = backend.accept().unwrap();
        let mut heard = [0; 10];
        accepted.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"a question");
    }

    #[tokio::test]
    async fn what_was_said_to_the_run_before_is_told_though_nothing_is_heard_now() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (backend, service) =
            (TcpListener::bind(any).await.unwrap(), std::net::TcpListener::bind(any).unwrap());
        let address = service.local_addr().unwrap();
        let mut caller = TcpStream::connect(address).await.unwrap();
        let (client, from) = service.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        let settings = Settings { connections_max: 1, ..Settings::of_nobody() };
        let backends = [Backend::new("a", backend.local_addr().unwrap())];
        let pool = Arc::new(Pool::new(address, settings, &backends));
        let said = b"half a ".to_vec();
        let waiting = Waiting { service: address, from, client, said };
        let carried = tokio::spawn(arrive(waiting, pool));
        caller.write_all(b"question").await.unwrap();
        caller.shutdown().await.unwrap();
        let (mut accepted, _) = backend.accept().await.unwrap();
        let mut heard = Vec::new();
        accepted.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"half a question");
        drop(accepted);
        carried.await.unwrap();
    }

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

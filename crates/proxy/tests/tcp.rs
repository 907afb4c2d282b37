//! TCP through the proxy over loopback: what goes in comes out, and how it ends.

// The whole file is tests: a failed `unwrap` is a failed test.
#![allow(clippy::unwrap_used)]

mod support;

use buoy_model::limits::PROXY_BUFFER_MAX;
use buoy_model::{Backend, BackendLife, Balance, Eject, Protocol, SendProxy};
use buoy_proxy::{Proxy, Settings};
use socket2::SockRef;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::{PATIENCE, backend, settings, soon, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

fn proxy(settings: Settings, backends: &[Backend]) -> Proxy {
    support::proxy(Protocol::Tcp, settings, backends)
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that says its name and then echoes.
async fn echo(name: &'static str) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(name.as_bytes()).await;
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// An address where nobody listens.
async fn nobody() -> SocketAddr {
    listener().await.1
}

async fn connect(proxy: &Proxy) -> TcpStream {
    soon(TcpStream::connect(proxy.address())).await.unwrap()
}

/// A connection that the proxy resets, mostly before its client knows that it stands.
async fn is_reset(proxy: &Proxy) {
    let ended = match soon(TcpStream::connect(proxy.address())).await {
        Ok(mut stream) => soon(stream.read(&mut [0; 8])).await.map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

async fn read(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    soon(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (listener, address) = listener().await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let mut client = connect(&proxy).await;
    let (mut server, _) = soon(listener.accept()).await.unwrap();

    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    soon(server.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"question");

    // The client has ended; the server has not, and is still heard.
    for _ in 0..3 {
        server.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut client, 6).await, b"answer");
    }
    server.shutdown().await.unwrap();
    assert_eq!(soon(client.read(&mut [0; 8])).await.unwrap(), 0);
    until("the connection to be over", || proxy.counts().active == 0).await;
}

/// More than is read of it at once, and its end.
#[tokio::test]
async fn what_is_said_before_it_is_accepted_arrives_once_and_is_counted_once() {
    let question: Vec<u8> = (0..40_000_u32).map(|i| (i % 251) as u8).collect();
    for send_proxy in [SendProxy::Off, SendProxy::V1] {
        let (listener, address) = listener().await;
        let limited = Settings { connections_max: 1, send_proxy, ..settings() };
        let proxy = proxy(limited, &[backend("a", address)]);
        let first = connect(&proxy).await;
        drop(soon(listener.accept()).await.unwrap());
        let mut client = connect(&proxy).await;
        let (mut from, mut to) = client.split();
        soon(to.write_all(&question)).await.unwrap();
        soon(to.shutdown()).await.unwrap();
        drop(first);

        let (mut server, _) = soon(listener.accept()).await.unwrap();
        let mut heard = Vec::new();
        soon(server.read_to_end(&mut heard)).await.unwrap();
        let header = match send_proxy {
            SendProxy::Off => 0,
            SendProxy::V1 | SendProxy::V2 => {
                assert!(heard.starts_with(b"PROXY TCP4 127.0.0.1 "), "{send_proxy:?}");
                heard.iter().position(|byte| *byte == b'\n').unwrap() + 1
            }
        };
        assert!(heard[header..] == question, "{send_proxy:?}: {} bytes", heard.len());
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        soon(from.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"answer");
        assert_eq!(proxy.counts().backends[0].bytes_to, question.len() as u64);
    }
}

#[tokio::test]
async fn the_server_may_end_first() {
    let (listener, address) = listener().await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let mut client = connect(&proxy).await;
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    server.write_all(b"bye").await.unwrap();
    server.shutdown().await.unwrap();
    let mut heard = Vec::new();
    soon(client.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"bye");
    client.write_all(b"one more word").await.unwrap();
    assert_eq!(read(&mut server, 13).await, b"one more word");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_megabytes_each_way_arrive_intact() {
    const LENGTH: usize = 10 << 20;
    let pattern = |salt: usize| (0..LENGTH).map(move |i| ((i * 31 + i / 997) ^ salt) as u8);
    let (listener, address) = listener().await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let client = connect(&proxy).await;
    let (server, _) = soon(listener.accept()).await.unwrap();
    let exchange = async |mut stream: TcpStream, send: Vec<u8>| {
        let (mut from, mut to) = stream.split();
        let mut heard = Vec::new();
        let writing = async {
            to.write_all(&send).await.unwrap();
            to.shutdown().await.unwrap();
        };
        tokio::join!(writing, async { from.read_to_end(&mut heard).await.unwrap() });
        heard
    };
    let (to, back): (Vec<u8>, Vec<u8>) = (pattern(1).collect(), pattern(2).collect());
    let both = async { tokio::join!(exchange(client, to.clone()), exchange(server, back.clone())) };
    let (client_heard, server_heard) = soon(both).await;
    assert!(client_heard == back, "the answer was changed on its way");
    assert!(server_heard == to, "the question was changed on its way");
    let counts = &proxy.counts().backends[0];
    assert_eq!((counts.bytes_to, counts.bytes_from), (LENGTH as u64, LENGTH as u64));
}

#[tokio::test]
async fn a_slow_reader_slows_its_writer_and_not_this_host() {
    let (listener, address) = listener().await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let mut client = connect(&proxy).await;
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    // Nobody reads: writing must stall, with what is in flight in kernel buffers and one of ours.
    let mut written = 0;
    let block = vec![7; 1 << 16];
    while let Ok(length) = timeout(Duration::from_millis(500), client.write(&block)).await {
        written += length.unwrap();
        assert!(written < 64 << 20, "{written} bytes went somewhere");
    }
    // All but one buffer is in the sockets: the proxy itself holds no more than that.
    let passed = usize::try_from(proxy.counts().backends[0].bytes_to).unwrap();
    let limit: usize = ["/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"]
        .map(|path| std::fs::read_to_string(path).unwrap())
        .map(|text| text.split_whitespace().last().unwrap().parse::<usize>().unwrap())
        .iter()
        .sum();
    assert!(written - passed <= PROXY_BUFFER_MAX + limit, "{written} {passed} {limit}");
    // And nothing is lost: the reader gets all of it.
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    soon(server.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard.len(), written);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_not_before() {
    let idle = Duration::from_millis(150);
    let address = echo("a").await;
    let proxy = proxy(Settings { idle_timeout: idle, ..settings() }, &[backend("a", address)]);
    let start = Instant::now();
    let mut client = connect(&proxy).await;
    assert_eq!(read(&mut client, 1).await, b"a");
    let ended = soon(client.read(&mut [0; 8])).await;
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert!(idle <= start.elapsed());
    until("the connection to be over", || proxy.counts().active == 0).await;
}

#[tokio::test]
async fn at_the_limit_clients_wait_and_are_not_dropped() {
    let address = echo("a").await;
    let proxy = proxy(Settings { connections_max: 1, ..settings() }, &[backend("a", address)]);
    let mut first = connect(&proxy).await;
    assert_eq!(read(&mut first, 1).await, b"a");
    let mut second = connect(&proxy).await;
    second.write_all(b"hello").await.unwrap();
    until("the limit to be met", || proxy.counts().limited != 0).await;
    assert_eq!(proxy.counts().active, 1);
    assert_eq!(proxy.counts().accepted, 1, "the second has no seat");
    drop(first);
    assert_eq!(read(&mut second, 6).await, b"ahello");
    assert_eq!(proxy.counts().refused, 0);
}

#[tokio::test]
async fn a_higher_limit_lets_those_in_who_wait() {
    let address = echo("a").await;
    let backends = [backend("a", address)];
    let proxy = proxy(Settings { connections_max: 1, ..settings() }, &backends);
    let mut first = connect(&proxy).await;
    assert_eq!(read(&mut first, 1).await, b"a");
    let mut second = connect(&proxy).await;
    proxy.update(Settings { connections_max: 2, ..settings() }, &backends);
    assert_eq!(read(&mut second, 1).await, b"a");
}

#[tokio::test]
async fn a_backend_is_told_who_the_client_is() {
    let (listener, address) = listener().await;
    let proxy =
        proxy(Settings { send_proxy: SendProxy::V2, ..settings() }, &[backend("a", address)]);
    let mut client = connect(&proxy).await;
    client.write_all(b"GET").await.unwrap();
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    let heard = read(&mut server, 28 + 3).await;
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    expected.extend([127, 0, 0, 1, 127, 0, 0, 1]);
    expected.extend(client.local_addr().unwrap().port().to_be_bytes());
    expected.extend(proxy.address().port().to_be_bytes());
    expected.extend(b"GET");
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn the_least_busy_backend_gets_the_next_connection() {
    let (a, b) = (echo("a").await, echo("b").await);
    let settings = Settings { balance: Balance::LeastConnections, ..settings() };
    let proxy = proxy(settings, &[backend("a", a), backend("b", b)]);
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&proxy).await;
        let name = read(&mut client, 1).await;
        open.push((name, client));
    }
    assert_eq!(open.iter().filter(|(name, _)| name == b"a").count(), 2);
    // `a` loses its two, so the next two go there.
    open.retain(|(name, _)| name == b"b");
    until("the ends to be noticed", || proxy.counts().active == 2).await;
    for _ in 0..2 {
        let mut client = connect(&proxy).await;
        assert_eq!(read(&mut client, 1).await, b"a");
        open.push((vec![], client));
    }
}

#[tokio::test]
async fn a_backend_gets_its_maximum_and_no_more() {
    let (a, b) = (echo("a").await, echo("b").await);
    let settings = Settings { balance: Balance::First, ..settings() };
    let limited =
        |name, address, max| Backend { connections_max: Some(max), ..backend(name, address) };
    let backends = [limited("a", a, 3), limited("b", b, 2)];
    let proxy = proxy(settings, &backends);
    let mut open = Vec::new();
    for expected in [b"a", b"a", b"a", b"b", b"b"] {
        let mut client = connect(&proxy).await;
        assert_eq!(read(&mut client, 1).await, expected);
        open.push(client);
    }
    is_reset(&proxy).await;
    assert_eq!(proxy.counts().refused, 1);
    // The first one has room again.
    drop(open.remove(0));
    until("the end to be noticed", || proxy.counts().active == 4).await;
    let mut client = connect(&proxy).await;
    assert_eq!(read(&mut client, 1).await, b"a");
}

#[tokio::test]
async fn who_finds_all_backends_full_waits_in_order() {
    let a = echo("a").await;
    let life = BackendLife { queue: 2, queue_timeout: PATIENCE, ..BackendLife::default() };
    let settings = Settings { life, ..settings() };
    let limited = |max| [Backend { connections_max: Some(max), ..backend("a", a) }];
    let proxy = proxy(settings.clone(), &limited(1));
    let mut first = connect(&proxy).await;
    assert_eq!(read(&mut first, 1).await, b"a");
    let mut second = connect(&proxy).await;
    until("the second to wait", || proxy.counts().waiting == 1).await;
    let mut third = connect(&proxy).await;
    until("the third to wait", || proxy.counts().waiting == 2).await;
    // There are two places to wait.
    is_reset(&proxy).await;
    assert_eq!((proxy.counts().unserved, proxy.counts().queued), (1, 2));

    drop(first);
    assert_eq!(read(&mut second, 1).await, b"a", "the one that came first");
    assert!(timeout(Duration::from_millis(50), third.read(&mut [0; 1])).await.is_err());
    // More room by a new file serves those who wait.
    proxy.update(settings, &limited(2));
    assert_eq!(read(&mut third, 1).await, b"a");
    assert_eq!(proxy.counts().waiting, 0);
}

#[tokio::test]
async fn nobody_waits_for_longer_than_asked_nor_when_gone() {
    let a = echo("a").await;
    let short = Duration::from_millis(50);
    let life = BackendLife { queue: 9, queue_timeout: short, ..BackendLife::default() };
    let limited = [Backend { connections_max: Some(1), ..backend("a", a) }];
    let proxy = proxy(Settings { life, ..settings() }, &limited);
    let mut first = connect(&proxy).await;
    assert_eq!(read(&mut first, 1).await, b"a");
    is_reset(&proxy).await;
    assert_eq!((proxy.counts().waiting, proxy.counts().unserved), (0, 1));

    let life = BackendLife { queue_timeout: PATIENCE, ..life };
    proxy.update(Settings { life, ..settings() }, &limited);
    let third = connect(&proxy).await;
    until("the third to wait", || proxy.counts().waiting == 1).await;
    SockRef::from(&third).set_linger(Some(Duration::ZERO)).unwrap();
    drop(third);
    until("its place to be free", || proxy.counts().waiting == 0).await;
    // A backend list without backends is no reason to wait.
    let mut fourth = connect(&proxy).await;
    until("the fourth to wait", || proxy.counts().waiting == 1).await;
    proxy.update(Settings { life, ..settings() }, &[]);
    let ended = soon(fourth.read(&mut [0; 8])).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_backend_that_does_not_accept_costs_no_connection() {
    let (gone, here) = (nobody().await, echo("b").await);
    let proxy = proxy(settings(), &[backend("gone", gone), backend("here", here)]);
    for _ in 0..6 {
        let mut client = connect(&proxy).await;
        assert_eq!(read(&mut client, 1).await, b"b");
    }
    let counts = proxy.counts();
    assert!(0 < counts.backends[0].failures, "{counts:?}");
    assert_eq!(counts.refused, 0);
}

#[tokio::test]
async fn without_a_backend_a_client_is_reset_at_once() {
    let gone = nobody().await;
    for backends in [vec![], vec![backend("gone", gone)]] {
        let proxy = proxy(settings(), &backends);
        is_reset(&proxy).await;
        assert_eq!(proxy.counts().refused, 1);
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let (listener, address) = listener().await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let mut client = connect(&proxy).await;
    let (mut server, _) = soon(listener.accept()).await.unwrap();
    // A reset before the connection is relayed would send it to another backend instead.
    client.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut server, 1).await, b"x");
    socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let ended = soon(client.read(&mut [0; 8])).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_backend_that_leaves_keeps_its_connections_until_they_end() {
    let (a, b) = (echo("a").await, echo("b").await);
    let proxy = proxy(settings(), &[backend("a", a)]);
    let mut old = connect(&proxy).await;
    assert_eq!(read(&mut old, 1).await, b"a");
    proxy.update(settings(), &[backend("b", b)]);
    for _ in 0..3 {
        assert_eq!(read(&mut connect(&proxy).await, 1).await, b"b");
    }
    old.write_all(b"still here").await.unwrap();
    assert_eq!(read(&mut old, 10).await, b"still here");
    let leaving = |proxy: &Proxy| proxy.counts().backends.iter().any(|b| b.name == "a");
    assert!(leaving(&proxy), "it is shown while it has connections");
    drop(old);
    until("it to be gone", || !leaving(&proxy)).await;
}

#[tokio::test]
async fn a_backend_that_is_cut_loses_its_connections_and_begins_anew() {
    let (one, other) = (backend("one", echo("1").await), backend("other", echo("2").await));
    let both = [one.clone(), other.clone()];
    let proxy = proxy(settings(), &both);
    // One after the other: each processor has a thread that accepts, and they do not wait for each other.
    let mut a = connect(&proxy).await;
    assert_eq!(read(&mut a, 1).await, b"1");
    let mut b = connect(&proxy).await;
    assert_eq!(read(&mut b, 1).await, b"2");
    proxy.update(settings(), std::slice::from_ref(&other));
    proxy.cut(std::slice::from_ref(&one));
    let error = a.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    b.write_all(b"x").await.unwrap();
    assert_eq!(read(&mut b, 1).await, b"x", "the other one has nothing to do with it");
    proxy.update(settings(), std::slice::from_ref(&one));
    let mut again = connect(&proxy).await;
    assert_eq!(read(&mut again, 1).await, b"1");
}

#[tokio::test]
async fn a_change_of_the_others_keeps_the_counters_of_those_who_stay() {
    let (a, b) = (echo("a").await, echo("b").await);
    let proxy = proxy(settings(), &[backend("a", a)]);
    let mut client = connect(&proxy).await;
    assert_eq!(read(&mut client, 1).await, b"a");
    proxy.update(settings(), &[backend("b", b), backend("a", a)]);
    let counts = proxy.counts();
    assert_eq!((counts.backends[1].connections, counts.backends[1].active), (1, 1));
}

#[tokio::test]
async fn stopping_ends_listening_and_no_connection() {
    let address = echo("a").await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let mut client = connect(&proxy).await;
    assert_eq!(read(&mut client, 1).await, b"a");
    let at = proxy.address();
    proxy.stop();
    let start = Instant::now();
    while TcpStream::connect(at).await.is_ok() {
        assert!(start.elapsed() < PATIENCE, "still listens");
        tokio::task::yield_now().await;
    }
    client.write_all(b"still here").await.unwrap();
    assert_eq!(read(&mut client, 10).await, b"still here");
}

#[tokio::test]
async fn who_is_refused_is_reset_before_a_byte_and_others_go_on() {
    let address = echo("a").await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let mut known = connect(&proxy).await;
    assert_eq!(read(&mut known, 1).await, b"a");
    let refused = Settings { sources: support::deny("127.0.0.0/8"), ..settings() };
    proxy.update(refused, &[backend("a", address)]);

    is_reset(&proxy).await;
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.denied, counts.refused), (1, 1, 0));
    assert_eq!(counts.backends[0].connections, 1, "no backend heard of it");
    known.write_all(b"still").await.unwrap();
    assert_eq!(read(&mut known, 5).await, b"still");

    proxy.update(settings(), &[backend("a", address)]);
    assert_eq!(read(&mut connect(&proxy).await, 1).await, b"a");
}

#[tokio::test]
async fn who_connects_too_often_is_reset_before_a_byte_and_open_connections_go_on() {
    let address = echo("a").await;
    let limited = |number| Settings { new_connections: support::hourly(number), ..settings() };
    let proxy = proxy(limited(2), &[backend("a", address)]);
    let (mut first, mut second) = (connect(&proxy).await, connect(&proxy).await);
    for known in [&mut first, &mut second] {
        assert_eq!(read(known, 1).await, b"a");
    }
    is_reset(&proxy).await;
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.throttled, counts.limited), (2, 1, 0));
    first.write_all(b"still").await.unwrap();
    assert_eq!(read(&mut first, 5).await, b"still");

    // Another limit holds at once; what was opened counts.
    proxy.update(limited(4), &[backend("a", address)]);
    is_reset(&proxy).await;
    proxy.update(settings(), &[backend("a", address)]);
    assert_eq!(read(&mut connect(&proxy).await, 1).await, b"a");
}

#[tokio::test]
async fn a_backend_that_fails_is_left_alone_and_never_all_of_them() {
    let (gone, well) = (nobody().await, echo("a").await);
    let eject = Some(Eject { after: 2, time: PATIENCE });
    let life = BackendLife { eject, ..BackendLife::default() };
    let settings = Settings { life, ..settings() };
    let backends = [backend("gone", gone), backend("a", well)];
    let proxy = proxy(settings.clone(), &backends);
    for _ in 0..20 {
        assert_eq!(read(&mut connect(&proxy).await, 1).await, b"a");
    }
    let counts = proxy.counts();
    assert_eq!((counts.ejections, counts.backends[0].failures), (1, 2));
    assert!(counts.backends[0].ejected.is_some_and(|left| left <= PATIENCE));
    assert_eq!(counts.backends[1].ejected, None);
    // There is nobody else: it is asked again, and its clients hear how that ends.
    proxy.update(settings, &backends[..1]);
    is_reset(&proxy).await;
    assert!(2 < proxy.counts().backends[0].failures);
}

#[tokio::test]
async fn a_backend_that_resets_before_it_speaks_has_failed_and_later_not() {
    let (listener, address) = listener().await;
    let eject = Some(Eject { after: 1, time: PATIENCE });
    let life = BackendLife { eject, ..BackendLife::default() };
    let proxy = proxy(Settings { life, ..settings() }, &[backend("a", address)]);
    let reset = |server: &TcpStream| {
        SockRef::from(server).set_linger(Some(Duration::ZERO)).unwrap();
    };
    for (words, failures) in [(&b"hello"[..], 0), (b"", 1)] {
        let mut client = connect(&proxy).await;
        client.write_all(b"x").await.unwrap();
        let (mut server, _) = soon(listener.accept()).await.unwrap();
        assert_eq!(read(&mut server, 1).await, b"x");
        server.write_all(words).await.unwrap();
        assert_eq!(read(&mut client, words.len()).await, words);
        reset(&server);
        drop(server);
        let ended = soon(client.read(&mut [0; 8])).await.unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
        until("the end", || proxy.counts().active == 0).await;
        assert_eq!(proxy.counts().ejections, failures, "{words:?}");
    }
}

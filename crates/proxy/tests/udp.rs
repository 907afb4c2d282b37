//! UDP through the proxy over loopback: sessions, their limits and their end.

// The whole file is tests: a failed `unwrap` is a failed test.
#![allow(clippy::unwrap_used)]

mod support;

use buoy_model::{Backend, Protocol, SendProxy};
use buoy_proxy::{Proxy, Settings};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::{PATIENCE, backend, settings, soon, until};
use tokio::net::UdpSocket;

fn proxy(settings: Settings, backends: &[Backend]) -> Proxy {
    support::proxy(Protocol::Udp, settings, backends)
}

/// A server that puts its name before what it hears.
async fn echo(name: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = [name.as_bytes(), &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

/// A connected socket hears the VIP only: an answer from any other address is lost.
async fn client(proxy: &Proxy) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(proxy.address()).await.unwrap();
    socket
}

async fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    client.send(question).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = soon(client.recv(&mut buffer)).await.unwrap();
    buffer.truncate(length);
    buffer
}

#[tokio::test]
async fn answers_come_from_the_address_that_was_asked() {
    let address = echo("a").await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let client = client(&proxy).await;
    assert_eq!(ask(&client, b"hello").await, b"ahello");
    let large = vec![3; 9000];
    assert_eq!(ask(&client, &large).await.len(), 9001);
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.active), (1, 1), "one client is one session");
    assert_eq!(counts.backends[0].bytes_to, 9005);
    assert_eq!(counts.backends[0].bytes_from, 9007);
}

#[tokio::test]
async fn each_client_keeps_its_backend() {
    let (a, b) = (echo("a").await, echo("b").await);
    let proxy = proxy(settings(), &[backend("a", a), backend("b", b)]);
    let (first, second) = (client(&proxy).await, client(&proxy).await);
    assert_eq!(ask(&first, b"1").await, b"a1");
    assert_eq!(ask(&second, b"1").await, b"b1");
    for _ in 0..3 {
        assert_eq!(ask(&first, b"2").await, b"a2");
        assert_eq!(ask(&second, b"2").await, b"b2");
    }
}

#[tokio::test]
async fn an_idle_session_ends_and_the_client_gets_a_new_one() {
    let address = echo("a").await;
    let idle = Duration::from_millis(50);
    let proxy = proxy(Settings { idle_timeout: idle, ..settings() }, &[backend("a", address)]);
    let client = client(&proxy).await;
    assert_eq!(ask(&client, b"1").await, b"a1");
    until("the session to expire", || proxy.counts().active == 0).await;
    assert_eq!(ask(&client, b"2").await, b"a2");
    assert_eq!(proxy.counts().accepted, 2);
}

#[tokio::test]
async fn sessions_are_bounded_and_those_who_have_one_go_on() {
    let address = echo("a").await;
    let proxy = proxy(Settings { connections_max: 1, ..settings() }, &[backend("a", address)]);
    let (first, second) = (client(&proxy).await, client(&proxy).await);
    assert_eq!(ask(&first, b"1").await, b"a1");
    second.send(b"1").await.unwrap();
    until("the second to be refused", || proxy.counts().refused == 1).await;
    assert_eq!(proxy.counts().limited, 1);
    assert_eq!(ask(&first, b"2").await, b"a2");
    assert_eq!(proxy.counts().active, 1);
}

#[tokio::test]
async fn a_backend_that_finishes_keeps_its_sessions_and_gets_no_new_one() {
    let (one, other) = (backend("one", echo("1").await), backend("other", echo("2").await));
    let proxy = proxy(settings(), std::slice::from_ref(&one));
    let old = client(&proxy).await;
    let first = ask(&old, b"x").await;
    proxy.keep(std::slice::from_ref(&one));
    proxy.update(settings(), std::slice::from_ref(&other));
    assert_eq!(ask(&old, b"x").await, first, "it finishes what it has");
    let new = client(&proxy).await;
    assert_ne!(ask(&new, b"x").await, first);
    proxy.keep(&[]);
    assert_ne!(ask(&old, b"x").await, first, "it is down now");
}

#[tokio::test]
async fn a_client_moves_on_when_its_backend_leaves() {
    let (a, b) = (echo("a").await, echo("b").await);
    let proxy = proxy(settings(), &[backend("a", a)]);
    let client = client(&proxy).await;
    assert_eq!(ask(&client, b"1").await, b"a1");
    proxy.update(settings(), &[backend("b", b)]);
    assert_eq!(ask(&client, b"2").await, b"b2");
    until("the old session to end", || proxy.counts().active == 1).await;
}

#[tokio::test]
async fn a_backend_is_told_who_the_client_is() {
    let address = echo("").await;
    let proxy =
        proxy(Settings { send_proxy: SendProxy::V2, ..settings() }, &[backend("a", address)]);
    let client = client(&proxy).await;
    let heard = ask(&client, b"hello").await;
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c".to_vec();
    expected.extend([127, 0, 0, 1, 127, 0, 0, 1]);
    expected.extend(client.local_addr().unwrap().port().to_be_bytes());
    expected.extend(proxy.address().port().to_be_bytes());
    expected.extend(b"hello");
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn a_backend_that_refuses_is_counted_and_its_session_ends() {
    let gone = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let proxy = proxy(settings(), &[backend("gone", gone)]);
    let client = client(&proxy).await;
    client.send(b"1").await.unwrap();
    until("the refusal", || proxy.counts().backends[0].failures == 1).await;
    until("the session to end", || proxy.counts().active == 0).await;
}

#[tokio::test]
async fn stopping_ends_the_sessions() {
    let address = echo("a").await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let client = client(&proxy).await;
    assert_eq!(ask(&client, b"1").await, b"a1");
    let at = proxy.address();
    proxy.stop();
    let start = Instant::now();
    while UdpSocket::bind(at).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the port is still taken");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_datagram_of_who_is_refused_is_not_heard() {
    let address = echo("a").await;
    let proxy = proxy(settings(), &[backend("a", address)]);
    let client = client(&proxy).await;
    assert_eq!(ask(&client, b"1").await, b"a1");
    let refused = Settings { sources: support::deny("127.0.0.0/8"), ..settings() };
    proxy.update(refused, &[backend("a", address)]);
    client.send(b"2").await.unwrap();
    until("a refusal", || proxy.counts().denied == 1).await;
    assert_eq!(proxy.counts().backends[0].bytes_to, 1);
    proxy.update(settings(), &[backend("a", address)]);
    assert_eq!(ask(&client, b"3").await, b"a3");
}

#[tokio::test]
async fn who_opens_too_many_sessions_is_not_heard_in_another_one() {
    let address = echo("a").await;
    let limited = Settings { new_connections: support::hourly(1), ..settings() };
    let proxy = proxy(limited, &[backend("a", address)]);
    let known = client(&proxy).await;
    assert_eq!(ask(&known, b"1").await, b"a1");
    let other = client(&proxy).await;
    other.send(b"2").await.unwrap();
    until("a refusal", || proxy.counts().throttled == 1).await;
    // The session that there is goes on.
    assert_eq!(ask(&known, b"3").await, b"a3");
    let counts = proxy.counts();
    assert_eq!((counts.accepted, counts.refused, counts.limited), (1, 0, 0));
}

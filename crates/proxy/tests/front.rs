//! What a proxy hears before it chooses a backend, over loopback: whose a connection is, and which server it wants.

// The whole file is tests: a failed `unwrap` is a failed test.
#![allow(clippy::unwrap_used)]

mod support;

use buoy_model::{Backend, Cidr, Front, Protocol, SendProxy, ServerName};
use buoy_proxy::{Lane, Proxy, Settings, header};
use std::io::ErrorKind;
use std::net::SocketAddr;
use support::{backend, settings, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn proxy(settings: Settings, backends: &[Backend]) -> Proxy {
    support::proxy(Protocol::Tcp, settings, backends)
}

/// Believes everybody on this host.
fn believing() -> Settings {
    let loopback = Cidr::new("127.0.0.0".parse().unwrap(), 8).unwrap();
    Settings { front: Front { believed: [loopback].into(), ..Front::default() }, ..settings() }
}

/// A server that keeps what it hears until it has so many bytes, and then says them with its name before.
async fn repeats(name: &'static str, length: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = vec![0; length];
                if stream.read_exact(&mut heard).await.is_ok() {
                    let _ = stream.write_all(&[name.as_bytes(), &heard].concat()).await;
                }
            });
        }
    });
    address
}

async fn says(proxy: &Proxy, pieces: &[&[u8]]) -> std::io::Result<Vec<u8>> {
    let mut stream = soon(TcpStream::connect(proxy.address())).await?;
    stream.set_nodelay(true)?;
    for piece in pieces {
        stream.write_all(piece).await?;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let mut heard = Vec::new();
    soon(stream.read_to_end(&mut heard)).await.map(|_| heard)
}

fn client() -> (SocketAddr, SocketAddr) {
    ("192.0.2.7:4000".parse().unwrap(), "10.0.0.100:443".parse().unwrap())
}

#[tokio::test]
async fn a_believed_header_names_the_client_and_is_not_passed_on() {
    let (from, to) = client();
    for version in [SendProxy::V1, SendProxy::V2] {
        let proxy = proxy(believing(), &[backend("a", repeats("a", 5).await)]);
        let header = header::emit(version, from, to);
        let (start, end) = header.split_at(9);
        assert_eq!(says(&proxy, &[start, end, b"hello"]).await.unwrap(), b"ahello");
        let whole = [&header[..], b"hello"].concat();
        assert_eq!(says(&proxy, &[&whole]).await.unwrap(), b"ahello");
        assert_eq!(proxy.counts().unheard, 0);
    }
}

#[tokio::test]
async fn the_client_of_the_header_is_the_one_that_backends_hear_of_and_lists_decide_about() {
    let (from, to) = client();
    let told = header::emit(SendProxy::V2, from, to);
    let a = repeats("", told.len() + 2).await;
    let telling = Settings { send_proxy: SendProxy::V2, ..believing() };
    let first = proxy(telling.clone(), &[backend("a", a)]);
    let line = header::emit(SendProxy::V1, from, to);
    let expected = [&told[..], b"hi"].concat();
    assert_eq!(says(&first, &[&line, b"hi"]).await.unwrap(), expected);

    let refusing = Settings { sources: support::deny("192.0.2.0/24"), ..telling.clone() };
    let second = proxy(refusing, &[backend("a", a)]);
    assert_eq!(says(&second, &[&line]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!((second.counts().denied, second.counts().backends[0].connections), (1, 0));

    let limiting = Settings { new_connections: support::hourly(1), ..telling };
    let third = proxy(limiting, &[backend("a", a)]);
    assert_eq!(says(&third, &[&line, b"hi"]).await.unwrap(), expected);
    assert_eq!(says(&third, &[&line]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let other = header::emit(SendProxy::V1, "192.0.2.8:4000".parse().unwrap(), to);
    assert!(says(&third, &[&other, b"hi"]).await.is_ok());
    assert_eq!(third.counts().throttled, 1);
}

#[tokio::test]
async fn who_is_believed_and_sends_no_header_is_reset_and_who_is_not_is_taken_as_it_is() {
    let a = repeats("a", 5).await;
    let trusting = proxy(believing(), &[backend("a", a)]);
    let ended = says(&trusting, &[b"hello"]).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    assert_eq!((trusting.counts().unheard, trusting.counts().backends[0].connections), (1, 0));

    let far = Cidr::new("192.0.2.0".parse().unwrap(), 24).unwrap();
    let front = Front { believed: [far].into(), ..Front::default() };
    let wary = proxy(Settings { front, ..settings() }, &[backend("a", a)]);
    assert_eq!(says(&wary, &[b"PROXY"]).await.unwrap(), b"aPROXY");
}

#[tokio::test]
async fn a_beginning_that_does_not_end_is_reset_in_time() {
    let proxy = proxy(believing(), &[backend("a", repeats("a", 1).await)]);
    let mut slow = TcpStream::connect(proxy.address()).await.unwrap();
    slow.write_all(b"PROXY TCP4").await.unwrap();
    let ended = soon(slow.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    assert_eq!(proxy.counts().unheard, 1);
    assert_eq!(proxy.counts().backends[0].connections, 0);
}

/// A ClientHello in one record, as short as it can be.
fn hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let list = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let extensions = sized(&[&[0, 0][..], &sized(&list)].concat());
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], &extensions].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

#[tokio::test]
async fn a_tls_client_gets_a_backend_of_the_name_that_it_asks_for() {
    let length = hello("a.example").len();
    let (exact, below, other) = (
        repeats("exact", length).await,
        repeats("below", length).await,
        repeats("other", length).await,
    );
    let lane = |name: Option<&str>, backend: &str| Lane {
        name: name.map(|text| ServerName::new(text).unwrap()),
        backends: vec![backend.into()],
    };
    let lanes = [
        lane(Some("*.example"), "below"),
        lane(Some("a.example"), "exact"),
        lane(Some("z.example"), "nobody"),
        lane(None, "other"),
    ];
    let settings = Settings { lanes: lanes.into(), ..settings() };
    let backends = [backend("exact", exact), backend("below", below), backend("other", other)];
    let proxy = proxy(settings.clone(), &backends);
    for (name, who) in [("a.example", "exact"), ("B.example", "below"), ("a.examplf", "other")] {
        let bytes = hello(name);
        let expected = [who.as_bytes(), &bytes].concat();
        assert_eq!(says(&proxy, &[&bytes]).await.unwrap(), expected, "{name}");
        let (start, end) = bytes.split_at(50);
        assert_eq!(says(&proxy, &[start, end]).await.unwrap(), expected, "{name} in pieces");
    }
    // What is no TLS has no name.
    let plain = vec![b'x'; length];
    assert_eq!(says(&proxy, &[&plain]).await.unwrap(), [b"other", &plain[..]].concat());
    // A name whose backends are all down is not another's.
    let ended = says(&proxy, &[&hello("z.example")]).await;
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // Behind a header as well.
    let both = Settings { front: believing().front, ..settings };
    proxy.update(both, &backends);
    let (from, to) = client();
    let bytes = [header::emit(SendProxy::V2, from, to), hello("a.example")].concat();
    let expected = [b"exact", &hello("a.example")[..]].concat();
    assert_eq!(says(&proxy, &[&bytes]).await.unwrap(), expected);
}

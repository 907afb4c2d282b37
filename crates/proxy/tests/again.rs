//! Clients that come again, over TCP and UDP, and datagrams that name their server.

#![allow(clippy::unwrap_used)] // All of it is test.

mod support;

use buoy_model::{
    Backend, BackendLife, FlowFields, Front, Prefixes, Protocol, Quic, ServerId, Stick,
};
use buoy_proxy::{Proxy, Settings};
use std::net::SocketAddr;
use std::time::Duration;
use support::{backend, proxy, settings, soon};
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Clients of one /24 are one.
fn sticking(timeout: Duration) -> Settings {
    let client = FlowFields::of_prefixes(Prefixes::new(24, 64).unwrap());
    let stick = Some(Stick { timeout, client });
    Settings { life: BackendLife { stick, ..BackendLife::default() }, ..settings() }
}

/// A server that says its name, by both protocols.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(name.as_bytes()).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 2000]).await {
            let _ = socket.send_to(name.as_bytes(), from).await;
        }
    });
    address
}

async fn tcp(proxy: &Proxy, from: &str) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(from.parse().unwrap()).unwrap();
    let mut stream = soon(socket.connect(proxy.address())).await.unwrap();
    let mut text = String::new();
    soon(stream.read_to_string(&mut text)).await.unwrap();
    text
}

async fn udp(proxy: &Proxy, from: &str, data: &[u8]) -> String {
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.connect(proxy.address()).await.unwrap();
    socket.send(data).await.unwrap();
    let mut buffer = [0; 64];
    let length = soon(socket.recv(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn a_client_that_comes_again_in_time_gets_the_backend_it_had() {
    let backends = [backend("a", server("a").await), backend("b", server("b").await)];
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let minute = sticking(Duration::from_secs(60));
        let proxy = proxy(protocol, minute.clone(), &backends);
        let ask = async |from: &str| match protocol {
            Protocol::Tcp => tcp(&proxy, from).await,
            Protocol::Udp => udp(&proxy, from, b"?").await,
        };
        assert_eq!(ask("127.0.0.1:0").await, "a");
        // In turns, but for whose network is known.
        for from in ["127.0.0.1:0", "127.0.0.9:0", "127.0.0.1:0"] {
            assert_eq!(ask(from).await, "a");
        }
        assert_eq!(ask("127.0.1.1:0").await, "b");
        // It is drained: its clients stay. It is down: they do not, nor when it is back.
        proxy.keep(&backends[..1]);
        proxy.update(minute.clone(), &backends[1..]);
        assert_eq!([ask("127.0.0.1:0").await, ask("127.0.2.1:0").await], ["a", "b"]);
        proxy.keep(&[]);
        proxy.update(minute.clone(), &backends[1..]);
        assert_eq!(ask("127.0.0.1:0").await, "b");
        proxy.update(minute, &backends);
        for _ in 0..3 {
            assert_eq!(ask("127.0.0.1:0").await, "b");
        }
        assert_eq!(proxy.counts().stuck, 7);
        // One that is full is passed over.
        if protocol == Protocol::Udp {
            let full =
                [backends[0].clone(), Backend { connections_max: Some(1), ..backends[1].clone() }];
            proxy.update(sticking(Duration::from_secs(60)), &full);
            assert_eq!(ask("127.0.0.1:0").await, "a");
        }
        // It is over.
        let before = ask("127.0.3.1:0").await;
        proxy.update(sticking(Duration::ZERO), &backends);
        let after = [ask("127.0.3.1:0").await, ask("127.0.3.1:0").await];
        assert!(after.contains(&"a".to_owned()) && after.contains(&"b".to_owned()), "{before}");
    }
}

#[tokio::test]
async fn a_datagram_goes_to_the_server_that_it_names() {
    let named = |name, address, id| Backend {
        server_id: Some(ServerId::new(&[0x0a, id]).unwrap()),
        ..backend(name, address)
    };
    let backends = [named("a", server("a").await, 1), named("b", server("b").await, 2)];
    let front = Front { quic: Some(Quic { config: 1, length: 2 }), ..Front::default() };
    let settings = Settings { front, ..settings() };
    let proxy = proxy(Protocol::Udp, settings.clone(), &backends);
    let short = |id| [0x40, 0x3f, 0x0a, id, 5, 5, 5];
    // Wherever it comes from.
    for from in ["127.0.0.1:0", "127.0.0.2:0", "127.0.3.3:0"] {
        assert_eq!(udp(&proxy, from, &short(1)).await, "a");
        assert_eq!(udp(&proxy, from, &short(2)).await, "b");
    }
    assert_eq!(proxy.counts().unnamed, 0);
    // Who is drained is named still, who is down is not.
    proxy.keep(&backends[..1]);
    proxy.update(settings.clone(), &backends[1..]);
    assert_eq!(udp(&proxy, "127.0.0.1:0", &short(1)).await, "a");
    proxy.keep(&[]);
    proxy.update(settings, &backends[1..]);
    assert_eq!(udp(&proxy, "127.0.0.1:0", &short(1)).await, "b");
    assert_eq!(proxy.counts().unnamed, 1);
    assert_eq!(udp(&proxy, "127.0.0.1:0", &[0xc0, 0, 0, 0, 1, 4, 9, 9, 9, 9]).await, "b");
    assert_eq!(proxy.counts().unnamed, 1, "it begins");
}

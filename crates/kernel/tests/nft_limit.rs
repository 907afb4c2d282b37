//! How often a client may connect, with the real nftables: two hosts, one of them balancer and backend.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::nft::{self, Forward, Spread};
use buoy_model::{Per, Ports, Protocol, Rate, SourceAddress};
use segment::{Segment, ip};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Less than until a SYN is sent again.
const QUIET: Duration = Duration::from_millis(300);
/// A VIP, its host, two clients that count as one or not, and another one.
const FAMILIES: [[&str; 5]; 2] = [
    ["10.0.0.100", "10.0.0.1", "10.0.0.2", "10.0.0.2", "10.0.0.3"],
    ["fd00::100", "fd00::1", "fd00::2", "fd00::3", "fd00:0:0:1::2"],
];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn forwards(rate: Option<Rate>) -> Vec<Forward> {
    let both = [Protocol::Tcp, Protocol::Udp];
    let all = FAMILIES.iter().flat_map(|family| both.map(|protocol| (family, protocol)));
    let forward = |(family, protocol): (&[&str; 5], Protocol)| {
        let backends = vec![SocketAddr::new(address(family[1]), 8080)];
        Forward {
            vip: address(family[0]),
            ports: Ports::one(80),
            within: vec![],
            protocol,
            source: SourceAddress::Vip,
            sources: Arc::default(),
            new_connections: rate,
            spread: Spread::Hash(backends.clone().into()),
            stick: None,
            standing: vec![],
            quic: None,
            backends,
            relays: vec![],
            link: "near".into(),
        }
    };
    all.map(forward).collect()
}

/// A connection of this client.
fn connect(segment: &Segment, vip: &str, from: &str) -> std::io::Result<TcpStream> {
    segment.there(|| {
        let from = SocketAddr::new(address(from), 0);
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&SocketAddr::new(address(vip), 80).into(), QUIET)?;
        Ok(socket.into())
    })
}

/// How many of ten connections get through.
fn opened(segment: &Segment, vip: &str, from: &str) -> usize {
    let one = |_: &i32| match connect(segment, vip, from) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::TimedOut => false,
        Err(error) => panic!("{vip} from {from}: {error}"),
    };
    (0..5).filter(one).count()
}

/// How many of five flows get through, and whether the first one goes on.
fn flows(segment: &Segment, server: &UdpSocket, vip: &str, from: &str) -> (usize, bool) {
    let arrives = |client: &UdpSocket| {
        client.send(b"x").unwrap();
        server.recv(&mut [0; 8]).is_ok()
    };
    let open = || {
        segment.there(|| {
            let client = UdpSocket::bind(SocketAddr::new(address(from), 0)).unwrap();
            client.connect(SocketAddr::new(address(vip), 80)).unwrap();
            client
        })
    };
    let clients: Vec<_> = (0..5).map(|_| open()).collect();
    // Answered, so that conntrack knows it as more than new.
    clients[0].send(b"x").unwrap();
    let (_, peer) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"y", peer).unwrap();
    let through = 1 + clients[1..].iter().filter(|client| arrives(client)).count();
    (through, arrives(&clients[0]))
}

fn sets() -> usize {
    let listed = Command::new("nft").args(["list", "sets"]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).matches("set tcp_80_").count()
}

#[test]
fn a_client_opens_so_many_connections_and_another_ones_are_its_own() {
    let Some(segment) = Segment::new("a_client_opens_so_many_connections") else { return };
    ip("addr add 10.0.0.100/24 dev near");
    ip("addr add fd00::100/64 dev near nodad");
    ip("addr add fd00:0:0:1::1/64 dev near nodad");
    segment.there(|| {
        ip("addr add 10.0.0.3/24 dev far");
        ip("addr add fd00::3/64 dev far nodad");
        ip("addr add fd00:0:0:1::2/64 dev far nodad");
    });
    nft::enable_forwarding(true, true).unwrap();
    let hour = |number| Rate::new(number, Per::Hour, number);
    if let Err(error) = nft::apply(&forwards(hour(2)), None) {
        assert!(matches!(error, nft::Error::Missing), "{error}");
        eprintln!("SKIPPED: a_client_opens_so_many_connections: {error}");
        return;
    }
    for [vip, host, client, same, other] in FAMILIES {
        let at = SocketAddr::new(address(host), 8080);
        let listener = TcpListener::bind(at).unwrap();
        let mut open = connect(&segment, vip, client).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(opened(&segment, vip, same), 1, "{vip}: two of one client");
        assert_eq!(opened(&segment, vip, other), 2, "{vip}: two of another one");
        // The same again takes no bucket away, and another limit holds at once.
        nft::apply(&forwards(hour(2)), None).unwrap();
        assert_eq!(opened(&segment, vip, client), 0, "{vip}");
        open.write_all(b"on").unwrap();
        server.read_exact(&mut [0; 2]).unwrap();
        nft::apply(&forwards(hour(3)), None).unwrap();
        assert_eq!((opened(&segment, vip, client), sets()), (3, 2), "{vip}");
        let socket = UdpSocket::bind(at).unwrap();
        socket.set_read_timeout(Some(QUIET)).unwrap();
        assert_eq!(flows(&segment, &socket, vip, client), (3, true), "{vip}");
        let observed = nft::observe().unwrap().unwrap();
        for forward in forwards(hour(3)).iter().filter(|f| f.vip == address(vip)) {
            let limited = observed.counts(forward).limited;
            let wanted = if forward.protocol == Protocol::Tcp { 14 } else { 2 };
            assert_eq!(limited, wanted, "{vip}");
        }
        nft::apply(&forwards(None), None).unwrap();
        assert_eq!((opened(&segment, vip, client), sets()), (5, 0), "{vip}");
        nft::apply(&forwards(hour(2)), None).unwrap();
    }
    nft::remove().unwrap();
}

//! Checks on the way that clients' packets take: every byte of them, their answers, and who does not answer.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod echo;
mod hosts;

use buoy_kernel::backend::{Backend, Run, Tunnel, Wanted};
use buoy_kernel::offload::{self, Offload};
use buoy_kernel::via::{Handshake, Out, Target, Via, ViaError, Wrap};
use buoy_kernel::{host, sysctl};
use echo::{WAIT, connect, echoes, serve};
use hosts::{Hosts, Sniffer, ip};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The addresses of one IP version: of this host, of the backend, and the VIP.
#[derive(Debug)]
struct Version {
    own: &'static str,
    backend: &'static str,
    vip: &'static str,
}

static V4: Version = Version { own: "10.2.0.1", backend: "10.2.0.2", vip: "10.2.0.100" };
static V6: Version = Version { own: "fd02::1", backend: "fd02::2", vip: "fd02::100" };
const WRAPS: [Wrap; 3] = [Wrap::Not, Wrap::InIp, Wrap::InUdp(6080)];
/// Long enough for an answer on a veth, if there is one.
const SILENCE: Duration = Duration::from_millis(300);

impl Version {
    fn target(&self, wrap: Wrap) -> Target {
        Target { vip: self.vip.parse().unwrap(), backend: self.backend.parse().unwrap(), wrap }
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.backend.parse().unwrap(), port)
    }

    fn on_vip(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.vip.parse().unwrap(), port)
    }
}

/// Every IP version, with every way to get to a backend.
fn all() -> impl Iterator<Item = (&'static Version, Wrap)> {
    [&V4, &V6].into_iter().flat_map(|version| WRAPS.map(|wrap| (version, wrap)))
}

/// The programs, or nothing and a line that says so.
fn open(test: &str) -> Option<Via> {
    match Via::open() {
        Ok(via) => Some(via),
        Err(ViaError::Unable(reason)) => {
            eprintln!("SKIPPED: {test}: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The hosts, with a VIP of both versions on this one where it is its owner.
fn hosts(test: &str, is_owner: bool) -> Option<(Hosts, Via)> {
    let hosts = Hosts::new(test)?;
    if is_owner {
        ip("addr add 10.2.0.100/24 dev to-server");
        ip("addr add fd02::100/64 dev to-server nodad preferred_lft 0");
    }
    Some((hosts, open(test)?))
}

fn out(via: &mut Via, target: Target) -> Out {
    let mark = via.add(target).unwrap();
    via.out(mark).unwrap()
}

/// A connection on the way of the service, or why there is none within that time.
fn connection(out: Out, to: SocketAddr, time: Duration) -> std::io::Result<TcpStream> {
    let stream = socket2::Socket::from(out.stream(to.ip(), Handshake::Whole)?);
    stream.connect_timeout(&to.into(), time)?;
    let stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(WAIT))?;
    Ok(stream)
}

/// A real server, given back when dropped in its namespace.
fn prepare(hosts: &Hosts, test: &str, version: &Version, wrap: Wrap) -> Backend {
    let tunnel = match wrap {
        Wrap::Not => Tunnel::NONE,
        Wrap::InIp => Tunnel::IPIP,
        Wrap::InUdp(port) => Tunnel { ipip: false, gue: Some(port) },
    };
    let records = std::env::temp_dir().join(format!("buoy-via-{}-{test}", std::process::id()));
    let address = version.vip.parse().unwrap();
    let wanted = Wanted { address, tunnel, interface: Some("server".to_owned()) };
    hosts.at_server(|| {
        let mut backend = Backend::open(&records).unwrap();
        backend.add(&[wanted], Run::Real).unwrap();
        backend
    })
}

fn give_back(hosts: &Hosts, mut backend: Backend) {
    let all = buoy_kernel::backend::Which::All;
    hosts.at_server(|| backend.remove(&all, Run::Real).unwrap());
}

#[test]
fn a_prepared_backend_answers_on_the_vip_whoever_owns_it() {
    let test = "a_prepared_backend_answers_on_the_vip_whoever_owns_it";
    for is_owner in [false, true] {
        let Some((hosts, mut via)) = hosts(test, is_owner) else { return };
        for (version, wrap) in all() {
            // As most network cards have it; between veths only what XDP does not take off may come so.
            let leaves_checksums = is_owner && wrap == Wrap::Not;
            offload::set("to-server", Offload::SendChecksums, leaves_checksums).unwrap();
            let backend = prepare(&hosts, test, version, wrap);
            let heard = hosts.at_server(|| {
                offload::set("server", Offload::SendChecksums, leaves_checksums).unwrap();
                let heard = TcpListener::bind(version.on_vip(0)).unwrap().local_addr().unwrap();
                serve(&heard.to_string());
                heard.port()
            });
            let out = out(&mut via, version.target(wrap));
            let mut stream = connection(out, version.at(heard), WAIT).unwrap();
            assert_eq!(stream.peer_addr().unwrap(), version.at(heard));
            assert_eq!(stream.local_addr().unwrap().ip().to_string(), version.own);
            echoes(&mut stream, 20_000);
            let nobody = connection(out, version.at(heard ^ 1), WAIT).map(|_| ());
            let nobody = nobody.map_err(|error| error.kind());
            assert_eq!(nobody, Err(ErrorKind::ConnectionRefused), "{wrap:?}");
            drop(stream);
            give_back(&hosts, backend);
        }
    }
}

#[test]
fn a_backend_that_listens_on_its_own_address_only_does_not_answer_on_the_vip() {
    let test = "a_backend_that_listens_on_its_own_address_only_does_not_answer_on_the_vip";
    let Some((hosts, mut via)) = hosts(test, false) else { return };
    // It routes: it would send what is for the VIP on to another host, which has it and answers.
    let client = hosts.at_client(|| std::fs::File::open("/proc/thread-self/ns/net").unwrap());
    let other = format!("/proc/{}/fd/{}", std::process::id(), client.as_raw_fd());
    hosts.at_server(|| {
        for setting in [sysctl::IPV4_FORWARD, sysctl::IPV6_FORWARD] {
            sysctl::write(setting, "1").unwrap();
        }
        ip("link add to-other type veth peer name other");
        ip(&format!("link set other netns {other}"));
        ip("addr add 10.3.0.1/24 dev to-other");
        ip("addr add fd03::1/64 dev to-other nodad");
        ip("link set to-other up");
        ip("route add 10.2.0.100/32 via 10.3.0.2");
        ip("route add fd02::100/128 via fd03::2");
        [&V4, &V6].into_iter().for_each(|version| serve(&version.at(8080).to_string()));
    });
    hosts.at_client(|| {
        ip("addr add 10.3.0.2/24 dev other");
        ip("addr add fd03::2/64 dev other nodad");
        ip("link set other up");
        ip("route add 10.2.0.0/24 via 10.3.0.1");
        ip("route add fd02::/64 via fd03::1");
        ip("addr add 10.2.0.100/32 dev lo");
        ip("addr add fd02::100/128 dev lo nodad");
        [&V4, &V6].into_iter().for_each(|version| serve(&version.on_vip(8080).to_string()));
    });
    for version in [&V4, &V6] {
        connect(&version.at(8080).to_string()).unwrap();
        hosts.at_server(|| connect(&version.on_vip(8080).to_string()).unwrap());
    }
    for (version, wrap) in all() {
        let out = out(&mut via, version.target(wrap));
        let none = connection(out, version.at(8080), SILENCE).map(|_| ());
        assert_eq!(none.map_err(|error| error.kind()), Err(ErrorKind::TimedOut), "{wrap:?}");
    }
}

#[test]
fn a_datagram_and_its_answer_take_the_same_way() {
    let test = "a_datagram_and_its_answer_take_the_same_way";
    let Some((hosts, mut via)) = hosts(test, true) else { return };
    for (version, wrap) in all() {
        let backend = prepare(&hosts, test, version, wrap);
        let server = hosts.at_server(|| UdpSocket::bind(version.on_vip(0)).unwrap());
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = server.recv_from(&mut buffer) {
                server.send_to(&buffer[..length], from).unwrap();
            }
        });
        let socket = out(&mut via, version.target(wrap)).datagrams(version.at(port)).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        let mut buffer = [0; 64];
        let mut ask = || {
            socket.send(b"ahoy").unwrap();
            socket.recv(&mut buffer)
        };
        // A veth that has just got a program may lose a frame.
        let answer = (0..30).find_map(|_| ask().ok());
        assert_eq!(answer, Some(4), "{version:?} {wrap:?}");
        assert_eq!(&buffer[..4], b"ahoy");
        give_back(&hosts, backend);
    }
}

/// The sum of ones' complement over these bytes (RFC 1071).
fn sum(pieces: &[&[u8]]) -> u16 {
    let pairs = pieces.iter().flat_map(|piece| piece.chunks(2));
    let words = pairs.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

fn bytes(address: &str) -> Vec<u8> {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An IP packet; what nobody can foretell is given.
fn packet(from: &str, to: &str, hops: u8, next: u8, foretold: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    if from.contains(':') {
        let [a, b, c, d] = foretold.try_into().unwrap();
        let head = [&[a, b, c, d][..], &length.to_be_bytes(), &[next, hops]].concat();
        return [head, bytes(from), bytes(to), payload.to_vec()].concat();
    }
    let [high, low] = foretold.try_into().unwrap();
    let total = (length + 20).to_be_bytes();
    let mut head = vec![0x45, 0, total[0], total[1], high, low, 0x40, 0, hops, next, 0, 0];
    head.extend([bytes(from), bytes(to)].concat());
    let check = (!sum(&[&head])).to_be_bytes();
    head[10..12].copy_from_slice(&check);
    [head, payload.to_vec()].concat()
}

/// A datagram with its checksum, for these addresses.
fn datagram(from: (&str, u16), to: (&str, u16), said: &[u8]) -> Vec<u8> {
    let length = (said.len() as u16 + 8).to_be_bytes();
    let mut head = [from.1.to_be_bytes(), to.1.to_be_bytes(), length, [0; 2]].concat();
    let pseudo = [bytes(from.0), bytes(to.0), vec![0, 17], length.to_vec()].concat();
    let check = (!sum(&[&pseudo, &head, said])).to_be_bytes();
    head[6..].copy_from_slice(&check);
    [&head, said].concat()
}

/// What is in a frame that asks from that port: all that the program writes, as it should be.
fn expected(version: &Version, wrap: Wrap, port: u16, heard: &[u8]) -> Vec<u8> {
    let is_ipv4 = version.vip.contains('.');
    let outer = match (wrap, is_ipv4) {
        (Wrap::Not, _) => 0,
        (Wrap::InIp, true) => 20,
        (Wrap::InIp, false) => 40,
        (Wrap::InUdp(_), true) => 28,
        (Wrap::InUdp(_), false) => 48,
    };
    // The identification of IPv4 and the label of IPv6.
    let foretold = if is_ipv4 { 4..6 } else { 0..4 };
    let inner = &heard[outer..][foretold];
    let said = datagram((version.own, port), (version.vip, 53), b"ahoy");
    let inner_packet = packet(version.own, version.vip, 1, 17, inner, &said);
    let label = if is_ipv4 { &[0, 0][..] } else { inner };
    let around =
        |next: u8, payload: &[u8]| packet(version.own, version.backend, 64, next, label, payload);
    match wrap {
        Wrap::Not => inner_packet,
        Wrap::InIp => around(if is_ipv4 { 4 } else { 41 }, &inner_packet),
        Wrap::InUdp(to) => {
            let length = inner_packet.len() as u16 + 8;
            let head = [(0xc000 | port & 0x3fff).to_be_bytes(), to.to_be_bytes()].concat();
            let head = [head, length.to_be_bytes().to_vec(), vec![0, 0]].concat();
            around(17, &[head, inner_packet].concat())
        }
    }
}

#[test]
fn every_byte_of_a_question_is_what_the_service_would_send() {
    let test = "every_byte_of_a_question_is_what_the_service_would_send";
    let Some((hosts, mut via)) = hosts(test, true) else { return };
    let links = hosts.at_server(|| host::facts().unwrap().links);
    let server = links.iter().find(|link| link.name == "server").unwrap().mac.unwrap();
    let sniffer = hosts.at_server(Sniffer::open);
    for (version, wrap) in all() {
        let socket = out(&mut via, version.target(wrap)).datagrams(version.at(53)).unwrap();
        socket.send(b"ahoy").unwrap();
        let port = socket.local_addr().unwrap().port();
        let asks = |frame: &[u8]| frame.windows(2).any(|pair| pair == port.to_be_bytes());
        let frame = sniffer.wait_for(|frame| frame.ends_with(b"ahoy") && asks(frame));
        assert_eq!(frame[14..], expected(version, wrap, port, &frame[14..]), "{wrap:?}");
        assert_eq!(frame[..6], server.0);
    }
}

#[test]
fn nobody_but_the_socket_that_asks_is_told_another_source() {
    let test = "nobody_but_the_socket_that_asks_is_told_another_source";
    let Some((hosts, mut via)) = hosts(test, false) else { return };
    let backend = prepare(&hosts, test, &V4, Wrap::Not);
    hosts.at_server(|| serve(&V4.on_vip(8080).to_string()));
    let out = out(&mut via, V4.target(Wrap::Not));
    let stream = connection(out, V4.at(8080), WAIT).unwrap();
    let port = stream.local_addr().unwrap();
    drop(stream);
    // The server itself announces nothing, so this host is told where the VIP is.
    let links = hosts.at_server(|| host::facts().unwrap().links);
    let mac = links.iter().find(|link| link.name == "server").unwrap().mac.unwrap();
    ip(&format!("neigh replace {} lladdr {mac} dev to-server", V4.vip));
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&port.into()).unwrap();
    socket.connect_timeout(&V4.on_vip(8080).into(), WAIT).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.write_all(b"ahoy").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), V4.on_vip(8080));
    give_back(&hosts, backend);
}

#[test]
fn who_cannot_be_asked_that_way_is_said_to_be_so_and_asked_no_other_way() {
    let test = "who_cannot_be_asked_that_way_is_said_to_be_so_and_asked_no_other_way";
    let Some((hosts, mut via)) = hosts(test, false) else { return };
    hosts.at_server(|| serve(&V4.at(8080).to_string()));
    let mut why = |backend: &str, vip: &str, wrap: Wrap| {
        let [backend, vip] = [backend, vip].map(|text| text.parse().unwrap());
        let mark = via.add(Target { vip, backend, wrap }).unwrap();
        let out = via.out(mark);
        via.remove(mark);
        out.map_err(|error| error.to_string())
    };
    ip("route add 10.9.0.0/24 via 10.2.0.2");
    let router = "a router is between, and \"dsr\" reaches neighbours only".to_owned();
    assert_eq!(why("10.9.0.9", V4.vip, Wrap::Not), Err(router));
    assert!(why("10.9.0.9", V4.vip, Wrap::InIp).is_ok());
    let no_route = Err("this host has no route to the backend".to_owned());
    assert_eq!(why("192.0.2.1", V4.vip, Wrap::InIp), no_route);
    let own = why(V4.own, V4.vip, Wrap::Not);
    assert!(own.is_err_and(|said| said.contains("run `buoy backend add 10.2.0.100`")));
    ip("addr add 10.2.0.100/32 dev lo");
    assert_eq!(why(V4.own, V4.vip, Wrap::Not), Ok(Out::Local));
    ip("addr del 10.2.0.100/32 dev lo");

    // Whoever is not there any more is not asked, on whatever address.
    let mark = via.add(V4.target(Wrap::Not)).unwrap();
    let out = via.out(mark).unwrap();
    via.remove(mark);
    let none = connection(out, V4.at(8080), SILENCE).map(|_| ());
    assert_eq!(none.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
}

//! The fast path among real hosts: TCP through it in every mode, and what outlives the process.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod echo;
mod hosts;
mod numbered;
mod packets;
mod world;

use buoy_kernel::fast::{Capacity, Fast, FastError, Mode, Neighbours};
use buoy_kernel::poll::Poller;
use buoy_kernel::{clock, host, sysctl};
use buoy_model::{FastPath, Forward, LinkId, Protocol};
use buoy_xdp::forward::Drop;
use echo::{WAIT, connect, echoes, serve};
use hosts::{Hosts, know_all};
use numbered::{Arrived, Steps, Stream};
use socket2::{Domain, Protocol as IpProtocol, Socket, Type};
use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use world::{ip, permitted, service, sources};

fn link(name: &str) -> LinkId {
    host::facts().unwrap().links.iter().find(|l| l.name == name).unwrap().id
}

/// Opened, filled, and attached to both interfaces.
fn start(path: &FastPath, links: &[LinkId]) -> Result<(Fast, Neighbours), FastError> {
    start_telling(path, links, &mut |_| ())
}

/// The same step by step.
fn start_telling(
    path: &FastPath,
    links: &[LinkId],
    tell: &mut dyn FnMut(&str),
) -> Result<(Fast, Neighbours), FastError> {
    let mut fast = Fast::open(Capacity::of(path))?;
    tell("opened");
    assert_eq!(fast.unpinned(), None);
    let mut neighbours = Neighbours::open()?;
    fast.apply(path, &mut |to| neighbours.resolve(to))?;
    tell("filled");
    for &link in links {
        assert_eq!(fast.attach(link)?, Mode::Driver);
        tell("attached");
    }
    know_all(&mut fast, &mut neighbours);
    tell("led to all backends");
    Ok((fast, neighbours))
}

fn path(forward: Forward, vips: [&str; 2], backends: [&str; 2]) -> FastPath {
    let port = (80, 80);
    let of = |n: usize| service(Protocol::Tcp, vips[n], port, forward, &[backends[n]]);
    FastPath { seed: 77, services: vec![of(0), of(1)] }
}

const LOOSE: &str = "net.ipv4.conf.to-server.rp_filter = 2";
const VIPS: [&str; 2] = ["10.1.0.100", "fd01::100"];
const TO_VIPS: [&str; 2] = ["10.1.0.100:80", "[fd01::100]:80"];

/// As on the owner. Here the server's own answers come by this host too, which they need not.
fn own_vips() {
    // Whatever the rest of the host is told.
    sysctl::write("net/ipv4/conf/all/rp_filter", "1").unwrap();
    assert!(Fast::accept_answers("to-server").unwrap().contains(&LOOSE.to_owned()));
    assert_eq!(Fast::accept_answers("to-server").unwrap(), Vec::<String>::new());
    hosts::ip("addr add 10.1.0.100/32 dev to-client");
    hosts::ip("addr add fd01::100/128 dev to-client nodad");
}

/// Three hosts, and the fast path of the one between, which owns the VIPs.
fn stand(test: &str, path: &FastPath) -> Option<(Fast, Hosts)> {
    let hosts = Hosts::new(test)?;
    let (fast, _) = permitted(test, start(path, &links()))?;
    own_vips();
    Some((fast, hosts))
}

fn links() -> [LinkId; 2] {
    [link("to-client"), link("to-server")]
}

fn dropped(fast: &Fast) -> Vec<(Drop, u64)> {
    fast.dropped().into_iter().filter(|(_, n)| *n != 0).collect()
}

#[test]
fn dsr_carries_tcp_and_the_backend_answers_the_client_itself() {
    let test = "dsr_carries_tcp_and_the_backend_answers_the_client_itself";
    let path = path(Forward::Dsr, VIPS, ["10.2.0.2:0", "[fd02::2]:0"]);
    let Some((fast, hosts)) = stand(test, &path) else { return };
    hosts.at_server(|| {
        for (vip, to) in VIPS.into_iter().zip(TO_VIPS) {
            // At once: a busy kernel looks for others with the address first, and nobody can listen meanwhile.
            let length = if vip.contains(':') { "128 dev lo nodad" } else { "32 dev lo" };
            hosts::ip(&format!("addr add {vip}/{length}"));
            serve(to);
        }
    });
    for to in TO_VIPS {
        let mut stream = hosts.at_client(|| connect(to).unwrap());
        echoes(&mut stream, 300_000);
    }
    let counters = fast.counters();
    assert!(counters.forwarded.values().all(|c| c.flows >= 1 && c.bytes > 300_000), "{counters:?}");
    assert_eq!(dropped(&fast), []);
    fast.detach();
}

#[test]
fn a_tunnelled_packet_arrives_whole_at_its_backend() {
    let test = "a_tunnelled_packet_arrives_whole_at_its_backend";
    // Where the kernel has no tunnel devices, what arrives is looked at instead.
    let path = path(Forward::Tunnel, VIPS, ["10.2.0.2:0", "[fd02::2]:0"]);
    let Some((fast, hosts)) = stand(test, &path) else { return };
    let listener = hosts.at_server(hosts::Sniffer::open);
    for (to, protocol) in TO_VIPS.into_iter().zip([4, 41]) {
        hosts.at_client(|| {
            let socket = hosts::begin(to);
            let frame = listener.wait_for(|frame| hosts::outer_protocol(frame) == Some(protocol));
            drop(socket);
            let (header, destination) = if protocol == 4 { (20, 16) } else { (40, 24) };
            let inner = &frame[14 + header..];
            let vip = packets::octets(to.parse::<SocketAddr>().unwrap().ip());
            assert_eq!(inner[destination..destination + vip.len()], vip);
        });
    }
    assert_eq!(dropped(&fast), []);
    fast.detach();
}

#[test]
fn nat_carries_tcp_and_answers_come_back_from_the_vip() {
    let test = "nat_carries_tcp_and_answers_come_back_from_the_vip";
    let path = path(Forward::Nat, VIPS, ["10.2.0.2:8080", "[fd02::2]:8080"]);
    let Some((fast, hosts)) = stand(test, &path) else { return };
    hosts.at_server(|| {
        serve("10.2.0.2:8080");
        serve("[fd02::2]:8080");
    });
    for to in TO_VIPS {
        let mut stream = hosts.at_client(|| connect(to).unwrap());
        echoes(&mut stream, 300_000);
    }
    assert_eq!(dropped(&fast), []);
    fast.detach();
}

/// The server knows no way to its clients, and the pool's addresses are neighbours of it.
#[test]
fn a_pool_needs_no_route_back_and_its_flows_go_on_in_the_next_run_and_a_larger_one() {
    let test = "a_pool_needs_no_route_back_and_its_flows_go_on_in_the_next_run_and_a_larger_one";
    let mut path = path(Forward::Nat, VIPS, ["10.2.0.2:8080", "[fd02::2]:8080"]);
    let pools = [[ip("10.2.0.50"), ip("10.2.0.51")], [ip("fd02::50"), ip("fd02::51")]];
    for (service, pool) in path.services.iter_mut().zip(&pools) {
        service.pool = pool[..1].into();
    }
    let Some((fast, hosts)) = stand(test, &path) else { return };
    for address in pools.as_flattened() {
        let (length, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
        hosts::ip(&format!("addr add {address}/{length} dev to-server{nodad}"));
    }
    hosts.at_server(|| {
        hosts::ip("route del default");
        hosts::ip("-6 route del default");
        serve("10.2.0.2:8080");
        serve("[fd02::2]:8080");
    });
    let mut streams = TO_VIPS.map(|to| hosts.at_client(|| connect(to).unwrap()));
    streams.iter_mut().for_each(|stream| echoes(stream, 300_000));
    assert_eq!(dropped(&fast), []);
    drop(fast);
    for round in 0..3 {
        if round == 2 {
            for (service, pool) in path.services.iter_mut().zip(&pools) {
                service.pool = pool[..].into();
            }
        }
        let (fast, _) = start(&path, &links()).unwrap();
        assert_eq!(fast.path(), path, "{round}");
        streams.iter_mut().for_each(|stream| echoes(stream, 10_000));
        for to in TO_VIPS {
            let mut stream = hosts.at_client(|| connect(to).unwrap());
            echoes(&mut stream, 10_000);
        }
        assert_eq!(dropped(&fast), []);
    }
    Fast::detach_earlier().unwrap();
}

#[test]
fn connections_go_on_when_one_run_follows_another() {
    let test = "connections_go_on_when_one_run_follows_another";
    let path = path(Forward::Dsr, VIPS, ["10.2.0.2:0", "[fd02::2]:0"]);
    let Some((fast, hosts)) = stand(test, &path) else { return };
    hosts.at_server(|| {
        hosts::ip("addr add 10.1.0.100/32 dev lo");
        serve("10.1.0.100:80");
    });
    let mut stream = hosts.at_client(|| connect("10.1.0.100:80").unwrap());
    echoes(&mut stream, 10_000);
    let before = fast.counters();
    drop(fast);
    // Nobody holds anything now.
    echoes(&mut stream, 10_000);
    for round in 0..4 {
        let (fast, _) = start(&path, &links()).unwrap();
        echoes(&mut stream, 10_000);
        let after = fast.counters();
        let count = |c: &buoy_kernel::fast::FastCounters| {
            c.forwarded.values().map(|c| c.packets).sum::<u64>()
        };
        // The first run's maps are taken over, and its counts with them.
        assert!(count(&after) > if round == 0 { count(&before) } else { 0 }, "round {round}");
        assert_eq!(dropped(&fast), []);
        if round % 2 == 0 {
            drop(fast);
            continue;
        }
        // Another size: other maps, and the same connection.
        let other = Capacity { slots: 1 << 19, ..Capacity::of(&path) };
        let mut next = Fast::open(other).unwrap();
        drop(fast);
        let mut neighbours = Neighbours::open().unwrap();
        next.apply(&path, &mut |to| neighbours.resolve(to)).unwrap();
        for link in links() {
            next.attach(link).unwrap();
        }
        echoes(&mut stream, 10_000);
        drop(next);
    }
    Fast::detach_earlier().unwrap();
    let deadline = clock::now() + WAIT;
    while hosts::ip("link show").contains("prog/xdp") {
        assert!(clock::now() < deadline, "the program is still there");
        Poller::new().wait(Some(clock::now() + Duration::from_millis(5))).unwrap();
    }
}

/// The agent dies and starts again, over and over, under traffic. BUOY_RESTARTS says how often.
#[test]
fn not_one_packet_is_lost_while_one_run_follows_another() {
    let test = "not_one_packet_is_lost_while_one_run_follows_another";
    let restarts = std::env::var("BUOY_RESTARTS").map_or(8, |n| n.parse().unwrap());
    let of = |port| service(Protocol::Udp, VIPS[0], (port, port), Forward::Dsr, &["10.2.0.2:0"]);
    let path = FastPath { seed: 77, services: vec![of(7), of(9)] };
    let Some((fast, hosts)) = stand(test, &path) else { return };
    let arrived = hosts.at_server(|| {
        hosts::ip("addr add 10.1.0.100/32 dev lo");
        Arrived::serve("10.1.0.100:7")
    });
    let mut run = Some(fast);
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let client =
        hosts.at_client(|| std::thread::spawn(move || Stream::send("10.1.0.100:7", &theirs)));
    let mut steps = Steps::default();
    for round in 0..restarts {
        drop(run.take());
        steps.add(format!("the end of run {round}"));
        let mut tell = |what: &str| steps.add(format!("run {} was {what}", round + 1));
        let (mut fast, mut neighbours) = start_telling(&path, &links(), &mut tell).unwrap();
        // Another table now and then, as when a backend has come meanwhile.
        let mut other = path.clone();
        other.services.truncate(2 - round % 2);
        fast.apply(&other, &mut |to| neighbours.resolve(to)).unwrap();
        tell("told of another table");
        run = Some(fast);
    }
    stop.store(true, Ordering::Relaxed);
    let stream = client.join().unwrap();
    let (sent, heard) = (stream.sent(), stream.heard.len());
    eprintln!("{restarts} restarts: {heard} of {sent} came back");
    assert!(sent > 100);
    let fast = run.unwrap();
    assert!(
        sent == heard,
        "{} of {sent} did not come back:\n{}dropped: {:?}\n{:?}\nhere: {}\nclient: {}\nserver: {}",
        sent - heard,
        stream.lost(&arrived, &steps),
        dropped(&fast),
        fast.counters().forwarded,
        numbered::counted(),
        hosts.at_client(numbered::counted),
        hosts.at_server(numbered::counted)
    );
    drop(fast);
    Fast::detach_earlier().unwrap();
}

/// What a run leaves is whole, also where it ends before the lists that it replaced could go.
#[test]
fn lists_of_clients_are_known_again_by_the_next_run() {
    let test = "lists_of_clients_are_known_again_by_the_next_run";
    let Some(_hosts) = Hosts::new(test) else { return };
    let lists: [&[&str]; 3] = [
        &["10.1.0.0/24", "!10.1.0.7/32", "fd01::/64", "!::/1"],
        &["!0.0.0.0/0", "::/0"],
        &["10.1.0.2/32"],
    ];
    let of =
        |port: u16| service(Protocol::Tcp, VIPS[0], (port, port), Forward::Dsr, &["10.2.0.2:0"]);
    let mut services: Vec<_> = (1..=4).map(of).collect();
    for (service, list) in services.iter_mut().zip(lists) {
        service.sources = sources(list);
    }
    let mut path = FastPath { seed: 77, services };
    for round in 0..3 {
        let Some((fast, _)) = permitted(test, start(&path, &[])) else { return };
        drop(fast);
        let mut fast = Fast::open(Capacity::LEAST).unwrap();
        assert_eq!(fast.path(), path, "{round}");
        // As good as known: the same again changes nothing, and another list is in force.
        fast.apply(&path, &mut |_| None).unwrap();
        path.services.rotate_left(1);
        for (port, service) in (1..).zip(&mut path.services) {
            service.ports = (port, port);
        }
        fast.apply(&path, &mut |_| None).unwrap();
        assert_eq!(fast.path(), path, "{round}");
        drop(fast);
    }
    Fast::detach_earlier().unwrap();
}

/// What XDP sends is no use of a neighbour in the kernel's eyes, so it would never ask again by itself.
#[test]
fn a_backend_that_gets_another_ethernet_address_is_found_at_it() {
    let test = "a_backend_that_gets_another_ethernet_address_is_found_at_it";
    let of = |vip, to| service(Protocol::Udp, vip, (7, 7), Forward::Dsr, &[to]);
    let services = vec![of(VIPS[0], "10.2.0.2:0"), of(VIPS[1], "[fd02::2]:0")];
    let path = FastPath { seed: 77, services };
    let Some(hosts) = Hosts::new(test) else { return };
    for family in ["ipv4", "ipv6"] {
        let of = format!("net/{family}/neigh/to-server");
        sysctl::write(&format!("{of}/base_reachable_time_ms"), "200").unwrap();
        sysctl::write(&format!("{of}/retrans_time_ms"), "50").unwrap();
        sysctl::write(&format!("{of}/delay_first_probe_time"), "1").unwrap();
    }
    let Some((mut fast, mut neighbours)) = permitted(test, start(&path, &links())) else { return };
    own_vips();
    let listener = hosts.at_server(hosts::Sniffer::open);
    for mac in [[2, 0, 0, 0, 0, 0x21], [2, 0, 0, 0, 0, 0x22]] {
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        // It says so to nobody.
        hosts.at_server(|| hosts::ip(&format!("link set server address {text}")));
        for (vip, kind) in [("10.1.0.100:7", [8, 0]), ("[fd01::100]:7", [0x86, 0xdd])] {
            let vip: SocketAddr = vip.parse().unwrap();
            let to = packets::octets(vip.ip());
            let place = if vip.is_ipv4() { 30 } else { 38 };
            let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = hosts.at_client(|| UdpSocket::bind(any).unwrap());
            let comes = |frame: &[u8]| {
                frame[..6] == mac
                    && frame[12..14] == kind
                    && frame.get(place..place + to.len()) == Some(&to)
            };
            let deadline = clock::now() + 3 * WAIT;
            let mut nothing = Poller::new();
            while !listener.has_seen(comes) {
                assert!(clock::now() < deadline, "{vip}: its packets go where the backend was");
                neighbours.read().unwrap();
                fast.refresh(&mut |to| neighbours.resolve(to));
                socket.send_to(b"?", vip).unwrap();
                nothing.wait(Some(clock::now() + Duration::from_millis(20))).unwrap();
            }
        }
    }
    fast.detach();
}

/// The peer of a veth is not woken by what the driver's XDP sends back, unless it runs XDP too.
#[test]
fn an_answer_of_the_program_itself_comes_at_once() {
    let test = "an_answer_of_the_program_itself_comes_at_once";
    let path = path(Forward::Dsr, VIPS, ["10.2.0.2:0", "[fd02::2]:0"]);
    let Some((fast, hosts)) = stand(test, &path) else { return };
    hosts.at_client(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(IpProtocol::ICMPV4)).unwrap();
        socket.set_read_timeout(Some(WAIT)).unwrap();
        let vip: SocketAddr = "10.1.0.100:0".parse().unwrap();
        let mut waits = Vec::new();
        for n in 0..20_u8 {
            // Echo request, whose sum is that of type and sequence.
            socket.send_to(&[8, 0, 0xf7, 0xff - n, 0, 0, 0, n], &vip.into()).unwrap();
            let asked = clock::now();
            let mut answer = [0; 64];
            let length = (&socket).read(&mut answer).unwrap();
            assert_eq!((length, answer[20], answer[27]), (28, 0, n));
            waits.push(clock::now().since(asked));
        }
        waits.sort_unstable();
        // It took seconds, until some other frame came by.
        assert!(waits[10] < Duration::from_millis(500), "{waits:?}");
    });
    fast.detach();
}

#[test]
fn an_interface_where_another_program_is_is_named() {
    let test = "an_interface_where_another_program_is_is_named";
    let Some(_hosts) = Hosts::new(test) else { return };
    let path = FastPath::default();
    let link = link("to-client");
    let Some(mut first) = permitted(test, Fast::open_unpinned(Capacity::of(&path))) else { return };
    assert!(first.unpinned().is_some());
    first.attach(link).unwrap();
    assert_eq!(first.attach(link), Ok(Mode::Driver));
    assert_eq!(first.attached().collect::<Vec<_>>(), [(link, Mode::Driver)]);
    let mut second = Fast::open_unpinned(Capacity::of(&path)).unwrap();
    assert_eq!(second.attach(link), Err(FastError::Occupied { link }));
    let error = second.attach(LinkId(4000)).unwrap_err();
    assert!(error.to_string().contains("interface 4000"), "{error}");
    first.detach_from(link);
    second.attach(link).unwrap();
    // Unpinned, it goes with its process.
    drop(second);
    first.attach(link).unwrap();
    first.detach();
}

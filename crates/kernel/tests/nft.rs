//! Proves on a real kernel that forwarding does what `kernel::nft` promises: own namespaces with a
//! client, two balancers and two backends on one switch.

// The whole file is tests: a failed `unwrap` is a failed test, and a skipped test must be seen.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod balancers;
mod talk;

use balancers::{
    Family, Lab, PATIENCE, answer, backend, everywhere, forward, hash, service, turns,
};
use buoy_kernel::conntrack::{self, Flows};
use buoy_kernel::nft::{self, Forward, Spread};
use buoy_model::{FlowFields, Per, Ports, Protocol, Rate, SourceAddress};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;
use talk::ip;

#[test]
fn every_family_and_protocol_is_forwarded_and_backends_see_the_vip() {
    let Some(lab) = Lab::new("every_family_and_protocol_is_forwarded") else { return };
    lab.serve();
    lab.own("a");
    // A few services of a family are compared one by one, and more are looked up.
    let few = everywhere(hash);
    let many = [few.clone(), others()].concat();
    for (forwards, connections) in [(&few, 1), (&many, 2)] {
        lab.apply(forwards);
        for family in [Family::V4, Family::V6] {
            let mut connection = lab.connect("client", service(family)).unwrap();
            assert_eq!(connection.peer, family.vip().to_string());
            assert!(connection.echoes("hello").unwrap());
            let (_, peer) = lab.ask("client", service(family)).unwrap();
            assert_eq!(peer, family.vip().to_string(), "udp {family:?}");
        }
        let observed = lab.inside("a", nft::observe).unwrap().unwrap();
        for forward in &few {
            let counts = observed.counts(forward);
            assert_eq!(counts.connections, connections, "{forward:?}");
            assert!(connections <= counts.packets && 0 < counts.bytes, "{counts:?}");
        }
    }
}

/// Five services in each family that nobody asks.
fn others() -> Vec<Forward> {
    let of = |family| {
        let service = forward(family, Protocol::Udp, hash);
        (81..86).map(move |port| Forward { ports: Ports::one(port), ..service.clone() })
    };
    [Family::V4, Family::V6].into_iter().flat_map(of).collect()
}

/// Backends by their hosts and ports, with what they have of eight slots.
const SHARES: [(u8, u16, u64); 3] = [(21, 8081, 1), (21, 8082, 2), (22, 8083, 5)];

/// Where clients of many addresses are: a /12.
const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);

#[test]
fn a_thousand_flows_and_a_hundred_thousand_are_shared_by_weight() {
    let test = "a_thousand_flows_and_a_hundred_thousand_are_shared_by_weight";
    let hash: fn(Vec<SocketAddr>) -> Spread = hash;
    let source = |slots: Vec<SocketAddr>| Spread::HashClient(slots.into(), FlowFields::Client);
    // Slots are exact, and clients fall on them by chance: 4.5 times the standard deviation. Turns are exact.
    for (spread, deviations, beside) in
        [(hash, 4.5, vec![]), (source, 4.5, vec![]), (turns, 0.0, others())]
    {
        let Some(lab) = Lab::new(test) else { return };
        lab.serve();
        lab.own("a");
        let all = SHARES.map(|(host, port, _)| SocketAddr::new(Family::V4.address(host), port));
        let slot = |n: usize| all[[0, 1, 1, 2, 2, 2, 2, 2][n % 8]];
        let forward = Forward {
            // Else flows of clients with one port would look for others, and there are not as many.
            source: SourceAddress::Client,
            spread: spread((0..256).map(slot).collect()),
            standing: all.to_vec(),
            backends: all.to_vec(),
            ..forward(Family::V4, Protocol::Udp, spread)
        };
        lab.apply(&[vec![forward], beside].concat());
        SHARES.iter().for_each(|(host, port, _)| count_at(&lab, *host, *port));
        // Each flow comes from an address of its own, most with a port that others have too.
        let client = |n: u32| {
            let address = Ipv4Addr::from_bits(CLIENTS.to_bits() | n);
            SocketAddr::from((address, 1024 + (n % 7) as u16))
        };
        let mut flows = (1..).map(client);
        let mut before = [0; 3];
        for count in [1000, 100_000_u64] {
            begin(&lab, flows.by_ref().take(count as usize));
            let counted = || SHARES.map(|(host, port, _)| counted_at(&lab, host, port));
            let got = || std::array::from_fn(|n| counted()[n] - before[n]);
            wait_for("all flows", || got().iter().sum::<u64>() == count);
            let got: [u64; 3] = got();
            for ((_, _, weight), got) in SHARES.into_iter().zip(got) {
                let (share, of) = (count * weight / 8, weight as f64 / 8.0);
                let allowed = deviations * (count as f64 * of * (1.0 - of)).sqrt();
                assert!(got.abs_diff(share) as f64 <= allowed, "{got} of {count}, not {share}");
            }
            before = counted();
        }
    }
}

/// Has a server count and drop what comes for a port.
fn count_at(lab: &Lab, host: u8, port: u16) {
    let rule = format!(
        "add table ip count\nadd counter ip count at_{port}\n\
         add chain ip count in {{ type filter hook prerouting priority raw; }}\n\
         add rule ip count in udp dport {port} counter name at_{port} drop\n"
    );
    let done = Command::new("ip")
        .args(["netns", "exec", &lab.name(&format!("s{}", host - 20)), "nft", &rule])
        .status();
    assert!(done.unwrap().success());
}

fn counted_at(lab: &Lab, host: u8, port: u16) -> u64 {
    let (server, counter) = (lab.name(&format!("s{}", host - 20)), format!("at_{port}"));
    let list = ["netns", "exec", &server, "nft", "list", "counter", "ip", "count", &counter];
    let output = Command::new("ip").args(list).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

/// A datagram of each of these clients, and no more at a time than a queue takes.
fn begin(lab: &Lab, flows: impl Iterator<Item = SocketAddr> + Send) {
    let prefix = format!("{CLIENTS}/12");
    for (host, kind, link) in [("client", "local", "lo"), ("a", "unicast", "eth0")] {
        ip(&["-n", &lab.name(host), "route", "replace", kind, &prefix, "dev", link]).unwrap();
    }
    let through = lab.socket("client", backend(Family::V4, 21)).unwrap();
    lab.inside("client", || {
        for (number, from) in flows.enumerate() {
            let socket = UdpSocket::bind(from).unwrap();
            socket.send_to(b"x", service(Family::V4)).unwrap();
            if number % 64 == 0 {
                answer(&through).unwrap();
            }
        }
    });
}

#[test]
fn a_hash_table_gives_each_backend_its_slots() {
    let Some(lab) = Lab::new("a_hash_table_gives_each_backend_its_slots") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&[forward(Family::V4, Protocol::Udp, |b| {
        hash((0..256).map(|i| b[usize::from(i % 4 == 0)]).collect())
    })]);
    let mut got = BTreeMap::<String, u32>::new();
    for _ in 0..400 {
        *got.entry(lab.ask("client", service(Family::V4)).unwrap().0).or_default() += 1;
    }
    // 3 to 1 of 400: 300 to 100, with a standard deviation of 9.
    assert!((55..=145).contains(&got["s2"]), "{got:?}");
    assert_eq!(got["s1"] + got["s2"], 400);
}

#[test]
fn turns_alternate() {
    let Some(lab) = Lab::new("turns_alternate") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&everywhere(turns));
    for family in [Family::V4, Family::V6] {
        let asked: Vec<_> =
            (0..6).map(|_| lab.connect("client", service(family)).unwrap().server).collect();
        for pair in asked.windows(2) {
            assert_ne!(pair[0], pair[1], "{family:?} {asked:?}");
        }
    }
}

#[test]
fn a_connection_goes_on_when_the_vip_moves_to_the_other_balancer() {
    let Some(lab) = Lab::new("a_connection_goes_on_when_the_vip_moves") else { return };
    lab.serve();
    lab.own("a");
    let mut forwards = everywhere(|b| hash((0..256).map(|i| b[i % 2]).collect()));
    lab.apply(&forwards);
    // What is picked up is new to conntrack, and yet no new connection.
    forwards.iter_mut().for_each(|f| f.new_connections = Rate::new(1, Per::Hour, 1));
    lab.inside("b", || nft::apply(&forwards, None).unwrap());
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        let mut open: Vec<_> =
            (0..20).map(|_| lab.connect("client", service(family)).unwrap()).collect();
        for connection in &mut open {
            assert!(connection.echoes("before").unwrap());
        }
        lab.own("b");
        for (i, connection) in open.iter_mut().enumerate() {
            assert!(connection.echoes("after").unwrap(), "{family:?} connection {i}");
        }
        // Far beyond the window that the first owner's conntrack remembers.
        for _ in 0..200 {
            assert!(open[0].echoes(&"long ".repeat(1000)).unwrap());
        }
        lab.own("a");
        for connection in &mut open {
            assert!(connection.echoes("and back").unwrap(), "{family:?}");
        }
    }
}

#[test]
fn a_backend_that_speaks_first_after_a_failover_is_not_reset() {
    let Some(lab) = Lab::new("a_backend_that_speaks_first_after_a_failover") else { return };
    let mut guarded = 0;
    lab.own("a");
    lab.apply(&everywhere(hash));
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        let listeners: Vec<_> = [("s1", 21), ("s2", 22)]
            .map(|(server, number)| {
                lab.inside(server, || TcpListener::bind(backend(family, number)).unwrap())
            })
            .into();
        let mut client = lab
            .inside("client", || TcpStream::connect_timeout(&service(family), PATIENCE))
            .unwrap();
        let mut server = accept_any(&listeners);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        lab.own("b");
        server.write_all(b"news").unwrap();
        let before = guarded;
        wait_for("the guard to drop the answer", || {
            guarded = lab.inside("b", nft::observe).unwrap().unwrap().guarded();
            before < guarded
        });
        assert_eq!(resets(&lab, "b"), 0, "{family:?}");
        assert!(server.take_error().unwrap().is_none(), "{family:?}");
        client.write_all(b"y").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut news = [0; 4];
        client.read_exact(&mut news).unwrap();
        assert_eq!(&news, b"news", "{family:?}");
        server.read_exact(&mut [0]).unwrap();
    }
}

/// Segments that this host's own kernel reset.
fn resets(lab: &Lab, host: &str) -> u64 {
    let text = lab.inside(host, || std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|l| l.starts_with("Tcp:"))
        .map(|l| l.split_whitespace().collect())
        .collect();
    let column = rows[0].iter().position(|c| *c == "OutRsts").unwrap();
    rows[1][column].parse().unwrap()
}

fn accept_any(listeners: &[TcpListener]) -> TcpStream {
    let mut found = None;
    wait_for("a backend to be asked", || {
        found = listeners.iter().find_map(|l| {
            l.set_nonblocking(true).unwrap();
            l.accept().ok()
        });
        found.is_some()
    });
    let (stream, _) = found.unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_backend_that_leaves_takes_no_connection_and_breaks_none() {
    let Some(lab) = Lab::new("a_backend_that_leaves_breaks_no_connection") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&[forward(Family::V4, Protocol::Tcp, turns)]);
    let mut open: Vec<_> =
        (0..4).map(|_| lab.connect("client", service(Family::V4)).unwrap()).collect();
    assert!(open.iter().any(|c| c.server == "s1") && open.iter().any(|c| c.server == "s2"));
    lab.apply(&[forward(Family::V4, Protocol::Tcp, |b| turns(vec![b[1]]))]);
    for connection in &mut open {
        assert!(connection.echoes("still here").unwrap(), "{}", connection.server);
    }
    for _ in 0..4 {
        assert_eq!(lab.connect("client", service(Family::V4)).unwrap().server, "s2");
    }
}

#[test]
fn connections_that_are_over_are_not_counted_as_open() {
    let Some(lab) = Lab::new("connections_that_are_over_are_not_counted") else { return };
    lab.serve();
    lab.own("a");
    for family in [Family::V4, Family::V6] {
        lab.apply(&[forward(family, Protocol::Tcp, |b| turns(vec![b[0]]))]);
        let (vip, ports) = (service(family).ip(), Ports::one(service(family).port()));
        let of =
            |host| Flows { protocol: Protocol::Tcp, vip, ports, backend: backend(family, host) };
        let count = || lab.inside("a", || conntrack::count(&[of(22), of(21)]).unwrap());
        let mut open: Vec<_> =
            (0..5).map(|_| lab.connect("client", service(family)).unwrap()).collect();
        assert_eq!(count(), [0, 5], "{family:?}");
        open.truncate(2);
        wait_for("three to be over", || count() == [0, 2]);
        assert!(open[1].echoes("still here").unwrap());
        // What is over is forgotten with the others.
        let forgotten = lab.inside("a", || conntrack::forget(&of(21)).unwrap());
        assert_eq!((forgotten, count()), (5, vec![0, 0]), "{family:?}");
    }
}

#[test]
fn a_udp_client_that_keeps_its_port_leaves_a_dead_backend_when_told() {
    let Some(lab) = Lab::new("a_udp_client_that_keeps_its_port_leaves_a_dead_backend") else {
        return;
    };
    lab.serve();
    lab.own("a");
    for family in [Family::V4, Family::V6] {
        let only = |spread: fn(Vec<SocketAddr>) -> Spread| [forward(family, Protocol::Udp, spread)];
        lab.apply(&only(|b| turns(vec![b[0]])));
        let client = lab.socket("client", service(family)).unwrap();
        let other = lab.socket("client", service(family)).unwrap();
        assert_eq!(answer(&client).unwrap().0, "s1");
        assert_eq!(answer(&other).unwrap().0, "s1");
        lab.apply(&only(|b| turns(vec![b[1]])));
        assert_eq!(answer(&client).unwrap().0, "s1", "conntrack keeps the flow");
        let (service, s1, s2) = (service(family), backend(family, 21), backend(family, 22));
        let flows = |backend| Flows {
            protocol: Protocol::Udp,
            vip: service.ip(),
            ports: Ports::one(service.port()),
            backend,
        };
        let forget = |flows| lab.inside("a", || conntrack::forget(&flows).unwrap());
        assert_eq!(forget(flows(s2)), 0, "nobody is there yet");
        assert_eq!(forget(flows(s1)), 2);
        assert_eq!(answer(&client).unwrap().0, "s2");
        assert_eq!(answer(&other).unwrap().0, "s2");
        assert_eq!(forget(flows(s1)), 0);
    }
}

#[test]
fn a_service_without_backends_refuses_at_once_and_counts_it() {
    let Some(lab) = Lab::new("a_service_without_backends_refuses_at_once") else { return };
    lab.own("a");
    let forwards = everywhere(|_| Spread::Refuse);
    lab.apply(&forwards);
    for family in [Family::V4, Family::V6] {
        let tcp = lab.connect("client", service(family)).err().unwrap();
        assert_eq!(tcp.kind(), ErrorKind::ConnectionRefused, "tcp {family:?}");
        let udp = lab.ask("client", service(family)).err().unwrap();
        assert_eq!(udp.kind(), ErrorKind::ConnectionRefused, "udp {family:?}");
    }
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    for forward in &forwards {
        assert_eq!(observed.counts(forward).refused, 1, "{forward:?}");
    }
}

#[test]
fn a_backend_sees_the_client_itself_when_asked_to_and_after_a_failover() {
    let Some(lab) = Lab::new("a_backend_sees_the_client_itself") else { return };
    lab.serve();
    lab.own("a");
    // The condition of `source = "client"`: answers are routed through the VIP's owner.
    for server in ["s1", "s2"] {
        let name = lab.name(server);
        ip(&["-n", &name, "route", "add", "10.9.0.1/32", "via", "10.9.0.100"]).unwrap();
    }
    let mut wanted = forward(Family::V4, Protocol::Tcp, hash);
    wanted.source = SourceAddress::Client;
    lab.apply(&[wanted]);
    let mut open: Vec<_> =
        (0..10).map(|_| lab.connect("client", service(Family::V4)).unwrap()).collect();
    for connection in &mut open {
        assert_eq!(connection.peer, "10.9.0.1");
        assert!(connection.echoes("hello").unwrap());
    }
    lab.own("b");
    for connection in &mut open {
        assert!(connection.echoes("after").unwrap());
    }
}

#[test]
fn an_answer_under_way_reaches_its_client_through_the_old_owner() {
    let Some(lab) = Lab::new("an_answer_under_way_reaches_its_client") else { return };
    for family in [Family::V4, Family::V6] {
        lab.own("a");
        lab.apply(&everywhere(hash));
        let other = |host| {
            let mut forwards = everywhere(hash);
            let is_its = |f: &&mut Forward| f.vip == family.vip();
            forwards.iter_mut().filter(is_its).for_each(|f| f.relays = vec![family.address(host)]);
            forwards
        };
        lab.inside("a", || nft::apply(&other(12), None).unwrap());
        lab.inside("b", || nft::apply(&other(11), None).unwrap());
        let listeners: Vec<_> = [("s1", 21), ("s2", 22)]
            .map(|(server, number)| {
                lab.inside(server, || TcpListener::bind(backend(family, number)).unwrap())
            })
            .into();
        let mut client = lab
            .inside("client", || TcpStream::connect_timeout(&service(family), PATIENCE))
            .unwrap();
        let mut server = accept_any(&listeners);
        client.write_all(b"x").unwrap();
        server.read_exact(&mut [0]).unwrap();
        lab.own("b");
        // The client has nothing to say, so only the old owner knows whose answer this is.
        server.write_all(b"news").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut news = [0; 4];
        client.read_exact(&mut news).unwrap();
        assert_eq!(&news, b"news", "{family:?}");
    }
}

#[test]
fn the_balancers_reach_their_own_services() {
    let Some(lab) = Lab::new("the_balancers_reach_their_own_services") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&everywhere(hash));
    for family in [Family::V4, Family::V6] {
        for balancer in ["a", "b"] {
            let mut connection = lab.connect(balancer, service(family)).unwrap();
            assert!(connection.echoes("hello").unwrap(), "{family:?} {balancer}");
        }
    }
}

#[test]
fn a_backend_that_is_a_client_too_is_served() {
    let Some(lab) = Lab::new("a_backend_that_is_a_client_too_is_served") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&everywhere(turns));
    for family in [Family::V4, Family::V6] {
        for _ in 0..2 {
            assert!(lab.connect("s1", service(family)).unwrap().echoes("hello").unwrap());
        }
    }
}

#[test]
fn counters_outlive_a_change_and_the_last_service_takes_the_table_along() {
    let Some(lab) = Lab::new("counters_outlive_a_change") else { return };
    lab.serve();
    lab.own("a");
    let all = everywhere(hash);
    lab.apply(&all);
    lab.ask("client", service(Family::V4)).unwrap();
    let udp = &all[1];
    lab.apply(&all[..2]);
    lab.apply(&all[..2]);
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    assert_eq!(observed.counts(udp).connections, 1);
    lab.apply(&[]);
    assert!(lab.inside("a", nft::observe).unwrap().is_none());
    lab.apply(&[]);
}

#[test]
fn a_table_of_another_version_is_replaced() {
    let Some(lab) = Lab::new("a_table_of_another_version_is_replaced") else { return };
    lab.serve();
    lab.own("a");
    lab.inside("a", || {
        let old = "table inet buoy {\nchain guard {\ntype filter hook forward priority 7;\n}\n}";
        let status = Command::new("nft").arg(old).status().unwrap();
        assert!(status.success());
    });
    lab.apply(&everywhere(hash));
    assert!(lab.connect("client", service(Family::V4)).is_ok());
}

#[test]
fn forwarding_is_switched_on_once_and_said() {
    let Some(lab) = Lab::new("forwarding_is_switched_on_once_and_said") else { return };
    let (first, second) = lab.inside("a", || {
        // A new namespace may inherit the host's settings.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "0").unwrap();
        std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_ra", "1").unwrap();
        let first = nft::enable_forwarding(true, true).unwrap();
        let ra = std::fs::read_to_string("/proc/sys/net/ipv6/conf/eth0/accept_ra").unwrap();
        assert_eq!(ra.trim(), "2", "a router that needs advertisements keeps listening");
        (first, nft::enable_forwarding(true, true).unwrap())
    });
    assert!(first.contains(&"net.ipv4.ip_forward was 0, now 1".to_owned()), "{first:?}");
    assert!(first.contains(&"net.ipv6.conf.all.forwarding was 0, now 1".to_owned()), "{first:?}");
    assert!(second.is_empty(), "{second:?}");
    assert!(lab.inside("a", nft::pickup_problem).is_none());
}

//! What decides which backend a new connection gets, with real agents: what a backend asks for itself, and a quorum.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ClusterStatus;
use buoy_lab::backend::Backend;
use buoy_lab::namespace::Namespace;
use buoy_lab::probe::http::{Figures, HttpProbe};
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use buoy_lab::topology::Topology;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::{LEASE, LOCAL, MS, SOON, VIP, cluster, running, wait_for};

const SAYS_PORT: u16 = 8100;

/// What a backend says of itself by HAProxy's agent protocol, to whoever asks.
#[derive(Clone)]
struct Word(Arc<Mutex<&'static str>>);

impl Word {
    fn said_in(inside: &Namespace) -> Self {
        let word = Self(Arc::new(Mutex::new("up")));
        let listener = inside.enter(|| TcpListener::bind(("0.0.0.0", SAYS_PORT))).unwrap().unwrap();
        let said = word.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = writeln!(stream, "{}", said.0.lock().unwrap());
            }
        });
        word
    }

    fn set(&self, word: &'static str) {
        *self.0.lock().unwrap() = word;
    }
}

#[test]
fn a_backend_that_asks_for_a_drain_keeps_its_connections_and_gets_no_more() {
    let test = "a_backend_that_asks_for_a_drain_keeps_its_connections_and_gets_no_more";
    for mode in ["kernel", "proxy"] {
        let service = |port: u16| {
            format!(
                "[[vip.service]]\nport = \"{port}/tcp\"\nmode = \"{mode}\"\n\
                 backends = [\"web1 10.77.0.21:{port}\", \"web2 10.77.0.22:{port}\"]\n\
                 check = {{ agent = true, port = {SAYS_PORT}, every = \"100ms\" }}\n"
            )
        };
        let services = format!("{LOCAL}{}{}", service(HTTP_PORT), service(ECHO_PORT));
        let Some(cluster) = cluster(test, 3, &services) else { return };
        let words =
            ["web1", "web2"].map(|name| Word::said_in(cluster.segment.inside(name).unwrap()));
        let observer = cluster.observer(&[VIP]);
        cluster.wait_answerer(&observer, VIP);
        let client = cluster.segment.inside("client").unwrap();
        let http = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 5 * MS).unwrap();
        let both = |f: &Figures| f.by.contains_key("web1") && f.by.contains_key("web2");
        wait_for(&http, "both to be asked", both);
        let tcp = TcpProbe::start(client, (VIP, ECHO_PORT).into(), 40).unwrap();
        let opened = Instant::now();
        wait_until(SOON, "lines", || Ok(tcp.figures(opened).survived == 40)).unwrap();
        let kept = tcp.alive_at("web1");
        assert!(0 < kept && kept < 40, "both backends have connections");

        words[0].set("drain");
        wait_for(&http, "web1 to get nothing", |f| !f.by.contains_key("web1") && f.lost == 0);
        assert_eq!(tcp.alive_at("web1"), kept, "{mode}: connections of the drained one");
        // A tenth of its weight is little, and not nothing.
        words[0].set("10%");
        wait_for(&http, "web1 to get a little", |f| {
            f.by.get("web1").is_some_and(|n| 4 * n < f.by["web2"]) && f.lost == 0
        });
        words[0].set("up 100%");
        wait_for(&http, "web1 to get its share", |f| {
            f.by.get("web1").is_some_and(|n| 2 * n > f.by["web2"])
        });
        assert_eq!(tcp.alive_at("web1"), kept, "{mode}: connections of the drained one");
    }
}

#[test]
fn a_backend_that_says_its_load_takes_less_in_all_engines_and_all_nodes_know_it() {
    let test = "a_backend_that_says_its_load_takes_less_in_all_engines_and_all_nodes_know_it";
    let service = |port: u16, mode: &str| {
        format!(
            "[[vip.service]]\nport = \"{port}/tcp\"\nmode = \"{mode}\"\n\
             backends = [\"web1 10.77.0.21:80\", \"web2 10.77.0.22:80\"]\n\
             check = {{ http = \"GET /\", load = \"header X-Load\", every = \"200ms\" }}\n"
        )
    };
    let services = format!("{LOCAL}{}{}", service(80, "kernel"), service(8080, "proxy"));
    let Some(mut cluster) = cluster(test, 3, &services) else { return };
    for (name, load) in [("web1", 90), ("web2", 0)] {
        cluster.segment.backend(name).unwrap().set_load(load);
    }
    let observer = cluster.observer(&[VIP]);
    cluster.wait_answerer(&observer, VIP);
    let client = cluster.segment.inside("client").unwrap();
    let probes =
        [80, 8080].map(|port| HttpProbe::start(client, (VIP, port).into(), 5 * MS).unwrap());
    for http in &probes {
        wait_for(http, "web1 to get little", |f| {
            f.by.get("web1").is_some_and(|n| 2 * n < f.by["web2"]) && f.lost == 0
        });
    }
    let is_low = |status: &ClusterStatus| {
        let services = status.vips.iter().flat_map(|vip| &vip.services);
        services.map(|service| &service.backends[0]).all(|web1| {
            web1.share.is_some_and(|share| share < 50)
                && web1.reason.contains("% (load 90 % says X-Load)")
        })
    };
    for node in ["n1", "n2", "n3"] {
        cluster.buoy.wait_status(node, SOON, "the share of web1", is_low).unwrap();
    }
    cluster.segment.backend("web1").unwrap().set_load(0);
    for http in &probes {
        wait_for(http, "web1 to get its share again", |f| {
            f.by.get("web1").is_some_and(|n| 3 * n > 2 * f.by["web2"]) && f.lost == 0
        });
    }
}

#[test]
fn below_its_quorum_a_service_takes_its_backup() {
    let test = "below_its_quorum_a_service_takes_its_backup";
    for mode in ["kernel", "proxy"] {
        let services = format!(
            "{LOCAL}[[vip.service]]\nport = \"80/tcp\"\nmode = \"{mode}\"\nquorum = 2\n\
             backends = [\"web1 10.77.0.21:80\", \"web2 10.77.0.22:80\", \"sorry 10.77.0.23:80 backup\"]\n\
             check = {{ tcp = true, every = \"100ms\", fall = 1, rise = 1 }}\n"
        );
        let Some(mut cluster) = cluster(test, 3, &services) else { return };
        let inside = cluster.segment.inside("web2").unwrap();
        inside.ip("addr add 10.77.0.23/24 dev eth0").unwrap();
        let sorry = [Ipv4Addr::new(10, 77, 0, 23).into()];
        let _sorry = Backend::start_at(inside, "sorry", &sorry).unwrap();
        let observer = cluster.observer(&[VIP]);
        cluster.wait_answerer(&observer, VIP);
        let client = cluster.segment.inside("client").unwrap();
        let http = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 5 * MS).unwrap();
        let are = |f: &Figures, names: &[&str]| f.by.keys().eq(names) && f.lost == 0;
        wait_for(&http, "its backends alone", |f| are(f, &["web1", "web2"]));
        cluster.segment.backend("web1").unwrap().set_listening(false);
        wait_for(&http, "the backup alone", |f| are(f, &["sorry"]));
        cluster.segment.backend("web1").unwrap().set_listening(true);
        wait_for(&http, "its backends again", |f| are(f, &["web1", "web2"]));
    }
}

#[test]
fn a_host_that_sees_fewer_than_its_quorum_gives_the_vip_to_one_that_sees_them() {
    let test = "a_host_that_sees_fewer_than_its_quorum_gives_the_vip_to_one_that_sees_them";
    let services = format!(
        "{LOCAL}[[vip.service]]\nport = \"80/tcp\"\nquorum = 2\n\
         backends = [\"web1 10.77.0.21:80\", \"web2 10.77.0.22:80\"]\n\
         check = {{ tcp = true, every = \"300ms\", fall = 1, rise = 1 }}\n"
    );
    let Some(cluster) = cluster(test, 3, &services) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let client = cluster.segment.inside("client").unwrap();
    let http = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 5 * MS).unwrap();
    let are_both = |f: &Figures| f.by.keys().eq(["web1", "web2"]) && f.lost == 0;
    wait_for(&http, "both backends", are_both);
    let inside = cluster.segment.inside(&owner).unwrap();
    inside.ip("route add unreachable 10.77.0.21/32").unwrap();
    cluster.wait_other(&observer, VIP, &owner);
    wait_for(&http, "both backends again", are_both);
}

/// Answers every question for an IPv4 address with these, on port 53 and with a TTL of a second; none: is silent.
#[derive(Clone)]
struct NameServer(Arc<Mutex<Vec<[u8; 4]>>>);

impl NameServer {
    fn in_namespace(inside: &Namespace, all: &[[u8; 4]]) -> Self {
        let server = Self(Arc::new(Mutex::new(all.to_vec())));
        let socket = inside.enter(|| UdpSocket::bind("0.0.0.0:53")).unwrap().unwrap();
        let known = server.clone();
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut bytes = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                let addresses = known.0.lock().unwrap().clone();
                if !addresses.is_empty() {
                    let _ = socket.send_to(&Self::answer(&bytes[..length], &addresses), from);
                }
            }
        });
        server
    }

    /// The question again, then a record for each address (RFC 1035 section 4.1).
    fn answer(question: &[u8], addresses: &[[u8; 4]]) -> Vec<u8> {
        let end = 12 + question[12..].iter().position(|b| *b == 0).unwrap() + 5;
        let mut out = question[..2].to_vec();
        out.extend([0x81, 0x80, 0, 1, 0, u8::try_from(addresses.len()).unwrap(), 0, 0, 0, 0]);
        out.extend(&question[12..end]);
        for address in addresses {
            out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            out.extend(address);
        }
        out
    }

    fn set(&self, all: &[[u8; 4]]) {
        *self.0.lock().unwrap() = all.to_vec();
    }
}

#[test]
fn backends_of_a_name_and_of_a_file_come_and_go_and_stay_when_nobody_answers() {
    let test = "backends_of_a_name_and_of_a_file_come_and_go_and_stay_when_nobody_answers";
    let file = std::env::temp_dir().join(format!("buoy-lab-{}.backends", std::process::id()));
    std::fs::write(&file, "web1 10.77.0.21:80 # the first\n").unwrap();
    let services = format!(
        "{LOCAL}[[vip.service]]\nport = \"80/tcp\"\n\
         backends = [\"file:{}\", \"dns:more.example.org:80\"]\n\
         check = {{ tcp = true, every = \"100ms\" }}\n",
        file.display()
    );
    // The client's host has the name server.
    let top = format!("{LEASE}resolvers = \"10.77.0.50\"\n");
    let Some(cluster) = running(test, Topology::with_nodes(3), &top, &services) else { return };
    let client = cluster.segment.inside("client").unwrap();
    let names = NameServer::in_namespace(client, &[]);
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let http = HttpProbe::start(client, (VIP, HTTP_PORT).into(), 5 * MS).unwrap();
    let only = |f: &Figures, all: &[&str]| {
        f.lost == 0 && f.by.len() == all.len() && all.iter().all(|name| f.by.contains_key(*name))
    };
    wait_for(&http, "web1 alone", |f| only(f, &["web1"]));
    names.set(&[[10, 77, 0, 22]]);
    wait_for(&http, "web2 as well", |f| only(f, &["web1", "web2"]));
    std::fs::write(&file, "web1 10.77.0.21:80 weight=0\n").unwrap();
    wait_for(&http, "web2 alone", |f| only(f, &["web2"]));

    // Nobody answers and the file is wrong: what was found stays, and it is said.
    names.set(&[]);
    std::fs::write(&file, "web1 10.77.0.21:80\nnonsense\n").unwrap();
    wait_until(SOON, "both problems to be said", || {
        let status = cluster.buoy.status(&owner)?;
        let said = |words: &str| status.problems.iter().any(|problem| problem.contains(words));
        Ok(said("\"nonsense\" is not a backend") && said("the name servers do not answer"))
    })
    .unwrap();
    wait_for(&http, "the same as before", |f| only(f, &["web2"]));
    std::fs::remove_file(&file).unwrap();
}

//! What decides which backend a new connection gets, with real agents: what a backend asks for itself, and a quorum.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::backend::Backend;
use buoy_lab::namespace::Namespace;
use buoy_lab::probe::http::{Figures, HttpProbe};
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::{LOCAL, MS, SOON, VIP, cluster, since};

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

/// Requests until these were answered as they should be; those before are not counted.
fn wait_for(http: &HttpProbe, what: &str, is_it: impl Fn(&Figures) -> bool) {
    let mut from = Instant::now();
    wait_until(SOON, what, || {
        let figures = http.figures(since(from));
        let done = figures.sent > 60 && is_it(&figures);
        if figures.sent > 60 && !done {
            from = Instant::now();
        }
        Ok(done)
    })
    .unwrap();
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

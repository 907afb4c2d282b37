//! `accept = false` on the wire: the owner answers for the address and forwards for it, and takes no packet to it.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_kernel::ping;
use buoy_lab::namespace::Namespace;
use buoy_lab::peer::Peer as _;
use buoy_lab::probe::http;
use buoy_lab::process::wait_until;
use buoy_lab::topology::{ipv4, ipv6};
use buoy_wire::answer::echo::{Echo, MESSAGE_MAX};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use support::{MS, SOON, VIP, cluster, prepared};

/// As long as an answer on this segment may take.
const PATIENCE: Duration = Duration::from_millis(500);

/// Whether a ping is answered.
fn is_answering(inside: &Namespace, to: IpAddr) -> bool {
    let ask = move || {
        let socket = ping::open(to).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let echo = Echo::new(to, *b"buoy");
        socket.send(&echo.question()).unwrap();
        let mut heard = [0; MESSAGE_MAX];
        // Other messages of that host may come before the answer.
        while let Ok(length) = socket.recv(&mut heard) {
            if echo.is_answer(&heard[..length]) {
                return true;
            }
        }
        false
    };
    inside.enter(ask).unwrap()
}

fn vip(accept: &str) -> String {
    format!(
        "[[vip]]\nname = \"web\"\naddress = [\"10.77.0.100/24\", \"fd77::100/64\"]\n\
         vrrp = {{ id = 51, interval = \"300ms\"{accept} }}\n\
         [[vip.service]]\nport = \"80/tcp\"\nbackends = [\"web1 10.77.0.21:80\", \"web3 [fd77::21]:80\"]\n"
    )
}

#[test]
fn without_accept_a_ping_is_not_answered_while_services_and_neighbours_are() {
    let test = "without_accept_a_ping_is_not_answered_while_services_and_neighbours_are";
    let Some(mut cluster) = cluster(test, 1, &vip(", accept = false")) else { return };
    let observer = cluster.observer(&[VIP]);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
    let (v4, v6) = (IpAddr::from(VIP), IpAddr::from(ipv6(100)));
    {
        let client = cluster.segment.inside("client").unwrap();
        for vip in [v4, v6] {
            let served = || Ok(http::get(client, (vip, 80).into(), 200 * MS).is_ok());
            wait_until(SOON, "the service to be forwarded", served).unwrap();
            assert!(!is_answering(client, vip), "{vip} answers a ping");
        }
        assert!(is_answering(client, ipv4(11).into()), "the host has addresses of its own");
        // The neighbour is asked anew, by unicast too: what must not be dropped.
        for line in ["neigh flush dev eth0", "-6 neigh flush dev eth0"] {
            client.ip(line).unwrap();
        }
        for vip in [v4, v6] {
            http::get(client, (vip, 80).into(), SOON).unwrap();
        }
    }
    let owner = cluster.segment.inside("n1").unwrap();
    assert!(is_answering(owner, v4), "what the owner sends to itself does not come from outside");
    // Somebody flushes everything: it comes back.
    owner.nft("flush ruleset").unwrap();
    let client = cluster.segment.inside("client").unwrap();
    wait_until(SOON, "the drop to come back", || Ok(!is_answering(client, v4))).unwrap();
    let head = support::config_head(&cluster.segment.topology);
    cluster.buoy.write_config("n1", &format!("{head}{}", vip(""))).unwrap();
    cluster.buoy.reload("n1").unwrap();
    let client = cluster.segment.inside("client").unwrap();
    for vip in [v4, v6] {
        wait_until(SOON, "an answer to a ping", || Ok(is_answering(client, vip))).unwrap();
    }
}

/// Pings without a pause, of several addresses, for as long as it is wanted.
#[derive(Default)]
struct Flood {
    over: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
}

impl Flood {
    /// In the namespace of the thread that calls it.
    fn run(&self, to: &[IpAddr]) {
        let open = |to: &IpAddr| {
            let socket = ping::open(*to).unwrap();
            socket.set_nonblocking(true).unwrap();
            (socket, Echo::new(*to, *b"buoy"))
        };
        let sockets: Vec<_> = to.iter().map(open).collect();
        let mut heard = [0; MESSAGE_MAX];
        while !self.over.load(Ordering::Relaxed) {
            for (socket, echo) in &sockets {
                // What the kernel refuses to send, or has no room for, is not a ping.
                if socket.send(&echo.question()).is_ok() {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                }
                while let Ok(length) = socket.recv(&mut heard) {
                    let is_answer = echo.is_answer(&heard[..length]);
                    self.answered.fetch_add(is_answer.into(), Ordering::Relaxed);
                }
            }
        }
    }
}

/// VIPs of which none accepts packets; each is owned 30 ms after it is there.
fn quick(hosts: &[u8], accept: bool) -> String {
    hosts.iter().fold(String::new(), |mut text, host| {
        let _ = write!(
            text,
            "[[vip]]\nname = \"v{host}\"\naddress = \"10.77.0.{host}/24\"\n\
             vrrp = {{ id = {host}, interval = \"10ms\", accept = {accept} }}\n"
        );
        text
    })
}

#[test]
fn no_packet_gets_through_while_an_agent_starts_or_reads_its_file_again() {
    let test = "no_packet_gets_through_while_an_agent_starts_or_reads_its_file_again";
    let Some(mut cluster) = prepared(test, 1, &quick(&[100], false)) else { return };
    let head = support::config_head(&cluster.segment.topology);
    let client = cluster.segment.inside("client").unwrap();
    // Packets are there from the first moment on, and not only once the address was announced.
    let link = cluster.segment.inside("n1").unwrap().ip("-oneline link show dev eth0").unwrap();
    let mac = link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
    let vips = [100, 101].map(|host| Ipv4Addr::new(10, 77, 0, host));
    for vip in vips {
        client.ip(&format!("neigh replace {vip} lladdr {mac} nud permanent dev eth0")).unwrap();
    }
    let flood = Flood::default();
    let all = vips.map(IpAddr::from);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| client.enter(|| flood.run(&all)).unwrap());
        let rounds = || {
            cluster.buoy.start(&cluster.segment, "n1").unwrap();
            for round in 0..20 {
                // With each the table is another one; 101 comes with the first.
                let hosts: &[u8] = if round % 2 == 0 { &[100, 101, 102] } else { &[100, 101] };
                cluster.buoy.write_config("n1", &format!("{head}{}", quick(hosts, false))).unwrap();
                cluster.buoy.reload("n1").unwrap();
                let own = |status: &buoy_api::ClusterStatus| {
                    let owned = status.vips.iter().filter(|vip| vip.mine).count();
                    (status.vips.len(), owned) == (hosts.len(), hosts.len())
                };
                cluster.buoy.wait_status("n1", SOON, "all of them to be owned", own).unwrap();
            }
            let (sent, answered) = (&flood.sent, &flood.answered);
            assert!(sent.load(Ordering::Relaxed) > 1000, "a flood");
            assert_eq!(answered.load(Ordering::Relaxed), 0, "of {sent:?}");
            // The same flood is answered where packets are taken.
            cluster.buoy.write_config("n1", &format!("{head}{}", quick(&[100], true))).unwrap();
            cluster.buoy.reload("n1").unwrap();
            let is_answered = || Ok(answered.load(Ordering::Relaxed) > 0);
            wait_until(SOON, "an answer to a ping", is_answered).unwrap();
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        flood.over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

//! `accept = false` on the wire: the owner answers for the address and forwards for it, and takes no packet to it.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_kernel::ping::{self, Echo, MESSAGE_MAX};
use buoy_lab::namespace::Namespace;
use buoy_lab::probe::http;
use buoy_lab::process::wait_until;
use buoy_lab::topology::{ipv4, ipv6};
use std::net::IpAddr;
use std::time::Duration;
use support::{MS, SOON, VIP, cluster};

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

//! A backend that lets nobody in and has no check, in mode "xdp", where nobody sees its answers: with a real agent.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::probe::http::{Figures, HttpProbe};
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use support::{Cluster, LEASE, LOCAL, MS, SOON, VIP, prepared_on, wait_for};

/// What is said of web1.
fn said(cluster: &Cluster) -> String {
    let status = cluster.buoy.status("n1").unwrap();
    status.vips[0].services[0].backends[0].reason.clone()
}

#[test]
fn a_backend_that_lets_nobody_in_is_left_alone_and_gets_another_chance() {
    let test = "a_backend_that_lets_nobody_in_is_left_alone_and_gets_another_chance";
    let service = "[[vip.service]]\nport = \"80/tcp\"\nforward = \"nat\"\ncheck = false\n\
                   eject_after = 3\neject_time = \"2s\"\n\
                   backends = [\"web1 10.77.0.21:80\", \"web2 10.77.0.22:80\"]\n";
    let vips = format!("{LOCAL}{service}");
    let Some(mut cluster) = prepared_on(test, Topology::with_nodes(1), LEASE, &vips) else {
        return;
    };
    cluster.segment.suit_xdp().unwrap();
    for name in ["web1", "web2"] {
        let inside = cluster.segment.inside(name).unwrap();
        inside.ip(&format!("route add 10.77.0.50/32 via {VIP}")).unwrap();
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    let client = cluster.segment.inside("client").unwrap();
    let http = HttpProbe::start(client, (VIP, 80).into(), 5 * MS).unwrap();
    let both = |f: &Figures| f.by.len() == 2 && f.lost == 0;
    wait_for(&http, "both", both);
    let is_out = |cluster: &Cluster| said(cluster).contains("left alone");
    assert!(!is_out(&cluster), "{}", said(&cluster));

    cluster.segment.backend("web1").unwrap().set_listening(false);
    wait_until(SOON, "web1 to be left alone", || Ok(is_out(&cluster))).unwrap();
    wait_for(&http, "web2 alone", |f| f.by.keys().eq(["web2"]) && f.lost == 0);
    let ejections = |cluster: &Cluster| {
        let counters = cluster.buoy.status("n1").unwrap().loop_.counters;
        counters.get("xdp_ejections").copied().unwrap_or_default()
    };
    assert!(ejections(&cluster) >= 1);

    // When its time is over it fails again, and is left alone for longer.
    wait_until(2 * SOON, "the second time", || Ok(ejections(&cluster) >= 2)).unwrap();
    cluster.segment.backend("web1").unwrap().set_listening(true);
    wait_until(4 * SOON, "web1 to be trusted", || Ok(!is_out(&cluster))).unwrap();
    wait_for(&http, "both again", both);
}

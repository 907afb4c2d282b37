//! VIPs with one `group` move together, and each keeps its own backends.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::http::HttpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::HTTP_PORT;
use buoy_lab::topology::ipv4;
use std::time::Instant;
use support::{MS, SOON, VIP, cluster};

const VIPS: &str = "
[[vip]]
name = \"first\"
address = \"10.77.0.100/24\"
group = \"edge\"
[[vip.service]]
port = \"80/tcp\"
backends = [\"web 10.77.0.21:80\"]
[[vip]]
name = \"second\"
address = \"10.77.0.101/24\"
group = \"edge\"
[[vip.service]]
port = \"80/tcp\"
backends = [\"web 10.77.0.22:80\"]
";

#[test]
fn vips_of_one_group_move_together_and_keep_their_own_backends() {
    let test = "vips_of_one_group_move_together_and_keep_their_own_backends";
    let Some(mut cluster) = cluster(test, 3, VIPS) else { return };
    let second = ipv4(101);
    let observer = cluster.observer(&[VIP, second]);
    let owner = cluster.wait_answerer(&observer, VIP);
    assert_eq!(cluster.wait_answerer(&observer, second), owner);

    let client = cluster.segment.inside("client").unwrap();
    let probes = [(VIP, "web1"), (second, "web2")].map(|(vip, server)| {
        let at = (std::net::IpAddr::from(vip), HTTP_PORT).into();
        (HttpProbe::start(client, at, 5 * MS).unwrap(), server)
    });
    let each_has_its_own = || {
        for (probe, server) in &probes {
            let from = Instant::now();
            let answers = || probe.figures(Window { from, to: Instant::now() }).by;
            wait_until(SOON, "20 answers", || Ok(answers().values().sum::<usize>() > 20)).unwrap();
            assert_eq!(answers().keys().collect::<Vec<_>>(), [server]);
        }
    };
    each_has_its_own();

    cluster.buoy.drain(&owner, true).unwrap();
    let other = cluster.wait_other(&observer, VIP, &owner);
    assert_eq!(cluster.wait_other(&observer, second, &owner), other);
    each_has_its_own();

    // One backend is gone, and the other VIP is served as before.
    cluster.segment.backend("web1").unwrap().set_listening(false);
    let from = Instant::now();
    let (probe, _) = &probes[1];
    let answers = || probe.figures(Window { from, to: Instant::now() });
    wait_until(SOON, "50 answers", || Ok(answers().sent > 50)).unwrap();
    assert_eq!(answers().lost, 0);
}

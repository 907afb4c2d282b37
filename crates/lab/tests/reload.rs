//! A change of the file changes what it names and nothing else; a bad file changes nothing at all.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ClusterStatus;
use buoy_lab::peer::Peer;
use buoy_lab::probe::Window;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use buoy_lab::topology::ipv4;
use std::time::Instant;
use support::{Cluster, LOCAL, MS, SERVICES, SOON, VIP, cluster, config_head, watch};

const SECOND: &str = "[[vip]]\nname = \"second\"\naddress = \"10.77.0.101/24\"\n";

/// Nobody listens there.
const DEAD: &str = "[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"dead 10.77.0.21:9\"]\n\
                    check = { tcp = true, every = \"300ms\", fall = 1, rise = 1 }\n";

fn reload_all(cluster: &mut Cluster, vips: &str) {
    let config = format!("{}{vips}", config_head(&cluster.segment.topology));
    for node in cluster.buoy.nodes() {
        cluster.buoy.write_config(node, &config).unwrap();
        cluster.buoy.reload(node).unwrap();
    }
}

#[test]
fn a_new_vip_does_not_disturb_another() {
    let test = "a_new_vip_does_not_disturb_another";
    let Some(mut cluster) = cluster(test, 3, &format!("{LOCAL}{SERVICES}")) else { return };
    let observer = cluster.observer(&[VIP, ipv4(101)]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let client = cluster.segment.inside("client").unwrap();
    let probe = UdpProbe::start(client, (VIP, ECHO_PORT).into()).unwrap();
    wait_until(SOON, "a stream", || Ok(300 * MS < probe.well_for())).unwrap();

    let from = Instant::now();
    reload_all(&mut cluster, &format!("{LOCAL}{SERVICES}{SECOND}"));
    cluster.wait_answerer(&observer, ipv4(101));
    reload_all(&mut cluster, &format!("{LOCAL}{SERVICES}"));
    wait_until(SOON, "the second VIP to go", || {
        let lately = Window { from: Instant::now() - 100 * MS, to: Instant::now() };
        Ok(observer.answers(ipv4(101), lately).is_empty())
    })
    .unwrap();
    watch(&observer, 300);

    let window = Window { from, to: Instant::now() - 100 * MS };
    let figures = probe.figures(window);
    assert_eq!(figures.lost, 0, "{figures:?}");
    let mac = cluster.segment.host(&owner).unwrap().mac();
    assert_eq!(observer.changes(VIP, window, Some(mac)), [], "the owner stayed");
}

#[test]
fn an_invalid_file_leaves_the_running_one_and_says_so() {
    let test = "an_invalid_file_leaves_the_running_one_and_says_so";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let before = cluster.buoy.status(&owner).unwrap();
    let from = Instant::now();
    let bad = "[[vip]]\nname = \"web\"\nadress = \"10.77.0.300/24\"\n";
    let config = format!("{}{bad}", config_head(&cluster.segment.topology));
    cluster.buoy.write_config(&owner, &config).unwrap();
    cluster.buoy.reload(&owner).unwrap();
    let log = cluster.buoy.log(&owner);
    wait_until(SOON, "a word in the log", || {
        Ok(std::fs::read_to_string(&log).unwrap_or_default().contains("adress"))
    })
    .unwrap();
    let said = cluster.buoy.client(&owner).unwrap().reload().unwrap_err().to_string();
    assert!(said.contains("adress") && said.contains("address"), "{said}");

    watch(&observer, 300);
    let after = cluster.buoy.status(&owner).unwrap();
    assert_eq!((after.generation, &after.digest), (before.generation, &before.digest));
    let mac = cluster.segment.host(&owner).unwrap().mac();
    let window = Window { from, to: Instant::now() };
    assert_eq!(observer.changes(VIP, window, Some(mac)), []);
}

#[test]
fn a_vip_that_leaves_the_file_leaves_the_interface() {
    let test = "a_vip_that_leaves_the_file_leaves_the_interface";
    let Some(mut cluster) = cluster(test, 3, &format!("{LOCAL}{SECOND}")) else { return };
    let observer = cluster.observer(&[VIP, ipv4(101)]);
    let owner = cluster.wait_answerer(&observer, ipv4(101));
    reload_all(&mut cluster, LOCAL);
    wait_until(SOON, "the address to go", || Ok(!cluster.has_address(&owner, "10.77.0.101")))
        .unwrap();
    cluster.wait_answerer(&observer, VIP);
}

#[test]
fn a_service_that_nobody_serves_moves_nothing_while_its_file_goes_from_host_to_host() {
    let test = "a_service_that_nobody_serves_moves_nothing_while_its_file_goes_from_host_to_host";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let owner = cluster.buoy.owner("n1", "web").unwrap();
    let epoch = cluster.buoy.status(&owner).unwrap().vips[0].epoch;
    let config = format!("{}{LOCAL}{DEAD}", config_head(&cluster.segment.topology));
    let mut nodes = cluster.buoy.nodes();
    nodes.sort_by_key(|node| **node != *owner);
    for node in nodes {
        cluster.buoy.write_config(node, &config).unwrap();
        cluster.buoy.reload(node).unwrap();
        let is_down = |status: &ClusterStatus| {
            let services = status.vips.iter().flat_map(|vip| &vip.services);
            let mut backends = services.flat_map(|service| &service.backends);
            backends.any(|backend| backend.state == "down")
        };
        cluster.buoy.wait_status(node, SOON, "the backend to be down", is_down).unwrap();
        // Longer than the others are waited for: one `every`.
        let since = Instant::now();
        wait_until(SOON, "some rounds", || Ok(1200 * MS < since.elapsed())).unwrap();
        assert_eq!(cluster.buoy.owner(node, "web").as_ref(), Some(&owner), "{node} has it too");
    }
    assert_eq!(cluster.buoy.status(&owner).unwrap().vips[0].epoch, epoch);
}

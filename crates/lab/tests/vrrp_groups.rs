//! VRRP on the wire where more than the priority decides: VIPs that move together, and a delay before a better one
//! takes over.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::skip;
use buoy_lab::speaker::Speaker;
use buoy_lab::topology::Topology;
use std::time::{Duration, Instant};
use support::{Cluster, SOON, prepared_on};

const HEAD: &str = "peers = { n1 = \"10.77.0.11\" }\nsecret = \"file:cluster.key\"\n";
const VIPS: [&str; 2] = ["10.77.0.100", "10.77.0.101"];

/// Buoy on `n1` and keepalived on `n2`, both not started. They speak every second: a machine that stands still for a while
/// must not look like a silence.
fn pair(test: &str) -> Option<(Cluster, Speaker)> {
    let keepalived = match Speaker::keepalived("n2") {
        Ok(keepalived) => keepalived,
        Err(error) => {
            skip(test, &error.to_string());
            return None;
        }
    };
    Some((prepared_on(test, Topology::with_nodes(2), "", "")?, keepalived))
}

/// The inside of a `vrrp_instance`.
fn instance(id: u8, vip: &str, priority: u8) -> String {
    format!(
        "  version 3\n  state BACKUP\n  interface eth0\n  virtual_router_id {id}\n  priority {priority}\n  \
         advert_int 1\n  virtual_ipaddress {{\n    {vip}/24 dev eth0\n  }}\n"
    )
}

fn start_buoy(cluster: &mut Cluster, vips: &str) {
    cluster.buoy.write_config("n1", &format!("{HEAD}{vips}")).unwrap();
    cluster.buoy.start(&cluster.segment, "n1").unwrap();
}

fn wait_holder(cluster: &Cluster, vips: &[&str], holder: &str, when: &str) {
    for vip in vips {
        let holders = || -> Vec<&str> {
            ["n1", "n2"].into_iter().filter(|node| cluster.has_address(node, vip)).collect()
        };
        let waited = wait_until(SOON, "", || Ok(holders() == [holder]));
        assert!(waited.is_ok(), "{when}: {vip} is on {:?}, not on {holder}", holders());
    }
}

#[test]
fn a_group_stays_together_whatever_is_said_of_each_of_its_routers() {
    let test = "a_group_stays_together_whatever_is_said_of_each_of_its_routers";
    let Some((mut cluster, mut keepalived)) = pair(test) else { return };
    let vip = |id: u8, vip: &str| {
        format!(
            "[[vip]]\nname = \"v{id}\"\ngroup = \"both\"\naddress = \"{vip}/24\"\nfailback = \"now\"\n\
             vrrp = {{ id = {id}, interval = \"1s\" }}\n"
        )
    };
    start_buoy(&mut cluster, &format!("{}{}", vip(51, VIPS[0]), vip(52, VIPS[1])));
    wait_holder(&cluster, &VIPS, "n1", "alone");
    // Better than Buoy at one, worse at the other: both go.
    let instances = [instance(51, VIPS[0], 150), instance(52, VIPS[1], 50)];
    keepalived.start(&cluster.segment, &instances).unwrap();
    wait_holder(&cluster, &VIPS, "n2", "keepalived is better at one of them");
    let stays = Instant::now() + Duration::from_secs(5);
    while Instant::now() < stays {
        assert!(VIPS.iter().all(|vip| !cluster.has_address("n1", vip)), "one came back alone");
    }
    // Worse at both.
    let instances = [instance(51, VIPS[0], 50), instance(52, VIPS[1], 50)];
    keepalived.stop().unwrap();
    keepalived.start(&cluster.segment, &instances).unwrap();
    wait_holder(&cluster, &VIPS, "n1", "keepalived is worse at both of them");
}

#[test]
fn a_better_one_that_is_told_to_wait_waits() {
    let test = "a_better_one_that_is_told_to_wait_waits";
    let Some((mut cluster, mut keepalived)) = pair(test) else { return };
    keepalived.start(&cluster.segment, &[instance(51, VIPS[0], 50)]).unwrap();
    wait_holder(&cluster, &VIPS[..1], "n2", "keepalived alone");
    let delay = Duration::from_secs(6);
    let from = Instant::now();
    start_buoy(
        &mut cluster,
        &format!(
            "[[vip]]\nname = \"web\"\naddress = \"{}/24\"\nfailback = \"6s\"\n\
             vrrp = {{ id = 51, interval = \"1s\", priority = 200 }}\n",
            VIPS[0]
        ),
    );
    wait_until(SOON, "the better one", || Ok(cluster.has_address("n1", VIPS[0]))).unwrap();
    assert!(delay <= from.elapsed(), "after {:?}", from.elapsed());
    wait_holder(&cluster, &VIPS[..1], "n1", "after the delay");
}

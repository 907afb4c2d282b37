//! Hundreds of checks whose servers mean harm, beside heartbeats: the address stays, and each backend says its reason.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_api::ClusterStatus;
use buoy_lab::harm::{self, EACH, EVERY, HARMS};
use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::{Cluster, LOCAL, SOON, prepared_on};

/// How long the address is watched after all have said their reasons.
const WATCHED: Duration = Duration::from_secs(5);

/// The backends of each kind that are down, and say why: those that say what their kind does, and those that say
/// anything else. One whose turn comes late on a busy machine is timed out.
fn down(status: &ClusterStatus) -> [Vec<String>; 2] {
    let mut all = [vec![], vec![]];
    for (service, harm) in status.vips.iter().flat_map(|vip| &vip.services).zip(&HARMS) {
        for backend in service.backends.iter().filter(|b| b.state == "down" && !b.reason.is_empty())
        {
            let other = usize::from(backend.reason != harm.reason);
            all[other].push(format!("{} of {}", backend.name, harm.reason));
        }
    }
    all
}

#[test]
fn hundreds_of_checks_that_meet_harm_move_no_address_and_each_says_its_reason() {
    let test = "hundreds_of_checks_that_meet_harm_move_no_address_and_each_says_its_reason";
    // A machine that stands still is no matter of checks.
    let lease = "lease = \"1s\"\n";
    let cluster =
        prepared_on(test, Topology::with_nodes(3), lease, &(LOCAL.to_owned() + &harm::services()));
    let Some(mut cluster) = cluster else { return };
    let _servers = harm::Servers::start(&cluster.segment).unwrap();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
    }
    let epochs = |cluster: &Cluster| {
        let of = |node| cluster.buoy.status(node).unwrap().vips[0].epoch;
        cluster.buoy.nodes().into_iter().map(of).collect::<Vec<_>>()
    };
    let number = HARMS.len() * usize::from(EACH);
    for node in cluster.buoy.nodes() {
        let mut said = BTreeSet::new();
        let waited = wait_until(2 * SOON, "all reasons", || {
            said.extend(down(&cluster.buoy.status(node).unwrap())[0].drain(..));
            Ok(said.len() == number)
        });
        assert!(waited.is_ok(), "{node}: {} of {number}: {said:?}", said.len());
    }
    let owner = cluster.buoy.owner("n1", "web").unwrap();
    let (before, begun) = (epochs(&cluster), Instant::now());
    wait_until(SOON, "some rounds", || Ok(WATCHED.max(4 * EVERY) < begun.elapsed())).unwrap();
    assert_eq!(epochs(&cluster), before);
    for node in cluster.buoy.nodes() {
        assert_eq!(cluster.buoy.owner(node, "web").as_ref(), Some(&owner), "{node}");
        let [said, otherwise] = down(&cluster.buoy.status(node).unwrap());
        assert_eq!(said.len() + otherwise.len(), number, "{node}: {otherwise:?}");
    }
}

//! The gate: a host whose agent stands still does not serve an address that another may have.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::fault::Fault;
use buoy_lab::probe::udp::UdpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::LOCAL_PORT;
use buoy_lab::topology::format_mac;
use std::time::Instant;
use support::{LOCAL, MS, SOON, VIP, cluster, since};

#[test]
fn a_frozen_host_stops_serving_before_another_answers() {
    let test = "a_frozen_host_stops_serving_before_another_answers";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let mac = cluster.segment.host(&owner).unwrap().mac();
    // This client believes nobody any more: whatever it sends goes to the first owner.
    let client = cluster.segment.inside("client").unwrap();
    let believed = format_mac(mac);
    client.ip(&format!("neigh replace {VIP} lladdr {believed} dev eth0 nud permanent")).unwrap();
    let stream = UdpProbe::start(client, (VIP, LOCAL_PORT).into()).unwrap();
    wait_until(SOON, "a stream", || Ok(100 * MS < stream.well_for())).unwrap();

    let from = Instant::now();
    // The agent and its supervisor: only the gate is left.
    Fault::Freeze.inject(&cluster.segment, &mut cluster.buoy, &owner).unwrap();
    let other = cluster.wait_other(&observer, VIP, &owner);
    wait_until(SOON, "questions after the takeover", || Ok(stream.figures(since(from)).lost > 200))
        .unwrap();
    let answers = observer.answers(VIP, since(from));
    let taken_over = answers.iter().find(|a| a.mac != mac).unwrap().heard;
    let last = stream.last_answer_by(&owner, since(from)).unwrap_or(from);
    assert!(
        last < taken_over,
        "the frozen {owner} still answered {:?} after {other} had the address",
        last - taken_over
    );
    assert_eq!(observer.answered_by_two(VIP, since(from)), []);
}

//! Who hears whom, told by each node and gathered by one, with real agents and a path that works one way only.

mod support;

use buoy_api::{HeardView, MatrixReply, RouterView};
use buoy_lab::fault::Fault;
use buoy_lab::process::wait_until;
use support::{Cluster, LOCAL, SOON, cluster};

fn matrix(cluster: &Cluster) -> MatrixReply {
    cluster.buoy.client("n1").expect("n1 runs").matrix().expect("n1 answers")
}

fn hears(reply: &MatrixReply, from: &str, to: &str) -> Option<HeardView> {
    let row = reply.rows.iter().find(|row| row.node == from)?;
    row.hears.iter().find(|heard| heard.node == to).cloned()
}

#[test]
fn one_node_gathers_who_hears_whom_and_a_one_way_path_between_two_others_is_seen() {
    let test = "one_node_gathers_who_hears_whom_and_a_one_way_path_between_two_others_is_seen";
    let Some(mut cluster) = cluster(test, 3, LOCAL) else { return };
    let nodes = ["n1", "n2", "n3"];
    let pairs = || nodes.iter().flat_map(|from| nodes.iter().map(move |to| (*from, *to)));
    wait_until(SOON, "all to hear each other without loss", || {
        let reply = matrix(&cluster);
        let well =
            |heard: HeardView| heard.alive && heard.answers && heard.loss_percent == Some(0.0);
        Ok(pairs()
            .filter(|(from, to)| from != to)
            .all(|(from, to)| hears(&reply, from, to).is_some_and(well)))
    })
    .expect("the matrix is whole");

    // Nothing of n2 comes in at n3 by the protocol; by TCP n3 is asked as before.
    let from = cluster.segment.host("n2").expect("n2 is there").ipv4();
    let rules = format!(
        "add table inet oneway\n\
         add chain inet oneway input {{ type filter hook input priority 0; }}\n\
         add rule inet oneway input ip saddr {from} meta l4proto udp drop\n"
    );
    cluster.segment.inside("n3").and_then(|inside| inside.nft(&rules)).expect("nft takes it");
    wait_until(SOON, "n1 to see that n3 does not hear n2, which hears n3", || {
        let reply = matrix(&cluster);
        let deaf = hears(&reply, "n3", "n2").is_some_and(|heard| !heard.alive);
        let back = hears(&reply, "n2", "n3").is_some_and(|heard| heard.alive && !heard.answers);
        let others = hears(&reply, "n3", "n1").is_some_and(|heard| heard.alive);
        Ok(deaf && back && others)
    })
    .expect("the path is seen to work one way");

    // Of a node that is dead nothing is known, and that is said.
    Fault::Kill.inject(&cluster.segment, &mut cluster.buoy, "n2").expect("n2 runs");
    wait_until(SOON, "n2's row to be unknown", || {
        let reply = matrix(&cluster);
        let row = reply.rows.iter().find(|row| row.node == "n2");
        Ok(row.is_some_and(|row| row.unknown.is_some() && row.hears.is_empty()))
    })
    .expect("its row is unknown");
}

/// One VIP whose owner is decided by VRRP.
const ROUTED: &str = "[[vip]]\nname = \"web\"\naddress = \"10.77.0.100/24\"\ninterface = \"eth0\"\n\
                      vrrp = { id = 51, interval = \"100ms\" }\n";

#[test]
fn one_node_gathers_the_virtual_routers_of_all_and_whom_each_has_heard() {
    let test = "one_node_gathers_the_virtual_routers_of_all_and_whom_each_has_heard";
    let Some(cluster) = cluster(test, 3, ROUTED) else { return };
    wait_until(SOON, "one active router, which the others hear", || {
        let reply = matrix(&cluster);
        let routers: Vec<(&str, &RouterView)> = reply
            .rows
            .iter()
            .flat_map(|row| row.vrrp.iter().map(move |vip| (row.node.as_str(), vip)))
            .filter(|(_, vip)| vip.vip == "web")
            .filter_map(|(node, vip)| Some((node, vip.routers.first()?)))
            .collect();
        let Some((active, _)) = routers.iter().find(|(_, router)| router.state == "active") else {
            return Ok(false);
        };
        let source = cluster.segment.host(active)?.ipv4().to_string();
        let backs = routers.iter().filter(|(_, router)| {
            let heard = router.heard.as_ref().is_some_and(|heard| heard.source == source);
            router.state == "backup" && heard && router.priority > 0
        });
        Ok(routers.len() == 3 && backs.count() == 2)
    })
    .expect("all rows have their router");
}

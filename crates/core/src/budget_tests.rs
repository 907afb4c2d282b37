//! Small clusters in which owners come and go: does every node know for how long each group was served, and by how much
//! leases were renewed in time?

use super::*;
use crate::Uptime;

fn uptime(cluster: &Cluster, i: usize) -> Uptime {
    cluster.nodes[i].status(cluster.now).groups[0].uptime.expect("no VRRP")
}

#[test]
fn every_node_knows_for_how_long_nobody_served() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        let owner = cluster.owner(0);
        let others: Vec<usize> = (0..3).filter(|i| *i != owner).collect();
        for i in 0..3 {
            let seen = uptime(&cluster, i);
            assert!(seen.served > LEASE, "{i}: {seen:?}");
            assert_eq!((seen.unserved, seen.gaps.count()), (Duration::ZERO, 0), "{i}: {seen:?}");
        }
        // It is silent: that was noticed late, and counts from when it was heard last.
        cluster.cut = vec![owner];
        cluster.settle();
        for i in &others {
            let seen = uptime(&cluster, *i);
            let gaps: Vec<Duration> = seen.gaps.latest().collect();
            assert_eq!(gaps, [seen.unserved], "{i}: {seen:?}");
            assert!(LEASE / 2 < seen.unserved && seen.unserved < LEASE * 2, "{i}: {seen:?}");
            assert_eq!(seen.unknown, Duration::ZERO);
        }
        // A planned move leaves no gap behind on who takes part, and hardly one on who looks on.
        let (now, before) = (cluster.owner_of(&others), uptime(&cluster, others[0]));
        let reason = String::from("kernel update");
        cluster.give(now, Event::Order(Order::Drain { reason, until: None }));
        cluster.settle();
        let gained = uptime(&cluster, others[0]).unserved.saturating_sub(before.unserved);
        assert!(gained < BEAT, "{gained:?}");
    }
}

#[test]
fn who_hears_no_majority_does_not_know() {
    let mut cluster = Cluster::new(3, 1, Safety::Exclusive);
    cluster.settle();
    let lonely = cluster.other(0);
    cluster.cut = vec![lonely];
    cluster.settle();
    let seen = uptime(&cluster, lonely);
    assert!(seen.unknown > LEASE, "{seen:?}");
    assert_eq!((seen.unserved, seen.gaps.count()), (Duration::ZERO, 0));
    cluster.cut.clear();
    cluster.settle();
    let (again, owner) = (uptime(&cluster, lonely), uptime(&cluster, cluster.owner(0)));
    assert!(again.served > seen.served, "it knows again: {again:?}");
    assert_eq!((again.gaps.count(), owner.gaps.count()), (0, 0), "it was served all the time");
}

#[test]
fn an_owner_knows_what_was_left_of_its_lease() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        cluster.run(LEASE_MAX);
        let owner = cluster.owner(0);
        let slack = |i: usize| cluster.nodes[i].status(cluster.now).groups[0].slack;
        let known = slack(owner).expect("it was renewed");
        // Renewed with each beat, over a perfect wire: all but one beat is left, and what clocks may differ by.
        let whole = LEASE - BEAT - LEASE / 64;
        assert!(whole - BEAT <= known.least && known.least <= known.last, "{known:?}");
        assert!(known.last <= LEASE, "{known:?}");
        assert_eq!(slack(cluster.other(0)), None);
    }
}

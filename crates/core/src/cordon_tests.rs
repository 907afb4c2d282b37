//! Nodes that keep what they have and take nothing: do the others go on as if they were not in the way?

use super::*;

fn cordon() -> Order {
    Order::Cordon { reason: "disk".into() }
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_takes_nothing_that_another_can_take() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = cluster(4, 8, safety, eager);
        cluster.settle();
        assert_eq!(counts(&cluster, 8), [2, 2, 2, 2], "{safety:?}");
        cluster.done.clear();
        order(&mut cluster, 0, cordon());
        run_and_agree(&mut cluster, SECOND * 2);
        assert_eq!((counts(&cluster, 8), acquisitions(&cluster)), (vec![2, 2, 2, 2], 0));
        let told = Fact::Cordoned { reason: "disk".into() };
        assert!(facts(&cluster, 0).contains(&&told));
        order(&mut cluster, 1, Order::Drain { reason: "x".into(), until: None });
        run_and_agree(&mut cluster, SECOND * 3);
        assert_eq!(counts(&cluster, 8), [2, 0, 3, 3], "{safety:?}: none goes to it");
        let id =
            (0..8).find(|g| cluster.owner(*g) == 2).map(|g| cluster.nodes[0].desired.groups[g].id);
        let refused = cluster.nodes[2].can_follow(cluster.now, &moves(id.unwrap(), 0)).unwrap_err();
        assert!(refused.to_string().contains("only if nobody else can"), "{refused}");
        let of_another = (0..8).find(|g| cluster.owner(*g) == 2).unwrap();
        let (status, lb1) = (cluster.nodes[0].status(cluster.now), NodeId::of("lb1"));
        let line = &status.groups[of_another].candidates;
        let own = line.iter().find(|c| c.node == lb1).map(|c| &c.standing);
        assert_eq!(own, Some(&Standing::Excluded(Exclusion::Cordoned)));
        assert_eq!(status.cordoned.as_deref(), Some("disk"));
        // The drained one is back, and the others fill it up though the cordoned one gives it nothing.
        order(&mut cluster, 1, Order::Undrain { reason: "done".into() });
        run_and_agree(&mut cluster, SECOND * 5);
        assert_eq!(counts(&cluster, 8), [2, 2, 2, 2], "{safety:?}");
    }
}

#[test]
fn others_share_out_evenly_though_the_fullest_is_cordoned() {
    let mut cluster = cluster(3, 9, Safety::Exclusive, eager);
    for other in [1, 2] {
        cluster.give(other, Event::Order(Order::Drain { reason: "x".into(), until: None }));
    }
    cluster.settle();
    assert_eq!(counts(&cluster, 9), [9, 0, 0]);
    order(&mut cluster, 1, Order::Undrain { reason: "done".into() });
    run_and_agree(&mut cluster, SECOND * 5);
    assert_eq!(counts(&cluster, 9), [5, 4, 0]);
    order(&mut cluster, 0, cordon());
    order(&mut cluster, 2, Order::Undrain { reason: "done".into() });
    run_and_agree(&mut cluster, SECOND * 5);
    assert_eq!(counts(&cluster, 9), [5, 2, 2], "the cordoned one keeps all of its own");
    let seen = cluster.nodes[1].status(cluster.now);
    let by_it = |group: &&crate::GroupStatus| group.owner == Some(NodeId::of("lb1"));
    assert!(seen.groups.iter().filter(by_it).all(|g| g.held.is_some()), "others see it as kept");
    order(&mut cluster, 0, Order::Uncordon { reason: "done".into() });
    run_and_agree(&mut cluster, SECOND * 8);
    assert_eq!(counts(&cluster, 9), [3, 3, 3]);
    assert!(facts(&cluster, 0).contains(&&Fact::Uncordoned { reason: "done".into() }));
}

#[test]
fn a_cordoned_node_takes_what_nobody_else_can_and_a_failure_moves_what_it_has() {
    let mut cluster = cluster(3, 1, Safety::Exclusive, prefers_first);
    cluster.settle();
    assert_eq!(cluster.owner(0), 0);
    order(&mut cluster, 0, cordon());
    let group = cluster.nodes[0].desired.groups[0].id;
    cluster.give(0, Event::Fitness { group, fitness: Fitness::NoBackend });
    run_and_agree(&mut cluster, SECOND);
    let second = cluster.owner(0);
    assert_ne!(second, 0, "it sees no backend, and others do");
    cluster.give(0, Event::Fitness { group, fitness: Fitness::Fit });
    run_and_agree(&mut cluster, SECOND * 30);
    assert_eq!(cluster.owner(0), second, "preferred, and cordoned");
    for other in [1, 2] {
        order(&mut cluster, other, Order::Drain { reason: "x".into(), until: None });
    }
    run_and_agree(&mut cluster, SECOND);
    assert_eq!(cluster.owner(0), 0, "better there than nowhere");
}

#[test]
fn who_keeps_what_it_has_is_no_reason_for_others_to_stay_together() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = cluster(3, 5, safety, |d| {
            eager(d);
            d.groups.iter_mut().for_each(|g| g.apart = Some("dns".into()));
        });
        for other in [1, 2] {
            cluster.give(other, Event::Order(Order::Drain { reason: "x".into(), until: None }));
        }
        cluster.settle();
        assert_eq!(counts(&cluster, 5), [5, 0, 0]);
        order(&mut cluster, 1, Order::Undrain { reason: "done".into() });
        run_and_agree(&mut cluster, SECOND * 5);
        assert_eq!(counts(&cluster, 5), [3, 2, 0]);
        // The first one has the most, and gives nothing: the second one must.
        order(&mut cluster, 0, cordon());
        order(&mut cluster, 2, Order::Undrain { reason: "done".into() });
        run_and_agree(&mut cluster, SECOND * 5);
        assert_eq!(counts(&cluster, 5), [3, 1, 1], "{safety:?}");
        order(&mut cluster, 0, Order::Uncordon { reason: "done".into() });
        run_and_agree(&mut cluster, SECOND * 5);
        assert_eq!(counts(&cluster, 5), [2, 2, 1], "{safety:?}");
    }
}

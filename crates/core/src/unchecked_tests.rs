//! What is not known yet of backends moves nothing, and is no reason to be the one who gets a group.

use super::*;

#[test]
fn who_has_not_checked_its_backends_keeps_a_group_and_draws_none() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        let owner = cluster.owner(0);
        let (second, third) = ((owner + 1) % 3, (owner + 2) % 3);
        let group = cluster.nodes[0].desired.groups[0].id;
        let is = |fitness| Event::Fitness { group, fitness };
        // A service is new: the owner knows last that one of its backends is up.
        for node in [owner, second, third] {
            cluster.give(node, is(Fitness::Unchecked));
        }
        assert_eq!(own_standing(&cluster, second), Standing::Excluded(Exclusion::Unchecked));
        cluster.give(second, is(Fitness::Fit));
        cluster.run(SECOND * 3);
        assert_eq!(cluster.owner(0), owner, "{safety:?}: it may be about to know it too");
        // It finds none, and of the others one knows that there is one.
        cluster.give(owner, is(Fitness::NoBackend));
        cluster.run(LEASE * 2);
        assert_eq!(cluster.owner(0), second, "{safety:?}: the one that sees backends");
    }
}

#[test]
fn a_service_whose_backends_are_all_dead_moves_nothing_however_late_others_find_it() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        let owner = cluster.owner(0);
        let group = cluster.nodes[0].desired.groups[0].id;
        let is = |fitness| Event::Fitness { group, fitness };
        for node in 0..3 {
            cluster.give(node, is(Fitness::Unchecked));
        }
        for late in 0..3 {
            cluster.give((owner + late) % 3, is(Fitness::NoBackend));
            cluster.run(SECOND * 5);
            assert_eq!(cluster.owner(0), owner, "{safety:?}, {late}: nobody is known to be better");
        }
    }
}

#[test]
fn rather_one_that_has_not_checked_its_backends_than_none() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        let group = cluster.nodes[0].desired.groups[0].id;
        for node in 0..3 {
            cluster.give(node, Event::Fitness { group, fitness: Fitness::Unchecked });
        }
        cluster.settle();
        let first = cluster.owner(0);
        cluster.cut = vec![first];
        cluster.run(LEASE * 3);
        assert_ne!(cluster.owners(0), [first], "{safety:?}");
    }
}

/// The same cluster's file with a service more.
fn reload_with_a_service(cluster: &mut Cluster, node: usize, safety: Safety) {
    let mut wider = desired(3, 1, safety, node);
    asks_every(&mut wider, SECOND);
    wider.digest += 1;
    cluster.give(node, Event::Reload(Arc::new(wider)));
}

#[test]
fn who_has_another_file_is_no_better_for_a_service_whose_backends_never_were_up() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        let owner = cluster.owner(0);
        let others = [(owner + 1) % 3, (owner + 2) % 3];
        let group = cluster.nodes[0].desired.groups[0].id;
        let is = |fitness| Event::Fitness { group, fitness };
        for node in 0..3 {
            cluster.give(node, is(Fitness::Fit));
        }
        // The owner has a service more, whose backends are down; the others have the file before and lack nothing.
        reload_with_a_service(&mut cluster, owner, safety);
        cluster.give(owner, is(Fitness::NoBackend));
        cluster.run(SECOND * 5);
        assert_eq!(cluster.owner(0), owner, "{safety:?}: they do not have the service");
        // They get it, and what they found of their backends before says nothing any more.
        for node in others {
            reload_with_a_service(&mut cluster, node, safety);
            cluster.run(SECOND * 5);
            assert_eq!(cluster.owner(0), owner, "{safety:?}: nobody has checked it yet");
        }
        cluster.give(others[0], is(Fitness::Fit));
        cluster.run(LEASE * 2);
        assert_eq!(cluster.owner(0), others[0], "{safety:?}: the one that sees backends");
    }
}

#[test]
fn what_was_served_and_is_lost_goes_to_who_has_another_file_too() {
    for safety in [Safety::Exclusive, Safety::Available] {
        let mut cluster = Cluster::new(3, 1, safety);
        cluster.settle();
        let owner = cluster.owner(0);
        let group = cluster.nodes[0].desired.groups[0].id;
        reload_with_a_service(&mut cluster, owner, safety);
        for fitness in [Fitness::Fit, Fitness::NoBackend] {
            cluster.give(owner, Event::Fitness { group, fitness });
        }
        cluster.run(SECOND * 2);
        assert_ne!(cluster.owner(0), owner, "{safety:?}: hosts are upgraded one by one");
    }
}

//! An operator has the neighbours told again: does the owner do so at once, and nobody else?

use super::*;

#[test]
fn an_owner_tells_the_neighbours_again_when_it_is_ordered_to_and_nobody_else_does() {
    let mut cluster = cluster(3, 2, Safety::Exclusive, prefers_first);
    cluster.settle();
    // Past the announcements of the takeover, long before the next one of its own accord.
    cluster.run(SECOND * 30);
    let group = cluster.nodes[0].desired.groups[0].id;
    let announce = || Order::Announce { group, reason: "a new switch".into() };
    let announced = |cluster: &Cluster| {
        let all = cluster.done.iter().filter(|(_, a)| matches!(a, Action::Announce { .. }));
        all.map(|(node, _)| *node).collect::<Vec<_>>()
    };
    cluster.done.clear();
    let refused = cluster.nodes[1].can_follow(cluster.now, &announce()).unwrap_err();
    assert!(matches!(refused, OrderError::NotOwner { .. }), "{refused}");
    cluster.give(1, Event::Order(announce()));
    assert_eq!(announced(&cluster), [] as [usize; 0]);
    order(&mut cluster, 0, announce());
    let at_once = announced(&cluster);
    let addresses = cluster.nodes[0].desired.groups[0].addresses.len();
    assert_eq!(at_once, vec![0; addresses], "each address of this group, and of no other");
    let told = Fact::Announced { reason: "a new switch".into() };
    assert!(facts(&cluster, 0).contains(&&told));
    cluster.run(SECOND * 5);
    assert!(announced(&cluster).len() > addresses, "and again, as after a takeover");
    assert!(announced(&cluster).iter().all(|node| *node == 0));
    assert_eq!(acquisitions(&cluster), 0, "nothing has moved");
}

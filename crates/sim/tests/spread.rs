//! Groups spread evenly over equal nodes that start together.

use buoy_sim::{Scenario, Trace, World};

#[test]
fn no_node_has_two_groups_more_than_another() {
    // (nodes, groups)
    for (hosts, groups) in [(2, 7), (3, 2), (3, 9), (3, 20), (4, 33), (5, 48), (7, 60)] {
        for seed in 0..2 {
            let mut world = World::new(Scenario::quiet(seed, hosts, groups), Trace::short());
            let outcome = world.run().unwrap_or_else(|violation| panic!("{violation}"));
            let (most, least) = (outcome.loads.iter().max(), outcome.loads.iter().min());
            assert_eq!(outcome.loads.iter().sum::<usize>(), groups);
            assert!(
                most.unwrap() - least.unwrap() <= 1,
                "{groups} groups over {hosts} nodes, seed {seed}: {:?}",
                outcome.loads
            );
        }
    }
}

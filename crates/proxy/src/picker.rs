//! Decides which backend a new connection gets. Pure: who is busy how much is an argument.

use buoy_model::Balance;
use buoy_model::name_key;
use std::net::SocketAddr;

/// Picks among backends that are known by their place in a list.
#[derive(Clone, Debug, Default)]
pub struct Picker {
    entries: Vec<Entry>,
    /// Slots of the hash table, each a place in the list.
    slots: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    weight: u16,
    /// Smooth weighted round robin: everybody earns its weight each turn, the richest pays for all.
    credit: i64,
}

impl Picker {
    /// For backends of these weights; `slots` is used by `Balance::Hash` only.
    pub fn new(weights: &[u16], slots: Vec<usize>) -> Self {
        let entries = weights.iter().map(|&weight| Entry { weight, credit: 0 }).collect();
        Self { entries, slots }
    }

    /// The backend for a connection from `client`. `active` has the connections of each backend;
    /// `avoid` has just failed and is only taken when there is no other.
    pub fn pick(
        &mut self,
        balance: Balance,
        client: SocketAddr,
        active: &[u32],
        avoid: Option<usize>,
    ) -> Option<usize> {
        let mut able: Vec<usize> = (0..self.entries.len())
            .filter(|&i| self.entries[i].weight != 0 && Some(i) != avoid)
            .collect();
        if able.is_empty() {
            able = avoid.into_iter().filter(|&i| i < self.entries.len()).collect();
        }
        match balance {
            Balance::Hash => self.by_hash(client, &able),
            Balance::RoundRobin => self.next(&able),
            Balance::LeastConnections => {
                let load = |i: usize| u64::from(active.get(i).copied().unwrap_or(0));
                let weight = |i: usize| u64::from(self.entries[i].weight.max(1));
                let least = able
                    .iter()
                    .copied()
                    .min_by(|&a, &b| (load(a) * weight(b)).cmp(&(load(b) * weight(a))))?;
                let equal: Vec<usize> = able
                    .iter()
                    .copied()
                    .filter(|&i| load(i) * weight(least) == load(least) * weight(i))
                    .collect();
                // In turns among equals, or an idle service would use its first backend only.
                self.next(&equal)
            }
        }
    }

    fn next(&mut self, able: &[usize]) -> Option<usize> {
        let mut total = 0;
        for &i in able {
            let weight = i64::from(self.entries[i].weight.max(1));
            self.entries[i].credit += weight;
            total += weight;
        }
        let richest =
            able.iter().copied().max_by_key(|&i| (self.entries[i].credit, std::cmp::Reverse(i)))?;
        self.entries[richest].credit -= total;
        Some(richest)
    }

    fn by_hash(&self, client: SocketAddr, able: &[usize]) -> Option<usize> {
        let key = name_key(&client.to_string()) as usize;
        let slot = key % self.slots.len().max(1);
        let chosen = self.slots.get(slot).copied().filter(|i| able.contains(i));
        chosen.or_else(|| able.get(key % able.len().max(1)).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn turns(weights: &[u16], count: usize) -> Vec<usize> {
        let mut picker = Picker::new(weights, vec![]);
        (0..count)
            .map(|_| picker.pick(Balance::RoundRobin, client(1), &[], None).unwrap())
            .collect()
    }

    #[test]
    fn turns_are_smooth_and_in_proportion() {
        assert_eq!(turns(&[1, 1, 1], 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(turns(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&[0, 1], 3), [1, 1, 1], "weight 0 takes nothing");
    }

    #[test]
    fn the_fewest_connections_per_weight_win() {
        let cases: &[(&[u16], &[u32], usize)] = &[
            (&[1, 1, 1], &[5, 3, 4], 1),
            (&[1, 2], &[4, 7], 1),
            (&[1, 2], &[3, 7], 0),
            (&[1, 1], &[0, 1], 0),
        ];
        for (weights, active, expected) in cases {
            let mut picker = Picker::new(weights, vec![]);
            let got = picker.pick(Balance::LeastConnections, client(1), active, None);
            assert_eq!(got, Some(*expected), "{weights:?} {active:?}");
        }
        let mut picker = Picker::new(&[1, 1], vec![]);
        let idle: Vec<_> = (0..4)
            .map(|_| picker.pick(Balance::LeastConnections, client(1), &[0, 0], None).unwrap())
            .collect();
        assert_eq!(idle, [0, 1, 0, 1], "equals take turns");
    }

    #[test]
    fn one_client_has_one_backend() {
        let mut picker = Picker::new(&[1, 1], (0..256).map(|i| i % 2).collect());
        let mut pick = |port| picker.pick(Balance::Hash, client(port), &[], None).unwrap();
        let first: Vec<_> = (0..50).map(&mut pick).collect();
        let second: Vec<_> = (0..50).map(&mut pick).collect();
        assert_eq!(first, second);
        assert!(first.contains(&0) && first.contains(&1));
    }

    #[test]
    fn a_backend_that_has_just_failed_is_avoided_while_there_is_another() {
        for balance in [Balance::Hash, Balance::RoundRobin, Balance::LeastConnections] {
            let mut picker = Picker::new(&[9, 1], vec![0; 256]);
            assert_eq!(picker.pick(balance, client(1), &[0, 0], Some(0)), Some(1), "{balance:?}");
            let mut alone = Picker::new(&[1], vec![0; 256]);
            assert_eq!(alone.pick(balance, client(1), &[0], Some(0)), Some(0), "{balance:?}");
            let mut nobody = Picker::default();
            assert_eq!(nobody.pick(balance, client(1), &[], None), None, "{balance:?}");
        }
    }

    proptest! {
        #[test]
        fn least_connections_never_picks_a_busier_backend(
            weights in prop::collection::vec(1_u16..=256, 1..8),
            seed in prop::collection::vec(0_u32..100, 8),
        ) {
            let mut picker = Picker::new(&weights, vec![]);
            let got = picker.pick(Balance::LeastConnections, client(1), &seed, None).unwrap();
            for (i, &weight) in weights.iter().enumerate() {
                let mine = u64::from(seed[got]) * u64::from(weight);
                prop_assert!(mine <= u64::from(seed[i]) * u64::from(weights[got]));
            }
        }
    }
}

//! Keeps what is known of every checked backend, and counts for each group when something of it became another: who has
//! told it before need not look at ten thousand backends to see that it is as it was.

use super::{BackendHealth, Key};
use buoy_model::GroupId;
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

/// Changes of anything by anybody: no two have the same number.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Which change of what is known was the last; equal ones have the same known. Loads and latencies do not count: they
/// are others with each answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Change(u64);

impl Change {
    fn next() -> Self {
        Self(CHANGES.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// What is known of every checked backend.
#[derive(Clone, Debug, Default)]
pub struct States {
    all: BTreeMap<Key, BackendHealth>,
    /// Of groups of which something is known.
    changes: BTreeMap<GroupId, Change>,
}

impl States {
    /// Nothing is known yet.
    pub const fn new() -> Self {
        Self { all: BTreeMap::new(), changes: BTreeMap::new() }
    }

    /// The last change of anything known of a group's backends.
    pub fn change_of(&self, group: GroupId) -> Change {
        self.changes.get(&group).copied().unwrap_or_default()
    }

    /// Makes another of what is known of a backend; `change` says whether more than loads and latencies is, beside what
    /// the caller wants to know.
    pub fn change<T: Default>(
        &mut self,
        key: &Key,
        change: impl FnOnce(&mut BackendHealth) -> (bool, T),
    ) -> T {
        let is_new = !self.all.contains_key(key);
        if is_new {
            self.all.insert(key.clone(), BackendHealth::unknown());
        }
        let Some(known) = self.all.get_mut(key) else { return T::default() };
        let before = cfg!(debug_assertions).then(|| known.clone());
        let (is_another, result) = change(known);
        debug_assert!(
            is_another || before.is_none_or(|before| before.is_told_as(known)),
            "a change is said: {known:?}"
        );
        if is_new || is_another {
            self.changes.insert(key.group, Change::next());
        }
        result
    }

    /// Keeps only what is known of those backends.
    pub fn retain(&mut self, stays: impl Fn(&Key) -> bool) {
        let mut changed = BTreeSet::new();
        self.all.retain(|key, _| {
            let stays = stays(key);
            if !stays {
                changed.insert(key.group);
            }
            stays
        });
        if changed.is_empty() {
            return;
        }
        let left: BTreeSet<GroupId> = self.all.keys().map(|key| key.group).collect();
        self.changes.retain(|group, _| left.contains(group));
        for (_, change) in self.changes.iter_mut().filter(|(group, _)| changed.contains(group)) {
            *change = Change::next();
        }
    }
}

impl Deref for States {
    type Target = BTreeMap<Key, BackendHealth>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl<'s> IntoIterator for &'s States {
    type Item = (&'s Key, &'s BackendHealth);
    type IntoIter = btree_map::Iter<'s, Key, BackendHealth>;

    fn into_iter(self) -> Self::IntoIter {
        self.all.iter()
    }
}

impl FromIterator<(Key, BackendHealth)> for States {
    fn from_iter<I: IntoIterator<Item = (Key, BackendHealth)>>(all: I) -> Self {
        let all: BTreeMap<Key, BackendHealth> = all.into_iter().collect();
        let groups: BTreeSet<GroupId> = all.keys().map(|key| key.group).collect();
        let changes = groups.into_iter().map(|group| (group, Change::next())).collect();
        Self { all, changes }
    }
}

impl<const N: usize> From<[(Key, BackendHealth); N]> for States {
    fn from(all: [(Key, BackendHealth); N]) -> Self {
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use buoy_model::{BackendState, Mode};
    use std::time::Duration;

    #[test]
    fn a_change_is_that_of_its_group_and_of_all_but_loads_and_latencies() {
        let service = sample::service(Mode::Kernel, "10.0.0.100", 80, vec![]);
        let key = |group, name| Key::of(GroupId(group), &service, name);
        let mut states = States::new();
        let changes = |states: &States| [1, 2].map(|group| states.change_of(GroupId(group)));
        let none = changes(&states);
        assert_eq!(none, [Change::default(); 2]);
        states.change(&key(1, "a"), |_| (false, ()));
        let [first, second] = changes(&states);
        assert_ne!(first, none[0], "it is checked");
        assert_eq!(second, none[1]);
        states.change(&key(1, "a"), |known| {
            (known.last_latency, known.load) = (Some(Duration::from_secs(1)), Some(3));
            (false, ())
        });
        assert_eq!(changes(&states), [first, second]);
        states.change(&key(2, "b"), |_| (false, ()));
        let second = states.change_of(GroupId(2));
        states.change(&key(2, "b"), |known| {
            known.state = BackendState::Down;
            (true, ())
        });
        assert_eq!(states.change_of(GroupId(1)), first);
        assert_ne!(states.change_of(GroupId(2)), second);
        let third = states.change_of(GroupId(2));
        assert!(![none[0], first].contains(&third), "no number is there twice");
        states.change(&key(2, "c"), |_| (false, ()));
        states.retain(|key| key.backend != "c");
        assert_eq!(states.change_of(GroupId(1)), first);
        assert!(![third, none[0]].contains(&states.change_of(GroupId(2))));
        states.retain(|key| key.group != GroupId(2));
        assert_eq!(changes(&states), [first, none[1]], "nothing is known, as before");
    }

    #[test]
    #[should_panic(expected = "a change is said")]
    fn a_change_that_is_not_said_is_found() {
        let service = sample::service(Mode::Kernel, "10.0.0.100", 80, vec![]);
        let mut states = States::new();
        states.change(&Key::of(GroupId(1), &service, "a"), |known| {
            known.urgent = true;
            (false, ())
        });
    }
}

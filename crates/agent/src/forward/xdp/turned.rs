//! Which services a change of backends' states is about: one backend that goes down costs nothing for all others.

use super::{Order, Place};
use crate::health::{BackendHealth, Key, States};
use buoy_model::{BackendState, Desired, Group, Service};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is other in the states of backends.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Turned {
    /// Services with a backend that has another one.
    pub(super) places: BTreeSet<Place>,
    /// Whether one of them is not down: it has to be found.
    pub(super) is_some_there: bool,
}

impl Turned {
    /// What is other in `now` than it was in `before`; `None` where people want something else, or flows are
    /// hashed otherwise.
    pub(super) fn of(before: &Order, now: &Order) -> Option<Self> {
        let is_same = Arc::ptr_eq(&before.desired, &now.desired) && before.seed == now.seed;
        is_same.then(|| {
            let mut turned = Self::between(&before.states, &now.states);
            for key in before.out.symmetric_difference(&now.out) {
                turned.places.insert(place(key));
                turned.is_some_there |= before.out.contains(key);
            }
            turned
        })
    }

    fn between(before: &States, now: &States) -> Self {
        let mut turned = Self::default();
        let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
        loop {
            let (gone, come) = match (old.peek(), new.peek()) {
                (None, None) => return turned,
                (Some(a), Some(b)) => (a.0 <= b.0, b.0 <= a.0),
                (Some(_), None) => (true, false),
                (None, Some(_)) => (false, true),
            };
            let was = gone.then(|| old.next()).flatten();
            let is = come.then(|| new.next()).flatten();
            let stands = |known: Option<(&Key, &BackendHealth)>| {
                known.map_or((BackendState::Unknown, false), |(_, k)| (k.state, k.is_cut()))
            };
            if stands(was) == stands(is) {
                continue;
            }
            let Some((key, _)) = is.or(was) else { continue };
            turned.places.insert(place(key));
            turned.is_some_there |= stands(is).0 != BackendState::Down;
        }
    }

    /// The services themselves.
    pub(super) fn services<'d>(
        &self,
        desired: &'d Desired,
    ) -> impl Iterator<Item = (&'d Group, &'d Service)> {
        self.places.iter().filter_map(|place| {
            let group = desired.group(place.group)?;
            let service = group.services.iter().find(|s| Place::of(group, s) == *place)?;
            Some((group, service))
        })
    }
}

/// The service of a backend.
const fn place(key: &Key) -> Place {
    let Key { group, address, protocol, ports, backend: _ } = key;
    Place { group: *group, address: *address, protocol: *protocol, ports: *ports }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{GroupId, Ports, Protocol};

    fn states(list: &[(u16, &str, BackendState)]) -> States {
        let one = |&(port, name, state): &(u16, &str, BackendState)| {
            let key = Key {
                group: GroupId(1),
                address: [10, 0, 0, 1].into(),
                protocol: Protocol::Tcp,
                ports: Ports::one(port),
                backend: name.to_owned(),
            };
            (key, BackendHealth { state, ..BackendHealth::unknown() })
        };
        list.iter().map(one).collect()
    }

    #[test]
    fn services_whose_backends_are_as_they_were_are_not_named() {
        use BackendState::{Down, Unknown, Up};
        let before = states(&[(1, "a", Up), (1, "b", Up), (2, "a", Up), (4, "a", Down)]);
        let ports = |now: &[(u16, &str, BackendState)]| {
            let turned = Turned::between(&before, &states(now));
            let ports = turned.places.iter().map(|place| place.ports.first());
            (ports.collect::<Vec<u16>>(), turned.is_some_there)
        };
        let same = [(1, "a", Up), (1, "b", Up), (2, "a", Up), (4, "a", Down)];
        assert_eq!(ports(&same), (vec![], false));
        let down = [(1, "a", Up), (1, "b", Down), (2, "a", Up), (4, "a", Down)];
        assert_eq!(ports(&down), (vec![1], false));
        let up = [(1, "a", Up), (1, "b", Up), (2, "a", Up), (4, "a", Up)];
        assert_eq!(ports(&up), (vec![4], true));
        let new = [(1, "a", Up), (1, "b", Up), (2, "a", Up), (3, "a", Down), (4, "a", Down)];
        assert_eq!(ports(&new), (vec![3], false));
        let unknown = [(1, "a", Up), (1, "b", Up), (2, "a", Up), (3, "a", Unknown), (4, "a", Down)];
        assert_eq!(ports(&unknown), (vec![], false));
        assert_eq!(ports(&[]), (vec![1, 2, 4], true));
    }
}

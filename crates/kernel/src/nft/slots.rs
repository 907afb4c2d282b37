//! Holds who has which slot of a service, or which turn, in little memory: a thousand services have a quarter of a
//! million slots, and each leads to one of a few backends.

use std::net::SocketAddr;

/// Who has which slot, or which turn.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Slots {
    /// Each once, in the order in which they come first: two that lead to the same backends are equal.
    backends: Box<[SocketAddr]>,
    /// The place there that each slot has.
    places: Box<[u32]>,
}

impl Slots {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Who has each of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &SocketAddr> {
        let place = |place: &u32| usize::try_from(*place).unwrap_or(usize::MAX);
        self.places.iter().filter_map(move |at| self.backends.get(place(at)))
    }

    /// Those who have one, each once.
    pub fn backends(&self) -> &[SocketAddr] {
        &self.backends
    }
}

impl FromIterator<SocketAddr> for Slots {
    fn from_iter<T: IntoIterator<Item = SocketAddr>>(all: T) -> Self {
        let mut backends: Vec<SocketAddr> = Vec::new();
        let place = |backend| {
            let known = backends.iter().position(|known| *known == backend);
            let place = known.unwrap_or(backends.len());
            if known.is_none() {
                backends.push(backend);
            }
            // A list of so many has no room in any memory.
            u32::try_from(place).unwrap_or(u32::MAX)
        };
        let places = all.into_iter().map(place).collect();
        Self { backends: backends.into(), places }
    }
}

impl From<Vec<SocketAddr>> for Slots {
    fn from(all: Vec<SocketAddr>) -> Self {
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_the_list_that_they_are_made_of() {
        let of = |hosts: &[u8]| -> Vec<SocketAddr> {
            hosts.iter().map(|host| ([10, 0, 0, *host], 80).into()).collect()
        };
        let lists: [&[u8]; 5] = [&[], &[1], &[2, 1, 2, 2, 3, 1], &[1, 2, 1, 1, 3, 2], &[2, 1]];
        for (i, list) in lists.iter().enumerate() {
            let slots = Slots::from(of(list));
            assert_eq!(slots.iter().copied().collect::<Vec<_>>(), of(list));
            assert_eq!((slots.len(), slots.is_empty()), (list.len(), list.is_empty()));
            for (j, other) in lists.iter().enumerate() {
                assert_eq!(slots == of(other).into_iter().collect(), i == j, "{list:?} {other:?}");
            }
        }
        assert_eq!(Slots::from(of(lists[2])).backends(), of(&[2, 1, 3]));
    }
}

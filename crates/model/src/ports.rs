//! A range of ports: one port, some in a row, or all of them.

use alloc::vec::Vec;
use core::fmt;

/// Ports in a row, both ends included. There is no empty range.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Every port that a header can name.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// One port.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// `None` where it ends before it begins.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first <= last { Some(Self { first, last }) } else { None }
    }

    /// Its smallest port; of all ports 0.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Its largest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How far the last port is from the first.
    pub const fn distance(self) -> u16 {
        self.last - self.first
    }

    /// Whether it is a single port.
    pub const fn is_one(self) -> bool {
        self.first == self.last
    }

    /// Whether the port is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Whether all of the other's ports are among these.
    pub const fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether a port is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The range of the same length that begins there; `None` where it would run over the last port.
    pub const fn at(self, first: u16) -> Option<Self> {
        match first.checked_add(self.distance()) {
            Some(last) => Some(Self { first, last }),
            None => None,
        }
    }

    /// What is left without the ports of the others, in order.
    pub fn without(self, others: &[Self]) -> Vec<Self> {
        let mut others: Vec<Self> = others.iter().copied().filter(|o| self.overlaps(*o)).collect();
        others.sort_unstable();
        let mut left = Vec::new();
        let mut next = Some(self.first);
        for other in others {
            let Some(from) = next else { break };
            left.extend(other.first.checked_sub(1).and_then(|to| Self::new(from, to)));
            next = other.last.checked_add(1).map(|after| after.max(from));
        }
        left.extend(next.and_then(|from| Self::new(from, self.last)));
        left
    }
}

/// As the file has it: `443`, `8000-8099`, or `*`.
impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("*"),
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn ports(first: u16, last: u16) -> Ports {
        Ports::new(first, last).unwrap()
    }

    #[test]
    fn what_is_left_of_a_range_lies_around_the_others() {
        let all = [(0, 21), (23, 79), (90, 65535)].map(|(first, last)| ports(first, last));
        assert_eq!(Ports::ALL.without(&[ports(80, 89), Ports::one(22), ports(85, 86)]), all);
        assert_eq!(ports(10, 20).without(&[ports(1, 12), ports(18, 30)]), [ports(13, 17)]);
        assert_eq!(ports(10, 20).without(&[Ports::one(9), Ports::one(21)]), [ports(10, 20)]);
        assert_eq!(ports(10, 20).without(&[Ports::one(10), Ports::one(20)]), [ports(11, 19)]);
        assert_eq!(ports(10, 20).without(&[Ports::ALL]), []);
        assert_eq!(Ports::ALL.without(&[Ports::one(0), Ports::one(65535)]), [ports(1, 65534)]);
    }

    #[test]
    fn a_range_moves_only_where_it_fits() {
        assert_eq!(ports(8000, 8099).at(9000), Some(ports(9000, 9099)));
        assert_eq!(ports(8000, 8099).at(65436), Some(ports(65436, 65535)));
        assert_eq!(ports(8000, 8099).at(65437), None);
        assert_eq!(Ports::ALL.at(0), Some(Ports::ALL));
        assert_eq!(Ports::ALL.at(1), None);
        assert_eq!(Ports::new(2, 1), None);
    }

    #[test]
    fn it_is_written_as_in_the_file() {
        let written = [Ports::one(443), ports(8000, 8099), Ports::ALL].map(|p| p.to_string());
        assert_eq!(written, ["443", "8000-8099", "*"]);
    }
}

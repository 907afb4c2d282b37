//! How many new connections one client may open: a bucket that fills again all the time.
//!
//! A bucket is kept as what its client owes: each connection adds one `interval`, time takes it away, and
//! who would owe more than `span` is refused. So a bucket is one moment, the one at which nothing is owed any
//! more, and whoever is not remembered owes nothing. All engines count so.

use crate::limits::{RATE_MAX, RATE_SPAN_MAX};
use core::fmt;
use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

/// How many new connections one client may open in a time.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Rate {
    number: u32,
    per: Per,
    burst: u32,
}

/// The time that a number of connections is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Per {
    /// A second.
    Second,
    /// A minute.
    Minute,
    /// An hour.
    Hour,
}

impl Per {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    /// As in `100/s`.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    /// How long it is.
    pub const fn length(self) -> Duration {
        match self {
            Self::Second => Duration::from_secs(1),
            Self::Minute => Duration::from_secs(60),
            Self::Hour => Duration::from_secs(3600),
        }
    }
}

impl Rate {
    /// So many in that time, and so many at once after a pause. `None`: one of them is nothing or too many, or
    /// a burst is there again only after `RATE_SPAN_MAX`.
    pub fn new(number: u32, per: Per, burst: u32) -> Option<Self> {
        let is_number = |number: u32| (1..=RATE_MAX).contains(&number);
        let rate = Self { number, per, burst };
        let is_rate = is_number(number) && is_number(burst) && rate.span() <= RATE_SPAN_MAX;
        is_rate.then_some(rate)
    }

    /// How many in the time of `per`.
    pub const fn number(self) -> u32 {
        self.number
    }

    /// Which time that is.
    pub const fn per(self) -> Per {
        self.per
    }

    /// How many at once after a pause.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// After so long there is room for one more.
    pub fn interval(self) -> Duration {
        self.per.length() / self.number
    }

    /// After so long there is room for a whole burst again.
    pub fn span(self) -> Duration {
        self.interval().saturating_mul(self.burst)
    }

    /// What a client owes after another connection; `None`: it is refused. More than a whole span is no debt
    /// of this rate, but was left by another one.
    pub fn after(self, debt: Duration) -> Option<Duration> {
        let span = self.span();
        let debt = if span < debt { Duration::ZERO } else { debt };
        let after = debt + self.interval();
        (after <= span).then_some(after)
    }
}

/// All addresses that count as one client, by the first of them: of IPv6 those of one /64, because a host can
/// take any of these.
pub fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

/// As it is written in the file.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} burst={}", self.number, self.per.letter(), self.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn a_burst_goes_through_at_once_and_then_one_every_interval() {
        let rate = Rate::new(10, Per::Second, 3).unwrap();
        let mut debt = Duration::ZERO;
        for _ in 0..3 {
            debt = rate.after(debt).unwrap();
        }
        assert_eq!(rate.after(debt), None);
        assert_eq!(rate.after(debt - rate.interval()), Some(debt));
        assert_eq!(rate.after(debt - rate.interval() + Duration::from_nanos(1)), None);
        // What a slower rate left behind.
        assert_eq!(rate.after(Duration::from_secs(7)), Some(rate.interval()));
    }

    #[test]
    fn a_rate_that_nobody_could_have_meant_is_none() {
        assert!(Rate::new(0, Per::Second, 1).is_none());
        assert!(Rate::new(1, Per::Second, 0).is_none());
        assert!(Rate::new(RATE_MAX + 1, Per::Second, 1).is_none());
        assert!(Rate::new(1, Per::Minute, 60).is_some());
        assert!(Rate::new(1, Per::Minute, 61).is_none());
        for per in Per::ALL {
            let rate = Rate::new(RATE_MAX, per, RATE_MAX).unwrap();
            assert!(rate.span() <= per.length(), "{rate}");
        }
    }

    #[test]
    fn a_client_is_an_address_of_ipv4_and_a_subnet_of_ipv6() {
        let of = |text: &str| client(text.parse().unwrap()).to_string();
        assert_eq!(of("10.0.0.7"), "10.0.0.7");
        assert_eq!(of("::ffff:10.0.0.7"), "10.0.0.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}

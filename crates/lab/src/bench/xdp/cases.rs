//! What is measured: which packets, to which services, by which program.

use super::world::{self, ACK, Family, How, SYN, World, frame};
use buoy_kernel::fast::Verdict;
use buoy_kernel::rig::{Floor, Traffic};
use std::net::SocketAddr;

/// A service somewhere in the middle.
const MIDDLE: u32 = 777;

/// What the packets are, beyond their number of flows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    /// Of connections that exist.
    Data,
    /// Each opens one.
    Syn,
    /// For an address of nobody.
    NotOurs,
}

/// Which services they are for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum To {
    One,
    All,
}

/// Who handles them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Subject {
    Floor(Floor, Family),
    Buoy(World),
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Case {
    pub(super) subject: Subject,
    pub(super) kind: Kind,
    pub(super) to: To,
    /// In bits.
    pub(super) flows: u32,
}

/// For tables.
pub(super) const fn floor_name(floor: Floor) -> &'static str {
    match floor {
        Floor::Nothing => "nothing (what the measuring costs)",
        Floor::Swap => "swap the Ethernet addresses, transmit",
        Floor::Array => "parse, one array lookup, transmit",
        Floor::Tunnel => "parse, one array lookup, IPIP, transmit",
        Floor::Pass => "pass",
        Floor::Sink => "count and drop",
    }
}

impl Case {
    pub(super) const fn floor(floor: Floor, family: Family) -> Self {
        Self { subject: Subject::Floor(floor, family), kind: Kind::Data, to: To::One, flows: 0 }
    }

    pub(super) const fn of(world: World, kind: Kind, flows: u32) -> Self {
        Self { subject: Subject::Buoy(world), kind, to: To::One, flows }
    }

    const fn to_all(self) -> Self {
        Self { to: To::All, ..self }
    }

    pub(super) const fn family(self) -> Family {
        match self.subject {
            Subject::Floor(_, family) => family,
            Subject::Buoy(world) => world.family,
        }
    }

    /// What becomes of packets for a service.
    const fn passes_on(self) -> Verdict {
        match self.subject {
            Subject::Buoy(World { forward: How::Local, .. }) => Verdict::Pass,
            Subject::Buoy(_) | Subject::Floor(..) => Verdict::Transmit,
        }
    }

    /// The service of its packets, or the first one.
    pub(super) fn first_service(self) -> u32 {
        match (self.subject, self.to) {
            (Subject::Buoy(world), To::One) if world.services > 1 => {
                world.services - MIDDLE % world.services
            }
            (Subject::Buoy(_), To::One | To::All) | (Subject::Floor(..), _) => 0,
        }
    }

    pub(super) fn traffic(self) -> Traffic {
        let family = self.family();
        let flags = if self.kind == Kind::Syn { SYN } else { ACK };
        let (to, verdict) = match self.kind {
            Kind::Data | Kind::Syn => (world::vip(family, self.first_service()), self.passes_on()),
            Kind::NotOurs => (SocketAddr::new(world::backend(family, 1 << 22), 80), Verdict::Pass),
        };
        let services = match (self.subject, self.to) {
            (Subject::Buoy(world), To::All) => world.services,
            (Subject::Buoy(_), To::One) | (Subject::Floor(..), _) => 1,
        };
        Traffic {
            frame: frame(to, flags),
            flows: 1 << self.flows,
            services: services.into(),
            verdict,
        }
    }

    /// For tables.
    pub(super) fn name(self) -> String {
        let flows = match self.flows {
            0 => "1 flow".to_owned(),
            bits @ 1..20 => format!("{} k flows", (1_u64 << bits) >> 10),
            bits => format!("{} M flows", (1_u64 << bits) >> 20),
        };
        let world = match self.subject {
            Subject::Floor(floor, family) => {
                return format!("{}, {}", floor_name(floor), family.name());
            }
            Subject::Buoy(world) => world,
        };
        let what = match self.kind {
            Kind::Data => flows,
            Kind::Syn => format!("SYN of {flows}"),
            Kind::NotOurs => format!("not ours, {flows}"),
        };
        let change = if world.in_change { ", every slot in a change" } else { "" };
        let services = match (world.services, self.to) {
            (1, _) => String::new(),
            (n, To::One) => format!(", to one of {n} services"),
            (n, To::All) => format!(", to all of {n} services"),
        };
        format!("{} {}: {what}{services}{change}", world.forward.name(), world.family.name())
    }
}

const ONE: u32 = 0;
const THOUSAND: u32 = 10;
const MANY: u32 = 16;
const MILLION: u32 = 20;
const FLOOD: u32 = 24;

/// The floors.
pub(super) fn floors() -> Vec<Case> {
    use Family::{V4, V6};
    let floors = [
        (Floor::Nothing, V4),
        (Floor::Swap, V4),
        (Floor::Array, V4),
        (Floor::Tunnel, V4),
        (Floor::Nothing, V6),
    ];
    floors.map(|(floor, family)| Case::floor(floor, family)).into()
}

/// Everything that Buoy is measured with; `counts` are the numbers of services beside one.
pub(super) fn cases(counts: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for family in [Family::V4, Family::V6] {
        for how in How::ALL {
            let world = World::one(how, family);
            if !How::MAIN.contains(&how) {
                cases.extend([ONE, MILLION].map(|n| Case::of(world, Kind::Data, n)));
                continue;
            }
            cases.extend([ONE, THOUSAND, MANY, MILLION].map(|n| Case::of(world, Kind::Data, n)));
            cases.extend([MILLION, FLOOD].map(|n| Case::of(world, Kind::Syn, n)));
        }
        for how in [How::Tunnel, How::Nat] {
            let world = World::one(how, family);
            cases.extend([ONE, MILLION].map(|n| Case::of(world, Kind::NotOurs, n)));
        }
    }
    let changing = World { in_change: true, ..World::one(How::Tunnel, Family::V4) };
    cases.extend([Kind::Data, Kind::Syn].map(|kind| Case::of(changing, kind, MILLION)));
    for &services in counts {
        let world = World { services, ..World::one(How::Tunnel, Family::V4) };
        cases.extend([ONE, MANY, MILLION].map(|n| Case::of(world, Kind::Data, n)));
        cases.push(Case::of(world, Kind::Syn, MILLION));
        cases.push(Case::of(world, Kind::NotOurs, ONE));
        cases.extend([MANY, MILLION].map(|n| Case::of(world, Kind::Data, n).to_all()));
    }
    cases
}

/// The cases that goals are about.
pub(super) mod named {
    use super::{Case, FLOOD, Family, Floor, How, Kind, MANY, MILLION, ONE, World};

    pub(in super::super) const ARRAY: Case = Case::floor(Floor::Array, Family::V4);
    pub(in super::super) const IPIP: Case = Case::floor(Floor::Tunnel, Family::V4);
    pub(in super::super) const fn not_ours(how: How) -> Case {
        Case::of(World::one(how, Family::V4), Kind::NotOurs, ONE)
    }

    pub(in super::super) const fn hit(how: How, family: Family) -> Case {
        Case::of(World::one(how, family), Kind::Data, ONE)
    }

    pub(in super::super) const fn million(how: How, family: Family) -> Case {
        Case::of(World::one(how, family), Kind::Data, MILLION)
    }

    pub(in super::super) const fn flood(bits: Flood) -> Case {
        let flows = match bits {
            Flood::Million => MILLION,
            Flood::Sixteen => FLOOD,
        };
        Case::of(World::one(How::Tunnel, Family::V4), Kind::Syn, flows)
    }

    pub(in super::super) const fn many_services(services: u32) -> Case {
        let world = World { services, ..World::one(How::Tunnel, Family::V4) };
        Case::of(world, Kind::Data, MANY)
    }

    /// How many a flood is of.
    #[derive(Clone, Copy, Debug)]
    pub(in super::super) enum Flood {
        Million,
        Sixteen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_there_once_and_so_is_every_one_that_a_goal_is_about() {
        let all = [floors(), cases(&[1000, 10_000])].concat();
        let distinct: BTreeSet<Case> = all.iter().copied().collect();
        assert_eq!(distinct.len(), all.len());
        let names: BTreeSet<String> = all.iter().map(|case| case.name()).collect();
        assert_eq!(names.len(), all.len());
        let mut wanted = vec![named::ARRAY, named::IPIP];
        wanted.extend([named::Flood::Million, named::Flood::Sixteen].map(named::flood));
        wanted.extend([How::Tunnel, How::Nat].map(named::not_ours));
        wanted.extend([1, 1000, 10_000].map(named::many_services));
        for family in [Family::V4, Family::V6] {
            for how in How::ALL {
                wanted.extend([named::hit(how, family), named::million(how, family)]);
            }
        }
        assert_eq!(wanted.iter().filter(|case| !distinct.contains(case)).count(), 0);
    }
}

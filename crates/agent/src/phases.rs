//! Measures how each takeover went on: when the address was there, the announcement out, and the first
//! packet in. What the core cannot know, because it is outside.

use buoy_model::limits::GROUPS_MAX;
use buoy_model::{Cause, Desired, Epoch, Fact, GroupId, Instant, LinkId, Record};
use std::net::IpAddr;
use std::time::Duration;

/// How long the first packet is waited for.
const FIRST_PACKET_MAX: Duration = Duration::from_secs(1);

/// The takeovers of the last second.
pub(crate) struct Phases {
    takeovers: Vec<Takeover>,
    /// What was announced since the last takeover was recorded: its announcement comes before it.
    announced: Vec<(IpAddr, Instant)>,
}

/// One of them, measured at the first address of the group.
struct Takeover {
    group: GroupId,
    epoch: Epoch,
    link: LinkId,
    address: IpAddr,
    wanted_at: Instant,
    detect: Duration,
    decide: Duration,
    serving_at: Instant,
    on_link_at: Option<Instant>,
    announced_at: Option<Instant>,
}

impl Phases {
    pub(crate) fn new() -> Self {
        let takeovers = Vec::with_capacity(GROUPS_MAX);
        Self { takeovers, announced: Vec::with_capacity(GROUPS_MAX) }
    }

    /// An announcement left.
    pub(crate) fn announced(&mut self, now: Instant, address: IpAddr) {
        let waiting = self.takeovers.iter_mut();
        if let Some(takeover) = waiting.rev().find(|t| t.address == address) {
            takeover.announced_at.get_or_insert(now);
        } else if self.announced.len() < GROUPS_MAX {
            self.announced.push((address, now));
        }
    }

    /// Whether somebody waits for `on_link`.
    pub(crate) fn wait_for_addresses(&self) -> bool {
        self.takeovers.last().is_some_and(|takeover| takeover.on_link_at.is_none())
    }

    /// All addresses that were ordered are on their interfaces.
    pub(crate) fn on_link(&mut self, now: Instant) {
        for takeover in &mut self.takeovers {
            takeover.on_link_at.get_or_insert(now);
        }
    }

    /// The core has decided something. Takeovers begin with its word that a group is acquired.
    pub(crate) fn recorded(&mut self, record: &Record, desired: &Desired) {
        let (Some(id), Fact::Acquired { epoch, cause, took }) = (record.group, &record.fact) else {
            return;
        };
        let first = desired.group(id).and_then(|group| group.addresses.first());
        let Some((link, address)) = first.and_then(|a| Some((a.link?, a.cidr.address()))) else {
            return;
        };
        let announced = self.announced.iter().rev().find(|(of, _)| *of == address);
        if self.takeovers.len() < GROUPS_MAX {
            self.takeovers.push(Takeover {
                group: id,
                epoch: *epoch,
                link,
                address,
                wanted_at: record.at - *took,
                detect: detection(cause),
                decide: *took,
                serving_at: record.at,
                on_link_at: None,
                announced_at: announced.map(|(_, at)| *at),
            });
        }
    }

    /// A step of the core is carried out: announcements without a takeover were only refreshed.
    pub(crate) fn carried_out(&mut self) {
        self.announced.clear();
    }

    /// The next takeover that is complete, with the moment of its first packet, if there is one.
    pub(crate) fn complete(
        &mut self,
        now: Instant,
        first_packet: impl FnOnce(LinkId, IpAddr) -> Option<Instant>,
    ) -> Option<Record> {
        // They are in the order of time.
        self.takeovers.first().filter(|t| t.serving_at + FIRST_PACKET_MAX <= now)?;
        let takeover = self.takeovers.remove(0);
        let first_packet = first_packet(takeover.link, takeover.address);
        Some(takeover.served(now, first_packet))
    }
}

impl Takeover {
    fn served(self, now: Instant, first_packet: Option<Instant>) -> Record {
        let since = |at: Instant| at.since(self.wanted_at).max(self.decide);
        // An address that was there before is served from the moment that the gate was opened.
        let address = since(self.on_link_at.unwrap_or(self.serving_at));
        let announce = self.announced_at.map_or(address, since);
        let fact = Fact::Served {
            epoch: self.epoch,
            detect: self.detect,
            decide: self.decide,
            address,
            announce,
            first_packet: first_packet.filter(|at| *at <= now).map(since),
        };
        Record { at: now, group: Some(self.group), fact }
    }
}

/// How long nothing was known of the death of the last owner.
const fn detection(cause: &Cause) -> Duration {
    if let Cause::OwnerSilent { silent, .. } = cause {
        return *silent;
    }
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{GROUP, desired};
    use buoy_model::NodeId;

    const VIP: &str = "10.0.0.100";

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Wanted at 100 ms, acquired at 105 ms.
    fn acquired(cause: Cause) -> Record {
        let fact = Fact::Acquired { epoch: Epoch(3), cause, took: ms(5) };
        Record { at: at(105), group: Some(GROUP), fact }
    }

    fn silent() -> Cause {
        Cause::OwnerSilent { node: NodeId(2), silent: ms(36) }
    }

    #[test]
    fn a_takeover_is_told_with_its_phases_a_second_later() {
        let desired = desired(&[VIP], "eth0", Vec::new());
        let address: IpAddr = VIP.parse().unwrap();
        let mut phases = Phases::new();
        assert!(!phases.wait_for_addresses());
        phases.announced(at(106), address);
        phases.recorded(&acquired(silent()), &desired);
        phases.carried_out();
        assert!(phases.wait_for_addresses());
        phases.on_link(at(107));
        phases.on_link(at(120));
        phases.announced(at(116), address);
        assert_eq!(phases.complete(at(1104), |_, _| None), None);
        let first_packet = |link, of| (link == LinkId(1) && of == address).then_some(at(109));
        let record = phases.complete(at(1105), first_packet).unwrap();
        let expected = Fact::Served {
            epoch: Epoch(3),
            detect: ms(36),
            decide: ms(5),
            address: ms(7),
            announce: ms(6),
            first_packet: Some(ms(9)),
        };
        assert_eq!(record, Record { at: at(1105), group: Some(GROUP), fact: expected });
        assert_eq!(phases.complete(at(9999), |_, _| None), None, "once");
    }

    #[test]
    fn what_was_not_seen_is_not_made_up() {
        let desired = desired(&[VIP], "eth0", Vec::new());
        let mut phases = Phases::new();
        // An announcement that was only refreshed is none of a takeover.
        phases.announced(at(50), VIP.parse().unwrap());
        phases.carried_out();
        phases.recorded(&acquired(Cause::NoOwner), &desired);
        let record = phases.complete(at(1200), |_, _| None).unwrap();
        let Fact::Served { detect, address, announce, first_packet, .. } = record.fact else {
            panic!("{record:?}");
        };
        assert_eq!((detect, address, announce, first_packet), (ms(0), ms(5), ms(5), None));
    }
}

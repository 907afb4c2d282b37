//! When to tell the segment who has an address: at once, on a short schedule, then now and then;
//! and again when somebody else claims it (RFC 5227 §2.4).
//!
//! A foreign claim is answered once, and then at most once in `DEFEND_INTERVAL`, whatever the other
//! side sends. Claims that came after the last answer have misled neighbours, so one more announcement
//! follows when the interval is over.

use crate::Node;
use crate::ownership::{Ownership, State};
use crate::rhythm;
use alloc::sync::Arc;
use alloc::vec::Vec;
use buoy_model::limits::{ANNOUNCE_AT, ANNOUNCE_REFRESH, DEFEND_INTERVAL};
use buoy_model::{Action, Desired, Fact, FrameKind, GroupId, Instant, LinkId, Mac, Record};
use core::net::IpAddr;
use core::time::Duration;

/// The schedule of one group that this node serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Announcements {
    began: Instant,
    step: usize,
    at: Instant,
    /// Addresses that somebody else claimed; at most as many as the group has.
    conflicts: Vec<Conflict>,
    /// By how much the first of the periodic ones is early, so that groups that came together are not
    /// announced together for ever.
    early: Duration,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Conflict {
    address: IpAddr,
    /// When it was answered last.
    defended_at: Instant,
    /// Claims since then.
    unanswered: u32,
}

/// What to do about a foreign claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Defence {
    /// Answer it and record it; so many claims came in since the last record, this one among them.
    Answer { claims: u32 },
    /// RFC 5227 §2.4 (c): keep the address, and do not fight over it for now.
    Hold,
}

impl Announcements {
    /// The first announcement is due at once.
    pub(crate) fn begin(now: Instant, group: GroupId) -> Self {
        let early = rhythm::early(group, ANNOUNCE_REFRESH);
        Self { began: now, step: 0, at: now, conflicts: Vec::new(), early }
    }

    /// Whether an announcement is due; the next one is then set.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        self.step += 1;
        self.at = match ANNOUNCE_AT.get(self.step) {
            Some(after) => (self.began + *after).max(now),
            None if self.step == ANNOUNCE_AT.len() => now + (ANNOUNCE_REFRESH - self.early),
            None => rhythm::next(self.at, now, ANNOUNCE_REFRESH),
        };
        if self.at == now {
            // A late caller gets one announcement, not the whole backlog.
            self.at = now + ANNOUNCE_AT[1];
        }
        true
    }

    /// Starts the schedule again: a cut healed, or the address had to be put back.
    pub(crate) const fn again(&mut self, now: Instant) {
        self.began = now;
        self.step = 0;
        self.at = now;
    }

    /// Somebody else claims one of the addresses.
    pub(crate) fn defend(&mut self, now: Instant, address: IpAddr) -> Defence {
        // Whoever believed the claim hears the truth once more when the interval is over.
        self.at = self.at.min(now + DEFEND_INTERVAL);
        let Some(conflict) = self.conflicts.iter_mut().find(|c| c.address == address) else {
            self.conflicts.push(Conflict { address, defended_at: now, unanswered: 0 });
            return Defence::Answer { claims: 1 };
        };
        if now < conflict.defended_at + DEFEND_INTERVAL {
            conflict.unanswered = conflict.unanswered.saturating_add(1);
            return Defence::Hold;
        }
        conflict.defended_at = now;
        let claims = core::mem::take(&mut conflict.unanswered).saturating_add(1);
        Defence::Answer { claims }
    }

    /// When the next announcement is due.
    pub(crate) const fn deadline(&self) -> Instant {
        self.at
    }
}

impl Node {
    /// Somebody took an address of ours off the interface: put it back and say so.
    pub(crate) fn restore(
        &mut self,
        now: Instant,
        link: LinkId,
        address: IpAddr,
        out: &mut Vec<Action>,
    ) {
        let desired = Arc::clone(&self.desired);
        let Some(i) = held(&desired, &self.owned, link, address) else { return };
        let context = self.context(now, &desired, i);
        let State::Holding(holding) = &mut self.owned[i].state else { return };
        crate::ownership::add_addresses(context, holding.until(context.shared_until), out);
        holding.announcements.again(now);
        self.owned[i].serve(context, out);
        self.look_again();
        let group = Some(desired.groups[i].id);
        out.push(Action::Record(Record { at: now, group, fact: Fact::Restored { address } }));
    }

    /// An operator wants the neighbours to hear it again.
    pub(crate) fn announce_one(&mut self, now: Instant, group: GroupId, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        let Some(i) = desired.group_index(group) else { return };
        let context = self.context(now, &desired, i);
        let State::Holding(holding) = &mut self.owned[i].state else { return };
        holding.announcements.again(now);
        self.owned[i].serve(context, out);
        self.look_again();
    }

    /// Somebody says that an address of ours is theirs.
    pub(crate) fn defend(
        &mut self,
        now: Instant,
        (link, address): (LinkId, IpAddr),
        mac: Mac,
        out: &mut Vec<Action>,
    ) {
        let desired = Arc::clone(&self.desired);
        let Some(i) = held(&desired, &self.owned, link, address) else { return };
        // A peer that takes the group over, or that serves it too after a cut, is in its right or
        // will be told: the leases settle that, not the neighbours.
        let group = &desired.groups[i];
        let is_taken_over = self.rival(group).is_some();
        let State::Holding(holding) = &mut self.owned[i].state else { return };
        if is_taken_over || holding.yielding.is_some() {
            return;
        }
        match holding.announcements.defend(now, address) {
            Defence::Hold => {}
            Defence::Answer { claims } => {
                out.push(Action::Announce { link, address, kind: FrameKind::Defence });
                let fact = Fact::Conflict { address, mac, defended: true, claims };
                out.push(Action::Record(Record { at: now, group: Some(group.id), fact }));
            }
        }
        self.look_again();
    }

    /// A cut healed: neighbours may have heard another owner meanwhile.
    pub(crate) fn announce_again(&mut self, now: Instant) {
        for ownership in &mut self.owned {
            if let State::Holding(holding) = &mut ownership.state {
                holding.announcements.again(now);
            }
        }
        self.look_again();
    }
}

/// The group that serves this address on this link.
pub(crate) fn held(
    desired: &Desired,
    owned: &[Ownership],
    link: LinkId,
    address: IpAddr,
) -> Option<usize> {
    desired.groups.iter().zip(owned).position(|(group, ownership)| {
        ownership.holding().is_some()
            && group.addresses.iter().any(|a| a.link == Some(link) && a.cidr.address() == address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;
    use core::time::Duration;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 101));

    #[test]
    fn the_schedule_is_0_10_100_1000_ms_and_then_a_minute() {
        let start = Instant::from_nanos(5);
        let mut announcements = Announcements::begin(start, GroupId(0));
        let mut sent = alloc::vec::Vec::new();
        for _ in 0..6 {
            let at = announcements.deadline();
            assert!(announcements.is_due(at));
            assert!(announcements.deadline() > at);
            sent.push(at.since(start).as_millis());
        }
        assert_eq!(sent, [0, 10, 100, 1_000, 61_000, 121_000]);
    }

    #[test]
    fn a_late_loop_sends_one_announcement_and_goes_on() {
        let mut announcements = Announcements::begin(Instant::ZERO, GroupId(0));
        let late = Instant::ZERO + Duration::from_secs(5);
        assert!(announcements.is_due(late));
        assert!(!announcements.is_due(late));
    }

    #[test]
    fn a_conflict_is_answered_and_told_once_in_ten_seconds_with_the_number_of_claims() {
        let mut announcements = Announcements::begin(Instant::ZERO, GroupId(0));
        let mut told = alloc::vec::Vec::new();
        for tenth in 0..250_u64 {
            let at = Duration::from_millis(tenth * 100);
            match announcements.defend(Instant::ZERO + at, ADDRESS) {
                Defence::Answer { claims } => told.push((at.as_secs(), claims)),
                Defence::Hold => {}
            }
        }
        assert_eq!(told, [(0, 1), (10, 100), (20, 100)]);
    }

    #[test]
    fn each_address_of_a_group_is_defended_for_itself() {
        let mut announcements = Announcements::begin(Instant::ZERO, GroupId(0));
        let answer = Defence::Answer { claims: 1 };
        assert_eq!(announcements.defend(Instant::ZERO, ADDRESS), answer);
        assert_eq!(announcements.defend(Instant::ZERO, OTHER), answer);
        assert_eq!(announcements.defend(Instant::ZERO, ADDRESS), Defence::Hold);
    }

    #[test]
    fn after_the_last_foreign_claim_one_more_announcement_follows() {
        let mut announcements = Announcements::begin(Instant::ZERO, GroupId(0));
        let calm = Instant::ZERO + Duration::from_secs(5);
        for _ in 0..4 {
            assert!(announcements.is_due(announcements.deadline().max(Instant::ZERO)));
        }
        let claimed = calm + Duration::from_secs(1);
        announcements.defend(claimed, ADDRESS);
        assert_eq!(announcements.deadline(), claimed + DEFEND_INTERVAL);
        assert!(announcements.is_due(claimed + DEFEND_INTERVAL));
        let next = claimed + DEFEND_INTERVAL + ANNOUNCE_REFRESH;
        assert_eq!(announcements.deadline(), next, "and then the refresh goes on");
    }
}

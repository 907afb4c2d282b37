//! Faults put into the protocol on purpose, to prove that the simulator's checkers see them.
//!
//! Without the feature `mutants` every question below has the right answer as a constant.

use crate::Node;
#[cfg(feature = "mutants")]
use buoy_model::limits::DRIFT_DIVISOR;
use buoy_model::{Desired, Instant};

/// One deliberate fault.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mutation {
    /// A vote counts from the answer's arrival instead of the heartbeat's sending.
    CountFromReceipt,
    /// A voter grants at once after a restart.
    NoRestartSilence,
    /// Old and repeated datagrams count like new ones.
    AcceptStale,
    /// Half of the votes is taken for a majority.
    HalfIsMajority,
    /// The holder trusts its own clock to run exactly like the voters'.
    NoDriftMargin,
    /// A voter grants what it has promised to another.
    GrantTwice,
    /// "Released" is said some milliseconds before serving ends.
    SayBeforeRelease,
    /// Nobody ever asks for a group.
    NeverClaim,
    /// A goodbye counts whatever life it was made in.
    AnyGoodbye,
    /// A repeat of a list is granted although the list has run out or is another one.
    CredulousVoter,
    /// The shared lease is renewed by any vote.
    ShareWithoutMajority,
    /// A link that comes back is trusted at once, however often it has gone.
    NoDamping,
    /// An owner gives everything up when a peer comes.
    ShuffleOnArrival,
    /// A cordoned node takes like any other.
    IgnoreCordon,
    /// The node asks to be woken at a moment that is over.
    Overdue,
    /// The explanation names the last in line first.
    LyingWhy,
}

#[cfg(feature = "mutants")]
impl Mutation {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::CountFromReceipt,
        Self::NoRestartSilence,
        Self::AcceptStale,
        Self::HalfIsMajority,
        Self::NoDriftMargin,
        Self::GrantTwice,
        Self::SayBeforeRelease,
        Self::NeverClaim,
        Self::AnyGoodbye,
        Self::CredulousVoter,
        Self::ShareWithoutMajority,
        Self::NoDamping,
        Self::ShuffleOnArrival,
        Self::IgnoreCordon,
        Self::Overdue,
        Self::LyingWhy,
    ];
}

/// How long `SayBeforeRelease` goes on serving.
#[cfg(feature = "mutants")]
const SAY_BEFORE: core::time::Duration = core::time::Duration::from_millis(5);

#[cfg(feature = "mutants")]
impl Node {
    fn is(&self, mutation: Mutation) -> bool {
        self.settings.mutation == Some(mutation)
    }

    pub(crate) fn mutate(&mut self) {
        self.voter.forgetful = self.is(Mutation::GrantTwice);
        self.voter.credulous = self.is(Mutation::CredulousVoter);
        if self.is(Mutation::NoRestartSilence) {
            self.voter.end_silence();
        }
    }

    pub(crate) fn accepts_stale(&self) -> bool {
        self.is(Mutation::AcceptStale)
    }

    pub(crate) fn counts_from(&self, sent: Instant, now: Instant) -> Instant {
        if self.is(Mutation::CountFromReceipt) { now } else { sent }
    }

    pub(crate) fn with_drift_margin(&self, end: Instant) -> Instant {
        if self.is(Mutation::NoDriftMargin) { end + self.term() / DRIFT_DIVISOR } else { end }
    }

    pub(crate) fn majority(&self, desired: &Desired) -> usize {
        let half = desired.nodes.len().div_ceil(2);
        if self.is(Mutation::HalfIsMajority) { half } else { desired.majority() }
    }

    pub(crate) fn never_claims(&self) -> bool {
        self.is(Mutation::NeverClaim)
    }

    pub(crate) fn believes_any_goodbye(&self) -> bool {
        self.is(Mutation::AnyGoodbye)
    }

    pub(crate) fn shares_from(&self, desired: &Desired) -> usize {
        if self.is(Mutation::ShareWithoutMajority) { 1 } else { self.majority(desired) }
    }

    pub(crate) fn trusts_every_link(&self) -> bool {
        self.is(Mutation::NoDamping)
    }

    pub(crate) fn ignores_cordons(&self) -> bool {
        self.is(Mutation::IgnoreCordon)
    }

    pub(crate) fn lies(&self) -> bool {
        self.is(Mutation::LyingWhy)
    }

    pub(crate) fn overdue(&self) -> Option<Instant> {
        self.is(Mutation::Overdue).then_some(Instant::ZERO)
    }

    pub(crate) fn shuffle(&mut self, now: Instant, out: &mut alloc::vec::Vec<buoy_model::Action>) {
        if !self.is(Mutation::ShuffleOnArrival) {
            return;
        }
        let desired = alloc::sync::Arc::clone(&self.desired);
        for (i, group) in desired.groups.iter().enumerate() {
            if self.owned[i].holding().is_some() {
                self.owned[i].release(now, group, buoy_model::Cause::NoOwner, out);
                self.voter.give_back(self.me(), group.id);
                self.look_again();
            }
        }
    }

    /// Keeps what ends serving back for a while, so that it happens after it was said.
    pub(crate) fn delay_release(
        &mut self,
        now: Instant,
        from: usize,
        out: &mut alloc::vec::Vec<buoy_model::Action>,
    ) {
        use buoy_model::Action;
        if !self.is(Mutation::SayBeforeRelease) {
            return;
        }
        let fresh = out.split_off(from);
        let (due, later) = core::mem::take(&mut self.delayed).into_iter().partition(|d| d.0 <= now);
        self.delayed = later;
        let due: alloc::vec::Vec<(Instant, Action)> = due;
        out.extend(due.into_iter().map(|(_, action)| action));
        for action in fresh {
            let ends = matches!(
                action,
                Action::RemoveAddress { .. } | Action::Fence { until: Instant::ZERO, .. }
            );
            if ends {
                self.delayed.push((now + SAY_BEFORE, action));
            } else {
                out.push(action);
            }
        }
    }
}

#[cfg(not(feature = "mutants"))]
#[expect(clippy::unused_self, reason = "the same face as with the feature `mutants`")]
impl Node {
    pub(crate) const fn mutate(&mut self) {}

    pub(crate) const fn accepts_stale(&self) -> bool {
        false
    }

    pub(crate) const fn counts_from(&self, sent: Instant, _now: Instant) -> Instant {
        sent
    }

    pub(crate) const fn with_drift_margin(&self, end: Instant) -> Instant {
        end
    }

    pub(crate) const fn majority(&self, desired: &Desired) -> usize {
        desired.nodes.len() / 2 + 1
    }

    pub(crate) const fn never_claims(&self) -> bool {
        false
    }

    pub(crate) const fn believes_any_goodbye(&self) -> bool {
        false
    }

    pub(crate) const fn shares_from(&self, desired: &Desired) -> usize {
        self.majority(desired)
    }

    pub(crate) const fn trusts_every_link(&self) -> bool {
        false
    }

    pub(crate) const fn ignores_cordons(&self) -> bool {
        false
    }

    pub(crate) const fn lies(&self) -> bool {
        false
    }

    pub(crate) const fn overdue(&self) -> Option<Instant> {
        None
    }

    pub(crate) const fn shuffle(
        &mut self,
        _now: Instant,
        _out: &mut alloc::vec::Vec<buoy_model::Action>,
    ) {
    }
}

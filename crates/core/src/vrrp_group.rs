//! Groups that are owned by VRRP: what is heard is checked, the elections of a group move as one, and what they
//! decide becomes leases, addresses and announcements like those of any other group.
//!
//! The lease of such a group is what the protocol gives: nobody takes over before three intervals after the last
//! advertisement, so the kernel answers until then and not longer, whatever becomes of the agent.

use crate::Node;
use crate::ownership::State;
use crate::reluctance::Reluctance;
use crate::status::{RouterHeard, RouterState, RouterStatus, RouterTraffic};
use crate::vrrp::{Election, Heard, Own, Reason, State as Router, Step};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use buoy_model::{
    Action, Advert, AdvertReject, Cause, Desired, Fact, Failback, Fitness, Group, HeardAdvert,
    HmacMode, Instant, PRIORITY_OWNER, PRIORITY_RELEASE, Proof, Record, VirtualRouter, VrrpAuth,
    VrrpVersion,
};
use core::net::IpAddr;
use core::time::Duration;

/// What is refused is told at most so often for each reason.
const TELL_REFUSED_EVERY: Duration = Duration::from_secs(60);

/// So many speakers are remembered for each group; more are not to be expected on one segment.
const SPEAKERS_MAX: usize = 16;

/// Whoever takes a group only if nobody else can says so.
const PRIORITY_RELUCTANT: u8 = 1;

/// The virtual routers of one group on this host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Routers {
    /// One for each of `Group::vrrp`.
    pub(crate) elections: Vec<Election>,
    /// What the checks of this host add to its priorities.
    pub(crate) weight: i16,
    /// What was said last of the priorities.
    said: Vec<u8>,
    speakers: Vec<Speaker>,
    refused: [Refused; AdvertReject::ALL.len()],
    /// One for each of `Group::vrrp`.
    traffic: Vec<Traffic>,
}

/// What one virtual router has sent and heard since it is there.
#[derive(Clone, Copy, Debug, Default)]
struct Traffic {
    sent: u64,
    heard: u64,
    /// In the order of `AdvertReject::ALL`.
    refused: [u64; AdvertReject::ALL.len()],
}

/// Another host that speaks for one of the virtual routers.
#[derive(Clone, Debug)]
struct Speaker {
    router: usize,
    source: IpAddr,
    at: Instant,
    /// The last trailer that was believed.
    mark: Option<u64>,
    plain_checksum: bool,
    /// It says other addresses; that was told.
    differs: bool,
}

/// Packets that were refused for one reason.
#[derive(Clone, Copy, Debug, Default)]
struct Refused {
    count: u64,
    told: u64,
    told_at: Option<Instant>,
}

impl Routers {
    pub(crate) fn new(group: &Group) -> Option<Box<Self>> {
        if group.vrrp.is_empty() {
            return None;
        }
        let elections = group.vrrp.iter().map(|router| Election::new(router.interval)).collect();
        let traffic = vec![Traffic::default(); group.vrrp.len()];
        Some(Box::new(Self { elections, traffic, ..Self::default() }))
    }

    /// When one of them is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.elections.iter().filter_map(Election::deadline).min()
    }

    /// How many packets were refused for each reason, in the order of `AdvertReject::ALL`.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (AdvertReject, u64)> {
        AdvertReject::ALL.into_iter().zip(&self.refused).map(|(reason, r)| (reason, r.count))
    }

    fn speaker(&mut self, now: Instant, router: usize, source: IpAddr) -> &mut Speaker {
        let known = self.speakers.iter().position(|s| s.router == router && s.source == source);
        let at = known.unwrap_or_else(|| {
            if SPEAKERS_MAX <= self.speakers.len() {
                let oldest = self.speakers.iter().enumerate().min_by_key(|(_, s)| s.at);
                let oldest = oldest.map_or(0, |(i, _)| i);
                self.speakers.swap_remove(oldest);
            }
            let new = Speaker {
                router,
                source,
                at: now,
                mark: None,
                plain_checksum: false,
                differs: false,
            };
            self.speakers.push(new);
            self.speakers.len() - 1
        });
        let speaker = &mut self.speakers[at];
        speaker.at = now;
        speaker
    }

    /// Whether all that are heard use the checksum of the message alone.
    fn peers_are_plain(&self, router: usize) -> bool {
        let mut heard = self.speakers.iter().filter(|s| s.router == router).peekable();
        heard.peek().is_some() && heard.all(|s| s.plain_checksum)
    }

    /// Until when nobody else takes over.
    fn promised(&self, group: &Group) -> Instant {
        let ends = self.elections.iter().zip(&group.vrrp).map(|(election, router)| {
            let own = Own::new(router, self.weight, None);
            match election.state {
                Router::Active { advert_at } => {
                    let said_at = advert_at - own.interval;
                    said_at + Election::promise(own)
                }
                Router::Stopped | Router::Backup { .. } | Router::Due { .. } => Instant::ZERO,
            }
        });
        ends.min().unwrap_or(Instant::ZERO)
    }
}

impl Node {
    /// A packet of protocol 112: refused for a reason, or taken to its election.
    pub(crate) fn hear_advert(&mut self, now: Instant, heard: &HeardAdvert, out: &mut Vec<Action>) {
        let desired = Arc::clone(&self.desired);
        let Some((i, r)) = find_router(&desired, heard) else {
            self.ignored.foreign_router += 1;
            return;
        };
        let router = &desired.groups[i].vrrp[r];
        let Some(routers) = self.owned[i].routers.as_mut() else { return };
        let advert = match admit(routers, now, r, router, heard) {
            Ok(advert) => advert,
            Err(reason) => {
                if let Some(fact) = note_refused(routers, now, (r, router), reason, heard.source) {
                    let group = Some(desired.groups[i].id);
                    out.push(Action::Record(Record { at: now, group, fact }));
                }
                return;
            }
        };
        routers.traffic[r].heard += 1;
        let speaker = routers.speaker(now, r, heard.source);
        speaker.plain_checksum = advert.plain_checksum;
        let differs = !same_addresses(&advert.addresses, &router.addresses);
        if differs && !speaker.differs {
            let (id, v6, source) = (router.id, router.v6, heard.source);
            let fact = Fact::AdvertDiffers { id, v6, source, addresses: advert.addresses.clone() };
            out.push(Action::Record(Record { at: now, group: Some(desired.groups[i].id), fact }));
        }
        speaker.differs = differs;
        let own = self.own(now, &desired, i, r);
        let (source, priority, interval) = (heard.source, advert.priority, advert.interval);
        let said = Heard { at: now, source, priority, interval };
        let Some(routers) = self.owned[i].routers.as_mut() else { return };
        match routers.elections[r].hear(now, own, said) {
            Step::Stay => {}
            Step::Advertise => {
                self.advertise(now, &desired, i, r, out);
                // Whoever was active beside us has misled the neighbours.
                if let State::Holding(holding) = &mut self.owned[i].state {
                    holding.announcements.again(now);
                    let context = self.context(now, &desired, i);
                    self.owned[i].serve(context, out);
                }
            }
            Step::Yield => {
                let cause = Cause::RouterBetter { source, priority };
                self.step_down(now, &desired, i, cause, out);
            }
        }
        self.elect(now, &desired, i, out);
        self.look_again();
    }

    /// Does what is due for a group that VRRP owns: takes part or not, says what is to be said, takes or gives up.
    pub(crate) fn elect(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        out: &mut Vec<Action>,
    ) {
        let group = &desired.groups[i];
        if self.owned[i].routers.is_none() {
            return;
        }
        if let Some(cause) = self.unable(group, i) {
            self.retire(now, desired, i, cause, out);
            self.look_again();
            return;
        }
        for r in 0..group.vrrp.len() {
            let own = self.own(now, desired, i, r);
            let Some(routers) = self.owned[i].routers.as_mut() else { return };
            routers.said.resize(group.vrrp.len(), PRIORITY_RELEASE);
            let election = &mut routers.elections[r];
            election.start(now, own);
            let changed = core::mem::replace(&mut routers.said[r], own.priority) != own.priority;
            let reweighed = if changed { election.reweigh(now, own) } else { Step::Stay };
            let ticked = election.tick(now, own);
            if reweighed == Step::Advertise || ticked == Step::Advertise {
                self.advertise(now, desired, i, r, out);
            }
        }
        self.take_if_due(now, desired, i, out);
        self.keep_promised(now, desired, i, out);
        self.look_again();
    }

    /// The checks of this host add something else to its priorities.
    pub(crate) fn weigh(&mut self, group: buoy_model::GroupId, weight: i16) {
        let Some(i) = self.desired.group_index(group) else { return };
        if let Some(routers) = self.owned[i].routers.as_mut() {
            routers.weight = weight;
            self.unsettled = true;
        }
    }

    /// What this host brings to the election now.
    fn own(&self, now: Instant, desired: &Desired, i: usize, r: usize) -> Own {
        let group = &desired.groups[i];
        let preempt = match group.failback {
            Failback::Never => None,
            Failback::After(patience) => Some(patience),
        };
        let weight = self.owned[i].routers.as_ref().map_or(0, |routers| routers.weight);
        let mut own = Own::new(&group.vrrp[r], weight, preempt);
        if own.priority == PRIORITY_OWNER {
            own.preempt = Some(Duration::ZERO);
        } else if self.gives_precedence(now, i) {
            own.priority = PRIORITY_RELUCTANT;
        }
        own
    }

    /// Whether this host is to have the group only if nobody else can. A cordon keeps what is here, and so does what
    /// is not known yet.
    fn gives_precedence(&self, now: Instant, i: usize) -> bool {
        match self.reluctance(now, i) {
            None => false,
            Some(Reluctance::Unchecked | Reluctance::Cordoned) => self.owned[i].holding().is_none(),
            Some(
                Reluctance::NoBackend
                | Reluctance::CheckFails(_)
                | Reluctance::Unheard(_)
                | Reluctance::Damped(_),
            ) => true,
        }
    }

    /// Why this host takes no part at all.
    fn unable(&self, group: &Group, i: usize) -> Option<Cause> {
        if self.is_stopping() {
            return Some(Cause::Stop);
        }
        if self.draining.is_some() {
            return Some(Cause::Drain);
        }
        let mut links = group.addresses.iter().filter_map(|a| a.link);
        if let Some(link) = links.find(|link| self.links_down.contains(link)) {
            return Some(Cause::CarrierLost { link });
        }
        if !self.is_able(group) {
            return Some(Cause::Reload);
        }
        match &self.owned[i].fitness {
            Fitness::CheckFails { check } => Some(Cause::CheckFailed { check: check.clone() }),
            Fitness::Fit | Fitness::Unchecked | Fitness::NoBackend => None,
        }
    }

    /// Takes no part any more: silent first, then said to the others.
    fn retire(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        self.let_go(now, desired, i, cause, out);
        let Some(routers) = self.owned[i].routers.as_mut() else { return };
        routers.stop(&desired.groups[i], out);
    }

    fn let_go(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        if self.owned[i].holding().is_some() {
            self.owned[i].release(now, &desired.groups[i], cause, out);
            self.beat_now();
        }
    }

    /// Somebody better is active: nothing is to be said, but to the neighbours by the other one.
    fn step_down(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        cause: Cause,
        out: &mut Vec<Action>,
    ) {
        self.let_go(now, desired, i, cause, out);
        self.listen_again(now, desired, i);
    }

    /// All elections of the group are as if nobody served it here.
    pub(crate) fn listen_again(&mut self, now: Instant, desired: &Desired, i: usize) {
        for r in 0..desired.groups[i].vrrp.len() {
            let own = self.own(now, desired, i, r);
            if let Some(routers) = self.owned[i].routers.as_mut() {
                routers.elections[r].step_down(now, own);
            }
        }
    }

    /// Serves the group if every one of its virtual routers may be active.
    fn take_if_due(&mut self, now: Instant, desired: &Desired, i: usize, out: &mut Vec<Action>) {
        let Some(routers) = self.owned[i].routers.as_ref() else { return };
        let Some(cause) = due(&routers.elections) else { return };
        for r in 0..desired.groups[i].vrrp.len() {
            let own = self.own(now, desired, i, r);
            if let Some(routers) = self.owned[i].routers.as_mut() {
                routers.elections[r].activate(now, own);
            }
            // First of all, so that whoever is active lets go before the neighbours are told.
            self.advertise(now, desired, i, r, out);
        }
        let mut context = self.context(now, desired, i);
        context.own_lease_end = self.promised(desired, i);
        self.owned[i].take_for_vrrp(context, cause, out);
        self.beat_now();
    }

    /// The lease is as long as others wait.
    fn keep_promised(&mut self, now: Instant, desired: &Desired, i: usize, out: &mut Vec<Action>) {
        let until = self.promised(desired, i);
        let context = self.context(now, desired, i);
        self.owned[i].extend(context, until, out);
    }

    fn promised(&self, desired: &Desired, i: usize) -> Instant {
        let routers = self.owned[i].routers.as_ref();
        routers.map_or(Instant::ZERO, |routers| routers.promised(&desired.groups[i]))
    }

    fn advertise(
        &mut self,
        now: Instant,
        desired: &Desired,
        i: usize,
        r: usize,
        out: &mut Vec<Action>,
    ) {
        let priority = self.own(now, desired, i, r).priority;
        let Some(routers) = self.owned[i].routers.as_mut() else { return };
        routers.traffic[r].sent += 1;
        let peers_are_plain = routers.peers_are_plain(r);
        let router = Arc::clone(&desired.groups[i].vrrp[r]);
        out.push(Action::Advertise { router, priority, peers_are_plain });
    }
}

impl Routers {
    /// Ends every election; those who listen are told where this host was active.
    pub(crate) fn stop(&mut self, group: &Group, out: &mut Vec<Action>) {
        for (r, router) in group.vrrp.iter().enumerate() {
            let peers_are_plain = self.peers_are_plain(r);
            let was_active = self.elections.get_mut(r).is_some_and(Election::stop);
            if was_active {
                self.traffic[r].sent += 1;
                let (router, priority) = (Arc::clone(router), PRIORITY_RELEASE);
                out.push(Action::Advertise { router, priority, peers_are_plain });
            }
        }
        self.said.clear();
    }
}

/// The virtual routers of a group, for people.
pub(crate) fn status(node: &Node, now: Instant, i: usize) -> Vec<RouterStatus> {
    let group = &node.desired.groups[i];
    let Some(routers) = node.owned[i].routers.as_ref() else { return Vec::new() };
    let gives_precedence = node.gives_precedence(now, i);
    let all = group.vrrp.iter().zip(&routers.elections).zip(&routers.traffic).enumerate();
    let status = all.map(|(r, ((router, election), traffic))| RouterStatus {
        id: router.id,
        v6: router.v6,
        state: match election.state {
            Router::Stopped => RouterState::Stopped,
            Router::Backup { .. } => RouterState::Backup,
            Router::Due { .. } => RouterState::Due,
            Router::Active { .. } => RouterState::Active,
        },
        priority: node.own(now, &node.desired, i, r).priority,
        interval: election.interval,
        heard: election.heard.map(|heard| RouterHeard {
            source: heard.source,
            priority: heard.priority,
            ago: now.since(heard.at),
        }),
        takes_over_in: match election.state {
            Router::Backup { down_at, .. } => Some(down_at.since(now)),
            Router::Stopped | Router::Due { .. } | Router::Active { .. } => None,
        },
        weight: routers.weight,
        gives_precedence: gives_precedence && router.priority != PRIORITY_OWNER,
        traffic: RouterTraffic {
            sent: traffic.sent,
            heard: traffic.heard,
            refused: came(AdvertReject::ALL.into_iter().zip(traffic.refused)),
        },
    });
    status.collect()
}

/// Only what came.
fn came(counts: impl Iterator<Item = (AdvertReject, u64)>) -> Vec<(AdvertReject, u64)> {
    counts.filter(|(_, count)| *count > 0).collect()
}

/// Why the group can be taken, once every one of its elections says so.
fn due(elections: &[Election]) -> Option<Cause> {
    let mut cause = None;
    for election in elections {
        let (since, reason) = match election.state {
            Router::Due { since, reason } => (since, reason),
            Router::Stopped | Router::Backup { .. } | Router::Active { .. } => return None,
        };
        cause = cause.or(Some(match (reason, election.heard) {
            (Reason::Silence, Some(heard)) => {
                let silent = since.since(heard.at);
                Cause::RouterSilent { source: heard.source, silent }
            }
            (Reason::Release, Some(_) | None) => Cause::RouterReleased,
            (Reason::Preempt, Some(heard)) => {
                Cause::RouterWorse { source: heard.source, priority: heard.priority }
            }
            (Reason::Silence | Reason::Preempt, None) | (Reason::Owner, Some(_) | None) => {
                Cause::NoOwner
            }
        }));
    }
    cause
}

fn find_router(desired: &Desired, heard: &HeardAdvert) -> Option<(usize, usize)> {
    let groups = desired.groups.iter().enumerate();
    let mut found = groups.filter_map(|(i, group)| {
        let r = group
            .vrrp
            .iter()
            .position(|router| router.is_at(heard.link, heard.id, heard.source))?;
        Some((i, r))
    });
    found.next()
}

/// Looks at a packet in the order of RFC 9568 §7.1; the first thing wrong with it is the reason.
fn admit<'a>(
    routers: &mut Routers,
    now: Instant,
    r: usize,
    router: &VirtualRouter,
    heard: &'a HeardAdvert,
) -> Result<&'a Advert, AdvertReject> {
    let least_ttl = if heard.multicast { u8::MAX } else { router.min_ttl };
    if heard.ttl < least_ttl {
        return Err(AdvertReject::Ttl);
    }
    let advert = heard.advert.as_ref().map_err(|reason| *reason)?;
    if advert.version != router.version {
        return Err(AdvertReject::Version);
    }
    if heard.multicast != router.peers.is_empty() {
        return Err(AdvertReject::Destination);
    }
    if !router.peers.is_empty() && !router.peers.contains(&heard.source) {
        return Err(AdvertReject::Stranger);
    }
    if router.source == Some(heard.source) {
        return Err(AdvertReject::Ourselves);
    }
    check_proof(routers, now, r, router, heard, advert.proof)?;
    let is_followed = match router.version {
        // RFC 3768 §7.1: another interval is another configuration.
        VrrpVersion::V2 => advert.interval == router.interval,
        VrrpVersion::V3 => !advert.interval.is_zero(),
    };
    if is_followed { Ok(advert) } else { Err(AdvertReject::Interval) }
}

fn check_proof(
    routers: &mut Routers,
    now: Instant,
    r: usize,
    router: &VirtualRouter,
    heard: &HeardAdvert,
    proof: Proof,
) -> Result<(), AdvertReject> {
    match (&router.auth, proof) {
        (VrrpAuth::None, Proof::None | Proof::Signed(_) | Proof::Forged) => Ok(()),
        // In version 3 a trailer of another type is nothing to us; in version 2 it is another way to prove.
        (VrrpAuth::None, Proof::Unknown(_)) => match router.version {
            VrrpVersion::V2 => Err(AdvertReject::Password),
            VrrpVersion::V3 => Ok(()),
        },
        (VrrpAuth::Password(ours), Proof::Password(theirs)) if *ours == theirs => Ok(()),
        (VrrpAuth::None | VrrpAuth::Password(_), Proof::Password(_))
        | (
            VrrpAuth::Password(_),
            Proof::None | Proof::Signed(_) | Proof::Forged | Proof::Unknown(_),
        ) => Err(AdvertReject::Password),
        (VrrpAuth::Hmac(hmac), Proof::Signed(stamp)) => {
            if hmac.window < heard.clock_apart {
                return Err(AdvertReject::Replayed);
            }
            let position = stamp.position();
            let speaker = routers.speaker(now, r, heard.source);
            // RFC 1982: the seconds begin anew in 2106.
            let is_newer = |mark: u64| position.wrapping_sub(mark).cast_signed() > 0;
            if !speaker.mark.is_none_or(is_newer) {
                return Err(AdvertReject::Replayed);
            }
            speaker.mark = Some(position);
            Ok(())
        }
        (VrrpAuth::Hmac(_), Proof::Forged) => Err(AdvertReject::Forged),
        (VrrpAuth::Hmac(hmac), Proof::None | Proof::Password(_) | Proof::Unknown(_)) => {
            match hmac.mode {
                HmacMode::Enforce => Err(AdvertReject::Unsigned),
                HmacMode::Permissive | HmacMode::ReceiveOnly => Ok(()),
            }
        }
    }
}

/// Counts a packet that is refused; what is to be told of it.
fn note_refused(
    routers: &mut Routers,
    now: Instant,
    (r, router): (usize, &VirtualRouter),
    reason: AdvertReject,
    source: IpAddr,
) -> Option<Fact> {
    let at = AdvertReject::ALL.iter().position(|known| *known == reason)?;
    routers.traffic[r].refused[at] += 1;
    let refused = &mut routers.refused[at];
    refused.count += 1;
    if refused.told_at.is_some_and(|told| now < told + TELL_REFUSED_EVERY) {
        return None;
    }
    let count = refused.count - core::mem::replace(&mut refused.told, refused.count);
    refused.told_at = Some(now);
    Some(Fact::AdvertRefused { id: router.id, v6: router.v6, reason, source, count })
}

/// The same addresses, in whatever order.
fn same_addresses(theirs: &[IpAddr], ours: &[IpAddr]) -> bool {
    theirs.len() == ours.len() && theirs.iter().all(|address| ours.contains(address))
}

#[cfg(test)]
#[path = "vrrp_group_tests.rs"]
mod tests;

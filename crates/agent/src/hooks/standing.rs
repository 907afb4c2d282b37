//! In which of keepalived's states this node has each VIP, for scripts that were written for keepalived.
//!
//! Buoy has owners, leases and checks, and no such states, so they are made from what is known: who owns a group is MASTER, who
//! could is BACKUP, who could not (a check fails, an interface has no carrier) is FAULT. Each state is told once, when it begins.

use super::message::{CallKind, StateTold};
use crate::fitness;
use buoy_model::{BackendState, Cause, Desired, Fact, Group, GroupId, LinkId, Record, VrrpState};
use std::collections::{BTreeMap, BTreeSet};

/// What keepalived takes for the priority of an instance that has none.
const PRIORITY_USUAL: u32 = 100;

/// News for the hooks of a group.
pub(super) type News = (GroupId, Vec<StateTold>);

#[derive(Debug, Default)]
pub(super) struct Standings {
    owned: BTreeSet<GroupId>,
    failing: BTreeSet<GroupId>,
    down: BTreeSet<LinkId>,
    is_stopping: bool,
    /// What was told last, with all that is needed to tell of a group that has left the configuration.
    told: BTreeMap<GroupId, Vec<StateTold>>,
}

impl Standings {
    /// What a record changes.
    pub(super) fn hear(&mut self, desired: &Desired, record: &Record) -> Vec<News> {
        if let Fact::Link { link, up } = &record.fact {
            match up {
                true => self.down.remove(link),
                false => self.down.insert(*link),
            };
            return self.news(desired);
        }
        let Some(group) = record.group else { return Vec::new() };
        if let Fact::Acquired { .. } = &record.fact {
            self.owned.insert(group);
            self.failing.remove(&group);
        } else if let Fact::Released { cause, .. } = &record.fact {
            self.owned.remove(&group);
            self.learn(group, cause);
        } else {
            return Vec::new();
        }
        let group = desired.groups.iter().find(|other| other.id == group);
        group.and_then(|group| self.turn(desired, group)).into_iter().collect()
    }

    /// Why it was given up may be known here before the checks are heard.
    fn learn(&mut self, group: GroupId, cause: &Cause) {
        match cause {
            Cause::CheckFailed { .. } => {
                self.failing.insert(group);
            }
            Cause::CarrierLost { link } => {
                self.down.insert(*link);
            }
            Cause::Stop => self.is_stopping = true,
            Cause::NoOwner
            | Cause::OwnerSilent { .. }
            | Cause::OwnerReleased { .. }
            | Cause::OwnerDied { .. }
            | Cause::Moved { .. }
            | Cause::Unheard { .. }
            | Cause::LeaseExpired
            | Cause::Drain
            | Cause::Failback { .. }
            | Cause::BetterOwner { .. }
            | Cause::RouterSilent { .. }
            | Cause::RouterReleased
            | Cause::RouterWorse { .. }
            | Cause::RouterBetter { .. }
            | Cause::NoBackend
            | Cause::Reload
            | Cause::Stalled => {}
        }
    }

    /// What the checks of this host say, or a new configuration.
    pub(super) fn follow(&mut self, desired: &Desired, checks: &fitness::States) -> Vec<News> {
        let fails =
            |(_, known): &(&fitness::Key, &fitness::CheckState)| known.state == BackendState::Down;
        // One that weighs something decides nothing.
        let decides = |key: &&fitness::Key| {
            let checks = desired.group(key.group).into_iter().flat_map(|group| &group.checks);
            !checks.into_iter().any(|check| check.name == key.check && check.weight.is_some())
        };
        let failing = checks.iter().filter(fails).map(|(key, _)| key).filter(decides);
        self.failing = failing.map(|key| key.group).collect();
        let mut news = self.news(desired);
        // keepalived says FAULT of an instance that has left its file.
        let is_there = |id: &GroupId| desired.groups.iter().any(|group| group.id == *id);
        for (id, told) in self.told.extract_if(.., |id, _| !is_there(id)) {
            self.owned.remove(&id);
            let fault = |told: StateTold| StateTold { state: VrrpState::Fault, ..told };
            let instances = told.into_iter().filter(|told| told.state != VrrpState::Fault);
            news.push((id, instances.map(fault).collect()));
        }
        news
    }

    /// The agent ends.
    pub(super) fn stop(&mut self, desired: &Desired) -> Vec<News> {
        self.is_stopping = true;
        self.owned.clear();
        self.news(desired)
    }

    fn news(&mut self, desired: &Desired) -> Vec<News> {
        desired.groups.iter().filter_map(|group| self.turn(desired, group)).collect()
    }

    /// What is new of a group that this node may own.
    fn turn(&mut self, desired: &Desired, group: &Group) -> Option<News> {
        let state = self.judge(desired, group)?;
        let told = self.told.get(&group.id).and_then(|told| told.first());
        if told.is_some_and(|told| told.state == state) {
            return None;
        }
        let calls = calls(desired, group, state);
        self.told.insert(group.id, calls.clone());
        Some((group.id, calls))
    }

    fn judge(&self, desired: &Desired, group: &Group) -> Option<VrrpState> {
        let mut links = group.addresses.iter().filter_map(|address| address.link);
        if !group.nodes.contains(&desired.me) {
            return None;
        }
        Some(if self.owned.contains(&group.id) {
            VrrpState::Master
        } else if self.is_stopping {
            VrrpState::Stop
        } else if self.failing.contains(&group.id) || links.any(|link| self.down.contains(&link)) {
            VrrpState::Fault
        } else {
            VrrpState::Backup
        })
    }
}

/// One for each VIP; where several move together one more for all, except of the end, as keepalived has it.
fn calls(desired: &Desired, group: &Group, state: VrrpState) -> Vec<StateTold> {
    let priority = priority(desired, group);
    let call = |kind, name: &str| StateTold { kind, name: name.to_owned(), state, priority };
    let mut names: Vec<&str> = Vec::new();
    let own = group.addresses.iter().map(|address| &address.vip_name);
    for name in own.chain(group.shares.iter().map(|share| &share.vip)) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let mut calls: Vec<StateTold> =
        names.iter().map(|name| call(CallKind::Instance, name)).collect();
    let is_labelled = names.iter().any(|name| *name != group.name);
    if is_labelled && state != VrrpState::Stop {
        calls.push(call(CallKind::Group, &group.name));
    }
    calls
}

/// That of VRRP; else higher for those that `prefer` names, the first one highest.
fn priority(desired: &Desired, group: &Group) -> u32 {
    if let Some(router) = group.vrrp.first() {
        return u32::from(router.priority);
    }
    if let Some(router) = group.vrrp.first() {
        return router.priority.into();
    }
    let place = group.prefer.iter().rev().position(|node| *node == desired.me);
    let above = place.map_or(0, |place| u32::try_from(place + 1).unwrap_or(u32::MAX));
    PRIORITY_USUAL.saturating_add(above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;
    use buoy_model::{Epoch, Instant, NodeId};
    use std::time::Duration;

    fn record(group: Option<GroupId>, fact: Fact) -> Record {
        Record { at: Instant::ZERO, group, fact }
    }

    fn acquired(group: GroupId) -> Record {
        let fact = Fact::Acquired { epoch: Epoch(1), cause: Cause::NoOwner, took: Duration::ZERO };
        record(Some(group), fact)
    }

    fn released(group: GroupId, cause: Cause) -> Record {
        record(Some(group), Fact::Released { epoch: Epoch(1), cause })
    }

    fn lines(news: Vec<News>) -> Vec<String> {
        news.iter().flat_map(|(_, calls)| calls.iter().map(StateTold::line)).collect()
    }

    #[test]
    fn each_state_is_told_once_when_it_begins() {
        let desired = sample::desired(&["192.0.2.1"], "eth0", Vec::new());
        let group = desired.groups[0].id;
        let name = desired.groups[0].name.clone();
        let line = |state: &str| vec![format!("INSTANCE \"{name}\" {state} 100\n")];
        let mut standings = Standings::default();
        assert_eq!(lines(standings.follow(&desired, &fitness::States::new())), line("BACKUP"));
        assert_eq!(lines(standings.follow(&desired, &fitness::States::new())), [""; 0]);
        assert_eq!(lines(standings.hear(&desired, &acquired(group))), line("MASTER"));
        let moved = Cause::Drain;
        assert_eq!(lines(standings.hear(&desired, &released(group, moved))), line("BACKUP"));
        standings.hear(&desired, &acquired(group));
        let failed = Cause::CheckFailed { check: "x".into() };
        assert_eq!(lines(standings.hear(&desired, &released(group, failed))), line("FAULT"));
        assert_eq!(lines(standings.follow(&desired, &fitness::States::new())), line("BACKUP"));
        standings.hear(&desired, &acquired(group));
        assert_eq!(lines(standings.hear(&desired, &released(group, Cause::Stop))), line("STOP"));
        assert_eq!(lines(standings.stop(&desired)), [""; 0], "it is told already");
    }

    #[test]
    fn an_interface_without_carrier_is_a_fault_of_its_vips() {
        let desired = sample::desired(&["192.0.2.1"], "lo", Vec::new());
        let link = desired.groups[0].addresses[0].link.expect("the sample has a link");
        let mut standings = Standings::default();
        standings.follow(&desired, &fitness::States::new());
        let down = standings.hear(&desired, &record(None, Fact::Link { link, up: false }));
        assert_eq!(down[0].1[0].state, VrrpState::Fault);
        let up = standings.hear(&desired, &record(None, Fact::Link { link, up: true }));
        assert_eq!(up[0].1[0].state, VrrpState::Backup);
    }

    #[test]
    fn vips_that_move_together_are_told_each_and_as_a_group_with_the_place_in_prefer() {
        let mut desired = sample::desired(&["192.0.2.1", "192.0.2.2"], "eth0", Vec::new());
        let me = desired.me;
        let group = &mut desired.groups[0];
        (group.name, group.prefer) = ("edge".into(), vec![me, NodeId::of("other")]);
        group.addresses[0].vip_name = "in".into();
        group.addresses[1].vip_name = "out".into();
        let mut standings = Standings::default();
        let first = lines(standings.follow(&desired, &fitness::States::new()));
        assert_eq!(
            first,
            [
                "INSTANCE \"in\" BACKUP 102\n",
                "INSTANCE \"out\" BACKUP 102\n",
                "GROUP \"edge\" BACKUP 102\n"
            ]
        );
        assert_eq!(lines(standings.stop(&desired)).len(), 2, "a group has no STOP");
    }

    #[test]
    fn a_vip_that_left_the_file_is_in_fault_and_others_vips_are_not_told() {
        let mut desired = sample::desired(&["192.0.2.1"], "eth0", Vec::new());
        let mut standings = Standings::default();
        standings.hear(&desired, &acquired(desired.groups[0].id));
        let group = desired.groups.remove(0);
        let gone = standings.follow(&desired, &fitness::States::new());
        assert_eq!((gone[0].0, gone[0].1[0].state), (group.id, VrrpState::Fault));
        desired.groups = vec![Group { nodes: vec![NodeId::of("other")], ..group }];
        assert_eq!(standings.follow(&desired, &fitness::States::new()), []);
    }
}

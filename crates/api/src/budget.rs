//! How well each VIP has kept its promise, as it travels in JSON: as far as the answering node has seen, since its agent started.

use crate::view::{View, by_name, millis};
use crate::{Client, ClientError};
use buoy_core::GroupStatus;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// Of the time that a lease is counted shorter by its owner than by its voters: 1/64, for clocks that run differently.
const DRIFT: u32 = 64;

/// `GET /v1/budget`: how well each VIP has kept its promise.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BudgetReply {
    /// The node that answers: all here is what it has seen, in this life of its agent.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// How long a VIP may be without an owner by this configuration, where a node that can take it is left: the longest
    /// term of a lease, what clocks may differ by, and a heartbeat.
    pub bound_ms: f64,
    /// The term of leases now, which is what their slack is a part of.
    pub term_ms: f64,
    /// All VIPs, by name.
    pub vips: Vec<BudgetView>,
}

/// How well one VIP has kept its promise.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct BudgetView {
    /// Which.
    pub vip: String,
    /// Who serves it now.
    pub owner: Option<String>,
    /// Why nothing is known of it; null: all else here is known.
    pub unknown: Option<String>,
    /// Which part of the time that is known somebody served it, from 0 to 1.
    pub availability: Option<f64>,
    /// For how long it is known whether somebody served it.
    pub known_ms: f64,
    /// For how long of that nobody did.
    pub unserved_ms: f64,
    /// For how long it was not known, since this node heard no majority.
    pub unknown_ms: f64,
    /// How many times without an owner there were.
    pub gaps: u64,
    /// How long each of the latest 32 was, the shortest first.
    pub latest_gaps_ms: Vec<f64>,
    /// Half of those were not longer.
    pub gap_p50_ms: Option<f64>,
    /// 99 of a hundred of those were not longer.
    pub gap_p99_ms: Option<f64>,
    /// How many of those were longer than the bound.
    pub over_bound: u64,
    /// What was left of its lease when the answering node renewed it last; null: it serves it not, or by votes of its own.
    pub slack_ms: Option<f64>,
    /// The least that was left in the last hour.
    pub slack_least_ms: Option<f64>,
}

impl View<'_> {
    /// How well each VIP has kept its promise.
    pub fn budget(&self, revision: u64) -> BudgetReply {
        let timing = self.desired.timing;
        let longest = timing.lease_max.max(self.status.term);
        let bound = longest + longest / DRIFT + timing.heartbeat;
        let known = self.status.groups.iter().filter_map(|status| {
            let group = self.desired.group(status.id)?;
            Some(self.budget_of(&group.name, status, bound))
        });
        BudgetReply {
            node: self.desired.node_name(self.desired.me).into(),
            revision,
            bound_ms: millis(bound),
            term_ms: millis(self.status.term),
            vips: by_name(known, |vip| &vip.vip),
        }
    }

    fn budget_of(&self, name: &str, status: &GroupStatus, bound: Duration) -> BudgetView {
        let owner = status.owner.map(|owner| self.words().node(owner));
        let vip = BudgetView { vip: name.into(), owner, ..BudgetView::default() };
        let Some(seen) = &status.uptime else {
            let why = "VRRP decides about it, and routers elsewhere are not all heard";
            return BudgetView { unknown: Some(why.into()), ..vip };
        };
        let known = seen.served + seen.unserved;
        let mut gaps: Vec<Duration> = seen.gaps.latest().collect();
        gaps.sort_unstable();
        let never = known.is_zero().then(|| "nobody has been seen to serve it yet".into());
        BudgetView {
            unknown: never,
            availability: (!known.is_zero())
                .then(|| seen.served.as_secs_f64() / known.as_secs_f64()),
            known_ms: millis(known),
            unserved_ms: millis(seen.unserved),
            unknown_ms: millis(seen.unknown),
            gaps: seen.gaps.count() as u64,
            gap_p50_ms: percentile(&gaps, 50).map(millis),
            gap_p99_ms: percentile(&gaps, 99).map(millis),
            over_bound: gaps.iter().filter(|gap| bound < **gap).count() as u64,
            latest_gaps_ms: gaps.into_iter().map(millis).collect(),
            slack_ms: status.slack.map(|slack| millis(slack.last)),
            slack_least_ms: status.slack.map(|slack| millis(slack.least)),
            ..vip
        }
    }
}

/// So many of a hundred are not longer (the nearest rank).
fn percentile(sorted: &[Duration], of_hundred: usize) -> Option<Duration> {
    let rank = (sorted.len() * of_hundred).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

impl Client {
    /// How well each VIP has kept its promise, as this node has seen.
    pub fn budget(&self) -> Result<BudgetReply, ClientError> {
        self.get("/v1/budget")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_there_was() {
        let ms = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        let of = |list: &[u64], part| percentile(&ms(list), part).map(|found| found.as_millis());
        assert_eq!(of(&[], 50), None);
        assert_eq!((of(&[7], 50), of(&[7], 99)), (Some(7), Some(7)));
        assert_eq!((of(&[1, 2, 3, 4], 50), of(&[1, 2, 3, 4], 99)), (Some(2), Some(4)));
        let many: Vec<u64> = (1..=200).collect();
        assert_eq!((of(&many, 50), of(&many, 99)), (Some(100), Some(198)));
    }
}

//! How well each VIP has kept its promise, in numbers that add up over time.
//!
//! The time that somebody served a VIP is not told: what counted as served while an owner's silence was not noticed yet
//! counts as not served afterwards, and a counter never goes back. All time that is known, and that of it in which
//! nobody served it, only grow.

use super::{Page, Result};
use buoy_api::BudgetReply;

/// Adds what is known of every VIP.
pub(super) fn show(page: &Page, budget: &BudgetReply) -> Result<()> {
    let gauge = |name, help| page.gauge(name, help, &["vip"]);
    let counter = |name, help| page.counter(name, help, &["vip"]);
    page.one(
        "buoy_vip_gap_bound_seconds",
        "How long a VIP may be without an owner by this configuration, where a node that can take it is left.",
        budget.bound_ms / 1e3,
    )?;
    let known = counter(
        "buoy_vip_known_seconds_total",
        "For how long this node has known whether somebody served the VIP.",
    )?;
    let unserved = counter(
        "buoy_vip_unserved_seconds_total",
        "For how long of the time that is known nobody served the VIP.",
    )?;
    let unknown = counter(
        "buoy_vip_unknown_seconds_total",
        "For how long this node did not know whether somebody served the VIP, as it heard no majority.",
    )?;
    let gaps = counter("buoy_vip_gaps_total", "How often the VIP was without an owner.")?;
    let over = gauge(
        "buoy_vip_gaps_over_bound",
        "How many of the latest 32 times without an owner were longer than the bound.",
    )?;
    let p50 = gauge(
        "buoy_vip_gap_p50_seconds",
        "Half of the latest 32 times without an owner were not longer.",
    )?;
    let p99 = gauge(
        "buoy_vip_gap_p99_seconds",
        "99 of 100 of the latest 32 times without an owner were not longer.",
    )?;
    let slack = gauge(
        "buoy_vip_lease_slack_seconds",
        "What was left of the VIP's lease when this node renewed it last.",
    )?;
    let least = gauge(
        "buoy_vip_lease_slack_least_seconds",
        "The least that was left of it at a renewal of the last hour.",
    )?;
    for vip in budget.vips.iter().filter(|vip| vip.unknown.is_none()) {
        let label = &[&vip.vip];
        known.with_label_values(label).inc_by(vip.known_ms / 1e3);
        unserved.with_label_values(label).inc_by(vip.unserved_ms / 1e3);
        unknown.with_label_values(label).inc_by(vip.unknown_ms / 1e3);
        gaps.with_label_values(label).inc_by(vip.gaps as f64);
        over.with_label_values(label).set(vip.over_bound as f64);
        let measured = [
            (&p50, vip.gap_p50_ms),
            (&p99, vip.gap_p99_ms),
            (&slack, vip.slack_ms),
            (&least, vip.slack_least_ms),
        ];
        for (gauge, ms) in measured {
            if let Some(ms) = ms {
                gauge.with_label_values(label).set(ms / 1e3);
            }
        }
    }
    Ok(())
}

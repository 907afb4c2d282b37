//! The same facts under names that dashboards made for others ask for: those of keepalived's exporters, and MetalLB's.
//!
//! Only what Buoy has too is told. A VIP has no VRID here, so that label is 0.

use super::{Page, Result, Totals};
use buoy_api::{ClusterStatus, VipView};
use buoy_model::MetricAlias;

/// States of a VRRP instance as exporters number them.
const BACKUP: f64 = 1.0;
const MASTER: f64 = 2.0;
const FAULT: f64 = 3.0;

/// Adds what these ask for.
pub(super) fn show(
    page: &Page,
    totals: &Totals,
    status: &ClusterStatus,
    aliases: &[MetricAlias],
) -> Result<()> {
    for alias in aliases {
        match alias {
            MetricAlias::Keepalived => keepalived(page, totals, status)?,
            MetricAlias::Metallb => metallb(page, status)?,
        }
    }
    Ok(())
}

fn keepalived(page: &Page, totals: &Totals, status: &ClusterStatus) -> Result<()> {
    page.one("keepalived_up", "Always 1: Buoy runs in its place.", 1.0)?;
    let state = page.gauge(
        "keepalived_vrrp_state",
        "State of a VIP on this node: 1 BACKUP, 2 MASTER, 3 FAULT.",
        &["iname", "intf", "vrid", "ip_address"],
    )?;
    let labels = &["iname", "intf", "vrid"];
    let became = page.counter(
        "keepalived_become_master_total",
        "How often this node took the VIP.",
        labels,
    )?;
    let released =
        page.counter("keepalived_release_master_total", "How often this node gave it up.", labels)?;
    for vip in &status.vips {
        let value = state_of(vip, &status.node);
        for address in &vip.addresses {
            let ip = address.address.split('/').next().unwrap_or_default();
            let interface = address.interface.as_deref().unwrap_or_default();
            state.with_label_values(&[vip.name.as_str(), interface, "0", ip]).set(value);
        }
        let first = vip.addresses.first().and_then(|address| address.interface.as_deref());
        let label = &[vip.name.as_str(), first.unwrap_or_default(), "0"];
        let count = |kind: &str| totals.events.with_label_values(&[vip.name.as_str(), kind]).get();
        became.with_label_values(label).inc_by(count("acquired") as f64);
        released.with_label_values(label).inc_by(count("released") as f64);
    }
    Ok(())
}

fn state_of(vip: &VipView, me: &str) -> f64 {
    let is_excluded = |candidate: &&buoy_api::CandidateView| {
        candidate.node == me && candidate.standing == "excluded"
    };
    if vip.mine {
        MASTER
    } else if vip.candidates.iter().any(|candidate| is_excluded(&candidate)) {
        FAULT
    } else {
        BACKUP
    }
}

fn metallb(page: &Page, status: &ClusterStatus) -> Result<()> {
    let announced = page.gauge(
        "metallb_speaker_announced",
        "1: this node announces the address.",
        &["service", "protocol", "node", "ip"],
    )?;
    for vip in status.vips.iter().filter(|vip| vip.mine) {
        for address in &vip.addresses {
            let ip = address.address.split('/').next().unwrap_or_default();
            let labels = &[vip.name.as_str(), "layer2", status.node.as_str(), ip];
            announced.with_label_values(labels).set(1.0);
        }
    }
    page.one("metallb_k8s_client_config_loaded_bool", "Always 1: a configuration is in force.", 1.0)
}

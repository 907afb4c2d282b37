//! Unites the VIPs of one `group`, and holds what they say of their owners against each other.

use crate::Code;
use crate::across;
use crate::cluster::Cluster;
use crate::keys::{Key, vip as keys};
use crate::node_check::Asked;
use crate::report::{At, Problems, listed};
use crate::routes;
use crate::settings::Settings;
use crate::vip::{self, Vip};
use crate::vrrp;
use buoy_model::limits::{GROUP_ADDRESSES_MAX, GROUP_CHECKS_MAX, GROUP_SERVICES_MAX};
use buoy_model::{Failback, GroupId, NodeId, Safety, Share};
use std::collections::{BTreeSet, HashMap};

/// VIPs that move together, mostly one.
#[derive(Clone, Debug)]
pub(crate) struct Bundle {
    /// The label of the group, or the name of its only VIP.
    pub(crate) name: At<String>,
    pub(crate) vips: Vec<Vip>,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) prefer: Vec<NodeId>,
    pub(crate) failback: Failback,
    pub(crate) safety: Safety,
    pub(crate) apart: Option<At<String>>,
    pub(crate) checks: Vec<Asked>,
}

impl Bundle {
    /// The lease that its addresses are served under.
    pub(crate) fn id(&self) -> GroupId {
        let addresses = self.vips.iter().flat_map(|vip| &vip.addresses);
        addresses.map(|a| a.value.address()).min().map_or(GroupId(0), GroupId::of)
    }

    /// The VIPs that have addresses of one before them.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let mut seen = BTreeSet::new();
        let mut shares = Vec::new();
        for vip in &self.vips {
            let all = vip.addresses.iter().map(|address| address.value.address());
            let addresses: Vec<_> = all.filter(|address| !seen.insert(*address)).collect();
            if !addresses.is_empty() {
                let ports = vip.services.iter().map(|s| (s.value.protocol, s.value.ports));
                let name = vip.name.value.clone();
                shares.push(Share { vip: name, addresses, ports: ports.collect() });
            }
        }
        shares
    }
}

pub(crate) fn unite(vips: Vec<Vip>, cluster: &Cluster, problems: &mut Problems<'_>) -> Vec<Bundle> {
    let mut bundles: Vec<Vec<Vip>> = Vec::new();
    let mut labels: HashMap<String, usize> = HashMap::new();
    for vip in vips {
        let at = match &vip.group {
            Some(label) => *labels.entry(label.value.clone()).or_insert(bundles.len()),
            None => bundles.len(),
        };
        match bundles.get_mut(at) {
            Some(bundle) => bundle.push(vip),
            None => bundles.push(vec![vip]),
        }
    }
    let bundles = bundles.into_iter().filter_map(|vips| bundle(vips, cluster, problems));
    let bundles: Vec<Bundle> = bundles.collect();
    across::check_bundles(&bundles, problems);
    routes::check_bundles(&bundles, problems);
    vrrp::check_bundles(&bundles, cluster, problems);
    warn_of_idle_witness(&bundles, cluster, problems);
    bundles
}

/// Votes are asked for by `exclusive` VIPs only.
fn warn_of_idle_witness(bundles: &[Bundle], cluster: &Cluster, problems: &mut Problems<'_>) {
    let Some(witness) = cluster.peers.list.iter().find(|p| p.witness) else { return };
    // With fewer than three votes something else was said of the witness already.
    let few = cluster.peers.list.len() < 3;
    if few || bundles.is_empty() || bundles.iter().any(|b| b.safety == Safety::Exclusive) {
        return;
    }
    let message = "nobody asks the witness: every VIP is `available`";
    let reason = "votes are needed for `exclusive` VIPs only";
    let fix = "write safety = \"exclusive\", or remove the witness";
    problems.add_once(Code::WitnessVotes, witness.span(), message, reason, fix);
}

fn bundle(vips: Vec<Vip>, cluster: &Cluster, problems: &mut Problems<'_>) -> Option<Bundle> {
    let first = vips.first()?;
    let name = first.group.clone().unwrap_or_else(|| first.name.clone());
    let label = &name.value;
    let settings = || vips.iter().map(|vip| &vip.settings);
    let ids = |names: &Vec<At<NodeId>>| names.iter().map(|n| n.value).collect::<Vec<_>>();
    let sorted = |names: &Vec<At<NodeId>>| {
        let mut ids = ids(names);
        ids.sort_unstable();
        ids
    };
    let nodes = settings().filter_map(|s| s.nodes.as_ref());
    let nodes = agreed(&keys::NODES, label, nodes, |a, b| sorted(a) == sorted(b), problems);
    let prefer = settings().filter_map(|s| s.prefer.as_ref());
    let prefer = agreed(&keys::PREFER, label, prefer, |a, b| ids(a) == ids(b), problems);
    let failback = settings().filter_map(|s| s.failback.as_ref());
    let failback = agreed(&keys::FAILBACK, label, failback, PartialEq::eq, problems);
    let safety = settings().filter_map(|s| s.safety.as_ref());
    let safety = agreed(&keys::SAFETY, label, safety, PartialEq::eq, problems);
    let apart = settings().filter_map(|s| s.apart.as_ref());
    let apart = agreed(&keys::APART, label, apart, PartialEq::eq, problems).cloned();
    if let (Some(nodes), Some(prefer)) = (nodes, prefer) {
        refuse_strangers(nodes, prefer, cluster, problems);
    }
    refuse_too_many(&vips, label, problems);
    // VRRP has no votes: whoever hears nobody better owns it.
    let by_vrrp = vips.iter().any(|vip| vip.vrrp.is_some());
    let safety =
        if by_vrrp { Safety::Available } else { safety.map_or(cluster.safety, |s| s.value) };
    Some(Bundle {
        nodes: nodes.map_or_else(|| cluster.peers.owners(), |n| sorted(&n.value)),
        prefer: prefer.map(|p| ids(&p.value)).unwrap_or_default(),
        failback: failback.map_or(Failback::Never, |f| f.value),
        safety,
        apart,
        checks: unite_checks(settings(), problems),
        name,
        vips,
    })
}

/// The value that all VIPs of a group agree on; what one of them says holds for all.
fn agreed<'v, T>(
    key: &Key,
    label: &str,
    mut said: impl Iterator<Item = &'v At<T>>,
    same: impl Fn(&T, &T) -> bool,
    problems: &mut Problems<'_>,
) -> Option<&'v At<T>> {
    let first = said.next()?;
    if let Some(other) = said.find(|other| !same(&first.value, &other.value)) {
        let message = format!("`{}` differs within the group \"{label}\"", key.name);
        let (again, first) =
            ((&other.span, "VIPs of one group move as one"), (&first.span, "first here"));
        let fix = "write it in one of them only, or the same in each";
        problems.add_pair(Code::GroupDiffers, again, first, message, fix);
    }
    Some(first)
}

fn refuse_strangers(
    nodes: &At<Vec<At<NodeId>>>,
    prefer: &At<Vec<At<NodeId>>>,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) {
    let named = |id: NodeId| nodes.value.iter().any(|n| n.value == id);
    let peers = &cluster.peers;
    for name in prefer.value.iter().filter(|p| !named(p.value)) {
        let message = format!("`prefer` names {}, which is not in `nodes`", peers.name(name.value));
        let all = listed(nodes.value.iter().map(|n| peers.name(n.value)));
        let reason = format!("only {all} may own this VIP");
        let fix = "add it to `nodes`, or remove it here";
        problems.add(Code::PreferNotInNodes, &name.span, message, reason, fix);
    }
}

/// What is within the limits VIP by VIP may be too much for one group.
fn refuse_too_many(vips: &[Vip], label: &str, problems: &mut Problems<'_>) {
    if vips.len() < 2 {
        return;
    }
    let addresses: Vec<At<()>> = vips
        .iter()
        .flat_map(|vip| vip.addresses.iter().map(|a| At::new((), a.span.clone())))
        .collect();
    let what = format!("addresses in the group \"{label}\"");
    let fix = "make two groups of it";
    vip::refuse_too_many(&what, &addresses, GROUP_ADDRESSES_MAX, fix, problems);
    let services: Vec<At<()>> = vips
        .iter()
        .flat_map(|vip| vip.services.iter().map(|_| At::new((), vip.name.span.clone())))
        .collect();
    let what = format!("ports in the group \"{label}\"");
    vip::refuse_too_many(&what, &services, GROUP_SERVICES_MAX, fix, problems);
}

/// Every check of every VIP; the same one is asked once.
fn unite_checks<'v>(
    settings: impl Iterator<Item = &'v Settings>,
    problems: &mut Problems<'_>,
) -> Vec<Asked> {
    let mut all: Vec<Asked> = Vec::new();
    for (n, asked) in settings.enumerate().flat_map(|(n, s)| s.checks.iter().map(move |c| (n, c))) {
        match all.iter().find(|first| first.check.name == asked.check.name) {
            Some(first) if n > 0 && first.check == asked.check => {}
            Some(first) => {
                let message = format!("two checks are called \"{}\"", asked.check.name);
                let (again, first) = ((&asked.span, "again here"), (&first.span, "first here"));
                let fix = "remove one, or give it another `name`";
                problems.add_pair(Code::DuplicateName, again, first, message, fix);
            }
            None => all.push(asked.clone()),
        }
    }
    let spans: Vec<At<()>> = all.iter().map(|c| At::new((), c.span.clone())).collect();
    let fix = "let one program ask several things: check = { exec = [\"/usr/local/lib/fit\"] }";
    vip::refuse_too_many("checks", &spans, GROUP_CHECKS_MAX, fix, problems);
    all
}

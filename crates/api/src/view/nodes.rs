//! What there is to say of the nodes, their legs and their links, and of the cluster as a whole. Pure.

use super::{View, digest, millis};
use crate::status::{LegView, LinkView, NodeView};
use crate::words;
use buoy_core::{Beats, Exclusion, NodeStatus, Quorum, Standing};
use buoy_model::limits::{LEASE_WITHOUT_GATE, SILENT_HEARTBEATS};
use buoy_model::{Group, Node, Safety};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names of VIPs repeated in a sentence.
const NAMES_SHOWN: usize = 5;

impl View<'_> {
    /// Why this node asks for more than the shortest lease.
    pub(super) fn term_reason(&self) -> Option<&'static str> {
        if self.status.term <= self.desired.timing.lease {
            return None;
        }
        if self.status.term >= LEASE_WITHOUT_GATE {
            return Some("without a gate its kernel must have forgotten the address first");
        }
        Some("datagrams were lost, or a host stood still, in the last minutes")
    }

    /// This node's interfaces of which there is something to say: by its own standing, it takes what
    /// is there only if nobody else can.
    pub(super) fn links(&self) -> Vec<LinkView> {
        let mut links: BTreeMap<String, LinkView> = BTreeMap::new();
        for (group, own) in self.own_standings() {
            let named = |name: &String| LinkView { name: name.clone(), ..LinkView::default() };
            match own {
                Standing::Excluded(Exclusion::Unheard(link)) => {
                    let name = self.words().link(*link);
                    links.entry(name.clone()).or_insert_with(|| named(&name)).unheard = true;
                }
                Standing::Excluded(Exclusion::Damped(left)) => {
                    let carrying = group.addresses.iter().filter(|a| a.link.is_some());
                    for name in carrying.map(|address| &address.link_name) {
                        let link = links.entry(name.clone()).or_insert_with(|| named(name));
                        link.damped_left_ms = Some(millis(*left));
                    }
                }
                Standing::Owner
                | Standing::Wants
                | Standing::Candidate
                | Standing::Excluded(
                    Exclusion::NotAllowed
                    | Exclusion::Witness
                    | Exclusion::NeverHeard
                    | Exclusion::Silent(_)
                    | Exclusion::Draining
                    | Exclusion::NoCarrier(_)
                    | Exclusion::NotOffered
                    | Exclusion::Reluctant
                    | Exclusion::Unchecked
                    | Exclusion::NoBackend
                    | Exclusion::CheckFails(_)
                    | Exclusion::Cordoned
                    | Exclusion::NoMajority
                    | Exclusion::Listening(_),
                ) => {}
            }
        }
        links.into_values().collect()
    }

    /// What this node is to each group.
    fn own_standings(&self) -> impl Iterator<Item = (&Group, &Standing)> {
        self.status.groups.iter().filter_map(|status| {
            let group = self.desired.group(status.id)?;
            let own = status.candidates.iter().find(|c| c.node == self.desired.me)?;
            Some((group, &own.standing))
        })
    }

    /// What the safeties that are in use mean, each explained once.
    pub(super) fn safety(&self) -> Vec<String> {
        let mut said: Vec<String> = Vec::new();
        // A thousand groups that are alike need one sentence, and a look each.
        let mut seen = Vec::new();
        for group in &self.desired.groups {
            let kind = (group.safety, &group.nodes, group.vrrp.is_empty());
            if seen.contains(&kind) {
                continue;
            }
            seen.push(kind);
            let means = words::safety_means(self.desired, group);
            let sentence = format!("{}: {means}", words::safety(group.safety));
            if !said.contains(&sentence) {
                said.push(sentence);
            }
        }
        said.sort();
        said
    }

    /// The host's own problems, and those that only a look at the whole cluster shows.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.host.problems.clone();
        problems.extend(self.minority());
        problems.extend(self.out_of_sight());
        for node in &self.status.nodes {
            let name = self.words().node(node.id);
            let other = node.digest.is_some_and(|theirs| theirs != self.status.digest);
            if node.alive && other {
                problems.push(format!(
                    "{name} runs another configuration: \
                     copy the file to it and run `buoy reload` there"
                ));
            }
            if node.alive && !node.hears_us && node.id != self.desired.me {
                problems.push(format!(
                    "{name} is heard but does not answer: \
                     is UDP towards {name} filtered, or its key another?"
                ));
            }
            for leg in self.legs(node).iter().filter(|leg| node.alive && !leg.alive) {
                problems.push(format!(
                    "leg {} of {name} ({}) is silent while another is heard: look at that network",
                    leg.leg, leg.address
                ));
            }
        }
        problems.extend(self.links().iter().map(|link| link_problem(&link.name, link)));
        problems
    }

    /// Too few nodes are heard for a majority.
    fn minority(&self) -> Option<String> {
        let Quorum { members, needed, heard, .. } = self.status.quorum;
        let exclusive = self.desired.groups.iter().any(|g| g.safety == Safety::Exclusive);
        (exclusive && heard < needed).then(|| {
            let are = if heard == 1 { "is" } else { "are" };
            let me = self.words().node(self.desired.me);
            format!(
                "{heard} of {members} nodes {are} heard, itself included, and an exclusive VIP \
                 needs {needed}: {me} serves none until it hears more"
            )
        })
    }

    /// Who may be serving an `available` VIP where this node cannot hear it.
    fn out_of_sight(&self) -> Option<String> {
        let available = self.desired.groups.iter().filter(|g| g.safety == Safety::Available);
        let silent = |node: &&Node| self.status.nodes.iter().any(|n| n.id == node.id && !n.alive);
        let mut vips: Vec<&str> = Vec::new();
        let mut nodes: Vec<&str> = Vec::new();
        for group in available {
            let unheard = words::able(self.desired, group).filter(silent);
            let before = nodes.len();
            nodes.extend(unheard.map(|node| node.name.as_str()));
            if before < nodes.len() {
                vips.push(&group.name);
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        let vips = match vips.as_slice() {
            [] => return None,
            few if few.len() <= NAMES_SHOWN => words::listed(few),
            many => format!("{} `available` VIPs", many.len()),
        };
        let (are, serves) =
            if nodes.len() == 1 { ("is", "it serves") } else { ("are", "they serve") };
        Some(format!(
            "{} {are} not heard: where the network is cut and not the host dead, {serves} {vips} too",
            words::listed(&nodes)
        ))
    }

    pub(super) fn node(&self, node: &NodeStatus) -> NodeView {
        let member = self.desired.node(node.id);
        NodeView {
            name: self.words().node(node.id),
            address: member.map_or_else(String::new, |m| m.address().to_string()),
            me: node.id == self.desired.me,
            alive: node.alive,
            heard_ms: node.heard.map(millis),
            round_trip_ms: node.round_trip.map(millis),
            loss_percent: loss(node.beats),
            hears_us: node.hears_us,
            draining: node.draining,
            cordoned: self.is_cordoned(node),
            digest: node.digest.map(digest),
            votes_in_ms: node.votes_in.map(millis),
            owns: node.owns,
            legs: self.legs(node),
            witness: node.witness,
            state: self.node_state(node),
        }
    }

    /// Every leg that both nodes have. One that was heard within two silences counts as alive, so that
    /// a single lost datagram is no news.
    fn legs(&self, node: &NodeStatus) -> Vec<LegView> {
        let Some(member) = self.desired.node(node.id) else { return Vec::new() };
        let beats = self.desired.timing.heartbeat * (SILENT_HEARTBEATS + 1);
        let silence = beats.max(self.status.term).max(node.silence);
        let leg = |(n, heard): (usize, &Option<Duration>)| LegView {
            leg: u8::try_from(n + 1).unwrap_or(u8::MAX),
            address: member.addresses.get(n).map_or_else(String::new, ToString::to_string),
            heard_ms: heard.map(millis),
            alive: node.alive && heard.is_some_and(|heard| heard <= silence * 2),
        };
        node.legs.iter().enumerate().map(leg).collect()
    }

    /// Whether an operator wants nothing new there: of itself only, for nobody tells the others.
    fn is_cordoned(&self, node: &NodeStatus) -> bool {
        node.id == self.desired.me && self.status.cordoned.is_some()
    }

    fn node_state(&self, node: &NodeStatus) -> String {
        let me = node.id == self.desired.me;
        match (node.alive, node.heard) {
            (true, _) if node.draining => "drained".into(),
            (true, _) if self.is_cordoned(node) => "cordoned".into(),
            (true, _) if !me && !node.hears_us => "does not answer".into(),
            (true, _) => match node.votes_in {
                // Taking down the next node now could leave nobody with a majority.
                Some(left) => format!("votes in {}", words::span(left)),
                None => self.healthy(node),
            },
            (false, Some(heard)) => format!("silent for {}", words::span(heard)),
            (false, None) => "never heard".into(),
        }
    }

    /// A node that is heard and answers, with what is to be known of it all the same.
    fn healthy(&self, node: &NodeStatus) -> String {
        let silent = self.legs(node).into_iter().filter(|leg| !leg.alive);
        let silent: Vec<String> = silent.map(|leg| format!("leg {} silent", leg.leg)).collect();
        match (node.witness, silent.as_slice()) {
            (false, []) => "healthy".into(),
            (true, []) => "healthy, witness".into(),
            (false, silent) => silent.join(", "),
            (true, silent) => format!("{}, witness", silent.join(", ")),
        }
    }
}

/// What is wrong with an interface of this node, and what follows from it.
fn link_problem(name: &str, link: &LinkView) -> String {
    let then = "its VIPs are taken here only if nobody else can";
    match link.damped_left_ms {
        Some(left) if !link.unheard => {
            let left = words::span(Duration::try_from_secs_f64(left / 1e3).unwrap_or_default());
            format!("{name} came and went too often: for another {left} {then}")
        }
        Some(_) | None => {
            format!("nobody is heard on {name}, while another leg hears them: {then}")
        }
    }
}

fn loss(Beats { sent, unanswered }: Beats) -> Option<f64> {
    (sent > 0).then(|| f64::from(unanswered) * 100.0 / f64::from(sent))
}

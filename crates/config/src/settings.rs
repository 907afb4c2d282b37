//! Reads who may own a `[[vip]]` or `[[pool]]`, who should, and when it moves.

use crate::cluster::{self, Cluster};
use crate::keys::{Key, vip};
use crate::node_check::{self, Asked};
use crate::report::{At, Problems, shown};
use crate::tree::{self, Section};
use crate::{Code, value};
use buoy_model::limits::{FAILBACK_MAX, NODES_MAX};
use buoy_model::{Cidr, Failback, NodeId, Safety};
use core::time::Duration;

/// What the file says; `None`: nothing, so that another VIP of the same group may.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) nodes: Option<At<Vec<At<NodeId>>>>,
    pub(crate) prefer: Option<At<Vec<At<NodeId>>>>,
    pub(crate) failback: Option<At<Failback>>,
    pub(crate) safety: Option<At<Safety>>,
    pub(crate) apart: Option<At<String>>,
    pub(crate) checks: Vec<Asked>,
}

pub(crate) fn read(
    section: &Section<'_>,
    vips: &[At<Cidr>],
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> Settings {
    Settings {
        nodes: read_names(section, &vip::NODES, cluster, problems),
        prefer: read_names(section, &vip::PREFER, cluster, problems),
        failback: read_failback(section, problems),
        safety: cluster::read_safety(section, &vip::SAFETY, &cluster.peers, problems),
        apart: read_label(section, &vip::APART, problems),
        checks: node_check::read(section, vips, problems),
    }
}

/// A label that joins VIPs: `group` or `apart`.
pub(crate) fn read_label(
    section: &Section<'_>,
    key: &Key,
    problems: &mut Problems<'_>,
) -> Option<At<String>> {
    let label = section.text(key, problems)?;
    cluster::check_name(key.name, &label, problems)
        .then(|| At::new(label.value.to_owned(), label.span))
}

/// Names of peers; each may be named once.
fn read_names(
    section: &Section<'_>,
    key: &Key,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> Option<At<Vec<At<NodeId>>>> {
    let At { value: texts, span } = section.texts(key, problems)?;
    let mut names: Vec<At<NodeId>> = Vec::new();
    for text in texts.iter().take(4 * NODES_MAX) {
        let Some(name) = cluster.peers.find_owner(text, key.name, problems) else { continue };
        match names.iter().find(|n| n.value == name.value) {
            Some(first) => {
                let message = format!("`{}` names \"{}\" twice", key.name, shown(text.value));
                let (again, first) = ((&name.span, "again here"), (&first.span, "first here"));
                problems.add_pair(Code::DuplicatePeer, again, first, message, "remove one");
            }
            None => names.push(name),
        }
    }
    // A list of which nothing could be read restricts nothing.
    (!names.is_empty()).then(|| At::new(names, span))
}

fn read_failback(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<At<Failback>> {
    // A wrong type gets the message of a duration: that is what people write without quotes.
    let text = section.text(&vip::FAILBACK, problems)?;
    let failback = match text.value {
        "never" => Failback::Never,
        "now" => Failback::After(Duration::ZERO),
        word if word.starts_with(|c: char| c.is_ascii_digit()) => {
            let range = Duration::ZERO..=FAILBACK_MAX;
            Failback::After(tree::read_duration(&vip::FAILBACK, &text, range, problems)?.value)
        }
        word => {
            let message = format!("`failback` cannot be \"{}\"", shown(word));
            let fix = match value::nearest(word, ["never", "now"]) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => "write \"never\", \"now\", or a time as in \"30s\"".to_owned(),
            };
            let reason = "it takes \"never\", \"now\" or a duration";
            problems.add(Code::UnknownWord, &text.span, message, reason, fix);
            return None;
        }
    };
    Some(At::new(failback, text.span))
}

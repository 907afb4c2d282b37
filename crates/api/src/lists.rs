//! Lists of the API and their items, exactly as they travel in JSON; what they list is in `status`.

use crate::client::segment;
use crate::status::{NodeView, PhasesView, TimingView, VipView};
use crate::{Client, ClientError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/cluster`: the cluster as a whole, as this node sees it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ClusterReply {
    /// The cluster's name.
    pub cluster: String,
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// Version of the agent that answers.
    pub version: String,
    /// Generation of its configuration.
    pub generation: u64,
    /// Digest of all that must be the same on every host, in hex.
    pub digest: String,
    /// Live nodes whose configuration has another digest.
    pub other_digests: Vec<String>,
    /// Members, each with one vote.
    pub members: usize,
    /// Members that vote and never own.
    pub witnesses: usize,
    /// Members that are heard now, the answering one among them.
    pub heard: usize,
    /// Votes that an owner of an `exclusive` VIP needs.
    pub votes_needed: usize,
    /// Whether so many are heard.
    pub quorum: bool,
    /// Beats and terms.
    pub timing: TimingView,
    /// How often two nodes served one `available` VIP at once, as far as this agent has noticed.
    pub overlaps: u64,
    /// How many VIPs there are.
    pub vips: usize,
    /// Names of those that nobody owns.
    pub unowned: Vec<String>,
    /// What is wrong, as sentences that say what to do.
    pub problems: Vec<String>,
}

/// `GET /v1/nodes`: all members.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct NodesReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// All members, the answering one among them.
    pub nodes: Vec<NodeView>,
}

/// `GET /v1/nodes/{node}`: one member.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct NodeReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// The operator's reason while the answering node is drained; null of any other node.
    pub draining: Option<String>,
    /// When it takes part again by itself, if it does.
    pub drain_left_ms: Option<f64>,
    /// The operator's reason while the answering node is cordoned; null of any other node.
    pub cordoned: Option<String>,
    /// The member that was asked for.
    pub member: NodeView,
    /// Of what is ordered of it, for `If-Match`.
    pub etag: String,
    /// The VIPs that it owns.
    pub owns: Vec<String>,
    /// The VIPs that it could take now.
    pub could_take: Vec<String>,
}

/// `GET /v1/vips`: all VIPs.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct VipsReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// All VIPs, by name.
    pub vips: Vec<VipView>,
    /// What to name as `after` for the rest, where `limit` has left one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `GET /v1/vips/{vip}`: what a VIP should be, and what it is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct VipReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// Of who owns it and what is ordered of it, for `If-Match`.
    pub etag: String,
    /// The VIP.
    pub vip: VipView,
}

/// `GET /v1/failovers`: the takeovers that the answering node made and remembers.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct FailoversReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// The latest, oldest first.
    pub failovers: Vec<FailoverView>,
}

/// One takeover by the answering node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct FailoverView {
    /// The number of its record.
    pub seq: u64,
    /// When the votes were there, in milliseconds since 1970 by this host's wall clock.
    pub at: u64,
    /// Which VIP.
    pub vip: String,
    /// The epoch that began.
    pub epoch: u32,
    /// Why, as a clause: `lb1 was silent for 37 ms`.
    pub cause: String,
    /// From the decision to take it until the votes were there.
    pub took_ms: f64,
    /// How it went on; null: not measured yet, or not to be measured.
    pub phases: Option<PhasesView>,
}

impl Client {
    /// The first so many VIPs, by name, behind that one.
    pub fn vips_page(&self, limit: u32, after: Option<&str>) -> Result<VipsReply, ClientError> {
        let after = after.map_or_else(String::new, |after| format!("&after={}", segment(after)));
        self.get(&format!("/v1/vips?limit={limit}{after}"))
    }
}

impl FailoversReply {
    /// The same as a table (RFC 4180).
    pub fn csv(&self) -> String {
        let mut text = "seq,at,node,vip,epoch,cause,took_ms,detect_ms,decide_ms,address_ms,\
                        announce_ms,first_packet_ms\r\n"
            .to_owned();
        for f in &self.failovers {
            let of = |phase: fn(&PhasesView) -> f64| {
                f.phases.as_ref().map_or_else(String::new, |phases| phase(phases).to_string())
            };
            let first = f.phases.as_ref().and_then(|phases| phases.first_packet_ms);
            let fields = [
                f.seq.to_string(),
                f.at.to_string(),
                quoted(&self.node),
                quoted(&f.vip),
                f.epoch.to_string(),
                quoted(&f.cause),
                f.took_ms.to_string(),
                of(|p| p.detect_ms),
                of(|p| p.decide_ms),
                of(|p| p.address_ms),
                of(|p| p.announce_ms),
                first.map_or_else(String::new, |ms| ms.to_string()),
            ];
            text.push_str(&fields.join(","));
            text.push_str("\r\n");
        }
        text
    }
}

/// A field that may hold anything; one that begins like a formula is none for a spreadsheet.
fn quoted(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@', '\t']) { "'" } else { "" };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failovers_are_a_table_that_a_spreadsheet_reads() {
        let failover = FailoverView {
            seq: 9,
            at: 2_000,
            vip: "=web".into(),
            epoch: 7,
            cause: "by \"ann\", now".into(),
            took_ms: 1.5,
            phases: None,
        };
        let phases = Some(PhasesView { detect_ms: 37.0, ..PhasesView::default() });
        let failovers = vec![failover.clone(), FailoverView { phases, ..failover }];
        let table = FailoversReply { node: "lb1".into(), revision: 1, failovers }.csv();
        let lines: Vec<_> = table.split("\r\n").collect();
        assert_eq!(lines.len(), 4, "{table}");
        let start = r#"9,2000,"lb1","'=web",7,"by ""ann"", now",1.5,"#;
        assert_eq!(lines[1], format!("{start},,,,"));
        assert_eq!(lines[2], format!("{start}37,0,0,0,"));
    }
}

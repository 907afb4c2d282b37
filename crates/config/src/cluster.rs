//! Reads what holds for the whole cluster: name, beats, terms, safety.

use crate::keys::top;
use crate::peers::{self, Peers};
use crate::report::{At, Problems, shown};
use crate::tree::{Section, Word};
use crate::value::{self, written};
use crate::{Code, discovery, store};
use buoy_model::limits::{
    HEARTBEAT_DEFAULT, HEARTBEAT_MAX, HEARTBEAT_MIN, LEASE_CEILING_DEFAULT, LEASE_DEFAULT,
    LEASE_HEARTBEATS_MIN, LEASE_MAX, PORT_DEFAULT, REST_HEARTBEAT,
};
use buoy_model::{Group, MetricAlias, NodeId, Safety, Timing};
use core::net::SocketAddr;
use core::time::Duration;

/// Nodes from which a majority survives the loss of one.
const MAJORITY_NODES_MIN: usize = 3;

/// The cluster as far as the file says it.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) peers: Peers,
    /// `node`, which of the peers this host is said to be.
    pub(crate) node: Option<At<NodeId>>,
    pub(crate) safety: Safety,
    pub(crate) timing: Timing,
    /// The file says nothing of the pace.
    is_pace_free: bool,
    /// Who is asked for the names of backends.
    pub(crate) resolvers: Vec<SocketAddr>,
    /// Where HAProxy's runtime commands are listened to.
    pub(crate) haproxy_socket: Option<String>,
    /// Where monitoring reads metrics over TCP.
    pub(crate) metrics: Option<SocketAddr>,
    /// Under whose names metrics are told as well.
    pub(crate) metric_aliases: Vec<MetricAlias>,
    /// Where edits beside the file are kept.
    pub(crate) store: store::Named,
}

pub(crate) fn read(top: &Section<'_>, problems: &mut Problems<'_>) -> Cluster {
    let name =
        top.text(&top::CLUSTER, problems).filter(|n| check_name(top::CLUSTER.name, n, problems));
    let port = top.number(&top::PORT, 1..=u32::from(u16::MAX), problems);
    let port = port.and_then(|p| u16::try_from(p.value).ok()).unwrap_or(PORT_DEFAULT);
    let peers = peers::read(top, port, problems);
    let node = top.text(&top::NODE, problems).and_then(|n| peers.find(&n, "node", problems));
    let (timing, is_pace_free) = read_timing(top, problems);
    let safety = read_safety(top, &top::SAFETY, &peers, problems).map(|s| s.value).unwrap_or({
        if peers.list.len() < MAJORITY_NODES_MIN { Safety::Available } else { Safety::Exclusive }
    });
    Cluster {
        name: name.map_or("buoy", |n| n.value).to_owned(),
        node,
        safety,
        timing,
        is_pace_free,
        resolvers: discovery::read_resolvers(top, problems),
        haproxy_socket: read_socket(top, problems),
        metrics: read_metrics(top, problems),
        metric_aliases: read_aliases(top, problems),
        store: store::read(top, problems),
        peers,
    }
}

/// The kernel takes no longer path of a socket (`sun_path`, with a zero at its end).
const SOCKET_PATH_MAX: usize = 107;
/// A socket is made under this name and the agent's number, and then moved into place.
const SOCKET_NAME_ROOM: usize = ".4194304".len();

fn read_socket(top: &Section<'_>, problems: &mut Problems<'_>) -> Option<String> {
    let path = top.text(&top::HAPROXY_SOCKET, problems)?;
    let longest = SOCKET_PATH_MAX - SOCKET_NAME_ROOM;
    let fault = if !path.value.starts_with('/') || path.value.ends_with('/') {
        "it begins with a slash and ends with a name".to_owned()
    } else if path.value.len() > longest {
        format!("it has {} bytes, and at most {longest} are possible", path.value.len())
    } else if path.value.contains(char::is_control) {
        "it has characters that cannot be seen".to_owned()
    } else {
        return Some(path.value.to_owned());
    };
    let message =
        format!("`haproxy_socket`: \"{}\" cannot be the path of a socket", shown(path.value));
    let fix = "write an absolute path such as \"/run/buoy/haproxy.sock\"";
    problems.add(Code::BadSocketPath, &path.span, message, fault, fix);
    None
}

fn read_metrics(top: &Section<'_>, problems: &mut Problems<'_>) -> Option<SocketAddr> {
    let at = top.text(&top::METRICS, problems)?;
    match at.value.parse::<SocketAddr>() {
        Ok(at) if at.port() != 0 => Some(at),
        Ok(_) | Err(_) => {
            let message =
                format!("`metrics`: \"{}\" is not an address and a port", shown(at.value));
            let reason = "monitoring has to know both";
            let fix = "write an address of this host and a port, such as \"10.0.0.11:9120\"";
            problems.add(Code::BadMetricsAddress, &at.span, message, reason, fix);
            None
        }
    }
}

fn read_aliases(top: &Section<'_>, problems: &mut Problems<'_>) -> Vec<MetricAlias> {
    let known = [("keepalived", MetricAlias::Keepalived), ("metallb", MetricAlias::Metallb)];
    let texts = top.texts(&top::METRICS_ALIASES, problems);
    let mut aliases = Vec::new();
    for text in texts.map(|texts| texts.value).unwrap_or_default() {
        match known.iter().find(|(name, _)| *name == text.value) {
            Some((_, alias)) if aliases.contains(alias) => {}
            Some((_, alias)) => aliases.push(*alias),
            None => {
                let message = format!("nobody's metrics are called \"{}\"", shown(text.value));
                let reason = "there are the names of keepalived's exporters and of MetalLB";
                let fix = "write \"keepalived\" or \"metallb\", or remove the line";
                problems.add(Code::UnknownWord, &text.span, message, reason, fix);
            }
        }
    }
    aliases
}

/// `safety` at the top or of one VIP.
pub(crate) fn read_safety(
    section: &Section<'_>,
    key: &crate::keys::Key,
    peers: &Peers,
    problems: &mut Problems<'_>,
) -> Option<At<Safety>> {
    let words =
        [("exclusive", Word::Now(Safety::Exclusive)), ("available", Word::Now(Safety::Available))];
    let safety = section.word(key, &words, problems)?;
    if safety.value == Safety::Exclusive && peers.list.len() == 2 {
        let message = "`exclusive` with two votes: when either host is lost, nobody owns the VIP";
        let reason = "a majority of two is two, so both must agree";
        let fix = "add `witness = \"ADDRESS\"` of a third host that only votes, or write safety = \"available\"";
        problems.add(Code::ExclusivePair, &safety.span, message, reason, fix);
    }
    Some(safety)
}

/// Reports what keeps a text from being a name; true when it is one.
pub(crate) fn check_name(key: &str, name: &At<&str>, problems: &mut Problems<'_>) -> bool {
    let Some(fault) = value::name_fault(name.value) else { return true };
    let message = format!("`{key}`: \"{}\" cannot be a name", shown(name.value));
    problems.add(
        Code::BadName,
        &name.span,
        message,
        fault,
        "write a short name such as \"lb1\" or \"web\"",
    );
    false
}

impl Cluster {
    /// Nobody waits for the beats of a node that has no peers: it turns only to renew its own lease. Who shares an
    /// address by VRRP has others to whom the end of that lease matters.
    pub(crate) fn settle_pace(&mut self, groups: &[Group]) {
        let is_alone = self.peers.list.len() < 2 && groups.iter().all(|g| g.vrrp.is_empty());
        if self.is_pace_free && is_alone {
            let lease = stretched(REST_HEARTBEAT);
            self.timing = Timing { heartbeat: REST_HEARTBEAT, lease, lease_max: lease };
        }
    }
}

/// And whether the file leaves all of it free.
fn read_timing(top: &Section<'_>, problems: &mut Problems<'_>) -> (Timing, bool) {
    let beats = HEARTBEAT_MIN..=HEARTBEAT_MAX.min(LEASE_MAX / LEASE_HEARTBEATS_MIN);
    let before = problems.count();
    let heartbeat = top.duration(&top::HEARTBEAT, beats, problems);
    let lease =
        top.duration(&top::LEASE, HEARTBEAT_MIN * LEASE_HEARTBEATS_MIN..=LEASE_MAX, problems);
    let clean = problems.count() == before;
    let beat = heartbeat.as_ref().map_or(HEARTBEAT_DEFAULT, |h| h.value);
    // A slower beat stretches the default with it, so that one key is enough to calm a bad network.
    let term = lease.as_ref().map_or(stretched(beat), |l| l.value);
    if let (Some(lease), true) = (&lease, clean) {
        refuse_short(lease, beat, problems);
    }
    let least = HEARTBEAT_MIN * LEASE_HEARTBEATS_MIN;
    let longest = top.duration(&top::LEASE_MAX, least..=LEASE_MAX, problems);
    if let (Some(longest), true) = (&longest, clean) {
        refuse_low_ceiling(longest, term, problems);
    }
    let is_free = heartbeat.is_none() && lease.is_none() && longest.is_none();
    let longest = longest.map_or(LEASE_CEILING_DEFAULT.max(term), |l| l.value.max(term));
    (Timing { heartbeat: beat, lease: term, lease_max: longest }, is_free)
}

fn refuse_short(lease: &At<Duration>, beat: Duration, problems: &mut Problems<'_>) {
    let (term, least) = (lease.value, beat * LEASE_HEARTBEATS_MIN);
    if term >= least {
        return;
    }
    let message =
        format!("a lease of {} is too short for a heartbeat of {}", written(term), written(beat));
    let reason = format!(
        "it must be at least {LEASE_HEARTBEATS_MIN} heartbeats, so that one lost datagram costs nothing"
    );
    let slowest = Duration::from_millis(
        u64::try_from(term.as_millis()).unwrap_or(0) / u64::from(LEASE_HEARTBEATS_MIN),
    );
    let fix = if slowest < HEARTBEAT_MIN {
        format!("write lease = \"{}\"", written(least))
    } else {
        format!("write lease = \"{}\", or heartbeat = \"{}\"", written(least), written(slowest))
    };
    problems.add(Code::LeaseTooShort, &lease.span, message, reason, fix);
}

/// The term grows from `lease` to `lease_max`, so the second cannot be the shorter one.
fn refuse_low_ceiling(longest: &At<Duration>, term: Duration, problems: &mut Problems<'_>) {
    if longest.value >= term {
        return;
    }
    let (longest_written, term) = (written(longest.value), written(term));
    let message = format!("`lease_max` ({longest_written}) is shorter than the lease ({term})");
    let reason = "a lease begins with `lease`, and grows up to `lease_max` on a bad network";
    let fix = format!("write lease_max = \"{term}\" for a lease that never grows, or a longer one");
    problems.add(Code::LeaseMaxTooShort, &longest.span, message, reason, fix);
}

/// The default lease of a heartbeat: in proportion, in whole milliseconds, never below the default.
fn stretched(beat: Duration) -> Duration {
    let millis =
        (beat.as_millis() * LEASE_DEFAULT.as_millis()).div_ceil(HEARTBEAT_DEFAULT.as_millis());
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)).clamp(LEASE_DEFAULT, LEASE_MAX)
}

/// Two things with one key on the wire: one chance in four thousand million per pair.
pub(crate) fn collision(
    what: &str,
    name: &At<String>,
    first: &At<String>,
    key: u32,
    problems: &mut Problems<'_>,
) {
    let message = format!(
        "{what} \"{}\" and \"{}\" cannot be told apart on the wire",
        first.value, name.value
    );
    let reason = format!("both have the key {key:08x}");
    problems.add_pair(
        Code::NameCollision,
        (&name.span, &reason),
        (&first.span, "the other"),
        message,
        "change one of them",
    );
}

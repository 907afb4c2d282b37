//! Reads what holds for the whole cluster: peers, name, beats, safety.

use crate::Code;
use crate::keys::top;
use crate::report::{At, Problems, Span, listed, shown};
use crate::tree::{self, Section, Word};
use crate::value::{self, Unfit, written};
use buoy_model::limits::{
    HEARTBEAT_DEFAULT, HEARTBEAT_MAX, HEARTBEAT_MIN, LEASE_DEFAULT, LEASE_HEARTBEATS_MIN,
    LEASE_MAX, NODES_MAX, PORT_DEFAULT,
};
use buoy_model::{Node, NodeId, Safety, Timing};
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use toml::de::{DeTable, DeValue};

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
}

/// The members, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    pub(crate) span: Span,
    pub(crate) list: Vec<Peer>,
    /// Whether the names are addresses, because the file gives none.
    unnamed: bool,
    /// Whether the list was read whole: only then an unknown name is surely wrong.
    complete: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: At<String>,
    /// `None` when it could not be read; the name still counts.
    pub(crate) address: Option<At<SocketAddr>>,
}

impl Peers {
    /// The members as `Desired` wants them.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self
            .list
            .iter()
            .filter_map(|peer| {
                let address = peer.address.as_ref()?.value;
                let name = peer.name.value.clone();
                Some(Node::new(&name, address))
            })
            .collect();
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    /// The node of that name; an unknown one is reported.
    pub(crate) fn find(
        &self,
        name: &At<&str>,
        key: &str,
        problems: &mut Problems<'_>,
    ) -> Option<At<NodeId>> {
        if self.list.iter().any(|peer| peer.name.value == name.value) {
            return Some(At::new(NodeId::of(name.value), name.span.clone()));
        }
        if !self.complete {
            return None;
        }
        let names = || self.list.iter().map(|peer| peer.name.value.as_str());
        let message = format!("`{key}` names \"{}\", which is not a peer", shown(name.value));
        let by_address = self.list.iter().find(|peer| {
            let ip = peer.address.as_ref().map(|a| a.value.ip());
            ip.is_some() && ip == name.value.parse().ok()
        });
        let fix = match (by_address, value::nearest(name.value, names())) {
            (Some(peer), _) => format!("write its name: \"{}\"", peer.name.value),
            (None, Some(near)) => format!("did you mean \"{near}\"?"),
            (None, None) if self.unnamed && value::host_port(name.value).is_err() => {
                "name the peers: peers = { lb1 = \"10.0.0.11\", ... }; without names they go by address".to_owned()
            }
            (None, None) => "write the name of a peer, or add it to `peers`".to_owned(),
        };
        problems.add(
            Code::UnknownNode,
            &name.span,
            message,
            format!("the peers are {}", listed(names())),
            fix,
        );
        None
    }

    /// The name of a node.
    pub(crate) fn name(&self, id: NodeId) -> &str {
        self.list
            .iter()
            .map(|p| p.name.value.as_str())
            .find(|name| NodeId::of(name) == id)
            .unwrap_or("?")
    }
}

pub(crate) fn read(top: &Section<'_>, problems: &mut Problems<'_>) -> Cluster {
    let name =
        top.text(&top::CLUSTER, problems).filter(|n| check_name(top::CLUSTER.name, n, problems));
    let port = top.number(&top::PORT, 1..=u32::from(u16::MAX), problems);
    let port = port.and_then(|p| u16::try_from(p.value).ok()).unwrap_or(PORT_DEFAULT);
    let peers = read_peers(top, port, problems);
    let node = top.text(&top::NODE, problems).and_then(|n| peers.find(&n, "node", problems));
    let safety = read_safety(top, &top::SAFETY, &peers, problems).unwrap_or({
        if peers.list.len() < MAJORITY_NODES_MIN { Safety::Available } else { Safety::Exclusive }
    });
    Cluster {
        name: name.map_or("buoy", |n| n.value).to_owned(),
        node,
        safety,
        timing: read_timing(top, problems),
        peers,
    }
}

/// `safety` at the top or of one VIP.
pub(crate) fn read_safety(
    section: &Section<'_>,
    key: &crate::keys::Key,
    peers: &Peers,
    problems: &mut Problems<'_>,
) -> Option<Safety> {
    let words =
        [("exclusive", Word::Now(Safety::Exclusive)), ("available", Word::Now(Safety::Available))];
    let safety = section.word(key, &words, problems)?;
    if safety.value == Safety::Exclusive && peers.list.len() == 2 {
        let message = "`exclusive` with two peers: the loss of either takes the VIP away";
        let reason = "a majority of two is two, so both must agree";
        let fix = "add a third peer, or write safety = \"available\"";
        problems.add(Code::ExclusivePair, &safety.span, message, reason, fix);
    }
    Some(safety.value)
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

fn read_timing(top: &Section<'_>, problems: &mut Problems<'_>) -> Timing {
    let beats = HEARTBEAT_MIN..=HEARTBEAT_MAX.min(LEASE_MAX / LEASE_HEARTBEATS_MIN);
    let before = problems.count();
    let heartbeat = top.duration(&top::HEARTBEAT, beats, problems);
    let lease =
        top.duration(&top::LEASE, HEARTBEAT_MIN * LEASE_HEARTBEATS_MIN..=LEASE_MAX, problems);
    let clean = problems.count() == before;
    let beat = heartbeat.as_ref().map_or(HEARTBEAT_DEFAULT, |h| h.value);
    // A slower beat stretches the default with it, so that one key is enough to calm a bad network.
    let term = lease.as_ref().map_or(stretched(beat), |l| l.value);
    let least = beat * LEASE_HEARTBEATS_MIN;
    if let (Some(lease), true) = (&lease, clean && term < least) {
        let message = format!(
            "a lease of {} is too short for a heartbeat of {}",
            written(term),
            written(beat)
        );
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
    Timing { heartbeat: beat, lease: term, lease_max: term }
}

/// The default lease of a heartbeat: in proportion, and never below the default.
fn stretched(beat: Duration) -> Duration {
    let beats = LEASE_DEFAULT.as_millis() / HEARTBEAT_DEFAULT.as_millis();
    (beat * u32::try_from(beats).unwrap_or(u32::MAX)).clamp(LEASE_DEFAULT, LEASE_MAX)
}

fn read_peers(top: &Section<'_>, port: u16, problems: &mut Problems<'_>) -> Peers {
    let Some(value) = top.raw(&top::PEERS) else {
        top.miss(&top::PEERS, problems);
        return Peers::default();
    };
    let before = problems.count();
    let mut peers = Peers { span: value.span(), ..Peers::default() };
    if let DeValue::Table(table) = value.get_ref() {
        read_named(table, port, &mut peers, problems);
        if table.is_empty() {
            let reason = "a cluster is at least this host";
            let fix = format!("write `peers = {}`", top::PEERS.example);
            problems.add(Code::EmptyList, &value.span(), "`peers` is empty", reason, fix);
        }
    } else {
        peers.unnamed = true;
        for text in top.texts(&top::PEERS, problems).map(|l| l.value).unwrap_or_default() {
            // Without a usable address there is no name either.
            let Some(address) = peer_address(&text, port, problems) else { continue };
            let name = At::new(address.value.ip().to_string(), text.span);
            peers.list.push(Peer { name, address: Some(address) });
        }
    }
    if let Some(extra) = peers.list.get(NODES_MAX) {
        let message = format!("{} peers: a cluster has at most {NODES_MAX}", peers.list.len());
        let reason = format!("this is number {}", NODES_MAX + 1);
        problems.add(
            Code::TooMany,
            &extra.name.span.clone(),
            message,
            reason,
            "make two clusters of them",
        );
        peers.list.truncate(NODES_MAX);
    }
    peers.complete = problems.count() == before;
    refuse_same(&peers, problems);
    peers
}

fn read_named(table: &DeTable<'_>, port: u16, peers: &mut Peers, problems: &mut Problems<'_>) {
    for (name, address) in table {
        let name = At::new(name.get_ref().as_ref(), name.span());
        if !check_name("peers", &name, problems) {
            continue;
        }
        let address = if let DeValue::String(text) = address.get_ref() {
            peer_address(&At::new(text.as_ref(), address.span()), port, problems)
        } else {
            tree::wrong_type(&PEER, address, problems);
            None
        };
        peers.list.push(Peer { name: At::new(name.value.to_owned(), name.span), address });
    }
    peers.list.sort_by_key(|peer| peer.name.span.start);
}

/// One entry of the table `peers`, for messages.
static PEER: crate::keys::Key = crate::keys::Key {
    name: "peers",
    form: "an address for each name",
    example: r#"{ lb1 = "10.0.0.11", lb2 = "10.0.0.12" }"#,
    default: "required",
    reload: crate::keys::Reload::Member,
};

fn peer_address(text: &At<&str>, port: u16, problems: &mut Problems<'_>) -> Option<At<SocketAddr>> {
    let (fault, fix) = match value::host_port(text.value) {
        Ok((address, own_port)) => match peer_fault(address) {
            None => {
                let socket = SocketAddr::new(address, own_port.unwrap_or(port));
                return Some(At::new(socket, text.span.clone()));
            }
            Some(fault) => (fault, "write the address by which the other hosts reach this peer"),
        },
        Err(_) if text.value.contains('/') => {
            ("a peer is one host, without prefix", "write the address alone, as in \"10.0.0.11\"")
        }
        Err(fault) => (
            fault,
            "write an address, as in \"10.0.0.11\", \"10.0.0.11:4747\" or \"[2001:db8::11]:4747\"",
        ),
    };
    let message = format!("\"{}\" cannot be a peer", shown(text.value));
    problems.add(Code::BadPeer, &text.span, message, fault, fix);
    None
}

fn peer_fault(address: IpAddr) -> Option<&'static str> {
    match value::unfit(address) {
        // A whole cluster on one host is how people try things out.
        None | Some(Unfit::Loopback) => None,
        Some(fault) => Some(fault.reason()),
    }
}

/// Two peers of one address, or whose names cannot be told apart on the wire.
fn refuse_same(peers: &Peers, problems: &mut Problems<'_>) {
    for (i, peer) in peers.list.iter().enumerate() {
        let earlier = &peers.list[..i];
        let same_address = earlier.iter().find(|e| {
            let address = peer.address.as_ref().map(|a| a.value);
            address.is_some() && e.address.as_ref().map(|a| a.value) == address
        });
        let same_name = earlier.iter().find(|e| e.name.value == peer.name.value);
        let same_key =
            earlier.iter().find(|e| NodeId::of(&e.name.value) == NodeId::of(&peer.name.value));
        let span = peer.address.as_ref().map_or(&peer.name.span, |a| &a.span);
        if let Some(first) = same_address {
            let first_span = first.address.as_ref().map_or(&first.name.span, |a| &a.span);
            let message = format!(
                "two peers have the address {}",
                peer.address.as_ref().map_or_else(String::new, |a| a.value.ip().to_string())
            );
            problems.add_pair(
                Code::DuplicatePeer,
                (span, "again here"),
                (first_span, "first here"),
                message,
                "remove one, or correct its address",
            );
        } else if let Some(first) = same_name {
            let message = format!("two peers are called \"{}\"", peer.name.value);
            let fix = "name the peers: peers = { a = \"10.0.0.11:4747\", b = \"10.0.0.11:4748\" }";
            problems.add_pair(
                Code::DuplicatePeer,
                (span, "again here"),
                (&first.name.span, "first here"),
                message,
                fix,
            );
        } else if let Some(first) = same_key {
            let key = NodeId::of(&peer.name.value).0;
            collision("peers", &peer.name, &first.name, key, problems);
        }
    }
    let loopback = |p: &&Peer| p.address.as_ref().is_some_and(|a| a.value.ip().is_loopback());
    if let Some(peer) =
        peers.list.iter().find(loopback).filter(|_| !peers.list.iter().all(|p| loopback(&p)))
    {
        let message = "a loopback address cannot be a peer of other hosts";
        let fix = "write the address by which the other hosts reach this peer";
        let span = peer.address.as_ref().map_or(&peer.name.span, |a| &a.span);
        problems.add(Code::BadPeer, span, message, Unfit::Loopback.reason(), fix);
    }
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

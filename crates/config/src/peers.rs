//! Reads the members: who takes part, on which legs, with which weight, and who only votes.

use crate::Code;
use crate::cluster::{check_name, collision};
use crate::keys::{Key, top};
use crate::locality;
use crate::report::{At, Problems, Span, listed, shown};
use crate::tree::{self, Section};
use crate::value::{self, Unfit};
use buoy_model::limits::{LEGS_MAX, NODE_WEIGHT_MAX, NODES_MAX};
use buoy_model::{Node, NodeId};
use core::net::{IpAddr, SocketAddr};
use toml::de::{DeTable, DeValue};

/// The members in the order of the file, witnesses after the others.
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
    /// Its legs; the name counts even where none could be read.
    pub(crate) legs: Vec<At<SocketAddr>>,
    /// Votes and never owns.
    pub(crate) witness: bool,
    weight: u16,
    /// Where it is, together with others and with backends.
    pub(crate) zone: Option<String>,
}

impl Peer {
    fn new(name: At<String>, legs: Vec<At<SocketAddr>>, witness: bool) -> Self {
        Self { name, legs, witness, weight: 1, zone: None }
    }

    pub(crate) fn id(&self) -> NodeId {
        NodeId::of(&self.name.value)
    }

    /// Where it stands in the file: its first leg, or its name.
    pub(crate) fn span(&self) -> &Span {
        self.legs.first().map_or(&self.name.span, |leg| &leg.span)
    }

    /// The leg of that address.
    pub(crate) fn leg(&self, address: IpAddr) -> Option<&At<SocketAddr>> {
        self.legs.iter().find(|leg| leg.value.ip() == address)
    }
}

impl Peers {
    /// The members as `Desired` wants them.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let readable = self.list.iter().filter(|peer| !peer.legs.is_empty());
        let mut nodes: Vec<Node> = readable
            .map(|peer| Node {
                id: peer.id(),
                name: peer.name.value.clone(),
                addresses: peer.legs.iter().map(|leg| leg.value).collect(),
                weight: peer.weight,
                witness: peer.witness,
                zone: peer.zone.clone(),
            })
            .collect();
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    /// Whether every member could be read.
    pub(crate) const fn is_complete(&self) -> bool {
        self.complete
    }

    /// Members that may own something, sorted by id.
    pub(crate) fn owners(&self) -> Vec<NodeId> {
        self.nodes().iter().filter(|node| !node.witness).map(|node| node.id).collect()
    }

    /// The member of that name; an unknown one is reported.
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
        let address: Option<IpAddr> = name.value.parse().ok();
        let by_address = self.list.iter().find(|p| address.is_some_and(|a| p.leg(a).is_some()));
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

    /// The member of that name that may own a VIP; a witness is reported.
    pub(crate) fn find_owner(
        &self,
        name: &At<&str>,
        key: &str,
        problems: &mut Problems<'_>,
    ) -> Option<At<NodeId>> {
        let found = self.find(name, key, problems)?;
        let witness = self.list.iter().find(|p| p.witness && p.name.value == name.value);
        let Some(witness) = witness else { return Some(found) };
        let message = format!("`{key}` names \"{}\", which is a witness", shown(name.value));
        let fix = "remove it here; or, if it may own VIPs, move it from `witness` to `peers`";
        problems.add_pair(
            Code::WitnessOwns,
            (&name.span, "a witness votes and owns nothing"),
            (&witness.name.span, "the witness"),
            message,
            fix,
        );
        None
    }

    /// The name of a node.
    pub(crate) fn name(&self, id: NodeId) -> &str {
        self.list.iter().find(|p| p.id() == id).map_or("?", |p| &p.name.value)
    }
}

/// `peers`, `witness` and `weights`.
pub(crate) fn read(top: &Section<'_>, port: u16, problems: &mut Problems<'_>) -> Peers {
    let before = problems.count();
    let mut peers = Peers::default();
    match top.raw(&top::PEERS) {
        Some(value) => {
            peers.span = value.span();
            peers.unnamed = value.get_ref().as_table().is_none();
            read_members(top, &top::PEERS, port, false, &mut peers, problems);
        }
        None => top.miss(&top::PEERS, problems),
    }
    read_members(top, &top::WITNESS, port, true, &mut peers, problems);
    if let Some(extra) = peers.list.get(NODES_MAX) {
        let message = format!("{} members: a cluster has at most {NODES_MAX}", peers.list.len());
        let reason = format!("this is number {}", NODES_MAX + 1);
        let span = extra.name.span.clone();
        problems.add(Code::TooMany, &span, message, reason, "make two clusters of them");
        peers.list.truncate(NODES_MAX);
    }
    peers.complete = top.has(&top::PEERS) && problems.count() == before;
    refuse_same(&peers, problems);
    // Of members that are wrong in another way nobody wants to read this too.
    if problems.count() == before {
        compare_legs(&peers, problems);
        warn_of_witnesses(&peers, problems);
    }
    read_weights(top, &mut peers, problems);
    locality::read_zones(top, &mut peers, problems);
    peers
}

/// A list of addresses, or a table of names.
fn read_members(
    top: &Section<'_>,
    key: &'static Key,
    port: u16,
    witness: bool,
    peers: &mut Peers,
    problems: &mut Problems<'_>,
) {
    let Some(value) = top.raw(key) else { return };
    let before = peers.list.len();
    match value.get_ref() {
        DeValue::Table(table) => {
            read_named(key, table, port, witness, peers, problems);
            peers.list[before..].sort_by_key(|peer| peer.name.span.start);
            if table.is_empty() {
                let reason = "a cluster is at least this host";
                let fix = format!("write `{} = {}`", key.name, key.example);
                let message = format!("`{}` is empty", key.name);
                problems.add(Code::EmptyList, &value.span(), message, reason, fix);
            }
        }
        DeValue::Array(list) if list.iter().any(|item| item.get_ref().as_array().is_some()) => {
            let nested = list.iter().find(|item| item.get_ref().as_array().is_some());
            let span = nested.map_or(value.span(), |item| item.span());
            let message = "a peer with several addresses needs a name";
            let reason = "which of them would it go by?";
            let fix = format!("write `{} = {}`", key.name, PEER.example);
            problems.add(Code::WrongType, &span, message, reason, fix);
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => {
            for text in top.texts(key, problems).map(|l| l.value).unwrap_or_default() {
                // Without a usable address there is no name either.
                let Some(leg) = read_leg(&text, port, problems) else { continue };
                let name = At::new(leg.value.ip().to_string(), text.span);
                peers.list.push(Peer::new(name, vec![leg], witness));
            }
        }
    }
}

fn read_named(
    key: &Key,
    table: &DeTable<'_>,
    port: u16,
    witness: bool,
    peers: &mut Peers,
    problems: &mut Problems<'_>,
) {
    for (name, value) in table {
        let name = At::new(name.get_ref().as_ref(), name.span());
        if !check_name(key.name, &name, problems) {
            continue;
        }
        let legs = match value.get_ref() {
            DeValue::String(text) => {
                read_leg(&At::new(text.as_ref(), value.span()), port, problems)
                    .into_iter()
                    .collect()
            }
            DeValue::Array(list) => read_legs(name.value, list, &value.span(), port, problems),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => {
                tree::wrong_type(&PEER, value, problems);
                Vec::new()
            }
        };
        peers.list.push(Peer::new(At::new(name.value.to_owned(), name.span), legs, witness));
    }
}

/// One entry of a table of members, for messages.
static PEER: Key = Key {
    name: "peers",
    form: "for each name an address, or a list of the host's addresses",
    example: r#"{ lb1 = ["10.0.0.11", "192.168.9.11"], lb2 = ["10.0.0.12", "192.168.9.12"] }"#,
    default: "required",
    reload: crate::keys::Reload::Member,
};

fn read_legs(
    name: &str,
    list: &toml::de::DeArray<'_>,
    span: &Span,
    port: u16,
    problems: &mut Problems<'_>,
) -> Vec<At<SocketAddr>> {
    if list.is_empty() {
        let message = format!("peer \"{name}\" has no address");
        let fix = "write at least one, as in [\"10.0.0.11\", \"192.168.9.11\"]";
        problems.add(Code::EmptyList, span, message, "the list is empty", fix);
    }
    if let Some(extra) = list.get(LEGS_MAX) {
        let message = format!("peer \"{name}\" has {} addresses: at most {LEGS_MAX}", list.len());
        let reason = format!("this is number {}", LEGS_MAX + 1);
        let fix = "keep those that lie on separate networks";
        problems.add(Code::TooMany, &extra.span(), message, reason, fix);
    }
    let mut legs = Vec::new();
    for item in list.iter().take(LEGS_MAX) {
        match item.get_ref().as_str() {
            Some(text) => legs.extend(read_leg(&At::new(text, item.span()), port, problems)),
            None => tree::wrong_type(&PEER, item, problems),
        }
    }
    legs
}

fn read_leg(text: &At<&str>, port: u16, problems: &mut Problems<'_>) -> Option<At<SocketAddr>> {
    let (fault, fix) = match value::host_port(text.value) {
        Ok((address, own_port)) => match leg_fault(address) {
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

fn leg_fault(address: IpAddr) -> Option<&'static str> {
    match value::unfit(address) {
        // A whole cluster on one host is how people try things out.
        None | Some(Unfit::Loopback) => None,
        Some(fault) => Some(fault.reason()),
    }
}

/// Two members of one address, or whose names cannot be told apart on the wire.
fn refuse_same(peers: &Peers, problems: &mut Problems<'_>) {
    for (i, peer) in peers.list.iter().enumerate() {
        refuse_same_leg(peer, problems);
        let earlier = &peers.list[..i];
        let legs = || earlier.iter().flat_map(|e| &e.legs);
        let same_leg = peer
            .legs
            .iter()
            .find_map(|leg| Some((leg, legs().find(|first| first.value == leg.value)?)));
        let same_name = earlier.iter().find(|e| e.name.value == peer.name.value);
        let same_key = earlier.iter().find(|e| e.id() == peer.id());
        if let Some((leg, first)) = same_leg {
            let message = format!("two peers have the address {}", leg.value.ip());
            let (again, first) = ((&leg.span, "again here"), (&first.span, "first here"));
            let fix = "remove one, or correct its address";
            problems.add_pair(Code::DuplicatePeer, again, first, message, fix);
        } else if let Some(first) = same_name {
            let message = format!("two peers are called \"{}\"", peer.name.value);
            let fix = if peers.unnamed {
                "name the peers: peers = { a = \"10.0.0.11:4747\", b = \"10.0.0.11:4748\" }"
            } else {
                "rename one of them; a host is either a peer or a witness"
            };
            let (again, first) = ((peer.span(), "again here"), (&first.name.span, "first here"));
            problems.add_pair(Code::DuplicatePeer, again, first, message, fix);
        } else if let Some(first) = same_key {
            collision("peers", &peer.name, &first.name, peer.id().0, problems);
        }
    }
    let loopback = |p: &&Peer| p.legs.iter().any(|leg| leg.value.ip().is_loopback());
    if let Some(peer) =
        peers.list.iter().find(loopback).filter(|_| !peers.list.iter().all(|p| loopback(&p)))
    {
        let message = "a loopback address cannot be a peer of other hosts";
        let fix = "write the address by which the other hosts reach this peer";
        problems.add(Code::BadPeer, peer.span(), message, Unfit::Loopback.reason(), fix);
    }
}

fn refuse_same_leg(peer: &Peer, problems: &mut Problems<'_>) {
    for (n, leg) in peer.legs.iter().enumerate() {
        let same = |first: &&At<SocketAddr>| first.value.ip() == leg.value.ip();
        let Some(first) = peer.legs[..n].iter().find(same) else { continue };
        let message = format!("{} has the address {} twice", peer.name.value, leg.value.ip());
        let (again, first) = ((&leg.span, "again here"), (&first.span, "first here"));
        let fix = "remove one, or write its address on another network";
        problems.add_pair(Code::DuplicatePeer, again, first, message, fix);
    }
}

/// The n-th address of one host speaks to the n-th of another: do they understand each other?
fn compare_legs(peers: &Peers, problems: &mut Problems<'_>) {
    for n in 0..LEGS_MAX {
        let mut legs = peers.list.iter().filter_map(|p| p.legs.get(n));
        let Some(first) = legs.next() else { break };
        let other = legs.find(|leg| leg.value.is_ipv4() != first.value.is_ipv4());
        let Some(other) = other else { continue };
        let message = format!("address {} of the peers is IPv4 here and IPv6 there", n + 1);
        let reason = "the n-th address of one host speaks to the n-th of the others";
        let fix = "write the addresses of one network in the same place for every peer";
        let first = (&first.span, "the other kind");
        problems.add_pair(Code::LegFamily, (&other.span, reason), first, message, fix);
    }
    let most = peers.list.iter().map(|p| p.legs.len()).max().unwrap_or(0);
    // A witness often has none of the cables that lead from one owner straight to the other.
    for peer in peers.list.iter().filter(|p| !p.witness && p.legs.len() < most) {
        let (name, legs) = (&peer.name.value, peer.legs.len());
        let message = format!("{name} has fewer addresses than other peers: {legs} of {most}");
        let reason = "on the paths that it lacks nobody hears it";
        let fix = format!("give {name} an address on each network that the others speak on");
        problems.add(Code::FewerLegs, peer.span(), message, reason, fix);
    }
}

/// A witness is there to make a majority out of a tie; one more than that makes it worse.
fn warn_of_witnesses(peers: &Peers, problems: &mut Problems<'_>) {
    let (all, witnesses) = (peers.list.len(), peers.list.iter().filter(|p| p.witness).count());
    let Some(last) = peers.list.last().filter(|p| p.witness) else { return };
    let (majority, spare) = (all / 2 + 1, (all - 1) / 2);
    let (message, fix) = if all.is_multiple_of(2) {
        let message = format!(
            "{all} votes are an even number: the cluster survives the loss of {spare}, as with {}",
            all - 1
        );
        (message, "make the number of votes odd: one witness for 2 or 4 peers, none for 3 or 5")
    } else if witnesses > 1 {
        let message = format!("{witnesses} of {all} votes are of witnesses");
        (message, "keep one witness; let the others be peers, so that they can own VIPs too")
    } else {
        return;
    };
    let reason = format!("a majority of {all} is {majority}, and a witness never owns a VIP");
    problems.add(Code::WitnessVotes, last.span(), message, reason, fix);
}

/// `weights = { lb1 = 3 }`.
fn read_weights(top: &Section<'_>, peers: &mut Peers, problems: &mut Problems<'_>) {
    let Some(value) = top.raw(&top::WEIGHTS) else { return };
    let DeValue::Table(table) = value.get_ref() else {
        tree::wrong_type(&top::WEIGHTS, value, problems);
        return;
    };
    for (name, weight) in table {
        let name = At::new(name.get_ref().as_ref(), name.span());
        let found = peers.find_owner(&name, top::WEIGHTS.name, problems);
        let range = 0..=u32::from(NODE_WEIGHT_MAX);
        let weight = tree::read_number(&top::WEIGHTS, weight, range, problems);
        let Some((found, weight)) = found.zip(weight) else { continue };
        if let Some(peer) = peers.list.iter_mut().find(|p| p.id() == found.value) {
            peer.weight = u16::try_from(weight.value).unwrap_or(NODE_WEIGHT_MAX);
        }
    }
}

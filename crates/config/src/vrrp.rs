//! Reads `vrrp` of a `[[vip]]`: the virtual routers that decide who owns it instead of the lease.

use crate::Code;
use crate::bundle::Bundle;
use crate::cluster::Cluster;
use crate::files::{self, ReadFile};
use crate::host::Host;
use crate::keys::{Key, vip as vip_keys, vrrp as keys, vrrp_auth as auth_keys};
use crate::report::{At, Problems, Span, listed, shown};
use crate::tree::{self, Section, Word};
use crate::value::{self, Unfit};
use crate::vip::Vip;
use buoy_model::limits::{VRRP_INTERVAL_MAX, VRRP_INTERVAL_MIN, VRRP_PEERS_MAX, VRRP_WINDOW_MAX};
use buoy_model::{
    Forward, HmacMode, LinkId, Mode, NodeId, Password, Presence, Service, VipAddress,
    VirtualRouter, VrrpAuth, VrrpChecksum, VrrpHmac, VrrpKey, VrrpVersion,
};
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;
use toml::de::DeValue;

/// What holds without `priority`, as in keepalived.
const PRIORITY_DEFAULT: u8 = 100;

/// The clock of a peer may be wrong by so much, or by three intervals if that is more.
const WINDOW_LEAST: Duration = Duration::from_secs(5);

/// What the file says of it, before the host is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) span: Span,
    pub(crate) id: At<u8>,
    version: VrrpVersion,
    priorities: Priorities,
    interval: Duration,
    pub(crate) peers: Vec<At<IpAddr>>,
    min_ttl: u8,
    checksum: VrrpChecksum,
    password: Option<Password>,
    auth: Option<AuthDraft>,
    accept: Option<At<bool>>,
    virtual_mac: Option<At<bool>>,
    /// Where hosts speak from, each from its own.
    sources: Vec<At<IpAddr>>,
}

#[derive(Clone, Debug)]
struct Priorities {
    usual: u8,
    by_node: Vec<(NodeId, u8)>,
}

#[derive(Clone, Debug)]
struct AuthDraft {
    /// Number and path of each key.
    keys: Vec<At<(u8, String)>>,
    mode: HmacMode,
    window: Option<Duration>,
}

impl Priorities {
    fn of(&self, node: Option<NodeId>) -> u8 {
        let named = self.by_node.iter().find(|(name, _)| Some(*name) == node);
        named.map_or(self.usual, |(_, priority)| *priority)
    }
}

/// `vrrp` of one `[[vip]]`; `None`: it has none, or one that cannot be.
pub(crate) fn read(
    section: &Section<'_>,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> Option<Draft> {
    let table = section.section(&vip_keys::VRRP, &keys::SCHEMA, problems)?;
    refuse_lease_words(section, problems);
    if !table.has(&keys::ID) {
        table.miss(&keys::ID, problems);
    }
    let id = table.number(&keys::ID, 1..=255, problems);
    let versions = [(2, VrrpVersion::V2), (3, VrrpVersion::V3)];
    let version = table.number(&keys::VERSION, 2..=3, problems);
    let version = version.and_then(|v| versions.iter().find(|(n, _)| *n == v.value));
    let version = version.map_or(VrrpVersion::V3, |(_, version)| *version);
    let interval = read_interval(&table, version, problems);
    let peers = read_speakers(&table, &keys::PEERS, Code::VrrpPeer, problems);
    let sources = read_speakers(&table, &keys::SOURCE, Code::VrrpSource, problems);
    let min_ttl = table.number(&keys::MIN_TTL, 1..=255, problems);
    refuse_min_ttl(&table, &peers, problems);
    let checksums = [
        ("auto", Word::Now(VrrpChecksum::Auto)),
        ("pseudo-header", Word::Now(VrrpChecksum::PseudoHeader)),
        ("message", Word::Now(VrrpChecksum::Message)),
    ];
    let checksum = table.word(&keys::CHECKSUM, &checksums, problems);
    let password = read_password(&table, version, problems);
    let auth = read_auth(&table, problems);
    let accept = table.flag(&keys::ACCEPT, problems);
    let virtual_mac = table.flag(&keys::VIRTUAL_MAC, problems);
    let priorities = read_priorities(&table, cluster, problems);
    let id = id?;
    Some(Draft {
        span: table.span().clone(),
        id: At::new(u8::try_from(id.value).unwrap_or(u8::MAX), id.span),
        version,
        priorities,
        interval,
        peers,
        min_ttl: min_ttl.map_or(u8::MAX, |ttl| u8::try_from(ttl.value).unwrap_or(u8::MAX)),
        checksum: checksum.map_or(VrrpChecksum::Auto, |checksum| checksum.value),
        password,
        auth,
        accept,
        virtual_mac,
        sources,
    })
}

/// What says who owns a VIP under the lease says nothing here.
fn refuse_lease_words(section: &Section<'_>, problems: &mut Problems<'_>) {
    let others = [
        (&vip_keys::PREFER, "write priority = { NODE = NUMBER } in `vrrp`"),
        (&vip_keys::SAFETY, "remove it; a VIP under VRRP is `available`"),
        (&vip_keys::APART, "give the hosts other priorities for each VIP in `vrrp`"),
    ];
    for (key, fix) in others {
        if let Some(span) = section.key_span(key) {
            let message = format!("`{}` does nothing beside `vrrp`", key.name);
            let reason = "the best priority on the segment owns the VIP";
            problems.add(Code::NotWithVrrp, &span, message, reason, fix);
        }
    }
}

fn read_interval(
    table: &Section<'_>,
    version: VrrpVersion,
    problems: &mut Problems<'_>,
) -> Duration {
    let range = VRRP_INTERVAL_MIN..=VRRP_INTERVAL_MAX;
    let Some(interval) = table.duration(&keys::INTERVAL, range, problems) else {
        return Duration::from_secs(1);
    };
    let unit = match version {
        VrrpVersion::V2 => Duration::from_secs(1),
        VrrpVersion::V3 => Duration::from_millis(10),
    };
    if interval.value.as_nanos() % unit.as_nanos() != 0 {
        let message = format!("`interval` cannot be {}", value::written(interval.value));
        let (reason, fix) = match version {
            VrrpVersion::V2 => {
                ("version 2 counts whole seconds", "write whole seconds, or version = 3")
            }
            VrrpVersion::V3 => ("version 3 counts in steps of 10 ms", "write a multiple of 10ms"),
        };
        problems.add(Code::VrrpVersion, &interval.span, message, reason, fix);
    }
    interval.value
}

/// A list of addresses that routers speak from.
fn read_speakers(
    table: &Section<'_>,
    key: &'static Key,
    code: Code,
    problems: &mut Problems<'_>,
) -> Vec<At<IpAddr>> {
    let Some(texts) = table.texts(key, problems) else { return Vec::new() };
    let fix = format!("remove `{}`: by multicast it is not needed", key.name);
    crate::vip::refuse_too_many(key.name, &texts.value, VRRP_PEERS_MAX, &fix, problems);
    let mut speakers: Vec<At<IpAddr>> = Vec::new();
    for text in texts.value.iter().take(VRRP_PEERS_MAX) {
        let message = format!("\"{}\" in `{}` cannot speak VRRP", shown(text.value), key.name);
        let fix = "write the address of a router, as in \"10.0.0.13\"";
        let reason = match text.value.parse::<IpAddr>() {
            Err(_) => Some(value::address_fault(text.value)),
            Ok(address) => match value::unfit(address) {
                None | Some(Unfit::LinkLocal) => {
                    speakers.push(At::new(address, text.span.clone()));
                    None
                }
                Some(unfit) => Some(unfit.reason()),
            },
        };
        if let Some(reason) = reason {
            problems.add(code, &text.span, message, reason, fix);
        }
    }
    speakers
}

fn refuse_min_ttl(table: &Section<'_>, peers: &[At<IpAddr>], problems: &mut Problems<'_>) {
    let Some(span) = table.key_span(&keys::MIN_TTL) else { return };
    if peers.is_empty() && !table.has(&keys::PEERS) {
        let message = "`min_ttl` does nothing without `peers`";
        let reason = "multicast comes from the segment itself: its TTL must be 255 (RFC 9568 §7.1)";
        problems.add(Code::NeedsOther, &span, message, reason, "remove it, or name the `peers`");
    }
}

fn read_password(
    table: &Section<'_>,
    version: VrrpVersion,
    problems: &mut Problems<'_>,
) -> Option<Password> {
    let text = table.text(&keys::PASSWORD, problems)?;
    problems.mask(&text.span);
    let message = "`password` cannot be sent";
    if version == VrrpVersion::V3 {
        let reason = "version 3 has none: it would be believed to protect something";
        let fix = "remove it and use `auth`, or write version = 2";
        problems.add(Code::VrrpVersion, &text.span, message, reason, fix);
        return None;
    }
    let mut bytes = [0; 8];
    let Some(room) = bytes.get_mut(..text.value.len()).filter(|room| !room.is_empty()) else {
        let reason = "it has 1 to 8 bytes";
        let fix = "write the first eight: keepalived cuts off the rest without a word";
        problems.add(Code::BadVrrpAuth, &text.span, message, reason, fix);
        return None;
    };
    room.copy_from_slice(text.value.as_bytes());
    Some(Password(bytes))
}

fn read_auth(table: &Section<'_>, problems: &mut Problems<'_>) -> Option<AuthDraft> {
    let auth = table.section(&keys::AUTH, &auth_keys::SCHEMA, problems)?;
    if let Some(span) = table.key_span(&keys::PASSWORD) {
        let message = "`password` beside `auth`";
        let reason = "a packet has either the one or the other";
        problems.add(Code::BadVrrpAuth, &span, message, reason, "remove it: everybody can read it");
    }
    let modes = [
        ("enforce", Word::Now(HmacMode::Enforce)),
        ("permissive", Word::Now(HmacMode::Permissive)),
        ("receive-only", Word::Now(HmacMode::ReceiveOnly)),
    ];
    let mode = auth.word(&auth_keys::MODE, &modes, problems);
    let range = Duration::from_secs(1)..=VRRP_WINDOW_MAX;
    let window = auth.duration(&auth_keys::WINDOW, range, problems);
    if !auth.has(&auth_keys::KEYS) {
        auth.miss(&auth_keys::KEYS, problems);
    }
    let mut keys: Vec<At<(u8, String)>> = Vec::new();
    for text in auth.texts(&auth_keys::KEYS, problems)?.value {
        let parts = text.value.split_once(' ').and_then(|(id, file)| {
            let id = id.parse::<u8>().ok().filter(|id| *id > 0)?;
            let path = file.trim().strip_prefix("file:").filter(|path| !path.is_empty())?;
            Some((id, path.to_owned()))
        });
        let Some(key) = parts else {
            problems.mask(&text.span);
            let message = "this is no key of VRRP";
            let reason = "it is a number from 1 to 255, and the file of the key";
            let fix = "write \"1 file:/etc/buoy/vrrp.key\"";
            problems.add(Code::BadVrrpAuth, &text.span, message, reason, fix);
            continue;
        };
        if let Some(first) = keys.iter().find(|known| known.value.0 == key.0) {
            let message = format!("two keys have the number {}", key.0);
            let (again, first) = ((&text.span, "again here"), (&first.span, "first here"));
            problems.add_pair(Code::BadVrrpAuth, again, first, message, "give one another number");
            continue;
        }
        keys.push(At::new(key, text.span));
    }
    let mode = mode.map_or(HmacMode::Enforce, |mode| mode.value);
    Some(AuthDraft { keys, mode, window: window.map(|window| window.value) })
}

/// A number for all, or a table node = number.
fn read_priorities(
    table: &Section<'_>,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> Priorities {
    let mut priorities = Priorities { usual: PRIORITY_DEFAULT, by_node: Vec::new() };
    let Some(value) = table.raw(&keys::PRIORITY) else { return priorities };
    let number = |value: &toml::Spanned<DeValue<'_>>, problems: &mut Problems<'_>| {
        let number = tree::read_number(&keys::PRIORITY, value, 1..=255, problems)?;
        u8::try_from(number.value).ok()
    };
    let DeValue::Table(named) = value.get_ref() else {
        priorities.usual = number(value, problems).unwrap_or(PRIORITY_DEFAULT);
        return priorities;
    };
    for (name, value) in named {
        let name = At::new(name.get_ref().as_ref(), name.span());
        let node = cluster.peers.find_owner(&name, keys::PRIORITY.name, problems);
        let priority = number(value, problems);
        priorities.by_node.extend(node.map(|node| node.value).zip(priority));
    }
    priorities
}

/// What is wrong between the VIPs of one group, and of several.
pub(crate) fn check_bundles(bundles: &[Bundle], cluster: &Cluster, problems: &mut Problems<'_>) {
    let mut known: Vec<(&Draft, bool, &Option<At<String>>)> = Vec::new();
    for bundle in bundles {
        let with = bundle.vips.iter().find_map(|vip| vip.vrrp.as_ref());
        let Some(with) = with else {
            refuse_weights(bundle, problems);
            continue;
        };
        for vip in &bundle.vips {
            let Some(draft) = &vip.vrrp else { continue };
            refuse_taken(draft, vip, bundle, problems);
            refuse_homeless(draft, vip, problems);
            for v6 in [false, true] {
                let has = vip.addresses.iter().any(|a| a.value.address().is_ipv6() == v6);
                if !has {
                    continue;
                }
                refuse_family(draft, v6, vip, problems);
                let same = known.iter().find(|(other, family, interface)| {
                    let links = (interface.as_ref(), vip.interface.as_ref());
                    let elsewhere = matches!(links, (Some(a), Some(b)) if a.value != b.value);
                    other.id.value == draft.id.value && *family == v6 && !elsewhere
                });
                if let Some((first, ..)) = same {
                    let message = format!("two VIPs have the virtual router {}", draft.id.value);
                    let (again, first) =
                        ((&draft.id.span, "again here"), (&first.id.span, "first here"));
                    let fix = "give one another `id`, or make one [[vip]] with both addresses";
                    problems.add_pair(Code::DuplicateRouter, again, first, message, fix);
                }
                known.push((draft, v6, &vip.interface));
            }
        }
        hint_at_lease(bundle, with, cluster, problems);
    }
}

/// Who takes no packets for an address has no socket there.
fn refuse_taken(draft: &Draft, vip: &Vip, bundle: &Bundle, problems: &mut Problems<'_>) {
    let Some(accept) = draft.accept.as_ref().filter(|accept| !accept.value) else { return };
    let is_there = |service: &Service| {
        vip.addresses.iter().any(|own| service.addresses.contains(&own.value.address()))
    };
    let services = bundle.vips.iter().flat_map(|vip| &vip.services).map(|service| &service.value);
    let taken = services.filter(|service| is_there(service)).find_map(|s| match s.mode {
        Mode::Proxy => Some((s, "proxy")),
        Mode::Xdp { forward: Forward::Local, .. } => Some((s, "local")),
        Mode::Kernel
        | Mode::Xdp {
            forward: Forward::Dsr | Forward::Tunnel | Forward::Gue { .. } | Forward::Nat,
            ..
        } => None,
    });
    let Some((service, word)) = taken else { return };
    let (protocol, ports) = (service.protocol.name(), service.ports);
    let message = format!("accept = false drops the packets of {protocol} port {ports}");
    let reason = format!("its service is \"{word}\": the owner itself takes the packets");
    let fix = "remove `accept`, or forward with mode = \"kernel\" or \"xdp\"";
    problems.add(Code::VrrpAccept, &accept.span, message, reason, fix);
}

/// An address that is on no interface has no hardware address of its own either.
fn refuse_homeless(draft: &Draft, vip: &Vip, problems: &mut Problems<'_>) {
    let Some(own) = draft.virtual_mac.as_ref().filter(|own| own.value) else { return };
    match vip.presence {
        Presence::Assigned => {}
        Presence::Answered => {
            let message = "virtual_mac = true does nothing beside assign = false";
            let reason =
                "the hardware address is that of an interface, and the VIP is not put on one";
            let fix = "remove `assign`: services with `forward` work with both, or `virtual_mac`";
            problems.add(Code::VrrpVirtualMac, &own.span, message, reason, fix);
        }
    }
}

/// A check that weighs something weighs nothing under a lease.
fn refuse_weights(bundle: &Bundle, problems: &mut Problems<'_>) {
    for asked in bundle.checks.iter().filter(|asked| asked.check.weight.is_some()) {
        let message = format!("`weight` of the check \"{}\" does nothing", asked.check.name);
        let reason = "it is added to the priority of VRRP, and this VIP has none";
        let fix = "remove it: a node whose check fails gives the VIP to one whose check passes";
        problems.add(Code::NeedsOther, &asked.span, message, reason, fix);
    }
}

fn refuse_family(draft: &Draft, v6: bool, vip: &Vip, problems: &mut Problems<'_>) {
    let of_family = |a: &IpAddr| a.is_ipv6() == v6;
    if v6 && draft.version == VrrpVersion::V2 {
        let address = vip.addresses.iter().find(|a| a.value.address().is_ipv6());
        let span = address.map_or(&draft.span, |a| &a.span);
        let message = "version 2 of VRRP has no IPv6";
        let fix = "write version = 3";
        problems.add(Code::VrrpVersion, span, message, "RFC 3768 is about IPv4 only", fix);
    }
    if !draft.peers.is_empty() && !draft.peers.iter().any(|peer| of_family(&peer.value)) {
        let family = if v6 { "IPv6" } else { "IPv4" };
        let message = format!("`peers` has no address for the {family} VIP");
        let reason = "each family is a virtual router of its own, spoken over that family";
        let fix = format!("add the {family} addresses of the peers");
        problems.add(Code::VrrpPeer, &draft.span, message, reason, fix);
    }
}

/// Hosts that run Buoy need no VRRP between them.
fn hint_at_lease(bundle: &Bundle, draft: &Draft, cluster: &Cluster, problems: &mut Problems<'_>) {
    let is_buoy = |address: IpAddr| {
        cluster.peers.list.iter().any(|p| p.legs.iter().any(|leg| leg.value.ip() == address))
    };
    let others = draft.peers.iter().filter(|peer| !is_buoy(peer.value)).count();
    if bundle.nodes.len() < 2 || others > 0 {
        return;
    }
    let mut names: Vec<&str> = bundle.nodes.iter().map(|node| cluster.peers.name(*node)).collect();
    names.sort_unstable();
    let (message, reason) = if draft.peers.is_empty() {
        let message = format!(
            "if nobody but {} speaks for virtual router {}, the lease is safer and faster",
            listed(names),
            draft.id.value
        );
        (message, "VRRP has two owners when the network is cut, and waits three intervals")
    } else {
        let message = "every peer of this virtual router runs Buoy: the lease is safer and faster";
        (
            message.to_owned(),
            "VRRP has two owners when the network is cut, and waits three intervals",
        )
    };
    let fix = "remove `vrrp` once no other router takes part";
    problems.add(Code::VrrpAmongBuoys, &draft.span, message, reason, fix);
}

/// The virtual routers of a group; `addresses` are those of all its VIPs, in their order.
pub(crate) fn place(
    bundle: &Bundle,
    addresses: &[VipAddress],
    (config, host, me): (&str, Option<&Host>, Option<NodeId>),
    read_file: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Vec<Arc<VirtualRouter>> {
    let mut rest = addresses;
    let mut routers = Vec::new();
    for vip in &bundle.vips {
        let (own, others) = rest.split_at(vip.addresses.len().min(rest.len()));
        rest = others;
        let Some(draft) = &vip.vrrp else { continue };
        let auth = match &draft.auth {
            Some(auth) => VrrpAuth::Hmac(VrrpHmac {
                keys: match host {
                    Some(_) => read_keys(auth, config, read_file, problems),
                    None => Vec::new(),
                },
                mode: auth.mode,
                window: auth.window.unwrap_or(WINDOW_LEAST.max(draft.interval * 3)),
            }),
            None => draft.password.map_or(VrrpAuth::None, VrrpAuth::Password),
        };
        for v6 in [false, true] {
            let of_family = |a: &&VipAddress| a.cidr.address().is_ipv6() == v6;
            let said: Vec<IpAddr> =
                own.iter().filter(of_family).map(|a| a.cidr.address()).collect();
            if said.is_empty() {
                continue;
            }
            let link = own.iter().find(of_family).and_then(|a| a.link);
            let peers = draft.peers.iter().map(|peer| peer.value).filter(|p| p.is_ipv6() == v6);
            let peers: Vec<IpAddr> = peers.collect();
            let named = draft.sources.iter().map(|source| source.value);
            let named: Vec<IpAddr> = named.filter(|source| source.is_ipv6() == v6).collect();
            let source =
                host.zip(link).and_then(|(host, link)| source(host, link, v6, (&peers, &named)));
            if let (Some(_), Some(link), None) = (host, link, source) {
                refuse_sourceless(draft, own, link, v6, problems);
            }
            let peers = peers.into_iter().filter(|peer| Some(*peer) != source);
            routers.push(Arc::new(VirtualRouter {
                id: draft.id.value,
                v6,
                link,
                source,
                addresses: said,
                version: draft.version,
                priority: draft.priorities.of(me),
                interval: draft.interval,
                peers: peers.collect(),
                min_ttl: draft.min_ttl,
                checksum: draft.checksum,
                auth: auth.clone(),
                accept: draft.accept.as_ref().is_none_or(|accept| accept.value),
                virtual_mac: draft.virtual_mac.as_ref().is_some_and(|own| own.value),
            }));
        }
    }
    routers
}

/// The address that this host speaks from: the one that is `named`; else its first one there, and link-local for IPv6
/// unless the peers are not (RFC 9568 §5.1.1.1, §5.1.2.1).
fn source(
    host: &Host,
    link: LinkId,
    v6: bool,
    (peers, named): (&[IpAddr], &[IpAddr]),
) -> Option<IpAddr> {
    let own = host.own().filter(|(on, _)| on.id == link).map(|(_, cidr)| cidr.address());
    let usable = |address: &IpAddr| {
        matches!(value::unfit(*address), None | Some(Unfit::LinkLocal)) && address.is_ipv6() == v6
    };
    let own: Vec<IpAddr> = own.filter(usable).collect();
    if !named.is_empty() {
        return named.iter().copied().find(|address| own.contains(address));
    }
    // The same list stands on every host: whoever is named in it speaks from there.
    if let Some(named) = own.iter().find(|address| peers.contains(address)) {
        return Some(*named);
    }
    let is_local = |address: &IpAddr| matches!(value::unfit(*address), Some(Unfit::LinkLocal));
    let wants_local = v6 && peers.iter().all(is_local);
    let of_kind = own.iter().find(|address| is_local(address) == wants_local);
    of_kind.or_else(|| own.first()).copied()
}

fn refuse_sourceless(
    draft: &Draft,
    own: &[VipAddress],
    link: LinkId,
    v6: bool,
    problems: &mut Problems<'_>,
) {
    let name = own.iter().find(|a| a.link == Some(link)).map_or("", |a| a.link_name.as_str());
    let family = if v6 { "IPv6" } else { "IPv4" };
    if let Some(first) = draft.sources.iter().find(|source| source.value.is_ipv6() == v6) {
        let message = format!("`source` names no {family} address that {name} has here");
        let reason = "a host speaks from an address of its own, on the interface of the VIP";
        let fix = format!("add the address of this host on {name}, or remove `source`");
        return problems.add(Code::VrrpSource, &first.span, message, reason, fix);
    }
    let message = format!("{name} has no {family} address of this host to speak VRRP from");
    let reason = "a packet needs a source of its own, which also decides between equal priorities";
    let fix = format!("give {name} an {family} address");
    problems.add(Code::VrrpSource, &draft.span, message, reason, fix);
}

fn read_keys(
    auth: &AuthDraft,
    config: &str,
    read_file: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Vec<VrrpKey> {
    let read = |key: &At<(u8, String)>, problems: &mut Problems<'_>| {
        let (id, path) = &key.value;
        let path = files::resolve(config, path);
        let secret = files::read_key_bytes(&path, &key.span, read_file, problems)?;
        Some(VrrpKey { id: *id, secret: secret.to_vec() })
    };
    auth.keys.iter().filter_map(|key| read(key, problems)).collect()
}

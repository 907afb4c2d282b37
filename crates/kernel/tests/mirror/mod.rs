//! What the programs should do with a frame, once more and simply: for packets that nobody has thought of.
//!
//! It knows the documented verdicts and no maps. Only the hash over a flow is shared with the tables' own
//! code, because what it gives is not to be derived from anything.
#![allow(dead_code)] // Each test takes what it needs.

mod apart;
mod limit;
mod lost;
mod pooled;
mod read;
mod tag;
mod wrap;

use super::packets::{ICMP, ICMPV6, TCP, UDP, internet_sum, octets};
use super::world::{LOOPBACK, way};
use buoy_kernel::fast::{NextHop, Way};
use buoy_model::{FastPath, FastService, Forward, Mac, Protocol};
use buoy_xdp::forward::Drop;
use pooled::Pooled;
use read::{addresses, ends, half, read, read_ports};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use wrap::{overhead, wrapped};

/// What becomes of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    Pass(Vec<u8>),
    Drop(Drop),
    Transmit(Vec<u8>),
    Redirect(Vec<u8>),
}

impl Fate {
    /// What it became, unless it was dropped.
    pub(crate) fn frame(&self) -> &[u8] {
        match self {
            Self::Pass(frame) | Self::Transmit(frame) | Self::Redirect(frame) => frame,
            Self::Drop(_) => &[],
        }
    }
}

/// What is known of a packet.
#[derive(Clone, Debug)]
struct Seen {
    client: IpAddr,
    vip: IpAddr,
    protocol: u8,
    /// Of the headers before the transport's.
    header: usize,
    /// Of the IP packet.
    length: usize,
    class: u8,
    ttl: u8,
    piece: Piece,
    client_port: u16,
    vip_port: u16,
    opens: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Piece {
    Whole,
    First(u32),
    Later(u32),
}

/// Where the transport header of interest is: in the packet, nowhere, or in one that is quoted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Shape {
    Whole,
    Later,
    Quoted,
}

/// Client, VIP, protocol.
type Flow = (IpAddr, u16, IpAddr, u16, u8);
/// Whom `world::way` asks translated backends as.
const OWN: [&str; 4] = ["10.0.0.1", "10.0.1.1", "fd00::1", "fd00:1::1"];
type Datagram = (IpAddr, IpAddr, u32, u8);

/// Where the first piece of a datagram went.
#[derive(Clone, Copy, Debug)]
enum Follows {
    /// To nobody.
    Nothing,
    /// To this backend of this service.
    Backend(usize, usize),
    /// Nowhere.
    Refused(Drop),
    /// From a client out of a pool, or back.
    Pooled(Flow, bool),
}

pub(crate) struct Mirror<'a> {
    pub(crate) path: &'a FastPath,
    /// The place of each flow's backend, and who that was.
    remembered: HashMap<Flow, (usize, SocketAddr)>,
    datagrams: HashMap<Datagram, Follows>,
    limits: limit::Limits,
    /// The backend that each client had, by service.
    clients: apart::Clients,
    pooled: Pooled,
    /// First pieces from before the last change.
    earlier: HashSet<Datagram>,
    /// The last packet was a piece that follows one of those: it goes where the service was then, or not at
    /// all.
    pub(crate) is_unsure: bool,
    /// The last fate was that of a piece that follows its first one, which the programs may have
    /// forgotten: then they pass it.
    pub(crate) follows: bool,
    /// The packet at hand has the tag of a VLAN.
    is_in_vlan: bool,
    pub(crate) lost: lost::Lost,
}

impl<'a> Mirror<'a> {
    pub(crate) fn new(path: &'a FastPath) -> Self {
        Self {
            path,
            remembered: HashMap::new(),
            datagrams: HashMap::new(),
            limits: limit::Limits::new(),
            clients: apart::Clients::new(),
            pooled: Pooled::default(),
            earlier: HashSet::new(),
            is_unsure: false,
            follows: false,
            is_in_vlan: false,
            lost: lost::Lost::default(),
        }
    }

    pub(crate) fn change(&mut self, path: &'a FastPath) {
        self.path = path;
        self.earlier.extend(self.datagrams.drain().map(|(datagram, _)| datagram));
    }

    /// An answer that could come to a pool: from where, to which port, and the protocol.
    pub(crate) fn answer(&self, n: u64) -> Option<(SocketAddr, SocketAddr, u8)> {
        self.pooled.answer(n)
    }

    /// `became` is what the programs made of it: which port a flow gets is theirs to say, as long as it may be.
    pub(crate) fn judge(&mut self, frame: &[u8], became: &[u8]) -> Fate {
        (self.follows, self.is_unsure) = (false, false);
        self.is_in_vlan = false;
        self.begin_losses();
        match tag::of(frame) {
            Some(tag) => self.tagged(tag, frame, became),
            None => self.untagged(frame, became),
        }
    }

    fn untagged(&mut self, frame: &[u8], became: &[u8]) -> Fate {
        self.pooled.became = became.to_vec();
        let pass = || Fate::Pass(frame.to_vec());
        let Some((client, vip)) = ends(frame) else { return pass() };
        if !self.path.services.iter().any(|s| s.address == vip) {
            return if self.is_pool(vip) {
                self.at_pool(frame, (client, vip))
            } else {
                self.other(frame, (client, vip))
            };
        }
        let seen = match read(frame, client, vip) {
            Ok(Some(seen)) => seen,
            Ok(None) => return pass(),
            Err(reason) => return Fate::Drop(reason),
        };
        match (seen.protocol, seen.piece) {
            (TCP | UDP, Piece::Later(id)) => self.later(frame, &seen, id),
            (TCP | UDP, Piece::Whole | Piece::First(_)) => self.with_ports(frame, seen),
            (ICMP, Piece::Whole) if vip.is_ipv4() => self.icmp(frame, seen),
            (ICMPV6, Piece::Whole) if vip.is_ipv6() => self.icmp(frame, seen),
            _ => pass(),
        }
    }

    /// Not to a VIP: from a translated backend it gets the VIP as its source.
    fn other(&self, frame: &[u8], (source, to): (IpAddr, IpAddr)) -> Fate {
        let pass = Fate::Pass(frame.to_vec());
        if OWN.contains(&to.to_string().as_str()) {
            return pass;
        }
        let plain = source.is_ipv6() || frame[14] == 0x45;
        let Ok(Some(mut seen)) = read(frame, source, source) else { return pass };
        let known = seen.protocol == TCP || seen.protocol == UDP;
        let direct = seen.header == if source.is_ipv4() { 20 } else { 40 };
        if !plain || !known || !direct || seen.piece != Piece::Whole {
            return pass;
        }
        if read_ports(frame, &mut seen).is_err() {
            return pass;
        }
        let port = seen.client_port;
        let mut owners = self.path.services.iter().filter_map(|s| {
            let first = s.backends.iter().map(|b| b.address).find(|b| {
                b.ip() == source && (b.port()..=b.port() + (s.ports.1 - s.ports.0)).contains(&port)
            })?;
            let is_translated = s.forward == Forward::Nat && s.pool.is_empty();
            let fits = is_translated && number(s.protocol) == seen.protocol;
            fits.then(|| SocketAddr::new(s.address, s.ports.0 + (port - first.port())))
        });
        let Some(from) = owners.next() else { return pass };
        // Of two services, unless it becomes the same in both.
        if owners.any(|other| other != from) {
            return pass;
        }
        let mut sent = frame.to_vec();
        restore(&mut sent, &seen, from);
        Fate::Pass(sent)
    }

    fn with_ports(&mut self, frame: &[u8], mut seen: Seen) -> Fate {
        if let Err(reason) = read_ports(frame, &mut seen) {
            return Fate::Drop(reason);
        }
        let found = self.find(&seen);
        let follows = match found {
            Some(at) if self.refuses(at, &seen) => Follows::Refused(Drop::Source),
            Some(at) if self.is_over(at, &seen) => return self.lose(at, None, Drop::Limit),
            Some(at) if !self.path.services[at].pool.is_empty() => {
                return self.outward(frame, &seen, at, Shape::Whole, 0);
            }
            Some(at) => match self.choose(at, &seen, Some(frame)) {
                Some(backend) => Follows::Backend(at, backend),
                None => Follows::Nothing,
            },
            None => Follows::Nothing,
        };
        if let Piece::First(id) = seen.piece {
            self.datagrams.insert((seen.client, seen.vip, id, seen.protocol), follows);
        }
        match (found, follows) {
            (None, _) if self.is_pool(seen.vip) => self.inward(frame, &seen, Shape::Whole, 0),
            (None, _) if seen.piece == Piece::Whole => self.other(frame, (seen.client, seen.vip)),
            (None, _) | (_, Follows::Pooled(..)) => Fate::Pass(frame.to_vec()),
            (Some(at), Follows::Nothing) => self.lose(at, None, Drop::NoBackend),
            (Some(at), Follows::Refused(reason)) => self.lose(at, None, reason),
            (Some(_), Follows::Backend(at, backend)) => {
                self.deliver(frame, &seen, at, backend, Shape::Whole, 0)
            }
        }
    }

    fn later(&mut self, frame: &[u8], seen: &Seen, id: u32) -> Fate {
        let datagram = (seen.client, seen.vip, id, seen.protocol);
        self.is_unsure =
            self.earlier.contains(&datagram) && !self.datagrams.contains_key(&datagram);
        let follows = self.datagrams.get(&datagram).copied().unwrap_or(Follows::Nothing);
        self.follows = !matches!(follows, Follows::Nothing);
        match follows {
            Follows::Nothing => Fate::Pass(frame.to_vec()),
            Follows::Refused(reason) => Fate::Drop(reason),
            Follows::Backend(at, backend) => {
                self.deliver(frame, seen, at, backend, Shape::Later, 0)
            }
            Follows::Pooled(flow, is_inward) => self.follow(frame, seen, flow, is_inward),
        }
    }

    fn icmp(&mut self, frame: &[u8], mut seen: Seen) -> Fate {
        let pass = || Fate::Pass(frame.to_vec());
        let v4 = seen.vip.is_ipv4();
        let at = 14 + seen.header;
        if frame.len() < at + 8 || seen.length < seen.header + 8 {
            return Fate::Drop(Drop::Icmp);
        }
        let (kind, code) = (frame[at], frame[at + 1]);
        if kind == if v4 { 8 } else { 128 } && code == 0 {
            if self.is_in_vlan {
                return pass();
            }
            return if seen.header == if v4 { 20 } else { 40 } { pong(frame, v4) } else { pass() };
        }
        let is_error = if v4 { [3, 11, 12].contains(&kind) } else { (1..=4).contains(&kind) };
        if !is_error {
            return pass();
        }
        let within = at + 8;
        if frame.len() < within + if v4 { 20 } else { 40 } {
            return Fate::Drop(Drop::Icmp);
        }
        let header = if v4 { usize::from(frame[within] & 15) * 4 } else { 40 };
        if v4 && (frame[within] >> 4 != 4 || header < 20) {
            return Fate::Drop(Drop::Icmp);
        }
        let (source, client) = addresses(frame, within, v4);
        let is_later = v4 && half(frame, within + 6) & 0x1fff != 0;
        let protocol = frame[within + if v4 { 9 } else { 6 }];
        if source != seen.vip || is_later || ![TCP, UDP].contains(&protocol) {
            return pass();
        }
        let ports = within + header;
        if frame.len() < ports + 8 {
            return Fate::Drop(Drop::Icmp);
        }
        (seen.client, seen.protocol) = (client, protocol);
        (seen.vip_port, seen.client_port) = (half(frame, ports), half(frame, ports + 2));
        let Some(service) = self.find(&seen) else {
            return self.inward(frame, &seen, Shape::Quoted, within);
        };
        // Whoever sent the error: it is about a connection of this client.
        if self.refuses(service, &seen) {
            return self.lose(service, None, Drop::Source);
        }
        if !self.path.services[service].pool.is_empty() {
            return self.outward(frame, &seen, service, Shape::Quoted, within);
        }
        match self.choose(service, &seen, None) {
            None => self.lose(service, None, Drop::NoBackend),
            Some(b) => self.deliver(frame, &seen, service, b, Shape::Quoted, within),
        }
    }

    /// One port stands against a range around it, and that against a larger one.
    fn find(&self, seen: &Seen) -> Option<usize> {
        let services = self.path.services.iter().enumerate();
        let fitting = services.filter(|(_, s)| {
            let has_port = (s.ports.0..=s.ports.1).contains(&seen.vip_port);
            s.address == seen.vip && number(s.protocol) == seen.protocol && has_port
        });
        fitting.min_by_key(|(_, s)| s.ports.1 - s.ports.0).map(|(at, _)| at)
    }

    /// The longest prefix that contains the client decides, and without one whether anybody is allowed by name.
    fn refuses(&self, at: usize, seen: &Seen) -> bool {
        let rules = self.path.services[at].sources.rules();
        let client = seen.client.to_canonical();
        let fitting = rules.iter().filter(|rule| rule.prefix.contains(client));
        let longest = fitting.max_by_key(|rule| rule.prefix.prefix());
        longest.map_or(rules.iter().any(|rule| rule.allows), |rule| !rule.allows)
    }

    fn deliver(
        &self,
        frame: &[u8],
        seen: &Seen,
        at: usize,
        backend: usize,
        shape: Shape,
        within: usize,
    ) -> Fate {
        let service = &self.path.services[at];
        if service.forward == Forward::Local {
            return Fate::Pass(frame.to_vec());
        }
        let (hop, mac) = match self.passage(frame, seen, at, backend, shape) {
            Ok(passage) => passage,
            Err(fate) => return fate,
        };
        let to = to_backend(service, seen, backend);
        let mut sent = frame.to_vec();
        match service.forward {
            Forward::Dsr | Forward::Local => {}
            Forward::Tunnel | Forward::Gue { .. } => {
                hop_less(&mut sent, seen);
                sent = wrapped(self.path.seed, service.forward, &sent, seen, &hop, to.ip());
            }
            Forward::Nat => translate(&mut sent, seen, to, shape, within),
        }
        gone(sent, &hop, mac)
    }

    /// The way to a backend, or what becomes of a packet that cannot go there.
    fn passage(
        &self,
        frame: &[u8],
        seen: &Seen,
        at: usize,
        backend: usize,
        shape: Shape,
    ) -> Result<(NextHop, Mac), Fate> {
        let service = &self.path.services[at];
        let lose = |reason| Err(self.lose(at, Some(backend), reason));
        let backend = service.backends[backend].address;
        let to = Some(backend.ip()).filter(|ip| !ip.is_unspecified());
        let hop = match (to.and_then(way), service.forward) {
            (Some(Way::Local), Forward::Dsr | Forward::Tunnel | Forward::Gue { .. }) => {
                return Err(Fate::Pass(frame.to_vec()));
            }
            (Some(Way::Via(hop)), forward) if forward != Forward::Dsr || !hop.is_gateway => hop,
            _ => return lose(Drop::NoNeighbour),
        };
        let Some(mac) = hop.mac else { return lose(Drop::NoNeighbour) };
        let room = usize::from(hop.mtu) - overhead(service, backend.ip());
        if seen.length > room && shape != Shape::Whole {
            return lose(Drop::TooBig);
        }
        if seen.length > room {
            // Its sender is told, and it is dropped all the same.
            let refusal = refusal(frame, seen, room);
            let has_room = refusal != Fate::Drop(Drop::NoRoom);
            let _ = lose(if has_room { Drop::TooBig } else { Drop::NoRoom });
            return Err(refusal);
        }
        if service.forward != Forward::Dsr && seen.ttl <= 1 {
            return lose(Drop::TimeToLive);
        }
        Ok((hop, mac))
    }
}

/// A backend with the port that the service's first one becomes, or the one that is as far above it.
fn to_backend(service: &FastService, seen: &Seen, backend: usize) -> SocketAddr {
    let backend = service.backends[backend].address;
    let port = backend.port().wrapping_add(seen.vip_port.wrapping_sub(service.ports.0));
    SocketAddr::new(backend.ip(), port)
}

fn gone(mut sent: Vec<u8>, hop: &NextHop, mac: Mac) -> Fate {
    sent[..12].copy_from_slice(&[mac.0, hop.link_mac.0].concat());
    if hop.link == LOOPBACK { Fate::Transmit(sent) } else { Fate::Redirect(sent) }
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
}

/// The checksum at this place after a word became another one.
fn exchange(frame: &mut [u8], check: usize, old: &[u8], new: &[u8]) -> u16 {
    let flipped: Vec<u8> = old.iter().map(|b| !b).collect();
    let mut sum = u64::from(!half(frame, check)) + internet_sum(&flipped) + internet_sum(new);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let value = !(sum as u16);
    frame[check..check + 2].copy_from_slice(&value.to_be_bytes());
    value
}

fn put(frame: &mut [u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let old = frame[at..at + bytes.len()].to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    old
}

/// Who forwards by more than an Ethernet address takes one off the TTL.
fn hop_less(frame: &mut [u8], seen: &Seen) {
    if seen.vip.is_ipv4() {
        let before = put(frame, 22, &[seen.ttl - 1]);
        exchange(frame, 24, &[before[0], 0], &[seen.ttl - 1, 0]);
    } else {
        frame[21] -= 1;
    }
}

fn translate(frame: &mut [u8], seen: &Seen, to: SocketAddr, shape: Shape, within: usize) {
    let v4 = to.is_ipv4();
    let new = octets(to.ip());
    let new_port = to.port().to_be_bytes();
    let old = put(frame, if v4 { 30 } else { 38 }, &new);
    if v4 {
        exchange(frame, 24, &old, &new);
    }
    hop_less(frame, seen);
    let at = 14 + seen.header;
    if shape == Shape::Whole {
        let old_port = put(frame, at + 2, &new_port);
        let check = at + if seen.protocol == TCP { 16 } else { 6 };
        if seen.protocol == TCP || half(frame, check) != 0 {
            let old = [old, old_port].concat();
            let value = exchange(frame, check, &old, &[new, new_port.to_vec()].concat());
            if seen.protocol == UDP && value == 0 {
                put(frame, check, &[0xff, 0xff]);
            }
        }
    } else if shape == Shape::Quoted {
        let inner = put(frame, within + if v4 { 12 } else { 8 }, &new);
        let header = if v4 { usize::from(frame[within] & 15) * 4 } else { 40 };
        let old_port = put(frame, within + header, &new_port);
        if v4 {
            exchange(frame, within + 10, &inner, &new);
            exchange(frame, at + 2, &old_port, &new_port);
        } else {
            let old = [old, inner, old_port].concat();
            exchange(frame, at + 2, &old, &[new.clone(), new, new_port.to_vec()].concat());
        }
    }
}

/// The source of an answer becomes the VIP.
fn restore(frame: &mut [u8], seen: &Seen, from: SocketAddr) {
    let (new, new_port) = (octets(from.ip()), from.port().to_be_bytes());
    let old = put(frame, if from.is_ipv4() { 26 } else { 22 }, &new);
    if from.is_ipv4() {
        exchange(frame, 24, &old, &new);
    }
    let at = 14 + seen.header;
    let old_port = put(frame, at, &new_port);
    let check = at + if seen.protocol == TCP { 16 } else { 6 };
    if seen.protocol == TCP || half(frame, check) != 0 {
        let old = [old, old_port].concat();
        let value = exchange(frame, check, &old, &[new, new_port.to_vec()].concat());
        if seen.protocol == UDP && value == 0 {
            put(frame, check, &[0xff, 0xff]);
        }
    }
}

fn pong(frame: &[u8], v4: bool) -> Fate {
    let mut sent = [&frame[6..12], &frame[..6], &frame[12..]].concat();
    let (source, size, check) = if v4 { (26, 4, 36) } else { (22, 16, 56) };
    let (client, vip) = (&frame[source..source + size], &frame[source + size..source + 2 * size]);
    put(&mut sent, source, &[vip, client].concat());
    if v4 {
        put(&mut sent, 22, &[64]);
        exchange(&mut sent, 24, &[frame[22], 0], &[64, 0]);
        put(&mut sent, 34, &[0]);
        exchange(&mut sent, check, &[8, 0], &[0, 0]);
    } else {
        put(&mut sent, 21, &[64]);
        put(&mut sent, 54, &[129]);
        exchange(&mut sent, check, &[128, 0], &[129, 0]);
    }
    Fate::Transmit(sent)
}

/// To the sender, from the VIP: so many bytes fit.
fn refusal(frame: &[u8], seen: &Seen, room: usize) -> Fate {
    if frame.len() < 14 + 128 {
        return Fate::Drop(Drop::NoRoom);
    }
    let (kind, code) = if seen.vip.is_ipv4() { (3, 4) } else { (2, 0) };
    let rest = (room as u32).to_be_bytes();
    let mac = |at: usize| Mac(frame[at..at + 6].try_into().unwrap());
    let said = super::packets::icmp(&seen.vip.to_string(), &seen.client.to_string(), kind, code)
        .rest(rest)
        .macs(mac(6), mac(0))
        .payload(&frame[14..14 + 128])
        .ttl(64)
        .id(0)
        .dont_fragment();
    Fate::Transmit(said.frame())
}

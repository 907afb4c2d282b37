//! The model of flows whose both ends are translated: each has a port, and no two have the same one.

use super::{
    Drop, Fate, Flow, Follows, Mirror, Piece, Seen, Shape, TCP, UDP, addresses, exchange, gone,
    half, number, octets, put, read, read_ports, to_backend,
};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

#[derive(Default)]
pub(super) struct Pooled {
    lots: HashMap<Flow, Lot>,
    /// Whose a port of a protocol is.
    ports: HashMap<(SocketAddr, u8), Flow>,
    /// In the order in which they began.
    began: Vec<Flow>,
    /// What the programs made of the packet.
    pub(super) became: Vec<u8>,
}

/// What is known of a flow.
#[derive(Clone, Copy)]
struct Lot {
    port: SocketAddr,
    /// The backend of its service, and as which it answers.
    place: usize,
    server: SocketAddr,
    answers: SocketAddr,
    is_over: [bool; 3],
}

impl Pooled {
    /// An answer of some flow: from where, to which port, and the protocol.
    pub(super) fn answer(&self, n: u64) -> Option<(SocketAddr, SocketAddr, u8)> {
        let flow = self.began.get((n % self.began.len().max(1) as u64) as usize)?;
        let lot = self.lots[flow];
        Some((lot.answers, lot.port, flow.4))
    }

    fn flow_of(&self, port: SocketAddr, protocol: u8) -> Option<Flow> {
        self.ports.get(&(port, protocol)).copied()
    }

    fn keep(&mut self, flow: Flow, lot: Lot) {
        if self.lots.insert(flow, lot).is_none() {
            self.ports.insert((lot.port, flow.4), flow);
            self.began.push(flow);
        }
    }
}

impl Mirror<'_> {
    pub(super) fn is_pool(&self, address: IpAddr) -> bool {
        self.path.services.iter().any(|s| s.pool.contains(&address))
    }

    /// To an address of a pool that is no VIP: nothing there is malformed.
    pub(super) fn at_pool(&mut self, frame: &[u8], (source, pool): (IpAddr, IpAddr)) -> Fate {
        let pass = || Fate::Pass(frame.to_vec());
        let Ok(Some(mut seen)) = read(frame, source, pool) else { return pass() };
        match (seen.protocol, seen.piece) {
            (TCP | UDP, Piece::Later(id)) => self.later(frame, &seen, id),
            (TCP | UDP, _) if read_ports(frame, &mut seen).is_ok() => {
                self.inward(frame, &seen, Shape::Whole, 0)
            }
            (super::ICMP, Piece::Whole) if pool.is_ipv4() => self.error_to_pool(frame, seen),
            (super::ICMPV6, Piece::Whole) if pool.is_ipv6() => self.error_to_pool(frame, seen),
            _ => pass(),
        }
    }

    fn error_to_pool(&mut self, frame: &[u8], seen: Seen) -> Fate {
        let at = 14 + seen.header;
        let is_ping = frame.len() >= at + 2
            && frame[at] == if seen.vip.is_ipv4() { 8 } else { 128 }
            && frame[at + 1] == 0;
        if is_ping {
            return Fate::Pass(frame.to_vec());
        }
        let fate = self.icmp(frame, seen);
        if fate == Fate::Drop(Drop::Icmp) { Fate::Pass(frame.to_vec()) } else { fate }
    }

    /// From a client, or an error about an answer to it.
    pub(super) fn outward(
        &mut self,
        frame: &[u8],
        seen: &Seen,
        at: usize,
        shape: Shape,
        within: usize,
    ) -> Fate {
        let flow = (seen.client, seen.client_port, seen.vip, seen.vip_port, seen.protocol);
        let service = &self.path.services[at];
        let lot = self.pooled.lots.get(&flow).copied();
        let is_there =
            |lot: &Lot| service.backends.get(lot.place).is_some_and(|b| b.address == lot.server);
        let is_over = |lot: &Lot| lot.is_over[2] || (lot.is_over[0] && lot.is_over[1]);
        let kept = lot.filter(|lot| !(seen.opens && is_over(lot)) && is_there(lot));
        let begins = shape == Shape::Whole && (seen.protocol == UDP || seen.opens || lot.is_some());
        if kept.is_none() && !begins {
            return Fate::Pass(frame.to_vec());
        }
        let Some(place) = kept.map(|lot| lot.place).or_else(|| self.current(at, seen)) else {
            return self.lose(at, None, Drop::NoBackend);
        };
        let (hop, mac) = match self.passage(frame, seen, at, place, shape) {
            Ok(passage) => passage,
            Err(fate) => return fate,
        };
        let to = to_backend(service, seen, place);
        let server = service.backends[place].address;
        let port = lot.map_or_else(|| self.port_taken(seen, at), |lot| lot.port);
        let is_over = kept.map_or([false; 3], |lot| lot.is_over);
        let lot = Lot { port, place, server, answers: to, is_over };
        if shape != Shape::Quoted {
            self.pooled.keep(flow, lot);
        }
        self.note(frame, seen, flow, shape, false);
        // Of what begins, only that is remembered.
        if kept.is_none()
            && let Some(lot) = self.pooled.lots.get_mut(&flow)
        {
            lot.is_over = [false; 3];
        }
        let mut sent = frame.to_vec();
        translate(&mut sent, seen, port, to, shape, within);
        if seen.vip.is_ipv4() {
            put(&mut sent, 22, &[seen.ttl - 1]);
            exchange(&mut sent, 24, &[seen.ttl, 0], &[seen.ttl - 1, 0]);
        } else {
            sent[21] -= 1;
        }
        gone(sent, &hop, mac)
    }

    /// The port that the programs gave, if it may be: else none that anybody has.
    fn port_taken(&self, seen: &Seen, at: usize) -> SocketAddr {
        let became = &self.pooled.became;
        let ports = 14 + seen.header;
        let nothing = SocketAddr::new(seen.vip, 0);
        if became.len() < ports + 4 {
            return nothing;
        }
        let (source, _) = addresses(became, 14, seen.vip.is_ipv4());
        let port = SocketAddr::new(source, half(became, ports));
        let is_used = self.pooled.flow_of(port, seen.protocol).is_some();
        let is_service = self.path.services.iter().any(|s| {
            let ports = s.ports.0..=s.ports.1;
            s.address == source
                && number(s.protocol) == seen.protocol
                && ports.contains(&port.port())
        });
        let is_of_pool = self.path.services[at].pool.contains(&source);
        let may_be = is_of_pool && (1024..32_768).contains(&port.port()) && !is_used && !is_service;
        if may_be { port } else { nothing }
    }

    /// From a backend, or an error about a packet to it.
    pub(super) fn inward(
        &mut self,
        frame: &[u8],
        seen: &Seen,
        shape: Shape,
        within: usize,
    ) -> Fate {
        let pass = Fate::Pass(frame.to_vec());
        let port = SocketAddr::new(seen.vip, seen.vip_port);
        let Some(flow) = self.pooled.flow_of(port, seen.protocol) else { return pass };
        let server = SocketAddr::new(seen.client, seen.client_port);
        if self.pooled.lots[&flow].answers != server || !self.is_pool(seen.vip) {
            return pass;
        }
        // Whether the programs look at what is from a backend that is gone depends on the others.
        let is_there =
            |s: &buoy_model::FastService| s.backends.iter().any(|b| b.address.ip() == seen.client);
        self.is_unsure |= !self.path.services.iter().any(is_there);
        if self.is_unsure && self.pooled.became == frame {
            return pass;
        }
        self.note(frame, seen, flow, shape, true);
        self.back(frame, seen, flow, shape, within)
    }

    fn back(&self, frame: &[u8], seen: &Seen, flow: Flow, shape: Shape, within: usize) -> Fate {
        let (client, client_port, vip, vip_port, _) = flow;
        let from = SocketAddr::new(vip, vip_port);
        let to = SocketAddr::new(client, client_port);
        let mut sent = frame.to_vec();
        translate(&mut sent, seen, from, to, shape, within);
        Fate::Pass(sent)
    }

    /// What a packet says of its flow, and where pieces that come later go.
    fn note(&mut self, frame: &[u8], seen: &Seen, flow: Flow, shape: Shape, is_inward: bool) {
        if shape != Shape::Whole {
            return;
        }
        if let Piece::First(id) = seen.piece {
            let datagram = (seen.client, seen.vip, id, seen.protocol);
            self.datagrams.insert(datagram, Follows::Pooled(flow, is_inward));
        }
        if seen.protocol == TCP
            && let Some(lot) = self.pooled.lots.get_mut(&flow)
        {
            let flags = frame[14 + seen.header + 13];
            lot.is_over[usize::from(is_inward)] |= flags & 1 != 0;
            lot.is_over[2] |= flags & 4 != 0;
        }
    }

    pub(super) fn follow(
        &mut self,
        frame: &[u8],
        seen: &Seen,
        flow: Flow,
        is_inward: bool,
    ) -> Fate {
        let pass = Fate::Pass(frame.to_vec());
        let Some(lot) = self.pooled.lots.get(&flow).copied() else { return pass };
        if is_inward {
            let is_its = lot.answers.ip() == seen.client;
            return if is_its { self.back(frame, seen, flow, Shape::Later, 0) } else { pass };
        }
        let (_, client_port, _, vip_port, _) = flow;
        let seen = Seen { client_port, vip_port, opens: false, ..seen.clone() };
        match self.find(&seen) {
            Some(at) if !self.path.services[at].pool.is_empty() => {
                self.outward(frame, &seen, at, Shape::Later, 0)
            }
            Some(_) | None => pass,
        }
    }

    /// The backend that takes flows that begin.
    fn current(&self, at: usize, seen: &Seen) -> Option<usize> {
        let service = &self.path.services[at];
        let current = usize::from(self.slot(at, seen)?.current);
        (current < service.backends.len()).then_some(current)
    }
}

/// Both ends become others: of a packet that an error quotes, the other way round.
fn translate(
    frame: &mut [u8],
    seen: &Seen,
    from: SocketAddr,
    to: SocketAddr,
    shape: Shape,
    within: usize,
) {
    let v4 = from.is_ipv4();
    let ends = [octets(from.ip()), octets(to.ip())].concat();
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let old = put(frame, if v4 { 26 } else { 22 }, &ends);
    if v4 {
        exchange(frame, 24, &old, &ends);
    }
    let at = 14 + seen.header;
    match shape {
        Shape::Later => {}
        Shape::Whole => {
            let old_ports = put(frame, at, &ports);
            let check = at + if seen.protocol == TCP { 16 } else { 6 };
            if seen.protocol == TCP || half(frame, check) != 0 {
                let value =
                    exchange(frame, check, &[old, old_ports].concat(), &[ends, ports].concat());
                if seen.protocol == UDP && value == 0 {
                    put(frame, check, &[0xff, 0xff]);
                }
            }
        }
        Shape::Quoted => {
            let turned = [octets(to.ip()), octets(from.ip())].concat();
            let turned_ports = [to.port().to_be_bytes(), from.port().to_be_bytes()].concat();
            let inner = put(frame, within + if v4 { 12 } else { 8 }, &turned);
            let header = if v4 { usize::from(frame[within] & 15) * 4 } else { 40 };
            let old_ports = put(frame, within + header, &turned_ports);
            if v4 {
                exchange(frame, within + 10, &inner, &turned);
                exchange(frame, at + 2, &old_ports, &turned_ports);
            } else {
                let old = [old, inner, old_ports].concat();
                exchange(frame, at + 2, &old, &[ends, turned, turned_ports].concat());
            }
        }
    }
}

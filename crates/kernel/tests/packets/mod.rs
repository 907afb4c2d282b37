//! Packets in words: what they are made of, and the frames that this gives, with every checksum computed anew.
#![allow(dead_code)] // Each test takes what it needs.

use buoy_model::Mac;
use std::net::{IpAddr, SocketAddr};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// Who sends to us, and our interface.
pub(crate) const ROUTER: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
pub(crate) const NEAR: Mac = Mac([2, 0, 0, 0, 0, 0x01]);

/// What is behind the IP header.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Tcp {
        flags: u8,
    },
    Udp,
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    /// Nothing but the payload, as this protocol.
    Raw(u8),
}

#[derive(Clone, Debug)]
pub(crate) struct Packet {
    destination: Mac,
    source: Mac,
    from: SocketAddr,
    to: SocketAddr,
    body: Body,
    class: u8,
    ttl: u8,
    id: u32,
    more: bool,
    offset: u16,
    dont_fragment: bool,
    label: u32,
    /// IPv4 options, or IPv6 extension headers with the first one's number.
    options: Vec<u8>,
    /// Of a VLAN tag: priority and number.
    tag: Option<u16>,
    extension: Option<u8>,
    payload: Vec<u8>,
    is_unsummed: bool,
    /// The body as bytes, where it is not to be computed.
    body_bytes: Option<Vec<u8>>,
    pokes: Vec<(usize, Vec<u8>)>,
    length: Option<usize>,
    padding: usize,
}

pub(crate) fn tcp(from: &str, to: &str) -> Packet {
    Packet::new(from, to, Body::Tcp { flags: ACK })
}

pub(crate) fn udp(from: &str, to: &str) -> Packet {
    Packet::new(from, to, Body::Udp)
}

/// A message between two addresses, without ports.
pub(crate) fn icmp(from: &str, to: &str, kind: u8, code: u8) -> Packet {
    Packet::between(from, to, Body::Icmp { kind, code, rest: [0; 4] })
}

/// Any protocol.
pub(crate) fn raw(from: &str, to: &str, protocol: u8) -> Packet {
    Packet::between(from, to, Body::Raw(protocol))
}

impl Packet {
    fn new(from: &str, to: &str, body: Body) -> Self {
        Self::of(from.parse().unwrap(), to.parse().unwrap(), body)
    }

    fn between(from: &str, to: &str, body: Body) -> Self {
        let end = |text: &str| SocketAddr::new(text.parse().unwrap(), 0);
        Self::of(end(from), end(to), body)
    }

    pub(crate) fn of(from: SocketAddr, to: SocketAddr, body: Body) -> Self {
        Self {
            destination: NEAR,
            source: ROUTER,
            from,
            to,
            body,
            class: 0,
            ttl: 61,
            id: 0x4242,
            more: false,
            offset: 0,
            dont_fragment: false,
            label: 0,
            options: Vec::new(),
            tag: None,
            extension: None,
            payload: Vec::new(),
            is_unsummed: false,
            body_bytes: None,
            pokes: Vec::new(),
            length: None,
            padding: 0,
        }
    }

    pub(crate) fn syn(self) -> Self {
        self.flags(SYN)
    }

    /// What opens a flow: TCP with a SYN, and UDP with anything.
    pub(crate) fn syn_of_tcp(self) -> Self {
        if matches!(self.body, Body::Tcp { .. }) { self.syn() } else { self }
    }

    pub(crate) fn flags(mut self, flags: u8) -> Self {
        self.body = Body::Tcp { flags };
        self
    }

    pub(crate) fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// So many bytes of payload.
    pub(crate) fn long(self, length: usize) -> Self {
        let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        self.payload(&bytes)
    }

    pub(crate) fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub(crate) fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    pub(crate) fn label(mut self, label: u32) -> Self {
        self.label = label;
        self
    }

    pub(crate) fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }

    pub(crate) fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// The rest of an ICMP header.
    pub(crate) fn rest(mut self, rest: [u8; 4]) -> Self {
        if let Body::Icmp { rest: old, .. } = &mut self.body {
            *old = rest;
        }
        self
    }

    /// IPv4 options, padded to whole words.
    pub(crate) fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().next_multiple_of(4), 0);
        self
    }

    /// An IPv6 extension header of that number and so many times eight bytes; the last one given is the first.
    pub(crate) fn extension(mut self, number: u8, length: u8) -> Self {
        let mut header = vec![self.extension.unwrap_or(self.protocol()), length - 1, 1, 4];
        header.resize(usize::from(length) * 8, 0);
        header.append(&mut self.options);
        self.options = header;
        self.extension = Some(number);
        self
    }

    /// With a VLAN tag of this number, of this priority.
    pub(crate) fn vlan(mut self, id: u16, priority: u16) -> Self {
        self.tag = Some(priority << 13 | id);
        self
    }

    /// Without its VLAN tag.
    pub(crate) fn untagged(mut self) -> Self {
        self.tag = None;
        self
    }

    /// UDP without a checksum.
    pub(crate) fn unsummed(mut self) -> Self {
        self.is_unsummed = true;
        self
    }

    /// The pieces that this packet makes, of so many bytes each but for the last.
    pub(crate) fn pieces(&self, size: usize) -> Vec<Self> {
        assert_eq!(size % 8, 0);
        let bytes = self.body_bytes();
        let count = bytes.chunks(size).count();
        let piece = |(at, bytes): (usize, &[u8])| {
            let mut piece = self.clone();
            piece.body_bytes = Some(bytes.to_vec());
            piece.offset = (at * size / 8) as u16;
            piece.more = at + 1 < count;
            if self.from.is_ipv6() {
                let flags = piece.offset << 3 | u16::from(piece.more);
                let mut header = vec![piece.extension.unwrap_or(piece.protocol()), 0];
                header.extend(flags.to_be_bytes());
                header.extend(self.id.to_be_bytes());
                header.append(&mut piece.options);
                piece.options = header;
                piece.extension = Some(44);
            }
            piece
        };
        bytes.chunks(size).enumerate().map(piece).collect()
    }

    /// Other bytes at this place of the frame, whatever they were.
    pub(crate) fn poke(mut self, at: usize, bytes: &[u8]) -> Self {
        self.pokes.push((at, bytes.to_vec()));
        self
    }

    /// Only the first bytes of the frame.
    pub(crate) fn cut(mut self, length: usize) -> Self {
        self.length = Some(length);
        self
    }

    /// Bytes behind the packet, as short Ethernet frames have them.
    pub(crate) fn padding(mut self, padding: usize) -> Self {
        self.padding = padding;
        self
    }

    // What becomes of it.

    pub(crate) fn macs(mut self, destination: Mac, source: Mac) -> Self {
        (self.destination, self.source) = (destination, source);
        self
    }

    pub(crate) fn to(mut self, to: &str) -> Self {
        self.to = to.parse().unwrap();
        self
    }

    pub(crate) fn from(mut self, from: &str) -> Self {
        self.from = from.parse().unwrap();
        self
    }

    /// One station further on.
    pub(crate) fn hop(mut self) -> Self {
        self.ttl -= 1;
        self
    }

    /// In an IP packet between these.
    pub(crate) fn within(&self, from: &str, to: &str) -> Self {
        let protocol = if self.from.is_ipv4() { 4 } else { 41 };
        let mut outer = raw(from, to, protocol).payload(&self.packet());
        (outer.padding, outer.tag) = (self.padding, self.tag);
        outer.macs(self.destination, self.source).class(self.class).ttl(64).id(0).dont_fragment()
    }

    /// In a UDP packet between these, without a checksum (GUE, variant 1).
    pub(crate) fn in_udp(&self, from: &str, to: &str) -> Self {
        let mut outer = udp(from, to).unsummed().payload(&self.packet());
        (outer.padding, outer.tag) = (self.padding, self.tag);
        outer.macs(self.destination, self.source).class(self.class).ttl(64).id(0).dont_fragment()
    }

    /// Without Ethernet's header and padding.
    fn packet(&self) -> Vec<u8> {
        let frame = self.clone().untagged().frame();
        frame[14..frame.len() - self.padding].to_vec()
    }

    fn protocol(&self) -> u8 {
        match self.body {
            Body::Tcp { .. } => TCP,
            Body::Udp => UDP,
            Body::Icmp { .. } if self.from.is_ipv4() => ICMP,
            Body::Icmp { .. } => ICMPV6,
            Body::Raw(protocol) => protocol,
        }
    }

    fn body_bytes(&self) -> Vec<u8> {
        if let Some(bytes) = &self.body_bytes {
            return bytes.clone();
        }
        let ports = [self.from.port().to_be_bytes(), self.to.port().to_be_bytes()].concat();
        let (mut bytes, check) = match self.body {
            Body::Tcp { flags } => {
                let rest = [0, 0, 0, 7, 0, 0, 0, 9, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
                ([ports, rest.to_vec()].concat(), 16)
            }
            Body::Udp => {
                let length = (8 + self.payload.len()) as u16;
                ([ports, length.to_be_bytes().to_vec(), vec![0, 0]].concat(), 6)
            }
            Body::Icmp { kind, code, rest } => {
                ([vec![kind, code, 0, 0], rest.to_vec()].concat(), 2)
            }
            Body::Raw(_) => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        let mut sum = internet_sum(&bytes);
        if !matches!(self.body, Body::Icmp { .. } if self.from.is_ipv4()) {
            sum += u64::from(self.protocol()) + bytes.len() as u64;
            sum += internet_sum(&octets(self.from.ip())) + internet_sum(&octets(self.to.ip()));
        }
        let check_value = match (folded(sum), &self.body) {
            (0, Body::Udp) => 0xffff,
            (sum, _) => sum,
        };
        if !self.is_unsummed {
            bytes[check..check + 2].copy_from_slice(&check_value.to_be_bytes());
        }
        bytes
    }

    /// Its bytes.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let body = self.body_bytes();
        let mut frame = [self.destination.0, self.source.0].concat();
        let length = self.options.len() + body.len();
        if self.from.is_ipv4() {
            frame.extend([8, 0]);
            let mut header = self.header_ipv4(length);
            let check = folded(internet_sum(&header));
            header[10..12].copy_from_slice(&check.to_be_bytes());
            frame.extend(header);
        } else {
            frame.extend([0x86, 0xdd]);
            let first = 6 << 28 | u32::from(self.class) << 20 | self.label;
            frame.extend(first.to_be_bytes());
            frame.extend((length as u16).to_be_bytes());
            frame.extend([self.extension.unwrap_or(self.protocol()), self.ttl]);
            frame.extend(octets(self.from.ip()));
            frame.extend(octets(self.to.ip()));
            frame.extend(&self.options);
        }
        frame.extend(body);
        frame.resize(frame.len() + self.padding, 0);
        if let Some(tag) = self.tag {
            frame.splice(12..12, [[0x81, 0], tag.to_be_bytes()].concat());
        }
        for (at, bytes) in &self.pokes {
            frame[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        frame.truncate(self.length.unwrap_or(frame.len()));
        frame
    }

    fn header_ipv4(&self, length: usize) -> Vec<u8> {
        let words = 5 + self.options.len() / 4;
        let fragment =
            u16::from(self.dont_fragment) << 14 | u16::from(self.more) << 13 | self.offset;
        let mut header = vec![0x40 | words as u8, self.class];
        header.extend((20 + length as u16).to_be_bytes());
        header.extend((self.id as u16).to_be_bytes());
        header.extend(fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol(), 0, 0]);
        header.extend(octets(self.from.ip()));
        header.extend(octets(self.to.ip()));
        header.extend(&self.options);
        header
    }
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The sum of words in the order of the network, not folded yet (RFC 1071).
pub(crate) fn internet_sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

/// The checksum that a sum gives.
pub(crate) fn folded(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

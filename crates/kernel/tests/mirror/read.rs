//! What a frame says, read once more and simply.

use super::super::packets::TCP;
use super::{Piece, Seen};
use buoy_xdp::forward::Drop;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn addresses(frame: &[u8], at: usize, v4: bool) -> (IpAddr, IpAddr) {
    let four = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
    let six = |at: usize| Ipv6Addr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    if v4 {
        (four(at + 12).into(), four(at + 16).into())
    } else {
        (six(at + 8).into(), six(at + 24).into())
    }
}

/// Source and destination of an IP packet that is at least a header long.
pub(super) fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match (half(frame, 12), frame.len()) {
        (0x0800, 34..) => Some(addresses(frame, 14, true)),
        (0x86dd, 54..) => Some(addresses(frame, 14, false)),
        _ => None,
    }
}

/// `None`: nothing that is looked into.
pub(super) fn read(frame: &[u8], client: IpAddr, vip: IpAddr) -> Result<Option<Seen>, Drop> {
    let ip = &frame[14..];
    let mut seen = Seen {
        client,
        vip,
        protocol: 0,
        header: 40,
        length: 0,
        class: 0,
        ttl: 0,
        piece: Piece::Whole,
        client_port: 0,
        vip_port: 0,
        opens: false,
    };
    if client.is_ipv4() {
        seen.header = usize::from(ip[0] & 15) * 4;
        seen.length = half(ip, 2).into();
        (seen.class, seen.ttl, seen.protocol) = (ip[1], ip[8], ip[9]);
        if ip[0] >> 4 != 4 || seen.header < 20 || seen.length < seen.header {
            return Err(Drop::IpHeader);
        }
        let (flags, id) = (half(ip, 6), u32::from(half(ip, 4)));
        seen.piece = piece(flags & 0x1fff != 0, flags & 0x2000 != 0, id);
    } else {
        seen.length = usize::from(half(ip, 4)) + 40;
        (seen.class, seen.ttl, seen.protocol) = (ip[0] << 4 | ip[1] >> 4, ip[7], ip[6]);
        if ip[0] >> 4 != 6 {
            return Err(Drop::IpHeader);
        }
    }
    if seen.length > ip.len() {
        return Err(Drop::Truncated);
    }
    if client.is_ipv6() {
        step(ip, &mut seen)?;
    }
    Ok(Some(seen))
}

pub(super) fn piece(is_later: bool, has_more: bool, id: u32) -> Piece {
    match (is_later, has_more) {
        (true, _) => Piece::Later(id),
        (false, true) => Piece::First(id),
        (false, false) => Piece::Whole,
    }
}

/// At most three extension headers.
pub(super) fn step(ip: &[u8], seen: &mut Seen) -> Result<(), Drop> {
    for _ in 0..=3 {
        if ![0, 44, 60].contains(&seen.protocol) {
            return if seen.header > seen.length { Err(Drop::IpHeader) } else { Ok(()) };
        }
        let at = seen.header;
        if at + 8 > ip.len() || at + 8 > seen.length {
            return Err(Drop::IpHeader);
        }
        let is_fragment = seen.protocol == 44;
        seen.protocol = ip[at];
        if !is_fragment {
            seen.header += (usize::from(ip[at + 1]) + 1) * 8;
            continue;
        }
        seen.header += 8;
        let flags = half(ip, at + 2);
        let id = u32::from_be_bytes(ip[at + 4..at + 8].try_into().unwrap());
        seen.piece = piece(flags & 0xfff8 != 0, flags & 1 != 0, id);
        if matches!(seen.piece, Piece::Later(_)) {
            return Ok(());
        }
    }
    Err(Drop::IpHeader)
}

pub(super) fn read_ports(frame: &[u8], seen: &mut Seen) -> Result<(), Drop> {
    let at = 14 + seen.header;
    let left = seen.length - seen.header;
    let is_whole = seen.piece == Piece::Whole;
    if seen.protocol == TCP {
        if frame.len() < at + 20 || left < 20 {
            return Err(Drop::TcpHeader);
        }
        let header = usize::from(frame[at + 12] >> 4) * 4;
        if header < 20 || (is_whole && header > left) {
            return Err(Drop::TcpHeader);
        }
        seen.opens = frame[at + 13] & 0x12 == 0x02;
    } else {
        if frame.len() < at + 8 || left < 8 {
            return Err(Drop::UdpHeader);
        }
        let length = usize::from(half(frame, at + 4));
        if length < 8 || (is_whole && length > left) {
            return Err(Drop::UdpHeader);
        }
    }
    (seen.client_port, seen.vip_port) = (half(frame, at), half(frame, at + 2));
    Ok(())
}

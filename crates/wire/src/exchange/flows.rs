//! The bodies of topic "flows": what hosts tell each other about flows that no hash explains.
//!
//! All numbers are big-endian. The first byte says what follows until the end:
//!
//! ```text
//!  0  remembered flows:  bucket 2, mark 4, identity 2, idle 2 each
//!  1  translations:      kind 1 (1: IPv6, 2: UDP), signs 1, idle 2, and then client, vip, backend and whom the
//!                        backend sees, each as address and port 2
//!  2  histories:         service 8, history 8 each
//!  3  question:          history 8, first piece 2
//!  4  piece:             history 8, index 2, count 2, and its bytes
//! ```
//!
//! A history is places 2, each as version 1 (4 or 6), address and port 2; size 4; slots 4, each its place 2; slots
//! in a change 4, each as slot 2, previous 2, previous for 2, remembered for 2.

use super::BODY_MAX;
use crate::bytes::Reader;
use alloc::vec::Vec;
use buoy_model::limits::{FAST_PLACES_MAX, FAST_SLOTS, HISTORY_PIECE, HISTORY_PIECES_MAX};
use buoy_model::{
    FlowNews, FlowSigns, History, HistoryPiece, HistorySlot, Protocol, Remembered, Translation,
};
use core::net::{IpAddr, SocketAddr};

/// Remembered flows in one body.
pub const REMEMBERED_MAX: usize = (BODY_MAX - 1) / 10;
/// Translations in one body, whichever they are.
pub const TRANSLATIONS_MAX: usize = (BODY_MAX - 1) / (4 + 4 * 18);
/// Translations of IPv4 in one body.
pub const TRANSLATIONS_V4_MAX: usize = (BODY_MAX - 1) / (4 + 4 * 6);
/// Services in one body.
pub const HISTORIES_MAX: usize = (BODY_MAX - 1) / 16;

const _: () = assert!(1 + 12 + HISTORY_PIECE <= BODY_MAX, "a piece fits");

const KIND_V6: u8 = 1;
const KIND_UDP: u8 = 2;

/// The body that says so.
pub fn emit(news: &FlowNews) -> Vec<u8> {
    let mut out = Vec::new();
    match news {
        FlowNews::Remembered(flows) => {
            out.push(0);
            flows.iter().for_each(|flow| emit_remembered(flow, &mut out));
        }
        FlowNews::Translations(flows) => {
            out.push(1);
            flows.iter().for_each(|flow| emit_translation(flow, &mut out));
        }
        FlowNews::Histories(services) => {
            out.push(2);
            for (service, history) in services {
                out.extend(service.to_be_bytes());
                out.extend(history.to_be_bytes());
            }
        }
        FlowNews::Ask(history, first) => {
            out.push(3);
            out.extend(history.to_be_bytes());
            out.extend(first.to_be_bytes());
        }
        FlowNews::Piece(piece) => {
            out.push(4);
            out.extend(piece.history.to_be_bytes());
            out.extend(piece.index.to_be_bytes());
            out.extend(piece.count.to_be_bytes());
            out.extend(&piece.bytes);
        }
    }
    debug_assert!(out.len() <= BODY_MAX, "who makes lists keeps to the limits above");
    out
}

/// What a body says; `None` where it says nothing that `emit` would.
pub fn parse(body: &[u8]) -> Option<FlowNews> {
    if BODY_MAX < body.len() {
        return None;
    }
    let mut reader = Reader::new(body);
    let news = match reader.u8()? {
        0 => FlowNews::Remembered(all(reader, parse_remembered)?),
        1 => FlowNews::Translations(all(reader, parse_translation)?),
        2 => FlowNews::Histories(all(reader, |reader| Some((reader.u64()?, reader.u64()?)))?),
        3 => {
            let asked = FlowNews::Ask(reader.u64()?, reader.u16()?);
            reader.end()?;
            asked
        }
        4 => {
            let (history, index, count) = (reader.u64()?, reader.u16()?, reader.u16()?);
            let bytes = reader.rest().to_vec();
            let is_one = index < count && count <= HISTORY_PIECES_MAX;
            let is_one = is_one && bytes.len() <= HISTORY_PIECE;
            is_one.then_some(FlowNews::Piece(HistoryPiece { history, index, count, bytes }))?
        }
        _ => return None,
    };
    Some(news)
}

/// Reads until nothing is left.
fn all<'a, T>(
    mut reader: Reader<'a>,
    one: impl Fn(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut found = Vec::new();
    while reader.end().is_none() {
        found.push(one(&mut reader)?);
    }
    Some(found)
}

fn emit_remembered(flow: &Remembered, out: &mut Vec<u8>) {
    out.extend(flow.bucket.to_be_bytes());
    out.extend(flow.mark.to_be_bytes());
    out.extend(flow.identity.to_be_bytes());
    out.extend(flow.idle.to_be_bytes());
}

fn parse_remembered(reader: &mut Reader<'_>) -> Option<Remembered> {
    Some(Remembered {
        bucket: reader.u16()?,
        mark: reader.u32()?,
        identity: reader.u16()?,
        idle: reader.u16()?,
    })
}

fn emit_translation(flow: &Translation, out: &mut Vec<u8>) {
    debug_assert!(flow.is_of_one_family());
    let udp = match flow.protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => KIND_UDP,
    };
    out.push(udp | if flow.client.is_ipv6() { KIND_V6 } else { 0 });
    out.push(flow.signs.bits());
    out.extend(flow.idle.to_be_bytes());
    for end in [flow.client, flow.vip, flow.backend, flow.seen_as] {
        emit_end(end, out);
    }
}

fn parse_translation(reader: &mut Reader<'_>) -> Option<Translation> {
    let (kind, signs, idle) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let known = FlowSigns::from_bits(signs);
    if kind & !(KIND_V6 | KIND_UDP) != 0 || known.bits() != signs {
        return None;
    }
    let v6 = kind & KIND_V6 != 0;
    Some(Translation {
        protocol: if kind & KIND_UDP == 0 { Protocol::Tcp } else { Protocol::Udp },
        client: parse_end(reader, v6)?,
        vip: parse_end(reader, v6)?,
        backend: parse_end(reader, v6)?,
        seen_as: parse_end(reader, v6)?,
        signs: known,
        idle,
    })
}

fn emit_end(end: SocketAddr, out: &mut Vec<u8>) {
    match end.ip() {
        IpAddr::V4(v4) => out.extend(v4.octets()),
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
    out.extend(end.port().to_be_bytes());
}

fn parse_end(reader: &mut Reader<'_>, v6: bool) -> Option<SocketAddr> {
    let ip = match v6 {
        false => IpAddr::from(reader.array::<4>()?),
        true => IpAddr::from(reader.array::<16>()?),
    };
    Some(SocketAddr::new(ip, reader.u16()?))
}

/// A history as bytes, which go in pieces.
pub fn emit_history(history: &History) -> Vec<u8> {
    let mut out = Vec::new();
    // Lengths are bounded by `core::history`, far below these numbers.
    let length = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    out.extend(u16::try_from(history.backends.len()).unwrap_or(u16::MAX).to_be_bytes());
    for backend in &history.backends {
        out.push(if backend.is_ipv4() { 4 } else { 6 });
        emit_end(*backend, &mut out);
    }
    out.extend(history.size.to_be_bytes());
    out.extend(length(history.current.len()).to_be_bytes());
    history.current.iter().for_each(|place| out.extend(place.to_be_bytes()));
    out.extend(length(history.moving.len()).to_be_bytes());
    for slot in &history.moving {
        for word in [slot.slot, slot.previous, slot.previous_for, slot.remembered_for] {
            out.extend(word.to_be_bytes());
        }
    }
    out
}

/// What `emit_history` gave; whether it makes sense is for `core::history` to say.
pub fn parse_history(bytes: &[u8]) -> Option<History> {
    let mut reader = Reader::new(bytes);
    let count = usize::from(reader.u16()?);
    if count > FAST_PLACES_MAX {
        return None;
    }
    let mut backends = Vec::new();
    for _ in 0..count {
        let v6 = match reader.u8()? {
            4 => false,
            6 => true,
            _ => return None,
        };
        backends.push(parse_end(&mut reader, v6)?);
    }
    let size = reader.u32()?;
    let slots = slots(reader.u32()?)?;
    let current = reader.slice(2 * slots)?.as_chunks().0;
    let current = current.iter().map(|word| u16::from_be_bytes(*word)).collect();
    let count = self::slots(reader.u32()?)?;
    let mut moving = Vec::new();
    for _ in 0..count {
        moving.push(HistorySlot {
            slot: reader.u16()?,
            previous: reader.u16()?,
            previous_for: reader.u16()?,
            remembered_for: reader.u16()?,
        });
    }
    reader.end()?;
    Some(History { backends, size, current, moving })
}

/// Not more than the largest table has, so that nothing large is made for a lie.
fn slots(count: u32) -> Option<usize> {
    usize::try_from(count).ok().filter(|&count| count <= FAST_SLOTS[2])
}

/// The pieces of a history that were asked for.
pub fn pieces(history: u64, bytes: &[u8], first: u16, most: u16) -> Vec<HistoryPiece> {
    let count = u16::try_from(bytes.len().div_ceil(HISTORY_PIECE)).unwrap_or(u16::MAX);
    let all = (0..count).zip(bytes.chunks(HISTORY_PIECE));
    let asked = all.skip(first.into()).take(most.into());
    asked
        .map(|(index, bytes)| HistoryPiece { history, index, count, bytes: bytes.to_vec() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn translation(v6: bool) -> Translation {
        let at = |v4: &str, six: &str| end(if v6 { six } else { v4 });
        Translation {
            protocol: if v6 { Protocol::Udp } else { Protocol::Tcp },
            client: at("10.0.0.1:4", "[fd00::1]:4"),
            vip: at("10.0.0.2:80", "[fd00::2]:80"),
            backend: at("10.0.0.3:8080", "[fd00::3]:8080"),
            seen_as: at("10.0.0.4:2000", "[fd00::4]:2000"),
            signs: FlowSigns::ANSWERED.and(FlowSigns::RESET),
            idle: 77,
        }
    }

    #[test]
    fn every_body_is_read_as_it_was_written_and_fits() {
        let flow = Remembered { bucket: 9, mark: 0xdead_beef, identity: 0x1234, idle: 300 };
        let piece = HistoryPiece { history: 5, index: 1, count: 2, bytes: vec![7; HISTORY_PIECE] };
        let all = [
            FlowNews::Remembered(vec![flow; REMEMBERED_MAX]),
            FlowNews::Translations(vec![translation(false); TRANSLATIONS_V4_MAX]),
            FlowNews::Translations(vec![translation(true); TRANSLATIONS_MAX]),
            FlowNews::Histories(vec![(1, u64::MAX); HISTORIES_MAX]),
            FlowNews::Ask(u64::MAX, 7),
            FlowNews::Piece(piece),
        ];
        for news in all {
            let body = emit(&news);
            assert!(body.len() <= BODY_MAX, "{}", body.len());
            assert_eq!(parse(&body).as_ref(), Some(&news));
            assert_ne!(parse(&body[..body.len() - 1]).as_ref(), Some(&news));
        }
        let flows_too_many = [0; 1 + 10 * (REMEMBERED_MAX + 1)];
        assert_eq!(parse(&flows_too_many), None, "no datagram holds it");
        for wrong in [&[][..], &[5], &[1, 4], &[1, 0, 32], &[3, 0], &[0, 1]] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_history_goes_in_pieces_and_comes_back_whole() {
        let slot = HistorySlot { slot: 3, previous: 1, previous_for: 300, remembered_for: 0 };
        let history = History {
            backends: vec![end("10.0.0.1:80"), end("[fd00::1]:80")],
            size: 4096,
            current: (0..4096).map(|n| n % 2).collect(),
            moving: vec![slot; 9],
        };
        let bytes = emit_history(&history);
        let all = pieces(7, &bytes, 0, u16::MAX);
        assert_eq!(all.len(), 7);
        let some = pieces(7, &bytes, 5, 1);
        assert_eq!(some[..], all[5..6]);
        assert_eq!(pieces(7, &bytes, 7, 9), []);
        let whole: Vec<u8> = all.into_iter().flat_map(|piece| piece.bytes).collect();
        assert_eq!(parse_history(&whole), Some(history));
        assert_eq!(parse_history(&whole[..whole.len() - 1]), None);
        let too_many = [&[0, 0, 0, 0, 0, 0][..], &0x1_0001_u32.to_be_bytes()].concat();
        assert_eq!(parse_history(&too_many), None);
    }
}

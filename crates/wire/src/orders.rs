//! Orders of backends as they travel in the exchange: one after the other, as many as a body holds.
//!
//! All numbers are big-endian.
//!
//! ```text
//! 4 or 6   address      protocol  ports        backend    duty
//! +------+-------------+--------+------+------+---+-----+----+----------+
//! |  u8  | 4, 16 bytes | u8     | u16  | u16  |u8 | ... | u8 | u64      |
//! +------+-------------+--------+------+------+---+-----+----+----------+
//! weight         version           reason
//! +----+--------+--------+--------+-----+-------+
//! | u8 | u16    | u64    | u32    | u16 | ...   |
//! +----+--------+--------+--------+-----+-------+
//!
//! protocol: 6 TCP, 17 UDP
//! duty: 0 configured, 1 ready, 2 drain (the number is its end in milliseconds since 1970; 0: none), 3 maint
//! weight: 0 configured, 1 fixed, 2 percent
//! version: microseconds since 1970, node
//! ```

use crate::bytes::Reader;
use crate::exchange::BODY_MAX;
use alloc::string::String;
use alloc::vec::Vec;
use buoy_model::limits::{BACKEND_WEIGHT_MAX, CHECK_SHARE_MAX, NAME_MAX, ORDER_REASON_MAX};
use buoy_model::{
    BackendId, BackendOrder, Duty, NodeId, OrderVersion, OrderedWeight, Ports, Protocol,
};
use core::net::IpAddr;

/// Bytes of an order without its name and reason, with an address of IPv6.
const FIXED_MAX: usize = 1 + 16 + 1 + 4 + 1 + 9 + 3 + 12 + 2;
const _: () = assert!(FIXED_MAX + NAME_MAX + ORDER_REASON_MAX <= BODY_MAX, "any order fits");

/// The orders as bodies, none longer than `BODY_MAX`.
pub fn emit<'o>(orders: impl Iterator<Item = &'o BackendOrder>) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut body = Vec::new();
    let mut one = Vec::new();
    for order in orders {
        one.clear();
        emit_one(order, &mut one);
        if body.len() + one.len() > BODY_MAX {
            bodies.push(core::mem::take(&mut body));
        }
        body.extend_from_slice(&one);
    }
    if !body.is_empty() {
        bodies.push(body);
    }
    bodies
}

fn emit_one(order: &BackendOrder, out: &mut Vec<u8>) {
    let BackendId { address, protocol, ports, name } = &order.backend;
    match address {
        IpAddr::V4(v4) => {
            out.push(4);
            out.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            out.push(6);
            out.extend_from_slice(&v6.octets());
        }
    }
    out.push(match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    });
    out.extend_from_slice(&ports.first().to_be_bytes());
    out.extend_from_slice(&ports.last().to_be_bytes());
    let name = cut(name, NAME_MAX);
    // At most NAME_MAX, which fits.
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
    let (duty, until) = match order.duty {
        Duty::Configured => (0, 0),
        Duty::Ready => (1, 0),
        // The first millisecond of 1970 is over.
        Duty::Drain { until } => (2, until.map_or(0, |until| until.max(1))),
        Duty::Maint => (3, 0),
    };
    out.push(duty);
    out.extend_from_slice(&until.to_be_bytes());
    let (kind, weight) = match order.weight {
        OrderedWeight::Configured => (0, 0),
        OrderedWeight::Fixed(weight) => (1, weight),
        OrderedWeight::Percent(share) => (2, share),
    };
    out.push(kind);
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&order.version.micros.to_be_bytes());
    out.extend_from_slice(&order.version.node.0.to_be_bytes());
    let reason = cut(&order.reason, ORDER_REASON_MAX);
    // At most ORDER_REASON_MAX, which fits.
    out.extend_from_slice(&(reason.len() as u16).to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

/// As much of the text as fits, in whole characters.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// The orders of a body; `None`: it is not one.
pub fn parse(body: &[u8]) -> Option<Vec<BackendOrder>> {
    let mut orders = Vec::new();
    let mut reader = Reader::new(body);
    while !reader.rest().is_empty() {
        orders.push(parse_one(&mut reader)?);
    }
    Some(orders)
}

fn parse_one(reader: &mut Reader<'_>) -> Option<BackendOrder> {
    let address: IpAddr = match reader.u8()? {
        4 => reader.array::<4>()?.into(),
        6 => reader.array::<16>()?.into(),
        _ => return None,
    };
    let protocol = match reader.u8()? {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return None,
    };
    let ports = Ports::new(reader.u16()?, reader.u16()?)?;
    let length = usize::from(reader.u8()?);
    let name = text(reader, length, NAME_MAX)?;
    let duty = match (reader.u8()?, reader.u64()?) {
        (0, 0) => Duty::Configured,
        (1, 0) => Duty::Ready,
        (2, until) => Duty::Drain { until: (until != 0).then_some(until) },
        (3, 0) => Duty::Maint,
        _ => return None,
    };
    let weight = match (reader.u8()?, reader.u16()?) {
        (0, 0) => OrderedWeight::Configured,
        (1, weight) if weight <= BACKEND_WEIGHT_MAX => OrderedWeight::Fixed(weight),
        (2, share) if share <= CHECK_SHARE_MAX => OrderedWeight::Percent(share),
        _ => return None,
    };
    let version = OrderVersion { micros: reader.u64()?, node: NodeId(reader.u32()?) };
    let length = usize::from(reader.u16()?);
    let reason = text(reader, length, ORDER_REASON_MAX)?;
    let backend = BackendId { address, protocol, ports, name };
    Some(BackendOrder { backend, duty, weight, version, reason })
}

fn text(reader: &mut Reader<'_>, length: usize, most: usize) -> Option<String> {
    if length > most {
        return None;
    }
    let text = core::str::from_utf8(reader.slice(length)?).ok()?;
    // It is shown to people.
    (!text.contains(char::is_control)).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn order(address: &str, name: &str, reason: &str) -> BackendOrder {
        BackendOrder {
            backend: BackendId {
                address: address.parse().unwrap(),
                protocol: Protocol::Tcp,
                ports: Ports::one(443),
                name: name.into(),
            },
            duty: Duty::Maint,
            weight: OrderedWeight::Configured,
            version: OrderVersion { micros: 1_795_000_000_000_000, node: NodeId(7) },
            reason: reason.into(),
        }
    }

    #[test]
    fn every_order_comes_back_as_it_was_sent() {
        let duties = [
            Duty::Configured,
            Duty::Ready,
            Duty::Drain { until: None },
            Duty::Drain { until: Some(1_795_000_000_000) },
            Duty::Maint,
        ];
        let weights = [
            OrderedWeight::Configured,
            OrderedWeight::Fixed(0),
            OrderedWeight::Fixed(256),
            OrderedWeight::Percent(255),
        ];
        let mut all = vec![];
        for duty in duties {
            for weight in weights {
                all.push(BackendOrder { duty, weight, ..order("10.0.0.100", "web1", "by ann") });
                let udp = BackendId {
                    protocol: Protocol::Udp,
                    ports: Ports::ALL,
                    ..order("fd00::1", "10.0.0.21:53", "").backend
                };
                all.push(BackendOrder {
                    backend: udp,
                    duty,
                    weight,
                    ..order("fd00::1", "", "für Übung")
                });
            }
        }
        let bodies = emit(all.iter());
        assert!(bodies.len() > 1 && bodies.iter().all(|body| body.len() <= BODY_MAX));
        let read: Vec<_> = bodies.iter().flat_map(|body| parse(body).unwrap()).collect();
        assert_eq!(read, all);
        assert_eq!(emit([].into_iter()), Vec::<Vec<u8>>::new());
        assert_eq!(parse(&[]), Some(vec![]));
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_characters() {
        let long = "ü".repeat(ORDER_REASON_MAX);
        let bodies = emit([order("fd00::1", &"n".repeat(2 * NAME_MAX), &long)].iter());
        let read = parse(&bodies[0]).unwrap();
        assert_eq!(read[0].backend.name.len(), NAME_MAX);
        assert_eq!(read[0].reason, "ü".repeat(ORDER_REASON_MAX / 2));
    }

    #[test]
    fn what_nobody_would_send_is_refused() {
        let good = emit([order("10.0.0.100", "web1", "by ann")].iter()).remove(0);
        assert!(parse(&good).is_some());
        for length in 1..good.len() {
            assert_eq!(parse(&good[..length]), None, "cut off after {length}");
        }
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            bad
        };
        // Family, protocol, ports that end before they begin, a name that is too long or steers a terminal, duty, an
        // end where there is none, weight.
        for (at, byte) in
            [(0, 5), (5, 7), (6, 2), (10, 64), (11, 7), (15, 4), (23, 1), (24, 3), (26, 1)]
        {
            assert_eq!(parse(&with(at, byte)), None, "byte {at} is {byte}");
        }
    }
}

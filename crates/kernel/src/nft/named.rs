//! Renders which server a datagram of QUIC names: two rules for each server that is up, one for each kind of header.
//!
//! Only the first datagram of a flow comes here; the others follow it by conntrack. A client that changes its
//! address begins a new flow, and its id leads it to its server. Offsets are bits behind the UDP header, which
//! has 64 of them; `buoy_model::Quic` says the same.

use super::{Family, Forward, Of, counter, stick};
use std::fmt::Write as _;

/// Gives a flow to the server that its first datagram names, and counts those whose server is not here.
pub(super) fn pick(forward: &Forward, family: Family, matched: &str, text: &mut String) {
    let Some((quic, servers)) = &forward.quic else { return };
    let ip = family.word();
    let to_service = format!("{ip} daddr {} udp dport {matched}", forward.vip);
    let bits = u32::from(quic.length) * 8;
    // A datagram that is too short has not got these bytes, but the length of the header says so where padding is
    // behind it.
    let least = |bytes: u32| format!("udp length >= {}", 8 + bytes + u32::from(quic.length));
    for (id, backend) in servers {
        let number = format!("0x{id}");
        let given = format!(
            "counter name \"{}\" dnat {ip} to {}",
            counter(forward, Of::Connections),
            stick::written(forward, *backend)
        );
        let _ = writeln!(
            text,
            "\t\t{to_service} {} @th,64,1 0 @th,72,3 {} @th,80,{bits} {number} {given}",
            least(2),
            quic.config,
        );
        let _ = writeln!(
            text,
            "\t\t{to_service} {} @th,64,1 1 @th,104,8 > {} @th,112,3 {} @th,120,{bits} {number} {given}",
            least(7),
            quic.length,
            quic.config,
        );
    }
    let unnamed = counter(forward, Of::Unnamed);
    let _ = writeln!(text, "\t\t{to_service} udp length > 8 @th,64,1 0 counter name \"{unnamed}\"");
}

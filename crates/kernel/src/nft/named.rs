//! Renders which server a datagram of QUIC names: two rules for each server that is up, one for each kind of header.
//!
//! Only the first datagram of a flow comes here; the others follow it by conntrack. A client that changes its
//! address begins a new flow, and its id leads it to its server. Offsets are bits behind the UDP header, which
//! has 64 of them; `buoy_model::Quic` says the same.

use super::{Family, Forward, Of, counter, stick};

/// Give a flow to the server that its first datagram names, and count those whose server is not here.
pub(super) fn rules(forward: &Forward, family: Family) -> Vec<String> {
    let Some((quic, servers)) = &forward.quic else { return Vec::new() };
    let (ip, bits) = (family.word(), u32::from(quic.length) * 8);
    // A datagram that is too short has not got these bytes, but the length of the header says so where padding is
    // behind it.
    let least = |bytes: u32| format!("udp length >= {}", 8 + bytes + u32::from(quic.length));
    let mut rules = Vec::new();
    for (id, backend) in servers {
        let number = format!("0x{id}");
        let given = format!(
            "counter name \"{}\" dnat {ip} to {}",
            counter(forward, Of::Connections),
            stick::written(forward, *backend)
        );
        let (short, long, config) = (least(2), least(7), quic.config);
        rules.push(format!("{short} @th,64,1 0 @th,72,3 {config} @th,80,{bits} {number} {given}"));
        rules.push(format!(
            "{long} @th,64,1 1 @th,104,8 > {} @th,112,3 {config} @th,120,{bits} {number} {given}",
            quic.length,
        ));
    }
    let unnamed = counter(forward, Of::Unnamed);
    rules.push(format!("udp length > 8 @th,64,1 0 counter name \"{unnamed}\""));
    rules
}

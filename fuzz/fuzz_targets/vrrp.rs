//! VRRP: no input panics, what parses names addresses of the family that it came over, and nothing is signed, because nobody
//! here knows the key.
#![no_main]

use buoy_model::{HmacMode, Proof, VrrpHmac, VrrpKey};
use buoy_wire::vrrp::{Envelope, PROTOCOL, parse, router_id};
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use std::time::Duration;

fuzz_target!(|bytes: &[u8]| {
    let keys = vec![VrrpKey { id: 1, secret: vec![7; 32] }];
    let hmac = VrrpHmac { keys, mode: HmacMode::Enforce, window: Duration::from_secs(5) };
    let v4 = Envelope { source: [10, 0, 0, 1].into(), destination: [224, 0, 0, 18].into() };
    let v6 = Envelope { source: [0xfe; 16].into(), destination: [0xff; 16].into() };
    for envelope in [v4, v6] {
        look(bytes, envelope, None);
        // Of all inputs one in 65536 has the right checksum, and what comes behind it is to be looked at too.
        let summed = with_checksum(bytes, envelope);
        look(&summed, envelope, None);
        look(&summed, envelope, Some(&hmac));
    }
});

fn look(bytes: &[u8], envelope: Envelope, keys: Option<&VrrpHmac>) {
    if let Ok(advert) = parse(bytes, envelope, keys) {
        assert!(!advert.addresses.is_empty());
        assert_eq!(router_id(bytes), Some(advert.id));
        let family = envelope.source.is_ipv6();
        assert!(advert.addresses.iter().all(|address| address.is_ipv6() == family));
        assert!(!matches!(advert.proof, Proof::Signed(_)), "{advert:?}");
    }
}

/// The same with the checksum that its first bytes ask for.
fn with_checksum(bytes: &[u8], envelope: Envelope) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let Some(&[first, _, _, count, _, _, _, _]) = bytes.first_chunk() else { return bytes };
    bytes[6..8].fill(0);
    let password = if first >> 4 == 2 { 8 } else { 0 };
    let pdu = (8 + usize::from(count) * 4 + password).min(bytes.len());
    let sum = match (envelope.source, envelope.destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ends = words(&source.octets()) + words(&destination.octets());
            ends + u64::from(PROTOCOL) + bytes.len() as u64 + words(&bytes)
        }
        // Over IPv4 the sum over the message alone is right in both versions.
        (IpAddr::V4(_) | IpAddr::V6(_), _) => words(&bytes[..pdu]),
    };
    // The remainder is what folding comes to; of 0 the other form is 0xffff, which is as good.
    let folded = u16::try_from(sum % 0xffff).expect("a remainder of 0xffff fits");
    bytes[6..8].copy_from_slice(&(!folded).to_be_bytes());
    bytes
}

fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(word).sum()
}

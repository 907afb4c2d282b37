//! VRRP: no input panics, and what parses names addresses of the family that it came over.
#![no_main]

use buoy_wire::vrrp::{Envelope, parse, router_id};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let v4 = Envelope { source: [10, 0, 0, 1].into(), destination: [224, 0, 0, 18].into() };
    let v6 = Envelope { source: [0xfe; 16].into(), destination: [0xff; 16].into() };
    for envelope in [v4, v6] {
        if let Ok(advert) = parse(bytes, envelope, None) {
            assert!(!advert.addresses.is_empty());
            assert_eq!(router_id(bytes), Some(advert.id));
            let family = envelope.source.is_ipv6();
            assert!(advert.addresses.iter().all(|address| address.is_ipv6() == family));
        }
    }
});

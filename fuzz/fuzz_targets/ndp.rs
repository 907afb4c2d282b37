//! NDP: no input panics, and what parses holds what RFC 4861 §7.1 demands.
#![no_main]

use buoy_wire::ndp::{self, Neighbour};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match ndp::parse(bytes) {
        None => {}
        Some(Neighbour::Solicitation(asked)) => {
            assert!(!asked.target.is_multicast());
            assert!(!asked.source.is_unspecified() || asked.source_mac.is_none());
        }
        Some(Neighbour::Advertisement(said)) => {
            assert!(!said.target.is_multicast());
            assert!(!said.solicited || bytes[38] != 0xff);
        }
    }
});

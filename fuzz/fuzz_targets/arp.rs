//! ARP: no input panics, and what parses has one form besides its Ethernet header and padding.
#![no_main]

use buoy_model::Mac;
use buoy_wire::arp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(packet) = arp::parse(bytes) {
        assert_eq!(packet.emit(Mac::BROADCAST)[14..42], bytes[14..42]);
    }
});

//! A datagram of the exchange: no input panics, what parses has one form, and none is opened without the key.
#![no_main]

use buoy_model::{ClusterId, NodeId};
use buoy_wire::exchange::{Frame, emit};
use buoy_wire::{Key, Keyring};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let keyring = Keyring::new(vec![Key::new([7; 32])]).expect("one key makes a keyring");
    assert!(keyring.open_exchange(ClusterId(7), NodeId(2), bytes).is_err());
    if let Ok(frame) = Frame::parse(bytes) {
        let mut again = Vec::new();
        emit(&frame, &mut again);
        assert_eq!(again, bytes);
    }
});

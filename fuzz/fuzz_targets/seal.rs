//! A sealed datagram: no input panics, and none is opened, because nobody here knows the key.
#![no_main]

use buoy_model::{ClusterId, Message, NodeId};
use buoy_wire::{Key, Keyring};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let keyring = Keyring::new(vec![Key::new([7; 32])]).expect("one key makes a keyring");
    let mut message = Message::default();
    assert!(keyring.open(ClusterId(7), NodeId(2), bytes, &mut message).is_err());
});

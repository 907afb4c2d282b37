//! A datagram's content: no input panics, and what parses has exactly one form.
#![no_main]

use buoy_model::Message;
use buoy_wire::heartbeat::{Envelope, emit};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = Envelope::parse(bytes) else { return };
    let mut message = Message::default();
    if envelope.fill(&mut message).is_ok() {
        let mut again = Vec::new();
        emit(&message, envelope.key, &mut again);
        assert_eq!(again, bytes);
    }
});

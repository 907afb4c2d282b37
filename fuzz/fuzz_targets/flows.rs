//! A body of topic "flows" and a history: no input panics, and what parses has one form.
#![no_main]

use buoy_wire::exchange::flows::{emit, emit_history, parse, parse_history};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(news) = parse(bytes) {
        assert_eq!(emit(&news), bytes);
    }
    if let Some(history) = parse_history(bytes) {
        assert_eq!(emit_history(&history), bytes);
    }
});

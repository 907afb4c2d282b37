//! A body of orders: no input panics, and what parses has one form.
#![no_main]

use buoy_wire::orders::{emit, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(orders) = parse(bytes).filter(|orders| !orders.is_empty()) {
        let again: Vec<u8> = emit(orders.iter()).concat();
        assert_eq!(again, bytes);
    }
});

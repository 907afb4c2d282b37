//! A configuration file: no text panics, neither when it is checked nor when its problems are told.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Err(report) = buoy_config::check_offline(text, "buoy.toml") {
        assert!(!report.to_string().is_empty());
    }
});

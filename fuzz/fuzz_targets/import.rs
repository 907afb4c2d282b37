//! Files of other programs: no text makes an importer panic or go on for ever, and what comes out is TOML.
#![no_main]

use buoy_import::{Options, haproxy, keepalived, vaddrs};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    let include = |_: &str, _: &str| Ok(vec![("part.conf".to_owned(), text.to_owned())]);
    let native = Options { host: Some("lb1".to_owned()), native: true, ..Options::default() };
    let all = [
        vaddrs(text, "file", &Options::default()),
        haproxy(text, "file", &Options::default()),
        keepalived(text, "file", &Options::default(), &include),
        keepalived(text, "file", &native, &include),
    ];
    for toml in all.into_iter().filter_map(|imported| imported.toml) {
        assert!(buoy_config::format::format(&toml).is_some(), "{toml}");
    }
});

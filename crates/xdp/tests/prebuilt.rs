//! Holds the committed eBPF objects equal to what their sources give.

mod compile;

use std::{env, fs, process};

#[test]
fn the_committed_objects_are_what_their_sources_give() {
    if !compile::available() {
        eprintln!(
            "SKIPPED: the_committed_objects_are_what_their_sources_give: {} is not installed",
            compile::CLANG
        );
        return;
    }
    let directory = env::temp_dir().join(format!("buoy-{}-prebuilt", process::id()));
    fs::create_dir_all(&directory).unwrap();
    for program in compile::PROGRAMS {
        let built = compile::compile(program, &directory);
        let committed = fs::read(compile::prebuilt(program)).unwrap();
        let same = built.as_ref() == Ok(&committed);
        assert!(
            same,
            "{program}: run `cargo run -p buoy-xdp --example regenerate` {:?}",
            built.err()
        );
    }
    fs::remove_dir_all(&directory).unwrap();
}

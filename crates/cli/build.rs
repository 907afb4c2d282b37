//! Tells the linker which code a takeover runs, so that the agent can keep just that in memory.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/takeover.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{script}");
}

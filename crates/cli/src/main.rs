//! The one binary: buoy agent, config, status, why, drain, key, lab, version.
fn main() {}

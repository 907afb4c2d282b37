//! The repository's rules as tests, and the steps of CI.
fn main() {}

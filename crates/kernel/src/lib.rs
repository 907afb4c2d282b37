//! The only crate that touches Linux: applies actions, observes the host.

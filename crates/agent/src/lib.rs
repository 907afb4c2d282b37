//! The daemon: the real-time loop, health checks, the API server, reload.

pub mod server;

//! The daemon: the real-time loop, health checks, the API server, reload.

pub mod counters;
mod hardware;
pub mod realtime;
pub mod server;

pub use hardware::StartError;

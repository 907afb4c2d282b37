//! Holds the configuration to its promises: what is refused, where the caret stands, what it says.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)] // All of it is test.

mod accepted;
mod api;
mod asked;
mod cases;
mod examples;
mod files;
mod found;
mod limits;
mod messages;
mod near;
mod persist;
mod pools;
mod proxy;
mod reference;
mod replay;
mod routes;
mod services;
mod support;
mod together;
mod vrrp;
mod wrong;

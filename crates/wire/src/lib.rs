//! Bytes to values and back: the datagrams of the lease protocol and of the exchange, ARP, NDP and VRRP, and what
//! servers answer to checks.
//!
//! Parsers are total: whatever arrives, they answer with a value or a reason, never with a panic,
//! and what they let through needs no check anywhere else. Absent on purpose: state, sockets, clocks.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod answer;
pub mod arp;
mod bytes;
mod checksum;
pub mod ethernet;
pub mod exchange;
pub mod heartbeat;
pub mod ndp;
pub mod orders;
mod seal;
pub mod vrrp;

pub use seal::{Key, Keyring, KeyringError, Reject, TAG_LEN};

//! The only crate that touches Linux: applies actions, observes the host.
//!
//! `apply` does what the core decided, `host` and `netlink::Monitor` say what is, `packet` and `udp`
//! speak and hear, `gate` stops what must stop when this process is dead, `rig` takes the time of the fast
//! path. Nothing here decides.

#![deny(unsafe_code)]

pub mod adopt;
pub mod apply;
pub mod backend;
pub mod clock;
pub mod confinement;
pub mod connects;
pub mod conntrack;
pub mod descriptors;
pub mod fast;
pub mod gate;
pub mod host;
pub mod interrupt;
pub mod kept;
pub mod leftovers;
pub mod lifeline;
pub mod memory;
pub mod netlink;
mod nfnetlink;
pub mod nft;
pub mod offload;
mod orders;
pub mod packet;
pub mod ping;
pub mod poll;
pub mod port;
pub mod program;
pub mod reach;
pub mod realtime;
mod relay;
pub mod rig;
pub mod solicited;
#[allow(unsafe_code)] // The only place for it.
mod sys;
pub mod sysctl;
pub mod udp;
pub mod via;
pub mod virtual_mac;
pub mod vrrp;
pub mod wake;

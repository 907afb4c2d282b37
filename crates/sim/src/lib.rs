//! Simulates whole clusters from a seed, with the real machines and the real datagrams.
//!
//! A `Scenario` (who is there, what breaks when) follows from a seed. A `World` runs it: true time
//! moves from event to event, every host has its own clock, every datagram is sealed, delayed on each
//! leg, lost, repeated and opened again, and a `Host` does what the kernel would do with the actions of
//! its `core::Node`. The checkers look at who *answers* for an address, never at what a machine
//! believes:
//!
//! - `single_owner`: at no instant do two hosts answer for an address of an exclusive group. Nothing
//!   is excused: not freezes, not dead agents or supervisors, not sleep, not partitions of one network
//!   or all, not drifting clocks, not orders, not an old version on some of the hosts.
//! - `convergence`: within `CONVERGENCE` after the last fault every group has one answering owner.
//! - `stability`: when the last reason to move is over, it keeps that owner.
//! - `no_flap`: a link that toggles every second for a minute gives at most two changes of owner.
//! - `minimal_moves`: a node that leaves a pool moves its own groups only, one that comes back gets no
//!   more than its share, and in the end the groups are even.
//! - `why_is_true`: what a node says of its decisions is what it decides (sampled).
//! - `progress`: no machine asks to be woken at a moment that is already over.
//! - the machines' own assertions.
//!
//! Not simulated, because it cannot matter: steps of the wall clock, which no machine reads. Not
//! simulated, because no promise is made for it: a host without gate whose agent freezes between a
//! decision and its call into the kernel; a clock that stands still while its host is paused from
//! outside and the others go on (sleep that the kernel knows of is simulated); two or more members added or
//! removed at once; an address that changes its group while the hosts reload one after the other.
//!
//! One seed is one run to the last bit; `buoy-sim replay SEED` prints it.

#![forbid(unsafe_code)]

mod agent;
mod checker;
mod clock;
mod datagram;
mod days;
mod driver;
mod fault;
mod host;
mod hours;
mod ledger;
mod life;
mod network;
mod random;
mod scenario;
mod schedule;
mod statistics;
mod sweep;
mod trace;
mod world;

pub use checker::{CONVERGENCE, Violation};
pub use days::Profile;
pub use fault::Fault;
pub use hours::{Hours, run_hours};
pub use ledger::Watch;
pub use network::Weather;
pub use random::Random;
pub use scenario::{HostPlan, Scenario};
pub use statistics::Statistics;
pub use sweep::{Failure, Report, run_caught, run_seeds};
pub use trace::Trace;
pub use world::{Outcome, World};

//! The same cases against every engine, with real agents: what a service promises does not depend on who forwards it.
//!
//! Where engines differ on purpose, `docs/configuration.md` has a row for it, and the case asserts the difference. A
//! new case is a function and a line of `CASES`; a new engine a variant of `Engine`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what is wrong by failing"
)]

mod cases;
mod engine;
mod lists;
#[path = "../support/mod.rs"]
mod support;
mod world;

use engine::Engine;
use std::time::Instant;
use world::World;

/// What it is, and what is done.
type Case = (&'static str, fn(&mut World));

/// What every engine is asked, one after the other on one cluster; each leaves it as it was.
const CASES: [Case; 12] = [
    ("every connection is answered", cases::every_connection_is_answered),
    ("a backend sees the client, or who stands for it", cases::a_backend_sees_the_client),
    ("the same port of a client has the same backend", cases::the_same_port_has_the_same_backend),
    ("a backend that is down", cases::a_backend_that_is_down),
    ("a backend that is drained", cases::a_backend_that_is_drained),
    ("weights", cases::weights),
    ("a reload keeps connections", cases::a_reload_keeps_connections),
    ("no backend", cases::no_backend),
    ("no service", cases::no_service),
    ("who is refused", lists::who_is_refused),
    ("a limit of new connections", cases::a_limit_of_new_connections),
    ("as in the beginning", cases::every_connection_is_answered_still),
];

fn every_case(test: &str, engine: Engine) {
    let Some(mut world) = World::new(test, engine) else { return };
    for (name, case) in CASES {
        let start = Instant::now();
        eprintln!("{engine:?}: {name}");
        case(&mut world);
        eprintln!("{engine:?}: {name}: {:.1} s", start.elapsed().as_secs_f64());
    }
}

#[test]
fn xdp_by_dsr_does_what_every_engine_does() {
    every_case("xdp_by_dsr_does_what_every_engine_does", Engine::Dsr);
}

#[test]
fn xdp_by_tunnel_does_what_every_engine_does() {
    every_case("xdp_by_tunnel_does_what_every_engine_does", Engine::Tunnel);
}

#[test]
fn xdp_by_gue_does_what_every_engine_does() {
    every_case("xdp_by_gue_does_what_every_engine_does", Engine::Gue);
}

#[test]
fn xdp_by_nat_does_what_every_engine_does() {
    every_case("xdp_by_nat_does_what_every_engine_does", Engine::Nat);
}

#[test]
fn nftables_does_what_every_engine_does() {
    every_case("nftables_does_what_every_engine_does", Engine::Kernel);
}

#[test]
fn the_proxy_does_what_every_engine_does() {
    every_case("the_proxy_does_what_every_engine_does", Engine::Proxy);
}

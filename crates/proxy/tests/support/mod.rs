//! A proxy on loopback and what tests of both transports ask of it.

// Each file of tests uses a part of it, and a failed `unwrap` is a failed test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use buoy_model::{
    Backend, BackendLife, Balance, Cidr, Front, Per, Protocol, Rate, SendProxy, SourceRule, Sources,
};
use buoy_proxy::{Proxy, Settings};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long anything may take before a test fails; far more than it ever takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// In turns, with room and time enough.
pub fn settings() -> Settings {
    Settings {
        balance: Balance::RoundRobin,
        send_proxy: SendProxy::Off,
        connections_max: 100,
        idle_timeout: PATIENCE,
        connect_timeout: Duration::from_secs(5),
        front: Front::default(),
        lanes: Arc::default(),
        sources: Arc::default(),
        new_connections: None,
        life: BackendLife::default(),
    }
}

/// A backend of weight 1.
pub fn backend(name: &str, address: SocketAddr) -> Backend {
    Backend::new(name, address)
}

/// A proxy on a port that is free.
pub fn proxy(protocol: Protocol, settings: Settings, backends: &[Backend]) -> Proxy {
    let any = "127.0.0.1:0".parse().unwrap();
    Proxy::start(any, protocol, settings, backends).unwrap()
}

/// Waits for an answer, but not for ever.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("took too long")
}

/// Waits for what other tasks bring about.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::task::yield_now().await;
    }
}

/// So many connections of a client in an hour, and all of them at once.
pub fn hourly(number: u32) -> Option<Rate> {
    Some(Rate::new(number, Per::Hour, number).unwrap())
}

/// Everybody but those.
pub fn deny(prefix: &str) -> Arc<Sources> {
    let (address, length) = prefix.split_once('/').unwrap();
    let prefix = Cidr::new(address.parse().unwrap(), length.parse().unwrap()).unwrap();
    Arc::new(Sources::new([SourceRule { prefix, allows: false }]).unwrap())
}

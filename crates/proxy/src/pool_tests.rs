//! A backend that comes up grows into its share, and those that were there from the start have theirs.

use super::*;
use buoy_model::{BackendLife, Balance, SendProxy};
use tokio::time::advance;

const SLOW: Duration = Duration::from_secs(100);

fn settings() -> Settings {
    Settings {
        balance: Balance::RoundRobin,
        send_proxy: SendProxy::Off,
        connections_max: 100,
        idle_timeout: SLOW,
        connect_timeout: SLOW,
        front: buoy_model::Front::default(),
        lanes: Arc::default(),
        sources: Arc::default(),
        new_connections: None,
        life: BackendLife { slow_start: Some(SLOW), ..BackendLife::default() },
    }
}

fn backend(name: &str, port: u16) -> Backend {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Backend::new(name, address)
}

/// Of so many connections, how many the backend of that name gets.
fn share(pool: &Pool, name: &str) -> usize {
    let client = SocketAddr::from(([10, 0, 0, 1], 1024));
    let pick = |_: usize| match pool.pick(&Caller::new(client), None) {
        Given::Turn(turn) => turn.entry.name.clone(),
        Given::Full | Given::Nobody => panic!("somebody takes it"),
    };
    (0..1000).map(pick).filter(|picked| picked == name).count()
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_comes_up_gets_a_share_that_grows_evenly() {
    let (a, b) = (backend("a", 1), backend("b", 2));
    let pool = Pool::new("127.0.0.1:1".parse().unwrap(), settings(), &[a.clone(), b.clone()]);
    advance(Duration::from_secs(1)).await;
    assert_eq!(share(&pool, "b"), 500, "it was there from the start");

    pool.update(settings(), std::slice::from_ref(&a));
    assert_eq!(share(&pool, "b"), 0);
    pool.update(settings(), &[a.clone(), b.clone()]);
    for (percent, expected) in [(25, 200), (50, 333), (75, 428), (100, 500), (200, 500)] {
        let since = pool.age() - pool.lock().current[1].risen.load(Relaxed);
        advance(SLOW * percent / 100 - Duration::from_nanos(since)).await;
        // p / (1 + p) of all.
        let got = share(&pool, "b");
        assert!(got.abs_diff(expected) <= 2, "{percent} %: {got}");
        // What changes elsewhere makes nobody young again.
        pool.update(settings(), &[a.clone(), b.clone()]);
    }
}

//! Forwarding as the agent does it, on a real kernel in a namespace of its own.

// The whole file is tests: a failed `unwrap` is a failed test, and a skipped test must be seen.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use buoy_agent::forward::Forward;
use buoy_agent::health::{BackendHealth, Key, States};
use buoy_kernel::nft;
use buoy_model::{
    Backend, BackendState, Balance, Cidr, ClusterId, Desired, Failback, Group, GroupId, Instant,
    LinkId, Mode, NodeId, Protocol, Safety, SendProxy, Service, SourceAddress, Timing, VipAddress,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
const VIP: [u8; 4] = [127, 0, 0, 100];

fn service(mode: Mode, port: u16) -> Service {
    let backend = |name: &str, last: u8| Backend {
        name: name.into(),
        address: SocketAddr::from(([127, 0, 0, last], 8080)),
        weight: 1,
        backup: false,
    };
    Service {
        addresses: vec![],
        protocol: Protocol::Tcp,
        port,
        mode,
        balance: Balance::RoundRobin,
        source: SourceAddress::Vip,
        send_proxy: SendProxy::Off,
        connections_max: 100,
        idle_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        backends: vec![backend("web1", 21), backend("web2", 22)],
        check: None,
    }
}

fn desired(services: Vec<Service>) -> Arc<Desired> {
    let address = VipAddress {
        cidr: Cidr::new(VIP.into(), 8).unwrap(),
        link: Some(LinkId(1)),
        link_name: "lo".into(),
        vip_name: "web".into(),
    };
    let group = Group {
        id: GroupId(7),
        name: "web".into(),
        addresses: vec![address],
        safety: Safety::Available,
        nodes: vec![NodeId(1)],
        prefer: vec![],
        failback: Failback::Never,
        apart: None,
        checks: vec![],
        services,
    };
    Arc::new(Desired {
        leg_links: vec![None],
        generation: 1,
        digest: 0,
        cluster: ClusterId(1),
        cluster_name: "test".into(),
        me: NodeId(1),
        nodes: vec![],
        timing: Timing {
            heartbeat: Duration::from_millis(10),
            lease: Duration::from_millis(50),
            lease_max: Duration::from_millis(50),
        },
        groups: vec![group],
    })
}

/// Runs the test in a thread with its own network and mounts; says so where it may not.
fn alone(test: &str, work: impl AsyncFnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                eprintln!("SKIPPED: {test}: no namespaces: {error}");
                return;
            }
            if nft::observe().is_err() {
                eprintln!("SKIPPED: {test}: no nft on this host");
                return;
            }
            let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
            assert!(up.unwrap().success());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work());
        });
        thread.join().unwrap();
    });
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "waited too long for {what}");
}

fn ruleset() -> String {
    let output = Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn down(backend: &str) -> (Key, BackendHealth) {
    let key = Key { group: GroupId(7), protocol: Protocol::Tcp, port: 80, backend: backend.into() };
    let health = BackendHealth {
        state: BackendState::Down,
        reason: "HTTP 503".into(),
        since: Instant::ZERO,
        last_latency: None,
    };
    (key, health)
}

#[test]
fn the_kernel_follows_the_configuration_and_the_checks() {
    alone("the_kernel_follows_the_configuration_and_the_checks", async || {
        let (wish, desired_now) = watch::channel(desired(vec![service(Mode::Kernel, 80)]));
        let (health, states) = watch::channel(States::new());
        let forward = Forward::start(desired_now, states);
        let turns = "map { 0 : 127.0.0.21 . 8080, 1 : 127.0.0.22 . 8080 }";
        until("both backends", || ruleset().contains(turns)).await;

        health.send(States::from([down("web1")])).unwrap();
        until("web1 to leave", || ruleset().contains("map { 0 : 127.0.0.22 . 8080 }")).await;
        let report = forward.services();
        assert_eq!(report[0].backends[0].state, BackendState::Down);
        assert_eq!(report[0].backends[0].reason, "HTTP 503");
        assert_eq!(report[0].problem, None);

        assert!(forward.counters().contains_key("forward_connections"));

        // Somebody flushes everything: the next round puts it back.
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        until("the table to come back", || ruleset().contains("127.0.0.22 . 8080 }")).await;

        wish.send(desired(vec![])).unwrap();
        until("the table to go", || !ruleset().contains("table inet buoy")).await;
    });
}

#[test]
fn the_table_outlives_the_agent() {
    alone("the_table_outlives_the_agent", async || {
        let (_wish, desired_now) = watch::channel(desired(vec![service(Mode::Kernel, 80)]));
        let (_health, states) = watch::channel(States::new());
        let forward = Forward::start(desired_now, states);
        until("the table", || ruleset().contains("chain pick")).await;
        drop(forward);
        tokio::task::yield_now().await;
        assert!(ruleset().contains("127.0.0.21 . 8080"));
    });
}

#[test]
fn without_nft_the_status_says_what_to_do_and_proxies_work() {
    alone("without_nft_the_status_says_what_to_do_and_proxies_work", async || {
        let nowhere = None::<&str>;
        mount(nowhere, "/", nowhere, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nowhere).unwrap();
        for folder in ["/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/local/bin"] {
            mount(Some("none"), folder, Some("tmpfs"), MsFlags::empty(), nowhere).unwrap();
        }
        if Command::new("nft").arg("--version").output().is_ok() {
            eprintln!("SKIPPED: without_nft_the_status_says_what_to_do: nft lives elsewhere");
            return;
        }
        let services = vec![service(Mode::Kernel, 80), service(Mode::Proxy, 81)];
        let (_wish, desired_now) = watch::channel(desired(services));
        let (_health, states) = watch::channel(States::new());
        let forward = Forward::start(desired_now, states);
        until("the problem to be said", || forward.services()[0].problem.is_some()).await;
        let said = forward.services()[0].problem.clone().unwrap();
        assert!(said.contains("apt install nftables"), "{said}");
        assert_eq!(forward.services()[1].problem, None);
        assert!(TcpStream::connect(SocketAddr::from((VIP, 81))).await.is_ok());
    });
}

//! Forwarding as the agent does it, on a real kernel in a namespace of its own.

// The whole file is tests: a failed `unwrap` is a failed test, and a skipped test must be seen.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod sample;

use buoy_agent::forward::{Forward, Refusal};
use buoy_agent::health::{BackendHealth, Key, States};
use buoy_api::view::ServiceReport;
use buoy_kernel::nft;
use buoy_model::{
    self as model, BackendState, Balance, Desired, FlowFields, Instant, Mode, Service,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sample::{GROUP, PATIENCE, backend};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

const VIP: &str = "127.0.0.100";

fn service(mode: Mode, port: u16) -> Service {
    let backends = vec![backend("web1", "127.0.0.21:8080"), backend("web2", "127.0.0.22:8080")];
    let balance = Balance::RoundRobin;
    Service { balance, ..sample::service(mode, VIP, port, backends) }
}

fn desired(services: Vec<Service>) -> Arc<Desired> {
    Arc::new(sample::desired(&[VIP], "lo", services))
}

/// Runs the test in a thread with its own network and mounts; says so where it may not.
fn alone(test: &str, work: impl AsyncFnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
                eprintln!("SKIPPED: {test}: no namespaces: {error}");
                return;
            }
            if nft::works().is_err() {
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

fn start(desired: watch::Receiver<Arc<Desired>>, states: watch::Receiver<States>) -> Forward {
    let (seed, seeds) = watch::channel(7);
    // For ever.
    tokio::spawn(async move { seed.closed().await });
    Forward::start(
        desired,
        (states.clone(), states),
        seeds,
        Err("none here".into()),
        Refusal::default(),
    )
    .unwrap()
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
    let key = Key::of(GROUP, &service(Mode::Kernel, 80), backend);
    let health = BackendHealth {
        state: BackendState::Down,
        reason: "HTTP 503".into(),
        urgent: false,
        since: Instant::ZERO,
        last_latency: None,
        share: 100,
        load: None,
        ordered: None,
    };
    (key, health)
}

#[test]
fn whoever_asks_again_has_the_same_reports_but_of_what_is_another() {
    alone("whoever_asks_again_has_the_same_reports_but_of_what_is_another", async || {
        let both = vec![service(Mode::Kernel, 80), service(Mode::Kernel, 81)];
        let (_wish, desired_now) = watch::channel(desired(both));
        let (health, states) = watch::channel(States::new());
        let forward = start(desired_now, states);
        let first = forward.services(None);
        let same = |a: &[Arc<ServiceReport>], b: &[Arc<ServiceReport>]| -> Vec<bool> {
            a.iter().zip(b).map(|(a, b)| Arc::ptr_eq(a, b)).collect()
        };
        assert_eq!(same(&first, &forward.services(None)), [true, true]);
        assert_eq!(same(&first, &forward.services(Some(&[GROUP]))), [true, true]);
        assert!(forward.services(Some(&[])).is_empty());

        health.send(States::from([down("web1")])).unwrap();
        let second = forward.services(None);
        assert_eq!(second[0].backends[0].reason, "HTTP 503");
        assert_eq!(same(&first, &second), [false, true]);
        assert_eq!(same(&second, &forward.services(None)), [true, true]);
        for (what, change) in [
            ("why", (|health| health.reason = "HTTP 500".into()) as fn(&mut BackendHealth)),
            ("urgent", |health| health.urgent = true),
            ("share", |health| health.share = 50),
            ("since", |health| health.since = Instant::from_nanos(7)),
            ("state", |health| health.state = BackendState::Up),
        ] {
            let before = forward.services(None);
            let (key, _) = down("web1");
            health.send_modify(|states| states.change(&key, |known| (true, change(known))));
            assert_eq!(same(&before, &forward.services(None)), [false, true], "{what}");
        }
        health.send(States::new()).unwrap();
        assert_eq!(forward.services(None), first, "as it was");
    });
}

#[test]
fn the_kernel_follows_the_configuration_and_the_checks() {
    alone("the_kernel_follows_the_configuration_and_the_checks", async || {
        let (wish, desired_now) = watch::channel(desired(vec![service(Mode::Kernel, 80)]));
        let (health, states) = watch::channel(States::new());
        let forward = start(desired_now, states);
        let turns = "map { 0 : 127.0.0.21 . 8080, 1 : 127.0.0.22 . 8080 }";
        until("both backends", || ruleset().contains(turns)).await;

        health.send(States::from([down("web1")])).unwrap();
        until("web1 to leave", || ruleset().contains("map { 0 : 127.0.0.22 . 8080 }")).await;
        let report = forward.services(None);
        assert_eq!(report[0].backends[0].state, BackendState::Down);
        assert_eq!(report[0].backends[0].reason, "HTTP 503");
        assert_eq!(report[0].problem, None);

        assert!(forward.counters().contains_key("forward_connections"));

        // Somebody flushes everything, or our rules: the next round puts them back.
        for flushed in [&["ruleset"][..], &["table", "inet", "buoy"]] {
            let done = Command::new("nft").arg("flush").args(flushed).status();
            assert!(done.unwrap().success());
            until("the rules to come back", || ruleset().contains("127.0.0.22 . 8080 }")).await;
        }

        // A second VIP of the group has other backends on the same port.
        let other = Service {
            addresses: vec!["127.0.0.101".parse().unwrap()],
            backends: vec![backend("web1", "127.0.0.31:8080")],
            ..service(Mode::Kernel, 80)
        };
        let both = vec![service(Mode::Kernel, 80), other];
        wish.send(Arc::new(sample::desired(&[VIP, "127.0.0.101"], "lo", both))).unwrap();
        until("the second VIP", || {
            let all = ruleset();
            let leads = |vip: &str, to: &str| {
                let name = format!("pick_tcp_80_{vip}_");
                all.split("chain ").any(|chain| chain.starts_with(&name) && chain.contains(to))
            };
            leads("127.0.0.101", "map { 0 : 127.0.0.31 . 8080 }")
                && leads("127.0.0.100", "map { 0 : 127.0.0.22 . 8080 }")
        })
        .await;
        assert_eq!(forward.services(None).len(), 2);

        wish.send(desired(vec![])).unwrap();
        until("the table to go", || !ruleset().contains("table inet buoy")).await;
    });
}

#[test]
fn the_table_outlives_the_agent() {
    alone("the_table_outlives_the_agent", async || {
        let (_wish, desired_now) = watch::channel(desired(vec![service(Mode::Kernel, 80)]));
        let (_health, states) = watch::channel(States::new());
        let forward = start(desired_now, states);
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
        let forward = start(desired_now, states);
        until("the problem to be said", || forward.services(None)[0].problem.is_some()).await;
        let said = forward.services(None)[0].problem.clone().unwrap();
        assert!(said.contains("apt install nftables"), "{said}");
        assert_eq!(forward.services(None)[1].problem, None);
        // Its backends refuse, so the reset may be there before we know that the connection stood.
        let reset = std::io::ErrorKind::ConnectionReset;
        let connected = TcpStream::connect((VIP, 81)).await;
        assert!(connected.as_ref().err().is_none_or(|e| e.kind() == reset), "{connected:?}");
    });
}

#[test]
fn what_xdp_forwards_goes_on_when_the_kernel_does_not_answer() {
    alone("what_xdp_forwards_goes_on_when_the_kernel_does_not_answer", async || {
        let mode = Mode::Xdp { forward: model::Forward::Dsr, flow: FlowFields::Connection };
        let service = Service { source: model::SourceAddress::Client, ..service(mode, 80) };
        let (wish, desired_now) = watch::channel(desired(vec![service]));
        let (_health, states) = watch::channel(States::new());
        let forward = start(desired_now, states);
        let engine = || forward.services(None)[0].engine.clone();
        let problem = || forward.services(None)[0].problem.clone();
        until("XDP", || engine() == "XDP (lo: generic)" || problem().is_some()).await;
        if problem().is_some_and(|said| said.contains("may not load BPF")) {
            eprintln!("SKIPPED: what_xdp_forwards_goes_on: BPF programs are not permitted here");
            return;
        }

        // From now on no socket can be opened to ask for interfaces.
        let (few, all) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 3, all).unwrap();
        let said = || forward.problems().join(" ");
        until("a word of it", || said().contains("goes on as it was")).await;
        assert_eq!(engine(), "XDP (lo: generic)");
        assert_eq!(problem(), None);
        setrlimit(Resource::RLIMIT_NOFILE, few, all).unwrap();
        until("it to be well again", || said().is_empty()).await;

        wish.send(desired(vec![])).unwrap();
        let links = || Command::new("ip").args(["link", "show", "dev", "lo"]).output().unwrap();
        until("the program to go", || !String::from_utf8(links().stdout).unwrap().contains("xdp"))
            .await;
    });
}

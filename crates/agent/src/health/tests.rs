//! Real sockets on loopback: what each kind of backend is said to be.

mod http;
mod local;
mod others;
mod tls;
mod vip;

use super::*;
use crate::sample::{self, PATIENCE};
use buoy_model::{Backend, CheckKind, HttpCheck, Load, Mode, Pace, Statuses, TlsCheck};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time;

/// A GET of that path that passes with any 2xx and 3xx.
fn http(path: &str) -> HttpCheck {
    HttpCheck {
        method: "GET".into(),
        path: path.into(),
        host: None,
        headers: vec![],
        http2: false,
        tls: None,
        expect: vec![Statuses::WELL],
        body: None,
    }
}

fn statuses(first: u16, last: u16) -> Statuses {
    Statuses::new(first, last).unwrap()
}

fn check(kind: CheckKind) -> Check {
    let (every, timeout) = (Duration::from_millis(20), Duration::from_millis(200));
    let every_down = every;
    Check {
        kind,
        port: None,
        askers: None,
        load: None,
        via: None,
        pace: Pace { every, every_down, timeout, rise: 2, fall: 2 },
    }
}

fn desired(check: Check, backends: &[(&str, SocketAddr)]) -> Arc<Desired> {
    let backend = |&(name, address)| Backend::new(name, address);
    let backends = backends.iter().map(backend).collect();
    let mut service = sample::service(Mode::Kernel, "10.0.0.100", 80, backends);
    service.check = Some(check);
    Arc::new(sample::desired(&["10.0.0.100"], "eth0", vec![service]))
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers every connection with these bytes, after the request.
async fn answering(answer: &'static str) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

/// Writes head bytes for ever, as fast as they are read or one each 10 ms.
async fn endless(drip: bool) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                let piece: &[u8] = if drip { b"x" } else { b"x-header: and another\r\n" };
                while stream.write_all(piece).await.is_ok() {
                    if drip {
                        time::sleep(Duration::from_millis(10)).await;
                    }
                }
            });
        }
    });
    address
}

/// Checks with nothing ordered.
fn start(desired: watch::Receiver<Arc<Desired>>) -> Health {
    let (sender, orders) = watch::channel(Arc::default());
    // Orders may come for as long as there are checks.
    std::mem::forget(sender);
    super::start(desired, orders, None)
}

/// Waits until the only backend is in this state, and returns all that is known.
async fn until(states: &mut watch::Receiver<States>, state: BackendState) -> BackendHealth {
    let known = |all: &States| all.values().next().cloned();
    let seen = states.wait_for(|all| known(all).is_some_and(|k| k.state == state));
    let seen = time::timeout(PATIENCE, seen).await.expect("never came to be").unwrap();
    known(&seen).unwrap()
}

async fn verdict(kind: impl Into<CheckKind>, address: SocketAddr) -> BackendHealth {
    found(desired(check(kind.into()), &[("web", address)])).await
}

/// A check that is only in time because it does not want all that a server has to say.
async fn patient(kind: impl Into<CheckKind>, address: SocketAddr) -> BackendHealth {
    let check = check(kind.into());
    let pace = Pace { timeout: PATIENCE, fall: 1, ..check.pace };
    found(desired(Check { pace, ..check }, &[("web", address)])).await
}

/// The first verdict about the one backend there is.
async fn found(desired: Arc<Desired>) -> BackendHealth {
    let (_keep, desired) = watch::channel(desired);
    let health = start(desired);
    let mut states = health.states();
    let seen = states.wait_for(|all| all.values().any(|k| k.state != BackendState::Unknown));
    let seen = time::timeout(PATIENCE, seen).await.expect("no verdict").unwrap();
    seen.values().next().unwrap().clone()
}

#[tokio::test]
async fn where_many_are_asked_each_is_told_for_itself() {
    let server = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let names: Vec<String> = (0..300).map(|n| format!("web{n}")).collect();
    let at = |n: u16| SocketAddr::from(([127, 1, (n / 250) as u8, (n % 250) as u8 + 1], port));
    let mut backends: Vec<_> = names.iter().map(String::as_str).zip((0..).map(at)).collect();
    let (gone, gone_at) = listener().await;
    drop(gone);
    backends.push(("gone", gone_at));
    let (_keep, desired) = watch::channel(desired(check(CheckKind::Tcp), &backends));
    let health = start(desired);
    let mut states = health.states();
    let is_known = |all: &States| {
        all.len() == 301 && all.values().all(|known| known.state != BackendState::Unknown)
    };
    let seen = time::timeout(PATIENCE, states.wait_for(is_known)).await.expect("no verdict");
    for (key, known) in seen.unwrap().iter() {
        let expected = match key.backend.as_str() {
            "gone" => (BackendState::Down, "connection refused"),
            _ => (BackendState::Up, ""),
        };
        assert_eq!((known.state, known.reason.as_str()), expected, "{key:?}");
    }
}

#[tokio::test]
async fn an_http_answer_is_judged_by_its_status() {
    let well = || vec![Statuses::WELL];
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", well(), Ok(())),
        ("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n", well(), Ok(())),
        ("HTTP/1.0 200 OK\r\n\r\nhello", well(), Ok(())),
        (
            "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
            well(),
            Err("HTTP 503 instead of 200-399"),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            vec![statuses(204, 204), statuses(300, 399)],
            Err("HTTP 200 instead of 204 or 300-399"),
        ),
        ("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", vec![statuses(404, 404)], Ok(())),
        ("HTTP/1.1 2\u{fffd}0 OK\r\n\r\n", well(), Err("the answer is not HTTP")),
        ("SSH-2.0-OpenSSH\r\n", well(), Err("the answer is not HTTP")),
        ("", well(), Err("closed the connection without an answer")),
    ];
    for (answer, expect, expected) in cases {
        let address = answering(answer).await;
        let known = verdict(HttpCheck { expect, ..http("/health") }, address).await;
        match expected {
            Ok(()) => assert_eq!(known.state, BackendState::Up, "{answer:?}: {}", known.reason),
            Err(reason) => {
                assert_eq!(known.state, BackendState::Down, "{answer:?}");
                assert_eq!(known.reason, reason, "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_backend_that_never_ends_its_answer_is_down_in_time() {
    let known = verdict(http("/"), endless(true).await).await;
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, "timed out after 200ms"));
    let known = verdict(http("/"), endless(false).await).await;
    assert_eq!(
        (known.state, known.reason.as_str()),
        (BackendState::Down, "the answer's head is too long")
    );
}

#[tokio::test]
async fn a_backend_that_says_nothing_times_out() {
    let (_silent, address) = listener().await;
    let known = verdict(http("/"), address).await;
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, "timed out after 200ms"));
    let known = verdict(CheckKind::Tcp, address).await;
    assert_eq!(known.state, BackendState::Up, "a handshake is enough for a TCP check");
    assert!(known.last_latency.is_some());
}

#[tokio::test]
async fn a_backend_goes_and_comes_back_with_its_reason() {
    let (server, address) = listener().await;
    let (_keep, desired) = watch::channel(desired(check(CheckKind::Tcp), &[("web", address)]));
    let health = start(desired);
    let mut states = health.states();
    let up = until(&mut states, BackendState::Up).await;
    drop(server);
    let down = until(&mut states, BackendState::Down).await;
    assert_eq!(down.reason, "connection refused");
    assert!(up.since <= down.since);
    let _server = TcpListener::bind(address).await.unwrap();
    let up = until(&mut states, BackendState::Up).await;
    assert_eq!(up.reason, "");
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_forgets_who_left() {
    let (_server, address) = listener().await;
    let (change, watched) = watch::channel(desired(check(CheckKind::Tcp), &[("web", address)]));
    let health = start(watched);
    let mut states = health.states();
    until(&mut states, BackendState::Up).await;

    // Another rhythm for the same backend: it is not `Unknown` for a moment.
    let quick = check(CheckKind::Tcp);
    let every = Duration::from_millis(30);
    let slower = Check { pace: Pace { every, ..quick.pace }, ..quick };
    change.send(desired(slower.clone(), &[("web", address), ("new", address)])).unwrap();
    let both_up = async {
        loop {
            let state = |all: &States, name| {
                all.iter().find(|(k, _)| k.backend == name).map(|(_, known)| known.state)
            };
            let all = states.borrow_and_update().clone();
            assert_eq!(state(&all, "web"), Some(BackendState::Up));
            if state(&all, "new") == Some(BackendState::Up) {
                return;
            }
            states.changed().await.unwrap();
        }
    };
    time::timeout(PATIENCE, both_up).await.unwrap();

    change.send(desired(slower, &[])).unwrap();
    let empty = states.wait_for(|all| all.is_empty());
    time::timeout(PATIENCE, empty).await.unwrap().unwrap();
}

#[tokio::test]
async fn tls_is_verified_when_there_is_a_ca_and_only_then() {
    let ours = rcgen::generate_simple_self_signed(vec!["web.example".into()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["web.example".into()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, bad) = (write("ours.pem", &ours.cert.pem()), write("other.pem", &other.cert.pem()));
    let missing = folder.path().join("none.pem").to_str().unwrap().to_owned();
    let address = answering_over_tls(&ours).await;
    let ask = |ca: Option<&String>, host: &str| HttpCheck {
        host: Some(host.into()),
        tls: Some(TlsCheck { ca: ca.cloned(), warn: Duration::ZERO }),
        ..http("/")
    };
    let known = verdict(ask(None, "anything.example"), address).await;
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, ""));
    let known = verdict(ask(Some(&good), "web.example:443"), address).await;
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, ""));
    let known = verdict(ask(Some(&good), "elsewhere.example"), address).await;
    let said = "TLS: the certificate is for another name";
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, said));
    let known = verdict(ask(Some(&bad), "web.example"), address).await;
    let said = "TLS: the certificate is not signed by an authority in `ca`";
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, said));
    let known = verdict(ask(Some(&missing), "web.example"), address).await;
    assert!(known.reason.starts_with("cannot read "), "{}", known.reason);
}

/// What serves TLS with that certificate, and offers these protocols.
fn acceptor(
    certificate: &rcgen::Certificate,
    key: &rcgen::KeyPair,
    protocols: &[&[u8]],
) -> tokio_rustls::TlsAcceptor {
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der());
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certificate.der().clone()], key.unwrap())
    .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

async fn answering_over_tls(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> SocketAddr {
    let acceptor = acceptor(&certified.cert, &certified.signing_key, &[]);
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_check_may_ask_another_port() {
    let (_server, asked) = listener().await;
    let (gone, backend) = listener().await;
    drop(gone);
    let check = Check { port: Some(asked.port()), ..check(CheckKind::Tcp) };
    let (_keep, desired) = watch::channel(desired(check, &[("web", backend)]));
    let health = start(desired);
    until(&mut health.states(), BackendState::Up).await;
    assert!(TcpStream::connect(backend).await.is_err());
}

#[test]
fn a_hundred_checks_do_not_start_together() {
    let every = Duration::from_secs(1);
    let mut starts: Vec<_> = (0..100)
        .map(|i| {
            let service = sample::service(Mode::Kernel, "10.0.0.100", 80, vec![]);
            jitter(&Key::of(GroupId(1), &service, &format!("10.0.0.{i}:80")), every)
        })
        .collect();
    starts.sort();
    assert!(starts.iter().all(|j| *j <= every));
    let most = (0..10).map(|tenth| {
        let (from, to) = (every * tenth / 10, every * (tenth + 1) / 10);
        starts.iter().filter(|j| (from..to).contains(*j)).count()
    });
    assert!(most.max() < Some(30), "{starts:?}");
}

#[tokio::test]
async fn two_services_on_one_port_of_a_group_are_asked_apart() {
    let (_server, here) = listener().await;
    let (gone, nobody) = listener().await;
    drop(gone);
    let service = |vip, at: SocketAddr| {
        let backends = vec![sample::backend("web", &at.to_string())];
        let mut service = sample::service(Mode::Kernel, vip, 80, backends);
        service.check = Some(check(CheckKind::Tcp));
        service
    };
    let services = vec![service("10.0.0.100", here), service("10.0.0.101", nobody)];
    let vips = ["10.0.0.100", "10.0.0.101"];
    let (_keep, desired) = watch::channel(Arc::new(sample::desired(&vips, "eth0", services)));
    let health = start(desired);
    let state = |all: &States, vip: &str| {
        let vip: IpAddr = vip.parse().unwrap();
        all.iter().find(|(key, _)| key.address == vip).map(|(_, known)| known.state)
    };
    let mut states = health.states();
    let told = states.wait_for(|all| {
        state(all, vips[0]) == Some(BackendState::Up)
            && state(all, vips[1]) == Some(BackendState::Down)
    });
    time::timeout(PATIENCE, told).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_backend_in_maintenance_is_not_asked_and_is_as_it_was_when_it_is_again() {
    use buoy_core::backend_orders::Change;
    use buoy_model::Duty;
    let (asked, address) = counting().await;
    let desired = desired(check(http("/").into()), &[("web1", address)]);
    let id = BackendId::of(&desired.groups[0].services[0], "web1");
    let (_desired, watched) = watch::channel(desired);
    let (orders, followed) = watch::channel(Arc::<BackendOrders>::default());
    let health = super::start(watched, followed, None);
    let mut states = health.states();
    until(&mut states, BackendState::Up).await;
    let order = |duty| {
        orders.send_modify(|kept| {
            let by = (1, buoy_model::NodeId(1));
            Arc::make_mut(kept).give(by, id.clone(), Change::Duty(duty), String::new()).unwrap();
        });
    };
    order(Duty::Maint);
    let quiet = async {
        let mut before = usize::MAX;
        while before != asked.load(Relaxed) {
            before = asked.load(Relaxed);
            time::sleep(Duration::from_millis(200)).await;
        }
    };
    time::timeout(PATIENCE, quiet).await.expect("it is asked for ever");
    let before = asked.load(Relaxed);
    assert_eq!(states.borrow().values().next().unwrap().state, BackendState::Up, "as it was");
    order(Duty::Configured);
    let again = async {
        while before == asked.load(Relaxed) {
            time::sleep(Duration::from_millis(10)).await;
        }
    };
    time::timeout(PATIENCE, again).await.expect("it is asked again");
}

/// A server of HTTP that counts its connections.
async fn counting() -> (Arc<AtomicUsize>, SocketAddr) {
    let (listener, address) = listener().await;
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Relaxed);
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    (count, address)
}

//! HTTP in both versions: what is sent, what of the answer counts, and servers that mean harm.

use super::*;
use buoy_model::Sought;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn sought(sought: Sought) -> HttpCheck {
    HttpCheck { body: Some(sought), ..http("/health") }
}

fn text(text: &str) -> HttpCheck {
    sought(Sought::Text(text.into()))
}

fn down(known: &BackendHealth) -> &str {
    assert_eq!(known.state, BackendState::Down);
    &known.reason
}

#[tokio::test]
async fn a_request_is_sent_as_the_file_says() {
    let (listener, address) = listener().await;
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = [0; 1024];
            let length = stream.read(&mut bytes).await.unwrap_or(0);
            *kept.lock().unwrap() = String::from_utf8_lossy(&bytes[..length]).into_owned();
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    });
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let check = HttpCheck {
        method: "HEAD".into(),
        host: Some("www.example.org".into()),
        headers: vec![
            header("X-Probe", "one"),
            header("X-Probe", "two"),
            header("user-agent", "me"),
        ],
        ..http("/deep?x=1")
    };
    assert_eq!(verdict(check, address).await.state, BackendState::Up);
    let seen = seen.lock().unwrap().to_ascii_lowercase();
    assert!(seen.starts_with("head /deep?x=1 http/1.1\r\n"), "{seen}");
    let lines = ["host: www.example.org", "x-probe: one", "x-probe: two", "user-agent: me"];
    for line in lines.iter().chain(&["connection: close"]) {
        assert_eq!(seen.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {seen}");
    }
    assert_eq!(seen.matches("user-agent").count(), 1, "{seen}");
    let check = HttpCheck { method: "POST".into(), ..http("/") };
    assert_eq!(verdict(check, address).await.state, BackendState::Up);
}

#[tokio::test]
async fn a_body_must_hold_what_is_looked_for() {
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\nstate: ready 42";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                   9\r\nstate: re\r\n6\r\nady 42\r\n0\r\n\r\n";
    let to_the_end = "HTTP/1.0 200 OK\r\n\r\nstate: ready 42";
    for answer in [whole, chunked, to_the_end] {
        let address = answering(answer).await;
        let known = verdict(text("ready"), address).await;
        assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, ""), "{answer}");
        let regex = sought(Sought::Regex("ready [0-9]+$".into()));
        assert_eq!(verdict(regex, address).await.state, BackendState::Up, "{answer}");
        let known = verdict(text("steady"), address).await;
        assert_eq!(down(&known), "\"steady\" is not in the answer");
        let known = verdict(sought(Sought::Regex("^ready".into())), address).await;
        assert_eq!(down(&known), "/^ready/ is not in the answer");
    }
    let busy = answering("HTTP/1.1 503 Busy\r\ncontent-length: 5\r\n\r\nready").await;
    assert_eq!(down(&verdict(text("ready"), busy).await), "HTTP 503 instead of 200-399");
    let broken = answering("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nready").await;
    assert_eq!(down(&verdict(text("ready"), broken).await), "the answer broke off");
    let nonsense = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nready\r\n";
    let known = verdict(text("ready"), answering(nonsense).await).await;
    assert_eq!(down(&known), "the answer broke off");
}

#[tokio::test]
async fn a_body_without_end_is_read_to_its_limit() {
    let (listener, address) = listener().await;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            // Whatever the sockets of both sides hold is sent before this notices.
            while let Ok(length) = stream.write(&[0xff; 4096]).await {
                count.fetch_add(length, Ordering::Relaxed);
            }
        }
    });
    let known = verdict(text("ready"), address).await;
    assert_eq!(down(&known), "\"ready\" is not in the first 64 KiB of the answer");
    // Where nothing is looked for, nothing of it is read.
    assert_eq!(verdict(http("/"), address).await.state, BackendState::Up);
}

/// Writes a head, and then something again and again.
async fn repeating(head: &'static str, again: &'static str) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(head.as_bytes()).await;
                let piece = again.repeat(100);
                while stream.write_all(piece.as_bytes()).await.is_ok() {}
            });
        }
    });
    address
}

#[tokio::test]
async fn an_answer_that_repeats_itself_without_end_is_down() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let trailers = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    let longest = "HTTP/1.1 200 OK\r\ncontent-length: 9223372036854775807\r\n\r\n";
    let not_there = "\"ready\" is not in the first 64 KiB of the answer";
    for (head, again, said) in [
        ("HTTP/1.1 200 OK\r\nx: ", "\u{fffd}", "the answer's head is too long"),
        (chunked, "1;more=of the same\r\nx\r\n", "the answer broke off"),
        (chunked, "fff;x\r\n", "the answer broke off"),
        (trailers, "x: y\r\n", "the answer broke off"),
        (longest, "x", not_there),
    ] {
        let known = patient(text("ready"), repeating(head, again).await).await;
        assert_eq!(down(&known), said, "{head:?} {again:?}");
    }
    // What is not kept may come until the time is over.
    for (head, again) in [("", "HTTP/1.1 100 Continue\r\n\r\n"), (chunked, "0")] {
        let known = verdict(text("ready"), repeating(head, again).await).await;
        assert_eq!(down(&known), "timed out after 200ms", "{head:?} {again:?}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (listener, address) = listener().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{address}/again\r\ncontent-length: 0\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let asker = ask::Asker::new(&http("/").into(), &ask::Target::server(address));
    assert_eq!(asker.ask().await, Ok(ask::Said::default()));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let strict = HttpCheck { expect: vec![statuses(200, 299)], ..http("/") };
    assert_eq!(down(&verdict(strict, address).await), "HTTP 302 instead of 200-299");
}

/// Serves HTTP/2 without TLS: the status, this body, and then more of it for ever if `endless`.
async fn serve_h2<S>(stream: S, status: u16, body: &'static [u8], endless: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/health");
        assert_eq!(request.uri().authority().unwrap().as_str(), "www.example.org");
        tokio::spawn(async move {
            let head = hyper::Response::builder().status(status).body(()).unwrap();
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(body.into(), !endless)?;
            if !endless {
                return Ok(());
            }
            loop {
                stream.reserve_capacity(1024);
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let Some(Ok(room)) = room else { break };
                stream.send_data(vec![b'x'; room].into(), false)?;
            }
            Ok::<(), h2::Error>(())
        });
    }
}

async fn answering_h2(status: u16, body: &'static [u8], endless: bool) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_h2(stream, status, body, endless));
        }
    });
    address
}

fn over_h2(check: HttpCheck) -> HttpCheck {
    HttpCheck { http2: true, host: Some("www.example.org".into()), ..check }
}

#[tokio::test]
async fn http2_is_spoken_from_the_first_byte() {
    let address = answering_h2(200, b"state: ready", false).await;
    assert_eq!(verdict(over_h2(http("/health")), address).await.reason, "");
    assert_eq!(verdict(over_h2(text("ready")), address).await.state, BackendState::Up);
    let known = verdict(over_h2(text("steady")), address).await;
    assert_eq!(down(&known), "\"steady\" is not in the answer");
    let busy = answering_h2(503, b"", false).await;
    let known = verdict(over_h2(http("/health")), busy).await;
    assert_eq!(down(&known), "HTTP 503 instead of 200-399");
    let endless = answering_h2(200, b"", true).await;
    let known = verdict(over_h2(text("ready")), endless).await;
    assert_eq!(down(&known), "\"ready\" is not in the first 64 KiB of the answer");
    assert_eq!(verdict(over_h2(http("/health")), endless).await.state, BackendState::Up);
}

#[tokio::test]
async fn a_server_of_http2_that_means_harm_is_down() {
    let old = answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(down(&verdict(over_h2(http("/health")), old).await), "the answer is not HTTP/2");
    let (_silent, silent) = listener().await;
    let known = verdict(over_h2(http("/health")), silent).await;
    assert_eq!(down(&known), "timed out after 200ms");
    let gone = answering("").await;
    let known = verdict(over_h2(http("/health")), gone).await;
    assert_eq!(down(&known), "closed the connection without an answer");
    // Settings, and then headers that are continued for ever.
    let (listener, endless) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await;
                let _ = stream.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x88").await;
                let mut more = b"\0\x04\0\x09\0\0\0\0\x01".to_vec();
                more.extend_from_slice(&[b"\0\x01a\x01b".as_slice(); 205].concat()[..1024]);
                while stream.write_all(&more).await.is_ok() {}
            });
        }
    });
    let known = verdict(over_h2(http("/health")), endless).await;
    assert!(known.reason.contains("HTTP/2") || known.reason.contains("closed"), "{}", known.reason);
    assert_eq!(known.state, BackendState::Down);
}

#[tokio::test]
async fn http2_over_tls_is_agreed_on_or_the_backend_is_down() {
    let ours = rcgen::generate_simple_self_signed(vec!["www.example.org".into()]).unwrap();
    let serve = async |protocols: &[&[u8]]| {
        let acceptor = acceptor(&ours.cert, &ours.signing_key, protocols);
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    serve_h2(stream, 200, b"ready", false).await;
                });
            }
        });
        address
    };
    let tls = Some(TlsCheck { ca: None, warn: Duration::ZERO });
    let check = || HttpCheck { tls: tls.clone(), ..over_h2(text("ready")) };
    let known = verdict(check(), serve(&[b"h2"]).await).await;
    assert_eq!((known.state, known.reason.as_str()), (BackendState::Up, ""));
    let known = verdict(check(), serve(&[]).await).await;
    assert_eq!(down(&known), "TLS: the server does not offer h2 (ALPN)");
    let known = verdict(check(), serve(&[b"http/1.1"]).await).await;
    assert!(down(&known).starts_with("TLS: "), "{}", known.reason);
}

#[tokio::test]
async fn a_server_that_says_its_load_takes_a_share_that_follows() {
    let checked = || Check { load: Some(Load::Header("X-Load".into())), ..check(http("/").into()) };
    let answer = "HTTP/1.1 200 OK\r\nx-load: 90\r\ncontent-length: 0\r\n\r\n";
    let (_keep, wanted) = watch::channel(desired(checked(), &[("web", answering(answer).await)]));
    let health = start(wanted);
    let mut states = health.states();
    let mut before = 100;
    while 80 < before {
        let seen = states.wait_for(|all| all.values().any(|known| known.share < before));
        let seen = time::timeout(PATIENCE, seen).await.expect("a smaller share").unwrap();
        let known = seen.values().next().unwrap();
        assert!(before - known.share <= 10, "from {before} to {} at once", known.share);
        assert_eq!(known.load, Some(90));
        before = known.share;
    }
    // What says nothing that is a load is well, keeps its share, and that is said.
    for (head, said) in [
        ("", "the answer has no header X-Load that says its load"),
        ("x-load: busy\r\n", "its header X-Load is no load in percent: \"busy\""),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}content-length: 0\r\n\r\n");
        let address = answering(answer.leak()).await;
        let (_keep, wanted) = watch::channel(desired(checked(), &[("web", address)]));
        let health = start(wanted);
        let mut states = health.states();
        let known = until(&mut states, BackendState::Up).await;
        assert_eq!((known.share, known.reason.as_str()), (100, said));
    }
}

/// Answers after so long.
async fn slow(after: Duration) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 1024]).await;
                time::sleep(after).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_server_that_takes_longer_than_the_others_takes_less() {
    let checked = Check { load: Some(Load::Latency), ..check(http("/").into()) };
    let quick = Duration::from_millis(1);
    let backends = [("a", slow(quick).await), ("b", slow(quick).await)];
    let backends = [backends[0], backends[1], ("c", slow(100 * quick).await)];
    let (_keep, wanted) = watch::channel(desired(checked, &backends));
    let health = start(wanted);
    let mut states = health.states();
    let share = |all: &States, name: &str| {
        all.iter().find(|(key, _)| key.backend == name).map(|(_, k)| k.share)
    };
    let seen = states.wait_for(|all| share(all, "c").is_some_and(|share| share < 80));
    let seen = time::timeout(PATIENCE, seen).await.expect("a smaller share").unwrap();
    assert!(share(&seen, "a") >= Some(80) && share(&seen, "b") >= Some(80), "{seen:?}");
}

//! Every other protocol with a server that speaks it, and with servers that mean harm.

use super::*;
use buoy_model::limits::CHECK_ANSWER_MAX;
use buoy_model::{PostgresRole, Protocol};
use tokio::net::UdpSocket;

/// Says the first text at once, and then one for each line that it gets.
async fn talking(texts: &[&'static str]) -> SocketAddr {
    let texts = texts.to_vec();
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let texts = texts.clone();
            tokio::spawn(async move {
                let mut turns = texts.iter();
                let _ = stream.write_all(turns.next().unwrap().as_bytes()).await;
                for text in turns {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let _ = stream.write_all(text.as_bytes()).await;
                }
            });
        }
    });
    address
}

async fn reason(kind: CheckKind, address: SocketAddr) -> (BackendState, String) {
    let known = verdict(kind, address).await;
    (known.state, known.reason)
}

fn up() -> (BackendState, String) {
    (BackendState::Up, String::new())
}

fn down(reason: &str) -> (BackendState, String) {
    (BackendState::Down, reason.to_owned())
}

#[tokio::test]
async fn redis_answers_a_ping() {
    for (answer, said) in [
        ("+PONG\r\n", up()),
        ("-NOAUTH Authentication required.\r\n", up()),
        ("-LOADING it\r\n", down("Redis says LOADING it")),
        ("HTTP/1.1 400\r\n", down("the answer is not Redis")),
        ("", down("closed the connection without an answer")),
    ] {
        assert_eq!(reason(CheckKind::Redis, answering(answer).await).await, said, "{answer}");
    }
}

#[tokio::test]
async fn smtp_greets_and_knows_ehlo() {
    let cases: [(&[&str], _); 5] = [
        (&["220-hello\r\n220 mx.example\r\n", "250-SIZE\r\n250 HELP\r\n"], up()),
        (&["554 no\r\n"], down("SMTP says 554 no instead of 220")),
        (&["220 mx\r\n", "421 busy\r\n"], down("SMTP says 421 busy instead of 250")),
        (&["SSH-2.0\r\n"], down("the answer is not SMTP")),
        (&["220 mx\r\n", ""], down("closed the connection without an answer")),
    ];
    for (texts, said) in cases {
        assert_eq!(reason(CheckKind::Smtp, talking(texts).await).await, said, "{texts:?}");
    }
}

#[tokio::test]
async fn mysql_greets_or_says_why_not() {
    let greeting = "\u{b}\0\0\0\u{a}8.0.36\0\u{8}\0\0";
    assert_eq!(reason(CheckKind::Mysql, talking(&[greeting]).await).await, up());
    let other = talking(&["SSH-2.0-OpenSSH\r\n"]).await;
    assert_eq!(reason(CheckKind::Mysql, other).await, down("the answer is not MySQL"));
    let cut = talking(&["\u{b}\0\0\0\u{a}8"]).await;
    let said = down("closed the connection without an answer");
    assert_eq!(reason(CheckKind::Mysql, cut).await, said);
}

#[tokio::test]
async fn an_agent_takes_its_server_out_and_changes_its_share() {
    for (line, state, said, share) in [
        ("up\n", BackendState::Up, "", 100),
        ("ready 40%\r\n", BackendState::Up, "its agent says 40% of its weight", 40),
        ("drain", BackendState::Up, "its agent says drain: no new connections", 0),
        ("down#maintenance\n", BackendState::Down, "its agent says down: maintenance", 100),
    ] {
        let known = verdict(CheckKind::Agent, talking(&[line]).await).await;
        assert_eq!((known.state, known.reason.as_str(), known.share), (state, said, share));
    }
}

fn postgres(role: Option<PostgresRole>) -> CheckKind {
    CheckKind::Postgres { role, user: "buoy".into() }
}

#[tokio::test]
async fn postgres_takes_connections_and_says_its_role() {
    const READY: &str = "R\0\0\0\u{8}\0\0\0\0S\0\0\0\u{8}a\0b\0Z\0\0\0\u{5}I";
    const PASSWORD: &str = "R\0\0\0\u{8}\0\0\0\u{3}";
    const STARTING: &str = "E\0\0\0\u{1a}C57P03\0Mstarting up\0\0\0";
    const NO_USER: &str = "E\0\0\0\u{14}C28000\0Mnobody\0\0";
    const REPLICA: &str = "T\0\0\0\u{6}\0\u{1}D\0\0\0\u{b}\0\u{1}\0\0\0\u{1}t";
    const PRIMARY: &str = "T\0\0\0\u{6}\0\u{1}D\0\0\0\u{b}\0\u{1}\0\0\0\u{1}f";
    let (primary, replica) = (Some(PostgresRole::Primary), Some(PostgresRole::Replica));
    let starting = "PostgreSQL says starting up (57P03)";
    let asks = "it asks for a password: let the user in by `trust` in pg_hba.conf";
    let cases: [(&[&str], _, _); 11] = [
        (&["", READY], None, up()),
        (&["", PASSWORD], None, up()),
        (&["", NO_USER], None, up()),
        (&["", STARTING], None, down(starting)),
        (&["", STARTING], primary, down(starting)),
        (&["", PASSWORD], primary, down(asks)),
        (&["", READY, PRIMARY], primary, up()),
        (&["", READY, REPLICA], replica, up()),
        (&["", READY, REPLICA], primary, down("it is a replica, not the primary")),
        (&["", READY, PRIMARY], replica, down("it is the primary, not a replica")),
        (&["", "HTTP/1.1 400 Bad"], None, down("the answer is too long")),
    ];
    for (texts, role, said) in cases {
        assert_eq!(reason(postgres(role), talking(texts).await).await, said, "{texts:?}");
    }
}

#[tokio::test]
async fn a_host_answers_a_ping() {
    for address in ["127.0.0.1:1", "[::1]:1"] {
        assert_eq!(reason(CheckKind::Icmp, address.parse().unwrap()).await, up(), "{address}");
    }
    // Broadcasts are not allowed to this socket, so nothing leaves.
    let (state, said) = reason(CheckKind::Icmp, "255.255.255.255:1".parse().unwrap()).await;
    assert_eq!(state, BackendState::Down);
    assert!(said.starts_with("cannot "), "{said}");
}

/// Answers each datagram with what the function makes of it.
async fn echoing(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut bytes = [0; 1024];
        while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
            let _ = socket.send_to(&answer(&bytes[..length]), from).await;
        }
    });
    address
}

#[tokio::test]
async fn a_datagram_is_answered_or_the_port_is_unreachable() {
    let udp =
        |expect: &[u8]| CheckKind::Udp { send: b"ping\xff".to_vec(), expect: expect.to_vec() };
    let address = echoing(|asked| [b"you said ", asked].concat()).await;
    assert_eq!(reason(udp(b""), address).await, up());
    assert_eq!(reason(udp(b"said ping\xff"), address).await, up());
    let (state, said) = reason(udp(b"pong"), address).await;
    assert_eq!(state, BackendState::Down);
    assert!(
        said.starts_with("the answer does not hold what is expected: \"you said ping"),
        "{said}"
    );
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nobody = gone.local_addr().unwrap();
    drop(gone);
    let said = down("port unreachable: nobody listens there");
    assert_eq!(reason(udp(b""), nobody).await, said);
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let said = down("timed out after 200ms");
    assert_eq!(reason(udp(b""), silent.local_addr().unwrap()).await, said);
}

/// What a server makes of a question that it has so many answers to.
fn resolved(asked: &[u8], code: u8, answers: u8) -> Vec<u8> {
    let mut bytes = asked.to_vec();
    (bytes[2], bytes[3], bytes[7]) = (0x81, 0x80 | code, answers);
    bytes
}

#[tokio::test]
async fn dns_is_asked_over_the_protocol_of_the_service() {
    let dns = |over| CheckKind::Dns { name: "example.org".into(), record: "MX".into(), over };
    for (code, answers, said) in [
        (0, 1, up()),
        (0, 0, down("DNS has no example.org MX")),
        (3, 0, down("DNS says NXDOMAIN for example.org MX")),
        (5, 0, down("DNS says REFUSED")),
    ] {
        let by_udp = echoing(move |asked| resolved(asked, code, answers)).await;
        assert_eq!(reason(dns(Protocol::Udp), by_udp).await, said);
        let (listener, by_tcp) = listener().await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut asked = vec![0; usize::from(length)];
                stream.read_exact(&mut asked).await.unwrap();
                let answer = [&length.to_be_bytes(), &resolved(&asked, code, answers)[..]].concat();
                stream.write_all(&answer).await.unwrap();
            }
        });
        assert_eq!(reason(dns(Protocol::Tcp), by_tcp).await, said);
    }
    let wrong = echoing(|_| b"nonsense".to_vec()).await;
    assert_eq!(reason(dns(Protocol::Udp), wrong).await, down("the answer is not DNS"));
}

/// A health service that answers with these bytes and this status.
async fn health_service(body: &'static [u8], code: &'static str) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await?;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let head =
                        hyper::Response::builder().header("content-type", "application/grpc");
                    let mut trailers = hyper::HeaderMap::new();
                    trailers.insert("grpc-status", code.parse().unwrap());
                    let mut stream = respond.send_response(head.body(()).unwrap(), false)?;
                    stream.send_data(body.into(), false)?;
                    stream.send_trailers(trailers)?;
                }
                Ok::<(), h2::Error>(())
            });
        }
    });
    address
}

#[tokio::test]
async fn a_grpc_server_says_whether_it_serves() {
    let grpc = || CheckKind::Grpc { service: "shop.Cart".into(), host: None, tls: None };
    for (body, code, said) in [
        (b"\0\0\0\0\x02\x08\x01".as_slice(), "0", up()),
        (b"\0\0\0\0\x02\x08\x02", "0", down("gRPC says NOT_SERVING")),
        (b"\0\0\0\0\x09\x08\x01", "0", down("the answer is not gRPC")),
        (b"", "12", down("the server has no grpc.health.v1")),
        (b"", "5", down("gRPC does not know that service")),
        (b"", "14", down("gRPC says error 14")),
    ] {
        assert_eq!(reason(grpc(), health_service(body, code).await).await, said, "{code} {body:?}");
    }
    let web = answering("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(reason(grpc(), web).await, down("the answer is not HTTP/2"));
}

/// Writes so many bytes, and then nothing more, on a connection that stays open.
async fn much(piece: &'static [u8], bytes: usize) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(&piece.repeat(bytes / piece.len())).await;
                // Whoever wants more waits for it.
                time::sleep(2 * PATIENCE).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn of_an_answer_without_end_no_more_is_read_than_is_kept() {
    let dns = || CheckKind::Dns { name: "a".into(), record: "A".into(), over: Protocol::Tcp };
    let grpc = || CheckKind::Grpc { service: String::new(), host: None, tls: None };
    let long = "the answer is too long";
    let endless: [(CheckKind, &'static [u8], &str); 10] = [
        (CheckKind::Redis, b"x", long),
        (CheckKind::Redis, b"\xff\xfe\0\x80", long),
        (CheckKind::Smtp, b"220-more\r\n", long),
        (CheckKind::Smtp, b"2", long),
        (CheckKind::Agent, b"\0", long),
        (CheckKind::Mysql, b"\xff\xff\0\0\n", "the answer is not MySQL"),
        (postgres(None), b"R\0\xff\xff\xff", long),
        (postgres(Some(PostgresRole::Primary)), b"S\0\0\0\x08a\0b\0", long),
        (dns(), b"\xff", "the answer is to another question"),
        (grpc(), b"\0", "the answer is not HTTP/2"),
    ];
    for (kind, piece, said) in endless {
        let address = much(piece, 2 * CHECK_ANSWER_MAX).await;
        let known = patient(kind.clone(), address).await;
        assert_eq!((known.state, known.reason.as_str()), (BackendState::Down, said), "{kind:?}");
    }
}

/// Writes the same bytes for ever.
async fn flooding(piece: &'static [u8]) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { while stream.write_all(piece).await.is_ok() {} });
        }
    });
    address
}

#[tokio::test]
async fn a_server_of_any_protocol_that_means_harm_is_down_in_time_with_a_reason() {
    let dns = CheckKind::Dns { name: "a".into(), record: "A".into(), over: Protocol::Tcp };
    let grpc = CheckKind::Grpc { service: String::new(), host: None, tls: None };
    let (_silent, silent) = listener().await;
    let harmful = [
        silent,
        answering("").await,
        endless(true).await,
        endless(false).await,
        flooding(&[b'x'; 4096]).await,
        flooding(b"\xff\xfe\0\x80").await,
        flooding(b"220-more\r\n").await,
    ];
    let postgres = postgres(Some(PostgresRole::Primary));
    let lines = [CheckKind::Redis, CheckKind::Smtp, CheckKind::Agent];
    for kind in lines.into_iter().chain([CheckKind::Mysql, postgres, dns, grpc]) {
        for address in harmful {
            let known = verdict(kind.clone(), address).await;
            assert_eq!(known.state, BackendState::Down, "{kind:?}");
            assert!(!known.reason.is_empty() && known.reason.len() < 400, "{}", known.reason);
        }
    }
}

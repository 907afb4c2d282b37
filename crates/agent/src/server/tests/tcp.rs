//! The API over TCP, with and without TLS, and the socket for questions: over real sockets.

use super::*;
use buoy_config::{Api, Pem, Role, Tls, Token};
use std::net::{SocketAddr, TcpListener, TcpStream};

const TOKENS: [(&str, Role, &str); 3] = [
    ("ann", Role::Read, "buoy_read"),
    ("ben", Role::Operate, "buoy_operate"),
    ("cid", Role::Admin, "buoy_admin"),
];

/// A server over TCP beside the one on the socket.
struct Tcp {
    runtime: tokio::runtime::Runtime,
    fake: Arc<Fake>,
    at: SocketAddr,
    api: tokio::sync::watch::Sender<Arc<Option<Api>>>,
    problem: crate::server::Problem,
}

impl Tcp {
    fn start(tls: Option<Tls>) -> Self {
        // Free a moment ago, on an address of this process alone.
        let last = std::process::id() % 250 + 2;
        let host =
            std::net::Ipv4Addr::new(127, 7, (std::process::id() / 250 % 250) as u8, last as u8);
        let at = TcpListener::bind((host, 0)).unwrap().local_addr().unwrap();
        let token = |(name, role, text): &(&str, Role, &str)| Token {
            name: (*name).into(),
            role: *role,
            hash: Token::hash(text),
        };
        let api = Api { listen: at, tls, tokens: TOKENS.iter().map(token).collect() };
        let (sender, receiver) = tokio::sync::watch::channel(Arc::new(Some(api)));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (fake, problem) = (Arc::new(Fake::default()), crate::server::Problem::default());
        drop(runtime.spawn(crate::server::tcp::keep(
            Arc::clone(&fake),
            receiver,
            Arc::clone(&problem),
        )));
        let this = Self { runtime, fake, at, api: sender, problem };
        assert!(this.wait_until(|| TcpStream::connect(at).is_ok()), "{:?}", this.problem);
        this
    }

    fn wait_until(&self, holds: impl Fn() -> bool) -> bool {
        (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            holds()
        })
    }

    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// With headers of its own and those that every request needs.
    fn ask(&self, line: &str, headers: &str) -> (u16, String) {
        let host = if headers.contains("host:") {
            String::new()
        } else {
            format!("host: {}\r\n", self.at)
        };
        let answer =
            self.raw(&format!("{line} HTTP/1.1\r\n{host}connection: close\r\n{headers}\r\n"));
        (answer.split(' ').nth(1).unwrap_or("0").parse().unwrap(), answer)
    }
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

#[test]
fn over_tcp_a_token_says_who_asks_and_what_he_may_do() {
    let tcp = Tcp::start(None);
    let table = [
        ("GET /v1/status", None, 401),
        ("GET /v1/status", Some("buoy_wrong"), 401),
        ("GET /v1/nowhere", None, 401),
        ("POST /v1/drain", None, 401),
        ("GET /healthz", None, 200),
        ("GET /", None, 200),
        ("GET /v1/status", Some("buoy_read"), 200),
        ("POST /v1/drain", Some("buoy_read"), 403),
        ("POST /v1/drain?dry_run=1", Some("buoy_read"), 403),
        ("POST /v1/reload", Some("buoy_operate"), 403),
        ("GET /v1/support", Some("buoy_operate"), 403),
        ("GET /v1/me", None, 401),
        ("POST /v1/drain", Some("buoy_operate"), 200),
        ("POST /v1/reload", Some("buoy_admin"), 200),
    ];
    for (line, token, status) in table {
        let (answered, answer) = tcp.ask(line, &token.map_or_else(String::new, bearer));
        assert_eq!(answered, status, "{line} {token:?}: {answer}");
        if status == 401 {
            assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
        }
        assert!(!answer.contains("buoy_wrong"), "no token is repeated");
    }
    let (status, answer) = tcp.ask("GET /v1/status", "authorization: Basic YW5uOmFubg==\r\n");
    assert_eq!((status, answer.contains("unauthenticated")), (401, true), "{answer}");
    let me = tcp.ask("GET /v1/me", &bearer("buoy_operate")).1;
    let known = r#""name":"ben","by":"token","uid":null,"role":"operate""#;
    assert!(me.contains(known), "{me}");
    let orders = tcp.fake.orders.lock().unwrap();
    assert_eq!(*orders, [Order::Drain { reason: "by ben".into(), until: None }]);
}

#[test]
fn over_tcp_pages_of_others_and_names_of_others_are_refused() {
    let tcp = Tcp::start(None);
    let known = bearer("buoy_admin");
    let at = tcp.at;
    let table = [
        (format!("host: {at}\r\norigin: http://{at}\r\n"), 200),
        ("host: localhost\r\n".into(), 200),
        ("host: evil.example\r\n".into(), 421),
        (format!("host: {at}\r\norigin: https://evil.example\r\n"), 403),
        (format!("host: {at}\r\norigin: null\r\n"), 403),
    ];
    for (headers, status) in table {
        let (answered, answer) = tcp.ask("GET /v1/cluster", &format!("{headers}{known}"));
        assert_eq!(answered, status, "{headers}: {answer}");
    }
    // Before it is even asked who it is.
    assert_eq!(tcp.ask("GET /healthz", "host: evil.example\r\n").0, 421);
    let without = tcp.raw(&format!("GET /v1/cluster HTTP/1.0\r\n{known}\r\n"));
    assert!(without.contains(" 421 "), "{without}");
}

#[test]
fn over_tcp_what_is_too_much_is_refused() {
    let tcp = Tcp::start(None);
    let known = bearer("buoy_admin");
    let ask = |line: &str, headers: &str| tcp.ask(line, &format!("{headers}{known}")).0;
    assert_eq!(ask("POST /v1/drain", "content-length: 1000000000\r\n"), 413);
    assert_eq!(ask("GET //v1/status", ""), 400);
    assert_eq!(ask("GET /v1/vips/..%2f..%2fweb/why", ""), 400);
    assert_eq!(ask("GET /v1/vips/a%00b/why", ""), 400);
    let long = format!("x: {}\r\n", "y".repeat(40_000));
    assert_eq!(ask("GET /v1/status", &long), 431);
    let many: String = (0..100).map(|n| format!("x{n}: y\r\n")).collect();
    assert_eq!(ask("GET /v1/status", &many), 431);
    assert!(tcp.fake.orders.lock().unwrap().is_empty());
}

#[test]
fn an_address_that_leaves_the_file_is_not_served_any_more() {
    let tcp = Tcp::start(None);
    let mut open = TcpStream::connect(tcp.at).unwrap();
    tcp.api.send_replace(Arc::new(None));
    assert!(tcp.wait_until(|| TcpStream::connect(tcp.at).is_err()), "nobody listens there");
    open.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0, "who was connected is sent away");
    let broken = Tls { cert: Pem(b"x".to_vec()), key: Pem(b"x".to_vec()), client_ca: None };
    let api = Api { listen: tcp.at, tls: Some(broken), tokens: vec![] };
    tcp.api.send_replace(Arc::new(Some(api)));
    let said = || tcp.problem.lock().unwrap().clone().unwrap_or_default();
    assert!(tcp.wait_until(|| said().contains("`cert` holds no certificate")), "{}", said());
    drop(tcp.runtime);
}

#[test]
fn whoever_may_only_ask_has_a_socket_of_his_own() {
    let server = Running::start();
    let beside = server.path.with_file_name("ro.sock");
    let client = Client::connect(&beside).unwrap();
    assert_eq!(client.status().unwrap().node, "lb1");
    assert_eq!(problem(client.drain(None)).code, "read_only");
    assert_eq!(problem(client.reload()).code, "read_only");
    assert!(server.fake.orders.lock().unwrap().is_empty());
}

/// An authority, and certificates of it.
mod certificates {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

    pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

    impl Authority {
        pub(super) fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
        }

        pub(super) fn pem(&self) -> String {
            self.0.pem()
        }

        pub(super) fn sign(&self, name: SanType) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.subject_alt_names = vec![name];
            (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
        }
    }
}

#[test]
fn over_tls_a_certificate_says_who_asks() {
    use certificates::Authority;
    use rcgen::SanType;
    let (servers, users) = (Authority::new(), Authority::new());
    let (cert, key) = servers.sign(SanType::DnsName("lb1.example.org".try_into().unwrap()));
    let pem = |text: String| Pem(text.into_bytes());
    let tcp =
        Tcp::start(Some(Tls { cert: pem(cert), key: pem(key), client_ca: Some(pem(users.pem())) }));
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let ann = users.sign(uri("buoy:operate/ann"));
    let nobody = users.sign(uri("https://example.org/ann"));
    let stranger = servers.sign(uri("buoy:admin/eve"));
    let ask = |line: &str, user: Option<&(String, String)>, headers: &str| {
        over_tls(
            &tcp,
            &servers.pem(),
            user,
            &format!("{line} HTTP/1.0\r\nhost: lb1.example.org\r\n{headers}\r\n"),
        )
    };
    assert!(ask("GET /v1/status", Some(&ann), "").unwrap().contains(" 200 "));
    assert!(ask("POST /v1/drain", Some(&ann), "").unwrap().contains("by ann"));
    assert!(ask("GET /v1/me", Some(&ann), "").unwrap().contains(r#""by":"certificate""#));
    assert!(ask("POST /v1/reload", Some(&ann), "").unwrap().contains(" 403 "));
    assert!(ask("GET /v1/status", Some(&nobody), "").unwrap().contains(" 401 "));
    assert!(ask("GET /v1/status", None, "").unwrap().contains(" 401 "));
    assert!(ask("GET /v1/status", None, &bearer("buoy_read")).unwrap().contains(" 200 "));
    let told = ask("GET /v1/status", Some(&stranger), "");
    assert!(told.as_ref().is_err() || told.as_ref().is_ok_and(String::is_empty), "{told:?}");
    let plain = tcp.ask("GET /v1/status", "").1;
    assert!(!plain.contains("HTTP/1.1 200"), "nothing in the clear: {plain}");
}

/// One request over TLS, by a client with that certificate.
fn over_tls(
    tcp: &Tcp,
    ca: &str,
    user: Option<&(String, String)>,
    request: &str,
) -> io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    for root in rustls_pemfile::certs(&mut ca.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match user {
        Some((cert, key)) => {
            let chain = rustls_pemfile::certs(&mut cert.as_bytes()).map(Result::unwrap).collect();
            let key = rustls_pemfile::private_key(&mut key.as_bytes()).unwrap().unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let name = "lb1.example.org".try_into().unwrap();
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(tcp.at)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut stream = rustls::StreamOwned::new(session, stream);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // The agent closes its side without a farewell.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        Ok(_) | Err(_) => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

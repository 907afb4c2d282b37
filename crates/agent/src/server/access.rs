//! Decides who may ask what: on the UNIX socket by the kernel's word, over TCP by a token or a certificate.
//!
//! Browsers send requests on behalf of pages that nobody trusts. So over TCP a request must be meant for this host
//! (`Host` against DNS rebinding) and come from this host's own page or from no page (`Origin`).

use super::account;
use super::failure::Failure;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use buoy_api::MeReply;
use buoy_config::{Role, Token};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What a certificate of a user says of him: `buoy:ROLE/NAME`.
const SCHEME: &str = "buoy:";

/// Who is at the other end of a connection, and by which door he came.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    who: Who,
    /// What he may do; `None`: nothing, unless a request says who he is.
    role: Option<Role>,
    /// He came over the network.
    door: Option<Arc<Door>>,
}

#[derive(Clone, Debug)]
enum Who {
    /// A user of this host.
    Local(Option<u32>),
    /// Known by his token.
    Token(String),
    /// Known by his certificate.
    Certificate(String),
    /// Known to another node, which passes his order on.
    Elsewhere { user: String, node: String },
    /// Not known yet.
    Stranger(IpAddr),
}

/// What holds for those who come over TCP.
#[derive(Debug)]
pub(super) struct Door {
    tokens: Vec<Token>,
    /// Names that this host has by its certificate.
    names: Vec<String>,
    has_tls: bool,
}

impl Door {
    pub(super) fn new(tokens: Vec<Token>, names: Vec<String>, has_tls: bool) -> Self {
        Self { tokens, names, has_tls }
    }
}

impl Asker {
    /// Somebody on this host, by the kernel's word (SO_PEERCRED). The mode of the socket's file lets him in.
    pub(super) const fn local(uid: Option<u32>, role: Role) -> Self {
        Self { who: Who::Local(uid), role: Some(role), door: None }
    }

    /// Somebody who has asked another node, and may do so much there.
    pub(super) const fn passed_on(user: String, role: Role, node: String) -> Self {
        Self { who: Who::Elsewhere { user, node }, role: Some(role), door: None }
    }

    /// What he may do where his order is passed on; `None`: it was passed on once already.
    pub(super) const fn passes_on(&self) -> Option<Role> {
        match &self.who {
            Who::Local(_) | Who::Token(_) | Who::Certificate(_) => self.role,
            Who::Elsewhere { .. } | Who::Stranger(_) => None,
        }
    }

    /// Somebody over TCP, known by the URIs of his certificate, if he has one.
    pub(super) fn remote(from: SocketAddr, uris: &[String], door: Arc<Door>) -> Self {
        let known = uris.iter().find_map(|uri| {
            let (role, name) = uri.strip_prefix(SCHEME)?.split_once('/')?;
            let is_name = !name.is_empty() && !name.chars().any(|c| c.is_control() || c == '/');
            Some((Role::parse(role).filter(|_| is_name)?, name.to_owned()))
        });
        let (role, who) = match known {
            Some((role, name)) => (Some(role), Who::Certificate(name)),
            None => (None, Who::Stranger(from.ip())),
        };
        Self { who, role, door: Some(door) }
    }

    /// As it stands in the records.
    pub(super) fn name(&self) -> String {
        match &self.who {
            Who::Local(uid) => uid.map_or_else(|| "an unknown user".into(), account::user_name),
            Who::Token(name) | Who::Certificate(name) => name.clone(),
            Who::Elsewhere { user, node } => format!("{user} on {node}"),
            Who::Stranger(from) => format!("somebody at {from}"),
        }
    }

    /// What is known of him, on that node.
    pub(super) fn introduce(&self, node: &str) -> MeReply {
        let (by, uid) = match &self.who {
            Who::Local(uid) => ("kernel", *uid),
            Who::Token(_) => ("token", None),
            Who::Certificate(_) => ("certificate", None),
            Who::Elsewhere { .. } => ("node", None),
            Who::Stranger(_) => ("nothing", None),
        };
        MeReply {
            node: node.into(),
            name: self.name(),
            by: by.into(),
            uid,
            role: self.role.map_or("none", Role::name).into(),
            may: Role::ALL.iter().filter(|role| Some(**role) <= self.role).map(may).collect(),
        }
    }

    /// The same with what this request says of him.
    fn of(mut self, headers: &HeaderMap) -> Result<Self, Failure> {
        let Some(door) = &self.door else { return Ok(self) };
        let Some(said) = headers.get(AUTHORIZATION) else { return Ok(self) };
        let said = said.to_str().unwrap_or_default();
        let token = match said.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            Some(_) | None => return Err(Failure::unknown_token()),
        };
        let hash = Token::hash(token);
        let user = door.tokens.iter().find(|user| user.hash == hash);
        let user = user.ok_or_else(Failure::unknown_token)?;
        self.role = Some(user.role);
        self.who = Who::Token(user.name.clone());
        Ok(self)
    }
}

impl Failure {
    fn unknown_token() -> Self {
        let title = "that is no token of this agent";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", title, "")
            .fix("send `Authorization: Bearer TOKEN`; `buoy token new NAME --role read` makes one")
    }

    fn stranger() -> Self {
        let title = "this agent does not know who asks";
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", title, "").fix(
            "send `Authorization: Bearer TOKEN`, or a certificate of `client_ca` with the URI buoy:ROLE/NAME",
        )
    }

    fn role(asker: &Asker, needed: Role) -> Self {
        let may = asker.role.map_or("nothing", Role::name);
        let title = format!("{} may not do that", asker.name());
        let detail = format!("it takes the role {}, and his is {may}", needed.name());
        Self::new(StatusCode::FORBIDDEN, "role", &title, detail)
    }

    fn read_only() -> Self {
        let title = "this socket answers questions only";
        Self::new(StatusCode::FORBIDDEN, "read_only", title, "")
            .fix("orders go to api.sock beside it")
    }

    fn host(host: &str) -> Self {
        let title = "the request is not meant for this agent";
        let detail = format!("its `Host` is {host:?}");
        Self::new(StatusCode::MISDIRECTED_REQUEST, "host", title, detail)
            .fix("ask by an address of this host, `localhost`, or a name in its certificate")
    }

    fn origin(origin: &str) -> Self {
        let title = "a page of another site may not ask here";
        Self::new(StatusCode::FORBIDDEN, "origin", title, format!("`Origin` is {origin:?}"))
    }
}

pub(super) async fn check(mut request: Request, next: Next) -> Response {
    let asker = request.extensions().get::<ConnectInfo<Asker>>().map(|info| info.0.clone());
    // Every door says who comes by it.
    let Some(asker) = asker else { return Failure::stranger().into_response() };
    match admitted(asker, &request) {
        Ok(asker) => {
            request.extensions_mut().insert(ConnectInfo(asker));
            next.run(request).await
        }
        Err(failure) => {
            let mut response = failure.into_response();
            if response.status() == StatusCode::UNAUTHORIZED {
                let how = HeaderValue::from_static("Bearer realm=\"buoy\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, how);
            }
            response
        }
    }
}

fn admitted(asker: Asker, request: &Request) -> Result<Asker, Failure> {
    let (method, path) = (request.method(), request.uri().path());
    if let Some(door) = &asker.door {
        check_host(door, request)?;
    }
    let asker = asker.of(request.headers())?;
    let needed = needed(method, path);
    match (needed, asker.role) {
        (None, _) => Ok(asker),
        (Some(needed), Some(role)) if needed <= role => Ok(asker),
        (Some(_), None) => Err(Failure::stranger()),
        (Some(_), Some(_)) if asker.door.is_none() => Err(Failure::read_only()),
        (Some(needed), Some(_)) => Err(Failure::role(&asker, needed)),
    }
}

/// Refuses what a browser was made to send, whoever it is.
fn check_host(door: &Door, request: &Request) -> Result<(), Failure> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next().map(text), hosts.next()) else {
        return Err(Failure::host(""));
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        Some(_) | None => &host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_name = |known: &String| match known.strip_prefix("*.") {
        Some(domain) => name.split_once('.').is_some_and(|(_, d)| d.eq_ignore_ascii_case(domain)),
        None => name.eq_ignore_ascii_case(known),
    };
    let is_here = bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || door.names.iter().any(is_name);
    if !is_here {
        return Err(Failure::host(&host));
    }
    let scheme = if door.has_tls { "https" } else { "http" };
    match request.headers().get(ORIGIN).map(text) {
        Some(origin) if !origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")) => {
            Err(Failure::origin(&origin))
        }
        Some(_) | None => Ok(()),
    }
}

/// What a role adds to those before it, in words: `needed` holds it.
fn may(role: &Role) -> String {
    match role {
        Role::Read => "ask for everything but the configuration",
        Role::Operate => {
            "read the configuration; move, hold, release and announce VIPs; drain and cordon nodes; order backends; run drills"
        }
        Role::Admin => "change the configuration, reload the file, collect a support archive",
    }
    .into()
}

/// What it takes; `None`: nothing. What is not known here takes most.
fn needed(method: &Method, path: &str) -> Option<Role> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if [Method::GET, Method::HEAD].contains(method) {
        return match parts.as_slice() {
            // The page is the same for everybody; what it shows it asks for.
            [""] | ["page", ..] | ["healthz" | "readyz"] | ["v1", "readyz"] => None,
            // As it is written: with headers of checks, and where keys are.
            ["v1", "config", ..] => Some(Role::Operate),
            // Logs, addresses and settings of the host; and making it costs.
            ["v1", "support"] => Some(Role::Admin),
            _ => Some(Role::Read),
        };
    }
    Some(match (method.as_str(), parts.as_slice()) {
        ("POST", ["v1", "vips", _, "move" | "hold" | "release" | "announce"]) => Role::Operate,
        ("POST", ["v1", "services", _, "backends", _, _]) => Role::Operate,
        ("POST", ["v1", "drain" | "undrain" | "drills"]) => Role::Operate,
        ("PATCH", ["v1", "nodes", _]) => Role::Operate,
        _ => Role::Admin,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_ordering_and_changing_take_more_and_more() {
        let table = [
            ("GET", "/", None),
            ("GET", "/page/app.js", None),
            ("GET", "/healthz", None),
            ("GET", "/metrics", Some(Role::Read)),
            ("GET", "/v1/status", Some(Role::Read)),
            ("GET", "/v1/me", Some(Role::Read)),
            ("GET", "/v1/support", Some(Role::Admin)),
            ("HEAD", "/v1/config", Some(Role::Operate)),
            ("GET", "/v1/config/vips/web", Some(Role::Operate)),
            // A text may name any file of this host, and what is said tells whether it is there.
            ("POST", "/v1/config/validate", Some(Role::Admin)),
            ("POST", "/v1/config/diff", Some(Role::Admin)),
            ("POST", "/v1/config/apply", Some(Role::Admin)),
            ("POST", "/v1/drain", Some(Role::Operate)),
            // Drains, and cordons.
            ("PATCH", "/v1/nodes/lb1", Some(Role::Operate)),
            ("POST", "/v1/vips/web/move", Some(Role::Operate)),
            ("POST", "/v1/vips/web/announce", Some(Role::Operate)),
            ("POST", "/v1/services/web:443/backends/web1/drain", Some(Role::Operate)),
            ("PUT", "/v1/services/web:443/backends/web1", Some(Role::Admin)),
            ("PUT", "/v1/services/web:443", Some(Role::Admin)),
            ("DELETE", "/v1/services/web:443", Some(Role::Admin)),
            ("GET", "/v1/config/services/web:443", Some(Role::Operate)),
            ("PUT", "/v1/vips/web", Some(Role::Admin)),
            ("POST", "/v1/reload", Some(Role::Admin)),
            ("POST", "/healthz", Some(Role::Admin)),
            ("BREW", "/v1/coffee", Some(Role::Admin)),
        ];
        for (method, path, expected) in table {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(needed(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_request_is_meant_for_this_host_and_comes_from_its_own_page() {
        let check = |has_tls, host: &[&str], origin: Option<&str>| {
            let names = vec!["lb1.example.org".into(), "*.vip.example.org".into()];
            let mut request = Request::get("/v1/status");
            for host in host {
                request = request.header(HOST, *host);
            }
            if let Some(origin) = origin {
                request = request.header(ORIGIN, origin);
            }
            let request = request.body(axum::body::Body::empty()).unwrap();
            let checked = check_host(&Door::new(vec![], names, has_tls), &request);
            checked.map_err(|failure| failure.problem().code.clone())
        };
        let fine = [
            "127.0.0.1:4749",
            "10.0.0.11",
            "[::1]:4749",
            "[::1]",
            "localhost:4749",
            "LB1.example.org:443",
            "a.vip.example.org",
        ];
        for host in fine {
            assert_eq!(check(true, &[host], None), Ok(()), "{host}");
            assert_eq!(check(true, &[host], Some(&format!("https://{host}"))), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example:4749",
            "",
            "vip.example.org",
            "a.b.vip.example.org",
        ] {
            assert_eq!(check(true, &[host], None), Err("host".into()), "{host}");
        }
        assert_eq!(check(true, &[], None), Err("host".into()));
        assert_eq!(check(true, &["127.0.0.1", "127.0.0.1"], None), Err("host".into()));
        for origin in ["null", "https://evil.example", "http://127.0.0.1:4749", "https://127.0.0.1"]
        {
            let said = check(true, &["127.0.0.1:4749"], Some(origin));
            assert_eq!(said, Err("origin".into()), "{origin}");
        }
        assert_eq!(check(false, &["127.0.0.1:4749"], Some("http://127.0.0.1:4749")), Ok(()));
    }

    #[test]
    fn a_certificate_says_who_somebody_is_and_what_he_may_do() {
        let table = [
            ("buoy:operate/ann", Some(("ann", Role::Operate))),
            ("buoy:admin/ci runner", Some(("ci runner", Role::Admin))),
            ("buoy:root/ann", None),
            ("buoy:read/", None),
            ("buoy:read", None),
            ("buoy:read/a\nb", None),
            ("spiffe://x/buoy:read/ann", None),
        ];
        for (uri, expected) in table {
            let door = Arc::new(Door::new(vec![], vec![], true));
            let from = ([10, 0, 0, 9], 5).into();
            let asker = Asker::remote(from, &["https://x".into(), uri.into()], door);
            let known = asker.role.map(|role| (asker.name(), role));
            assert_eq!(known, expected.map(|(name, role)| (name.to_owned(), role)), "{uri}");
        }
    }
}

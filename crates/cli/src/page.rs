//! `buoy page`: opens the agent's web page to the browser of the user who runs it.
//!
//! A browser cannot speak to a UNIX socket. So this process listens on the loopback interface and
//! hands every request on to the agent's socket, with the rights of the user who ran it, until it
//! is stopped. Everybody on the host can reach a loopback port, and every site that the browser
//! shows can try to; hence the three guards of `admit`: the name in `Host`, the cookie that the
//! secret address is exchanged for, and `Origin`.

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE, COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixStream};

/// Names of this host that only this host can mean; a name that an attacker's DNS points here is none.
const LOOPBACK_NAMES: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];
/// Random bytes of a secret.
const SECRET_LENGTH: usize = 16;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Where the browser finds it: an address of this host's loopback interface (port 0: any)
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,
}

/// What decides who may come in, and where they go.
struct Gate {
    socket: PathBuf,
    /// In the address that is printed.
    token: String,
    /// As it stands in `Cookie`: a name of its own, for cookies are shared by all ports of a host.
    cookie: String,
}

/// Why somebody does not come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Refusal {
    Host,
    Token,
    Cookie,
    Origin,
}

/// What becomes of a request.
#[derive(Debug, Eq, PartialEq)]
enum Verdict {
    /// It had the secret address: it gets the cookie, and goes on to the page.
    Exchange,
    Forward,
    Refuse(Refusal),
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { agent, listen } = arguments;
    if !listen.ip().is_loopback() {
        return Err(Failure::failed(format!(
            "{listen} is not on the loopback interface: whoever reaches this port acts with your rights. From another \
             machine, run `ssh -L 8480:127.0.0.1:8480 HOST` there and open the same address"
        )));
    }
    // Asked before anything is promised: nobody wants the address of an empty page.
    agent.client()?.status()?;
    let (token, cookie) = (secret()?, format!("buoy-{}={}", secret()?, secret()?));
    let gate = Gate { socket: agent.socket.clone(), token, cookie };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    runtime.block_on(serve(*listen, gate))
}

async fn serve(listen: SocketAddr, gate: Gate) -> Result<(), Failure> {
    let remedy = "name another one with --listen, as in --listen 127.0.0.1:0 for any port";
    let cannot =
        |error: io::Error| Failure::failed(format!("cannot listen on {listen}: {error}; {remedy}"));
    let listener = TcpListener::bind(listen).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    output::text(&format!(
        "The page is at http://{address}/open?token={token}\n\
         It acts with your rights; keep the address to yourself. Ctrl-C ends it.\n",
        token = gate.token
    ))?;
    let router = Router::new().fallback(answer).with_state(Arc::new(gate));
    // An open page keeps a connection that never ends: it is cut, not waited for.
    tokio::select! {
        served = axum::serve(listener, router) => served.map_err(cannot),
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| Failure::failed(format!("cannot wait for Ctrl-C: {error}")))
        }
    }
}

async fn answer(State(gate): State<Arc<Gate>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    match gate.admit(&parts) {
        Verdict::Refuse(refusal) => refused(refusal),
        Verdict::Exchange => {
            let cookie = format!("{}; Path=/; HttpOnly; SameSite=Strict", gate.cookie);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::SEE_OTHER;
            let headers = response.headers_mut();
            headers.insert(LOCATION, HeaderValue::from_static("/"));
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.insert(SET_COOKIE, cookie);
            }
            response
        }
        Verdict::Forward => match gate.forward(parts, body).await {
            Ok(response) => response,
            Err(error) => unreachable_agent(&gate, &error),
        },
    }
}

impl Gate {
    fn admit(&self, parts: &Parts) -> Verdict {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let host = header(HOST).unwrap_or_default();
        if !is_loopback_name(host) {
            return Verdict::Refuse(Refusal::Host);
        }
        if parts.uri.path() == "/open" && parts.method == Method::GET {
            let token = parts.uri.query().and_then(|query| query.strip_prefix("token="));
            return match token {
                Some(token) if same(token, &self.token) => Verdict::Exchange,
                Some(_) | None => Verdict::Refuse(Refusal::Token),
            };
        }
        let cookies = parts.headers.get_all(COOKIE).iter().filter_map(|all| all.to_str().ok());
        let mut cookies = cookies.flat_map(|all| all.split(';'));
        if !cookies.any(|cookie| same(cookie.trim(), &self.cookie)) {
            return Verdict::Refuse(Refusal::Cookie);
        }
        // Sites of other ports of this host are the same site, which is all that SameSite asks for.
        if header(ORIGIN).is_some_and(|origin| origin != format!("http://{host}")) {
            return Verdict::Refuse(Refusal::Origin);
        }
        Verdict::Forward
    }

    /// Hands the request on; the answer comes back as it is, while the agent still writes it.
    async fn forward(&self, mut parts: Parts, body: Body) -> io::Result<Response> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(other)?;
        // Ends with the answer's body, or with its reader.
        tokio::spawn(connection);
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        parts.uri = target.parse::<Uri>().map_err(other)?;
        // What is between the browser and this process is none of the agent's business.
        for name in [COOKIE, ORIGIN, CONNECTION] {
            parts.headers.remove(name);
        }
        parts.headers.insert(HOST, HeaderValue::from_static("localhost"));
        let mut response =
            sender.send_request(Request::from_parts(parts, body)).await.map_err(other)?;
        response.headers_mut().remove(CONNECTION);
        Ok(response.map(Body::new))
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// Whether `Host` is this host whatever the DNS says; the port may be that of a tunnel.
fn is_loopback_name(host: &str) -> bool {
    LOOPBACK_NAMES.iter().any(|name| {
        let port = host.strip_prefix(name).map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        port.is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// Compares secrets in a time that does not say where they differ.
fn same(one: &str, two: &str) -> bool {
    let differing = one.bytes().zip(two.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == two.len() && differing == 0
}

fn secret() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_LENGTH];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the kernel gives no random numbers: {error}")))?;
    Ok(bytes.iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string does not fail.
        let _written = write!(hex, "{byte:02x}");
        hex
    }))
}

fn refused(refusal: Refusal) -> Response {
    let (status, code, title, detail) = match refusal {
        Refusal::Host => (
            StatusCode::MISDIRECTED_REQUEST,
            "host",
            "the page is not there under this name",
            "open it as 127.0.0.1, localhost or [::1]: another name may be an attacker's",
        ),
        Refusal::Token => (
            StatusCode::FORBIDDEN,
            "token",
            "this is not the address that `buoy page` printed",
            "open the whole address; each run of `buoy page` has a new one",
        ),
        Refusal::Cookie => (
            StatusCode::UNAUTHORIZED,
            "cookie",
            "open the address that `buoy page` printed",
            "it ends with a token that lets this browser in; each run of `buoy page` has a new one",
        ),
        Refusal::Origin => (
            StatusCode::FORBIDDEN,
            "origin",
            "another site asked",
            "only the page itself may ask the agent through `buoy page`",
        ),
    };
    problem(status, code, title, detail)
}

fn unreachable_agent(gate: &Gate, error: &io::Error) -> Response {
    let detail = format!("{}: {error}; `buoy doctor` says more", gate.socket.display());
    problem(StatusCode::BAD_GATEWAY, "no_agent", "the agent does not answer", &detail)
}

/// A problem in the form of the API's own.
fn problem(status: StatusCode, code: &str, title: &str, detail: &str) -> Response {
    let body = serde_json::json!({
        "type": "about:blank", "status": status.as_u16(), "code": code, "title": title, "detail": detail,
    });
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(target: &str, headers: &[(&str, &str)]) -> Verdict {
        let gate =
            Gate { socket: "/x".into(), token: "t0k3n".into(), cookie: "buoy-a=s3cr3t".into() };
        let mut request = Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        gate.admit(&request.body(Body::empty()).unwrap().into_parts().0)
    }

    #[test]
    fn only_who_had_the_secret_address_comes_in() {
        let host = ("host", "localhost:8480");
        let cookie = ("cookie", "other=1; buoy-a=s3cr3t");
        let refuse = Verdict::Refuse;
        assert_eq!(verdict("/open?token=t0k3n", &[host]), Verdict::Exchange);
        assert_eq!(verdict("/open?token=t0k3", &[host]), refuse(Refusal::Token));
        assert_eq!(verdict("/open?token=", &[host, cookie]), refuse(Refusal::Token));
        assert_eq!(verdict("/open", &[host]), refuse(Refusal::Token));
        assert_eq!(verdict("/v1/status", &[host]), refuse(Refusal::Cookie));
        assert_eq!(verdict("/", &[host, ("cookie", "buoy-a=")]), refuse(Refusal::Cookie));
        assert_eq!(verdict("/v1/status", &[host, cookie]), Verdict::Forward);
    }

    #[test]
    fn other_sites_are_kept_out_though_the_browser_has_the_cookie() {
        let cookie = ("cookie", "buoy-a=s3cr3t");
        for (host, origin, expected) in [
            ("127.0.0.1:8480", "http://127.0.0.1:8480", Verdict::Forward),
            ("[::1]:9", "http://[::1]:9", Verdict::Forward),
            ("localhost", "http://localhost", Verdict::Forward),
            ("localhost:8480", "http://localhost:3000", Verdict::Refuse(Refusal::Origin)),
            ("localhost:8480", "null", Verdict::Refuse(Refusal::Origin)),
            ("evil.example:8480", "http://evil.example:8480", Verdict::Refuse(Refusal::Host)),
            ("localhost.evil.example", "", Verdict::Refuse(Refusal::Host)),
            ("", "", Verdict::Refuse(Refusal::Host)),
        ] {
            let headers = [("host", host), ("origin", origin), cookie];
            assert_eq!(verdict("/v1/status", &headers), expected, "{host} {origin}");
        }
    }

    #[test]
    fn a_port_that_others_reach_is_refused() {
        let agent = AgentSocket { socket: "/nonexistent/api.sock".into() };
        let listen = "0.0.0.0:8480".parse().unwrap();
        let failure = run(&Arguments { agent, listen }).expect_err("everybody could come in");
        assert!(failure.message.contains("ssh -L"), "{}", failure.message);
    }
}

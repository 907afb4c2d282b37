//! Asks one server once, in the protocol that the check names.
//!
//! The caller limits the time and drops the question, and with it all that it holds; here the size
//! of an answer is limited. What is wrong comes back in words for people. One file for each protocol.

pub(crate) mod apart;
mod dns;
pub(crate) mod exec;
mod grpc;
mod http;
mod http2;
mod icmp;
mod lines;
pub(crate) mod local;
mod mysql;
mod postgres;
pub(crate) mod tls;
mod udp;
pub(crate) mod vip;

use apart::Apart;
use buoy_model::{CheckKind, HttpCheck, Load, PostgresRole, Protocol, Running};
use buoy_wire::answer::text;
pub(crate) use buoy_wire::answer::{Answer, Said, WHOLE_SHARE};
use exec::Program;
use http::Pattern;
use local::{Seeker, Wanted};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tls::Handshake;
use vip::{Door, Path, Turn};

/// Whom a question is about.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The backend's name; none of a server that is no backend.
    pub(crate) name: String,
    /// Where it is asked.
    pub(crate) address: SocketAddr,
}

impl Target {
    /// A server that is no backend.
    pub(crate) const fn server(address: SocketAddr) -> Self {
        Self { name: String::new(), address }
    }

    /// A text with the backend's own in place of `{name}`, `{address}` and `{port}`.
    fn fill(&self, text: &str) -> String {
        text.replace("{address}", &self.address.ip().to_string())
            .replace("{port}", &self.address.port().to_string())
            .replace("{name}", &self.name)
    }
}

/// The question for one server.
#[derive(Debug)]
pub(crate) struct Asker {
    question: Question,
    address: SocketAddr,
    /// The header that says how loaded the server is.
    load: Option<String>,
    /// On the heap, as it is mostly small and sometimes not.
    path: Box<Path>,
}

#[derive(Debug)]
enum Question {
    Tcp,
    Tls(Handshake),
    Http { http: Box<HttpCheck>, tls: Option<Handshake>, pattern: Pattern },
    Grpc { service: String, host: Option<String>, tls: Option<Handshake> },
    Redis,
    Smtp,
    Mysql,
    Postgres { role: Option<PostgresRole>, user: String },
    Icmp,
    Dns { name: String, record: String, over: Protocol },
    Udp { send: Vec<u8>, expect: Vec<u8> },
    Agent,
    Exec { program: Program, apart: Apart },
    File { wanted: Wanted, apart: Apart },
    Process { seeker: Seeker, apart: Apart },
    Pidfile { path: String, apart: Apart },
}

impl Asker {
    /// Asks a server at its address.
    pub(crate) fn new(kind: &CheckKind, target: &Target) -> Self {
        Self::by(Path::Itself, kind, target)
    }

    /// Asks a backend where the path leads.
    pub(crate) fn by(path: Path, kind: &CheckKind, target: &Target) -> Self {
        let address = target.address;
        let question = match kind {
            CheckKind::Tcp => Question::Tcp,
            CheckKind::Tls { host, tls } => {
                Question::Tls(Handshake::new(tls, host.as_deref(), address, &[]))
            }
            CheckKind::Http(http) => {
                let protocols: &[&[u8]] = if http.http2 { &[b"h2"] } else { &[] };
                let tls = http
                    .tls
                    .as_ref()
                    .map(|tls| Handshake::new(tls, http.host.as_deref(), address, protocols));
                let pattern = Pattern::new(http.body.as_ref());
                Question::Http { http: http.clone(), tls, pattern }
            }
            CheckKind::Grpc { service, host, tls } => Question::Grpc {
                service: service.clone(),
                host: host.clone(),
                tls: tls
                    .as_ref()
                    .map(|tls| Handshake::new(tls, host.as_deref(), address, &[b"h2"])),
            },
            CheckKind::Redis => Question::Redis,
            CheckKind::Smtp => Question::Smtp,
            CheckKind::Mysql => Question::Mysql,
            CheckKind::Icmp => Question::Icmp,
            CheckKind::Postgres { role, user } => {
                Question::Postgres { role: *role, user: user.clone() }
            }
            CheckKind::Dns { name, record, over } => {
                Question::Dns { name: name.clone(), record: record.clone(), over: *over }
            }
            CheckKind::Udp { send, expect } => {
                Question::Udp { send: send.clone(), expect: expect.clone() }
            }
            CheckKind::Agent => Question::Agent,
            CheckKind::Exec { program, arguments, user, weighs } => {
                Question::exec(target, program, arguments, user, *weighs)
            }
            CheckKind::File { path, contains, age_max, weighs } => {
                let (path, contains) = (target.fill(path), contains.clone());
                let wanted = Wanted { path, contains, age_max: *age_max, weighs: *weighs };
                Question::File { wanted, apart: Apart::new() }
            }
            CheckKind::Process(running) => Question::process(running),
        };
        Self { question, address, path: Box::new(path), load: None }
    }

    /// Looks for the load in this header, if in any.
    pub(crate) fn with_load(self, load: Option<&Load>) -> Self {
        let load = match load {
            Some(Load::Header(name)) => Some(name.clone()),
            Some(Load::Latency) | None => None,
        };
        Self { load, ..self }
    }

    /// Asks once.
    pub(crate) async fn ask(&self) -> Answer {
        let itself = Door::to(self.address);
        let vips = match &*self.path {
            Path::Itself => return self.ask_by(itself).await,
            Path::Instead(aside) => return vip::instead(aside, self.ask_by(itself).await),
            Path::Vips(vips) => vips,
        };
        let mut said = Said::default();
        for way in vips.ways() {
            let answer = match vips.turn(way, self.address) {
                Ok(Turn::Ask(door)) => self.ask_by(door).await,
                Ok(Turn::Instead(aside)) => vip::instead(&aside, self.ask_by(itself).await),
                Err(reason) => Err(reason),
            };
            said = answer.map_err(|reason| vips.complain(&reason))?;
        }
        Ok(said)
    }

    /// Why there was no answer in time.
    pub(crate) fn silence(&self, timeout: Duration) -> String {
        match &*self.path {
            Path::Itself | Path::Instead(_) => format!("timed out after {timeout:?}"),
            Path::Vips(vips) => vips.silent(timeout),
        }
    }

    async fn ask_by(&self, door: Door) -> Answer {
        match &self.question {
            Question::Tcp => door.knock().await.map(|()| Said::default()),
            Question::Tls(handshake) => {
                let (_stream, said) = handshake.shake(door.connect().await?).await?;
                Ok(said)
            }
            Question::Http { http, tls: None, pattern } => {
                let sought = (pattern, self.load.as_deref());
                http::ask(door.connect().await?, http, self.address, sought).await
            }
            Question::Http { http, tls: Some(handshake), pattern } => {
                let (stream, said) = handshake.shake(door.connect().await?).await?;
                let sought = (pattern, self.load.as_deref());
                let answer = http::ask(stream, http, self.address, sought).await?;
                // A certificate that ends breaks more than a load that is not said.
                let warning = if said.urgent { said.warning } else { answer.warning };
                Ok(Said { warning, load: answer.load, ..said })
            }
            Question::Grpc { service, host, tls: None } => {
                let stream = door.connect().await?;
                grpc::ask(stream, self.address, host.as_deref(), service, false).await
            }
            Question::Grpc { service, host, tls: Some(handshake) } => {
                let (stream, said) = handshake.shake(door.connect().await?).await?;
                let answer = grpc::ask(stream, self.address, host.as_deref(), service, true).await;
                answer.map(|_| said)
            }
            Question::Redis => lines::redis(door.connect().await?).await,
            Question::Smtp => lines::smtp(door.connect().await?).await,
            Question::Mysql => mysql::ask(door.connect().await?).await,
            Question::Postgres { role, user } => {
                postgres::ask(door.connect().await?, *role, user).await
            }
            Question::Icmp => icmp::ask(self.address.ip()).await,
            Question::Agent => lines::agent(door.connect().await?).await,
            Question::Dns { name, record, over } => dns::ask(door, name, record, *over).await,
            Question::Udp { send, expect } => udp::ask(door, send, expect).await,
            Question::Exec { program, apart } => {
                let said = exec::run(apart, program).await?;
                if program.heard { text::weight(&said, &program.path) } else { Ok(Said::default()) }
            }
            Question::File { wanted, apart } => {
                let wanted = wanted.clone();
                apart.run(move |_| local::file(&wanted)).await
            }
            Question::Process { seeker, apart } => {
                let seeker = seeker.clone();
                apart.run(move |_| seeker.look()).await.map(|()| Said::default())
            }
            Question::Pidfile { path, apart } => {
                let path = path.clone();
                apart.run(move |_| local::pidfile(&path)).await.map(|()| Said::default())
            }
        }
    }
}

impl Question {
    fn exec(
        target: &Target,
        program: &str,
        arguments: &[String],
        user: &str,
        weighs: bool,
    ) -> Self {
        let environment = vec![
            ("BUOY_BACKEND", target.name.clone()),
            ("BUOY_ADDRESS", target.address.ip().to_string()),
            ("BUOY_PORT", target.address.port().to_string()),
        ];
        let arguments = arguments.iter().map(|text| target.fill(text)).collect();
        let (path, user) = (program.to_owned(), Some(user.to_owned()));
        let input = None;
        let program = Program { path, arguments, environment, input, user, heard: weighs };
        Self::Exec { program, apart: Apart::new() }
    }

    fn process(running: &Running) -> Self {
        let apart = Apart::new();
        match running {
            Running::Called(name) => Self::Process { seeker: Seeker::new(name.clone()), apart },
            Running::In(path) => Self::Pidfile { path: path.clone(), apart },
        }
    }
}

/// Why there is no connection.
pub(super) fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return "connection refused".into();
    }
    if error.kind() == io::ErrorKind::HostUnreachable
        || error.kind() == io::ErrorKind::NetworkUnreachable
    {
        return "no route to the host".into();
    }
    format!("cannot connect: {error}")
}

/// What a server that closes the connection too early is said to do.
const CLOSED: &str = "closed the connection without an answer";

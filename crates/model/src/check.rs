//! How a backend or a server of this host is asked whether it is well, and what answer passes.

use crate::{BackendState, Protocol};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU8;
use core::time::Duration;

/// How a backend is asked whether it is well.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// The question.
    pub kind: CheckKind,
    /// The port to ask; `None`: the backend's own.
    pub port: Option<u16>,
    /// How packets get to the backend on the VIPs of its service; `None`: it is asked at its own address.
    pub via: Option<Via>,
    /// How often, and how many answers decide.
    pub pace: Pace,
    /// How many nodes ask and tell the others; `None`: each node asks, and goes by its own answers.
    pub askers: Option<NonZeroU8>,
    /// What the share of a backend follows besides; `None`: nothing.
    pub load: Option<Load>,
}

/// By what a backend's load is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Load {
    /// How long its answers take, compared with those of the service's other backends.
    Latency,
    /// The header of this name, in an answer of HTTP: percent.
    Header(String),
}

/// The way of clients' packets, where a backend is asked on it: as the service forwards them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Via {
    /// As they are, with `Forward::Dsr`.
    Direct,
    /// In other packets, with `Forward::Tunnel` and `Forward::Gue`.
    Tunnel,
}

impl Via {
    /// As the file calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A backend of a service, as nodes speak of it: a hash that is the same on all of them.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Subject(pub u64);

impl Subject {
    /// Of a text that names the backend (FNV-1a).
    pub fn of(name: &str) -> Self {
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
    }
}

/// What a node has found of a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opinion {
    /// Whether it may get new connections; `Unknown`: the node says nothing of it any more.
    pub state: BackendState,
    /// The share of its weight that it takes, in percent.
    pub share: u16,
}

/// What a right answer was worth besides, which turns nothing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Measured {
    /// How loaded the backend says that it is, in percent.
    pub load: Option<u8>,
    /// How long the answer took, to a microsecond.
    pub took: Option<Duration>,
}

/// What a node tells the others of a backend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Told {
    /// Of which.
    pub subject: Subject,
    /// What it has found.
    pub opinion: Opinion,
    /// What it has measured with that.
    pub measured: Measured,
    /// Why, in words; mostly empty.
    pub words: String,
}

/// How often something is asked, and how many answers decide.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Time from one question to the next.
    pub every: Duration,
    /// The same while it is down, or while its answers speak against what it is said to be.
    pub every_down: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many passes in a row and it is up.
    pub rise: u32,
    /// So many failures in a row and it is down.
    pub fall: u32,
}

/// The question of a check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CheckKind {
    /// A TCP handshake.
    Tcp,
    /// A TLS handshake.
    Tls {
        /// The name that is asked for; `None`: the address.
        host: Option<String>,
        /// Who is believed, and when to warn.
        tls: TlsCheck,
    },
    /// An HTTP request.
    Http(Box<HttpCheck>),
    /// The health service of gRPC (`grpc.health.v1`).
    Grpc {
        /// The service that is asked for; empty: the server as a whole.
        service: String,
        /// The authority of the request; `None`: the address that is asked.
        host: Option<String>,
        /// `None`: without TLS.
        tls: Option<TlsCheck>,
    },
    /// `PING` of Redis.
    Redis,
    /// The greeting of SMTP, and `EHLO`.
    Smtp,
    /// The first packet of MySQL.
    Mysql,
    /// PostgreSQL takes connections.
    Postgres {
        /// Which it must be; `None`: either.
        role: Option<PostgresRole>,
        /// Who asks.
        user: String,
    },
    /// ICMP echo.
    Icmp,
    /// A question of DNS that must have an answer.
    Dns {
        /// The name that is asked for, without a dot at its end.
        name: String,
        /// The type of record, as `dns_type` knows it.
        record: String,
        /// Over what it is asked: the protocol of the service.
        over: Protocol,
    },
    /// A datagram that must be answered.
    Udp {
        /// What is sent.
        send: Vec<u8>,
        /// What the answer must hold; empty: anything.
        expect: Vec<u8>,
    },
    /// HAProxy's agent protocol: the server says itself whether it is well, and what share it takes.
    Agent,
    /// A program of this host. In its arguments `{name}`, `{address}` and `{port}` are the backend's.
    Exec {
        /// Its absolute path.
        program: String,
        /// What it is given.
        arguments: Vec<String>,
        /// Whose rights it has; never root.
        user: String,
        /// Whether its first line is what an agent would say.
        weighs: bool,
    },
    /// A file of this host. In its path `{name}`, `{address}` and `{port}` are the backend's.
    File {
        /// Its absolute path.
        path: String,
        /// What must be in its first `CHECK_BODY_MAX` bytes.
        contains: Option<String>,
        /// It must have been written within so much time.
        age_max: Option<Duration>,
        /// Whether its first line is what an agent would say.
        weighs: bool,
    },
    /// A process of this host.
    Process(Running),
}

/// By what a process is found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Running {
    /// By its name.
    Called(String),
    /// By the number in this file.
    In(String),
}

/// What a server of PostgreSQL does for its cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PostgresRole {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Replica,
}

/// The number of a type of record of DNS.
pub fn dns_type(name: &str) -> Option<u16> {
    DNS_TYPES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The types of records that a check can ask for.
pub const DNS_TYPES: [(&str, u16); 11] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("HTTPS", 65),
    ("CAA", 257),
];

impl CheckKind {
    /// As the file calls it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls { .. } => "tls",
            Self::Http(_) => "http",
            Self::Grpc { .. } => "grpc",
            Self::Redis => "redis",
            Self::Smtp => "smtp",
            Self::Mysql => "mysql",
            Self::Postgres { .. } => "postgres",
            Self::Icmp => "icmp",
            Self::Dns { .. } => "dns",
            Self::Udp { .. } => "udp",
            Self::Agent => "agent",
            Self::Exec { .. } => "exec",
            Self::File { .. } => "file",
            Self::Process(Running::Called(_)) => "process",
            Self::Process(Running::In(_)) => "pidfile",
        }
    }

    /// Whether the question goes to a port of the backend, or is told of it.
    pub const fn asks_port(&self) -> bool {
        match self {
            Self::Tcp
            | Self::Tls { .. }
            | Self::Http(_)
            | Self::Grpc { .. }
            | Self::Redis
            | Self::Smtp
            | Self::Mysql
            | Self::Postgres { .. }
            | Self::Dns { .. }
            | Self::Udp { .. }
            | Self::Agent
            | Self::Exec { .. } => true,
            Self::Icmp | Self::File { .. } | Self::Process(_) => false,
        }
    }

    /// The file with the authorities to verify a certificate with.
    pub fn authority_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Tcp
            | Self::Redis
            | Self::Smtp
            | Self::Mysql
            | Self::Postgres { .. }
            | Self::Icmp
            | Self::Dns { .. }
            | Self::Udp { .. }
            | Self::Agent
            | Self::Exec { .. }
            | Self::File { .. }
            | Self::Process(_) => None,
            Self::Grpc { tls, .. } => tls.as_mut()?.ca.as_mut(),
            Self::Tls { tls, .. } => tls.ca.as_mut(),
            Self::Http(http) => http.tls.as_mut()?.ca.as_mut(),
        }
    }
}

impl From<HttpCheck> for CheckKind {
    fn from(http: HttpCheck) -> Self {
        Self::Http(Box::new(http))
    }
}

/// One HTTP request, and what its answer must be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpCheck {
    /// As in `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Host` header; `None`: the address that is asked.
    pub host: Option<String>,
    /// Name and value of more headers.
    pub headers: Vec<(String, String)>,
    /// HTTP/2 in place of HTTP/1.1.
    pub http2: bool,
    /// `None`: without TLS.
    pub tls: Option<TlsCheck>,
    /// The statuses that pass, at least one range.
    pub expect: Vec<Statuses>,
    /// What must be found in the first `CHECK_BODY_MAX` bytes of the body.
    pub body: Option<Sought>,
}

/// How a certificate is judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsCheck {
    /// PEM file with the authorities to verify the certificate with; `None`: not verified.
    pub ca: Option<String>,
    /// A certificate that ends within so much time is a warning; zero: never.
    pub warn: Duration,
}

/// HTTP statuses that pass, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    /// 2xx and 3xx: what passes unless the file says otherwise.
    pub const WELL: Self = Self { first: 200, last: 399 };

    /// `None` where it is no range of statuses.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if 100 <= first && first <= last && last <= 599 { Some(Self { first, last }) } else { None }
    }

    /// Whether the status is one of them.
    pub const fn contains(self, status: u16) -> bool {
        self.first <= status && status <= self.last
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// What is looked for in an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sought {
    /// These bytes.
    Text(String),
    /// What this regular expression matches.
    Regex(String),
}

//! Reads health checks: what is asked, how often, and how many answers decide.

pub(crate) mod http;
mod load;
pub(crate) mod local;
mod questions;
mod via;

use crate::keys::{Key, check, service};
use crate::ports::Port;
use crate::report::{At, Problems, Span, listed};
use crate::tree::{self, Section};
use crate::{Code, value};
use buoy_model::limits::{
    CHECK_ASKERS_MAX, CHECK_COUNT_MAX, CHECK_EVERY_DEFAULT, CHECK_EVERY_MAX, CHECK_EVERY_MIN,
    CHECK_FALL_DEFAULT, CHECK_RISE_DEFAULT, LOAD_ASKERS_DEFAULT,
};
use buoy_model::{Check, CheckKind, Mode, Pace, Ports, Protocol};
use core::num::NonZeroU8;
use toml::de::DeValue;

/// What the file says of a service's check.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// Nothing: TCP services get a TCP connect.
    Default,
    /// `check = false`.
    Off,
    /// This one.
    This(Check),
}

impl Asked {
    /// The check of a service of that protocol.
    pub(crate) fn of(self, protocol: Protocol) -> Option<Check> {
        match (self, protocol) {
            (Self::This(mut check), protocol) => {
                if let CheckKind::Dns { over, .. } = &mut check.kind {
                    *over = protocol;
                }
                Some(check)
            }
            (Self::Off, Protocol::Tcp | Protocol::Udp) | (Self::Default, Protocol::Udp) => None,
            (Self::Default, Protocol::Tcp) => Some(Check {
                kind: CheckKind::Tcp,
                port: None,
                askers: None,
                load: None,
                via: None,
                pace: Pace {
                    every: CHECK_EVERY_DEFAULT,
                    every_down: CHECK_EVERY_DEFAULT,
                    timeout: CHECK_EVERY_DEFAULT,
                    rise: CHECK_RISE_DEFAULT,
                    fall: CHECK_FALL_DEFAULT,
                },
            }),
        }
    }
}

impl Asked {
    /// Of all ports none is the one to ask.
    pub(crate) fn refuse_without_port(
        &self,
        section: &Section<'_>,
        ports: &[At<Port>],
        problems: &mut Problems<'_>,
    ) {
        let all = ports.iter().filter(|port| port.value.ports == Ports::ALL);
        for port in all {
            match self.clone().of(port.value.protocol) {
                Some(Check { port: None, kind, .. }) if kind.asks_port() => {}
                Some(_) | None => continue,
            }
            let span = section.key_span(&service::CHECK).unwrap_or_else(|| port.span.clone());
            let message = "the check does not say which port to ask";
            let reason = "the service has all ports";
            let fix = "write check = { tcp = true, port = 22 } with a port that backends listen on, or check = false";
            problems.add(Code::CheckNeedsPort, &span, message, reason, fix);
            return;
        }
    }
}

/// `mode`: that of the service, where it could be read.
pub(crate) fn read(
    service: &Section<'_>,
    mode: Option<Mode>,
    problems: &mut Problems<'_>,
) -> Asked {
    let Some(value) = service.raw(&service::CHECK) else { return Asked::Default };
    if let DeValue::Boolean(false) = value.get_ref() {
        return Asked::Off;
    }
    let DeValue::Table(table) = value.get_ref() else {
        tree::wrong_type(&service::CHECK, value, problems);
        return Asked::Default;
    };
    let section = Section::new(&check::SCHEMA, table, value.span(), problems);
    read_table(&section, mode, problems).map_or(Asked::Default, Asked::This)
}

fn read_table(
    section: &Section<'_>,
    mode: Option<Mode>,
    problems: &mut Problems<'_>,
) -> Option<Check> {
    let pace = read_pace(section, problems);
    let port = section.number(&check::PORT, 1..=u32::from(u16::MAX), problems);
    let port = port.and_then(|p| u16::try_from(p.value).ok());
    let kind = read_kind(section, problems)?;
    if let (false, Some(span)) = (kind.asks_port(), section.key_span(&check::PORT)) {
        let icmp = kind == CheckKind::Icmp;
        let by = if icmp { "ICMP".to_owned() } else { format!("`{}`", kind.name()) };
        let message = format!("`port` of a check by {by}");
        let reason = if icmp {
            "ICMP asks a host, not a port"
        } else {
            "it looks at this host, not at a port"
        };
        refuse(&span, &message, reason, "remove `port`", problems);
    }
    let askers = read_askers(section, &kind, problems);
    let via = via::read(section, mode, &kind, problems);
    let load = load::read(section, &kind, problems);
    // All nodes have to know the same share.
    let askers = askers.or_else(|| load.as_ref().and_then(|_| NonZeroU8::new(LOAD_ASKERS_DEFAULT)));
    Some(Check { kind, port, via, pace, askers, load })
}

/// How many nodes ask. What is asked of a host is known by that host alone.
fn read_askers(
    section: &Section<'_>,
    kind: &CheckKind,
    problems: &mut Problems<'_>,
) -> Option<NonZeroU8> {
    let askers = section.number(&check::ASKERS, 1..=CHECK_ASKERS_MAX, problems)?;
    if let CheckKind::File { .. } | CheckKind::Process(_) = kind {
        let message = format!("`askers` of a check by `{}`", kind.name());
        let reason = "it looks at this host, which no other host can do in its place";
        refuse(&askers.span, &message, reason, "remove `askers`", problems);
        return None;
    }
    u8::try_from(askers.value).ok().and_then(NonZeroU8::new)
}

/// The pace of a check of a backend or of a node.
pub(crate) fn read_pace(section: &Section<'_>, problems: &mut Problems<'_>) -> Pace {
    let range = || CHECK_EVERY_MIN..=CHECK_EVERY_MAX;
    let every = section.duration(&check::EVERY, range(), problems);
    let every_down = section.duration(&check::EVERY_DOWN, range(), problems);
    let timeout = section.duration(&check::TIMEOUT, range(), problems);
    let period = every.as_ref().map_or(CHECK_EVERY_DEFAULT, |e| e.value);
    let paces = [(&check::EVERY, period)].into_iter();
    let paces = paces.chain(every_down.iter().map(|e| (&check::EVERY_DOWN, e.value)));
    let shortest = paces.min_by_key(|(_, pace)| *pace);
    let slow = timeout.as_ref().zip(shortest).filter(|(timeout, (_, pace))| *pace < timeout.value);
    if let Some((timeout, (key, pace))) = slow {
        let (wait, pace) = (value::written(timeout.value), value::written(pace));
        let message = format!("`timeout` ({wait}) is longer than `{}` ({pace})", key.name);
        let reason = "a check that waits delays the next one";
        let fix = format!("write timeout = \"{pace}\", or {} = \"{wait}\"", key.name);
        problems.add(Code::SlowCheck, &timeout.span, message, reason, fix);
    }
    let fall = section.number(&check::FALL, 1..=CHECK_COUNT_MAX, problems);
    let rise = section.number(&check::RISE, 1..=CHECK_COUNT_MAX, problems);
    let every_down = every_down.map_or(period, |e| e.value);
    Pace {
        every: period,
        every_down,
        timeout: timeout.map_or(period.min(every_down).min(CHECK_EVERY_DEFAULT), |t| t.value),
        rise: rise.map_or(CHECK_RISE_DEFAULT, |n| n.value),
        fall: fall.map_or(CHECK_FALL_DEFAULT, |n| n.value),
    }
}

/// The key that says what is asked; one of them must be there. `tls` alone is one as well.
const QUESTIONS: [&Key; 15] = [
    &check::TCP,
    &check::HTTP,
    &check::GRPC,
    &check::POSTGRES,
    &check::ICMP,
    &check::REDIS,
    &check::SMTP,
    &check::MYSQL,
    &check::DNS,
    &check::UDP,
    &check::AGENT,
    &check::EXEC,
    &check::FILE,
    &check::PROCESS,
    &check::PIDFILE,
];

/// The settings of an HTTP request.
const OF_HTTP: [&Key; 9] = [
    &check::HOST,
    &check::HEADERS,
    &check::HTTP2,
    &check::TLS,
    &check::CA,
    &check::TLS_WARN,
    &check::EXPECT,
    &check::BODY,
    &check::BODY_REGEX,
];

/// The settings of a TLS handshake, besides `tls` itself.
const OF_TLS: [&Key; 3] = [&check::HOST, &check::CA, &check::TLS_WARN];

fn read_kind(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CheckKind> {
    let asked: Vec<&Key> = QUESTIONS.into_iter().filter(|key| is_asked(section, key)).collect();
    let question = match asked.as_slice() {
        [one] => *one,
        [] if is_asked(section, &check::TLS) => &check::TLS,
        [] => {
            refuse_nothing(section, problems);
            return None;
        }
        [first, second, ..] => {
            let span = section.raw(second).map_or_else(|| section.span().clone(), |v| v.span());
            let message = "a check asks one thing, and this asks two";
            let reason = format!("it has `{}` already", first.name);
            let fix = format!("remove `{}`, or `{}`", first.name, second.name);
            refuse(&span, message, &reason, &fix, problems);
            return None;
        }
    };
    questions::refuse_user(section, question, problems);
    local::refuse_misplaced(section, question, problems);
    match question.name {
        "tcp" => {
            refuse_options(section, &[], "http", check::HTTP.example, problems);
            section.flag(&check::TCP, problems).map(|_| CheckKind::Tcp)
        }
        "tls" => {
            refuse_options(section, &OF_TLS, "http", check::HTTP.example, problems);
            let host = http::read_host(section, problems);
            section.flag(&check::TLS, problems)?;
            let tls = http::read_tls(section, true, problems)?;
            Some(CheckKind::Tls { host, tls })
        }
        "http" => http::read(section, problems),
        "grpc" => {
            refuse_options(section, &OF_TLS, "http", check::HTTP.example, problems);
            questions::read_grpc(section, problems)
        }
        "exec" | "file" | "process" | "pidfile" => {
            refuse_options(section, &[], "http", check::HTTP.example, problems);
            local::read(section, question, problems)
        }
        name => {
            refuse_options(section, &[], "http", check::HTTP.example, problems);
            questions::read(section, name, problems)
        }
    }
}

/// Whether the key is there and not `false`.
fn is_asked(section: &Section<'_>, key: &Key) -> bool {
    section.raw(key).is_some_and(|value| value.get_ref().as_bool() != Some(false))
}

fn refuse_nothing(section: &Section<'_>, problems: &mut Problems<'_>) {
    if section.has_unknown(&QUESTIONS) {
        return;
    }
    let names = listed(QUESTIONS.iter().map(|key| key.name));
    let reason = format!("it asks by one of {names}, or by `tls = true`");
    let fix = "add `tcp = true` or `http = \"GET /path\"`, or write check = false";
    refuse(section.span(), "this check asks nothing", &reason, fix, problems);
}

/// Settings of an HTTP request that are none of these in a check that sends none.
pub(crate) fn refuse_options(
    section: &Section<'_>,
    except: &[&Key],
    question: &str,
    example: &str,
    problems: &mut Problems<'_>,
) {
    let fix = format!("add {question} = {example}, or remove it");
    for key in OF_HTTP.iter().filter(|key| !except.iter().any(|other| other.name == key.name)) {
        // The question itself.
        if key.name == check::TLS.name && !except.is_empty() {
            continue;
        }
        if let Some(span) = section.key_span(key) {
            let message = format!("`{}` belongs to an HTTP check", key.name);
            let reason = "this check has no `http`";
            refuse(&span, &message, reason, &fix, problems);
        }
    }
}

/// Reports a check that asks nothing sensible.
pub(crate) fn refuse(
    span: &Span,
    message: &str,
    reason: &str,
    fix: &str,
    problems: &mut Problems<'_>,
) {
    problems.add(Code::BadCheck, span, message, reason, fix);
}

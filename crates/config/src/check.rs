//! Reads health checks: what is asked, how often, and how many answers decide.

use crate::keys::{Key, check, service};
use crate::ports::Port;
use crate::report::{At, Problems, Span, shown};
use crate::tree::{self, Section};
use crate::{Code, value};
use buoy_model::limits::{
    CHECK_COUNT_MAX, CHECK_EVERY_DEFAULT, CHECK_EVERY_MAX, CHECK_EVERY_MIN, CHECK_FALL_DEFAULT,
    CHECK_RISE_DEFAULT,
};
use buoy_model::{Check, CheckKind, Ports, Protocol};
use core::time::Duration;
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
            (Self::This(check), Protocol::Tcp | Protocol::Udp) => Some(check),
            (Self::Off, Protocol::Tcp | Protocol::Udp) | (Self::Default, Protocol::Udp) => None,
            (Self::Default, Protocol::Tcp) => Some(Check {
                kind: CheckKind::Tcp,
                port: None,
                every: CHECK_EVERY_DEFAULT,
                timeout: CHECK_EVERY_DEFAULT,
                rise: CHECK_RISE_DEFAULT,
                fall: CHECK_FALL_DEFAULT,
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
                Some(Check { port: None, .. }) => {}
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

pub(crate) fn read(service: &Section<'_>, problems: &mut Problems<'_>) -> Asked {
    let Some(value) = service.raw(&service::CHECK) else { return Asked::Default };
    if let DeValue::Boolean(false) = value.get_ref() {
        return Asked::Off;
    }
    let DeValue::Table(table) = value.get_ref() else {
        tree::wrong_type(&service::CHECK, value, problems);
        return Asked::Default;
    };
    let section = Section::new(&check::SCHEMA, table, value.span(), problems);
    read_table(&section, problems).map_or(Asked::Default, Asked::This)
}

fn read_table(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Check> {
    let Pace { every, timeout, rise, fall } = read_pace(section, problems);
    let port = section.number(&check::PORT, 1..=u32::from(u16::MAX), problems);
    let port = port.and_then(|p| u16::try_from(p.value).ok());
    Some(Check { kind: read_kind(section, problems)?, port, every, timeout, rise, fall })
}

/// How often a check asks, and how many answers decide.
pub(crate) struct Pace {
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

/// The pace of a check of a backend or of a node.
pub(crate) fn read_pace(section: &Section<'_>, problems: &mut Problems<'_>) -> Pace {
    let every = section.duration(&check::EVERY, CHECK_EVERY_MIN..=CHECK_EVERY_MAX, problems);
    let timeout = section.duration(&check::TIMEOUT, CHECK_EVERY_MIN..=CHECK_EVERY_MAX, problems);
    let period = every.as_ref().map_or(CHECK_EVERY_DEFAULT, |e| e.value);
    if let Some(timeout) = timeout.as_ref().filter(|t| t.value > period) {
        let (wait, period) = (value::written(timeout.value), value::written(period));
        let message = format!("`timeout` ({wait}) is longer than `every` ({period})");
        let reason = "a check that waits delays the next one";
        let fix = format!("write timeout = \"{period}\", or every = \"{wait}\"");
        problems.add(Code::SlowCheck, &timeout.span, message, reason, fix);
    }
    let fall = section.number(&check::FALL, 1..=CHECK_COUNT_MAX, problems);
    let rise = section.number(&check::RISE, 1..=CHECK_COUNT_MAX, problems);
    Pace {
        every: period,
        timeout: timeout.map_or(period.min(CHECK_EVERY_DEFAULT), |t| t.value),
        rise: rise.map_or(CHECK_RISE_DEFAULT, |n| n.value),
        fall: fall.map_or(CHECK_FALL_DEFAULT, |n| n.value),
    }
}

fn read_kind(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CheckKind> {
    let tcp = section.flag(&check::TCP, problems);
    let http = section.text(&check::HTTP, problems);
    let kind = match (tcp.as_ref().is_some_and(|t| t.value), &http) {
        (true, Some(http)) => {
            let message = "a check asks one thing, and this asks two";
            let reason = "`http` connects first anyway";
            refuse(&http.span, message, reason, "remove `tcp = true`, or `http`", problems);
            None
        }
        (true, None) => Some(CheckKind::Tcp),
        (false, Some(http)) => read_http(section, http, problems),
        (false, None) => {
            let unread = section.has(&check::HTTP) || (section.has(&check::TCP) && tcp.is_none());
            if !unread && !section.has_unknown(&[&check::HTTP, &check::TCP]) {
                let reason = "it has neither `tcp = true` nor `http = \"GET /path\"`";
                let fix = "add one of them, or write check = false";
                refuse(section.span(), "this check asks nothing", reason, fix, problems);
            }
            None
        }
    };
    if !section.has(&check::HTTP) {
        refuse_http_options(section, &check::HTTP, problems);
    }
    kind
}

/// Settings of an HTTP check in one that is none.
pub(crate) fn refuse_http_options(section: &Section<'_>, http: &Key, problems: &mut Problems<'_>) {
    let fix = format!("add http = {}, or remove it", http.example);
    for key in [&check::HOST, &check::TLS, &check::CA, &check::EXPECT] {
        if let Some(span) = section.key_span(key) {
            let message = format!("`{}` belongs to an HTTP check", key.name);
            let reason = "this check has no `http`";
            refuse(&span, &message, reason, &fix, problems);
        }
    }
}

fn read_http(
    section: &Section<'_>,
    http: &At<&str>,
    problems: &mut Problems<'_>,
) -> Option<CheckKind> {
    let tls = section.flag(&check::TLS, problems).is_some_and(|t| t.value);
    let options = read_http_options(section, tls, problems);
    let path = read_request(http, problems)?;
    Some(options.asked(path, tls))
}

/// What an HTTP check says besides its request.
pub(crate) struct HttpOptions {
    host: Option<String>,
    pub(crate) authority: Option<At<String>>,
    expect: Option<u16>,
}

impl HttpOptions {
    /// The whole question.
    pub(crate) fn asked(&self, path: String, tls: bool) -> CheckKind {
        let ca = self.authority.as_ref().map(|a| a.value.clone());
        CheckKind::Http { path, host: self.host.clone(), tls, ca, expect: self.expect }
    }
}

/// The settings that a check of a backend and one of a node share.
pub(crate) fn read_http_options(
    section: &Section<'_>,
    tls: bool,
    problems: &mut Problems<'_>,
) -> HttpOptions {
    let host = section.text(&check::HOST, problems);
    let host = host.filter(|host| {
        let valid =
            !host.value.is_empty() && host.value.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        if !valid {
            let message = format!("\"{}\" cannot be a host name", shown(host.value));
            let fix = "write the name alone, as in host = \"www.example.org\"";
            refuse(&host.span, &message, "it goes into the `Host` header", fix, problems);
        }
        valid
    });
    let authority = section.text(&check::CA, problems);
    if let (Some(authority), false) = (&authority, tls) {
        let reason = "it verifies a certificate, and without TLS there is none";
        let fix = "add tls = true, or remove `ca`";
        refuse(&authority.span, "`ca` without `tls = true`", reason, fix, problems);
    }
    let expect = section.number(&check::EXPECT, 100..=599, problems);
    HttpOptions {
        host: host.map(|h| h.value.to_owned()),
        authority: authority.map(|a| At::new(a.value.to_owned(), a.span)),
        expect: expect.and_then(|e| u16::try_from(e.value).ok()),
    }
}

/// `GET /path`.
fn read_request(http: &At<&str>, problems: &mut Problems<'_>) -> Option<String> {
    let text = http.value;
    let message = format!("\"{}\" is not a request", shown(text));
    let (reason, fix) = match text.split_once(' ') {
        Some(("GET", path)) if path.starts_with('/') => {
            if path.bytes().all(|b| b.is_ascii_graphic()) {
                return Some(path.to_owned());
            }
            ("a path has no spaces or special characters", "write them as %20 and so on".to_owned())
        }
        Some(("GET", _)) => ("the path begins with `/`", "write http = \"GET /health\"".to_owned()),
        Some(_) => ("the method is GET", "write http = \"GET /health\"".to_owned()),
        None if text.starts_with("http://") || text.starts_with("https://") => {
            let path = text.splitn(4, '/').nth(3).unwrap_or_default();
            let tls = if text.starts_with("https") { ", tls = true" } else { "" };
            (
                "every backend is asked at its own address",
                format!("write http = \"GET /{}\"{tls}", shown(path)),
            )
        }
        None if text.starts_with('/') => {
            ("the method is missing", format!("write http = \"GET {}\"", shown(text)))
        }
        None => ("it is method and path", "write http = \"GET /health\"".to_owned()),
    };
    refuse(&http.span, &message, reason, &fix, problems);
    None
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

//! Reads what an HTTP check sends, and what its answer must be.

use super::refuse;
use crate::keys::check;
use crate::report::{At, Problems, Span, shown};
use crate::tree::{self, Section};
use crate::{Code, value};
use buoy_model::limits::{
    CHECK_HEADERS_MAX, CHECK_REGEX_MAX, CHECK_STATUSES_MAX, CHECK_TEXT_MAX, CHECK_TLS_WARN_DEFAULT,
    CHECK_TLS_WARN_MAX,
};
use buoy_model::{CheckKind, HttpCheck, Sought, Statuses, TlsCheck};
use core::time::Duration;
use regex::bytes::{Regex, RegexBuilder};
use toml::Spanned;
use toml::de::DeValue;

/// Requests that change nothing where people keep to the RFC, and one that may.
const METHODS: [&str; 4] = ["GET", "HEAD", "OPTIONS", "POST"];
/// Headers that belong to the connection, or have a key of their own.
const OWN_HEADERS: [&str; 8] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "te",
];

/// A regular expression of a check, over bytes; its size is limited, and so is the time of a search.
pub fn expression(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(CHECK_REGEX_MAX).dfa_size_limit(CHECK_REGEX_MAX).build()
}

/// An HTTP check of a backend.
pub(super) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CheckKind> {
    let tls = section.flag(&check::TLS, problems).is_some_and(|t| t.value);
    let options = read_options(section, tls, problems);
    let http = section.text(&check::HTTP, problems)?;
    let (method, path) = read_request(&http, problems)?;
    options.asked(method, path, &http.span, problems)
}

/// What an HTTP check says besides its request.
pub(crate) struct Options {
    host: Option<String>,
    headers: Vec<(String, String)>,
    http2: bool,
    tls: Option<TlsCheck>,
    /// The file that verifies the certificate.
    pub(crate) authority: Option<At<String>>,
    expect: Vec<Statuses>,
    body: Option<Sought>,
}

impl Options {
    /// The whole question.
    pub(crate) fn asked(
        self,
        method: &str,
        path: &str,
        request: &Span,
        problems: &mut Problems<'_>,
    ) -> Option<CheckKind> {
        let Self { host, headers, http2, tls, authority: _, expect, body } = self;
        if method == "HEAD" && body.is_some() {
            let message = "`body` and `body_regex` need an answer with a body";
            let reason = "the answer to HEAD has none";
            let fix = format!("write GET {}, or remove what is looked for", shown(path));
            refuse(request, message, reason, &fix, problems);
            return None;
        }
        let (method, path) = (method.to_owned(), path.to_owned());
        Some(HttpCheck { method, path, host, headers, http2, tls, expect, body }.into())
    }
}

/// The settings that a check of a backend and one of a node share.
pub(crate) fn read_options(
    section: &Section<'_>,
    tls: bool,
    problems: &mut Problems<'_>,
) -> Options {
    let tls = read_tls(section, tls, problems);
    let span = section.raw(&check::CA).map(Spanned::span);
    let authority = tls.as_ref().and_then(|tls| tls.ca.clone()).zip(span);
    Options {
        host: read_host(section, problems),
        headers: read_headers(section, problems),
        http2: section.flag(&check::HTTP2, problems).is_some_and(|flag| flag.value),
        authority: authority.map(|(path, span)| At::new(path, span)),
        tls,
        expect: read_expect(section, problems),
        body: read_body(section, problems),
    }
}

pub(crate) fn read_host(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<String> {
    let host = section.text(&check::HOST, problems)?;
    let sound = |b: u8| b.is_ascii_graphic() && !b"/@?#\\".contains(&b);
    if !host.value.is_empty() && host.value.len() <= 255 && host.value.bytes().all(sound) {
        return Some(host.value.to_owned());
    }
    let message = format!("\"{}\" cannot be a host name", shown(host.value));
    let fix = "write the name alone, as in host = \"www.example.org\"";
    refuse(&host.span, &message, "it is sent as the name of the server", fix, problems);
    None
}

/// How a certificate is judged; `None` without TLS, where nothing may ask for it.
pub(super) fn read_tls(
    section: &Section<'_>,
    tls: bool,
    problems: &mut Problems<'_>,
) -> Option<TlsCheck> {
    if !tls {
        for key in [&check::CA, &check::TLS_WARN] {
            let Some(value) = section.raw(key) else { continue };
            let message = format!("`{}` without `tls = true`", key.name);
            let reason = "it is about a certificate, and without TLS there is none";
            let fix = format!("add tls = true, or remove `{}`", key.name);
            refuse(&value.span(), &message, reason, &fix, problems);
        }
        return None;
    }
    let ca = section.text(&check::CA, problems).map(|path| path.value.to_owned());
    let warn = section.duration(&check::TLS_WARN, Duration::ZERO..=CHECK_TLS_WARN_MAX, problems);
    Some(TlsCheck { ca, warn: warn.map_or(CHECK_TLS_WARN_DEFAULT, |warn| warn.value) })
}

/// A character of the name of a header (RFC 9110 section 5.6.2).
pub(super) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// `NAME: VALUE`, or a list of them.
fn read_headers(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<(String, String)> {
    let Some(list) = section.texts(&check::HEADERS, problems) else { return Vec::new() };
    if CHECK_HEADERS_MAX < list.value.len() {
        let message = format!("a check sends at most {CHECK_HEADERS_MAX} headers");
        let reason = format!("there are {}", list.value.len());
        problems.add(Code::BadHeader, &list.span, message, reason, "remove some");
        return Vec::new();
    }
    list.value.iter().filter_map(|header| read_header(header, problems)).collect()
}

fn read_header(header: &At<&str>, problems: &mut Problems<'_>) -> Option<(String, String)> {
    let (name, value) = header.value.split_once(':').unwrap_or((header.value, ""));
    let value = value.trim_matches([' ', '\t']);
    // It may be a password, and lines of the file are shown with what is wrong in them.
    if !value.is_empty() {
        let secret = tree::inside(header, value, problems);
        problems.mask(&secret);
    }
    let (reason, fix) = if !header.value.contains(':') {
        ("it is NAME: VALUE", "write it as in \"X-Probe: buoy\"".to_owned())
    } else if name.is_empty() || !name.bytes().all(is_token) {
        (
            "the name has other characters than letters, digits and `-`",
            "correct the name".to_owned(),
        )
    } else if name.eq_ignore_ascii_case("host") {
        ("it has a key of its own", "write host = \"www.example.org\"".to_owned())
    } else if OWN_HEADERS.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        ("it belongs to the connection", "remove it".to_owned())
    } else if !value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        ("the value has other characters than printable ASCII", "encode them".to_owned())
    } else if CHECK_TEXT_MAX < header.value.len() {
        ("it is longer than 1024 bytes", "shorten it".to_owned())
    } else {
        return Some((name.to_owned(), value.to_owned()));
    };
    let message = format!("the header `{}` cannot be sent", shown(name));
    problems.add(Code::BadHeader, &header.span, message, reason, fix);
    None
}

/// A status, a range, or a list of them; 200-399 where there is none.
fn read_expect(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<Statuses> {
    let well = || vec![Statuses::WELL];
    let Some(value) = section.raw(&check::EXPECT) else { return well() };
    let DeValue::Array(list) = value.get_ref() else {
        return read_statuses(value, problems).map_or_else(well, |one| vec![one]);
    };
    if list.is_empty() || CHECK_STATUSES_MAX < list.len() {
        let message = format!("`expect` takes 1 to {CHECK_STATUSES_MAX} statuses");
        let reason = format!("there are {}", list.len());
        let fix = "write ranges, as in expect = \"200-399\"";
        problems.add(Code::BadExpect, &value.span(), message, reason, fix);
    }
    let all: Vec<_> = list.iter().filter_map(|item| read_statuses(item, problems)).collect();
    if all.is_empty() { well() } else { all }
}

fn read_statuses(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Statuses> {
    match value.get_ref() {
        DeValue::Integer(_) => {
            let status = tree::read_number(&check::EXPECT, value, 100..=599, problems)?;
            let status = u16::try_from(status.value).ok()?;
            Statuses::new(status, status)
        }
        DeValue::String(text) => {
            let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.len() == 3);
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let bounds = number(first.trim()).zip(number(last.trim()));
            let found = bounds.and_then(|(first, last)| Statuses::new(first, last));
            if found.is_none() {
                let message = format!("\"{}\" is no HTTP status", shown(text));
                let reason = "a status is 100 to 599, and a range begins with the smaller one";
                let fix = "write expect = 200, \"200-399\" or [200, \"300-399\"]";
                problems.add(Code::BadExpect, &value.span(), message, reason, fix);
            }
            found
        }
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            tree::wrong_type(&check::EXPECT, value, problems);
            None
        }
    }
}

fn read_body(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Sought> {
    let text = section.text(&check::BODY, problems);
    let regex = section.text(&check::BODY_REGEX, problems);
    let (at, fault) = match (text, regex) {
        (None, None) => return None,
        (Some(_), Some(regex)) => {
            let reason = "an answer is searched for one thing".to_owned();
            let fix = "remove one of them; an expression can hold both, as in \"ready.*version 2\"";
            problems.add(Code::BadPattern, &regex.span, "`body` and `body_regex`", reason, fix);
            return None;
        }
        (Some(text), None) => match text_fault(text.value) {
            None => return Some(Sought::Text(text.value.to_owned())),
            Some(fault) => (text, fault.to_owned()),
        },
        (None, Some(regex)) => match text_fault(regex.value) {
            Some(fault) => (regex, fault.to_owned()),
            None => match expression(regex.value) {
                Ok(_) => return Some(Sought::Regex(regex.value.to_owned())),
                Err(error) => (regex, in_one_line(&error)),
            },
        },
    };
    let message = format!("\"{}\" cannot be looked for", shown(at.value));
    let fix = "write a text, as in body = \"ready\", or an expression, as in body_regex = \"^(ok|ready)\"";
    problems.add(Code::BadPattern, &at.span, message, fault, fix);
    None
}

fn text_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        Some("it is empty")
    } else if CHECK_TEXT_MAX < text.len() {
        Some("it is longer than 1024 bytes")
    } else {
        None
    }
}

/// The last line of what the library draws is what is wrong.
fn in_one_line(error: &regex::Error) -> String {
    if matches!(error, regex::Error::CompiledTooBig(_)) {
        return "it is too large once it is compiled".to_owned();
    }
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// The method of a request, where it is one that a check sends.
pub(crate) fn known_method(text: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == text)
}

/// `GET /path`.
fn read_request<'t>(
    http: &At<&'t str>,
    problems: &mut Problems<'_>,
) -> Option<(&'static str, &'t str)> {
    let text = http.value;
    let message = format!("\"{}\" is not a request", shown(text));
    let example = || "write http = \"GET /health\"".to_owned();
    let (reason, fix) = match text.split_once(' ') {
        Some((method, path)) => match known_method(method) {
            None => ("the methods are GET, HEAD, OPTIONS and POST", example()),
            Some(_) if !path.starts_with('/') => ("the path begins with `/`", example()),
            Some(method) => match value::path_fault(path) {
                None => return Some((method, path)),
                Some(reason) => (reason, "write them as %20 and so on".to_owned()),
            },
        },
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
        None => ("it is method and path", example()),
    };
    refuse(&http.span, &message, reason, &fix, problems);
    None
}

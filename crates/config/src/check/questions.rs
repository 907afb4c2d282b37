//! Reads the questions of checks by other protocols than HTTP: what is sent, and what must come back.

use super::{http, refuse};
use crate::Code;
use crate::keys::{Key, check, udp};
use crate::report::{At, Problems, listed, shown};
use crate::tree::{self, Section, Word};
use buoy_model::limits::CHECK_DATAGRAM_MAX;
use buoy_model::{CheckKind, DNS_TYPES, PostgresRole, Protocol, dns_type};
use toml::de::DeValue;

/// The question by that key, which is there.
pub(super) fn read(
    section: &Section<'_>,
    name: &str,
    problems: &mut Problems<'_>,
) -> Option<CheckKind> {
    let mut flag = |key: &Key, kind: CheckKind| section.flag(key, problems).map(|_| kind);
    match name {
        "redis" => flag(&check::REDIS, CheckKind::Redis),
        "smtp" => flag(&check::SMTP, CheckKind::Smtp),
        "mysql" => flag(&check::MYSQL, CheckKind::Mysql),
        "agent" => flag(&check::AGENT, CheckKind::Agent),
        "icmp" => flag(&check::ICMP, CheckKind::Icmp),
        "postgres" => read_postgres(section, problems),
        "dns" => read_dns(section, problems),
        _ => read_udp(section, problems),
    }
}

/// `true`, or which of the cluster it must be.
fn read_postgres(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CheckKind> {
    let value = section.raw(&check::POSTGRES)?;
    let role = match value.get_ref() {
        DeValue::Boolean(_) => None,
        DeValue::String(_) => {
            let words = [
                ("primary", Word::Now(PostgresRole::Primary)),
                ("replica", Word::Now(PostgresRole::Replica)),
            ];
            Some(section.word(&check::POSTGRES, &words, problems)?.value)
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            tree::wrong_type(&check::POSTGRES, value, problems);
            return None;
        }
    };
    let user = match section.text(&check::USER, problems) {
        None => "postgres".to_owned(),
        Some(user) if (1..=63).contains(&user.value.len()) && !user.value.contains('\0') => {
            user.value.to_owned()
        }
        Some(user) => {
            let message = format!("\"{}\" cannot be a user of PostgreSQL", shown(user.value));
            let (reason, fix) = ("a name has 1 to 63 bytes", "write a name, as in user = \"buoy\"");
            problems.add(Code::BadQuestion, &user.span, message, reason, fix);
            return None;
        }
    };
    Some(CheckKind::Postgres { role, user })
}

/// Only PostgreSQL is told who asks, and only a program has a user.
pub(super) fn refuse_user(section: &Section<'_>, question: &Key, problems: &mut Problems<'_>) {
    if question.name == check::POSTGRES.name || question.name == check::EXEC.name {
        return;
    }
    if let Some(span) = section.key_span(&check::USER) {
        let reason = format!("`{}` does not say who asks", question.name);
        let fix = "add postgres = true in its place, or remove `user`";
        let message = "`user` belongs to a check by `postgres` or `exec`";
        refuse(&span, message, &reason, fix, problems);
    }
}

/// `true`, or the name of a service, as in `package.Service`.
pub(super) fn read_grpc(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CheckKind> {
    let tls = section.flag(&check::TLS, problems).is_some_and(|tls| tls.value);
    let tls = http::read_tls(section, tls, problems);
    let host = http::read_host(section, problems);
    let value = section.raw(&check::GRPC)?;
    let service = match value.get_ref() {
        DeValue::Boolean(_) => String::new(),
        DeValue::String(text) => {
            let sound = |b: u8| b.is_ascii_graphic() && b != b'"';
            if text.is_empty() || 255 < text.len() || !text.bytes().all(sound) {
                let message = format!("\"{}\" is not the name of a service", shown(text));
                let reason = "a name has 1 to 255 characters and no spaces";
                let fix = "write grpc = true for the whole server, or a name as in \"shop.Cart\"";
                problems.add(Code::BadQuestion, &value.span(), message, reason, fix);
                return None;
            }
            text.as_ref().to_owned()
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            tree::wrong_type(&check::GRPC, value, problems);
            return None;
        }
    };
    Some(CheckKind::Grpc { service, host, tls })
}

/// `NAME TYPE`.
fn read_dns(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CheckKind> {
    let text = section.text(&check::DNS, problems)?;
    let (name, record) = text.value.split_once(' ').unwrap_or((text.value, ""));
    let record = record.trim().to_ascii_uppercase();
    let name = name.strip_suffix('.').unwrap_or(name);
    let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(sound);
    let (reason, fix) = if dns_type(&record).is_none() {
        let types = listed(DNS_TYPES.iter().map(|(name, _)| *name));
        (format!("it is NAME TYPE, and the types are {types}"), "write dns = \"example.org A\"")
    } else if 253 < name.len() || !(name.is_empty() || name.split('.').all(is_label)) {
        let reason = "a name has parts of 1 to 63 letters, digits, `-` and `_`, 253 in all";
        (reason.to_owned(), "write a name that the server knows, as in dns = \"example.org A\"")
    } else {
        // Set to that of the service where the check is used.
        let over = Protocol::Udp;
        return Some(CheckKind::Dns { name: name.to_owned(), record, over });
    };
    let message = format!("\"{}\" is not a question", shown(text.value));
    problems.add(Code::BadQuestion, &text.span, message, reason, fix);
    None
}

/// `{ send = "..", expect = ".." }`.
fn read_udp(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<CheckKind> {
    let value = section.raw(&check::UDP)?;
    let DeValue::Table(table) = value.get_ref() else {
        tree::wrong_type(&check::UDP, value, problems);
        return None;
    };
    let section = Section::new(&udp::SCHEMA, table, value.span(), problems);
    let expect = match section.text(&udp::EXPECT, problems) {
        Some(text) => read_bytes(&text, problems)?,
        None => Vec::new(),
    };
    if !section.has(&udp::SEND) {
        section.miss(&udp::SEND, problems);
        return None;
    }
    let send = section.text(&udp::SEND, problems)?;
    Some(CheckKind::Udp { send: read_bytes(&send, problems)?, expect })
}

/// A text as it is, or the bytes that `hex:` spells out.
fn read_bytes(text: &At<&str>, problems: &mut Problems<'_>) -> Option<Vec<u8>> {
    let bytes = match text.value.strip_prefix("hex:") {
        None => Some(text.value.as_bytes().to_vec()),
        Some(digits) => from_hex(digits),
    };
    let reason = match bytes {
        None => "`hex:` is followed by pairs of digits 0 to 9 and a to f",
        Some(bytes) if bytes.is_empty() => "it is empty",
        Some(bytes) if CHECK_DATAGRAM_MAX < bytes.len() => "it is longer than 512 bytes",
        Some(bytes) => return Some(bytes),
    };
    let message = format!("\"{}\" cannot be sent or expected", shown(text.value));
    refuse_bytes(text, &message, reason, problems);
    None
}

fn refuse_bytes(text: &At<&str>, message: &str, reason: &str, problems: &mut Problems<'_>) {
    let fix = "write a text, as in \"ping\", or bytes, as in \"hex: 01 ff\"";
    problems.add(Code::BadQuestion, &text.span, message, reason, fix);
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits.bytes().filter(|b| *b != b' ').collect();
    let value = |b: u8| char::from(b).to_digit(16).and_then(|n| u8::try_from(n).ok());
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(value(*high)? << 4 | value(*low)?)).collect()
}

//! Writes a health checker of a real server as the check of a service.

use super::model::seconds;
use super::script::Script;
use super::server::with_places;
use super::tree::Node;
use crate::draft::{duration, inline, one_or_list, quoted};
use crate::notes::Notes;
use std::net::IpAddr;

/// Bounds of Buoy's `every`, in milliseconds.
const EVERY: (u64, u64) = (50, 3_600_000);
/// What keepalived's manual says of `delay_loop` and `connect_timeout`.
const DELAY_DEFAULT: u64 = 60_000;
const TIMEOUT_DEFAULT: u64 = 5000;
/// What a checker has on one line.
const KEYWORDS: [&str; 12] = [
    "path",
    "status_code",
    "digest",
    "virtualhost",
    "connect_timeout",
    "connect_port",
    "connect_ip",
    "retry",
    "delay_before_retry",
    "delay_loop",
    "nb_get_retry",
    "misc_timeout",
];

/// What a virtual server says for its real servers, and these for their checkers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Settings {
    delay: Option<u64>,
    timeout: Option<u64>,
    retry: Option<u32>,
    pause: Option<u64>,
    host: Option<String>,
}

impl Settings {
    /// Whether this is one of its lines.
    pub(super) fn take(&mut self, line: &Node) -> bool {
        let word = line.word(1);
        match line.keyword() {
            "delay_loop" => self.delay = seconds(word),
            "connect_timeout" => self.timeout = seconds(word),
            "retry" | "nb_get_retry" => self.retry = word.parse().ok(),
            "delay_before_retry" => self.pause = seconds(word),
            "virtualhost" => self.host = Some(word.to_owned()),
            // A check begins at a moment of its own anyway.
            "warmup" => {}
            _ => return false,
        }
        true
    }
}

pub(super) fn is_checker(word: &str) -> bool {
    word.ends_with("_CHECK") || matches!(word, "HTTP_GET" | "SSL_GET")
}

/// The check as TOML; `None`: Buoy has none like it.
pub(super) fn write(
    node: &Node,
    above: &Settings,
    target: (IpAddr, Option<u16>),
    script_user: Option<&str>,
    notes: &mut Notes,
) -> Option<String> {
    let mut settings = above.clone();
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let mut rest: Vec<Node> = Vec::new();
    let mut port = None;
    for line in node.lines_once(&KEYWORDS, |word| word == "url", notes) {
        match line.keyword() {
            "connect_port" => port = line.word(1).parse::<u16>().ok().filter(|port| *port > 0),
            _ if settings.take(&line) => {}
            _ => rest.push(line),
        }
    }
    let (retry, pause) = match node.keyword() {
        "HTTP_GET" | "SSL_GET" => (1, 3000),
        "DNS_CHECK" => (3, settings.delay.unwrap_or(DELAY_DEFAULT)),
        "MISC_CHECK" => (0, 1000),
        _ => (1, 1000),
    };
    match node.keyword() {
        "TCP_CHECK" => pairs.push(("tcp", "true".to_owned())),
        "SMTP_CHECK" => pairs.push(("smtp", "true".to_owned())),
        "PING_CHECK" => pairs.push(("icmp", "true".to_owned())),
        "DNS_CHECK" => pairs.push(("dns", dns(&mut rest))),
        "UDP_CHECK" => pairs.push(udp(node, &mut rest, notes)),
        "MISC_CHECK" => {
            pairs.extend(misc(node, &mut rest, target, script_user, &mut settings, notes)?)
        }
        "HTTP_GET" | "SSL_GET" => {
            pairs.extend(http(&mut rest, &settings, notes)?);
            if node.keyword() == "SSL_GET" {
                pairs.push(("tls", "true".to_owned()));
            }
        }
        _ => {
            notes.left_at(&node.place, node.keyword(), "Buoy has no such check");
            return None;
        }
    }
    for line in rest {
        notes.left_at(&line.place, &line.text(), "a check of Buoy has nothing like it");
    }
    let asks_port = !matches!(node.keyword(), "PING_CHECK" | "MISC_CHECK");
    pairs.extend(port.filter(|_| asks_port).map(|port| ("port", port.to_string())));
    pairs.extend(pace(&settings, (retry, pause), node, notes));
    Some(inline(pairs))
}

/// keepalived asks again soon after a failure, as often as `retry` says, and then gives up.
fn pace(
    settings: &Settings,
    (retry, pause): (u32, u64),
    node: &Node,
    notes: &mut Notes,
) -> Vec<(&'static str, String)> {
    let every = settings.delay.unwrap_or(DELAY_DEFAULT).clamp(EVERY.0, EVERY.1);
    let retry = settings.retry.unwrap_or(retry);
    let pause = settings.pause.unwrap_or(pause).clamp(EVERY.0, every);
    let fall = retry.saturating_add(1).min(100);
    let shortest = if fall > 1 { every.min(pause) } else { every };
    let timeout = settings.timeout.unwrap_or(TIMEOUT_DEFAULT).clamp(EVERY.0, shortest);
    if settings.timeout.is_some_and(|wanted| wanted > timeout) {
        notes.say_at(
            &node.place,
            "its timeout is longer than the time to the next question: that time is written",
        );
    }
    let mut pairs = vec![("every", duration(every))];
    if fall > 1 && pause < every {
        pairs.push(("every_down", duration(pause)));
    }
    pairs.extend([
        ("timeout", duration(timeout)),
        ("fall", fall.to_string()),
        ("rise", "1".to_owned()),
    ]);
    pairs
}

/// Takes the lines of that keyword; the last one holds.
fn take(rest: &mut Vec<Node>, keyword: &str) -> Option<Node> {
    take_all(rest, keyword).pop()
}

fn take_all(rest: &mut Vec<Node>, keyword: &str) -> Vec<Node> {
    rest.extract_if(.., |line| line.keyword() == keyword).collect()
}

fn dns(rest: &mut Vec<Node>) -> String {
    let word = |line: Option<Node>, usual: &str| {
        line.map_or_else(|| usual.to_owned(), |line| line.word(1).to_owned())
    };
    let kind = word(take(rest, "type"), "SOA");
    let name = word(take(rest, "name"), ".");
    quoted(&format!("{name} {}", kind.to_uppercase()))
}

/// A datagram is asked by what it holds; without that the host is asked.
fn udp(node: &Node, rest: &mut Vec<Node>, notes: &mut Notes) -> (&'static str, String) {
    let hex = |line: &Node| {
        let digits: String = line.after(1).concat();
        let sound = !digits.is_empty()
            && digits.len().is_multiple_of(2)
            && digits.bytes().all(|b| b.is_ascii_hexdigit());
        sound.then(|| quoted(&format!("hex:{digits}")))
    };
    let (payload, reply) = (take(rest, "payload"), take(rest, "require_reply"));
    let Some(send) = payload.as_ref().and_then(hex) else {
        notes.say_at(&node.place, "a check by UDP needs what to send in hexadecimal digits: the host is asked by ICMP instead");
        return ("icmp", "true".to_owned());
    };
    let expect = reply.as_ref().and_then(hex);
    if expect.is_none() {
        notes.say_at(&node.place, "a datagram must be answered in Buoy, and any answer will do");
    }
    let pairs = [("send", Some(send)), ("expect", expect)];
    ("udp", inline(pairs.into_iter().filter_map(|(key, value)| Some((key, value?)))))
}

fn misc(
    node: &Node,
    rest: &mut Vec<Node>,
    target: (IpAddr, Option<u16>),
    script_user: Option<&str>,
    settings: &mut Settings,
    notes: &mut Notes,
) -> Option<Vec<(&'static str, String)>> {
    let Some(path) = take(rest, "misc_path") else {
        notes.left_at(&node.place, node.keyword(), "it has no `misc_path`");
        return None;
    };
    settings.timeout =
        take(rest, "misc_timeout").and_then(|line| seconds(line.word(1))).or(settings.timeout);
    let own = take(rest, "user").map(|line| line.word(1).to_owned());
    let script = with_places(&Script::whole(&path), target);
    if !script.is_absolute() {
        notes.say_at(
            &path.place,
            format!("`{}` is not an absolute path: a shell looks for it", path.text()),
        );
    }
    let mut pairs = vec![("exec", script.exec())];
    match own.as_deref().or(script_user) {
        Some("root") => notes
            .say_at(&node.place, "a program that checks is never run as root: it is run as nobody"),
        Some(user) => pairs.push(("user", quoted(user))),
        None => notes.say_at(
            &node.place,
            "the program is run as nobody: add user = \"...\" to the check if it needs more",
        ),
    }
    Some(pairs)
}

/// The first URL: a check of Buoy sends one request.
fn http(
    rest: &mut Vec<Node>,
    settings: &Settings,
    notes: &mut Notes,
) -> Option<Vec<(&'static str, String)>> {
    let mut host = settings.host.clone();
    let mut body = None;
    let mut statuses = vec![quoted("200-299")];
    let mut path = "/".to_owned();
    let urls = take_all(rest, "url");
    take(rest, "enable_sni");
    for other in urls.iter().skip(1) {
        notes.left_at(
            &other.place,
            "url",
            "a check of Buoy sends one request: the first one is written",
        );
    }
    let url = urls.first().map(|url| url.lines_once(&KEYWORDS, |_| false, notes));
    for line in url.unwrap_or_default() {
        match line.keyword() {
            "path" => path = line.word(1).to_owned(),
            "status_code" => {
                let status = |word: &String| {
                    word.parse::<u16>().map_or_else(|_| quoted(word), |status| status.to_string())
                };
                statuses = line.after(1).iter().map(status).collect();
            }
            "virtualhost" => host = Some(line.word(1).to_owned()),
            "regex" => body = Some(quoted(&line.after(1).join(" "))),
            "digest" => notes.left_at(
                &line.place,
                &line.text(),
                "Buoy looks at status and body: write what the body must hold as `body`",
            ),
            _ => notes.left_at(&line.place, &line.text(), "a check of Buoy has nothing like it"),
        }
    }
    let mut all = vec![("http", quoted(&format!("GET {path}")))];
    all.extend(host.map(|host| ("host", quoted(&host))));
    if !statuses.is_empty() {
        all.push(("expect", one_or_list(statuses)));
    }
    all.extend(body.map(|body| ("body_regex", body)));
    Some(all)
}

//! Writes the servers of a backend: who they are, what they are asked, and what holds for all of them.

use super::name;
use super::proxy::Proxy;
use super::sections::{Line, millis};
use crate::draft::{Table, duration, inline, list, quoted};
use crate::notes::{Notes, shown};
use std::net::IpAddr;

/// From one check to the next where a file says nothing (manual, `inter`).
const INTER_DEFAULT: u64 = 2000;
/// Bounds of Buoy's `every`, in milliseconds.
const EVERY: (u64, u64) = (50, 3_600_000);

/// What the words of a server say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Server {
    weight: Option<u32>,
    most: Option<u32>,
    is_backup: bool,
    is_disabled: bool,
    is_tls: bool,
    check: Option<Check>,
    common: Common,
}

/// What Buoy says for all servers of a service together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Common {
    send_proxy: Option<&'static str>,
    on_down: Option<&'static str>,
    queue: Option<u32>,
    slow_start: Option<u64>,
    eject_after: Option<u32>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Check {
    inter: Option<u64>,
    down: Option<u64>,
    fall: Option<u32>,
    rise: Option<u32>,
    port: Option<u16>,
    is_tls: bool,
    host: Option<String>,
    ca: Option<String>,
}

/// Writes what the backend says; the names of the servers that could be carried.
pub(super) fn write(
    back: &Proxy,
    port: Option<u16>,
    service: &mut Table,
    notes: &mut Notes,
) -> Vec<String> {
    let mut backends = Vec::new();
    let mut names = Vec::new();
    let mut all: Vec<(usize, Server)> = Vec::new();
    for line in &back.servers {
        let server = read(line, &back.default_server, notes);
        if server.is_tls {
            let why =
                "HAProxy speaks TLS to it, and Buoy passes on what comes; let clients speak TLS";
            notes.left(line.number, &line.text(), why);
            continue;
        }
        let Some(backend) = backend(line, &server, port, notes) else { continue };
        names.push(backend.split(' ').next().unwrap_or_default().to_owned());
        backends.push(quoted(&backend));
        all.push((line.number, server));
    }
    let Some((_, first)) = all.first() else { return names };
    service.set("backends", list(backends));
    for (line, server) in &all {
        if server.common != first.common {
            notes.say(*line, "what holds for connections is said once for all servers: that of the first one is written");
        }
    }
    write_common(&first.common, service);
    write_check(back, &all, service, notes);
    write_timeouts(back, service, notes);
    if back.is_transparent {
        notes.left(back.line, "source ... usesrc clientip", "mode \"proxy\" does not keep the client's address: use mode = \"kernel\" with source = \"client\"");
    }
    names
}

fn read(line: &Line, default: &[String], notes: &mut Notes) -> Server {
    let mut server = Server::default();
    let mut check = Check::default();
    let mut is_checked = false;
    let mut words = default.iter().chain(line.after(3)).map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "check" => is_checked = true,
            "no-check" => is_checked = false,
            "backup" => server.is_backup = true,
            "disabled" => server.is_disabled = true,
            "ssl" => server.is_tls = true,
            "send-proxy" => server.common.send_proxy = Some("v1"),
            "send-proxy-v2" => server.common.send_proxy = Some("v2"),
            "check-ssl" => check.is_tls = true,
            "weight" => server.weight = words.next().and_then(|word| word.parse().ok()),
            "maxconn" => server.most = words.next().and_then(|word| word.parse().ok()),
            "maxqueue" => server.common.queue = words.next().and_then(|word| word.parse().ok()),
            "slowstart" => server.common.slow_start = words.next().and_then(millis),
            "error-limit" => {
                server.common.eject_after = words.next().and_then(|word| word.parse().ok())
            }
            "inter" => check.inter = words.next().and_then(millis),
            "downinter" => check.down = words.next().and_then(millis),
            "fall" => check.fall = words.next().and_then(|word| word.parse().ok()),
            "rise" => check.rise = words.next().and_then(|word| word.parse().ok()),
            "port" => check.port = words.next().and_then(|word| word.parse().ok()),
            "check-sni" => check.host = words.next().map(str::to_owned),
            "ca-file" => check.ca = words.next().map(str::to_owned),
            "on-marked-down" => {
                let word = words.next().unwrap_or_default();
                server.common.on_down = (word == "shutdown-sessions").then_some("reset");
            }
            // Said by other keys, or needless.
            "verify" | "resolvers" | "init-addr" | "observe" | "on-error" => drop(words.next()),
            word => {
                let value = if TAKES_VALUE.contains(&word) { words.next() } else { None };
                let what = value.map_or_else(|| word.to_owned(), |value| format!("{word} {value}"));
                notes.left(line.number, &what, "Buoy has nothing like it for a server");
            }
        }
    }
    server.check = is_checked.then_some(check);
    server
}

/// Words of a server that are not carried and have a value behind them.
const TAKES_VALUE: [&str; 21] = [
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "addr",
    "alpn",
    "check-alpn",
    "check-proto",
    "ciphers",
    "cookie",
    "crt",
    "fastinter",
    "id",
    "log-proto",
    "minconn",
    "namespace",
    "pool-max-conn",
    "proto",
    "redir",
    "sni",
    "track",
];

/// The entry of `backends`.
fn backend(line: &Line, server: &Server, port: Option<u16>, notes: &mut Notes) -> Option<String> {
    let place = line.word(2);
    let (host, own_port) = match place.parse::<IpAddr>() {
        Ok(_) => (place, None),
        Err(_) => place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = match own_port {
        Some(text) => text.parse().ok().filter(|port: &u16| *port > 0 && !text.starts_with('+')),
        None => port,
    };
    let Some(port) = port else {
        notes.left(
            line.number,
            &line.text(),
            "its port is not one number, which a backend of mode \"proxy\" has",
        );
        return None;
    };
    let mut entry = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("{} {address}:{port}", name(line.word(1))),
        Ok(IpAddr::V6(address)) => format!("{} [{address}]:{port}", name(line.word(1))),
        Err(_) if is_host(host) => {
            notes.say(line.number, format!("{} is looked up again and again: all its addresses are backends, which are called by them", shown(host)));
            format!("dns:{host}:{port}")
        }
        Err(_) => {
            notes.left(line.number, &line.text(), "its place is neither an address nor a name");
            return None;
        }
    };
    if server.is_disabled {
        notes.say(
            line.number,
            format!(
                "{} is disabled: it is written with weight=0, and is checked",
                shown(line.word(1))
            ),
        );
        entry.push_str(" weight=0");
    } else if let Some(weight) = server.weight {
        entry.push_str(&format!(" weight={}", weight.min(256)));
    }
    if let Some(most) = server.most.filter(|most| *most > 0) {
        entry.push_str(&format!(" max={most}"));
    }
    if server.is_backup {
        entry.push_str(" backup");
    }
    Some(entry)
}

fn is_host(text: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !text.is_empty() && text.chars().all(sound)
}

fn write_common(common: &Common, service: &mut Table) {
    if let Some(version) = common.send_proxy {
        service.set("send_proxy", quoted(version));
    }
    if let Some(word) = common.on_down {
        service.set("on_down", quoted(word));
    }
    if let Some(queue) = common.queue.filter(|queue| (1..=65_536).contains(queue)) {
        service.set("queue", queue.to_string());
    }
    if let Some(time) = common.slow_start {
        service.set("slow_start", duration(time.clamp(1000, 3_600_000)));
    }
    if let Some(number) = common.eject_after.filter(|number| (1..=1000).contains(number)) {
        service.set("eject_after", number.to_string());
    }
}

/// A service has one check: that of the first server that is checked.
fn write_check(back: &Proxy, all: &[(usize, Server)], service: &mut Table, notes: &mut Notes) {
    let Some(check) = all.iter().find_map(|(_, server)| server.check.as_ref()) else {
        service.set("check", "false".to_owned());
        return;
    };
    for (line, server) in all {
        match &server.check {
            None => notes.say(
                *line,
                "it has no `check`, and others have: Buoy checks all servers of a service",
            ),
            Some(other) if other != check => {
                notes.say(
                    *line,
                    "servers of a service are checked alike: as the first one that is checked",
                );
            }
            Some(_) => {}
        }
    }
    let tcp = ("tcp", "true".to_owned());
    let is_tls_alone = check.is_tls && back.probe.question.is_none();
    let question = back.probe.question.clone();
    let mut pairs =
        vec![if is_tls_alone { ("tls", "true".to_owned()) } else { question.unwrap_or(tcp) }];
    let is_http = pairs[0].0 == "http";
    if is_http {
        for (key, value) in &back.probe.more {
            pairs.retain(|(known, _)| known != key);
            pairs.push((key, value.clone()));
        }
    }
    if is_http && check.is_tls {
        pairs.push(("tls", "true".to_owned()));
    }
    if check.is_tls {
        pairs.extend(check.ca.as_ref().map(|ca| ("ca", quoted(ca))));
        let has_host = pairs.iter().any(|(key, _)| *key == "host");
        pairs.extend(check.host.as_ref().filter(|_| !has_host).map(|host| ("host", quoted(host))));
    }
    pairs.extend(check.port.map(|port| ("port", port.to_string())));
    let every = check.inter.unwrap_or(INTER_DEFAULT).clamp(EVERY.0, EVERY.1);
    pairs.push(("every", duration(every)));
    let down = check.down.map(|down| down.clamp(EVERY.0, EVERY.1));
    pairs.extend(down.map(|down| ("every_down", duration(down))));
    if let Some(timeout) = back.timeouts.get("check") {
        let most = every.min(down.unwrap_or(every));
        pairs.push(("timeout", duration((*timeout).clamp(EVERY.0, most))));
    }
    let count = |count: Option<u32>| count.map(|count| count.clamp(1, 100).to_string());
    pairs.extend(count(check.fall).map(|fall| ("fall", fall)));
    pairs.extend(count(check.rise).map(|rise| ("rise", rise)));
    service.set("check", inline(pairs));
}

fn write_timeouts(back: &Proxy, service: &mut Table, notes: &mut Notes) {
    let get = |name: &str| back.timeouts.get(name).copied().filter(|time| *time > 0);
    if let Some(time) = get("connect") {
        service.set("connect_timeout", duration(time.clamp(10, 86_400_000)));
    }
    if let Some(time) = get("queue") {
        service.set("queue_timeout", duration(time.clamp(10, 86_400_000)));
    }
    match (get("client"), get("server")) {
        (Some(client), Some(server)) => {
            if client != server {
                notes.say(back.line, "`timeout client` and `timeout server` are one in Buoy: the longer one is written");
            }
            service.set("idle_timeout", duration(client.max(server).clamp(1000, 86_400_000)));
        }
        (Some(time), None) | (None, Some(time)) => {
            service.set("idle_timeout", duration(time.clamp(1000, 86_400_000)));
        }
        (None, None) => {}
    }
}

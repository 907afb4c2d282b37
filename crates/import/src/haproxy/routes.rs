//! Reads which backend gets whom by the server name that TLS clients ask for, and makes one service of them all.

use super::name;
use super::proxy::Proxy;
use super::sections::Line;
use crate::draft::{one_or_list, quoted};
use crate::notes::{Notes, shown};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// `use_backend NAME if { req.ssl_sni -i www.example.org }`.
#[derive(Clone, Debug)]
pub(super) struct Route {
    line: Line,
    backend: String,
    /// As Buoy writes them.
    names: Vec<String>,
}

/// The names of a condition on the server name, after its fetch; `None`: Buoy has no such condition.
pub(super) fn names(words: &[String]) -> Option<Vec<String>> {
    let (mut is_end, mut names) = (false, Vec::new());
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-i" => {}
            "-m" => match words.next() {
                Some("str") => {}
                Some("end") => is_end = true,
                Some(_) | None => return None,
            },
            flag if flag.starts_with('-') => return None,
            // The end of a name that does not begin with a dot is that of strangers' names too.
            end if is_end => names.push(format!("*.{}", end.strip_prefix('.')?)),
            name => names.push(name.to_owned()),
        }
    }
    let is_sound = |name: &String| {
        let bare = name.strip_prefix("*.").unwrap_or(name);
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
        !bare.is_empty() && bare.chars().all(sound) && bare.parse::<IpAddr>().is_err()
    };
    let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    (!names.is_empty() && names.iter().all(is_sound)).then_some(names)
}

/// Whether a word asks for the server name of the first message of a client.
pub(super) fn is_server_name(fetch: &str) -> bool {
    matches!(fetch.split(',').next(), Some("req.ssl_sni" | "req_ssl_sni"))
}

/// Reads `use_backend`, with the access lists that were named before it.
pub(super) fn read(line: &Line, lists: &BTreeMap<String, Vec<String>>) -> Option<Route> {
    if line.word(2) != "if" {
        return None;
    }
    let condition: Vec<&str> = line.after(3).iter().map(String::as_str).collect();
    let names = match condition.as_slice() {
        ["{", fetch, .., "}"] if is_server_name(fetch) => {
            let inner = line.after(5);
            names(&inner[..inner.len() - 1])?
        }
        any => {
            let mut all = Vec::new();
            for (place, word) in any.iter().enumerate() {
                match (place % 2, *word) {
                    (0, list) => all.extend(lists.get(list)?.iter().cloned()),
                    (_, "or" | "||") => {}
                    (_, _) => return None,
                }
            }
            (!all.is_empty() && any.len() % 2 == 1).then_some(all)?
        }
    };
    Some(Route { line: line.clone(), backend: line.word(1).to_owned(), names })
}

/// Who gets which clients, by the names of servers in one service.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(String, Vec<String>)>);

impl Names {
    /// The value of `sni`, of those servers that were carried; `None`: there is nothing to say.
    pub(super) fn value(&self, carried: &[String]) -> Option<String> {
        let entries: Vec<String> = self
            .0
            .iter()
            .filter_map(|(name, servers)| {
                let servers: Vec<_> = servers.iter().filter(|s| carried.contains(s)).collect();
                let servers: Vec<_> = servers.into_iter().map(|server| quoted(server)).collect();
                (!servers.is_empty())
                    .then(|| format!("{} = {}", quoted(name), one_or_list(servers)))
            })
            .collect();
        (!entries.is_empty()).then(|| format!("{{ {} }}", entries.join(", ")))
    }
}

/// The default backend, if there is one, with the servers of all others; and who of them gets whom.
pub(super) fn merge(
    front: &Proxy,
    default: Option<&Proxy>,
    proxies: &[Proxy],
    notes: &mut Notes,
) -> (Proxy, Names) {
    if let (Some(only), true) = (default, front.routes.is_empty()) {
        return (only.clone(), Names::default());
    }
    let backend = |route: &Route| {
        proxies.iter().find(|proxy| proxy.kind != "frontend" && proxy.name == route.backend)
    };
    let mut merged = match default.or_else(|| front.routes.iter().find_map(backend)) {
        Some(first) => first.clone(),
        None => front.clone(),
    };
    merged.servers = default.map(with_defaults).unwrap_or_default();
    merged.default_server.clear();
    let own: Vec<String> = merged.servers.iter().map(|line| line.word(2).to_owned()).collect();
    let mut names = Names::default();
    for route in &front.routes {
        let text = route.line.text();
        let Some(to) = backend(route) else {
            let why = format!("there is no backend {}", shown(&route.backend));
            notes.left(route.line.number, &text, &why);
            continue;
        };
        if default.is_some_and(|default| default.name == to.name) {
            let why = "it is the default backend, which gets all other names anyway";
            notes.say(route.line.number, format!("{} needs no key: {why}", shown(&text)));
            continue;
        }
        if !is_alike(&merged, to) {
            let said = format!(
                "what backend {} says besides its servers is not carried: all servers of a service are asked and chosen alike, as those of {} are",
                to.name, merged.name
            );
            notes.say(to.line, said);
        }
        let mut servers = Vec::new();
        for server in with_defaults(to) {
            if let Some(known) = merged.servers.iter().find(|line| line.word(2) == server.word(2)) {
                match own.contains(&server.words[2]) {
                    true => notes.left(server.number, &server.text(), "the default backend has it too, and a server has either its names or all others"),
                    false => servers.push(name(known.word(1))),
                }
                continue;
            }
            servers.extend(add(&mut merged.servers, to, server, notes));
        }
        for asked in &route.names {
            match names.0.iter().any(|(known, _)| known == asked) {
                true => notes.say(
                    route.line.number,
                    format!("{} has a backend already, and the first one counts", shown(asked)),
                ),
                false => names.0.push((asked.clone(), servers.clone())),
            }
        }
    }
    (merged, names)
}

/// Whether two backends say the same of all their servers.
fn is_alike(one: &Proxy, other: &Proxy) -> bool {
    let said = |proxy: &Proxy| {
        let balance = proxy.balance.as_ref().map(Line::text);
        (balance, proxy.probe.clone(), proxy.timeouts.clone(), proxy.stick)
    };
    said(one) == said(other)
}

/// Takes in a server of another backend, under a name of its own.
fn add(all: &mut Vec<Line>, of: &Proxy, mut server: Line, notes: &mut Notes) -> Option<String> {
    let place = server.word(2);
    let host = place.rsplit_once(':').map_or(place, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.parse::<IpAddr>().is_err() && place.parse::<IpAddr>().is_err() {
        let why = "a backend for certain names is written by its address";
        notes.left(server.number, &server.text(), why);
        return None;
    }
    let is_taken = |called: &str| all.iter().any(|line| name(line.word(1)) == called);
    if is_taken(&name(server.word(1))) {
        server.words[1] = format!("{}-{}", of.name, server.word(1));
    }
    let called = name(server.word(1));
    if is_taken(&called) {
        notes.left(server.number, &server.text(), "another server has its name");
        return None;
    }
    all.push(server);
    Some(called)
}

/// The servers of a backend, each with what its `default-server` says.
fn with_defaults(proxy: &Proxy) -> Vec<Line> {
    let complete = |line: &Line| {
        let mut line = line.clone();
        let at = line.words.len().min(3);
        line.words.splice(at..at, proxy.default_server.iter().cloned());
        line
    };
    proxy.servers.iter().filter(|line| line.words.len() > 2).map(complete).collect()
}

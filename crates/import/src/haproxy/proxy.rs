//! Reads what a `defaults`, `frontend`, `listen` or `backend` says, as far as it is about TCP.

use super::routes::{self, Route};
use super::sections::{Line, Section, millis};
use crate::notes::Notes;
use std::collections::BTreeMap;

/// One proxy, or what stands in `defaults`.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxy {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) is_http: bool,
    pub(super) is_disabled: bool,
    pub(super) binds: Vec<Line>,
    pub(super) default_backend: Option<String>,
    pub(super) balance: Option<Line>,
    pub(super) servers: Vec<Line>,
    pub(super) default_server: Vec<String>,
    pub(super) probe: Probe,
    /// Milliseconds by name: `connect`, `client`, `server`, `queue`, `check`.
    pub(super) timeouts: BTreeMap<String, u64>,
    pub(super) maxconn: Option<u32>,
    pub(super) is_transparent: bool,
    /// Clients stay with their server: for so long, in milliseconds.
    pub(super) stick: Option<Option<u64>>,
    stick_expire: Option<u64>,
    /// Prefixes of clients, by the name of their access list.
    acls: BTreeMap<String, Vec<String>>,
    /// Names of servers, likewise.
    server_names: BTreeMap<String, Vec<String>>,
    /// By the server name that clients ask for.
    pub(super) routes: Vec<Route>,
    pub(super) allow: Vec<String>,
    pub(super) deny: Vec<String>,
}

/// What the servers are asked.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Probe {
    /// The key of Buoy's check with its value as TOML; none: a TCP connection.
    pub(super) question: Option<(&'static str, String)>,
    /// More keys of an HTTP check.
    pub(super) more: Vec<(&'static str, String)>,
}

/// Keywords that say what is logged or shown.
const LOGGING: [&str; 5] = ["log", "log-format", "log-tag", "stats", "description"];

impl Proxy {
    /// `defaults`: what it begins with.
    pub(super) fn read(section: &Section, defaults: &Self, notes: &mut Notes) -> Self {
        let mut proxy = defaults.clone();
        (proxy.kind, proxy.name) = (section.kind.clone(), section.name.clone());
        proxy.line = section.line;
        for line in &section.lines {
            proxy.read_line(line, notes);
        }
        if proxy.is_http && proxy.kind != "defaults" {
            let said = format!(
                "{} {} is `mode http`: its connections are carried as TCP, without rules, headers and cookies",
                proxy.kind, proxy.name
            );
            notes.say(section.line, said);
        }
        proxy
    }

    fn read_line(&mut self, line: &Line, notes: &mut Notes) {
        match line.word(0) {
            "mode" => match line.word(1) {
                "tcp" => self.is_http = false,
                "http" => self.is_http = true,
                _ => notes.left(line.number, &line.text(), "Buoy forwards TCP and UDP"),
            },
            "bind" => self.binds.push(line.clone()),
            "server" => self.servers.push(line.clone()),
            "server-template" => self.servers.extend(template(line, notes)),
            "default-server" => self.default_server.extend_from_slice(line.after(1)),
            "default_backend" => self.default_backend = Some(line.word(1).to_owned()),
            "use_backend" => match routes::read(line, &self.server_names).filter(|_| !self.is_http) {
                Some(route) => self.routes.push(route),
                None => notes.left(line.number, &line.text(), "Buoy chooses by the server name of TLS clients only, in `mode tcp`: `if { req.ssl_sni NAME }`"),
            },
            "balance" => self.balance = Some(line.clone()),
            "timeout" => self.read_timeout(line, notes),
            "maxconn" => self.maxconn = line.word(1).parse().ok(),
            "source" if line.words.iter().any(|word| word == "clientip" || word == "client") => {
                self.is_transparent = true;
            }
            "disabled" => self.is_disabled = true,
            "enabled" => self.is_disabled = false,
            "option" => self.read_option(line, notes),
            "http-check" => self.read_http_check(line, notes),
            "acl" => self.read_acl(line, notes),
            "tcp-request" => self.read_rule(line, notes),
            "stick-table" => self.stick_expire = after_word(line, "expire").and_then(millis),
            "stick" if line.word(1) == "on" && line.word(2) == "src" => {
                self.stick = Some(self.stick_expire)
            }
            word if LOGGING.contains(&word) => {
                notes.left(
                    line.number,
                    &line.text(),
                    "Buoy logs changes, and counts connections in its metrics",
                );
            }
            _ => notes.left(line.number, &line.text(), "Buoy has nothing like it"),
        }
    }

    fn read_timeout(&mut self, line: &Line, notes: &mut Notes) {
        let known = ["connect", "client", "server", "queue", "check"].contains(&line.word(1));
        match millis(line.word(2)).filter(|_| known) {
            Some(time) => {
                self.timeouts.insert(line.word(1).to_owned(), time);
            }
            None => notes.left(line.number, &line.text(), "it is about HTTP, or no time"),
        }
    }

    fn read_option(&mut self, line: &Line, notes: &mut Notes) {
        let yes = || "true".to_owned();
        match line.word(1) {
            "tcp-check" => self.probe = Probe::default(),
            "httpchk" => self.probe = http_probe(line),
            "smtpchk" => self.probe = Probe { question: Some(("smtp", yes())), more: Vec::new() },
            "redis-check" => self.probe = Probe { question: Some(("redis", yes())), more: Vec::new() },
            "mysql-check" => self.probe = Probe { question: Some(("mysql", yes())), more: Vec::new() },
            "pgsql-check" => self.probe = Probe { question: Some(("postgres", yes())), more: Vec::new() },
            "ssl-hello-chk" => self.probe = Probe { question: Some(("tls", yes())), more: Vec::new() },
            "tcplog" | "httplog" | "dontlognull" | "dontlog-normal" | "logasap" | "log-health-checks" => {
                notes.left(line.number, &line.text(), "Buoy logs changes, and counts connections in its metrics");
            }
            "redispatch" => notes.say(line.number, "`option redispatch` needs no key: a connection that is refused goes to another backend".to_owned()),
            _ => notes.left(line.number, &line.text(), "Buoy has nothing like it"),
        }
    }

    fn read_http_check(&mut self, line: &Line, notes: &mut Notes) {
        let text = crate::draft::quoted;
        match (line.word(1), line.word(2)) {
            ("send", _) => {
                let method = after_word(line, "meth").unwrap_or("GET");
                let uri = after_word(line, "uri").unwrap_or("/");
                self.probe.question = Some(("http", text(&format!("{method} {uri}"))));
                let host = line.words.iter().position(|word| word.eq_ignore_ascii_case("host"));
                if let Some(host) =
                    host.map(|place| line.word(place + 1)).filter(|host| !host.is_empty())
                {
                    self.probe.more.push(("host", text(host)));
                }
            }
            ("expect", "status") => {
                let statuses = line.word(3).split(',').map(|status| match status.parse::<u16>() {
                    Ok(status) => status.to_string(),
                    Err(_) => text(status),
                });
                self.probe.more.push(("expect", crate::draft::one_or_list(statuses.collect())));
            }
            ("expect", "string") => self.probe.more.push(("body", text(line.word(3)))),
            ("expect", "rstring") => self.probe.more.push(("body_regex", text(line.word(3)))),
            _ => notes.left(
                line.number,
                &line.text(),
                "a check of Buoy sends one request, and looks at status and body",
            ),
        }
    }

    fn read_acl(&mut self, line: &Line, notes: &mut Notes) {
        if routes::is_server_name(line.word(2)) {
            return match routes::names(line.after(3)) {
                Some(names) => {
                    self.server_names.entry(line.word(1).to_owned()).or_default().extend(names)
                }
                None => notes.left(
                    line.number,
                    &line.text(),
                    "Buoy knows whole names, and `-m end .example.org`",
                ),
            };
        }
        if line.word(2) != "src" {
            notes.left(
                line.number,
                &line.text(),
                "of access lists those with `src` and `req.ssl_sni` are understood",
            );
            return;
        }
        let prefixes = line.after(3).iter().filter(|word| !word.starts_with('-')).cloned();
        self.acls.entry(line.word(1).to_owned()).or_default().extend(prefixes);
    }

    /// `tcp-request connection reject if { src 10.0.0.0/8 }`.
    fn read_rule(&mut self, line: &Line, notes: &mut Notes) {
        let waits = line.word(1) == "inspect-delay"
            || (line.word(1) == "content"
                && line.word(2) == "accept"
                && line.words.iter().any(|word| word.ends_with("ssl_hello_type")));
        if waits {
            let said = format!(
                "`{}` needs no key: where there are names, Buoy waits for the first message by itself",
                line.text()
            );
            return notes.say(line.number, said);
        }
        let is_reject = line.word(1) == "connection" && line.word(2) == "reject";
        let sign = match line.word(3) {
            "if" => true,
            "unless" => false,
            _ => {
                return notes.left(
                    line.number,
                    &line.text(),
                    "of these rules `tcp-request connection reject if` is understood",
                );
            }
        };
        let condition: Vec<&str> = line.after(4).iter().map(String::as_str).collect();
        let (sign, prefixes) = match condition.as_slice() {
            ["{", "src", prefixes @ .., "}"] => {
                (sign, prefixes.iter().map(|p| (*p).to_owned()).collect())
            }
            ["!{", "src", prefixes @ .., "}"] | ["!", "{", "src", prefixes @ .., "}"] => {
                (!sign, prefixes.iter().map(|p| (*p).to_owned()).collect())
            }
            [one] => {
                let (sign, name) = one.strip_prefix('!').map_or((sign, *one), |name| (!sign, name));
                (sign, self.acls.get(name).cloned().unwrap_or_default())
            }
            _ => (sign, Vec::new()),
        };
        if !is_reject || prefixes.is_empty() {
            let why = "Buoy refuses by the client's address only: write it as `allow` and `deny`";
            return notes.left(line.number, &line.text(), why);
        }
        match sign {
            true => self.deny.extend(prefixes),
            false => self.allow.extend(prefixes),
        }
    }
}

/// `option httpchk [METHOD] URI [VERSION]`, where old files hide a `Host` in the version.
fn http_probe(line: &Line) -> Probe {
    let text = crate::draft::quoted;
    let (method, uri) = match (line.word(2), line.word(3)) {
        ("", _) => ("OPTIONS", "/"),
        (uri, "") => ("OPTIONS", uri),
        (method, uri) => (method, uri),
    };
    let mut more = Vec::new();
    let version = line.after(4).join(" ");
    let host = version.split("\r\n").find_map(|header| header.strip_prefix("Host:"));
    more.extend(host.map(|host| ("host", text(host.trim()))));
    Probe { question: Some(("http", text(&format!("{method} {uri}")))), more }
}

/// The word after that one.
pub(super) fn after_word<'l>(line: &'l Line, word: &str) -> Option<&'l str> {
    let place = line.words.iter().position(|known| known == word)?;
    line.words.get(place + 1).map(String::as_str)
}

/// `server-template PREFIX NUMBER NAME:PORT ...`: Buoy takes all addresses of the name.
fn template(line: &Line, notes: &mut Notes) -> Option<Line> {
    if line.words.len() < 4 {
        notes.left(line.number, &line.text(), "it is not complete");
        return None;
    }
    notes.say(
        line.number,
        format!("all addresses of {} are backends, however many there are", line.word(3)),
    );
    let mut words = vec!["server".to_owned(), line.word(1).to_owned()];
    words.extend_from_slice(line.after(3));
    Some(Line { number: line.number, words })
}

//! Reads HAProxy's file: what is about TCP in its frontends and backends becomes services of VIPs.
//!
//! `sections` cuts the text, `proxy` reads what a proxy says, `server` its servers, `routes` who gets which names; here frontends meet their backends.

mod proxy;
mod routes;
mod sections;
mod server;

use crate::draft::{Table, list, name, one_or_list, quoted};
use crate::notes::{Notes, shown};
use crate::vaddrs::{split, usual_prefix};
use crate::{Imported, Options, finish};
use proxy::{Proxy, after_word};
use sections::{Line, Section};
use std::net::IpAddr;

/// The VIP of those who listen everywhere, where nobody gave one (RFC 5737).
const VIP_UNKNOWN: &str = "192.0.2.100/24";
/// Most ports of one line that are written one by one.
const PORTS_MAX: u16 = 32;
/// Name servers that Buoy asks at most.
const RESOLVERS_MAX: usize = 3;

/// Reads `text`, which is called `file`.
pub fn haproxy(text: &str, file: &str, options: &Options) -> Imported {
    let mut notes = Notes::new(file);
    let sections = sections::read(text, &mut notes);
    let mut defaults = Proxy::default();
    let mut proxies = Vec::new();
    let mut top = Table::new("");
    for section in &sections {
        match section.kind.as_str() {
            "defaults" => defaults = Proxy::read(section, &Proxy::default(), &mut notes),
            "frontend" | "listen" | "backend" => {
                refuse_from(section, &mut notes);
                proxies.push(Proxy::read(section, &defaults, &mut notes));
            }
            "resolvers" => read_resolvers(section, &mut top, &mut notes),
            kind => notes.left(section.line, kind, "it is about HAProxy itself"),
        }
    }
    let mut vips = Vips { list: Vec::new(), wildcard: options.vip.clone(), is_made_up: false };
    for front in proxies.iter().filter(|proxy| proxy.kind != "backend") {
        write_front(front, &proxies, &mut vips, &mut notes);
    }
    finish(vips.into_tables(), top, options, notes)
}

fn refuse_from(section: &Section, notes: &mut Notes) {
    if section.rest.first().is_some_and(|word| word == "from") {
        let what = format!("{} {} from ...", section.kind, section.name);
        notes
            .say(section.line, format!("{}: the last `defaults` before it is taken", shown(&what)));
    }
}

fn read_resolvers(section: &Section, top: &mut Table, notes: &mut Notes) {
    let mut servers = Vec::new();
    for line in &section.lines {
        match (line.word(0), line.word(2).parse::<std::net::SocketAddr>()) {
            ("nameserver", Ok(server)) if servers.len() < RESOLVERS_MAX => {
                servers.push(quoted(&server.to_string()))
            }
            _ => notes.left(
                line.number,
                &line.text(),
                "Buoy asks three name servers at most, each by its address",
            ),
        }
    }
    if !servers.is_empty() {
        top.set("resolvers", list(servers));
    }
}

/// The VIPs, each with its services.
struct Vips {
    list: Vec<(String, Table)>,
    /// For those that listen everywhere.
    wildcard: Option<String>,
    is_made_up: bool,
}

impl Vips {
    /// The VIP of a bind, by its address; `None`: every address.
    fn of(&mut self, address: Option<IpAddr>, line: usize, notes: &mut Notes) -> &mut Table {
        let vip = match address {
            Some(address) => {
                let same = |vip: &str| split(vip).is_some_and(|(known, _)| known == address);
                match self.wildcard.clone().filter(|vip| same(vip)) {
                    Some(vip) => vip,
                    None => {
                        let prefix = usual_prefix(address);
                        notes.say(line, format!("{address} has no prefix there: /{prefix} is assumed, write that of its subnet"));
                        format!("{address}/{prefix}")
                    }
                }
            }
            None => {
                if self.wildcard.is_none() {
                    self.is_made_up = true;
                    notes.say(line, format!("it listens on every address, which no VIP does: {VIP_UNKNOWN} is made up, give the VIP as --vip 10.0.0.100/24"));
                }
                self.wildcard.clone().unwrap_or_else(|| VIP_UNKNOWN.to_owned())
            }
        };
        let place = self.list.iter().position(|(known, _)| *known == vip).unwrap_or_else(|| {
            let mut table = Table::new("[[vip]]");
            if vip == VIP_UNKNOWN && self.is_made_up {
                table.comment("not in the file that was read: write the VIP");
            }
            table.set("address", quoted(&vip));
            self.list.push((vip, table));
            self.list.len() - 1
        });
        &mut self.list[place].1
    }

    fn into_tables(self) -> Vec<Table> {
        self.list.into_iter().map(|(_, table)| table).collect()
    }
}

/// Where a proxy listens.
struct Listen {
    address: Option<IpAddr>,
    ports: Vec<u16>,
    accept_proxy: bool,
    line: usize,
}

fn write_front(front: &Proxy, proxies: &[Proxy], vips: &mut Vips, notes: &mut Notes) {
    let what = format!("{} {}", front.kind, front.name);
    if front.is_disabled {
        return notes.left(front.line, &what, "it is disabled");
    }
    let back = match (&front.default_backend, front.kind.as_str()) {
        (Some(back), _) => {
            let is_it = |proxy: &&Proxy| proxy.kind != "frontend" && proxy.name == *back;
            match proxies.iter().find(is_it) {
                Some(back) => Some(back),
                None => {
                    return notes.left(
                        front.line,
                        &what,
                        &format!("there is no backend {}", shown(back)),
                    );
                }
            }
        }
        (None, "listen") => Some(front),
        (None, _) if !front.routes.is_empty() => None,
        (None, _) => return notes.left(front.line, &what, "it has no `default_backend`"),
    };
    let (back, names) = routes::merge(front, back, proxies, notes);
    let back = &back;
    let listens: Vec<Listen> = front.binds.iter().flat_map(|bind| read_bind(bind, notes)).collect();
    for listen in &listens {
        let mut service = Table::new("[[vip.service]]");
        service.comment(&match front.name == back.name {
            true => what.clone(),
            false => format!("{what}, backend {}", back.name),
        });
        let ports = listen.ports.iter().map(|port| quoted(&format!("{port}/tcp"))).collect();
        service.set("port", one_or_list(ports));
        service.set("mode", quoted("proxy"));
        let only_port = listen.ports.first().copied().filter(|_| listen.ports.len() == 1);
        let carried = server::write(back, only_port, &mut service, notes);
        if carried.is_empty() {
            notes.left(listen.line, &what, "none of its servers can be carried");
            continue;
        }
        if let Some(names) = names.value(&carried) {
            service.set("sni", names);
        }
        write_client_side(front, listen, &mut service);
        write_balance(back, &mut service, notes);
        vips.of(listen.address, listen.line, notes).push(service);
    }
    if listens.is_empty() {
        notes.left(front.line, &what, "it listens nowhere that Buoy could");
    }
}

fn write_client_side(front: &Proxy, listen: &Listen, service: &mut Table) {
    if listen.accept_proxy {
        service.set("accept_proxy", "true".to_owned());
    }
    if let Some(most) = front.maxconn.filter(|most| (1..=1_048_576).contains(most)) {
        service.set("max_connections", most.to_string());
    }
    let prefixes = |all: &[String]| list(all.iter().map(|prefix| quoted(prefix)));
    if !front.allow.is_empty() {
        service.set("allow", prefixes(&front.allow));
    }
    if !front.deny.is_empty() {
        service.set("deny", prefixes(&front.deny));
    }
}

fn write_balance(back: &Proxy, service: &mut Table, notes: &mut Notes) {
    let usual = Line::default();
    let line = back.balance.as_ref().unwrap_or(&usual);
    // What HAProxy calls `roundrobin` is its default, and Buoy's in mode `proxy`.
    let balance = match line.word(1).split('(').next().unwrap_or_default() {
        "" | "roundrobin" | "static-rr" => "roundrobin",
        "leastconn" => "leastconn",
        "source" => "source",
        "first" => "first",
        "random" => "random",
        _ => {
            notes.left(
                line.number,
                &line.text(),
                "Buoy does not look into requests: `roundrobin` is written",
            );
            "roundrobin"
        }
    };
    service.set("balance", quoted(balance));
    match back.stick {
        Some(Some(millis)) => {
            let millis = millis.clamp(4000, 86_400_000);
            service.set("persist_timeout", crate::draft::duration(millis));
        }
        Some(None) if balance == "source" => service.set("persist", quoted("client")),
        Some(None) => service.set("persist_timeout", quoted("1h")),
        None => {}
    }
}

/// `bind 10.0.0.1:80,:443 accept-proxy`.
fn read_bind(bind: &Line, notes: &mut Notes) -> Vec<Listen> {
    let (mut accept_proxy, mut is_tls) = (false, false);
    for word in bind.after(2) {
        match word.as_str() {
            "accept-proxy" => accept_proxy = true,
            "ssl" => is_tls = true,
            "v4v6" | "transparent" => {}
            word => notes.left(bind.number, word, "Buoy listens on a VIP, without more settings"),
        }
    }
    if is_tls {
        let why = "it ends TLS, which Buoy passes on to the servers; let them end it";
        notes.left(bind.number, &bind.text(), why);
        return Vec::new();
    }
    let mut listens = Vec::new();
    for place in bind.word(1).split(',') {
        match read_place(place) {
            Ok((address, ports)) => {
                listens.push(Listen { address, ports, accept_proxy, line: bind.number })
            }
            Err(why) => notes.left(bind.number, &format!("bind {place}"), why),
        }
    }
    if after_word(bind, "interface").is_some() {
        notes.say(bind.number, "the interface of a VIP is the one with its subnet");
    }
    listens
}

fn read_place(place: &str) -> Result<(Option<IpAddr>, Vec<u16>), &'static str> {
    let place =
        place.strip_prefix("ipv4@").or_else(|| place.strip_prefix("ipv6@")).unwrap_or(place);
    if place.contains('@') || place.starts_with('/') {
        return Err("Buoy serves addresses, no sockets of this host");
    }
    let (address, ports) = place.rsplit_once(':').ok_or("it has no port")?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = match address {
        "" | "*" | "::" | "0.0.0.0" => None,
        address => Some(address.parse::<IpAddr>().map_err(|_| "it is no address")?),
    };
    if address.is_some_and(|address| address.is_loopback()) {
        return Err("it is for this host alone, and no VIP");
    }
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| {
        text.parse::<u16>().ok().filter(|port| *port > 0).ok_or("its port is no number")
    };
    let (first, last) = (port(first)?, port(last)?);
    if last < first || last - first >= PORTS_MAX {
        return Err("a VIP has 32 ports at most: write the range with mode = \"kernel\"");
    }
    Ok((address, (first..=last).collect()))
}

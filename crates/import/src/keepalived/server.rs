//! Reads `virtual_server` and writes it as a service.

use super::check;
use super::model::{number, seconds};
use super::script::Script;
use super::tree::{Node, Place};
use crate::draft::{Table, duration, list, quoted};
use crate::notes::Notes;
use crate::vaddrs::netmask;
use std::net::IpAddr;

/// How packets get to a server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
enum Method {
    #[default]
    Nat,
    Direct,
    Ipip,
    Gue(String),
}

/// A service on one or more addresses.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) place: Place,
    /// Each with its port; `None`: all ports.
    pub(super) places: Vec<(IpAddr, Option<u16>)>,
    pub(super) table: Table,
    protocol: String,
}

impl Service {
    /// The service as it is on a VIP with these addresses; `None`: on none of them.
    pub(super) fn on(&self, addresses: &[IpAddr]) -> Option<(Vec<String>, Table)> {
        let here: Vec<(IpAddr, Option<u16>)> = self
            .places
            .iter()
            .copied()
            .filter(|(address, _)| addresses.contains(address))
            .collect();
        if here.is_empty() {
            return None;
        }
        let mut table = self.table.clone();
        let ports = ports(&here, &self.protocol);
        table.set("port", crate::draft::one_or_list(ports.clone()));
        Some((ports, table))
    }
}

/// What a `virtual_server` says for all its servers.
#[derive(Clone, Debug, Default)]
struct Virtual {
    protocol: String,
    method: Method,
    scheduler: Option<Node>,
    /// Milliseconds.
    persistence: Option<u64>,
    granularity: Option<String>,
    quorum: Option<u32>,
    sorry: Option<Node>,
    is_kept: bool,
    servers: Vec<Node>,
    check: check::Settings,
}

/// A real server.
struct Real {
    /// As in `backends`.
    entry: String,
    /// Its connections stay when it is down.
    is_kept: bool,
    check: Option<String>,
}

/// Where a `virtual_server_group` is.
pub(super) type Groups = Vec<(String, Vec<(IpAddr, Option<u16>)>)>;

/// `virtual_server_group NAME { ADDRESS PORT ... }`.
pub(super) fn read_group(node: &Node, groups: &mut Groups, notes: &mut Notes) {
    let mut places = Vec::new();
    for line in &node.nodes {
        match line.word(0).parse::<IpAddr>() {
            Ok(address) => {
                places.push((address, line.word(1).parse().ok().filter(|port| *port > 0)))
            }
            Err(_) => notes.left_at(
                &line.place,
                &line.text(),
                "Buoy's services have addresses: no ranges, and no firewall marks",
            ),
        }
    }
    groups.push((node.word(1).to_owned(), places));
}

pub(super) fn read(
    node: &Node,
    groups: &Groups,
    script_user: Option<&str>,
    notes: &mut Notes,
) -> Option<Service> {
    let places = places(node, groups, notes)?;
    let mut server = Virtual { protocol: "tcp".to_owned(), ..Virtual::default() };
    for line in node.lines_once(&[], |word| word == "real_server", notes) {
        server.read_line(&line, notes);
    }
    if !["tcp", "udp"].contains(&server.protocol.as_str()) {
        notes.left_at(&node.place, &node.text(), "Buoy forwards TCP and UDP");
        return None;
    }
    let mut table = Table::new("[[vip.service]]");
    let ports: Vec<String> = ports(&places, &server.protocol);
    table.set("port", crate::draft::one_or_list(ports));
    server.write_method(&mut table);
    let is_written = server.write_servers(node, &places, script_user, &mut table, notes);
    if !is_written {
        notes.left_at(&node.place, &node.text(), "it has no real server that can be carried");
        return None;
    }
    server.write_balance(&mut table, notes);
    server.write_rest(&mut table);
    Some(Service { place: node.place.clone(), places, table, protocol: server.protocol })
}

fn places(node: &Node, groups: &Groups, notes: &mut Notes) -> Option<Vec<(IpAddr, Option<u16>)>> {
    let places = match (node.word(1), node.word(2)) {
        ("group", group) => {
            groups.iter().find(|(name, _)| name == group).map(|(_, places)| places.clone())
        }
        ("fwmark", _) => None,
        (address, port) => address
            .parse()
            .ok()
            .map(|address| vec![(address, port.parse().ok().filter(|port| *port > 0))]),
    };
    let places = places.filter(|places| !places.is_empty());
    if places.is_none() {
        notes.left_at(
            &node.place,
            &node.text(),
            "a service of Buoy has an address: no firewall mark, and no group that is not there",
        );
    }
    places
}

/// `"80/tcp"`, each once.
fn ports(places: &[(IpAddr, Option<u16>)], protocol: &str) -> Vec<String> {
    let mut ports: Vec<String> = Vec::new();
    for (_, port) in places {
        let port = port.map_or_else(|| "*".to_owned(), |port| port.to_string());
        let port = quoted(&format!("{port}/{protocol}"));
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

impl Virtual {
    fn read_line(&mut self, line: &Node, notes: &mut Notes) {
        match line.keyword() {
            "protocol" => self.protocol = line.word(1).to_lowercase(),
            "lvs_sched" | "lb_algo" => self.scheduler = Some(line.clone()),
            "lvs_method" | "lb_kind" => self.method = method(line, notes),
            "persistence_timeout" => {
                self.persistence = Some(seconds(line.word(1)).unwrap_or(360_000))
            }
            "persistence_granularity" => self.granularity = Some(line.word(1).to_owned()),
            "quorum" => self.quorum = number(line, notes),
            "sorry_server" => self.sorry = Some(line.clone()),
            "inhibit_on_failure" | "sorry_server_inhibit" => self.is_kept = true,
            "real_server" => self.servers.push(line.clone()),
            "ha_suspend" => notes
                .say_at(&line.place, "`ha_suspend` needs no key: every host checks at all times"),
            "smtp_alert" => super::model::say_mail(line, notes),
            "quorum_up" | "quorum_down" => {
                notes.left_at(
                    &line.place,
                    &line.text(),
                    "a [[hook]] with events = [\"health\"] hears of backends, in JSON",
                );
            }
            "alpha"
            | "omega"
            | "ops"
            | "hysteresis"
            | "snmp_name"
            | "ip_family"
            | "persistence_engine"
            | "sh-port"
            | "sh-fallback"
            | "mh-port"
            | "mh-fallback"
            | "flag-1"
            | "flag-2"
            | "flag-3"
            | "sorry_server_lvs_method" => {
                notes.left_at(&line.place, &line.text(), "Buoy has nothing like it");
            }
            _ if self.check.take(line) => {}
            _ => notes.left_at(
                &line.place,
                &line.text(),
                "no such keyword of a virtual_server is known",
            ),
        }
    }

    fn write_method(&self, table: &mut Table) {
        let (forward, encapsulation) = match &self.method {
            Method::Nat => {
                // What IPVS does: servers see the client, and answer through this host.
                table.set("mode", quoted("kernel"));
                table.set("source", quoted("client"));
                return;
            }
            Method::Direct => ("dsr", None),
            Method::Ipip => ("tunnel", None),
            Method::Gue(port) => ("tunnel", Some(format!("gue:{port}"))),
        };
        table.set("forward", quoted(forward));
        if let Some(encapsulation) = encapsulation {
            table.set("encapsulation", quoted(&encapsulation));
        }
    }

    /// Whether there is one at least.
    fn write_servers(
        &self,
        node: &Node,
        places: &[(IpAddr, Option<u16>)],
        script_user: Option<&str>,
        table: &mut Table,
        notes: &mut Notes,
    ) -> bool {
        let mut reals: Vec<(Place, Real)> = Vec::new();
        for real in &self.servers {
            let read = self.read_real(real, places, script_user, notes);
            reals.extend(read.map(|read| (real.place.clone(), read)));
        }
        let mut backends: Vec<String> = reals.iter().map(|(_, real)| quoted(&real.entry)).collect();
        let sorry = self.sorry.as_ref().and_then(|sorry| self.target(sorry, places, notes));
        backends.extend(sorry.map(|(entry, _)| quoted(&format!("{entry} backup"))));
        if reals.is_empty() {
            return false;
        }
        table.set("backends", list(backends));
        if self.is_kept || reals.iter().any(|(_, real)| real.is_kept) {
            table.set("on_down", quoted("keep"));
        }
        let mut first = reals.iter().find_map(|(_, real)| real.check.clone());
        let is_portless = |check: &String| !check.contains("port = ") && !check.contains("icmp = ");
        if first.as_ref().is_some_and(is_portless) && places.iter().any(|(_, port)| port.is_none())
        {
            let why = "of all ports none is the one to ask: add check = { tcp = true, port = 22 } with one that is open";
            notes.left_at(&node.place, "its check", why);
            first = None;
            reals.iter_mut().for_each(|(_, real)| real.check = None);
        }
        for (place, real) in reals.iter().filter(|(_, real)| real.check != first) {
            let what = if real.check.is_some() { "another check" } else { "no check" };
            notes.say_at(
                place,
                format!("it has {what}: all servers of a service are checked alike, as the first one that is"),
            );
        }
        if first.is_none() {
            notes.say_at(&node.place, "no server is checked, so none ever counts as down");
        }
        table.set("check", first.unwrap_or_else(|| "false".to_owned()));
        true
    }

    fn read_real(
        &self,
        node: &Node,
        places: &[(IpAddr, Option<u16>)],
        script_user: Option<&str>,
        notes: &mut Notes,
    ) -> Option<Real> {
        let (entry, target) = self.target(node, places, notes)?;
        let mut real = Real { entry, is_kept: false, check: None };
        let mut settings = self.check.clone();
        let mut weight = None;
        let mut found: Vec<Node> = Vec::new();
        for line in node.lines_once(&[], check::is_checker, notes) {
            match line.keyword() {
                "weight" => {
                    weight = number::<u32>(&line, notes).map(|weight| weight.min(256));
                }
                "inhibit_on_failure" => real.is_kept = true,
                "lvs_method" | "lb_kind" => {
                    if method(&line, notes) != self.method {
                        let why = "all servers of a service are reached in one way";
                        notes.left_at(&line.place, &line.text(), why);
                    }
                }
                "uthreshold" | "lthreshold" => {
                    let why = "only mode \"proxy\" counts connections: `max` of a backend";
                    notes.left_at(&line.place, &line.text(), why);
                }
                "notify_up" | "notify_down" => {
                    let why = "a [[hook]] with events = [\"health\"] hears of backends, in JSON";
                    notes.left_at(&line.place, &line.text(), why);
                }
                "smtp_alert" => super::model::say_mail(&line, notes),
                "alpha" | "snmp_name" => {
                    notes.left_at(&line.place, &line.text(), "Buoy has nothing like it")
                }
                word if check::is_checker(word) => found.push(line.clone()),
                _ if settings.take(&line) => {}
                _ => notes.left_at(
                    &line.place,
                    &line.text(),
                    "no such keyword of a real_server is known",
                ),
            }
        }
        let weight = weight.map(|weight| format!(" weight={weight}"));
        real.entry.push_str(&weight.unwrap_or_default());
        for other in found.iter().skip(1) {
            notes.left_at(&other.place, other.keyword(), "a service of Buoy has one check");
        }
        let first = found.first();
        real.check =
            first.and_then(|node| check::write(node, &settings, target, script_user, notes));
        Some(real)
    }

    /// The entry of `backends`, and whom a check asks.
    fn target(
        &self,
        real: &Node,
        places: &[(IpAddr, Option<u16>)],
        notes: &mut Notes,
    ) -> Option<(String, (IpAddr, Option<u16>))> {
        let (address, port) = (real.word(1).parse::<IpAddr>(), real.word(2).parse::<u16>());
        let Ok(address) = address else {
            notes.left_at(&real.place, &real.text(), "a real server of Buoy is an address");
            return None;
        };
        let port = port.ok().filter(|port| *port > 0);
        let keeps_port =
            self.method != Method::Nat || places.iter().any(|(_, port)| port.is_none());
        let entry = match (port, keeps_port) {
            (Some(port), false) => std::net::SocketAddr::new(address, port).to_string(),
            (Some(port), true) => {
                if places.iter().any(|(_, own)| own.is_some_and(|own| own != port)) {
                    notes.say_at(
                        &real.place,
                        "packets keep their port on this way: the one of the server is not used",
                    );
                }
                address.to_string()
            }
            (None, _) => address.to_string(),
        };
        Some((entry, (address, port)))
    }

    fn write_balance(&self, table: &mut Table, notes: &mut Notes) {
        let Some(line) = &self.scheduler else { return };
        let is_fast = self.method != Method::Nat;
        let (balance, why) = match line.word(1) {
            "rr" | "wrr" if !is_fast => ("roundrobin", None),
            "sh" => ("source", None),
            "mh" if is_fast => ("maglev", None),
            "mh" => ("hash", None),
            "rr" | "wrr" => (
                "hash",
                Some(
                    "what forwards packets by itself spreads them by a hash, in proportion to the weights",
                ),
            ),
            "lc" | "wlc" | "sed" | "nq" => (
                "hash",
                Some(
                    "only mode \"proxy\" counts connections: they are spread by a hash, in proportion to the weights",
                ),
            ),
            _ => ("hash", Some("Buoy has no such scheduler: connections are spread by a hash")),
        };
        if let Some(why) = why {
            notes.left_at(&line.place, &line.text(), why);
        }
        table.set("balance", quoted(balance));
    }

    fn write_rest(&self, table: &mut Table) {
        if let Some(time) = self.persistence {
            table.set("persist_timeout", duration(time.clamp(4000, 86_400_000)));
            let mask = self.granularity.as_deref().unwrap_or_default();
            match (netmask(mask), mask.parse::<u8>()) {
                (Some(bits), _) if bits > 0 => table.set("persist_ipv4", bits.to_string()),
                (None, Ok(bits)) if (1..=128).contains(&bits) => {
                    table.set("persist_ipv6", bits.to_string())
                }
                (_, _) => {}
            }
        }
        if let Some(quorum) = self.quorum.filter(|quorum| *quorum > 1) {
            table.set("quorum", quorum.to_string());
        }
    }
}

/// `lvs_method DR`, or `lvs_method TUN type gue port 6080`.
fn method(line: &Node, notes: &mut Notes) -> Method {
    let word = |word: &str| {
        let at = line.words.iter().position(|known| known == word)?;
        line.words.get(at + 1).cloned()
    };
    match line.word(1).to_uppercase().as_str() {
        "DR" => Method::Direct,
        "TUN" => match word("type").as_deref() {
            Some("gue") => Method::Gue(word("port").unwrap_or_else(|| "6080".to_owned())),
            Some("gre") => {
                notes.left_at(
                    &line.place,
                    &line.text(),
                    "Buoy tunnels in IP or in UDP (gue): IP is written",
                );
                Method::Ipip
            }
            Some(_) | None => Method::Ipip,
        },
        "NAT" => Method::Nat,
        _ => {
            notes.left_at(&line.place, &line.text(), "there is NAT, DR and TUN: NAT is written");
            Method::Nat
        }
    }
}

/// How a script is written where a check may hold the address and port of a server in its arguments.
pub(super) fn with_places(script: &Script, (address, port): (IpAddr, Option<u16>)) -> Script {
    let address = address.to_string();
    let port = port.map(|port| port.to_string());
    let place = |word: &String| match word {
        word if *word == address => "{address}".to_owned(),
        word if Some(word) == port.as_ref() => "{port}".to_owned(),
        word => word.clone(),
    };
    Script { argv: script.argv.iter().map(place).collect(), user: script.user.clone() }
}

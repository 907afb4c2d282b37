//! Renders every kernel-mode service into one nftables table and applies it in one transaction.
//!
//! ```text
//! client ─► guard (counts; drops what may not be answered) ─► pick (dnat to a backend)
//!        ─► source (snat to the VIP) ─► backend        without a backend: refuse (reject)
//! ```
//!
//! Every node has the same rules at all times; only announcing is exclusive. So a node that takes
//! a VIP over gets packets of connections that it never saw begin. Conntrack picks them up
//! (`nf_conntrack_tcp_loose`), the hash of the client's address and port finds the backend that they
//! had, and the VIP as source makes the backend see the peer it knows. What cannot be picked up (a
//! packet of a backend whose client has not spoken yet) is dropped, never reset: the client's
//! next packet mends it.
//!
//! Conntrack keeps what a connection was given. A new table changes new connections only, but for those of
//! clients that a service is not there for any more: nothing of them gets through.
//!
//! Packets that keep their addresses have a table of their own (`direct`).
//!
//! Absent on purpose: who is up and who gets which slot (`core::balance`), and the VIP itself.

pub mod accept;
mod deny;
pub mod direct;
pub(crate) mod filter;
mod limit;
mod named;
pub(crate) mod ports;
mod program;
mod settings;
mod stick;

use crate::relay;
use crate::sysctl::SysctlError;
use buoy_model::{
    FlowFields, Ports, Protocol, Quic, Rate, ServerId, SourceAddress, Sources, Stick,
};
use ports::NOT_FIRST;
use program::run;
pub use settings::{enable_forwarding, enable_pickup, pickup_problem};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The table; nothing else in nftables is touched.
pub const TABLE: &str = "buoy";
/// Seed of the hash: the same on every node for ever, or connections do not survive a failover.
const SEED: u32 = 0x6275_6f79;

/// One service on one address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Forward {
    /// The address that clients ask.
    pub vip: IpAddr,
    /// The ports that clients ask.
    pub ports: Ports,
    /// Ports among them that belong to other services of the VIP.
    pub within: Vec<Ports>,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What a backend sees as its peer.
    pub source: SourceAddress,
    /// Whom it is there for.
    pub sources: Arc<Sources>,
    /// How many connections one client may open.
    pub new_connections: Option<Rate>,
    /// Who gets a new connection.
    pub spread: Spread,
    /// For how long clients get the backend that they had.
    pub stick: Option<Stick>,
    /// Which of them are up, new connections or not: clients that had one get it again.
    pub standing: Vec<SocketAddr>,
    /// How datagrams name one of these.
    pub quic: Option<(Quic, Vec<(ServerId, SocketAddr)>)>,
    /// All backends of the service, up or down: their connections are guarded. The port of each is where
    /// the first port leads; of a range they all have the same.
    pub backends: Vec<SocketAddr>,
    /// The other nodes that may know a connection, by addresses of the VIP's family.
    pub relays: Vec<IpAddr>,
    /// The interface that carries the VIP.
    pub link: String,
}

/// How new connections are given to backends. All are of the VIP's own family.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Spread {
    /// Nobody is there: say so to the client at once.
    Refuse,
    /// To nobody: whoever owns the VIP takes it itself.
    Local,
    /// By the hash of the client's address and port; one entry per slot.
    Hash(Vec<SocketAddr>),
    /// By the hash of the client's address alone, as far as it counts; one entry per slot.
    HashClient(Vec<SocketAddr>, FlowFields),
    /// In turns; one entry per turn.
    Turns(Vec<SocketAddr>),
}

/// Counts the packets of backends that no connection here knows (yet).
const GUARDED: &str = "guarded";
/// Counts the packets of clients that a service is not there for.
const DENIED: &str = "denied";
/// Counts the segments of clients that fit no connection.
const INVALID: &str = "invalid";

/// What a service has done since its counters were made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Packets of clients.
    pub packets: u64,
    /// Bytes of clients, IP headers included.
    pub bytes: u64,
    /// Connections (or UDP flows) given to a backend.
    pub connections: u64,
    /// Packets refused because no backend was up.
    pub refused: u64,
    /// Packets that open a connection, dropped because their client opens too many.
    pub limited: u64,
    /// Connections that got the backend that their client had.
    pub stuck: u64,
    /// Flows whose first datagram has a connection id that names nobody here.
    pub unnamed: u64,
}

/// The table as the kernel has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observed {
    /// Packets and bytes of each named counter.
    counters: BTreeMap<String, (u64, u64)>,
    /// The sets of clients of services with a limit.
    sets: BTreeSet<String>,
}

impl Observed {
    /// What the service on that address has done.
    pub fn counts(&self, forward: &Forward) -> Counts {
        let read = |of| self.counters.get(&counter(forward, of)).copied().unwrap_or_default();
        let (packets, bytes) = read(Of::Traffic);
        let (connections, _) = read(Of::Connections);
        let (refused, _) = read(Of::Refused);
        let (limited, _) = read(Of::Limited);
        let ((stuck, _), (unnamed, _)) = (read(Of::Stuck), read(Of::Unnamed));
        Counts { packets, bytes, connections, refused, limited, stuck, unnamed }
    }

    /// Packets of backends dropped because their client had not been heard here yet; they grow for
    /// a moment after a failover.
    pub fn guarded(&self) -> u64 {
        self.counters.get(GUARDED).map_or(0, |(packets, _)| *packets)
    }

    /// Packets dropped because the service is not there for who sent them.
    pub fn denied(&self) -> u64 {
        self.counters.get(DENIED).map_or(0, |(packets, _)| *packets)
    }

    /// Segments of clients dropped because they fit no connection.
    pub fn invalid(&self) -> u64 {
        self.counters.get(INVALID).map_or(0, |(packets, _)| *packets)
    }
}

/// Why the kernel does not forward as it should.
#[derive(Debug)]
pub enum Error {
    /// There is no `nft` program.
    Missing,
    /// `nft` could not be started or fed.
    Run(io::Error),
    /// `nft` said no.
    Refused {
        /// In its own words.
        said: String,
    },
    /// A kernel setting could not be changed.
    Setting(SysctlError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str(
                "no `nft` on this host: install nftables (apt install nftables); services can have mode = \"proxy\" instead",
            ),
            Self::Run(error) => write!(f, "cannot run `nft`: {error}"),
            Self::Refused { said } if said.contains("Operation not permitted") => f.write_str(
                "not permitted to change nftables: run the agent as root or give it CAP_NET_ADMIN",
            ),
            Self::Refused { said } => write!(f, "`nft` refused the ruleset: {said}"),
            Self::Setting(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Makes the kernel forward exactly this. Twice is the same as once; counters go on counting.
pub fn apply(forwards: &[Forward]) -> Result<(), Error> {
    if forwards.is_empty() {
        return remove();
    }
    let observed = observe()?;
    replace("inet", observed.as_ref(), |observed| render(forwards, observed))
}

/// Puts a table in place of the one that is there, by a script that knows what is there.
fn replace(
    family: &str,
    observed: Option<&Observed>,
    script: impl Fn(Option<&Observed>) -> String,
) -> Result<(), Error> {
    match run(&["-f", "-"], &script(observed)) {
        Ok(_) => Ok(()),
        // A table of another version, whose chains hang elsewhere, cannot be changed in place.
        Err(Error::Refused { .. }) if observed.is_some() => {
            let anew = format!("delete table {family} {TABLE}\n{}", script(None));
            run(&["-f", "-"], &anew).map(|_| ())
        }
        Err(error) => Err(error),
    }
}

/// Takes the table away; being gone already is success.
pub fn remove() -> Result<(), Error> {
    remove_of(&["inet", "ip", "ip6"])
}

fn remove_of(families: &[&str]) -> Result<(), Error> {
    // `add` first, so that `delete` always finds one.
    let both =
        |family: &&str| format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n");
    let text: String = families.iter().map(both).collect();
    match run(&["-f", "-"], &text) {
        // No program: then no table of ours either.
        Ok(_) | Err(Error::Missing) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the kernel has; `None` when there is no table.
pub fn observe() -> Result<Option<Observed>, Error> {
    observe_of("inet")
}

fn observe_of(family: &str) -> Result<Option<Observed>, Error> {
    match run(&["list", "counters", "table", family, TABLE], "") {
        Ok(text) => {
            let sets = observe_sets(family, &text)?;
            Ok(Some(Observed { counters: parse_counters(&text), sets }))
        }
        Err(Error::Refused { said }) if said.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

/// The names of the sets, where the counters say that there are some: nobody else pays for the question.
fn observe_sets(family: &str, counters: &str) -> Result<BTreeSet<String>, Error> {
    if !counters.contains("_limited {") && !counters.contains("_stuck {") {
        return Ok(BTreeSet::new());
    }
    // Without their elements, which may be many.
    let text = run(&["--terse", "list", "sets", "table", family, TABLE], "")?;
    Ok(limit::parse_sets(&text).chain(stick::parse_sets(&text)).collect())
}

/// The whole table as a script for `nft -f`, from whatever `observed` says is there.
pub fn render(forwards: &[Forward], observed: Option<&Observed>) -> String {
    let mut text = begin("inet", forwards, &[GUARDED, INVALID, DENIED], observed);
    guard(forwards, &mut text);
    pick(forwards, &mut text);
    source(forwards, &mut text);
    refuse(forwards, &mut text);
    text.push_str("}\n");
    relay::render(forwards, &mut text);
    text
}

/// The table as far as its counters and sets: those that are there go on. `others` count for all services.
fn begin(
    family: &str,
    forwards: &[Forward],
    others: &[&str],
    observed: Option<&Observed>,
) -> String {
    let of_services = forwards.iter().flat_map(|f| {
        let limited = f.new_connections.map(|_| Of::Limited);
        let limited = limited.into_iter().chain(f.stick.map(|_| Of::Stuck));
        let limited = limited.chain(f.quic.as_ref().map(|_| Of::Unnamed));
        let all = [Of::Traffic, Of::Connections, Of::Refused].into_iter().chain(limited);
        all.map(|of| counter(f, of))
    });
    let wanted: Vec<String> =
        of_services.chain(others.iter().map(|name| (*name).to_owned())).collect();
    let mut text = format!("add table {family} {TABLE}\nflush table {family} {TABLE}\n");
    for stale in observed.iter().flat_map(|o| o.counters.keys()) {
        if !wanted.contains(stale) {
            let _ = writeln!(text, "delete counter {family} {TABLE} {stale}");
        }
    }
    for known in observed.iter().map(|o| &o.sets) {
        limit::forget(family, forwards, known, &mut text);
        stick::forget(family, forwards, known, &mut text);
    }
    let _ = writeln!(text, "table {family} {TABLE} {{");
    limit::sets(forwards, &mut text);
    if family == "inet" {
        stick::sets(forwards, &mut text);
    }
    for name in wanted {
        let _ = writeln!(text, "\tcounter {name} {{ }}");
    }
    text
}

/// After conntrack has seen the packet and before it is given to a backend.
fn guard(forwards: &[Forward], text: &mut String) {
    chain(text, "guard", "filter hook prerouting priority mangle");
    for family in [Family::V4, Family::V6] {
        let ip = family.word();
        let services: Vec<&Forward> =
            forwards.iter().filter(|f| Family::of(f.vip) == family).collect();
        deny::render(&services, family, "ct direction original ", text);
        limit::render(&services, family, "ct state new ", text);
        let counted = services.iter().flat_map(|f| {
            let (name, protocol) = (counter(f, Of::Traffic), f.protocol.name());
            let own = ports::own(f).into_iter().map(ports::written);
            own.map(move |ports| format!("{} . {protocol} . {ports} : \"{name}\"", f.vip))
        });
        let rule = format!("counter name {ip} daddr . meta l4proto . th dport map");
        over_set(text, &rule, counted, "");
        // A segment that fits no connection, as after a failover without pick-up.
        // What this host takes itself is the business of its own firewall.
        let tcp = services.iter().filter(|f| is_tcp(f) && f.spread != Spread::Local);
        let invalid = tcp.flat_map(|f| {
            let own = ports::own(f).into_iter().map(ports::written);
            own.map(|ports| format!("{} . {ports}", f.vip))
        });
        let rule = format!("ct state invalid {ip} daddr . tcp dport");
        over_set(text, &rule, invalid, &format!("counter name \"{INVALID}\" drop"));
        answers(&services, ip, text);
    }
    text.push_str("\t}\n");
}

/// Drops what backends send while their client has not been heard here yet.
fn answers(services: &[&Forward], ip: &str, text: &mut String) {
    let drop = format!("counter name \"{GUARDED}\" drop");
    for (protocol, is_range) in [
        (Protocol::Tcp, false),
        (Protocol::Tcp, true),
        (Protocol::Udp, false),
        (Protocol::Udp, true),
    ] {
        // The kernel would reset a connection whose client has not been heard here yet.
        let name = protocol.name();
        let of = services.iter().filter(|f| f.protocol == protocol && is_range != f.ports.is_one());
        let of =
            of.flat_map(|f| f.source.in_place_of_clients(f.vip).into_iter().map(move |s| (f, s)));
        let from = of.flat_map(|(f, seen)| {
            let to = format!(" . {seen}");
            ports::answering(f).map(move |(backend, ports)| (backend, ports, to.clone()))
        });
        let key = format!("ct state {{ new, invalid }} {ip} saddr . {name} sport . {ip} daddr");
        let verdict = match (protocol, is_range) {
            (Protocol::Tcp, true) => format!("{NOT_FIRST} {drop}"),
            (Protocol::Tcp, false) | (Protocol::Udp, true | false) => drop.clone(),
        };
        over_set(text, &key, ports::elements(from), &verdict);
    }
    // With the client's address as source an answer would pass untranslated, and the client
    // would reset it.
    let of = services.iter().filter(|f| is_tcp(f) && f.source == SourceAddress::Client);
    let from = of.flat_map(|f| ports::answering(f));
    let from = from.map(|(backend, ports)| (backend, ports, String::new()));
    let rule = format!("ct state {{ new, invalid }} {ip} saddr . tcp sport");
    over_set(text, &rule, ports::elements(from), &format!("{NOT_FIRST} {drop}"));
}

/// Gives a new connection to a backend, whether it comes from outside or from this host.
fn pick(forwards: &[Forward], text: &mut String) {
    text.push_str("\tchain pick {\n");
    for forward in forwards {
        let Some(ports) = ports::matched(forward) else { continue };
        let family = Family::of(forward.vip);
        let (ip, protocol) = (family.word(), forward.protocol.name());
        named::pick(forward, family, &ports, text);
        stick::pick(forward, family, &ports, text);
        let Some((key, list)) = choice(&forward.spread, ip, protocol) else { continue };
        let to = |backend: &SocketAddr| match forward.ports.is_one() {
            true => format!("{} . {}", backend.ip(), backend.port()),
            false => backend.ip().to_string(),
        };
        let entries: Vec<String> =
            list.iter().enumerate().map(|(i, b)| format!("{i} : {}", to(b))).collect();
        let moved = if forward.ports.is_one() { String::new() } else { ports::moved(forward) };
        let _ = writeln!(
            text,
            "\t\t{ip} daddr {} {protocol} dport {ports} counter name \"{}\" dnat {ip} to {key} map {{ {} }}{moved}",
            forward.vip,
            counter(forward, Of::Connections),
            entries.join(", "),
        );
    }
    text.push_str("\t}\n");
    chain(text, "arriving", "nat hook prerouting priority dstnat");
    text.push_str("\t\tjump pick\n\t}\n");
    chain(text, "local", "nat hook output priority -100");
    text.push_str("\t\tjump pick\n\t}\n");
}

/// What chooses a backend, and among whom; `None`: nobody is there.
fn choice<'f>(
    spread: &'f Spread,
    ip: &str,
    protocol: &str,
) -> Option<(String, &'f Vec<SocketAddr>)> {
    match spread {
        Spread::Refuse | Spread::Local => None,
        Spread::Hash(slots) => {
            let hash = format!("jhash {ip} saddr . {protocol} sport mod {}", slots.len());
            Some((format!("{hash} seed {SEED:#x}"), slots))
        }
        Spread::HashClient(slots, fields) => {
            let client = stick::client(ip, *fields);
            let hash = format!("jhash {client} mod {}", slots.len());
            Some((format!("{hash} seed {SEED:#x}"), slots))
        }
        Spread::Turns(turns) => Some((format!("numgen inc mod {}", turns.len()), turns)),
    }
}

/// Makes answers come back to whoever owns the VIP.
fn source(forwards: &[Forward], text: &mut String) {
    chain(text, "source", "nat hook postrouting priority srcnat");
    for forward in forwards {
        let Some(ports) = ports::matched(forward) else { continue };
        let (ip, vip) = (Family::of(forward.vip).word(), forward.vip);
        let protocol = forward.protocol.name();
        stick::learn(forward, &ports, text);
        let seen = forward.source.in_place_of_clients(vip);
        let to = match &seen[..] {
            [] => continue,
            [one] => one.to_string(),
            // The same one on each node.
            many => {
                let entries = many.iter().enumerate().map(|(n, seen)| format!("{n} : {seen}"));
                let entries = entries.collect::<Vec<_>>().join(", ");
                let hash = format!("jhash {ip} saddr . {protocol} sport mod {}", many.len());
                format!("{hash} seed {SEED:#x} map {{ {entries} }}")
            }
        };
        // This host's own connections keep their source: their answers come here anyway.
        let _ = writeln!(
            text,
            "\t\tct status dnat meta l4proto {protocol} ct original {ip} daddr {vip} \
             ct original proto-dst {ports} fib saddr type != local snat {ip} to {to}",
        );
    }
    text.push_str("\t}\n");
}

/// Tells clients at once that nobody is there, instead of letting them wait.
fn refuse(forwards: &[Forward], text: &mut String) {
    chain(text, "refuse", "filter hook input priority filter");
    for forward in forwards {
        let Some(ports) = ports::matched(forward) else { continue };
        match forward.spread {
            Spread::Local | Spread::Hash(_) | Spread::HashClient(..) | Spread::Turns(_) => {}
            Spread::Refuse => {
                let with = match forward.protocol {
                    Protocol::Tcp => "tcp reset",
                    Protocol::Udp => "icmpx type port-unreachable",
                };
                let _ = writeln!(
                    text,
                    "\t\tct state new {} daddr {} {} dport {ports} counter name \"{}\" reject with {with}",
                    Family::of(forward.vip).word(),
                    forward.vip,
                    forward.protocol.name(),
                    counter(forward, Of::Refused),
                );
            }
        }
    }
    text.push_str("\t}\n");
}

fn chain(text: &mut String, name: &str, hook: &str) {
    let _ = writeln!(text, "\tchain {name} {{\n\t\ttype {hook}; policy accept;");
}

/// One rule over a set; none, if the set is empty.
fn over_set(text: &mut String, rule: &str, set: impl Iterator<Item = String>, verdict: &str) {
    // Sorted and without doubles: two services may share a backend.
    let set: BTreeSet<String> = set.collect();
    if !set.is_empty() {
        let set = set.into_iter().collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "\t\t{rule} {{ {set} }} {verdict}");
    }
}

fn is_tcp(forward: &Forward) -> bool {
    match forward.protocol {
        Protocol::Tcp => true,
        Protocol::Udp => false,
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// What a counter counts.
#[derive(Clone, Copy)]
enum Of {
    Traffic,
    Connections,
    Refused,
    Limited,
    Stuck,
    Unnamed,
}

/// The name of a counter. Colons are not allowed in names; an address has no underscore.
fn counter(forward: &Forward, of: Of) -> String {
    let of = match of {
        Of::Traffic => "traffic",
        Of::Connections => "connections",
        Of::Refused => "refused",
        Of::Limited => "limited",
        Of::Stuck => "stuck",
        Of::Unnamed => "unnamed",
    };
    let vip = forward.vip.to_string().replace(':', "_");
    format!("{}_{}_{vip}_{of}", forward.protocol.name(), ports::named(forward.ports))
}

/// Reads `counter NAME { packets N bytes N }`, whatever the white space.
fn parse_counters(text: &str) -> BTreeMap<String, (u64, u64)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .windows(7)
        .filter_map(|w| match w {
            ["counter", name, "{", "packets", packets, "bytes", bytes] => {
                Some(((*name).to_owned(), (packets.parse().ok()?, bytes.parse().ok()?)))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(spread: Spread) -> Forward {
        let backends = vec!["10.0.0.21:80".parse().unwrap(), "10.0.0.22:81".parse().unwrap()];
        Forward {
            vip: "10.0.0.100".parse().unwrap(),
            ports: Ports::one(443),
            within: vec![],
            protocol: Protocol::Tcp,
            source: SourceAddress::Vip,
            sources: Arc::default(),
            new_connections: None,
            spread,
            stick: None,
            standing: vec![],
            quic: None,
            backends,
            relays: vec![],
            link: "eth0".into(),
        }
    }

    #[test]
    fn the_hash_is_keyed_alike_on_every_node() {
        let list = forward(Spread::Refuse).backends;
        let text = render(&[forward(Spread::Hash(list))], None);
        let rule = "dnat ip to jhash ip saddr . tcp sport mod 2 seed 0x62756f79 \
                    map { 0 : 10.0.0.21 . 80, 1 : 10.0.0.22 . 81 }";
        assert!(text.contains(rule), "{text}");
    }

    #[test]
    fn each_client_has_the_same_source_of_a_list_on_every_node() {
        let list = ["10.0.0.100", "fd00::1", "10.0.0.51"].map(|ip| ip.parse().unwrap());
        let forward = forward(Spread::Refuse);
        let forward = Forward { source: SourceAddress::Pool(list.into()), ..forward };
        let text = render(&[forward], None);
        let rule = "snat ip to jhash ip saddr . tcp sport mod 2 seed 0x62756f79 \
                    map { 0 : 10.0.0.100, 1 : 10.0.0.51 }";
        assert!(text.contains(rule), "{text}");
        for seen in ["10.0.0.100", "10.0.0.51"] {
            assert!(text.contains(&format!("10.0.0.21 . 80 . {seen}")), "{text}");
        }
    }

    #[test]
    fn only_counters_of_services_that_left_are_deleted() {
        let observed = Observed {
            counters: parse_counters(
                "table inet buoy {\n\tcounter tcp_443_10.0.0.100_traffic {\n\t\tpackets 5 bytes 300\n\t}\n\
                 \tcounter tcp_80_10.0.0.100_traffic {\n\t\tpackets 7 bytes 9\n\t}\n}\n",
            ),
            sets: BTreeSet::new(),
        };
        let wanted = forward(Spread::Refuse);
        assert_eq!(observed.counts(&wanted).packets, 5);
        assert_eq!(observed.counts(&wanted).bytes, 300);
        let text = render(&[wanted], Some(&observed));
        assert!(text.contains("delete counter inet buoy tcp_80_10.0.0.100_traffic\n"), "{text}");
        assert!(!text.contains("delete counter inet buoy tcp_443"), "{text}");
    }

    #[test]
    fn a_host_without_nft_is_told_what_to_install() {
        let said = Error::Missing.to_string();
        assert!(said.contains("apt install nftables"), "{said}");
        assert!(said.contains("mode = \"proxy\""), "{said}");
    }
}

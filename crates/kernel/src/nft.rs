//! Renders every kernel-mode service into one nftables table (`translate`), and does the difference to what is there
//! (`ruleset`).
//!
//! ```text
//! client ─► guard (counts; drops what may not be answered) ─► pick (dnat to a backend)
//!        ─► source (snat to the VIP) ─► backend        without a backend: refuse (reject)
//! ```
//!
//! Each of these looks a packet's service up once and goes to a chain of that service.
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
mod counters;
mod deny;
pub mod direct;
pub(crate) mod filter;
mod limit;
mod named;
pub(crate) mod ports;
mod program;
#[cfg(test)]
mod random_tests;
pub(crate) mod ruleset;
mod settings;
mod slots;
mod stick;
mod translate;

use crate::relay;
use crate::sysctl::SysctlError;
use buoy_model::{
    FlowFields, Ports, Protocol, Quic, Rate, ServerId, SourceAddress, Sources, Stick,
};
use program::run;
use ruleset::{Names, Ruleset, TableFamily, There, Transactions};
pub use settings::{enable_forwarding, enable_pickup, pickup_problem};
pub use slots::Slots;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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
    Hash(Slots),
    /// By the hash of the client's address alone, as far as it counts; one entry per slot.
    HashClient(Slots, FlowFields),
    /// In turns; one entry per turn.
    Turns(Slots),
}

/// What `nft` says of a table that is not there.
const ABSENT: &str = "No such file or directory";

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
    /// The kernel does not say what it has.
    Observe(io::Error),
    /// `nft` did not end, and was ended.
    Late {
        /// After so long.
        after: Duration,
    },
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
            Self::Late { after } => {
                write!(f, "`nft` has not answered for {after:?}, and was ended")
            }
            Self::Observe(error) => {
                write!(f, "cannot ask the kernel for the tables of nftables: {error}")
            }
            Self::Refused { said } if said.contains("Operation not permitted") => f.write_str(
                "not permitted to change nftables: run the agent as root or give it CAP_NET_ADMIN",
            ),
            Self::Refused { said } => write!(f, "`nft` refused the ruleset: {said}"),
            Self::Setting(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

/// Makes the kernel forward exactly this. Twice is the same as once; counters go on counting. Where it is known what
/// was applied before, only the difference is done.
pub fn apply(forwards: &[Forward], before: Option<&[Forward]>) -> Result<(), Error> {
    if forwards.is_empty() {
        return remove();
    }
    let before = before.map(tables);
    replace(&tables(forwards), before.as_ref().map(<[Ruleset; 3]>::as_slice))
}

/// What `nft -f` needs to forward so where there is no table yet.
pub fn script(forwards: &[Forward]) -> String {
    steps(&tables(forwards), &[const { There::Nothing }; 3]).whole().to_owned()
}

fn tables(forwards: &[Forward]) -> [Ruleset; 3] {
    let [v4, v6] = Family::BOTH.map(|family| relay::ruleset(forwards, family));
    [translate::ruleset(forwards), v4, v6]
}

/// Puts tables in place of those that are there.
fn replace(tables: &[Ruleset], before: Option<&[Ruleset]>) -> Result<(), Error> {
    if let Some(before) = before {
        let there: Vec<There<'_>> = before.iter().map(There::known).collect();
        match run_all(&steps(tables, &there)) {
            // Somebody else has changed it.
            Err(Error::Refused { .. }) => {}
            done => return done,
        }
    }
    let there = tables.iter().map(|table| seen(table.family())).collect::<Result<Vec<_>, _>>()?;
    match run_all(&steps(tables, &there)) {
        // A table of another version, whose chains hang elsewhere, cannot be changed in place.
        Err(Error::Refused { .. }) => {
            let gone = |table: &Ruleset| {
                let family = table.family().word();
                format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n")
            };
            let nothing: Vec<There<'_>> = tables.iter().map(|_| There::Nothing).collect();
            let anew = steps(tables, &nothing);
            let gone: String = tables.iter().map(gone).collect();
            run(&["-f", "-"], &(gone + anew.whole())).map(|_| ())
        }
        done => done,
    }
}

/// What makes tables of those that are there.
fn steps(tables: &[Ruleset], there: &[There<'_>]) -> Transactions {
    let mut steps = Transactions::default();
    tables.iter().zip(there).for_each(|(table, there)| table.steps(there, &mut steps));
    steps
}

fn run_all(steps: &Transactions) -> Result<(), Error> {
    steps.scripts().try_for_each(|script| run(&["-f", "-"], script).map(|_| ()))
}

/// What the kernel has, by names.
fn seen(family: TableFamily) -> Result<There<'static>, Error> {
    match run(&["--terse", "list", "table", family.word(), TABLE], "") {
        Ok(text) => Ok(There::Seen(Names::parse(&text))),
        Err(Error::Refused { said }) if said.contains(ABSENT) => Ok(There::Nothing),
        Err(error) => Err(error),
    }
}

/// Takes the table away; being gone already is success.
pub fn remove() -> Result<(), Error> {
    remove_of(&[TableFamily::Inet, TableFamily::Ip, TableFamily::Ip6])
}

fn remove_of(families: &[TableFamily]) -> Result<(), Error> {
    // `add` first, so that `delete` always finds one.
    let both =
        |family: &str| format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n");
    let text: String = families.iter().map(|family| both(family.word())).collect();
    match run(&["-f", "-"], &text) {
        // No program: then no table of ours either.
        Ok(_) | Err(Error::Missing) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes all tables away that an agent makes: which there were.
pub fn remove_all() -> Result<Vec<String>, Error> {
    let said = match run(&["list", "tables"], "") {
        // No program: then no table of ours either.
        Err(Error::Missing) => return Ok(Vec::new()),
        said => said?,
    };
    let ours = |line: &str| {
        let (family, name) = line.strip_prefix("table ")?.split_once(' ')?;
        [TABLE, accept::TABLE].contains(&name).then(|| format!("{family} {name}"))
    };
    let tables: Vec<String> = said.lines().filter_map(ours).collect();
    let gone: String = tables.iter().map(|table| format!("delete table {table}\n")).collect();
    run(&["-f", "-"], &gone).map(|_| tables)
}

/// Whether there is an `nft` that may do its work.
pub fn works() -> Result<(), Error> {
    run(&["list", "tables"], "").map(|_| ())
}

/// What the kernel has; `None` when there is no table, or nothing in it that does anything.
pub fn observe() -> Result<Option<Observed>, Error> {
    observe_of(TableFamily::Inet, Some(translate::GUARD))
}

/// `always` is a chain that has rules wherever the table is what it should be.
fn observe_of(family: TableFamily, always: Option<&str>) -> Result<Option<Observed>, Error> {
    let counters = counters::read(family).map_err(Error::Observe)?;
    let has_rules = |chain| counters::has_rules(family, chain).map_err(Error::Observe);
    // Whatever does something here counts it.
    let is_whole = !counters.is_empty() && always.map_or(Ok(true), has_rules)?;
    Ok(is_whole.then_some(Observed { counters }))
}

fn is_tcp(forward: &Forward) -> bool {
    match forward.protocol {
        Protocol::Tcp => true,
        Protocol::Udp => false,
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    pub(crate) const fn table(self) -> TableFamily {
        match self {
            Self::V4 => TableFamily::Ip,
            Self::V6 => TableFamily::Ip6,
        }
    }

    /// The type of its addresses.
    pub(crate) const fn address(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
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

/// The name of a counter.
fn counter(forward: &Forward, of: Of) -> String {
    let of = match of {
        Of::Traffic => "traffic",
        Of::Connections => "connections",
        Of::Refused => "refused",
        Of::Limited => "limited",
        Of::Stuck => "stuck",
        Of::Unnamed => "unnamed",
    };
    format!("{}_{of}", name(forward))
}

/// The name of a service.
fn name(forward: &Forward) -> String {
    let (protocol, ports) = (forward.protocol.name(), ports::named(forward.ports));
    format!("{protocol}_{ports}_{}", word(forward.vip))
}

/// An address in a name, where colons are not allowed; an address has no underscore.
fn word(address: IpAddr) -> String {
    address.to_string().replace(':', "_")
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
        let text = script(&[forward(Spread::Hash(list.into()))]);
        let rule = "dnat ip to jhash ip saddr . tcp sport mod 2 seed 0x62756f79 \
                    map { 0 : 10.0.0.21 . 80, 1 : 10.0.0.22 . 81 }";
        assert!(text.contains(rule), "{text}");
    }

    #[test]
    fn a_few_services_are_compared_and_more_are_looked_up() {
        let of = |count: u16| {
            let backends = forward(Spread::Refuse).backends;
            let one = |port| Forward {
                ports: Ports::one(port),
                ..forward(Spread::Hash(backends.clone().into()))
            };
            script(&(1..=count).map(one).collect::<Vec<_>>())
        };
        let few = of(4);
        for port in 1..=4 {
            let service = format!("ip daddr 10.0.0.100 tcp dport {port}");
            let counter = format!("{service} counter name \"tcp_{port}_10.0.0.100_traffic\"");
            assert!(few.contains(&counter), "{few}");
            let chain = format!("{service} goto pick_tcp_{port}_10.0.0.100_");
            assert_eq!(few.matches(&chain).count(), 2, "from outside and from this host: {few}");
        }
        assert!(!few.contains("vmap @pick") && !few.contains("map @traffic"), "{few}");
        let many = of(5);
        assert!(many.contains("vmap @pick_ip_64") && many.contains("map @traffic_ip_64"), "{many}");
        assert!(!many.contains("ip daddr 10.0.0.100 tcp dport"), "{many}");
    }

    #[test]
    fn each_client_has_the_same_source_of_a_list_on_every_node() {
        let list = ["10.0.0.100", "fd00::1", "10.0.0.51"].map(|ip| ip.parse().unwrap());
        let forward = forward(Spread::Refuse);
        let forward = Forward { source: SourceAddress::Pool(list.into()), ..forward };
        let text = script(&[forward]);
        let rule = "snat ip to jhash ip saddr . tcp sport mod 2 seed 0x62756f79 \
                    map { 0 : 10.0.0.100, 1 : 10.0.0.51 }";
        assert!(text.contains(rule), "{text}");
        for seen in ["10.0.0.100", "10.0.0.51"] {
            assert!(text.contains(&format!("10.0.0.21 . 80 . {seen}")), "{text}");
        }
    }

    #[test]
    fn only_counters_of_services_that_left_are_deleted() {
        let listed = "table inet buoy {\n\tcounter tcp_443_10.0.0.100_traffic {\n\t\tpackets 5 bytes 300\n\t}\n\
                      \tcounter tcp_80_10.0.0.100_traffic {\n\t\tpackets 7 bytes 9\n\t}\n}\n";
        let counters = BTreeMap::from([("tcp_443_10.0.0.100_traffic".to_owned(), (5, 300))]);
        let observed = Observed { counters };
        let wanted = forward(Spread::Refuse);
        assert_eq!(observed.counts(&wanted).packets, 5);
        assert_eq!(observed.counts(&wanted).bytes, 300);
        let seen = There::Seen(Names::parse(listed));
        let text = steps(&[translate::ruleset(&[wanted])], &[seen]).whole().to_owned();
        assert!(text.contains("delete counter inet buoy tcp_80_10.0.0.100_traffic\n"), "{text}");
        assert!(!text.contains("counter inet buoy tcp_443_10.0.0.100_traffic"), "{text}");
    }

    #[test]
    fn a_host_without_nft_is_told_what_to_install() {
        let said = Error::Missing.to_string();
        assert!(said.contains("apt install nftables"), "{said}");
        assert!(said.contains("mode = \"proxy\""), "{said}");
    }
}

//! One wrong file for every code: which code, at which line and column, and what the fix says.
//!
//! `»` marks the place where the caret must stand and is not part of the file.

use crate::api::API;
use crate::asked::BACKEND_CHECK;
use crate::pools::{ASKING, SHARING};
use crate::routes::ROUTES;
use crate::support::{self, SMALL};
use crate::vrrp::VRRP;
use crate::wrong::{CHECK, GROUP, HOOK, LOCAL, POOL, SERVICES, TRACES, TUNNEL};
use buoy_config::Code;
use buoy_model::{GroupId, NodeId};

/// A code, a text with a mark, and words that the fix must have.
pub(crate) type Case = (Code, &'static str, &'static str);

/// Texts that come before `[[vip]]`; the rest is as in `SMALL`.
const TOP: &[Case] = &[
    (Code::UnknownKey, "»hartbeat = \"10ms\"", "did you mean `heartbeat`?"),
    (Code::UnknownKey, "»advert_int = 1", "as in `heartbeat = \"10ms\"`"),
    (Code::UnknownKey, "»prefer = [\"10.0.0.11\"]", "belongs in [[vip]]"),
    (Code::UnknownKey, "»zebra = 1", "the keys here are peers, witness"),
    (Code::NotInThisVersion, "»bgp = { asn = 64512 }", "ARP and NDP"),
    (Code::UnknownKey, "»vrrp = { id = 51 }", "belongs in [[vip]]"),
    (Code::UnknownKey, "»quorum = \"10.0.0.13\"", "as in `witness = \"10.0.0.13\"`"),
    (Code::BadResolver, "resolvers = [»\"ns1\"]", "10.0.0.53"),
    (Code::OutOfRange, "weights = { \"10.0.0.12\" = »101 }", "0 to 100"),
    (Code::WrongType, "weights = »2", "weights = { lb1"),
    (Code::UnknownNode, "weights = { »lb9 = 1 }", "name the peers"),
    (
        Code::WitnessOwns,
        "witness = \"10.0.0.13\"\nweights = { »\"10.0.0.13\" = 2 }",
        "from `witness`",
    ),
    (Code::WitnessVotes, "witness = [\"10.0.0.13\", »\"10.0.0.14\"]", "one witness"),
    (
        Code::WitnessVotes,
        "witness = [\"10.0.0.13\", \"10.0.0.14\", »\"10.0.0.15\"]",
        "let the others be peers",
    ),
    (
        Code::WitnessVotes,
        "safety = \"available\"\nwitness = »\"10.0.0.13\"",
        "safety = \"exclusive\"",
    ),
    (Code::DuplicatePeer, "witness = »\"10.0.0.12\"", "remove one"),
    (Code::BadPeer, "witness = »\"router\"", "\"10.0.0.11\""),
    (Code::OutOfRange, "lease_max = »\"3s\"", "\"2500ms\""),
    (Code::LeaseMaxTooShort, "lease = \"100ms\"\nlease_max = »\"50ms\"", "lease_max = \"100ms\""),
    (Code::WrongType, "heartbeat = »10", "write \"10ms\" or \"10s\""),
    (Code::WrongType, "cluster = »true", "cluster = \"buoy\""),
    (Code::WrongType, "port = »\"4747\"", "port = 4747, without quotes"),
    (Code::UnknownWord, "safety = »\"exclusiv\"", "did you mean \"exclusive\"?"),
    (Code::BadDuration, "heartbeat = »\"10\"", "ms, s, m, h"),
    (Code::BadDuration, "heartbeat = »\"1.5s\"", "ms, s, m, h"),
    (Code::OutOfRange, "heartbeat = »\"1ms\"", "\"2ms\""),
    (Code::OutOfRange, "lease = »\"1h\"", "\"2500ms\""),
    (Code::OutOfRange, "port = »0", "1 to 65535"),
    (Code::OutOfRange, "port = »70000", "1 to 65535"),
    (Code::OutOfRange, "port = »-1", "1 to 65535"),
    (Code::BadName, "cluster = »\"two words\"", "a short name"),
    (Code::BadSocketPath, "haproxy_socket = »\"haproxy.sock\"", "/run/buoy/haproxy.sock"),
    (Code::UnknownWord, "metrics_aliases = [»\"nagios\"]", "\"keepalived\" or \"metallb\""),
    (Code::BadMetricsAddress, "metrics = »\"10.0.0.11\"", "\"10.0.0.11:9120\""),
    (Code::BadStore, "store = »\"disk\"", "\"embedded\""),
    (Code::BadStore, "store = »\"etcd://10.0.0.31:0\"", "etcd://10.0.0.31:2379"),
    (Code::BadStore, "store = »\"etcd://\"", "etcd://10.0.0.31:2379"),
    (Code::BadStore, "store = »\"etcd://a,b,c,d,e,f,g,h,i,j\"", "etcd://10.0.0.31:2379"),
    (Code::BadStore, "store = »\"etcds://a\"", "add etcd_tls = "),
    (Code::BadStore, "store = \"etcd://a\"\netcd_tls = »{ ca = \"ca.pem\" }", "etcds://"),
    (Code::MissingKey, "store = \"etcds://a\"\netcd_tls = »{}", "ca = "),
    (
        Code::BadStore,
        "store = \"etcds://a\"\netcd_tls = { ca = \"ca.pem\", »cert = \"a.pem\" }",
        "add key = ",
    ),
    (
        Code::BadStoreFile,
        "store = \"etcds://a\"\netcd_tls = { ca = \"ca.pem\", cert = »\"empty.pem\", key = \"api.key\" }",
        "PEM",
    ),
    (
        Code::BadStoreFile,
        "store = \"etcds://a\"\netcd_tls = { ca = \"ca.pem\", cert = \"ca.pem\", key = »\"world.key\" }",
        "chmod 600",
    ),
    (
        Code::BadAuthority,
        "store = \"etcds://a\"\netcd_tls = { ca = »\"empty.pem\" }",
        "PEM file with the authorities",
    ),
    (Code::UnknownKey, "»etcd = \"10.0.0.31\"", "store"),
    (Code::BadMetricsAddress, "metrics = »\"10.0.0.11:0\"", "\"10.0.0.11:9120\""),
    (Code::BadMetricsAddress, "metrics = »\"lb1:9120\"", "\"10.0.0.11:9120\""),
    (Code::UnknownKey, "»prometheus = \"10.0.0.11:9120\"", "metrics"),
    (Code::WrongType, "haproxy_socket = »true", "/run/buoy/haproxy.sock"),
    (Code::UnknownKey, "»stats_socket = \"/run/haproxy.sock\"", "haproxy_socket"),
    (
        Code::LeaseTooShort,
        "heartbeat = \"20ms\"\nlease = »\"50ms\"",
        "\"60ms\", or heartbeat = \"16ms\"",
    ),
    (Code::UnknownNode, "node = »\"10.0.0.13\"", "add it to `peers`"),
    (Code::AddressAbsent, "node = »\"10.0.0.12\"", "remove `node`"),
    (Code::ExclusivePair, "safety = »\"exclusive\"", "witness = "),
    (Code::Syntax, "cluster = »production", "write cluster = \"production\""),
    (Code::Syntax, "cluster »production", "`=`"),
];

/// Lines that follow `address` in the VIP of `SMALL`.
const VIP: &[Case] = &[
    (Code::UnknownKey, "»fallback = \"30s\"", "did you mean `failback`?"),
    (Code::UnknownKey, "»priority = 100", "as in `prefer = [\"lb1\"]`"),
    (Code::UnknownKey, "»track_interface = [\"eth1\"]", "check = { link = \"eth1\" }"),
    (Code::UnknownKey, "[[vip.»services]]", "write [[vip.service]]"),
    (Code::UnknownKey, "»backends = []", "belongs in [[vip.service]]"),
    (Code::UnknownKey, "»notify = \"/bin/true\"", "write a [[hook]]"),
    (Code::NotInThisVersion, "»follow = { http = \"http://127.0.0.1/\" }", "remove it"),
    (Code::WrongType, "failback = »30", "write \"30ms\" or \"30s\""),
    (Code::WrongType, "prefer = [»1]", "prefer = [\"lb1\"]"),
    (Code::UnknownWord, "failback = »\"nevr\"", "did you mean \"never\"?"),
    (Code::BadDuration, "failback = »\"30x\"", "ms, s, m, h"),
    (Code::OutOfRange, "failback = »\"25h\"", "\"24h\""),
    (Code::EmptyList, "nodes = »[]", "all peers"),
    (Code::BadName, "name = »\"a/b\"", "a short name"),
    (Code::BadName, "name = »\"\"", "a short name"),
    (Code::BadName, "interface = »\"a name far too long\"", "ip link"),
    (Code::UnknownNode, "nodes = [»\"lb1\"]", "name the peers"),
    (Code::UnknownNode, "prefer = [»\"10.0.0.13\"]", "add it to `peers`"),
    (Code::DuplicatePeer, "prefer = [\"10.0.0.11\", »\"10.0.0.11\"]", "remove one"),
    (
        Code::PreferNotInNodes,
        "nodes = [\"10.0.0.11\"]\nprefer = [»\"10.0.0.12\"]",
        "add it to `nodes`",
    ),
    (Code::ExclusivePair, "safety = »\"exclusive\"", "\"available\""),
    (Code::NoInterface, "interface = »\"eht0\"", "did you mean \"eth0\"?"),
    (Code::MissingKey, "»[[vip]]\nname = \"second\"", "address = "),
    (Code::DuplicateVip, "[[vip]]\nname = \"second\"\naddress = »\"10.0.0.100/24\"", "remove one"),
    (Code::DuplicateVip, "[[vip]]\naddress = »\"10.0.0.100/24\"", "remove one"),
    (
        Code::DuplicateName,
        "name = \"a\"\n[[vip]]\nname = »\"a\"\naddress = \"10.0.0.101/24\"",
        "rename",
    ),
    (
        Code::NameCollision,
        "[[vip]]\naddress = \"10.0.0.184/24\"\n[[vip]]\naddress = »\"2001:db8::278:248b/64\"",
        "change one",
    ),
    (
        Code::WrongType,
        "»[vip.service]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]",
        "write [[vip.service]]",
    ),
    (
        Code::MissingKey,
        "»[[vip.service]]\nport = \"443/tcp\"\nbackends = [\"10.0.0.21:443\"]\nmode = \"xdp\"",
        "forward = \"dsr\"",
    ),
    (Code::MissingKey, "»[[pool]]\naddresses = [\"10.0.0.150-160/24\"]", "name = "),
    (Code::MissingKey, "»[[pool]]\nname = \"a\"", "addresses = "),
];

/// Values of `address`.
const ADDRESS: &[Case] = &[
    (Code::BadVip, "»\"10.0.0.300/24\"", "\"10.0.0.100/24\""),
    (Code::BadVip, "»\"10.0.0/24\"", "\"10.0.0.100/24\""),
    (Code::BadVip, "»\"www.example.org/24\"", "\"10.0.0.100/24\""),
    (Code::BadVip, "»\"10.0.0.100:80\"", "\"10.0.0.100/24\""),
    (Code::BadVip, "»\"10.0.0.100-10.0.0.110\"", "\"10.0.0.100/24\""),
    (Code::BadVip, "»\"10.0.0.100-110/24\"", "[[pool]] with addresses = [\"10.0.0.100-110/24\"]"),
    (Code::BadVip, "»\"\"", "\"10.0.0.100/24\""),
    (Code::BadPrefix, "»\"10.0.0.100\"", "\"10.0.0.100/24\""),
    (Code::BadPrefix, "»\"2001:db8::100\"", "\"2001:db8::100/64\""),
    (Code::BadPrefix, "\"10.0.0.100/»33\"", "ip address"),
    (Code::BadPrefix, "\"10.0.0.100/»0\"", "ip address"),
    (Code::BadPrefix, "\"2001:db8::100/»129\"", "ip address"),
    (Code::BadPrefix, "»\"10.0.0.100/\"", "ip address"),
    (Code::UnusableVip, "»\"10.0.0.0/24\"", "free host address"),
    (Code::UnusableVip, "»\"10.0.0.255/24\"", "free host address"),
    (Code::UnusableVip, "»\"2001:db8::/64\"", "free host address"),
    (Code::EmptyList, "»[]", "\"10.0.0.100/24\""),
    (Code::WrongType, "»100", "\"10.0.0.100/24\""),
    (Code::DuplicateVip, "[\"10.0.0.100/24\", »\"10.0.0.100/24\"]", "remove one"),
    (Code::VipIsPeer, "»\"10.0.0.12/24\"", "free address"),
    (Code::LinkLocalVip, "»\"fe80::1/64\"", "interface = "),
    (Code::NoSubnet, "»\"10.0.1.100/24\"", "did you mean \"10.0.0.100/24\"?"),
    (Code::NoSubnet, "»\"2001:db8:1::100/64\"", "did you mean \"2001:db8::100/64\"?"),
    (Code::HostAddress, "»\"192.168.5.11/24\"", "ip address del 192.168.5.11/24 dev eth1"),
    (Code::PrefixDiffers, "»\"10.0.0.100/16\"", "write \"10.0.0.100/24\""),
    (Code::OtherInterface, "»\"192.168.5.100/24\"\ninterface = \"eth0\"", "interface = \"eth1\""),
];

/// Lines of a `[[vip.service]]` besides a port, if they have none, and backends, if they have none.
const SERVICE: &[Case] = &[
    (Code::UnknownKey, "»algorithm = \"rr\"", "as in `balance = \"hash\"`"),
    (Code::UnknownKey, "»sticky = true", "as in `persist = \"client\"`"),
    (Code::UnknownKey, "»lb_kind = \"DR\"", "as in `forward = \"dsr\"`"),
    (Code::UnknownWord, "forward = »\"dsr-ipip\"", "forward = \"dsr\""),
    (Code::UnknownWord, "forward = \"nat\"\npersist = »\"source\"", "persist = \"client\""),
    (Code::BadDiscovery, "backends = \"»file:\"", "file:PATH"),
    (Code::BadDiscovery, "backends = \"»dns:web.example.org\"", "dns:NAME:PORT"),
    (Code::BadDiscovery, "backends = \"»dns:10.0.0.21:80\"", "dns:NAME:PORT"),
    (Code::BadDiscovery, "backends = \"»dns:web..org:80 weight=2\"", "dns:NAME:PORT"),
    (Code::BadDiscovery, "backends = \"»srv:\"", "srv:_SERVICE"),
    (Code::OutOfRange, "backends = \"srv:web.org »weight=257\"", "weight=N"),
    (Code::NeedsProxy, "backends = »\"srv:web.org max=5\"", "remove max"),
    (
        Code::DuplicateBackend,
        "backends = [\"dns:a.org:80\", »\"dns:A.org:80 backup\"]",
        "remove one",
    ),
    (Code::PortKept, "forward = \"dsr\"\nbackends = »\"dns:a.org:81\"", "leave the port out"),
    (Code::WrongVia, "check = { via = »\"tunnel\", tcp = true }", "remove `via`"),
    (Code::WrongType, "port = »443", "write \"443/tcp\""),
    (Code::WrongType, "backends = [»80]", "10.0.0.21:8443"),
    (Code::WrongType, "check = »\"tcp\"", "check = {"),
    (Code::WrongType, "check = »true", "check = {"),
    (Code::UnknownWord, "mode = »\"kernle\"", "did you mean \"kernel\"?"),
    (Code::UnknownWord, "send_proxy = »\"yes\"", "\"v2\""),
    (Code::EmptyList, "backends = »[]", "10.0.0.21:8443"),
    (Code::OutOfRange, "mode = \"proxy\"\nmax_connections = »0", "1 to 1048576"),
    (Code::OutOfRange, "mode = \"proxy\"\nidle_timeout = »\"10ms\"", "\"1s\""),
    (Code::OutOfRange, "backends = [\"10.0.0.21:80 »weight=257\"]", "weight=N"),
    (Code::OutOfRange, "check = { tcp = true, fall = »0 }", "1 to 100"),
    (Code::OutOfRange, "check = { http = \"GET /\", expect = »20 }", "100 to 599"),
    (Code::BadName, "backends = [\"»a/b 10.0.0.21:80\"]", "a short name"),
    (Code::BadPort, "port = »\"443\"", "\"443/tcp\" or \"443/udp\""),
    (Code::BadPort, "port = »\"70000/tcp\"", "\"443/tcp\""),
    (Code::BadPort, "port = »\"80/sctp\"", "\"443/tcp\""),
    (Code::DuplicatePort, "port = [\"80/tcp\", »\"80/tcp\"]", "one [[vip.service]]"),
    (Code::BadBackend, "backends = [\"»10.0.0.21\"]", "\"10.0.0.21:PORT\""),
    (Code::BadBackend, "backends = [\"»2001:db8::21\"]", "\"[2001:db8::21]:PORT\""),
    (Code::BadBackend, "backends = [\"web1 »10.0.0.21:0\"]", "address:port"),
    (Code::BadBackend, "backends = [\"»web1.example.org:80\"]", "address:port"),
    (Code::BadBackend, "backends = [»\"\"]", "address:port"),
    (Code::BadBackend, "backends = [\"10.0.0.21:80 »wieght=2\"]", "did you mean weight=N?"),
    (Code::BadBackend, "backends = [»\"224.0.0.1:80\"]", "one server"),
    (Code::DuplicateBackend, "backends = [\"10.0.0.21:80\", »\"web 10.0.0.21:80\"]", "weight=N"),
    (Code::DuplicateBackend, "backends = [\"a 10.0.0.21:80\", »\"a 10.0.0.22:80\"]", "rename"),
    (Code::BackendIsVip, "backends = [»\"10.0.0.100:8080\"]", "own address"),
    (Code::FamilyMismatch, "backends = »[\"[2001:db8::21]:80\"]", "mode = \"proxy\""),
    (
        Code::FamilyMismatch,
        "backends = [\"10.0.0.21:80\", »\"[2001:db8::21]:80\"]",
        "mode = \"proxy\"",
    ),
    (Code::NeedsProxy, "mode = \"kernel\"\n»send_proxy = \"v2\"", "mode = \"proxy\""),
    (Code::NeedsProxy, "mode = \"kernel\"\n»balance = \"leastconn\"", "mode = \"proxy\""),
    (Code::NeedsProxy, "»max_connections = 10", "mode = \"proxy\""),
    (Code::NeedsProxy, "backends = [»\"127.0.0.1:80\"]", "mode = \"proxy\""),
    (Code::NeedsKernel, "mode = \"proxy\"\n»source = \"client\"", "send_proxy"),
    (Code::NeedsXdp, "mode = \"kernel\"\n»forward = \"dsr\"", "write mode = \"xdp\""),
    (Code::NeedsXdp, "mode = \"proxy\"\n»forward = \"nat\"", "write mode = \"xdp\""),
    (Code::NeedsProxy, "forward = \"nat\"\n»send_proxy = \"v2\"", "remove the line"),
    (Code::NeedsProxy, "forward = \"nat\"\n»balance = \"leastconn\"", "no `forward`"),
    (Code::NeedsProxy, "forward = \"nat\"\n»idle_timeout = \"5m\"", "remove the line"),
    (Code::NeedsProxy, "forward = \"nat\"\nbackends = [»\"127.0.0.1:80\"]", "own address"),
    (Code::NotInXdp, "forward = \"nat\"\n»balance = \"roundrobin\"", "\"maglev\""),
    (
        Code::PortKept,
        "port = \"443/tcp\"\nforward = \"dsr\"\nbackends = [»\"10.0.0.21:8443\"]",
        "as in \"10.0.0.21\"",
    ),
    (
        Code::PortKept,
        "port = [\"80/tcp\", \"443/tcp\"]\nforward = \"tunnel\"\nbackends = [»\"10.9.0.21:80\"]",
        "forward = \"nat\"",
    ),
    (
        Code::NotOnSegment,
        "forward = \"dsr\"\nbackends = [\"10.0.0.21\", »\"10.0.1.21\"]",
        "forward = \"tunnel\"",
    ),
    (Code::BadBackend, "forward = \"nat\"\nbackends = [\"»10.0.0.21\"]", "\"10.0.0.21:PORT\""),
    (
        Code::DuplicateBackend,
        "port = \"80/tcp\"\nforward = \"dsr\"\nbackends = [\"10.0.0.21\", »\"web 10.0.0.21:80\"]",
        "weight=N",
    ),
    (Code::FamilyMismatch, "forward = \"dsr\"\nbackends = »[\"2001:db8::21\"]", "its own version"),
    (Code::NeedsTcp, "port = »\"53/udp\"\nsend_proxy = \"v2\"", "`send_proxy` for udp"),
    (Code::NoTraffic, "backends = »[\"10.0.0.21:80 weight=0\"]", "weight"),
];

/// The two first lines, `peers` and `secret`.
const CLUSTER: &[Case] = &[
    (Code::MissingKey, "»secret = \"file:cluster.key\"", "peers = "),
    (Code::MissingKey, "»peers = [\"10.0.0.11\"]", "secret = "),
    (Code::WrongType, "peers = »1\nsecret = \"file:cluster.key\"", "peers = "),
    (Code::WrongType, "peers = { lb1 = »11 }\nsecret = \"file:cluster.key\"", "peers = "),
    (Code::EmptyList, "peers = »[]\nsecret = \"file:cluster.key\"", "peers = "),
    (Code::EmptyList, "peers = »{}\nsecret = \"file:cluster.key\"", "peers = "),
    (
        Code::BadName,
        "peers = { lb1 = \"10.0.0.11\", »\"lb 2\" = \"10.0.0.12\" }\nsecret = \"file:cluster.key\"",
        "short name",
    ),
    (
        Code::BadPeer,
        "peers = [\"10.0.0.11\", »\"lb2\"]\nsecret = \"file:cluster.key\"",
        "\"10.0.0.11\"",
    ),
    (
        Code::BadPeer,
        "peers = [\"10.0.0.11\", »\"10.0.0.12/24\"]\nsecret = \"file:cluster.key\"",
        "the address alone",
    ),
    (
        Code::BadPeer,
        "peers = [\"10.0.0.11\", »\"0.0.0.0\"]\nsecret = \"file:cluster.key\"",
        "other hosts",
    ),
    (
        Code::BadPeer,
        "peers = [\"10.0.0.11\", »\"fe80::1\"]\nsecret = \"file:cluster.key\"",
        "other hosts",
    ),
    (
        Code::BadPeer,
        "peers = [\"10.0.0.11\", »\"::ffff:10.0.0.12\"]\nsecret = \"file:cluster.key\"",
        "other hosts",
    ),
    (
        Code::BadPeer,
        "peers = [\"10.0.0.11\", »\"127.0.0.2\"]\nsecret = \"file:cluster.key\"",
        "other hosts",
    ),
    (
        Code::BadPeer,
        "peers = [\"10.0.0.11\", »\"10.0.0.12:0\"]\nsecret = \"file:cluster.key\"",
        "10.0.0.11:4747",
    ),
    (
        Code::DuplicatePeer,
        "peers = [\"10.0.0.11\", »\"10.0.0.11\"]\nsecret = \"file:cluster.key\"",
        "remove one",
    ),
    (
        Code::WrongType,
        "peers = [»[\"10.0.0.11\", \"192.168.5.11\"], \"10.0.0.12\"]\nsecret = \"file:cluster.key\"",
        "peers = { lb1 = [",
    ),
    (Code::EmptyList, "peers = { a = »[] }\nsecret = \"file:cluster.key\"", "at least one"),
    (
        Code::TooMany,
        "peers = { a = [\"10.0.0.11\", \"10.1.0.1\", \"10.2.0.1\", \"10.3.0.1\", »\"10.4.0.1\"] }\nsecret = \"file:cluster.key\"",
        "separate networks",
    ),
    (
        Code::DuplicatePeer,
        "peers = { a = [\"10.0.0.11\", »\"10.0.0.11\"] }\nsecret = \"file:cluster.key\"",
        "another network",
    ),
    (
        Code::DuplicatePeer,
        "peers = { a = \"10.0.0.11\" }\nwitness = { a = »\"10.0.0.13\" }\nsecret = \"file:cluster.key\"",
        "rename one",
    ),
    (
        Code::FewerLegs,
        "peers = { a = [\"10.0.0.11\", \"192.168.5.11\"], b = »\"10.0.0.12\" }\nsecret = \"file:cluster.key\"",
        "give b an address",
    ),
    (
        Code::LegFamily,
        "peers = { a = \"10.0.0.11\", b = »\"2001:db8::12\" }\nsecret = \"file:cluster.key\"",
        "the same place",
    ),
    (
        Code::LegAbsent,
        "peers = { a = [\"10.0.0.11\", »\"10.9.0.11\"], b = [\"10.0.0.12\", \"10.9.0.12\"] }\nsecret = \"file:cluster.key\"",
        "give it to an interface",
    ),
    (
        Code::SameLink,
        "peers = { a = [\"10.0.0.11\", »\"2001:db8::11\"], b = [\"10.0.0.12\", \"2001:db8::12\"] }\nsecret = \"file:cluster.key\"",
        "another interface",
    ),
    (
        Code::DuplicatePeer,
        "peers = { a = \"10.0.0.11\", b = »\"10.0.0.11\" }\nsecret = \"file:cluster.key\"",
        "remove one",
    ),
    (
        Code::NameCollision,
        "peers = { costarring = \"10.0.0.11\", »liquid = \"10.0.0.12\" }\nsecret = \"file:cluster.key\"",
        "change one",
    ),
    (
        Code::NotAMember,
        "peers = »[\"10.0.0.12\", \"10.0.0.13\"]\nsecret = \"file:cluster.key\"",
        "add an address of this host",
    ),
    (
        Code::TwoMembers,
        "peers = { a = \"10.0.0.11\", b = »\"192.168.5.11\" }\nsecret = \"file:cluster.key\"",
        "node = \"a\"",
    ),
    (Code::BadSecret, "peers = [\"10.0.0.11\"]\nsecret = »\"hunter2\"", "buoy key new"),
    (
        Code::BadSecret,
        "peers = [\"10.0.0.11\"]\nsecret = »\"/etc/buoy/cluster.key\"",
        "\"file:/etc/buoy/cluster.key\"",
    ),
    (
        Code::KeyUnreadable,
        "peers = [\"10.0.0.11\"]\nsecret = »\"file:gone.key\"",
        "buoy key new /etc/buoy/gone.key",
    ),
    (Code::KeyUnreadable, "peers = [\"10.0.0.11\"]\nsecret = »\"file:locked.key\"", "run as root"),
    (Code::KeyUnreadable, "peers = [\"10.0.0.11\"]\nsecret = »\"file:directory\"", "buoy key new"),
    (Code::KeyOpen, "peers = [\"10.0.0.11\"]\nsecret = »\"file:world.key\"", "chmod 600"),
    (Code::KeyOpen, "peers = [\"10.0.0.11\"]\nsecret = »\"file:groupwrite.key\"", "chmod 600"),
    (Code::KeyGroup, "peers = [\"10.0.0.11\"]\nsecret = »\"file:group.key\"", "chmod 600"),
    (Code::BadKey, "peers = [\"10.0.0.11\"]\nsecret = »\"file:short.key\"", "buoy key new"),
    (
        Code::SameKey,
        "peers = [\"10.0.0.11\"]\nsecret = [\"file:cluster.key\", »\"file:copy.key\"]",
        "make a new key",
    ),
    (
        Code::SameKey,
        "peers = [\"10.0.0.11\"]\nsecret = [\"file:cluster.key\", »\"file:cluster.key\"]",
        "remove one",
    ),
    (
        Code::TooMany,
        "peers = [\"10.0.0.11\"]\nsecret = [\"file:cluster.key\", \"file:1.key\", \"file:2.key\", \"file:3.key\", »\"file:4.key\"]",
        "the oldest",
    ),
];

/// Whole files.
const WHOLE: &[Case] = &[
    (
        Code::SourceVersion,
        "peers = [\"10.0.0.11\"]\nsecret = \"file:cluster.key\"\n[[vip]]\naddress = [\"10.0.0.100/24\", \"2001:db8::100/64\"]\n[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\", \"[2001:db8::21]:80\"]\n»source = [\"2001:db8::100\"]\n",
        "an IPv4 address",
    ),
    (Code::Syntax, "»{ \"peers\": [\"10.0.0.11\"] }", "without the outer braces"),
    (
        Code::Syntax,
        "peers = [\"10.0.0.11\"]\nsecret = \"file:cluster.key\"\n[[vip]]\naddress = \"10.0.0.100/24\" »\"10.0.0.101/24\"",
        "a list",
    ),
    (
        Code::Syntax,
        "peers = [\"10.0.0.11\"]\nsecret = \"file:cluster.key\"\n[[vip]]\naddress = »10.0.0.100/24 # ours",
        "write address = \"10.0.0.100/24\"",
    ),
    (
        Code::Syntax,
        "peers = [\"10.0.0.11\"]\nsecret = »file:cluster.key\n[[vip]]\naddress = \"10.0.0.100/24\"",
        "write secret = \"file:cluster.key\"",
    ),
    (
        Code::WrongType,
        "peers = [\"10.0.0.11\"]\nsecret = \"file:cluster.key\"\n[vip.»web]\naddress = \"10.0.0.100/24\"",
        "name = \"web\"",
    ),
    (
        Code::Syntax,
        "peers = [\"10.0.0.11\", \"10.0.0.12»\"\nsecret = \"file:cluster.key\"\n[[vip]]\naddress = \"10.0.0.100/24\"",
        "end the list with `]`",
    ),
    (Code::Syntax, "peers = [\"10.0.0.11\"]\n»peers = [\"10.0.0.12\"]", "remove one"),
    (Code::Syntax, "vrrp_instance »VI_1 {\n  state MASTER\n}", "buoy import keepalived"),
    (Code::Syntax, "peers: »[\"10.0.0.11\"]\nvip:\n  - address: 10.0.0.100/24", "[[vip]]"),
    (Code::Syntax, "peers = [\"10.0.0.11\"]\n[[vip]»\naddress = \"10.0.0.100/24\"", "brackets"),
    (Code::Syntax, "secret = \"file:cluster.key»\npeers = [\"10.0.0.11\"]", "quote"),
    (
        Code::WrongType,
        "peers = [\"10.0.0.11\"]\nsecret = \"file:cluster.key\"\n»[vip]\naddress = \"10.0.0.100/24\"",
        "write [[vip]]",
    ),
    (
        Code::WrongType,
        "peers = [\"10.0.0.11\"]\nsecret = \"file:cluster.key\"\nvip = »\"10.0.0.100/24\"",
        "write [[vip]] on a line of its own",
    ),
];

/// Every table with its texts completed to whole files.
fn all() -> Vec<(Code, String, &'static str)> {
    let small = |case: &Case, text: String| (case.0, text, case.2);
    let (cluster, vip) = SMALL.split_once("\n\n").unwrap();
    let mut all = Vec::new();
    all.extend(API.iter().map(|c| small(c, format!("{cluster}\n{}\n{vip}", c.1))));
    all.extend(TOP.iter().map(|c| small(c, format!("{cluster}\n{}\n{vip}", c.1))));
    all.extend(
        VIP.iter()
            .chain(GROUP)
            .chain(HOOK)
            .chain(TRACES)
            .chain(VRRP)
            .chain(ROUTES)
            .map(|c| small(c, format!("{SMALL}{}\n", c.1))),
    );
    all.extend(CLUSTER.iter().map(|c| small(c, format!("{}\n{vip}", c.1))));
    all.extend(WHOLE.iter().map(|c| small(c, c.1.to_owned())));
    all.extend(
        ADDRESS.iter().map(|c| small(c, format!("{cluster}\n[[vip]]\naddress = {}\n", c.1))),
    );
    all.extend(CHECK.iter().map(|c| small(c, format!("{SMALL}check = {}\n", c.1))));
    all.extend(POOL.iter().map(|c| {
        let lines =
            [("name", "name = \"a\"\n"), ("addresses", "addresses = [\"10.0.0.150-160/24\"]\n")];
        let has = |key: &str| c.1.lines().any(|l| l.starts_with(key));
        let rest: String =
            lines.iter().filter(|(key, _)| !has(key)).map(|(_, line)| *line).collect();
        small(c, format!("{SMALL}[[pool]]\n{rest}{}\n", c.1))
    }));
    all.extend(ASKING.iter().chain(SHARING).map(|c| small(c, format!("{SMALL}{}\n", c.1))));
    all.extend(LOCAL.iter().map(|c| {
        let head = "[[vip.service]]\nport = \"22/tcp\"\nforward = \"local\"";
        small(c, format!("{SMALL}{head}\n{}\n", c.1))
    }));
    all.extend(
        SERVICE
            .iter()
            .chain(SERVICES.into_iter().flatten())
            .chain(TUNNEL)
            .chain(BACKEND_CHECK)
            .map(|c| {
                let lines = [
                    ("port", "port = \"80/tcp\"\n"),
                    ("backends", "backends = [\"10.0.0.21:80\"]\n"),
                ];
                let has = |key: &str| c.1.lines().any(|l| l.starts_with(key));
                let rest: String =
                    lines.iter().filter(|(key, _)| !has(key)).map(|(_, line)| *line).collect();
                small(c, format!("{SMALL}[[vip.service]]\n{}\n{rest}", c.1))
            }),
    );
    all
}

/// The text without its mark, and the mark's line and column.
fn unmark(marked: &str) -> (String, usize, usize) {
    let (before, after) = marked.split_once('»').unwrap_or_else(|| panic!("no mark in {marked}"));
    let line = before.lines().count().max(1) + usize::from(before.ends_with('\n'));
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (format!("{before}{after}"), line, column)
}

#[test]
fn every_wrong_file_gets_its_code_its_place_and_its_fix_and_nothing_else() {
    let mut failures = Vec::new();
    for (code, marked, fix) in all() {
        let (text, line, column) = unmark(&marked);
        let report = support::report(&text);
        let [problem] = report.problems() else {
            failures.push(format!("{code:?} expected alone in:\n{text}\nsaid:\n{report}"));
            continue;
        };
        let found = (problem.code, problem.line, problem.column);
        if found != (code, line, column) || !problem.fix.contains(fix) {
            failures.push(format!(
                "expected {code:?} {line}:{column} fix {fix:?} in:\n{text}\nsaid:\n{report}"
            ));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n----\n"));
}

#[test]
fn every_code_has_a_wrong_file() {
    // Those that need a real file: `files.rs`.
    let of_files = [Code::FileUnreadable, Code::FileTooLarge, Code::FileNotText, Code::NoVip];
    let tested: Vec<Code> = all().into_iter().map(|(code, _, _)| code).chain(of_files).collect();
    let missing: Vec<&Code> = Code::ALL.iter().filter(|code| !tested.contains(code)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn codes_are_unique_and_in_order() {
    assert!(Code::ALL.is_sorted_by(|a, b| a.id() < b.id()));
    assert!(Code::ALL.iter().all(|code| code.meaning().ends_with('.')));
}

#[test]
fn the_colliding_names_of_the_table_do_collide() {
    assert_eq!(NodeId::of("costarring"), NodeId::of("liquid"));
    let [v4, v6] = ["10.0.0.184", "2001:db8::278:248b"].map(|a| GroupId::of(a.parse().unwrap()));
    assert_eq!(v4, v6);
}

//! Wrong pools, groups and checks of the node: tables that `cases.rs` goes through.

use crate::cases::Case;
use crate::persist::PERSIST;
use crate::proxy::PROXY;
use buoy_config::Code;

/// Those of a `[[vip.service]]`, by what they are about.
pub(crate) const SERVICES: [&[Case]; 6] = [PROXY, PERSIST, SOURCES, SEEN, BALANCE, PORTS];

/// Ways of balancing, after `[[vip.service]]`.
pub(crate) const BALANCE: &[Case] = &[
    (Code::QuorumUnmet, "»quorum = 2", "quorum = 1 or less"),
    (
        Code::QuorumUnmet,
        "backends = [\"10.0.0.21:80\", \"10.0.0.22:80 backup\", \"10.0.0.23:80 weight=0\"]\n»quorum = 2",
        "add backends",
    ),
    (Code::OutOfRange, "quorum = »0", "1"),
    (
        Code::BadLocality,
        "port = »\"80/tcp\"\nlocality = \"node\"\nbackends = [\"10.0.0.21:80\"]",
        "node=lb1",
    ),
    (
        Code::LonelyZone,
        "port = »\"80/tcp\"\nlocality = \"node\"\nbackends = [\"10.0.0.21:80 node=10.0.0.12\", \"10.0.0.22:80 zone=c\"]",
        "`zones`",
    ),
    (Code::NeedsProxy, "»slow_start = \"30s\"", "mode = \"proxy\""),
    (Code::NeedsProxy, "forward = \"nat\"\n»queue = 5", "no `forward`"),
    (Code::OutOfRange, "mode = \"proxy\"\nslow_start = »\"10ms\"", "\"1s\""),
    (Code::NeedsOther, "mode = \"proxy\"\n»queue = 5", "backend_max_connections = N"),
    (Code::NeedsOther, "mode = \"proxy\"\n»queue_timeout = \"5s\"", "queue = N"),
    (
        Code::NeedsTcp,
        "port = »\"53/udp\"\nmode = \"proxy\"\nqueue = 5\nbackend_max_connections = 9",
        "`queue` for udp",
    ),
    (
        Code::Contradiction,
        "balance = \"first\"\nbackend_max_connections = 9\n»slow_start = \"30s\"",
        "remove `slow_start`",
    ),
    (
        Code::IdleWeight,
        "backends = [\"10.0.0.21:80 max=9 weight=3\"]\n»balance = \"first\"",
        "in the order that you want",
    ),
    (Code::NotInKernel, "»balance = \"maglev\"", "balance = \"hash\""),
    (Code::NotInKernel, "mode = \"kernel\"\n»balance = \"mh\"", "balance = \"hash\""),
    (Code::NeedsProxy, "mode = \"kernel\"\n»balance = \"first\"", "mode = \"proxy\""),
    (Code::NeedsProxy, "mode = \"kernel\"\n»balance = \"random\"", "mode = \"proxy\""),
    (Code::NeedsProxy, "mode = \"kernel\"\n»balance = \"sed\"", "mode = \"proxy\""),
    (Code::NeedsProxy, "forward = \"nat\"\n»balance = \"rendezvous\"", "no `forward`"),
    (Code::NeedsProxy, "backends = [»\"10.0.0.21:80 max=5\"]", "remove max=N"),
    (Code::NeedsProxy, "»backend_max_connections = 10", "mode = \"proxy\""),
    (Code::UnknownWord, "balance = »\"nq\"", "write `balance = \"hash\"`"),
    (Code::UnknownWord, "balance = »\"leastcon\"", "did you mean \"leastconn\"?"),
    (Code::Contradiction, "balance = \"roundrobin\"\n»persist = \"client\"", "\"source\""),
    (Code::Contradiction, "balance = \"wlc\"\n»persist = \"client\"", "\"source\""),
    (
        Code::NeedsOther,
        "balance = \"first\"\nbackends = [\"10.0.0.21:80 max=9\", »\"10.0.0.22:80\"]",
        "max=N into each",
    ),
    (
        Code::OutOfRange,
        "mode = \"proxy\"\nbackends = [\"10.0.0.21:80 »max=0\"]",
        "without it the backend gets any number",
    ),
    (
        Code::BadBackend,
        "mode = \"proxy\"\nbackends = [\"10.0.0.21:80 »maxconn=5\"]",
        "did you mean max=N?",
    ),
];

/// Lines of a `[[pool]]` besides a name and addresses, if they have none.
pub(crate) const POOL: &[Case] = &[
    (Code::NothingForwarded, "assign = »false", "a [[pool.service]] with `forward`"),
    (Code::NeedsOther, "»priority = 1", "auto_assign = true"),
    (Code::NeedsOther, "auto_assign = false\n»priority = 1", "auto_assign = true"),
    (Code::OutOfRange, "auto_assign = true\npriority = »0", "1"),
    (Code::OfEachVip, "auto_assign = true\n»nodes = [\"10.0.0.11\"]", "each [[vip]]"),
    (Code::OfEachVip, "auto_assign = false\n»check = { process = \"haproxy\" }", "each [[vip]]"),
    (Code::UnknownKey, "»avoidBuggyIPs = true", "skip_0_255"),
    (Code::UnusableVip, "auto_assign = true\naddresses = [»\"10.0.0.200-255/24\"]", "free host"),
    (Code::UnusableVip, "auto_assign = true\naddresses = [»\"127.0.0.1-9/8\"]", "free host"),
    (
        Code::PoolsOverlap,
        "auto_assign = true\naddresses = [\"10.0.0.150-160/24\", »\"10.0.0.155-170/24\"]",
        "in one pool, once",
    ),
    (Code::UnknownKey, "»range = \"10.0.0.1-2\"", "as in `addresses = ["),
    (Code::UnknownKey, "»group = \"edge\"", "each for itself"),
    (
        Code::UnknownKey,
        "[[pool.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\n»algorithm = \"rr\"",
        "as in `balance = \"hash\"`",
    ),
    (Code::WrongType, "addresses = »100", "10.0.0.150/24"),
    (Code::EmptyList, "addresses = »[]", "10.0.0.150/24"),
    (Code::BadVip, "addresses = [»\"10.0.0.160-10.0.0.150/24\"]", "10.0.0.64/28/24"),
    (Code::BadVip, "addresses = [»\"10.0.0.150-last/24\"]", "10.0.0.64/28/24"),
    (Code::BadVip, "addresses = [»\"10.0.0.150-10.0.1.150/24\"]", "prefix of the subnet"),
    (Code::BadVip, "addresses = [»\"10.0.0.150-2001:db8::1/24\"]", "10.0.0.64/28/24"),
    (Code::BadVip, "addresses = [»\"10.0.0.70/28/24\"]", "\"10.0.0.64/28/24\""),
    (Code::BadVip, "addresses = [»\"10.0.0.0/16/24\"]", "10.0.0.64/28/24"),
    (Code::BadVip, "addresses = [»\"www.example.org/24\"]", "10.0.0.64/28/24"),
    (Code::BadPrefix, "addresses = [»\"10.0.0.150-10.0.0.160\"]", "prefix of the subnet"),
    (Code::BadPrefix, "addresses = [»\"10.0.0.150-160/33\"]", "prefix of the subnet"),
    (Code::BadPrefix, "addresses = [»\"10.0.0.64/x/24\"]", "prefix of the subnet"),
    (Code::TooMany, "addresses = [»\"10.0.0.0/8\"]", "smaller range"),
    (Code::TooMany, "addresses = [»\"2001:db8::/64\"]", "smaller range"),
    (Code::TooMany, "addresses = [»\"2001::1-3fff::/2\"]", "smaller range"),
    (Code::UnusableVip, "addresses = [»\"10.0.0.200-255/24\"]", "free host address"),
    (Code::UnusableVip, "addresses = [»\"127.0.0.1-9/8\"]", "free host address"),
    (Code::LinkLocalVip, "addresses = [»\"fe80::1-9/64\"]", "interface = "),
    (Code::DuplicateVip, "addresses = [»\"10.0.0.90-110/24\"]", "remove one"),
    (
        Code::DuplicateVip,
        "addresses = [\"10.0.0.150-160/24\", »\"10.0.0.155-170/24\"]",
        "remove one",
    ),
    (Code::VipIsPeer, "addresses = [»\"10.0.0.12-20/24\"]", "free address"),
    (Code::NoSubnet, "addresses = [»\"10.0.7.150-160/24\"]", "did you mean \"10.0.0.150/24\"?"),
    (Code::PrefixDiffers, "addresses = [»\"10.0.0.150-160/16\"]", "write \"10.0.0.150/24\""),
    (
        Code::PreferNotInNodes,
        "nodes = [\"10.0.0.11\"]\nprefer = [»\"10.0.0.12\"]",
        "add it to `nodes`",
    ),
    (
        Code::BadName,
        "name = »\"a-name-of-a-pool-that-is-so-long-that-no-address-fits-in-there\"",
        "a short name",
    ),
    (Code::BadProgram, "check = { exec = »[\"/usr/local/lib/gone\"] }", "on every host"),
    (Code::NotHere, "check = { gateway = »\"10.9.9.1\" }", "in its subnet"),
    (Code::DuplicateName, "check = [{ process = \"a\" }, { process = »\"a\" }]", "another `name`"),
];

/// Lines of a `[[vip.service]]` about `source`.
pub(crate) const SEEN: &[Case] = &[
    (Code::UnknownWord, "source = »\"vpi\"", "did you mean \"vip\"?"),
    (Code::WrongType, "source = »5", "source = \"vip\""),
    (Code::EmptyList, "source = »[]", "name at least one"),
    (Code::BadSourceAddress, "source = [»\"vip\"]", "write source = \"vip\""),
    (Code::BadSourceAddress, "source = [»\"10.0.0.300\"]", "addresses of the VIP's group"),
    (Code::BadSourceAddress, "source = »\"10.0.0.100/24\"", "addresses of the VIP's group"),
    (Code::BadSourceAddress, "source = [\"10.0.0.100\", »\"10.0.0.100\"]", "remove one"),
    (Code::SourceNotVip, "source = »\"10.0.0.50\"", "source = \"vip\""),
    (
        Code::SourceNotVip,
        "forward = \"nat\"\nsource = [\"10.0.0.100\", »\"10.0.0.50\"]",
        "the same `group`",
    ),
    (
        Code::NotInXdp,
        "forward = \"dsr\"\nbackends = [\"10.0.0.21\"]\n»source = \"vip\"",
        "forward = \"nat\"",
    ),
    (
        Code::NotInXdp,
        "forward = \"tunnel\"\nbackends = [\"10.0.0.21\"]\n»source = [\"10.0.0.100\"]",
        "forward = \"nat\"",
    ),
    (Code::NotInProxy, "mode = \"proxy\"\n»source = [\"10.0.0.100\"]", "mode = \"kernel\""),
    (
        Code::NoPortLeft,
        "port = »\"*/tcp\"\nforward = \"nat\"\nsource = \"vip\"\nbackends = [\"10.0.0.21\"]\n\
         check = { tcp = true, port = 22 }",
        "serve fewer ports",
    ),
];

/// Lines of a `[[vip.service]]` besides a port, if they have none, and backends, if they have none.
pub(crate) const PORTS: &[Case] = &[
    (Code::BadPort, "port = »\"0/tcp\"", "write \"*/tcp\""),
    (Code::BadPort, "port = »\"0-65535/udp\"", "write \"*/udp\""),
    (Code::BadPort, "port = »\"*\"", "\"*/tcp\" or \"*/udp\""),
    (Code::BadPort, "port = »\"all/tcp\"", "or \"*/tcp\""),
    (Code::BadPort, "port = »\"8000-8099\"", "\"8000-8099/tcp\" or"),
    (Code::BadPort, "port = »\"8000:8099/tcp\"", "write \"8000-8099/tcp\""),
    (Code::BadPort, "port = »\"8099-8000/tcp\"", "write \"8000-8099/tcp\""),
    (Code::BadPort, "port = »\"0-80/tcp\"", "8000-8099/tcp"),
    (Code::BadPort, "port = »\"8000-/tcp\"", "8000-8099/tcp"),
    (Code::BadPort, "port = »\"8000-70000/tcp\"", "8000-8099/tcp"),
    (Code::BadPort, "port = »\"8000-8010-8020/tcp\"", "8000-8099/tcp"),
    (Code::BadPort, "port = »\"+80/tcp\"", "\"443/tcp\""),
    (
        Code::DuplicatePort,
        "port = [\"8000-8099/tcp\", »\"8000-8099/tcp\"]\nbackends = [\"10.0.0.21\"]",
        "one [[vip.service]]",
    ),
    (
        Code::RangesOverlap,
        "port = [\"8000-8099/tcp\", \"8099/udp\", »\"8099-8199/tcp\"]\nbackends = [\"10.0.0.21\"]",
        "no port in common",
    ),
    (
        Code::RangeRefused,
        "port = [\"80/tcp\", »\"8000-8099/tcp\"]\nmode = \"proxy\"",
        "mode = \"kernel\", or `forward`",
    ),
    (
        Code::RangeRefused,
        "port = \"8000-8099/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21\", »\"10.0.0.22:65437\"]",
        "leave the port out, as in \"10.0.0.22\"",
    ),
    (
        Code::RangeRefused,
        "port = \"*/tcp\"\nforward = \"nat\"\nbackends = [»\"10.0.0.21:1\"]\ncheck = false",
        "leave the port out",
    ),
    (
        Code::RangeRefused,
        "port = \"8000-8099/tcp\"\nbackends = [»\"10.0.0.21:9000\", \"10.0.0.22:9001\"]",
        "the same port at each",
    ),
    (
        Code::RangeRefused,
        "port = \"8000-9024/tcp\"\nbackends = [»\"10.0.0.21:9000\"]",
        "write forward = \"nat\"",
    ),
    (
        Code::RangeRefused,
        "port = \"*/tcp\"\nforward = \"dsr\"\nbackends = [\"10.0.0.21\"]\ncheck = false\n\
         [[vip.service]]\nport = »\"22/tcp\"\nbackends = [\"10.0.0.21:22\"]",
        "both in mode \"xdp\"",
    ),
    (
        Code::PortKept,
        "port = \"8000-8099/tcp\"\nforward = \"tunnel\"\nbackends = [»\"10.9.0.21:8000\"]",
        "leave the port out",
    ),
    (
        Code::DuplicateBackend,
        "port = \"8000-8099/tcp\"\nbackends = [\"10.0.0.21\", »\"a 10.0.0.21:8000\"]",
        "remove one",
    ),
    (
        Code::BackendShared,
        "port = [\"80/tcp\", »\"443/tcp\"]\nforward = \"nat\"\nbackends = [\"10.0.0.21:8080\"]",
        "a port of the backend",
    ),
    (
        Code::BackendShared,
        "port = \"8000-8099/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21\"]\n\
         [[vip.service]]\nport = »\"80/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21:8050\"]",
        "source = \"vip\"",
    ),
    (
        Code::BackendShared,
        "port = \"80/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21:80\"]\n\
         [[vip]]\naddress = \"10.0.0.101/24\"\n\
         [[vip.service]]\nport = »\"80/tcp\"\nforward = \"nat\"\nbackends = [\"10.0.0.21:80\"]",
        "a port of the backend",
    ),
    (
        Code::CheckNeedsPort,
        "port = [\"*/udp\", »\"*/tcp\"]\nforward = \"dsr\"\nbackends = [\"10.0.0.21\"]",
        "or check = false",
    ),
    (
        Code::CheckNeedsPort,
        "port = \"*/udp\"\nforward = \"dsr\"\nbackends = [\"10.0.0.21\"]\n»check = { tcp = true }",
        "port = 22",
    ),
];

/// Lines of a `[[vip.service]]` with `forward = \"local\"`.
pub(crate) const LOCAL: &[Case] = &[
    (Code::OfBackends, "»backends = [\"10.0.0.21:80\"]", "remove the line"),
    (Code::OfBackends, "»balance = \"hash\"", "remove the line"),
    (Code::OfBackends, "»persist = \"client\"", "remove the line"),
    (Code::OfBackends, "»quorum = 2", "remove the line"),
    (Code::OfBackends, "»eject_after = 3", "remove the line"),
    (Code::OfBackends, "»source = \"client\"", "remove the line"),
    (Code::OfBackends, "»check = false", "remove the line"),
];

/// Lines that follow `address` in the VIP of `SMALL`.
pub(crate) const GROUP: &[Case] = &[
    (Code::WrongType, "assign = »\"no\"", "assign = false"),
    (Code::NothingForwarded, "assign = »false", "a [[vip.service]] with `forward`"),
    (
        Code::NeedsAssignment,
        "assign = »false\n[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]",
        "forward = \"dsr\", \"tunnel\" or \"nat\"",
    ),
    (
        Code::NeedsAssignment,
        "assign = »false\n[[vip.service]]\nport = \"80/tcp\"\nmode = \"proxy\"\nbackends = [\"10.0.0.21:80\"]",
        "or remove `assign`",
    ),
    (Code::BadName, "group = »\"a b\"", "a short name"),
    (Code::UnknownKey, "»sync_group = \"edge\"", "as in `group = \"edge\"`"),
    (
        Code::GroupDiffers,
        "group = \"e\"\nprefer = [\"10.0.0.11\"]\n[[vip]]\naddress = \"10.0.0.101/24\"\ngroup = \"e\"\nprefer = »[\"10.0.0.12\"]",
        "in one of them only",
    ),
    (
        Code::GroupDiffers,
        "group = \"e\"\nnodes = [\"10.0.0.11\"]\n[[vip]]\naddress = \"10.0.0.101/24\"\ngroup = \"e\"\nnodes = »[\"10.0.0.11\", \"10.0.0.12\"]",
        "in one of them only",
    ),
    (
        Code::GroupDiffers,
        "group = \"e\"\nfailback = \"now\"\n[[vip]]\naddress = \"10.0.0.101/24\"\ngroup = \"e\"\nfailback = »\"30s\"",
        "in one of them only",
    ),
    (
        Code::PreferNotInNodes,
        "group = \"e\"\nnodes = [\"10.0.0.11\"]\n[[vip]]\naddress = \"10.0.0.101/24\"\ngroup = \"e\"\nprefer = [»\"10.0.0.12\"]",
        "add it to `nodes`",
    ),
    (
        Code::DuplicateName,
        "[[pool]]\nname = \"a\"\naddresses = \"10.0.0.150/24\"\n[[pool]]\nname = »\"a\"\naddresses = \"10.0.0.160/24\"",
        "rename",
    ),
    (
        Code::DuplicateName,
        "[[pool]]\nname = \"a\"\naddresses = [»\"10.0.0.150-160/24\"]\n[[vip]]\nname = \"a-155\"\naddress = \"10.0.0.170/24\"",
        "rename",
    ),
    (Code::LonelyLabel, "group = »\"edge\"", "at another VIP"),
    (Code::LonelyLabel, "apart = »\"dns\"", "at another VIP"),
    (
        Code::LonelyLabel,
        "apart = \"dns\"\n[[vip]]\naddress = \"10.0.0.101/24\"\napart = \"dns\"\n[[vip]]\naddress = \"10.0.0.102/24\"\napart = »\"dsn\"",
        "did you mean \"dns\"?",
    ),
    (
        Code::DuplicateName,
        "name = »\"e\"\n[[vip]]\naddress = \"10.0.0.101/24\"\ngroup = \"e\"\n[[vip]]\naddress = \"10.0.0.102/24\"\ngroup = \"e\"",
        "rename",
    ),
    (
        Code::DuplicateName,
        "group = \"e\"\ncheck = { process = \"a\", fall = 1 }\n[[vip]]\naddress = \"10.0.0.101/24\"\ngroup = \"e\"\ncheck = { process = »\"a\" }",
        "another `name`",
    ),
];

/// Values of `check` of the VIP of `SMALL`.
pub(crate) const CHECK: &[Case] = &[
    (Code::WrongType, "»true", "{ process = \"haproxy\" }"),
    (Code::WrongType, "[»1]", "{ process = \"haproxy\" }"),
    (Code::WrongType, "{ process = »1 }", "process = \"haproxy\""),
    (Code::EmptyList, "»[]", "remove the line"),
    (Code::UnknownKey, "{ »script = \"/usr/local/lib/fit\" }", "as in `exec = ["),
    (Code::NotInThisVersion, "{ »dns = \"example.org\", process = \"a\" }", "127.0.0.1:53"),
    (Code::BadName, "{ process = \"a\", name = »\"a b\" }", "a short name"),
    (Code::OutOfRange, "{ process = \"a\", rise = »0 }", "1 to 100"),
    (Code::SlowCheck, "{ process = \"a\", timeout = »\"2s\" }", "every = \"2s\""),
    (Code::DuplicateName, "[{ process = \"a\" }, { process = »\"a\" }]", "another `name`"),
    (Code::BadCheck, "»{ every = \"1s\" }", "process = \"haproxy\""),
    (Code::BadCheck, "{ process = \"a\", »tcp = \"127.0.0.1:1\" }", "[{ process = ... }, { tcp ="),
    (Code::BadCheck, "{ process = »\"/usr/sbin/haproxy\" }", "process = \"haproxy\""),
    (Code::BadCheck, "{ process = »\"a-process-with-a-name\" }", "process = \"a-process-with-\""),
    (Code::BadCheck, "{ process = »\"\" }", "ps -o comm"),
    (Code::BadCheck, "{ tcp = »\"127.0.0.1\" }", "\"127.0.0.1:5432\""),
    (Code::BadCheck, "{ tcp = »\"localhost:80\" }", "\"127.0.0.1:80\""),
    (Code::BadCheck, "{ tcp = »\"10.0.0.100:80\" }", "ask this host"),
    (Code::BadCheck, "{ tcp = »\"224.0.0.1:80\" }", "one server"),
    (Code::BadCheck, "{ tcp = \"127.0.0.1:80\", »expect = 200 }", "http = \"GET http://"),
    (Code::BadCheck, "{ http = »\"GET /primary\" }", "\"GET http://127.0.0.1:8008/primary\""),
    (Code::BadCheck, "{ http = »\"http://127.0.0.1/x\" }", "\"GET http://127.0.0.1/x\""),
    (Code::BadCheck, "{ http = »\"FETCH http://127.0.0.1/x\" }", "\"GET http://"),
    (Code::BadCheck, "{ http = »\"GET http://localhost:8008/x\" }", "\"127.0.0.1:8008\""),
    (Code::BadCheck, "{ http = \"GET https://127.0.0.1/\", tls = »false }", "http://"),
    (Code::BadCheck, "{ http = \"GET http://127.0.0.1/\", ca = »\"ca.pem\" }", "tls = true"),
    (Code::BadAuthority, "{ http = \"GET https://127.0.0.1/\", ca = »\"gone.pem\" }", "PEM"),
    (Code::BadCheck, "{ exec = »\"fit\" }", "absolute path"),
    (Code::BadProgram, "{ exec = »\"/usr/local/lib/gone\" }", "on every host"),
    (Code::BadProgram, "{ exec = »[\"/usr/local/lib/open\", \"-q\"] }", "chmod go-w"),
    (Code::BadProgram, "{ exec = »\"/usr/local/lib/plain\" }", "chmod 755"),
    (Code::BadCheck, "{ file = »\"run/ready\" }", "\"/run/ready\""),
    (Code::BadCheck, "{ no_file = »\"\" }", "\"/run/ready\""),
    (Code::BadName, "{ link = »\"a name far too long\" }", "ip link"),
    (Code::NotHere, "{ link = »\"eht1\" }", "did you mean \"eth1\"?"),
    (Code::NotHere, "{ link = »\"wireguard7\" }", "create it"),
    (Code::NotHere, "{ gateway = »\"10.9.9.1\" }", "in its subnet"),
    (Code::BadCheck, "{ gateway = »\"10.0.0.100\" }", "address of the router"),
    (Code::BadCheck, "{ gateway = »\"10.0.0.1:80\" }", "address of the router"),
    (Code::BadCheck, "{ gateway = »\"router\" }", "address of the router"),
    (Code::BadCheck, "{ gateway = »\"224.0.0.1\" }", "address of the router"),
];

/// Lines of a service about who may ask.
pub(crate) const SOURCES: &[Case] = &[
    (Code::BadSource, "allow = [\"10.0.0.0/8\", »\"10.0.0.300\"]", "as in \"10.0.0.0/8\""),
    (Code::BadSource, "allow = »\"10.0.0.0/33\"", "as in \"10.0.0.0/8\""),
    (Code::BadSource, "deny = »\"10.0.0.0/+8\"", "as in \"10.0.0.0/8\""),
    (Code::BadSource, "deny = »\"2001:db8::1/64\"", "write \"2001:db8::/64\", or \"2001:db8::1\""),
    (Code::BadSource, "deny = [»\"10.0.0.1:80\"]", "\"10.0.0.7\""),
    (Code::BadSource, "deny = »\"::ffff:10.0.0.0/104\"", "write it as IPv4"),
    (
        Code::DuplicateSource,
        "allow = \"10.0.0.0/8\"\ndeny = [»\"10.0.0.0/8\"]",
        "from one of the two",
    ),
    (Code::DuplicateSource, "deny = [\"10.0.0.7\", »\"10.0.0.7/32\"]", "remove one"),
    (Code::EmptyList, "allow = »[]", "default: everybody"),
    (Code::BadRate, "new_connections = »\"100\"", "as in \"100/s\""),
    (Code::BadRate, "new_connections = »\"100/d\"", "unit (s, m, h)"),
    (Code::BadRate, "new_connections = »\"+100/s\"", "as in \"100/s\""),
    (Code::BadRate, "new_connections = »\"0/s\"", "write a number from 1, or `deny`"),
    (Code::BadRate, "new_connections = »\"100001/s\"", "as in \"100/s\""),
    (Code::BadRate, "new_connections = »\"100/s 200\"", "\"100/s burst=200\""),
    (Code::BadRate, "new_connections = »\"100/s burst=0\"", "write a number from 1"),
    (Code::BadRate, "new_connections = »\"100/s burst=200 now\"", "\"100/s burst=200\""),
    (Code::BadRate, "new_connections = »\"10/m burst=700\"", "write burst=600 or less"),
    (Code::WrongType, "new_connections = »100", "new_connections = "),
    (
        Code::NeedsTcp,
        "forward = \"dsr\"\nport = [»\"80/udp\"]\nnew_connections = \"100/s\"",
        "without `new_connections` for udp",
    ),
    (Code::UnknownKey, "»rate_limit = \"100/s\"", "as in `new_connections = "),
    (Code::UnknownKey, "»whitelist = [\"10.0.0.0/8\"]", "as in `allow = "),
];

/// What a tunnel is made of, in a service.
pub(crate) const TUNNEL: &[Case] = &[
    (Code::NeedsTunnel, "»encapsulation = \"gue\"", "forward = \"tunnel\""),
    (Code::NeedsTunnel, "mode = \"proxy\"\n»encapsulation = \"ipip\"", "remove the line"),
    (
        Code::NeedsTunnel,
        "forward = \"dsr\"\n»encapsulation = \"gue\"\nbackends = [\"10.0.0.21\"]",
        "forward = \"tunnel\"",
    ),
    (
        Code::BadGuePort,
        "forward = \"tunnel\"\nencapsulation = »\"gue:0\"\nbackends = [\"10.9.0.21\"]",
        "as in \"gue:9886\"",
    ),
    (
        Code::BadGuePort,
        "forward = \"tunnel\"\nencapsulation = »\"gue:+80\"\nbackends = [\"10.9.0.21\"]",
        "for port 6080",
    ),
    (
        Code::UnknownWord,
        "forward = \"tunnel\"\nencapsulation = »\"gre\"\nbackends = [\"10.9.0.21\"]",
        "did you mean \"gue\"?",
    ),
    (
        Code::WrongType,
        "forward = \"tunnel\"\nencapsulation = »6080\nbackends = [\"10.9.0.21\"]",
        "encapsulation = ",
    ),
];

/// Lines of `[traces]`, as in `cases`.
pub(crate) const TRACES: &[Case] = &[
    (Code::BadTraces, "[traces]\notlp = »\"127.0.0.1:4318\"", "http://127.0.0.1:4318"),
    (Code::BadTraces, "[traces]\notlp = »\"http://me:pw@a/\"", "http://127.0.0.1:4318"),
    (Code::BadTraces, "[traces]\notlp = »\"https://a/\"", "add ca = "),
    (Code::BadTraces, "[traces]\notlp = \"http://a/\"\nca = »\"ca.pem\"", "remove `ca`"),
    (Code::MissingKey, "»[traces]", "otlp = "),
    (Code::UnknownKey, "[traces]\notlp = \"http://a/\"\n»sampling = 1", "each of them is told"),
];

/// Lines of a `[[hook]]` before `[[vip]]`, as in `cases`.
pub(crate) const HOOK: &[Case] = &[
    (Code::BadHook, "»[[hook]]\nname = \"x\"", "add one of them"),
    (
        Code::BadHook,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\n»url = \"http://a/\"",
        "make two of it",
    ),
    (Code::BadHook, "[[hook]]\nexec = \"/usr/local/lib/fit\"\n»retry = \"5m\"", "remove `retry`"),
    (Code::BadHook, "[[hook]]\nurl = \"http://a/\"\n»user = \"me\"", "remove `user`"),
    (Code::BadHook, "[[hook]]\nurl = »\"alerts.example.org\"", "https://"),
    (Code::BadHook, "[[hook]]\nurl = »\"http://me:pw@a/\"", "https://"),
    (Code::BadHook, "[[hook]]\nurl = »\"https://a/\"", "add ca = "),
    (Code::BadHook, "[[hook]]\nurl = \"http://a/\"\nca = »\"ca.pem\"", "remove `ca`"),
    (Code::BadSecret, "[[hook]]\nurl = \"http://a/\"\nsecret = »\"hunter2\"", "file:hook.key"),
    (Code::CheckUser, "[[hook]]\nexec = \"/usr/local/lib/fit\"\nuser = »\"root\"", "buoy-hook"),
    (
        Code::UnknownWord,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\nevents = [»\"owner\"]",
        "write one of them",
    ),
    (
        Code::HookVip,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\nvips = [»\"wbe\"]",
        "the `name` of a [[vip]]",
    ),
    (
        Code::BadHook,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\n»fifo = \"/run/n\"",
        "make two of it: one with `exec`, one with `fifo`",
    ),
    (Code::BadHook, "[[hook]]\nfifo = \"/run/n\"\n»user = \"me\"", "remove `user`"),
    (Code::BadHook, "[[hook]]\nfifo = \"/run/n\"\n»style = \"json\"", "style = \"keepalived\""),
    (Code::BadHook, "[[hook]]\nfifo = \"/run/n\"\n»events = [\"ownership\"]", "remove `events`"),
    (Code::BadCheck, "[[hook]]\nfifo = »\"run/n\"", "begin it with `/`"),
    (
        Code::UnknownWord,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\nstyle = »\"keepalive\"",
        "did you mean \"keepalived\"?",
    ),
    (
        Code::UnknownWord,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\nstyle = \"keepalived\"\nstates = [»\"master\"]",
        "did you mean \"MASTER\"?",
    ),
    (
        Code::BadHook,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\n»states = [\"MASTER\"]",
        "add style = \"keepalived\"",
    ),
    (
        Code::UnknownKey,
        "[[hook]]\nexec = \"/usr/local/lib/fit\"\n»notify_stop = \"/usr/local/lib/fit\"",
        "states = [\"STOP\"]",
    ),
    (Code::UnknownKey, "[[hook]]\n»webhook = \"http://a/\"", "as in `url = "),
    (Code::OutOfRange, "[[hook]]\nexec = \"/usr/local/lib/fit\"\ntimeout = »\"1h\"", "5m"),
    (
        Code::DuplicateName,
        "[[hook]]\nname = \"x\"\nexec = \"/usr/local/lib/fit\"\n»[[hook]]\nname = \"x\"\nexec = \"/usr/local/lib/fit\"",
        "rename",
    ),
];

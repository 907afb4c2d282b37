//! Every bound of the system in one place, related to each other where they depend on it.

use core::time::Duration;

/// Nodes in one cluster. Votes are kept in arrays of this length.
pub const NODES_MAX: usize = 16;
/// Groups in one cluster: what fits the claims of one UDP datagram.
pub const GROUPS_MAX: usize = 1024;
/// Groups in one cluster as long as a node speaks the first version of the wire format.
pub const GROUPS_MAX_V1: usize = 256;
/// Addresses of one node on which its agent listens: its legs.
pub const LEGS_MAX: usize = 4;
/// Largest weight of a node in the spread of a pool.
pub const NODE_WEIGHT_MAX: u16 = 100;
/// Groups a voter remembers: it also votes for groups that its own file does not have (yet, or any more).
pub const VOTER_GROUPS_MAX: usize = 2 * GROUPS_MAX;
/// Addresses of one group.
pub const GROUP_ADDRESSES_MAX: usize = 64;
/// Routes of one `[[vip]]` that go where it goes.
pub const VIP_ROUTES_MAX: usize = 64;
/// Rules of routing of one `[[vip]]` that go where it goes.
pub const VIP_RULES_MAX: usize = 64;
/// Services of one group.
pub const GROUP_SERVICES_MAX: usize = 32;
/// Ports of a range that get other numbers by nftables, which has an entry for each.
pub const MOVED_PORTS_MAX: usize = 1024;
/// Services of one pool: its addresses times its ports.
pub const POOL_PORTS_MAX: usize = 4096;
/// Checks on the node itself of one group.
pub const GROUP_CHECKS_MAX: usize = 16;
/// Backends of one service.
pub const SERVICE_BACKENDS_MAX: usize = 128;
/// Entries of `backends` of one service that say where to look for them.
pub const SERVICE_DISCOVERIES_MAX: usize = 8;
/// Name servers that are asked.
pub const RESOLVERS_MAX: usize = 3;
/// Bytes of a file of backends.
pub const BACKENDS_FILE_MAX: usize = 64 << 10;
/// Largest weight of a backend.
pub const BACKEND_WEIGHT_MAX: u16 = 256;
/// Orders of backends that are kept at a time, those that took another back among them.
pub const BACKEND_ORDERS_MAX: usize = 4096;
/// Bytes of an order's reason, with who gave it.
pub const ORDER_REASON_MAX: usize = 1024;
/// Keys in the keyring: the one that signs and those still accepted.
pub const KEYS_MAX: usize = 4;
/// Bytes of a cluster key.
pub const KEY_LEN: usize = 32;
/// Bytes of the largest datagram of the lease protocol.
pub const DATAGRAM_MAX: usize = 24 << 10;
/// Bytes of the largest datagram of the exchange: it is never a fragment, in a tunnel neither.
pub const EXCHANGE_DATAGRAM_MAX: usize = 1400;
/// Parcels of the exchange that wait to be sent, or to be looked at by one who reads them.
pub const EXCHANGE_QUEUE_MAX: usize = 4096;
/// Time between two signs of life of the exchange.
pub const EXCHANGE_HELLO: Duration = Duration::from_secs(1);
/// Silence after which a peer of the exchange has left.
pub const EXCHANGE_SILENCE: Duration = Duration::from_secs(4);
/// Bytes of a name of a node, group, cluster or backend.
pub const NAME_MAX: usize = 63;
/// UDP port of the lease protocol, unless the file says otherwise.
pub const PORT_DEFAULT: u16 = 4747;
/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: usize = 4 << 20;

/// Time between two heartbeats, unless the file says otherwise.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_millis(10);
/// Shortest time between two heartbeats.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(2);
/// Longest time between two heartbeats.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(1);
/// Term of a grant on a calm network, unless the file says otherwise.
pub const LEASE_DEFAULT: Duration = Duration::from_millis(32);
/// A lease is at least so many heartbeats, so that two lost datagrams in a row cost nothing.
pub const LEASE_HEARTBEATS_MIN: u32 = 3;
/// How long a term grows where the network loses datagrams or the hosts stall, unless the file says otherwise.
pub const LEASE_CEILING_DEFAULT: Duration = Duration::from_millis(300);
/// Longest term of a grant; a voter that restarts grants nothing for as long.
pub const LEASE_MAX: Duration = Duration::from_millis(2_500);
/// Term asked for by a node whose kernel has no gate: covers `KERNEL_FENCE_LAG` and the renewal.
pub const LEASE_WITHOUT_GATE: Duration = Duration::from_millis(2_500);
/// After a silence of so many heartbeats, and of the term it asked for, a peer counts as gone.
pub const SILENT_HEARTBEATS: u32 = 3;
/// How often a node speaks that serves nothing and asks for nothing, or as often as others, if that is seldomer.
pub const REST_HEARTBEAT: Duration = Duration::from_millis(100);

/// A node that asks for votes in vain for so long is passed over by the next in line.
pub const PASSED_OVER_AFTER: Duration = Duration::from_millis(5_500);
/// Datagrams of a stranger under a live peer's name until it is called a second node of that name.
pub const STRANGERS_MAX: u32 = 50;

/// A clock may run faster or slower than another by 1 in so many; the holder gives that up.
pub const DRIFT_DIVISOR: u32 = 64;

/// `valid_lft` of a VIP in seconds where the gate is the first line of defence; longer with many groups.
pub const VALID_LIFETIME_GATED: u32 = 9;
/// The longest `valid_lft` of a VIP in seconds.
pub const VALID_LIFETIME_MAX: u32 = 21;
/// `valid_lft` of a VIP in seconds where it is the only one.
pub const VALID_LIFETIME_UNGATED: u32 = 1;
/// How often a VIP's kernel lifetime is renewed where it is the only fence.
pub const ADDRESS_REFRESH: Duration = Duration::from_millis(300);
/// How often it is renewed behind a gate, with few groups.
pub const ADDRESS_REFRESH_GATED: Duration = Duration::from_millis(4_000);
/// How often it is renewed behind a gate at least.
pub const ADDRESS_REFRESH_MAX: Duration = Duration::from_millis(10_000);
/// So much longer with each group: the kernel walks all its addresses to renew one of them (22 us with a
/// thousand), and is asked a hundred times a second at most by the first thousand.
pub const ADDRESS_REFRESH_PER_GROUP: Duration = Duration::from_millis(10);
/// How long after its last refresh an address of `VALID_LIFETIME_UNGATED` may still answer (measured 1.3 s).
pub const KERNEL_FENCE_LAG: Duration = Duration::from_millis(1_400);

/// When to announce after taking an address over, counted from the takeover.
pub const ANNOUNCE_AT: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_millis(1_000),
];
/// How often to announce again, against ageing forwarding tables.
pub const ANNOUNCE_REFRESH: Duration = Duration::from_secs(60);
/// At most one defence of an address in this time (RFC 5227 §1.1, DEFEND_INTERVAL).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Times without an owner that are kept of each group, the latest.
pub const GAPS_KEPT: usize = 32;
/// Minutes of which it is known what was left of leases.
pub const SLACK_MINUTES: usize = 60;

/// Records kept in memory that are not about a change of owner.
pub const RECORDS_MAX: usize = 1024;
/// Records of changes of owner kept in memory: room for some takeovers of every group there can be.
pub const CHANGES_MAX: usize = 8 * GROUPS_MAX;
/// Commands waiting for the real-time loop.
pub const LOOP_COMMANDS_MAX: usize = 64;
/// Reports waiting for the slow side; past it they are counted and dropped. All groups may change hands
/// at once, with a few records each.
pub const LOOP_REPORTS_MAX: usize = 4 * GROUPS_MAX;
/// Concurrent connections of one proxied service, unless the file says otherwise.
pub const PROXY_CONNECTIONS_DEFAULT: u32 = 4096;
/// Largest number of concurrent connections of one proxied service.
pub const PROXY_CONNECTIONS_MAX: u32 = 1 << 20;
/// A proxied TCP connection that is idle for so long is closed, unless the file says otherwise.
pub const PROXY_IDLE_TCP_DEFAULT: Duration = Duration::from_secs(300);
/// A proxied UDP session that is idle for so long is forgotten, unless the file says otherwise.
pub const PROXY_IDLE_UDP_DEFAULT: Duration = Duration::from_secs(30);
/// How long a backend may take to accept a proxied connection, unless the file says otherwise.
pub const PROXY_CONNECT_DEFAULT: Duration = Duration::from_secs(2);
/// Longest idle and connect timeout.
pub const PROXY_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Connections that may wait for a backend to have room, at most.
pub const PROXY_QUEUE_MAX: u32 = 1 << 16;
/// How long they wait.
pub const PROXY_QUEUE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long a connection may take to say whose it is and which server it wants.
pub const PROXY_FRONT_TIMEOUT: Duration = Duration::from_secs(5);
/// Names and prefixes that a service may have for it.
pub const PROXY_ROUTES_MAX: usize = 256;
/// How long a backend is left alone the first time, unless the file says otherwise.
pub const EJECT_DEFAULT: Duration = Duration::from_secs(10);
/// How long it is left alone at most.
pub const EJECT_MAX: Duration = Duration::from_secs(300);
/// Failures in a row that may be asked for.
pub const EJECT_AFTER_MAX: u32 = 1000;
/// The longest time that a backend grows for.
pub const SLOW_START_MAX: Duration = Duration::from_secs(3600);
/// The shortest time that clients keep their backend for: XDP counts by four seconds.
pub const STICK_MIN: Duration = Duration::from_secs(4);
/// The longest time that clients keep their backend for.
pub const STICK_MAX: Duration = Duration::from_secs(24 * 3600);
/// Clients that a proxy's port remembers, and a backend's set in nftables.
pub const STICK_CLIENTS_MAX: usize = 1 << 16;
/// Time between two health checks of a backend, unless the file says otherwise.
pub const CHECK_EVERY_DEFAULT: Duration = Duration::from_secs(1);
/// Shortest time between two health checks, and shortest time for an answer.
pub const CHECK_EVERY_MIN: Duration = Duration::from_millis(50);
/// Longest time between two health checks, and longest time for an answer.
pub const CHECK_EVERY_MAX: Duration = Duration::from_secs(3600);
/// Failures in a row that take a backend down, unless the file says otherwise.
pub const CHECK_FALL_DEFAULT: u32 = 3;
/// Passes in a row that bring a backend up, unless the file says otherwise.
pub const CHECK_RISE_DEFAULT: u32 = 2;
/// Most passes or failures in a row that a check can ask for.
pub const CHECK_COUNT_MAX: u32 = 100;
/// Bytes of an answer's body in which a check looks for a text or an expression.
pub const CHECK_BODY_MAX: usize = 64 << 10;
/// Bytes of the text or expression that a check looks for, and of a header that it sends.
pub const CHECK_TEXT_MAX: usize = 1024;
/// Bytes of an answer of a check by another protocol than HTTP; more is not read.
pub const CHECK_ANSWER_MAX: usize = 4096;
/// Bytes of a datagram that a check sends, and of what its answer must hold.
pub const CHECK_DATAGRAM_MAX: usize = 512;
/// Largest share that a backend's agent can ask for, in percent of its weight.
pub const CHECK_SHARE_MAX: u16 = 255;
/// Headers that one check sends besides its own.
pub const CHECK_HEADERS_MAX: usize = 16;
/// Statuses and ranges of them that one check takes for a pass.
pub const CHECK_STATUSES_MAX: usize = 16;
/// Bytes that the program of one regular expression may have; a search takes no stack and linear time.
pub const CHECK_REGEX_MAX: usize = 256 << 10;
/// How many nodes share a check whose answers say what a backend takes, where the file says nothing.
pub const LOAD_ASKERS_DEFAULT: u8 = 3;
/// The most nodes that may share the check of a backend.
pub const CHECK_ASKERS_MAX: u32 = 16;
/// Bytes of what a node tells the others of an answer in words.
pub const CHECK_WORDS_MAX: usize = 120;
/// The oldest that a file may be allowed to be.
pub const CHECK_AGE_MAX: Duration = Duration::from_secs(398 * 24 * 3600);
/// How long before the end of a certificate a check warns, unless the file says otherwise.
pub const CHECK_TLS_WARN_DEFAULT: Duration = Duration::from_secs(14 * 24 * 3600);
/// Longest time before the end of a certificate that a check can warn.
pub const CHECK_TLS_WARN_MAX: Duration = Duration::from_secs(398 * 24 * 3600);
/// Longest time until a better node gets a group back.
pub const FAILBACK_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes in flight in one direction of a proxied connection: backpressure starts here.
pub const PROXY_BUFFER: usize = 16 << 10;
/// The same of one whose other end takes everything at once; above, reading more saves little.
pub const PROXY_BUFFER_MAX: usize = 128 << 10;
/// Slots of a hash table of a service in nftables.
pub const BALANCE_SLOTS: usize = 256;
/// Prefixes in `allow` and `deny` of one service.
pub const SERVICE_SOURCES_MAX: usize = 1024;
/// New connections of one client in a second, minute or hour that a service can be limited to, and at once.
pub const RATE_MAX: u32 = 100_000;
/// Longest time until a client that was refused for its rate has a whole burst again.
pub const RATE_SPAN_MAX: Duration = Duration::from_secs(3600);
/// Clients of one service that nftables or a proxy remembers for their rate.
pub const RATE_CLIENTS_MAX: usize = 65_536;
/// Prefixes of all different lists in the fast path of a host, with as many that are about to be replaced.
pub const FAST_SOURCES_MAX: u32 = 65_536;
/// Addresses that XDP puts in place of clients', each counted for each protocol: 2.25 MiB of the kernel's
/// memory each.
pub const FAST_POOLS_MAX: usize = 256;
/// Addresses of one family that one service puts in place of its clients'.
pub const FAST_POOL_MAX: usize = 8;
/// Slots that a table of the fast path can have: a service gets the smallest that fits its backends.
pub const FAST_SLOTS: [usize; 3] = [1 << 12, 1 << 14, 1 << 16];
/// How long a backend of the fast path that has lost a slot keeps the flows it has there.
pub const FAST_DRAIN: Duration = Duration::from_secs(300);
/// Bytes of one piece of a history that hosts tell each other.
pub const HISTORY_PIECE: usize = 1200;
/// Pieces of the longest history: of the largest table, with all its slots in a change.
pub const HISTORY_PIECES_MAX: u16 = 600;
/// Pieces that are sent for one question.
pub const HISTORY_BATCH: u16 = 32;
/// Histories that a host asks for at one time.
pub const HISTORIES_MAX: usize = 8;
/// Places of backends in one service of the fast path: its own, and those of backends that left.
pub const FAST_PLACES_MAX: usize = 2 * SERVICE_BACKENDS_MAX;

/// Most hooks of a host.
pub const HOOKS_MAX: usize = 16;
/// How long a hook may take, unless the file says otherwise.
pub const HOOK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Longest time of a hook.
pub const HOOK_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// How long a server that does not take an event is asked again, and a line waits for a reader.
pub const HOOK_RETRY_DEFAULT: Duration = Duration::from_secs(600);
/// Longest time of that.
pub const HOOK_RETRY_MAX: Duration = Duration::from_secs(86_400);
/// Events that wait for one hook of one VIP; the oldest give way.
pub const HOOK_QUEUE_MAX: usize = 256;
/// How long the end of the agent waits for hooks that are being told.
pub const HOOK_LAST_WORDS: Duration = Duration::from_secs(2);

/// Takeovers that wait for a collector of spans; the oldest give way.
pub const TRACES_QUEUE_MAX: usize = 256;
/// Takeovers that are sent at a time.
pub const TRACES_BATCH_MAX: usize = 64;
/// How long a collector may take to answer.
pub const TRACES_TIMEOUT: Duration = Duration::from_secs(10);
/// How long spans are sent again to a collector that does not take them.
pub const TRACES_RETRY: Duration = Duration::from_secs(60);

const _: () = assert!(
    HEARTBEAT_DEFAULT.as_millis() * (LEASE_HEARTBEATS_MIN as u128) <= LEASE_DEFAULT.as_millis()
);
const _: () = assert!(LEASE_WITHOUT_GATE.as_millis() <= LEASE_MAX.as_millis());
const _: () = assert!(
    ADDRESS_REFRESH_GATED.as_millis() * 2 < VALID_LIFETIME_GATED as u128 * 1000,
    "one lost renewal must not cost the address"
);
const _: () = assert!(
    ADDRESS_REFRESH_MAX.as_millis() * 2 < VALID_LIFETIME_MAX as u128 * 1000,
    "nor with many groups"
);
// A refresh is only sent while the lease outlives the address, so there must be time for it.
const _: () = assert!(
    KERNEL_FENCE_LAG.as_millis() + 2 * ADDRESS_REFRESH.as_millis() < LEASE_WITHOUT_GATE.as_millis()
);
const _: () = assert!(SILENT_HEARTBEATS <= LEASE_HEARTBEATS_MIN);
const _: () = assert!(LEASE_CEILING_DEFAULT.as_millis() <= LEASE_MAX.as_millis());
const _: () = assert!(
    SERVICE_BACKENDS_MAX * BACKEND_WEIGHT_MAX as usize <= FAST_SLOTS[2],
    "the smallest weight among the largest deserves a slot"
);
const _: () = assert!(
    PROXY_IDLE_TCP_DEFAULT.as_secs() <= FAST_DRAIN.as_secs(),
    "a connection that is not yet idle for either engine must not be cut off"
);
const _: () = assert!(
    10 + FAST_PLACES_MAX * 19 + FAST_SLOTS[2] * (2 + 8)
        <= HISTORY_PIECE * HISTORY_PIECES_MAX as usize,
    "every history can be told"
);
const _: () =
    assert!(FAST_PLACES_MAX < u16::MAX as usize - 1, "what stands for nobody is no place");

/// The shortest interval of VRRP: the step in which version 3 counts.
pub const VRRP_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The longest interval of VRRP: twelve bits of hundredths of a second.
pub const VRRP_INTERVAL_MAX: Duration = Duration::from_millis(40_950);
/// Most peers that a virtual router speaks to one by one.
pub const VRRP_PEERS_MAX: usize = 64;
/// By how much the clock of a peer of VRRP may be wrong at most.
pub const VRRP_WINDOW_MAX: Duration = Duration::from_secs(300);

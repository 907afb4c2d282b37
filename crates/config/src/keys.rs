//! Names every key of the file: its form, an example, its default and what a reload does with it.
//!
//! The parser asks for keys by these constants, and `docs/configuration.md` is checked against them,
//! so a key cannot exist in one place only.

/// What `SIGHUP` does with a changed value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reload {
    /// Taken at once; nothing else is disturbed.
    Live,
    /// Only the VIP it belongs to may move.
    Vip,
    /// Connections through this service may be closed; the VIP stays.
    Service,
    /// One peer at a time, so that no two majorities exist while the file is rolled out.
    Member,
    /// Refused: needs a restart of the agent.
    Restart,
}

impl Reload {
    /// As the documentation says it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Vip => "vip",
            Self::Service => "service",
            Self::Member => "member",
            Self::Restart => "restart",
        }
    }
}

/// One key of the file.
#[derive(Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What it takes, for people.
    pub form: &'static str,
    /// A value that is right in TOML.
    pub example: &'static str,
    /// What holds without it; "required" where something must be there.
    pub default: &'static str,
    /// What a reload does with it.
    pub reload: Reload,
}

/// One kind of table of the file.
#[derive(Debug)]
pub struct Schema {
    /// As people call it: `[[vip]]`.
    pub title: &'static str,
    /// Where that is, in a sentence: `in [[vip]]`.
    pub place: &'static str,
    /// The keys it may have.
    pub keys: &'static [&'static Key],
    /// Keys of later versions, each with what to do today.
    pub later: &'static [(&'static str, &'static str)],
    /// Words of other systems, each with the key that is meant.
    pub foreign: &'static [(&'static str, &'static str)],
    /// Words of other systems that need no key here, each with what to do instead.
    pub unneeded: &'static [(&'static str, &'static str)],
}

/// Declares the keys of one table as constants, and the list of them.
macro_rules! schema {
    (
        $module:ident, $title:literal, $place:literal, $doc:literal;
        keys { $($constant:ident: $name:literal, $form:literal, $example:literal, $default:literal, $reload:ident;)+ }
        later { $($later:literal: $instead:literal;)* }
        foreign { $($foreign:literal: $meant:literal;)* }
        unneeded { $($unneeded:literal: $advice:literal;)* }
    ) => {
        #[doc = $doc]
        pub mod $module {
            use super::{Key, Reload, Schema};
            $(
                #[doc = concat!("The key `", $name, "`.")]
                pub static $constant: Key = Key {
                    name: $name,
                    form: $form,
                    example: $example,
                    default: $default,
                    reload: Reload::$reload,
                };
            )+
            /// The whole table.
            pub static SCHEMA: Schema = Schema {
                title: $title,
                place: $place,
                keys: &[$(&$constant,)+],
                later: &[$(($later, $instead),)*],
                foreign: &[$(($foreign, $meant),)*],
                unneeded: &[$(($unneeded, $advice),)*],
            };
        }
    };
}

schema! {
    top, "the top of the file", "at the top of the file", "Keys before the first `[[vip]]`.";
    keys {
        PEERS: "peers", "a list of addresses, or a table name = address or list of addresses", r#"["10.0.0.11", "10.0.0.12"]"#, "required", Member;
        WITNESS: "witness", "an address, a list of them, or a table as in `peers`", r#""10.0.0.13""#, "none", Member;
        WEIGHTS: "weights", "a table peer = number", "{ lb1 = 3, lb2 = 1 }", "1 for each", Vip;
        ZONES: "zones", "a table peer = zone", "{ lb1 = \"a\", lb2 = \"b\" }", "none", Live;
        SECRET: "secret", "\"file:PATH\", or a list of them", r#""file:cluster.key""#, "required", Live;
        CLUSTER: "cluster", "a name", r#""buoy""#, "\"buoy\"", Restart;
        NODE: "node", "the name of a peer", r#""lb1""#, "by address", Restart;
        SAFETY: "safety", "\"exclusive\" or \"available\"", r#""exclusive""#, "by peers", Vip;
        HEARTBEAT: "heartbeat", "a duration", r#""10ms""#, "\"10ms\"", Live;
        LEASE: "lease", "a duration", r#""32ms""#, "\"32ms\"", Live;
        LEASE_MAX: "lease_max", "a duration", r#""300ms""#, "\"300ms\", or `lease` if longer", Live;
        PORT: "port", "a UDP port number", "4747", "4747", Restart;
        RESOLVERS: "resolvers", "an address or a list of them", r#"["10.0.0.53"]"#, "those of the host", Live;
        HAPROXY_SOCKET: "haproxy_socket", "an absolute path", r#""/run/buoy/haproxy.sock""#, "none", Live;
        METRICS: "metrics", "an address and a port", r#""10.0.0.11:9120""#, "none", Live;
        METRICS_ALIASES: "metrics_aliases", "a list of \"keepalived\" and \"metallb\"", r#"["keepalived"]"#, "none", Live;
        TRACES: "traces", "a table `[traces]`", r#"{ otlp = "http://127.0.0.1:4318" }"#, "none", Live;
        HOOK: "hook", "a list of tables `[[hook]]`", r#"[[hook]]"#, "none", Live;
        API: "api", "a table `[api]`", r#"{ listen = "127.0.0.1:4749", tokens = "file:tokens" }"#, "none", Live;
        STORE: "store", "\"embedded\", \"none\", \"etcd://HOST:PORT\" or \"etcds://HOST:PORT\"", r#""embedded""#, "\"embedded\"", Restart;
        ETCD_TLS: "etcd_tls", "a table `{ ca, cert, key }`", r#"{ ca = "etcd-ca.pem", cert = "etcd.pem", key = "etcd.key" }"#, "none", Restart;
        VIP: "vip", "a list of tables `[[vip]]`", r#"[[vip]]"#, "none", Live;
        POOL: "pool", "a list of tables `[[pool]]`", r#"[[pool]]"#, "none", Live;
        RESERVATION: "reservation", "a list of tables `[[reservation]]`", r#"[[reservation]]"#, "none", Live;
    }
    later {
        "bgp": "remove it; this version announces by ARP and NDP";
        "bfd": "remove it; `heartbeat` and `lease` say how fast a failure is noticed";
        "xdp": "remove it; the interfaces are those of the VIPs, and a service asks for it by `forward`";
        "kubernetes": "remove it; write the addresses as [[vip]]";
        "dns": "remove it; write \"dns:NAME:PORT\" into `backends`, and name servers as `resolvers`";
    }
    foreign {
        "hooks": "hook"; "notify": "hook"; "notify_master": "hook"; "notify_backup": "hook"; "notify_fault": "hook"; "webhook": "hook"; "webhooks": "hook"; "alerts": "hook"; "smtp_alert": "hook"; "notification_email": "hook";
        "etcd": "store"; "etcd_ca": "etcd_tls"; "etcd_cert": "etcd_tls"; "etcd_key": "etcd_tls"; "consensus": "store"; "raft": "store"; "overlay": "store"; "prometheus": "metrics"; "otlp": "traces"; "trace": "traces"; "tracing": "traces"; "opentelemetry": "traces"; "spans": "traces"; "metrics_listen": "metrics"; "metrics_compat": "metrics_aliases"; "stats_socket": "haproxy_socket"; "stats": "haproxy_socket";
        "vips": "vip"; "pools": "pool"; "reservations": "reservation"; "reserved": "reservation"; "virtual": "vip"; "vrrp_instance": "vip"; "virtual_server": "vip";
        "unicast_peer": "peers"; "nodes": "peers"; "hosts": "peers"; "members": "peers";
        "auth_pass": "secret"; "password": "secret"; "key": "secret"; "router_id": "node";
        "advert_int": "heartbeat"; "interval": "heartbeat"; "ttl": "lease"; "name": "cluster";
        "nameservers": "resolvers"; "resolver": "resolvers"; "nameserver": "resolvers"; "arbiter": "witness"; "quorum": "witness"; "tiebreaker": "witness"; "tie_breaker": "witness"; "qdevice": "witness"; "weight": "weights"; "zone": "zones"; "regions": "zones"; "racks": "zones";
    }
    unneeded {
        "log_level": "remove it; set BUOY_LOG=debug in the environment of `buoy agent`";
        "log": "remove it; set BUOY_LOG=debug in the environment of `buoy agent`";
        "virtual_router_id": "remove it; VIPs and hosts go by name";
        "global_defs": "remove it; start from a file in examples/";
    }
}

schema! {
    traces, "[traces]", "in [traces]", "Keys of `[traces]`.";
    keys {
        OTLP: "otlp", "\"http://HOST[:PORT]\" or \"https://...\"", r#""http://127.0.0.1:4318""#, "required", Live;
        CA: "ca", "the path of a PEM file", r#""ca.pem""#, "none", Live;
    }
    later {
    }
    foreign {
        "url": "otlp"; "endpoint": "otlp"; "collector": "otlp"; "exporter": "otlp"; "http": "otlp"; "to": "otlp";
        "cafile": "ca"; "ca_file": "ca";
    }
    unneeded {
        "protocol": "remove it; spans are sent by OTLP over HTTP, to port 4318 of most collectors";
        "sampling": "remove it; takeovers are rare, and each of them is told";
        "service_name": "remove it; it is \"buoy\", with the names of cluster and node beside it";
    }
}

schema! {
    etcd_tls, "etcd_tls", "in `etcd_tls`", "Keys of `etcd_tls = { ... }`.";
    keys {
        CA: "ca", "the path of a PEM file", r#""etcd-ca.pem""#, "required", Restart;
        CERT: "cert", "the path of a PEM file", r#""etcd.pem""#, "none", Restart;
        KEY: "key", "the path of a PEM file", r#""etcd.key""#, "none", Restart;
    }
    later {
    }
    foreign {
        "cacert": "ca"; "trusted_ca_file": "ca"; "ca_file": "ca"; "cafile": "ca"; "cert_file": "cert"; "certificate": "cert"; "key_file": "key"; "private_key": "key";
    }
    unneeded {
        "insecure_skip_verify": "remove it; who is not known is not believed";
    }
}

schema! {
    api, "[api]", "in [api]", "Keys of `[api]`.";
    keys {
        LISTEN: "listen", "an address and a port", r#""10.0.0.11:4749""#, "required", Live;
        TLS: "tls", "a table `{ cert, key, client_ca }`", r#"{ cert = "api.pem", key = "api.key" }"#, "none", Live;
        TOKENS: "tokens", "\"file:PATH\"", r#""file:tokens""#, "none", Live;
    }
    later {
    }
    foreign {
        "address": "listen"; "bind": "listen"; "port": "listen"; "host": "listen";
        "ssl": "tls"; "certificate": "tls"; "cert": "tls"; "key": "tls"; "client_ca": "tls";
        "token": "tokens"; "users": "tokens"; "password": "tokens"; "auth": "tokens";
    }
    unneeded {
    }
}

schema! {
    api_tls, "tls of [api]", "in `tls` of [api]", "Keys of `tls = { ... }` of `[api]`.";
    keys {
        CERT: "cert", "the path of a PEM file", r#""api.pem""#, "required", Live;
        KEY: "key", "the path of a PEM file", r#""api.key""#, "required", Live;
        CLIENT_CA: "client_ca", "the path of a PEM file", r#""clients.pem""#, "none", Live;
    }
    later {
    }
    foreign {
        "certificate": "cert"; "chain": "cert"; "cert_file": "cert"; "private_key": "key"; "key_file": "key";
        "ca": "client_ca"; "ca_file": "client_ca"; "clients": "client_ca";
    }
    unneeded {
    }
}

schema! {
    vip, "[[vip]]", "in [[vip]]", "Keys of `[[vip]]`.";
    keys {
        NAME: "name", "a name", r#""web""#, "first address", Vip;
        ADDRESS: "address", "\"ADDRESS/PREFIX\", or a list of them", r#""10.0.0.100/24""#, "required", Vip;
        POOL: "pool", "the name of a pool, or \"*\"", r#""web""#, "none", Vip;
        FAMILY: "family", "\"ipv4\", \"ipv6\" or \"dual\"", r#""dual""#, "all that the pool has", Vip;
        INTERFACE: "interface", "the name of an interface", r#""eth0""#, "by subnet", Vip;
        ASSIGN: "assign", "true or false", "false", "true", Vip;
        NODES: "nodes", "a list of peers", r#"["lb1", "lb2"]"#, "all peers", Vip;
        PREFER: "prefer", "a list of peers, best first", r#"["lb1"]"#, "none", Vip;
        FAILBACK: "failback", "\"never\", \"now\" or a duration", r#""30s""#, "\"never\"", Live;
        SAFETY: "safety", "\"exclusive\" or \"available\"", r#""exclusive""#, "as at the top", Vip;
        GROUP: "group", "a label", r#""edge""#, "none", Vip;
        APART: "apart", "a label", r#""dns""#, "none", Vip;
        CHECK: "check", "a table, or a list of them", r#"{ process = "haproxy" }"#, "none", Live;
        SERVICE: "service", "a list of tables `[[vip.service]]`", r#"[[vip.service]]"#, "none", Live;
        VRRP: "vrrp", "a table `{ id, priority, ... }`", r#"{ id = 51, priority = 100 }"#, "none: by lease", Vip;
        ROUTES: "routes", "\"DESTINATION via ADDRESS\", or a list of them", r#""192.168.3.0/24 via 10.0.0.1""#, "none", Live;
        RULES: "rules", "\"from PREFIX table NUMBER\", or a list of them", r#""from 10.0.0.100 table 100""#, "none", Live;
    }
    later {
        "follow": "remove it; this version chooses the owner by `nodes`, `prefer` and who is alive";
        "on_unknown": "remove it; it belongs to `follow`, which is not in this version either";
        "on_release": "remove it; connections are left as they are when a VIP moves";
        "owners": "remove it; one node owns a VIP at a time";
        "announce": "remove it; this version announces by ARP and NDP";
        "communities": "remove it; this version announces by ARP and NDP, not by BGP";
    }
    foreign {
        "addresses": "address"; "virtual_ipaddress": "address"; "ip": "address"; "vip": "address";
        "dev": "interface"; "device": "interface"; "nic": "interface";
        "priority": "prefer"; "state": "prefer"; "primary": "prefer"; "owner": "prefer"; "master": "prefer";
        "preempt": "failback"; "nopreempt": "failback"; "preempt_delay": "failback";
        "services": "service"; "real_server": "service"; "listen": "service"; "frontend": "service";
        "hosts": "nodes"; "peers": "nodes"; "id": "name"; "address_pool": "pool"; "ip_family": "family"; "ipFamilyPolicy": "family"; "loadBalancerIP": "address";
        "sync_group": "group"; "vrrp_sync_group": "group"; "anti_affinity": "apart"; "antiaffinity": "apart"; "spread": "apart";
        "checks": "check"; "health": "check"; "track": "check"; "virtual_routes": "routes"; "route": "routes"; "virtual_rules": "rules"; "rule": "rules";
    }
    unneeded {
        "notify": "write a [[hook]] at the top: exec = [\"/usr/local/lib/told\"], style = \"keepalived\", vips = [\"web\"]";
        "notify_master": "write a [[hook]] at the top: exec = [\"/usr/local/lib/told\"], style = \"keepalived\", states = [\"MASTER\"], vips = [\"web\"]";
        "virtual_router_id": "remove it; VIPs go by name. To share one with other routers: vrrp = { id = 51 }";
        "vrid": "remove it; VIPs go by name. To share one with other routers: vrrp = { id = 51 }";
        "advert_int": "remove it; the beat is `heartbeat` at the top of the file. For VRRP: vrrp = { id = 51, interval = \"1s\" }";
        "authentication": "remove it; the peers sign with `secret` at the top of the file. For VRRP: `password` or `auth` in `vrrp`";
        "auth_pass": "remove it; the peers sign with `secret` at the top of the file. For VRRP: `password` in `vrrp`";
        "unicast_peer": "remove it; the hosts are `peers` at the top of the file. For VRRP: `peers` in `vrrp`";
        "unicast_src_ip": "remove it; the hosts are `peers` at the top of the file";
        "weight": "remove it; `prefer` says who should own the VIP, `weights` at the top how much a peer takes";
        "script": "write check = { exec = [\"/usr/local/lib/fit\"] }";
        "track_script": "write check = { exec = [\"/usr/local/lib/fit\"] }";
        "track_process": "write check = { process = \"haproxy\" }";
        "track_file": "write check = { no_file = \"/etc/buoy/standby\" }";
        "track_interface": "write check = { link = \"eth1\" }; that of the VIP itself is always watched";
        "gateway": "write check = { gateway = \"10.0.0.1\" }";
        "garp_master_delay": "remove it; the address is announced at once, and again";
    }
}

pub mod pool;

schema! {
    reservation, "[[reservation]]", "in [[reservation]]", "Keys of `[[reservation]]`.";
    keys {
        ADDRESS: "address", "an address", r#""10.0.0.150""#, "required", Live;
        FOR: "for", "a name", r#""web""#, "required", Live;
        GIVEN: "given", "true or false", "true", "false", Live;
    }
    later {
    }
    foreign {
        "ip": "address"; "addresses": "address"; "vip": "for"; "name": "for"; "holder": "for";
    }
    unneeded {
        "pool": "remove it; the address says which pool it is of";
    }
}

schema! {
    vrrp, "vrrp of [[vip]]", "in `vrrp` of [[vip]]", "Keys of `vrrp = { ... }` of `[[vip]]`.";
    keys {
        ID: "id", "a number from 1 to 255", "51", "required", Vip;
        PRIORITY: "priority", "a number from 1 to 255, or a table node = number", "{ lb1 = 200, lb2 = 100 }", "100", Live;
        VERSION: "version", "2 or 3", "3", "3", Vip;
        INTERVAL: "interval", "a duration", r#""1s""#, "\"1s\"", Live;
        PEERS: "peers", "an address or a list of them", r#"["10.0.0.12", "10.0.0.13"]"#, "everybody, by multicast", Live;
        MIN_TTL: "min_ttl", "a number from 1 to 255", "254", "255", Live;
        CHECKSUM: "checksum", "\"auto\", \"pseudo-header\" or \"message\"", r#""auto""#, "\"auto\"", Live;
        PASSWORD: "password", "a text of at most 8 bytes", r#""lab""#, "none", Live;
        AUTH: "auth", "a table `{ keys, mode, window }`", r#"{ keys = ["1 file:vrrp.key"] }"#, "none", Live;
        SOURCE: "source", "an address or a list of them", r#"["10.0.0.11", "10.0.0.12"]"#, "the host's first one there", Live;
        ACCEPT: "accept", "true or false", "false", "true", Live;
        VIRTUAL_MAC: "virtual_mac", "true or false", "true", "false", Vip;
    }
    later {
    }
    foreign {
        "virtual_router_id": "id"; "vrid": "id"; "router_id": "id"; "advert_int": "interval"; "advertisement_interval": "interval";
        "unicast_peer": "peers"; "unicast_peers": "peers"; "peer": "peers"; "vrrp_version": "version";
        "auth_pass": "password"; "authentication": "auth"; "auth_hmac": "auth"; "ttl": "min_ttl"; "accept_mode": "accept"; "unicast_src_ip": "source"; "mcast_src_ip": "source"; "vmac": "virtual_mac";
    }
    unneeded {
        "state": "remove it; the priorities decide";
        "nopreempt": "write failback = \"never\" in [[vip]], which is the default";
        "preempt": "write failback = \"now\" in [[vip]]";
        "preempt_delay": "write failback = \"30s\" in [[vip]]";
        "no_accept": "write accept = false";
        "use_vmac": "write virtual_mac = true";
        "vmac_xmit_base": "remove it; advertisements leave with the virtual hardware address (RFC 9568 §5.1)";
        "interface": "write it in [[vip]]";
        "addresses": "write `address` in [[vip]]";
    }
}

schema! {
    vrrp_auth, "auth of vrrp", "in `auth` of `vrrp`", "Keys of `auth = { ... }` of `vrrp`.";
    keys {
        KEYS: "keys", "\"NUMBER file:PATH\", or a list of them", r#"["1 file:vrrp.key"]"#, "required", Live;
        MODE: "mode", "\"enforce\", \"permissive\" or \"receive-only\"", r#""enforce""#, "\"enforce\"", Live;
        WINDOW: "window", "a duration", r#""5s""#, "\"5s\", or three intervals if longer", Live;
    }
    later {
    }
    foreign {
        "key": "keys"; "time_window": "window";
    }
    unneeded {
        "active_key": "remove it; the first of `keys` signs";
        "anti_replay": "remove it; clocks are compared, and what was heard once is not believed again";
    }
}

schema! {
    service, "[[vip.service]]", "in [[vip.service]]", "Keys of `[[vip.service]]`.";
    keys {
        PORT: "port", "\"PORT/tcp\", \"FIRST-LAST/tcp\" or \"*/tcp\", or the same with udp, or a list of them", r#""443/tcp""#, "required", Service;
        BACKENDS: "backends", "a list of \"[name] ADDRESS:PORT [weight=N] [max=N] [id=HEX] [zone=NAME] [node=NAME] [backup]\", \"dns:NAME:PORT\", \"srv:NAME\" or \"file:PATH\"", r#"["10.0.0.21:8443", "10.0.0.22:8443"]"#, "required", Live;
        MODE: "mode", "\"kernel\", \"proxy\" or \"xdp\"", r#""kernel""#, "\"kernel\"", Service;
        FORWARD: "forward", "\"dsr\", \"tunnel\", \"nat\" or \"local\"", r#""dsr""#, "none", Service;
        ENCAPSULATION: "encapsulation", "\"ipip\", \"gue\" or \"gue:PORT\"", r#""gue""#, "\"ipip\"", Service;
        BALANCE: "balance", "\"hash\", \"source\", \"maglev\", \"rendezvous\", \"roundrobin\", \"leastconn\", \"sed\", \"random\" or \"first\"", r#""hash""#, "by mode", Live;
        PERSIST: "persist", "\"client\"", r#""client""#, "none", Service;
        PERSIST_TIMEOUT: "persist_timeout", "a duration", r#""5m""#, "none", Service;
        PERSIST_IPV4: "persist_ipv4", "a number of bits", "24", "32", Service;
        PERSIST_IPV6: "persist_ipv6", "a number of bits", "64", "128", Service;
        QUIC: "quic", "a number from 0 to 6", "0", "none", Service;
        SOURCE: "source", "\"vip\", \"client\" or a list of addresses", r#""vip""#, "by mode", Service;
        SEND_PROXY: "send_proxy", "\"v1\" or \"v2\"", r#""v2""#, "off", Service;
        ACCEPT_PROXY: "accept_proxy", "true, or a prefix, or a list of them", r#"["10.0.0.0/24"]"#, "nobody", Service;
        SNI: "sni", "a table of names, each with backends", r#"{ "www.example.org" = ["web1", "web2"] }"#, "none", Live;
        MAX_CONNECTIONS: "max_connections", "a number", "4096", "4096", Service;
        BACKEND_MAX_CONNECTIONS: "backend_max_connections", "a number", "200", "any number", Live;
        QUEUE: "queue", "a number", "100", "none", Live;
        QUEUE_TIMEOUT: "queue_timeout", "a duration", r#""5s""#, "\"5s\"", Live;
        SLOW_START: "slow_start", "a duration", r#""30s""#, "none", Live;
        EJECT_AFTER: "eject_after", "a number", "5", "never", Live;
        EJECT_TIME: "eject_time", "a duration", r#""10s""#, "\"10s\"", Live;
        QUORUM: "quorum", "a number", "2", "1", Live;
        ON_DOWN: "on_down", "\"keep\" or \"reset\"", r#""reset""#, "by mode", Live;
        LOCALITY: "locality", "\"node\" or \"zone\"", r#""zone""#, "none", Live;
        IDLE_TIMEOUT: "idle_timeout", "a duration", r#""5m""#, "\"5m\" tcp, \"30s\" udp", Service;
        CONNECT_TIMEOUT: "connect_timeout", "a duration", r#""2s""#, "\"2s\"", Service;
        ALLOW: "allow", "an address or a prefix, or a list of them", r#"["10.0.0.0/8", "2001:db8::/32"]"#, "everybody", Live;
        DENY: "deny", "an address or a prefix, or a list of them", r#"["10.6.6.0/24"]"#, "nobody", Live;
        NEW_CONNECTIONS: "new_connections", "\"NUMBER/s [burst=N]\"", r#""100/s""#, "any number", Live;
        CHECK: "check", "a table, or false", r#"{ http = "GET /health" }"#, "TCP connect", Live;
    }
    later {
        "drain": "remove it; a backend that leaves the file keeps its established connections in mode \"kernel\"";
        "tls": "remove it; the backends speak TLS with the client themselves";
    }
    foreign {
        "bind": "port"; "listen": "port"; "ports": "port"; "protocol": "port";
        "server": "backends"; "servers": "backends"; "backend": "backends"; "real_server": "backends"; "upstream": "backends"; "targets": "backends";
        "algorithm": "balance"; "lb_algo": "balance"; "lvs_sched": "balance"; "scheduler": "balance";
        "lb_kind": "forward"; "lvs_method": "forward"; "encap": "encapsulation"; "tunnel": "encapsulation"; "tunnel_type": "encapsulation"; "tun_type": "encapsulation"; "engine": "mode";
        "sticky": "persist"; "persistence": "persist"; "affinity": "persist"; "session_affinity": "persist"; "persistence_timeout": "persist_timeout"; "persistence_granularity": "persist_ipv4"; "persist_mask": "persist_ipv4"; "netmask": "persist_ipv4"; "stick_table": "persist_timeout"; "stick": "persist_timeout"; "session_affinity_timeout": "persist_timeout";
        "on_marked_down": "on_down"; "on-marked-down": "on_down"; "expire_nodest_conn": "on_down"; "quic_lb": "quic"; "connection_id": "quic"; "config_rotation": "quic";
        "health": "check"; "healthcheck": "check"; "health_check": "check"; "option": "check";
        "acl": "allow"; "whitelist": "allow"; "allow_from": "allow"; "sources": "allow"; "source_ranges": "allow"; "loadBalancerSourceRanges": "allow"; "blacklist": "deny"; "block": "deny"; "reject": "deny";
        "rate": "new_connections"; "rate_limit": "new_connections"; "conn_rate": "new_connections"; "limit": "new_connections"; "maxconn": "max_connections"; "backend_connections_max": "backend_max_connections"; "backend_maxconn": "backend_max_connections"; "fullconn": "backend_max_connections"; "upper_threshold": "backend_max_connections"; "proxy_protocol": "send_proxy"; "accept_proxy_protocol": "accept_proxy"; "accept-proxy": "accept_proxy"; "set_real_ip_from": "accept_proxy"; "server_name": "sni"; "hostnames": "sni"; "use_backend": "sni"; "outlier_detection": "eject_after"; "prefer": "locality"; "topology": "locality"; "internalTrafficPolicy": "locality"; "trafficDistribution": "locality"; "max_fails": "eject_after"; "fail_timeout": "eject_time"; "on_error": "eject_after"; "error_limit": "eject_after"; "timeout": "idle_timeout"; "snat": "source"; "slowstart": "slow_start"; "slow_startup": "slow_start"; "warmup": "slow_start"; "maxqueue": "queue"; "timeout_queue": "queue_timeout";
    }
    unneeded {
        "weight": "write it into the backend: \"10.0.0.21:80 weight=2\"";
        "max": "write it into the backend: \"10.0.0.21:80 max=200\", or backend_max_connections = 200 for all";
        "backup": "write it into the backend: \"10.0.0.29:80 backup\"";
        "zone": "write it into the backend: \"10.0.0.21:80 zone=a\", and locality = \"zone\"";
        "sorry_server": "add it to `backends`: \"10.0.0.29:80 backup\"";
    }
}

schema! {
    check, "check = { ... }", "in a check", "Keys of `check = { ... }`.";
    keys {
        TCP: "tcp", "true", "true", "for tcp services", Live;
        HTTP: "http", "\"GET /PATH\"", r#""GET /health""#, "none", Live;
        GRPC: "grpc", "true, or the name of a service", "true", "none", Live;
        REDIS: "redis", "true", "true", "none", Live;
        SMTP: "smtp", "true", "true", "none", Live;
        MYSQL: "mysql", "true", "true", "none", Live;
        POSTGRES: "postgres", "true, \"primary\" or \"replica\"", r#""primary""#, "none", Live;
        ICMP: "icmp", "true", "true", "none", Live;
        DNS: "dns", "\"NAME TYPE\"", r#""example.org A""#, "none", Live;
        UDP: "udp", "a table", r#"{ send = "ping", expect = "pong" }"#, "none", Live;
        AGENT: "agent", "true", "true", "none", Live;
        EXEC: "exec", "a program, or a list of it and its arguments", r#"["/usr/local/lib/fit", "{address}", "{port}"]"#, "none", Live;
        FILE: "file", "an absolute path", r#""/run/backends/{name}""#, "none", Live;
        PROCESS: "process", "the name of a process", r#""nginx""#, "none", Live;
        PIDFILE: "pidfile", "an absolute path", r#""/run/nginx.pid""#, "none", Live;
        CONTAINS: "contains", "a text", r#""ready""#, "any", Live;
        MAX_AGE: "max_age", "a duration", r#""30s""#, "any", Live;
        WEIGHT: "weight", "true or false", "true", "false", Live;
        USER: "user", "a text", r#""buoy""#, "\"postgres\", for `exec` \"nobody\"", Live;
        HOST: "host", "a text", r#""www.example.org""#, "backend's address", Live;
        HEADERS: "headers", "\"NAME: VALUE\", or a list of them", r#""X-Probe: buoy""#, "none", Live;
        HTTP2: "http2", "true or false", "true", "false", Live;
        TLS: "tls", "true or false", "true", "false", Live;
        CA: "ca", "the path of a PEM file", r#""ca.pem""#, "not verified", Live;
        TLS_WARN: "tls_warn", "a duration", r#""14d""#, "\"14d\"", Live;
        EXPECT: "expect", "an HTTP status, a range, or a list of them", r#""200-399""#, "\"200-399\"", Live;
        BODY: "body", "a text", r#""ready""#, "any", Live;
        BODY_REGEX: "body_regex", "a regular expression", r#""^(ok|ready)""#, "any", Live;
        PORT: "port", "a port number", "8080", "backend's port", Live;
        VIA: "via", "\"direct\" or \"tunnel\"", r#""direct""#, "backend's own address", Live;
        ASKERS: "askers", "a number", "3", "every node, for itself; 3 with `load`", Live;
        LOAD: "load", "\"latency\" or \"header NAME\"", r#""header X-Load""#, "none", Live;
        EVERY: "every", "a duration", r#""1s""#, "\"1s\"", Live;
        EVERY_DOWN: "every_down", "a duration", r#""250ms""#, "every", Live;
        TIMEOUT: "timeout", "a duration", r#""1s""#, "\"1s\", or `every` if shorter", Live;
        FALL: "fall", "a number", "3", "3", Live;
        RISE: "rise", "a number", "2", "2", Live;
    }
    later {
    }
    foreign {
        "script": "exec"; "command": "exec"; "external-check": "exec"; "MISC_CHECK": "exec"; "misc_path": "exec"; "program": "exec"; "pid": "pidfile"; "track_process": "process"; "track_file": "file"; "age": "max_age"; "exists": "file";
        "load_header": "load"; "latency": "load"; "agent-check": "agent"; "agent_check": "agent"; "mysql-check": "mysql"; "redis-check": "redis"; "smtpchk": "smtp"; "query": "dns"; "pgsql": "postgres"; "postgresql": "postgres"; "pgsql-check": "postgres"; "ping": "icmp"; "username": "user";
        "https": "http"; "path": "http"; "uri": "http"; "url": "http"; "get": "http"; "httpchk": "http";
        "inter": "every"; "interval": "every"; "delay_loop": "every"; "period": "every";
        "connect_timeout": "timeout"; "fastinter": "every_down"; "downinter": "every_down"; "status": "expect"; "status_code": "expect"; "header": "headers"; "string": "body"; "rstring": "body_regex"; "regex": "body_regex"; "h2": "http2"; "ssl": "tls"; "cafile": "ca"; "ca_file": "ca"; "retry": "fall"; "failures": "fall"; "successes": "rise";
    }
    unneeded {
        "type": "remove it; write tcp = true, or http = \"GET /health\"";
        "method": "remove it; write http = \"GET /health\"";
    }
}

schema! {
    udp, "udp = { ... }", "in `udp` of a check", "Keys of `udp = { ... }` of a check.";
    keys {
        SEND: "send", "a text, or \"hex:\" and digits", r#""ping""#, "required", Live;
        EXPECT: "expect", "a text, or \"hex:\" and digits", r#""pong""#, "any answer", Live;
    }
    later {
    }
    foreign {
        "payload": "send"; "request": "send"; "answer": "expect"; "response": "expect"; "reply": "expect"; "receive": "expect";
    }
    unneeded {
        "port": "write it beside `udp`: check = { udp = { ... }, port = 5060 }";
    }
}

schema! {
    node_check, "check of [[vip]]", "in a check of [[vip]]", "Keys of `check = { ... }` of `[[vip]]` and `[[pool]]`.";
    keys {
        PROCESS: "process", "the name of a process", r#""haproxy""#, "none", Live;
        TCP: "tcp", "\"ADDRESS:PORT\"", r#""127.0.0.1:5432""#, "none", Live;
        HTTP: "http", "\"GET http://ADDRESS:PORT/PATH\"", r#""GET http://127.0.0.1:8008/primary""#, "none", Live;
        EXEC: "exec", "a program, or a list of it and its arguments", r#"["/usr/local/lib/fit", "--quick"]"#, "none", Live;
        FILE: "file", "an absolute path", r#""/run/ready""#, "none", Live;
        NO_FILE: "no_file", "an absolute path", r#""/etc/buoy/standby""#, "none", Live;
        LINK: "link", "the name of an interface", r#""eth1""#, "none", Live;
        GATEWAY: "gateway", "an address", r#""10.0.0.1""#, "none", Live;
        NAME: "name", "a name", r#""primary""#, "by what is asked", Live;
        EXPECT: "expect", "an HTTP status, a range, or a list of them", r#""200-399""#, "\"200-399\"", Live;
        BODY: "body", "a text", r#""ready""#, "any", Live;
        BODY_REGEX: "body_regex", "a regular expression", r#""^(ok|ready)""#, "any", Live;
        HOST: "host", "a text", r#""www.example.org""#, "server's address", Live;
        HEADERS: "headers", "\"NAME: VALUE\", or a list of them", r#""X-Probe: buoy""#, "none", Live;
        HTTP2: "http2", "true or false", "true", "false", Live;
        TLS: "tls", "true or false", "true", "by `http` or `https`", Live;
        CA: "ca", "the path of a PEM file", r#""ca.pem""#, "not verified", Live;
        TLS_WARN: "tls_warn", "a duration", r#""14d""#, "\"14d\"", Live;
        EVERY: "every", "a duration", r#""1s""#, "\"1s\"", Live;
        EVERY_DOWN: "every_down", "a duration", r#""250ms""#, "every", Live;
        TIMEOUT: "timeout", "a duration", r#""1s""#, "\"1s\", or `every` if shorter", Live;
        FALL: "fall", "a number", "3", "3", Live;
        RISE: "rise", "a number", "2", "2", Live;
        WEIGHT: "weight", "a number from -253 to 253", "-20", "none", Live;
    }
    later {
        "dns": "ask the port: check = { tcp = \"127.0.0.1:53\" }";
        "udp": "ask a program: check = { exec = [\"/usr/local/lib/fit\"] }";
        "grpc": "ask the port: check = { tcp = \"127.0.0.1:50051\" }";
    }
    foreign {
        "https": "http"; "url": "http"; "uri": "http"; "get": "http";
        "script": "exec"; "command": "exec"; "cmd": "exec"; "program": "exec"; "run": "exec";
        "proc": "process"; "pidof": "process"; "track_process": "process"; "service": "process";
        "interface": "link"; "dev": "link"; "device": "link"; "nic": "link"; "carrier": "link";
        "ping": "gateway"; "router": "gateway"; "icmp": "gateway"; "connect": "tcp";
        "exists": "file"; "absent": "no_file"; "path": "file";
        "inter": "every"; "interval": "every"; "delay_loop": "every"; "period": "every";
        "fastinter": "every_down"; "downinter": "every_down"; "header": "headers"; "string": "body"; "regex": "body_regex"; "h2": "http2";
        "status": "expect"; "ssl": "tls"; "ca_file": "ca"; "retry": "fall"; "failures": "fall"; "successes": "rise";
    }
    unneeded {
        "type": "remove it; the key says what is asked: check = { process = \"haproxy\" }";
        "port": "write address and port: check = { tcp = \"127.0.0.1:5432\" }";
        "weight": "remove it; a host on which a check fails gives the VIP away";
        "user": "remove it; the program is run by the agent's user";
    }
}

schema! {
    hook, "[[hook]]", "in [[hook]]", "Keys of `[[hook]]`.";
    keys {
        NAME: "name", "a name", r#""pager""#, "by place", Live;
        EXEC: "exec", "a program, or a list of it and its arguments", r#"["/usr/local/lib/told", "--quick"]"#, "none", Live;
        FIFO: "fifo", "an absolute path", r#""/run/buoy/notify""#, "none", Live;
        URL: "url", "\"http://HOST[:PORT]/PATH\" or \"https://...\"", r#""https://alerts.example.org/buoy""#, "none", Live;
        EVENTS: "events", "a list of \"ownership\", \"nodes\", \"health\" and \"config\"", r#"["ownership"]"#, "all of them", Live;
        STYLE: "style", "\"json\" or \"keepalived\"", r#""keepalived""#, "\"json\", with `fifo` \"keepalived\"", Live;
        STATES: "states", "a list of \"MASTER\", \"BACKUP\", \"FAULT\" and \"STOP\"", r#"["MASTER"]"#, "all of them", Live;
        VIPS: "vips", "a list of names of VIPs", r#"["web"]"#, "all", Live;
        TIMEOUT: "timeout", "a duration", r#""5s""#, "\"5s\"", Live;
        USER: "user", "a text", r#""buoy-hook""#, "\"nobody\"", Live;
        SECRET: "secret", "\"file:PATH\"", r#""file:hook.key""#, "not signed", Live;
        CA: "ca", "the path of a PEM file", r#""ca.pem""#, "none", Live;
        RETRY: "retry", "a duration", r#""10m""#, "\"10m\"", Live;
    }
    later {
    }
    foreign {
        "script": "exec"; "command": "exec"; "program": "exec"; "notify": "exec"; "run": "exec";
        "webhook": "url"; "post": "url"; "http": "url"; "https": "url"; "endpoint": "url"; "to": "url";
        "on": "events"; "event": "events"; "topics": "events"; "when": "events";
        "vip": "vips"; "groups": "vips"; "group": "vips"; "address": "vips";
        "key": "secret"; "signing_key": "secret"; "token": "secret"; "cafile": "ca"; "ca_file": "ca"; "retries": "retry";
        "notify_fifo": "fifo"; "vrrp_notify_fifo": "fifo"; "pipe": "fifo"; "notify_style": "style"; "format": "style"; "state": "states";
    }
    unneeded {
        "notify_master": "write exec, style = \"keepalived\" and states = [\"MASTER\"]";
        "notify_backup": "write exec, style = \"keepalived\" and states = [\"BACKUP\"]";
        "notify_fault": "write exec, style = \"keepalived\" and states = [\"FAULT\"]";
        "notify_stop": "write exec, style = \"keepalived\" and states = [\"STOP\"]";
        "shell": "remove it; a program is run without a shell, with its arguments";
        "tls": "remove it; write https:// into `url`";
    }
}

/// Every table of the file, outermost first.
pub static SCHEMAS: &[&Schema] = &[
    &top::SCHEMA,
    &etcd_tls::SCHEMA,
    &api::SCHEMA,
    &api_tls::SCHEMA,
    &vip::SCHEMA,
    &pool::SCHEMA,
    &reservation::SCHEMA,
    &vrrp::SCHEMA,
    &vrrp_auth::SCHEMA,
    &service::SCHEMA,
    &check::SCHEMA,
    &udp::SCHEMA,
    &node_check::SCHEMA,
    &traces::SCHEMA,
    &hook::SCHEMA,
];

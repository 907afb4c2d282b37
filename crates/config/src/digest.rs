//! Sums up all that must be the same on every host in one number, so that hosts can compare.
//!
//! Every struct is taken apart by name: a new field does not compile until it is decided here
//! whether hosts must agree on it.

use crate::Store;
use crate::cluster::Cluster;
use buoy_model::{
    Backend, BackendLife, Balance, Check, CheckKind, Discovery, Eject, Failback, FlowFields,
    Forward, Front, Giving, Group, HttpCheck, Load, Locality, Location, Mode, Node, NodeCheck,
    NodeCheckKind, Pace, Pool, Presence, Quic, Rate, Reserved, Route, Safety, SendProxy, Service,
    Share, SourceAddress, SourceRule, Sources, Stick, Timing, TlsCheck, VirtualRoute,
    VirtualRouter, VirtualRule, VrrpAuth, name_key,
};
use std::fmt::Write as _;

/// FNV-1a over a canonical text. Nodes and groups are sorted by id, so their order in the file does
/// not count; the order of backends does, because tables are built from it.
pub(crate) fn of(cluster: &Cluster, nodes: &[Node], groups: &[Group], pools: &[Pool]) -> u32 {
    let mut out = String::new();
    let Timing { heartbeat, lease, lease_max } = cluster.timing;
    line(&mut out, format_args!("cluster {} {heartbeat:?} {lease:?} {lease_max:?}", cluster.name));
    for Node { id: _, name, addresses, weight, witness, zone } in nodes {
        line(&mut out, format_args!("node {name} {addresses:?} {weight} {witness}"));
        if let Some(zone) = zone {
            line(&mut out, format_args!("in {zone}"));
        }
    }
    match &cluster.store.store {
        Store::Embedded => {}
        Store::None => line(&mut out, format_args!("no store")),
        // The paths of files may differ from host to host.
        Store::Etcd { servers, tls: _ } => line(&mut out, format_args!("store {servers:?}")),
    }
    for group in groups {
        add_group(&mut out, group);
    }
    for pool in pools.iter().filter(|pool| pool.can_be_asked()) {
        add_pool(&mut out, pool);
    }
    name_key(&out)
}

/// Who adds a VIP next must get the same address on every host.
fn add_pool(out: &mut String, pool: &Pool) {
    let Pool { name, giving, priority, blocks, skips_ends, reserved, hosts: _, given: _ } = pool;
    let giving = match giving {
        Giving::Each => "each",
        Giving::Named => "named",
        Giving::Auto => "auto",
    };
    line(out, format_args!("pool {name} {giving} {priority:?} {skips_ends}"));
    for block in blocks {
        let (first, last, prefix) = (block.first(), block.last(), block.prefix());
        line(out, format_args!("from {first} to {last} of {prefix}"));
    }
    for Reserved { address, holder, given } in reserved {
        line(out, format_args!("reserved {address} {holder} {given}"));
    }
}

fn add_group(out: &mut String, group: &Group) {
    let Group {
        id: _,
        name,
        addresses,
        safety,
        nodes,
        prefer,
        failback,
        services,
        apart,
        checks,
        vrrp,
        shares,
        routes,
        rules,
    } = group;
    let safety = match safety {
        Safety::Exclusive => "exclusive",
        Safety::Available => "available",
    };
    let failback = match failback {
        Failback::Never => "never".to_owned(),
        Failback::After(after) => format!("{after:?}"),
    };
    line(out, format_args!("vip {name} {safety} {failback} {apart:?}"));
    for address in addresses {
        // Not the interface: it may have another name on each host.
        line(out, format_args!("address {} {}", address.cidr, address.vip_name));
        match address.presence {
            Presence::Assigned => {}
            Presence::Answered => line(out, format_args!("not assigned")),
        }
    }
    for node in nodes {
        line(out, format_args!("may {:08x}", node.0));
    }
    for node in prefer {
        line(out, format_args!("should {:08x}", node.0));
    }
    for check in checks {
        add_node_check(out, check);
    }
    for service in services {
        add_service(out, service);
    }
    for Share { vip, addresses, ports } in shares {
        line(out, format_args!("shares {vip} {addresses:?} {ports:?}"));
    }
    for VirtualRoute { to, via, link: _, source, table, metric } in routes {
        line(out, format_args!("route {to} {via:?} {source:?} {table} {metric}"));
    }
    for VirtualRule { v6, from, to, incoming, mark, table, priority } in rules {
        let of = format_args!("{v6} {from:?} {to:?} {incoming:?} {mark:?}").to_string();
        line(out, format_args!("rule {of} {table} {priority:?}"));
    }
    for router in vrrp {
        add_router(out, router);
    }
}

/// What must be the same on every host; a key is in the files of each, and its priority is the host's own.
fn add_router(out: &mut String, router: &VirtualRouter) {
    let VirtualRouter {
        id,
        v6,
        link: _,
        source: _,
        addresses: _,
        version,
        priority: _,
        interval,
        peers: _,
        min_ttl,
        checksum,
        auth,
        accept,
        virtual_mac,
    } = router;
    line(out, format_args!("router {id} {v6} {version:?} {interval:?} {min_ttl} {checksum:?}"));
    if !accept {
        line(out, format_args!("takes no packets"));
    }
    if *virtual_mac {
        line(out, format_args!("with a hardware address of its own"));
    }
    match auth {
        VrrpAuth::None => {}
        VrrpAuth::Password(_) => line(out, format_args!("with a password")),
        VrrpAuth::Hmac(hmac) => {
            line(out, format_args!("signed {:?} {:?}", hmac.mode, hmac.window));
        }
    }
}

fn add_node_check(out: &mut String, check: &NodeCheck) {
    let NodeCheck { name, kind, pace, weight } = check;
    let Pace { every, every_down, timeout, rise, fall } = pace;
    line(out, format_args!("needs {name:?} {every:?} {every_down:?} {timeout:?} {rise} {fall}"));
    if let Some(weight) = weight {
        line(out, format_args!("weighs {weight}"));
    }
    match kind {
        NodeCheckKind::Process { name } => line(out, format_args!("process {name:?}")),
        NodeCheckKind::Server { address, kind } => {
            line(out, format_args!("server {address}"));
            add_question(out, kind);
        }
        NodeCheckKind::Exec { program, arguments } => {
            line(out, format_args!("exec {program:?} {arguments:?}"));
        }
        NodeCheckKind::File { path, present } => {
            line(out, format_args!("file {path:?} {present}"));
        }
        NodeCheckKind::Link { name } => line(out, format_args!("link {name:?}")),
        // Not the interface: it may have another name on each host.
        NodeCheckKind::Gateway { address, link: _ } => {
            line(out, format_args!("gateway {address}"));
        }
    }
}

fn add_service(out: &mut String, service: &Service) {
    let Service {
        addresses,
        protocol,
        ports,
        mode,
        balance,
        source,
        send_proxy,
        connections_max,
        idle_timeout,
        connect_timeout,
        sources,
        new_connections,
        life,
        front,
        backends,
        discovered,
        check,
    } = service;
    let is_xdp = matches!(mode, Mode::Xdp { .. });
    let mode = match mode {
        Mode::Kernel => "kernel".to_owned(),
        Mode::Proxy => "proxy".to_owned(),
        Mode::Xdp { forward, flow } => {
            let forward = match forward {
                Forward::Dsr => "dsr".to_owned(),
                Forward::Tunnel => "tunnel".to_owned(),
                Forward::Gue { port } => format!("gue {port}"),
                Forward::Nat => "nat".to_owned(),
                Forward::Local => "local".to_owned(),
            };
            let flow = match flow {
                FlowFields::Connection => "connection".to_owned(),
                FlowFields::Client => "client".to_owned(),
                FlowFields::Prefix(bits) => format!("client {} {}", bits.v4(), bits.v6()),
            };
            format!("xdp {forward} {flow}")
        }
    };
    let balance = way(*balance, is_xdp) + &prefixes(*balance, is_xdp);
    let source = match source {
        SourceAddress::Vip => "vip".to_owned(),
        SourceAddress::Client => "client".to_owned(),
        SourceAddress::Pool(list) => format!("{list:?}"),
    };
    let send_proxy = match send_proxy {
        SendProxy::Off => "off",
        SendProxy::V1 => "v1",
        SendProxy::V2 => "v2",
    };
    line(
        out,
        format_args!(
            "service {addresses:?} {ports}/{} {mode} {balance} {source} {send_proxy}",
            protocol.name()
        ),
    );
    line(out, format_args!("limits {connections_max} {idle_timeout:?} {connect_timeout:?}"));
    add_clients(out, sources, *new_connections);
    add_life(out, life);
    add_front(out, front);
    add_backends(out, backends);
    for Discovery { text, .. } in discovered {
        line(out, format_args!("look {text}"));
    }
    if let Some(check) = check {
        add_check(out, check);
    }
}

/// Whom it is there for, and how often.
fn add_clients(out: &mut String, sources: &Sources, new_connections: Option<Rate>) {
    for SourceRule { prefix, allows } in sources.rules() {
        line(out, format_args!("source {prefix} {allows}"));
    }
    if let Some(rate) = new_connections {
        line(out, format_args!("new {rate}"));
    }
}

/// What is not set is not there: the sum of an old file stays what it was.
fn add_life(out: &mut String, life: &BackendLife) {
    let BackendLife { quorum, queue, queue_timeout, slow_start, eject, stick, on_down, locality } =
        life;
    if *quorum != 1 {
        line(out, format_args!("quorum {quorum}"));
    }
    if *queue != 0 {
        line(out, format_args!("queue {queue} {queue_timeout:?}"));
    }
    if let Some(slow_start) = slow_start {
        line(out, format_args!("slow {slow_start:?}"));
    }
    if let Some(Eject { after, time }) = eject {
        line(out, format_args!("eject {after} {time:?}"));
    }
    if let Some(Stick { timeout, client }) = stick {
        line(out, format_args!("stick {timeout:?} {client:?}"));
    }
    if let Some(on_down) = on_down {
        line(out, format_args!("on down {on_down:?}"));
    }
    match locality {
        Some(Locality::Node) => line(out, format_args!("near by node")),
        Some(Locality::Zone) => line(out, format_args!("near by zone")),
        None => {}
    }
}

fn add_front(out: &mut String, front: &Front) {
    let Front { believed, routes, quic } = front;
    for prefix in believed.iter() {
        line(out, format_args!("believes {prefix}"));
    }
    for Route { name, backends } in routes.iter() {
        line(out, format_args!("name {name} {backends:?}"));
    }
    if let Some(Quic { config, length }) = quic {
        line(out, format_args!("quic {config} {length}"));
    }
}

fn add_backends(out: &mut String, backends: &[Backend]) {
    for Backend { name, address, weight, backup, connections_max, server_id, location } in backends
    {
        line(out, format_args!("backend {name} {address} {weight} {backup}"));
        if let Some(max) = connections_max {
            line(out, format_args!("at most {max}"));
        }
        if let Some(id) = server_id {
            line(out, format_args!("called {id}"));
        }
        match location {
            Some(Location::Node(name)) => line(out, format_args!("on {name}")),
            Some(Location::Zone(name)) => line(out, format_args!("in {name}")),
            None => {}
        }
    }
}

/// What is not set is not there.
fn prefixes(balance: Balance, is_xdp: bool) -> String {
    match balance.fields() {
        // In mode "xdp" the mode says so.
        Some(FlowFields::Prefix(bits)) if !is_xdp => format!("/{}/{}", bits.v4(), bits.v6()),
        Some(FlowFields::Connection | FlowFields::Client | FlowFields::Prefix(_)) | None => {
            String::new()
        }
    }
}

fn way(balance: Balance, is_xdp: bool) -> String {
    match balance {
        Balance::Hash(FlowFields::Connection) => "hash",
        // In mode "xdp" the mode says so.
        Balance::Hash(FlowFields::Client | FlowFields::Prefix(_)) if is_xdp => "hash",
        Balance::Hash(FlowFields::Client | FlowFields::Prefix(_)) => "source",
        Balance::Maglev(FlowFields::Connection) => "maglev",
        Balance::Maglev(FlowFields::Client | FlowFields::Prefix(_)) => "maglev-source",
        Balance::Rendezvous(FlowFields::Connection) => "rendezvous",
        Balance::Rendezvous(FlowFields::Client | FlowFields::Prefix(_)) => "rendezvous-source",
        Balance::RoundRobin => "roundrobin",
        Balance::LeastConnections => "leastconn",
        Balance::ShortestDelay => "sed",
        Balance::Random => "random",
        Balance::First => "first",
    }
    .to_owned()
}

fn add_check(out: &mut String, check: &Check) {
    let Check { kind, port, via, pace, askers, load } = check;
    let Pace { every, every_down, timeout, rise, fall } = pace;
    line(out, format_args!("check {port:?} {every:?} {every_down:?} {timeout:?} {rise} {fall}"));
    if let Some(via) = via {
        line(out, format_args!("via {}", via.name()));
    }
    if let Some(askers) = askers {
        line(out, format_args!("asked by {askers}"));
    }
    match load {
        Some(Load::Latency) => line(out, format_args!("load by latency")),
        Some(Load::Header(name)) => line(out, format_args!("load by {name:?}")),
        None => {}
    }
    add_question(out, kind);
}

fn add_question(out: &mut String, kind: &CheckKind) {
    match kind {
        CheckKind::Tcp => line(out, format_args!("tcp")),
        CheckKind::Redis
        | CheckKind::Smtp
        | CheckKind::Mysql
        | CheckKind::Icmp
        | CheckKind::Agent => {
            line(out, format_args!("{}", kind.name()));
        }
        CheckKind::Postgres { role, user } => {
            line(out, format_args!("postgres {role:?} {user:?}"));
        }
        // Asked over the protocol of the service, which is said above.
        CheckKind::Dns { name, record, over: _ } => line(out, format_args!("dns {name} {record}")),
        CheckKind::Exec { program, arguments, user, weighs } => {
            line(out, format_args!("exec {program:?} {arguments:?} {user:?} {weighs}"));
        }
        CheckKind::File { path, contains, age_max, weighs } => {
            line(out, format_args!("file {path:?} {contains:?} {age_max:?} {weighs}"));
        }
        CheckKind::Process(running) => line(out, format_args!("process {running:?}")),
        CheckKind::Udp { send, expect } => line(out, format_args!("udp {send:?} {expect:?}")),
        CheckKind::Grpc { service, host, tls } => {
            line(out, format_args!("grpc {service:?} {host:?}"));
            if let Some(tls) = tls {
                add_tls(out, tls);
            }
        }
        CheckKind::Tls { host, tls } => {
            line(out, format_args!("tls {host:?}"));
            add_tls(out, tls);
        }
        CheckKind::Http(http) => {
            let HttpCheck { method, path, host, headers, http2, tls, expect, body } = &**http;
            line(out, format_args!("http {method} {path} {host:?} {headers:?} {http2}"));
            line(out, format_args!("answer {expect:?} {body:?}"));
            if let Some(tls) = tls {
                add_tls(out, tls);
            }
        }
    }
}

fn add_tls(out: &mut String, tls: &TlsCheck) {
    let TlsCheck { ca, warn } = tls;
    // Where the authority's file lies may differ; whether it is verified may not.
    let verified = ca.is_some();
    line(out, format_args!("certificate {verified} {warn:?}"));
}

fn line(out: &mut String, words: std::fmt::Arguments<'_>) {
    // Infallible: a `String` takes whatever is written to it.
    let _ = writeln!(out, "{words}");
}

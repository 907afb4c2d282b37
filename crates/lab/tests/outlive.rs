//! Connections outlive the balancers: two thousand of them while owners die and backends come and go.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says what is wrong by failing"
)]

mod support;

use buoy_kernel::fast::Fast;
use buoy_lab::backend::Backend;
use buoy_lab::fault::Fault;
use buoy_lab::peer::Peer;
use buoy_lab::probe::crowd::{Crowd, Figures, Speech, Way};
use buoy_lab::process::wait_until;
use buoy_lab::topology::{Host, Role, Topology, ipv4};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;
use support::servers::Servers;
use support::{Cluster, LEASE, MS, SOON, VIP, config_head, prepared_on};

const SERVERS: [&str; 3] = ["web1", "web2", "web3"];
/// Whose answers go back through the owner of the second VIP.
const BEHIND: &str = "10.77.0.150";

/// Each way of forwarding has a port.
fn ways() -> [Way; 4] {
    let way = |kind, from: IpAddr, vip: u8, port, speech| Way {
        kind,
        from,
        to: SocketAddr::new(ipv4(vip).into(), port),
        speech,
    };
    let client: IpAddr = ipv4(50).into();
    [
        way("dsr", client, 100, 7, Speech::Lines),
        way("tunnel", client, 100, 80, Speech::Http),
        way("nat", BEHIND.parse().unwrap(), 101, 2007, Speech::Lines),
        way("pool", client, 100, 3007, Speech::Http),
    ]
}

/// The file, with these backends: a name and what stands behind its address.
fn vips(backends: &[(&str, &str)]) -> String {
    let number = |name: &str| 20 + SERVERS.iter().position(|s| *s == name).unwrap() + 1;
    let list = |port: &str| {
        let of = |(name, more): &(&str, &str)| {
            format!("\"{name} 10.77.0.{}{port} {more}\"", number(name))
        };
        backends.iter().map(of).collect::<Vec<_>>().join(", ")
    };
    let service = |port: u16, lines: &str, to: &str| {
        format!("[[vip.service]]\nport = \"{port}/tcp\"\n{lines}\nbackends = [{}]\n", list(to))
    };
    let pool = "forward = \"nat\"\nsource = [\"10.77.0.104\", \"10.77.0.105\"]";
    let group = |name: &str, addresses: &str| {
        format!("[[vip]]\nname = \"{name}\"\ngroup = \"all\"\naddress = [{addresses}]\n")
    };
    [
        group("web", "\"10.77.0.100/24\", \"10.77.0.104/24\", \"10.77.0.105/24\""),
        service(7, "forward = \"dsr\"", ""),
        service(80, "forward = \"tunnel\"", ""),
        service(3007, pool, ":80"),
        group("nat", "\"10.77.0.101/24\""),
        service(2007, "forward = \"nat\"", ":7"),
    ]
    .concat()
}

/// Three agents, and three servers that suit each way, of which two are in the file.
fn cluster(test: &str) -> Option<(Cluster, Servers)> {
    let mut topology = Topology::with_nodes(3);
    topology.hosts.push(Host { name: SERVERS[2], number: 23, role: Role::Backend });
    let vips = vips(&[("web1", ""), ("web2", "")]);
    let mut cluster = prepared_on(test, topology, LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    let client = cluster.segment.inside("client").unwrap();
    client.ip(&format!("addr add {BEHIND}/24 dev eth0")).unwrap();
    let mut servers = Servers::default();
    for name in SERVERS {
        servers.prepare(&cluster, name, &["10.77.0.100"], "tunnel");
        let inside = cluster.segment.inside(name).unwrap();
        servers.running.push(Backend::start_at(inside, name, &[VIP.into()]).unwrap());
        inside.sysctl("ipv4.conf.all.accept_redirects", "0").unwrap();
        inside.sysctl("ipv4.conf.eth0.accept_redirects", "0").unwrap();
        inside.ip(&format!("route add {BEHIND}/32 via 10.77.0.101")).unwrap();
    }
    cluster.buoy.start_all(&cluster.segment).unwrap();
    for node in cluster.buoy.nodes() {
        cluster.wait_owned(node);
        wait_for_xdp(&cluster, node);
    }
    Some((cluster, servers))
}

fn wait_for_xdp(cluster: &Cluster, node: &str) {
    wait_until(2 * SOON, "XDP forwarding", || {
        let status = cluster.buoy.client(node).unwrap().status();
        Ok(status.is_ok_and(|status| {
            let mut services = status.vips.iter().flat_map(|v| &v.services);
            services.all(|service| service.engine == "XDP (eth0: driver)")
        }))
    })
    .unwrap();
}

/// Gives these nodes another file, and waits until all have another table.
fn reload(cluster: &mut Cluster, nodes: &[&str], backends: &[(&str, &str)]) {
    let table = |cluster: &Cluster, node: &str| {
        cluster.buoy.status(node).unwrap().vips[0].services[0].table.clone()
    };
    let before = table(cluster, nodes[0]);
    let text = format!("{}{}", config_head(&cluster.segment.topology), vips(backends));
    for node in nodes {
        cluster.buoy.write_config(node, &text).unwrap();
        cluster.buoy.reload(node).unwrap();
    }
    for node in nodes {
        wait_until(SOON, "another table", || Ok(table(cluster, node) != before)).unwrap();
    }
}

/// Waits until a node was told of so many flows, and has followed another one's past, if it has to.
fn wait_told(cluster: &Cluster, node: &str, flows: usize, histories: u64) {
    let counter = |name: &str| {
        let counters = cluster.buoy.status(node).unwrap().loop_.counters;
        counters.get(name).copied().unwrap_or(0)
    };
    wait_until(SOON, &format!("{node} to be told of {flows} flows"), || {
        let is_told = flows as u64 <= counter("flows_learned");
        Ok(is_told && histories <= counter("flows_histories_followed"))
    })
    .unwrap();
}

fn wait_other(cluster: &Cluster, asked: &str, than: &str) -> String {
    let mut owner = String::new();
    wait_until(SOON, "another owner", || {
        owner = cluster.buoy.owner(asked, "all").unwrap_or_default();
        Ok(!owner.is_empty() && owner != than)
    })
    .unwrap();
    owner
}

fn open(cluster: &Cluster, crowd: &mut Crowd, count: usize) {
    let client = cluster.segment.inside("client").unwrap();
    for way in ways() {
        crowd.open(client, way, count).unwrap();
    }
}

/// Every connection that was ever opened is answered by its server.
fn all_live(crowd: &mut Crowd, when: &str) {
    let began = Instant::now();
    let figures: BTreeMap<&str, Figures> = crowd.ask(4000 * MS);
    eprintln!("{when}, after {:?}: {figures:?}", began.elapsed());
    assert!(figures.values().all(|f| f.survived == f.opened), "{when}: {figures:?}");
}

#[test]
fn connections_outlive_owners_and_changes_of_backends() {
    let test = "connections_outlive_owners_and_changes_of_backends";
    let count = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (at_first, between) = (count("OUTLIVE_FLOWS", 440), count("OUTLIVE_MORE", 30));
    let Some((mut cluster, _servers)) = cluster(test) else { return };
    let mut crowd = Crowd::default();
    open(&cluster, &mut crowd, at_first);
    all_live(&mut crowd, "at first");

    let first = cluster.buoy.owner("n1", "all").unwrap();
    let others: Vec<&str> = cluster.buoy.nodes().into_iter().filter(|n| *n != first).collect();
    others.iter().for_each(|node| wait_told(&cluster, node, at_first, 0));
    Fault::PowerOff.inject(&cluster.segment, &mut cluster.buoy, &first).unwrap();
    let second = wait_other(&cluster, others[0], &first);
    all_live(&mut crowd, "the owner was killed");
    open(&cluster, &mut crowd, between);

    reload(&mut cluster, &others, &[("web1", ""), ("web2", ""), ("web3", "")]);
    open(&cluster, &mut crowd, between);
    all_live(&mut crowd, "a backend was added");
    reload(&mut cluster, &others, &[("web1", "weight=0"), ("web2", ""), ("web3", "")]);
    open(&cluster, &mut crowd, between);
    all_live(&mut crowd, "another one is drained");

    // The first comes back without any memory.
    let inside = cluster.segment.inside(&first).unwrap();
    inside.enter(Fast::detach_earlier).unwrap().unwrap();
    let text = std::fs::read_to_string(cluster.buoy.config(others[0])).unwrap();
    cluster.buoy.write_config(&first, &text).unwrap();
    Fault::PowerOff.heal(&cluster.segment, &mut cluster.buoy, &first).unwrap();
    wait_for_xdp(&cluster, &first);

    wait_told(&cluster, &first, at_first + 3 * between, 1);
    cluster.buoy.drain(&second, true).unwrap();
    let third = wait_other(&cluster, others[0], &second);
    all_live(&mut crowd, "the new owner is drained");
    cluster.buoy.drain(&third, true).unwrap();
    let fourth = wait_other(&cluster, others[0], &third);
    all_live(&mut crowd, "and the next one");
    eprintln!("{first} {second} {third} {fourth}: {:?}", crowd.servers());
}

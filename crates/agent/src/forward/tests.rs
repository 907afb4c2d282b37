//! What should be there, and what is done about it.

use super::*;
use crate::health::BackendHealth;
use buoy_model::limits::BALANCE_SLOTS;
use buoy_model::{
    Cidr, ClusterId, Failback, Instant, LinkId, NodeId, Safety, SendProxy, SourceAddress, Timing,
    VipAddress,
};

fn backend(name: &str, address: &str) -> Backend {
    Backend { name: name.into(), address: address.parse().unwrap(), weight: 1, backup: false }
}

fn service(mode: Mode, port: u16, backends: Vec<Backend>) -> Service {
    Service {
        addresses: vec![],
        protocol: Protocol::Tcp,
        port,
        mode,
        balance: match mode {
            Mode::Kernel => Balance::Hash,
            Mode::Proxy => Balance::RoundRobin,
        },
        source: SourceAddress::Vip,
        send_proxy: SendProxy::Off,
        connections_max: 100,
        idle_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(2),
        backends,
        check: None,
    }
}

fn desired(addresses: &[&str], services: Vec<Service>) -> Desired {
    let addresses = addresses
        .iter()
        .map(|a| VipAddress {
            cidr: Cidr::new(a.parse().unwrap(), 24).unwrap(),
            link: Some(LinkId(1)),
            link_name: "eth0".into(),
            vip_name: "web".into(),
        })
        .collect();
    let group = Group {
        id: GroupId(7),
        name: "web".into(),
        addresses,
        safety: Safety::Available,
        nodes: vec![NodeId(1)],
        prefer: vec![],
        failback: Failback::Never,
        apart: None,
        checks: vec![],
        services,
    };
    Desired {
        leg_links: vec![None],
        generation: 1,
        digest: 0,
        cluster: ClusterId(1),
        cluster_name: "test".into(),
        me: NodeId(1),
        nodes: vec![],
        timing: Timing {
            heartbeat: Duration::from_millis(10),
            lease: Duration::from_millis(50),
            lease_max: Duration::from_millis(50),
        },
        groups: vec![group],
    }
}

fn down(place: Place, name: &str) -> (Key, BackendHealth) {
    let Place { group, protocol, port } = place;
    let health = BackendHealth {
        state: BackendState::Down,
        reason: "connection refused".into(),
        since: Instant::ZERO,
        last_latency: None,
    };
    (Key { group, protocol, port, backend: name.into() }, health)
}

const WEB: Place = Place { group: GroupId(7), protocol: Protocol::Tcp, port: 80 };

fn two() -> Vec<Backend> {
    vec![backend("web1", "10.0.0.21:8080"), backend("web2", "10.0.0.22:8080")]
}

#[test]
fn a_backend_that_is_down_has_no_slot_and_stays_guarded() {
    let desired = desired(&["10.0.0.100"], vec![service(Mode::Kernel, 80, two())]);
    let all = wanted(&desired, &States::new());
    let Spread::Hash(slots) = &all.kernel[0].1.spread else { panic!("{all:?}") };
    assert_eq!(slots.len(), BALANCE_SLOTS);
    assert!(slots.contains(&"10.0.0.21:8080".parse().unwrap()));

    let one = wanted(&desired, &States::from([down(WEB, "web1")]));
    let forward = &one.kernel[0].1;
    assert_eq!(forward.spread, Spread::Hash(vec!["10.0.0.22:8080".parse().unwrap(); 256]));
    assert_eq!(forward.backends.len(), 2, "its connections may live on");

    let none = wanted(&desired, &States::from([down(WEB, "web1"), down(WEB, "web2")]));
    assert_eq!(none.kernel[0].1.spread, Spread::Refuse);
}

#[test]
fn kernel_services_stay_within_a_family_and_say_so() {
    let mut backends = two();
    let both = ["10.0.0.100", "fd00::100"];
    let all =
        wanted(&desired(&both, vec![service(Mode::Kernel, 80, backends.clone())]), &States::new());
    assert_eq!(all.kernel[1].1.spread, Spread::Refuse);
    let said = &all.problems[&WEB];
    assert!(said.contains("fd00::100 has no IPv6 backend"), "{said}");
    assert!(said.contains("mode = \"proxy\""), "{said}");

    backends.push(backend("web3", "[fd00::23]:8080"));
    let all = wanted(&desired(&both, vec![service(Mode::Kernel, 80, backends)]), &States::new());
    assert!(all.problems.is_empty());
    assert_eq!(all.kernel[0].1.backends.len(), 2);
    assert_eq!(all.kernel[1].1.backends, ["[fd00::23]:8080".parse().unwrap()]);
}

#[test]
fn a_proxy_gets_the_backends_that_are_up() {
    let desired = desired(&["10.0.0.100"], vec![service(Mode::Proxy, 80, two())]);
    let all = wanted(&desired, &States::from([down(WEB, "web2")]));
    let at = ("10.0.0.100:80".parse().unwrap(), Protocol::Tcp);
    let names: Vec<_> = all.proxies[&at].backends.iter().map(|b| b.name.as_str()).collect();
    assert_eq!(names, ["web1"]);
    assert!(all.kernel.is_empty());
}

#[test]
fn a_host_that_cannot_own_a_group_forwards_nothing_of_it() {
    let mut desired = desired(
        &["10.0.0.100"],
        vec![service(Mode::Kernel, 80, two()), service(Mode::Proxy, 81, two())],
    );
    desired.groups[0].addresses[0].link = None;
    let all = wanted(&desired, &States::new());
    assert!(all.kernel.is_empty() && all.proxies.is_empty());
}

#[tokio::test]
async fn a_port_in_use_is_a_sentence_and_the_other_services_go_on() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_port = taken.local_addr().unwrap().port();
    let free_port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let services =
        vec![service(Mode::Proxy, taken_port, two()), service(Mode::Proxy, free_port, two())];
    let wish = desired(&["127.0.0.1"], services);
    let mut engines = Engines::default();
    let mut problems = Findings::default();
    engines.converge_proxies(wanted(&wish, &States::new()).proxies, &mut problems);
    assert!(engines.failing);
    let said = &problems.services[&Place { port: taken_port, ..WEB }];
    assert!(said.contains("is in use by"), "{said}");
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", free_port)).await.is_ok());

    // The other process goes: the next round succeeds, and does not disturb the first service.
    drop(taken);
    let (mut engines, mut problems) = (engines, Findings::default());
    engines.failing = false;
    engines.converge_proxies(wanted(&wish, &States::new()).proxies, &mut problems);
    assert_eq!(problems, Findings::default());
    assert_eq!(engines.proxies.len(), 2);
}

#[tokio::test]
async fn a_service_that_left_the_configuration_stops_listening() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let at = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let wish = desired(&["127.0.0.1"], vec![service(Mode::Proxy, port, two())]);
    let mut engines = Engines::default();
    engines.converge_proxies(wanted(&wish, &States::new()).proxies, &mut Findings::default());
    assert!(tokio::net::TcpStream::connect(at).await.is_ok());
    engines.converge_proxies(BTreeMap::new(), &mut Findings::default());
    time::timeout(Duration::from_secs(10), async {
        while tokio::net::TcpStream::connect(at).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

//! Tests of `network.rs`: every way of forwarding through every width, and why XDP is slow.

use super::super::Verdict;
use super::*;
use buoy_api::{ServiceView, VipView};
use buoy_kernel::fast::NextHop;
use buoy_model::{Backend, Cidr, FlowFields, Group, GroupId, Mac, Node, NodeId, Ports, VipAddress};

const VIP: [&str; 2] = ["10.0.0.100", "fd00::100"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn service(vip: &str, forward: Forward, backends: &[&str]) -> Service {
    let backend = |address: &&str| Backend::new(&format!("web{address}"), (ip(address), 80).into());
    Service::new(
        Mode::Xdp { forward, flow: FlowFields::Connection },
        vec![ip(vip)],
        Ports::one(80),
        backends.iter().map(backend).collect(),
    )
}

fn desired(services: Vec<Service>) -> Desired {
    let address = |text: &&str| VipAddress {
        cidr: Cidr::new(ip(text), if text.contains(':') { 64 } else { 24 }).unwrap(),
        link: Some(LinkId(2)),
        link_name: "eth0".into(),
        vip_name: "web".into(),
        presence: buoy_model::Presence::Assigned,
    };
    let group = Group {
        services,
        ..Group::new(GroupId::of(ip(VIP[0])), "web", VIP.iter().map(address).collect())
    };
    Desired::new(
        "prod",
        NodeId::of("lb1"),
        vec![Node::new("lb1", ([10, 0, 0, 11], 4747).into())],
        vec![group],
    )
}

/// `10.0.0.x` is on eth0, where the VIP is, and everything else behind eth1.
fn findings(desired: &Desired, status: Option<&ClusterStatus>, mtus: [u32; 2]) -> Vec<Finding> {
    let interface =
        |(id, name, mtu): (u32, &str, u32)| (LinkId(id), Interface { name: name.to_owned(), mtu });
    let interfaces = [(2, "eth0", mtus[0]), (3, "eth1", mtus[1])].map(interface).into();
    let mut way = |to: IpAddr| {
        let link = match to {
            IpAddr::V4(v4) if v4.octets()[3] == 99 => return None,
            IpAddr::V4(v4) if v4.octets()[3] == 98 => return Some(Way::Local),
            IpAddr::V4(v4) if v4.octets()[..3] == [10, 0, 0] => LinkId(2),
            IpAddr::V4(_) | IpAddr::V6(_) => LinkId(3),
        };
        let (link_mac, source) = (Mac([2; 6]), ip("10.0.0.1"));
        let mac = Some(link_mac);
        Some(Way::Via(NextHop { link, link_mac, mtu: 0, mac, source, is_gateway: false }))
    };
    let driver = |name: &str| (name == "eth1").then(|| "ixgbe".to_owned());
    let mut host = Host { interfaces: &interfaces, way: &mut way, driver: &driver };
    examine(desired, status, &mut host)
}

#[test]
fn what_has_no_room_on_its_way_is_found_with_what_clients_see_and_how_to_mend_it() {
    use Forward::{Dsr, Gue, Nat, Tunnel};
    // Forwarding, VIP, backend, MTUs; by how much eth0 or eth1 is too small and the MSS that would fit.
    type Row = (Forward, usize, &'static str, [u32; 2], Option<(&'static str, u32, u32)>);
    let table: [Row; 16] = [
        (Gue { port: 6080 }, 0, "10.1.0.11", [1500, 1520], Some(("eth1", 1528, 1452))),
        (Gue { port: 6080 }, 0, "10.1.0.11", [1500, 1528], None),
        (Gue { port: 6080 }, 0, "fd01::11", [1500, 1520], Some(("eth1", 1548, 1432))),
        (Dsr, 0, "10.0.0.11", [1500, 1500], None),
        (Dsr, 0, "10.1.0.11", [1500, 1400], Some(("eth1", 1500, 1360))),
        (Nat, 0, "10.1.0.11", [9000, 1500], Some(("eth1", 9000, 1460))),
        (Nat, 1, "fd01::11", [1500, 1280], Some(("eth1", 1500, 1220))),
        (Nat, 0, "10.1.0.11", [1500, 9000], None),
        (Tunnel, 0, "10.0.0.11", [1500, 1500], Some(("eth0", 1520, 1440))),
        (Tunnel, 0, "10.1.0.11", [1500, 1500], Some(("eth1", 1520, 1440))),
        (Tunnel, 0, "10.1.0.11", [1500, 1519], Some(("eth1", 1520, 1459))),
        (Tunnel, 0, "10.1.0.11", [1500, 1520], None),
        (Tunnel, 0, "fd01::11", [1500, 1520], Some(("eth1", 1540, 1440))),
        (Tunnel, 1, "fd01::11", [1500, 1539], Some(("eth1", 1540, 1439))),
        (Tunnel, 1, "10.1.0.11", [1500, 1540], None),
        (Tunnel, 0, "10.0.0.99", [1500, 1500], None),
    ];
    for (forward, vip, backend, mtus, wanted) in table {
        let found = findings(&desired(vec![service(VIP[vip], forward, &[backend])]), None, mtus);
        let said = format!("{forward:?} {backend} {mtus:?}: {found:?}");
        let [finding] = &found[..] else { unreachable!("{said}") };
        let Some((interface, mtu, mss)) = wanted else {
            assert_eq!(finding.verdict, Verdict::Ok, "{said}");
            continue;
        };
        assert_eq!((finding.verdict, finding.about), (Verdict::Warn, "mtu"), "{said}");
        assert!(finding.found.contains(&format!("web 80/tcp to web{backend}")), "{said}");
        assert!(finding.found.contains("told by ICMP"), "{said}");
        assert!(finding.fix.contains(&format!("ip link set {interface} mtu {mtu}")), "{said}");
        assert!(finding.fix.contains(&format!("maxseg size set {mss}`")), "{said}");
    }
}

#[test]
fn what_has_one_reason_is_one_finding() {
    let many = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "fd01::1", "10.0.0.98"];
    let services = vec![
        service(VIP[0], Forward::Tunnel, &many),
        // An address of the other family gets nothing.
        service(VIP[0], Forward::Nat, &["fd01::1"]),
    ];
    let found = findings(&desired(services), None, [1500, 1500]);
    assert_eq!(found.len(), 2, "{found:?}");
    let of_four = found.iter().find(|finding| finding.found.contains("1520")).unwrap();
    assert!(of_four.found.contains("web10.1.0.3 and 1 more by tunnel"), "{of_four:?}");
    assert!(found.iter().any(|finding| finding.found.contains("1540")), "{found:?}");
    assert_eq!(findings(&desired(vec![]), None, [1500, 1500]), []);
}

#[test]
fn xdp_behind_the_driver_is_told_with_the_likely_reason() {
    let of = |engine: &str, mtus: [u32; 2]| {
        let service = ServiceView { engine: engine.into(), ..ServiceView::default() };
        let view = VipView { services: vec![service.clone(), service], ..VipView::default() };
        let status = ClusterStatus { vips: vec![view], ..ClusterStatus::default() };
        findings(&desired(vec![]), Some(&status), mtus)
    };
    assert_eq!(of("XDP (eth0: driver)", [9000, 1500]), []);
    assert_eq!(of("nftables in place of XDP", [9000, 1500]), []);
    let found = of("XDP (eth0: driver, eth1: generic)", [1500, 1500]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].verdict, found[0].about), (Verdict::Warn, "xdp mode"));
    assert!(found[0].found.starts_with("eth1 (driver ixgbe) runs XDP in generic mode"));
    assert!(found[0].fix.contains("ethtool -K eth1 lro off"), "{found:?}");
    let found = of("XDP (eth0: generic)", [9000, 1500]);
    assert!(found[0].fix.contains("MTU of 9000") && found[0].fix.contains("mtu 3498"), "{found:?}");
}

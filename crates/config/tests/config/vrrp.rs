//! Wrong virtual routers, for `cases.rs`, and what a right one becomes on this host.

use crate::cases::Case;
use crate::support::{self, SMALL};
use buoy_config::Code;
use buoy_model::{Failback, HmacMode, Safety, VrrpAuth, VrrpChecksum, VrrpVersion};
use std::time::Duration;

/// After `[[vip]]`. 10.0.0.20 runs something else than Buoy.
pub(crate) const VRRP: &[Case] = &[
    (Code::VrrpAmongBuoys, "vrrp = »{ id = 51 }", "remove `vrrp`"),
    (
        Code::VrrpAmongBuoys,
        "vrrp = »{ id = 51, peers = [\"10.0.0.11\", \"10.0.0.12\"] }",
        "remove `vrrp`",
    ),
    (Code::MissingKey, "vrrp = »{ peers = \"10.0.0.20\" }", "as in `id = 51`"),
    (Code::OutOfRange, "vrrp = { id = »0, peers = \"10.0.0.20\" }", "1 to 255"),
    (Code::OutOfRange, "vrrp = { id = 5, priority = »256, peers = \"10.0.0.20\" }", "1 to 255"),
    (
        Code::OutOfRange,
        "vrrp = { id = 5, priority = { \"10.0.0.11\" = »0 }, peers = \"10.0.0.20\" }",
        "1 to 255",
    ),
    (
        Code::UnknownNode,
        "vrrp = { id = 5, priority = { »lb9 = 9 }, peers = \"10.0.0.20\" }",
        "10.0.0.11",
    ),
    (Code::OutOfRange, "vrrp = { id = 5, version = »4, peers = \"10.0.0.20\" }", "2 to 3"),
    (Code::OutOfRange, "vrrp = { id = 5, interval = »\"1ms\", peers = \"10.0.0.20\" }", "10ms"),
    (
        Code::VrrpVersion,
        "vrrp = { id = 5, interval = »\"15ms\", peers = \"10.0.0.20\" }",
        "a multiple of 10ms",
    ),
    (
        Code::VrrpVersion,
        "vrrp = { id = 5, version = 2, interval = »\"1500ms\", peers = \"10.0.0.20\" }",
        "whole seconds",
    ),
    (
        Code::VrrpVersion,
        "vrrp = { id = 5, password = »\"secret\", peers = \"10.0.0.20\" }",
        "version = 2",
    ),
    (
        Code::BadVrrpAuth,
        "vrrp = { id = 5, version = 2, password = »\"ninebytes\", peers = \"10.0.0.20\" }",
        "the first eight",
    ),
    (
        Code::BadVrrpAuth,
        "vrrp = { id = 5, peers = \"10.0.0.20\", auth = { keys = »\"file:cluster.key\" } }",
        "\"1 file:",
    ),
    (
        Code::BadVrrpAuth,
        "vrrp = { id = 5, peers = \"10.0.0.20\", auth = { keys = [\"1 file:cluster.key\", »\"1 file:old.key\"] } }",
        "another number",
    ),
    (
        Code::BadVrrpAuth,
        "vrrp = { id = 5, version = 2, peers = \"10.0.0.20\", »password = \"lab\", auth = { keys = \"1 file:cluster.key\" } }",
        "everybody can read it",
    ),
    (
        Code::MissingKey,
        "vrrp = { id = 5, peers = \"10.0.0.20\", auth = »{ mode = \"enforce\" } }",
        "file:vrrp.key",
    ),
    (Code::VrrpPeer, "vrrp = { id = 5, peers = [»\"10.0.0.20:80\", \"10.0.0.20\"] }", "10.0.0.13"),
    (Code::VrrpPeer, "vrrp = »{ id = 5, peers = \"fe80::20\" }", "IPv4 addresses"),
    (
        Code::NeedsOther,
        "nodes = [\"10.0.0.11\"]\nvrrp = { id = 5, »min_ttl = 254 }",
        "name the `peers`",
    ),
    (
        Code::NotWithVrrp,
        "»prefer = [\"10.0.0.11\"]\nvrrp = { id = 5, peers = \"10.0.0.20\" }",
        "priority = ",
    ),
    (
        Code::NotWithVrrp,
        "»safety = \"available\"\nvrrp = { id = 5, peers = \"10.0.0.20\" }",
        "remove it",
    ),
    (
        Code::VrrpAccept,
        "vrrp = { id = 5, accept = »false, peers = \"10.0.0.20\" }\n[[vip.service]]\nport = \"80/tcp\"\nmode = \"proxy\"\nbackends = [\"10.0.0.21:80\"]",
        "forward with mode = \"kernel\"",
    ),
    (
        Code::UnknownKey,
        "vrrp = { id = 5, »no_accept = true, peers = \"10.0.0.20\" }",
        "accept = false",
    ),
    (
        Code::UnknownKey,
        "vrrp = { id = 5, »use_vmac = true, peers = \"10.0.0.20\" }",
        "virtual_mac = true",
    ),
    (
        Code::VrrpVirtualMac,
        "assign = false\nvrrp = { id = 5, virtual_mac = »true, peers = \"10.0.0.20\" }\n[[vip.service]]\nport = \"80/tcp\"\nforward = \"dsr\"\nbackends = [\"10.0.0.21:80\"]",
        "remove `assign`",
    ),
    (Code::UnknownKey, "vrrp = { »vrid = 5, peers = \"10.0.0.20\" }", "`id = 51`"),
    (
        Code::UnknownKey,
        "vrrp = { id = 5, »nopreempt = true, peers = \"10.0.0.20\" }",
        "failback = \"never\"",
    ),
    (Code::UnknownKey, "»virtual_router_id = 51", "vrrp = { id = 51 }"),
    (
        Code::DuplicateRouter,
        "vrrp = { id = 5, peers = \"10.0.0.20\" }\n[[vip]]\naddress = \"10.0.0.101/24\"\nvrrp = { id = »5, peers = \"10.0.0.20\" }",
        "another `id`",
    ),
    (
        Code::VrrpVersion,
        "vrrp = { id = 5, peers = \"10.0.0.20\" }\n[[vip]]\naddress = »\"2001:db8::100/64\"\nvrrp = { id = 6, version = 2, peers = \"2001:db8::20\" }",
        "version = 3",
    ),
    (
        Code::VrrpSource,
        "vrrp = { id = 5, peers = \"10.0.0.20\" }\n[[vip]]\naddress = \"fe80::100/64\"\ninterface = \"lo\"\nvrrp = »{ id = 6, peers = \"fe80::20\" }",
        "give lo",
    ),
    (
        Code::VrrpSource,
        "vrrp = { id = 5, peers = \"10.0.0.20\", source = »\"10.0.0.77\" }",
        "remove `source`",
    ),
    (
        Code::VrrpSource,
        "vrrp = { id = 5, peers = \"10.0.0.20\", source = [\"10.0.0.11\", »\"10.0.0\"] }",
        "10.0.0.13",
    ),
    (
        Code::UnknownKey,
        "vrrp = { id = 5, »mcast_src_ip = \"10.0.0.11\", peers = \"10.0.0.20\" }",
        "source",
    ),
    (Code::NeedsOther, "check = { process = »\"haproxy\", weight = -20 }", "a node whose check"),
    (
        Code::OutOfRange,
        "vrrp = { id = 5, peers = \"10.0.0.20\" }\ncheck = { process = \"haproxy\", weight = »0 }",
        "-20",
    ),
    (
        Code::WrongType,
        "vrrp = { id = 5, peers = \"10.0.0.20\" }\ncheck = { process = \"haproxy\", weight = »\"-20\" }",
        "weight = -20",
    ),
];

fn routers(text: &str) -> Vec<buoy_model::VirtualRouter> {
    let checked = support::check(&format!("{SMALL}{text}\n")).expect("it is right");
    let group = &checked.desired.groups[0];
    assert_eq!(group.safety, Safety::Available, "VRRP has no votes");
    group.vrrp.iter().map(|router| (**router).clone()).collect()
}

#[test]
fn a_router_is_what_the_file_says_with_what_this_host_knows() {
    let text = "failback = \"now\"\nvrrp = { id = 51, priority = { \"10.0.0.11\" = 200, \"10.0.0.12\" = 50 } }";
    let checked = support::check(&format!("{SMALL}{text}\n")).expect("it is right");
    assert_eq!(checked.desired.groups[0].failback, Failback::After(Duration::ZERO));
    let [router] = &routers(text)[..] else { panic!("one router") };
    assert_eq!((router.id, router.v6, router.priority), (51, false, 200));
    assert_eq!(router.source, Some([10, 0, 0, 11].into()), "the first address of eth0");
    assert_eq!(router.addresses, [core::net::IpAddr::from([10, 0, 0, 100])]);
    assert_eq!((router.version, router.interval), (VrrpVersion::V3, Duration::from_secs(1)));
    assert_eq!((router.peers.len(), router.min_ttl), (0, 255));
    assert_eq!(router.auth, VrrpAuth::None);
}

#[test]
fn the_checksum_is_what_the_file_says_of_each_router() {
    let checksum = |more: &str| {
        let [router] = &routers(&format!("vrrp = {{ id = 51{more} }}"))[..] else {
            panic!("one router")
        };
        router.checksum
    };
    let cases = [
        ("", VrrpChecksum::Auto),
        (", checksum = \"auto\"", VrrpChecksum::Auto),
        (", checksum = \"pseudo-header\"", VrrpChecksum::PseudoHeader),
        (", checksum = \"message\"", VrrpChecksum::Message),
    ];
    for (more, expected) in cases {
        assert_eq!(checksum(more), expected, "{more}");
    }
}

#[test]
fn this_host_is_none_of_its_own_peers() {
    let text =
        "vrrp = { id = 51, peers = [\"10.0.0.11\", \"10.0.0.12\", \"10.0.0.20\"], min_ttl = 250 }";
    let [router] = &routers(text)[..] else { panic!("one router") };
    let peers: Vec<String> = router.peers.iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["10.0.0.12", "10.0.0.20"]);
    assert_eq!((router.min_ttl, router.source), (250, Some([10, 0, 0, 11].into())));
}

#[test]
fn keys_are_read_and_the_window_follows_the_interval() {
    let text = "vrrp = { id = 51, interval = \"3s\", auth = { keys = \"7 file:cluster.key\", mode = \"permissive\" } }";
    let [router] = &routers(text)[..] else { panic!("one router") };
    let VrrpAuth::Hmac(hmac) = &router.auth else { panic!("{:?}", router.auth) };
    assert_eq!((hmac.mode, hmac.window), (HmacMode::Permissive, Duration::from_secs(9)));
    assert_eq!(hmac.keys.iter().map(|k| (k.id, k.secret.len())).collect::<Vec<_>>(), [(7, 32)]);
    assert!(!format!("{hmac:?}").contains("secret"), "a key is not shown");
}

#[test]
fn both_families_of_one_vip_are_two_routers_of_one_id() {
    let text = "[[vip]]\nname = \"both\"\naddress = [\"10.0.0.110/24\", \"2001:db8::110/64\"]\nvrrp = { id = 9 }";
    let checked = support::check(&format!("{SMALL}{text}\n")).expect("it is right");
    let group = checked.desired.groups.iter().find(|g| g.name == "both").expect("it is there");
    let routers: Vec<_> = group.vrrp.iter().map(|r| (r.id, r.v6, r.addresses.len())).collect();
    assert_eq!(routers, [(9, false, 1), (9, true, 1)]);
}

#[test]
fn a_vip_of_the_group_without_vrrp_goes_along_and_is_in_no_advertisement() {
    let text = "group = \"g\"\nvrrp = { id = 5 }\n[[vip]]\nname = \"two\"\ngroup = \"g\"\naddress = \"10.0.0.101/24\"";
    let checked = support::check(&format!("{SMALL}{text}\n")).expect("it is right");
    let group = &checked.desired.groups[0];
    assert_eq!((group.addresses.len(), group.vrrp.len()), (2, 1));
    assert_eq!(group.vrrp[0].addresses, [core::net::IpAddr::from([10, 0, 0, 100])]);
}

#[test]
fn packets_are_taken_unless_the_file_says_no_or_the_addresses_are_its_own() {
    let takes = |more: &str| {
        let [router] = &routers(&format!("vrrp = {{ id = 51{more} }}"))[..] else {
            panic!("one router")
        };
        router.takes_packets()
    };
    assert!(takes(""));
    assert!(!takes(", accept = false"));
    assert!(takes(", accept = false, priority = 255"));
}

#[test]
fn the_hardware_address_is_that_of_the_number_and_of_the_family() {
    let macs = |more: &str| -> Vec<_> {
        let text = format!(
            "{SMALL}[[vip]]\nname = \"both\"\naddress = [\"10.0.0.110/24\", \"2001:db8::110/64\"]\nvrrp = {{ id = 9{more} }}\n"
        );
        let checked = support::check(&text).expect("it is right");
        let group = checked.desired.groups.iter().find(|g| g.name == "both").expect("it is there");
        group.vrrp.iter().map(|r| (r.virtual_mac, r.mac().to_string())).collect()
    };
    let both = |own| [(own, "00:00:5e:00:01:09".to_owned()), (own, "00:00:5e:00:02:09".to_owned())];
    assert_eq!(macs(""), both(false));
    assert_eq!(macs(", virtual_mac = false"), both(false));
    assert_eq!(macs(", virtual_mac = true"), both(true));
}

#[test]
fn a_host_speaks_from_the_source_that_it_has() {
    for (more, spoken) in [
        ("", "fe80::11"),
        (", source = [\"2001:db8::12\", \"2001:db8::11\", \"10.0.0.12\"]", "2001:db8::11"),
        (", source = \"10.0.0.12\"", "fe80::11"),
    ] {
        let vip = "[[vip]]\nname = \"six\"\naddress = \"2001:db8::110/64\"";
        let text = format!("{SMALL}{vip}\nvrrp = {{ id = 9{more} }}\n");
        let checked = support::check(&text).expect("it is right");
        let group = checked.desired.groups.iter().find(|g| g.name == "six").expect("it is there");
        let source = group.vrrp[0].source.map(|source| source.to_string());
        assert_eq!(source.as_deref(), Some(spoken), "{more}");
    }
}

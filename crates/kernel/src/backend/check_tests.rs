//! Tests of `check.rs`: a good real server, and every way in which it can be ill.

use super::super::decap::{Counts, Decap};
use super::super::seen::Address;
use super::super::state::Prepared;
use super::*;
use buoy_model::Cidr;
use std::collections::BTreeMap;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(interface: &str, text: &str, prefix: u8) -> Address {
    let cidr = Cidr::new(ip(text), prefix).unwrap();
    Address { interface: interface.to_owned(), cidr, owned: false, prepared: true }
}

const GOOD: [(&str, &str); 2] =
    [("net/ipv4/conf/all/arp_ignore", "1"), ("net/ipv4/conf/all/arp_announce", "2")];

fn good() -> (Vips, Seen<'static>) {
    let prepared = |tunnel| Prepared { interface: "eth0".to_owned(), tunnel, found: false };
    let (tunnelled, direct) = (prepared(Tunnel::IPIP), prepared(Tunnel::NONE));
    let vips = Vips::from([(ip("10.0.0.100"), tunnelled), (ip("fd00::100"), direct)]);
    let vips_within = [(ip("10.0.0.100"), Tunnel::IPIP)].into();
    let decap = Decap { vips: vips_within, own: [ip("10.0.0.21")].into() };
    let mut own = address("eth0", "10.0.0.21", 24);
    own.prepared = false;
    let seen = Seen {
        interfaces: [("eth0".to_owned(), true), ("eth1".to_owned(), true)].into(),
        bare: BTreeSet::new(),
        addresses: vec![address("lo", "10.0.0.100", 32), address("lo", "fd00::100", 128), own],
        programs: BTreeMap::from([(
            "eth0".to_owned(),
            OnInterface::Ours(decap, Counts::default()),
        )]),
        default_routes: Vec::new(),
        filters: Vec::new(),
        read: &|path| {
            let found = GOOD.iter().find(|(setting, _)| *setting == path);
            Some(found.map_or("0", |(_, value)| value).to_owned())
        },
    };
    (vips, seen)
}

fn bad(vips: &Vips, seen: &Seen<'_>) -> Vec<(Health, &'static str)> {
    let all = conditions(vips, seen).into_iter();
    let bad = all.filter(|c| c.health != Health::Ok);
    bad.inspect(|c| assert!(!c.fix.is_empty(), "{c:?}")).map(|c| (c.health, c.about)).collect()
}

#[test]
fn a_good_server_has_nothing_wrong() {
    let (vips, seen) = good();
    assert_eq!(bad(&vips, &seen), []);
    let about: Vec<_> = conditions(&vips, &seen).iter().map(|c| c.about).collect();
    assert_eq!(about, ["address", "address", "interface", "rp_filter", "tunnel", "ARP"]);
}

#[test]
fn a_firewall_that_drops_is_named_and_is_no_illness() {
    let (vips, mut seen) = good();
    seen.filters = vec!["inet filter input".to_owned()];
    let said = conditions(&vips, &seen).pop().unwrap();
    assert_eq!((said.health, said.about), (Health::Ok, "firewall"));
    assert!(said.found.contains("(inet filter input)"), "{said:?}");
}

#[test]
fn every_illness_of_a_server_has_its_line_and_its_remedy() {
    type Make = fn(&mut Seen<'static>);
    let table: [(&str, Health, Make); 11] = [
        ("address", Health::Fail, |s| drop(s.addresses.remove(0))),
        ("address", Health::Fail, |s| s.addresses[0] = address("lo", "10.0.0.100", 24)),
        ("address", Health::Fail, |s| s.addresses.push(address("eth1", "fd00::100", 64))),
        ("interface", Health::Fail, |s| {
            s.interfaces.insert("eth0".to_owned(), false);
        }),
        ("interface", Health::Fail, |s| {
            s.interfaces.remove("eth0");
        }),
        ("tunnel", Health::Fail, |s| s.programs.clear()),
        ("tunnel", Health::Fail, |s| {
            let another = OnInterface::Another("`katran`".to_owned());
            s.programs.insert("eth0".to_owned(), another);
        }),
        ("tunnel", Health::Fail, |s| {
            let none = OnInterface::Ours(Decap::default(), Counts::default());
            s.programs.insert("eth0".to_owned(), none);
        }),
        ("tunnel", Health::Warn, |s| {
            let mut new = address("eth1", "192.168.0.21", 24);
            new.prepared = false;
            s.addresses.push(new);
        }),
        ("tunnel", Health::Warn, |s| {
            if let Some(OnInterface::Ours(_, counts)) = s.programs.get_mut("eth0") {
                counts.fragments = 1;
            }
        }),
        ("disable_ipv6", Health::Fail, |s| s.read = &|path| Some(value(path, "disable_ipv6", "1"))),
    ];
    for (at, (about, health, make)) in table.into_iter().enumerate() {
        let (vips, mut seen) = good();
        make(&mut seen);
        let bad = bad(&vips, &seen);
        let first = if about == "address" { bad.first() } else { bad.last() };
        assert_eq!(first, Some(&(health, about)), "{at}: {bad:?}");
    }
}

/// As on a good host, but for this one.
fn value(path: &str, ending: &str, value: &str) -> String {
    if path.ends_with(ending) {
        return value.to_owned();
    }
    GOOD.iter().find(|(setting, _)| *setting == path).map_or("0", |(_, v)| v).to_owned()
}

#[test]
fn another_encapsulation_than_the_one_that_is_taken_off_is_said_and_mended() {
    for (wanted, fails) in [("ipip", false), ("gue", true), ("ipip,gue", true)] {
        let (mut vips, seen) = good();
        vips.get_mut(&ip("10.0.0.100")).unwrap().tunnel = wanted.parse().unwrap();
        let all = conditions(&vips, &seen);
        let bad: Vec<_> = all.iter().filter(|c| c.health != Health::Ok).collect();
        assert_eq!(!bad.is_empty(), fails, "{bad:?}");
        if fails {
            let found = format!("packets for 10.0.0.100 ({wanted}) are not decapsulated on eth0");
            let fix = format!("buoy backend add 10.0.0.100 --tunnel={wanted} --interface eth0");
            assert_eq!((&bad[0].found, &bad[0].fix), (&found, &fix));
        }
    }
    let (vips, mut seen) = good();
    if let Some(OnInterface::Ours(decap, counts)) = seen.programs.get_mut("eth0") {
        counts.fragments = 1;
        decap.vips.insert(ip("10.0.0.100"), "ipip,gue".parse().unwrap());
    }
    let fixes: Vec<_> = conditions(&vips, &seen).into_iter().map(|c| c.fix).collect();
    assert!(fixes.iter().any(|fix| fix.ends_with("28 bytes (IPv4) or 48 (IPv6)")), "{fixes:?}");
}

#[test]
fn settings_count_on_every_interface_that_might_answer() {
    // The larger value counts, and of some the larger ones say less.
    let table: [(&str, &str, &[&str]); 8] = [
        ("all/arp_ignore", "0", &["arp_ignore"]),
        ("eth1/arp_ignore", "3", &["arp_ignore"]),
        ("eth1/arp_ignore", "2", &[]),
        ("eth1/arp_ignore", "8", &[]),
        ("all/arp_announce", "1", &["arp_announce"]),
        ("all/rp_filter", "1", &["rp_filter"]),
        ("eth0/rp_filter", "2", &[]),
        ("eth1/rp_filter", "1", &[]),
    ];
    for (setting, set, expected) in table {
        let (vips, mut seen) = good();
        let mut second = address("eth1", "192.168.0.21", 24);
        second.owned = true;
        seen.addresses.push(second);
        let read = |path: &str| Some(value(path, setting, set));
        seen.read = Box::leak(Box::new(read));
        let about: Vec<_> = bad(&vips, &seen).iter().map(|(_, about)| *about).collect();
        assert_eq!(about, expected, "{setting}={set}");
    }
    // Strict, and no other way out.
    let (vips, mut seen) = good();
    seen.read = &|path| Some(value(path, "all/rp_filter", "1"));
    assert_eq!(bad(&vips, &seen), []);
    // All interfaces are mended by one value, but for those that have a larger one.
    let (vips, mut seen) = good();
    seen.read = &|path| Some(value(path, "eth1/arp_ignore", "3").replace('2', "0"));
    let fixes: Vec<_> = conditions(&vips, &seen).into_iter().map(|c| c.fix).collect();
    assert!(fixes.contains(&"sysctl -w net/ipv4/conf/all/arp_announce=2".to_owned()), "{fixes:?}");
    let larger = "sysctl -w net/ipv4/conf/all/arp_ignore=1 net/ipv4/conf/eth1/arp_ignore=1";
    assert!(fixes.contains(&larger.to_owned()), "{fixes:?}");
    // ARP says nothing of IPv6.
    let (mut vips, mut seen) = good();
    vips.retain(|address, _| address.is_ipv6());
    seen.read = &|_| Some("0".to_owned());
    assert_eq!(bad(&vips, &seen), []);
}

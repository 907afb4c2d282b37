//! VIPs that ask pools for addresses: what they get, that they keep it, and what is refused.

use crate::cases::Case;
use crate::support::{SMALL, accepted};
use buoy_config::Code;
use buoy_model::{Desired, Giving};
use std::collections::BTreeMap;

/// Two pools and who asks them, behind the smallest file.
pub(crate) const ASKING: &[Case] = &[
    (Code::UnknownPool, "[[vip]]\nname = \"a\"\npool = »\"web\"", "auto_assign = true"),
    (Code::UnknownPool, "[[vip]]\nname = \"a\"\npool = »\"*\"", "auto_assign = true"),
    (
        Code::UnknownPool,
        "[[pool]]\nname = \"web\"\nauto_assign = false\naddresses = \"10.0.0.150/24\"\n[[vip]]\nname = \"a\"\npool = »\"wep\"",
        "did you mean \"web\"?",
    ),
    (
        Code::UnknownPool,
        "[[pool]]\nname = \"web\"\nauto_assign = false\naddresses = \"10.0.0.150/24\"\n[[vip]]\nname = \"a\"\npool = »\"*\"",
        "auto_assign = true",
    ),
    (
        Code::NotToAsk,
        "[[pool]]\nname = \"web\"\naddresses = \"10.0.0.150/24\"\n[[vip]]\nname = \"a\"\npool = »\"web\"",
        "auto_assign = false",
    ),
    (
        Code::MissingKey,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150/24\"\n»[[vip]]\npool = \"*\"",
        "`name = ",
    ),
    (
        Code::PoolExhausted,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150/24\"\n[[vip]]\nname = \"a\"\npool = \"*\"\n[[vip]]\nname = \"b\"\npool = »\"web\"",
        "add addresses",
    ),
    (
        Code::PoolExhausted,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-151/24\"\n[[vip]]\nname = \"a\"\nfamily = \"dual\"\npool = »\"*\"",
        "add addresses",
    ),
    (
        Code::PoolExhausted,
        "[[pool]]\nname = \"web\"\nauto_assign = true\nskip_0_255 = true\naddresses = \"10.0.0.150/24\"\n[[reservation]]\naddress = \"10.0.0.150\"\nfor = \"printer\"\n[[vip]]\nname = \"a\"\npool = »\"web\"",
        "release",
    ),
    (
        Code::PoolsOverlap,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n[[pool]]\nname = \"db\"\naddresses = »\"10.0.0.160-161/24\"",
        "in one pool, once",
    ),
    (
        Code::OutsidePool,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n[[vip]]\nname = \"a\"\npool = \"web\"\naddress = »\"10.0.0.161\"",
        "remove `address`",
    ),
    (
        Code::OutsidePool,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n[[vip]]\nname = \"a\"\npool = \"*\"\naddress = »\"10.0.0.151/16\"",
        "\"10.0.0.151/24\"",
    ),
    (
        Code::NeedsOther,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n[[vip]]\nname = \"a\"\naddress = \"10.0.0.151/24\"\nfamily = »\"dual\"",
        "write `pool`",
    ),
    (
        Code::AddressReserved,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n[[reservation]]\naddress = \"10.0.0.151\"\nfor = \"printer\"\n[[vip]]\nname = \"a\"\naddress = »\"10.0.0.151/24\"",
        "release this one",
    ),
    (
        Code::BadReservation,
        "[[reservation]]\naddress = »\"10.0.0.151\"\nfor = \"printer\"",
        "remove the reservation",
    ),
    (
        Code::BadReservation,
        "[[pool]]\nname = \"web\"\naddresses = \"10.0.0.150-160/24\"\n[[reservation]]\naddress = »\"10.0.0.151\"\nfor = \"printer\"",
        "remove the reservation",
    ),
    (
        Code::BadReservation,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.10-60/24\"\n[[reservation]]\naddress = »\"10.0.0.12\"\nfor = \"printer\"",
        "another one",
    ),
    (
        Code::BadReservation,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n[[reservation]]\naddress = \"10.0.0.151\"\nfor = \"a\"\n[[reservation]]\naddress = »\"10.0.0.151\"\nfor = \"b\"",
        "remove one",
    ),
    (
        Code::BadVip,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n[[reservation]]\naddress = »\"10.0.0.151/24\"\nfor = \"a\"",
        "the address alone",
    ),
    (
        Code::MissingKey,
        "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.150-160/24\"\n»[[reservation]]\naddress = \"10.0.0.151\"",
        "`for = ",
    ),
];

/// VIPs that cannot share an address, behind the smallest file.
pub(crate) const SHARING: &[Case] = &[
    (
        Code::SharedPort,
        "[[vip]]\nname = \"a\"\ngroup = \"g\"\naddress = \"10.0.0.101/24\"\n[[vip.service]]\nport = [\"80/tcp\", \"53/udp\"]\nbackends = [\"10.0.0.21:80\"]\n[[vip]]\nname = \"b\"\ngroup = \"g\"\naddress = \"10.0.0.101/24\"\n[[vip.service]]\nport = [\"53/tcp\", »\"80/tcp\"]\nbackends = [\"10.0.0.22:80\"]",
        "other ports",
    ),
    (
        Code::DuplicateVip,
        "[[vip]]\nname = \"a\"\ngroup = \"g\"\naddress = \"10.0.0.101/24\"\n[[vip.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\"]\n[[vip]]\nname = \"b\"\ngroup = \"g\"\naddress = »\"10.0.0.101/24\"",
        "services on other ports",
    ),
];

/// A file with these tables behind its cluster.
fn with(tables: &str) -> Desired {
    let (cluster, _) = SMALL.split_once("[[vip]]").unwrap();
    accepted(&format!("{cluster}{tables}\n")).desired
}

/// The addresses of each VIP, as they are written.
fn addresses(desired: &Desired) -> BTreeMap<String, Vec<String>> {
    let of = |group: &buoy_model::Group| {
        let all = group.addresses.iter().map(|a| a.cidr.to_string());
        (group.name.clone(), all.collect())
    };
    desired.groups.iter().map(of).collect()
}

const WEB: &str =
    "[[pool]]\nname = \"web\"\nauto_assign = true\naddresses = \"10.0.0.100-199/24\"\n";

fn vip(name: &str) -> String {
    format!("[[vip]]\nname = \"{name}\"\npool = \"web\"\n")
}

fn reservation(address: &str, holder: &str, given: bool) -> String {
    format!("[[reservation]]\naddress = \"{address}\"\nfor = \"{holder}\"\ngiven = {given}\n")
}

#[test]
fn vips_get_addresses_of_their_pool_each_one_of_its_own_and_the_same_again() {
    let names: Vec<String> = (0..100).map(|n| format!("v{n}")).collect();
    let text = format!("{WEB}{}", names.iter().map(|n| vip(n)).collect::<String>());
    let first = with(&text);
    let all = addresses(&first);
    assert_eq!(all.len(), 100, "every address is given");
    assert_eq!(all, addresses(&with(&text)));
    let pool = &first.pools[0];
    assert_eq!((pool.giving, pool.given.len(), pool.size()), (Giving::Auto, 100, 100));
    assert!(first.groups.iter().all(|g| pool.contains(g.addresses[0].cidr.address())));
}

#[test]
fn who_comes_last_in_the_file_takes_nothing_from_the_others() {
    let some: String = (0..60).map(|n| vip(&format!("v{n}"))).collect();
    let before = addresses(&with(&format!("{WEB}{some}")));
    let more: String = (60..90).map(|n| vip(&format!("v{n}"))).collect();
    let after = addresses(&with(&format!("{WEB}{some}{more}")));
    assert!(before.iter().all(|(name, has)| after[name] == *has));
}

#[test]
fn what_was_given_is_kept_whatever_else_is_edited() {
    let some: String = (0..60).map(|n| vip(&format!("v{n}"))).collect();
    let before = with(&format!("{WEB}{some}"));
    let kept: String = before.pools[0]
        .given
        .iter()
        .map(|given| reservation(&given.address.to_string(), &given.vip, true))
        .collect();
    // Half of them go, others come, in another order, and the pool is larger.
    let other: String =
        (0..90).rev().filter(|n| n % 2 == 1 || *n >= 60).map(|n| vip(&format!("v{n}"))).collect();
    let larger = WEB.replace("10.0.0.100-199/24", "10.0.0.90-210/24");
    let after = addresses(&with(&format!("{larger}{other}{kept}")));
    let before = addresses(&before);
    let stayed = after.iter().filter(|(name, has)| before.get(*name) == Some(*has)).count();
    assert_eq!(stayed, 30);
    // What the others had is free for those that come.
    let full = WEB.replace("100-199", "100-159");
    let all = addresses(&with(&format!(
        "{full}{}",
        (0..60).map(|n| vip(&format!("v{n}"))).collect::<String>()
    )));
    assert_eq!(all.len(), 60);
}

#[test]
fn a_reserved_address_is_for_its_holder_and_for_nobody_else() {
    let text = format!("{WEB}{}{}{}", reservation("10.0.0.177", "b", false), vip("a"), vip("b"));
    assert_eq!(addresses(&with(&text))["b"], ["10.0.0.177/24"]);
    // The operator's reservation is stronger than what the agent kept.
    let text = format!("{text}{}", reservation("10.0.0.178", "b", true));
    assert_eq!(addresses(&with(&text))["b"], ["10.0.0.177/24"]);
    let small = WEB.replace("100-199", "100-101");
    let text = format!("{small}{}{}", reservation("10.0.0.100", "printer", false), vip("a"));
    assert_eq!(addresses(&with(&text))["a"], ["10.0.0.101/24"]);
    // What somebody had who asks no more is free.
    let small = WEB.replace("100-199", "100");
    let text = format!("{small}{}{}", reservation("10.0.0.100", "gone", true), vip("a"));
    assert_eq!(addresses(&with(&text))["a"], ["10.0.0.100/24"]);
}

#[test]
fn addresses_that_are_a_hosts_or_written_or_end_in_0_or_255_are_not_given() {
    let pool = "[[pool]]\nname = \"web\"\nauto_assign = false\nskip_0_255 = true\naddresses = \"10.0.0.0/16\"\n";
    let desired = with(&format!("{pool}interface = \"eth0\"\n{}", vip("a")));
    assert_eq!(desired.pools[0].size(), 65_536 - 512 - 2, "less the ends, and two hosts");
    let desired = with(
        "[[pool]]\nname = \"web\"\nauto_assign = false\naddresses = \"10.0.0.11-14/24\"\n\
         [[vip]]\nname = \"a\"\npool = \"web\"\n[[vip]]\naddress = \"10.0.0.13/24\"",
    );
    assert_eq!(addresses(&desired)["a"], ["10.0.0.14/24"]);
    // The same for a pool that is one VIP for each address.
    let each = with(
        "[[pool]]\nname = \"web\"\nskip_0_255 = true\ninterface = \"eth0\"\naddresses = \"10.7.0.254-10.7.1.1/16\"",
    );
    let names: Vec<String> = addresses(&each).into_keys().collect();
    assert_eq!(names, ["web-1", "web-254"]);
}

#[test]
fn a_vip_may_say_which_address_of_the_pool_it_wants() {
    let text = format!("{WEB}{}address = \"10.0.0.142\"\n", vip("a"));
    let desired = with(&text);
    assert_eq!(addresses(&desired)["a"], ["10.0.0.142/24"]);
    assert!(desired.pools[0].given.is_empty(), "it is written, so there is nothing to keep");
    let text = text.replace("\"web\"\naddress", "\"*\"\naddress").replace(".142", ".142/24");
    assert_eq!(addresses(&with(&text))["a"], ["10.0.0.142/24"]);
}

#[test]
fn a_pool_of_both_versions_gives_one_of_each_unless_the_vip_says_otherwise() {
    let both = WEB.replace("\"10.0.0.100-199/24\"", "[\"10.0.0.100-199/24\", \"2001:db8::/64\"]");
    let family = |family: &str| {
        let desired = with(&format!("{both}{}{family}\n", vip("a")));
        addresses(&desired).remove("a").unwrap()
    };
    let dual = family("");
    assert_eq!((dual.len(), dual[0].ends_with("/24"), dual[1].ends_with("/64")), (2, true, true));
    assert_eq!(family("family = \"dual\""), dual);
    assert_eq!(family("family = \"ipv4\""), dual[..1]);
    assert_eq!(family("family = \"ipv6\""), dual[1..]);
}

#[test]
fn who_asks_any_pool_gets_of_the_first_that_gives_to_anybody_and_has_one() {
    let pool = |name: &str, octet: u8, more: &str| {
        format!("[[pool]]\nname = \"{name}\"\naddresses = \"10.0.0.{octet}/24\"\n{more}\n")
    };
    let any = |name: &str| format!("[[vip]]\nname = \"{name}\"\npool = \"*\"\n");
    let text = format!(
        "{}{}{}{}{}{}{}",
        pool("last", 101, "auto_assign = true"),
        pool("second", 102, "auto_assign = true\npriority = 20"),
        pool("first", 103, "auto_assign = true\npriority = 10"),
        pool("named", 104, "auto_assign = false"),
        any("a"),
        any("b"),
        any("c"),
    );
    let all = addresses(&with(&text));
    assert_eq!(all["a"], ["10.0.0.103/24"]);
    assert_eq!(all["b"], ["10.0.0.102/24"]);
    assert_eq!(all["c"], ["10.0.0.101/24"]);
    // What is reserved for it comes before any order.
    let text = format!("{text}{}", reservation("10.0.0.101", "a", false));
    assert_eq!(addresses(&with(&text))["a"], ["10.0.0.101/24"]);
}

#[test]
fn hosts_must_agree_on_what_would_be_given_next() {
    let digest = |text: &str| with(text).digest;
    let base = format!("{WEB}{}", vip("a"));
    let others = [
        base.replace("199", "198"),
        base.replace("auto_assign = true", "auto_assign = true\npriority = 3"),
        base.replace("auto_assign = true", "auto_assign = false"),
        format!("{base}{}", reservation("10.0.0.150", "printer", false)),
    ];
    for other in others {
        assert_ne!(digest(&other), digest(&base), "{other}");
    }
}

#[test]
fn a_vip_lives_where_its_pool_says() {
    let pool = "[[pool]]\nname = \"web\"\nauto_assign = true\ninterface = \"eth1\"\naddresses = \"10.9.0.5/24\"\n";
    let desired = with(&format!("{pool}{}", vip("a")));
    assert_eq!(desired.groups[0].addresses[0].link, Some(buoy_model::LinkId(3)));
}

#[test]
fn vips_of_one_group_may_share_an_address_where_each_serves_other_ports() {
    let vip = |name: &str, address: &str, port: &str| {
        format!(
            "[[vip]]\nname = \"{name}\"\ngroup = \"g\"\naddress = {address}\n[[vip.service]]\n\
             port = \"{port}\"\nbackends = [\"10.0.0.21:80\"]\n"
        )
    };
    let both = "[\"10.0.0.101/24\", \"10.0.0.102/24\"]";
    let text = format!(
        "{}{}{}",
        vip("web", "\"10.0.0.101/24\"", "80/tcp"),
        vip("mail", both, "25/tcp"),
        vip("dns", "\"10.0.0.101/24\"", "80/udp"),
    );
    let desired = with(&text);
    let [group] = &desired.groups[..] else { panic!("one lease: {:?}", desired.groups) };
    let addresses: Vec<String> = group.addresses.iter().map(|a| a.cidr.to_string()).collect();
    assert_eq!(addresses, ["10.0.0.101/24", "10.0.0.102/24"], "each is put there once");
    for name in ["web", "mail", "dns", "10.0.0.101"] {
        assert_eq!(desired.find_group(name), Some(group), "{name}");
    }
    let of: Vec<Option<&str>> = group.services.iter().map(|s| group.vip_of(s)).collect();
    assert_eq!(of, [Some("web"), Some("mail"), Some("dns")]);
    assert_ne!(with(&text.replace("\"dns\"", "\"names\"")).digest, desired.digest);
}

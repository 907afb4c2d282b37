//! Pools, groups, labels and checks of the node: what they become.

use crate::support::{self, SMALL, accepted, host};
use buoy_model::limits::CHECK_TLS_WARN_DEFAULT;
use buoy_model::{
    CheckKind, Desired, Failback, Group, GroupId, HttpCheck, LinkId, NodeCheck, NodeCheckKind,
    NodeId, Safety, Statuses, TlsCheck,
};
use std::time::Duration;

fn desired(text: &str) -> Desired {
    accepted(text).desired
}

fn with_pool(lines: &str) -> Desired {
    let (cluster, _) = SMALL.split_once("[[vip]]").unwrap();
    desired(&format!("{cluster}[[pool]]\nname = \"web\"\n{lines}\n"))
}

/// The addresses of a pool, in the order of the ids of IPv4.
fn addresses(text: &str) -> Vec<String> {
    let desired = with_pool(&format!("interface = \"eth0\"\naddresses = {text}"));
    let mut all: Vec<_> =
        desired.groups.iter().flat_map(|g| &g.addresses).map(|a| a.cidr).collect();
    all.sort_by_key(|c| c.address());
    all.iter().map(ToString::to_string).collect()
}

#[test]
fn the_last_number_of_a_range_is_always_the_prefix_of_its_subnet() {
    for (text, count, first, last) in [
        ("\"10.0.0.100-10.0.0.150/24\"", 51, "10.0.0.100/24", "10.0.0.150/24"),
        ("\"10.0.0.100-150/24\"", 51, "10.0.0.100/24", "10.0.0.150/24"),
        ("\"10.0.0.250-10.0.1.5/16\"", 12, "10.0.0.250/16", "10.0.1.5/16"),
        ("\"10.0.0.64/28/24\"", 16, "10.0.0.64/24", "10.0.0.79/24"),
        ("\"10.0.0.240/28/24\"", 15, "10.0.0.240/24", "10.0.0.254/24"),
        ("\"10.0.7.0/28\"", 14, "10.0.7.1/28", "10.0.7.14/28"),
        ("\"10.0.7.0/31\"", 1, "10.0.7.0/31", "10.0.7.0/31"),
        ("\"10.0.0.100/24\"", 1, "10.0.0.100/24", "10.0.0.100/24"),
        ("\"10.0.0.100/32\"", 1, "10.0.0.100/32", "10.0.0.100/32"),
        ("\"2001:db8::100-1ff/64\"", 256, "2001:db8::100/64", "2001:db8::1ff/64"),
        ("\"2001:db8::100-2001:db8::10f/64\"", 16, "2001:db8::100/64", "2001:db8::10f/64"),
        ("\"2001:db8::/125/64\"", 7, "2001:db8::1/64", "2001:db8::7/64"),
        ("[\"10.0.0.100-101/24\", \"10.0.0.110/24\"]", 3, "10.0.0.100/24", "10.0.0.110/24"),
    ] {
        let all = addresses(text);
        assert_eq!((all.len(), all[0].as_str()), (count, first), "{text}");
        assert_eq!(all[count - 1], last, "{text}");
    }
}

#[test]
fn a_thousand_addresses_are_a_thousand_groups() {
    let desired = with_pool("interface = \"eth0\"\naddresses = \"10.7.0.1-10.7.4.0/16\"");
    assert_eq!(desired.groups.len(), 1024);
    assert!(desired.groups.is_sorted_by(|a, b| a.id < b.id));
}

#[test]
fn each_address_of_a_pool_is_a_vip_with_all_that_the_pool_says() {
    let lines = r#"addresses = ["10.0.0.100-102/24"]
prefer = ["10.0.0.12"]
failback = "30s"
apart = "dns"
check = { process = "named" }
[[pool.service]]
port = ["53/udp", "53/tcp"]
backends = ["10.0.0.21:53"]"#;
    let desired = with_pool(lines);
    assert_eq!(desired.groups.len(), 3);
    for (n, group) in desired.groups.iter().enumerate() {
        let address = group.addresses[0].cidr.address();
        assert_eq!(group.name, format!("web-{}", 100 + n));
        assert_eq!((group.addresses.len(), group.addresses[0].link), (1, Some(LinkId(2))));
        assert_eq!(group.id, GroupId::of(address));
        assert_eq!(group.prefer, [NodeId::of("10.0.0.12")]);
        assert_eq!(group.failback, Failback::After(Duration::from_secs(30)));
        assert_eq!(group.apart.as_deref(), Some("dns"));
        assert_eq!((group.checks.len(), group.services.len()), (1, 2));
        assert!(group.services.iter().all(|s| s.addresses == [address]));
    }
}

#[test]
fn names_of_a_pool_stay_when_addresses_follow() {
    let names = |addresses: &str| -> Vec<(String, String)> {
        let desired = with_pool(&format!("interface = \"eth0\"\naddresses = {addresses}"));
        let name = |g: &Group| (g.addresses[0].cidr.address().to_string(), g.name.clone());
        desired.groups.iter().map(name).collect()
    };
    let before = names("[\"10.0.0.100/24\", \"2001:db8::100/64\"]");
    let after = names(
        "[\"10.0.0.100/24\", \"2001:db8::100/64\", \"10.0.7.100/24\", \"10.0.0.101/24\", \"10.1.7.100/24\"]",
    );
    assert!(before.iter().all(|name| after.contains(name)), "{before:?} {after:?}");
    for (address, name) in [
        ("10.0.0.100", "web-100"),
        ("2001:db8::100", "web-0:100"),
        ("10.0.7.100", "web-7.100"),
        ("10.1.7.100", "web-1.7.100"),
    ] {
        assert!(after.contains(&(address.to_owned(), name.to_owned())), "{name}: {after:?}");
    }
}

#[test]
fn a_pool_of_both_families_gives_each_address_backends_of_its_own() {
    let lines = "addresses = [\"10.0.0.100/24\", \"2001:db8::100/64\"]\n[[pool.service]]\nport = \"80/tcp\"\nbackends = [\"10.0.0.21:80\", \"[2001:db8::21]:80\"]";
    for group in with_pool(lines).groups {
        let backends = &group.services[0].backends;
        assert_eq!(backends.len(), 1);
        assert_eq!(
            backends[0].address.is_ipv4(),
            group.addresses[0].cidr.address().is_ipv4(),
            "{}",
            group.name
        );
    }
}

#[test]
fn a_range_that_overlaps_is_told_once_with_the_number_of_addresses() {
    let text = format!(
        "{SMALL}[[pool]]\nname = \"a\"\naddresses = [\"10.0.0.150-160/24\", \"10.0.0.155-170/24\"]\n"
    );
    let report = support::report(&text);
    assert!(report.summary().contains("10.0.0.155 and 5 more addresses"), "{report}");
}

const UNITED: &str = r#"[[vip]]
name = "inside"
address = "192.168.5.100/24"
group = "edge"
prefer = ["10.0.0.12"]
check = { gateway = "10.0.0.1" }
[[vip.service]]
port = "80/tcp"
backends = ["192.168.5.21:80"]
[[vip]]
name = "outside"
address = ["10.0.0.101/24", "2001:db8::100/64"]
group = "edge"
safety = "exclusive"
check = [{ gateway = "10.0.0.1" }, { process = "haproxy" }]
[[vip.service]]
port = "80/tcp"
mode = "proxy"
backends = ["10.0.0.21:80"]
"#;

#[test]
fn vips_of_one_group_are_one_group_and_are_found_by_every_name() {
    let desired = desired(&format!("{SMALL}{UNITED}"));
    assert_eq!(desired.groups.len(), 2);
    let group = desired.find_group("edge").unwrap();
    assert_eq!((group.name.as_str(), group.addresses.len()), ("edge", 3));
    assert_eq!(group.id, GroupId::of([10, 0, 0, 101].into()), "the smallest address");
    for name in ["inside", "outside", "192.168.5.100", "2001:db8::100", "10.0.0.101/24"] {
        assert_eq!(desired.find_group(name).map(|g| g.id), Some(group.id), "{name}");
    }
    let names: Vec<&str> = group.addresses.iter().map(|a| a.vip_name.as_str()).collect();
    assert_eq!(names, ["inside", "outside", "outside"]);
    let links: Vec<_> = group.addresses.iter().map(|a| a.link).collect();
    assert_eq!(links, [Some(LinkId(3)), Some(LinkId(2)), Some(LinkId(2))]);
}

#[test]
fn what_one_vip_says_holds_for_its_group_and_services_stay_on_their_vip() {
    let desired = desired(&format!("{SMALL}{UNITED}"));
    let group = desired.find_group("edge").unwrap();
    assert_eq!(group.prefer, [NodeId::of("10.0.0.12")]);
    assert_eq!(group.safety, Safety::Exclusive);
    let counts: Vec<usize> = group.services.iter().map(|s| s.addresses.len()).collect();
    assert_eq!(counts, [1, 2], "one port twice, on different VIPs");
    let checks: Vec<&str> = group.checks.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(checks, ["gateway 10.0.0.1", "process haproxy"], "the same check is asked once");
}

fn checks(value: &str) -> Vec<NodeCheck> {
    desired(&format!("{SMALL}check = {value}\n")).groups.remove(0).checks
}

/// A GET that passes with these statuses.
fn http(path: &str, tls: bool, ca: Option<&str>, expect: Statuses) -> CheckKind {
    let certificate = TlsCheck { ca: ca.map(str::to_owned), warn: CHECK_TLS_WARN_DEFAULT };
    HttpCheck {
        method: "GET".to_owned(),
        path: path.to_owned(),
        host: None,
        headers: vec![],
        http2: false,
        tls: tls.then_some(certificate),
        expect: vec![expect],
        body: None,
    }
    .into()
}

#[test]
fn a_check_of_the_node_asks_what_the_file_says() {
    let server =
        |address: &str, kind| NodeCheckKind::Server { address: address.parse().unwrap(), kind };
    let file = |path: &str, present| NodeCheckKind::File { path: path.to_owned(), present };
    let exec = |arguments: &[&str]| NodeCheckKind::Exec {
        program: "/usr/local/lib/fit".to_owned(),
        arguments: arguments.iter().map(|a| (*a).to_owned()).collect(),
    };
    let table = [
        (
            "{ process = \"haproxy\" }",
            "process haproxy",
            NodeCheckKind::Process { name: "haproxy".to_owned() },
        ),
        (
            "{ tcp = \"127.0.0.1:5432\" }",
            "tcp 127.0.0.1:5432",
            server("127.0.0.1:5432", CheckKind::Tcp),
        ),
        (
            "{ http = \"GET http://127.0.0.1:8008/primary\", expect = 200 }",
            "http 127.0.0.1:8008/primary",
            server(
                "127.0.0.1:8008",
                http("/primary", false, None, Statuses::new(200, 200).unwrap()),
            ),
        ),
        (
            "{ http = \"GET https://[::1]\", ca = \"ca.pem\" }",
            "http [::1]:443/",
            server("[::1]:443", http("/", true, Some("/etc/buoy/ca.pem"), Statuses::WELL)),
        ),
        (
            "{ http = \"GET http://127.0.0.1:8443/x\", tls = true }",
            "http 127.0.0.1:8443/x",
            server("127.0.0.1:8443", http("/x", true, None, Statuses::WELL)),
        ),
        ("{ exec = \"/usr/local/lib/fit\" }", "exec /usr/local/lib/fit", exec(&[])),
        (
            "{ exec = [\"/usr/local/lib/fit\", \"-q\", \"a b\"], name = \"fit\" }",
            "fit",
            exec(&["-q", "a b"]),
        ),
        ("{ file = \"/run/ready\" }", "file /run/ready", file("/run/ready", true)),
        ("{ no_file = \"/run/off\" }", "no_file /run/off", file("/run/off", false)),
        ("{ link = \"eth1\" }", "link eth1", NodeCheckKind::Link { name: "eth1".to_owned() }),
        (
            "{ gateway = \"192.168.5.1\" }",
            "gateway 192.168.5.1",
            NodeCheckKind::Gateway { address: [192, 168, 5, 1].into(), link: Some(LinkId(3)) },
        ),
        (
            "{ gateway = \"fe80::1\" }",
            "gateway fe80::1",
            NodeCheckKind::Gateway { address: "fe80::1".parse().unwrap(), link: Some(LinkId(2)) },
        ),
    ];
    for (value, name, kind) in table {
        let check = checks(value).remove(0);
        assert_eq!((check.name.as_str(), &check.kind), (name, &kind), "{value}");
    }
}

#[test]
fn checks_may_be_tables_of_their_own() {
    let text = format!(
        "{SMALL}[[vip.check]]\nprocess = \"haproxy\"\n[[vip.check]]\nlink = \"eth1\"\nfall = 1\n"
    );
    let checks = desired(&text).groups.remove(0).checks;
    let names: Vec<&str> = checks.iter().map(|c| c.name.as_str()).collect();
    assert_eq!((names, checks[1].pace.fall), (vec!["process haproxy", "link eth1"], 1));
}

#[test]
fn a_check_of_the_node_has_the_pace_of_a_check_of_a_backend() {
    let plain = checks("{ process = \"a\" }").remove(0).pace;
    assert_eq!((plain.every, plain.timeout), (Duration::from_secs(1), Duration::from_secs(1)));
    assert_eq!((plain.rise, plain.fall), (2, 3));
    let quick =
        checks("[{ process = \"a\", every = \"100ms\", fall = 1, rise = 9 }]").remove(0).pace;
    assert_eq!(
        (quick.every, quick.timeout),
        (Duration::from_millis(100), Duration::from_millis(100))
    );
    assert_eq!((quick.rise, quick.fall), (9, 1));
}

#[test]
fn a_host_that_cannot_own_a_vip_needs_nothing_for_its_checks() {
    let text = format!(
        "{SMALL}nodes = [\"10.0.0.12\"]\ncheck = [{{ exec = \"/usr/local/lib/gone\" }}, {{ gateway = \"10.9.9.1\" }}]\n"
    );
    let checked = accepted(&text);
    assert!(checked.warnings.is_empty(), "{}", checked.warnings);
    assert_eq!(checked.desired.groups[0].checks.len(), 2);
    let offline = buoy_config::check_offline(&text, "buoy.toml").unwrap();
    assert_eq!(offline.digest, checked.desired.digest);
}

#[test]
fn hosts_must_agree_on_pools_groups_labels_and_checks() {
    let texts = [
        SMALL.to_owned(),
        format!("{SMALL}check = {{ process = \"a\" }}\n"),
        format!("{SMALL}check = {{ process = \"b\" }}\n"),
        format!("{SMALL}check = {{ process = \"a\", every = \"2s\" }}\n"),
        format!("{SMALL}check = {{ file = \"/a\" }}\n"),
        format!("{SMALL}check = {{ no_file = \"/a\", name = \"n\" }}\n"),
        format!("{SMALL}check = {{ file = \"/a\", name = \"n\" }}\n"),
        format!("{SMALL}check = {{ exec = \"/usr/local/lib/fit\", name = \"n\" }}\n"),
        format!("{SMALL}check = {{ exec = [\"/usr/local/lib/fit\", \"x\"], name = \"n\" }}\n"),
        format!("{SMALL}check = {{ tcp = \"127.0.0.1:1\", name = \"n\" }}\n"),
        format!("{SMALL}check = {{ http = \"GET http://127.0.0.1:1/\", name = \"n\" }}\n"),
        format!("{SMALL}check = {{ link = \"eth1\", name = \"n\" }}\n"),
        format!("{SMALL}check = {{ gateway = \"10.0.0.1\", name = \"n\" }}\n"),
        format!("{SMALL}group = \"a\"\n"),
        format!("{SMALL}apart = \"a\"\n"),
        format!("{SMALL}[[pool]]\nname = \"a\"\naddresses = \"10.0.0.150-160/24\"\n"),
        format!("{SMALL}[[pool]]\nname = \"b\"\naddresses = \"10.0.0.150-160/24\"\n"),
        format!("{SMALL}{UNITED}"),
        format!("{SMALL}{}", UNITED.replace("\"inside\"", "\"within\"")),
    ];
    let mut seen = Vec::new();
    for text in texts {
        let digest = desired(&text).digest;
        assert!(!seen.contains(&digest), "{text}");
        seen.push(digest);
    }
    let mut other = host();
    other.links[1].id = LinkId(9);
    let text = format!("{SMALL}check = {{ gateway = \"10.0.0.1\" }}\n");
    let there = support::check_on(&text, &other).unwrap().desired.digest;
    assert_eq!(there, desired(&text).digest, "an interface has another number on each host");
}

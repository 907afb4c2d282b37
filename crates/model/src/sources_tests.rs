//! Tables of lists and clients, and random lists against the definition: the longest prefix decides.

use super::*;
use alloc::vec;

fn cidr(text: &str) -> Cidr {
    let (address, prefix) = text.split_once('/').unwrap();
    Cidr::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
}

fn sources(allow: &[&str], deny: &[&str]) -> Sources {
    let rule = |allows| move |text: &&str| SourceRule { prefix: cidr(text), allows };
    Sources::new(allow.iter().map(rule(true)).chain(deny.iter().map(rule(false)))).unwrap()
}

/// Lists, and clients with what becomes of them.
type Case = (&'static [&'static str], &'static [&'static str], &'static [(&'static str, bool)]);

const CASES: &[Case] = &[
    (&[], &[], &[("10.0.0.1", true), ("fd00::1", true), ("0.0.0.0", true), ("::", true)]),
    (
        &["10.0.0.0/8"],
        &[],
        &[
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("fd00::1", false),
            ("::ffff:10.1.2.3", true),
        ],
    ),
    (
        &[],
        &["10.0.0.0/8", "fd00::/16"],
        &[("10.1.2.3", false), ("11.0.0.0", true), ("fd00::1", false), ("fd01::", true)],
    ),
    (
        &["10.0.0.0/8", "10.1.2.3/32"],
        &["10.1.0.0/16"],
        &[("10.0.0.1", true), ("10.1.0.1", false), ("10.1.2.3", true), ("192.0.2.1", false)],
    ),
    // IPv6 says nothing of IPv4, however short its prefix.
    (&["::/0"], &[], &[("fd00::1", true), ("10.0.0.1", false)]),
    (&[], &["::/0"], &[("fd00::1", false), ("10.0.0.1", true), ("255.255.255.255", true)]),
    (&["0.0.0.0/0"], &["::/0"], &[("fd00::1", false), ("10.0.0.1", true)]),
    (&["0.0.0.0/0"], &[], &[("fd00::1", false), ("10.0.0.1", true), ("255.255.255.255", true)]),
    (
        &["fd00::/64", "192.0.2.7/32"],
        &["fd00::/65"],
        &[
            ("fd00::1", false),
            ("fd00:0:0:0:8000::", true),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
        ],
    ),
    (
        &["255.255.255.255/32"],
        &["0.0.0.0/32"],
        &[
            ("255.255.255.255", true),
            ("0.0.0.0", false),
            ("1.0.0.0", false),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false),
        ],
    ),
];

#[test]
fn the_longest_prefix_decides_and_an_allow_list_refuses_all_others() {
    for (allow, deny, clients) in CASES {
        let sources = sources(allow, deny);
        for (client, allowed) in *clients {
            let is = sources.allows(client.parse().unwrap());
            assert_eq!(is, *allowed, "{allow:?} {deny:?} {client}");
        }
    }
}

#[test]
fn a_prefix_twice_or_with_host_bits_is_no_list() {
    let rule = |text, allows| SourceRule { prefix: cidr(text), allows };
    assert_eq!(Sources::new([rule("10.0.0.0/8", true), rule("10.0.0.0/8", false)]), None);
    assert_eq!(Sources::new([rule("10.0.0.0/8", true), rule("10.0.0.0/8", true)]), None);
    assert_eq!(Sources::new([rule("10.0.0.1/8", true)]), None);
    assert!(Sources::new([rule("10.0.0.0/8", true), rule("10.0.0.0/9", false)]).is_some());
    assert_eq!(Sources::new([rule("::ffff:10.0.0.0/104", true)]), None);
    assert_eq!(network(cidr("10.1.2.3/8")), cidr("10.0.0.0/8"));
    assert_eq!(network(cidr("fd00::1:2/120")), cidr("fd00::1:0/120"));
    assert_eq!(network(cidr("fd00::1/128")), cidr("fd00::1/128"));
    assert_eq!(network(cidr("1.2.3.4/0")), cidr("0.0.0.0/0"));
}

#[test]
fn the_order_of_the_lines_means_nothing() {
    let rules = |texts: [&str; 3]| texts.map(|t| SourceRule { prefix: cidr(t), allows: true });
    let one = Sources::new(rules(["10.0.0.0/8", "fd00::/8", "9.0.0.0/8"]));
    assert_eq!(one, Sources::new(rules(["fd00::/8", "9.0.0.0/8", "10.0.0.0/8"])));
}

#[test]
fn refused_ranges_are_disjoint_and_of_the_family() {
    let shown = |sources: &Sources, like: &str| -> Vec<alloc::string::String> {
        let ranges = sources.refused(like.parse().unwrap());
        ranges.map(|(a, b)| alloc::format!("{a}-{b}")).collect()
    };
    let list = sources(&["10.0.0.0/8", "fd00::/16"], &["10.1.0.0/16", "10.2.0.0/16"]);
    assert_eq!(
        shown(&list, "1.2.3.4"),
        ["0.0.0.0-9.255.255.255", "10.1.0.0-10.2.255.255", "11.0.0.0-255.255.255.255"]
    );
    assert_eq!(
        shown(&list, "::1"),
        [
            "::-::ffff:9.255.255.255",
            "::ffff:10.1.0.0-::ffff:10.2.255.255",
            "::ffff:11.0.0.0-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fd01::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ]
    );
    assert!(shown(&sources(&[], &["fd00::/16"]), "1.2.3.4").is_empty());
    assert_eq!(shown(&sources(&["fd00::/16"], &[]), "1.2.3.4"), ["0.0.0.0-255.255.255.255"]);
}

/// The definition, word for word.
fn longest(rules: &[SourceRule], source: IpAddr) -> bool {
    let source = source.to_canonical();
    let fitting = rules.iter().filter(|rule| rule.prefix.contains(source));
    fitting
        .max_by_key(|rule| rule.prefix.prefix())
        .map_or(!rules.iter().any(|rule| rule.allows), |rule| rule.allows)
}

#[test]
fn random_lists_are_as_the_definition_says() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut dice = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for round in 0..2000 {
        // Few addresses, so that prefixes lie within each other.
        let mut address = |v4: bool| -> (IpAddr, u8) {
            let low = (dice(4) << 30 | dice(4) << 14 | dice(4)) as u32;
            if v4 {
                return (IpAddr::V4(low.into()), [0, 1, 2, 16, 18, 31, 32][dice(7) as usize]);
            }
            let high = u128::from(dice(4)) << 126 | u128::from(dice(2)) << 40;
            let length = [0, 1, 2, 87, 88, 96, 98, 127, 128][dice(9) as usize];
            (Ipv6Addr::from_bits(high | u128::from(low)).into(), length)
        };
        let mut rules: Vec<SourceRule> = vec![];
        for n in 0..round % 12 {
            let (address, length) = address((n + round) % 3 != 0);
            let prefix = network(Cidr::new(address, length).unwrap());
            if rules.iter().all(|rule| rule.prefix != prefix) {
                rules.push(SourceRule { prefix, allows: (n * 7 + round) % 3 == 0 });
            }
        }
        let sources = Sources::new(rules.clone()).unwrap();
        for n in 0..64 {
            let (client, _) = address(n % 2 == 0);
            assert_eq!(sources.allows(client), longest(&rules, client), "{rules:?} {client}");
        }
    }
}

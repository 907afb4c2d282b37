//! Tests of `plan.rs`: hosts of all kinds, and what is decided for them.

use super::super::seen::Address;
use super::*;
use buoy_model::Cidr;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(interface: &str, text: &str, prefix: u8) -> Address {
    let cidr = Cidr::new(ip(text), prefix).unwrap();
    Address { interface: interface.to_owned(), cidr, owned: false, prepared: false }
}

fn vip(interface: &str, is_tunnel: bool) -> Prepared {
    let tunnel = if is_tunnel { Tunnel::IPIP } else { Tunnel::NONE };
    Prepared { interface: interface.to_owned(), tunnel, found: false }
}

fn vips(of: &[(&str, &str, bool)]) -> Vips {
    of.iter().map(|&(address, interface, tunnel)| (ip(address), vip(interface, tunnel))).collect()
}

/// A host with eth0 and eth1, whose settings are all 0 but for these.
fn with_settings<T>(settings: &[(&str, &str)], act: impl FnOnce(&mut Seen<'_>) -> T) -> T {
    let read = |path: &str| {
        let found = settings.iter().find(|(setting, _)| *setting == path);
        Some(found.map_or("0", |(_, value)| value).to_owned())
    };
    let mut seen = Seen {
        interfaces: [("eth0".to_owned(), true), ("eth1".to_owned(), true)].into(),
        bare: BTreeSet::new(),
        addresses: vec![
            address(LOOPBACK, "127.0.0.1", 8),
            address(LOOPBACK, "::1", 128),
            address("eth0", "10.0.0.21", 24),
            address("eth0", "fe80::1", 64),
            address("eth1", "192.168.0.21", 24),
        ],
        programs: BTreeMap::new(),
        default_routes: vec!["eth1".to_owned()],
        filters: Vec::new(),
        read: &read,
    };
    act(&mut seen)
}

fn said(plan: &Plan) -> Vec<String> {
    plan.steps.iter().map(ToString::to_string).collect()
}

#[test]
fn a_fresh_host_is_silent_before_it_has_the_vip() {
    with_settings(&[], |seen| {
        let plan = plan(&State::default(), vips(&[("10.0.0.100", "eth0", true)]), seen);
        let expected = [
            "set net/ipv4/conf/all/arp_announce to 2, from 0",
            "set net/ipv4/conf/all/arp_ignore to 1, from 0",
            "set net/ipv4/conf/eth0/arp_announce to 2, from 0",
            "set net/ipv4/conf/eth0/arp_ignore to 1, from 0",
            "put an XDP program on eth0 that decapsulates packets for 10.0.0.100 sent to 10.0.0.21 \
             and 192.168.0.21",
            "put 10.0.0.100/32 on lo",
        ];
        assert_eq!(said(&plan), expected);
        assert_eq!(plan.state.settings.len(), 4);
    });
}

#[test]
fn ipv6_needs_no_settings() {
    with_settings(&[], |seen| {
        let plan = plan(&State::default(), vips(&[("fd00::100", "eth0", false)]), seen);
        assert_eq!(said(&plan), ["put fd00::100/128 on lo"]);
        assert!(plan.state.settings.is_empty());
    });
}

#[test]
fn a_setting_is_changed_only_where_it_would_not_do() {
    // Which rule, the interface's value, that of all, and what it is set to.
    let table = [
        (Rule::Silent, "0", "0", Some("1")),
        (Rule::Silent, "1", "0", None),
        (Rule::Silent, "2", "0", None),
        (Rule::Silent, "3", "1", Some("1")),
        (Rule::Silent, "8", "0", None),
        (Rule::Modest, "0", "0", Some("2")),
        (Rule::Modest, "1", "2", Some("2")),
        (Rule::Modest, "2", "0", None),
        (Rule::Loose, "0", "0", None),
        (Rule::Loose, "1", "0", Some("2")),
        (Rule::Loose, "0", "1", Some("2")),
        (Rule::Loose, "2", "1", None),
        (Rule::Loose, "0", "2", None),
    ];
    for (rule, own, all, to) in table {
        assert_eq!(rule.value_for(own, all), to, "{rule:?} {own} {all}");
    }
}

#[test]
fn what_was_before_is_remembered_from_the_first_change() {
    let announce = "net/ipv4/conf/eth0/arp_announce";
    let first = with_settings(&[(announce, "1")], |seen| {
        plan(&State::default(), vips(&[("10.0.0.100", "eth0", false)]), seen).state
    });
    assert_eq!(first.settings[announce].before, "1");
    // Somebody has changed it, it is changed again, and what was before both of us is still known.
    let again = with_settings(&[(announce, "0")], |seen| plan(&first, first.vips.clone(), seen));
    assert_eq!(again.state.settings[announce].before, "1");
    // Back to what it was, but not what somebody wants to have by now, nor what is gone.
    for (now, steps, notes) in [("2", 1, 0), ("1", 0, 0), ("0", 0, 1)] {
        let others = first.settings.keys().map(|setting| (setting.as_str(), "0"));
        let settings: Vec<_> = [(announce, now)].into_iter().chain(others).collect();
        let plan = with_settings(&settings, |seen| plan(&first, Vips::new(), seen));
        assert_eq!((plan.steps.len(), plan.notes.len()), (steps, notes), "{now}: {plan:?}");
        assert_eq!(plan.state, State::default());
    }
    with_settings(&[], |seen| {
        seen.read = &|_| None;
        assert_eq!(plan(&first, Vips::new(), seen), Plan::default());
    });
}

#[test]
fn a_vip_that_was_there_before_is_left_there() {
    with_settings(&[], |seen| {
        seen.addresses.push(address(LOOPBACK, "fd00::100", 128));
        let first = plan(&State::default(), vips(&[("fd00::100", "eth0", false)]), seen);
        assert_eq!((said(&first).len(), first.state.vips[&ip("fd00::100")].found), (0, true));
        assert_eq!(said(&plan(&first.state, Vips::new(), seen)).len(), 0);
        // With our mark it is ours, even when nobody remembers.
        seen.addresses.last_mut().unwrap().prepared = true;
        let first = plan(&State::default(), vips(&[("fd00::100", "eth0", false)]), seen);
        assert!(!first.state.vips[&ip("fd00::100")].found);
        assert_eq!(said(&plan(&first.state, Vips::new(), seen)), ["take fd00::100/128 off lo"]);
        assert_eq!(said(&sweep(&State::default(), seen)), ["take fd00::100/128 off lo"]);
    });
}

#[test]
fn one_program_decapsulates_for_all_vips_of_an_interface_and_goes_with_the_last() {
    let two = vips(&[("10.0.0.100", "eth0", true), ("fd00::100", "eth0", true)]);
    with_settings(&[], |seen| {
        let first = plan(&State::default(), two, seen);
        let of = |plan: &Plan| {
            let steps = plan.steps.iter().filter_map(|step| match step {
                Step::Decapsulate { to, .. } => Some(to.clone()),
                Step::Set { .. } | Step::Address { .. } => None,
            });
            steps.collect::<Vec<_>>()
        };
        let there = of(&first).remove(0).unwrap();
        assert_eq!(there.vips.len(), 2);
        let on = OnInterface::Ours(there, super::super::Counts::default());
        seen.programs.insert("eth0".to_owned(), on);
        let fewer = plan(&first.state, vips(&[("10.0.0.100", "eth0", true)]), seen);
        let one = BTreeMap::from([(ip("10.0.0.100"), Tunnel::IPIP)]);
        assert_eq!(of(&fewer)[0].as_ref().unwrap().vips, one);
        // The other way without a tunnel, or by another interface.
        assert_eq!(of(&plan(&first.state, vips(&[("10.0.0.100", "eth0", false)]), seen)), [None]);
        let moved = of(&plan(&first.state, vips(&[("10.0.0.100", "eth1", true)]), seen));
        assert!(moved[0].is_none() && moved[1].is_some(), "{moved:?}");
    });
}

#[test]
fn another_encapsulation_is_another_map_of_the_program() {
    with_settings(&[], |seen| {
        let of = |text: &str| {
            let tunnel = text.parse().unwrap();
            Vips::from([(ip("fd00::100"), Prepared { tunnel, ..vip("eth0", false) })])
        };
        let first = plan(&State::default(), of("ipip,gue"), seen);
        assert_eq!(
            said(&first)[0],
            "put an XDP program on eth0 that decapsulates packets for fd00::100 (ipip,gue) sent to \
             10.0.0.21 and 192.168.0.21"
        );
        let Step::Decapsulate { to: Some(there), .. } = &first.steps[0] else {
            panic!("{first:?}")
        };
        let on = OnInterface::Ours(there.clone(), super::super::Counts::default());
        seen.programs.insert("eth0".to_owned(), on);
        let next = plan(&first.state, of("gue:9886"), seen);
        assert_eq!(
            said(&next)[0],
            "let the XDP program on eth0 decapsulate packets for fd00::100 (gue:9886) sent to \
             10.0.0.21 and 192.168.0.21"
        );
    });
}

#[test]
fn undoing_a_change_twice_is_the_change() {
    with_settings(&[], |seen| {
        let plan = plan(&State::default(), vips(&[("10.0.0.100", "eth0", true)]), seen);
        for step in plan.steps {
            assert_ne!(step.turned(), step);
            assert_eq!(step.turned().turned(), step);
        }
    });
}

#[test]
fn the_obvious_interface_is_the_one_of_the_subnet_then_the_one_of_the_default_route() {
    with_settings(&[], |seen| {
        assert_eq!(seen.interface_for(ip("10.0.0.100")).as_deref(), Some("eth0"));
        assert_eq!(seen.interface_for(ip("203.0.113.1")).as_deref(), Some("eth1"));
        assert_eq!(seen.interface_for(ip("fd00::100")).as_deref(), Some("eth1"));
        seen.default_routes.clear();
        assert_eq!(seen.interface_for(ip("203.0.113.1")), None);
        seen.interfaces.remove("eth1");
        assert_eq!(seen.interface_for(ip("203.0.113.1")).as_deref(), Some("eth0"));
    });
}

#[test]
fn nothing_is_taken_out_where_frames_have_no_ethernet_header() {
    with_settings(&[], |seen| {
        seen.bare.insert("eth1".to_owned());
        assert_eq!(obstacles(&vips(&[("10.0.0.100", "eth1", false)]), seen), []);
        let found = obstacles(&vips(&[("10.0.0.100", "eth1", true)]), seen);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].found.starts_with("eth1 has no Ethernet headers"), "{found:?}");
    });
}

#[test]
fn an_owned_vip_is_in_nobodys_way() {
    with_settings(&[], |seen| {
        let mine = vips(&[("10.0.0.100", "eth0", false)]);
        seen.addresses.push(Address { owned: true, ..address("eth0", "10.0.0.100", 24) });
        assert_eq!(obstacles(&mine, seen), []);
        seen.addresses.push(address("eth1", "10.0.0.100", 24));
        let found = obstacles(&mine, seen);
        assert_eq!(found[0].fix, "ip address del 10.0.0.100/24 dev eth1");
    });
}

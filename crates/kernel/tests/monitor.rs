//! What the kernel tells of interfaces and addresses, and what of it is news to a node.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::apply::{Apply, Effect};
use buoy_kernel::gate::{Gate, GateError};
use buoy_kernel::netlink::{AddressChange, Monitor, News, Requests};
use buoy_kernel::packet::Announcer;
use buoy_model::{Action, Event, FrameKind, LinkId, Presence};
use segment::{Segment, cidr, ip, wait_until};

const VIPS: [&str; 2] = ["10.0.0.100/24", "fd00::100/64"];

/// What a node is told of addresses; the interfaces may still be coming up.
fn lost(monitor: &mut Monitor, apply: &mut Apply) -> Vec<String> {
    let mut told = told(monitor, apply);
    told.retain(|event| event.starts_with("lost"));
    told
}

/// What a node is told, in words that can be compared.
fn told(monitor: &mut Monitor, apply: &mut Apply) -> Vec<String> {
    let mut told = Vec::new();
    monitor
        .read(&mut |news| {
            apply.observe(news, &mut |event| {
                if let Event::Link { link, up } = event {
                    told.push(format!("link {} {up}", link.0));
                } else if let Event::AddressLost { address, .. } = event {
                    told.push(format!("lost {address}"));
                } else {
                    panic!("{event:?}");
                }
            });
        })
        .unwrap();
    told
}

fn apply() -> Apply {
    Apply::new(Requests::open().unwrap(), Announcer::open().unwrap(), None)
}

fn add(link: LinkId, vip: &str) -> Action {
    Action::AddAddress { link, cidr: cidr(vip), valid_lifetime: 60, presence: Presence::Assigned }
}

fn remove(link: LinkId, vip: &str) -> Action {
    Action::RemoveAddress { link, cidr: cidr(vip), presence: Presence::Assigned }
}

#[test]
fn a_foreign_deletion_is_news_and_our_own_is_not() {
    let test = "a_foreign_deletion_is_news_and_our_own_is_not";
    let Some(segment) = Segment::new(test) else { return };
    let (mut monitor, mut apply) = (Monitor::open().unwrap(), apply());
    for vip in VIPS {
        let gone = [format!("lost {}", cidr(vip).address())];
        for action in [add(segment.near, vip), add(segment.near, vip)] {
            apply.apply(&action).unwrap();
        }
        ip(&format!("addr del {vip} dev near"));
        let mut all = Vec::new();
        wait_until("the deletion is heard", || {
            all.extend(lost(&mut monitor, &mut apply));
            all.contains(&gone[0])
        });
        assert_eq!(all, gone);

        // Gone and back before anybody looked: the old removal must not be taken for a new loss.
        let actions = [
            add(segment.near, vip),
            remove(segment.near, vip),
            remove(segment.near, vip),
            add(segment.near, vip),
        ];
        for action in actions {
            apply.apply(&action).unwrap();
        }
        // News comes in order, so after this one there is no more of the above to come.
        ip("addr add 10.7.7.7/32 dev near");
        ip("addr del 10.7.7.7/32 dev near");
        assert_eq!(lost(&mut monitor, &mut apply), [""; 0]);
        ip(&format!("addr del {vip} dev near"));
        assert_eq!(lost(&mut monitor, &mut apply), gone);
    }
}

#[test]
fn beside_the_loop_nothing_is_told_differently() {
    let test = "beside_the_loop_nothing_is_told_differently";
    let Some(segment) = Segment::new(test) else { return };
    let gate = match Gate::open(&[segment.near]) {
        Ok(gate) => gate,
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut monitor = Monitor::open().unwrap();
    let mut requests = Requests::open().unwrap();
    let mut apply = Apply::new(Requests::open().unwrap(), Announcer::open().unwrap(), Some(gate));
    for vip in VIPS {
        let gone = [format!("lost {}", cidr(vip).address())];
        let actions = [
            add(segment.near, vip),
            add(segment.near, vip),
            remove(segment.near, vip),
            remove(segment.near, vip),
            add(segment.near, vip),
        ];
        for action in actions {
            apply.apply(&action).unwrap();
        }
        wait_until("the orders are carried out", || apply.pending() == 0);
        assert_eq!(requests.list_ours().unwrap().len(), 1);
        assert_eq!(lost(&mut monitor, &mut apply), [""; 0]);
        ip(&format!("addr del {vip} dev near"));
        assert_eq!(lost(&mut monitor, &mut apply), gone);
        apply.apply(&remove(segment.near, vip)).unwrap();
    }
    // What fails comes back with this action or a later one, once, under its own name.
    let first = apply.apply(&add(LinkId(4_000), VIPS[0]));
    wait_until("the order has failed", || apply.pending() == 0);
    let second = apply.apply(&add(segment.near, VIPS[0]));
    let errors: Vec<_> = [first, second].into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1);
    let error = errors[0].to_string();
    assert!(error.starts_with("cannot add 10.0.0.100 on interface 4000: "), "{error}");
    assert_eq!(apply.failures().of(Effect::Add), 1);
    apply.apply(&remove(segment.near, VIPS[0])).unwrap();
    // A clean stop waits for the last order.
    apply.close().unwrap();
    assert_eq!(requests.list_ours().unwrap(), []);
}

#[test]
fn a_lost_carrier_and_a_lost_interface_are_news() {
    let test = "a_lost_carrier_and_a_lost_interface_are_news";
    let Some(segment) = Segment::new(test) else { return };
    let (mut monitor, mut apply) = (Monitor::open().unwrap(), apply());
    let link = segment.near.0;
    let mut expect = |what: &str, change: &dyn Fn()| {
        change();
        wait_until(what, || told(&mut monitor, &mut apply).contains(&what.to_owned()));
    };
    expect(&format!("link {link} false"), &|| segment.there(|| drop(ip("link set far down"))));
    expect(&format!("link {link} true"), &|| segment.there(|| drop(ip("link set far up"))));
    expect(&format!("link {link} false"), &|| drop(ip("link set near down")));
    expect(&format!("link {link} true"), &|| drop(ip("link set near up")));
    expect(&format!("link {link} false"), &|| drop(ip("link del near")));
}

#[test]
fn after_an_overrun_nothing_is_missed() {
    let Some(segment) = Segment::new("after_an_overrun_nothing_is_missed") else { return };
    let (mut monitor, mut apply) = (Monitor::open().unwrap(), apply());
    apply.apply(&add(segment.near, VIPS[0])).unwrap();
    ip(&format!("addr del {} dev near", VIPS[0]));
    let mut requests = Requests::open().unwrap();
    let (link, cidr) = (segment.near, cidr("10.7.7.7/32"));
    let add = AddressChange::Add { link, cidr, valid_lifetime: 60 };
    let changes = [add, AddressChange::Remove { link, cidr }].repeat(20_000);
    requests.change_addresses(&changes, &mut |at, error| panic!("{at}: {error}"));
    let mut overrun = false;
    let mut all = Vec::new();
    let mut quiet = false;
    while !quiet {
        quiet = true;
        monitor
            .read(&mut |news| {
                quiet = false;
                overrun |= news == News::Overrun;
                apply.observe(news, &mut |event| all.push(format!("{event:?}")));
            })
            .unwrap();
    }
    assert!(overrun, "the queue holds 20000 changes");
    let losses = all.iter().filter(|event| event.starts_with("AddressLost")).count();
    assert_eq!(losses, 1, "{all:?}");
}

#[test]
fn what_fails_is_an_error_with_a_name_and_a_counter() {
    let test = "what_fails_is_an_error_with_a_name_and_a_counter";
    let Some(segment) = Segment::new(test) else { return };
    let mut apply = apply();
    let nowhere = LinkId(4_000);
    let error = apply.apply(&add(nowhere, VIPS[0])).unwrap_err().to_string();
    assert!(error.starts_with("cannot add 10.0.0.100 on interface 4000: "), "{error}");
    let address = cidr(VIPS[0]).address();
    let kind = FrameKind::Gratuitous;
    let error = apply.apply(&Action::Announce { link: nowhere, address, kind }).unwrap_err();
    assert_eq!(error.effect, Effect::Announce);
    apply.apply(&remove(nowhere, VIPS[0])).unwrap();
    apply.apply(&remove(segment.near, VIPS[0])).unwrap();
    let failures = Effect::ALL.map(|effect| apply.failures().of(effect));
    assert_eq!(failures, [0, 1, 0, 1]);
}

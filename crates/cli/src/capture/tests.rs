//! What people and programs read of a packet.

use super::*;
use buoy_api::{BackendView, VipAddressView};
use buoy_kernel::fast::{Action, Frame};
use buoy_model::{Forward, LinkId};
use words::done;

const AT: u64 = 1_795_366_923_045_678_901;

pub(super) fn ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len() as u16).to_be_bytes();
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend([10, 9, 0, 9, 10, 0, 0, 100]);
    frame.extend(body);
    frame
}

pub(super) fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    let mut frame = vec![0; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], next, 64]);
    for last in [[0xfd, 9, 9], [0xfd, 0, 0]] {
        let [first, second, end] = last;
        let end = if second == 0 { [1, 0] } else { [0, end] };
        frame.extend([first, second, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        frame.extend(end);
    }
    frame.extend(body);
    frame
}

fn syn() -> Vec<u8> {
    ipv4(6, &[&[4, 210, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff][..], &[0; 4]].concat())
}

fn frame(head: Vec<u8>, link: u32) -> Frame {
    Frame { length: head.len() as u32, head, link: LinkId(link) }
}

fn captured(action: Action, left: Option<Frame>) -> Captured {
    Captured { at: AT, action, came: frame(syn(), 2), left }
}

/// A packet for a backend on another interface.
pub(super) fn sent() -> Captured {
    let action = Action::Sent([10, 0, 0, 11].into(), Some(Forward::Dsr));
    captured(action, Some(frame(syn(), 3)))
}

/// A client that is not let in.
pub(super) fn denied() -> Captured {
    captured(Action::Dropped(Some(Drop::Source)), None)
}

fn called() -> Names {
    Names {
        backends: [([10, 0, 0, 11].into(), "web1".to_owned())].into(),
        links: [(2, "eth2".to_owned()), (3, "eth3".to_owned())].into(),
    }
}

fn read(captured: &Captured) -> String {
    line(captured, &done(captured, &called()), &called())
}

const HEAD: &str = "17:02:03.045678  eth2  10.9.0.9:1234 -> 10.0.0.100:80 tcp SYN 40  ";

#[test]
fn a_packet_is_a_line_that_says_what_was_done() {
    let to = |last: u8, forward| Action::Sent([10, 0, 0, last].into(), Some(forward));
    let left = || Some(frame(syn(), 2));
    let refused = Action::Refused(Drop::TooBig);
    let cases = [
        (sent(), "dsr to web1 (10.0.0.11) by eth3"),
        (captured(to(12, Forward::Tunnel), left()), "tunnel to 10.0.0.12 by eth2"),
        // As the packet says, with its port.
        (
            captured(to(11, Forward::Gue { port: 80 }), left()),
            "gue to web1 (10.0.0.100:80) by eth2",
        ),
        (captured(to(11, Forward::Nat), left()), "nat to web1 (10.0.0.100:80) by eth2"),
        (captured(Action::Here, None), "stays here: this host is its backend"),
        (captured(Action::Answered, left()), "answered by XDP itself, as a ping is"),
        (captured(Action::Passed, None), "left to the kernel of this host, untouched"),
        (
            denied(),
            "DROPPED: `allow` and `deny` of the service do not let this client in; fix: if it",
        ),
        (captured(refused, left()), "REFUSED, and its sender is told: it is larger than the MTU"),
    ];
    for (captured, words) in cases {
        let line = read(&captured);
        assert!(line.starts_with(&format!("{HEAD}{words}")), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
    }
    let odd = Captured { came: frame(vec![0; 60], 9), ..denied() };
    assert!(read(&odd).contains("interface 9  60 bytes that are not IP  DROPPED"));
}

#[test]
fn programs_get_the_same_as_an_object() {
    let of = |captured: &Captured| {
        serde_json::to_value(view(captured, done(captured, &called()), &called())).unwrap()
    };
    let value = of(&sent());
    assert_eq!(value["at"], AT / 1_000_000);
    assert_eq!((&value["interface"], &value["by"]), (&"eth2".into(), &"eth3".into()));
    assert_eq!((&value["from"], &value["to"]), (&"10.9.0.9:1234".into(), &"10.0.0.100:80".into()));
    assert_eq!((&value["protocol"], &value["flags"]), (&"tcp".into(), &"SYN".into()));
    assert_eq!((&value["verdict"], &value["length"]), (&"sent".into(), &40.into()));
    let value = of(&denied());
    assert_eq!(value["verdict"], "dropped");
    assert!(value["fix"].as_str().unwrap().contains("buoy reload"));
}

#[test]
fn every_reason_can_be_asked_for_and_says_how_to_mend_it() {
    for known in Drop::ALL {
        assert_eq!(reason(&words::reason_word(known)), Ok(known));
        let (why, fix) = words::why(known);
        assert!(!why.is_empty() && !fix.is_empty());
    }
    let said = reason("bad").unwrap_err();
    assert!(said.contains("no-backend") && said.contains("too-big"), "{said}");
}

#[test]
fn what_is_asked_for_is_understood_or_refused_in_words() {
    let is = |text: &str| vip(text).map(|vip| (vip.address.to_string(), vip.port));
    assert_eq!(is("10.0.0.100"), Ok(("10.0.0.100".into(), None)));
    assert_eq!(is("10.0.0.100:443"), Ok(("10.0.0.100".into(), Some(443))));
    assert_eq!(is("fd00::100"), Ok(("fd00::100".into(), None)));
    assert_eq!(is("[fd00::100]:443"), Ok(("fd00::100".into(), Some(443))));
    assert!(is("web").unwrap_err().contains("[fd00::100]:443"));
    assert!(is("10.0.0.100:0").unwrap_err().contains("1 to 65535"));
    let is = |text: &str| client(text).map(|c| (c.address().to_string(), c.prefix()));
    assert_eq!(is("192.0.2.7"), Ok(("192.0.2.7".into(), 32)));
    assert_eq!(is("192.0.2.0/24"), Ok(("192.0.2.0".into(), 24)));
    assert_eq!(is("2001:db8::/32"), Ok(("2001:db8::".into(), 32)));
    assert!(is("192.0.2.0/33").unwrap_err().contains("at most 32"));
    assert!(is("192.0.2.0/x").unwrap_err().contains("192.0.2.0/24"));
}

fn status() -> ClusterStatus {
    let service = |port: &str, engine: &str| ServiceView {
        port: port.into(),
        engine: engine.into(),
        backends: vec![BackendView {
            name: "web1".into(),
            address: "10.0.0.11:80".into(),
            ..BackendView::default()
        }],
        ..ServiceView::default()
    };
    let view = VipView {
        name: "web".into(),
        addresses: vec![VipAddressView {
            address: "10.0.0.100/24".into(),
            ..VipAddressView::default()
        }],
        services: vec![
            service("80/tcp", "XDP (eth0: driver)"),
            service("443/tcp", "nftables"),
            service("53/udp", "proxy"),
            service("8000-8099/tcp", "nftables"),
        ],
        ..VipView::default()
    };
    ClusterStatus { vips: vec![view], ..ClusterStatus::default() }
}

#[test]
fn what_another_engine_forwards_is_said_with_the_tool_for_it() {
    let status = status();
    let seen = |text: &str| seen_by_xdp(vip(text).unwrap(), &status);
    assert_eq!(seen("10.0.0.100"), Ok(()));
    assert_eq!(seen("10.0.0.100:80"), Ok(()));
    let said = seen("10.0.0.100:443").unwrap_err();
    assert!(said.contains("web 443/tcp is forwarded by nftables"), "{said}");
    assert!(said.contains("nft monitor trace") && said.contains("host 10.0.0.100"), "{said}");
    let said = seen("10.0.0.100:53").unwrap_err();
    assert!(said.contains("tcpdump") && !said.contains("nft"), "{said}");
    assert!(
        seen("10.0.0.100:8042").unwrap_err().contains("web 8000-8099/tcp is forwarded by nftables")
    );
    assert!(seen("10.0.0.100:22").unwrap_err().contains("has no service at port 22"));
    assert!(seen("10.0.0.1").unwrap_err().contains("these are: 10.0.0.100/24"));
    let said = elsewhere(None, &status);
    assert!(
        said.contains("web 443/tcp (nftables), web 53/udp (proxy), web 8000-8099/tcp"),
        "{said}"
    );
    assert_eq!(elsewhere(Some(vip("10.0.0.100:80").unwrap()), &status), "");
    assert_eq!(names(Some(&status)).backends[&IpAddr::from([10, 0, 0, 11])], "web1");
}

#[test]
fn the_end_says_how_many_and_how_many_not() {
    assert_eq!(summary(1, 0, None), "1 packet");
    assert!(summary(7, 3, None).starts_with("7 packets; 3 more were missed"));
    let said = summary(0, 0, Some(&status()));
    assert!(said.starts_with("no such packet came by XDP (eth0: driver): is this node"), "{said}");
}

//! Legs on a real segment: one whose address comes later, and datagrams longer than a frame.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::clock;
use buoy_kernel::poll::Poller;
use buoy_kernel::udp::Transport;
use buoy_model::Leg;
use buoy_model::limits::DATAGRAM_MAX;
use segment::{PATIENCE, Segment, ip, wait_until};
use std::net::SocketAddr;

const FIRST: Leg = Leg(0);
const SECOND: Leg = Leg(1);

fn open(addresses: [&str; 2]) -> Transport {
    Transport::open(&addresses.map(|address| address.parse().unwrap())).unwrap()
}

/// What comes next, and on which leg.
fn hear(transport: &mut Transport) -> (Vec<u8>, SocketAddr, Leg) {
    let mut poller = Poller::new();
    for (token, fd) in transport.fds().enumerate() {
        assert!(poller.watch(token, &fd));
    }
    let mut buffer = vec![0; DATAGRAM_MAX + 1];
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Some((length, from, leg)) = transport.receive(&mut buffer).unwrap() {
            buffer.truncate(length);
            return (buffer, from, leg);
        }
        assert!(clock::now() < deadline, "nothing came");
        poller.wait(Some(deadline)).unwrap();
    }
}

#[test]
fn a_leg_works_from_the_moment_that_its_address_is_there() {
    let test = "a_leg_works_from_the_moment_that_its_address_is_there";
    let Some(segment) = Segment::new(test) else { return };
    let mut far = segment.there(|| {
        ip("addr add 10.1.0.2/24 dev far");
        open(["10.0.0.2:4747", "10.1.0.2:4747"])
    });
    let mut near = open(["10.0.0.1:4747", "10.1.0.1:4747"]);
    assert_eq!(near.absent(), [SECOND]);
    let second: SocketAddr = "10.1.0.2:4747".parse().unwrap();
    near.send(FIRST, "10.0.0.2:4747".parse().unwrap(), b"ahoy").unwrap();
    assert_eq!(hear(&mut far), (b"ahoy".to_vec(), "10.0.0.1:4747".parse().unwrap(), FIRST));
    assert!(near.send(SECOND, second, b"ahoy").is_err());
    ip("addr add 10.1.0.1/24 dev near");
    wait_until("the second leg sends", || near.send(SECOND, second, b"ahoy").is_ok());
    assert_eq!(hear(&mut far), (b"ahoy".to_vec(), "10.1.0.1:4747".parse().unwrap(), SECOND));
    far.send(SECOND, "10.1.0.1:4747".parse().unwrap(), b"aye").unwrap();
    assert_eq!(hear(&mut near), (b"aye".to_vec(), second, SECOND));
    // It goes and comes back while the agent runs.
    ip("addr del 10.1.0.1/24 dev near");
    assert!(near.send(SECOND, second, b"ahoy").is_err());
    ip("addr add 10.1.0.1/24 dev near");
    wait_until("the second leg sends", || near.send(SECOND, second, b"ahoy").is_ok());
    assert_eq!(hear(&mut far).2, SECOND);
}

#[test]
fn a_long_list_crosses_a_segment_of_short_frames() {
    let Some(segment) = Segment::new("a_long_list_crosses_a_segment_of_short_frames") else {
        return;
    };
    let mut far = segment.there(|| open(["10.0.0.2:4747", "[fd00::2]:4747"]));
    let near = open(["10.0.0.1:4747", "[fd00::1]:4747"]);
    let list: Vec<u8> = (0..DATAGRAM_MAX).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (leg, to) in [(FIRST, "10.0.0.2:4747"), (SECOND, "[fd00::2]:4747")] {
        near.send(leg, to.parse().unwrap(), &list).unwrap();
        let (heard, _, on) = hear(&mut far);
        assert!(heard == list, "{to}");
        assert_eq!(on, leg);
    }
}

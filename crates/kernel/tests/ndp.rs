//! How a host with an IPv6 VIP answers its neighbours' questions, in every form that RFC 4861 allows.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::clock;
use buoy_kernel::gate::{Gate, GateError, Opening};
use buoy_kernel::netlink::Requests;
use buoy_kernel::packet::Announcer;
use buoy_kernel::poll::Poller;
use buoy_model::{FrameKind, Guard, Instant, Mac};
use buoy_wire::ndp::{self, Advertisement, Neighbour};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto, socket,
};
use segment::{PATIENCE, Segment, cidr};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

const VIP: &str = "fd00::100/64";
const ASKER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// Long enough for an answer, which comes within the system call that asks.
const QUIET: Duration = Duration::from_millis(50);

fn vip() -> Ipv6Addr {
    "fd00::100".parse().unwrap()
}

/// A question, as it may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Question {
    /// Of a group, by who knows nothing (RFC 4861 §7.2.2).
    Multicast,
    /// Of the VIP itself, by who knows where it was (§7.3.3).
    Unicast,
    /// The same without a source link-layer option, which a unicast question may leave out (§4.3).
    UnicastWithoutOption,
}

impl Question {
    const ALL: [Self; 3] = [Self::Multicast, Self::Unicast, Self::UnicastWithoutOption];

    fn frame(self, from: Mac, to: Mac) -> Vec<u8> {
        let mut frame = ndp::emit_solicitation(from, ASKER, vip()).to_vec();
        match self {
            Self::Multicast => return frame,
            Self::Unicast => {}
            Self::UnicastWithoutOption => {
                frame.truncate(14 + 40 + 24);
                frame[14 + 4..14 + 6].copy_from_slice(&24_u16.to_be_bytes());
            }
        }
        frame[..6].copy_from_slice(&to.0);
        frame[14 + 24..14 + 40].copy_from_slice(&vip().octets());
        sign(&mut frame);
        frame
    }
}

/// Sets the checksum of an ICMPv6 message (RFC 4443 §2.3).
fn sign(frame: &mut [u8]) {
    frame[14 + 42..14 + 44].fill(0);
    let (header, message) = frame[14..].split_at(40);
    let words = header[8..40].chunks(2).chain(message.chunks(2));
    let sum: u32 = words.map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let mut sum = sum + u32::try_from(message.len()).unwrap() + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    frame[14 + 42..14 + 44].copy_from_slice(&sum.to_be_bytes());
}

/// The far end of the segment, frame by frame.
struct Wire {
    socket: OwnedFd,
    link: LinkAddr,
}

impl Wire {
    fn open(segment: &Segment) -> Self {
        segment.there(|| {
            let all = getifaddrs().unwrap().filter(|i| i.interface_name == "far");
            let link = all.filter_map(|i| i.address?.as_link_addr().copied()).next().unwrap();
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let (family, protocol) = (AddressFamily::Packet, SockProtocol::EthAll);
            let socket = socket(family, SockType::Raw, flags, protocol).unwrap();
            bind(socket.as_raw_fd(), &link).unwrap();
            Self { socket, link }
        })
    }

    fn send(&self, frame: &[u8]) {
        sendto(self.socket.as_raw_fd(), frame, &self.link, MsgFlags::empty()).unwrap();
    }

    /// The next word of the VIP that comes within that time.
    fn hear(&self, within: Duration) -> Option<Advertisement> {
        let deadline = clock::now() + within;
        let mut poller = Poller::new();
        assert!(poller.watch(0, &self.socket));
        let mut frame = [0; 2048];
        loop {
            poller.wait(Some(deadline)).unwrap();
            while let Ok(length) = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                if let Some(Neighbour::Advertisement(said)) = ndp::parse(&frame[..length])
                    && said.target == vip()
                {
                    return Some(said);
                }
            }
            if deadline <= clock::now() {
                return None;
            }
        }
    }

    /// Asks until it is answered.
    fn ask(&self, question: &[u8]) -> Advertisement {
        let deadline = clock::now() + PATIENCE;
        loop {
            self.send(question);
            if let Some(answer) = self.hear(QUIET) {
                return answer;
            }
            assert!(clock::now() < deadline, "no answer");
        }
    }
}

/// A segment with the VIP and a gate on the near side, and its far end.
fn guarded(test: &str) -> Option<(Segment, Gate, Wire)> {
    let segment = Segment::new(test)?;
    let gate = match Gate::open(&[segment.near]) {
        Ok(gate) => gate,
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    Requests::open().unwrap().add_address(segment.near, cidr(VIP), 60).unwrap();
    let wire = Wire::open(&segment);
    Some((segment, gate, wire))
}

fn until(until: Instant) -> Opening {
    Opening { until, lease: None, guard: Guard::Neighbours }
}

#[test]
fn every_form_of_question_is_answered_and_none_when_the_gate_is_closed() {
    let test = "every_form_of_question_is_answered_and_none_when_the_gate_is_closed";
    let Some((segment, mut gate, wire)) = guarded(test) else { return };
    let address = vip().into();
    for question in Question::ALL {
        let frame = question.frame(segment.far_mac, segment.near_mac);
        gate.set(segment.near, address, until(clock::now() + PATIENCE + PATIENCE)).unwrap();
        let answer = wire.ask(&frame);
        assert!(answer.solicited, "{question:?}");
        // §7.2.4: who was asked by multicast says where it is; who was asked by unicast may not.
        match question {
            Question::Multicast => assert_eq!(answer.target_mac, Some(segment.near_mac)),
            Question::Unicast | Question::UnicastWithoutOption => {
                assert!(answer.target_mac.is_none_or(|mac| mac == segment.near_mac));
            }
        }
        gate.set(segment.near, address, until(Instant::ZERO)).unwrap();
        let before = gate.counters().ingress;
        while wire.hear(QUIET).is_some() {} // answers to what was asked before
        wire.send(&frame);
        assert_eq!(wire.hear(QUIET), None, "{question:?}");
        assert_eq!(gate.counters().ingress, before + 1, "{question:?}");
    }
}

#[test]
fn an_unsolicited_advertisement_overrides_what_neighbours_have() {
    let test = "an_unsolicited_advertisement_overrides_what_neighbours_have";
    let Some((segment, mut gate, wire)) = guarded(test) else { return };
    gate.set(segment.near, vip().into(), until(clock::now() + PATIENCE)).unwrap();
    let mut announcer = Announcer::open().unwrap();
    announcer.set_link(segment.near, segment.near_mac, false);
    for kind in [FrameKind::Gratuitous, FrameKind::Defence] {
        announcer.announce(segment.near, vip().into(), kind).unwrap();
        let said = wire.hear(PATIENCE).unwrap();
        assert!(said.overrides && !said.solicited && !said.router);
        assert_eq!(said.target_mac, Some(segment.near_mac));
    }
}

//! Asks every few milliseconds who has an IPv6 address and notes everyone who answers: the judge of
//! exclusivity for NDP.
//!
//! A neighbour solicitation has no room for a number that an answer repeats, but the answer goes to the
//! hardware address that the question gave as its sender's (RFC 4861 §4.3, source link-layer address).
//! So each question gives another one, and two advertisements to one of them are two answers to one
//! question. The observer's interface is promiscuous, because those addresses are nobody's.

use super::arp::HardwareAddress;
use super::stall::go_first_as_a_probe;
use super::{Metronome, Window};
use crate::namespace::Namespace;
use crate::{Error, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::Ipv6Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Ethernet type of IPv6.
const ETHERTYPE: u16 = 0x86dd;
/// First bytes of the hardware addresses that we give; locally administered.
const MARK: [u8; 2] = [0x02, 0xb6];
/// Between two questions: each one is a change in the neighbour table of who answers.
pub const BEAT: Duration = Duration::from_millis(4);
const NEXT_HEADER_ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Somebody answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// When the question was sent.
    pub asked: Instant,
    /// The number of the question.
    pub number: u32,
    /// Who.
    pub mac: HardwareAddress,
}

#[derive(Debug, Default)]
struct Log {
    asked: Vec<Instant>,
    answers: Vec<Answer>,
}

/// The observer; it ends when dropped.
#[derive(Debug)]
pub struct NdpObserver {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NdpObserver {
    /// Asks for one address from inside a namespace; `from` is an address of its `eth0`.
    pub fn start(inside: &Namespace, from: Ipv6Addr, target: Ipv6Addr) -> Result<Self> {
        inside.ip("link set eth0 promisc on")?;
        let socket = inside.enter(open)??;
        let log = Arc::new(Mutex::new(Log::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_log, its_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = Some(inside.spawn("ndp observer", move || {
            go_first_as_a_probe();
            let mut metronome = Metronome::new(BEAT);
            while !its_stop.load(Ordering::Relaxed) {
                metronome.wait();
                let mut log = its_log.lock().unwrap_or_else(PoisonError::into_inner);
                log.hear(&socket, target);
                log.ask(&socket, from, target);
            }
        })?);
        Ok(Self { log, stop, thread })
    }

    /// All answers to questions of a window.
    pub fn answers(&self, window: Window) -> Vec<Answer> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.answers.iter().filter(|answer| window.holds(answer.asked)).copied().collect()
    }

    /// How many questions of a window two hosts answered.
    pub fn answered_by_two(&self, window: Window) -> usize {
        let mut who: BTreeMap<u32, BTreeSet<HardwareAddress>> = BTreeMap::new();
        for answer in self.answers(window) {
            who.entry(answer.number).or_default().insert(answer.mac);
        }
        who.values().filter(|hosts| 1 < hosts.len()).count()
    }

    /// Who answered lately, if exactly one did.
    pub fn owner(&self) -> Option<HardwareAddress> {
        let now = Instant::now();
        let answers = self.answers(Window { from: now - 10 * BEAT, to: now });
        let first = answers.first()?.mac;
        answers.iter().all(|answer| answer.mac == first).then_some(first)
    }
}

impl Drop for NdpObserver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// A raw socket for IPv6 on `eth0` of this namespace.
fn open() -> Result<Socket> {
    let link = super::arp::link_address("eth0")?;
    let protocol = Protocol::from(i32::from(ETHERTYPE.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
        .map_err(Error::system("open a packet socket"))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &link).map_err(Error::errno("bind to eth0"))?;
    socket.set_nonblocking(true).map_err(Error::system("make the socket non-blocking"))?;
    Ok(socket)
}

impl Log {
    fn ask(&mut self, mut socket: &Socket, from: Ipv6Addr, target: Ipv6Addr) {
        let number = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
        self.asked.push(Instant::now());
        let [a, b, c, d] = number.to_be_bytes();
        // Without carrier nothing is sent, and nothing will be answered.
        let _unsent = socket.write(&solicitation([MARK[0], MARK[1], a, b, c, d], from, target));
    }

    fn hear(&mut self, mut socket: &Socket, target: Ipv6Addr) {
        let mut bytes = [0; 512];
        while let Ok(length) = socket.read(&mut bytes) {
            if let Some((number, mac)) = advertisement(&bytes[..length.min(512)], target)
                && let Some(asked) = self.asked.get(number as usize).copied()
            {
                self.answers.push(Answer { asked, number, mac });
            }
        }
    }
}

/// A neighbour solicitation as a frame, to the target's solicited-node group.
fn solicitation(mac: HardwareAddress, from: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = target.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[x, y, z]);
    let mut body = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    body.extend(target.octets());
    // Option 1 of 8 bytes: the source link-layer address.
    body.extend([1, 1]);
    body.extend(mac);
    let checksum = checksum(&from.octets(), &group, &body);
    body[2..4].copy_from_slice(&checksum.to_be_bytes());

    let mut frame = vec![0x33, 0x33, 0xff, x, y, z];
    frame.extend(mac);
    frame.extend(ETHERTYPE.to_be_bytes());
    let length = u16::try_from(body.len()).unwrap_or_default().to_be_bytes();
    frame.extend([0x60, 0, 0, 0, length[0], length[1], NEXT_HEADER_ICMPV6, 255]);
    frame.extend(from.octets());
    frame.extend(group);
    frame.extend(body);
    frame
}

/// The number of the question that a frame answers, and who sent it.
fn advertisement(frame: &[u8], target: Ipv6Addr) -> Option<(u32, HardwareAddress)> {
    let to: HardwareAddress = frame.get(..6)?.try_into().ok()?;
    let from: HardwareAddress = frame.get(6..12)?.try_into().ok()?;
    let (ip, body) = (frame.get(14..54)?, frame.get(54..)?);
    let answers = ip[6] == NEXT_HEADER_ICMPV6
        && body.first() == Some(&ADVERTISEMENT)
        && body.get(8..24)? == target.octets()
        && to[..2] == MARK;
    answers.then(|| (u32::from_be_bytes([to[2], to[3], to[4], to[5]]), from))
}

/// The checksum of ICMPv6 (RFC 4443 §2.3), which covers both addresses.
fn checksum(from: &[u8; 16], to: &[u8; 16], body: &[u8]) -> u16 {
    let length = u32::try_from(body.len()).unwrap_or_default().to_be_bytes();
    let pseudo = [&from[..], &to[..], &length, &[0, 0, 0, NEXT_HEADER_ICMPV6], body].concat();
    let sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_solicitation_sums_to_zero_and_is_no_answer() {
        let (from, target) = ("fd77::60".parse().unwrap(), "fd77::100".parse().unwrap());
        let frame = solicitation([2, 0xb6, 0, 0, 0, 7], from, target);
        assert_eq!(frame.len(), 14 + 40 + 32);
        let to: [u8; 16] = frame[38..54].try_into().unwrap();
        assert_eq!(checksum(&from.octets(), &to, &frame[54..]), 0);
        assert_eq!(advertisement(&frame, target), None);
    }

    #[test]
    fn an_advertisement_tells_which_question_it_answers() {
        let target: Ipv6Addr = "fd77::100".parse().unwrap();
        let mut frame = solicitation([2, 0, 0, 0, 0, 9], target, target);
        frame[..6].copy_from_slice(&[2, 0xb6, 0, 0, 1, 0]);
        frame[54] = ADVERTISEMENT;
        assert_eq!(advertisement(&frame, target), Some((256, [2, 0, 0, 0, 0, 9])));
        for length in 0..frame.len() - 8 {
            assert_eq!(advertisement(&frame[..length], target).is_some(), length >= 78);
        }
    }
}

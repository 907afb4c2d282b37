//! Asks every millisecond who has an address and notes everyone who answers: the judge of exclusivity.
//!
//! Each question carries its number in the sender's hardware address, which an answer must repeat
//! (RFC 826: "put the target's fields into the sender's"). So two answers to one number are two hosts
//! that answered one question: no clock and no queue can explain them away. The questions are
//! probes (RFC 5227: sender address 0.0.0.0), which leave no trace in anybody's neighbour table.

use super::stall::go_first_as_a_probe;
use super::{Metronome, TICK, Window};
use crate::namespace::Namespace;
use crate::{Error, Result};
use nix::sys::socket::LinkAddr;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Ethernet type of ARP.
const ETHERTYPE: u16 = 0x0806;
/// First bytes of the sender's hardware address in our questions; locally administered.
const MARK: [u8; 2] = [0x02, 0xb0];

/// Whoever has not answered so many questions has not had the address: loss explains no such row.
const AWHILE: u32 = 30;

/// A hardware address.
pub type HardwareAddress = [u8; 6];

/// Somebody answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    /// When the question was sent.
    pub asked: Instant,
    /// When the answer was read.
    pub heard: Instant,
    /// The number of the question.
    pub number: u32,
    /// For which address.
    pub address: Ipv4Addr,
    /// Who.
    pub mac: HardwareAddress,
}

/// Somebody announced an address without being asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// When it was read.
    pub heard: Instant,
    /// Which address.
    pub address: Ipv4Addr,
    /// Who.
    pub mac: HardwareAddress,
    /// Whether in the form of a request.
    pub request: bool,
}

/// A change of the one who answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change {
    /// The first question that the new one answered.
    pub at: Instant,
    /// Who answers now.
    pub mac: HardwareAddress,
}

#[derive(Debug, Default)]
struct Log {
    asked: Vec<Instant>,
    answers: Vec<Answer>,
    announcements: Vec<Announcement>,
}

/// The observer; it ends when dropped.
#[derive(Debug)]
pub struct ArpObserver {
    log: Arc<Mutex<Log>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ArpObserver {
    /// Asks for all these addresses every millisecond, from inside a namespace.
    pub fn start(inside: &Namespace, addresses: &[Ipv4Addr]) -> Result<Self> {
        Self::start_every(inside, addresses, TICK)
    }

    /// Asks at another beat; a question then stands for one of those.
    pub fn start_every(inside: &Namespace, addresses: &[Ipv4Addr], beat: Duration) -> Result<Self> {
        let (socket, mac) = inside.enter(open)??;
        let log = Arc::new(Mutex::new(Log::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_log, its_stop) = (Arc::clone(&log), Arc::clone(&stop));
        let addresses = addresses.to_vec();
        let thread = Some(inside.spawn("arp observer", move || {
            go_first_as_a_probe();
            let mut metronome = Metronome::new(beat);
            while !its_stop.load(Ordering::Relaxed) {
                metronome.wait();
                let mut log = its_log.lock().unwrap_or_else(PoisonError::into_inner);
                log.hear(&socket);
                log.ask(&socket, mac, &addresses);
            }
        })?);
        Ok(Self { log, stop, thread })
    }

    /// All answers for an address to questions of a window.
    pub fn answers(&self, address: Ipv4Addr, window: Window) -> Vec<Answer> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.answers
            .iter()
            .filter(|a| a.address == address && window.holds(a.asked))
            .copied()
            .collect()
    }

    /// All announcements of an address in a window.
    pub fn announcements(&self, address: Ipv4Addr, window: Window) -> Vec<Announcement> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = |a: &&Announcement| a.address == address && window.holds(a.heard);
        log.announcements.iter().filter(of_it).copied().collect()
    }

    /// Who answered for an address lately, if exactly one did.
    pub fn owner(&self, address: Ipv4Addr) -> Option<HardwareAddress> {
        let now = Instant::now();
        let lately = Window { from: now - Duration::from_millis(30), to: now };
        let answers = self.answers(address, lately);
        let first = answers.first()?.mac;
        answers.iter().all(|a| a.mac == first).then_some(first)
    }

    /// Questions of a window that two hosts answered; each stands for one millisecond.
    pub fn answered_by_two(&self, address: Ipv4Addr, window: Window) -> Vec<Instant> {
        answered_by_two(&self.answers(address, window))
    }

    /// When the answerer changed, in a window that begins with `before` as the owner.
    pub fn changes(
        &self,
        address: Ipv4Addr,
        window: Window,
        before: Option<HardwareAddress>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut current = before;
        for answer in self.answers(address, window) {
            if current != Some(answer.mac) {
                changes.push(Change { at: answer.asked, mac: answer.mac });
                current = Some(answer.mac);
            }
        }
        changes
    }

    /// How often an address changed hands in a window: somebody answers who had not for a while, and
    /// somebody else had meanwhile. Two answerers at a time are one change, not one for each answer.
    pub fn takeovers(&self, address: Ipv4Addr, window: Window) -> usize {
        takeovers(&self.answers(address, window))
    }

    /// The longest run of questions in a window that nobody answered for an address, each taken for
    /// one millisecond.
    pub fn unanswered(&self, address: Ipv4Addr, window: Window) -> Duration {
        let answers = self.answers(address, window);
        let answered: BTreeSet<u32> = answers.into_iter().map(|answer| answer.number).collect();
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut run, mut longest) = (0, 0);
        for (number, _) in (0u32..).zip(&log.asked).filter(|(_, at)| window.holds(**at)) {
            run = if answered.contains(&number) { 0 } else { run + 1 };
            longest = longest.max(run);
        }
        TICK * longest
    }

    /// The longest time in a window that this thread was not run, beyond its beat: what the machine
    /// itself adds to every figure.
    pub fn stall(&self, window: Window) -> Duration {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let asked: Vec<Instant> =
            log.asked.iter().copied().filter(|at| window.holds(*at)).collect();
        let gaps = asked.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default().saturating_sub(TICK)
    }

    /// How many questions were sent in a window, to know that the observer was awake.
    pub fn asked(&self, window: Window) -> usize {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.asked.iter().filter(|at| window.holds(**at)).count()
    }
}

impl Drop for ArpObserver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn answered_by_two(answers: &[Answer]) -> Vec<Instant> {
    let mut first = BTreeMap::new();
    let mut twice = BTreeMap::new();
    for answer in answers {
        if *first.entry(answer.number).or_insert(answer.mac) != answer.mac {
            twice.insert(answer.number, answer.asked);
        }
    }
    twice.into_values().collect()
}

/// See `ArpObserver::takeovers`.
fn takeovers(answers: &[Answer]) -> usize {
    let mut last: BTreeMap<HardwareAddress, u32> = BTreeMap::new();
    let mut count = 0;
    for answer in answers {
        let own = last.get(&answer.mac).copied();
        let mut others =
            last.iter().filter(|(mac, _)| **mac != answer.mac).map(|(_, number)| *number);
        let after_another = others.any(|number| own.is_none_or(|own| own < number));
        let afresh = own.is_none_or(|own| own + AWHILE < answer.number);
        count += usize::from(afresh && after_another);
        last.insert(answer.mac, answer.number);
    }
    count
}

/// Sends one frame as it is out of `eth0` of a namespace: for claims that no host would make.
pub fn inject(inside: &Namespace, frame: &[u8]) -> Result<()> {
    inside.enter(|| {
        let (socket, _mac) = open()?;
        (&socket).write_all(frame).map_err(Error::system("send a frame"))
    })?
}

/// The request form of a gratuitous ARP: "this address is at that MAC".
pub fn gratuitous(mac: HardwareAddress, address: Ipv4Addr) -> Vec<u8> {
    frame(mac, mac, address, address)
}

/// A raw socket for ARP on `eth0` of this namespace, and that interface's MAC.
pub(super) fn open() -> Result<(Socket, HardwareAddress)> {
    let link = link_address("eth0")?;
    let mac = link.addr().ok_or(Error::Unknown { what: "hardware address".to_owned() })?;
    let protocol = Protocol::from(i32::from(ETHERTYPE.to_be()));
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
        .map_err(Error::system("open a packet socket"))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &link).map_err(Error::errno("bind to eth0"))?;
    socket.set_nonblocking(true).map_err(Error::system("make the socket non-blocking"))?;
    // A burst of answers while this thread waits for the processor must not be lost.
    let _smaller = socket.set_recv_buffer_size(4 << 20);
    Ok((socket, mac))
}

/// Asks once who has an address; nothing in the question tells it from another one.
pub(super) fn ask(mut socket: &Socket, mac: HardwareAddress, address: Ipv4Addr) {
    // Without carrier nothing is sent, and nothing will be answered.
    let _unsent = socket.write(&frame(mac, mac, Ipv4Addr::UNSPECIFIED, address));
}

/// Reads what has come in: who says to have which address, in an answer or by itself.
pub(super) fn each_claim(mut socket: &Socket, mut claim: impl FnMut(Ipv4Addr, HardwareAddress)) {
    let mut bytes = [0; 256];
    while let Ok(length) = socket.read(&mut bytes) {
        let Some(arp) = bytes.get(14..length.min(42)).filter(|arp| arp.len() == 28) else {
            continue;
        };
        let mac = <[u8; 6]>::try_from(&arp[8..14]).unwrap_or_default();
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(&arp[14..18]).unwrap_or_default());
        if !address.is_unspecified() {
            claim(address, mac);
        }
    }
}

pub(super) fn link_address(name: &str) -> Result<LinkAddr> {
    let all = nix::ifaddrs::getifaddrs().map_err(Error::errno("list the interfaces"))?;
    all.filter(|interface| interface.interface_name == name)
        .find_map(|interface| interface.address?.as_link_addr().copied())
        .ok_or_else(|| Error::Unknown { what: format!("interface {name}") })
}

fn frame(
    ether: HardwareAddress,
    sender: HardwareAddress,
    sender_ip: Ipv4Addr,
    target_ip: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = Vec::with_capacity(60);
    frame.extend([0xff; 6]);
    frame.extend(ether);
    frame.extend(ETHERTYPE.to_be_bytes());
    // Ethernet, IPv4, their lengths, request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(sender);
    frame.extend(sender_ip.octets());
    frame.extend([0; 6]);
    frame.extend(target_ip.octets());
    frame.resize(60, 0);
    frame
}

impl Log {
    fn ask(&mut self, mut socket: &Socket, mac: HardwareAddress, addresses: &[Ipv4Addr]) {
        let number = u32::try_from(self.asked.len()).unwrap_or(u32::MAX);
        let [a, b, c, d] = number.to_be_bytes();
        self.asked.push(Instant::now());
        for address in addresses {
            let question =
                frame(mac, [MARK[0], MARK[1], a, b, c, d], Ipv4Addr::UNSPECIFIED, *address);
            // Without carrier nothing is sent, and nothing will be answered.
            let _unsent = socket.write(&question);
        }
    }

    fn hear(&mut self, mut socket: &Socket) {
        let mut bytes = [0; 256];
        while let Ok(length) = socket.read(&mut bytes) {
            let heard = Instant::now();
            if let Some(arp) = bytes.get(14..length.min(42)).filter(|arp| arp.len() == 28) {
                self.note(heard, arp);
            }
        }
    }

    fn note(&mut self, heard: Instant, arp: &[u8]) {
        let six = |at: usize| <[u8; 6]>::try_from(&arp[at..at + 6]).unwrap_or_default();
        let four = |at: usize| <[u8; 4]>::try_from(&arp[at..at + 4]).unwrap_or_default();
        let (mac, address) = (six(8), Ipv4Addr::from(four(14)));
        let reply = arp[6..8] == [0, 2];
        if reply && arp[18..20] == MARK {
            let number = u32::from_be_bytes(four(20));
            if let Some(asked) = self.asked.get(number as usize).copied() {
                self.answers.push(Answer { asked, heard, number, address, mac });
            }
        } else if address == Ipv4Addr::from(four(24)) && !address.is_unspecified() {
            self.announcements.push(Announcement { heard, address, mac, request: !reply });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_is_a_new_answerer_and_neither_loss_nor_a_second_one_beside_it() {
        let now = Instant::now();
        let answers = |pattern: &[(u32, u8)]| {
            let answer = |&(number, last)| Answer {
                asked: now,
                heard: now,
                number,
                address: Ipv4Addr::LOCALHOST,
                mac: [0, 0, 0, 0, 0, last],
            };
            pattern.iter().map(answer).collect::<Vec<_>>()
        };
        for (pattern, count) in [
            (vec![], 0),
            (vec![(1, 1), (2, 1), (200, 1)], 0),
            (vec![(1, 1), (2, 2), (3, 2)], 1),
            (vec![(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2)], 1),
            (vec![(1, 1), (2, 2), (60, 2), (61, 1), (62, 1)], 2),
        ] {
            assert_eq!(takeovers(&answers(&pattern)), count, "{pattern:?}");
        }
    }

    #[test]
    fn two_answers_to_one_number_are_two_answerers_and_one_host_twice_is_not() {
        let now = Instant::now();
        let answer = |number, last| Answer {
            asked: now + TICK * number,
            heard: now,
            number,
            address: Ipv4Addr::LOCALHOST,
            mac: [0, 0, 0, 0, 0, last],
        };
        let one = [answer(1, 1), answer(1, 1), answer(2, 1), answer(3, 2)];
        assert_eq!(answered_by_two(&one), []);
        let two = [answer(1, 1), answer(2, 1), answer(2, 2), answer(2, 2)];
        assert_eq!(answered_by_two(&two), [now + TICK * 2]);
    }
}

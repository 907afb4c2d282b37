//! Makes up a client's packet, runs the program on it, and reads what became of it.

use super::{Drop, Fast, FastError, Verdict};
use buoy_model::{Mac, Protocol};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;
const TCP: usize = 20;
const UDP: usize = 8;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// How often a packet that is dropped is tried where more than one reason is counted.
const TRIES: usize = 64;

/// A packet as a client would send it; both addresses are of one family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// The client.
    pub from: SocketAddr,
    /// The VIP and its port.
    pub to: SocketAddr,
    /// The transport.
    pub protocol: Protocol,
    /// Of TCP: it opens a connection, rather than to belong to one.
    pub opens: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// The kernel has it, unchanged.
    Passed,
    /// It is gone; the reason, if the counters tell.
    Dropped(Option<Drop>),
    /// It goes out.
    Sent {
        /// To which Ethernet address.
        mac: Mac,
        /// The destination of the (outer) IP header.
        to: IpAddr,
        /// Its port there; of what is in another packet by itself, none.
        port: Option<u16>,
    },
}

impl Fast {
    /// What the program does with such a packet. It is counted like any other, and a connection that it
    /// opens is remembered for a moment where that is done, and counts against the limit of its client.
    pub fn trace(&self, packet: &Packet) -> Result<Fate, FastError> {
        let frame = frame(packet);
        let mut grown = Grown(Drop::ALL.map(|reason| (reason, 0)).to_vec());
        for _ in 0..TRIES {
            let before = self.dropped();
            let tried = self.try_frame(&frame)?;
            match tried.verdict {
                Verdict::Pass => return Ok(Fate::Passed),
                Verdict::Drop | Verdict::Aborted => {}
                Verdict::Transmit | Verdict::Redirect => {
                    return Ok(sent(&tried.frame).unwrap_or(Fate::Dropped(None)));
                }
            }
            let after = self.dropped();
            grown.add(|reason| after[&reason].saturating_sub(before[&reason]));
            if grown.0.len() < 2 {
                break;
            }
        }
        Ok(Fate::Dropped(grown.own()))
    }
}

/// The reasons that were counted with each try, and how often. Other packets are dropped meanwhile, perhaps a flood.
struct Grown(Vec<(Drop, u64)>);

impl Grown {
    fn add(&mut self, by: impl Fn(Drop) -> u64) {
        self.0.iter_mut().for_each(|(reason, sum)| match by(*reason) {
            0 => *sum = u64::MAX,
            more => *sum += more,
        });
        self.0.retain(|(_, sum)| *sum != u64::MAX);
    }

    /// That of the packet itself grew by one each time, and by more only where others share it.
    fn own(&self) -> Option<Drop> {
        let least = self.0.iter().map(|(_, sum)| *sum).min()?;
        let mut own = self.0.iter().filter(|(_, sum)| *sum == least);
        let (reason, _) = own.next()?;
        own.next().is_none().then_some(*reason)
    }
}

fn frame(packet: &Packet) -> Vec<u8> {
    let (number, length) = match packet.protocol {
        Protocol::Tcp => (6, TCP),
        Protocol::Udp => (17, UDP),
    };
    // From and to nobody: the program does not look.
    let mut frame = vec![0; ETHERNET];
    match (packet.from.ip(), packet.to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            frame[12..].copy_from_slice(&[0x08, 0x00]);
            let [high, low] = as_length(IPV4 + length);
            frame.extend([0x45, 0, high, low, 0, 0, 0, 0, 64, number, 0, 0]);
            frame.extend(from.octets());
            frame.extend(to.octets());
        }
        (from, to) => {
            frame[12..].copy_from_slice(&[0x86, 0xdd]);
            let [high, low] = as_length(length);
            frame.extend([0x60, 0, 0, 0, high, low, number, 64]);
            frame.extend(as_v6(from).octets());
            frame.extend(as_v6(to).octets());
        }
    }
    frame.extend(packet.from.port().to_be_bytes());
    frame.extend(packet.to.port().to_be_bytes());
    match packet.protocol {
        Protocol::Tcp => {
            let flags = if packet.opens { SYN } else { ACK };
            frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        }
        Protocol::Udp => {
            let [high, low] = as_length(length);
            frame.extend([high, low, 0, 0]);
        }
    }
    frame
}

fn as_length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn sent(frame: &[u8]) -> Option<Fate> {
    let mac = Mac(frame.get(..6)?.try_into().ok()?);
    let ip = frame.get(ETHERNET..)?;
    let (to, next, header): (IpAddr, u8, usize) = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => {
            let to: [u8; 4] = ip.get(16..IPV4)?.try_into().ok()?;
            (Ipv4Addr::from(to).into(), *ip.get(9)?, IPV4)
        }
        _ => {
            let to: [u8; 16] = ip.get(24..IPV6)?.try_into().ok()?;
            (Ipv6Addr::from(to).into(), *ip.get(6)?, IPV6)
        }
    };
    let port = || Some(u16::from_be_bytes(ip.get(header + 2..header + 4)?.try_into().ok()?));
    let port = if [6, 17].contains(&next) { port() } else { None };
    Some(Fate::Sent { mac, to, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_packet_is_told_from_those_of_others() {
        let own = |tries: &[[u64; 3]]| {
            let three = [Drop::IpHeader, Drop::TcpHeader, Drop::NoBackend];
            let mut grown = Grown(three.map(|reason| (reason, 0)).to_vec());
            for each in tries {
                grown.add(|reason| each[three.iter().position(|r| *r == reason).unwrap()]);
            }
            grown.own()
        };
        assert_eq!(own(&[[0, 0, 1]]), Some(Drop::NoBackend));
        assert_eq!(own(&[[0, 9, 1], [0, 0, 1]]), Some(Drop::NoBackend), "others were dropped once");
        assert_eq!(own(&[[0, 9, 1], [1, 3, 1]]), Some(Drop::NoBackend), "or are all the time");
        assert_eq!(own(&[[0, 1, 7], [0, 0, 9]]), Some(Drop::NoBackend), "and for the same reason");
        assert_eq!(own(&[[0, 1, 1], [0, 1, 1]]), None, "nobody can tell");
        assert_eq!(own(&[[0, 0, 0]]), None);
    }

    #[test]
    fn what_is_made_up_is_read_as_what_it_is() {
        for (from, to) in [("10.9.0.9:4000", "10.0.0.100:80"), ("[fd09::9]:4000", "[fd00::100]:80")]
        {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for (protocol, length) in [(Protocol::Tcp, TCP), (Protocol::Udp, UDP)] {
                let frame = frame(&Packet { from, to, protocol, opens: true });
                let header = if from.is_ipv4() { IPV4 } else { IPV6 };
                assert_eq!(frame.len(), ETHERNET + header + length);
                let fate = Fate::Sent { mac: Mac([0; 6]), to: to.ip(), port: Some(80) };
                assert_eq!(sent(&frame), Some(fate));
                // No cut of it is read past its end.
                assert!((0..34).all(|length| sent(&frame[..length]).is_none()));
            }
        }
    }
}

//! Writes packets as pcapng, each as it came and as it left, with what was done with it as a comment.
//!
//! Four kinds of bytes: a section, an interface for each that a packet came or left by, and packets. Two views
//! of one packet have the same packet id, and the verdict of XDP in an option of its own
//! (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3). Wireshark and tcpdump read it.

use buoy_kernel::fast::{Captured, Frame};
use buoy_model::LinkId;
use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LENGTH_UNKNOWN: u64 = u64::MAX;
const ETHERNET: u16 = 1;
const COMMENT: u16 = 1;
/// Of a section: the program that wrote it.
const PROGRAM: u16 = 4;
/// Of an interface.
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const NANOSECONDS: u8 = 9;
/// Of a packet.
const FLAGS: u16 = 2;
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
const PACKET_ID: u16 = 5;
const VERDICT: u16 = 7;
/// In a verdict: of a program at XDP.
const VERDICT_XDP: u8 = 2;

/// A file that packets are written to.
pub(super) struct Pcapng<W> {
    to: W,
    /// In the order in which they were described.
    links: Vec<LinkId>,
    packets: u64,
}

impl<W: Write> Pcapng<W> {
    /// Begins a section.
    pub(super) fn new(mut to: W) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend(1_u16.to_le_bytes());
        body.extend(0_u16.to_le_bytes());
        body.extend(LENGTH_UNKNOWN.to_le_bytes());
        option(&mut body, PROGRAM, concat!("buoy ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, 0, &[]);
        to.write_all(&block(SECTION, &body))?;
        Ok(Self { to, links: Vec::new(), packets: 0 })
    }

    /// Writes a packet, and what is said of it; `name` is how an interface is called.
    pub(super) fn write(
        &mut self,
        captured: &Captured,
        comment: &str,
        name: impl Fn(LinkId) -> String,
    ) -> io::Result<()> {
        self.packets += 1;
        let Captured { at, came, left, action } = captured;
        let verdict = super::words::xdp_verdict(captured);
        self.view(came, *at, INBOUND, verdict, comment, &name)?;
        if let Some(left) = left {
            let inbound = matches!(action, buoy_kernel::fast::Action::Translated);
            let direction = if inbound { INBOUND } else { OUTBOUND };
            self.view(left, *at, direction, verdict, &format!("after: {comment}"), &name)?;
        }
        self.to.flush()
    }

    fn view(
        &mut self,
        frame: &Frame,
        at: u64,
        direction: u32,
        verdict: u64,
        comment: &str,
        name: &impl Fn(LinkId) -> String,
    ) -> io::Result<()> {
        let interface = self.interface(frame.link, name)?;
        let mut body = Vec::new();
        body.extend(interface.to_le_bytes());
        let [low, high] = [at & 0xffff_ffff, at >> 32].map(|half| (half as u32).to_le_bytes());
        body.extend(high);
        body.extend(low);
        body.extend(length(&frame.head).to_le_bytes());
        body.extend(frame.length.to_le_bytes());
        padded(&mut body, &frame.head);
        option(&mut body, COMMENT, comment.as_bytes());
        option(&mut body, FLAGS, &direction.to_le_bytes());
        option(&mut body, PACKET_ID, &self.packets.to_le_bytes());
        let verdict: Vec<u8> = [VERDICT_XDP].into_iter().chain(verdict.to_le_bytes()).collect();
        option(&mut body, VERDICT, &verdict);
        option(&mut body, 0, &[]);
        self.to.write_all(&block(PACKET, &body))
    }

    /// The number of an interface in this section, described before it is used.
    fn interface(&mut self, link: LinkId, name: &impl Fn(LinkId) -> String) -> io::Result<u32> {
        if let Some(known) = self.links.iter().position(|known| *known == link) {
            return Ok(known as u32);
        }
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        body.extend([0; 2]);
        // No limit of the file's: each packet says what was kept of it.
        body.extend([0; 4]);
        option(&mut body, NAME, name(link).as_bytes());
        option(&mut body, RESOLUTION, &[NANOSECONDS]);
        option(&mut body, 0, &[]);
        self.to.write_all(&block(INTERFACE, &body))?;
        self.links.push(link);
        Ok(self.links.len() as u32 - 1)
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Number 0, with nothing, ends the options of a block.
fn option(body: &mut Vec<u8>, number: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(number.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = (length(body) + 12).to_le_bytes();
    [&kind.to_le_bytes(), &length, body, &length].concat()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{denied, sent};
    use super::*;
    use std::process::{Command, Stdio};

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut pcapng = Pcapng::new(&mut bytes).unwrap();
        for (captured, comment) in [(sent(), "dsr to web1"), (denied(), "dropped: source")] {
            pcapng.write(&captured, comment, |link| format!("eth{}", link.0)).unwrap();
        }
        bytes
    }

    /// The blocks of a file: kind and body.
    fn blocks(mut bytes: &[u8]) -> Vec<(u32, &[u8])> {
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut blocks = Vec::new();
        while !bytes.is_empty() {
            let length = word(&bytes[4..]) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(&bytes[length - 4..]) as usize, length);
            blocks.push((word(bytes), &bytes[8..length - 4]));
            bytes = &bytes[length..];
        }
        blocks
    }

    #[test]
    fn each_packet_has_a_block_as_it_came_and_one_as_it_left() {
        let bytes = file();
        let blocks = blocks(&bytes);
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET]);
        let interfaces: Vec<u8> = [2, 4, 5].map(|at: usize| blocks[at].1[0]).to_vec();
        assert_eq!(interfaces, [0, 1, 0]);
        let has = |at: usize, text: &[u8]| blocks[at].1.windows(text.len()).any(|w| w == text);
        assert!(has(2, b"dsr to web1") && has(4, b"after: dsr to web1"));
        assert!(has(1, b"eth2") && has(3, b"eth3") && has(5, b"dropped: source"));
        // The same packet twice, then another one.
        let id = |n: u64| [&PACKET_ID.to_le_bytes()[..], &[8, 0], &n.to_le_bytes()].concat();
        assert!(has(2, &id(1)) && has(4, &id(1)) && has(5, &id(2)));
        assert!(has(5, &[7, 0, 9, 0, VERDICT_XDP, 1, 0, 0]), "XDP_DROP");
    }

    #[test]
    fn tcpdump_reads_it() {
        let test = "tcpdump_reads_it";
        let child = Command::new("tcpdump")
            .args(["-nnttr", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            let _ = writeln!(io::stderr(), "SKIPPED: {test}: there is no tcpdump");
            return;
        };
        child.stdin.take().unwrap().write_all(&file()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
        assert_eq!(said.lines().count(), 3, "{said}{error}");
        assert!(said.contains("IP 10.9.0.9.1234 > 10.0.0.100.80: Flags [S]"), "{said}");
        assert!(said.starts_with("1795366923.0"), "{said}");
    }
}

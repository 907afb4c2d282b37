//! The Ethernet header of the frames that `arp` and `ndp` read and write.

use crate::bytes::Reader;
use buoy_model::Mac;

/// Bytes of the header.
pub const HEADER_LEN: usize = 14;
/// Bytes of the shortest frame, without its check sequence (IEEE 802.3 §3.2.8); shorter ones are padded.
pub const FRAME_MIN: usize = 60;
/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;

/// The header of an untagged Ethernet II frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// To whom.
    pub destination: Mac,
    /// From whom.
    pub source: Mac,
    /// What follows.
    pub ethertype: u16,
}

impl Header {
    /// Splits a frame into its header and what follows it; `None` when it is too short.
    pub fn parse(frame: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader::new(frame);
        let destination = Mac(reader.array()?);
        let source = Mac(reader.array()?);
        let ethertype = reader.u16()?;
        Some((Self { destination, source, ethertype }, reader.rest()))
    }

    /// The header's bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..6].copy_from_slice(&self.destination.0);
        bytes[6..12].copy_from_slice(&self.source.0);
        bytes[12..14].copy_from_slice(&self.ethertype.to_be_bytes());
        bytes
    }
}

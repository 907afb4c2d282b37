//! VRRP advertisements (RFC 9568 §5.1, RFC 3768 §5.1): the payload of IP protocol 112, with the HMAC trailer of
//! draft-cassen-vrrp-auth-hmac.
//!
//! ```text
//!   0        version (4 bits), type (4 bits) = 1
//!   1        virtual router identifier
//!   2        priority
//!   3        number of addresses
//!   4..6     v3: 4 bits reserved, 12 bits interval in 1/100 s;   v2: authentication type, interval in s
//!   6..8     checksum
//!   8..      the addresses, then in v2 eight bytes of authentication data
//!   trailer  type = 1, key, two zeros, seconds (4), 1/65536 s (2), counter (2), the first half of an HMAC-SHA256 (16)
//! ```
//!
//! What is looked at in which order: length, version, type, checksum, number of addresses, and then the proof.
//! Absent on purpose: hops, peers, intervals that differ, replay: those are `core`'s to judge.

use crate::checksum::{add, fold, pseudo_header};
use alloc::vec::Vec;
use buoy_model::{
    Advert, AdvertReject, Password, Proof, Stamp, VirtualRouter, VrrpAuth, VrrpChecksum, VrrpHmac,
    VrrpKey, VrrpVersion,
};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The IP protocol.
pub const PROTOCOL: u8 = 112;

/// Where everybody listens (RFC 9568 §5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Where everybody listens (RFC 9568 §5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

const TYPE_ADVERTISEMENT: u8 = 1;
const HEADER_LEN: usize = 8;
const PASSWORD_LEN: usize = 8;
const AUTH_NONE: u8 = 0;
const AUTH_PASSWORD: u8 = 1;
const TRAILER_LEN: usize = 28;
const TRAILER_TYPE: u8 = 1;
const TAG_AT: usize = TRAILER_LEN - TAG_LEN;
const TAG_LEN: usize = 16;
/// The interval of version 3 has twelve bits.
const CENTISECONDS_MAX: u16 = 0xfff;

/// Where a packet comes from and goes to, as its IP header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Envelope {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
}

impl Envelope {
    const fn address_len(self) -> usize {
        match self.source {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 16,
        }
    }
}

/// What one packet says beside what its router always says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Said {
    /// Priority, as of now.
    pub priority: u8,
    /// The peers send the checksum of the message alone.
    pub peers_are_plain: bool,
    /// When it is sent, for the trailer.
    pub stamp: Stamp,
}

/// The packet, without its IP header.
pub fn emit(router: &VirtualRouter, envelope: Envelope, said: Said) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER_LEN + 16 * router.addresses.len() + TRAILER_LEN);
    let (version, count) = (version_number(router.version), router.addresses.len());
    let count = u8::try_from(count).unwrap_or(u8::MAX);
    message.extend([version << 4 | TYPE_ADVERTISEMENT, router.id, said.priority, count]);
    let password = match (&router.auth, router.version) {
        (VrrpAuth::Password(password), VrrpVersion::V2) => Some(password.0),
        (VrrpAuth::Password(_), VrrpVersion::V3) | (VrrpAuth::None | VrrpAuth::Hmac(_), _) => None,
    };
    match router.version {
        VrrpVersion::V2 => {
            let seconds = u8::try_from(router.interval.as_secs()).unwrap_or(u8::MAX);
            message.extend([if password.is_some() { AUTH_PASSWORD } else { AUTH_NONE }, seconds]);
        }
        VrrpVersion::V3 => {
            let centiseconds = u16::try_from(router.interval.as_millis() / 10);
            let centiseconds = centiseconds.unwrap_or(CENTISECONDS_MAX).min(CENTISECONDS_MAX);
            message.extend(centiseconds.to_be_bytes());
        }
    }
    message.extend([0, 0]);
    for address in router.addresses.iter().take(usize::from(count)) {
        match address {
            IpAddr::V4(v4) => message.extend(v4.octets()),
            IpAddr::V6(v6) => message.extend(v6.octets()),
        }
    }
    if router.version == VrrpVersion::V2 {
        message.extend(password.unwrap_or_default());
    }
    let pdu = message.len();
    if let VrrpAuth::Hmac(hmac) = &router.auth
        && let Some(key) = hmac.signs()
    {
        sign(&mut message, envelope, key, said.stamp);
    }
    let plain = match router.checksum {
        VrrpChecksum::Auto => said.peers_are_plain,
        VrrpChecksum::PseudoHeader => false,
        VrrpChecksum::Message => true,
    };
    let sum = checksum(&message, pdu, envelope, plain);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The advertisement in a packet, without its IP header.
pub fn parse(
    message: &[u8],
    envelope: Envelope,
    keys: Option<&VrrpHmac>,
) -> Result<Advert, AdvertReject> {
    let header: &[u8; HEADER_LEN] = message.first_chunk().ok_or(AdvertReject::Truncated)?;
    let version = match header[0] >> 4 {
        2 => VrrpVersion::V2,
        3 => VrrpVersion::V3,
        _ => return Err(AdvertReject::Version),
    };
    if header[0] & 0xf != TYPE_ADVERTISEMENT {
        return Err(AdvertReject::Kind);
    }
    let (count, size) = (usize::from(header[3]), envelope.address_len());
    let mut pdu = HEADER_LEN + count * size;
    if version == VrrpVersion::V2 {
        // RFC 3768 has no IPv6.
        if envelope.source.is_ipv6() {
            return Err(AdvertReject::Version);
        }
        pdu += PASSWORD_LEN;
    }
    let trailer = message.get(pdu..).ok_or(AdvertReject::Truncated)?;
    let plain_checksum = find_checksum(message, pdu, envelope, version)?;
    if count == 0 {
        return Err(AdvertReject::NoAddress);
    }
    let addresses = message[HEADER_LEN..HEADER_LEN + count * size].chunks(size);
    let interval = match version {
        VrrpVersion::V2 => Duration::from_secs(header[5].into()),
        VrrpVersion::V3 => {
            let centiseconds = u16::from_be_bytes([header[4], header[5]]) & CENTISECONDS_MAX;
            Duration::from_millis(u64::from(centiseconds) * 10)
        }
    };
    let password = match (version, header[4]) {
        (VrrpVersion::V3, _) | (VrrpVersion::V2, AUTH_NONE) => None,
        (VrrpVersion::V2, AUTH_PASSWORD) => {
            let bytes = message[pdu - PASSWORD_LEN..].first_chunk();
            Some(Proof::Password(Password(bytes.copied().unwrap_or_default())))
        }
        (VrrpVersion::V2, other) => Some(Proof::Unknown(other)),
    };
    Ok(Advert {
        version,
        id: header[1],
        priority: header[2],
        interval,
        addresses: addresses.map(address).collect(),
        plain_checksum,
        proof: password.unwrap_or_else(|| check(message, pdu, trailer, envelope, keys)),
    })
}

/// The virtual router that a packet is about, before anything else of it is believed.
pub fn router_id(message: &[u8]) -> Option<u8> {
    message.get(1).copied()
}

const fn version_number(version: VrrpVersion) -> u8 {
    match version {
        VrrpVersion::V2 => 2,
        VrrpVersion::V3 => 3,
    }
}

fn address(bytes: &[u8]) -> IpAddr {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => IpAddr::from(v4),
        (Err(_), Ok(v6)) => IpAddr::from(v6),
        (Err(_), Err(_)) => IpAddr::from([0; 4]),
    }
}

/// Which of the two forms the checksum has: false with a pseudo-header, true without one.
fn find_checksum(
    message: &[u8],
    pdu: usize,
    envelope: Envelope,
    version: VrrpVersion,
) -> Result<bool, AdvertReject> {
    let is_right = |plain| checksum(message, pdu, envelope, plain) == 0;
    let found = match (version, envelope.source) {
        (VrrpVersion::V2, _) => is_right(false).then_some(false),
        (VrrpVersion::V3, IpAddr::V6(_)) => is_right(false).then_some(false),
        (VrrpVersion::V3, IpAddr::V4(_)) => {
            [false, true].into_iter().find(|plain| is_right(*plain))
        }
    };
    found.ok_or(AdvertReject::Checksum)
}

/// Zero over what holds its own checksum. Over IPv6 it covers the trailer, because there the kernel makes it; over
/// IPv4 it does not.
fn checksum(message: &[u8], pdu: usize, envelope: Envelope, plain: bool) -> u16 {
    let is_v2 = message.first().is_some_and(|byte| byte >> 4 == 2);
    let covered = match envelope.source {
        IpAddr::V4(_) => &message[..pdu],
        IpAddr::V6(_) => message,
    };
    let start = match envelope.source {
        IpAddr::V4(_) if plain || is_v2 => 0,
        IpAddr::V4(_) | IpAddr::V6(_) => {
            pseudo_header(envelope.source, envelope.destination, PROTOCOL, covered.len())
        }
    };
    fold(add(start, covered))
}

fn sign(message: &mut Vec<u8>, envelope: Envelope, key: &VrrpKey, stamp: Stamp) {
    message.extend([TRAILER_TYPE, key.id, 0, 0]);
    message.extend(stamp.seconds.to_be_bytes());
    message.extend(stamp.fraction.to_be_bytes());
    message.extend(stamp.counter.to_be_bytes());
    let tag = tag(message, envelope, key);
    message.extend(tag);
}

/// What a trailer proves.
fn check(
    message: &[u8],
    pdu: usize,
    trailer: &[u8],
    envelope: Envelope,
    keys: Option<&VrrpHmac>,
) -> Proof {
    let Some(trailer) = trailer.first_chunk::<TRAILER_LEN>() else {
        // Less is the padding of a short frame.
        return Proof::None;
    };
    if trailer[0] != TRAILER_TYPE || trailer[2..4] != [0, 0] {
        return Proof::Unknown(trailer[0]);
    }
    let key = keys.and_then(|hmac| hmac.keys.iter().find(|key| key.id == trailer[1]));
    let Some(key) = key else { return Proof::Forged };
    let expected = tag(&message[..pdu + TAG_AT], envelope, key);
    // Every byte is looked at, so that the time tells nothing of the first wrong one.
    let differs = expected.iter().zip(&trailer[TAG_AT..]).fold(0, |sum, (a, b)| sum | (a ^ b));
    if differs != 0 {
        return Proof::Forged;
    }
    Proof::Signed(Stamp {
        seconds: u32::from_be_bytes([trailer[4], trailer[5], trailer[6], trailer[7]]),
        fraction: u16::from_be_bytes([trailer[8], trailer[9]]),
        counter: u16::from_be_bytes([trailer[10], trailer[11]]),
    })
}

/// Over what binds the packet to its router and speaker, the packet and the trailer, with zeros in place of the
/// checksum and of the tag.
fn tag(message: &[u8], envelope: Envelope, key: &VrrpKey) -> [u8; TAG_LEN] {
    let mut bound = [0; 20];
    bound[1] = message[0] >> 4;
    bound[2] = message[1];
    match envelope.source {
        IpAddr::V4(v4) => {
            bound[0] = 4;
            bound[4..8].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            bound[0] = 6;
            bound[4..20].copy_from_slice(&v6.octets());
        }
    }
    // A key of up to a block is used as it is (RFC 2104 §2); longer ones are refused by the configuration.
    let mut block = <hmac::digest::Key<Hmac<Sha256>>>::default();
    let secret = &key.secret[..key.secret.len().min(block.len())];
    block[..secret.len()].copy_from_slice(secret);
    let mut mac = <Hmac<Sha256>>::new(&block);
    mac.update(&bound);
    mac.update(&message[..6]);
    mac.update(&[0, 0]);
    mac.update(&message[HEADER_LEN..]);
    mac.update(&[0; TAG_LEN]);
    let whole = mac.finalize().into_bytes();
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&whole[..TAG_LEN]);
    tag
}

#[cfg(test)]
#[path = "vrrp_tests.rs"]
mod tests;

//! Decides whether a datagram was written by a member of the cluster for this node, and unchanged.
//!
//! The tag is HMAC-SHA-256 (RFC 2104) truncated to 16 bytes (RFC 2104 §5) over all that comes
//! before it. Replay is not the seal's concern: incarnation, sequence and challenge, which it
//! protects, are judged by `core`.

use crate::exchange::{self, Frame};
use crate::heartbeat::{self, Envelope};
use alloc::vec::Vec;
use buoy_model::limits::{DATAGRAM_MAX, EXCHANGE_DATAGRAM_MAX, KEY_LEN, KEYS_MAX};
use buoy_model::{ClusterId, ExchangeHeader, Message, NodeId, Topic};
use core::fmt;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Bytes of the tag at the end of a datagram.
pub const TAG_LEN: usize = 16;

/// One secret of the cluster, ready to sign.
#[derive(Clone)]
pub struct Key {
    id: u32,
    // The key's two blocks are hashed once; a signature starts from a copy of that state.
    mac: Hmac<Sha256>,
}

impl Key {
    /// The key of these bytes.
    pub fn new(bytes: [u8; KEY_LEN]) -> Self {
        let [a, b, c, d, ..] = <[u8; 32]>::from(Sha256::digest(bytes));
        let mut block = <hmac::digest::Key<Hmac<Sha256>>>::default();
        block[..KEY_LEN].copy_from_slice(&bytes);
        Self { id: u32::from_be_bytes([a, b, c, d]), mac: Hmac::new(&block) }
    }

    /// Names the key on the wire and in messages without telling what it is.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The whole HMAC-SHA256 of a text, for messages that are no datagrams of the cluster.
    pub fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        self.mac.clone().chain_update(bytes).finalize().into_bytes().into()
    }

    fn sign(&self, bytes: &[u8]) -> [u8; TAG_LEN] {
        let full = self.mac.clone().chain_update(bytes).finalize().into_bytes();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&full[..TAG_LEN]);
        tag
    }

    /// In constant time: how much of a forged tag was right must not be measurable.
    fn verify(&self, bytes: &[u8], tag: &[u8]) -> bool {
        self.mac.clone().chain_update(bytes).verify_truncated_left(tag).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:08x})", self.id)
    }
}

/// The keys of the cluster: the first signs, all are accepted, so that a key can be changed
/// host by host.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<Key>,
}

/// Why keys do not make a keyring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyringError {
    /// There is none.
    Empty,
    /// There are more than `KEYS_MAX`.
    TooMany(usize),
    /// Two have the same id; mostly because they are the same key.
    Twice(u32),
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "no key: make one with `buoy key new`"),
            Self::TooMany(n) => write!(f, "{n} keys: at most {KEYS_MAX} can be in use at a time"),
            Self::Twice(id) => write!(f, "key {id:08x} is listed twice: list each key once"),
        }
    }
}

impl core::error::Error for KeyringError {}

/// Why a datagram was not believed, in the order of the checks. Each is counted by name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reject {
    /// Shorter than the smallest message.
    TooShort,
    /// Longer than `DATAGRAM_MAX`.
    TooLong,
    /// Not of this protocol.
    Magic,
    /// Of another version of this protocol.
    Version,
    /// Signed with a key that is not in the keyring.
    UnknownKey,
    /// The tag does not match.
    Forged,
    /// Of another cluster with the same key.
    Cluster,
    /// Says that it is from this node itself: reflected, or two nodes have one name.
    Own,
    /// Meant for another node.
    NotForUs,
    /// Properly sealed, but the content breaks the format: the sender is newer, or broken.
    Malformed,
}

impl Reject {
    /// All reasons, for whoever keeps one counter each.
    pub const ALL: [Self; 10] = [
        Self::TooShort,
        Self::TooLong,
        Self::Magic,
        Self::Version,
        Self::UnknownKey,
        Self::Forged,
        Self::Cluster,
        Self::Own,
        Self::NotForUs,
        Self::Malformed,
    ];

    /// The reason's name in counters and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::Magic => "magic",
            Self::Version => "version",
            Self::UnknownKey => "unknown_key",
            Self::Forged => "forged",
            Self::Cluster => "cluster",
            Self::Own => "own",
            Self::NotForUs => "not_for_us",
            Self::Malformed => "malformed",
        }
    }

    /// Its place in `ALL`.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Keyring {
    /// Between one and `KEYS_MAX` keys; the first signs.
    pub fn new(keys: Vec<Key>) -> Result<Self, KeyringError> {
        if keys.is_empty() {
            return Err(KeyringError::Empty);
        }
        if keys.len() > KEYS_MAX {
            return Err(KeyringError::TooMany(keys.len()));
        }
        for (i, key) in keys.iter().enumerate() {
            if keys[..i].iter().any(|earlier| earlier.id == key.id) {
                return Err(KeyringError::Twice(key.id));
            }
        }
        Ok(Self { keys })
    }

    /// The ids of the keys; the first one's signs.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.keys.iter().map(Key::id)
    }

    /// The seed of the hash over flows: the same on all hosts of the cluster that sign with the same
    /// key, and unknown to clients, who could else choose ports that all go to one backend. It is a
    /// signature of a text that no datagram begins with, so it tells nothing about the key.
    pub fn flow_seed(&self, cluster: ClusterId) -> u64 {
        let mut text = *b"seed of flows....";
        text[13..].copy_from_slice(&cluster.0.to_be_bytes());
        debug_assert!(!text.starts_with(&heartbeat::MAGIC));
        let [a, b, c, d, e, f, g, h, ..] = self.keys[0].sign(&text);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// Of each key its id and a secret for another purpose, which the label names; the one of the key that signs
    /// comes first. It is a signature of a text that no datagram begins with, so it tells nothing about the key.
    pub fn derived(&self, label: &'static [u8]) -> impl Iterator<Item = (u32, [u8; 32])> {
        debug_assert!(!label.starts_with(&heartbeat::MAGIC));
        let secret = move |key: &Key| key.mac.clone().chain_update(label).finalize().into_bytes();
        self.keys.iter().map(move |key| (key.id, secret(key).into()))
    }

    /// Replaces `out` by the sealed datagram.
    pub fn seal(&self, message: &Message, out: &mut Vec<u8>) {
        let key = &self.keys[0];
        heartbeat::emit(message, key.id, out);
        let tag = key.sign(out);
        out.extend_from_slice(&tag);
    }

    /// Checks a datagram and fills `into` with its message, reusing the vectors. After an error
    /// `into` means nothing.
    pub fn open(
        &self,
        cluster: ClusterId,
        me: NodeId,
        bytes: &[u8],
        into: &mut Message,
    ) -> Result<(), Reject> {
        let (signed, tag) = split(bytes, DATAGRAM_MAX)?;
        let envelope = Envelope::parse(signed)?;
        let header = &envelope.header;
        self.judge(
            envelope.key,
            signed,
            tag,
            (cluster, me),
            (header.cluster, header.from, header.to),
        )?;
        envelope.fill(into)
    }

    /// Replaces `out` by a sealed datagram of the exchange. A body that is longer than `BODY_MAX` makes one
    /// that nobody opens.
    pub fn seal_exchange(
        &self,
        header: ExchangeHeader,
        topic: Topic,
        body: &[u8],
        out: &mut Vec<u8>,
    ) {
        let key = &self.keys[0];
        exchange::emit(&Frame { key: key.id, header, topic, body }, out);
        let tag = key.sign(out);
        out.extend_from_slice(&tag);
    }

    /// Checks a datagram of the exchange.
    pub fn open_exchange<'a>(
        &self,
        cluster: ClusterId,
        me: NodeId,
        bytes: &'a [u8],
    ) -> Result<Frame<'a>, Reject> {
        let (signed, tag) = split(bytes, EXCHANGE_DATAGRAM_MAX)?;
        let frame = Frame::parse(signed)?;
        let header = &frame.header;
        self.judge(
            frame.key,
            signed,
            tag,
            (cluster, me),
            (header.cluster, header.from, header.to),
        )?;
        Ok(frame)
    }

    /// Whether a member has signed this for us.
    fn judge(
        &self,
        key: u32,
        signed: &[u8],
        tag: &[u8; TAG_LEN],
        (our_cluster, me): (ClusterId, NodeId),
        (cluster, from, to): (ClusterId, NodeId, NodeId),
    ) -> Result<(), Reject> {
        let key = self.keys.iter().find(|known| known.id == key).ok_or(Reject::UnknownKey)?;
        if !key.verify(signed, tag) {
            return Err(Reject::Forged);
        }
        if cluster != our_cluster {
            return Err(Reject::Cluster);
        }
        if from == me {
            return Err(Reject::Own);
        }
        if to != me {
            return Err(Reject::NotForUs);
        }
        Ok(())
    }
}

/// What is signed, and the tag.
fn split(bytes: &[u8], longest: usize) -> Result<(&[u8], &[u8; TAG_LEN]), Reject> {
    if bytes.len() > longest {
        return Err(Reject::TooLong);
    }
    bytes.split_last_chunk::<TAG_LEN>().ok_or(Reject::TooShort)
}

#[cfg(test)]
mod tests;

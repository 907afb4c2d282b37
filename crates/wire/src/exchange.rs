//! The frame of the exchange's datagrams: who speaks to whom, about what, and bytes for whoever reads the topic.
//!
//! All numbers are big-endian.
//!
//! ```text
//!  0       4   5   6       10      14      18      22           30
//! +-------+---+---+-------+-------+-------+-------+------------+------------+
//! | BUOX  |ver|tpc| key id|cluster| from  |  to   |incarnation |  sequence  |
//! +-------+---+---+-------+-------+-------+-------+------------+------------+
//!  38           46           54
//! +------------+------------+---------------- - -+----------------+
//! | challenge  |    echo    |  body              | tag (16 bytes) |
//! +------------+------------+---------------- - -+----------------+
//!
//! tpc: 0 hello (its body is empty), 1 orders, 2 answers, 3 flows
//! ```
//!
//! The tag is the concern of `seal`, what is in a body that of the topic's own module: `answers`.

pub mod answers;

pub mod flows;

use crate::Reject;
use crate::bytes::Reader;
use alloc::vec::Vec;
use buoy_model::limits::EXCHANGE_DATAGRAM_MAX;
use buoy_model::{ClusterId, ExchangeHeader, Incarnation, NodeId, Sequence, Topic};

/// What every datagram begins with.
pub const MAGIC: [u8; 4] = *b"BUOX";
/// Bytes before the body.
pub const FRAME_LEN: usize = 54;
/// Bytes of the longest body.
pub const BODY_MAX: usize = EXCHANGE_DATAGRAM_MAX - FRAME_LEN - crate::TAG_LEN;

const VERSION: u8 = 1;

/// A datagram of the exchange whose body was not looked at yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// Which key is said to have signed it.
    pub key: u32,
    /// Who speaks to whom.
    pub header: ExchangeHeader,
    /// What about.
    pub topic: Topic,
    /// What.
    pub body: &'a [u8],
}

/// Replaces `out` by the datagram, up to and without the tag.
pub fn emit(frame: &Frame<'_>, out: &mut Vec<u8>) {
    debug_assert!(frame.body.len() <= BODY_MAX, "who makes bodies keeps to it");
    out.clear();
    out.extend_from_slice(&MAGIC);
    out.push(VERSION);
    // The topics are numbered in their order.
    out.push(Topic::ALL.iter().position(|t| *t == frame.topic).map_or(0, |n| n as u8));
    let header = &frame.header;
    for word in [frame.key, header.cluster.0, header.from.0, header.to.0] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for word in [header.incarnation.0, header.sequence.0, header.challenge, header.echo] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    debug_assert_eq!(out.len(), FRAME_LEN);
    out.extend_from_slice(frame.body);
}

impl<'a> Frame<'a> {
    /// Reads what comes before the body; `bytes` is the datagram without its tag.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Reject> {
        if bytes.len() < FRAME_LEN {
            return Err(Reject::TooShort);
        }
        if FRAME_LEN + BODY_MAX < bytes.len() {
            return Err(Reject::TooLong);
        }
        let mut reader = Reader::new(bytes);
        if reader.array().ok_or(Reject::TooShort)? != MAGIC {
            return Err(Reject::Magic);
        }
        if reader.u8().ok_or(Reject::TooShort)? != VERSION {
            return Err(Reject::Version);
        }
        let topic = reader.u8().ok_or(Reject::TooShort)?;
        let topic = Topic::ALL.get(usize::from(topic)).copied().ok_or(Reject::Malformed)?;
        let frame = Self::parse_rest(reader, topic).ok_or(Reject::TooShort)?;
        let header = &frame.header;
        let says_too_much = frame.topic == Topic::Hello && !frame.body.is_empty();
        if header.incarnation.0 == 0 || header.sequence.0 == 0 || says_too_much {
            return Err(Reject::Malformed);
        }
        Ok(frame)
    }

    fn parse_rest(mut reader: Reader<'a>, topic: Topic) -> Option<Self> {
        let key = reader.u32()?;
        let header = ExchangeHeader {
            cluster: ClusterId(reader.u32()?),
            from: NodeId(reader.u32()?),
            to: NodeId(reader.u32()?),
            incarnation: Incarnation(reader.u64()?),
            sequence: Sequence(reader.u64()?),
            challenge: reader.u64()?,
            echo: reader.u64()?,
        };
        Some(Self { key, header, topic, body: reader.rest() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn frame(topic: Topic, body: &[u8]) -> Frame<'_> {
        Frame {
            key: 0x0102_0304,
            header: ExchangeHeader {
                cluster: ClusterId(0x0506_0708),
                from: NodeId(0x1111_1111),
                to: NodeId(0x2222_2222),
                incarnation: Incarnation(0x3333_3333_3333_3333),
                sequence: Sequence(0x44),
                challenge: 0x55,
                echo: 0x66,
            },
            topic,
            body,
        }
    }

    #[test]
    fn every_topic_comes_back_as_it_was_sent() {
        for (n, topic) in (0..).zip(Topic::ALL) {
            let body: &[u8] = if topic == Topic::Hello { &[] } else { &[7, 8, 9] };
            let mut bytes = Vec::new();
            emit(&frame(topic, body), &mut bytes);
            assert_eq!(bytes[5], n, "{topic:?}");
            assert_eq!(bytes.len(), FRAME_LEN + body.len());
            assert_eq!(Frame::parse(&bytes), Ok(frame(topic, body)));
        }
    }

    #[test]
    fn what_is_not_of_this_form_is_refused_with_its_reason() {
        let mut good = Vec::new();
        emit(&frame(Topic::Hello, &[]), &mut good);
        let with = |at: usize, byte: u8| {
            let mut bad = good.clone();
            bad[at] = byte;
            bad
        };
        let mut zero_life = good.clone();
        zero_life[22..30].fill(0);
        let mut zero_sequence = good.clone();
        zero_sequence[30..38].fill(0);
        let mut long_hello = good.clone();
        long_hello.push(0);
        for (bytes, reason) in [
            (good[..FRAME_LEN - 1].to_vec(), Reject::TooShort),
            ([good.clone(), vec![0; BODY_MAX + 1]].concat(), Reject::TooLong),
            (with(3, b'Y'), Reject::Magic),
            (with(4, 2), Reject::Version),
            (with(5, 4), Reject::Malformed),
            (zero_life, Reject::Malformed),
            (zero_sequence, Reject::Malformed),
            (long_hello, Reject::Malformed),
        ] {
            assert_eq!(Frame::parse(&bytes), Err(reason), "{bytes:?}");
        }
    }
}

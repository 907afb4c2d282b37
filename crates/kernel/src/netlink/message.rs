//! Route netlink messages to bytes and back, on the stack.
//!
//! Our own and not a crate's, because the loop builds and reads these while it must not allocate,
//! and because it is eight messages. A test holds them against `netlink-packet-route`.

/// Bytes of the header of a message.
pub(crate) const HEADER_LEN: usize = 16;
const ATTRIBUTE_HEADER_LEN: usize = 4;
const ALIGNMENT: usize = 4;
const KIND_MASK: u16 = 0x3fff; // without NLA_F_NESTED and NLA_F_NET_BYTEORDER

/// Room for any message that we send; the longest is a filter with its name.
const ROOM: usize = 192;

/// A message on its way to the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    bytes: [u8; ROOM],
    length: usize,
}

impl Request {
    /// A message of this type with its fixed part; it always asks for an answer.
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let mut request = Self { bytes: [0; ROOM], length: HEADER_LEN };
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST).unwrap_or(0);
        request.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        request.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        request.push(fixed);
        request
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let length = u16::try_from(ATTRIBUTE_HEADER_LEN + value.len()).unwrap_or(0);
        let [l0, l1] = length.to_ne_bytes();
        let [k0, k1] = kind.to_ne_bytes();
        self.push(&[l0, l1, k0, k1]).push(value)
    }

    /// Appends an attribute that is made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.length;
        self.attribute(kind, &[]);
        fill(self);
        let length = u16::try_from(self.length - start).unwrap_or(0);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Only a refusal is answered.
    pub(crate) fn without_acknowledgement(&mut self) -> &mut Self {
        let flags = half(&self.bytes, 6).unwrap_or(0);
        let acknowledge = u16::try_from(libc::NLM_F_ACK).unwrap_or(0);
        self.bytes[6..8].copy_from_slice(&(flags & !acknowledge).to_ne_bytes());
        self
    }

    /// The bytes to send, with their place in the conversation.
    pub(crate) fn finish(&mut self, sequence: u32) -> &[u8] {
        let length = u32::try_from(self.length).unwrap_or(0);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) -> &mut Self {
        debug_assert!(self.length + bytes.len() <= ROOM);
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length = (self.length + bytes.len()).next_multiple_of(ALIGNMENT);
        self
    }
}

/// A message that the kernel sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of one datagram; stops at the first that is not whole.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        let message = Message {
            kind: half(bytes, 4)?,
            flags: half(bytes, 6)?,
            sequence: word(bytes, 8)?,
            payload: bytes.get(HEADER_LEN..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        Some(message)
    })
}

/// The attributes of a message after its fixed part; stops at the first that is not whole.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(half(bytes, 0)?);
        let kind = half(bytes, 2)? & KIND_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER_LEN..length)?;
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The 16 bits at this place.
pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes)
}

/// The 32 bits at this place.
pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_back() {
        let mut request = Request::new(16, libc::NLM_F_ACK, &[1, 2, 3, 4]);
        request.attribute(1, b"abc").nest(2, |inner| {
            inner.attribute(3, &[]).attribute(4, &[5; 8]);
        });
        let bytes = request.finish(77).to_vec();
        let list: Vec<_> = messages(&bytes).collect();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].kind, list[0].sequence), (16, 77));
        assert_eq!(i32::from(list[0].flags), libc::NLM_F_ACK | libc::NLM_F_REQUEST);
        let outer: Vec<_> = attributes(&list[0].payload[4..]).collect();
        assert_eq!(outer[0], (1, &b"abc"[..]));
        let inner: Vec<_> = attributes(outer[1].1).collect();
        assert_eq!(inner, [(3, &[][..]), (4, &[5; 8][..])]);
    }

    #[test]
    fn no_cut_of_a_datagram_is_read_past_its_end() {
        let mut request = Request::new(16, 0, &[0; 8]);
        request.attribute(1, b"abcde").attribute(2, &[9; 16]);
        let whole = request.finish(1).to_vec();
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
            let _ = attributes(&whole[..length]).count();
        }
        let two = [whole.clone(), whole].concat();
        assert_eq!(messages(&two).count(), 2);
    }

    #[test]
    fn a_length_that_leads_nowhere_ends_the_list() {
        for length in [0_u32, 1, 15, 17, u32::MAX] {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bytes).count(), 0, "{length}");
        }
        for length in [0_u16, 3, 9, u16::MAX] {
            let [low, high] = length.to_ne_bytes();
            assert_eq!(attributes(&[low, high, 1, 0, 0, 0, 0, 0]).count(), 0, "{length}");
        }
    }
}

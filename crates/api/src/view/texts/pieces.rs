//! A text that is made of pieces which are kept elsewhere: megabytes are written of it without ever being in one place.

use hyper::body::Bytes;
use std::ops::Range;

/// A text in pieces.
#[derive(Clone, Debug, Default)]
pub struct Pieces {
    all: Vec<Piece>,
    /// What is of this text alone, one after the other.
    own: Vec<u8>,
    /// Bytes that are left of it.
    left: usize,
    /// The first piece that is left, and how much of it has been taken.
    at: (usize, usize),
}

#[derive(Clone, Debug)]
enum Piece {
    Kept(Bytes),
    Own(Range<usize>),
}

impl Pieces {
    /// Adds what is kept elsewhere.
    pub(super) fn kept(&mut self, text: &Bytes) {
        self.left += text.len();
        self.all.push(Piece::Kept(text.clone()));
    }

    /// Adds what `write` writes.
    pub(super) fn own(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let from = self.own.len();
        write(&mut self.own);
        let to = self.own.len();
        self.left += to - from;
        match self.all.last_mut() {
            // Nothing else has been added since.
            Some(Piece::Own(last)) => last.end = to,
            Some(Piece::Kept(_)) | None => self.all.push(Piece::Own(from..to)),
        }
    }

    /// Bytes that are left.
    pub const fn len(&self) -> usize {
        self.left
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Takes the next bytes, at most so many.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(most.min(self.left));
        while taken.len() < most {
            let (piece, from) = self.at;
            let text: &[u8] = match self.all.get(piece) {
                Some(Piece::Kept(text)) => text,
                Some(Piece::Own(range)) => self.own.get(range.clone()).unwrap_or_default(),
                None => break,
            };
            let rest = text.get(from..).unwrap_or_default();
            let some = rest.get(..most - taken.len()).unwrap_or(rest);
            taken.extend_from_slice(some);
            self.at = match some.len() == rest.len() {
                true => (piece + 1, 0),
                false => (piece, from + some.len()),
            };
        }
        self.left -= taken.len();
        taken
    }

    /// All that is left, in one place.
    pub fn whole(mut self) -> Vec<u8> {
        self.take(self.left)
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(text: Vec<u8>) -> Self {
        let mut pieces = Self::default();
        pieces.kept(&text.into());
        pieces
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces() -> (Pieces, &'static str) {
        let mut pieces = Pieces::default();
        let kept = Bytes::from_static(b"kept");
        pieces.own(|out| out.extend_from_slice(b"a"));
        pieces.own(|out| out.extend_from_slice(b"bc"));
        pieces.kept(&kept);
        pieces.own(|_| ());
        pieces.kept(&kept);
        pieces.kept(&Bytes::new());
        pieces.own(|out| out.extend_from_slice(b"defg"));
        (pieces, "abckeptkeptdefg")
    }

    #[test]
    fn it_is_the_same_text_in_parts_of_any_length() {
        let (whole, text) = pieces();
        assert_eq!((whole.len(), whole.is_empty()), (text.len(), false));
        assert_eq!(whole.whole(), text.as_bytes());
        for most in 1..=text.len() + 1 {
            let (mut pieces, _) = pieces();
            let (mut all, mut left) = (Vec::new(), text.len());
            while !pieces.is_empty() {
                let taken = pieces.take(most);
                assert_eq!(taken.len(), most.min(left), "all but the last are of that length");
                left -= taken.len();
                assert_eq!(pieces.len(), left);
                all.extend(taken);
            }
            assert_eq!(all, text.as_bytes(), "{most}");
            assert!(pieces.take(most).is_empty(), "nothing is left");
        }
        assert_eq!(Pieces::from(b"x".to_vec()).whole(), b"x");
        assert!(Pieces::default().is_empty());
    }
}

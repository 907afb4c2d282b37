//! What nodes tell each other of backends that they have asked: the body of a parcel of the exchange.
//!
//! ```text
//!  0          8       9      10     11     15       16
//! +----------+-------+-------+------+------+--------+----------- - -+
//! | subject  | state | share | load | took | length | words         |  and again, as often as there is room
//! +----------+-------+-------+------+------+--------+----------- - -+
//!
//! state: 0 nothing is said any more, 1 up, 2 down; share: percent; load: percent, 255 not known;
//! took: microseconds, 0 not known; words: UTF-8
//! ```

use super::BODY_MAX;
use crate::bytes::Reader;
use alloc::borrow::ToOwned;
use alloc::vec::Vec;
use buoy_model::limits::{CHECK_SHARE_MAX, CHECK_WORDS_MAX};
use buoy_model::{BackendState, Measured, Opinion, Subject, Told};
use core::time::Duration;

/// Bytes before the words.
const HEAD: usize = 16;
/// No load is known.
const NO_LOAD: u8 = u8::MAX;

const _: () = assert!(CHECK_WORDS_MAX <= 255 && CHECK_SHARE_MAX <= 255, "each has a byte");
const _: () = assert!(HEAD + CHECK_WORDS_MAX <= BODY_MAX, "one fits whatever it says");

/// Adds one, if there is room for it. Words that are too long are cut.
pub fn add(body: &mut Vec<u8>, told: &Told) -> bool {
    let words = cut(&told.words);
    if BODY_MAX < body.len() + HEAD + words.len() {
        return false;
    }
    body.extend_from_slice(&told.subject.0.to_be_bytes());
    body.push(match told.opinion.state {
        BackendState::Unknown => 0,
        BackendState::Up => 1,
        BackendState::Down => 2,
    });
    body.push(u8::try_from(told.opinion.share).unwrap_or(u8::MAX));
    let Measured { load, took } = told.measured;
    body.push(load.map_or(NO_LOAD, |load| load.min(100)));
    // What took no whole microsecond took one, and what took an hour took an hour.
    let micros = |took: Duration| u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
    body.extend_from_slice(&took.map_or(0, micros).to_be_bytes());
    body.push(u8::try_from(words.len()).unwrap_or(0));
    body.extend_from_slice(words.as_bytes());
    true
}

fn cut(words: &str) -> &str {
    let mut end = words.len().min(CHECK_WORDS_MAX);
    while !words.is_char_boundary(end) {
        end -= 1;
    }
    &words[..end]
}

/// All of them, or nothing of what is not of this form.
pub fn parse(body: &[u8]) -> Option<Vec<Told>> {
    let mut reader = Reader::new(body);
    let mut all = Vec::new();
    while !reader.rest().is_empty() {
        let subject = Subject(reader.u64()?);
        let state = match reader.u8()? {
            0 => BackendState::Unknown,
            1 => BackendState::Up,
            2 => BackendState::Down,
            _ => return None,
        };
        let share = reader.u8()?.into();
        let load = match reader.u8()? {
            NO_LOAD => None,
            load @ 0..=100 => Some(load),
            _ => return None,
        };
        let took = match reader.u32()? {
            0 => None,
            micros => Some(Duration::from_micros(micros.into())),
        };
        let length = usize::from(reader.u8()?);
        let words = core::str::from_utf8(reader.slice(length)?).ok()?;
        if CHECK_WORDS_MAX < length || words.contains(char::is_control) {
            return None;
        }
        let (opinion, words) = (Opinion { state, share }, words.to_owned());
        all.push(Told { subject, opinion, measured: Measured { load, took }, words });
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    fn told(subject: u64, state: BackendState, share: u16, words: &str) -> Told {
        let (opinion, measured) = (Opinion { state, share }, Measured::default());
        Told { subject: Subject(subject), opinion, measured, words: words.into() }
    }

    #[test]
    fn what_is_told_comes_back_and_is_known_bytes() {
        let all = vec![
            Told {
                measured: Measured { load: Some(62), took: Some(Duration::from_micros(258)) },
                ..told(0x0102_0304_0506_0708, BackendState::Up, 100, "")
            },
            told(9, BackendState::Down, 0, "no"),
            told(u64::MAX, BackendState::Unknown, 255, ""),
        ];
        let mut body = Vec::new();
        assert!(all.iter().all(|told| add(&mut body, told)));
        let known = b"\x01\x02\x03\x04\x05\x06\x07\x08\x01\x64\x3e\0\0\x01\x02\0\
            \0\0\0\0\0\0\0\x09\x02\0\xff\0\0\0\0\x02no";
        assert_eq!(body[..34], known[..]);
        assert_eq!(parse(&body), Some(all));
        assert_eq!(parse(&[]), Some(vec![]));
        assert_eq!(parse(&body[..body.len() - 1]), None);
    }

    #[test]
    fn a_parcel_takes_what_fits_and_long_words_are_cut_between_characters() {
        let long = told(1, BackendState::Down, 100, &"\u{e9}".repeat(100));
        let mut body = Vec::new();
        let mut count = 0;
        while add(&mut body, &long) {
            count += 1;
        }
        assert!(body.len() <= BODY_MAX, "{}", body.len());
        let all = parse(&body).unwrap();
        assert_eq!(all.len(), count);
        let words: &String = &all[0].words;
        assert_eq!(words.chars().count(), CHECK_WORDS_MAX / 2);
    }

    #[test]
    fn what_is_not_of_this_form_is_refused() {
        let mut body = Vec::new();
        assert!(add(&mut body, &told(1, BackendState::Down, 100, "why")));
        type Change = fn(&mut Vec<u8>);
        let table: [Change; 6] = [
            |body| body[8] = 3,
            |body| body[10] = 101,
            |body| body[15] = 200,
            |body| body[16] = 0xff,
            |body| body[16] = 0x1b,
            |body| body.push(0),
        ];
        for change in table {
            let mut body = body.clone();
            change(&mut body);
            assert_eq!(parse(&body), None, "{body:?}");
        }
    }
}

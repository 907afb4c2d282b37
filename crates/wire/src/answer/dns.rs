//! Writes questions of DNS and judges what comes back (RFC 1035 §4.1).

use super::{Answer, Said};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

/// Bytes of a head.
const HEAD: usize = 12;

/// One question, recursion desired. No label is longer than 63 bytes.
pub fn question(id: [u8; 2], name: &str, record: u16) -> Vec<u8> {
    const RECURSION_DESIRED: u8 = 1;
    const INTERNET: [u8; 2] = [0, 1];
    let mut bytes = vec![id[0], id[1], RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes.extend_from_slice(&record.to_be_bytes());
    bytes.extend_from_slice(&INTERNET);
    bytes
}

/// Judges the answer to a question; `asked` is what people call that.
pub fn judge(question: &[u8], answer: &[u8], asked: &str) -> Answer {
    let Some((head, rest)) = answer.split_first_chunk::<HEAD>() else {
        return Err("the answer is not DNS".into());
    };
    let [id_high, id_low, flags, code, _, questions, answers_high, answers_low, ..] = *head;
    if flags & 0x80 == 0 {
        return Err("the answer is not DNS".into());
    }
    if question.get(..2) != Some(&[id_high, id_low]) {
        return Err("the answer is to another question".into());
    }
    // An error may come without the question.
    match code & 0x0f {
        0 => {}
        1 => return Err("DNS says FORMERR".into()),
        2 => return Err("DNS says SERVFAIL".into()),
        3 => return Err(format!("DNS says NXDOMAIN for {asked}")),
        4 => return Err("DNS says NOTIMP".into()),
        5 => return Err("DNS says REFUSED".into()),
        other => return Err(format!("DNS says error {other}")),
    }
    let same = question.get(HEAD..).and_then(|wanted| {
        let said = rest.get(..wanted.len())?;
        Some(said.eq_ignore_ascii_case(wanted))
    });
    if questions != 1 || same != Some(true) {
        return Err("the answer is to another question".into());
    }
    if (answers_high, answers_low) == (0, 0) {
        return Err(format!("DNS has no {asked}"));
    }
    Ok(Said::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::borrow::ToOwned;

    #[test]
    fn a_question_is_known_bytes_and_its_answer_must_match() {
        let asked = question([0xab, 0xcd], "Example.org", 1);
        let known = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x07Example\x03org\0\0\x01\0\x01";
        assert_eq!(asked, known);
        assert_eq!(question([0, 1], "", 2), b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01");
        let answer = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = asked.to_ascii_lowercase();
            bytes[..2].copy_from_slice(&asked[..2]);
            (bytes[2], bytes[3], bytes[7]) = (0x81, 0x80, 1);
            change(&mut bytes);
            judge(&asked, &bytes, "example.org A").map(|_| ())
        };
        let err = |text: &str| Err(text.to_owned());
        assert_eq!(answer(&|_| {}), Ok(()));
        assert_eq!(answer(&|b| b[7] = 0), err("DNS has no example.org A"));
        assert_eq!(answer(&|b| b[0] = 0), err("the answer is to another question"));
        assert_eq!(answer(&|b| b[14] = b'y'), err("the answer is to another question"));
        assert_eq!(answer(&|b| b[5] = 2), err("the answer is to another question"));
        assert_eq!(answer(&|b| b.truncate(20)), err("the answer is to another question"));
        assert_eq!(answer(&|b| b.truncate(11)), err("the answer is not DNS"));
        assert_eq!(answer(&|b| b[2] = 1), err("the answer is not DNS"));
        assert_eq!(answer(&|b| b[3] = 3), err("DNS says NXDOMAIN for example.org A"));
        assert_eq!(answer(&|b| b[3] = 2), err("DNS says SERVFAIL"));
        assert_eq!(answer(&|b| b[3] = 9), err("DNS says error 9"));
    }
}

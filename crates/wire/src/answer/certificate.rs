//! Finds the end of a certificate (RFC 5280 §4.1.2.5), so that people hear of it before clients do.
//!
//! Whether a certificate is right is for `rustls` to say; this only looks for one date, and answers
//! `None` to whatever it cannot read.

/// Seconds since 1970 of the last moment that the certificate is valid.
pub fn end(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const VERSION: u8 = 0xa0;
    let (_, whole, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, signed, _) = element(whole).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, _, after) = element(signed)?;
    // `version [0]` is left out of certificates of version 1.
    let rest = if tag == VERSION { after } else { signed };
    let (_, _serial, rest) = element(rest).filter(|(tag, ..)| *tag == INTEGER)?;
    let (_, _algorithm, rest) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _issuer, rest) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, _begin, rest) = element(validity)?;
    let (tag, end, _) = element(rest)?;
    time(tag, end)
}

/// Tag, content and what follows of one element of DER.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[one], rest) = rest.split_first_chunk::<1>()?;
            (usize::from(one), rest)
        }
        0x82 => {
            let (two, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*two)), rest)
        }
        // Sixteen megabytes and more are no certificate, nor is a length without end.
        0x80 | 0x83..=0xff => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, as RFC 5280 wants them.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = text.strip_suffix(b"Z")?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = digits.split_at_checked(2)?;
            let year = number(year)?;
            //= https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5.1
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = digits.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    let mut parts = rest.chunks_exact(2).map(number);
    let mut next = |range: core::ops::RangeInclusive<i64>| {
        parts.next().flatten().filter(|part| range.contains(part))
    };
    let (month, day) = (next(1..=12)?, next(1..=31)?);
    let (hour, minute, second) = (next(0..=23)?, next(0..=59)?, next(0..=60)?);
    if rest.len() != 10 {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

/// Days since 1970 in the Gregorian calendar. Years begin in March here, so that the leap day is the last.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;

    #[test]
    fn a_date_is_seconds_since_1970() {
        let table: [(u8, &[u8], Option<i64>); 11] = [
            (0x17, b"700101000000Z", Some(0)),
            (0x17, b"491231235959Z", Some(2_524_607_999)),
            (0x17, b"500101000000Z", Some(-631_152_000)),
            (0x18, b"20240229120000Z", Some(1_709_208_000)),
            (0x18, b"99991231235959Z", Some(253_402_300_799)),
            (0x17, b"701301000000Z", None),
            (0x17, b"7001010000Z", None),
            (0x17, b"700101000000", None),
            (0x17, b"70010100000xZ", None),
            (0x19, b"700101000000Z", None),
            (0x18, b"", None),
        ];
        for (tag, text, expected) in table {
            assert_eq!(time(tag, text), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_found() {
        let mut params = rcgen::CertificateParams::new(vec!["web.example".into()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        // Written as UTCTime and as GeneralizedTime.
        for (year, expected) in [(2031, 1_930_003_200), (2064, 2_971_382_400)] {
            params.not_after = rcgen::date_time_ymd(year, 2, 28);
            let certificate = params.self_signed(&key).unwrap();
            let found = end(certificate.der()).unwrap();
            assert_eq!(found, params.not_after.unix_timestamp());
            assert_eq!(found, expected);
        }
    }
}

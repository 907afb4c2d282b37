//! Reads time spans on the command line, in the language of the file: `30s`, `10m`, `1h`; and moments that have been.

use crate::events::date;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 86_400;

/// `10ms`, `30s`, `5m`, `1h`, `2d`; the error is what is wrong with it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err("the unit is missing: ms, s, m, h or d".into()),
        _ => return Err("a whole number and one of ms, s, m, h and d, as in 10m".into()),
    };
    let number: u64 = number.parse().map_err(|_| "it begins with a whole number, as in 10m")?;
    let millis = number.checked_mul(unit_millis).ok_or("that is too long")?;
    if millis == 0 {
        return Err("that is no time at all".into());
    }
    Ok(Duration::from_millis(millis))
}

/// A moment that has been, in milliseconds since 1970: `10m` ago; `03:12`, the last time that it was so late; or
/// `2026-11-29 03:12`. In UTC, as events are shown.
pub(crate) fn past(text: &str) -> Result<u64, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    before(text, millis(now))
}

fn before(text: &str, now: u64) -> Result<u64, String> {
    if !text.contains([':', '-']) {
        return Ok(now.saturating_sub(millis(duration(text)?)));
    }
    let wrong = || "a time ago as in 10m, or a moment in UTC as in 03:12 or \"2026-11-29 03:12\"";
    if !text.bytes().all(|b| b.is_ascii_digit() || b"-:. TZUC".contains(&b)) {
        return Err(wrong().into());
    }
    let plain = text.trim_end_matches('Z').trim_end_matches(" UTC");
    if let Some((day, clock)) = plain.split_once([' ', 'T']) {
        let (day, clock) = (day_number(day).ok_or_else(wrong)?, clock_ms(clock).ok_or_else(wrong)?);
        return Ok(day * DAY_SECONDS * 1_000 + clock);
    }
    if let Some(day) = day_number(plain) {
        return Ok(day * DAY_SECONDS * 1_000);
    }
    let today = now - now % (DAY_SECONDS * 1_000);
    let clock = clock_ms(plain).ok_or_else(wrong)?;
    let is_over = today + clock <= now;
    Ok((today + clock).saturating_sub(if is_over { 0 } else { DAY_SECONDS * 1_000 }))
}

/// As in `2026-11-29`: the days from 1970 until then.
fn day_number(text: &str) -> Option<u64> {
    let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1970..10_000).contains(&year) {
        return None;
    }
    // The first of January or a little before it: from there it is found by looking.
    let from = (year - 1970) * 365;
    (from..from + 366 + (year - 1970) / 4 + 1).find(|n| date(*n) == (year, month, day))
}

/// As in `03:12`, `03:12:59` and `03:12:59.045`.
fn clock_ms(text: &str) -> Option<u64> {
    let (clock, millis) = text.split_once('.').unwrap_or((text, "0"));
    let parts: Vec<u64> = clock.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let (hour, minute, second) = match parts.as_slice() {
        [hour, minute] => (*hour, *minute, 0),
        [hour, minute, second] => (*hour, *minute, *second),
        [] | [_] | [_, _, _, ..] => return None,
    };
    let millis: u64 = format!("{millis:0<3}").parse().ok().filter(|ms| *ms < 1_000)?;
    let is_time = hour < 24 && minute < 60 && second < 60;
    is_time.then_some(((hour * 60 + minute) * 60 + second) * 1_000 + millis)
}

/// As it travels in a request.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_so_long_ago_or_the_last_time_that_it_was_so_late_or_a_date() {
        // 2026-11-22 17:02:03.045
        let now = 1_795_366_923_045;
        for (text, expected) in [
            ("10m", "2026-11-22 16:52:03.045"),
            ("03:12", "2026-11-22 03:12:00.000"),
            ("17:02:03.045", "2026-11-22 17:02:03.045"),
            ("17:02:03.5", "2026-11-21 17:02:03.500"),
            ("23:59:59", "2026-11-21 23:59:59.000"),
            ("2026-11-21", "2026-11-21 00:00:00.000"),
            ("2026-11-21 03:12", "2026-11-21 03:12:00.000"),
            ("2024-02-29T23:59:59.999Z", "2024-02-29 23:59:59.999"),
            ("2026-11-22 17:02:03.045 UTC", "2026-11-22 17:02:03.045"),
            ("1970-01-01", "1970-01-01 00:00:00.000"),
            ("9999-12-31", "9999-12-31 00:00:00.000"),
        ] {
            assert_eq!(before(text, now).map(crate::events::moment), Ok(expected.into()), "{text}");
        }
        for text in [
            "yesterday",
            "3",
            "24:00",
            "03:60",
            "03:12:60",
            "3:1:2:3",
            ":",
            "-",
            "2026-13-01",
            "2025-02-29",
            "2026-11-22 ",
            "1969-12-31",
            "10000-01-01",
            "03:12:01.2345",
            "-1m",
            "2026-11",
            "03:+1",
        ] {
            assert!(before(text, now).is_err(), "{text:?} is {:?}", before(text, now));
        }
    }

    #[test]
    fn a_time_span_is_a_whole_number_and_a_unit() {
        let table = [
            ("250ms", 250),
            ("30s", 30_000),
            ("10m", 600_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ];
        for (text, expected) in table {
            assert_eq!(duration(text).map(millis), Ok(expected), "{text}");
        }
        for text in ["", "10", "m", "1.5h", "-3s", "0s", "10 m", "1h30m", "99999999999999999999s"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}

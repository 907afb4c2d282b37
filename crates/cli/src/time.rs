//! Reads time spans on the command line, in the language of the file: `30s`, `10m`, `1h`.

use std::time::Duration;

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

/// As it travels in a request.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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

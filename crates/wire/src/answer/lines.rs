//! Judges answers by protocols of lines: Redis, SMTP, and HAProxy's agent protocol.

use super::{Answer, Said, shown};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use buoy_model::limits::CHECK_SHARE_MAX;

/// A load in percent, as a header says it: a number, perhaps with a part behind a point, or with `%`.
pub fn load(value: &[u8]) -> Option<u8> {
    let text = core::str::from_utf8(value).ok()?.trim();
    let text = text.strip_suffix('%').unwrap_or(text).trim_end();
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) {
        return None;
    }
    // Whatever is more than all is all.
    Some(whole.parse::<u8>().map_or(100, |load| load.min(100)))
}

/// The answer of Redis to `PING`.
pub fn redis(line: &[u8]) -> Answer {
    match line {
        // A server that wants a password first obeys commands, which is all that is asked.
        b"+PONG" => Ok(Said::default()),
        line if line.starts_with(b"-NOAUTH ") => Ok(Said::default()),
        [b'-', error @ ..] => Err(format!("Redis says {}", shown(error))),
        _ => Err("the answer is not Redis".into()),
    }
}

/// One line of a reply of SMTP that should have this code. Whether more lines follow.
pub fn smtp(line: &[u8], wanted: &str) -> Result<bool, String> {
    let (code, rest) = line.split_at_checked(3).ok_or("the answer is not SMTP")?;
    let more = match rest.first() {
        Some(b'-') => true,
        Some(b' ') | None => false,
        Some(_) => return Err("the answer is not SMTP".into()),
    };
    if !code.iter().all(u8::is_ascii_digit) {
        return Err("the answer is not SMTP".into());
    }
    if code != wanted.as_bytes() {
        return Err(format!("SMTP says {} instead of {wanted}", shown(line)));
    }
    Ok(more)
}

/// What an agent says of its server: state, share and reason.
pub fn agent(line: &[u8]) -> Answer {
    let text = shown(line);
    let (words, reason) = text.split_once('#').unwrap_or((&text, ""));
    let mut share = None;
    let (mut ready, mut drained, mut ignored) = (false, false, false);
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let number = word.strip_suffix('%').and_then(|number| number.parse::<u16>().ok());
        match (word.to_ascii_lowercase().as_str(), number) {
            (_, Some(percent)) => share = Some(percent.min(CHECK_SHARE_MAX)),
            ("up" | "ready", None) => ready = true,
            ("drain", None) => drained = true,
            (bad @ ("down" | "fail" | "failed" | "stopped" | "maint"), None) => {
                let reason = reason.trim();
                let colon = if reason.is_empty() { "" } else { ": " };
                return Err(format!("its agent says {bad}{colon}{reason}"));
            }
            (other, None) if other.starts_with("maxconn:") => ignored = true,
            (_, None) => return Err(format!("its agent says \"{word}\", which is no state")),
        }
    }
    if !ready && !drained && !ignored && share.is_none() {
        return Err("its agent says nothing".into());
    }
    let share = if drained { 0 } else { share.unwrap_or(100) };
    let warning = match (share, ignored) {
        (0, _) => "its agent says drain: no new connections".to_owned(),
        (100, true) => "its agent says maxconn, which is not obeyed".to_owned(),
        (100, false) => String::new(),
        (percent, _) => format!("its agent says {percent}% of its weight"),
    };
    Ok(Said { warning, share, ..Said::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_a_number_in_percent() {
        let table: [(&[u8], Option<u8>); 11] = [
            (b"0", Some(0)),
            (b" 37 ", Some(37)),
            (b"37.9", Some(37)),
            (b"37 %", Some(37)),
            (b"250", Some(100)),
            (b"99999999999", Some(100)),
            (b"", None),
            (b"-1", None),
            (b"busy", None),
            (b"1.x", None),
            (b"\xff", None),
        ];
        for (value, expected) in table {
            assert_eq!(load(value), expected, "{}", String::from_utf8_lossy(value));
        }
    }

    #[test]
    fn an_agent_says_how_its_server_is() {
        type Case = (&'static [u8], Result<(u16, &'static str), &'static str>);
        let table: [Case; 17] = [
            (b"up", Ok((100, ""))),
            (b"READY", Ok((100, ""))),
            (b"75%", Ok((75, "its agent says 75% of its weight"))),
            (b"up 50%", Ok((50, "its agent says 50% of its weight"))),
            (b"up,100%", Ok((100, ""))),
            (b"900%", Ok((255, "its agent says 255% of its weight"))),
            (b"drain", Ok((0, "its agent says drain: no new connections"))),
            (b"drain 50%", Ok((0, "its agent says drain: no new connections"))),
            (b"0%", Ok((0, "its agent says drain: no new connections"))),
            (b"up maxconn:30", Ok((100, "its agent says maxconn, which is not obeyed"))),
            (b"down", Err("its agent says down")),
            (b"down # disk \x1b full", Err("its agent says down: disk   full")),
            (b"maint", Err("its agent says maint")),
            (b"75% failed#x", Err("its agent says failed: x")),
            (b"", Err("its agent says nothing")),
            (b"hello", Err("its agent says \"hello\", which is no state")),
            (b"-5%", Err("its agent says \"-5%\", which is no state")),
        ];
        for (line, expected) in table {
            let said = agent(line).map(|said| (said.share, said.warning));
            let expected = expected.map(|(share, warning)| (share, warning.to_owned()));
            assert_eq!(said, expected.map_err(str::to_owned), "{}", shown(line));
        }
    }
}

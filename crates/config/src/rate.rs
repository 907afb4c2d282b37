//! Reads `new_connections` of one `[[vip.service]]`: a number in a time, and how many at once.

use crate::Code;
use crate::keys::service;
use crate::report::{At, Problems, shown};
use crate::tree::Section;
use buoy_model::limits::{RATE_MAX, RATE_SPAN_MAX};
use buoy_model::{Per, Rate};

/// `None` where there is no limit, or none that could be read.
pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Rate> {
    let text: At<&str> = section.text(&service::NEW_CONNECTIONS, problems)?;
    match parse(text.value) {
        Ok(rate) => Some(rate),
        Err((reason, fix)) => {
            let message = format!("\"{}\" is not a limit of new connections", shown(text.value));
            problems.add(Code::BadRate, &text.span, message, reason, fix);
            None
        }
    }
}

/// What is wrong, and what to do.
type Fault = (String, String);

fn parse(text: &str) -> Result<Rate, Fault> {
    let mut words = text.split_whitespace();
    let (number, per) = amount(words.next().unwrap_or(""))?;
    let burst = words.next().map_or(Ok(number), burst)?;
    if let Some(word) = words.next() {
        let reason = format!("nothing stands behind the burst, and \"{}\" does", shown(word));
        return Err((reason, example()));
    }
    let rate = Rate::new(number, per, burst);
    rate.ok_or_else(|| {
        let letter = per.letter();
        let most = RATE_SPAN_MAX.as_nanos() * u128::from(number) / per.length().as_nanos();
        (
            format!(
                "at {number}/{letter} it takes more than an hour until {burst} are there again"
            ),
            format!("write burst={most} or less"),
        )
    })
}

/// As in `100/s`.
fn amount(text: &str) -> Result<(u32, Per), Fault> {
    let Some((digits, unit)) = text.split_once('/') else {
        return Err(("it is number, slash and unit".to_owned(), example()));
    };
    let number = number(digits, "the number")?;
    let per = Per::ALL.into_iter().find(|per| per.letter() == unit);
    let per = per.ok_or_else(|| ("the units are s, m and h".to_owned(), example()))?;
    Ok((number, per))
}

/// As in `burst=200`.
fn burst(text: &str) -> Result<u32, Fault> {
    let Some(digits) = text.strip_prefix("burst=") else {
        let reason = format!("only a burst stands behind the number, not \"{}\"", shown(text));
        return Err((reason, example()));
    };
    number(digits, "the burst")
}

fn number(digits: &str, what: &str) -> Result<u32, Fault> {
    let is_digits = digits.bytes().all(|b| b.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| is_digits && (1..=RATE_MAX).contains(number));
    number.ok_or_else(|| {
        let fix = match digits {
            "0" => "write a number from 1, or `deny` for who may not connect at all".to_owned(),
            _ => example(),
        };
        (format!("{what} is 1 to {RATE_MAX}"), fix)
    })
}

fn example() -> String {
    "write number and unit (s, m, h), as in \"100/s\" or \"100/s burst=200\"".to_owned()
}

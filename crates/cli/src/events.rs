//! `buoy events`: what happened lately, oldest first, and with `-f` what happens from now on.

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::table::{Align, Table, Tone, plain};
use buoy_api::{Client, ClientError, EventView};
use std::time::Duration;

/// More than an agent remembers.
const ALL: usize = 1 << 20;
/// How long to wait for an agent that is gone.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// How many, the latest ones
    #[arg(short, value_name = "N", default_value_t = 20)]
    n: usize,
    /// Only what is about this VIP: its name, or one of its addresses
    #[arg(long, value_name = "VIP")]
    vip: Option<String>,
    /// Only what is not older: 10m ago, or a moment in UTC as in 03:12 or "2026-11-29 03:12"
    #[arg(long, value_name = "MOMENT", value_parser = crate::time::past)]
    since: Option<u64>,
    /// Only what is not younger, in the same words
    #[arg(long, value_name = "MOMENT", value_parser = crate::time::past, conflicts_with = "follow")]
    until: Option<u64>,
    /// Go on with each as it happens, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Form of the answer; JSON is one object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = arguments.agent.client()?;
    let between = (arguments.since, arguments.until);
    let latest = client.events_between(arguments.n, arguments.vip.as_deref(), between)?;
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => {
            latest.events.iter().try_for_each(|event| output::item(form, event))?;
        }
        Form::Table if latest.events.is_empty() => {
            let all = client.events(ALL)?.events;
            output::text(&format!("{}\n", none(all.first().map(|event| event.at))))?;
        }
        Form::Table => output::text(&table(&latest.events).render(output::colour()))?,
    }
    if arguments.follow { follow(arguments, &client, latest.revision) } else { Ok(()) }
}

/// That there is nothing to tell, and since when this node would know.
fn none(first: Option<u64>) -> String {
    match first {
        Some(at) => {
            format!("nothing of that: what this agent remembers begins at {} UTC", moment(at))
        }
        None => "nothing has happened since this agent started".into(),
    }
}

/// What happens after that, for ever.
fn follow(arguments: &Arguments, client: &Client, mut known: u64) -> Result<(), Failure> {
    loop {
        let mut shown = Ok(());
        let ended = client.follow_events(arguments.vip.as_deref(), known, |event| {
            known = known.max(event.seq.unwrap_or_default());
            shown = match arguments.output {
                form @ (Form::Json | Form::Yaml) => output::item(form, &event),
                Form::Table => output::text(&line(&event)),
            };
            shown.is_ok()
        });
        shown?;
        match ended {
            // An agent that restarts is worth waiting for.
            Ok(())
            | Err(
                ClientError::NotListening { .. }
                | ClientError::Broken { .. }
                | ClientError::Silent { .. },
            ) => {
                std::thread::sleep(AGAIN);
            }
            Err(
                error @ (ClientError::NotAllowed { .. }
                | ClientError::Refused(_)
                | ClientError::NotUnderstood { .. }),
            ) => return Err(error.into()),
        }
    }
}

/// An event that comes after the table.
fn line(event: &EventView) -> String {
    let vip = event.vip.as_deref().map_or_else(|| "-".into(), plain);
    format!("{}  {vip}  {}\n", moment(event.at), plain(&event.sentence))
}

fn table(events: &[EventView]) -> Table<3> {
    let mut table = Table::new([
        ("TIME (UTC)", Align::Left),
        ("VIP", Align::Left),
        ("WHAT HAPPENED", Align::Left),
    ]);
    for event in events {
        let vip = event.vip.clone().unwrap_or_default();
        table.row(Tone::Plain, [moment(event.at), vip, event.sentence.clone()]);
    }
    table
}

/// Milliseconds since 1970 as a date that sorts; UTC, so that two hosts can be compared.
pub(crate) fn moment(at: u64) -> String {
    let (seconds, millis) = (at / 1_000, at % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// The Gregorian date of a day since 1970, by counting in eras of 400 years that begin in March.
pub(crate) const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_that_sort() {
        let table = [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_399_999, "2000-02-28 23:59:59.999"),
            (951_782_400_000, "2000-02-29 00:00:00.000"),
            (1_795_366_923_045, "2026-11-22 17:02:03.045"),
            (4_107_542_400_000, "2100-03-01 00:00:00.000"),
        ];
        for (at, text) in table {
            assert_eq!(moment(at), text);
        }
    }

    #[test]
    fn where_nothing_is_found_it_is_said_what_is_remembered() {
        let said = none(Some(1_795_366_923_045));
        assert!(said.ends_with("begins at 2026-11-22 17:02:03.045 UTC"), "{said}");
        assert_eq!(none(None), "nothing has happened since this agent started");
    }

    #[test]
    fn an_event_is_a_line() {
        let event = |vip: Option<&str>, sentence: &str| EventView {
            seq: None,
            at: 1_795_366_923_045,
            node: None,
            vip: vip.map(str::to_owned),
            kind: "acquired".into(),
            sentence: sentence.into(),
            phases: None,
        };
        let events = [event(Some("web"), "lb1 took it over"), event(None, "lb2 is heard")];
        let expected = "\
TIME (UTC)               VIP  WHAT HAPPENED
2026-11-22 17:02:03.045  web  lb1 took it over
2026-11-22 17:02:03.045  -    lb2 is heard
";
        assert_eq!(table(&events).render(false), expected);
    }
}

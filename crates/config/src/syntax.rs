//! Says in plain words what the TOML parser found wrong, with what people mostly meant.

use crate::Code;
use crate::report::{Problems, Span, shown};
use core::ops::ControlFlow;

/// Adds the syntax errors that say something of their own; one mistake makes the parser stumble
/// over and over, and nobody wants to read that.
pub(crate) fn add(errors: &[toml::de::Error], problems: &mut Problems<'_>) {
    let text = problems.text();
    hide_secret(problems);
    let unclosed = errors.iter().any(|e| e.message().starts_with("unclosed array,"));
    let mut line_before = None;
    for error in errors {
        let span = error.span().unwrap_or_default();
        let start = span.start.min(text.len());
        let line = text.as_bytes()[..start].iter().filter(|b| **b == b'\n').count();
        if line_before.replace(line) == Some(line) {
            continue;
        }
        if add_one(error.message(), &span, unclosed, problems).is_break() {
            break;
        }
    }
}

/// Breaks when everything after this error only follows from it.
fn add_one(
    found: &str,
    span: &Span,
    unclosed: bool,
    problems: &mut Problems<'_>,
) -> ControlFlow<()> {
    let text = problems.text();
    let line = line_at(text, span);
    if let Some((what, fix)) = foreign(text[line.clone()].trim()) {
        let message = format!("this is not TOML, it looks like {what}");
        problems.add(Code::Syntax, span, message, "Buoy's file is TOML: `key = value`", fix);
        problems.lose_track_at(0);
        return ControlFlow::Break(());
    }
    let list =
        found.starts_with("missing comma between array") || found.starts_with("unclosed array,");
    if unclosed && list {
        // The parser notices at the next line; the mistake is at the end of what was before.
        let before = text.get(..span.start).unwrap_or(text).trim_end();
        let end = before.len();
        let start = before.char_indices().next_back().map_or(0, |(at, _)| at);
        let fix = "end the list with `]`, or put a comma between its elements";
        let reason = "the list goes on after this";
        problems.add(Code::Syntax, &(start..end), "this list is not closed", reason, fix);
        problems.lose_track_at(start);
        return ControlFlow::Break(());
    }
    match Fault::of(found) {
        Fault::Unquoted => add_unquoted(&line, span, problems),
        Fault::Confined(message, fix) => problems.add(Code::Syntax, span, message, "", fix),
        Fault::Open(message, fix) => {
            problems.add(Code::Syntax, span, message, "", fix);
            problems.lose_track_at(span.start);
        }
        Fault::Other => {
            let fix = "write `key = value`, with texts in double quotes";
            problems.add(Code::Syntax, span, format!("this is not TOML: {found}"), "", fix);
            problems.lose_track_at(span.start);
        }
    }
    ControlFlow::Continue(())
}

/// What the parser's words come to.
enum Fault {
    /// A text without quotes, by far the most frequent.
    Unquoted,
    /// The parser goes on in the next line as if nothing had happened; message and fix.
    Confined(&'static str, &'static str),
    /// What follows is read as something else; message and fix.
    Open(&'static str, &'static str),
    /// Rare: told in the parser's own words.
    Other,
}

impl Fault {
    fn of(found: &str) -> Self {
        match found.split(',').next().unwrap_or(found) {
            "string values must be quoted"
            | "invalid boolean"
            | "invalid value"
            | "invalid float"
            | "invalid integer"
            | "invalid datetime" => Self::Unquoted,
            "invalid basic string" | "invalid literal string" => Self::Confined(
                "this text has no closing quote, or a stray backslash",
                "end it with the quote it began with; write a backslash twice",
            ),
            "unexpected key or value" => Self::Confined(
                "there is something after the value",
                "write one `key = value` on a line; several values are a list: [\"a\", \"b\"]",
            ),
            "duplicate key" => Self::Confined(
                "this key is here twice",
                "remove one of the two; a second VIP has its own [[vip]]",
            ),
            "missing comma between array elements" => Self::Confined(
                "a comma is missing in this list",
                "put a comma between its elements",
            ),
            "missing comma between key-value pairs" => Self::Open(
                "a comma is missing between `{` and `}`",
                "put a comma between the keys, and `}` at the end",
            ),
            "unclosed inline table" => Self::Open("this `{` is not closed", "end it with `}`"),
            "key with no value" | "invalid unquoted key" | "invalid key-value pair" => {
                Self::Open("this line is not `key = value`", "write a key, `=`, and a value")
            }
            "unclosed array table" | "unclosed table" => Self::Open(
                "this header of a table is not closed",
                "write as many brackets at its end as at its beginning",
            ),
            "recursion limit" | "cannot recurse further; max recursion depth met" => Self::Open(
                "this is nested too deeply",
                "no key of Buoy takes more than a list in a table",
            ),
            _ => Self::Other,
        }
    }
}

/// A value without quotes: all of it is marked, and shown as it should be.
fn add_unquoted(line: &Span, span: &Span, problems: &mut Problems<'_>) {
    let text = problems.text();
    let content = &text[line.clone()];
    let simple = content.split_once('=').map(|(key, value)| {
        let value = value.split(" #").next().unwrap_or(value).trim();
        (key.trim(), value)
    });
    let Some((key, value)) = simple.filter(|(_, v)| !v.contains(['"', '\'', '[', '{', '='])) else {
        let fix = "put it in double quotes, as in \"10ms\" or \"10.0.0.11\"";
        problems.add(Code::Syntax, span, "this value is not quoted", "", fix);
        return;
    };
    if value.is_empty() {
        let fix = "write a value after `=`, or remove the line";
        problems.add(Code::Syntax, span, "this key has no value", "", fix);
        return;
    }
    let start = line.start + (value.as_ptr() as usize - content.as_ptr() as usize);
    let fix = if key == "secret" && !value.starts_with("file:") {
        "name the file of the key: secret = \"file:cluster.key\"".to_owned()
    } else {
        format!("write {} = \"{}\"", shown(key), shown(value))
    };
    let span = start..start + value.len();
    problems.add(Code::Syntax, &span, "this value is not quoted", "", fix);
}

/// Files of other programs, by a line that TOML cannot have.
fn foreign(line: &str) -> Option<(&'static str, &'static str)> {
    let first = line.split([' ', '\t', '{']).next().unwrap_or_default();
    let yaml =
        first.strip_suffix(':').is_some_and(|key| !key.is_empty()) || first == "-" || line == "---";
    match first {
        "vrrp_instance" | "global_defs" | "virtual_server" | "vrrp_script" | "vrrp_sync_group" => {
            Some((
                "a file of keepalived",
                "run `buoy import keepalived FILE`, which turns it into Buoy's",
            ))
        }
        "global" | "defaults" | "frontend" | "listen" | "backend" if !line.contains('=') => Some((
            "a file of HAProxy",
            "run `buoy import haproxy FILE`, which turns it into Buoy's",
        )),
        _ if yaml => Some((
            "YAML",
            "write `key = value`; lists are [\"a\", \"b\"], and each VIP begins with [[vip]]",
        )),
        _ if line.starts_with('{') => {
            Some(("JSON", "write `key = value`, without the outer braces"))
        }
        _ => None,
    }
}

/// The line that the span begins in.
fn line_at(text: &str, span: &Span) -> Span {
    let before = text.get(..span.start).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    let length = text[start..].find('\n').unwrap_or(text.len() - start);
    start..start + length
}

/// A secret that stands in the file itself is not printed, even where the rest cannot be read.
fn hide_secret(problems: &mut Problems<'_>) {
    let text = problems.text();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let value =
            content.trim_start().strip_prefix("secret").filter(|rest| !rest.contains("file:"));
        if let Some(value) = value {
            let end = start + content.len();
            let from = end - value.trim_start_matches([' ', '\t', '=', ':']).len();
            problems.mask(&(from..end));
        }
        start += line.len();
    }
}

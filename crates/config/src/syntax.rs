//! Says in plain words what the TOML parser found wrong, with what people mostly meant.

use crate::Code;
use crate::report::{Problems, Span};
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
    if let Some((what, fix)) = foreign(line) {
        let message = format!("this is not TOML, it looks like {what}");
        problems.add(Code::Syntax, span, message, "Buoy's file is TOML: `key = value`", fix);
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
        problems.add(
            Code::Syntax,
            &(start..end),
            "this list is not closed",
            "the list goes on after this",
            fix,
        );
        return ControlFlow::Break(());
    }
    let (message, fix) = words(found, line);
    problems.add(Code::Syntax, span, message, "", fix);
    ControlFlow::Continue(())
}

/// The parser's words, or better ones; and what to do.
fn words(found: &str, line: &str) -> (String, &'static str) {
    let (plain, fix) = match found.split(',').next().unwrap_or(found) {
        "string values must be quoted"
        | "invalid boolean"
        | "invalid value"
        | "invalid float"
        | "invalid integer"
        | "invalid datetime" => {
            ("this value is not quoted", "put it in double quotes, as in \"10ms\" or \"10.0.0.11\"")
        }
        "invalid basic string" | "invalid multi-line basic string" | "invalid literal string" => (
            "this text has no closing quote, or a stray backslash",
            "end it with the quote it began with; write a backslash twice",
        ),
        "key with no value" | "invalid unquoted key" | "invalid key-value pair"
            if line.starts_with('[') =>
        {
            ("this header of a table is not closed", "write [[vip]] or [[vip.service]]")
        }
        "key with no value" | "invalid unquoted key" | "invalid key-value pair" => {
            ("this line is not `key = value`", "write a key, `=`, and a value")
        }
        "unclosed array table" | "unclosed table" => (
            "this header of a table is not closed",
            "write as many brackets at its end as at its beginning",
        ),
        "duplicate key" => {
            ("this key is here twice", "remove one of the two; a second VIP has its own [[vip]]")
        }
        "missing comma between array elements" => {
            ("a comma is missing in this list", "put a comma between its elements")
        }
        "missing comma between key-value pairs" => {
            ("a comma is missing between `{` and `}`", "put a comma between the keys")
        }
        "unclosed inline table" => ("this `{` is not closed", "end it with `}`"),
        "missing value for key" | "missing value" => {
            ("this key has no value", "write a value after `=`")
        }
        "recursion limit" | "cannot recurse further; max recursion depth met" => {
            ("this is nested too deeply", "no key of Buoy takes more than a list in a table")
        }
        _ => {
            return (
                format!("this is not TOML: {found}"),
                "write `key = value`, with texts in double quotes",
            );
        }
    };
    (plain.to_owned(), fix)
}

/// Files of other programs, by a line that TOML cannot have.
fn foreign(line: &str) -> Option<(&'static str, &'static str)> {
    const START: &str = "start from a file in examples/, and see docs/configuration.md";
    let first = line.split([' ', '\t', '{']).next().unwrap_or_default();
    let yaml =
        first.strip_suffix(':').is_some_and(|key| !key.is_empty()) || first == "-" || line == "---";
    match first {
        "vrrp_instance" | "global_defs" | "virtual_server" | "vrrp_script" | "vrrp_sync_group" => {
            Some(("a file of keepalived", START))
        }
        "global" | "defaults" | "frontend" | "listen" | "backend" if !line.contains('=') => {
            Some(("a file of HAProxy", START))
        }
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

/// The line that the span begins in, without the space around it.
fn line_at<'t>(text: &'t str, span: &Span) -> &'t str {
    let before = text.get(..span.start).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |at| at + 1);
    text[start..].lines().next().unwrap_or_default().trim()
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

//! Reads a line of `virtual_routes` or `virtual_rules` as a text of `routes` or `rules`.
//!
//! A line is carried as a whole or not at all: a route without one of its words may lead elsewhere. Words that say
//! what holds in Buoy anyway are passed over, with a note.

use super::tree::Node;
use crate::notes::Notes;

/// The words of Buoy, in the order in which they are written, each with those that keepalived has for it.
const OF_ROUTE: &[(&str, &[&str])] = &[
    ("via", &["via", "gw"]),
    ("dev", &["dev", "oif"]),
    ("src", &["src"]),
    ("table", &["table"]),
    ("metric", &["metric", "priority", "preference"]),
];
const OF_RULE: &[(&str, &[&str])] = &[
    ("from", &["from"]),
    ("to", &["to"]),
    ("iif", &["iif", "dev"]),
    ("fwmark", &["fwmark"]),
    ("table", &["table", "lookup"]),
    ("priority", &["priority", "preference", "order", "pref"]),
];

/// `src 10.0.0.100 to 192.168.3.0/24 via 10.0.0.1 dev eth1` with the destination in front, as `ip` has it.
pub(super) fn route(line: &Node, notes: &mut Notes) -> Option<String> {
    let mut to = None;
    let (mut pairs, mut scope) = (Vec::new(), None);
    let mut words = line.words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "to" | "unicast" | "inet" | "inet6" => {}
            "scope" => scope = words.next(),
            _ if is_passed_over(word, &mut words, line, notes) => {}
            _ => match meant(OF_ROUTE, word) {
                // `via inet6 ADDRESS` is the long form.
                Some(meant) => {
                    let value = words.find(|value| !matches!(*value, "inet" | "inet6"));
                    pairs.push((meant, value.unwrap_or("")));
                }
                None if to.is_none() && is_destination(word) => to = Some(word),
                None => return leave(line, &no_such(word, "a route"), notes),
            },
        }
    }
    let Some(to) = to else {
        return leave(line, "it does not say where it leads", notes);
    };
    if let Some(scope) = scope {
        let has_hop = pairs.iter().any(|(word, _)| *word == "via");
        let usual = if has_hop { ["global", "0"] } else { ["link", "253"] };
        if !usual.contains(&scope) {
            let why = format!(
                "Buoy's routes have the scope that is usual, which is not \"{scope}\" here"
            );
            return leave(line, &why, notes);
        }
        notes.say_at(&line.place, format!("`scope {scope}` needs no word: it is so in Buoy"));
    }
    let text = format!("{to} {}", written(OF_ROUTE, &pairs));
    kept(text.trim_end(), line, buoy_config::route_fault, notes)
}

/// `from 10.0.0.100 table 100`.
pub(super) fn rule(line: &Node, notes: &mut Notes) -> Option<String> {
    let mut pairs = Vec::new();
    let mut words = line.words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if is_passed_over(word, &mut words, line, notes) {
            continue;
        }
        let Some(meant) = meant(OF_RULE, word) else {
            return leave(line, &no_such(word, "a rule"), notes);
        };
        pairs.push((meant, words.next().unwrap_or("")));
    }
    kept(&written(OF_RULE, &pairs), line, buoy_config::rule_fault, notes)
}

/// Words that do not change where packets go.
fn is_passed_over<'t>(
    word: &str,
    words: &mut impl Iterator<Item = &'t str>,
    line: &Node,
    notes: &mut Notes,
) -> bool {
    match word {
        "no_track" => {
            let why = "what somebody else removes is set again within two seconds";
            notes.left_at(&line.place, word, why);
        }
        "protocol" | "proto" => {
            let value = words.next().unwrap_or("");
            let why = "Buoy marks all of its own with protocol 176";
            notes.left_at(&line.place, &format!("{word} {value}"), why);
        }
        _ => return false,
    }
    true
}

fn is_destination(word: &str) -> bool {
    word == "default" || word.starts_with(|c: char| c.is_ascii_digit()) || word.contains(':')
}

fn meant(known: &[(&'static str, &[&str])], word: &str) -> Option<&'static str> {
    known.iter().find(|(_, words)| words.contains(&word)).map(|(meant, _)| *meant)
}

fn no_such(word: &str, what: &str) -> String {
    format!(
        "{what} of Buoy has nothing like \"{word}\", and without it the line means something else"
    )
}

/// In the order of `known`; what is there twice stays so, and is refused.
fn written(known: &[(&'static str, &[&str])], pairs: &[(&str, &str)]) -> String {
    let all = known.iter().flat_map(|(word, _)| pairs.iter().filter(move |(said, _)| said == word));
    let number = |word: &str, value: &str| match (word, value) {
        // The kernel's own number, the same on every host.
        ("table", "default") => "253".to_owned(),
        _ => value.to_owned(),
    };
    let texts: Vec<String> =
        all.map(|(word, value)| format!("{word} {}", number(word, value))).collect();
    texts.join(" ")
}

/// The text, if Buoy takes it.
fn kept(
    text: &str,
    line: &Node,
    fault: fn(&str) -> Option<String>,
    notes: &mut Notes,
) -> Option<String> {
    match fault(text) {
        None => Some(text.to_owned()),
        Some(why) => leave(line, &why, notes),
    }
}

fn leave(line: &Node, why: &str, notes: &mut Notes) -> Option<String> {
    notes.left_at(&line.place, &line.text(), why);
    None
}

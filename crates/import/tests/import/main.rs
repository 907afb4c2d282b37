//! Files of other programs through the importers: what comes out is accepted by Buoy's own checker, and nothing is lost in silence.

mod haproxy;
mod keepalived;
mod vaddrs;

use buoy_import::{Imported, Options};

/// Two hosts.
fn options() -> Options {
    let peer = |name: &str, address: &str| (Some(name.to_owned()), address.to_owned());
    let peers = vec![peer("lb1", "10.0.0.11"), peer("lb2", "10.0.0.12")];
    Options { peers, ..Options::default() }
}

/// The text, which is accepted without an error and is as `buoy config fmt` would have it.
fn accepted(imported: &Imported) -> String {
    let text = imported.toml.clone().expect("something was read");
    let checked = buoy_config::check_offline(&text, "output");
    assert!(
        checked.is_ok(),
        "{text}\n{}",
        checked.map_or_else(|report| report.render(120, false), |_| String::new())
    );
    assert_eq!(
        buoy_config::format::format(&text).as_deref(),
        Some(text.as_str()),
        "it is in order"
    );
    text
}

fn notes(imported: &Imported) -> Vec<String> {
    imported.notes.iter().map(ToString::to_string).collect()
}

/// Every one of these is a line of the text, whatever its columns.
fn has_lines(text: &str, expected: &[&str]) {
    let narrow = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = text.lines().map(narrow).collect();
    for line in expected {
        assert!(lines.contains(&narrow(line)), "{line} is missing in\n{text}");
    }
}

/// There is a note at that line that says so.
fn has_note(imported: &Imported, line: usize, words: &str) {
    let found = imported.notes.iter().any(|note| note.line == line && note.text.contains(words));
    assert!(found, "no note `{words}` at {line}:\n{}", notes(imported).join("\n"));
}

//! What keys mean, and where tables stand in each other: for `buoy config explain` and the JSON Schema.
//!
//! The words are those of the reference for operators, which is part of the binary: one text to read on the web, to
//! print on a host, and for tests to hold against the parser.

use crate::keys::{self, Key, Reload, SCHEMAS, Schema};

/// The reference for operators.
const REFERENCE: &str = include_str!("../../../docs/configuration.md");

/// The headings of the tables of keys in the reference, in the order of [`SCHEMAS`].
pub const HEADINGS: [&str; SCHEMAS.len()] = [
    "## The top of the file",
    "### `etcd_tls`",
    "## `[api]`",
    "### `tls` of `[api]`",
    "## `[[vip]]`",
    "## `[[pool]]`",
    "## `[[reservation]]`",
    "## `vrrp` of `[[vip]]`",
    "### `auth` of `vrrp`",
    "## `[[vip.service]]`",
    "## `check = { ... }`",
    "### `udp = { ... }`",
    "## `check` of `[[vip]]`",
    "## `[traces]`",
    "## `[[hook]]`",
];

/// The keys that are tables with keys of their own: table, key, and what the keys of that are.
const BELOW: &[(&Schema, &str, &Schema)] = &[
    (&keys::top::SCHEMA, "etcd_tls", &keys::etcd_tls::SCHEMA),
    (&keys::top::SCHEMA, "api", &keys::api::SCHEMA),
    (&keys::api::SCHEMA, "tls", &keys::api_tls::SCHEMA),
    (&keys::top::SCHEMA, "vip", &keys::vip::SCHEMA),
    (&keys::top::SCHEMA, "pool", &keys::pool::SCHEMA),
    (&keys::top::SCHEMA, "reservation", &keys::reservation::SCHEMA),
    (&keys::top::SCHEMA, "traces", &keys::traces::SCHEMA),
    (&keys::top::SCHEMA, "hook", &keys::hook::SCHEMA),
    (&keys::vip::SCHEMA, "service", &keys::service::SCHEMA),
    (&keys::vip::SCHEMA, "vrrp", &keys::vrrp::SCHEMA),
    (&keys::vrrp::SCHEMA, "auth", &keys::vrrp_auth::SCHEMA),
    (&keys::pool::SCHEMA, "service", &keys::service::SCHEMA),
    (&keys::vip::SCHEMA, "check", &keys::node_check::SCHEMA),
    (&keys::pool::SCHEMA, "check", &keys::node_check::SCHEMA),
    (&keys::service::SCHEMA, "check", &keys::check::SCHEMA),
    (&keys::check::SCHEMA, "udp", &keys::udp::SCHEMA),
];

/// The keys of a key that is a table or a list of tables.
pub fn below(schema: &Schema, key: &str) -> Option<&'static Schema> {
    let is_it = |(over, name, _): &&(&'static Schema, &str, &'static Schema)| {
        over.title == schema.title && *name == key
    };
    BELOW.iter().find(is_it).map(|(_, _, schema)| *schema)
}

/// What a key of a table means, in plain words; empty where the reference does not know it.
pub fn meaning(schema: &Schema, key: &Key) -> String {
    let place = SCHEMAS.iter().position(|other| other.title == schema.title);
    let heading = place.and_then(|place| HEADINGS.get(place));
    let rows = heading.map(|heading| rows(REFERENCE, heading)).unwrap_or_default();
    let row = rows.into_iter().find(|row| row.first().is_some_and(|name| name == key.name));
    row.and_then(|row| row.get(4).map(|text| without_links(text))).unwrap_or_default()
}

/// What a reload does with a changed value, in a sentence.
pub fn reload_means(reload: Reload) -> String {
    let (_, below) = REFERENCE.split_once("| reload | means |\n").unwrap_or_default();
    let lines = below.lines().take_while(|line| line.starts_with('|'));
    let mut cells = lines.map(cells).filter(|row| row.first().is_some_and(|c| c == reload.name()));
    cells.next().and_then(|row| row.get(1).cloned()).unwrap_or_default()
}

/// The rows of the table below a heading, each as its cells without back-quotes.
pub fn rows(text: &str, heading: &str) -> Vec<Vec<String>> {
    let Some((_, below)) = text.split_once(&format!("\n{heading}\n")) else { return Vec::new() };
    let lines =
        below.lines().skip_while(|l| !l.starts_with('|')).take_while(|l| l.starts_with('|'));
    lines.skip(2).map(cells).collect()
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect()
}

/// `[text](link)` as its text.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let inner = link.split_once("](").and_then(|(words, after)| {
            let end = after.split_once(')');
            // A list in TOML is no link.
            end.filter(|_| !words.contains('[')).map(|(_, after)| (words, after))
        });
        match inner {
            Some((words, after)) => {
                plain.push_str(words);
                rest = after;
            }
            None => {
                plain.push('[');
                rest = link;
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_meaning_and_every_table_a_way_to_it() {
        for schema in SCHEMAS {
            for key in schema.keys {
                let meaning = meaning(schema, key);
                assert!(meaning.len() >= 10, "{} {}: {meaning:?}", schema.title, key.name);
                assert!(!meaning.contains("]("), "{} {}: {meaning}", schema.title, key.name);
            }
            let is_top = schema.title == keys::top::SCHEMA.title;
            let is_below = BELOW.iter().any(|(_, _, below)| below.title == schema.title);
            assert!(is_top || is_below, "{} is in no table: a row of BELOW lacks", schema.title);
        }
        for reload in [Reload::Live, Reload::Vip, Reload::Service, Reload::Member, Reload::Restart]
        {
            assert!(reload_means(reload).len() > 10, "{}", reload.name());
        }
    }

    #[test]
    fn links_become_their_words() {
        let table = [
            ("see [Two hosts](#two-hosts).", "see Two hosts."),
            ("write [\"a\", \"b\"] or [x](y)", "write [\"a\", \"b\"] or x"),
            ("nothing", "nothing"),
        ];
        for (text, plain) in table {
            assert_eq!(without_links(text), plain);
        }
    }
}

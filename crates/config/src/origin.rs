//! Names every value of a configuration, so that of each can be said where it comes from.
//!
//! A value is called by the tables that it is in, as in `vip/web.service[443/tcp].balance`: entries as `layer` calls
//! them, tables of a list by what tells them apart. Each item of a list is a value of its own, since a list of
//! backends is seldom one person's work.

use crate::keys::{service, top, vip};
use crate::layer::{self, Lines};
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// One value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leaf {
    /// What it is called.
    pub path: String,
    /// It, as TOML.
    pub value: String,
    /// The line where it stands, from 1; `None`: in no text.
    pub line: Option<usize>,
}

impl Leaf {
    /// Whether it is the same value, wherever it stands.
    pub fn is(&self, other: &Self) -> bool {
        (&self.path, &self.value) == (&other.path, &other.value)
    }
}

/// All values of a text, in its order; none of one that is not TOML.
pub fn of_text(text: &str) -> Vec<Leaf> {
    let (Ok(tree), Ok(table)) = (DeTable::parse(text), text.parse::<Table>()) else {
        return Vec::new();
    };
    let mut leaves = Leaves { lines: Lines::new(text), all: Vec::new() };
    for (key, value) in &table {
        let spanned = tree.get_ref().get(key.as_str());
        match value {
            Value::Array(list) if is_tables(list) => {
                for (place, item) in list.iter().enumerate() {
                    let table = item.as_table();
                    let entry = table.and_then(|table| layer::entry(key, table));
                    let name = entry.unwrap_or_else(|| format!("{key}{}", label(list, place)));
                    leaves.walk(&name, item, spanned.and_then(|list| at(list, place)));
                }
            }
            Value::Array(_)
            | Value::Table(_)
            | Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => leaves.walk(key, value, spanned),
        }
    }
    leaves.all.sort_by_key(|leaf| leaf.line);
    leaves.all
}

/// All values of an entry that stands in no text.
pub fn of_entry(name: &str, table: &Table) -> Vec<Leaf> {
    let mut leaves = Leaves { lines: Lines::new(""), all: Vec::new() };
    leaves.walk(name, &Value::Table(table.clone()), None);
    leaves.all
}

struct Leaves {
    lines: Lines,
    all: Vec<Leaf>,
}

impl Leaves {
    fn walk(&mut self, path: &str, value: &Value, spanned: Option<&Spanned<DeValue<'_>>>) {
        match value {
            Value::Table(table) if !table.is_empty() => {
                for (key, value) in table {
                    let below = spanned.and_then(|s| s.get_ref().as_table()?.get(key.as_str()));
                    self.walk(&format!("{path}.{key}"), value, below);
                }
            }
            Value::Array(list) if !list.is_empty() => {
                let has_tables = is_tables(list);
                for (place, item) in list.iter().enumerate() {
                    let label = if has_tables { label(list, place) } else { String::new() };
                    let below = spanned.and_then(|list| at(list, place));
                    self.walk(&format!("{path}{label}"), item, below);
                }
            }
            Value::Table(_)
            | Value::Array(_)
            | Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => {
                let line = spanned.map(|s| self.lines.of(s.span().start));
                let value = value.to_string();
                self.all.push(Leaf { path: path.to_owned(), value, line });
            }
        }
    }
}

fn is_tables(list: &[Value]) -> bool {
    !list.is_empty() && list.iter().all(Value::is_table)
}

fn at<'t, 'v>(list: &'t Spanned<DeValue<'v>>, place: usize) -> Option<&'t Spanned<DeValue<'v>>> {
    list.get_ref().as_array()?.get(place)
}

/// What tells a table of a list from the others: its port, name or address, or its place.
fn label(list: &[Value], place: usize) -> String {
    let of = |item: &Value| {
        let known = [service::PORT.name, vip::NAME.name, vip::ADDRESS.name, top::NODE.name];
        let value = known.iter().find_map(|key| item.get(key))?;
        let first = value.as_array().map_or(Some(value), |all| all.first())?;
        Some(first.as_str().map_or_else(|| first.to_string(), str::to_owned))
    };
    let mine = list.get(place).and_then(of);
    let twins = list.iter().filter(|item| of(item) == mine).count();
    match mine {
        Some(name) if twins == 1 => format!("[{name}]"),
        Some(_) | None => format!("[{}]", place + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"peers = ["10.0.0.11",
  "10.0.0.12"]

[api]
listen = "127.0.0.1:4749"

[[vip]]
name = "web"
address = "10.0.0.100/24"
check = [{ process = "haproxy" }, { link = "eth1" }]
[[vip.service]]
port = ["443/tcp"]
backends = ["10.0.0.21:80", "b 10.0.0.22:80"]
check = { http = "GET /" }

[[reservation]]
address = "10.0.0.111"
for = "printer"
"#;

    #[test]
    fn every_value_has_a_name_and_a_line() {
        let leaves = of_text(FILE);
        let told: Vec<(&str, &str, usize)> = leaves
            .iter()
            .map(|leaf| (leaf.path.as_str(), leaf.value.as_str(), leaf.line.unwrap()))
            .collect();
        let service = "vip/web.service[443/tcp]";
        let expected = [
            ("peers", "\"10.0.0.11\"", 1),
            ("peers", "\"10.0.0.12\"", 2),
            ("api.listen", "\"127.0.0.1:4749\"", 5),
            ("vip/web.name", "\"web\"", 8),
            ("vip/web.address", "\"10.0.0.100/24\"", 9),
            ("vip/web.check[1].process", "\"haproxy\"", 10),
            ("vip/web.check[2].link", "\"eth1\"", 10),
            (&format!("{service}.port"), "\"443/tcp\"", 12),
            (&format!("{service}.backends"), "\"10.0.0.21:80\"", 13),
            (&format!("{service}.backends"), "\"b 10.0.0.22:80\"", 13),
            (&format!("{service}.check.http"), "\"GET /\"", 14),
            ("reservation/10.0.0.111.address", "\"10.0.0.111\"", 17),
            ("reservation/10.0.0.111.for", "\"printer\"", 18),
        ];
        for expected in &expected {
            assert!(told.contains(expected), "{expected:?} of {told:#?}");
        }
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        assert!(of_text("peers = ").is_empty());
    }

    #[test]
    fn an_entry_has_the_names_that_it_has_in_a_text() {
        let (_, entries) = layer::take_apart(FILE).unwrap();
        for (name, table) in &entries {
            let of_entry = of_entry(name, table);
            assert!(of_entry.len() > 1 && of_entry.iter().all(|leaf| leaf.line.is_none()));
            let in_text = of_text(FILE);
            for leaf in &of_entry {
                assert!(in_text.iter().any(|other| other.is(leaf)), "{leaf:?}");
            }
        }
    }
}

//! Lays `[[vip]]` and `[[reservation]]` tables that were edited elsewhere over a file, so that the whole is checked as
//! one text. Each is an entry with a name: `vip/web`, `reservation/10.0.0.150`.
//!
//! Lines of the file stay where they are: a table that is replaced or hidden becomes a comment, and what takes its
//! place stands behind the file, each with a remark of where it comes from. So a problem is shown at the file's own
//! line, or at a line of what was edited ([`Layer`]).

use crate::keys::{reservation, top, vip};
use crate::report::Span;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// One table over the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    /// Which entry.
    pub key: String,
    /// Where it comes from, in words of one line.
    pub remark: String,
    /// The table; `None` hides that of the file.
    pub table: Option<Table>,
}

/// Where one of them stands in the whole text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layer {
    /// What messages call it.
    pub name: String,
    /// Its first line, from 1.
    pub line: usize,
}

/// A file with what lies over it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Layered {
    /// All of it, to be checked.
    pub text: String,
    /// What is not the file's, in the order of the text.
    pub layers: Vec<Layer>,
}

/// Why nothing can be laid over a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unlayable {
    /// Its VIPs are not tables of their own.
    Inline,
    /// The file is not TOML; checking it says why.
    Syntax,
    /// A table cannot be written as TOML: which, and why.
    Table(String, String),
    /// What comes out would not be what was meant.
    Odd,
}

impl fmt::Display for Unlayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline => f.write_str(
                "the file has its VIPs or reservations as `vip = [...]`, and edits need tables: write each as [[vip]]",
            ),
            Self::Syntax => f.write_str("the file is not TOML: `buoy config check` says where"),
            Self::Table(name, why) => write!(f, "{name} cannot be written as TOML: {why}"),
            Self::Odd => f.write_str(
                "edits cannot be laid over this file: put each [[vip]] with all that belongs to it into one place",
            ),
        }
    }
}

impl std::error::Error for Unlayable {}

/// What a `[[vip]]` is called: its name, or its first address.
pub fn vip_name(table: &Table) -> Option<String> {
    if let Some(Value::String(name)) = table.get(vip::NAME.name) {
        return Some(name.clone());
    }
    let address = table.get(vip::ADDRESS.name)?;
    let text = address.as_array().map_or(Some(address), |all| all.first())?.as_str()?;
    let address = text.split('/').next().unwrap_or(text);
    Some(address.parse::<IpAddr>().map_or_else(|_| address.to_owned(), |a| a.to_string()))
}

/// The tables that are entries.
fn kinds() -> [&'static str; 2] {
    [top::VIP.name, top::RESERVATION.name]
}

/// The name of a table's entry, by the key of its list.
pub(crate) fn entry(kind: &str, table: &Table) -> Option<String> {
    if kind == top::VIP.name {
        return vip_name(table).map(|name| vip_key(&name));
    }
    let address = table.get(reservation::ADDRESS.name)?.as_str()?;
    Some(address.parse().map_or_else(|_| format!("{kind}/{address}"), reservation_key))
}

/// The entry of a VIP.
pub fn vip_key(name: &str) -> String {
    format!("{}/{name}", top::VIP.name)
}

/// The entry of the reservation of an address.
pub fn reservation_key(address: IpAddr) -> String {
    format!("{}/{address}", top::RESERVATION.name)
}

/// Everything but the entries, and the entries by their names; why not, in the parser's words.
pub fn take_apart(text: &str) -> Result<(Table, BTreeMap<String, Table>), String> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut entries = BTreeMap::new();
    for kind in kinds() {
        let list = match table.remove(kind) {
            None => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(format!("`{kind}` must be tables [[{kind}]]")),
        };
        for item in list {
            let Value::Table(one) = item else {
                return Err(format!("`{kind}` must be tables [[{kind}]]"));
            };
            let name = entry(kind, &one).ok_or_else(|| match kind == top::VIP.name {
                true => "a [[vip]] has neither name nor address".to_owned(),
                false => format!("a [[{kind}]] has no address"),
            })?;
            if entries.insert(name.clone(), one).is_some() {
                return Err(format!("two of the file are {name}"));
            }
        }
    }
    Ok((table, entries))
}

/// A table as it is written below its header, by the name of its entry.
pub fn written(key: &str, table: &Table) -> Result<String, String> {
    let kind = key.split('/').next().unwrap_or(key);
    let list = Value::Array(vec![Value::Table(table.clone())]);
    let whole = Table::from_iter([(kind.to_owned(), list)]);
    toml::to_string(&whole).map_err(|error| error.to_string())
}

/// Where the top-level keys and the entries of a file stand: their names, as in `vip/web`, and lines.
pub fn places(text: &str) -> Vec<(String, usize)> {
    let (tree, _) = DeTable::parse_recoverable(text);
    let lines = Lines::new(text);
    let line = |at: usize| lines.of(at);
    let mut all = Vec::new();
    for (key, value) in tree.get_ref() {
        let key_name = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Array(list) if kinds().contains(&key_name) => {
                for item in list.iter() {
                    let of = || entry(key_name, &plain(item.get_ref())?);
                    let name = of().unwrap_or_else(|| format!("{key_name}/"));
                    all.push((name, line(item.span().start)));
                }
            }
            DeValue::Array(list) if list.iter().all(|item| item.get_ref().is_table()) => {
                let first = list.iter().next().map_or(key.span().start, |item| item.span().start);
                all.push((key_name.to_owned(), line(first)));
            }
            DeValue::Array(_)
            | DeValue::Table(_)
            | DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => all.push((key_name.to_owned(), line(key.span().start))),
        }
    }
    all.sort_by_key(|(_, line)| *line);
    all
}

/// Where the lines of a text begin.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(ends.map(|(at, _)| at + 1).collect())
    }

    /// The line of a place, from 1.
    pub(crate) fn of(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at) + 1
    }
}

/// The name and the address, which are all that an entry is called by.
fn plain(value: &DeValue<'_>) -> Option<Table> {
    let table = value.as_table()?;
    let mut found = Table::new();
    for key in [vip::NAME.name, vip::ADDRESS.name] {
        let value = table.get(key).map(toml::Spanned::get_ref);
        let text = match value {
            Some(DeValue::Array(list)) => list.iter().next().and_then(|v| v.get_ref().as_str()),
            other => other.and_then(DeValue::as_str),
        };
        if let Some(text) = text {
            found.insert(key.to_owned(), Value::String(text.to_owned()));
        }
    }
    Some(found)
}

/// The file with all of them over it. Without any it is the file.
pub fn lay_over(file: &str, overs: &[Over]) -> Result<Layered, Unlayable> {
    if overs.is_empty() {
        return Ok(Layered { text: file.to_owned(), layers: Vec::new() });
    }
    let (before, entries) = take_apart(file).map_err(|_| Unlayable::Syntax)?;
    let mut text = file.to_owned();
    let gone = |key: &str| overs.iter().any(|over| over.key == key);
    for span in spans(file)?.into_iter().filter(|(key, _)| gone(key)).map(|(_, span)| span).rev() {
        let commented = format!("# {}", file[span.clone()].replace('\n', "\n# "));
        text.replace_range(span, &commented);
    }
    if !text.ends_with('\n') && !text.is_empty() {
        text.push('\n');
    }
    let mut layers = Vec::new();
    for Over { key, remark, table } in overs {
        let remark: String = remark.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.push_str(&format!("\n# {remark}\n"));
        if let Some(table) = table {
            let line = text.bytes().filter(|b| *b == b'\n').count() + 1;
            layers.push(Layer { name: remark, line });
            let written = written(key, table).map_err(|why| Unlayable::Table(key.clone(), why))?;
            text.push_str(&written);
        }
    }
    // What is not seen here would be served elsewhere.
    let mut meant = entries;
    for over in overs {
        match &over.table {
            Some(table) => drop(meant.insert(over.key.clone(), table.clone())),
            None => drop(meant.remove(&over.key)),
        }
    }
    let (rest, came) = take_apart(&text).map_err(|_| Unlayable::Odd)?;
    if came != meant || rest != before {
        return Err(Unlayable::Odd);
    }
    Ok(Layered { text, layers })
}

/// From the header of each entry to the end of what belongs to it.
fn spans(file: &str) -> Result<Vec<(String, Span)>, Unlayable> {
    let tree = DeTable::parse(file).map_err(|_| Unlayable::Syntax)?;
    let mut starts = Vec::new();
    let mut entries = Vec::new();
    for (key, value) in tree.get_ref() {
        let kind = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Array(list) => {
                for item in list.iter().filter(|item| item.get_ref().is_table()) {
                    starts.push(item.span().start);
                    if kinds().contains(&kind) {
                        let name = plain(item.get_ref()).and_then(|table| entry(kind, &table));
                        entries.push((name.unwrap_or_default(), item.span().start));
                    }
                }
            }
            DeValue::Table(_) => starts.push(value.span().start),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
    let span = |(name, start): (String, usize)| {
        if !file[start..].starts_with("[[") {
            return Err(Unlayable::Inline);
        }
        let next = starts.iter().copied().filter(|other| *other > start).min();
        let end =
            next.map_or(file.len(), |next| file[..next].rfind('\n').map_or(next, |at| at + 1));
        // Remarks in front of the next table are about that.
        let mut end = file[..end].trim_end().len();
        while let Some(at) = file[start..end].rfind('\n').map(|at| start + at)
            && file[at + 1..end].trim_start().starts_with('#')
        {
            end = file[..at].trim_end().len();
        }
        Ok((name, start..end))
    };
    let mut spans = entries.into_iter().map(span).collect::<Result<Vec<_>, _>>()?;
    spans.sort_by_key(|(_, span)| span.start);
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"peers = ["10.0.0.11", "10.0.0.12"]
secret = "file:key"

# the shop
[[vip]]
name = "web"
address = "10.0.0.100/24"
[[vip.service]] # all of it
port = "80/tcp"
backends = ["10.0.0.21:80"]

# the others
[[vip]]
address = ["2001:db8:0::1/64", "10.0.0.101/24"]

[[pool]]
name = "p"
addresses = ["10.0.0.110-10.0.0.112/24"]
auto_assign = true

[[reservation]]
address = "10.0.0.111"
for = "printer"
"#;

    fn over(name: &str, table: Option<&str>) -> Over {
        let table = table.map(|text| text.parse().unwrap());
        Over { key: name.into(), remark: "revision 3 by\nann".into(), table }
    }

    #[test]
    fn what_lies_over_a_file_takes_its_place_and_its_lines_stay() {
        let web = over(
            "vip/web",
            Some("name = \"web\"\naddress = \"10.0.0.102/24\"\n[[service]]\nport = \"443/tcp\""),
        );
        let new = over("vip/new", Some("name = \"new\"\naddress = \"10.0.0.103/24\""));
        let kept = over("reservation/10.0.0.112", Some("address = \"10.0.0.112\"\nfor = \"new\""));
        let released = over("reservation/10.0.0.111", None);
        let overs = [web, over("vip/2001:db8::1", None), new, kept, released];
        let layered = lay_over(FILE, &overs).unwrap();
        let lines: Vec<&str> = layered.text.lines().collect();
        let file: Vec<&str> = FILE.lines().collect();
        for (n, (was, is)) in file.iter().zip(&lines).enumerate() {
            let gone = [5..=10, 13..=14, 21..=23].iter().any(|lines| lines.contains(&(n + 1)));
            let expected = if gone { format!("# {was}") } else { (*was).to_owned() };
            assert_eq!(*is, expected, "line {}", n + 1);
        }
        let names: Vec<&str> = layered.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["revision 3 by ann"; 3]);
        let headers = layered.layers.iter().map(|layer| lines[layer.line - 1]);
        assert_eq!(headers.collect::<Vec<_>>(), ["[[vip]]", "[[vip]]", "[[reservation]]"]);
        let (_, entries) = take_apart(&layered.text).unwrap();
        let keys: Vec<_> = entries.keys().collect();
        assert_eq!(keys, ["reservation/10.0.0.112", "vip/new", "vip/web"]);
        assert_eq!(lay_over(FILE, &[]).unwrap().text, FILE);
    }

    #[test]
    fn what_cannot_be_laid_over_is_refused() {
        let hide = [over("vip/web", None)];
        let table = [
            ("vip = [{ name = \"web\", address = \"10.0.0.1/24\" }]", Unlayable::Inline),
            ("peers = ", Unlayable::Syntax),
            (
                "[[vip]]\nname = \"web\"\n[[pool]]\nname = \"p\"\n[[vip.service]]\nport = \"80/tcp\"",
                Unlayable::Odd,
            ),
        ];
        for (file, expected) in table {
            assert_eq!(lay_over(file, &hide), Err(expected), "{file}");
        }
    }

    #[test]
    fn every_key_and_vip_has_a_place() {
        let places = places(FILE);
        let expected = [
            ("peers", 1),
            ("secret", 2),
            ("vip/web", 5),
            ("vip/2001:db8::1", 13),
            ("pool", 16),
            ("reservation/10.0.0.111", 21),
        ];
        let places: Vec<(&str, usize)> = places.iter().map(|(n, l)| (n.as_str(), *l)).collect();
        assert_eq!(places, expected);
    }
}

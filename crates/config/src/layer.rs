//! Lays `[[vip]]` tables that were edited elsewhere over a file, so that the whole is checked as one text.
//!
//! Lines of the file stay where they are: a table that is replaced or hidden becomes a comment, and what takes its
//! place stands behind the file, each with a remark of where it comes from. So a problem is shown at the file's own
//! line, or at a line of what was edited ([`Layer`]).

use crate::keys::{top, vip};
use crate::report::Span;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// One table over the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Over {
    /// The VIP's name.
    pub name: String,
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
                "the file has its VIPs as `vip = [...]`, and edits need tables: write each as [[vip]]",
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

/// Everything but the VIPs, and the VIPs by name; why not, in the parser's words.
pub fn take_apart(text: &str) -> Result<(Table, BTreeMap<String, Table>), String> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut vips = BTreeMap::new();
    let list = match table.remove(top::VIP.name) {
        None => Vec::new(),
        Some(Value::Array(list)) => list,
        Some(_) => return Err("`vip` must be tables [[vip]]".into()),
    };
    for item in list {
        let Value::Table(one) = item else { return Err("`vip` must be tables [[vip]]".into()) };
        let name = vip_name(&one).ok_or("a [[vip]] has neither name nor address")?;
        if vips.insert(name.clone(), one).is_some() {
            return Err(format!("two [[vip]] are called {name}"));
        }
    }
    Ok((table, vips))
}

/// A table as it is written below `[[vip]]`.
pub fn written(table: &Table) -> Result<String, String> {
    let list = Value::Array(vec![Value::Table(table.clone())]);
    let whole = Table::from_iter([(top::VIP.name.to_owned(), list)]);
    toml::to_string(&whole).map_err(|error| error.to_string())
}

/// Where the top-level keys and the VIPs of a file stand: their names, as in `vip/web`, and lines.
pub fn places(text: &str) -> Vec<(String, usize)> {
    let (tree, _) = DeTable::parse_recoverable(text);
    let line = |at: usize| {
        text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
    };
    let mut all = Vec::new();
    for (key, value) in tree.get_ref() {
        let key_name = key.get_ref().as_ref();
        match value.get_ref() {
            DeValue::Array(list) if key_name == top::VIP.name => {
                for item in list.iter() {
                    let of = || vip_name(&plain(item.get_ref())?);
                    all.push((
                        format!("vip/{}", of().unwrap_or_default()),
                        line(item.span().start),
                    ));
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

/// The name and the address, which are all that a VIP is called by.
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
    let (_, vips) = take_apart(file).map_err(|_| Unlayable::Syntax)?;
    let mut text = file.to_owned();
    let gone = |name: &str| overs.iter().any(|over| over.name == name);
    for span in spans(file)?.into_iter().filter(|(name, _)| gone(name)).map(|(_, span)| span).rev()
    {
        let commented = format!("# {}", file[span.clone()].replace('\n', "\n# "));
        text.replace_range(span, &commented);
    }
    if !text.ends_with('\n') && !text.is_empty() {
        text.push('\n');
    }
    let mut layers = Vec::new();
    for Over { name, remark, table } in overs {
        let remark: String = remark.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.push_str(&format!("\n# {remark}\n"));
        if let Some(table) = table {
            let line = text.bytes().filter(|b| *b == b'\n').count() + 1;
            layers.push(Layer { name: remark, line });
            let written = written(table).map_err(|why| Unlayable::Table(name.clone(), why))?;
            text.push_str(&written);
        }
    }
    // What is not seen here would be served elsewhere.
    let mut meant = vips;
    for over in overs {
        match &over.table {
            Some(table) => drop(meant.insert(over.name.clone(), table.clone())),
            None => drop(meant.remove(&over.name)),
        }
    }
    let (rest, came) = take_apart(&text).map_err(|_| Unlayable::Odd)?;
    let (before, _) = take_apart(file).map_err(|_| Unlayable::Syntax)?;
    if came != meant || rest != before {
        return Err(Unlayable::Odd);
    }
    Ok(Layered { text, layers })
}

/// From the header of each `[[vip]]` to the end of what belongs to it.
fn spans(file: &str) -> Result<Vec<(String, Span)>, Unlayable> {
    let tree = DeTable::parse(file).map_err(|_| Unlayable::Syntax)?;
    let mut starts = Vec::new();
    let mut vips = Vec::new();
    for (key, value) in tree.get_ref() {
        match value.get_ref() {
            DeValue::Array(list) => {
                for item in list.iter().filter(|item| item.get_ref().is_table()) {
                    starts.push(item.span().start);
                    if key.get_ref() == top::VIP.name {
                        let name = plain(item.get_ref()).and_then(|table| vip_name(&table));
                        vips.push((name.unwrap_or_default(), item.span().start));
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
    let mut spans = vips.into_iter().map(span).collect::<Result<Vec<_>, _>>()?;
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
"#;

    fn over(name: &str, table: Option<&str>) -> Over {
        let table = table.map(|text| text.parse().unwrap());
        Over { name: name.into(), remark: "revision 3 by\nann".into(), table }
    }

    #[test]
    fn what_lies_over_a_file_takes_its_place_and_its_lines_stay() {
        let web = over(
            "web",
            Some("name = \"web\"\naddress = \"10.0.0.102/24\"\n[[service]]\nport = \"443/tcp\""),
        );
        let new = over("new", Some("name = \"new\"\naddress = \"10.0.0.103/24\""));
        let layered = lay_over(FILE, &[web, over("2001:db8::1", None), new]).unwrap();
        let lines: Vec<&str> = layered.text.lines().collect();
        let file: Vec<&str> = FILE.lines().collect();
        for (n, (was, is)) in file.iter().zip(&lines).enumerate() {
            let gone = (5..=10).contains(&(n + 1)) || (13..=14).contains(&(n + 1));
            let expected = if gone { format!("# {was}") } else { (*was).to_owned() };
            assert_eq!(*is, expected, "line {}", n + 1);
        }
        let names: Vec<&str> = layered.layers.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["revision 3 by ann", "revision 3 by ann"]);
        for layer in &layered.layers {
            assert_eq!(lines[layer.line - 1], "[[vip]]");
        }
        let (_, vips) = take_apart(&layered.text).unwrap();
        assert_eq!(vips.keys().collect::<Vec<_>>(), ["new", "web"]);
        assert_eq!(lay_over(FILE, &[]).unwrap().text, FILE);
    }

    #[test]
    fn what_cannot_be_laid_over_is_refused() {
        let hide = [over("web", None)];
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
        let expected =
            [("peers", 1), ("secret", 2), ("vip/web", 5), ("vip/2001:db8::1", 13), ("pool", 16)];
        let places: Vec<(&str, usize)> = places.iter().map(|(n, l)| (n.as_str(), *l)).collect();
        assert_eq!(places, expected);
    }
}

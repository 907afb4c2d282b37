//! Sets a file in order for the eye: columns, indents and empty lines. What it means and says stays.
//!
//! It works on lines. The parser says only where values begin and end, so that what is inside of a value of several
//! lines is left as it is. Comments behind a value stay in their column where there is room.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Spaces for each table that a table is in.
const INDENT: usize = 2;

/// The text in order; `None`: it is not TOML, and `check_offline` says why.
pub fn format(text: &str) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    let table = DeTable::parse(&text).ok()?;
    let mut values = Vec::new();
    spans(table.get_ref(), &mut values);
    values.sort_unstable();
    let lines = lines(&text, &values);
    let formatted = written(&lines);
    // Better no order than another meaning.
    let same = formatted.parse::<toml::Table>().ok() == text.parse::<toml::Table>().ok();
    same.then_some(formatted)
}

/// One line, by what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Line<'t> {
    Blank,
    Comment(&'t str),
    /// With how deep its table is.
    Header(&'t str, usize),
    Entry(Entry<'t>),
    /// Inside of a value that began on a line before.
    Inside(&'t str),
}

/// `key = value # comment`, or the first line of it.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry<'t> {
    key: &'t str,
    value: &'t str,
    /// With the column where it stands.
    comment: Option<(usize, &'t str)>,
}

/// Where values begin and end, in bytes.
fn spans(table: &DeTable<'_>, values: &mut Vec<(usize, usize)>) {
    for value in table.values() {
        push(value, values);
    }
}

fn push(value: &Spanned<DeValue<'_>>, values: &mut Vec<(usize, usize)>) {
    values.push((value.span().start, value.span().end));
    match value.get_ref() {
        DeValue::Table(table) => spans(table, values),
        DeValue::Array(array) => array.iter().for_each(|value| push(value, values)),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

fn lines<'t>(text: &'t str, values: &[(usize, usize)]) -> Vec<Line<'t>> {
    let (mut lines, mut start, mut inside) = (Vec::new(), 0, 0);
    for line in text.split('\n') {
        let end = start + line.len();
        let trimmed = line.trim();
        lines.push(if start < inside {
            Line::Inside(line)
        } else if trimmed.is_empty() {
            Line::Blank
        } else if trimmed.starts_with('#') {
            Line::Comment(trimmed)
        } else if trimmed.starts_with('[') {
            let name = trimmed.trim_start_matches('[').split(']').next().unwrap_or_default();
            Line::Header(trimmed, name.matches('.').count())
        } else {
            let (entry, value_end) = entry(text, (start, end), values);
            inside = value_end;
            Line::Entry(entry)
        });
        start = end + 1;
    }
    lines
}

/// The entry of a line, and where its value ends: maybe lines below.
fn entry<'t>(
    text: &'t str,
    (start, end): (usize, usize),
    values: &[(usize, usize)],
) -> (Entry<'t>, usize) {
    let is_value = |(from, _): &&(usize, usize)| {
        (start..end).contains(from)
            && text.get(start..*from).is_some_and(|before| before.trim_end().ends_with('='))
    };
    let line = text.get(start..end).unwrap_or_default();
    let Some(&(from, to)) = values.iter().find(is_value) else {
        return (Entry { key: line.trim(), value: "", comment: None }, end);
    };
    let before = text.get(start..from).unwrap_or_default().trim_end();
    let key = before.strip_suffix('=').unwrap_or(before).trim();
    let value = text.get(from..to.min(end)).unwrap_or_default();
    let after = text.get(to..end).unwrap_or_default();
    let comment = after.find('#').map(|at| {
        let column = text.get(start..to + at).unwrap_or_default().chars().count();
        (column, after.get(at..).unwrap_or_default().trim_end())
    });
    (Entry { key, value: value.trim_end(), comment }, to)
}

fn written(lines: &[Line<'_>]) -> String {
    let mut text = String::new();
    let (mut depth, mut keys, mut was_blank) = (0, 0, true);
    for (place, line) in lines.iter().enumerate() {
        let rest = &lines[place..];
        // What is said above a table belongs to it.
        let above = depth_of_header(rest);
        let begins = above.is_some() && !matches!(before(lines, place), Some(Line::Comment(_)));
        if begins && !was_blank {
            text.push('\n');
        }
        let indent = above.unwrap_or(depth) * INDENT;
        was_blank = matches!(line, Line::Blank);
        match line {
            Line::Blank => {
                let is_last = rest.iter().all(|line| *line == Line::Blank);
                if !is_last && !text.is_empty() && !text.ends_with("\n\n") {
                    text.push('\n');
                }
                was_blank = text.is_empty() || text.ends_with("\n\n");
            }
            Line::Inside(line) => text.push_str(&format!("{line}\n")),
            Line::Comment(line) => text.push_str(&format!("{:indent$}{line}\n", "")),
            Line::Header(line, below) => {
                depth = *below;
                text.push_str(&format!("{:indent$}{line}\n", ""));
            }
            Line::Entry(entry) => {
                if !matches!(before(lines, place), Some(Line::Entry(_) | Line::Inside(_))) {
                    keys = widest_key(rest);
                }
                text.push_str(&entry.written(indent, keys));
            }
        }
    }
    text
}

fn before<'l, 't>(lines: &'l [Line<'t>], place: usize) -> Option<&'l Line<'t>> {
    place.checked_sub(1).and_then(|place| lines.get(place))
}

/// How deep the table is whose header comes next, behind comments only.
fn depth_of_header(rest: &[Line<'_>]) -> Option<usize> {
    match rest.iter().find(|line| !matches!(line, Line::Comment(_)))? {
        Line::Header(_, depth) => Some(*depth),
        Line::Blank | Line::Comment(_) | Line::Entry(_) | Line::Inside(_) => None,
    }
}

/// Of the entries that follow each other directly.
fn widest_key(rest: &[Line<'_>]) -> usize {
    let run = rest.iter().take_while(|line| matches!(line, Line::Entry(_) | Line::Inside(_)));
    let width = |line: &Line<'_>| match line {
        Line::Entry(entry) => entry.key.chars().count(),
        Line::Blank | Line::Comment(_) | Line::Header(..) | Line::Inside(_) => 0,
    };
    run.map(width).max().unwrap_or_default()
}

impl Entry<'_> {
    fn written(&self, indent: usize, keys: usize) -> String {
        let Self { key, value, comment } = self;
        let mut line = format!("{:indent$}{key:<keys$} = {value}", "");
        if let Some((column, comment)) = comment {
            let width = (*column).max(line.chars().count() + 1);
            line = format!("{line:<width$}{comment}");
        }
        format!("{line}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_set_in_order() {
        let text = "\n\npeers=[ \"10.0.0.11\", \"10.0.0.12\" ]   # the hosts\nsecret   = \"file:cluster.key\"\n[[vip]]\n\
                    address=\"10.0.0.100/24\"\n\n\n# the site\n   [[vip.service]]\nport = \"443/tcp\"\n# two\nbackends = [\n    \
                    \"10.0.0.21:8443\",   # old = one\n  \"10.0.0.22:8443\",\n]# end\ncheck={ http = \"GET /a=b#c\" }\n\n\n";
        let expected = "\
peers  = [ \"10.0.0.11\", \"10.0.0.12\" ] # the hosts
secret = \"file:cluster.key\"

[[vip]]
address = \"10.0.0.100/24\"

  # the site
  [[vip.service]]
  port = \"443/tcp\"
  # two
  backends = [
    \"10.0.0.21:8443\",   # old = one
  \"10.0.0.22:8443\",
]# end
  check    = { http = \"GET /a=b#c\" }
";
        assert_eq!(format(text).as_deref(), Some(expected));
        assert_eq!(format(expected).as_deref(), Some(expected), "and stays so");
    }

    #[test]
    fn odd_texts_keep_their_meaning() {
        for text in [
            "",
            "# only a comment",
            "a = \"\"\"\n[x]\n  # no comment\n\"\"\"\nbb = 'x = y # z'\n",
            "\"a = b\" = 1\na.b.c = 2 # c\n[t.'x.y']\nz = [[1,\n 2], [3]]\n",
            "a = 1\r\n[b]\r\nc = 2\r\n",
            "a = [ # one\n 1 ] # two\n",
        ] {
            let once = format(text);
            let twice = once.as_deref().and_then(format);
            assert!(once.is_some() && once == twice, "{text:?}: {once:?}, {twice:?}");
        }
        assert_eq!(format("peers = ["), None);
    }
}

//! Writes TOML: tables with keys in the order in which they were set.

use std::fmt::Write as _;

/// Bytes of a name in Buoy's file.
const NAME_MAX: usize = 63;

/// One table, with those below it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    header: &'static str,
    /// Lines of comment before the key at that place.
    comments: Vec<(usize, String)>,
    keys: Vec<(&'static str, String)>,
    tables: Vec<Table>,
}

impl Table {
    /// `header`: with its brackets; empty at the top of the file.
    pub(crate) fn new(header: &'static str) -> Self {
        Self { header, ..Self::default() }
    }

    /// A line before the next key.
    pub(crate) fn comment(&mut self, text: &str) {
        let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.comments.push((self.keys.len(), clean));
    }

    /// Sets a key to a value that is TOML already; the last one holds.
    pub(crate) fn set(&mut self, key: &'static str, value: String) {
        match self.keys.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key, value)),
        }
    }

    pub(crate) fn push(&mut self, table: Self) {
        self.tables.push(table);
    }

    /// Takes over all keys of another one.
    pub(crate) fn take(&mut self, other: Self) {
        let base = self.keys.len();
        self.comments.extend(other.comments.into_iter().map(|(at, text)| (base + at, text)));
        self.keys.extend(other.keys);
        self.tables.extend(other.tables);
    }

    pub(crate) fn write(&self, depth: usize, out: &mut String) {
        let indent = "  ".repeat(depth);
        if !self.header.is_empty() {
            // Writing to a text cannot fail.
            let _ = write!(out, "\n{indent}{}\n", self.header);
        }
        for (place, (key, value)) in self.keys.iter().enumerate() {
            for (_, comment) in self.comments.iter().filter(|(at, _)| *at == place) {
                let _ = writeln!(out, "{indent}# {comment}");
            }
            let _ = writeln!(out, "{indent}{key} = {value}");
        }
        for table in &self.tables {
            table.write(depth + 1, out);
        }
    }
}

/// A text as TOML writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `[a, b]`, of values that are TOML already.
pub(crate) fn list(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(", "))
}

/// One value as it is, several as a list.
pub(crate) fn one_or_list(mut values: Vec<String>) -> String {
    match values.len() {
        1 => values.remove(0),
        _ => list(values),
    }
}

/// `{ a = 1, b = 2 }`, of keys and values that are TOML already.
pub(crate) fn inline<K: AsRef<str>>(pairs: impl IntoIterator<Item = (K, String)>) -> String {
    let pairs = pairs.into_iter().map(|(key, value)| format!("{} = {value}", key.as_ref()));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}

/// The text made a name as Buoy has them: letters, digits, `-`, `_`, `.` and `:`, 63 at most.
pub(crate) fn name(text: &str) -> String {
    let sound = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c,
        '-' | '_' | '.' | ':' => c,
        _ => '-',
    };
    let name: String = text.chars().map(sound).take(NAME_MAX).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// A time in milliseconds as Buoy writes it.
pub(crate) fn duration(millis: u64) -> String {
    match millis {
        0 => quoted("0s"),
        millis if millis % 60_000 == 0 => quoted(&format!("{}m", millis / 60_000)),
        millis if millis % 1000 == 0 => quoted(&format!("{}s", millis / 1000)),
        millis => quoted(&format!("{millis}ms")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_so_that_they_come_back() {
        for text in ["", "a", "a\"b\\c", "tab\tnew\nline\r", "\u{1}\u{7f}", "\u{e4}"] {
            let line = format!("x = {}", quoted(text));
            assert!(buoy_config::format::format(&line).is_some(), "{line}");
        }
        assert_eq!(quoted("a\"b\\\u{1}"), "\"a\\\"b\\\\\\u0001\"");
    }

    #[test]
    fn any_text_becomes_a_name() {
        let cases =
            [("web", "web"), ("VI 1", "VI-1"), ("_x", "x"), ("{{", "unnamed"), ("", "unnamed")];
        for (text, expected) in cases {
            assert_eq!(name(text), expected);
        }
        assert_eq!(name(&"x".repeat(100)).len(), NAME_MAX);
    }

    #[test]
    fn times_are_written_in_the_largest_unit_that_is_whole() {
        let cases = [
            (0, "\"0s\""),
            (50, "\"50ms\""),
            (1500, "\"1500ms\""),
            (2000, "\"2s\""),
            (120_000, "\"2m\""),
        ];
        for (millis, expected) in cases {
            assert_eq!(duration(millis), expected);
        }
    }
}

//! Cuts HAProxy's file into sections and words (its configuration manual, 2.2 "Quoting and escaping").

use crate::notes::Notes;

/// A section, as `frontend www`.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) line: usize,
    pub(super) kind: String,
    pub(super) name: String,
    /// What follows the name.
    pub(super) rest: Vec<String>,
    pub(super) lines: Vec<Line>,
}

/// A line with at least one word.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) number: usize,
    pub(super) words: Vec<String>,
}

impl Line {
    pub(super) fn word(&self, place: usize) -> &str {
        self.words.get(place).map_or("", String::as_str)
    }

    /// The words from that place on.
    pub(super) fn after(&self, place: usize) -> &[String] {
        self.words.get(place..).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        self.words.join(" ")
    }
}

/// Words that begin a section.
const KINDS: [&str; 18] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "mailers",
    "userlist",
    "program",
    "http-errors",
    "cache",
    "ring",
    "fcgi-app",
    "log-forward",
    "crt-store",
    "traces",
    "log-profile",
];

pub(super) fn read(text: &str, notes: &mut Notes) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, content) in (1..).zip(text.lines()) {
        let words = words(content);
        let Some(first) = words.first() else { continue };
        if KINDS.contains(&first.as_str()) {
            let name = words.get(1).cloned().unwrap_or_default();
            let rest = words.get(2..).unwrap_or_default().to_vec();
            let kind = first.clone();
            sections.push(Section { line: number, kind, name, rest, lines: Vec::new() });
            continue;
        }
        if let Some(variable) = words.iter().find(|word| word.contains("${")) {
            notes.say(number, format!("{variable}: variables of the environment are not replaced"));
        }
        match sections.last_mut() {
            Some(section) => section.lines.push(Line { number, words }),
            None => notes.left(number, content.trim(), "it is in no section"),
        }
    }
    sections
}

/// The words of a line: separated by blanks, with quotes and backslashes, up to a `#`.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => match chars.next() {
                Some('r') => word.get_or_insert_default().push('\r'),
                Some('n') => word.get_or_insert_default().push('\n'),
                Some('t') => word.get_or_insert_default().push('\t'),
                Some(c) => word.get_or_insert_default().push(c),
                None => {}
            },
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// A time in milliseconds, which is the unit where none is given (manual, 2.5 "Time format").
pub(super) fn millis(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let number: u64 = digits.parse().ok()?;
    match unit {
        "" | "ms" => Some(number),
        "us" => Some(number / 1000),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_into_words_as_haproxy_does() {
        let cases: [(&str, &[&str]); 6] = [
            ("  bind *:80 # all", &["bind", "*:80"]),
            ("http-check expect string \"a b\"", &["http-check", "expect", "string", "a b"]),
            (
                "option httpchk GET / HTTP/1.1\\r\\nHost:\\ www",
                &["option", "httpchk", "GET", "/", "HTTP/1.1\r\nHost: www"],
            ),
            ("a 'b\\c' \"\"", &["a", "b\\c", ""]),
            ("a \"open", &["a", "open"]),
            ("#", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line), expected, "{line}");
        }
    }

    #[test]
    fn a_time_without_a_unit_is_in_milliseconds() {
        let cases = [
            ("500", Some(500)),
            ("2s", Some(2000)),
            ("1m", Some(60_000)),
            ("1500us", Some(1)),
            ("x", None),
            ("1w", None),
        ];
        for (text, expected) in cases {
            assert_eq!(millis(text), expected, "{text}");
        }
    }
}

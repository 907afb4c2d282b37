//! Makes lines of keepalived's file as keepalived reads them: without comments, with includes, conditions, parameters and sequences
//! (keepalived.conf(5), "Conditional configuration", "Parameter substitution", "Sequence blocks", "List blocks").

use super::tree::Place;
use crate::notes::{Notes, shown};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Files that stand for a word behind `include`, each with its name, or why there are none.
pub type Include<'i> = dyn Fn(&str, &str) -> Result<Vec<(String, String)>, String> + 'i;

/// How deep files include files, and parameters hold parameters.
const DEPTH_MAX: usize = 16;
/// Lines that come of a file in all.
const LINES_MAX: usize = 50_000;
/// Lines that are looked at in all, also those for other hosts.
const LOOKS_MAX: usize = 200_000;
/// Bytes of a line after substitution.
const LINE_MAX: usize = 64 << 10;
/// Steps of one sequence.
const STEPS_MAX: usize = 4096;

/// A line, and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) place: Place,
    pub(super) text: String,
}

pub(super) struct Reader<'r> {
    pub(super) host: Option<&'r str>,
    pub(super) include: &'r Include<'r>,
    pub(super) notes: &'r mut Notes,
    parameters: BTreeMap<String, String>,
    lines: Vec<Line>,
    /// Lines that were looked at, also those that came to nothing.
    steps: usize,
    is_full: bool,
}

impl<'r> Reader<'r> {
    pub(super) fn new(
        host: Option<&'r str>,
        include: &'r Include<'r>,
        notes: &'r mut Notes,
    ) -> Self {
        Self {
            host,
            include,
            notes,
            parameters: BTreeMap::new(),
            lines: Vec::new(),
            steps: 0,
            is_full: false,
        }
    }

    pub(super) fn read(mut self, text: &str, file: &str) -> Vec<Line> {
        self.read_file(text, file, 0);
        self.lines
    }

    fn read_file(&mut self, text: &str, file: &str, depth: usize) {
        let file: Rc<str> = Rc::from(file);
        let mut open: Option<(Place, String)> = None;
        for (line, content) in (1..).zip(text.lines()) {
            let content = without_comment(content).trim();
            let place = Place { file: Rc::clone(&file), line };
            if let Some((begun, mut definition)) = open.take() {
                // A definition of several lines goes on, also over empty ones.
                let (part, goes_on) = continued(content);
                definition.push('\n');
                definition.push_str(part.trim());
                match goes_on {
                    true => open = Some((begun, definition)),
                    false => self.take(&begun, &definition, depth),
                }
                continue;
            }
            let (part, goes_on) = continued(content);
            match goes_on && part.trim_start().starts_with(['$', '@']) {
                true => open = Some((place, part.trim().to_owned())),
                false => self.take(&place, part.trim(), depth),
            }
        }
        if let Some((begun, definition)) = open {
            self.notes.say_at(&begun, "the last line of this definition is missing");
            self.take(&begun, &definition, depth);
        }
    }

    /// One line, which may stand for several.
    fn take(&mut self, place: &Place, text: &str, depth: usize) {
        if text.is_empty() || self.is_full {
            return;
        }
        self.steps += 1;
        if depth >= DEPTH_MAX || self.lines.len() >= LINES_MAX || self.steps >= LOOKS_MAX {
            self.is_full = true;
            let why = format!(
                "more than {DEPTH_MAX} levels or {LINES_MAX} lines come of it; nothing after this is read"
            );
            return self.notes.say_at(place, why);
        }
        let first = text.split_whitespace().next().unwrap_or_default();
        if let "include" | "includer" | "includem" | "includew" | "includeb" | "includea" = first {
            return self.take_include(place, text[first.len()..].trim(), depth);
        }
        if let Some(rest) = text.strip_prefix('@') {
            return self.take_conditional(place, rest, depth);
        }
        if let Some((name, value)) = definition(text) {
            self.parameters.insert(name.to_owned(), value.to_owned());
            return;
        }
        if let Some(rest) = text.strip_prefix("~SEQ") {
            return self.take_sequence(place, rest, depth);
        }
        if let Some(rest) = text.strip_prefix("~LST") {
            return self.take_list(place, rest, depth);
        }
        let replaced = self.substitute(place, text);
        if replaced == text {
            self.lines.push(Line { place: place.clone(), text: replaced });
            return;
        }
        replaced.lines().for_each(|line| self.take(place, line.trim(), depth + 1));
    }

    fn take_include(&mut self, place: &Place, pattern: &str, depth: usize) {
        let pattern = pattern.trim_matches(['"', '\'']);
        match (self.include)(pattern, &place.file) {
            Ok(files) => {
                if files.is_empty() {
                    self.notes.say_at(place, format!("no file is called {}", shown(pattern)));
                }
                files.iter().for_each(|(name, text)| self.read_file(text, name, depth + 1));
            }
            Err(why) => self.notes.left_at(place, &format!("include {pattern}"), &why),
        }
    }

    fn take_conditional(&mut self, place: &Place, rest: &str, depth: usize) {
        let (is_not, rest) = rest.strip_prefix('^').map_or((false, rest), |rest| (true, rest));
        let (id, content) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        match self.host {
            Some(host) if (host == id) != is_not => self.take(place, content.trim(), depth),
            Some(_) => {}
            None => self.notes.left_at(
                place,
                &format!("@{rest}"),
                "it is for some hosts only; say for which one to read, as --host lb1",
            ),
        }
    }

    /// `~SEQ(var, start, step, end) rest`, of which start and step may be missing.
    fn take_sequence(&mut self, place: &Place, rest: &str, depth: usize) {
        let (is_hex, rest) = rest.strip_prefix('x').map_or((false, rest), |rest| (true, rest));
        let Some((arguments, content)) = in_brackets(rest) else {
            return self.notes.left_at(place, rest, "a sequence is ~SEQ(name, start, step, end)");
        };
        let words: Vec<&str> = arguments.split(',').map(str::trim).collect();
        let numbers: Option<Vec<i64>> = words.iter().skip(1).map(|word| number(word)).collect();
        let (start, step, end) = match numbers.as_deref() {
            Some([end]) => (if *end > 0 { 1 } else { -1 }, 0, *end),
            Some([start, end]) => (*start, 0, *end),
            Some([start, step, end]) if *step != 0 => (*start, *step, *end),
            Some(_) | None => {
                return self.notes.left_at(place, rest, "its numbers are not understood");
            }
        };
        let step = match step {
            0 if end < start => -1,
            0 => 1,
            step => step,
        };
        let mut value = start;
        for _ in 0..STEPS_MAX {
            if (step > 0 && value > end) || (step < 0 && value < end) || self.is_full {
                return;
            }
            let text = if is_hex { format!("{value:x}") } else { value.to_string() };
            self.parameters.insert(words[0].to_owned(), text);
            self.take(place, content.trim(), depth + 1);
            value = value.saturating_add(step);
        }
        self.notes.say_at(
            place,
            format!("a sequence has {STEPS_MAX} steps at most; the others are left out"),
        );
    }

    /// `~LST(var, a, b) rest`, or with several at a time: `~LST({v, w}, {a, b}, {c, d}) rest`.
    fn take_list(&mut self, place: &Place, rest: &str, depth: usize) {
        let Some((arguments, content)) = in_brackets(rest) else {
            return self.notes.left_at(place, rest, "a list is ~LST(name, value, value)");
        };
        let groups = groups(arguments);
        let Some((names, values)) = groups.split_first() else { return };
        for group in values {
            for (name, value) in names.iter().zip(group) {
                self.parameters.insert(name.clone(), value.clone());
            }
            self.take(place, content.trim(), depth + 1);
        }
    }

    /// `$NAME` before a blank, and `${NAME}`; what is not defined stays.
    fn substitute(&mut self, place: &Place, text: &str) -> String {
        let mut done = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            done.push_str(&rest[..at]);
            rest = &rest[at..];
            let braced = rest.strip_prefix("${").and_then(|inner| inner.split_once('}'));
            let (name, after) = match braced {
                Some((name, after)) => (name, after),
                None => {
                    let inner = &rest[1..];
                    let end = inner.find(|c: char| !is_name(c)).unwrap_or(inner.len());
                    (&inner[..end], &inner[end..])
                }
            };
            let may =
                braced.is_some() || after.is_empty() || after.starts_with(char::is_whitespace);
            match self.parameter(place, name).filter(|_| may) {
                Some(value) if done.len() + value.len() < LINE_MAX => {
                    done.push_str(&value);
                    rest = after;
                }
                Some(_) | None => {
                    done.push('$');
                    rest = &rest[1..];
                }
            }
        }
        done.push_str(rest);
        done
    }

    fn parameter(&mut self, place: &Place, name: &str) -> Option<String> {
        let folder =
            |file: &str| file.rsplit_once('/').map_or(".", |(folder, _)| folder).to_owned();
        match name {
            "_PWD" => Some(folder(&place.file)),
            "_INSTANCE" => self.host.map(str::to_owned),
            "_HASH" => Some("#".to_owned()),
            "_BANG" => Some("!".to_owned()),
            name if name.starts_with("_RANDOM") => {
                self.notes.say_at(
                    place,
                    format!("{} is a random number in keepalived: it stays as it is", shown(name)),
                );
                None
            }
            name => self.parameters.get(name).cloned(),
        }
    }
}

/// Comments begin with `!` or `#`, but not in quotes.
fn without_comment(line: &str) -> &str {
    let mut quote: Option<char> = None;
    let mut is_escaped = false;
    for (at, c) in line.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"') => quote = Some(c),
            (None, '!' | '#') => return &line[..at],
            (None, _) => {}
        }
    }
    line
}

/// A definition goes on where the line ends in a backslash.
fn continued(line: &str) -> (&str, bool) {
    line.strip_suffix('\\').map_or((line, false), |part| (part, true))
}

/// `$NAME=VALUE`.
fn definition(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.strip_prefix('$')?.split_once('=')?;
    let is_sound = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(is_name);
    is_sound.then(|| (name, value.trim()))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What is in the brackets, and what follows them.
fn in_brackets(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('(')?.split_once(')')
}

fn number(text: &str) -> Option<i64> {
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `a, {b, c}` is [a] and [b, c].
fn groups(text: &str) -> Vec<Vec<String>> {
    let mut groups = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (group, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((inner, after)) => {
                (inner.split(',').map(|word| word.trim().to_owned()).collect(), after)
            }
            None => {
                let (word, after) = rest.split_once(',').unwrap_or((rest, ""));
                (vec![word.trim().to_owned()], after)
            }
        };
        groups.push(group);
        rest = after.trim_start_matches([',', ' ', '\t']);
    }
    groups
}

//! Collects what could not be carried, with the place in the file and the reason.

use crate::keepalived::Place;
use std::collections::BTreeSet;
use std::fmt;

/// One thing that was left out or changed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Note {
    /// The file.
    pub file: String,
    /// Its line, from 1; 0: the file as a whole.
    pub line: usize,
    /// What, and why.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.text),
            line => write!(f, "{}:{line}: {}", self.file, self.text),
        }
    }
}

/// The notes on one file.
#[derive(Debug)]
pub(crate) struct Notes {
    file: String,
    list: Vec<Note>,
    /// Nobody wants to read the same twice.
    seen: BTreeSet<Note>,
}

impl Notes {
    pub(crate) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), list: Vec::new(), seen: BTreeSet::new() }
    }

    /// `what` could not be carried because of `why`.
    pub(crate) fn left(&mut self, line: usize, what: &str, why: &str) {
        let file = self.file.clone();
        self.add_in(&file, line, format!("{} is not carried: {why}", shown(what)));
    }

    /// The same, of a file that may be an included one.
    pub(crate) fn left_at(&mut self, place: &Place, what: &str, why: &str) {
        self.add_in(&place.file, place.line, format!("{} is not carried: {why}", shown(what)));
    }

    /// Something else that one should know, at a place of a file that may be an included one.
    pub(crate) fn say_at(&mut self, place: &Place, text: impl Into<String>) {
        self.add_in(&place.file, place.line, text.into());
    }

    /// Something else that one should know.
    pub(crate) fn say(&mut self, line: usize, text: impl Into<String>) {
        let file = self.file.clone();
        self.add_in(&file, line, text.into());
    }

    pub(crate) fn add_in(&mut self, file: &str, line: usize, text: String) {
        let note = Note { file: file.to_owned(), line, text };
        if self.seen.insert(note.clone()) {
            self.list.push(note);
        }
    }

    /// In the order of the files, as they were first spoken of, and of their lines; what is about the output comes last.
    pub(crate) fn into_list(mut self) -> Vec<Note> {
        let mut files: Vec<String> = vec![self.file];
        for note in &self.list {
            if !files.contains(&note.file) {
                files.push(note.file.clone());
            }
        }
        let place = |note: &Note| files.iter().position(|file| *file == note.file);
        self.list.sort_by_key(|note| (note.file == "output", place(note), note.line));
        self.list
    }
}

/// Characters of a word that a note repeats.
const SHOWN_MAX: usize = 80;

/// A piece of the file as a terminal may show it.
pub(crate) fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(SHOWN_MAX).map(clean).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        short.push_str("...");
    }
    format!("`{short}`")
}

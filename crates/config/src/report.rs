//! Collects every problem of one file, and gives them back in the file's order.

use crate::layer::Layer;
use crate::render;
use crate::{Code, Severity};
use core::fmt;
use std::ops::Range;

/// Problems kept of one file; what is past it is only counted. Nobody reads more in one sitting.
const PROBLEMS_MAX: usize = 100;
/// Characters of a user's own text repeated in a message.
const SHOWN_MAX: usize = 60;

/// Bytes of the text.
pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Span,
}

impl<T> At<T> {
    pub(crate) const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// One problem of a configuration, with what to do about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// What kind of problem it is.
    pub code: Code,
    /// Whether the file is refused for it.
    pub severity: Severity,
    /// The line, from 1; 0 when the problem is the file itself.
    pub line: usize,
    /// The column in characters, from 1; 0 when the problem is the file itself.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// Why it is wrong; may be empty.
    pub reason: String,
    /// What to do.
    pub fix: String,
    /// What lies over the file and has the line; `None`: the file.
    pub layer: Option<String>,
    pub(crate) span: Option<Span>,
    pub(crate) related: Option<(Span, String)>,
}

/// All problems of one file, in the file's order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Report {
    pub(crate) name: String,
    pub(crate) text: String,
    problems: Vec<Problem>,
    uncounted: usize,
}

impl Report {
    /// Every problem, in the file's order.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many problems there are beyond the first hundred, which are not kept.
    pub const fn left_out(&self) -> usize {
        self.uncounted
    }

    /// How many of the problems are errors.
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|p| p.severity == Severity::Error).count()
    }

    /// How many of the problems are warnings.
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// The report for people, as wide as their terminal, in colour if they asked for it.
    pub fn render(&self, width: usize, colour: bool) -> String {
        render::report(self, width, colour)
    }

    /// The first error and how many more there are, in one line: for a log.
    pub fn summary(&self) -> String {
        let Some(first) = self.problems.iter().min_by_key(|p| p.severity) else {
            return format!("{}: no problems", self.name);
        };
        let name = first.layer.as_ref().unwrap_or(&self.name);
        let place = match first.line {
            0 => name.clone(),
            line => format!("{name}:{line}:{}", first.column),
        };
        let more = match self.problems.len() + self.uncounted - 1 {
            0 => String::new(),
            1 => " (and 1 more problem)".to_owned(),
            n => format!(" (and {n} more problems)"),
        };
        format!("{place}: {}: {}{more}", first.code.id(), first.message)
    }

    /// The same, with places in what lies over the file told by its name and its own lines.
    #[must_use]
    pub fn over(mut self, layers: &[Layer]) -> Self {
        for problem in &mut self.problems {
            let layer = layers.iter().rev().find(|layer| layer.line <= problem.line);
            if let (Some(layer), Some(_)) = (layer, &problem.span) {
                problem.layer = Some(layer.name.clone());
                problem.line -= layer.line - 1;
            }
        }
        self
    }

    /// A report about the file as a whole.
    pub(crate) fn of_file(
        name: &str,
        code: Code,
        message: String,
        reason: &str,
        fix: &str,
    ) -> Self {
        let mut problems = Problems::new(name, "");
        problems.add_to_file(code, message, reason, fix);
        problems.into_report()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(render::WIDTH_DEFAULT, false))
    }
}

impl core::error::Error for Report {}

/// Problems as they are found, in any order.
#[derive(Debug)]
pub(crate) struct Problems<'t> {
    name: String,
    text: &'t str,
    found: Vec<Problem>,
    uncounted: usize,
    masked: Vec<Span>,
    lost_from: Option<usize>,
}

impl<'t> Problems<'t> {
    pub(crate) fn new(name: &str, text: &'t str) -> Self {
        Self {
            name: name.to_owned(),
            text,
            found: Vec::new(),
            uncounted: 0,
            masked: Vec::new(),
            lost_from: None,
        }
    }

    /// The text that spans point into.
    pub(crate) const fn text(&self) -> &'t str {
        self.text
    }

    /// Adds a problem at a place in the text.
    pub(crate) fn add(
        &mut self,
        code: Code,
        span: &Span,
        message: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let span = clamp(self.text, span);
        self.push(Problem {
            code,
            severity: code.severity(),
            line: 0,
            column: 0,
            message: message.into(),
            reason: reason.into(),
            fix: fix.into(),
            layer: None,
            span: Some(span),
            related: None,
        });
    }

    /// Adds a problem that many addresses of one range have: one of them is enough to say so.
    pub(crate) fn add_once(
        &mut self,
        code: Code,
        span: &Span,
        message: impl Into<String>,
        reason: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let clamped = clamp(self.text, span);
        if !self.found.iter().any(|p| p.code == code && p.span.as_ref() == Some(&clamped)) {
            self.add(code, span, message, reason, fix);
        }
    }

    /// Adds a problem with a second place that explains it.
    pub(crate) fn add_pair(
        &mut self,
        code: Code,
        (span, reason): (&Span, &str),
        (first, first_reason): (&Span, &str),
        message: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let related = Some((clamp(self.text, first), first_reason.to_owned()));
        let before = self.found.len();
        self.add(code, span, message, reason, fix);
        if let Some(problem) = self.found.get_mut(before) {
            problem.related = related;
        }
    }

    /// Adds a problem of the file as a whole.
    pub(crate) fn add_to_file(&mut self, code: Code, message: String, reason: &str, fix: &str) {
        self.push(Problem {
            code,
            severity: code.severity(),
            line: 0,
            column: 0,
            message,
            reason: reason.to_owned(),
            fix: fix.to_owned(),
            layer: None,
            span: None,
            related: None,
        });
    }

    /// Hides this part of the text in every rendering: somebody wrote a secret there.
    pub(crate) fn mask(&mut self, span: &Span) {
        self.masked.push(clamp(self.text, span));
    }

    /// How many problems were found so far; lets a caller know whether a step was clean.
    pub(crate) fn count(&self) -> usize {
        self.found.len() + self.uncounted
    }

    pub(crate) fn has_errors(&self) -> bool {
        // What is not kept may have been an error, so it counts as one.
        self.uncounted > 0 || self.found.iter().any(|p| p.severity == Severity::Error)
    }

    /// From here on the text is read otherwise than it was meant.
    pub(crate) fn lose_track_at(&mut self, at: usize) {
        let line_start = self.text[..at.min(self.text.len())].rfind('\n').map_or(0, |at| at + 1);
        self.lost_from = Some(self.lost_from.map_or(line_start, |from| from.min(line_start)));
    }

    /// In a file with syntax errors some things that follow from them are not so: what is in the
    /// same line, what only says that something is missing, and all that comes after an error that
    /// is not confined to its line. Those would send people to the wrong place.
    pub(crate) fn keep_what_a_syntax_error_leaves_certain(&mut self) {
        let text = self.text;
        let line = |span: &Span| text[..span.start].bytes().filter(|b| *b == b'\n').count();
        let broken: Vec<usize> = self
            .found
            .iter()
            .filter(|p| p.code == Code::Syntax)
            .filter_map(|p| p.span.as_ref().map(line))
            .collect();
        let lost_from = self.lost_from.unwrap_or(usize::MAX);
        self.found.retain(|p| {
            let in_doubt = |span: &Span| span.end > lost_from || broken.contains(&line(span));
            let certain = !p.span.as_ref().is_some_and(in_doubt);
            p.code == Code::Syntax || (certain && !p.code.is_about_absence())
        });
    }

    pub(crate) fn into_report(mut self) -> Report {
        self.found.sort_by_key(|p| p.span.as_ref().map_or(0, |s| s.start));
        let text = self.text;
        for problem in &mut self.found {
            if let Some(span) = &problem.span {
                (problem.line, problem.column) = place(text, span.start);
            }
        }
        let text = masked(text, &self.masked);
        Report { name: self.name, text, problems: self.found, uncounted: self.uncounted }
    }

    fn push(&mut self, problem: Problem) {
        // What a pool says wrongly is wrong for each of its addresses, and is said once.
        let same = |p: &Problem| {
            p.code == problem.code && p.span == problem.span && p.message == problem.message
        };
        if problem.span.is_some() && self.found.iter().any(same) {
            return;
        }
        if self.found.len() < PROBLEMS_MAX {
            self.found.push(problem);
        } else {
            self.uncounted += 1;
        }
    }
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The same span, inside the text and between characters whatever a parser said.
fn clamp(text: &str, span: &Span) -> Span {
    let mut start = span.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = span.end.clamp(start, text.len());
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

/// The text with the marked parts starred out, byte for byte, so that spans stay true.
fn masked(text: &str, spans: &[Span]) -> String {
    let mut out = text.to_owned();
    for span in spans {
        out.replace_range(span.clone(), &"*".repeat(span.len()));
    }
    out
}

/// What a user wrote, fit to be repeated in a message: short and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_MAX).flat_map(visible).collect();
    if text.chars().nth(SHOWN_MAX).is_some() {
        out.push('…');
    }
    out
}

fn visible(c: char) -> impl Iterator<Item = char> {
    let control = c.is_control() || ('\u{200b}'..='\u{202e}').contains(&c);
    let escaped = control.then(|| c.escape_unicode());
    let plain = (!control).then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

/// `a, b and c`, for sentences.
pub(crate) fn listed<T: fmt::Display>(things: impl IntoIterator<Item = T>) -> String {
    joined(things, "and")
}

/// `a, b or c`, for sentences.
pub(crate) fn choice<T: fmt::Display>(things: impl IntoIterator<Item = T>) -> String {
    joined(things, "or")
}

fn joined<T: fmt::Display>(things: impl IntoIterator<Item = T>, last_with: &str) -> String {
    let all: Vec<String> = things.into_iter().map(|t| t.to_string()).collect();
    match all.as_slice() {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} {last_with} {last}", init.join(", ")),
    }
}

//! Turns a report into what people read: the line, a caret, the reason and the fix, as rustc does.
//!
//! The renderer is rustc's own; this file only chooses what it is given. A window of the text around
//! each problem is enough, so a large file costs no more than a small one.

use crate::report::Span;
use crate::{Problem, Report, Severity};
use annotate_snippets::renderer::{DecorStyle, Renderer};
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Padding, Snippet};
use std::fmt::Write as _;

/// Columns of a terminal that did not say how wide it is.
pub(crate) const WIDTH_DEFAULT: usize = 100;
/// Bytes of a line shown around a problem; a longer line is cut.
const LINE_MAX: usize = 400;

pub(crate) fn report(report: &Report, width: usize, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(width.max(40)).decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for problem in report.problems() {
        out.push_str(renderer.render(&[group(report, problem)]).trim_end());
        out.push_str("\n\n");
    }
    if report.left_out() > 0 {
        // Infallible: a `String` takes whatever is written to it.
        let _ = writeln!(out, "... and {} more problems, not shown", report.left_out());
    }
    out.truncate(out.trim_end().len());
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

fn group<'r>(report: &'r Report, problem: &'r Problem) -> Group<'r> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(&*problem.message).id(problem.code.id());
    let fix = Level::HELP.with_name("fix").message(&*problem.fix);
    let Some(span) = &problem.span else {
        let mut group =
            Group::with_title(title).element(Origin::path(&*report.name)).element(Padding);
        if !problem.reason.is_empty() {
            group = group.element(Level::NOTE.with_name("reason").message(&*problem.reason));
        }
        return group.element(fix);
    };
    let window = window(&report.text, span, related(report, problem));
    let newlines = |part: &str| part.bytes().filter(|&b| b == b'\n').count();
    // Counted from the problem, which knows its line also in what lies over the file.
    let line_start = problem.line.saturating_sub(newlines(&report.text[window.start..span.start]));
    let path = problem.layer.as_ref().unwrap_or(&report.name);
    let inside = |span: &Span| {
        let end = span.end.clamp(window.start, window.end);
        span.start.clamp(window.start, end) - window.start..end - window.start
    };
    let mut snippet = Snippet::source(&report.text[window.clone()])
        .line_start(line_start)
        .path(&**path)
        .fold(true)
        .annotation(mark(
            AnnotationKind::Primary,
            inside(&one_line(&report.text, span)),
            &problem.reason,
        ));
    if let Some((first, reason)) = &problem.related {
        let first = one_line(&report.text, first);
        // A first place too far away for the window is told in words only.
        if window.start <= first.start && first.end <= window.end {
            snippet = snippet.annotation(mark(AnnotationKind::Context, inside(&first), reason));
        }
    }
    Group::with_title(title).element(snippet).element(Padding).element(fix)
}

/// The first place, where it is in the same text: lines of two are not counted together.
fn related<'p>(report: &Report, problem: &'p Problem) -> Option<&'p Span> {
    let (first, _) = problem.related.as_ref()?;
    let before = &report.text[..problem.span.as_ref()?.start];
    let begins = match problem.layer {
        Some(_) => before.rmatch_indices('\n').nth(problem.line - 1).map_or(0, |(at, _)| at + 1),
        None => 0,
    };
    (begins <= first.start).then_some(first)
}

fn mark(kind: AnnotationKind, span: Span, label: &str) -> annotate_snippets::Annotation<'_> {
    let mark = kind.span(span);
    if label.is_empty() { mark } else { mark.label(label) }
}

/// A value over many lines is marked on its first one only.
fn one_line(text: &str, span: &Span) -> Span {
    let end = text[span.clone()].find('\n').map_or(span.end, |at| span.start + at);
    span.start..end
}

/// The whole lines that hold the problem and, when it is not too far, its first place.
fn window(text: &str, span: &Span, related: Option<&Span>) -> Span {
    let near = |first: &&Span| first.start.abs_diff(span.start) < 64 << 10;
    let from = related.filter(near).map_or(span.start, |first| first.start.min(span.start));
    let to = related.filter(near).map_or(span.start, |first| first.start.max(span.start));
    let start = text[..from].rfind('\n').map_or(0, |at| at + 1);
    let end = text[to..].find('\n').map_or(text.len(), |at| to + at);
    // One endless line: show the part around the problem.
    let mut start = start.max(from.saturating_sub(LINE_MAX));
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let mut end = end.min(to.saturating_add(LINE_MAX));
    while !text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

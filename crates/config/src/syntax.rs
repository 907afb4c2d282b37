//! Says in plain words what the TOML parser found wrong, with what people mostly meant.

use crate::Code;
use crate::report::{Problems, Span};

pub(crate) fn add(found: &str, span: &Span, problems: &mut Problems<'_>) {
    problems.add(Code::Syntax, span, format!("this is not TOML: {found}"), "", "");
}

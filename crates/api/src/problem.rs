//! What an answer says that is not a success: a problem as RFC 9457 has it, with what to do about it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Media type of a [`Problem`].
pub const PROBLEM_TYPE: &str = "application/problem+json";

/// The body of every answer that is not a success (RFC 9457).
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct Problem {
    /// What kind of problem it is, as a URI that never changes and leads nowhere: `urn:buoy:problem:CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is wrong.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// The particulars; of a refused configuration the whole report, ready to print. May be empty.
    pub detail: String,
    /// The kind again, for programs, as in `unknown_vip`.
    pub code: String,
    /// What to do, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Where in the configuration the first error is, if it is in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Every problem of a refused configuration, in the file's order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ConfigProblem>,
}

/// A place in the configuration.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct Span {
    /// The line, from 1; 0 where the problem is the file itself.
    pub line: usize,
    /// The column in characters, from 1; 0 where the problem is the file itself.
    pub column: usize,
}

/// One problem of a configuration.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ConfigProblem {
    /// As in `V0103`; the documentation of the configuration lists them.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// What is wrong.
    pub message: String,
    /// Why it is wrong; may be empty.
    pub reason: String,
    /// What to do.
    pub fix: String,
    /// Where.
    pub span: Span,
}

impl Problem {
    /// A problem without a fix or a place.
    pub fn new(status: u16, code: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:buoy:problem:{code}"),
            title: title.into(),
            status,
            detail: detail.into(),
            code: code.into(),
            ..Self::default()
        }
    }

    /// The particulars and what to do, for people.
    pub fn particulars(&self) -> String {
        match (self.detail.as_str(), self.fix.as_deref()) {
            (detail, None) => detail.to_owned(),
            // A report says already what to do about each of its problems.
            (detail, Some(_)) if !self.problems.is_empty() => detail.to_owned(),
            ("", Some(fix)) => fix.to_owned(),
            (detail, Some(fix)) => format!("{detail}; {fix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_the_particulars_and_then_what_to_do() {
        let problem = |detail: &str, fix: Option<&str>| Problem {
            fix: fix.map(str::to_owned),
            ..Problem::new(409, "no_owner", "nobody owns web", detail)
        };
        assert_eq!(problem("why", None).kind, "urn:buoy:problem:no_owner");
        let table = [
            (problem("", None), ""),
            (problem("why", None), "why"),
            (problem("", Some("do")), "do"),
            (problem("why", Some("do")), "why; do"),
            (
                Problem {
                    problems: vec![ConfigProblem::default()],
                    ..problem("report", Some("do"))
                },
                "report",
            ),
        ];
        for (problem, text) in table {
            assert_eq!(problem.particulars(), text);
        }
    }
}

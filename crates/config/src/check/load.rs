//! Reads what the share of a backend follows: how long its answers take, or a header that says how loaded it is.

use super::http;
use crate::Code;
use crate::keys::check;
use crate::report::{Problems, shown};
use crate::tree::Section;
use buoy_model::{CheckKind, Load};

/// Before the name of a header.
const HEADER: &str = "header ";
/// Bytes of the name of a header.
const NAME_MAX: usize = 255;

/// `latency` or `header NAME`, of a check that a backend answers and whose answer is no share itself.
pub(super) fn read(
    section: &Section<'_>,
    kind: &CheckKind,
    problems: &mut Problems<'_>,
) -> Option<Load> {
    let text = section.text(&check::LOAD, problems)?;
    let name = text.value.strip_prefix(HEADER).map(str::trim);
    let is_name =
        |name: &str| (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(http::is_token);
    let (reason, fix) = match (name, kind) {
        (_, CheckKind::Agent) => {
            ("the agent says the share of its weight itself", "remove `load`, or ask by `http`")
        }
        (_, CheckKind::Exec { .. } | CheckKind::File { .. } | CheckKind::Process(_)) => (
            "this check looks at this host, and a backend has no part in how long that takes",
            "remove `load`; with `exec` and `file`, weight = true takes a share from the first line",
        ),
        (Some(name), CheckKind::Http(_)) if is_name(name) => {
            return Some(Load::Header(name.to_owned()));
        }
        (Some(name), _) if is_name(name) => (
            "only an answer of HTTP has headers",
            "add http = \"GET /health\", or write \"latency\"",
        ),
        (Some(_), _) => {
            ("a header has a name of letters, digits and `-`", "write load = \"header X-Load\"")
        }
        (None, _) if text.value == "latency" => return Some(Load::Latency),
        (None, _) => (
            "it is \"latency\", or \"header\" and the name of one",
            "write load = \"latency\" or load = \"header X-Load\"",
        ),
    };
    let message = format!("no load is known by \"{}\"", shown(text.value));
    problems.add(Code::BadLoad, &text.span, message, reason, fix);
    None
}

//! Reads `[traces]`: where the spans of takeovers are sent to.

use crate::files::{self, ReadFile};
use crate::keys::{top, traces as keys};
use crate::report::{At, Problems, shown};
use crate::tree::Section;
use crate::{Code, url};
use buoy_model::Traces;

/// The path of spans at a collector (OTLP/HTTP), below the one that the file names.
const PATH: &str = "/v1/traces";

/// What the file says, and where the file of authorities stands that it names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    traces: Traces,
    ca: Option<At<String>>,
}

pub(crate) fn read(top: &Section<'_>, problems: &mut Problems<'_>) -> Option<Named> {
    let section = top.section(&top::TRACES, &keys::SCHEMA, problems)?;
    let ca = section.text(&keys::CA, problems);
    let ca = ca.map(|ca| At::new(ca.value.to_owned(), ca.span.clone()));
    if !section.has(&keys::OTLP) {
        section.miss(&keys::OTLP, problems);
    }
    let otlp = section.text(&keys::OTLP, problems)?;
    let (is_tls, host, port, path) = match url::parts(otlp.value) {
        Ok(parts) => parts,
        Err(reason) => {
            let message = format!("\"{}\" is not where spans can be sent", shown(otlp.value));
            let fix = format!("write otlp = {}", keys::OTLP.example);
            problems.add(Code::BadTraces, &otlp.span, message, reason, fix);
            return None;
        }
    };
    match (is_tls, &ca) {
        (true, None) => {
            let message = "`https` without `ca`: nobody knows who answers there";
            let reason = "Buoy trusts no authority by itself";
            let fix = "add ca = \"ca.pem\", the authorities that sign the collector's certificate";
            problems.add(Code::BadTraces, &otlp.span, message, reason, fix);
        }
        (false, Some(ca)) => {
            let message = "`ca` is of no use with `http`";
            let fix = "write `https`, or remove `ca`";
            problems.add(Code::BadTraces, &ca.span, message, "nothing is signed there", fix);
        }
        (true, Some(_)) | (false, None) => {}
    }
    let traces = Traces { host, port, path: path_of_spans(&path), ca: None };
    Some(Named { traces, ca })
}

/// People write where the collector is, or where it takes spans.
fn path_of_spans(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") }
}

/// The same with the path of its file, which is read once to see that it is good.
pub(crate) fn place(
    named: Option<&Named>,
    config: &str,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Traces> {
    let Named { traces, ca } = named?;
    let ca = ca.as_ref().map(|at| {
        let here = At::new(at.value.as_str(), at.span.clone());
        files::check_authority(config, &here, files, problems);
        files::resolve(config, &at.value)
    });
    Some(Traces { ca, ..traces.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_spans_is_added_once() {
        for (path, full) in [
            ("/", "/v1/traces"),
            ("/otlp", "/otlp/v1/traces"),
            ("/otlp/", "/otlp/v1/traces"),
            ("/v1/traces", "/v1/traces"),
        ] {
            assert_eq!(path_of_spans(path), full);
        }
    }
}

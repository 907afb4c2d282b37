//! Reads on which way a check asks backends, and holds it against how the service forwards packets.

use super::refuse;
use crate::Code;
use crate::keys::check;
use crate::report::Problems;
use crate::tree::{Section, Word};
use buoy_model::{CheckKind, Forward, Mode, Via};

/// `mode`: that of the service, where it could be read.
pub(super) fn read(
    section: &Section<'_>,
    mode: Option<Mode>,
    kind: &CheckKind,
    problems: &mut Problems<'_>,
) -> Option<Via> {
    let words = [("direct", Word::Now(Via::Direct)), ("tunnel", Word::Now(Via::Tunnel))];
    let via = section.word(&check::VIA, &words, problems)?;
    if !goes(kind) {
        let message = format!("`via` of a check by `{}`", kind.name());
        let reason = "it sends neither TCP nor UDP to a port of the backend";
        refuse(&via.span, &message, reason, "remove `via`", problems);
        return None;
    }
    let forwards = match mode? {
        Mode::Xdp { forward: Forward::Dsr, .. } => Via::Direct,
        Mode::Xdp { forward: Forward::Tunnel | Forward::Gue { .. }, .. } => Via::Tunnel,
        Mode::Kernel | Mode::Proxy | Mode::Xdp { forward: Forward::Nat | Forward::Local, .. } => {
            let message = "`via` works with `forward = \"dsr\"` and `forward = \"tunnel\"` only";
            let reason =
                "packets of this service get the backend's own address, and there it is asked";
            problems.add(Code::WrongVia, &via.span, message, reason, "remove `via`");
            return None;
        }
    };
    if via.value != forwards {
        let message = format!("`via = \"{}\"` is not the way of this service", via.value.name());
        let forward = if forwards == Via::Direct { "dsr" } else { "tunnel" };
        let reason = format!("its packets go by `forward = \"{forward}\"`");
        let fix = format!("write via = \"{}\"", forwards.name());
        problems.add(Code::WrongVia, &via.span, &message, &reason, &fix);
        return None;
    }
    Some(forwards)
}

/// Whether the question goes by TCP or UDP to a port of the backend.
const fn goes(kind: &CheckKind) -> bool {
    kind.asks_port() && !matches!(kind, CheckKind::Exec { .. })
}

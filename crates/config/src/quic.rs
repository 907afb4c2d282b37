//! Reads how datagrams of QUIC name their server: `quic` of one `[[vip.service]]`, and `id=` of its backends.

use crate::Code;
use crate::keys::service;
use crate::persist::refuse_pooled;
use crate::ports::Port;
use crate::report::{At, Problems};
use crate::tree::Section;
use buoy_model::{Backend, CONFIG_UNROUTABLE, Mode, Protocol, Quic, SourceAddress};

/// `is_complete`: there are no other backends than these.
pub(crate) fn read(
    section: &Section<'_>,
    (backends, is_complete): (&[Backend], bool),
    problems: &mut Problems<'_>,
) -> Option<Quic> {
    let most = u32::from(CONFIG_UNROUTABLE) - 1;
    let config = section.number(&service::QUIC, 0..=most, problems);
    let span = section.raw(&service::BACKENDS)?.span();
    let named = backends.iter().find_map(|b| Some((b, b.server_id?)));
    if let (Some((backend, _)), false) = (named, section.has(&service::QUIC)) {
        let message = format!("backend {} has an id, and nobody looks for it", backend.name);
        let reason = "datagrams name their server where the service has `quic`";
        let fix = "add quic = 0, the config rotation of the servers' connection ids";
        problems.add(Code::NeedsOther, &span, message, reason, fix);
    }
    let config = u8::try_from(config?.value).ok()?;
    let length = named.map(|(_, id)| id.length());
    let is_other = |b: &&Backend| b.server_id.is_some_and(|id| Some(id.length()) != length);
    if let (Some((first, _)), Some(other)) = (named, backends.iter().find(is_other)) {
        let message =
            format!("the ids of {} and {} are not of the same length", first.name, other.name);
        let reason = "an id has no mark where it ends, so all of a service are of one length";
        problems.add(Code::BadServerId, &span, message, reason, "write as many digits in each");
    }
    if let (true, Some(nameless)) = (is_complete, backends.iter().find(|b| b.server_id.is_none())) {
        let message = format!("backend {} has no id", nameless.name);
        let reason = "`quic` sends datagrams to the server whose id they have";
        let fix = "write id=HEX into each backend, as its server puts it into connection ids";
        problems.add(Code::BadServerId, &span, message, reason, fix);
    }
    length.map(|length| Quic { config, length })
}

/// What does not go with it.
pub(crate) fn refuse_misplaced(
    section: &Section<'_>,
    (mode, source): (Mode, &SourceAddress),
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) {
    let span = section.key_span(&service::QUIC);
    let tcp = ports.iter().find(|p| p.value.protocol == Protocol::Tcp);
    if let (Some(_), Some(tcp)) = (&span, tcp) {
        let message = "`quic` works with UDP only";
        let reason = "this port is TCP, and only datagrams have connection ids";
        let fix = "make one [[vip.service]] for udp and one without `quic` for tcp";
        problems.add(Code::NeedsUdp, &tcp.span, message, reason, fix);
    }
    refuse_pooled((mode, source), span, "quic", problems);
}

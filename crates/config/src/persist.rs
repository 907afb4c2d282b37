//! Reads which clients get the same backend again, and for how long: `persist`, `persist_timeout`, `persist_ipv4` and
//! `persist_ipv6` of one `[[vip.service]]`.
//!
//! Without a time hashing alone decides: the same client has the same backend as long as the backends are the same.
//! With one, clients are remembered, and so have it also when others come or weights change.

use crate::Code;
use crate::keys::{Key, service};
use crate::report::Problems;
use crate::tree::{Section, Word};
use buoy_model::limits::{STICK_MAX, STICK_MIN};
use buoy_model::{FlowFields, Mode, Prefixes, SourceAddress, Stick};
use core::time::Duration;

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Persist {
    /// `persist` or `persist_timeout` is there.
    pub(crate) is_wanted: bool,
    timeout: Option<Duration>,
    prefixes: Option<Prefixes>,
    /// Whether all could be read, as far as it is there.
    pub(crate) readable: bool,
}

pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Persist {
    let words = [("client", Word::Now(()))];
    let word = section.word(&service::PERSIST, &words, problems);
    let timeout = section.duration(&service::PERSIST_TIMEOUT, STICK_MIN..=STICK_MAX, problems);
    let v4 = section.number(&service::PERSIST_IPV4, 1..=32, problems).map(|n| n.value);
    let v6 = section.number(&service::PERSIST_IPV6, 1..=128, problems).map(|n| n.value);
    let read = |key: &Key, value: bool| value || !section.has(key);
    let bits = |n: Option<u32>, all: u8| n.map_or(all, |n| u8::try_from(n).unwrap_or(all));
    Persist {
        is_wanted: section.has(&service::PERSIST) || section.has(&service::PERSIST_TIMEOUT),
        timeout: timeout.as_ref().map(|t| t.value),
        prefixes: Prefixes::new(bits(v4, 32), bits(v6, 128)),
        readable: read(&service::PERSIST, word.is_some())
            && read(&service::PERSIST_TIMEOUT, timeout.is_some())
            && read(&service::PERSIST_IPV4, v4.is_some())
            && read(&service::PERSIST_IPV6, v6.is_some()),
    }
}

impl Persist {
    /// What makes clients one.
    pub(crate) fn client(&self) -> FlowFields {
        self.prefixes.map_or(FlowFields::Client, FlowFields::of_prefixes)
    }

    /// For how long they are remembered.
    pub(crate) fn stick(&self) -> Option<Stick> {
        self.timeout.map(|timeout| Stick { timeout, client: self.client() })
    }

    /// Whether clients are remembered, so that it does not matter how their backend was found.
    pub(crate) const fn remembers(&self) -> bool {
        self.timeout.is_some()
    }

    /// What does nothing, or cannot be done. `by_client`: backends are found by the client's address.
    pub(crate) fn refuse_misplaced(
        &self,
        section: &Section<'_>,
        (mode, source, by_client): (Mode, &SourceAddress, bool),
        problems: &mut Problems<'_>,
    ) {
        for key in [&service::PERSIST_IPV4, &service::PERSIST_IPV6] {
            let (false, false, Some(span)) = (self.is_wanted, by_client, section.key_span(key))
            else {
                continue;
            };
            let message = format!("`{}` without `persist`", key.name);
            let reason = "each connection goes to a backend of its own, whatever its client";
            let fix = "add persist = \"client\" or persist_timeout = \"5m\", or remove the line";
            problems.add(Code::NeedsOther, &span, message, reason, fix);
        }
        let span = section.key_span(&service::PERSIST_TIMEOUT);
        refuse_pooled((mode, source), span, "persist_timeout", problems);
    }
}

/// In mode "xdp" a flow that gets another source knows its backend by its port.
pub(crate) fn refuse_pooled(
    (mode, source): (Mode, &SourceAddress),
    span: Option<crate::report::Span>,
    name: &str,
    problems: &mut Problems<'_>,
) {
    let (Mode::Xdp { .. }, SourceAddress::Vip | SourceAddress::Pool(_), Some(span)) =
        (mode, source, span)
    else {
        return;
    };
    let message = format!("`{name}` and `source` contradict each other in mode \"xdp\"");
    let reason = "a flow whose client the backends do not see has its backend by its port";
    let fix = "remove `source`, so that backends see their clients, or write mode = \"proxy\"";
    problems.add(Code::Contradiction, &span, message, reason, fix);
}

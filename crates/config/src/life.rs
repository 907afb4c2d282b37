//! Reads how backends are treated over time: how many are enough, and in a proxy the queue before those that are
//! full and the slow start of those that come up.

use crate::keys::service;
use crate::ports::Port;
use crate::report::{At, Problems};
use crate::tree::{Section, Word};
use crate::{Code, locality};
use buoy_model::limits::{
    EJECT_AFTER_MAX, EJECT_DEFAULT, EJECT_MAX, PROXY_QUEUE_MAX, PROXY_QUEUE_TIMEOUT_DEFAULT,
    PROXY_TIMEOUT_MAX, SERVICE_BACKENDS_MAX, SLOW_START_MAX,
};
use buoy_model::{Backend, BackendLife, Balance, Eject, Mode, OnDown, Protocol};
use core::time::Duration;

const ON_DOWN: [(&str, Word<OnDown>); 2] =
    [("keep", Word::Now(OnDown::Keep)), ("reset", Word::Now(OnDown::Reset))];

pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> BackendLife {
    let least = Duration::from_millis(10);
    let slow = Duration::from_secs(1)..=SLOW_START_MAX;
    let all = u32::try_from(SERVICE_BACKENDS_MAX).unwrap_or(u32::MAX);
    let quorum = section.number(&service::QUORUM, 1..=all, problems);
    BackendLife {
        quorum: quorum.and_then(|n| u16::try_from(n.value).ok()).unwrap_or(1),
        queue: section
            .number(&service::QUEUE, 1..=PROXY_QUEUE_MAX, problems)
            .map_or(0, |n| n.value),
        queue_timeout: section
            .duration(&service::QUEUE_TIMEOUT, least..=PROXY_TIMEOUT_MAX, problems)
            .map_or(PROXY_QUEUE_TIMEOUT_DEFAULT, |d| d.value),
        slow_start: section.duration(&service::SLOW_START, slow, problems).map(|d| d.value),
        eject: read_eject(section, problems),
        stick: None,
        on_down: section.word(&service::ON_DOWN, &ON_DOWN, problems).map(|word| word.value),
        locality: locality::read(section, problems),
    }
}

fn read_eject(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Eject> {
    let times = Duration::from_secs(1)..=EJECT_MAX;
    let time = section.duration(&service::EJECT_TIME, times, problems);
    let after = section.number(&service::EJECT_AFTER, 1..=EJECT_AFTER_MAX, problems)?;
    Some(Eject { after: after.value, time: time.map_or(EJECT_DEFAULT, |time| time.value) })
}

/// Where nobody sees what becomes of connections.
pub(crate) fn refuse_eject(
    section: &Section<'_>,
    (reason, fix): (&str, &str),
    problems: &mut Problems<'_>,
) {
    for key in [&service::EJECT_AFTER, &service::EJECT_TIME] {
        let Some(span) = section.key_span(key) else { continue };
        let message = format!("`{}` works in modes \"proxy\" and \"xdp\" only", key.name);
        problems.add(Code::NeedsProxy, &span, message, reason, fix);
    }
}

/// A time to leave backends alone for, and nothing to do it after.
pub(crate) fn refuse_idle_eject(section: &Section<'_>, problems: &mut Problems<'_>) {
    if let (false, Some(span)) =
        (section.has(&service::EJECT_AFTER), section.key_span(&service::EJECT_TIME))
    {
        let message = "`eject_time` without `eject_after`";
        let fix = "add eject_after = N, or remove the line";
        problems.add(Code::NeedsOther, &span, message, "without it nobody is left alone", fix);
    }
}

/// Flows of UDP get another backend in any case: who asks by datagrams would go on asking the dead.
pub(crate) fn refuse_of_udp(
    section: &Section<'_>,
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) {
    let Some(span) = section.key_span(&service::ON_DOWN) else { return };
    if !ports.is_empty() && ports.iter().all(|p| p.value.protocol == Protocol::Udp) {
        let message = "`on_down` works with TCP only";
        let reason = "the ports are UDP, whose flows go to another backend in any case";
        problems.add(Code::NeedsTcp, &span, message, reason, "remove the line");
    }
}

/// A quorum that is never met: of each IP version where addresses are translated within one.
pub(crate) fn refuse_unmet(
    section: &Section<'_>,
    (quorum, mode): (u16, Mode),
    backends: &[Backend],
    problems: &mut Problems<'_>,
) {
    let Some(span) = section.key_span(&service::QUORUM) else { return };
    let of = |is_v4: bool| {
        let counts = |b: &&Backend| mode == Mode::Proxy || b.address.is_ipv4() == is_v4;
        let all = backends.iter().filter(counts);
        (all.clone().count(), all.filter(|b| !b.backup && b.weight != 0).count())
    };
    for (all, able) in [of(true), of(false)] {
        if all != 0 && able < usize::from(quorum) {
            let message = format!("a quorum of {quorum} is never met");
            let reason = format!("{able} of the backends are neither backups nor of weight 0");
            let fix = format!("write quorum = {} or less, or add backends", able.max(1));
            problems.add(Code::QuorumUnmet, &span, message, reason, fix);
            return;
        }
    }
}

/// What does nothing in a proxy with these backends. In another mode all of it was refused.
pub(crate) fn refuse_idle(
    section: &Section<'_>,
    balance: Balance,
    (backends, ports): (&[Backend], &[At<Port>]),
    problems: &mut Problems<'_>,
) {
    if let Some(span) = section.key_span(&service::QUEUE) {
        if backends.iter().all(|b| b.connections_max.is_none()) {
            let message = "`queue` without a maximum of connections";
            let reason = "no backend is ever full, so nobody waits";
            let fix = "add backend_max_connections = N, or max=N to a backend";
            problems.add(Code::NeedsOther, &span, message, reason, fix);
        }
        if let Some(udp) = ports.iter().find(|p| p.value.protocol == Protocol::Udp) {
            let message = "`queue` works with TCP only";
            let reason = "this port is UDP, and datagrams do not wait";
            let fix = "make one [[vip.service]] for tcp and one without `queue` for udp";
            problems.add(Code::NeedsTcp, &udp.span, message, reason, fix);
        }
    } else if let Some(span) = section.key_span(&service::QUEUE_TIMEOUT) {
        let message = "`queue_timeout` without `queue`";
        let fix = "add queue = N, or remove the line";
        problems.add(Code::NeedsOther, &span, message, "without a queue nobody waits", fix);
    }
    if let (Balance::First, Some(heavy)) = (balance, backends.iter().find(|b| b.weight > 1))
        && let Some(span) = section.key_span(&service::BALANCE)
    {
        let message = format!("backend {} has a weight of {}", heavy.name, heavy.weight);
        let reason = "the first one with room gets a connection, whatever it weighs";
        let fix = "remove weight=N and put the backends in the order that you want, or write balance = \"leastconn\"";
        problems.add(Code::IdleWeight, &span, message, reason, fix);
    }
    if let (Balance::First, Some(span)) = (balance, section.key_span(&service::SLOW_START)) {
        let message = "`slow_start` and `balance = \"first\"` contradict each other";
        let reason =
            "who fills one backend after the other gives none of them a share that could grow";
        let fix = "remove `slow_start`, or write balance = \"leastconn\"";
        problems.add(Code::Contradiction, &span, message, reason, fix);
    }
}

//! Reads one `[[vip.service]]`: ports, engine, balance and limits.

use crate::Code;
use crate::keys::{Key, service};
use crate::ports::{self, Port};
use crate::report::{At, Problems};
use crate::tree::{Section, Word};
use crate::{
    backend, balance, check, discovery, forward, front, life, quic, rate, source, sources,
};
use buoy_model::limits::{
    PROXY_CONNECT_DEFAULT, PROXY_CONNECTIONS_DEFAULT, PROXY_CONNECTIONS_MAX,
    PROXY_IDLE_TCP_DEFAULT, PROXY_IDLE_UDP_DEFAULT, PROXY_TIMEOUT_MAX,
};
use buoy_model::{
    Backend, BackendLife, Cidr, Discovery, Forward, Mode, Protocol, SendProxy, Service,
    SourceAddress,
};
use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

/// The words of `mode`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Engine {
    Kernel,
    Proxy,
    Xdp,
}

/// What all ports of one `[[vip.service]]` share.
struct Settings {
    mode: Mode,
    balance: balance::Chosen,
    source: SourceAddress,
    send_proxy: SendProxy,
    connections_max: u32,
    /// Of each backend that has no maximum of its own.
    backend_max: Option<u32>,
    idle_timeout: Option<Duration>,
    connect_timeout: Duration,
    /// Whether every word that others are held against could be read.
    readable: bool,
}

/// One service for each port.
pub(crate) fn read(
    section: &Section<'_>,
    vips: &[At<Cidr>],
    pool: &mut Vec<At<IpAddr>>,
    problems: &mut Problems<'_>,
) -> Vec<At<Service>> {
    let ports = ports::read(section, problems);
    let source = source::read(section, problems);
    let word = source.as_ref().map(|s| s.value.0.clone());
    pool.extend(source.into_iter().flat_map(|s| s.value.1));
    let settings = read_settings(section, word, problems);
    if settings.readable {
        refuse_misplaced(section, &settings, &ports, problems);
    }
    let may_keep = ports::may_keep(settings.mode, &ports);
    let is_local = forward::is_local(settings.mode);
    let before = problems.count();
    let (backends, entries) = match is_local {
        true => (Vec::new(), Vec::new()),
        false => backend::read(section, (settings.mode, may_keep), vips, problems),
    };
    let clean = problems.count() == before;
    if settings.readable {
        ports::refuse_impossible(settings.mode, &backends, &ports, problems);
        forward::refuse_unreachable(settings.mode, &backends, &ports, vips, problems);
        discovery::refuse_other_port(settings.mode, &entries, &ports, problems);
        settings.balance.refuse_endless(section, settings.mode, &backends, problems);
    }
    let limited =
        |b: Backend| Backend { connections_max: b.connections_max.or(settings.backend_max), ..b };
    let backends: Vec<Backend> = backends.into_iter().map(|b| limited(b.value)).collect();
    let is_complete = entries.is_empty();
    let life = read_life(section, &settings, (&backends, is_complete, &ports), problems);
    let front = front::read(section, (&backends, clean && is_complete), problems);
    if settings.readable && settings.mode == Mode::Proxy {
        front::refuse_misplaced(section, &ports, problems);
    }
    source::refuse_missing_version(section, &settings.source, vips, &backends, problems);
    let check = match is_local {
        true => check::Asked::Off,
        false => check::read(section, settings.readable.then_some(settings.mode), problems),
    };
    check.refuse_without_port(section, &ports, problems);
    let discovered: Vec<Discovery> = entries.into_iter().map(|entry| entry.value).collect();
    let sources = sources::read(section, problems);
    let new_connections = rate::read(section, problems);
    ports
        .into_iter()
        .map(|At { value: Port { ports, protocol }, span }| {
            let idle_default = match protocol {
                Protocol::Tcp => PROXY_IDLE_TCP_DEFAULT,
                Protocol::Udp => PROXY_IDLE_UDP_DEFAULT,
            };
            let service = Service {
                addresses: vips.iter().map(|v| v.value.address()).collect(),
                protocol,
                ports,
                mode: settings.mode,
                balance: settings.balance.of(settings.mode),
                source: settings.source.clone(),
                send_proxy: settings.send_proxy,
                connections_max: settings.connections_max,
                idle_timeout: settings.idle_timeout.unwrap_or(idle_default),
                connect_timeout: settings.connect_timeout,
                sources: Arc::clone(&sources),
                new_connections,
                life,
                front: front.clone(),
                backends: forward::at_port(&backends, ports.first()),
                discovered: discovered.clone(),
                check: check.clone().of(protocol),
            };
            At::new(service, span)
        })
        .collect()
}

/// `is_complete`: there are no other backends than these.
fn read_life(
    section: &Section<'_>,
    settings: &Settings,
    (backends, is_complete, ports): (&[Backend], bool, &[At<Port>]),
    problems: &mut Problems<'_>,
) -> BackendLife {
    let life = BackendLife { stick: settings.balance.stick(), ..life::read(section, problems) };
    life::refuse_of_udp(section, ports, problems);
    if settings.readable && !forward::is_local(settings.mode) && is_complete {
        life::refuse_unmet(section, (life.quorum, settings.mode), backends, problems);
    }
    let can_eject = settings.mode != Mode::Kernel && !forward::is_local(settings.mode);
    if settings.readable && can_eject && !backends.is_empty() {
        life::refuse_idle_eject(section, problems);
    }
    if settings.readable && settings.mode == Mode::Proxy && !backends.is_empty() && is_complete {
        let balance = settings.balance.of(settings.mode);
        life::refuse_idle(section, balance, (backends, ports), problems);
    }
    life
}

fn read_settings(
    section: &Section<'_>,
    source: Option<SourceAddress>,
    problems: &mut Problems<'_>,
) -> Settings {
    let mode = section.word(
        &service::MODE,
        &[
            ("kernel", Word::Now(Engine::Kernel)),
            ("proxy", Word::Now(Engine::Proxy)),
            ("xdp", Word::Now(Engine::Xdp)),
        ],
        problems,
    );
    let forward = forward::read(section, problems);
    let balance = balance::read(section, problems);
    let versions = [("v2", Word::Now(SendProxy::V2)), ("v1", Word::Now(SendProxy::V1))];
    let send_proxy = section.word(&service::SEND_PROXY, &versions, problems);
    let is_front = section.has(&service::ACCEPT_PROXY) || section.has(&service::SNI);
    let of_proxy = send_proxy.is_some() || balance.needs_proxy() || is_front;
    let asked = match (forward.is_some(), of_proxy) {
        (true, true | false) => Engine::Xdp,
        (false, true) => Engine::Proxy,
        (false, false) => Engine::Kernel,
    };
    let engine = mode.as_ref().map_or(asked, |m| m.value);
    if engine == Engine::Xdp && !section.has(&service::FORWARD) {
        section.miss(&service::FORWARD, problems);
    }
    // What was written but could not be read says nothing against the other keys.
    let read = |key: &Key, value: bool| value || !section.has(key);
    let readable = read(&service::MODE, mode.is_some())
        && read(&service::FORWARD, forward.is_some())
        && balance.readable
        && read(&service::SOURCE, source.is_some())
        && read(&service::SEND_PROXY, send_proxy.is_some())
        && (engine != Engine::Xdp || forward.is_some());
    let mode = match engine {
        Engine::Kernel => Mode::Kernel,
        Engine::Proxy => Mode::Proxy,
        Engine::Xdp => Mode::Xdp {
            // Where it is missing, the one that takes a backend in any form.
            forward: forward.map_or(Forward::Tunnel, |f| f.value),
            flow: balance.fields(),
        },
    };
    let chosen =
        Chosen { mode, balance, source, send_proxy: send_proxy.map(|s| s.value), readable };
    chosen.with_numbers(section, problems)
}

/// The words of a service, as far as they are there.
struct Chosen {
    mode: Mode,
    balance: balance::Chosen,
    source: Option<SourceAddress>,
    send_proxy: Option<SendProxy>,
    readable: bool,
}

impl Chosen {
    fn with_numbers(self, section: &Section<'_>, problems: &mut Problems<'_>) -> Settings {
        let source = match self.mode {
            Mode::Kernel | Mode::Proxy => SourceAddress::Vip,
            Mode::Xdp { .. } => SourceAddress::Client,
        };
        let least = Duration::from_millis(10);
        Settings {
            mode: self.mode,
            balance: self.balance,
            source: self.source.unwrap_or(source),
            send_proxy: self.send_proxy.unwrap_or(SendProxy::Off),
            connections_max: section
                .number(&service::MAX_CONNECTIONS, 1..=PROXY_CONNECTIONS_MAX, problems)
                .map_or(PROXY_CONNECTIONS_DEFAULT, |n| n.value),
            backend_max: section
                .number(&service::BACKEND_MAX_CONNECTIONS, 1..=PROXY_CONNECTIONS_MAX, problems)
                .map(|n| n.value),
            idle_timeout: section
                .duration(
                    &service::IDLE_TIMEOUT,
                    Duration::from_secs(1)..=PROXY_TIMEOUT_MAX,
                    problems,
                )
                .map(|d| d.value),
            connect_timeout: section
                .duration(&service::CONNECT_TIMEOUT, least..=PROXY_TIMEOUT_MAX, problems)
                .map_or(PROXY_CONNECT_DEFAULT, |d| d.value),
            readable: self.readable,
        }
    }
}

/// Settings of another engine would be ignored, and nobody would know.
fn refuse_misplaced(
    section: &Section<'_>,
    settings: &Settings,
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) {
    source::refuse_misplaced(section, settings.mode, &settings.source, problems);
    settings.balance.refuse_contradiction(section, settings.mode, problems);
    let how = (settings.mode, &settings.source);
    settings.balance.refuse_persist(section, how, problems);
    quic::refuse_misplaced(section, how, ports, problems);
    match settings.mode {
        Mode::Kernel => {
            let reason = "in mode \"kernel\" nftables forwards, and it has no such setting";
            let fix = "write mode = \"proxy\", or remove the line";
            refuse_of_proxy(section, settings, (reason, fix), problems);
            refuse_of_xdp(section, reason, problems);
            life::refuse_eject(section, (reason, fix), problems);
        }
        Mode::Proxy => {
            let reason = "in mode \"proxy\" the agent ends connections, and it has no such setting";
            refuse_of_xdp(section, reason, problems);
        }
        Mode::Xdp { forward: Forward::Local, .. } => forward::refuse_of_backends(section, problems),
        Mode::Xdp { .. } => {
            let reason = "in mode \"xdp\" each packet goes by itself, and no connection is known";
            let fix = "remove the line, or write mode = \"proxy\" and no `forward`";
            refuse_of_proxy(section, settings, (reason, fix), problems);
        }
    }
    let udp = ports.iter().find(|p| p.value.protocol == Protocol::Udp);
    if let (SendProxy::V1 | SendProxy::V2, Some(udp)) = (settings.send_proxy, udp) {
        let message = "`send_proxy` works with TCP only";
        let fix = "make one [[vip.service]] for tcp and one without `send_proxy` for udp";
        problems.add(Code::NeedsTcp, &udp.span, message, "this port is UDP", fix);
    }
    if let (Mode::Xdp { .. }, true, Some(udp)) =
        (settings.mode, section.has(&service::EJECT_AFTER), udp)
    {
        let message = "`eject_after` works with TCP only in mode \"xdp\"";
        let reason = "this port is UDP, and clients of it do not show whether they are answered";
        let fix = "make one [[vip.service]] for tcp and one without `eject_after` for udp";
        problems.add(Code::NeedsTcp, &udp.span, message, reason, fix);
    }
    let is_limited = section.has(&service::NEW_CONNECTIONS);
    if let (Mode::Xdp { .. }, true, Some(udp)) = (settings.mode, is_limited, udp) {
        let message = "`new_connections` works with TCP only in mode \"xdp\"";
        let reason =
            "this port is UDP, and there a datagram does not say whether it is a client's first";
        let fix = "make one [[vip.service]] for tcp and one without `new_connections` for udp";
        problems.add(Code::NeedsTcp, &udp.span, message, reason, fix);
    }
}

/// Settings of the proxy, where there is none.
fn refuse_of_proxy(
    section: &Section<'_>,
    settings: &Settings,
    (reason, fix): (&str, &str),
    problems: &mut Problems<'_>,
) {
    settings.balance.refuse_misplaced(section, settings.mode, (reason, fix), problems);
    let mut refuse = |key: &Key, what: &str| {
        let Some(span) = section.key_span(key) else { return };
        let message = format!("{what} works in mode \"proxy\" only");
        problems.add(Code::NeedsProxy, &span, message, reason, fix);
    };
    for key in [
        &service::SEND_PROXY,
        &service::MAX_CONNECTIONS,
        &service::BACKEND_MAX_CONNECTIONS,
        &service::QUEUE,
        &service::QUEUE_TIMEOUT,
        &service::SLOW_START,
        &service::ACCEPT_PROXY,
        &service::SNI,
        &service::IDLE_TIMEOUT,
        &service::CONNECT_TIMEOUT,
    ] {
        refuse(key, &format!("`{}`", key.name));
    }
}

/// Settings of XDP, where packets do not go that way.
fn refuse_of_xdp(section: &Section<'_>, reason: &str, problems: &mut Problems<'_>) {
    let Some(span) = section.key_span(&service::FORWARD) else { return };
    let message = "`forward` works in mode \"xdp\" only";
    let fix = "write mode = \"xdp\", or remove the line";
    problems.add(Code::NeedsXdp, &span, message, reason, fix);
}

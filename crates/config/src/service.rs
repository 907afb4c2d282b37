//! Reads one `[[vip.service]]`: ports, engine, balance and limits.

use crate::Code;
use crate::keys::{Key, service};
use crate::ports::{self, Port};
use crate::report::{At, Problems};
use crate::tree::{Section, Word};
use crate::{backend, check, forward, rate, source, sources};
use buoy_model::limits::{
    PROXY_CONNECT_DEFAULT, PROXY_CONNECTIONS_DEFAULT, PROXY_CONNECTIONS_MAX,
    PROXY_IDLE_TCP_DEFAULT, PROXY_IDLE_UDP_DEFAULT, PROXY_TIMEOUT_MAX,
};
use buoy_model::{
    Backend, Balance, Cidr, FlowFields, Forward, Mode, Protocol, SendProxy, Service, SourceAddress,
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

/// The words of `balance`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Hash,
    /// What `Hash` is in mode "xdp", and nowhere else.
    Maglev,
    RoundRobin,
    LeastConnections,
}

/// What all ports of one `[[vip.service]]` share.
struct Settings {
    mode: Mode,
    balance: Way,
    source: SourceAddress,
    send_proxy: SendProxy,
    connections_max: u32,
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
    let backends = backend::read(section, (settings.mode, may_keep), vips, problems);
    if settings.readable {
        ports::refuse_impossible(settings.mode, &backends, &ports, problems);
        forward::refuse_unreachable(settings.mode, &backends, &ports, vips, problems);
    }
    let backends: Vec<Backend> = backends.into_iter().map(|b| b.value).collect();
    source::refuse_missing_version(section, &settings.source, vips, &backends, problems);
    let check = check::read(section, problems);
    check.refuse_without_port(section, &ports, problems);
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
                balance: match settings.balance {
                    Way::Hash | Way::Maglev => Balance::Hash,
                    Way::RoundRobin => Balance::RoundRobin,
                    Way::LeastConnections => Balance::LeastConnections,
                },
                source: settings.source.clone(),
                send_proxy: settings.send_proxy,
                connections_max: settings.connections_max,
                idle_timeout: settings.idle_timeout.unwrap_or(idle_default),
                connect_timeout: settings.connect_timeout,
                sources: Arc::clone(&sources),
                new_connections,
                backends: forward::at_port(&backends, ports.first()),
                check: check.clone().of(protocol),
            };
            At::new(service, span)
        })
        .collect()
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
    let balance = section.word(
        &service::BALANCE,
        &[
            ("hash", Word::Now(Way::Hash)),
            ("maglev", Word::Now(Way::Maglev)),
            ("roundrobin", Word::Now(Way::RoundRobin)),
            ("leastconn", Word::Now(Way::LeastConnections)),
        ],
        problems,
    );
    let persist =
        section.word(&service::PERSIST, &[("client", Word::Now(FlowFields::Client))], problems);
    let versions = [("v2", Word::Now(SendProxy::V2)), ("v1", Word::Later)];
    let send_proxy = section.word(&service::SEND_PROXY, &versions, problems);
    let least = balance.as_ref().filter(|b| b.value == Way::LeastConnections);
    let asked = match (forward.is_some(), send_proxy.is_some() || least.is_some()) {
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
        && read(&service::BALANCE, balance.is_some())
        && read(&service::PERSIST, persist.is_some())
        && read(&service::SOURCE, source.is_some())
        && read(&service::SEND_PROXY, send_proxy.is_some())
        && (engine != Engine::Xdp || forward.is_some());
    let mode = match engine {
        Engine::Kernel => Mode::Kernel,
        Engine::Proxy => Mode::Proxy,
        Engine::Xdp => Mode::Xdp {
            // Where it is missing, the one that takes a backend in any form.
            forward: forward.map_or(Forward::Tunnel, |f| f.value),
            flow: persist.map_or(FlowFields::Connection, |p| p.value),
        },
    };
    let chosen = Chosen {
        mode,
        balance: balance.map(|b| b.value),
        source,
        send_proxy: send_proxy.map(|s| s.value),
        readable,
    };
    chosen.with_numbers(section, problems)
}

/// The words of a service, as far as they are there.
struct Chosen {
    mode: Mode,
    balance: Option<Way>,
    source: Option<SourceAddress>,
    send_proxy: Option<SendProxy>,
    readable: bool,
}

impl Chosen {
    fn with_numbers(self, section: &Section<'_>, problems: &mut Problems<'_>) -> Settings {
        let (balance, source) = match self.mode {
            Mode::Kernel => (Way::Hash, SourceAddress::Vip),
            Mode::Proxy => (Way::RoundRobin, SourceAddress::Vip),
            Mode::Xdp { .. } => (Way::Hash, SourceAddress::Client),
        };
        let least = Duration::from_millis(10);
        Settings {
            mode: self.mode,
            balance: self.balance.unwrap_or(balance),
            source: self.source.unwrap_or(source),
            send_proxy: self.send_proxy.unwrap_or(SendProxy::Off),
            connections_max: section
                .number(&service::MAX_CONNECTIONS, 1..=PROXY_CONNECTIONS_MAX, problems)
                .map_or(PROXY_CONNECTIONS_DEFAULT, |n| n.value),
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
    match settings.mode {
        Mode::Kernel => {
            let reason = "in mode \"kernel\" nftables forwards, and it has no such setting";
            let fix = "write mode = \"proxy\", or remove the line";
            refuse_of_proxy(section, settings, (reason, fix), problems);
            refuse_of_xdp(section, settings, reason, problems);
        }
        Mode::Proxy => {
            let reason = "in mode \"proxy\" the agent ends connections, and it has no such setting";
            refuse_of_xdp(section, settings, reason, problems);
        }
        Mode::Xdp { .. } => {
            let reason = "in mode \"xdp\" each packet goes by itself, and no connection is known";
            let fix = "remove the line, or write mode = \"proxy\" and no `forward`";
            refuse_of_proxy(section, settings, (reason, fix), problems);
            refuse_in_xdp(section, settings, problems);
        }
    }
    let udp = ports.iter().find(|p| p.value.protocol == Protocol::Udp);
    if let (SendProxy::V2, Some(udp)) = (settings.send_proxy, udp) {
        let message = "`send_proxy` works with TCP only";
        let fix = "make one [[vip.service]] for tcp and one without `send_proxy` for udp";
        problems.add(Code::NeedsTcp, &udp.span, message, "this port is UDP", fix);
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
    let mut refuse = |key: &Key, what: &str| {
        let Some(span) = section.key_span(key) else { return };
        let message = format!("{what} works in mode \"proxy\" only");
        problems.add(Code::NeedsProxy, &span, message, reason, fix);
    };
    if settings.balance == Way::LeastConnections {
        refuse(&service::BALANCE, "`balance = \"leastconn\"`");
    }
    for key in [
        &service::SEND_PROXY,
        &service::MAX_CONNECTIONS,
        &service::IDLE_TIMEOUT,
        &service::CONNECT_TIMEOUT,
    ] {
        refuse(key, &format!("`{}`", key.name));
    }
}

/// Settings of XDP, where packets do not go that way.
fn refuse_of_xdp(
    section: &Section<'_>,
    settings: &Settings,
    reason: &str,
    problems: &mut Problems<'_>,
) {
    let mut refuse = |key: &Key, what: &str, fix: &str| {
        let Some(span) = section.key_span(key) else { return };
        let message = format!("{what} works in mode \"xdp\" only");
        problems.add(Code::NeedsXdp, &span, message, reason, fix);
    };
    if settings.balance == Way::Maglev {
        let fix = "write balance = \"hash\", or mode = \"xdp\" and a `forward`";
        refuse(&service::BALANCE, "`balance = \"maglev\"`", fix);
    }
    refuse(&service::FORWARD, "`forward`", "write mode = \"xdp\", or remove the line");
    let fix = "remove the line, or write mode = \"xdp\" and a `forward`";
    refuse(&service::PERSIST, "`persist`", fix);
}

/// What a program that knows no connections and has no ports of its own cannot do.
fn refuse_in_xdp(section: &Section<'_>, settings: &Settings, problems: &mut Problems<'_>) {
    if let (Way::RoundRobin, Some(span)) = (settings.balance, section.key_span(&service::BALANCE)) {
        let message = "`balance = \"roundrobin\"` does not work in mode \"xdp\"";
        let reason = "nobody remembers there whose turn it was for a connection";
        let fix = "remove the line: in mode \"xdp\" it is \"maglev\"";
        problems.add(Code::NotInXdp, &span, message, reason, fix);
    }
}

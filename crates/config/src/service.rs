//! Reads one `[[vip.service]]`: ports, engine, balance and limits.

use crate::Code;
use crate::keys::{Key, service};
use crate::report::{At, Problems, shown};
use crate::tree::{Section, Word};
use crate::{backend, check};
use buoy_model::limits::{
    PROXY_CONNECT_DEFAULT, PROXY_CONNECTIONS_DEFAULT, PROXY_CONNECTIONS_MAX,
    PROXY_IDLE_TCP_DEFAULT, PROXY_IDLE_UDP_DEFAULT, PROXY_TIMEOUT_MAX,
};
use buoy_model::{Balance, Cidr, Mode, Protocol, SendProxy, Service, SourceAddress};
use core::time::Duration;

/// A port and its protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Port {
    port: u16,
    protocol: Protocol,
}

/// What all ports of one `[[vip.service]]` share.
struct Settings {
    mode: Mode,
    balance: Balance,
    source: SourceAddress,
    send_proxy: SendProxy,
    connections_max: u32,
    idle_timeout: Option<Duration>,
    connect_timeout: Duration,
}

/// One service for each port.
pub(crate) fn read(
    section: &Section<'_>,
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) -> Vec<At<Service>> {
    let ports = read_ports(section, problems);
    let settings = read_settings(section, &ports, problems);
    let backends = backend::read(section, settings.mode, vips, problems);
    let check = check::read(section, problems);
    ports
        .into_iter()
        .map(|At { value: Port { port, protocol }, span }| {
            let idle_default = match protocol {
                Protocol::Tcp => PROXY_IDLE_TCP_DEFAULT,
                Protocol::Udp => PROXY_IDLE_UDP_DEFAULT,
            };
            let service = Service {
                addresses: vips.iter().map(|v| v.value.address()).collect(),
                protocol,
                port,
                mode: settings.mode,
                balance: settings.balance,
                source: settings.source,
                send_proxy: settings.send_proxy,
                connections_max: settings.connections_max,
                idle_timeout: settings.idle_timeout.unwrap_or(idle_default),
                connect_timeout: settings.connect_timeout,
                backends: backends.clone(),
                check: check.clone().of(protocol),
            };
            At::new(service, span)
        })
        .collect()
}

fn read_ports(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<At<Port>> {
    if !section.has(&service::PORT) {
        section.miss(&service::PORT, problems);
    }
    let texts = section.texts(&service::PORT, problems).map(|list| list.value).unwrap_or_default();
    texts
        .iter()
        .filter_map(|text| match parse_port(text.value) {
            Ok(port) => Some(At::new(port, text.span.clone())),
            Err((reason, fix)) => {
                let message = format!("\"{}\" is not a service port", shown(text.value));
                problems.add(Code::BadPort, &text.span, message, reason, fix);
                None
            }
        })
        .collect()
}

fn parse_port(text: &str) -> Result<Port, (&'static str, String)> {
    let example = || "write port and protocol, as in \"443/tcp\" or \"53/udp\"".to_owned();
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0 && !text.starts_with('+'));
    let Some((port, protocol)) = text.split_once('/') else {
        return Err(match number(text) {
            Some(port) => {
                ("the protocol is missing", format!("write \"{port}/tcp\" or \"{port}/udp\""))
            }
            None => ("it is number, slash and protocol", example()),
        });
    };
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(("the protocol is tcp or udp", example())),
    };
    match number(port) {
        Some(port) => Ok(Port { port, protocol }),
        None if port.contains('-') => Err((
            "ranges are not in this version",
            "write each port: port = [\"8000/tcp\", \"8001/tcp\"]".to_owned(),
        )),
        None => Err(("a port is a number from 1 to 65535", example())),
    }
}

fn read_settings(
    section: &Section<'_>,
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) -> Settings {
    let mode = section.word(
        &service::MODE,
        &[
            ("kernel", Word::Now(Mode::Kernel)),
            ("proxy", Word::Now(Mode::Proxy)),
            ("xdp", Word::Later),
        ],
        problems,
    );
    let balance = section.word(
        &service::BALANCE,
        &[
            ("hash", Word::Now(Balance::Hash)),
            ("roundrobin", Word::Now(Balance::RoundRobin)),
            ("leastconn", Word::Now(Balance::LeastConnections)),
            ("maglev", Word::Later),
        ],
        problems,
    );
    let sources =
        [("vip", Word::Now(SourceAddress::Vip)), ("client", Word::Now(SourceAddress::Client))];
    let source = section.word(&service::SOURCE, &sources, problems);
    let versions = [("v2", Word::Now(SendProxy::V2)), ("v1", Word::Later)];
    let send_proxy = section.word(&service::SEND_PROXY, &versions, problems);
    let least = balance.as_ref().filter(|b| b.value == Balance::LeastConnections);
    let asked = if send_proxy.is_some() || least.is_some() { Mode::Proxy } else { Mode::Kernel };
    // What was written but could not be read says nothing against the other keys.
    let unreadable = |key: &Key, value: bool| section.has(key) && !value;
    let unread = unreadable(&service::MODE, mode.is_some())
        || unreadable(&service::BALANCE, balance.is_some())
        || unreadable(&service::SEND_PROXY, send_proxy.is_some());
    let chosen = mode.as_ref().map_or(asked, |m| m.value);
    let settings = Settings {
        mode: chosen,
        balance: balance.as_ref().map_or(default_balance(chosen), |b| b.value),
        source: source.as_ref().map_or(SourceAddress::Vip, |s| s.value),
        send_proxy: send_proxy.map_or(SendProxy::Off, |s| s.value),
        connections_max: section
            .number(&service::MAX_CONNECTIONS, 1..=PROXY_CONNECTIONS_MAX, problems)
            .map_or(PROXY_CONNECTIONS_DEFAULT, |n| n.value),
        idle_timeout: section
            .duration(&service::IDLE_TIMEOUT, Duration::from_secs(1)..=PROXY_TIMEOUT_MAX, problems)
            .map(|d| d.value),
        connect_timeout: section
            .duration(
                &service::CONNECT_TIMEOUT,
                Duration::from_millis(10)..=PROXY_TIMEOUT_MAX,
                problems,
            )
            .map_or(PROXY_CONNECT_DEFAULT, |d| d.value),
    };
    if !unread {
        refuse_misplaced(section, &settings, ports, problems);
    }
    settings
}

const fn default_balance(mode: Mode) -> Balance {
    match mode {
        Mode::Kernel | Mode::Xdp { .. } => Balance::Hash,
        Mode::Proxy => Balance::RoundRobin,
    }
}

/// Settings of the other engine would be ignored, and nobody would know.
fn refuse_misplaced(
    section: &Section<'_>,
    settings: &Settings,
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) {
    match settings.mode {
        Mode::Kernel => {
            if settings.balance == Balance::LeastConnections {
                refuse_in_kernel(section, &service::BALANCE, "`balance = \"leastconn\"`", problems);
            }
            let proxy_only = [
                &service::SEND_PROXY,
                &service::MAX_CONNECTIONS,
                &service::IDLE_TIMEOUT,
                &service::CONNECT_TIMEOUT,
            ];
            for key in proxy_only {
                refuse_in_kernel(section, key, &format!("`{}`", key.name), problems);
            }
        }
        // No word of the file chooses it yet.
        Mode::Xdp { .. } => {}
        Mode::Proxy => {
            if let (SourceAddress::Client, Some(span)) =
                (settings.source, section.key_span(&service::SOURCE))
            {
                let message = "`source = \"client\"` works in mode \"kernel\" only";
                let reason =
                    "a proxy opens its own connections, so a backend sees the proxy's address";
                let fix = "write mode = \"kernel\", or tell the backend with send_proxy = \"v2\"";
                problems.add(Code::NeedsKernel, &span, message, reason, fix);
            }
        }
    }
    let udp = ports.iter().find(|p| p.value.protocol == Protocol::Udp);
    if let (SendProxy::V2, Some(udp)) = (settings.send_proxy, udp) {
        let message = "`send_proxy` works with TCP only";
        let fix = "make one [[vip.service]] for tcp and one without `send_proxy` for udp";
        problems.add(Code::NeedsTcp, &udp.span, message, "this port is UDP", fix);
    }
}

fn refuse_in_kernel(section: &Section<'_>, key: &Key, what: &str, problems: &mut Problems<'_>) {
    let Some(span) = section.key_span(key) else { return };
    let message = format!("{what} works in mode \"proxy\" only");
    let reason = "in mode \"kernel\" nftables forwards, and it has no such setting";
    problems.add(
        Code::NeedsProxy,
        &span,
        message,
        reason,
        "write mode = \"proxy\", or remove the line",
    );
}

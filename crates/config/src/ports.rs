//! Reads the ports of a service, and says which ranges can stand beside each other and be forwarded.
//!
//! One port stands against a range around it, and a range against all ports: whoever has fewer has them.

use crate::Code;
use crate::forward::{is_local, keeps_port};
use crate::keys::service;
use crate::report::{At, Problems, shown};
use crate::tree::Section;
use buoy_model::limits::MOVED_PORTS_MAX;
use buoy_model::{Backend, Mode, Ports, Protocol, Service};

/// Ports and their protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Port {
    pub(crate) ports: Ports,
    pub(crate) protocol: Protocol,
}

pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<At<Port>> {
    if !section.has(&service::PORT) {
        section.miss(&service::PORT, problems);
    }
    let texts = section.texts(&service::PORT, problems).map(|list| list.value).unwrap_or_default();
    texts
        .iter()
        .filter_map(|text| match parse(text.value) {
            Ok(port) => Some(At::new(port, text.span.clone())),
            Err((reason, fix)) => {
                let message = format!("\"{}\" is not a service port", shown(text.value));
                problems.add(Code::BadPort, &text.span, message, reason, fix);
                None
            }
        })
        .collect()
}

type Fault = (&'static str, String);

fn parse(text: &str) -> Result<Port, Fault> {
    let Some((ports, protocol)) = text.split_once('/') else {
        return Err(match parse_ports(text) {
            Ok(ports) => {
                ("the protocol is missing", format!("write \"{ports}/tcp\" or \"{ports}/udp\""))
            }
            Err(_) => ("it is number, slash and protocol", example()),
        });
    };
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(("the protocol is tcp or udp", example())),
    };
    match parse_ports(ports) {
        Ok(ports) => Ok(Port { ports, protocol }),
        Err((reason, Some(ports))) => {
            Err((reason, format!("write \"{ports}/{}\"", protocol.name())))
        }
        Err((reason, None)) => Err((reason, example())),
    }
}

fn example() -> String {
    "write port and protocol, as in \"443/tcp\", \"53/udp\", \"8000-8099/tcp\" or \"*/tcp\"".into()
}

/// Why it is none, and what was meant.
fn parse_ports(text: &str) -> Result<Ports, (&'static str, Option<String>)> {
    let number = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    if text == "*" {
        return Ok(Ports::ALL);
    }
    let Some((first, last)) = text.split_once(['-', ':']) else {
        return match number(text) {
            // So IPVS and MetalLB call all ports.
            Some(0) => Err(("a port is not 0; all ports are `*`", Some("*".into()))),
            Some(port) => Ok(Ports::one(port)),
            None => Err(("a port is a number from 1 to 65535", None)),
        };
    };
    match (number(first), number(last)) {
        (Some(0), Some(u16::MAX)) => Err(("all ports are `*`", Some("*".into()))),
        (Some(0), Some(_)) => Err(("a port is a number from 1 to 65535", None)),
        (Some(first), Some(last)) => match Ports::new(first, last) {
            Some(ports) if text.contains('-') => Ok(ports),
            Some(ports) => Err(("a range is written with `-`", Some(ports.to_string()))),
            None => Err(("it ends before it begins", Some(format!("{last}-{first}")))),
        },
        (Some(_) | None, None) | (None, Some(_)) => {
            Err(("a range is two numbers from 1 to 65535", None))
        }
    }
}

/// Two services of one VIP and the same port, or with ranges of which none is within the other.
pub(crate) fn refuse_conflict(
    earlier: &[At<Service>],
    service: &At<Service>,
    problems: &mut Problems<'_>,
) {
    let At { value: Service { ports, protocol, .. }, span } = service;
    let (ports, name) = (*ports, protocol.name());
    let of_protocol = || earlier.iter().filter(|e| e.value.protocol == *protocol);
    if let Some(first) = of_protocol().find(|e| e.value.ports == ports) {
        let message = format!("port {ports}/{name} is served twice on this VIP");
        let (again, first) = ((span, "again here"), (&first.span, "first here"));
        let fix = "put all its backends into one [[vip.service]]";
        problems.add_pair(Code::DuplicatePort, again, first, message, fix);
        return;
    }
    for At { value: other, span: first } in of_protocol() {
        let other_ports = other.ports;
        if !ports.overlaps(other_ports) {
            continue;
        }
        let (inner, outer) = match (other_ports.covers(ports), ports.covers(other_ports)) {
            (true, _) => (&service.value, other),
            (false, true) => (other, &service.value),
            (false, false) => {
                let message = format!("{other_ports}/{name} and {ports}/{name} overlap");
                let again = (span, "neither of them is within the other");
                let fix = "write ranges that have no port in common, or one within the other";
                problems.add_pair(Code::RangesOverlap, again, (first, "here"), message, fix);
                return;
            }
        };
        // What is left to the owner is left to nftables and proxies as well.
        if is_xdp(outer.mode) && !is_local(outer.mode) && !is_xdp(inner.mode) {
            let message =
                format!("{}/{name} is within {}/{name} of mode \"xdp\"", inner.ports, outer.ports);
            let again = (span, "the XDP program takes its packets before the other engine");
            let fix = "write both in mode \"xdp\", or leave the port out of the range";
            problems.add_pair(Code::RangeRefused, again, (first, "here"), message, fix);
            return;
        }
    }
}

const fn is_xdp(mode: Mode) -> bool {
    match mode {
        Mode::Xdp { .. } => true,
        Mode::Kernel | Mode::Proxy => false,
    }
}

/// Whether a backend may be written without a port: it gets packets with the port that clients ask.
pub(crate) fn may_keep(mode: Mode, ports: &[At<Port>]) -> bool {
    keeps_port(mode) || (mode != Mode::Proxy && ports.iter().any(|p| !p.value.ports.is_one()))
}

/// Ranges that an engine cannot forward to these backends.
pub(crate) fn refuse_impossible(
    mode: Mode,
    backends: &[At<Backend>],
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) {
    let ranges = ports.iter().filter(|port| !port.value.ports.is_one());
    for range in ranges {
        match mode {
            Mode::Proxy => {
                let message = "mode \"proxy\" does not serve ranges of ports";
                let reason = "a proxy opens each port by itself";
                let fix = "write mode = \"kernel\", or `forward` for mode \"xdp\"";
                problems.add(Code::RangeRefused, &range.span, message, reason, fix);
                return;
            }
            Mode::Kernel | Mode::Xdp { .. } if keeps_port(mode) => {}
            Mode::Kernel | Mode::Xdp { .. } => {
                backends.iter().for_each(|backend| refuse_beyond(backend, range, problems));
            }
        }
        if mode == Mode::Kernel {
            refuse_unmovable(backends, range, problems);
        }
    }
}

/// Where the first port leads, and so the last one.
fn refuse_beyond(backend: &At<Backend>, range: &At<Port>, problems: &mut Problems<'_>) {
    let (address, ports) = (backend.value.address, range.value.ports);
    if address.port() == 0 || ports.at(address.port()).is_some() {
        return;
    }
    let message = format!("the ports of backend {address} run over 65535");
    let said = if ports == Ports::ALL {
        "all ports of the VIP keep their numbers".to_owned()
    } else {
        format!("the first port of {ports} becomes {}, the others follow", address.port())
    };
    let again = (&backend.span, said.as_str());
    let fix = format!("leave the port out, as in \"{}\"", address.ip());
    problems.add_pair(Code::RangeRefused, again, (&range.span, "the range"), message, fix);
}

/// nftables has a list of all ports for those that get other numbers.
fn refuse_unmovable(backends: &[At<Backend>], range: &At<Port>, problems: &mut Problems<'_>) {
    let ports = range.value.ports;
    let base = |backend: &At<Backend>| match backend.value.address.port() {
        0 => ports.first(),
        port => port,
    };
    let differs = |b: &At<Backend>, first: &At<Backend>| {
        b.value.address.is_ipv4() == first.value.address.is_ipv4() && base(b) != base(first)
    };
    let range_mark = (&range.span, "the range");
    if let Some(other) = backends.iter().find(|b| backends.iter().any(|first| differs(b, first))) {
        let message = "backends of one range begin at different ports";
        let again = (&other.span, "in mode \"kernel\" all of them begin at the same one");
        let fix = "write the same port at each, or none; or forward = \"nat\"";
        problems.add_pair(Code::RangeRefused, again, range_mark, message, fix);
        return;
    }
    let moved = backends.iter().find(|backend| base(backend) != ports.first());
    if let Some(moved) = moved.filter(|_| usize::from(ports.distance()) >= MOVED_PORTS_MAX) {
        let count = u32::from(ports.distance()) + 1;
        let message = format!("{count} ports get other numbers: at most {MOVED_PORTS_MAX} can");
        let again = (&moved.span, "in mode \"kernel\" each of them is listed");
        let fix = format!(
            "leave the port out, as in \"{}\", or write forward = \"nat\"",
            moved.value.address.ip()
        );
        problems.add_pair(Code::RangeRefused, again, range_mark, message, fix);
    }
}

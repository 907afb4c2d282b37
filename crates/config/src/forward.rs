//! Reads how packets of a service of mode "xdp" are forwarded, and holds its backends against it: ports and subnets.
//!
//! `dsr` and `tunnel` leave the packet as the client sent it, so a backend listens on the VIP's port;
//! `dsr` changes the Ethernet address only, so a backend is a neighbour.

use crate::Code;
use crate::keys::service;
use crate::ports::Port;
use crate::report::{At, Problems, shown};
use crate::tree::{Section, Word};
use buoy_model::{Backend, Cidr, Forward, GUE_PORT, Mode, Ports};
use core::net::{IpAddr, SocketAddr};

/// The word of `forward`, and of a tunnel what it is made of.
pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<At<Forward>> {
    let words = [
        ("dsr", Word::Now(Forward::Dsr)),
        ("tunnel", Word::Now(Forward::Tunnel)),
        ("nat", Word::Now(Forward::Nat)),
        ("local", Word::Now(Forward::Local)),
    ];
    let forward = section.word(&service::FORWARD, &words, problems);
    let encapsulation = read_encapsulation(section, problems);
    match forward {
        Some(At { value: Forward::Tunnel, span }) => {
            Some(At::new(encapsulation.unwrap_or(Forward::Tunnel), span))
        }
        // What could not be read says nothing against it.
        None if section.has(&service::FORWARD) => None,
        other => {
            refuse_encapsulation(section, problems);
            other
        }
    }
}

fn read_encapsulation(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Forward> {
    let key = &service::ENCAPSULATION;
    // Of another type it is said below.
    let text = section.raw(key).and_then(|value| value.get_ref().as_str());
    let Some(port) = text.and_then(|text| text.strip_prefix("gue:")) else {
        let gue = Word::Now(Forward::Gue { port: GUE_PORT });
        let words = [("ipip", Word::Now(Forward::Tunnel)), ("gue", gue)];
        return section.word(key, &words, problems).map(|word| word.value);
    };
    let number = port.parse::<u16>().ok().filter(|n| *n > 0 && !port.starts_with('+'));
    if number.is_none() {
        let At { value, span } = section.text(key, problems)?;
        let message = format!("\"{}\" does not name a UDP port", shown(value));
        let reason = "a port is a number from 1 to 65535";
        let fix = format!("write \"gue\" for port {GUE_PORT}, or another one as in \"gue:9886\"");
        problems.add(Code::BadGuePort, &span, message, reason, fix);
    }
    number.map(|port| Forward::Gue { port })
}

fn refuse_encapsulation(section: &Section<'_>, problems: &mut Problems<'_>) {
    let Some(span) = section.key_span(&service::ENCAPSULATION) else { return };
    let message = "`encapsulation` works with `forward = \"tunnel\"` only";
    let reason = "only there a packet is put into another one";
    let fix = "write forward = \"tunnel\", or remove the line";
    problems.add(Code::NeedsTunnel, &span, message, reason, fix);
}

/// Whether backends get packets with the port that the client asked for.
pub(crate) const fn keeps_port(mode: Mode) -> bool {
    match mode {
        Mode::Kernel | Mode::Proxy | Mode::Xdp { forward: Forward::Nat, .. } => false,
        Mode::Xdp {
            forward: Forward::Dsr | Forward::Tunnel | Forward::Gue { .. } | Forward::Local,
            ..
        } => true,
    }
}

/// Whether the owner of the VIP takes the packets itself.
pub(crate) const fn is_local(mode: Mode) -> bool {
    matches!(mode, Mode::Xdp { forward: Forward::Local, .. })
}

/// Settings of backends, where there are none.
pub(crate) fn refuse_of_backends(section: &Section<'_>, problems: &mut Problems<'_>) {
    for key in [
        &service::BACKENDS,
        &service::BALANCE,
        &service::PERSIST,
        &service::PERSIST_TIMEOUT,
        &service::PERSIST_IPV4,
        &service::PERSIST_IPV6,
        &service::QUIC,
        &service::QUORUM,
        &service::ON_DOWN,
        &service::EJECT_AFTER,
        &service::EJECT_TIME,
        &service::LOCALITY,
        &service::SOURCE,
        &service::CHECK,
    ] {
        let Some(span) = section.key_span(key) else { continue };
        let message = format!("`{}` does not go with `forward = \"local\"`", key.name);
        let reason = "the owner of the VIP takes the packets itself";
        let fix = "remove the line, or write forward = \"nat\", \"dsr\" or \"tunnel\"";
        problems.add(Code::OfBackends, &span, message, reason, fix);
    }
}

/// What packets could not reach, whatever the network does.
pub(crate) fn refuse_unreachable(
    mode: Mode,
    backends: &[At<Backend>],
    ports: &[At<Port>],
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) {
    for backend in backends.iter().filter(|_| keeps_port(mode)) {
        refuse_other_port(backend, ports, problems);
    }
    match mode {
        Mode::Xdp { forward: Forward::Dsr, .. } => {
            for backend in backends {
                refuse_stranger(backend, vips, problems);
            }
        }
        Mode::Kernel
        | Mode::Proxy
        | Mode::Xdp {
            forward: Forward::Tunnel | Forward::Gue { .. } | Forward::Nat | Forward::Local,
            ..
        } => {}
    }
}

fn refuse_other_port(backend: &At<Backend>, ports: &[At<Port>], problems: &mut Problems<'_>) {
    let address = backend.value.address;
    // Of a range it would be one port of many.
    let is_other = |ports: Ports| !ports.is_one() || address.port() != ports.first();
    let differs = |port: &&At<Port>| address.port() != 0 && is_other(port.value.ports);
    let Some(port) = ports.iter().find(differs) else { return };
    let message = match port.value.ports {
        ports if ports.is_one() => format!("backend {address} does not listen on port {ports}"),
        ports => format!("backend {address} names one port, and the service has {ports}"),
    };
    let again = (&backend.span, "with \"dsr\" and \"tunnel\" a packet keeps its port");
    let fix = format!(
        "leave the port out, as in \"{}\", or write forward = \"nat\", which changes it",
        address.ip()
    );
    problems.add_pair(Code::PortKept, again, (&port.span, "the service's port"), message, fix);
}

/// A VIP with a prefix of its full length says nothing of its segment.
fn refuse_stranger(backend: &At<Backend>, vips: &[At<Cidr>], problems: &mut Problems<'_>) {
    let address = backend.value.address.ip();
    let mut same = vips.iter().filter(|vip| vip.value.address().is_ipv4() == address.is_ipv4());
    let says_nothing = |vip: &At<Cidr>| vip.value.prefix() == longest(address);
    if same.clone().any(|vip| says_nothing(vip) || vip.value.contains(address)) {
        return;
    }
    // Without a VIP of its version it was told already.
    let Some(vip) = same.next() else { return };
    let message = format!("backend {address} is not in the subnet of the VIP {}", vip.value);
    let again = (&backend.span, "with \"dsr\" only neighbours on the VIP's segment get packets");
    let fix = "write forward = \"tunnel\", which reaches every subnet, or move the backend";
    problems.add_pair(Code::NotOnSegment, again, (&vip.span, "the VIP"), message, fix);
}

const fn longest(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The backends as a service that begins with this port has them: who keeps the port need not name it.
pub(crate) fn at_port(backends: &[Backend], port: u16) -> Vec<Backend> {
    let at_port = |backend: &Backend| {
        let address = match backend.address.port() {
            0 => SocketAddr::new(backend.address.ip(), port),
            _ => backend.address,
        };
        Backend { address, ..backend.clone() }
    };
    backends.iter().map(at_port).collect()
}

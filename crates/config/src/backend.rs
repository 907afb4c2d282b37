//! Reads backends: `[name] address:port [weight=N] [max=N] [id=HEX] [zone=NAME] [node=NAME] [backup]`, one text each, or where to look for them.

use crate::cluster::check_name;
use crate::keys::service;
use crate::report::{At, Problems, listed, shown};
use crate::tree::{self, Section};
use crate::value::{self, Unfit};
use crate::{Code, discovery, forward, locality, vip};
use buoy_model::limits::{
    BACKEND_WEIGHT_MAX, PROXY_CONNECTIONS_MAX, SERVICE_BACKENDS_MAX, SERVICE_DISCOVERIES_MAX,
};
use buoy_model::{Backend, Cidr, Discovery, Mode, SERVER_ID_MAX, ServerId};
use core::net::{IpAddr, SocketAddr};

const FORM: &str = "write \"[name] address:port [weight=N] [max=N] [id=HEX] [zone=NAME] [node=NAME] [backup]\", as in \"web1 10.0.0.21:8443 weight=2\"";

/// `may_keep`: a backend may be written without a port.
pub(crate) fn read(
    section: &Section<'_>,
    (mode, may_keep): (Mode, bool),
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) -> (Vec<At<Backend>>, Vec<At<Discovery>>) {
    let mut entries: Vec<At<Discovery>> = Vec::new();
    if !section.has(&service::BACKENDS) {
        section.miss(&service::BACKENDS, problems);
    }
    let Some(texts) = section.texts(&service::BACKENDS, problems) else {
        return (Vec::new(), entries);
    };
    let fix = "make a second service on another VIP, or put a proxy tier between";
    vip::refuse_too_many("backends", &texts.value, SERVICE_BACKENDS_MAX, fix, problems);
    let mut backends: Vec<At<Backend>> = Vec::new();
    let before = problems.count();
    for text in texts.value.iter().take(SERVICE_BACKENDS_MAX) {
        let is_found = entries.iter().any(|entry| entry.span == text.span);
        if is_found && discovery::is_one(text.value) {
            let message =
                format!("\"{}\" was found, which says where to look again", shown(text.value));
            let reason = "what is found are servers";
            problems.add(Code::BadDiscovery, &text.span, message, reason, "write the entry here");
            continue;
        }
        if discovery::is_one(text.value) {
            let entry = read_entry(text, (mode, may_keep), &entries, problems);
            entries.extend(entry.map(|entry| At::new(entry, text.span.clone())));
            continue;
        }
        let Some(backend) = read_one(text, may_keep, problems) else { continue };
        let can_be_used =
            |ip: IpAddr| vips.iter().any(|v| v.value.address().is_ipv4() == ip.is_ipv4());
        // A name may have addresses of both IP versions where one is of use.
        if is_found && mode != Mode::Proxy && !can_be_used(backend.value.address.ip()) {
            continue;
        }
        refuse_unusable(&backend, mode, vips, problems);
        refuse_same(&backends, &backend, mode, problems);
        backends.push(backend);
    }
    let clean = problems.count() == before;
    let is_complete = entries.is_empty();
    if mode != Mode::Proxy && clean && is_complete {
        refuse_mixed_families(&backends, mode, vips, &texts.span, problems);
    }
    if clean && is_complete && !backends.is_empty() && backends.iter().all(|b| b.value.weight == 0)
    {
        let message = "every backend has weight 0";
        let reason = "weight 0 takes no new connections";
        problems.add(
            Code::NoTraffic,
            &texts.span,
            message,
            reason,
            "give at least one backend a weight",
        );
    }
    vip::refuse_too_many(
        "entries that say where to look",
        &entries,
        SERVICE_DISCOVERIES_MAX,
        fix,
        problems,
    );
    (backends, entries)
}

/// An entry that says where to look: its settings are read for an address that stands for all.
fn read_entry(
    text: &At<&str>,
    (mode, may_keep): (Mode, bool),
    earlier: &[At<Discovery>],
    problems: &mut Problems<'_>,
) -> Option<Discovery> {
    let entry = discovery::read(text, may_keep, problems)?;
    let address = SocketAddr::from(([192, 0, 2, 1], 1));
    let mut backend = Backend::new(&entry.text, address);
    for word in text.value.split_whitespace().skip(1) {
        read_option(text, word, &mut backend, problems);
    }
    if backend.server_id.is_some() {
        let message = "all servers that are found would have one id";
        let reason = "an id is what connection ids call one server";
        let fix = "remove id=HEX; where a file lists the servers, write it there";
        problems.add(Code::BadServerId, &text.span, message, reason, fix);
    }
    refuse_unusable(&At::new(backend, text.span.clone()), mode, &[], problems);
    if let Some(first) = earlier.iter().find(|e| e.value.place == entry.place) {
        let message = format!("\"{}\" is listed twice", shown(&entry.text));
        let (again, first) = ((&text.span, "again here"), (&first.span, "first here"));
        problems.add_pair(Code::DuplicateBackend, again, first, message, "remove one");
    }
    Some(entry)
}

fn read_one(text: &At<&str>, may_keep: bool, problems: &mut Problems<'_>) -> Option<At<Backend>> {
    let mut words = text.value.split_whitespace().peekable();
    let first = words.next();
    // A name cannot be taken for an address, nor an address for a name, except by mistake.
    let is_address = |word: &str| value::host_port(word).is_ok() || word.contains(['[', ']']);
    let name = match (first, words.peek()) {
        (Some(first), Some(second))
            if !is_address(first) && !second.contains('=') && *second != "backup" =>
        {
            Some(first)
        }
        (Some(_) | None, _) => None,
    };
    let place = if name.is_some() { words.next() } else { first };
    let address = read_address(text, place.unwrap_or_default(), may_keep, problems);
    let mut backend = Backend::new("", address?);
    backend.name = match name {
        Some(name) => {
            let at = At::new(name, tree::inside(text, name, problems));
            if !check_name("backends", &at, problems) {
                return None;
            }
            name.to_owned()
        }
        None => written(backend.address),
    };
    for word in words {
        read_option(text, word, &mut backend, problems);
    }
    Some(At::new(backend, text.span.clone()))
}

/// As the file has it: port 0 stands for that of the service.
fn written(address: SocketAddr) -> String {
    match address.port() {
        0 => address.ip().to_string(),
        _ => address.to_string(),
    }
}

fn read_address(
    text: &At<&str>,
    word: &str,
    may_keep: bool,
    problems: &mut Problems<'_>,
) -> Option<SocketAddr> {
    let (reason, fix) = match value::host_port(word) {
        Ok((address, Some(port))) => return Some(SocketAddr::new(address, port)),
        Ok((address, None)) if may_keep => return Some(SocketAddr::new(address, 0)),
        Ok((IpAddr::V4(address), None)) => {
            ("the port is missing", format!("write \"{address}:PORT\""))
        }
        Ok((IpAddr::V6(address), None)) => {
            ("the port is missing", format!("write \"[{address}]:PORT\""))
        }
        Err(reason) => (reason, FORM.to_owned()),
    };
    let message = format!("\"{}\" is not a backend", shown(text.value));
    let span = tree::inside(text, word, problems);
    problems.add(Code::BadBackend, &span, message, reason, fix);
    None
}

fn read_option(text: &At<&str>, word: &str, backend: &mut Backend, problems: &mut Problems<'_>) {
    if word == "backup" {
        backend.backup = true;
        return;
    }
    if locality::read_option(text, word, backend, problems) {
        return;
    }
    if let Some(number) = word.strip_prefix("max=") {
        match number.parse().ok().filter(|n| (1..=PROXY_CONNECTIONS_MAX).contains(n)) {
            Some(number) => backend.connections_max = Some(number),
            None => {
                let message = format!("\"{}\" is not a maximum of connections", shown(word));
                let reason = format!("it is a number from 1 to {PROXY_CONNECTIONS_MAX}");
                let fix = "write max=N; without it the backend gets any number";
                let span = tree::inside(text, word, problems);
                problems.add(Code::OutOfRange, &span, message, reason, fix);
            }
        }
        return;
    }
    if let Some(id) = word.strip_prefix("id=") {
        return read_id(text, id, backend, problems);
    }
    let weight = word.strip_prefix("weight=");
    let number = weight.and_then(|w| w.parse().ok()).filter(|w| *w <= BACKEND_WEIGHT_MAX);
    if let Some(number) = number {
        backend.weight = number;
        return;
    }
    let span = tree::inside(text, word, problems);
    if weight.is_some() {
        let message = format!("\"{}\" is not a weight", shown(word));
        let reason = format!("a weight is a number from 0 to {BACKEND_WEIGHT_MAX}");
        problems.add(
            Code::OutOfRange,
            &span,
            message,
            reason,
            "write weight=N; without it the weight is 1",
        );
        return;
    }
    let key = word.split('=').next().unwrap_or(word);
    let fix = match value::nearest(key, ["weight", "backup", "max", "id", "zone", "node"]) {
        _ if key == "maxconn" => "did you mean max=N?".to_owned(),
        Some(near @ ("weight" | "max")) => format!("did you mean {near}=N?"),
        Some("id") => "did you mean id=HEX?".to_owned(),
        None if key == "server_id" => "did you mean id=HEX?".to_owned(),
        Some(near @ ("zone" | "node")) => format!("did you mean {near}=NAME?"),
        Some(near) => format!("did you mean {near}?"),
        None => FORM.to_owned(),
    };
    let message = format!("a backend has no setting \"{}\"", shown(word));
    problems.add(
        Code::BadBackend,
        &span,
        message,
        "the settings are weight=N, max=N, id=HEX, zone=NAME, node=NAME and backup",
        fix,
    );
}

/// What connection ids of QUIC call it.
fn read_id(text: &At<&str>, id: &str, backend: &mut Backend, problems: &mut Problems<'_>) {
    backend.server_id = ServerId::parse(id);
    if backend.server_id.is_some() {
        return;
    }
    let message = format!("\"{}\" is not what connection ids call a server", shown(id));
    let reason = format!("it is 1 to {SERVER_ID_MAX} bytes, two hexadecimal digits for each");
    let span = tree::inside(text, id, problems);
    problems.add(Code::BadServerId, &span, message, reason, "write it as in id=0a01");
}

fn refuse_unusable(
    backend: &At<Backend>,
    mode: Mode,
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) {
    let address = backend.value.address.ip();
    if mode != Mode::Proxy && backend.value.connections_max.is_some() {
        let message = "a backend's `max` works in mode \"proxy\" only";
        let reason = "nobody else knows how many connections a backend has";
        let fix = "write mode = \"proxy\", or remove max=N";
        problems.add(Code::NeedsProxy, &backend.span, message, reason, fix);
    }
    match value::unfit(address) {
        None => {}
        Some(Unfit::Loopback) if mode == Mode::Proxy => {}
        Some(Unfit::Loopback) => {
            let message = format!("{address} works in mode \"proxy\" only");
            let reason = "what came from outside is not forwarded to a loopback address";
            let fix = "write mode = \"proxy\", or the host's own address";
            problems.add(Code::NeedsProxy, &backend.span, message, reason, fix);
        }
        Some(unfit) => {
            let message = format!("{address} cannot be a backend");
            problems.add(
                Code::BadBackend,
                &backend.span,
                message,
                unfit.reason(),
                "write the address of one server",
            );
        }
    }
    if let Some(vip) = vips.iter().find(|vip| vip.value.address() == address) {
        let message = format!("backend {address} is the VIP itself");
        let (again, first) =
            ((&backend.span, "its connections would come back here"), (&vip.span, "the VIP"));
        problems.add_pair(
            Code::BackendIsVip,
            again,
            first,
            message,
            "write the server's own address",
        );
    }
}

fn refuse_same(
    earlier: &[At<Backend>],
    backend: &At<Backend>,
    mode: Mode,
    problems: &mut Problems<'_>,
) {
    let is_same = |other: &Backend| {
        let (one, other) = (backend.value.address, other.address);
        // With or without a port, it is the service's where ports are kept.
        let keeps = forward::keeps_port(mode) || one.port() == 0 || other.port() == 0;
        one == other || (keeps && one.ip() == other.ip())
    };
    let id = backend.value.server_id;
    if let (Some(id), Some(first)) = (id, earlier.iter().find(|e| e.value.server_id == id)) {
        let message = format!("two backends have the id {id}");
        let (again, first) = ((&backend.span, "again here"), (&first.span, "first here"));
        problems.add_pair(Code::BadServerId, again, first, message, "give each its own");
    }
    let same = earlier.iter().find(|e| is_same(&e.value) || e.value.name == backend.value.name);
    let Some(first) = same else { return };
    let (message, fix) = if is_same(&first.value) {
        (
            format!("backend {} is listed twice", written(backend.value.address)),
            "remove one; use weight=N for a larger share",
        )
    } else {
        (format!("two backends are called \"{}\"", backend.value.name), "rename one of them")
    };
    let (again, first) = ((&backend.span, "again here"), (&first.span, "first here"));
    problems.add_pair(Code::DuplicateBackend, again, first, message, fix);
}

/// The kernel rewrites addresses but does not translate between IPv4 and IPv6; nor does XDP.
fn refuse_mixed_families(
    backends: &[At<Backend>],
    mode: Mode,
    vips: &[At<Cidr>],
    span: &crate::report::Span,
    problems: &mut Problems<'_>,
) {
    if vips.is_empty() || backends.is_empty() {
        return;
    }
    let (mode, fix) = match mode {
        Mode::Kernel | Mode::Proxy => {
            ("kernel", "write mode = \"proxy\", or give each address backends of its own version")
        }
        Mode::Xdp { .. } => ("xdp", "give each address backends of its own version"),
    };
    let lonely: Vec<IpAddr> = vips
        .iter()
        .map(|vip| vip.value.address())
        .filter(|vip| !backends.iter().any(|b| b.value.address.is_ipv4() == vip.is_ipv4()))
        .collect();
    if let Some(vip) = lonely.first() {
        let message = format!("no backend is {} like the VIP {}", version(*vip), listed(&lonely));
        let reason = format!("in mode \"{mode}\" a VIP and its backends have the same IP version");
        problems.add(Code::FamilyMismatch, span, message, reason, fix);
    }
    for backend in backends {
        let address = backend.value.address.ip();
        if !vips.iter().any(|vip| vip.value.address().is_ipv4() == address.is_ipv4())
            && lonely.is_empty()
        {
            let message = format!("backend {address} is {}, but the VIP is not", version(address));
            let reason = format!("in mode \"{mode}\" it would never get a connection");
            problems.add(Code::FamilyMismatch, &backend.span, message, reason, fix);
        }
    }
}

const fn version(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}

//! Reads checks of the node itself: what must be so on this host for it to own a VIP.

use crate::check::{self, http, local, refuse};
use crate::files::{self, ReadFile};
use crate::host::{self, Host};
use crate::keys::{Key, node_check as keys, vip as vip_keys};
use crate::report::{At, Problems, Span, listed, shown};
use crate::tree::{self, Section};
use crate::value::{self, Unfit};
use crate::{Code, cluster, vip};
use buoy_model::{CheckKind, Cidr, LinkId, NodeCheck, NodeCheckKind};
use core::net::{IpAddr, SocketAddr};
use toml::de::{DeTable, DeValue};

/// One check and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) check: NodeCheck,
    /// What it asks.
    pub(crate) span: Span,
    /// The file that an HTTPS server is verified with.
    authority: Option<At<String>>,
}

/// From the lowest priority of VRRP to the highest.
const WEIGHT_MAX: i16 = 253;

/// The key that says what is asked; one of them must be there.
const QUESTIONS: [&Key; 8] = [
    &keys::PROCESS,
    &keys::TCP,
    &keys::HTTP,
    &keys::EXEC,
    &keys::FILE,
    &keys::NO_FILE,
    &keys::LINK,
    &keys::GATEWAY,
];

/// `check` of a `[[vip]]` or `[[pool]]`: a table, or a list of them.
pub(crate) fn read(
    section: &Section<'_>,
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) -> Vec<Asked> {
    let Some(value) = section.raw(&vip_keys::CHECK) else { return Vec::new() };
    let mut tables: Vec<(&DeTable<'_>, Span)> = Vec::new();
    match value.get_ref() {
        DeValue::Table(table) => tables.push((table, tree::header(value.span(), problems))),
        DeValue::Array(list) => {
            for item in list.iter() {
                match item.get_ref().as_table() {
                    Some(table) => tables.push((table, tree::header(item.span(), problems))),
                    None => tree::wrong_type(&vip_keys::CHECK, item, problems),
                }
            }
            if list.is_empty() {
                let fix =
                    format!("write `check = {}`, or remove the line", vip_keys::CHECK.example);
                let reason = "a VIP without `check` has none";
                problems.add(
                    Code::EmptyList,
                    &value.span(),
                    "`check` is an empty list",
                    reason,
                    fix,
                );
            }
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => tree::wrong_type(&vip_keys::CHECK, value, problems),
    }
    let one = |(table, span): (&DeTable<'_>, Span)| {
        read_one(&Section::new(&keys::SCHEMA, table, span, problems), vips, problems)
    };
    tables.into_iter().filter_map(one).collect()
}

fn read_one(
    section: &Section<'_>,
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) -> Option<Asked> {
    let pace = check::read_pace(section, problems);
    let weight = read_weight(section, problems);
    let name = section.text(&keys::NAME, problems);
    let name = name.filter(|n| cluster::check_name("name", n, problems));
    if !section.has(&keys::HTTP) {
        check::refuse_options(section, &[], "http", keys::HTTP.example, problems);
    }
    let asked: Vec<&Key> = QUESTIONS.into_iter().filter(|key| section.has(key)).collect();
    let key = match asked.as_slice() {
        [one] => *one,
        [] => {
            if !section.has_unknown(&QUESTIONS) {
                let reason =
                    format!("it asks by one of {}", listed(QUESTIONS.iter().map(|key| key.name)));
                let fix = format!("add one of them, as in check = {}", vip_keys::CHECK.example);
                refuse(section.span(), "this check asks nothing", &reason, &fix, problems);
            }
            return None;
        }
        [first, second, ..] => {
            let span = section.key_span(second).unwrap_or_default();
            let reason = format!("it has `{}` already", first.name);
            let fix = format!(
                "make a check of each: check = [{{ {} = ... }}, {{ {} = ... }}]",
                first.name, second.name
            );
            refuse(&span, "a check asks one thing, and this asks two", &reason, &fix, problems);
            return None;
        }
    };
    let span = section.raw(key)?.span();
    let mut authority = None;
    let kind = read_question(section, key, vips, &mut authority, problems)?;
    let name = name.map_or_else(|| derived_name(&kind), |n| n.value.to_owned());
    let check = NodeCheck { name, kind, pace, weight };
    Some(Asked { check, span, authority })
}

/// What it adds to the priority of VRRP, or takes away.
fn read_weight(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<i16> {
    let value = section.raw(&keys::WEIGHT)?;
    let DeValue::Integer(integer) = value.get_ref() else {
        tree::wrong_type(&keys::WEIGHT, value, problems);
        return None;
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
    let weight = number.and_then(|n| i16::try_from(n).ok());
    let weight = weight.filter(|n| (-WEIGHT_MAX..=WEIGHT_MAX).contains(n) && *n != 0);
    if weight.is_none() {
        let message = "`weight` is out of range";
        let reason = "priorities are 1 to 254, so it may be -253 to 253, and 0 weighs nothing";
        let fix = "write a number such as -20, or remove the line: then the check decides alone";
        problems.add(Code::OutOfRange, &value.span(), message, reason, fix);
    }
    weight
}

/// What people call a check that has no name: what it asks.
fn derived_name(kind: &NodeCheckKind) -> String {
    match kind {
        NodeCheckKind::Process { name } => format!("process {name}"),
        NodeCheckKind::Server { address, kind: CheckKind::Http(http) } => {
            format!("http {address}{}", http.path)
        }
        NodeCheckKind::Server { address, kind } => format!("{} {address}", kind.name()),
        NodeCheckKind::Exec { program, arguments } => {
            let all: Vec<&str> =
                core::iter::once(program).chain(arguments).map(String::as_str).collect();
            format!("exec {}", all.join(" "))
        }
        NodeCheckKind::File { path, present: true } => format!("file {path}"),
        NodeCheckKind::File { path, present: false } => format!("no_file {path}"),
        NodeCheckKind::Link { name } => format!("link {name}"),
        NodeCheckKind::Gateway { address, .. } => format!("gateway {address}"),
    }
}

fn read_question(
    section: &Section<'_>,
    key: &Key,
    vips: &[At<Cidr>],
    authority: &mut Option<At<String>>,
    problems: &mut Problems<'_>,
) -> Option<NodeCheckKind> {
    if key.name == keys::EXEC.name {
        let (program, arguments) = local::read_program(section, &keys::EXEC, problems)?;
        return Some(NodeCheckKind::Exec { program, arguments });
    }
    let text = section.text(key, problems)?;
    match key.name {
        "process" => {
            local::read_process(&text, problems).map(|name| NodeCheckKind::Process { name })
        }
        "tcp" => {
            let address = read_server(&text, text.value, None, vips, problems)?;
            Some(NodeCheckKind::Server { address, kind: CheckKind::Tcp })
        }
        "http" => read_http(section, &text, vips, authority, problems),
        "link" => vip::check_interface(&text, problems)
            .then(|| NodeCheckKind::Link { name: text.value.to_owned() }),
        "gateway" => read_gateway(&text, vips, problems),
        name => local::read_path(&text, problems)
            .map(|path| NodeCheckKind::File { path, present: name == keys::FILE.name }),
    }
}

/// `ADDRESS:PORT`, or without the port where there is a usual one.
fn read_server(
    text: &At<&str>,
    place: &str,
    usual_port: Option<u16>,
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) -> Option<SocketAddr> {
    let message = format!("\"{}\" is no server to ask", shown(place));
    let (reason, fix) = match value::host_port(place) {
        Ok((address, port)) => match (unusable(address, vips), port.or(usual_port)) {
            (None, Some(port)) => return Some(SocketAddr::new(address, port)),
            (Some((reason, fix)), _) => (reason, fix.to_owned()),
            (None, None) => {
                ("the port is missing", format!("write \"{}\"", SocketAddr::new(address, 5432)))
            }
        },
        Err(reason) => {
            let local =
                place.strip_prefix("localhost").map(|rest| format!("write \"127.0.0.1{rest}\""));
            (
                reason,
                local.unwrap_or_else(|| {
                    "write address and port, as in \"127.0.0.1:5432\"".to_owned()
                }),
            )
        }
    };
    refuse(&text.span, &message, reason, &fix, problems);
    None
}

/// Why an address cannot be asked, and what to do.
fn unusable(address: IpAddr, vips: &[At<Cidr>]) -> Option<(&'static str, &'static str)> {
    if vips.iter().any(|vip| vip.value.address() == address) {
        let reason = "the VIP is answered by its owner, whichever host asks";
        return Some((reason, "ask this host: 127.0.0.1, or an address of its own on every host"));
    }
    match value::unfit(address) {
        None | Some(Unfit::Loopback) => None,
        Some(unfit) => Some((unfit.reason(), "write the address of one server")),
    }
}

/// `GET http://ADDRESS:PORT/PATH`.
fn read_http(
    section: &Section<'_>,
    text: &At<&str>,
    vips: &[At<Cidr>],
    authority: &mut Option<At<String>>,
    problems: &mut Problems<'_>,
) -> Option<NodeCheckKind> {
    let tls = section.flag(&keys::TLS, problems);
    let parts = split_url(text.value);
    let secure = parts.as_ref().is_ok_and(|(_, secure, _, _)| *secure);
    if let Some(off) = tls.as_ref().filter(|t| secure && !t.value) {
        let fix = "remove it, or write http://";
        refuse(
            &off.span,
            "`tls = false` with https://",
            "they contradict each other",
            fix,
            problems,
        );
    }
    let tls = secure || tls.is_some_and(|t| t.value);
    let options = http::read_options(section, tls, problems);
    let (method, _, place, path) = match parts {
        Ok(parts) => parts,
        Err((reason, fix)) => {
            let message = format!("\"{}\" is not a request", shown(text.value));
            refuse(&text.span, &message, reason, &fix, problems);
            return None;
        }
    };
    let address = read_server(text, place, Some(if tls { 443 } else { 80 }), vips, problems)?;
    authority.clone_from(&options.authority);
    let kind = options.asked(method, path, &text.span, problems)?;
    Some(NodeCheckKind::Server { address, kind })
}

/// The method, whether it is https, the server, and the path.
type Parts<'t> = (&'static str, bool, &'t str, &'t str);

fn split_url(text: &str) -> Result<Parts<'_>, (&'static str, String)> {
    const EXAMPLE: &str = "write http = \"GET http://127.0.0.1:8008/primary\"";
    let (method, url) = match text.split_once(' ') {
        Some((method, url)) => match http::known_method(method) {
            Some(method) => (method, url),
            None => {
                let reason = "the methods are GET, HEAD, OPTIONS and POST";
                return Err((reason, EXAMPLE.to_owned()));
            }
        },
        None if text.starts_with("http") => {
            return Err(("the method is missing", format!("write http = \"GET {}\"", shown(text))));
        }
        None => return Err(("it is method and address", EXAMPLE.to_owned())),
    };
    let (secure, rest) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) if url.starts_with('/') => {
            let fix = format!("write http = \"GET http://127.0.0.1:8008{}\"", shown(url));
            return Err(("it does not say which server", fix));
        }
        (None, None) => {
            return Err(("the address begins with http:// or https://", EXAMPLE.to_owned()));
        }
    };
    let (place, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    match value::path_fault(path) {
        None => Ok((method, secure, place, path)),
        Some(reason) => Err((reason, "write them as %20 and so on".to_owned())),
    }
}

fn read_gateway(
    text: &At<&str>,
    vips: &[At<Cidr>],
    problems: &mut Problems<'_>,
) -> Option<NodeCheckKind> {
    let message = format!("\"{}\" cannot be a gateway", shown(text.value));
    let fix = "write the address of the router, as in gateway = \"10.0.0.1\"";
    let Ok(address) = text.value.parse::<IpAddr>() else {
        let reason = match value::host_port(text.value) {
            Ok(_) => "a router is asked by ARP or NDP, without port",
            Err(reason) => reason,
        };
        refuse(&text.span, &message, reason, fix, problems);
        return None;
    };
    let reason = match value::unfit(address) {
        // Routers of IPv6 go by their link-local address.
        Some(Unfit::LinkLocal) | None => unusable(address, vips)
            .filter(|(reason, _)| *reason != Unfit::LinkLocal.reason())
            .map(|(reason, _)| reason),
        Some(unfit) => Some(unfit.reason()),
    };
    if let Some(reason) = reason {
        refuse(&text.span, &message, reason, fix, problems);
        return None;
    }
    Some(NodeCheckKind::Gateway { address, link: None })
}

/// The checks of a group as this host asks them; what it lacks for them is reported.
pub(crate) fn place(
    checks: &[Asked],
    vip_link: Option<LinkId>,
    config: &str,
    host: &Host,
    read_file: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Vec<NodeCheck> {
    let place_one = |asked: &Asked| {
        let mut check = asked.check.clone();
        match &mut check.kind {
            NodeCheckKind::Exec { program, .. } => {
                files::check_program(program, &asked.span, read_file, problems);
            }
            NodeCheckKind::Link { name } => warn_of_absence(name, &asked.span, host, problems),
            NodeCheckKind::Gateway { address, link } => {
                let own = host::best_link(*address, host).map(|(link, _)| link.id);
                // A link-local address is on the VIP's segment: it can be on no other.
                *link = if value::unfit(*address).is_some() { vip_link } else { own };
                if link.is_none() {
                    let message = format!("no subnet of this host contains the gateway {address}");
                    let fix =
                        "give an interface an address in its subnet, or name a router that has one";
                    problems.add_once(Code::NotHere, &asked.span, message, host.described(), fix);
                }
            }
            NodeCheckKind::Process { .. }
            | NodeCheckKind::Server { .. }
            | NodeCheckKind::File { .. } => {}
        }
        if let Some(authority) = &asked.authority {
            let path = At::new(authority.value.as_str(), authority.span.clone());
            files::check_authority(config, &path, read_file, problems);
        }
        check
    };
    checks.iter().map(place_one).collect()
}

fn warn_of_absence(name: &str, span: &Span, host: &Host, problems: &mut Problems<'_>) {
    if host.links.iter().any(|link| link.name == name) {
        return;
    }
    let names = || host.links.iter().map(|l| l.name.as_str());
    let message = format!("this host has no interface {name} now: the check fails");
    let reason = format!("its interfaces are {}", listed(names()));
    let fix = match value::nearest(name, names()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => "create it, or name another one".to_owned(),
    };
    problems.add_once(Code::NotHere, span, message, reason, fix);
}

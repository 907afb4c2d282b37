//! Reads entries of `backends` that say where to look for them, and puts what was found there into the tree.
//!
//! Whoever looks (the agent) gives the texts that were found back to `check_found`, and they are read after
//! the entry as if they were written there: so they are held against everything that is asked of backends, and what
//! is wrong with one is shown at the entry.

use crate::Code;
use crate::keys::{pool, service, top, vip};
use crate::ports::Port;
use crate::report::{At, Problems, shown};
use crate::{forward, tree};
use buoy_model::limits::RESOLVERS_MAX;
use buoy_model::{Discovery, DiscoveryPlace, Mode};
use core::net::SocketAddr;
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// What was found for each entry, as texts that could stand in `backends`.
pub type Found = BTreeMap<String, Vec<String>>;

/// Port of name servers (RFC 1035 section 4.2).
const DOMAIN: u16 = 53;
const FORM: &str = "write \"dns:NAME:PORT\", \"srv:_SERVICE._tcp.NAME\" or \"file:PATH\", and what holds for each \
                    backend after it, as in \"dns:web.example.org:8443 weight=2\"";

/// Puts what was found behind each entry of the same text.
pub(crate) fn put_in(top: &mut DeTable<'_>, found: &Found) {
    if found.is_empty() {
        return;
    }
    for (key, services) in
        [(top::VIP.name, vip::SERVICE.name), (top::POOL.name, pool::SERVICE.name)]
    {
        for owner in tables(top, key) {
            for service in tables(owner, services) {
                if let Some(backends) = service.get_mut(service::BACKENDS.name) {
                    put_behind(backends, found);
                }
            }
        }
    }
}

/// The tables of a list of tables, or the one that stands for such a list.
fn tables<'t, 'i>(table: &'t mut DeTable<'i>, key: &str) -> Vec<&'t mut DeTable<'i>> {
    match table.get_mut(key).map(Spanned::get_mut) {
        Some(DeValue::Array(list)) => {
            let table = |item: &'t mut Spanned<DeValue<'i>>| {
                if let DeValue::Table(table) = item.get_mut() { Some(table) } else { None }
            };
            list.iter_mut().filter_map(table).collect()
        }
        Some(DeValue::Table(table)) => vec![table],
        Some(_) | None => Vec::new(),
    }
}

fn put_behind(backends: &mut Spanned<DeValue<'_>>, found: &Found) {
    let whole = backends.span();
    let written: Vec<Spanned<DeValue<'_>>> = match backends.get_mut() {
        DeValue::Array(list) => std::mem::replace(list, DeArray::new()).into_iter().collect(),
        DeValue::String(text) => vec![Spanned::new(whole, DeValue::String(std::mem::take(text)))],
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => return,
    };
    let mut all = DeArray::new();
    for item in written {
        let span = item.span();
        let texts = item.get_ref().as_str().and_then(|text| found.get(text.trim()));
        let texts: Vec<String> = texts.cloned().unwrap_or_default();
        all.push(item);
        for text in texts {
            all.push(Spanned::new(span.clone(), DeValue::String(text.into())));
        }
    }
    *backends.get_mut() = DeValue::Array(all);
}

/// Whether an entry says where to look.
pub(crate) fn is_one(text: &str) -> bool {
    ["dns:", "srv:", "file:"].iter().any(|kind| text.trim_start().starts_with(kind))
}

/// One entry, without the settings of its backends.
pub(crate) fn read(
    text: &At<&str>,
    may_keep: bool,
    problems: &mut Problems<'_>,
) -> Option<Discovery> {
    let whole = text.value.trim();
    let first = whole.split_whitespace().next().unwrap_or_default();
    let settings = whole[first.len()..].to_owned();
    let (kind, place) = first.split_once(':').unwrap_or((first, ""));
    let read = match kind {
        "file" if place.is_empty() => Err("the path is missing"),
        "file" => Ok(DiscoveryPlace::File { path: place.to_owned() }),
        "srv" => read_name(place).map(|name| DiscoveryPlace::Servers { name }),
        _ => read_host(place, may_keep),
    };
    match read {
        Ok(place) => {
            Some(Discovery { text: whole.to_owned(), place, settings, resolvers: Vec::new() })
        }
        Err(reason) => {
            let message = format!("\"{}\" does not say where to look", shown(first));
            let span = tree::inside(text, first, problems);
            problems.add(Code::BadDiscovery, &span, message, reason, FORM);
            None
        }
    }
}

fn read_host(place: &str, may_keep: bool) -> Result<DiscoveryPlace, &'static str> {
    let (name, port) = match place.rsplit_once(':') {
        Some((name, port)) => {
            let number = port.parse::<u16>().ok().filter(|port| *port != 0);
            (name, Some(number.ok_or("a port is a number from 1 to 65535")?))
        }
        None if may_keep => (place, None),
        None => return Err("the port is missing"),
    };
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err("an address needs no looking for: write it without \"dns:\"");
    }
    Ok(DiscoveryPlace::Name { name: read_name(name)?, port })
}

/// A fully qualified name: nothing is put behind it, so that it means the same on every host.
fn read_name(name: &str) -> Result<String, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(sound);
    if name.len() <= 253 && name.split('.').all(is_label) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err("a name has parts of 1 to 63 letters, digits, `-` and `_`, 253 in all")
    }
}

/// Where packets keep their port, a name cannot have another one.
pub(crate) fn refuse_other_port(
    mode: Mode,
    entries: &[At<Discovery>],
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) {
    for entry in entries.iter().filter(|_| forward::keeps_port(mode)) {
        let DiscoveryPlace::Name { name, port: Some(port) } = &entry.value.place else { continue };
        let differs = |p: &&At<Port>| !p.value.ports.is_one() || p.value.ports.first() != *port;
        let Some(other) = ports.iter().find(differs) else { continue };
        let message = format!(
            "{name} is looked for with port {port}, and the service has {}",
            other.value.ports
        );
        let again = (&entry.span, "with \"dsr\" and \"tunnel\" a packet keeps its port");
        let fix = format!("leave the port out, as in \"dns:{name}\", or write forward = \"nat\"");
        problems.add_pair(Code::PortKept, again, (&other.span, "the service's port"), message, fix);
    }
}

/// `resolvers` at the top of the file.
pub(crate) fn read_resolvers(
    section: &tree::Section<'_>,
    problems: &mut Problems<'_>,
) -> Vec<SocketAddr> {
    let Some(texts) = section.texts(&top::RESOLVERS, problems) else { return Vec::new() };
    let fix = "name the nearest ones; each is asked when the one before does not answer";
    crate::vip::refuse_too_many("name servers", &texts.value, RESOLVERS_MAX, fix, problems);
    let mut all = Vec::new();
    for text in texts.value.iter().take(RESOLVERS_MAX) {
        match crate::value::host_port(text.value) {
            Ok((address, port)) => all.push(SocketAddr::new(address, port.unwrap_or(DOMAIN))),
            Err(reason) => {
                let message = format!("\"{}\" is not a name server", shown(text.value));
                let fix = "write its address, as in \"10.0.0.53\" or \"10.0.0.53:5353\"";
                problems.add(Code::BadResolver, &text.span, message, reason, fix);
            }
        }
    }
    all
}

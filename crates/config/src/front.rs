//! Reads what a proxy hears before it chooses a backend: `accept_proxy` and `sni` of one `[[vip.service]]`.

use crate::Code;
use crate::keys::{Key, service};
use crate::ports::Port;
use crate::quic;
use crate::report::{At, Problems, listed, shown};
use crate::sources;
use crate::tree::{Section, wrong_type};
use crate::value;
use crate::vip::refuse_too_many;
use buoy_model::limits::PROXY_ROUTES_MAX;
use buoy_model::{Backend, Cidr, Front, Protocol, Route, ServerName};
use core::net::{Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml::de::DeValue;

const NAME: &str = "write the name of a host, as in \"www.example.org\", or all below a domain, as in \"*.example.org\"";

/// `is_complete`: there are no other backends than these, and all could be read.
pub(crate) fn read(
    section: &Section<'_>,
    (backends, is_complete): (&[Backend], bool),
    problems: &mut Problems<'_>,
) -> Front {
    Front {
        believed: read_believed(section, problems),
        routes: read_routes(section, is_complete.then_some(backends), problems),
        quic: quic::read(section, (backends, is_complete), problems),
    }
}

/// True for everybody, or prefixes.
fn read_believed(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<[Cidr]> {
    let key = &service::ACCEPT_PROXY;
    if let Some(DeValue::Boolean(all)) = section.raw(key).map(|value| value.get_ref()) {
        let everybody = [
            Cidr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            Cidr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        ];
        return everybody.into_iter().flatten().filter(|_| *all).collect();
    }
    let Some(texts) = section.texts(key, problems) else { return Arc::default() };
    let fix = "write shorter prefixes";
    refuse_too_many("prefixes in `accept_proxy`", &texts.value, PROXY_ROUTES_MAX, fix, problems);
    let texts = texts.value.iter().take(PROXY_ROUTES_MAX);
    texts.filter_map(|text| sources::read_prefix(text, problems)).collect()
}

/// A table of names, each with the name of a backend or a list of such.
fn read_routes(
    section: &Section<'_>,
    backends: Option<&[Backend]>,
    problems: &mut Problems<'_>,
) -> Arc<[Route]> {
    let Some(value) = section.raw(&service::SNI) else { return Arc::default() };
    let DeValue::Table(table) = value.get_ref() else {
        wrong_type(&service::SNI, value, problems);
        return Arc::default();
    };
    if table.is_empty() {
        let message = "`sni` is empty";
        let fix = format!("write `sni = {}`, or remove the line", service::SNI.example);
        problems.add(Code::EmptyList, &value.span(), message, "it names servers", fix);
    }
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let names: Vec<At<()>> = entries.iter().map(|(name, _)| At::new((), name.span())).collect();
    let fix = "make a second service on another VIP";
    refuse_too_many("names in `sni`", &names, PROXY_ROUTES_MAX, fix, problems);
    let mut seen: BTreeMap<ServerName, At<()>> = BTreeMap::new();
    let mut routes = Vec::new();
    for (name, value) in entries.into_iter().take(PROXY_ROUTES_MAX) {
        let backends = read_backends(value, backends, problems);
        let Some(server) = ServerName::new(name.get_ref()) else {
            let message = format!("\"{}\" is not the name of a server", shown(name.get_ref()));
            let reason = "what a TLS client asks for is the name of a host";
            problems.add(Code::BadServerName, &name.span(), message, reason, NAME);
            continue;
        };
        if let Some(first) = seen.get(&server) {
            let message = format!("{server} is in `sni` twice");
            let (again, first) = ((&name.span(), "again here"), (&first.span, "first here"));
            problems.add_pair(Code::BadServerName, again, first, message, "remove one of the two");
            continue;
        }
        seen.insert(server.clone(), At::new((), name.span()));
        routes.push(Route { name: server, backends });
    }
    routes.into()
}

fn read_backends(
    value: &toml::Spanned<DeValue<'_>>,
    known: Option<&[Backend]>,
    problems: &mut Problems<'_>,
) -> Vec<String> {
    let items: Vec<_> = match value.get_ref() {
        DeValue::Array(list) if !list.is_empty() => list.iter().collect(),
        DeValue::Array(_)
        | DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_) => vec![value],
    };
    let mut names = Vec::new();
    for item in items {
        let DeValue::String(name) = item.get_ref() else {
            wrong_type(&service::SNI, item, problems);
            continue;
        };
        let known = known.unwrap_or_default();
        if known.is_empty() || known.iter().any(|b| b.name == **name) {
            names.push(name.clone().into_owned());
            continue;
        }
        let all = || known.iter().map(|b| b.name.as_str());
        let message =
            format!("`sni` names \"{}\", which is no backend of the service", shown(name));
        let fix = match value::nearest(name, all()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "write the name of a backend, or add it to `backends`".to_owned(),
        };
        let reason = format!("the backends are {}", listed(all()));
        problems.add(Code::UnknownBackend, &item.span(), message, reason, fix);
    }
    names
}

/// What does not go together in a proxy. In another mode all of it was refused.
pub(crate) fn refuse_misplaced(
    section: &Section<'_>,
    ports: &[At<Port>],
    problems: &mut Problems<'_>,
) {
    let udp = ports.iter().find(|p| p.value.protocol == Protocol::Udp);
    let mut refuse = |key: &Key, reason: &str| {
        let (Some(udp), true) = (udp, section.has(key)) else { return };
        let message = format!("`{}` works with TCP only", key.name);
        let fix =
            format!("make one [[vip.service]] for tcp and one without `{}` for udp", key.name);
        problems.add(Code::NeedsTcp, &udp.span, message, reason, fix);
    };
    refuse(&service::ACCEPT_PROXY, "this port is UDP, and only a connection has a beginning");
    refuse(&service::SNI, "this port is UDP, and the name is in the beginning of a connection");
    if let (true, Some(span)) = (section.has(&service::SNI), section.key_span(&service::QUEUE)) {
        let message = "`queue` and `sni` contradict each other";
        let reason =
            "who waits first in the queue may wait for other backends than the one that has room";
        let fix = "remove `queue`, or make a service without `sni` on another VIP";
        problems.add(Code::Contradiction, &span, message, reason, fix);
    }
}

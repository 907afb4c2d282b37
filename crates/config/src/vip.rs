//! Reads one `[[vip]]`: its addresses, its interface, and the services behind.

use crate::Code;
use crate::allocate::Got;
use crate::cluster::{self, Cluster};
use crate::keys::{Schema, service, vip};
use crate::report::{At, Problems, Span, shown};
use crate::routes::Route;
use crate::service as services;
use crate::settings::{self, Settings};
use crate::tree::{self, Section};
use crate::value::{self, Unfit};
use crate::{ports, range, routes, vrrp};
use buoy_model::limits::{GROUP_ADDRESSES_MAX, GROUP_SERVICES_MAX};
use buoy_model::{Cidr, Forward, Mode, Presence, Service, VirtualRule};
use core::net::IpAddr;

/// One `[[vip]]` or one address of a `[[pool]]`, as far as the file alone says it.
#[derive(Clone, Debug)]
pub(crate) struct Vip {
    pub(crate) name: At<String>,
    pub(crate) addresses: Vec<At<Cidr>>,
    pub(crate) interface: Option<At<String>>,
    pub(crate) presence: Presence,
    /// The label of those it moves with.
    pub(crate) group: Option<At<String>>,
    pub(crate) settings: Settings,
    pub(crate) services: Vec<At<Service>>,
    /// Addresses that its services name as `source`.
    pub(crate) pool: Vec<At<IpAddr>>,
    /// What decides who owns it, where that is VRRP.
    pub(crate) vrrp: Option<vrrp::Draft>,
    /// Routes that are where it is.
    pub(crate) routes: Vec<At<Route>>,
    /// Rules of routing that are where it is.
    pub(crate) rules: Vec<At<VirtualRule>>,
}

impl Vip {
    /// What it serves, without where that is written.
    pub(crate) fn services(&self) -> impl Iterator<Item = Service> {
        self.services.iter().map(|service| service.value.clone())
    }

    /// Its rules of routing, without where they are written.
    pub(crate) fn rules(&self) -> impl Iterator<Item = VirtualRule> {
        self.rules.iter().map(|rule| rule.value.clone())
    }
}

/// `None` when it has not one address that could be read: there is nothing to compare then.
pub(crate) fn read(
    section: &Section<'_>,
    got: &Got,
    cluster: &Cluster,
    problems: &mut Problems<'_>,
) -> Option<Vip> {
    let interface = read_interface(section, problems).or_else(|| got.interface.clone());
    let addresses = match &got.addresses {
        Some(addresses) => addresses.clone(),
        None => read_addresses(section, interface.is_some(), problems),
    };
    let name =
        section.text(&vip::NAME, problems).filter(|n| cluster::check_name("name", n, problems));
    let group = settings::read_label(section, &vip::GROUP, problems);
    let settings = settings::read(section, &addresses, cluster, problems);
    let vrrp = vrrp::read(section, cluster, problems);
    let (routes, rules) =
        (routes::read_routes(section, problems), routes::read_rules(section, problems));
    let mut pool = Vec::new();
    let services = read_services(section, &service::SCHEMA, &addresses, &mut pool, problems);
    let presence = read_presence(section, &service::SCHEMA, &services, problems);
    let first = addresses.first()?;
    let name = match name {
        Some(name) => At::new(name.value.to_owned(), name.span),
        None => At::new(first.value.address().to_string(), first.span.clone()),
    };
    Some(Vip {
        name,
        interface,
        presence,
        group,
        settings,
        services,
        pool,
        vrrp,
        addresses,
        routes,
        rules,
    })
}

/// The interface that is named, if one is.
pub(crate) fn read_interface(
    section: &Section<'_>,
    problems: &mut Problems<'_>,
) -> Option<At<String>> {
    let name = section.text(&vip::INTERFACE, problems)?;
    check_interface(&name, problems).then(|| At::new(name.value.to_owned(), name.span))
}

fn read_addresses(
    section: &Section<'_>,
    has_interface: bool,
    problems: &mut Problems<'_>,
) -> Vec<At<Cidr>> {
    let Some(texts) = section.texts(&vip::ADDRESS, problems) else {
        if !section.has(&vip::ADDRESS) {
            section.miss(&vip::ADDRESS, problems);
        }
        return Vec::new();
    };
    refuse_too_many(
        "addresses",
        &texts.value,
        GROUP_ADDRESSES_MAX,
        "make a second [[vip]] for the others",
        problems,
    );
    let texts = texts.value.iter().take(GROUP_ADDRESSES_MAX);
    texts.filter_map(|text| read_address(text, has_interface, problems)).collect()
}

fn read_address(
    text: &At<&str>,
    has_interface: bool,
    problems: &mut Problems<'_>,
) -> Option<At<Cidr>> {
    let (address_text, prefix_text) = match text.value.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text.value, None),
    };
    let Ok(address) = address_text.parse::<IpAddr>() else {
        let reason = match value::host_port(address_text) {
            Ok(_) => "a VIP has no port; services have",
            Err(_) => value::address_fault(address_text),
        };
        let message = format!("\"{}\" is not an address", shown(text.value));
        let fix = if range::is_range(text.value) {
            format!("make it a [[pool]] with addresses = [\"{}\"]", shown(text.value))
        } else {
            "write address and prefix, as in \"10.0.0.100/24\"".to_owned()
        };
        problems.add(Code::BadVip, &text.span, message, reason, fix);
        return None;
    };
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let Some(prefix_text) = prefix_text else {
        let usual = if address.is_ipv4() { 24 } else { 64 };
        let message = format!("{address} has no prefix");
        let reason = "the prefix says which subnet the address is in";
        let fix = format!("write the prefix of its subnet, as in \"{address}/{usual}\"");
        problems.add(Code::BadPrefix, &text.span, message, reason, fix);
        return None;
    };
    let digits = prefix_text.bytes().all(|b| b.is_ascii_digit());
    let cidr =
        prefix_text.parse().ok().filter(|_| digits).and_then(|prefix| Cidr::new(address, prefix));
    let Some(cidr) = cidr.filter(|c| c.prefix() > 0) else {
        let message = format!("\"{}\" has an impossible prefix", shown(text.value));
        let reason = format!("for {address} it is a number from 1 to {longest}");
        let span = tree::inside(text, prefix_text, problems);
        problems.add(
            Code::BadPrefix,
            &span,
            message,
            reason,
            "write the prefix length of its subnet, as `ip address` shows it",
        );
        return None;
    };
    refuse_unusable(cidr, &text.span, has_interface, problems);
    Some(At::new(cidr, text.span.clone()))
}

pub(crate) fn refuse_unusable(
    cidr: Cidr,
    span: &Span,
    has_interface: bool,
    problems: &mut Problems<'_>,
) {
    let address = cidr.address();
    let reason = match value::unfit(address) {
        Some(Unfit::LinkLocal) if has_interface => None,
        Some(Unfit::LinkLocal) => {
            let message = format!("{address} is link-local: it exists on every segment");
            let fix = "add `interface = \"...\"` here";
            problems.add(Code::LinkLocalVip, span, message, "every interface has this subnet", fix);
            return;
        }
        Some(unfit) => Some(unfit.reason()),
        None => end_of_subnet(cidr),
    };
    if let Some(reason) = reason {
        let message = format!("{address} cannot be a VIP");
        problems.add(
            Code::UnusableVip,
            span,
            message,
            reason,
            "choose a free host address of the subnet",
        );
    }
}

/// The two ends of a subnet, where they are not hosts.
pub(crate) fn end_of_subnet(cidr: Cidr) -> Option<&'static str> {
    match cidr.address() {
        // RFC 3021: a /31 has no network and no broadcast address.
        IpAddr::V4(address) if cidr.prefix() < 31 => {
            let host_mask = u32::MAX.checked_shr(u32::from(cidr.prefix())).unwrap_or(0);
            let host = address.to_bits() & host_mask;
            if host == 0 {
                Some("it is the network address of its subnet")
            } else {
                (host == host_mask).then_some("it is the broadcast address of its subnet")
            }
        }
        IpAddr::V6(address) if cidr.prefix() < 127 => {
            let host_mask = u128::MAX.checked_shr(u32::from(cidr.prefix())).unwrap_or(0);
            // RFC 4291 §2.6.1.
            (address.to_bits() & host_mask == 0)
                .then_some("it is the anycast address of the subnet's routers")
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Reports what keeps a text from being an interface; true when it is one.
pub(crate) fn check_interface(name: &At<&str>, problems: &mut Problems<'_>) -> bool {
    // IFNAMSIZ is 16 with the final zero; the kernel refuses `/` and white space (dev_valid_name).
    let valid = (1..16).contains(&name.value.len())
        && !name
            .value
            .contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
    if !valid {
        let message = format!("\"{}\" cannot be an interface", shown(name.value));
        let reason =
            "a name of an interface has 1 to 15 characters, none of them `/`, `:` or a space";
        problems.add(
            Code::BadName,
            &name.span,
            message,
            reason,
            "write a name that `ip link` shows",
        );
    }
    valid
}

/// Whether the addresses are put on the interface; what does not work without is refused.
pub(crate) fn read_presence(
    section: &Section<'_>,
    of_service: &Schema,
    services: &[At<Service>],
    problems: &mut Problems<'_>,
) -> Presence {
    let Some(At { value: false, span }) = section.flag(&vip::ASSIGN, problems) else {
        return Presence::Assigned;
    };
    let answer = "write forward = \"dsr\", \"tunnel\" or \"nat\"";
    let needs_it = services.iter().find(|service| match service.value.mode {
        Mode::Kernel | Mode::Proxy | Mode::Xdp { forward: Forward::Local, .. } => true,
        Mode::Xdp { .. } => false,
    });
    if let Some(service) = needs_it {
        let reason = match service.value.mode {
            Mode::Proxy => "a proxy listens on the address",
            Mode::Xdp { .. } => "a process of the owner takes its packets at the address",
            Mode::Kernel => "the kernel must have the address that it forwards",
        };
        let (ports, protocol) = (service.value.ports, service.value.protocol.name());
        let message =
            format!("without the VIP on the interface, {ports}/{protocol} cannot be served");
        let (again, first) = ((&span, "the VIP is not put there"), (&service.span, reason));
        let fix = format!("{answer} in that service, or remove `assign`");
        problems.add_pair(Code::NeedsAssignment, again, first, message, fix);
    } else if !section.has(&vip::SERVICE) {
        let message = "the VIP is not put on the interface, and nothing is forwarded for it";
        let reason = "no process of this host can have an address that is not there";
        let fix = format!("remove `assign`, or add a {} with `forward`", of_service.title);
        problems.add(Code::NothingForwarded, &span, message, reason, fix);
    }
    Presence::Answered
}

/// The services of a `[[vip]]` or `[[pool]]`, on all of its addresses.
pub(crate) fn read_services(
    section: &Section<'_>,
    schema: &'static Schema,
    addresses: &[At<Cidr>],
    pool: &mut Vec<At<IpAddr>>,
    problems: &mut Problems<'_>,
) -> Vec<At<Service>> {
    let sections = section.sections(&vip::SERVICE, schema, problems);
    let mut read: Vec<At<Service>> = Vec::new();
    for section in sections.iter().take(2 * GROUP_SERVICES_MAX) {
        for service in services::read(section, addresses, pool, problems) {
            ports::refuse_conflict(&read, &service, problems);
            read.push(service);
        }
    }
    let fix = "serve the others on a second VIP";
    refuse_too_many("ports", &read, GROUP_SERVICES_MAX, fix, problems);
    read
}

/// Reports a list that is longer than a cluster can hold, at its first element too many.
pub(crate) fn refuse_too_many<T>(
    what: &str,
    list: &[At<T>],
    most: usize,
    fix: &str,
    problems: &mut Problems<'_>,
) {
    let Some(extra) = list.get(most) else { return };
    let message = format!("{} {what}: at most {most} are possible", list.len());
    problems.add(
        Code::TooMany,
        &extra.span.clone(),
        message,
        format!("this is number {}", most + 1),
        fix,
    );
}

//! Reads `source` of one `[[vip.service]]`: as whom backends see its clients.
//!
//! An address there is one of the VIP's own group: it moves with the VIP, so answers come to whoever
//! forwarded the question, and it is answered for. Groups are known later, so that is held here in two steps.

use crate::Code;
use crate::bundle::Bundle;
use crate::keys::service;
use crate::report::{At, Problems, shown};
use crate::tree::{Section, Word};
use crate::value;
use crate::vip::{Vip, refuse_too_many};
use buoy_model::limits::{FAST_POOL_MAX, FAST_POOLS_MAX};
use buoy_model::{Backend, Cidr, Forward, Mode, Ports, Service, SourceAddress};
use core::net::IpAddr;
use std::collections::BTreeSet;

/// The ports that XDP takes for flows, below those that Linux takes for its own.
const TAKEN: (u16, u16) = (1024, 32_767);

/// A word, or a list of addresses; `None` where it is missing or wrong, which is reported.
pub(crate) fn read(
    section: &Section<'_>,
    problems: &mut Problems<'_>,
) -> Option<At<(SourceAddress, Vec<At<IpAddr>>)>> {
    if !section.has(&service::SOURCE) {
        return None;
    }
    let is_name = |text: &str| !text.contains(['.', ':', '/']);
    let raw = section.raw(&service::SOURCE)?;
    if raw.get_ref().as_str().is_some_and(is_name) {
        let words = [("vip", Word::Now(true)), ("client", Word::Now(false))];
        let word = section.word(&service::SOURCE, &words, problems)?;
        let source = if word.value { SourceAddress::Vip } else { SourceAddress::Client };
        return Some(At::new((source, Vec::new()), word.span));
    }
    let texts = section.texts(&service::SOURCE, problems)?;
    let mut list: Vec<At<IpAddr>> = Vec::new();
    for text in &texts.value {
        list.extend(read_address(text, &list, problems));
    }
    for is_ipv4 in [true, false] {
        let of_one = list.iter().filter(|a| a.value.is_ipv4() == is_ipv4).cloned();
        let fix = "leave some out: each has 31,744 ports for every protocol";
        refuse_too_many(
            "addresses of one IP version in `source`",
            &of_one.collect::<Vec<_>>(),
            FAST_POOL_MAX,
            fix,
            problems,
        );
    }
    let is_whole = !list.is_empty() && list.len() == texts.value.len();
    let pool = SourceAddress::Pool(list.iter().map(|a| a.value).collect());
    is_whole.then(|| At::new((pool, list), texts.span))
}

fn read_address(
    text: &At<&str>,
    earlier: &[At<IpAddr>],
    problems: &mut Problems<'_>,
) -> Option<At<IpAddr>> {
    let Ok(address) = text.value.parse::<IpAddr>() else {
        let (reason, fix) = match text.value {
            "vip" | "client" => (
                "in a list there are addresses only",
                format!("write source = \"{}\", or addresses in its place", text.value),
            ),
            _ => {
                let fix =
                    "write addresses of the VIP's group, as in [\"10.0.0.50\", \"10.0.0.51\"]";
                let reason = match text.value.split_once('/') {
                    Some(_) => "it is an address without a prefix",
                    None => value::address_fault(text.value),
                };
                (reason, fix.to_owned())
            }
        };
        let message = format!("\"{}\" in `source` is not an address", shown(text.value));
        problems.add(Code::BadSourceAddress, &text.span, message, reason, fix);
        return None;
    };
    if let Some(first) = earlier.iter().find(|a| a.value == address) {
        let message = format!("{address} is in `source` twice");
        let (again, first) = ((&text.span, "again here"), (&first.span, "first here"));
        problems.add_pair(Code::BadSourceAddress, again, first, message, "remove one of the two");
        return None;
    }
    Some(At::new(address, text.span.clone()))
}

/// What an engine cannot do with it.
pub(crate) fn refuse_misplaced(
    section: &Section<'_>,
    mode: Mode,
    source: &SourceAddress,
    problems: &mut Problems<'_>,
) {
    let Some(span) = section.key_span(&service::SOURCE) else { return };
    match (mode, source) {
        // Of "local" it is said with all that is of backends.
        (Mode::Kernel | Mode::Xdp { forward: Forward::Nat | Forward::Local, .. }, _)
        | (Mode::Xdp { .. }, SourceAddress::Client)
        | (Mode::Proxy, SourceAddress::Vip) => {}
        (Mode::Proxy, SourceAddress::Client) => {
            let message = "`source = \"client\"` does not work in mode \"proxy\"";
            let reason = "a proxy opens its own connections, so a backend sees the proxy's address";
            let fix = "write mode = \"kernel\" or forward = \"nat\", or tell the backend with send_proxy = \"v2\"";
            problems.add(Code::NeedsKernel, &span, message, reason, fix);
        }
        (Mode::Proxy, SourceAddress::Pool(_)) => {
            let message = "a list in `source` does not work in mode \"proxy\"";
            let reason = "a proxy opens its own connections, from the address that the host has";
            let fix = "remove the line, or write mode = \"kernel\"";
            problems.add(Code::NotInProxy, &span, message, reason, fix);
        }
        (
            Mode::Xdp { forward: Forward::Dsr | Forward::Tunnel | Forward::Gue { .. }, .. },
            SourceAddress::Vip | SourceAddress::Pool(_),
        ) => {
            let message = "`source` does not work with \"dsr\" and \"tunnel\"";
            let reason = "there the packet stays as the client sent it, with the client's address";
            let fix = "remove the line, or write forward = \"nat\"";
            problems.add(Code::NotInXdp, &span, message, reason, fix);
        }
    }
}

/// Each VIP that is forwarded to somebody needs an address of its own IP version.
pub(crate) fn refuse_missing_version(
    section: &Section<'_>,
    source: &SourceAddress,
    vips: &[At<Cidr>],
    backends: &[Backend],
    problems: &mut Problems<'_>,
) {
    let (SourceAddress::Pool(pool), Some(span)) = (source, section.key_span(&service::SOURCE))
    else {
        return;
    };
    for (is_ipv4, name) in [(true, "IPv4"), (false, "IPv6")] {
        let vip = vips.iter().find(|v| v.value.address().is_ipv4() == is_ipv4);
        let is_asked = backends.iter().any(|b| b.address.is_ipv4() == is_ipv4);
        let (Some(vip), true) = (vip, is_asked) else { continue };
        if pool.iter().any(|address| address.is_ipv4() == is_ipv4) {
            continue;
        }
        let message = format!("`source` has no {name} address for the VIP {}", vip.value.address());
        let reason = "a packet keeps its IP version, so its source has the VIP's";
        let fix = format!("add an {name} address of the group to `source`");
        problems.add(Code::SourceVersion, &span, message, reason, fix);
    }
}

/// What concerns groups, and all of them together.
pub(crate) fn check_bundles(bundles: &[Bundle], problems: &mut Problems<'_>) {
    let mut tables: BTreeSet<(IpAddr, &str)> = BTreeSet::new();
    for bundle in bundles {
        for vip in &bundle.vips {
            refuse_strangers(bundle, vip, problems);
        }
        for service in bundle.vips.iter().flat_map(|vip| &vip.services) {
            refuse_without_port(bundle, service, problems);
            for address in taken_by(&service.value) {
                tables.insert((address, service.value.protocol.name()));
                if tables.len() == FAST_POOLS_MAX + 1 {
                    let message = format!("{address} is one source address too many");
                    let reason = format!(
                        "mode \"xdp\" has room for {FAST_POOLS_MAX} in all services together, each \
                         counted for each protocol"
                    );
                    let fix = "name a few addresses in `source` in place of \"vip\"";
                    problems.add_once(Code::TooMany, &service.span, message, reason, fix);
                    return;
                }
            }
        }
    }
}

/// The addresses whose ports XDP takes.
fn taken_by(service: &Service) -> Vec<IpAddr> {
    match (service.mode, &service.source) {
        (Mode::Kernel | Mode::Proxy, _) | (_, SourceAddress::Client) => Vec::new(),
        (Mode::Xdp { .. }, SourceAddress::Vip) => service.addresses.clone(),
        (Mode::Xdp { .. }, SourceAddress::Pool(pool)) => pool.to_vec(),
    }
}

fn refuse_strangers(bundle: &Bundle, vip: &Vip, problems: &mut Problems<'_>) {
    let own: BTreeSet<IpAddr> =
        bundle.vips.iter().flat_map(|v| &v.addresses).map(|a| a.value.address()).collect();
    for At { value, span } in vip.pool.iter().filter(|a| !own.contains(&a.value)) {
        let message = format!("{value} in `source` is not an address of the VIP's group");
        let reason = "it has to move with the VIP: answers go to whoever has it";
        let fix = "add it to the addresses of this [[vip]], or of one with the same `group`; or write \
                   source = \"vip\"";
        problems.add_once(Code::SourceNotVip, span, message, reason, fix);
    }
}

/// Where a service has every port that a flow could get.
fn refuse_without_port(bundle: &Bundle, service: &At<Service>, problems: &mut Problems<'_>) {
    let Some(taken) = Ports::new(TAKEN.0, TAKEN.1) else { return };
    let protocol = service.value.protocol;
    for address in taken_by(&service.value) {
        let covers = |other: &&At<Service>| {
            let Service { addresses, ports, protocol: its, .. } = &other.value;
            let has_all = ports.first() <= taken.first() && taken.last() <= ports.last();
            *its == protocol && has_all && addresses.contains(&address)
        };
        let Some(other) = bundle.vips.iter().flat_map(|v| &v.services).find(covers) else {
            continue;
        };
        let message = format!("{address} has no port left for clients of a service");
        let reason = format!(
            "connections to backends come from its ports {} to {}, and here all of them are served",
            TAKEN.0, TAKEN.1
        );
        let fix = "write another address of the group as `source`, or serve fewer ports";
        problems.add_once(Code::NoPortLeft, &other.span, message, reason, fix);
    }
}

//! Reads `allow` and `deny` of one `[[vip.service]]`: prefixes of clients, both families mixed.

use crate::Code;
use crate::keys::{Key, service};
use crate::report::{At, Problems, shown};
use crate::tree::Section;
use crate::value;
use crate::vip::refuse_too_many;
use buoy_model::limits::SERVICE_SOURCES_MAX;
use buoy_model::{Cidr, SourceRule, Sources, is_mapped, network};
use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A prefix that could be read, with its key.
type Written = At<(SourceRule, &'static Key)>;

/// One list for all ports of the service.
pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<Sources> {
    let mut all = Vec::new();
    for (key, allows) in [(&service::ALLOW, true), (&service::DENY, false)] {
        let Some(texts) = section.texts(key, problems) else { continue };
        let rule = |text: &At<&str>, problems: &mut Problems<'_>| {
            let prefix = read_prefix(text, problems)?;
            Some(At::new((SourceRule { prefix, allows }, key), text.span.clone()))
        };
        all.extend(texts.value.iter().filter_map(|text| rule(text, problems)));
    }
    let fix = "write shorter prefixes, or restrict access with the host's firewall";
    refuse_too_many("prefixes in `allow` and `deny`", &all, SERVICE_SOURCES_MAX, fix, problems);
    all.truncate(SERVICE_SOURCES_MAX);
    Arc::new(Sources::new(once(&all, problems)).unwrap_or_default())
}

pub(crate) fn read_prefix(text: &At<&str>, problems: &mut Problems<'_>) -> Option<Cidr> {
    let (address_text, length) = match text.value.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text.value, None),
    };
    let mut refuse = |reason: &str, fix: String| {
        let message = format!("\"{}\" is not a prefix of clients", shown(text.value));
        problems.add(Code::BadSource, &text.span, message, reason, fix);
    };
    let example =
        || "write a prefix or an address, as in \"10.0.0.0/8\" or \"10.0.0.7\"".to_owned();
    let Ok(address) = address_text.parse::<IpAddr>() else {
        let reason = match value::host_port(address_text) {
            Ok(_) => "a client may come from any port",
            Err(_) => value::address_fault(address_text),
        };
        refuse(reason, example());
        return None;
    };
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let digits = |text: &&str| text.bytes().all(|b| b.is_ascii_digit());
    let length = length.map_or(Some(longest), |text| Some(text).filter(digits)?.parse().ok());
    let Some(prefix) = length.and_then(|length| Cidr::new(address, length)) else {
        refuse(&format!("for {address} its length is a number from 0 to {longest}"), example());
        return None;
    };
    let whole = network(prefix);
    if whole != prefix {
        let reason = "it has bits behind its length";
        refuse(reason, format!("write \"{whole}\", or \"{address}\" for this address alone"));
        return None;
    }
    if is_mapped(prefix) {
        refuse("it is IPv4 written as IPv6", "write it as IPv4, as in \"10.0.0.0/8\"".to_owned());
        return None;
    }
    Some(prefix)
}

/// The rules without those that repeat a prefix, which are reported.
fn once(all: &[Written], problems: &mut Problems<'_>) -> Vec<SourceRule> {
    let mut seen: BTreeMap<Cidr, &Written> = BTreeMap::new();
    for written in all {
        let (rule, key) = written.value;
        let Some(first) = seen.get(&rule.prefix) else {
            seen.insert(rule.prefix, written);
            continue;
        };
        let (message, fix) = if first.value.0.allows == rule.allows {
            (format!("{} is in `{}` twice", rule.prefix, key.name), "remove one of the two")
        } else {
            let message = format!("{} is in `allow` and in `deny`", rule.prefix);
            (message, "remove it from one of the two; a longer prefix stands against a shorter one")
        };
        let first = (&first.span, "first here");
        problems.add_pair(
            Code::DuplicateSource,
            (&written.span, "again here"),
            first,
            message,
            fix,
        );
    }
    seen.into_values().map(|written| written.value.0).collect()
}

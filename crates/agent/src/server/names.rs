//! Finds services and backends by the names that people and programs give them, and proposes near ones.
//!
//! A service is `web:443/tcp`: the VIP, the port, the protocol. What is left out need not be said where one
//! service is meant all the same, and an address of the VIP does in place of its name.

use buoy_api::{haproxy_name, service_name};
use buoy_config::nearest;
use buoy_model::{Backend, Desired, Group, Service};
use std::net::IpAddr;

/// Names repeated in a message.
const NAMES_SHOWN: usize = 10;

/// Why a name means nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum NameError {
    /// There is no such service; those that there are.
    Service { asked: String, known: Vec<String> },
    /// It could be several.
    Ambiguous { asked: String, meant: Vec<String> },
    /// The service has no such backend; those that it has.
    Backend { asked: String, service: String, known: Vec<String> },
}

impl NameError {
    /// What is wrong, and what to do.
    pub(crate) fn said(&self) -> (String, String) {
        match self {
            Self::Service { asked, known } => {
                (format!("there is no service {asked:?}"), instead(asked, known, "the file has"))
            }
            Self::Ambiguous { asked, meant } => (
                format!("{asked:?} is more than one service"),
                format!("say which: {}", list(meant)),
            ),
            Self::Backend { asked, service, known } => {
                (format!("{asked} is not a backend of {service}"), instead(asked, known, "it has"))
            }
        }
    }
}

fn instead(asked: &str, known: &[String], has: &str) -> String {
    match nearest(asked, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}?"),
        None if known.is_empty() => format!("{has} none"),
        None => format!("{has} {}", list(known)),
    }
}

fn list(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// All services with their groups, in the order of the VIPs.
pub(crate) fn services(desired: &Desired) -> impl Iterator<Item = (&Group, &Service)> {
    desired.groups.iter().flat_map(|group| group.services.iter().map(move |s| (group, s)))
}

/// The service of that name.
pub(crate) fn service<'d>(
    desired: &'d Desired,
    asked: &str,
) -> Result<(&'d Group, &'d Service), NameError> {
    let is_whole = |group, service| {
        service_name(group, service) == asked || haproxy_name(group, service) == asked
    };
    // Of thousands of services few are made names for.
    let could_be: Vec<_> = services(desired).filter(|(g, s)| may_begin(g, s, asked)).collect();
    if let Some(found) = could_be.iter().find(|(group, service)| is_whole(group, service)) {
        return Ok(*found);
    }
    let meant: Vec<_> = could_be.into_iter().filter(|(g, s)| is_short_for(g, s, asked)).collect();
    let names = |all: &mut dyn Iterator<Item = (&Group, &Service)>| {
        all.map(|(group, service)| service_name(group, service)).collect()
    };
    let asked = asked.to_owned();
    match &meant[..] {
        [one] => Ok(*one),
        [] => Err(NameError::Service { asked, known: names(&mut services(desired)) }),
        _ => Err(NameError::Ambiguous { asked, meant: names(&mut meant.into_iter()) }),
    }
}

/// Whether it begins with a name of the service's VIP, or with an address.
fn may_begin(group: &Group, service: &Service, asked: &str) -> bool {
    let asked = asked.strip_prefix('[').unwrap_or(asked);
    let vip = group.vip_of(service).filter(|name| !name.is_empty());
    let is_address = || {
        let host = asked.split_once(']').or_else(|| asked.rsplit_once(':'));
        let host = host.map_or(asked, |(host, _)| host);
        [host, asked].iter().any(|text| {
            text.parse::<IpAddr>().is_ok_and(|address| service.addresses.contains(&address))
        })
    };
    asked.starts_with(group.name.as_str())
        || vip.is_some_and(|vip| asked.starts_with(vip))
        || is_address()
}

/// Whether it is a part of the name that could stand for the whole.
fn is_short_for(group: &Group, service: &Service, asked: &str) -> bool {
    let (ports, protocol) = (service.ports, service.protocol.name());
    let name = service_name(group, service);
    let end = format!(":{ports}/{protocol}");
    let vip = name.strip_suffix(&end).unwrap_or(&name).to_owned();
    let mut vips = vec![group.name.clone(), vip];
    for address in &service.addresses {
        vips.push(address.to_string());
        vips.push(format!("[{address}]"));
    }
    vips.iter().any(|vip| {
        asked == vip
            || asked.strip_prefix(vip.as_str()).is_some_and(|rest| {
                rest == end || rest == format!(":{ports}") || rest == format!(":{ports}-{protocol}")
            })
    })
}

/// The backend of that name of a service.
pub(crate) fn backend<'s>(
    (group, service): (&Group, &'s Service),
    asked: &str,
) -> Result<&'s Backend, NameError> {
    let is_it = |b: &&Backend| b.name == asked || b.address.to_string() == asked;
    service.backends.iter().find(is_it).ok_or_else(|| NameError::Backend {
        asked: asked.into(),
        service: service_name(group, service),
        known: service.backends.iter().map(|b| b.name.clone()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, desired};
    use buoy_model::{Mode, Ports, Protocol};

    fn sample() -> Desired {
        let backends = || vec![sample::backend("web1", "10.0.0.21:80")];
        let on = |vip, port| sample::service(Mode::Kernel, vip, port, backends());
        let udp = Service { protocol: Protocol::Udp, ..on("10.0.0.100", 53) };
        let range = Service { ports: Ports::ALL, ..on("fd00::1", 1) };
        let services = vec![on("10.0.0.100", 53), udp, on("10.0.0.100", 443), range];
        desired(&["10.0.0.100", "fd00::1"], "eth0", services)
    }

    #[test]
    fn a_service_is_found_by_as_much_of_its_name_as_tells_it_from_the_others() {
        let desired = sample();
        let table = [
            ("web:443/tcp", "web:443/tcp"),
            ("web:443-tcp", "web:443/tcp"),
            ("web:443", "web:443/tcp"),
            ("10.0.0.100:443", "web:443/tcp"),
            ("10.0.0.100:443/tcp", "web:443/tcp"),
            ("web:53/udp", "web:53/udp"),
            ("web:*/tcp", "web:*/tcp"),
            ("[fd00::1]", "web:*/tcp"),
            ("fd00::1", "web:*/tcp"),
        ];
        for (asked, expected) in table {
            let (group, found) = service(&desired, asked).expect(asked);
            assert_eq!(service_name(group, found), expected, "{asked}");
        }
        let said = |asked| {
            let (title, detail) = service(&desired, asked).expect_err("it is none").said();
            format!("{title}: {detail}")
        };
        assert_eq!(
            said("web:53"),
            "\"web:53\" is more than one service: say which: web:53/tcp, web:53/udp"
        );
        assert_eq!(
            said("web:444/tcp"),
            "there is no service \"web:444/tcp\": did you mean web:443/tcp?"
        );
        assert!(
            said("mail").ends_with("the file has web:53/tcp, web:53/udp, web:443/tcp, web:*/tcp")
        );
        assert!(said("web").contains("is more than one service"), "{}", said("web"));
    }

    #[test]
    fn a_backend_that_is_none_is_told_with_the_one_that_may_be_meant() {
        let desired = sample();
        let of = service(&desired, "web:443").expect("it is there");
        assert_eq!(backend(of, "web1").map(|b| b.name.as_str()), Ok("web1"));
        assert_eq!(backend(of, "10.0.0.21:80").map(|b| b.name.as_str()), Ok("web1"));
        let (title, detail) = backend(of, "web-1").expect_err("it is none").said();
        assert_eq!(title, "web-1 is not a backend of web:443/tcp");
        assert_eq!(detail, "did you mean web1?");
        let (_, detail) = backend(of, "mail").expect_err("it is none").said();
        assert_eq!(detail, "it has web1");
    }
}

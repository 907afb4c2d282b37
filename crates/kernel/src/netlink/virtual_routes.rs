//! Routes and rules that go along with VIPs, in the words of route netlink. Ours carry our mark as their protocol.

use super::message::{Message, Request, attributes, word};
use super::neighbour::{ip, put_address};
use super::{NetlinkError, PROTOCOL_MARK, Requests};
use buoy_model::{Cidr, LinkId, VirtualRoute, VirtualRule};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ROUTE_LEN: usize = 12; // struct rtmsg
const RULE_LEN: usize = 12; // struct fib_rule_hdr
/// What the kernel makes of an IPv6 route without a metric (IP6_RT_PRIO_USER).
const METRIC_IPV6: u32 = 1024;
/// Not in `libc` (linux/fib_rules.h).
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_PROTOCOL: u16 = 21;
const TO_TABLE: u8 = 1; // FR_ACT_TO_TBL
const CREATE: i32 = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;

impl Requests {
    /// The routes that carry our mark.
    pub fn virtual_routes(&mut self) -> Result<Vec<VirtualRoute>, NetlinkError> {
        let mut dump = Request::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP, &[0; ROUTE_LEN]);
        self.collect(&mut dump, parse_route)
    }

    /// Sets a route. One of others to the same place, with the same metric, is left alone: that is an error.
    pub fn add_virtual_route(&mut self, route: &VirtualRoute) -> Result<(), NetlinkError> {
        self.order(&mut route_request(libc::RTM_NEWROUTE, CREATE, route))
    }

    /// Removes a route of ours; gone already is fine.
    pub fn remove_virtual_route(&mut self, route: &VirtualRoute) -> Result<(), NetlinkError> {
        gone(self.order(&mut route_request(libc::RTM_DELROUTE, libc::NLM_F_ACK, route)))
    }

    /// The rules that carry our mark.
    pub fn virtual_rules(&mut self) -> Result<Vec<VirtualRule>, NetlinkError> {
        let mut dump = Request::new(libc::RTM_GETRULE, libc::NLM_F_DUMP, &[0; RULE_LEN]);
        self.collect(&mut dump, parse_rule)
    }

    /// Sets a rule.
    pub fn add_virtual_rule(&mut self, rule: &VirtualRule) -> Result<(), NetlinkError> {
        self.order(&mut rule_request(libc::RTM_NEWRULE, CREATE, rule))
    }

    /// Removes a rule of ours; gone already is fine.
    pub fn remove_virtual_rule(&mut self, rule: &VirtualRule) -> Result<(), NetlinkError> {
        gone(self.order(&mut rule_request(libc::RTM_DELRULE, libc::NLM_F_ACK, rule)))
    }

    /// Removes all routes and rules that carry our mark.
    pub fn remove_all_virtual(&mut self) -> Result<(), NetlinkError> {
        for rule in self.virtual_rules()? {
            self.remove_virtual_rule(&rule)?;
        }
        for route in self.virtual_routes()? {
            self.remove_virtual_route(&route)?;
        }
        Ok(())
    }
}

/// Whether what is there is what is wanted, with what the kernel has added where nothing was said.
pub fn is_route(wanted: &VirtualRoute, there: &VirtualRoute) -> bool {
    let metric = match (wanted.metric, wanted.to.address()) {
        (0, IpAddr::V6(_)) => METRIC_IPV6,
        (metric, IpAddr::V6(_) | IpAddr::V4(_)) => metric,
    };
    let (link, to) = (wanted.link.or(there.link), whole(wanted.to));
    *there == VirtualRoute { to, metric, link, ..wanted.clone() }
}

/// The same of rules.
pub fn is_rule(wanted: &VirtualRule, there: &VirtualRule) -> bool {
    let priority = wanted.priority.or(there.priority);
    let (from, to) = (wanted.from.map(whole), wanted.to.map(whole));
    *there == VirtualRule { from, to, priority, ..wanted.clone() }
}

fn gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(NetlinkError::Refused {
            errno: Errno::ESRCH | Errno::ENOENT | Errno::ENODEV, ..
        }) => Ok(()),
        other => other,
    }
}

fn family(address: IpAddr) -> u8 {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    family.to_le_bytes()[0]
}

/// The address without the bits behind its prefix, as the kernel wants it.
fn subnet(cidr: Cidr) -> IpAddr {
    let prefix = u32::from(cidr.prefix());
    match cidr.address() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

fn whole(cidr: Cidr) -> Cidr {
    Cidr::new(subnet(cidr), cidr.prefix()).unwrap_or(cidr)
}

fn route_request(kind: u16, flags: i32, route: &VirtualRoute) -> Request {
    let VirtualRoute { to, via, link, source, table, metric } = route;
    let family = family(to.address());
    // Which is not known where the route is on the link itself.
    let scope = match (via, to.address()) {
        (None, IpAddr::V4(_)) => libc::RT_SCOPE_LINK,
        (Some(_), _) | (None, IpAddr::V6(_)) => libc::RT_SCOPE_UNIVERSE,
    };
    let kind_of = [PROTOCOL_MARK, scope, libc::RTN_UNICAST];
    let fixed = [family, to.prefix(), 0, 0, 0, kind_of[0], kind_of[1], kind_of[2], 0, 0, 0, 0];
    let mut request = Request::new(kind, flags, &fixed);
    if to.prefix() > 0 {
        put_address(&mut request, libc::RTA_DST, subnet(*to));
    }
    if let Some(via) = via {
        put_address(&mut request, libc::RTA_GATEWAY, *via);
    }
    if let Some(link) = link {
        request.attribute(libc::RTA_OIF, &link.0.to_ne_bytes());
    }
    if let Some(source) = source {
        put_address(&mut request, libc::RTA_PREFSRC, *source);
    }
    if *metric > 0 {
        request.attribute(libc::RTA_PRIORITY, &metric.to_ne_bytes());
    }
    request.attribute(libc::RTA_TABLE, &table.to_ne_bytes());
    request
}

fn rule_request(kind: u16, flags: i32, rule: &VirtualRule) -> Request {
    let VirtualRule { v6, from, to, incoming, mark, table, priority } = rule;
    let family = if *v6 { libc::AF_INET6 } else { libc::AF_INET }.to_le_bytes()[0];
    let length = |cidr: &Option<Cidr>| cidr.map_or(0, Cidr::prefix);
    let fixed = [family, length(to), length(from), 0, 0, 0, 0, TO_TABLE, 0, 0, 0, 0];
    let mut request = Request::new(kind, flags, &fixed);
    if let Some(from) = from {
        put_address(&mut request, FRA_SRC, subnet(*from));
    }
    if let Some(to) = to {
        put_address(&mut request, FRA_DST, subnet(*to));
    }
    if let Some(incoming) = incoming {
        let mut name = incoming.as_bytes().to_vec();
        name.push(0);
        request.attribute(FRA_IIFNAME, &name);
    }
    if let Some(mark) = mark {
        request.attribute(FRA_FWMARK, &mark.to_ne_bytes());
    }
    if let Some(priority) = priority {
        request.attribute(FRA_PRIORITY, &priority.to_ne_bytes());
    }
    request.attribute(FRA_TABLE, &table.to_ne_bytes());
    request.attribute(FRA_PROTOCOL, &[PROTOCOL_MARK]);
    request
}

fn anywhere(family: u8) -> IpAddr {
    if i32::from(family) == libc::AF_INET6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

fn parse_route(message: &Message<'_>) -> Option<VirtualRoute> {
    let fixed = message.payload.first_chunk::<ROUTE_LEN>()?;
    if message.kind != libc::RTM_NEWROUTE || fixed[5] != PROTOCOL_MARK {
        return None;
    }
    let (mut to, mut via, mut link, mut source) = (anywhere(fixed[0]), None, None, None);
    let (mut table, mut metric) = (u32::from(fixed[4]), 0);
    for (kind, value) in attributes(message.payload.get(ROUTE_LEN..)?) {
        match kind {
            libc::RTA_DST => to = ip(value)?,
            libc::RTA_GATEWAY => via = ip(value),
            libc::RTA_OIF => link = word(value, 0).map(LinkId),
            libc::RTA_PREFSRC => source = ip(value),
            libc::RTA_PRIORITY => metric = word(value, 0)?,
            libc::RTA_TABLE => table = word(value, 0)?,
            _ => {}
        }
    }
    Some(VirtualRoute { to: Cidr::new(to, fixed[1])?, via, link, source, table, metric })
}

fn parse_rule(message: &Message<'_>) -> Option<VirtualRule> {
    let fixed = message.payload.first_chunk::<RULE_LEN>()?;
    let (mut from, mut to, mut incoming, mut mark) = (None, None, None, None);
    let (mut table, mut priority, mut is_ours) = (u32::from(fixed[4]), 0, false);
    for (kind, value) in attributes(message.payload.get(RULE_LEN..)?) {
        match kind {
            FRA_SRC => from = Cidr::new(ip(value)?, fixed[2]),
            FRA_DST => to = Cidr::new(ip(value)?, fixed[1]),
            FRA_IIFNAME => {
                let name = value.strip_suffix(&[0]).unwrap_or(value);
                incoming = Some(String::from_utf8_lossy(name).into_owned());
            }
            FRA_FWMARK => mark = word(value, 0),
            FRA_PRIORITY => priority = word(value, 0)?,
            FRA_TABLE => table = word(value, 0)?,
            FRA_PROTOCOL => is_ours = value.first() == Some(&PROTOCOL_MARK),
            _ => {}
        }
    }
    let v6 = i32::from(fixed[0]) == libc::AF_INET6;
    let rule = VirtualRule { v6, from, to, incoming, mark, table, priority: Some(priority) };
    is_ours.then_some(rule)
}

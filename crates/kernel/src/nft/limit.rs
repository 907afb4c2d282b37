//! Renders how often a client may connect: one set of buckets and one rule for each service with a limit.
//!
//! It stands behind `deny`, so who is refused anyway takes nothing. Only what opens a connection is looked at:
//! for conntrack a connection that is picked up in its middle is new as well, as after a failover. What is not
//! asked for any more leaves the set by itself, and where a set is full others are let through. A set is named
//! after its limit too, because a bucket keeps the limit that it was made with.

use super::ruleset::Ruleset;
use super::{Family, Forward, Of, counter, name};
use buoy_model::limits::RATE_CLIENTS_MAX;
use buoy_model::{Per, Protocol, Rate};

/// The set of a service with a limit.
pub(super) fn set(forward: &Forward, ruleset: &mut Ruleset) {
    let Some(rate) = forward.new_connections else { return };
    let kind = Family::of(forward.vip).address();
    let definition = format!("type {kind}; size {RATE_CLIENTS_MAX}; flags dynamic, timeout;");
    ruleset.learning(set_of(forward, rate), definition);
}

/// The rule of a service with a limit; it begins with what only new connections match.
pub(super) fn rule(forward: &Forward, family: Family, is_new: &str) -> Option<String> {
    let rate = forward.new_connections?;
    let opens = match forward.protocol {
        Protocol::Tcp => "tcp flags & (syn | ack) == syn ",
        Protocol::Udp => "",
    };
    let client = match family {
        Family::V4 => "ip saddr",
        Family::V6 => "ip6 saddr & ffff:ffff:ffff:ffff::",
    };
    // Whoever has been away so long owes nothing.
    let timeout = rate.span().as_secs() + 1;
    let per = match rate.per() {
        Per::Second => "second",
        Per::Minute => "minute",
        Per::Hour => "hour",
    };
    Some(format!(
        "{is_new}{opens}update @{} {{ {client} timeout {timeout}s limit rate over {}/{per} burst {} packets }} \
         counter name \"{}\" drop",
        set_of(forward, rate),
        rate.number(),
        rate.burst(),
        counter(forward, Of::Limited),
    ))
}

fn set_of(forward: &Forward, rate: Rate) -> String {
    let (letter, number, burst) = (rate.per().letter(), rate.number(), rate.burst());
    format!("{}_limit_{number}{letter}_{burst}", name(forward))
}

//! What VRRP says of a VIP, as values for programs and sentences for people.

use crate::words::span;
use buoy_core::{GroupStatus, RouterState, RouterStatus};
use buoy_model::{AdvertReject, Cause, Fact, router_label};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A virtual router (RFC 9568) that decides who owns a VIP.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct RouterView {
    /// Its identifier (VRID).
    pub id: u8,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// What the answering node is to it: `active`, `backup`, `due` (it could be active, and waits for the others of
    /// its group) or `stopped`.
    pub state: String,
    /// What the answering node says of itself, with what its checks add.
    pub priority: u8,
    /// Time between two advertisements of whoever is active.
    pub interval_ms: u64,
    /// Who was heard last as the active one; null: nobody, or the answering node is.
    pub heard: Option<RouterHeardView>,
    /// A backup: how long until it takes over if nobody better is heard.
    pub takes_over_in_ms: Option<u64>,
    /// The same in a sentence.
    pub says: String,
}

/// Another virtual router, as it was heard last.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct RouterHeardView {
    /// Its address.
    pub source: String,
    /// What it says of itself.
    pub priority: u8,
    /// How long ago.
    pub ago_ms: u64,
}

/// The virtual routers of a group.
pub(crate) fn routers(status: &GroupStatus) -> Vec<RouterView> {
    status.vrrp.iter().map(router).collect()
}

/// Who has the group, if no node of the cluster does: each of its virtual routers hears somebody that is active.
pub(crate) fn elsewhere(status: &GroupStatus) -> Option<String> {
    if status.owner.is_some() || status.vrrp.iter().any(|router| router.heard.is_none()) {
        return None;
    }
    let heard = status.vrrp.first()?.heard?;
    Some(format!("{} (priority {})", heard.source, heard.priority))
}

/// How many packets were refused for which reason.
pub(crate) fn refused(status: &GroupStatus) -> BTreeMap<String, u64> {
    counts(&status.refused)
}

pub(crate) fn counts(counts: &[(AdvertReject, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
}

pub(crate) fn router(router: &RouterStatus) -> RouterView {
    let millis =
        |duration: core::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let is_active = router.state == RouterState::Active;
    RouterView {
        id: router.id,
        family: if router.v6 { "ipv6" } else { "ipv4" }.into(),
        state: match router.state {
            RouterState::Stopped => "stopped",
            RouterState::Backup => "backup",
            RouterState::Due => "due",
            RouterState::Active => "active",
        }
        .into(),
        priority: router.priority,
        interval_ms: millis(router.interval),
        heard: router.heard.filter(|_| !is_active).map(|heard| RouterHeardView {
            source: heard.source.to_string(),
            priority: heard.priority,
            ago_ms: millis(heard.ago),
        }),
        takes_over_in_ms: router.takes_over_in.map(millis),
        says: says(router),
    }
}

fn says(router: &RouterStatus) -> String {
    let RouterStatus { id, v6, priority, .. } = router;
    let label = router_label(*id, *v6);
    match (router.state, router.heard) {
        (RouterState::Stopped, _) => format!("{label}: takes no part in the election here"),
        (RouterState::Due, _) => format!(
            "{label}: could be active with priority {priority}, and waits for the others of its group"
        ),
        (RouterState::Active, _) => format!("{label}: active with priority {priority}"),
        (RouterState::Backup, None) => {
            format!("{label}: backup with priority {priority}; nobody is heard yet")
        }
        (RouterState::Backup, Some(heard)) => format!(
            "{label}: backup with priority {priority}; {} is active with {}, heard {} ago",
            heard.source,
            heard.priority,
            span(heard.ago)
        ),
    }
}

/// What happened, as a sentence; empty where it is not about VRRP.
pub(crate) fn fact(fact: &Fact) -> String {
    if let Fact::AdvertRefused { id, v6, reason, source, count } = fact {
        let times = if *count > 1 { format!(" ({count} such)") } else { String::new() };
        return format!(
            "an advertisement of {} from {source} was refused{times}: it {}{}",
            router_label(*id, *v6),
            reason.clause(),
            advice(*reason)
        );
    }
    if let Fact::AdvertDiffers { id, v6, source, addresses } = fact {
        let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        return format!(
            "{source} says that {} has {}, which is not what this node's file says: make them the \
             same (keepalived up to 2.3.2 refuses such packets, and both own it then)",
            router_label(*id, *v6),
            listed.join(", ")
        );
    }
    String::new()
}

const fn advice(reason: AdvertReject) -> &'static str {
    match reason {
        AdvertReject::Password | AdvertReject::Forged | AdvertReject::Unsigned => {
            ": give both the same keys, or find who sends it"
        }
        AdvertReject::Replayed => ": compare the clocks, or find who repeats it",
        AdvertReject::Interval => ": write the same `interval` on both",
        AdvertReject::Version => ": write the `version` that the other speaks",
        AdvertReject::Stranger => ": add it to `peers`, or find who sends it",
        AdvertReject::Ourselves => ": find who uses this host's address",
        AdvertReject::Destination => ": let both speak in the same way",
        AdvertReject::Ttl => ": set `min_ttl` if it is to come from behind routers",
        AdvertReject::Truncated
        | AdvertReject::Kind
        | AdvertReject::NoAddress
        | AdvertReject::Checksum => "",
    }
}

/// Why a group changed hands, as a clause; `None`: not by VRRP.
pub(crate) fn cause(cause: &Cause) -> Option<String> {
    if let Cause::RouterSilent { source, silent } = cause {
        return Some(format!("the active router {source} was silent for {}", span(*silent)));
    }
    if let Cause::RouterReleased = cause {
        return Some("the active router said that it stops (priority 0)".into());
    }
    if let Cause::RouterWorse { source, priority } = cause {
        return Some(format!("the active router {source} has a lower priority, {priority}"));
    }
    if let Cause::RouterBetter { source, priority } = cause {
        return Some(format!("the router {source} with priority {priority} comes first"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_core::RouterTraffic;
    use core::time::Duration;

    fn status(state: RouterState) -> RouterStatus {
        let heard = buoy_core::RouterHeard {
            source: [10, 0, 0, 2].into(),
            priority: 150,
            ago: Duration::from_millis(300),
        };
        RouterStatus {
            id: 51,
            v6: false,
            state,
            priority: 100,
            interval: Duration::from_secs(1),
            heard: Some(heard),
            takes_over_in: None,
            weight: 0,
            gives_precedence: false,
            traffic: RouterTraffic::default(),
        }
    }

    #[test]
    fn each_state_is_a_sentence() {
        let cases = [
            (RouterState::Stopped, "VRID 51: takes no part in the election here"),
            (RouterState::Active, "VRID 51: active with priority 100"),
            (
                RouterState::Backup,
                "VRID 51: backup with priority 100; 10.0.0.2 is active with 150, heard 300 ms ago",
            ),
            (
                RouterState::Due,
                "VRID 51: could be active with priority 100, and waits for the others of its group",
            ),
        ];
        for (state, sentence) in cases {
            assert_eq!(says(&status(state)), sentence);
        }
        let alone = RouterStatus { heard: None, v6: true, ..status(RouterState::Backup) };
        assert_eq!(says(&alone), "VRID 51 (IPv6): backup with priority 100; nobody is heard yet");
    }

    #[test]
    fn every_refusal_is_a_sentence_that_says_what_to_do() {
        for reason in AdvertReject::ALL {
            let refused = Fact::AdvertRefused {
                id: 51,
                v6: false,
                reason,
                source: [10, 0, 0, 9].into(),
                count: 3,
            };
            let said = fact(&refused);
            let begin = "an advertisement of VRID 51 from 10.0.0.9 was refused (3 such): it ";
            assert!(said.starts_with(begin), "{said}");
        }
    }
}

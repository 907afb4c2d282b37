//! Looks for the backends that the configuration does not name one by one, and makes them part of it.
//!
//! ```text
//! Desired ─► entries, each looked at again and again (look) ─► Looked ─► Accepted: the text is checked again
//!    ▲                                                                   with what was found
//!    └──────────────────────────── published ────────────────────────────────┘
//! ```
//!
//! So backends that were found are the same to all the rest of the agent as those that are written down. What
//! cannot be looked up, or does not pass the checks, changes nothing and is said.

mod accepted;
mod look;

pub(crate) use accepted::Accepted;

use crate::health::rounds::{Kept, Tasks};
use buoy_config::Checked;
use buoy_model::{Desired, Discovery, Mode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time;

/// Between two looks at what cannot be looked at, at first and at most.
const AGAIN_AFTER_ERROR: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the start, or a reload, waits for what it does not know yet.
const PATIENCE: Duration = Duration::from_secs(2);

/// By the text of an entry: what was found as texts of backends, or why nothing was.
pub(crate) type Looked = BTreeMap<String, Result<Vec<String>, String>>;

/// One entry, and what its services can use.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Wanted {
    entry: Discovery,
    ipv4: bool,
    ipv6: bool,
}

/// Starts looking for what the configuration says, now and after every change of it.
pub(crate) fn start(desired: watch::Receiver<Arc<Desired>>) -> Kept<Looked> {
    Kept::start(|looked| follow(desired, looked))
}

async fn follow(mut desired: watch::Receiver<Arc<Desired>>, looked: Arc<watch::Sender<Looked>>) {
    let mut tasks: Tasks<String, Wanted> = Tasks::default();
    loop {
        let wanted = wanted(&desired.borrow_and_update());
        tasks.end(&wanted);
        looked.send_if_modified(|looked| {
            let before = looked.len();
            looked.retain(|entry, _| wanted.contains_key(entry));
            looked.len() != before
        });
        tasks.start(wanted, |text, wanted| {
            tokio::spawn(keep_looking(text, wanted, Arc::clone(&looked))).abort_handle()
        });
        if desired.changed().await.is_err() {
            return;
        }
    }
}

/// Each entry once, however many services have it.
fn wanted(desired: &Desired) -> BTreeMap<String, Wanted> {
    let mut all: BTreeMap<String, Wanted> = BTreeMap::new();
    for service in desired.groups.iter().flat_map(|group| &group.services) {
        for entry in &service.discovered {
            let known = all.entry(entry.text.clone()).or_insert_with(|| Wanted {
                entry: entry.clone(),
                ipv4: false,
                ipv6: false,
            });
            let is_any = service.mode == Mode::Proxy;
            known.ipv4 |= is_any || service.addresses.iter().any(|vip| vip.is_ipv4());
            known.ipv6 |= is_any || service.addresses.iter().any(|vip| vip.is_ipv6());
        }
    }
    all
}

async fn keep_looking(text: String, wanted: Wanted, looked: Arc<watch::Sender<Looked>>) {
    let mut pause = AGAIN_AFTER_ERROR.0;
    loop {
        let (found, again) = match look::look(&wanted).await {
            Ok((texts, again)) => {
                pause = AGAIN_AFTER_ERROR.0;
                (Ok(texts), again)
            }
            Err(reason) => {
                let again = pause;
                pause = (pause * 2).min(AGAIN_AFTER_ERROR.1);
                (Err(reason), again)
            }
        };
        looked.send_if_modified(|looked| {
            let known = looked.get(&text) == Some(&found);
            if !known {
                looked.insert(text.clone(), found);
            }
            !known
        });
        time::sleep(again).await;
    }
}

/// The configuration with its backends: those of the agent's last life, and what is found now and not for long.
pub(crate) async fn begin(accepted: &mut Accepted, checked: Checked) -> Checked {
    let looked = look_for(&checked.desired, &accepted.known()).await;
    accepted.follow(checked, &looked)
}

/// Looks once for all that is not known yet, and not for long.
pub(crate) async fn look_for(desired: &Desired, known: &BTreeSet<String>) -> Looked {
    let mut looks = JoinSet::new();
    for (text, wanted) in wanted(desired) {
        if !known.contains(&text) {
            looks.spawn(async move {
                let found = match time::timeout(PATIENCE, look::look(&wanted)).await {
                    Ok(found) => found.map(|(texts, _)| texts),
                    Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
                };
                (text, found)
            });
        }
    }
    looks.join_all().await.into_iter().collect()
}

#[cfg(test)]
mod tests;

//! Sets the routes and rules of the VIPs that this host has, and removes those of the VIPs that it has not.
//!
//! Beside the loop: a route is no lease, and the kernel's lock may take its time. What is there is read back from the
//! kernel, by our mark: after each change, and every two seconds, so what somebody removes comes back, and what a killed
//! agent left goes.

use crate::daemon::Daemon;
use buoy_core::GroupStatus;
use buoy_kernel::netlink::{NetlinkError, Requests, is_route, is_rule};
use buoy_model::{Desired, VirtualRoute, VirtualRule};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Between two looks at whether all is there.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Until what could not be set is tried again: the address that a route speaks from comes a moment later.
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// So many tries are made before it is told.
const TRIES: u32 = 10;

/// All that should be there.
#[derive(Debug, Default)]
struct Wanted {
    routes: Vec<VirtualRoute>,
    rules: Vec<VirtualRule>,
}

/// Keeps them as they should be, for ever.
pub(crate) async fn keep(daemon: Arc<Daemon>, mut desired: watch::Receiver<Arc<Desired>>) {
    // An earlier run may have left some.
    let (mut were_some, mut tries) = (true, 0);
    loop {
        let revision = daemon.revision();
        let wish = Arc::clone(&desired.borrow_and_update());
        let are_some = wish.groups.iter().any(|g| !g.routes.is_empty() || !g.rules.is_empty());
        if !are_some && !were_some {
            if desired.changed().await.is_err() {
                return;
            }
            continue;
        }
        let wanted = wanted(&daemon, &wish).await;
        let settled = tokio::task::spawn_blocking(move || settle(&wanted)).await;
        let problems = settled.unwrap_or_default();
        were_some = are_some;
        tries = if problems.is_empty() { 0 } else { tries + 1 };
        if tries == TRIES {
            problems.into_iter().for_each(|problem| daemon.refused(problem));
        }
        if (1..TRIES).contains(&tries) {
            tokio::time::sleep(TRY_AGAIN).await;
        } else {
            daemon.other_revision(revision, LOOK_EVERY).await;
        }
    }
}

/// Removes all of them, at the end.
pub(crate) fn remove(desired: &Desired) {
    if desired.groups.iter().any(|g| !g.routes.is_empty() || !g.rules.is_empty()) {
        let removed = Requests::open().and_then(|mut requests| requests.remove_all_virtual());
        if let Err(error) = removed {
            tracing::warn!("routes of VIPs are left: {error}");
        }
    }
}

async fn wanted(daemon: &Daemon, desired: &Desired) -> Wanted {
    let mut wanted = Wanted::default();
    for group in &desired.groups {
        if group.routes.is_empty() && group.rules.is_empty() {
            continue;
        }
        let known = daemon.ask_about(group.id).await;
        let is_mine = |status: &GroupStatus| status.id == group.id && status.lease_left.is_some();
        if known.is_some_and(|status| status.groups.iter().any(is_mine)) {
            wanted.routes.extend(group.routes.iter().cloned());
            wanted.rules.extend(group.rules.iter().cloned());
        }
    }
    wanted
}

/// Makes the kernel have exactly these of ours; what could not be done, as sentences.
fn settle(wanted: &Wanted) -> Vec<String> {
    let mut problems = Vec::new();
    if let Err(error) =
        Requests::open().and_then(|mut r| settle_with(&mut r, wanted, &mut problems))
    {
        problems.push(format!("routes of VIPs cannot be read: {error}"));
    }
    problems
}

fn settle_with(
    requests: &mut Requests,
    wanted: &Wanted,
    problems: &mut Vec<String>,
) -> Result<(), NetlinkError> {
    let (rules, routes) = (requests.virtual_rules()?, requests.virtual_routes()?);
    let mut note = |what: String, done: Result<(), NetlinkError>| {
        problems.extend(done.err().map(|error| format!("{what}: {error}")));
    };
    // A rule without its table sends packets nowhere: it comes last and goes first.
    for rule in rules.iter().filter(|rule| !wanted.rules.iter().any(|w| is_rule(w, rule))) {
        note("a rule cannot be removed".into(), requests.remove_virtual_rule(rule));
    }
    for route in routes.iter().filter(|route| !wanted.routes.iter().any(|w| is_route(w, route))) {
        let what = format!("the route to {} cannot be removed", route.to);
        note(what, requests.remove_virtual_route(route));
    }
    for route in wanted.routes.iter().filter(|w| !routes.iter().any(|there| is_route(w, there))) {
        let what = format!("the route to {} in table {} cannot be set", route.to, route.table);
        note(what, requests.add_virtual_route(route));
    }
    for rule in wanted.rules.iter().filter(|w| !rules.iter().any(|there| is_rule(w, there))) {
        let what = format!("the rule for table {} cannot be set", rule.table);
        note(what, requests.add_virtual_rule(rule));
    }
    Ok(())
}

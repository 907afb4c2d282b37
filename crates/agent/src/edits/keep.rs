//! Keeps what pools gave: once a VIP has an address, a reservation among the edits says so, and no later edit moves it.
//!
//! What an edit brings is kept by the edit itself. What the file brings is kept here, by whichever node comes first.
//! Absent on purpose: haste. Until it is kept, all nodes find the same address all the same.

use super::{Edits, answers, plan};
use crate::server::Agent;
use buoy_model::Desired;
use buoy_store::{Edit, Refused};
use std::sync::Arc;
use std::time::Duration;

/// Between two looks whether something is to be kept. One node after the other has its turn.
const EVERY: Duration = Duration::from_secs(2);
/// Looks that are left out after one in which the nodes could not agree.
const PATIENCE: usize = 30;
/// Whose edits these are: no user of the API has a name with a space.
const USER: &str = "the agent";
const REASON: &str = "VIPs keep what pools gave them";

impl Edits {
    /// Keeps what the configuration in force gave to VIPs, and nothing else; the revision, if that took an edit.
    pub(crate) async fn keep(&self, desired: &Desired) -> Result<Option<u64>, Refused> {
        let state = self.now();
        let changes = plan::upkeep(desired, &state);
        if changes.is_empty() || !self.is_able() || !self.is_in_force() {
            return Ok(None);
        }
        let id = getrandom::u64().map_err(|cause| Refused::Broken(cause.to_string()))?;
        let edit = Edit {
            id,
            on: state.revision,
            user: USER.into(),
            node: desired.node_name(desired.me).to_owned(),
            reason: REASON.into(),
            at_ms: answers::wall_clock(),
            changes,
        };
        let mut next = (*state).clone();
        next.apply(&edit);
        let base = self.held().base.clone();
        match self.valid(base, &next, desired) {
            // A file that gives something else by now is followed by a reload first.
            Ok(whole) if whole.checked.desired.groups == desired.groups => {
                self.store.edit(edit).await.map(Some)
            }
            Ok(_) | Err(_) => Ok(None),
        }
    }

    fn is_able(&self) -> bool {
        self.held().choice != buoy_config::Store::None
    }

    /// Whether something is to be kept.
    fn has_to_keep(&self, desired: &Desired) -> bool {
        self.is_able() && !plan::upkeep(desired, &self.now()).is_empty()
    }
}

/// Keeps what is to be kept, for ever; each node waits for those before it.
pub(crate) async fn keep<A: Agent>(agent: Arc<A>) {
    let (mut waited, mut left_out) = (0, 0_usize);
    loop {
        tokio::time::sleep(EVERY).await;
        let desired = agent.desired();
        if left_out > 0 || !agent.edits().has_to_keep(&desired) {
            left_out = left_out.saturating_sub(1);
            waited = 0;
            continue;
        }
        let place = desired.nodes.iter().position(|node| node.id == desired.me);
        waited += 1;
        if waited <= place.unwrap_or_default() {
            continue;
        }
        match agent.edits().keep(&desired).await {
            Ok(Some(revision)) => {
                tracing::info!(revision, "VIPs keep what pools gave them");
                // What came of it is in the log and in the status.
                drop(agent.follow_edits().await);
            }
            Ok(None) => {}
            Err(refused) => {
                tracing::debug!("what pools gave cannot be kept now: {refused}");
                left_out = PATIENCE;
            }
        }
    }
}

//! Refuses a file that brings an address which somebody else on the segment has.

use super::Daemon;
use crate::conflicts;
use crate::server::{Agent as _, ReloadRefusal};
use buoy_model::Desired;

impl Daemon {
    /// Nobody on the segment may have an address that a file brings; who of the cluster was faster may.
    pub(super) async fn refuse_occupied(
        &self,
        before: &Desired,
        after: &Desired,
    ) -> Result<(), ReloadRefusal> {
        // The file is on its way through the cluster: who was faster may serve the address already.
        let others_are_ahead = async || {
            let status = self.status(None).await.ok();
            let is_it = |node: &buoy_core::NodeStatus| {
                let differs = node.digest.is_some_and(|digest| digest != before.digest);
                node.id != after.me && node.alive && differs
            };
            status.is_some_and(|status| status.nodes.iter().any(is_it))
        };
        if others_are_ahead().await {
            return Ok(());
        }
        let Some(occupied) = conflicts::look(self.edits.probe(), before, after).await else {
            return Ok(());
        };
        tokio::time::sleep(conflicts::SETTLED).await;
        if others_are_ahead().await {
            return Ok(());
        }
        self.keep(occupied.record());
        Err(ReloadRefusal::Invalid(occupied.to_string()))
    }
}

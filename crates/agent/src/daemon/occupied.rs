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
        let others_follow = async || {
            let status = self.status().await.ok();
            let is_it = |node: &buoy_core::NodeStatus| {
                node.id != after.me && node.alive && node.digest == Some(after.digest)
            };
            status.is_some_and(|status| status.nodes.iter().any(is_it))
        };
        if others_follow().await {
            return Ok(());
        }
        let Some(occupied) = conflicts::look(self.edits.probe(), before, after).await else {
            return Ok(());
        };
        tokio::time::sleep(conflicts::SETTLED).await;
        if others_follow().await {
            return Ok(());
        }
        self.keep(occupied.record());
        Err(ReloadRefusal::Invalid(occupied.to_string()))
    }
}

//! Gives the consensus (openraft) its types, its log and its state on disk.
//!
//! What was applied is on disk before it is answered, so a snapshot is simply what there is.

use crate::disk::{Disk, Failed};
use crate::state::{Edit, Outcome, State};
use openraft::storage::{LogFlushed, RaftLogStorage, RaftStateMachine};
use openraft::{
    AnyError, BasicNode, Entry, EntryPayload, LogId, LogState, OptionalSend, RaftLogReader,
    RaftSnapshotBuilder, Snapshot, SnapshotMeta, StorageError, StorageIOError, StoredMembership,
    TokioRuntime, Vote,
};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;
use tokio::sync::watch;

openraft::declare_raft_types!(
    /// Nodes are the numbers of their directories; their names are in the membership.
    pub(crate) Types:
        D = Edit,
        R = Outcome,
        NodeId = u64,
        Node = BasicNode,
        Entry = Entry<Types>,
        SnapshotData = State,
        AsyncRuntime = TokioRuntime,
);

pub(crate) type Raft = openraft::Raft<Types>;
type Id = LogId<u64>;
type Fault = StorageError<u64>;

const VOTE: &str = "vote";
const PURGED: &str = "purged";
const MACHINE: &str = "machine";

/// Disks are slow: what waits for one waits apart from everything else.
async fn apart<T: Send + 'static>(
    disk: &Arc<Disk>,
    work: impl FnOnce(&Disk) -> Result<T, Failed> + Send + 'static,
) -> Result<T, AnyError> {
    let disk = Arc::clone(disk);
    match tokio::task::spawn_blocking(move || work(&disk)).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(cause)) => Err(AnyError::error(cause)),
        Err(cause) => Err(AnyError::new(&cause)),
    }
}

fn write_fault(cause: AnyError) -> Fault {
    StorageIOError::write(cause).into()
}

fn read_fault(cause: AnyError) -> Fault {
    StorageIOError::read(cause).into()
}

/// The log, and the votes.
#[derive(Clone, Debug)]
pub(crate) struct Log(pub(crate) Arc<Disk>);

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, Fault> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        apart(&self.0, move |disk| disk.log(range)).await.map_err(read_fault)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, Fault> {
        let read = |disk: &Disk| Ok((disk.get::<Id>(PURGED)?, disk.last::<Entry<Types>>()?));
        let (purged, last) = apart(&self.0, read).await.map_err(read_fault)?;
        let last = last.map(|entry| entry.log_id).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), Fault> {
        let vote = *vote;
        apart(&self.0, move |disk| disk.put(VOTE, &vote)).await.map_err(write_fault)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, Fault> {
        apart(&self.0, |disk| disk.get(VOTE)).await.map_err(read_fault)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), Fault>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().map(|e| (e.log_id.index, e)).collect();
        let done = apart(&self.0, move |disk| disk.append(&entries)).await;
        let told = match &done {
            Ok(()) => Ok(()),
            Err(cause) => Err(io::Error::other(cause.to_string())),
        };
        callback.log_io_completed(told);
        done.map_err(write_fault)
    }

    async fn truncate(&mut self, from: Id) -> Result<(), Fault> {
        let cut = move |disk: &Disk| disk.cut(from.index.., None::<(&str, &u8)>);
        apart(&self.0, cut).await.map_err(write_fault)
    }

    async fn purge(&mut self, to: Id) -> Result<(), Fault> {
        let cut = move |disk: &Disk| disk.cut(..=to.index, Some((PURGED, &to)));
        apart(&self.0, cut).await.map_err(write_fault)
    }
}

/// What was applied, as it is on disk.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Applied {
    last: Option<Id>,
    membership: StoredMembership<u64, BasicNode>,
    state: State,
}

impl Applied {
    fn snapshot(&self) -> Snapshot<Types> {
        let id = self.last.map_or_else(String::new, |last| last.to_string());
        let meta = SnapshotMeta {
            last_log_id: self.last,
            last_membership: self.membership.clone(),
            snapshot_id: id,
        };
        Snapshot { meta, snapshot: Box::new(self.state.clone()) }
    }
}

/// What edits have become.
#[derive(Debug)]
pub(crate) struct Machine {
    disk: Arc<Disk>,
    applied: Applied,
    shown: watch::Sender<Arc<State>>,
}

impl Machine {
    /// As it is on disk, and shown from now on.
    pub(crate) fn open(disk: Arc<Disk>, shown: watch::Sender<Arc<State>>) -> Result<Self, Failed> {
        let applied: Applied = disk.get(MACHINE)?.unwrap_or_default();
        let machine = Self { disk, applied, shown };
        machine.show();
        Ok(machine)
    }

    /// What peers told at the start may be later than what came of the log so far.
    fn show(&self) {
        let state = &self.applied.state;
        self.shown.send_if_modified(|shown| {
            let is_news = state.revision > shown.revision;
            if is_news {
                *shown = Arc::new(state.clone());
            }
            is_news
        });
    }

    async fn keep(&mut self, applied: Applied) -> Result<(), Fault> {
        let written = applied.clone();
        apart(&self.disk, move |disk| disk.put(MACHINE, &written)).await.map_err(write_fault)?;
        self.applied = applied;
        self.show();
        Ok(())
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Taken;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<Id>, StoredMembership<u64, BasicNode>), Fault> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, Fault>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut applied = self.applied.clone();
        let mut outcomes = Vec::new();
        for entry in entries {
            applied.last = Some(entry.log_id);
            outcomes.push(match entry.payload {
                EntryPayload::Normal(edit) => applied.state.apply(&edit),
                EntryPayload::Membership(membership) => {
                    applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Outcome::Moved(applied.state.revision)
                }
                EntryPayload::Blank => Outcome::Moved(applied.state.revision),
            });
        }
        self.keep(applied).await?;
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Taken {
        Taken(self.applied.clone())
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<State>, Fault> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<State>,
    ) -> Result<(), Fault> {
        let applied = Applied {
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
            state: *snapshot,
        };
        self.keep(applied).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, Fault> {
        Ok(self.applied.last.map(|_| self.applied.snapshot()))
    }
}

/// What there was at a moment.
#[derive(Debug)]
pub(crate) struct Taken(Applied);

impl RaftSnapshotBuilder<Types> for Taken {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, Fault> {
        Ok(self.0.snapshot())
    }
}

//! Keeps what the configuration is made of: the file as it was read last, and what was edited over it.
//!
//! ```text
//! wish ─► plan: which entries ─► the whole text ─► checked as any file ─► the store takes it on that revision ─► reload, on every node
//! ```
//!
//! What was checked is what is taken: an edit that finds others before it is planned and checked again, and is refused
//! where they changed the same entry. A node that cannot put a revision into force goes on with what it had.

mod answers;
mod keep;
mod plan;
#[cfg(test)]
mod pool_tests;
#[cfg(test)]
pub(crate) mod tests;
mod values;

pub(crate) use keep::keep;
pub(crate) use plan::{BackendWish, Place, ServiceWish, Unplanned, Wish};

use crate::configuration::{self, ConfigurationError};
use crate::conflicts::{self, Occupied, Probe};
use buoy_api::EditReply;
use buoy_config::layer::{self, Layered, Over, Unlayable};
use buoy_config::{Checked, Found, Report};
use buoy_model::{Desired, Given};
use buoy_store::{
    Content, Edit, Embedded, Etcd, EtcdTls, Options, Pace, Peer, Peers, Refused, State, Store,
    Summary,
};
use buoy_wire::Keyring;
use plan::Plan;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How long a node whose directory is new waits for what others have.
const LEARN_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the revision that came first may take to arrive here.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How long a revision takes at most from the node where somebody saw it to the one where he edits it.
const LAG_MAX: Duration = Duration::from_secs(1);
/// How often an edit is planned again when others come first.
const TRIES: usize = 8;

/// Checks a whole text for this host.
type Check = Box<dyn Fn(&Layered) -> Result<Checked, ConfigurationError> + Send + Sync>;

/// What the configuration is made of.
pub struct Edits {
    path: PathBuf,
    check: Check,
    store: Store,
    state: watch::Receiver<Arc<State>>,
    held: Mutex<Held>,
    /// Where the last text that was in force is kept, with what lies over the file.
    last: PathBuf,
    told: Option<Told>,
    /// Who has an address that nobody of the cluster had before.
    probe: Probe,
    occupied: watch::Sender<Option<Occupied>>,
}

/// What the store is told of the file.
struct Told {
    peers: watch::Sender<Arc<Peers>>,
    keys: watch::Sender<Keyring>,
}

/// What is in force.
struct Held {
    /// The file as it was read last and taken.
    base: String,
    revision: u64,
    /// Where edits are kept, by the file.
    choice: buoy_config::Store,
    problem: Option<String>,
}

/// A configuration that could be in force.
pub(crate) struct Whole {
    pub(crate) checked: Checked,
    base: String,
    layered: Layered,
    revision: u64,
}

/// Who edits, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct By {
    pub(crate) user: String,
    pub(crate) reason: String,
    /// The revision that the editor has seen; `None`: the one that holds.
    pub(crate) seen: Option<u64>,
    pub(crate) dry_run: bool,
}

/// Why an edit was not taken.
#[derive(Debug)]
pub(crate) enum EditRefusal {
    Unplanned(Unplanned),
    /// Somebody else has changed the same since.
    Conflict {
        key: String,
        user: String,
        at_ms: u64,
        revision: u64,
        now: u64,
    },
    /// Nobody can have seen that here: it is a revision of another store, or of this one before it was lost.
    Unseen {
        seen: u64,
        now: u64,
    },
    Unlayable(Unlayable),
    Invalid(Box<Report>),
    /// It cannot be put into force by a reload: why.
    Needs(String),
    /// Somebody on the segment has an address that is new.
    Occupied(Occupied),
    /// A VIP that it is not about would lose the address that a pool gave it.
    Taken(Given),
    /// This host cannot be looked at.
    Host(String),
    Store(Refused),
    /// The file says that nothing can be edited.
    Off,
}

impl From<Unplanned> for EditRefusal {
    fn from(unplanned: Unplanned) -> Self {
        Self::Unplanned(unplanned)
    }
}

impl From<ConfigurationError> for EditRefusal {
    fn from(error: ConfigurationError) -> Self {
        match error {
            ConfigurationError::Invalid(report) => Self::Invalid(Box::new(report)),
            ConfigurationError::Unlayable(why) => Self::Unlayable(why),
            ConfigurationError::Host(cause) => Self::Host(cause.to_string()),
        }
    }
}

/// An edit on a revision, and what it means there.
struct Planned {
    edit: Edit,
    reply: EditReply,
    /// What would hold, if it is valid.
    whole: Option<Whole>,
}

#[derive(Deserialize, Serialize)]
struct Last {
    revision: u64,
    text: String,
}

impl Told {
    fn follow(&self, checked: &Checked) {
        let peers = Arc::new(peers(&checked.desired));
        self.peers.send_if_modified(|known| {
            let differs = *known != peers;
            known.clone_from(&peers);
            differs
        });
        let ids = |keys: &Keyring| keys.ids().collect::<Vec<_>>();
        self.keys.send_if_modified(|known| {
            let differs = ids(known) != ids(&checked.keyring);
            known.clone_from(&checked.keyring);
            differs
        });
    }
}

impl Edits {
    /// Opens the store that the file asks for; where that fails, the agent goes on without, and says so.
    pub(crate) async fn start(path: &Path, directory: &Path, file: &Checked) -> Self {
        let (peers, watched) = watch::channel(Arc::new(peers(&file.desired)));
        let (keys, keyring) = watch::channel(file.keyring.clone());
        let opened = match &file.store {
            buoy_config::Store::None => Ok(Store::nowhere("the file says store = \"none\"")),
            buoy_config::Store::Embedded => {
                let kept = directory.to_owned();
                let options =
                    Options { directory: kept, peers: watched, keys: keyring, pace: Pace::CALM };
                Embedded::start(options, LEARN_TIMEOUT).await.map(Store::Embedded)
            }
            buoy_config::Store::Etcd { servers, tls } => {
                let cluster = &file.desired.cluster_name;
                let tls = tls.as_ref().map(|buoy_config::EtcdTls { ca, identity }| EtcdTls {
                    ca: ca.into(),
                    identity: identity.as_ref().map(|(cert, key)| (cert.into(), key.into())),
                });
                let etcd = (servers.clone(), tls);
                let etcd = Etcd::start(etcd, cluster, directory, LEARN_TIMEOUT).await;
                etcd.map(Store::Etcd)
            }
        };
        let mut problem = None;
        let store = opened.unwrap_or_else(|cause| {
            let told = format!(
                "edits of other nodes do not come here: the store in {} does not open: {cause}; move it away \
                 and restart the agent",
                directory.display()
            );
            tracing::error!("{told}");
            problem = Some(told.clone());
            Store::nowhere(told)
        });
        let base = file.text.clone();
        let host_path = path.to_owned();
        let check = move |layered: &Layered| {
            let host = configuration::this_host().map_err(ConfigurationError::Host)?;
            let checked = buoy_config::check_again(&layered.text, &host_path, &host, &Found::new());
            checked.map_err(|report| ConfigurationError::Invalid(report.over(&layered.layers)))
        };
        let last = directory.join("last.json");
        let base = (base, file.store.clone());
        let edits = Self {
            told: Some(Told { peers, keys }),
            probe: conflicts::of_this_host(),
            ..Self::with(path, base, store, Box::new(check), last)
        };
        edits.held().problem = problem;
        edits
    }

    fn with(
        path: &Path,
        (base, choice): (String, buoy_config::Store),
        store: Store,
        check: Check,
        last: PathBuf,
    ) -> Self {
        let state = store.state();
        let held = Mutex::new(Held { base, revision: 0, choice, problem: None });
        let (path, probe) = (path.to_owned(), Arc::new(|_: &_| None));
        let (occupied, _) = watch::channel(None);
        Self { path, check, store, state, held, last, told: None, probe, occupied }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What was edited, as far as this node knows.
    pub(crate) fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    /// Where edits are kept, and by which the nodes speak to each other.
    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }

    fn now(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// The revision that holds.
    pub(crate) fn revision(&self) -> u64 {
        self.now().revision
    }

    /// Whether the revision that holds is the one in force here.
    pub(crate) fn is_in_force(&self) -> bool {
        self.now().revision == self.held().revision
    }

    /// What to begin with: the file with what was edited; where that is not valid, what was in force in the agent's
    /// last life; else the file alone.
    pub(crate) fn begin(&self, file: Checked) -> Checked {
        let base = file.text.clone();
        let refused = match self.whole(base.clone()) {
            Ok(whole) => {
                let checked = whole.checked.clone();
                self.hold(&whole);
                return checked;
            }
            Err(refused) => refused,
        };
        tracing::error!("what was edited is refused on this node:\n{refused}");
        let known = fs::read(&self.last).ok();
        let known: Option<Last> = known.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let last = known.and_then(|Last { revision, text }| {
            let layered = Layered { text, layers: Vec::new() };
            Some(((self.check)(&layered).ok()?, revision))
        });
        let instead = match last {
            Some(_) => "what was in force before goes on",
            None => "the file alone is in force",
        };
        let mut held = self.held();
        held.problem = Some(format!(
            "what was edited is refused on this node, and {instead}: {}",
            refused.to_string().lines().next().unwrap_or_default()
        ));
        let (checked, revision) = last.unwrap_or((file, 0));
        held.revision = revision;
        checked
    }

    /// The configuration of a file with what was edited over it, if it is valid.
    pub(crate) fn whole(&self, base: String) -> Result<Whole, ConfigurationError> {
        let state = self.now();
        self.whole_of(base, &state)
    }

    /// The same with the file as it was read last.
    pub(crate) fn whole_again(&self) -> Result<Whole, ConfigurationError> {
        let base = self.held().base.clone();
        self.whole(base)
    }

    /// The file as it is on disk.
    pub(crate) fn read(&self) -> Result<String, ConfigurationError> {
        buoy_config::read_text(&self.path).map_err(ConfigurationError::Invalid)
    }

    fn whole_of(&self, base: String, state: &State) -> Result<Whole, ConfigurationError> {
        let layered =
            layer::lay_over(&base, &overs(state)).map_err(ConfigurationError::Unlayable)?;
        let checked = (self.check)(&layered)?;
        Ok(Whole { checked, base, layered, revision: state.revision })
    }

    /// Why it needs more than a reload: where edits are kept is decided when the agent starts.
    pub(crate) fn refuse_other_store(&self, whole: &Whole) -> Option<String> {
        let differs = whole.checked.store != self.held().choice;
        differs.then(|| "`store` changed: restart the agent".to_owned())
    }

    /// It is in force now.
    pub(crate) fn hold(&self, whole: &Whole) {
        let Whole { checked, base, layered, revision } = whole;
        let mut held = self.held();
        held.base.clone_from(base);
        held.revision = *revision;
        held.problem = None;
        drop(held);
        if let Some(told) = &self.told {
            told.follow(checked);
        }
        if *revision > 0
            && let Err(cause) = self.keep_last(&layered.text, *revision)
        {
            tracing::warn!("{} cannot be written: {cause}", self.last.display());
        }
    }

    /// Whole or not at all: a reader never sees half a file.
    fn keep_last(&self, text: &str, revision: u64) -> std::io::Result<()> {
        let new = self.last.with_extension("new");
        let last = Last { revision, text: text.to_owned() };
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(&last)?)?;
        file.sync_all()?;
        fs::rename(&new, &self.last)
    }

    /// What does not work, in sentences that say what to do.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut all = self.store.problems();
        all.extend(self.held().problem.clone());
        all
    }

    fn summary(&self) -> Summary {
        self.store.summary()
    }

    /// Has an edit taken, or says what it would be. It is in force here after the next reload.
    pub(crate) async fn edit(
        &self,
        wish: &Wish,
        by: &By,
        before: &Desired,
    ) -> Result<EditReply, EditRefusal> {
        if self.held().choice == buoy_config::Store::None {
            return Err(EditRefusal::Off);
        }
        let seen = match by.seen {
            Some(seen) => self.arrived(seen).await?,
            None => self.now().revision,
        };
        let id = getrandom::u64().map_err(|cause| EditRefusal::Host(cause.to_string()))?;
        for _ in 0..TRIES {
            let state = self.now();
            let Planned { edit, reply, whole } = self.plan(wish, by, (seen, id), &state, before)?;
            if let Some(whole) = whole {
                self.refuse_occupied(before, &whole.checked.desired).await?;
            }
            if by.dry_run || edit.changes.is_empty() {
                return Ok(reply);
            }
            match self.store.edit(edit).await {
                Ok(revision) => return Ok(EditReply { revision, ..reply }),
                Err(Refused::Moved(revision)) => {
                    let mut state = self.state();
                    let arrived = state.wait_for(|state| state.revision >= revision);
                    // Else it is planned on what is known, and refused again.
                    let _ = tokio::time::timeout(CATCH_UP, arrived).await;
                }
                Err(refused) => return Err(EditRefusal::Store(refused)),
            }
        }
        Err(EditRefusal::Store(Refused::Moved(self.now().revision)))
    }

    /// Waits for a revision that was seen on another node a moment ago.
    async fn arrived(&self, seen: u64) -> Result<u64, EditRefusal> {
        let mut state = self.state();
        let arrived = state.wait_for(|state| state.revision >= seen);
        match tokio::time::timeout(LAG_MAX, arrived).await {
            Ok(Ok(_)) => Ok(seen),
            Ok(Err(_)) | Err(_) => Err(EditRefusal::Unseen { seen, now: self.now().revision }),
        }
    }

    /// The edit on a revision, and what it means there.
    fn plan(
        &self,
        wish: &Wish,
        by: &By,
        (seen, id): (u64, u64),
        state: &State,
        before: &Desired,
    ) -> Result<Planned, EditRefusal> {
        let base = self.held().base.clone();
        let plan = Plan::new(&base, state)?;
        let changes = plan.changes(&match wish {
            Wish::Put(asked, value) => Wish::Put(plan.meant(asked, before), value.clone()),
            Wish::Patch(asked, value) => Wish::Patch(plan.meant(asked, before), value.clone()),
            Wish::Remove(asked) => Wish::Remove(plan.meant(asked, before)),
            Wish::Service(place, wish) => Wish::Service(place.meant(&plan, before), wish.clone()),
            Wish::Text(_)
            | Wish::Add(_)
            | Wish::Backend(..)
            | Wish::Reserve(..)
            | Wish::Free(_)
            | Wish::Rollback(_) => wish.clone(),
        })?;
        for change in &changes {
            if let Some((user, at_ms, revision)) = state.changed_since(&change.key, seen) {
                let (key, now) = (change.key.clone(), state.revision);
                return Err(EditRefusal::Conflict { key, user, at_ms, revision, now });
            }
        }
        let mut edit = Edit {
            id,
            on: state.revision,
            user: by.user.clone(),
            node: before.node_name(before.me).to_owned(),
            reason: by.reason.clone(),
            at_ms: answers::wall_clock(),
            changes,
        };
        let mut reply = EditReply {
            node: edit.node.clone(),
            revision: state.revision,
            dry_run: by.dry_run,
            valid: true,
            ..EditReply::default()
        };
        let after = |edit: &Edit| {
            let mut next = state.clone();
            next.apply(edit);
            next
        };
        let mut whole = self.valid(base.clone(), &after(&edit), before);
        if let Ok(fair) = &whole
            && !edit.changes.is_empty()
        {
            let desired = &fair.checked.desired;
            if let Some(given) = plan::lost(before, desired, &edit.changes) {
                return Err(EditRefusal::Taken(given));
            }
            // What a VIP gets of a pool with this edit, it keeps.
            let kept = plan::upkeep(desired, &after(&edit));
            if !kept.is_empty() {
                edit.changes.extend(kept);
                whole = self.valid(base.clone(), &after(&edit), before);
            }
        }
        reply.diff = answers::difference(&base, state, &edit.changes);
        let whole = match whole {
            Ok(whole) => {
                reply.changes = configuration::changes(before, &whole.checked.desired);
                reply.problems = answers::problems(&whole.checked.warnings);
                Some(whole)
            }
            Err(EditRefusal::Invalid(report)) if by.dry_run => {
                (reply.valid, reply.problems) = (false, answers::problems(&report));
                None
            }
            Err(refusal) => return Err(refusal),
        };
        Ok(Planned { edit, reply, whole })
    }

    /// Nobody on the segment may have an address that comes into the configuration.
    async fn refuse_occupied(&self, before: &Desired, after: &Desired) -> Result<(), EditRefusal> {
        match conflicts::look(&self.probe, before, after).await {
            None => Ok(()),
            Some(occupied) => {
                self.occupied.send_replace(Some(occupied.clone()));
                Err(EditRefusal::Occupied(occupied))
            }
        }
    }

    /// What asks who has an address.
    pub(crate) const fn probe(&self) -> &Probe {
        &self.probe
    }

    /// The latest address that somebody else had when an edit wanted it.
    pub(crate) fn occupied(&self) -> watch::Receiver<Option<Occupied>> {
        self.occupied.subscribe()
    }

    /// Whether a text could be a file of this host.
    pub(crate) fn validate(&self, text: String, node: &str) -> Result<EditReply, EditRefusal> {
        let revision = self.now().revision;
        let reply =
            EditReply { node: node.into(), revision, dry_run: true, ..EditReply::default() };
        match (self.check)(&Layered { text, layers: Vec::new() }) {
            Ok(checked) => {
                let problems = answers::problems(&checked.warnings);
                Ok(EditReply { valid: true, problems, ..reply })
            }
            Err(ConfigurationError::Invalid(report)) => {
                Ok(EditReply { problems: answers::problems(&report), ..reply })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn valid(&self, base: String, next: &State, before: &Desired) -> Result<Whole, EditRefusal> {
        let whole = self.whole_of(base, next)?;
        match configuration::needs_more_than_a_reload(before, &whole.checked.desired) {
            Some(why) => Err(EditRefusal::Needs(why)),
            None => Ok(whole),
        }
    }
}

/// What lies over the file.
fn overs(state: &State) -> Vec<Over> {
    let over = |(key, entry): (&String, &buoy_store::Entry)| {
        let table = match &entry.content {
            Content::AsFile => return None,
            Content::Hidden => None,
            // What no node would have taken is as if nobody had said it.
            Content::Set(value) => Some(plan::table(value).ok()?),
        };
        let hidden = if table.is_none() { "hidden by " } else { "" };
        let remark = format!("{key}: {hidden}revision {} of {}", entry.revision, entry.user);
        Some(Over { key: key.clone(), remark, table })
    };
    state.entries.iter().filter_map(over).collect()
}

fn peers(desired: &Desired) -> Peers {
    let peer = |node: &buoy_model::Node| Peer {
        name: node.name.clone(),
        addresses: node.addresses.clone(),
        witness: node.witness,
    };
    Peers {
        me: desired.node_name(desired.me).to_owned(),
        cluster: desired.cluster.0,
        nodes: desired.nodes.iter().map(peer).collect(),
    }
}

//! Has the nodes of the file agree on the order of edits: founds, joins, replaces who lost its directory, and hands
//! edits to who leads.
//!
//! A member is a directory, not a name: the leader greets the nodes of its file, takes in directories it does not
//! know, in place of others of the same name, and leaves out nodes that left the file. The first membership is made
//! by one and the same node (`Peers::founder`), with the first edit, when a majority of the file answers that it has
//! none.

use crate::disk::{Disk, Failed};
use crate::errand::{Arrived, Done, Errand, Lost, WAITING_MAX};
use crate::net::{Answer, Ask, Greeting, Lane, Members, Net};
use crate::raft::{Log, Machine, Raft};
use crate::serve;
use crate::state::{Edit, Outcome, State};
use crate::tls::Tls;
use crate::{Peers, Refused};
use buoy_wire::Keyring;
use openraft::{BasicNode, Config, ServerState, SnapshotPolicy};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

const HISTORY: &str = "history";
/// The history that this node has begun itself.
const FOUNDING: &str = "founding";
/// How long all of an edit may take: longer than it takes to find another leader.
const EDIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node may take to say who it is.
const GREET_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an errand may take to be sent, and then to be done.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(4);
/// How long an edit waits before it looks again for who leads.
const AGAIN: Duration = Duration::from_millis(150);
/// How long a majority may be silent before that is a problem.
const SILENCE: Duration = Duration::from_secs(6);

/// How fast the nodes look at each other. No address depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two signs of life of the leader.
    pub heartbeat: Duration,
    /// How long it may be silent, at least; at most twice as long.
    pub election: Duration,
    /// Between two looks of the leader at who is a member.
    pub tidy: Duration,
}

impl Pace {
    /// For hosts: cheap.
    pub const CALM: Self = Self {
        heartbeat: Duration::from_millis(500),
        election: Duration::from_millis(1500),
        tidy: Duration::from_secs(2),
    };
}

/// What a node brings along.
#[derive(Debug)]
pub struct Options {
    /// Where it keeps what was agreed.
    pub directory: PathBuf,
    /// Who agrees.
    pub peers: watch::Receiver<Arc<Peers>>,
    /// The keys of the cluster.
    pub keys: watch::Receiver<Keyring>,
    /// How fast.
    pub pace: Pace,
}

/// The store among the nodes of the file; ends when it is dropped.
pub struct Embedded {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

/// What the tasks of one node have in common.
pub(crate) struct Shared {
    pub(crate) net: Arc<Net>,
    pub(crate) raft: Raft,
    pub(crate) incarnation: u64,
    pub(crate) keys: watch::Receiver<Keyring>,
    disk: Arc<Disk>,
    shown: watch::Sender<Arc<State>>,
    founding: tokio::sync::Mutex<()>,
    problems: Mutex<BTreeMap<String, String>>,
    /// Who does what others send.
    runner: Mutex<Option<mpsc::Sender<Arrived>>>,
}

impl Embedded {
    /// Starts with what is on disk, and listens. A node whose directory is new asks the others first what they
    /// have, for `wait` at most.
    pub async fn start(options: Options, wait: Duration) -> Result<Self, Failed> {
        let Options { directory, peers, keys, pace } = options;
        let disk = tokio::task::spawn_blocking(move || Disk::open(&directory)).await??;
        let disk = Arc::new(disk);
        let (shown, _) = watch::channel(Arc::new(State::default()));
        let tls = Tls::new(&keys.borrow(), peers.borrow().cluster)?;
        let history = disk.get(HISTORY)?.unwrap_or_default();
        let net = Arc::new(Net::new(peers, history, tls));
        if disk.is_new() {
            let heard = net.greet(true, wait).await;
            let states = heard.into_iter().filter_map(|(_, greeting)| greeting.state);
            if let Some(latest) = states.max_by_key(|state| state.revision) {
                shown.send_replace(Arc::new(latest));
            }
        }
        let machine = Machine::open(Arc::clone(&disk), shown.clone())?;
        let (log, members) = (Log(Arc::clone(&disk)), Members(Arc::clone(&net)));
        let incarnation = disk.incarnation();
        let raft = Raft::new(incarnation, Arc::new(config(pace)?), members, log, machine).await?;
        // It ended between the two steps of a founding, so nobody else has heard of that history.
        let is_begun = disk.get::<u64>(FOUNDING)? == Some(history);
        if is_begun && !raft.is_initialized().await? {
            net.history.store(0, Ordering::SeqCst);
        }
        let shared = Arc::new(Shared {
            net,
            raft,
            incarnation,
            keys,
            disk,
            shown,
            founding: tokio::sync::Mutex::default(),
            problems: Mutex::default(),
            runner: Mutex::default(),
        });
        let tasks = [
            tokio::spawn(serve::listen(Arc::clone(&shared))).abort_handle(),
            tokio::spawn(follow_keys(Arc::clone(&shared))).abort_handle(),
            tokio::spawn(tidy(Arc::clone(&shared), pace)).abort_handle(),
        ];
        Ok(Self { shared, tasks: tasks.into() })
    }

    /// What was edited, as far as this node knows.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.shared.shown.subscribe()
    }

    /// Has the nodes take an edit: the number of the revision it became. Afterwards this node has it too.
    pub async fn edit(&self, edit: Edit) -> Result<u64, Refused> {
        let revision = self.shared.edit(&edit).await?;
        let mut state = self.state();
        let known = state.wait_for(|state| state.revision >= revision);
        // It is agreed in any case, and comes later.
        let _ = timeout(GREET_TIMEOUT, known).await;
        Ok(revision)
    }

    /// Sends an errand to a node, once, and waits for what came of it.
    pub async fn send(&self, node: &str, errand: Errand) -> Result<Done, Lost> {
        self.shared.net.send(node, errand, ERRAND_TIMEOUT).await
    }

    /// The errands that other nodes send here from now on. The latest who asks gets them.
    pub fn errands(&self) -> mpsc::Receiver<Arrived> {
        let (sender, arrived) = mpsc::channel(WAITING_MAX);
        *self.shared.runner.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        arrived
    }

    /// The name of the node that orders edits, where one does.
    pub fn leader(&self) -> Option<String> {
        self.shared.leader()
    }

    /// The names of those whose majority takes an edit; none before the first edit. While a directory takes the
    /// place of another one, the name is there twice.
    pub fn voters(&self) -> Vec<String> {
        let known = self.shared.raft.metrics().borrow().membership_config.clone();
        let name = |id| Some(known.membership().get_node(&id)?.addr.clone());
        let mut names: Vec<String> = known.voter_ids().filter_map(name).collect();
        names.sort();
        names
    }

    /// Whether this node is one of them.
    pub fn is_voter(&self) -> bool {
        let known = self.shared.raft.metrics().borrow().membership_config.clone();
        known.voter_ids().any(|id| id == self.shared.incarnation)
    }

    /// What does not work, in sentences that say what to do.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems.values().cloned().collect()
    }

    /// Ends it, so that its directory can be opened again.
    pub async fn stop(self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let disk = Arc::downgrade(&self.shared.disk);
        let until = Instant::now() + EDIT_TIMEOUT;
        let _ = timeout(EDIT_TIMEOUT, self.shared.raft.shutdown()).await;
        drop(self);
        // Tasks that are told to end let go of it one after the other; the process ends what does not.
        while disk.strong_count() > 0 && Instant::now() < until {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        let raft = self.shared.raft.clone();
        // It would go on by itself. Outside a runtime there is nothing that goes on.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { raft.shutdown().await });
        }
    }
}

fn config(pace: Pace) -> Result<Config, Failed> {
    let millis = |time: Duration| u64::try_from(time.as_millis());
    let config = Config {
        cluster_name: "buoy".into(),
        heartbeat_interval: millis(pace.heartbeat)?,
        election_timeout_min: millis(pace.election)?,
        election_timeout_max: millis(pace.election * 2)?,
        // So many edits of the largest size fit a message.
        max_payload_entries: 8,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(200),
        max_in_snapshot_log_to_keep: 100,
        ..Config::default()
    };
    Ok(config.validate()?)
}

/// How to reach who may lead.
enum Lead {
    /// This node.
    Here,
    There(String),
    Nobody,
}

impl Shared {
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.shown.borrow())
    }

    pub(crate) fn history(&self) -> u64 {
        self.net.history.load(Ordering::SeqCst)
    }

    pub(crate) fn leader(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&leader)?;
        Some(node.addr.clone())
    }

    /// Says or takes back a problem.
    /// Has an errand of that node done here.
    pub(crate) async fn run(
        &self,
        from: String,
        errand: Errand,
    ) -> Result<Option<Done>, &'static str> {
        let runner = self.runner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (answer, report) = oneshot::channel();
        let gone = "its agent takes no orders of other nodes at the moment";
        let sent = runner.ok_or(gone)?.try_send(Arrived { from, errand, answer });
        sent.map_err(|_| gone)?;
        Ok(report.await.ok())
    }

    pub(crate) fn say(&self, about: String, problem: Option<String>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => {
                if problems.get(&about) != Some(&problem) {
                    tracing::warn!("{problem}");
                }
                problems.insert(about, problem);
            }
            None => drop(problems.remove(&about)),
        }
    }

    /// A node that is of no history yet is of the first one that it hears of, for good.
    pub(crate) async fn join_history(&self, history: u64) -> Result<(), Failed> {
        if history != 0 && history == self.history() {
            return Ok(());
        }
        let _one_at_a_time = self.founding.lock().await;
        self.begin_history(history).await
    }

    async fn begin_history(&self, history: u64) -> Result<(), Failed> {
        let ours = self.history();
        if history == 0 || (ours != 0 && ours != history) {
            return Err("another history".into());
        }
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || disk.put(HISTORY, &history)).await??;
        self.net.history.store(history, Ordering::SeqCst);
        Ok(())
    }

    /// Has the edit taken by whoever leads.
    async fn edit(self: &Arc<Self>, edit: &Edit) -> Result<u64, Refused> {
        let until = Instant::now() + EDIT_TIMEOUT;
        let mut last = Refused::NotLeader;
        let mut is_sent = false;
        while Instant::now() < until {
            let tried = match self.who_leads().await {
                Lead::Here => self.edit_here(edit).await,
                Lead::There(name) => {
                    is_sent = true;
                    self.edit_there(&name, edit, until).await
                }
                Lead::Nobody => Err(Refused::NotLeader),
            };
            match tried {
                Err(Refused::NotLeader) => {}
                Err(Refused::Unsure) => last = Refused::Unsure,
                // What was said before may be the only trace of what was done.
                Err(Refused::Moved(_)) if is_sent && self.state().find(edit.id).is_some() => {}
                other => return other,
            }
            if let Some(revision) = self.state().find(edit.id) {
                return Ok(revision);
            }
            sleep(AGAIN).await;
        }
        if last == Refused::NotLeader {
            let heard = self.net.greet(false, GREET_TIMEOUT).await;
            return Err(self.too_few(&heard));
        }
        Err(last)
    }

    async fn who_leads(self: &Arc<Self>) -> Lead {
        let me = self.net.peers.borrow().me.clone();
        let lead = |leader: Option<String>| match leader {
            Some(name) if name == me => Lead::Here,
            Some(name) => Lead::There(name),
            None => Lead::Nobody,
        };
        if self.history() != 0 {
            return lead(self.leader());
        }
        // Others may have a history that has not come here yet.
        let heard = self.net.greet(false, GREET_TIMEOUT).await;
        if let Some((_, greeting)) = heard.iter().find(|(_, greeting)| greeting.history != 0) {
            return lead(greeting.leader.clone());
        }
        lead(self.net.peers.borrow().founder().map(str::to_owned))
    }

    async fn edit_there(&self, name: &str, edit: &Edit, until: Instant) -> Result<u64, Refused> {
        let ask = Ask::Edit(edit.clone());
        let limit = until.saturating_duration_since(Instant::now());
        match self.net.ask(name, (Lane::Edit, 0), ask, limit).await {
            Ok(Answer::Edit(answer)) => answer,
            Ok(_) => Err(Refused::NotLeader),
            Err(cause) if cause.kind() == std::io::ErrorKind::TimedOut => Err(Refused::Unsure),
            Err(_) if self.history() == 0 => Err(Refused::NoFounder(name.to_owned())),
            Err(_) => Err(Refused::NotLeader),
        }
    }

    /// Takes the edit if this node leads, or has to begin.
    pub(crate) async fn edit_here(self: &Arc<Self>, edit: &Edit) -> Result<u64, Refused> {
        if self.history() == 0 {
            self.found().await?;
        }
        let asked = timeout(GREET_TIMEOUT, self.raft.ensure_linearizable()).await;
        if !matches!(asked, Ok(Ok(_))) {
            if self.raft.metrics().borrow().state != ServerState::Leader {
                return Err(Refused::NotLeader);
            }
            // Refused before it is in the log: what is there may be taken later.
            let heard = self.net.greet(false, GREET_TIMEOUT).await;
            return Err(self.too_few(&heard));
        }
        let written = timeout(EDIT_TIMEOUT / 2, self.raft.client_write(edit.clone())).await;
        match written {
            Ok(Ok(response)) => match response.data {
                Outcome::Taken(revision) => Ok(revision),
                Outcome::Moved(revision) => Err(Refused::Moved(revision)),
                Outcome::Full(why) => Err(Refused::Full(why)),
            },
            Ok(Err(cause)) if cause.forward_to_leader::<BasicNode>().is_some() => {
                Err(Refused::NotLeader)
            }
            Ok(Err(cause)) => Err(Refused::Broken(cause.to_string())),
            Err(_) => Err(Refused::Unsure),
        }
    }

    fn too_few(&self, heard: &[(String, Greeting)]) -> Refused {
        let peers = self.net.peers.borrow();
        let is_silent = |name: &&str| **name != peers.me && !heard.iter().any(|(h, _)| h == *name);
        let names = peers.nodes.iter().map(|peer| peer.name.as_str());
        let silent: Vec<String> = names.filter(is_silent).map(str::to_owned).collect();
        if silent.is_empty() {
            return Refused::NotLeader;
        }
        Refused::NoMajority { silent, needed: peers.majority(), of: peers.nodes.len() }
    }

    /// Makes the first membership, of all that answer.
    async fn found(&self) -> Result<(), Refused> {
        let _one_at_a_time = self.founding.lock().await;
        if self.history() != 0 {
            return Ok(());
        }
        let peers = self.net.peers.borrow().clone();
        if peers.founder() != Some(peers.me.as_str()) {
            return Err(Refused::NotLeader);
        }
        let heard = self.net.greet(false, GREET_TIMEOUT).await;
        if heard.iter().any(|(_, greeting)| greeting.history != 0) {
            return Err(Refused::NotLeader);
        }
        if heard.len() + 1 < peers.majority() {
            return Err(self.too_few(&heard));
        }
        let broken = |cause: Failed| Refused::Broken(cause.to_string());
        let history = getrandom::u64().map_err(|cause| broken(cause.into()))?.max(1);
        let mut members = BTreeMap::from([(self.incarnation, BasicNode::new(&peers.me))]);
        members.extend(heard.iter().map(|(name, g)| (g.incarnation, BasicNode::new(name))));
        self.begin(history, members).await.map_err(broken)?;
        let wait = self.raft.wait(Some(EDIT_TIMEOUT / 2));
        let led = wait.metrics(|m| m.current_leader.is_some(), "somebody leads").await;
        led.map(drop).map_err(|_| Refused::NotLeader)
    }

    async fn begin(&self, history: u64, members: BTreeMap<u64, BasicNode>) -> Result<(), Failed> {
        let disk = Arc::clone(&self.disk);
        tokio::task::spawn_blocking(move || disk.put(FOUNDING, &history)).await??;
        // The history first: a membership without one could not tell the others of itself.
        self.begin_history(history).await?;
        Ok(self.raft.initialize(members).await?)
    }
}

/// Uses other keys when the file says so.
async fn follow_keys(shared: Arc<Shared>) {
    let mut keys = shared.keys.clone();
    while keys.changed().await.is_ok() {
        let cluster = shared.net.peers.borrow().cluster;
        let made = Tls::new(&keys.borrow_and_update(), cluster);
        match made {
            Ok(tls) => {
                shared.net.change_keys(tls);
                shared.say("keys".into(), None);
            }
            Err(cause) => shared.say(
                "keys".into(),
                Some(format!("the store goes on with the keys it had: {cause}")),
            ),
        }
    }
}

/// Looks after who is a member, as long as this node leads, and after what does not work.
async fn tidy(shared: Arc<Shared>, pace: Pace) {
    let mut led_at = Instant::now();
    loop {
        sleep(pace.tidy).await;
        let metrics = shared.raft.metrics().borrow().clone();
        if let Err(cause) = &metrics.running_state {
            let problem = format!(
                "the store of this node has stopped: {cause}; edits of others do not come here; restart the agent \
                 when its disk works"
            );
            shared.say("raft".into(), Some(problem));
            return;
        }
        let is_alone = metrics
            .millis_since_quorum_ack
            .is_some_and(|silent| Duration::from_millis(silent) > SILENCE);
        let is_led = metrics.current_leader.is_some() && !is_alone;
        if is_led || shared.history() == 0 {
            led_at = Instant::now();
        }
        let lost = (led_at.elapsed() > SILENCE).then(|| {
            "no majority of the nodes answers, so nothing can be edited; VIPs go on as they are: `buoy status` \
             shows which agents are missing"
                .to_owned()
        });
        shared.say("majority".into(), lost);
        if metrics.state == ServerState::Leader && !is_alone {
            look_after_members(&shared).await;
        }
    }
}

async fn look_after_members(shared: &Arc<Shared>) {
    let peers = shared.net.peers.borrow().clone();
    let heard = shared.net.greet(false, GREET_TIMEOUT).await;
    let known = shared.raft.metrics().borrow().membership_config.clone();
    let voters: BTreeSet<u64> = known.voter_ids().collect();
    let mut wanted = BTreeSet::from([shared.incarnation]);
    for (id, node) in known.nodes().filter(|(id, _)| voters.contains(id)) {
        let is_in_file = peers.nodes.iter().any(|peer| peer.name == node.addr);
        let other = heard.iter().find(|(name, g)| *name == node.addr && g.incarnation != *id);
        if is_in_file && other.is_none() {
            wanted.insert(*id);
        }
    }
    for (name, greeting) in &heard {
        let about = format!("history of {name}");
        if greeting.history != 0 && greeting.history != shared.history() {
            let problem = format!(
                "the store of {name} is of another history than that of the others: stop its agent, move its \
                 directory of the store away, and start it"
            );
            shared.say(about, Some(problem));
            continue;
        }
        shared.say(about, None);
        if voters.contains(&greeting.incarnation) {
            continue;
        }
        let node = BasicNode::new(name);
        let added = shared.raft.add_learner(greeting.incarnation, node, true);
        if matches!(timeout(EDIT_TIMEOUT, added).await, Ok(Ok(_))) {
            wanted.insert(greeting.incarnation);
        }
    }
    if wanted == voters {
        return;
    }
    match timeout(EDIT_TIMEOUT, shared.raft.change_membership(wanted, false)).await {
        Ok(Ok(_)) => tracing::info!("the members of the store have changed"),
        Ok(Err(cause)) => tracing::warn!("the members of the store cannot be changed: {cause}"),
        Err(_) => tracing::warn!("the members of the store cannot be changed: no majority answers"),
    }
}

//! The slow side: keeps the records, reloads, answers the API; hands orders to the loop.

mod memory;
mod occupied;

use crate::backend_orders::{BackendOrders, Told};
use crate::configuration::{self, ConfigurationError};
use crate::conflicts::Occupied;
use crate::discovery::{self, Accepted, Looked};
use crate::edits::{Edits, Whole};
use crate::exchange::Exchange;
use crate::fitness;
use crate::forward::{Forward, Traced};
use crate::hooks::{self, Hooks};
use crate::metrics::Totals;
use crate::realtime::{self, Command, Gone, Handle};
use crate::routes;
use crate::server::{
    Agent, Answers, Changes, Drills, IsMeant, LoopGone, Problem, ReloadRefusal, errands, haproxy,
    metrics, tcp,
};
use crate::traces::Tracing;
use buoy_api::view::{CheckReport, DatedRecord, HostReport, ServiceReport};
use buoy_api::words::{self, Gravity, Words};
use buoy_api::{BudgetReply, ClusterStatus, FlowsView, ReloadReply};
use buoy_config::{Api, Report};
use buoy_core::backend_orders::{Change, Full};
use buoy_core::{OrderError, Status};
use buoy_kernel::clock;
use buoy_kernel::fast::Packet;
use buoy_model::{
    BackendId, BackendOrder, BackendState, Desired, Fact, Group, GroupId, HookTopic, Order, Record,
    Service,
};
use buoy_store::{Done, Errand, Lost};
use buoy_wire::{Keyring, Reject};
use memory::Memory;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// Problems of the kernel that are remembered for the status.
const PROBLEMS_MAX: usize = 16;

/// The agent as the API sees it.
pub(crate) struct Daemon {
    pub(crate) handle: Handle,
    /// Where the API is.
    socket: PathBuf,
    edits: Edits,
    published: Published,
    forward: Forward,
    exchange: Exchange,
    backend_orders: BackendOrders,
    /// Why the socket for HAProxy's commands is not there.
    haproxy: Problem,
    metrics: Problem,
    tcp: Problem,
    totals: Totals,
    hooks: Hooks,
    traces: Tracing,
    changes: Changes,
    drills: Drills,
    answers: Answers,
    /// What the checks of this node found.
    checks: OnceLock<watch::Receiver<fitness::States>>,
    /// Why nobody counts what this node finds of backends, if so.
    doubt: OnceLock<watch::Receiver<Option<String>>>,
    memory: Mutex<Memory>,
    /// What the published configuration is made from: one change at a time.
    accepted: tokio::sync::Mutex<Accepted>,
}

/// What a reload makes known to the rest of the agent.
pub(crate) struct Published {
    pub(crate) desired: watch::Sender<Arc<Desired>>,
    /// Seed of flows: the cluster's key makes it.
    pub(crate) seed: watch::Sender<u64>,
    pub(crate) keys: watch::Sender<Keyring>,
    /// Where the API is served over TCP.
    pub(crate) api: watch::Sender<Arc<Option<Api>>>,
}

/// What a reload reads again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    File,
    Edits,
}

impl Daemon {
    pub(crate) fn new(
        handle: Handle,
        (edits, accepted, socket): (Edits, Accepted, PathBuf),
        published: Published,
        (forward, exchange): (Forward, Exchange),
        (backend_orders, totals): (BackendOrders, Totals),
    ) -> Self {
        let traces = Tracing::new(published.desired.subscribe());
        let hooks = Hooks::new(published.desired.subscribe());
        Self {
            handle,
            socket,
            edits,
            published,
            traces,
            hooks,
            forward,
            exchange,
            backend_orders,
            haproxy: Problem::default(),
            metrics: Problem::default(),
            tcp: Problem::default(),
            totals,
            changes: Changes::new(),
            drills: Drills::default(),
            answers: Answers::default(),
            checks: OnceLock::new(),
            doubt: OnceLock::new(),
            memory: Mutex::default(),
            accepted: tokio::sync::Mutex::new(accepted),
        }
    }

    /// Who is told what happens.
    pub(crate) fn hooks(&self) -> Hooks {
        self.hooks.clone()
    }

    /// Ends forwarding by proxies; what they carry goes on.
    pub(crate) fn stop_forwarding(&self) {
        self.forward.stop();
    }

    /// Shows what the checks of this node find from now on, and whether they are believed.
    pub(crate) fn show_checks(
        &self,
        states: watch::Receiver<fitness::States>,
        doubt: watch::Receiver<Option<String>>,
    ) {
        // Only the first one counts, as below.
        let _ = self.doubt.set(doubt);
        // Only the first one counts: there is one set of checks in an agent's life.
        let _ = self.checks.set(states);
    }

    /// Keeps what the loop reports, until it has ended.
    pub(crate) async fn listen(&self, mut reports: mpsc::Receiver<realtime::Report>) {
        while let Some(report) = reports.recv().await {
            match report {
                realtime::Report::Record(record) => self.keep(record),
                realtime::Report::Problem(problem) => self.refused(problem),
                realtime::Report::Stopped => return,
            }
        }
    }

    /// Answers HAProxy's commands, shows the metrics, sends traces and serves the API over TCP where the configuration
    /// says so, and does what other nodes pass on, for ever.
    pub(crate) async fn keep_doors(self: Arc<Self>) {
        let desired = || self.published.desired.subscribe();
        let this = || Arc::clone(&self);
        tokio::join!(
            haproxy::keep(this(), desired(), Arc::clone(&self.haproxy)),
            metrics::keep(this(), desired(), Arc::clone(&self.metrics)),
            tcp::keep(this(), self.published.api.subscribe(), Arc::clone(&self.tcp)),
            errands::keep(this(), self.edits.store().errands()),
            self.traces.clone().keep(),
            routes::keep(this(), desired()),
        );
    }

    /// Keeps what becomes of the orders of backends, as long as somebody tells.
    pub(crate) async fn hear_orders(&self, mut told: mpsc::Receiver<Told>) {
        while let Some((backend, fact)) = told.recv().await {
            let desired = self.desired();
            let has = |group: &&Group| {
                group.addresses.iter().any(|a| a.cidr.address() == backend.address)
            };
            let group = desired.groups.iter().find(has).map(|group| group.id);
            self.keep(Record { at: clock::now(), group, fact });
        }
    }

    fn keep(&self, record: Record) {
        let desired = self.desired();
        let words = Words::new(&desired);
        let vip = self.memory().vip(&words, &record);
        let vip = vip.as_deref();
        let sentence = words.fact(&record.fact);
        let kind = words::kind(&record.fact);
        match words::gravity(&record.fact) {
            Gravity::Info => tracing::info!(vip, kind, "{sentence}"),
            Gravity::Warn => tracing::warn!(vip, kind, "{sentence}"),
            Gravity::Error => tracing::error!(vip, kind, "{sentence}"),
        }
        self.totals.note(vip, kind, &record.fact);
        self.hooks.tell(record.group, hooks::Message::of(kind, vip, &sentence, &record.fact));
        self.hooks.hear(&record);
        let at = wall_clock(&record);
        self.traces.hear(&record, at);
        // Whoever is woken by the change waits until the record is there.
        let mut memory = self.memory();
        if matches!(record.fact, Fact::DuplicateNode { .. }) {
            memory.duplicate = Some(sentence);
        }
        let seq = self.changes.note();
        memory.keep(DatedRecord { seq, at: since_1970(at), record, vip: None });
    }

    /// Keeps what the kernel has refused, for the status.
    pub(crate) fn refused(&self, problem: String) {
        tracing::warn!("{problem}");
        let mut memory = self.memory();
        self.changes.note();
        memory.refusals.retain(|p| *p != problem);
        if memory.refusals.len() >= PROBLEMS_MAX {
            memory.refusals.pop_front();
        }
        memory.refusals.push_back(problem);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let mut counters = self.handle.counters.read();
        counters.extend(self.forward.counters());
        counters.extend(self.exchange.handle().counters());
        let owned = |(name, count): (&str, u64)| (name.to_owned(), count);
        counters.extend(self.hooks.counters().map(owned));
        counters.extend(self.traces.counters().map(owned));
        counters
    }

    /// What the loop knows of one group; `None`: it has ended.
    pub(crate) async fn ask_about(&self, group: GroupId) -> Option<Status> {
        self.handle.status(Some(vec![group])).await.ok()
    }

    /// Counts what changes.
    pub(crate) fn revision(&self) -> u64 {
        self.changes.now()
    }

    /// Waits until something has changed since, but not longer than that.
    pub(crate) async fn other_revision(&self, known: u64, at_most: Duration) {
        self.changes.other_than(known, at_most).await;
    }

    fn command(&self, command: Command) -> Result<(), LoopGone> {
        self.handle.order(command).map_err(|Gone| LoopGone)
    }

    /// Makes backends that are found a part of the configuration, for ever.
    pub(crate) async fn discover(&self, mut looked: watch::Receiver<Looked>) {
        while looked.changed().await.is_ok() {
            let looked = looked.borrow_and_update().clone();
            let mut accepted = self.accepted.lock().await;
            let before = self.desired();
            let taken = accepted.take(&before, &looked);
            self.memory().undiscovered = accepted.problems();
            let Some(checked) = taken else { continue };
            let desired = Desired { generation: before.generation, ..checked.desired };
            self.published.desired.send_replace(Arc::new(desired));
            self.changes.note();
        }
    }

    /// Follows what is edited on any node, for ever.
    pub(crate) async fn hear_edits(self: Arc<Self>) {
        let (mut state, mut occupied) = (self.edits.state(), self.edits.occupied());
        loop {
            tokio::select! {
                changed = state.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    state.mark_unchanged();
                    // What came of it is in the log and in the status.
                    drop(self.follow_edits().await);
                }
                Ok(()) = occupied.changed() => {
                    let record = occupied.borrow_and_update().as_ref().map(Occupied::record);
                    record.into_iter().for_each(|record| self.keep(record));
                }
            }
        }
    }

    /// Says what came of a reload, in the log and to hooks; the first line of why not.
    fn say(&self, result: &Result<Option<ReloadReply>, ReloadRefusal>) -> Option<String> {
        let (kind, sentence, refused) = match result {
            Ok(reply) => {
                let now = self.desired().generation;
                let generation = reply.as_ref().map_or(now, |reply| reply.generation);
                tracing::info!(generation, "configuration reloaded");
                ("config_applied", format!("generation {generation} is in force"), None)
            }
            Err(refusal) => {
                let report = refusal.report();
                let generation = self.desired().generation;
                tracing::error!(
                    "configuration refused; generation {generation} goes on:\n{report}"
                );
                let first = report.lines().next().unwrap_or_default().to_owned();
                ("config_refused", format!("the configuration was refused: {first}"), Some(first))
            }
        };
        self.hooks.tell(None, hooks::Message::new(HookTopic::Config, kind, None, sentence));
        refused
    }

    /// The file and what was edited over it, if it can be followed.
    fn read_whole(&self, source: Source, before: &Desired) -> Result<Whole, ReloadRefusal> {
        let whole = match source {
            Source::Edits => self.edits.whole_again(),
            Source::File => self.edits.read().and_then(|file| self.edits.whole(file)),
        };
        let whole = whole.map_err(refusal)?;
        let reason = configuration::needs_more_than_a_reload(before, &whole.checked.desired);
        match reason.or_else(|| self.edits.refuse_other_store(&whole)) {
            Some(reason) => Err(ReloadRefusal::Invalid(reason)),
            None => Ok(whole),
        }
    }

    /// Puts the file and what was edited into force; nothing where they are already.
    async fn apply(&self, source: Source) -> Result<Option<ReloadReply>, ReloadRefusal> {
        let mut accepted = self.accepted.lock().await;
        if source == Source::Edits && self.edits.is_in_force() {
            return Ok(None);
        }
        let before = self.desired();
        let whole = self.read_whole(source, &before)?;
        if source == Source::File {
            self.refuse_occupied(&before, &whole.checked.desired).await?;
        }
        let checked = whole.checked.clone();
        let looked = discovery::look_for(&checked.desired, &accepted.known()).await;
        let checked = accepted.follow(checked, &looked);
        self.memory().undiscovered = accepted.problems();
        let mut desired = checked.desired;
        desired.generation = before.generation + 1;
        let desired = Arc::new(desired);
        let mut reply = reply(&before, &desired, &checked.warnings);
        reply.changes.extend(api_change(&self.published.api.borrow(), checked.api.as_ref()));
        let seed = checked.keyring.flow_seed(desired.cluster);
        let new = Box::new((Arc::clone(&desired), checked.keyring.clone()));
        self.forward.refusal().begin(&desired).await;
        self.command(Command::Reload(new))?;
        self.published.seed.send_if_modified(|known| std::mem::replace(known, seed) != seed);
        self.published.keys.send_replace(checked.keyring);
        self.published.api.send_replace(Arc::new(checked.api));
        self.memory().leave(&before, &desired);
        self.published.desired.send_replace(desired);
        // Last: whoever is told that a revision is in force finds it so, and it is written to disk, which takes a while.
        self.edits.hold(&whole);
        self.changes.note();
        Ok(Some(reply))
    }
}

/// The checks of this node as the API tells them.
fn reports(states: &fitness::States) -> Vec<CheckReport> {
    let report = |(key, known): (&fitness::Key, &fitness::CheckState)| CheckReport {
        group: key.group,
        name: key.check.clone(),
        passes: match known.state {
            BackendState::Unknown => None,
            BackendState::Up => Some(true),
            BackendState::Down => Some(false),
        },
        reason: known.reason.clone(),
    };
    states.iter().map(report).collect()
}

/// What is different of the API over TCP, its users and certificates included.
fn api_change(before: &Option<Api>, after: Option<&Api>) -> Option<String> {
    match after {
        after if before.as_ref() == after => None,
        Some(api) => {
            Some(format!("the API over TCP is at {}, with its files read again", api.listen))
        }
        None => Some("the API is not served over TCP any more".into()),
    }
}

/// What is different, and what somebody should know.
fn reply(before: &Desired, after: &Desired, warnings: &Report) -> ReloadReply {
    ReloadReply {
        generation: after.generation,
        changes: configuration::changes(before, after),
        warnings: warnings.problems().iter().map(|p| p.message.clone()).collect(),
        dry_run: false,
    }
}

fn refusal(error: ConfigurationError) -> ReloadRefusal {
    match error {
        ConfigurationError::Invalid(report) => ReloadRefusal::File(Box::new(report)),
        ConfigurationError::Host(_) | ConfigurationError::Unlayable(_) => {
            ReloadRefusal::Invalid(error.to_string())
        }
    }
}

impl Agent for Daemon {
    fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.published.desired.borrow())
    }

    async fn status(&self, of: Option<&[GroupId]>) -> Result<Status, LoopGone> {
        self.handle.status(of.map(<[GroupId]>::to_vec)).await.map_err(|Gone| LoopGone)
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    fn drills(&self) -> &Drills {
        &self.drills
    }

    fn answers(&self) -> &Answers {
        &self.answers
    }

    fn events_after(
        &self,
        seq: u64,
        most: usize,
        is_meant: IsMeant<'_>,
    ) -> (Vec<DatedRecord>, bool) {
        self.memory().after(seq, most, is_meant)
    }

    fn events(&self, count: usize) -> Vec<DatedRecord> {
        self.memory().latest(count, |_| true)
    }

    fn events_of(&self, group: GroupId) -> Vec<DatedRecord> {
        self.memory().latest(usize::MAX, |record| record.group == Some(group))
    }

    async fn is_alive(&self) -> Result<(), LoopGone> {
        self.handle.is_alive().await.map_err(|Gone| LoopGone)
    }

    fn services(&self, of: Option<&[GroupId]>) -> Vec<Arc<ServiceReport>> {
        self.forward.services(of)
    }

    fn host(&self) -> HostReport {
        let memory = self.memory();
        let mut problems: Vec<String> = memory.refusals.iter().cloned().collect();
        problems.extend(memory.refused_file.clone());
        problems.extend(memory.refused_edits.clone());
        problems.extend(self.edits.problems());
        problems.extend(buoy_api::pools::problems(&self.desired()));
        problems.extend(memory.duplicate.clone());
        problems.extend(self.backend_orders.problem());
        problems.extend(memory.undiscovered.iter().cloned());
        for problem in [&self.haproxy, &self.metrics, &self.tcp] {
            problems.extend(problem.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        problems.extend(self.hooks.problems());
        problems.extend(self.traces.problem());
        problems.extend(self.forward.problems());
        problems.extend(self.exchange.handle().problems());
        problems.extend(self.doubt.get().and_then(|doubt| doubt.borrow().clone()));
        if self.handle.counters.rejected(Reject::Own) > 0 {
            problems.push(
                "another host says that it is this node: two hosts have one node name; give each \
                 its own in `peers`, or set `node`"
                    .into(),
            );
        }
        if self.handle.counters.rejected(Reject::UnknownKey) > 0 {
            problems.push(
                "datagrams with another key arrive: a peer has another key file, or another \
                 cluster uses this port; compare `secret` on the hosts"
                    .into(),
            );
        }
        HostReport {
            version: env!("CARGO_PKG_VERSION").into(),
            keys: self.published.keys.borrow().ids().collect(),
            pid: Some(std::process::id()),
            checks: self.checks.get().map_or_else(Vec::new, |states| reports(&states.borrow())),
            defences: self.handle.defences_now(),
            problems,
            realtime: self.handle.scheduling.clone(),
            counters: self.counters(),
        }
    }

    fn metrics(
        &self,
        status: &ClusterStatus,
        budget: &BudgetReply,
    ) -> Result<String, prometheus::Error> {
        let file_refused = self.memory().is_refused();
        let desired = self.desired();
        let pools = buoy_api::pools::pools(&desired);
        self.totals.page((status, budget), &pools, file_refused, &desired.metric_aliases)
    }

    async fn order(&self, order: Order) -> Result<Result<usize, OrderError>, LoopGone> {
        self.handle.follow(order).await.map_err(|Gone| LoopGone)
    }

    async fn order_backend(
        &self,
        backend: BackendId,
        change: Change,
        reason: String,
    ) -> Result<BackendOrder, Full> {
        self.backend_orders.give(backend, change, reason).await
    }

    async fn flows(&self, services: &[(&Group, &Service)]) -> Vec<Vec<FlowsView>> {
        self.forward.flows(services).await
    }

    async fn trace(&self, packet: Packet) -> Result<Traced, String> {
        self.forward.trace(packet).await
    }

    async fn rehearse_reload(&self) -> Result<ReloadReply, ReloadRefusal> {
        let accepted = self.accepted.lock().await;
        let before = self.desired();
        let checked = accepted.rehearse(self.read_whole(Source::File, &before)?.checked);
        let after = Desired { generation: before.generation + 1, ..checked.desired };
        let mut reply = reply(&before, &after, &checked.warnings);
        reply.changes.extend(api_change(&self.published.api.borrow(), checked.api.as_ref()));
        Ok(reply)
    }

    async fn reload(&self) -> Result<ReloadReply, ReloadRefusal> {
        let result = self.apply(Source::File).await;
        if let Err(ReloadRefusal::LoopGone) = result {
            return Err(ReloadRefusal::LoopGone);
        }
        let refused = self.say(&result);
        let path = self.edits.path().display().to_string();
        let mut memory = self.memory();
        if refused.is_none() {
            memory.refused_edits = None;
        }
        memory.refused_file = refused.map(|first| format!("the file {path} was refused: {first}"));
        drop(memory);
        result.map(Option::unwrap_or_default)
    }

    async fn send(&self, node: &str, errand: Errand) -> Result<Done, Lost> {
        self.edits.store().send(node, errand).await
    }

    fn support_dump(&self) -> tokio::process::Command {
        // This very program, also after the file was replaced by a newer one.
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command.arg0("buoy").args(["support", "dump", "--into", "-"]);
        command.arg("--config").arg(self.edits.path()).arg("--socket").arg(&self.socket);
        command
    }

    fn edits(&self) -> &Edits {
        &self.edits
    }

    async fn follow_edits(&self) -> Result<(), ReloadRefusal> {
        let result = self.apply(Source::Edits).await;
        match &result {
            Err(ReloadRefusal::LoopGone) => return Err(ReloadRefusal::LoopGone),
            Ok(None) => return Ok(()),
            Ok(Some(_)) | Err(_) => {}
        }
        let refused = self.say(&result);
        self.memory().refused_edits =
            refused.map(|first| format!("what was edited is refused on this node: {first}"));
        result.map(drop)
    }
}

/// The record's moment by the wall clock.
fn wall_clock(record: &Record) -> SystemTime {
    let age = clock::now().since(record.at);
    SystemTime::now().checked_sub(age).unwrap_or(UNIX_EPOCH)
}

/// In milliseconds.
fn since_1970(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

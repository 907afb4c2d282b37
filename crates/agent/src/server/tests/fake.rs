//! A daemon for tests of the API: it answers from values, and remembers what it was told.

use super::*;
use std::collections::BTreeMap;

/// A daemon that answers from values and remembers its orders.
pub(super) struct Fake {
    pub(super) desired: Arc<Desired>,
    pub(super) changes: Changes,
    pub(super) drills: Drills,
    pub(super) answers: Answers,
    pub(super) edits: Edits,
    pub(super) gone: AtomicBool,
    pub(super) drained: AtomicBool,
    pub(super) cordoned: AtomicBool,
    pub(super) way: Mutex<Result<Done, Lost>>,
    pub(super) sent: Mutex<Vec<(String, Errand)>>,
    pub(super) dump: Mutex<String>,
    pub(super) stopping: AtomicBool,
    /// lb3 owns web instead of the node that is asked.
    pub(super) elsewhere: AtomicBool,
    pub(super) invalid: AtomicBool,
    pub(super) reloads: AtomicU32,
    /// What has happened since it began.
    pub(super) more: Mutex<Vec<DatedRecord>>,
    pub(super) orders: Mutex<Vec<Order>>,
    /// Of what the loop was asked.
    pub(super) looked: Mutex<Vec<Option<Vec<GroupId>>>>,
    pub(super) backend_orders: Mutex<BackendOrders>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            desired: Arc::new(desired()),
            changes: Changes::new(),
            drills: Drills::default(),
            answers: Answers::default(),
            edits: crate::edits::tests::tried(config::FILE),
            gone: AtomicBool::new(false),
            drained: AtomicBool::new(false),
            cordoned: AtomicBool::new(false),
            way: Mutex::new(Err(Lost::NoWay("no store".into()))),
            sent: Mutex::default(),
            dump: Mutex::default(),
            stopping: AtomicBool::new(false),
            elsewhere: AtomicBool::new(false),
            invalid: AtomicBool::new(false),
            reloads: AtomicU32::new(0),
            orders: Mutex::default(),
            looked: Mutex::default(),
            backend_orders: Mutex::default(),
            more: Mutex::default(),
        }
    }
}

impl Fake {
    /// Something happens to web.
    pub(super) fn happens(&self, fact: Fact) {
        self.happens_to(web_id(), None, fact);
    }

    /// To a VIP that is not in the file any more, if it has a name.
    pub(super) fn happens_to(&self, group: GroupId, vip: Option<&str>, fact: Fact) {
        let record = Record { at: Instant::ZERO, group: Some(group), fact };
        let mut more = self.more.lock().unwrap();
        let seq = self.changes.note();
        let vip = vip.map(Into::into);
        more.push(DatedRecord { seq, at: 3_000, record, vip });
    }

    /// What leads web: of a file it is another one than that of the made-up groups.
    fn web(&self) -> GroupId {
        self.desired.find_group("web").map_or_else(web_id, |group| group.id)
    }

    pub(super) fn ordered(&self, name: &str) -> Option<BackendOrder> {
        let orders = self.backend_orders.lock().unwrap();
        orders.of(&BackendId::of(&service(), name)).cloned()
    }
}

impl Agent for Fake {
    fn edits(&self) -> &Edits {
        &self.edits
    }

    async fn follow_edits(&self) -> Result<(), ReloadRefusal> {
        Ok(())
    }

    fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.desired)
    }

    async fn status(&self, of: Option<&[GroupId]>) -> Result<Status, LoopGone> {
        let draining = self.drained.load(Ordering::SeqCst).then(|| "patching (by ann)".to_owned());
        let cordoned = self.cordoned.load(Ordering::SeqCst).then(|| "disk (by ann)".to_owned());
        let mut known = Status { draining, cordoned, ..known() };
        if self.elsewhere.load(Ordering::SeqCst) {
            known.groups[0].owner = Some(NodeId::of("lb3"));
        }
        let web = known.groups.iter_mut().filter(|group| group.id == web_id());
        web.for_each(|group| group.id = self.web());
        known.groups.retain(|known| self.desired.groups.iter().any(|group| group.id == known.id));
        self.looked.lock().unwrap().push(of.map(<[GroupId]>::to_vec));
        known.groups.retain(|group| of.is_none_or(|of| of.contains(&group.id)));
        if self.gone.load(Ordering::SeqCst) { Err(LoopGone) } else { Ok(known) }
    }

    fn events(&self, count: usize) -> Vec<DatedRecord> {
        let web = Some(web_id());
        let acquired = Fact::Acquired {
            epoch: Epoch(7),
            cause: Cause::OwnerSilent {
                node: NodeId::of("lb2"),
                silent: Duration::from_millis(37),
            },
            took: Duration::from_millis(2),
        };
        let dated = |seq, at, group, fact| DatedRecord {
            seq,
            at,
            record: Record { at: Instant::ZERO, group, fact },
            vip: None,
        };
        let mut all = vec![
            dated(5, 1_000, None, Fact::Undrained { reason: "by ann".into() }),
            dated(6, 2_000, web, acquired),
        ];
        all.extend(self.more.lock().unwrap().iter().cloned());
        all.split_off(all.len().saturating_sub(count))
    }

    fn events_after(
        &self,
        seq: u64,
        most: usize,
        is_meant: IsMeant<'_>,
    ) -> (Vec<DatedRecord>, bool) {
        let mut all = self.events(usize::MAX);
        all.retain(|dated| seq < dated.seq && is_meant(dated));
        (all.split_off(all.len().saturating_sub(most)), seq < 5)
    }

    fn drills(&self) -> &Drills {
        &self.drills
    }

    fn answers(&self) -> &Answers {
        &self.answers
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    async fn is_alive(&self) -> Result<(), LoopGone> {
        if self.gone.load(Ordering::SeqCst) { Err(LoopGone) } else { Ok(()) }
    }

    fn events_of(&self, group: GroupId) -> Vec<DatedRecord> {
        let mut all = self.events(usize::MAX);
        all.retain(|dated| dated.record.group == Some(group));
        all
    }

    fn services(&self, of: Option<&[GroupId]>) -> Vec<Arc<ServiceReport>> {
        if of.is_some_and(|of| !of.contains(&self.web())) {
            return vec![];
        }
        let backend = |name: &str, state, reason: &str| BackendReport {
            name: name.into(),
            state,
            reason: reason.into(),
            urgent: false,
            share: 100,
            traffic: None,
            dropped: BTreeMap::new(),
            since: None,
            order: self.ordered(name),
        };
        vec![Arc::new(ServiceReport {
            engine: "nftables".into(),
            table: None,
            group: self.web(),
            address: [10, 0, 0, 100].into(),
            protocol: Protocol::Tcp,
            ports: Ports::one(443),
            problem: None,
            limited: None,
            dropped: BTreeMap::new(),
            backends: vec![
                backend("web1", BackendState::Up, "connected"),
                backend("web2", BackendState::Down, "HTTP 503"),
                backend("web3", BackendState::Unknown, ""),
            ],
        })]
    }

    fn host(&self) -> HostReport {
        HostReport {
            pid: Some(7),
            version: "0.9.1".into(),
            keys: vec![0x1a2b, 0x3c4d],
            defences: vec!["the kernel gate stands".into()],
            ..HostReport::default()
        }
    }

    fn metrics(
        &self,
        status: &ClusterStatus,
        budget: &BudgetReply,
    ) -> Result<String, prometheus::Error> {
        crate::metrics::Totals::new()?.page((status, budget), &[], false, &[])
    }

    async fn order(&self, order: Order) -> Result<Result<usize, OrderError>, LoopGone> {
        if self.stopping.load(Ordering::SeqCst) {
            return Ok(Err(OrderError::Stopping));
        }
        if self.gone.load(Ordering::SeqCst) {
            return Err(LoopGone);
        }
        self.orders.lock().unwrap().push(order);
        let me = desired().me;
        Ok(Ok(known().groups.iter().filter(|group| group.owner == Some(me)).count()))
    }

    async fn order_backend(
        &self,
        backend: BackendId,
        change: Change,
        reason: String,
    ) -> Result<BackendOrder, Full> {
        let mut orders = self.backend_orders.lock().unwrap();
        orders.give((7_000_000, desired().me), backend, change, reason).cloned()
    }

    async fn flows(&self, services: &[(&Group, &Service)]) -> Vec<Vec<FlowsView>> {
        let of = |backend: &Backend| {
            let open = (backend.name == "web1").then_some(3);
            FlowsView { open, source: "a fake".into(), ..FlowsView::default() }
        };
        services.iter().map(|(_, service)| service.backends.iter().map(of).collect()).collect()
    }

    async fn trace(&self, packet: Packet) -> Result<Traced, String> {
        Err(format!("no program for {}", packet.to))
    }

    async fn rehearse_reload(&self) -> Result<ReloadReply, ReloadRefusal> {
        let changes = vec!["vip web changed".into()];
        Ok(ReloadReply { generation: 2, changes, ..ReloadReply::default() })
    }

    async fn send(&self, node: &str, errand: Errand) -> Result<Done, Lost> {
        self.sent.lock().unwrap().push((node.to_owned(), errand));
        self.way.lock().unwrap().clone()
    }

    fn support_dump(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("sh");
        command.arg("-c").arg(self.dump.lock().unwrap().as_str());
        command
    }

    async fn reload(&self) -> Result<ReloadReply, ReloadRefusal> {
        let refusal = ReloadRefusal::Invalid("buoy.toml:3:1: unknown key".into());
        (!self.invalid.load(Ordering::SeqCst)).then_some(()).ok_or(refusal)?;
        self.reloads.fetch_add(1, Ordering::SeqCst);
        self.rehearse_reload().await
    }
}

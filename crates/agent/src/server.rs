//! Answers the HTTP API on the agent's UNIX socket.
//!
//! The server knows the agent only through [`Agent`]; the daemon implements it and a test's fake
//! does too. `GET` never changes anything, but that
//! the packets of `/v1/path` are counted. A new endpoint is a type in `api/src/status.rs`, a route
//! and a handler here, and a method of `api::Client`.

mod access;
pub(crate) mod account;
mod changes;
mod config;
mod drills;
pub(crate) mod errands;
mod failure;
mod follow;
mod guard;
pub(crate) mod haproxy;
mod listen;
mod lists;
mod matrix;
pub(crate) mod metrics;
pub(crate) mod names;
mod openapi;
mod orders;
mod page;
mod paging;
mod path;
mod pools;
mod services;
mod socket;
mod stream;
mod support;
pub(crate) mod tcp;
mod vrrp;
mod whole;
mod why;
mod write;
mod written;

pub use changes::Changes;
pub use drills::Drills;
pub(crate) use failure::config_problem;
pub(crate) use follow::Problem;
pub use socket::{Socket, SocketError};
pub use whole::Answers;

use crate::edits::Edits;
use crate::forward::Traced;
use access::Asker;
use axum::Json;
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, State};
use axum::middleware;
use axum::routing::{get, post};
use buoy_api::view::{DatedRecord, HostReport, ServiceReport, View};
use buoy_api::{BODY_MAX, BudgetReply, ClusterStatus, FlowsView, OwnerReply, ReloadReply};
use buoy_config::{Report, Role};
use buoy_core::backend_orders::{Change, Full};
use buoy_core::{OrderError, Status};
use buoy_kernel::fast::Packet;
use buoy_model::{BackendId, BackendOrder, Desired, Group, GroupId, Order, Service};
use buoy_store::{Done, Errand, Lost};
use failure::Failure;
use listen::Hall;
use openapi::Operation;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, io};
use tokio::net::UnixStream;
use tokio::sync::watch;
use write::{Write, config_tag};

/// Connections at the same time: room for all who may wait for news, and then some.
const CONNECTIONS_MAX: u32 = 256;
/// The same on the socket for questions.
const QUESTIONS_MAX: u32 = 64;
const _: () = assert!(changes::WATCHERS_MAX < CONNECTIONS_MAX as usize);
/// How long the real-time loop may take to answer: it does so between two packets.
const LOOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Which records an answer is about.
pub(crate) type IsMeant<'a> = &'a (dyn Fn(&DatedRecord) -> bool + Sync);

/// What the server needs of the daemon. Implement the `async` ones with `async fn`.
pub trait Agent: Send + Sync + 'static {
    /// The configuration in force.
    fn desired(&self) -> Arc<Desired>;
    /// What the node knows of some groups (in the order of their ids) or of all, asked of the real-time loop.
    fn status(
        &self,
        of: Option<&[GroupId]>,
    ) -> impl Future<Output = Result<Status, LoopGone>> + Send;
    /// The latest records, at most so many, oldest first; the latest changes of owner are kept longer
    /// than the rest.
    fn events(&self, count: usize) -> Vec<DatedRecord>;
    /// Those of one group that are kept, oldest first.
    fn events_of(&self, group: GroupId) -> Vec<DatedRecord>;
    /// The latest records of those that are meant after that one, at most so many, oldest first, and whether some
    /// after it are forgotten.
    fn events_after(
        &self,
        seq: u64,
        most: usize,
        is_meant: IsMeant<'_>,
    ) -> (Vec<DatedRecord>, bool);
    /// What counts changes.
    fn changes(&self) -> &Changes;
    /// The drills that were begun here.
    fn drills(&self) -> &Drills;
    /// What is kept of the whole status while somebody asks for it.
    fn answers(&self) -> &Answers;
    /// Whether the real-time loop answers.
    fn is_alive(&self) -> impl Future<Output = Result<(), LoopGone>> + Send;
    /// What the checks and the engines know of the services of some groups (in the order of their ids), or of all:
    /// those of a group together, in the same order.
    fn services(&self, of: Option<&[GroupId]>) -> Vec<Arc<ServiceReport>>;
    /// Lines of defence, problems, scheduling and counters.
    fn host(&self) -> HostReport;
    /// The page that monitoring reads, of this status and this budget.
    fn metrics(
        &self,
        status: &ClusterStatus,
        budget: &BudgetReply,
    ) -> Result<String, prometheus::Error>;
    /// Gives the order to the real-time loop, which follows it or says why it cannot; its reason says
    /// already who gave it. Answers how many groups the node served before.
    fn order(
        &self,
        order: Order,
    ) -> impl Future<Output = Result<Result<usize, OrderError>, LoopGone>> + Send;
    /// Orders something of a backend on all nodes; its reason says already who gave it.
    fn order_backend(
        &self,
        backend: BackendId,
        change: Change,
        reason: String,
    ) -> impl Future<Output = Result<BackendOrder, Full>> + Send;
    /// What this host knows of the connections of the services' backends, in their order.
    fn flows(
        &self,
        services: &[(&Group, &Service)],
    ) -> impl Future<Output = Vec<Vec<FlowsView>>> + Send;
    /// What the XDP program does with such a packet; why that is not known, in words.
    fn trace(&self, packet: Packet) -> impl Future<Output = Result<Traced, String>> + Send;
    /// Reads the file and says what a reload would change; changes nothing.
    fn rehearse_reload(&self) -> impl Future<Output = Result<ReloadReply, ReloadRefusal>> + Send;
    /// Reads the file again and applies the difference; an invalid file changes nothing.
    fn reload(&self) -> impl Future<Output = Result<ReloadReply, ReloadRefusal>> + Send;
    /// Has another node do what an operator wants of it, once.
    fn send(&self, node: &str, errand: Errand) -> impl Future<Output = Result<Done, Lost>> + Send;
    /// What writes the support archive of this node to its standard output.
    fn support_dump(&self) -> tokio::process::Command;
    /// What the configuration is made of.
    fn edits(&self) -> &Edits;
    /// Applies what was edited since, over the file as it was read last; what is invalid changes nothing.
    fn follow_edits(&self) -> impl Future<Output = Result<(), ReloadRefusal>> + Send;
}

/// The real-time loop has ended or does not take orders.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LoopGone;

impl fmt::Display for LoopGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the agent's real-time loop does not answer; its log says why")
    }
}

impl std::error::Error for LoopGone {}

/// Why a reload changed nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReloadRefusal {
    /// The file has errors.
    File(Box<Report>),
    /// It cannot be followed by a reload, or not be read: why, ready to print.
    Invalid(String),
    /// There is nobody to apply it.
    LoopGone,
}

impl ReloadRefusal {
    /// All of it, ready to print.
    pub(crate) fn report(&self) -> String {
        match self {
            Self::File(report) => report.render(100, false),
            Self::Invalid(why) => why.clone(),
            Self::LoopGone => LoopGone.to_string(),
        }
    }
}

impl From<LoopGone> for ReloadRefusal {
    fn from(LoopGone: LoopGone) -> Self {
        Self::LoopGone
    }
}

/// Answers on the socket, and questions on the other one, until `stop` is ready; requests under way are
/// finished first.
pub async fn serve<A: Agent>(
    socket: Socket,
    questions: Socket,
    agent: Arc<A>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (end, ended) = watch::channel(false);
    let looking = tokio::spawn(changes::look(Arc::clone(&agent)));
    // Whoever may only ask has places of his own, and takes none from those who order.
    let hall = |places| Hall::new(places, ended.clone());
    let known = |role| {
        move |stream: UnixStream| async move {
            let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
            Some((stream, Asker::local(uid, role)))
        }
    };
    let router = router(Arc::clone(&agent));
    let answering =
        hall(CONNECTIONS_MAX).answer(socket.listener, known(Role::Admin), router.clone());
    let asked = hall(QUESTIONS_MAX).answer(questions.listener, known(Role::Read), router);
    let ending = async {
        stop.await;
        agent.changes().end();
        end.send_replace(true);
    };
    tokio::join!(answering, asked, ending);
    looking.abort();
    drop((socket.file, questions.file));
    Ok(())
}

fn router<A: Agent>(agent: Arc<A>) -> Router {
    Router::new()
        .route("/healthz", get(healthz::<A>))
        .route("/metrics", get(metrics::page::<A>))
        .route("/v1/vips/{vip}/why", get(why::why::<A>))
        .route("/v1/vips/{vip}/owner", get(owner::<A>))
        .route("/v1/vips/{vip}/move", post(orders::move_vip::<A>))
        .route("/v1/vips/{vip}/hold", post(orders::hold::<A>))
        .route("/v1/vips/{vip}/release", post(orders::release::<A>))
        .route("/v1/vips/{vip}/announce", post(orders::announce::<A>))
        .route("/v1/path", get(path::path::<A>))
        .route("/v1/services", get(lists::services::<A>))
        .route("/v1/services/{service}", get(services::one::<A>))
        .route("/v1/backends", get(lists::backends::<A>))
        .route("/v1/services/{service}/backends/{backend}", get(services::backend::<A>))
        .route("/v1/services/{service}/flows", get(services::flows::<A>))
        .route("/v1/services/{service}/backends/{backend}/flows", get(services::flows_of::<A>))
        .route("/v1/services/{service}/backends/{backend}/{verb}", post(services::order::<A>))
        .route("/v1/drain", post(orders::drain::<A>))
        .route("/v1/undrain", post(orders::undrain::<A>))
        .route("/v1/reload", post(reload::<A>))
        .route("/v1/openapi.json", get(openapi::openapi))
        .merge(lists::routes())
        .merge(support::routes())
        .merge(page::routes::<A>())
        .merge(config::routes())
        .merge(pools::routes())
        .merge(vrrp::routes())
        .merge(matrix::routes())
        .merge(drills::routes())
        .fallback(|| async { Failure::unknown_path() })
        .method_not_allowed_fallback(|| async { Failure::method() })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn(guard::guard))
        .layer(middleware::from_fn(access::check))
        .with_state(agent)
}

fn operations() -> Vec<Operation> {
    vec![
        why::operation(),
        Operation::new("get", "/v1/vips/{vip}/owner", "owner", "200 on the owner, 503 elsewhere.")
            .answers::<OwnerReply>(),
        Operation::new(
            "post",
            "/v1/reload",
            "reload",
            "Read the file again and apply the difference.",
        )
        .changes()
        .answers::<ReloadReply>(),
    ]
}

/// All that an answer is made of, at one moment.
struct Snapshot {
    /// Of before all else: what changes meanwhile is news to whoever reads this.
    revision: u64,
    desired: Arc<Desired>,
    status: Status,
    now: u64,
    services: Vec<Arc<ServiceReport>>,
    host: HostReport,
    events: Vec<DatedRecord>,
}

impl Snapshot {
    /// Of everything.
    async fn of<A: Agent>(agent: &A, events: usize) -> Result<Self, LoopGone> {
        let bare = Self::with_services(agent, None, Self::bare(agent)).await?;
        Ok(Self { events: agent.events(events), ..bare })
    }

    /// Of one group: a thousand others cost it nothing.
    async fn about<A: Agent>(agent: &A, group: GroupId) -> Result<Self, LoopGone> {
        let of = Some(&[group][..]);
        Self::with_services(agent, of, Self::asked(agent, of)).await
    }

    /// What is asked, with the services of those groups: they are found while the loop finds the rest.
    async fn with_services<A: Agent>(
        agent: &A,
        of: Option<&[GroupId]>,
        asked: impl Future<Output = Result<Self, LoopGone>>,
    ) -> Result<Self, LoopGone> {
        let services = async { agent.services(of) };
        let (asked, services) = tokio::join!(biased; asked, services);
        Ok(Self { services, ..asked? })
    }

    /// Without services and records.
    async fn bare<A: Agent>(agent: &A) -> Result<Self, LoopGone> {
        Self::asked(agent, None).await
    }

    /// Of some groups, in the order of their ids, or of all, without services and records.
    async fn asked<A: Agent>(agent: &A, of: Option<&[GroupId]>) -> Result<Self, LoopGone> {
        let revision = agent.changes().now();
        let status = ask_loop(agent, of).await?;
        let (desired, now, host) = (agent.desired(), wall_clock(), agent.host());
        Ok(Self { revision, desired, status, now, host, services: vec![], events: vec![] })
    }

    fn view(&self) -> View<'_> {
        View {
            desired: &self.desired,
            status: &self.status,
            now: self.now,
            services: &self.services,
            host: &self.host,
            events: &self.events,
        }
    }

    /// The node that answers.
    fn me(&self) -> String {
        self.desired.node_name(self.desired.me).into()
    }

    fn group(&self, vip: &str) -> Result<&Group, Failure> {
        self.desired.find_group(vip).ok_or_else(|| Failure::unknown_vip(vip, &self.desired))
    }
}

async fn healthz<A: Agent>(State(agent): State<Arc<A>>) -> Result<&'static str, Failure> {
    alive(&*agent).await?;
    Ok("ok\n")
}

/// A load balancer's question: 200 on the owner, 503 elsewhere.
async fn owner<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(vip): Path<String>,
) -> Result<Json<OwnerReply>, Failure> {
    let desired = agent.desired();
    let group = desired.find_group(&vip).ok_or_else(|| Failure::unknown_vip(&vip, &desired))?;
    // It is asked often, and needs to know nothing else.
    let status = ask_loop(&*agent, Some(&[group.id])).await?;
    let known = status.groups.iter().find(|status| status.id == group.id);
    let me = desired.node_name(desired.me);
    match known {
        Some(known) if known.owner == Some(desired.me) => {
            Ok(Json(OwnerReply { vip: group.name.clone(), owner: me.into(), epoch: known.epoch.0 }))
        }
        Some(known) => {
            let owner = known.owner.map(|owner| desired.node_name(owner));
            Err(Failure::not_owner(&group.name, me, owner))
        }
        None => Err(Failure::not_owner(&group.name, me, None)),
    }
}

async fn reload<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
) -> Result<Json<ReloadReply>, Failure> {
    let _turn = write.turn(&*agent).await;
    write.check(&config_tag(&agent.desired()))?;
    if write.dry_run {
        return Ok(Json(ReloadReply { dry_run: true, ..agent.rehearse_reload().await? }));
    }
    tracing::info!(by = asker.name(), "reload");
    Ok(Json(agent.reload().await?))
}

/// The group of that name or address, as things are.
fn group<A: Agent>(agent: &A, vip: &str) -> Result<GroupId, Failure> {
    let desired = agent.desired();
    desired.find_group(vip).map(|g| g.id).ok_or_else(|| Failure::unknown_vip(vip, &desired))
}

async fn alive<A: Agent>(agent: &A) -> Result<(), LoopGone> {
    tokio::time::timeout(LOOP_TIMEOUT, agent.is_alive()).await.unwrap_or(Err(LoopGone))
}

/// Of all groups, or of some alone: the loop has no time for a thousand others.
async fn ask_loop<A: Agent>(agent: &A, of: Option<&[GroupId]>) -> Result<Status, LoopGone> {
    tokio::time::timeout(LOOP_TIMEOUT, agent.status(of)).await.unwrap_or(Err(LoopGone))
}

/// Milliseconds since 1970 by the wall clock; only for people.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

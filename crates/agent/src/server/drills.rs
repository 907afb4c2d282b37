//! Moves a VIP to another node and back, as an operator would, and keeps how long that took: a drill.
//!
//! Each move is an order of its own, given to whoever owns the VIP then, and the last one is followed by a release, so that
//! the VIP is as free as before. Nothing else moves, and nothing breaks: what breaks hosts is for the lab.

use super::errands::question;
use super::failure::Failure;
use super::openapi::Operation;
use super::orders::{Body, Reason, follow, needed};
use super::stream::Asked;
use super::write::{Write, vip_tag};
use super::{Agent, Asker, Snapshot, ask_loop, wall_clock};
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use buoy_api::view::phases;
use buoy_api::{
    DRILL_REPEAT_MAX, DrillRequest, DrillTakeoverView, DrillView, DrillsReply, MoveRequest,
    Problem, REASON_MAX, ReleaseRequest, segment,
};
use buoy_core::{GroupStatus, Standing};
use buoy_model::{Group, GroupId, NodeId, Order};
use buoy_store::{Done, Errand};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Drills that are kept.
const KEPT: usize = 16;
/// Between two looks at the owner.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a move may take.
const MOVE_MAX: Duration = Duration::from_secs(15);
/// How long the first packet is waited for, after which the steps are on record.
const RECORD_MAX: Duration = Duration::from_secs(3);
/// Between two moves: the last one is settled, and clients have had their VIP for a while.
const REST: Duration = Duration::from_secs(1);

/// The drills that were begun on this node.
#[derive(Debug, Default)]
pub struct Drills(Mutex<VecDeque<DrillView>>);

impl Drills {
    fn all(&self) -> MutexGuard<'_, VecDeque<DrillView>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it under a number of its own; `None`: another one goes on.
    fn begin(&self, drill: DrillView) -> Option<DrillView> {
        let mut all = self.all();
        if all.iter().any(|drill| drill.running) {
            return None;
        }
        let id = all.back().map_or(1, |last| last.id + 1);
        if all.len() >= KEPT {
            all.pop_front();
        }
        let drill = DrillView { id, running: true, ..drill };
        all.push_back(drill.clone());
        Some(drill)
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut DrillView)) {
        if let Some(drill) = self.all().iter_mut().find(|drill| drill.id == id) {
            change(drill);
        }
    }
}

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new().route("/v1/drills", get(list::<A>).post(begin::<A>))
}

/// What can be asked here.
pub(super) fn operations() -> Vec<Operation> {
    let cannot = "It cannot be moved there and back now, or a drill goes on: the answer says why.";
    let unreached = "The other node does not answer this one: the answer says why.";
    vec![
        Operation::new("get", "/v1/drills", "drills", "The drills that were begun on this node.")
            .answers::<DrillsReply>()
            .list(),
        Operation::new(
            "post",
            "/v1/drills",
            "begin_drill",
            "Move a VIP to another node and back, and measure how long that takes.",
        )
        .changes()
        .refuses(409, cannot)
        .refuses(502, unreached)
        .takes::<DrillRequest>(true)
        .answers::<DrillView>(),
    ]
}

async fn list<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let desired = agent.desired();
        let node = desired.node_name(desired.me).to_owned();
        Ok(DrillsReply { node, drills: agent.drills().all().iter().cloned().collect() })
    };
    asked.answer(agent, "drills", make).await
}

async fn begin<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Json<DrillView>, Failure> {
    let request: DrillRequest = needed(body)?;
    let Reason { said, recorded } = Reason::of(request.reason.as_deref(), &asker)?;
    // What is passed on may be as long as any reason, and says first that it is a drill.
    let said = if said.is_empty() { "drill".into() } else { format!("drill: {said}") };
    let said: String = said.chars().take(REASON_MAX).collect();
    let repeat = request.repeat.unwrap_or(1);
    if !(1..=DRILL_REPEAT_MAX).contains(&repeat) {
        return Err(Failure::repeat());
    }
    let _turn = write.turn(&*agent).await;
    let snapshot = Snapshot::bare(&*agent).await?;
    let group = snapshot.group(&request.vip)?;
    write.check(&vip_tag(&snapshot.status, group.id))?;
    let (from, to) = ends(&snapshot, group, request.to.as_deref())?;
    let name = |node: NodeId| snapshot.desired.node_name(node).to_owned();
    let drill = DrillView {
        vip: group.name.clone(),
        from: name(from),
        to: name(to),
        repeat,
        reason: format!("drill: {recorded}"),
        at: wall_clock(),
        ..DrillView::default()
    };
    let elsewhere = [from, to].into_iter().filter(|node| *node != snapshot.desired.me);
    for node in elsewhere.map(name) {
        answers(&*agent, &asker, &node).await.map_err(|why| Failure::no_drill_with(&node, &why))?;
    }
    if write.dry_run {
        let DrillView { vip, from, to, .. } = &drill;
        let times = if repeat == 1 { "once".into() } else { format!("{repeat} times") };
        let would = vec![
            format!("{vip} goes from {from} to {to} and back, {times}"),
            "nothing else moves, and it is as free to move afterwards as before".into(),
        ];
        return Ok(Json(DrillView { dry_run: true, would, ..drill }));
    }
    let Some(drill) = agent.drills().begin(drill) else { return Err(Failure::drill_goes_on()) };
    agent.changes().note();
    let (agent, group, ends) = (Arc::clone(&agent), group.id, (from, to));
    let run = Run { agent, asker, group, ends, said, drill: drill.clone() };
    tracing::info!(
        vip = drill.vip,
        from = drill.from,
        to = drill.to,
        reason = drill.reason,
        "drill"
    );
    drop(tokio::spawn(run.all()));
    Ok(Json(drill))
}

/// Who owns the VIP, and who is to have it for a while.
fn ends(snapshot: &Snapshot, group: &Group, to: Option<&str>) -> Result<(NodeId, NodeId), Failure> {
    let desired = &snapshot.desired;
    let unmoved = |why: &str| Err(Failure::no_drill(&group.name, why));
    let known = snapshot.status.groups.iter().find(|known| known.id == group.id);
    let Some(owner) = known.and_then(|known| known.owner) else {
        return Err(Failure::no_owner(&group.name));
    };
    if !group.vrrp.is_empty() {
        return unmoved("VRRP decides about it, and takes no orders");
    }
    if known.is_some_and(|known| known.held.is_some()) {
        return unmoved("it is held where it is, and would not be any more afterwards");
    }
    let candidates = known.map(|known| known.candidates.as_slice()).unwrap_or_default();
    let can = |node: NodeId| {
        let is_able = |standing: &Standing| match standing {
            Standing::Candidate | Standing::Wants => true,
            Standing::Owner | Standing::Excluded(_) => false,
        };
        node != owner && candidates.iter().any(|c| c.node == node && is_able(&c.standing))
    };
    let Some(to) = to else {
        return match candidates.iter().map(|candidate| candidate.node).find(|node| can(*node)) {
            Some(next) => Ok((owner, next)),
            None => unmoved("no other node can take it now"),
        };
    };
    let found = desired.nodes.iter().find(|node| node.name == to);
    let node = found.ok_or_else(|| Failure::unknown_node(to, desired))?;
    if can(node.id) {
        Ok((owner, node.id))
    } else {
        unmoved(&format!("{to} cannot take it from its owner now"))
    }
}

/// Whether orders reach a node by way of this one.
async fn answers<A: Agent>(agent: &A, asker: &Asker, node: &str) -> Result<(), String> {
    let target = format!("/v1/matrix/{}", segment(node));
    let errand = question(asker, target).ok_or("a drill is not passed on")?;
    done(agent, node, errand).await
}

/// Has another node do it.
async fn done<A: Agent>(agent: &A, node: &str, errand: Errand) -> Result<(), String> {
    match agent.send(node, errand).await {
        Ok(Done { status: 200, .. }) => Ok(()),
        Ok(Done { body, status, .. }) => Err(match serde_json::from_str::<Problem>(&body) {
            Ok(Problem { title, detail, .. }) if detail.is_empty() => title,
            Ok(Problem { title, detail, .. }) => format!("{title}: {detail}"),
            Err(_) => format!("it answered with {status}"),
        }),
        Err(lost) => Err(lost.to_string()),
    }
}

/// A drill under way.
struct Run<A> {
    agent: Arc<A>,
    asker: Asker,
    group: GroupId,
    ends: (NodeId, NodeId),
    /// The reason without who asked, which is added where an order arrives.
    said: String,
    drill: DrillView,
}

impl<A: Agent> Run<A> {
    async fn all(self) {
        let (from, to) = self.ends;
        let mut failed = None;
        let legs = (0..self.drill.repeat).flat_map(|_| [(from, to), (to, from)]);
        for (n, (from, to)) in legs.enumerate() {
            if n > 0 {
                sleep(REST).await;
            }
            match self.leg(from, to).await {
                Ok(takeover) => {
                    self.change(|drill| drill.takeovers.push(takeover));
                }
                Err(why) => {
                    failed = Some(why);
                    break;
                }
            }
        }
        // Wherever it is now: it is as free as it was.
        let released = self.release().await.err();
        let failed = failed.or(released);
        if let Some(why) = &failed {
            tracing::warn!(vip = self.drill.vip, "the drill ended before its time: {why}");
        }
        self.change(|drill| {
            drill.running = false;
            drill.failed = failed;
        });
    }

    /// Whoever waits for news of it is told.
    fn change(&self, change: impl FnOnce(&mut DrillView)) {
        self.agent.drills().change(self.drill.id, change);
        self.agent.changes().note();
    }

    /// One move.
    async fn leg(&self, from: NodeId, to: NodeId) -> Result<DrillTakeoverView, String> {
        let before = self.known().await?;
        let (giver, taker) = (self.name(from), self.name(to));
        if before.owner != Some(from) {
            return Err(format!(
                "{giver} does not own it any more: somebody else has moved it, or a node failed"
            ));
        }
        let began = Instant::now();
        let order = Order::Move { group: self.group, to, reason: self.drill.reason.clone() };
        let body = MoveRequest { to: taker.clone(), reason: Some(self.said.clone()) };
        self.order(from, order, ("move", &body)).await?;
        let after = loop {
            let known = self.known().await?;
            if known.owner == Some(to) {
                break known;
            }
            if began.elapsed() > MOVE_MAX {
                let seconds = MOVE_MAX.as_secs();
                return Err(format!(
                    "{taker} did not take it in {seconds} s: `buoy why {}` says why",
                    self.drill.vip
                ));
            }
            sleep(LOOK_EVERY).await;
        };
        let seen = began.elapsed();
        let unserved =
            |known: &GroupStatus| known.uptime.map_or(Duration::ZERO, |seen| seen.unserved);
        let lost = unserved(&after).saturating_sub(unserved(&before));
        Ok(DrillTakeoverView {
            from: giver,
            to: taker,
            epoch: after.epoch.0,
            seen_ms: seen.as_secs_f64() * 1e3,
            unserved_ms: lost.as_secs_f64() * 1e3,
            phases: self.recorded(to, after.epoch.0).await,
        })
    }

    /// How the steps of a takeover by this node went, once that is on record.
    async fn recorded(&self, to: NodeId, epoch: u32) -> Option<buoy_api::PhasesView> {
        let until = Instant::now() + RECORD_MAX;
        while to == self.agent.desired().me && Instant::now() < until {
            let records = self.agent.events_of(self.group);
            let found = records.iter().filter_map(|dated| phases(&dated.record.fact));
            if let Some(found) = found.into_iter().find(|phases| phases.epoch == epoch) {
                return Some(found);
            }
            sleep(LOOK_EVERY).await;
        }
        None
    }

    async fn release(&self) -> Result<(), String> {
        let known = self.known().await?;
        let Some(owner) = known.owner.filter(|_| known.held.is_some()) else { return Ok(()) };
        let order = Order::Release { group: self.group, reason: self.drill.reason.clone() };
        let body = ReleaseRequest { reason: Some(self.said.clone()) };
        self.order(owner, order, ("release", &body)).await
    }

    /// Given to whoever owns it.
    async fn order<T: Serialize>(
        &self,
        owner: NodeId,
        order: Order,
        (verb, body): (&str, &T),
    ) -> Result<(), String> {
        if owner == self.agent.desired().me {
            let followed = follow(&*self.agent, order).await;
            return followed.map(drop).map_err(|failure| failure.problem().title.clone());
        }
        let target = format!("/v1/vips/{}/{verb}", segment(&self.drill.vip));
        let body = serde_json::to_string(body).map_err(|error| error.to_string())?;
        let role = self.asker.passes_on().ok_or("a drill is not passed on")?;
        let (user, role) = (self.asker.name(), role.name().to_owned());
        let errand = Errand { method: "POST".into(), target, body, user, role };
        let node = self.name(owner);
        done(&*self.agent, &node, errand).await.map_err(|why| format!("{node}: {why}"))
    }

    async fn known(&self) -> Result<GroupStatus, String> {
        let status =
            ask_loop(&*self.agent, Some(&[self.group])).await.map_err(|gone| gone.to_string())?;
        let known = status.groups.into_iter().find(|known| known.id == self.group);
        known.ok_or_else(|| format!("{} is in the configuration no more", self.drill.vip))
    }

    fn name(&self, node: NodeId) -> String {
        self.agent.desired().node_name(node).to_owned()
    }
}

impl Failure {
    fn repeat() -> Self {
        let detail = format!("`repeat` is from 1 to {DRILL_REPEAT_MAX}");
        Self::new(StatusCode::BAD_REQUEST, "repeat", "that is no number of times", detail)
    }

    fn no_drill(vip: &str, why: &str) -> Self {
        let title = format!("{vip} cannot be moved to another node and back");
        Self::new(StatusCode::CONFLICT, "no_drill", &title, why)
            .fix(format!("`buoy why {vip}` says more"))
    }

    fn no_drill_with(node: &str, why: &str) -> Self {
        let title = format!("{node} cannot be given orders by way of this node");
        Self::new(StatusCode::BAD_GATEWAY, "unreachable", &title, why)
            .fix("a drill needs the way by which orders are passed on: TCP port 4747, and not `store = \"none\"` or etcd")
    }

    fn drill_goes_on() -> Self {
        let title = "a drill goes on already on this node";
        Self::new(StatusCode::CONFLICT, "drill_goes_on", title, "one at a time")
            .fix("`GET /v1/drills` says how far it is")
    }
}

//! Takes operators' orders: refuses what cannot be done with who can do it, hands on what can.
//!
//! An order about a VIP is for the agent of its owner, which alone can give it away before it is taken, and a drain for
//! the node itself. Elsewhere it is passed on; where there is no way, the refusal names the node and the command to run
//! there.

use super::errands::{Passed, pass_on};
use super::failure::Failure;
use super::openapi::Operation;
use super::write::{Write, node_tag, tagged, vip_tag};
use super::{Agent, Asker, LOOP_TIMEOUT, LoopGone, Snapshot, ask_loop};
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::response::{IntoResponse as _, Response};
use buoy_api::words::{self, Words};
use buoy_api::{
    AnnounceRequest, DrainReply, DrainRequest, HoldRequest, MoveRequest, NodePatch, ORDER_FOR_MAX,
    OrderReply, REASON_MAX, ReleaseRequest, UndrainRequest, segment,
};
use buoy_core::{GroupStatus, Standing, Status};
use buoy_model::{Desired, Group, Instant, NodeId, Order};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn operations() -> Vec<Operation> {
    let order = |method, path, id, summary| Operation::new(method, path, id, summary).changes();
    vec![
        order("post", "/v1/vips/{vip}/move", "move", "Give a VIP to another node; it stays there.")
            .takes::<MoveRequest>(true)
            .answers::<OrderReply>(),
        order("post", "/v1/vips/{vip}/hold", "hold", "Keep a VIP on the node that owns it.")
            .takes::<HoldRequest>(false)
            .answers::<OrderReply>(),
        order("post", "/v1/vips/{vip}/release", "release", "End a hold, or the pin of a move.")
            .takes::<ReleaseRequest>(false)
            .answers::<OrderReply>(),
        order(
            "post",
            "/v1/vips/{vip}/announce",
            "announce",
            "Tell the neighbours again who has a VIP.",
        )
        .takes::<AnnounceRequest>(false)
        .answers::<OrderReply>(),
        order("post", "/v1/drain", "drain", "Take this node out of service.")
            .takes::<DrainRequest>(false)
            .answers::<DrainReply>(),
        order("post", "/v1/undrain", "undrain", "Put this node back into service.")
            .takes::<UndrainRequest>(false)
            .answers::<DrainReply>(),
        order(
            "patch",
            "/v1/nodes/{node}",
            "patch_node",
            "Drain or cordon a node, or take that back.",
        )
        .takes_json(patch_schema(), true)
        .answers::<DrainReply>()
        .tagged(),
    ]
}

/// Narrower than its type: it asks for something, and only a drain has an end.
fn patch_schema() -> Value {
    let reason = json!({ "type": ["string", "null"], "maxLength": REASON_MAX });
    let for_ms = json!({ "type": ["integer", "null"], "minimum": 1, "maximum": ORDER_FOR_MAX.as_millis() as u64 });
    let one = |what: &str, wanted: bool, mut properties: Value| {
        properties[what] = json!({ "type": "boolean", "const": wanted });
        json!({ "type": "object", "properties": properties, "required": [what], "additionalProperties": false })
    };
    let said = || json!({ "reason": reason });
    json!({ "oneOf": [
        one("drain", true, json!({ "reason": reason, "for_ms": for_ms })),
        one("drain", false, said()),
        one("cordon", true, said()),
        one("cordon", false, said()),
    ] })
}

pub(super) type Body = Result<Bytes, BytesRejection>;

pub(super) async fn move_vip<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(vip): Path<String>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let request: MoveRequest = parsed(body)?;
    let reason = Reason::of(request.reason.as_deref(), &asker)?;
    let _turn = write.turn(&*agent).await;
    let case = Case::of(&*agent, &vip, write).await?;
    let to = case.node(&request.to)?;
    if let Some(owner) = case.elsewhere()? {
        let command = format!("buoy move {} --to {}{}", case.group().name, to.1, reason.option());
        return case.pass_on(&*agent, &asker, owner, ("move", &request), &command).await;
    }
    let (group, reason) = (case.group().id, reason.recorded);
    // Where it is already: it stays there until somebody moves or releases it, which is a hold.
    if to.0 == case.desired.me {
        case.not_drained()?;
        let order = Order::Hold { group, reason: reason.clone(), until: None };
        return case.give(&*agent, order, "hold", Some(to.1), None, reason).await;
    }
    case.can_take(to.0)?;
    let order = Order::Move { group, to: to.0, reason: reason.clone() };
    case.give(&*agent, order, "move", Some(to.1), None, reason).await
}

pub(super) async fn hold<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(vip): Path<String>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let request: HoldRequest = parsed(body)?;
    let for_ms = request.for_ms;
    let (reason, time) = (Reason::of(request.reason.as_deref(), &asker)?, length(for_ms)?);
    let _turn = write.turn(&*agent).await;
    let case = Case::of(&*agent, &vip, write).await?;
    if let Some(owner) = case.elsewhere()? {
        let option =
            time.map_or_else(String::new, |time| format!(" --for {}", words::written(time)));
        let command = format!("buoy hold {}{option}{}", case.group().name, reason.option());
        return case.pass_on(&*agent, &asker, owner, ("hold", &request), &command).await;
    }
    case.not_drained()?;
    let (group, reason) = (case.group().id, reason.recorded);
    let order = Order::Hold { group, reason: reason.clone(), until: case.end(time) };
    case.give(&*agent, order, "hold", None, for_ms, reason).await
}

pub(super) async fn release<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(vip): Path<String>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let request: ReleaseRequest = parsed(body)?;
    let reason = Reason::of(request.reason.as_deref(), &asker)?;
    let _turn = write.turn(&*agent).await;
    let case = Case::of(&*agent, &vip, write).await?;
    if let Some(owner) = case.elsewhere()? {
        let command = format!("buoy release {}{}", case.group().name, reason.option());
        return case.pass_on(&*agent, &asker, owner, ("release", &request), &command).await;
    }
    let (group, reason) = (case.group().id, reason.recorded);
    let order = Order::Release { group, reason: reason.clone() };
    case.give(&*agent, order, "release", None, None, reason).await
}

/// Neighbours may believe something else: after a repair of the network, or of a host that had the address by mistake.
pub(super) async fn announce<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(vip): Path<String>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let request: AnnounceRequest = parsed(body)?;
    let reason = Reason::of(request.reason.as_deref(), &asker)?;
    let _turn = write.turn(&*agent).await;
    let case = Case::of(&*agent, &vip, write).await?;
    if let Some(owner) = case.elsewhere()? {
        let command = format!("buoy neigh announce {}{}", case.group().name, reason.option());
        return case.pass_on(&*agent, &asker, owner, ("announce", &request), &command).await;
    }
    let (group, reason) = (case.group().id, reason.recorded);
    let order = Order::Announce { group, reason: reason.clone() };
    case.give(&*agent, order, "announce", None, None, reason).await
}

pub(super) async fn drain<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Json<DrainReply>, Failure> {
    let request = parsed(body)?;
    Ok(Json(drained(&*agent, &asker, &write, request).await?))
}

async fn drained<A: Agent>(
    agent: &A,
    asker: &Asker,
    write: &Write,
    DrainRequest { reason, for_ms }: DrainRequest,
) -> Result<DrainReply, Failure> {
    let (reason, time) = (Reason::of(reason.as_deref(), asker)?.recorded, length(for_ms)?);
    let _turn = write.turn(agent).await;
    let snapshot = Snapshot::bare(agent).await?;
    write.check(&node_tag(&snapshot, &snapshot.me()))?;
    let would =
        || DrainReply { draining: Some(reason.clone()), for_ms, ..drain_reply(&snapshot, 0) };
    if write.dry_run {
        let owned = owned(&snapshot.status).count();
        let would_be = leaving(&snapshot);
        return Ok(DrainReply { owned, dry_run: true, would: would_be, ..would() });
    }
    tracing::info!(reason, for_ms, "drain");
    let until = time.map(|time| snapshot.status.at + time);
    let owned = follow(agent, Order::Drain { reason: reason.clone(), until }).await?;
    Ok(DrainReply { owned, ..would() })
}

pub(super) async fn undrain<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Json<DrainReply>, Failure> {
    let UndrainRequest { reason } = parsed(body)?;
    Ok(Json(undrained(&*agent, &asker, &write, reason.as_deref()).await?))
}

async fn undrained<A: Agent>(
    agent: &A,
    asker: &Asker,
    write: &Write,
    reason: Option<&str>,
) -> Result<DrainReply, Failure> {
    let reason = Reason::of(reason, asker)?.recorded;
    let _turn = write.turn(agent).await;
    let snapshot = Snapshot::bare(agent).await?;
    write.check(&node_tag(&snapshot, &snapshot.me()))?;
    if write.dry_run {
        let would = match snapshot.status.draining {
            Some(_) => format!("{} takes part again", snapshot.me()),
            None => format!("nothing: {} is not drained", snapshot.me()),
        };
        let reply = drain_reply(&snapshot, owned(&snapshot.status).count());
        return Ok(DrainReply { dry_run: true, would: vec![would], ..reply });
    }
    tracing::info!(reason, "undrain");
    let owned = follow(agent, Order::Undrain { reason }).await?;
    Ok(drain_reply(&snapshot, owned))
}

/// What a node is to do with what it owns and could own: it does so itself, since only it can give away.
pub(super) async fn patch_node<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(node): Path<String>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let patch: NodePatch = parsed(body)?;
    let desired = agent.desired();
    let known = desired.nodes.iter().find(|known| known.name == node);
    let known = known.ok_or_else(|| Failure::unknown_node(&node, &desired))?;
    if known.id != desired.me {
        let command = match (patch.drain, patch.cordon) {
            (Some(false), _) => "buoy undrain",
            (Some(true), _) | (None, None) => "buoy drain",
            (None, Some(true)) => "buoy node cordon",
            (None, Some(false)) => "buoy node uncordon",
        };
        let _turn = write.turn(&*agent).await;
        write.check(&node_tag(&Snapshot::bare(&*agent).await?, &node))?;
        let refusal = Failure::another_node(&node, desired.node_name(desired.me), command);
        let path = format!("/v1/nodes/{}", segment(&node));
        let passed = Passed { to: &node, method: "PATCH", path, body: &patch };
        return pass_on(&*agent, &asker, &write, passed, refusal).await;
    }
    let NodePatch { drain, cordon, reason, for_ms } = patch;
    let takes_no_time = |what| for_ms.map_or(Ok(()), |_| Err(Failure::not_of_it("time", what)));
    let reply = match (drain, cordon) {
        (Some(_), Some(_)) => return Err(Failure::two_orders()),
        (Some(true), None) => {
            drained(&*agent, &asker, &write, DrainRequest { reason, for_ms }).await?
        }
        (Some(false), None) => {
            takes_no_time("drain = false")?;
            undrained(&*agent, &asker, &write, reason.as_deref()).await?
        }
        (None, Some(cordon)) => {
            takes_no_time("cordon")?;
            cordoned(&*agent, &asker, &write, cordon, reason.as_deref()).await?
        }
        (None, None) => {
            return Err(Failure::nothing_asked("`drain` or `cordon` is true or false"));
        }
    };
    let tag = node_tag(&Snapshot::bare(&*agent).await?, &node);
    Ok(tagged(Json(reply).into_response(), &tag))
}

/// Lets the node keep what it has and take nothing that another can take, or take like any other again.
async fn cordoned<A: Agent>(
    agent: &A,
    asker: &Asker,
    write: &Write,
    cordon: bool,
    reason: Option<&str>,
) -> Result<DrainReply, Failure> {
    let reason = Reason::of(reason, asker)?.recorded;
    let _turn = write.turn(agent).await;
    let snapshot = Snapshot::bare(agent).await?;
    write.check(&node_tag(&snapshot, &snapshot.me()))?;
    let (me, owns) = (snapshot.me(), owned(&snapshot.status).count());
    let reply = DrainReply {
        cordoned: cordon.then(|| reason.clone()),
        draining: snapshot.status.draining.clone(),
        ..drain_reply(&snapshot, owns)
    };
    if write.dry_run {
        let would = match (cordon, &snapshot.status.cordoned) {
            (true, _) => {
                let vips = if owns == 1 { "1 VIP".to_owned() } else { format!("{owns} VIPs") };
                format!(
                    "{me} keeps what it owns ({vips}), and takes another only if no other node can"
                )
            }
            (false, Some(_)) => format!("{me} takes VIPs like any other node again"),
            (false, None) => format!("nothing: {me} is not cordoned"),
        };
        return Ok(DrainReply { dry_run: true, would: vec![would], ..reply });
    }
    tracing::info!(reason, cordon, "cordon");
    let order = if cordon { Order::Cordon { reason } } else { Order::Uncordon { reason } };
    let owned = follow(agent, order).await?;
    Ok(DrainReply { owned, ..reply })
}

/// The groups that this node serves.
fn owned(status: &Status) -> impl Iterator<Item = &GroupStatus> {
    status.groups.iter().filter(|group| group.owner == Some(status.me))
}

/// What becomes of each group of this node when it gives everything away.
fn leaving(snapshot: &Snapshot) -> Vec<String> {
    let name = |id| snapshot.desired.group(id).map_or_else(String::new, |group| group.name.clone());
    let mut all: Vec<String> = owned(&snapshot.status)
        .map(|known| match next(known, snapshot.desired.me) {
            Some(to) => format!("{} goes to {}", name(known.id), snapshot.desired.node_name(to)),
            None => format!("nobody serves {}: no other node can take it now", name(known.id)),
        })
        .collect();
    all.sort_unstable();
    all
}

/// Who would have a group without its owner, as things are.
fn next(known: &GroupStatus, without: NodeId) -> Option<NodeId> {
    let can = |candidate: &&buoy_core::Candidate| match candidate.standing {
        Standing::Candidate | Standing::Wants | Standing::Owner => candidate.node != without,
        Standing::Excluded(_) => false,
    };
    known.candidates.iter().find(can).map(|candidate| candidate.node)
}

/// Gives the order; how many groups the node served before. What the status allowed a moment ago the
/// loop may have to refuse all the same.
pub(super) async fn follow<A: Agent>(agent: &A, order: Order) -> Result<usize, Failure> {
    let answer = tokio::time::timeout(LOOP_TIMEOUT, agent.order(order)).await;
    Ok(answer.unwrap_or(Err(LoopGone))??)
}

fn drain_reply(snapshot: &Snapshot, owned: usize) -> DrainReply {
    let cordoned = snapshot.status.cordoned.clone();
    DrainReply { node: snapshot.me(), owned, cordoned, ..DrainReply::default() }
}

/// An order about one group, and all that is known of it at that moment.
struct Case {
    desired: Arc<Desired>,
    status: Status,
    /// Its place in `Desired::groups`.
    index: usize,
    write: Write,
}

impl Case {
    async fn of<A: Agent>(agent: &A, vip: &str, write: Write) -> Result<Self, Failure> {
        let desired = agent.desired();
        let unknown = || Failure::unknown_vip(vip, &desired);
        let id = desired.find_group(vip).ok_or_else(unknown)?.id;
        let index = desired.group_index(id).ok_or_else(unknown)?;
        let status = ask_loop(agent, Some(&[id])).await?;
        write.check(&vip_tag(&status, id))?;
        Ok(Self { desired, status, index, write })
    }

    fn group(&self) -> &Group {
        &self.desired.groups[self.index]
    }

    fn known(&self) -> Result<&GroupStatus, LoopGone> {
        // A reload may be under way: the loop then knows another set of groups for a moment.
        self.status.groups.iter().find(|g| g.id == self.group().id).ok_or(LoopGone)
    }

    /// The node of that name, which may own a VIP at all, with its name as the file writes it.
    fn node(&self, name: &str) -> Result<(NodeId, &str), Failure> {
        let found = self.desired.nodes.iter().find(|node| node.name == name);
        let node = found.ok_or_else(|| Failure::unknown_node(name, &self.desired))?;
        if node.witness {
            let reason = "it is a witness, which votes and never owns";
            return Err(Failure::cannot_take(name, &self.group().name, reason));
        }
        Ok((node.id, &node.name))
    }

    /// The name of the node that owns the group, where that is another one; refuses where nobody does.
    fn elsewhere(&self) -> Result<Option<&str>, Failure> {
        match self.known()?.owner {
            Some(owner) if owner == self.desired.me => Ok(None),
            Some(owner) => Ok(Some(self.desired.node_name(owner))),
            None => Err(Failure::no_owner(&self.group().name)),
        }
    }

    /// Has the owner follow the order.
    async fn pass_on<A: Agent, T: Serialize + Sync>(
        &self,
        agent: &A,
        asker: &Asker,
        owner: &str,
        (verb, body): (&str, &T),
        command: &str,
    ) -> Result<Response, Failure> {
        let (name, me) = (&self.group().name, self.desired.node_name(self.desired.me));
        let refusal = Failure::order_for_another(name, me, owner, command);
        let path = format!("/v1/vips/{}/{verb}", segment(name));
        let passed = Passed { to: owner, method: "POST", path, body };
        pass_on(agent, asker, &self.write, passed, refusal).await
    }

    /// Refuses while this node gives everything away.
    fn not_drained(&self) -> Result<(), Failure> {
        match &self.status.draining {
            Some(reason) => Err(Failure::drained(self.desired.node_name(self.desired.me), reason)),
            None => Ok(()),
        }
    }

    /// Refuses when that node would not serve the group well.
    fn can_take(&self, to: NodeId) -> Result<(), Failure> {
        let refused = |reason: &str| {
            Err(Failure::cannot_take(self.desired.node_name(to), &self.group().name, reason))
        };
        let candidate = self.known()?.candidates.iter().find(|c| c.node == to);
        match candidate.map(|candidate| &candidate.standing) {
            Some(Standing::Owner | Standing::Wants | Standing::Candidate) => Ok(()),
            Some(Standing::Excluded(why)) => refused(&Words::new(&self.desired).exclusion(why)),
            None => refused("nothing is known of it yet"),
        }
    }

    fn end(&self, time: Option<Duration>) -> Option<Instant> {
        time.map(|time| self.status.at + time)
    }

    async fn give<A: Agent>(
        &self,
        agent: &A,
        order: Order,
        verb: &str,
        to: Option<&str>,
        for_ms: Option<u64>,
        reason: String,
    ) -> Result<Response, Failure> {
        let vip = self.group().name.clone();
        let epoch = self.known()?.epoch.0;
        let mut would = Vec::new();
        if self.write.dry_run {
            would.push(self.outcome(&order)?);
        } else {
            tracing::info!(vip, to, for_ms, reason, "{verb}");
            follow(agent, order).await?;
        }
        let reply = OrderReply {
            vip,
            node: self.desired.node_name(self.desired.me).into(),
            epoch,
            order: verb.into(),
            to: to.map(str::to_owned),
            for_ms,
            reason,
            dry_run: self.write.dry_run,
            would,
        };
        Ok(Json(reply).into_response())
    }

    /// What would come of the order, as things are.
    fn outcome(&self, order: &Order) -> Result<String, LoopGone> {
        let (vip, me) = (&self.group().name, self.desired.me);
        let node = |id| self.desired.node_name(id);
        Ok(match order {
            Order::Move { to, .. } => format!(
                "{vip} goes to {} and stays there until somebody moves or releases it",
                node(*to)
            ),
            Order::Hold { until: Some(_), .. } => {
                format!("{vip} stays on {} until the time is over, or {0} fails", node(me))
            }
            Order::Hold { until: None, .. } => {
                format!(
                    "{vip} stays on {} until somebody moves or releases it, or {0} fails",
                    node(me)
                )
            }
            Order::Announce { .. } => {
                let all = &self.group().addresses;
                let all: Vec<String> = all.iter().map(|a| a.cidr.address().to_string()).collect();
                format!("{} tells its neighbours that it has {}", node(me), all.join(", "))
            }
            Order::Release { .. } => match self.known()?.candidates.first().map(|c| c.node) {
                Some(first) if first != me && next(self.known()?, me) == Some(first) => {
                    let when = words::failback(self.group().failback);
                    format!("{vip} may leave {}; {} gets it back: {when}", node(me), node(first))
                }
                Some(_) | None => {
                    format!("{vip} may leave {}, and nobody is better for it now", node(me))
                }
            },
            Order::Drain { .. }
            | Order::Undrain { .. }
            | Order::Cordon { .. }
            | Order::Uncordon { .. } => String::new(),
        })
    }
}

/// The body as what it should be; an empty one says nothing.
pub(super) fn parsed<T: Default + DeserializeOwned>(body: Body) -> Result<T, Failure> {
    let body = body.map_err(|error| Failure::body(&error))?;
    let wanted = "an object in braces, or nothing";
    if body.is_empty() { Ok(T::default()) } else { object(&body, wanted) }
}

/// A body that is needed: an empty one says nothing.
pub(super) fn needed<T: DeserializeOwned>(body: Body) -> Result<T, Failure> {
    object(&body.map_err(|error| Failure::body(&error))?, "an object in braces is needed")
}

fn object<T: DeserializeOwned>(body: &[u8], wanted: &str) -> Result<T, Failure> {
    // A struct would also be read from a list of its fields, which nobody means.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Failure::no_object(wanted));
    }
    serde_json::from_slice(body).map_err(|error| Failure::json(&error))
}

/// How long something is to last.
pub(super) fn length(for_ms: Option<u64>) -> Result<Option<Duration>, Failure> {
    let Some(millis) = for_ms else { return Ok(None) };
    let time = Duration::from_millis(millis);
    if time.is_zero() || time > ORDER_FOR_MAX {
        return Err(Failure::length());
    }
    Ok(Some(time))
}

/// An operator's words, on one line.
pub(super) struct Reason {
    pub(super) said: String,
    /// With who said them.
    pub(super) recorded: String,
}

impl Reason {
    pub(super) fn of(reason: Option<&str>, asker: &Asker) -> Result<Self, Failure> {
        let who = asker.name();
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let said: String = reason.unwrap_or_default().chars().map(plain).collect();
        let said = said.trim().to_owned();
        if said.chars().count() > REASON_MAX {
            return Err(Failure::reason_too_long());
        }
        let recorded =
            if said.is_empty() { format!("by {who}") } else { format!("{said} (by {who})") };
        Ok(Self { said, recorded })
    }

    /// As an option of a command, quoted for a shell.
    fn option(&self) -> String {
        if self.said.is_empty() {
            return String::new();
        }
        format!(" --reason '{}'", self.said.replace('\'', r"'\''"))
    }
}

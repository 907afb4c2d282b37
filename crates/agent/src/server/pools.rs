//! Answers about pools of addresses, and keeps addresses for somebody: an edit of the configuration like any other.
//!
//! What a VIP has is not taken from it: who wants to reserve it for another, or to release it, is told which VIP that is.

use super::config::{Editor, by, edited, tag, tagged};
use super::failure::Failure;
use super::openapi::Operation;
use super::orders::{Body, needed};
use super::stream::{Asked, Tagged};
use super::write::Write;
use super::{Agent, Asker, Snapshot};
use crate::edits::Wish;
use axum::Router;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get};
use buoy_api::{
    EditReply, PoolReply, PoolsReply, ReservationRequest, ReservationsReply, ReservedReply, pools,
};
use buoy_config::nearest;
use buoy_model::{Desired, Pool, name_key};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn routes<A: Agent>() -> Router<Arc<A>> {
    Router::new()
        .route("/v1/pools", get(list::<A>))
        .route("/v1/pools/{pool}", get(one::<A>))
        .route("/v1/reservations", get(reservations::<A>).post(reserve::<A>))
        .route("/v1/reservations/{address}", delete(release::<A>))
}

/// What can be asked here.
pub(super) fn operations() -> Vec<Operation> {
    let used = "A VIP has the address, or it is reserved for another: the answer says who.";
    let agreed =
        "The nodes of the cluster could not agree on it now: the answer says what they lack.";
    let invalid = "It is well-formed, and what would hold with it is refused: the answer says why.";
    let write = |operation: Operation| {
        let edit = operation.refuses(409, used).refuses(422, invalid).refuses(503, agreed);
        edit.changes().tagged()
    };
    vec![
        Operation::new("get", "/v1/pools", "pools", "All pools, and what is left of them.")
            .answers::<PoolsReply>()
            .list(),
        Operation::new("get", "/v1/pools/{pool}", "pool", "One pool, and what is left of it.")
            .answers::<PoolReply>()
            .list(),
        Operation::new(
            "get",
            "/v1/reservations",
            "reservations",
            "All addresses of pools that are kept for somebody.",
        )
        .answers::<ReservationsReply>()
        .list()
        .tagged(),
        write(Operation::new(
            "post",
            "/v1/reservations",
            "reserve",
            "Keep an address of a pool for somebody.",
        ))
        .takes::<ReservationRequest>(true)
        .answers::<ReservedReply>(),
        write(Operation::new(
            "delete",
            "/v1/reservations/{address}",
            "release_reservation",
            "Keep an address for nobody any more.",
        ))
        .reasoned()
        .answers::<EditReply>(),
    ]
}

async fn list<A: Agent>(State(agent): State<Arc<A>>, asked: Asked) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let snapshot = Snapshot::bare(&*agent).await?;
        let pools = pools::pools(&snapshot.desired);
        Ok(PoolsReply { node: snapshot.me(), revision: snapshot.revision, pools })
    };
    asked.answer(agent, "pools", make).await
}

async fn one<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(name): Path<String>,
    asked: Asked,
) -> Result<Response, Failure> {
    let make = move |agent: Arc<A>| {
        let name = name.clone();
        async move {
            let snapshot = Snapshot::bare(&*agent).await?;
            let all = pools::pools(&snapshot.desired);
            let names: Vec<&str> = all.iter().map(|pool| pool.name.as_str()).collect();
            let unknown = unknown(&name, &names);
            let pool = all.iter().find(|pool| pool.name == name).cloned().ok_or(unknown)?;
            Ok(PoolReply { node: snapshot.me(), revision: snapshot.revision, pool })
        }
    };
    asked.answer(agent, "pool", make).await
}

async fn reservations<A: Agent>(
    State(agent): State<Arc<A>>,
    asked: Asked,
) -> Result<Response, Failure> {
    let make = |agent: Arc<A>| async move {
        let desired = agent.desired();
        let revision = agent.edits().revision();
        let node = desired.node_name(desired.me).to_owned();
        let reservations = pools::reservations(&desired);
        Ok(Tagged(tag(revision), ReservationsReply { node, revision, reservations }))
    };
    asked.answer(agent, "reservations", make).await
}

async fn reserve<A: Agent>(
    State(agent): State<Arc<A>>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    write: Write,
    body: Body,
) -> Result<Response, Failure> {
    let ReservationRequest { pool, address, holder, reason } = needed(body)?;
    let by = by(&*agent, &asker, &write, reason.as_deref())?;
    let desired = agent.desired();
    let known = find(&desired, &pool)?;
    let address = match address {
        Some(text) => asked(&desired, known, &text, &holder)?,
        None => chosen(&desired, known, &holder)?,
    };
    let edit = edited(&*agent, Wish::Reserve(address, holder.clone()), by).await?;
    let reply = ReservedReply { address: address.to_string(), pool, holder, edit };
    Ok(tagged(reply.edit.revision, &reply))
}

async fn release<A: Agent>(
    State(agent): State<Arc<A>>,
    Path(address): Path<String>,
    Editor(by): Editor,
) -> Result<Response, Failure> {
    let desired = agent.desired();
    let address = parsed(&address)?;
    let all = pools::reservations(&desired);
    let Some(reserved) = all.iter().find(|r| r.address == address.to_string()) else {
        let title = format!("{address} is not reserved");
        let detail = match vip(&desired, address) {
            Some(vip) => format!("the VIP {vip} has it"),
            None => String::new(),
        };
        return Err(Failure::new(StatusCode::NOT_FOUND, "not_reserved", &title, detail)
            .fix("`buoy pool show` has what is reserved"));
    };
    if let Some(vip) = &reserved.vip {
        return Err(in_use(address, vip));
    }
    let edit = edited(&*agent, Wish::Free(address), by).await?;
    Ok(tagged(edit.revision, &edit))
}

fn in_use(address: IpAddr, vip: &str) -> Failure {
    let title = format!("{address} is in use");
    Failure::new(StatusCode::CONFLICT, "in_use", &title, format!("the VIP {vip} has it"))
        .fix(format!("give {vip} another address, or take it away, and try again"))
}

fn parsed(text: &str) -> Result<IpAddr, Failure> {
    text.parse().map_err(|_| {
        let title = format!("{text:?} is not an address");
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "address", &title, "")
            .fix("write it without a prefix, as in 10.0.0.150")
    })
}

fn find<'d>(desired: &'d Desired, asked: &str) -> Result<&'d Pool, Failure> {
    let able = || desired.pools.iter().filter(|pool| pool.can_be_asked());
    if let Some(pool) = able().find(|pool| pool.name == asked) {
        return Ok(pool);
    }
    let names: Vec<&str> = able().map(|pool| pool.name.as_str()).collect();
    if desired.pools.iter().any(|pool| pool.name == asked) {
        let title = format!("nothing can be reserved in {asked}");
        let detail = "each of its addresses is a VIP already";
        return Err(Failure::new(StatusCode::NOT_FOUND, "unknown_pool", &title, detail)
            .fix(instead(asked, &names)));
    }
    Err(unknown(asked, &names))
}

fn unknown(asked: &str, names: &[&str]) -> Failure {
    let title = format!("there is no pool {asked:?}");
    Failure::new(StatusCode::NOT_FOUND, "unknown_pool", &title, "").fix(instead(asked, names))
}

/// What to ask for instead.
fn instead(asked: &str, names: &[&str]) -> String {
    match nearest(asked, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "write a [[pool]] with `auto_assign` into the file".into(),
        None => format!("there are {}", names.join(", ")),
    }
}

/// The VIP that has an address.
fn vip(desired: &Desired, address: IpAddr) -> Option<&str> {
    let mut all = desired.groups.iter().flat_map(|group| &group.addresses);
    all.find(|a| a.cidr.address() == address).map(|a| a.vip_name.as_str())
}

/// The address that is asked for, if nobody else has it.
fn asked(desired: &Desired, pool: &Pool, text: &str, holder: &str) -> Result<IpAddr, Failure> {
    let address = parsed(text)?;
    if !pool.contains(address) {
        let title = format!("{address} is not in the pool {}", pool.name);
        let ranges: Vec<String> = pool.blocks.iter().map(ToString::to_string).collect();
        return Err(Failure::new(StatusCode::UNPROCESSABLE_ENTITY, "outside", &title, "")
            .fix(format!("it has {}", ranges.join(", "))));
    }
    if let Some(vip) = vip(desired, address).filter(|vip| *vip != holder) {
        return Err(in_use(address, vip));
    }
    let other = pool.reserved.iter().find(|r| r.address == address && r.holder != holder);
    if let Some(other) = other {
        let title = format!("{address} is reserved for {}", other.holder);
        return Err(Failure::new(StatusCode::CONFLICT, "reserved", &title, "")
            .fix(format!("`buoy pool release {address}`, or take another one")));
    }
    Ok(address)
}

/// What the holder has already, or an address that is free.
fn chosen(desired: &Desired, pool: &Pool, holder: &str) -> Result<IpAddr, Failure> {
    let own = desired.groups.iter().flat_map(|group| &group.addresses);
    let mut own = own.filter(|a| a.vip_name == holder).map(|a| a.cidr.address());
    if let Some(own) = own.find(|address| pool.contains(*address)) {
        return Ok(own);
    }
    let is_free = |address: IpAddr| {
        vip(desired, address).is_none() && !pool.reserved.iter().any(|r| r.address == address)
    };
    let free = |ipv4| pool.free(u64::from(name_key(holder)), ipv4, is_free);
    free(true).or_else(|| free(false)).map(|cidr| cidr.address()).ok_or_else(|| {
        let title = format!("the pool {} has no address left", pool.name);
        Failure::new(StatusCode::CONFLICT, "exhausted", &title, "")
            .fix("add addresses to the pool, or release one that nobody needs")
    })
}

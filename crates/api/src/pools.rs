//! Pools of addresses and what is reserved in them, as they travel in JSON: who has what, and how much is left.

use crate::client::query;
use crate::{Client, ClientError, EditReply, segment};
use buoy_model::{Desired, Giving, Pool};
use hyper::Method;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use utoipa::ToSchema;

/// `GET /v1/pools`: all pools.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct PoolsReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// All pools, in the file's order.
    pub pools: Vec<PoolView>,
}

/// `GET /v1/pools/{pool}`: one pool.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct PoolReply {
    /// The node that answers.
    pub node: String,
    /// As in the status.
    pub revision: u64,
    /// The pool that was asked for.
    pub pool: PoolView,
}

/// One pool.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// `each`: every address is a VIP. `named`: VIPs that name the pool get one. `auto`: so do VIPs that ask any pool.
    pub gives: String,
    /// Of pools that can be asked without a name, the smallest gives first; null: after those with one.
    pub priority: Option<u32>,
    /// Its addresses, as in `10.0.0.100-10.0.0.149`.
    pub ranges: Vec<String>,
    /// How many can be given; at most 2^64 - 1 is told.
    pub size: u64,
    /// Those that are VIPs.
    pub used: u64,
    /// Those that are reserved and no VIP.
    pub reserved: u64,
    /// Those that are left.
    pub free: u64,
    /// Those that are not free.
    pub addresses: Vec<PoolAddressView>,
}

impl PoolView {
    /// Whether less than a tenth is left of what VIPs can ask for.
    pub fn is_nearly_full(&self) -> bool {
        self.gives != "each" && self.free.saturating_mul(10) < self.size
    }
}

/// What is wrong with pools, in sentences that say what to do.
pub fn problems(desired: &Desired) -> Vec<String> {
    let full = pools(desired).into_iter().filter(PoolView::is_nearly_full);
    full.map(|pool| said(&pool)).collect()
}

fn said(PoolView { name, size, free, .. }: &PoolView) -> String {
    let left = match free {
        0 => "no address is".to_owned(),
        1 => "one address is".to_owned(),
        n => format!("{n} addresses are"),
    };
    format!(
        "{left} left of {size} in the pool {name}: add addresses to it, or release some (`buoy pool show {name}`)"
    )
}

/// An address of a pool that is not free.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct PoolAddressView {
    /// Which.
    pub address: String,
    /// The VIP that has it; null: none.
    pub vip: Option<String>,
    /// Who it is reserved for; null: for nobody.
    pub reserved_for: Option<String>,
    /// The agent reserved it, so that the VIP keeps what it got; it ends with that.
    pub given: bool,
}

/// `GET /v1/reservations`: all addresses that are kept for somebody.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ReservationsReply {
    /// The node that answers.
    pub node: String,
    /// The revision of the configuration: the ETag is this number.
    pub revision: u64,
    /// All of them, by address.
    pub reservations: Vec<ReservationView>,
}

/// An address that is kept for somebody.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ReservationView {
    /// Which.
    pub address: String,
    /// Of which pool.
    pub pool: String,
    /// For whom.
    #[serde(rename = "for")]
    pub holder: String,
    /// The agent made it, so that the VIP keeps what it got; it ends with that.
    pub given: bool,
    /// The VIP that has it now; null: none.
    pub vip: Option<String>,
}

/// What is to be reserved.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReservationRequest {
    /// Of which pool.
    pub pool: String,
    /// Which address; without it one that is free, or the one that the VIP of this name has.
    #[serde(default)]
    pub address: Option<String>,
    /// For whom: a VIP, or what else has it.
    #[serde(rename = "for")]
    pub holder: String,
    /// Why, for the history.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What was reserved, or would be.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize, ToSchema)]
#[serde(default)]
pub struct ReservedReply {
    /// Which address.
    pub address: String,
    /// Of which pool.
    pub pool: String,
    /// For whom.
    #[serde(rename = "for")]
    pub holder: String,
    /// The edit of the configuration that this is.
    pub edit: EditReply,
}

/// The VIPs by their addresses.
fn vips(desired: &Desired) -> BTreeMap<IpAddr, &str> {
    let all = desired.groups.iter().flat_map(|group| &group.addresses);
    all.map(|address| (address.cidr.address(), address.vip_name.as_str())).collect()
}

/// All pools with what is left of them.
pub fn pools(desired: &Desired) -> Vec<PoolView> {
    if desired.pools.is_empty() {
        return Vec::new();
    }
    let vips = vips(desired);
    desired.pools.iter().map(|pool| view(pool, &vips)).collect()
}

fn view(pool: &Pool, vips: &BTreeMap<IpAddr, &str>) -> PoolView {
    let mut addresses: BTreeMap<IpAddr, PoolAddressView> = BTreeMap::new();
    for (address, vip) in vips.iter().filter(|(address, _)| pool.contains(**address)) {
        addresses.entry(*address).or_default().vip = Some((*vip).to_owned());
    }
    for reserved in &pool.reserved {
        let entry = addresses.entry(reserved.address).or_default();
        entry.reserved_for = Some(reserved.holder.clone());
        entry.given = reserved.given;
    }
    // What is not to be given is in no count, also where a VIP has it all the same.
    let counted = addresses.iter().filter(|(address, _)| !pool.skips(**address));
    let count =
        |is_vip: bool| counted.clone().filter(move |(_, view)| view.vip.is_some() == is_vip);
    let (used, reserved) = (count(true).count() as u64, count(false).count() as u64);
    let size = u64::try_from(pool.size()).unwrap_or(u64::MAX);
    PoolView {
        name: pool.name.clone(),
        gives: match pool.giving {
            Giving::Each => "each",
            Giving::Named => "named",
            Giving::Auto => "auto",
        }
        .to_owned(),
        priority: pool.priority,
        ranges: pool.blocks.iter().map(ToString::to_string).collect(),
        size,
        used,
        reserved,
        free: size.saturating_sub(used + reserved),
        addresses: addresses
            .into_iter()
            .map(|(address, view)| PoolAddressView { address: address.to_string(), ..view })
            .collect(),
    }
}

/// All addresses that are kept for somebody.
pub fn reservations(desired: &Desired) -> Vec<ReservationView> {
    let vips = vips(desired);
    let mut all = BTreeMap::new();
    for pool in &desired.pools {
        for reserved in &pool.reserved {
            let view = ReservationView {
                address: reserved.address.to_string(),
                pool: pool.name.clone(),
                holder: reserved.holder.clone(),
                given: reserved.given,
                vip: vips.get(&reserved.address).map(|vip| (*vip).to_owned()),
            };
            all.insert(reserved.address, view);
        }
    }
    all.into_values().collect()
}

impl Client {
    /// All pools.
    pub fn pools(&self) -> Result<PoolsReply, ClientError> {
        self.get("/v1/pools")
    }

    /// One pool.
    pub fn pool(&self, name: &str) -> Result<PoolReply, ClientError> {
        self.get(&format!("/v1/pools/{}", segment(name)))
    }

    /// All addresses that are kept for somebody.
    pub fn reservations(&self) -> Result<ReservationsReply, ClientError> {
        self.get("/v1/reservations")
    }

    /// Keeps an address for somebody; `dry_run`: only says which.
    pub fn reserve(
        &self,
        request: &ReservationRequest,
        dry_run: bool,
    ) -> Result<ReservedReply, ClientError> {
        let dry_run = if dry_run { "?dry_run=1" } else { "" };
        self.write(&format!("/v1/reservations{dry_run}"), request, None)
    }

    /// Keeps an address for nobody any more.
    pub fn free(
        &self,
        address: IpAddr,
        reason: Option<&str>,
        dry_run: bool,
    ) -> Result<EditReply, ClientError> {
        let query = query(reason, dry_run);
        self.change(Method::DELETE, &format!("/v1/reservations/{address}{query}"), &(), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{Block, Given, Reserved};

    #[test]
    fn a_pool_counts_each_address_once_and_says_when_little_is_left() {
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let block = Block::new(address(100), address(109), 24).unwrap();
        let reserved = |n, holder: &str, given| Reserved {
            address: address(n),
            holder: holder.to_owned(),
            given,
        };
        let mut pool = Pool {
            name: "web".into(),
            giving: Giving::Named,
            priority: None,
            blocks: vec![block],
            skips_ends: true,
            hosts: vec![address(109)],
            reserved: vec![reserved(100, "shop", true), reserved(101, "printer", false)],
            given: vec![Given { vip: "shop".into(), address: address(100) }],
        };
        let mut vips = BTreeMap::from([(address(100), "shop"), (address(200), "elsewhere")]);
        let seen = view(&pool, &vips);
        assert_eq!((seen.size, seen.used, seen.reserved, seen.free), (9, 1, 1, 7));
        assert_eq!(seen.ranges, ["10.0.0.100-10.0.0.109"]);
        assert_eq!(seen.addresses.len(), 2);
        assert_eq!(seen.addresses[0].vip.as_deref(), Some("shop"));
        assert!(!seen.is_nearly_full());
        vips.extend((102..109).map(|n| (address(n), "other")));
        let seen = view(&pool, &vips);
        assert_eq!((seen.used, seen.free, seen.is_nearly_full()), (8, 0, true));
        let advice = "add addresses to it, or release some (`buoy pool show web`)";
        assert_eq!(said(&seen), format!("no address is left of 9 in the pool web: {advice}"));
        let one = PoolView { free: 1, ..seen };
        assert_eq!(said(&one), format!("one address is left of 9 in the pool web: {advice}"));
        // Of a pool whose addresses are VIPs nothing is ever free, and nobody need know.
        pool.giving = Giving::Each;
        assert!(!view(&pool, &vips).is_nearly_full());
    }
}

//! `buoy pool`: pools of addresses, who has what, and addresses that are kept for somebody.

use crate::Asking;
use crate::failure::{Exit, Failure};
use crate::listing::Listing;
use crate::output;
use crate::table::{Align, Table, Tone};
use buoy_api::{
    EditReply, PoolAddressView, PoolView, PoolsReply, ReservationRequest, ReservedReply,
};
use std::net::IpAddr;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// One line for each pool: how many addresses it has, and how many are left
    Ls(Listing),
    /// The addresses of a pool that are not free, and who has them
    Show(ShowArguments),
    /// Keep an address of a pool for a VIP, or for something else that has it
    Reserve(ReserveArguments),
    /// Keep an address for nobody any more
    Release(ReleaseArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    asking: Asking,
    /// Its name; without it: all pools
    pool: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ReserveArguments {
    #[command(flatten)]
    asking: Asking,
    /// The name of the pool
    pool: String,
    /// Which address; without it one that is free, or the one that the VIP has
    address: Option<IpAddr>,
    /// For whom: a VIP, or what else has it
    #[arg(long = "for", value_name = "NAME")]
    holder: String,
    /// For the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Say what would be, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ReleaseArguments {
    #[command(flatten)]
    asking: Asking,
    /// Which address
    address: IpAddr,
    /// For the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Say what would be, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(listing) => {
            let as_it_is = |reply: PoolsReply| reply;
            listing.show("/v1/pools", as_it_is, |reply| match reply.pools.as_slice() {
                [] => "the file has no pool\n".into(),
                all => pools(all).render(output::colour()),
            })
        }
        Command::Show(arguments) => show(&arguments),
        Command::Reserve(arguments) => reserve(&arguments),
        Command::Release(ReleaseArguments { asking, address, reason, dry_run }) => {
            let reply = asking.client()?.free(address, reason.as_deref(), dry_run)?;
            let is = if dry_run { "would be" } else { "is" };
            asking.show(&reply, |_| format!("{address} {is} free\n"))?;
            in_force(&reply)
        }
    }
}

fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let mut reply = arguments.asking.client()?.pools()?;
    if let Some(asked) = &arguments.pool {
        let names: Vec<String> = reply.pools.iter().map(|pool| pool.name.clone()).collect();
        reply.pools.retain(|pool| pool.name == *asked);
        if reply.pools.is_empty() {
            let there = match names.as_slice() {
                [] => "the file has none".to_owned(),
                names => format!("there are {}", names.join(", ")),
            };
            return Err(Failure::failed(format!("there is no pool {asked}; {there}")));
        }
    }
    arguments.asking.show(&reply, |reply| addresses(&reply.pools).render(output::colour()))
}

fn reserve(arguments: &ReserveArguments) -> Result<(), Failure> {
    let request = ReservationRequest {
        pool: arguments.pool.clone(),
        address: arguments.address.map(|address| address.to_string()),
        holder: arguments.holder.clone(),
        reason: arguments.reason.clone(),
    };
    let reply = arguments.asking.client()?.reserve(&request, arguments.dry_run)?;
    arguments.asking.show(&reply, |reply| format!("{}\n", reserved(reply)))?;
    in_force(&reply.edit)
}

fn reserved(reply: &ReservedReply) -> String {
    let ReservedReply { address, pool, holder, edit } = reply;
    let is = if edit.dry_run { "would be" } else { "is" };
    format!("{address} of {pool} {is} reserved for {holder}")
}

/// What was taken and is not in force here is no success.
fn in_force(edit: &EditReply) -> Result<(), Failure> {
    match &edit.refused_here {
        None => Ok(()),
        Some(why) => Err(Failure {
            exit: Exit::Config,
            message: format!("it is not in force on {}:\n{why}", edit.node),
        }),
    }
}

fn pools(all: &[PoolView]) -> Table<7> {
    let mut table = Table::new([
        ("POOL", Align::Left),
        ("SIZE", Align::Right),
        ("USED", Align::Right),
        ("RESERVED", Align::Right),
        ("FREE", Align::Right),
        ("GIVES", Align::Left),
        ("ADDRESSES", Align::Left),
    ]);
    for pool in all {
        let gives = match pool.gives.as_str() {
            "each" => "each address is a VIP",
            "auto" => "to who asks any pool",
            _ => "to who names it",
        };
        let tone = if pool.is_nearly_full() { Tone::Wrong } else { Tone::Plain };
        let counts = [pool.size, pool.used, pool.reserved, pool.free].map(|n| n.to_string());
        let [size, used, reserved, free] = counts;
        let ranges = pool.ranges.join(", ");
        table.row(tone, [pool.name.clone(), size, used, reserved, free, gives.into(), ranges]);
    }
    table
}

fn addresses(all: &[PoolView]) -> Table<4> {
    let mut table = Table::new([
        ("POOL", Align::Left),
        ("ADDRESS", Align::Left),
        ("VIP", Align::Left),
        ("RESERVED FOR", Align::Left),
    ]);
    for pool in all {
        for PoolAddressView { address, vip, reserved_for, given } in &pool.addresses {
            let kept = match (reserved_for, given) {
                (Some(holder), true) => format!("{holder}, as long as it asks"),
                (Some(holder), false) => holder.clone(),
                (None, _) => String::new(),
            };
            let vip = vip.clone().unwrap_or_default();
            table.row(Tone::Plain, [pool.name.clone(), address.clone(), vip, kept]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_a_line_and_each_address_that_is_not_free_says_whose_it_is() {
        let address = |address: &str, vip: Option<&str>, holder: Option<&str>, given| {
            let (vip, reserved_for) = (vip.map(str::to_owned), holder.map(str::to_owned));
            PoolAddressView { address: address.into(), vip, reserved_for, given }
        };
        let pool = PoolView {
            name: "web".into(),
            gives: "auto".into(),
            ranges: vec!["10.0.0.100-10.0.0.102".into()],
            size: 3,
            used: 2,
            reserved: 1,
            addresses: vec![
                address("10.0.0.100", Some("shop"), Some("shop"), true),
                address("10.0.0.101", None, Some("printer"), false),
                address("10.0.0.102", Some("mail"), None, false),
            ],
            ..PoolView::default()
        };
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let all = std::slice::from_ref(&pool);
        assert_eq!(
            lines(pools(all).render(false))[1],
            "web      3     2         1     0  to who asks any pool  10.0.0.100-10.0.0.102"
        );
        let rows = lines(addresses(all).render(false));
        assert_eq!(rows[1], "web   10.0.0.100  shop  shop, as long as it asks");
        assert_eq!(rows[2], "web   10.0.0.101  -     printer");
        assert_eq!(rows[3], "web   10.0.0.102  mail  -");
    }
}

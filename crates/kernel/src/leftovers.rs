//! Takes away what an agent that has stopped, or died, has left in the kernel: for a host that Buoy leaves.
//!
//! A stop leaves what forwards, so that a restart drops no packet. A death leaves all else too: the gate, and addresses
//! until their lifetime is over. These go first, for nothing may answer any more once the gate is gone.

use crate::fast::Fast;
use crate::gate::Gate;
use crate::netlink::Requests;
use crate::nft;
use crate::virtual_mac::{self, VirtualMacs};
use std::fmt::Display;

/// What was taken away, in words; an error is the first thing that stays, and why.
pub fn remove() -> Result<Vec<String>, String> {
    let stays = |what: &str, error: &dyn Display| format!("{what}: {error}");
    let mut gone = Vec::new();
    let mut requests = Requests::open().map_err(|error| stays("addresses", &error))?;
    for address in requests.list_ours().map_err(|error| stays("addresses", &error))? {
        let cidr = address.cidr.to_string();
        let removed = requests.remove_address(address.link, address.cidr);
        removed.map_err(|error| stays(&cidr, &error))?;
        gone.push(cidr);
    }
    requests.remove_all_virtual().map_err(|error| stays("routes and rules of VIPs", &error))?;
    gone.extend(
        virtual_mac::left(&mut requests).into_iter().map(|name| format!("interface {name}")),
    );
    if let Some(problem) = VirtualMacs::default().forget(&mut requests).into_iter().next() {
        return Err(problem);
    }
    let gates = Gate::remove_left(&mut requests).map_err(|error| stays("the gate", &error))?;
    gone.extend(gates.into_iter().map(|link| format!("the gate of {link}")));
    if Fast::kept() {
        Fast::detach_earlier().map_err(|error| stays("the XDP programs", &error))?;
        if Fast::kept() {
            return Err(
                "the XDP programs: their files under /sys/fs/bpf/buoy cannot be removed".into()
            );
        }
        gone.push("the XDP programs and their maps".into());
    }
    let tables = nft::remove_all().map_err(|error| stays("rules of nftables", &error))?;
    gone.extend(tables.into_iter().map(|table| format!("nftables table {table}")));
    Ok(gone)
}

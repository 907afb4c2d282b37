//! Makes this host a real server for VIPs that a director forwards by `dsr` or `tunnel`, and undoes it.
//!
//! The VIP comes on the loopback interface, where the kernel takes packets for it and, with `arp_ignore` and
//! `arp_announce`, says nothing of it on any segment. For `tunnel` an XDP program takes the outer header off. What was
//! changed is recorded before it is changed, so `remove` gives back exactly what was, and a change that
//! fails half-way is undone. Nothing here runs on: the kernel keeps all of it until the next boot.

mod check;
mod decap;
mod error;
mod plan;
mod seen;
mod state;
mod tunnel;

pub use check::{Condition, Health};
pub use decap::{Counts, Decap, Decapsulator};
pub use error::BackendError;
pub use plan::{Obstacle, Step};
pub use state::{FOLDER, Prepared, Vips};
pub use tunnel::Tunnel;

use crate::netlink::Requests;
use crate::sysctl;
use buoy_model::{Cidr, LinkId};
use plan::{LOOPBACK, Plan};
use seen::Seen;
use state::{State, Store};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

/// A VIP, and how its packets come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// Its address.
    pub address: IpAddr,
    /// Wrapped into others, or not.
    pub tunnel: Tunnel,
    /// By which interface; `None`: the obvious one.
    pub interface: Option<String>,
}

/// Which VIPs this host is no more to be prepared for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Which {
    /// These.
    These(BTreeSet<IpAddr>),
    /// All, and what else carries the mark, should the record be lost.
    All,
}

/// Whether anything is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Run {
    /// It is done.
    Real,
    /// It is only said.
    Dry,
}

/// What was done, or would be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Outcome {
    /// In this order; empty: all is so already.
    pub steps: Vec<Step>,
    /// What is left alone, and why.
    pub notes: Vec<String>,
    /// What this host is prepared for afterwards.
    pub vips: Vips,
}

/// The hand on this host.
pub struct Backend {
    requests: Requests,
    store: Store,
}

impl Backend {
    /// Records are in this folder: `FOLDER` but for tests.
    pub fn open(folder: &Path) -> Result<Self, BackendError> {
        Ok(Self { requests: Requests::open()?, store: Store::new(folder) })
    }

    /// What this host is prepared for.
    pub fn prepared(&self) -> Result<Vips, BackendError> {
        Ok(self.store.read()?.vips)
    }

    /// Prepares this host for these VIPs too. Twice is once.
    pub fn add(&mut self, wanted: &[Wanted], run: Run) -> Result<Outcome, BackendError> {
        let _lock = (run == Run::Real).then(|| self.store.lock()).transpose()?;
        let state = self.store.read()?;
        let seen = Seen::now(&mut self.requests, &seen::setting)?;
        let new = resolve(wanted, &state, &seen)?;
        let obstacles = plan::obstacles(&new, &seen);
        if !obstacles.is_empty() {
            return Err(BackendError::Obstacles(obstacles));
        }
        let mut target = state.vips.clone();
        target.extend(new);
        let plan = plan::plan(&state, target, &seen);
        self.carry_out(&state, plan, run)
    }

    /// Undoes what `add` did for these. Twice is once.
    pub fn remove(&mut self, which: &Which, run: Run) -> Result<Outcome, BackendError> {
        let _lock = (run == Run::Real).then(|| self.store.lock()).transpose()?;
        let state = self.store.read()?;
        let seen = Seen::now(&mut self.requests, &seen::setting)?;
        let plan = match which {
            Which::All => plan::sweep(&state, &seen),
            Which::These(addresses) => {
                let mut target = state.vips.clone();
                target.retain(|address, _| !addresses.contains(address));
                plan::plan(&state, target, &seen)
            }
        };
        self.carry_out(&state, plan, run)
    }

    /// What would drop packets for these VIPs, or tell others that they are here; for all that this host is
    /// prepared for, where none is named.
    pub fn check(&mut self, wanted: &[Wanted]) -> Result<Vec<Condition>, BackendError> {
        let state = self.store.read()?;
        let seen = Seen::now(&mut self.requests, &seen::setting)?;
        let vips =
            if wanted.is_empty() { state.vips } else { resolve_as_is(wanted, &state, &seen)? };
        Ok(check::conditions(&vips, &seen))
    }

    /// What was taken out of other packets, by interface.
    pub fn counts(&mut self) -> Result<Vec<(String, Counts)>, BackendError> {
        let seen = Seen::now(&mut self.requests, &seen::setting)?;
        let counts = seen.programs.into_iter().filter_map(|(interface, on)| match on {
            decap::OnInterface::Ours(_, counts) => Some((interface, counts)),
            decap::OnInterface::Another(_) => None,
        });
        Ok(counts.collect())
    }

    fn carry_out(&mut self, state: &State, plan: Plan, run: Run) -> Result<Outcome, BackendError> {
        let Plan { steps, state: after, notes } = plan;
        if run == Run::Real {
            self.store.write(&state.and(&after))?;
            self.do_all(&steps, state)?;
            self.store.write(&after)?;
        }
        Ok(Outcome { steps, notes, vips: after.vips })
    }

    /// All of them, or none.
    fn do_all(&mut self, steps: &[Step], before: &State) -> Result<(), BackendError> {
        for (at, step) in steps.iter().enumerate() {
            let Err(cause) = self.do_one(step) else { continue };
            let mut left = Vec::new();
            for undo in steps[..at].iter().rev().map(Step::turned) {
                if let Err(cause) = self.do_one(&undo) {
                    left.push((undo, cause));
                }
            }
            if left.is_empty() {
                self.store.write(before)?;
            }
            return Err(BackendError::Step { step: Box::new(step.clone()), cause, left });
        }
        Ok(())
    }

    fn do_one(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Set { setting, from: _, to } => {
                sysctl::write(setting, to).map_err(|error| error.to_string())
            }
            Step::Address { address, prefix, add } => {
                let loopback = self.link(LOOPBACK)?;
                let changed = if *add {
                    self.requests.add_to_loopback(loopback, *address)
                } else {
                    let cidr = Cidr::new(*address, *prefix).ok_or("its prefix is too long")?;
                    self.requests.remove_address(loopback, cidr).map(|_| ())
                };
                changed.map_err(|error| error.to_string())
            }
            Step::Decapsulate { interface, from: _, to } => match self.link(interface) {
                Ok(link) => decap::put(&mut self.requests, link, to.as_ref()),
                // It is gone, and its program with it.
                Err(_) if to.is_none() => Ok(()),
                Err(error) => Err(error),
            },
        }
    }

    fn link(&mut self, name: &str) -> Result<LinkId, String> {
        let links = self.requests.links().map_err(|error| error.to_string())?;
        let link = links.into_iter().find(|link| link.name == name);
        link.map(|link| link.id).ok_or_else(|| format!("there is no interface {name}"))
    }
}

/// Each with its interface: the one that is said, or was, or the obvious one.
fn resolve(wanted: &[Wanted], state: &State, seen: &Seen<'_>) -> Result<Vips, BackendError> {
    let resolve = |wanted: &Wanted| {
        let address = wanted.address.to_canonical();
        let said = wanted.interface.clone();
        let was = || state.vips.get(&address).map(|vip| vip.interface.clone());
        let interface = said.or_else(was).or_else(|| seen.interface_for(address));
        let interface = interface.ok_or(BackendError::Interface(address))?;
        Ok((address, Prepared { interface, tunnel: wanted.tunnel, found: false }))
    };
    wanted.iter().map(resolve).collect()
}

/// The same, and what comes by a tunnel is not asked for again.
fn resolve_as_is(wanted: &[Wanted], state: &State, seen: &Seen<'_>) -> Result<Vips, BackendError> {
    let mut vips = resolve(wanted, state, seen)?;
    for (address, vip) in &mut vips {
        if let Some(known) = state.vips.get(address) {
            vip.tunnel = vip.tunnel.or(known.tunnel);
        }
    }
    Ok(vips)
}

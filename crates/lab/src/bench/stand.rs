//! One system on a segment of its own: built, brought to a steady state, started over.

use super::System;
use crate::agent::{Buoy, config_head};
use crate::fault::Fault;
use crate::keepalived::Keepalived;
use crate::peer::Peer;
use crate::probe::arp::ArpObserver;
use crate::process::wait_until;
use crate::segment::{ECHO_PORT, Segment};
use crate::topology::{Topology, ipv4, wide_ipv4};
use crate::{Error, Result};
use nix::sys::signal::Signal;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The VIP whose connections are forwarded to backends.
pub(super) const FORWARDED: Ipv4Addr = ipv4(100);
/// The VIP that its owner serves itself.
pub(super) const LOCAL: Ipv4Addr = ipv4(101);
/// How long a system may take to be steady.
const STEADY_MAX: Duration = Duration::from_secs(30);
/// How long two VIPs may be apart until they are brought together.
const APART_MAX: Duration = Duration::from_secs(3);

/// The daemons of a system.
pub(super) enum Daemons {
    Buoy(Buoy),
    Keepalived(Keepalived),
}

impl Daemons {
    pub(super) fn peer(&mut self) -> &mut dyn Peer {
        match self {
            Self::Buoy(buoy) => buoy,
            Self::Keepalived(keepalived) => keepalived,
        }
    }
}

/// A system that runs.
pub(super) struct Stand {
    pub(super) system: System,
    // Before the segment, because its daemons live inside.
    pub(super) daemons: Daemons,
    pub(super) segment: Segment,
}

impl Stand {
    /// With the two VIPs of the trials, both on one node.
    pub(super) fn pair(system: System) -> Result<Self> {
        let segment = Segment::build(topology(system), &mut |_| {})?;
        let daemons = match system {
            System::Buoy => {
                let config = format!("{}{}", config_head(&segment.topology), pair_config());
                Daemons::Buoy(Buoy::new(&segment, &config)?)
            }
            System::Keepalived(interval) => {
                Daemons::Keepalived(Keepalived::new(FORWARDED, interval)?.beside(LOCAL))
            }
        };
        // A connection whose packet was lost tries again within a second, whatever the outage.
        let client = segment.inside("client")?;
        let _older_kernels_cannot = client.sysctl("ipv4.tcp_rto_max_ms", "1000");
        Self { system, daemons, segment }.started()
    }

    /// With so many VIPs, all on the first node; keepalived has so many instances.
    pub(super) fn many(system: System, vips: usize, instances: usize) -> Result<Self> {
        let segment = Segment::build(topology(system).with_wide_subnet(), &mut |_| {})?;
        let daemons = match system {
            System::Buoy => {
                let (first, last) = (wide_ipv4(0), wide_ipv4(vips.saturating_sub(1)));
                let config = format!(
                    "{}[[pool]]\nname = \"many\"\naddresses = [\"{first}-{last}/16\"]\n\
                     prefer = [\"n1\"]\n",
                    config_head(&segment.topology)
                );
                Daemons::Buoy(Buoy::new(&segment, &config)?)
            }
            System::Keepalived(interval) => {
                let all: Vec<_> = (0..vips).map(|n| (wide_ipv4(n), 16)).collect();
                let each = vips.div_ceil(instances.max(1)).max(1);
                let split = all.chunks(each).map(<[_]>::to_vec).collect();
                Daemons::Keepalived(Keepalived::with_instances(interval, split)?)
            }
        };
        Self { system, daemons, segment }.started()
    }

    fn started(mut self) -> Result<Self> {
        if let Daemons::Buoy(buoy) = &mut self.daemons {
            buoy.start_all(&self.segment)?;
            return Ok(self);
        }
        for node in self.nodes() {
            self.daemons.peer().start(&self.segment, node)?;
        }
        Ok(self)
    }

    pub(super) fn nodes(&mut self) -> Vec<&'static str> {
        self.daemons.peer().nodes()
    }

    /// Whether every node could take over.
    pub(super) fn is_ready(&mut self) -> bool {
        let nodes = self.nodes();
        let peer = self.daemons.peer();
        nodes.into_iter().all(|node| peer.is_ready(node))
    }

    /// The node that answers for an address, if exactly one does.
    pub(super) fn owner(&self, arp: &ArpObserver, address: Ipv4Addr) -> Option<String> {
        let host = self.segment.topology.by_mac(arp.owner(address)?)?;
        Some(host.name.to_owned())
    }

    /// Waits until one node answers for both VIPs of a pair and every node could take over.
    pub(super) fn steady(&mut self, arp: &ArpObserver) -> Result<String> {
        let start = Instant::now();
        let mut owners = (None, None);
        let mut ready = false;
        let mut apart = Instant::now();
        let waited = wait_until(STEADY_MAX, "a steady system", || {
            owners = (self.owner(arp, LOCAL), self.owner(arp, FORWARDED));
            ready = self.is_ready();
            match (&owners, ready) {
                ((Some(one), Some(other)), true) if one == other => return Ok(true),
                ((Some(_), Some(other)), true) if APART_MAX < apart.elapsed() => {
                    // After an accident the two may have different owners: give one away.
                    let peer = self.daemons.peer();
                    if peer.drain(other, true)? {
                        std::thread::sleep(Duration::from_millis(200));
                        peer.drain(other, false)?;
                    }
                    apart = Instant::now();
                }
                ((_, _), true) => {}
                ((_, _), false) => apart = Instant::now(),
            }
            Ok(false)
        });
        if let Err(error) = waited {
            let Error::Late { .. } = error else { return Err(error) };
            let awaited = format!(
                "a steady {} for {:.0} s (owners {owners:?}, ready {ready})",
                self.system.name(),
                start.elapsed().as_secs_f64()
            );
            return Err(Error::Late { awaited, log: None });
        }
        owners.0.ok_or(Error::Unknown { what: "owner".to_owned() })
    }

    /// Heals everything and starts all daemons anew.
    pub(super) fn start_over(&mut self) -> Result<()> {
        for node in self.nodes() {
            let peer = self.daemons.peer();
            Fault::SilentCut.heal(&self.segment, peer, node)?;
            Fault::Unplug.heal(&self.segment, peer, node)?;
            peer.process(node)?.signal_family(Signal::SIGKILL)?;
            peer.process(node)?.wait_end(STEADY_MAX)?;
            if let Daemons::Keepalived(keepalived) = &mut self.daemons {
                keepalived.leave(&self.segment, node)?;
            }
            self.daemons.peer().start(&self.segment, node)?;
        }
        Ok(())
    }
}

fn topology(system: System) -> Topology {
    match system {
        System::Buoy => Topology::with_nodes(3),
        System::Keepalived(_) => Topology::with_nodes(2),
    }
}

/// The VIPs of the trials, as an operator would write them.
fn pair_config() -> String {
    format!(
        "[[vip]]\nname = \"forwarded\"\naddress = \"{FORWARDED}/24\"\nprefer = [\"n1\", \"n2\", \"n3\"]\n\
         [[vip.service]]\nport = \"{ECHO_PORT}/tcp\"\n\
         backends = [\"web1 {}:{ECHO_PORT}\", \"web2 {}:{ECHO_PORT}\"]\n\
         [[vip]]\nname = \"local\"\naddress = \"{LOCAL}/24\"\nprefer = [\"n1\", \"n2\", \"n3\"]\n",
        ipv4(21),
        ipv4(22)
    )
}

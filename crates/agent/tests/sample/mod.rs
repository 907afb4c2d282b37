//! A configuration of one group, for tests to change: each states only what it is about.

// Each file of tests uses a part of it, and a failed `unwrap` is a failed test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use buoy_model::{
    Backend, Balance, Cidr, Desired, FlowFields, Group, GroupId, LinkId, Mode, NodeId, Ports,
    Safety, Service, Timing, VipAddress,
};
use std::net::IpAddr;
use std::time::Duration;

/// The only group.
pub const GROUP: GroupId = GroupId(7);
/// How long anything may take before a test fails; far more than it ever takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A backend of weight 1 at that address and port.
pub fn backend(name: &str, address: &str) -> Backend {
    Backend::new(name, address.parse().unwrap())
}

/// A TCP service that is not checked.
pub fn service(mode: Mode, vip: &str, port: u16, backends: Vec<Backend>) -> Service {
    Service {
        balance: match mode {
            Mode::Kernel | Mode::Xdp { .. } => Balance::Hash(FlowFields::Connection),
            Mode::Proxy => Balance::RoundRobin,
        },
        connections_max: 100,
        idle_timeout: PATIENCE,
        connect_timeout: PATIENCE,
        ..Service::new(mode, vec![vip.parse().unwrap()], Ports::one(port), backends)
    }
}

/// A cluster of this host alone, which may own these addresses, all on one interface.
pub fn desired(vips: &[&str], link_name: &str, services: Vec<Service>) -> Desired {
    let address = |vip: &&str| {
        let address: IpAddr = vip.parse().unwrap();
        let prefix = if address.is_ipv4() { 24 } else { 64 };
        let cidr = Cidr::new(address, prefix).unwrap();
        VipAddress {
            cidr,
            link: Some(LinkId(1)),
            link_name: link_name.into(),
            vip_name: "web".into(),
            presence: buoy_model::Presence::Assigned,
        }
    };
    let group = Group {
        safety: Safety::Available,
        nodes: vec![NodeId(1)],
        services,
        ..Group::new(GROUP, "web", vips.iter().map(address).collect())
    };
    Desired {
        timing: Timing {
            heartbeat: Duration::from_millis(10),
            lease: Duration::from_millis(50),
            lease_max: Duration::from_millis(50),
        },
        ..Desired::new("test", NodeId(1), vec![], vec![group])
    }
}

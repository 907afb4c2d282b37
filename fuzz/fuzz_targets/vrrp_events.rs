//! A node whose VIP belongs to VRRP: whatever advertisements come when, it does not panic, does not spin, and serves under a
//! lease that is not over.
#![no_main]

use buoy_core::{Fence, Node, Settings};
use buoy_model::{
    Action, Advert, Cidr, ClusterId, Desired, Event, Failback, Group, GroupId, HeardAdvert,
    Incarnation, Instant, LinkId, Node as Member, NodeId, Presence, Proof, Safety, Timing,
    VipAddress, VirtualRouter, VrrpAuth, VrrpChecksum, VrrpVersion,
};
use libfuzzer_sys::fuzz_target;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const LINK: LinkId = LinkId(3);
const INTERVAL: Duration = Duration::from_millis(100);

fn desired() -> Desired {
    let me = NodeId::of("lb1");
    let vip: IpAddr = [10, 0, 0, 100].into();
    let router = VirtualRouter {
        id: 51,
        v6: false,
        link: Some(LINK),
        source: Some([10, 0, 0, 11].into()),
        addresses: vec![vip],
        version: VrrpVersion::V3,
        priority: 100,
        interval: INTERVAL,
        peers: vec![],
        accept: true,
        virtual_mac: false,
        min_ttl: 255,
        checksum: VrrpChecksum::Auto,
        auth: VrrpAuth::None,
    };
    let beat = Duration::from_millis(10);
    Desired {
        generation: 1,
        digest: 7,
        cluster: ClusterId(1),
        cluster_name: "buoy".into(),
        haproxy_socket: None,
        metrics: None,
        hooks: vec![],
        traces: None,
        metric_aliases: vec![],
        pools: vec![],
        me,
        nodes: vec![Member::new("lb1", ([10, 0, 0, 11], 4747).into())],
        leg_links: vec![Some(LINK)],
        timing: Timing { heartbeat: beat, lease: beat * 5, lease_max: beat * 5 },
        groups: vec![Group {
            id: GroupId(1),
            name: "web".into(),
            addresses: vec![VipAddress {
                cidr: Cidr::new(vip, 24).expect("a prefix"),
                link: Some(LINK),
                link_name: "eth0".into(),
                vip_name: "web".into(),
                presence: Presence::Assigned,
            }],
            safety: Safety::Available,
            nodes: vec![me],
            prefer: vec![],
            failback: Failback::After(Duration::ZERO),
            apart: None,
            checks: vec![],
            services: vec![],
            vrrp: vec![Arc::new(router)],
            shares: vec![],
            routes: Vec::new(),
            rules: Vec::new(),
        }],
    }
}

fuzz_target!(|bytes: &[u8]| {
    let settings = Settings { incarnation: Incarnation(1), seed: 1, fence: Fence::Gate };
    let mut now = Instant::ZERO;
    let mut node = Node::new(now, Arc::new(desired()), settings);
    let (mut out, mut gate) = (Vec::new(), Instant::ZERO);
    for step in bytes.chunks_exact(4).take(1000) {
        now = now + Duration::from_millis(step[0].into());
        let heard = HeardAdvert {
            link: LINK,
            source: [10, 0, 0, step[1]].into(),
            multicast: step[3] & 1 == 0,
            ttl: if step[3] & 2 == 0 { 255 } else { 254 },
            id: 51,
            advert: Ok(Advert {
                version: VrrpVersion::V3,
                id: 51,
                priority: step[2],
                interval: Duration::from_millis(u64::from(step[3] >> 2) * 10),
                addresses: vec![[10, 0, 0, 100].into()],
                plain_checksum: step[3] & 4 == 0,
                proof: Proof::None,
            }),
            clock_apart: Duration::ZERO,
        };
        out.clear();
        match step[3] % 5 {
            0 => node.handle(now, Event::Link { link: LINK, up: step[2] & 1 == 0 }, &mut out),
            1 => node.handle(now, Event::Tick, &mut out),
            _ => node.handle(now, Event::Advert(&heard), &mut out),
        }
        for action in &out {
            if let Action::Fence { until, .. } = action {
                gate = *until;
            }
        }
        if node.serves_now() > 0 {
            assert!(now < gate && gate <= now + INTERVAL * 3, "{now:?} {gate:?}");
        }
    }
});

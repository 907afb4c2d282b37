//! VRRP on the wire with Debian's keepalived: who owns the address, how it changes hands, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_kernel::vrrp::Routers;
use buoy_lab::peer::Peer;
use buoy_lab::probe::arp::ArpObserver;
use buoy_lab::process::wait_until;
use buoy_lab::skip;
use buoy_lab::speaker::{Frr, Speaker};
use buoy_lab::topology::ipv4;
use buoy_model::{
    HmacMode, Stamp, VirtualRouter, VrrpAuth, VrrpChecksum, VrrpHmac, VrrpKey, VrrpVersion,
};
use buoy_wire::vrrp::{Envelope, GROUP_V4, Said, emit};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use std::time::{SystemTime, UNIX_EPOCH};
use support::{Cluster, SOON, VIP, prepared_on, since};

/// Where keepalived runs; Buoy runs on `n1`.
const OTHER: &str = "n2";

/// Buoy on `n1` and keepalived on `n2`, both not started; each is a cluster of its own.
struct Pair {
    cluster: Cluster,
    keepalived: Speaker,
}

/// A way of speaking, as both sides are told it.
#[derive(Clone, Copy, Debug)]
struct Way {
    version: u8,
    v6: bool,
    unicast: bool,
    interval: Duration,
}

const WAYS: [Way; 6] = [
    Way { version: 3, v6: false, unicast: false, interval: Duration::from_millis(100) },
    Way { version: 3, v6: false, unicast: true, interval: Duration::from_millis(100) },
    Way { version: 3, v6: true, unicast: false, interval: Duration::from_millis(100) },
    Way { version: 3, v6: true, unicast: true, interval: Duration::from_millis(100) },
    Way { version: 2, v6: false, unicast: false, interval: Duration::from_secs(1) },
    Way { version: 2, v6: false, unicast: true, interval: Duration::from_secs(1) },
];

impl Way {
    fn vip(self) -> &'static str {
        if self.v6 { "2001:db8:77::100" } else { "10.77.0.100" }
    }

    fn host(self, number: u8) -> String {
        if self.v6 {
            buoy_lab::topology::ipv6(number).to_string()
        } else {
            ipv4(number).to_string()
        }
    }

    /// `[[vip]]` of Buoy.
    fn vip_table(self, priority: u8, more: &str) -> String {
        let prefix = if self.v6 { 64 } else { 24 };
        // keepalived 2.2.7 sends unicast over IPv6 with the usual hop limit of 64.
        let peers = match (self.unicast, self.v6) {
            (false, _) => String::new(),
            (true, false) => format!(", peers = \"{}\"", self.host(12)),
            (true, true) => format!(", peers = \"{}\", min_ttl = 64", self.host(12)),
        };
        let (version, interval) = (self.version, self.interval.as_millis());
        format!(
            "[[vip]]\nname = \"web\"\naddress = \"{}/{prefix}\"\ninterface = \"eth0\"\nvrrp = {{ id = 51, version = {version}, \
             interval = \"{interval}ms\", priority = {priority}{peers} }}\n{more}\n",
            self.vip()
        )
    }

    /// The same for keepalived.
    fn instance(self, priority: u8, more: &str) -> String {
        let prefix = if self.v6 { 64 } else { 24 };
        let peers = if self.unicast {
            format!(
                "  unicast_src_ip {}\n  unicast_peer {{\n    {}\n  }}\n",
                self.host(12),
                self.host(11)
            )
        } else {
            String::new()
        };
        format!(
            "  version {}\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  priority {priority}\n  \
             advert_int {}\n{peers}  virtual_ipaddress {{\n    {}/{prefix} dev eth0\n  }}\n{more}",
            self.version,
            self.interval.as_secs_f64(),
            self.vip()
        )
    }
}

impl Pair {
    /// `None` when this host cannot, which is said.
    fn new(test: &str) -> Option<Self> {
        let keepalived = match Speaker::keepalived(OTHER) {
            Ok(keepalived) => keepalived,
            Err(error) => {
                skip(test, &error.to_string());
                return None;
            }
        };
        let topology = buoy_lab::topology::Topology::with_nodes(2);
        Some(Self { cluster: prepared_on(test, topology, "", "")?, keepalived })
    }

    fn start_buoy(&mut self, vips: &str) {
        let text =
            format!("peers = {{ n1 = \"10.77.0.11\" }}\nsecret = \"file:cluster.key\"\n{vips}");
        self.cluster.buoy.write_config("n1", &text).unwrap();
        self.cluster.buoy.start(&self.cluster.segment, "n1").unwrap();
    }

    fn start_keepalived(&mut self, instance: String) {
        self.keepalived.start(&self.cluster.segment, &[instance]).unwrap();
    }

    /// Who has the address on its interface.
    fn holders(&self, vip: &str) -> Vec<&'static str> {
        ["n1", OTHER].into_iter().filter(|node| self.cluster.has_address(node, vip)).collect()
    }

    fn wait_holders(&self, vip: &str, expected: &[&str], when: &str) {
        let waited = wait_until(SOON, "", || Ok(self.holders(vip) == expected));
        assert!(
            waited.is_ok(),
            "{when}: {vip} is on {:?}, not on {expected:?}; n1 refused {:?}; keepalived said:\n{}",
            self.holders(vip),
            self.cluster.buoy.status("n1").map(|status| status.vips[0].refused.clone()),
            self.keepalived.output()
        );
    }
}

#[test]
fn the_better_priority_owns_it_in_every_way_of_speaking() {
    let test = "the_better_priority_owns_it_in_every_way_of_speaking";
    for way in WAYS {
        let Some(mut pair) = Pair::new(test) else { return };
        let when = format!("{way:?}");
        pair.start_buoy(&way.vip_table(100, "failback = \"now\""));
        pair.wait_holders(way.vip(), &["n1"], &format!("{when}: alone"));
        pair.start_keepalived(way.instance(150, ""));
        pair.wait_holders(way.vip(), &[OTHER], &format!("{when}: keepalived is better"));
        // It says that it stops: the skew is enough.
        pair.keepalived.stop().unwrap();
        pair.wait_holders(way.vip(), &["n1"], &format!("{when}: keepalived stopped"));
        pair.start_keepalived(way.instance(50, ""));
        pair.cluster.buoy.drain("n1", true).unwrap();
        pair.wait_holders(way.vip(), &[OTHER], &format!("{when}: Buoy is drained"));
        pair.cluster.buoy.drain("n1", false).unwrap();
        pair.wait_holders(way.vip(), &["n1"], &format!("{when}: Buoy takes part again"));
        let active = |status: &buoy_api::ClusterStatus| {
            let router = &status.vips[0].vrrp[0];
            (router.state.as_str(), router.priority) == ("active", 100)
        };
        let status = pair.cluster.buoy.wait_status("n1", SOON, &when, active).unwrap();
        let vip = &status.vips[0];
        assert!(vip.refused.is_empty(), "{when}: {:?}", vip.refused);
    }
}

/// Version 3 over IPv4, multicast, with this interval.
fn every(interval: Duration) -> Way {
    Way { interval, ..WAYS[0] }
}

/// How often the two nodes answered for the VIP at once, and how often it changed hands.
fn judged(observer: &ArpObserver, from: Instant) -> (usize, usize) {
    let window = since(from);
    (observer.answered_by_two(VIP, window).len(), observer.takeovers(VIP, window))
}

#[test]
fn a_silent_owner_is_succeeded_in_both_directions_and_one_is_left_when_it_is_heard_again() {
    let test =
        "a_silent_owner_is_succeeded_in_both_directions_and_one_is_left_when_it_is_heard_again";
    // (priority of keepalived, of Buoy): who was better before and is after.
    for (theirs, ours, owner, other) in [(150, 100, OTHER, "n1"), (100, 150, "n1", OTHER)] {
        let Some(mut pair) = Pair::new(test) else { return };
        let way = every(Duration::from_millis(100));
        pair.start_buoy(&way.vip_table(ours, "failback = \"now\""));
        pair.start_keepalived(way.instance(theirs, ""));
        pair.wait_holders(way.vip(), &[owner], "at first");
        pair.cluster.segment.switch.set_apart("n1", OTHER, true).unwrap();
        pair.wait_holders(way.vip(), &["n1", OTHER], "cut in two, each serves its side");
        pair.cluster.segment.switch.set_apart("n1", OTHER, false).unwrap();
        pair.wait_holders(way.vip(), &[owner], "the better one stays");
        assert_ne!(owner, other);
    }
}

#[test]
fn a_tie_between_two_owners_goes_to_the_greater_address() {
    let test = "a_tie_between_two_owners_goes_to_the_greater_address";
    let Some(mut pair) = Pair::new(test) else { return };
    let way = every(Duration::from_millis(100));
    pair.cluster.segment.switch.set_apart("n1", OTHER, true).unwrap();
    pair.start_buoy(&way.vip_table(100, ""));
    pair.start_keepalived(way.instance(100, ""));
    pair.wait_holders(way.vip(), &["n1", OTHER], "they do not hear each other");
    pair.cluster.segment.switch.set_apart("n1", OTHER, false).unwrap();
    pair.wait_holders(way.vip(), &[OTHER], "10.77.0.12 is greater than 10.77.0.11");
}

#[test]
fn version_2_with_a_word_hears_keepalived_with_the_same_and_none_with_another() {
    let test = "version_2_with_a_word_hears_keepalived_with_the_same_and_none_with_another";
    let Some(mut pair) = Pair::new(test) else { return };
    let way = WAYS[4];
    let with = |word| {
        way.instance(150, &format!("authentication {{\nauth_type PASS\nauth_pass {word}\n}}\n"))
    };
    let vip = way.vip_table(100, "failback = \"now\"").replace(" }", ", password = \"lab\" }");
    // A mistake, as people make it: Buoy goes on as if nobody were there, and says so.
    pair.start_keepalived(with("other"));
    pair.wait_holders(way.vip(), &[OTHER], "keepalived alone");
    pair.start_buoy(&vip);
    let refused = |s: &buoy_api::ClusterStatus| s.vips[0].refused.contains_key("password");
    pair.cluster.buoy.wait_status("n1", SOON, "another word to be refused", refused).unwrap();
    pair.wait_holders(way.vip(), &["n1", OTHER], "another word");
    pair.keepalived.stop().unwrap();
    pair.start_keepalived(with("lab"));
    pair.wait_holders(way.vip(), &[OTHER], "the same word");
    pair.keepalived.stop().unwrap();
    pair.wait_holders(way.vip(), &["n1"], "keepalived stopped");
}

#[test]
fn preemption_is_what_failback_and_nopreempt_say() {
    let test = "preemption_is_what_failback_and_nopreempt_say";
    let Some(mut pair) = Pair::new(test) else { return };
    // A machine that stands still for some hundred milliseconds is no silence.
    let way = every(Duration::from_millis(300));
    pair.start_keepalived(way.instance(50, ""));
    pair.wait_holders(way.vip(), &[OTHER], "alone");
    pair.start_buoy(&way.vip_table(200, "failback = \"never\""));
    let heard = |status: &buoy_api::ClusterStatus| {
        status.vips[0].vrrp[0].heard.as_ref().is_some_and(|heard| heard.priority == 50)
    };
    let status =
        pair.cluster.buoy.wait_status("n1", SOON, "keepalived to be heard", heard).unwrap();
    let vip = &status.vips[0];
    assert_eq!((&vip.owner, &vip.problem), (&None, &None), "it has an owner, which is no node");
    assert_eq!(vip.router.as_deref(), Some("10.77.0.12 (priority 50)"));
    let why = pair.cluster.buoy.client("n1").unwrap().why("web").unwrap();
    assert_eq!(why.answer, "The router 10.77.0.12 (priority 50) has web by VRRP.");
    // Three silences: it could have taken it long since.
    std::thread::sleep(way.interval * 12);
    assert_eq!(pair.holders(way.vip()), [OTHER], "a better one that does not preempt waits");
    let text = format!(
        "peers = {{ n1 = \"10.77.0.11\" }}\nsecret = \"file:cluster.key\"\n{}",
        way.vip_table(200, "failback = \"now\"")
    );
    pair.cluster.buoy.write_config("n1", &text).unwrap();
    pair.cluster.buoy.reload("n1").unwrap();
    pair.wait_holders(way.vip(), &["n1"], "now it preempts");
    // And keepalived that does not: it is better, and Buoy stays.
    pair.start_keepalived(way.instance(250, "  nopreempt\n"));
    std::thread::sleep(way.interval * 12);
    assert_eq!(pair.holders(way.vip()), ["n1"]);
    pair.cluster.buoy.drain("n1", true).unwrap();
    pair.wait_holders(way.vip(), &[OTHER], "Buoy is drained");
}

#[test]
fn a_backup_learns_the_interval_of_the_active_router() {
    let test = "a_backup_learns_the_interval_of_the_active_router";
    let Some(mut pair) = Pair::new(test) else { return };
    // Three intervals of 50 ms would be over before keepalived speaks again.
    let (quick, slow) = (every(Duration::from_millis(50)), every(Duration::from_millis(500)));
    pair.start_keepalived(slow.instance(150, ""));
    pair.wait_holders(slow.vip(), &[OTHER], "alone");
    pair.start_buoy(&quick.vip_table(100, "failback = \"now\""));
    let learned = |status: &buoy_api::ClusterStatus| status.vips[0].vrrp[0].interval_ms == 500;
    pair.cluster.buoy.wait_status("n1", SOON, "the interval to be learned", learned).unwrap();
    let epoch = pair.cluster.buoy.status("n1").unwrap().vips[0].epoch;
    std::thread::sleep(slow.interval * 5);
    let status = pair.cluster.buoy.status("n1").unwrap();
    assert_eq!(status.vips[0].epoch, epoch, "it did not take it meanwhile");
    assert_eq!(pair.holders(slow.vip()), [OTHER]);
}

#[test]
fn centiseconds_are_kept_and_a_killed_keepalived_is_succeeded() {
    let test = "centiseconds_are_kept_and_a_killed_keepalived_is_succeeded";
    let Some(mut pair) = Pair::new(test) else { return };
    let way = every(Duration::from_millis(20));
    pair.start_keepalived(way.instance(150, ""));
    pair.start_buoy(&way.vip_table(100, "failback = \"now\""));
    pair.wait_holders(way.vip(), &[OTHER], "keepalived is better");
    pair.keepalived.kill().unwrap();
    // Its addresses stay where they are: nobody removes them.
    pair.wait_holders(way.vip(), &["n1", OTHER], "killed");
    let status = pair.cluster.buoy.status("n1").unwrap();
    let change = status.vips[0].last_change.as_ref().unwrap();
    assert!(change.sentence.contains("10.77.0.12 was silent for"), "{}", change.sentence);
}

#[test]
fn two_hundred_virtual_routers_change_hands_together() {
    let test = "two_hundred_virtual_routers_change_hands_together";
    let Some(mut pair) = Pair::new(test) else { return };
    let ids = 1..=200_u8;
    let tables = ids.clone().map(|id| {
        format!(
            "[[vip]]\nname = \"v{id}\"\naddress = \"10.77.1.{id}/24\"\ninterface = \"eth0\"\nfailback = \"now\"\n\
             vrrp = {{ id = {id}, priority = 100 }}\n"
        )
    });
    let instances: Vec<String> = ids
        .map(|id| {
            format!(
                "  version 3\n  state BACKUP\n  interface eth0\n  virtual_router_id {id}\n  priority 150\n  \
                 advert_int 1\n  virtual_ipaddress {{\n    10.77.1.{id}/24\n  }}\n"
            )
        })
        .collect();
    pair.start_buoy(&tables.collect::<String>());
    let all_are = |pair: &Pair, state: &'static str| {
        let are = move |status: &buoy_api::ClusterStatus| {
            status.vips.iter().all(|vip| vip.vrrp[0].state == state)
        };
        let waited = pair.cluster.buoy.wait_status("n1", 4 * SOON, state, are);
        let status = pair.cluster.buoy.status("n1").unwrap();
        let others = status.vips.iter().filter(|vip| vip.vrrp[0].state != state);
        let others: Vec<&str> = others.map(|vip| vip.vrrp[0].says.as_str()).collect();
        let said = pair.keepalived.output();
        let said: Vec<&str> = said.lines().rev().take(20).collect();
        assert!(waited.is_ok(), "not {state}: {} {others:?}\n{said:#?}", others.len());
    };
    all_are(&pair, "active");
    pair.keepalived.start(&pair.cluster.segment, &instances).unwrap();
    all_are(&pair, "backup");
    pair.keepalived.stop().unwrap();
    all_are(&pair, "active");
    let inside = pair.cluster.segment.inside("n1").unwrap();
    let addresses = inside.ip("-oneline addr show dev eth0").unwrap();
    assert_eq!(addresses.matches("10.77.1.").count(), 200);
}

#[test]
fn a_pair_of_keepalived_is_replaced_one_by_one_without_two_owners() {
    let test = "a_pair_of_keepalived_is_replaced_one_by_one_without_two_owners";
    let Some(mut pair) = Pair::new(test) else { return };
    let way = every(Duration::from_millis(400));
    let mut first = Speaker::keepalived("n1").unwrap();
    first.start(&pair.cluster.segment, &[way.instance(150, "")]).unwrap();
    pair.start_keepalived(way.instance(100, ""));
    pair.wait_holders(way.vip(), &["n1"], "the pair of keepalived");
    let observer = pair.cluster.observer(&[VIP]);
    assert_eq!(pair.cluster.wait_answerer(&observer, VIP), "n1");
    let from = Instant::now();
    // The backup first: nobody notices.
    pair.keepalived.stop().unwrap();
    let text = |node: &str, host: u8, priority: u8| {
        format!(
            "peers = {{ {node} = \"10.77.0.{host}\" }}\nsecret = \"file:cluster.key\"\n{}",
            way.vip_table(priority, "failback = \"never\"")
        )
    };
    pair.cluster.buoy.write_config(OTHER, &text(OTHER, 12, 100)).unwrap();
    pair.cluster.buoy.start(&pair.cluster.segment, OTHER).unwrap();
    let heard = |status: &buoy_api::ClusterStatus| {
        status.vips[0].vrrp[0].heard.as_ref().is_some_and(|heard| heard.priority == 150)
    };
    pair.cluster.buoy.wait_status(OTHER, SOON, "keepalived to be heard", heard).unwrap();
    assert_eq!(judged(&observer, from), (0, 0), "(two owners, takeovers)");
    // Then the owner: one ordinary takeover.
    first.stop().unwrap();
    pair.wait_holders(way.vip(), &[OTHER], "the owner stopped");
    pair.cluster.buoy.write_config("n1", &text("n1", 11, 150)).unwrap();
    pair.cluster.buoy.start(&pair.cluster.segment, "n1").unwrap();
    let backup = |status: &buoy_api::ClusterStatus| {
        status.vips[0].vrrp[0].heard.as_ref().is_some_and(|heard| heard.priority == 100)
    };
    pair.cluster.buoy.wait_status("n1", SOON, "the new owner to be heard", backup).unwrap();
    pair.cluster.wait_at(&observer, OTHER);
    let (two, takeovers) = judged(&observer, from);
    assert_eq!(two, 0, "two owners");
    assert_eq!(takeovers, 1);
}

#[test]
fn frr_and_buoy_hand_over_by_priority_in_both_versions_and_families() {
    let test = "frr_and_buoy_hand_over_by_priority_in_both_versions_and_families";
    for way in [WAYS[0], WAYS[2], WAYS[4]] {
        let frr = Frr::new(OTHER);
        if let Err(error) = &frr {
            skip(test, &error.to_string());
            return;
        }
        let mut frr = frr.unwrap();
        let Some(mut pair) = Pair::new(test) else { return };
        pair.start_buoy(&way.vip_table(100, "failback = \"now\""));
        let active = |status: &buoy_api::ClusterStatus| status.vips[0].vrrp[0].state == "active";
        let backup = |status: &buoy_api::ClusterStatus| {
            let router = &status.vips[0].vrrp[0];
            router.state == "backup" && router.heard.is_some()
        };
        let wait = |pair: &Pair,
                    frr: &Frr,
                    what: &str,
                    is: &dyn Fn(&buoy_api::ClusterStatus) -> bool| {
            let waited = pair.cluster.buoy.wait_status("n1", SOON, what, is);
            let status = pair.cluster.buoy.status("n1").unwrap();
            let (routers, refused) = (&status.vips[0].vrrp, &status.vips[0].refused);
            assert!(waited.is_ok(), "{way:?} {what}: {routers:?} {refused:?}\n{}", frr.output());
        };
        wait(&pair, &frr, "alone", &active);
        let prefix = if way.v6 { 64 } else { 24 };
        let vip = format!("{}/{prefix}", way.vip());
        let family = if way.v6 { "ipv6" } else { "ip" };
        let lines = |priority: u8| {
            [
                format!("vrrp 51 version {}", way.version),
                format!("vrrp 51 priority {priority}"),
                format!("vrrp 51 advertisement-interval {}", way.interval.as_millis()),
                format!("vrrp 51 {family} {}", way.vip()),
            ]
        };
        frr.start(&pair.cluster.segment, &vip, &lines(150)).unwrap();
        wait(&pair, &frr, "FRR is better", &backup);
        frr.stop().unwrap();
        wait(&pair, &frr, "FRR stopped", &active);
        frr.start(&pair.cluster.segment, &vip, &lines(50)).unwrap();
        pair.cluster.buoy.drain("n1", true).unwrap();
        let drained = |status: &buoy_api::ClusterStatus| status.vips[0].vrrp[0].state == "stopped";
        wait(&pair, &frr, "Buoy is drained", &drained);
        std::thread::sleep(way.interval * 5);
        pair.cluster.buoy.drain("n1", false).unwrap();
        wait(&pair, &frr, "Buoy takes part again, and is better", &active);
        let status = pair.cluster.buoy.status("n1").unwrap();
        assert!(status.vips[0].refused.is_empty(), "{way:?} {:?}", status.vips[0].refused);
        frr.stop().unwrap();
    }
}

/// Sends packets of VRRP from another host, whatever they say.
fn inject(pair: &Pair, router: &VirtualRouter, priority: u8, count: usize) {
    inject_as(pair, router, (ipv4(12), GROUP_V4), priority, count);
}

/// The same from and to anybody.
fn inject_as(
    pair: &Pair,
    router: &VirtualRouter,
    (source, destination): (Ipv4Addr, Ipv4Addr),
    priority: u8,
    count: usize,
) {
    let router = router.clone();
    let inside = pair.cluster.segment.inside(OTHER).unwrap();
    let inject = move || {
        let facts = buoy_kernel::host::facts().unwrap();
        let link = facts.links.iter().find(|link| link.name == "eth0").unwrap().id;
        let mut routers = Routers::default();
        assert_eq!(routers.listen(vec![(link, false)]), [""; 0]);
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let envelope = Envelope { source: source.into(), destination: destination.into() };
        let mut sent = Vec::new();
        for counter in 0..count {
            let stamp = Stamp {
                seconds: u32::try_from(seconds).unwrap(),
                fraction: 1,
                counter: u16::try_from(counter).unwrap(),
            };
            let message = emit(&router, envelope, Said { priority, peers_are_plain: false, stamp });
            routers.send(link, envelope.source, envelope.destination, &message).unwrap();
            sent.push(message);
        }
        // And the first one again.
        routers.send(link, envelope.source, envelope.destination, &sent[0]).unwrap();
    };
    inside.enter(inject).unwrap();
}

/// The virtual router of the tests, as somebody else has it.
fn theirs(auth: VrrpAuth) -> VirtualRouter {
    VirtualRouter {
        id: 51,
        v6: false,
        link: None,
        source: Some(ipv4(12).into()),
        addresses: vec![VIP.into()],
        version: VrrpVersion::V3,
        priority: 255,
        interval: Duration::from_millis(100),
        peers: vec![],
        accept: true,
        virtual_mac: false,
        min_ttl: 255,
        checksum: VrrpChecksum::Auto,
        auth,
    }
}

#[test]
fn forgeries_replays_and_floods_are_counted_and_move_nothing_where_packets_are_signed() {
    let test = "forgeries_replays_and_floods_are_counted_and_move_nothing_where_packets_are_signed";
    let Some(mut pair) = Pair::new(test) else { return };
    pair.start_buoy(
        "[[vip]]\nname = \"web\"\naddress = \"10.77.0.100/24\"\nfailback = \"now\"\n\
         vrrp = { id = 51, interval = \"100ms\", auth = { keys = \"1 file:cluster.key\" } }\n",
    );
    pair.wait_holders("10.77.0.100", &["n1"], "alone");
    let digits = std::fs::read_to_string(pair.cluster.segment.file("n1/cluster.key")).unwrap();
    let digits: Vec<char> = digits.trim().chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    let secret: Vec<u8> = digits.chunks(2).map(byte).collect();
    let signed = |secret: Vec<u8>| {
        let keys = vec![VrrpKey { id: 1, secret }];
        VrrpAuth::Hmac(VrrpHmac { keys, mode: HmacMode::Enforce, window: Duration::from_secs(5) })
    };
    inject(&pair, &theirs(VrrpAuth::None), 255, 1);
    inject(&pair, &theirs(signed(vec![7; 32])), 255, 1);
    inject(&pair, &theirs(VrrpAuth::None), 0, 2000);
    // One that has the key, and is worse: heard once, and not again.
    inject(&pair, &theirs(signed(secret)), 50, 1);
    let counted = |status: &buoy_api::ClusterStatus| {
        let refused = &status.vips[0].refused;
        let count = |reason: &str| refused.get(reason).copied().unwrap_or(0);
        count("unsigned") == 2 + 2001 && count("forged") == 2 && count("replayed") == 1
    };
    let waited = pair.cluster.buoy.wait_status("n1", SOON, "all of them to be counted", counted);
    let status = pair.cluster.buoy.status("n1").unwrap();
    assert!(waited.is_ok(), "{:?}", status.vips[0].refused);
    assert_eq!(status.vips[0].epoch, 1, "it never let go");
    assert_eq!(pair.holders("10.77.0.100"), ["n1"]);
    let told = support::events(&pair.cluster, "n1", "advert_refused");
    assert_eq!(told, 3, "an event for each reason, not for each packet");
}

#[test]
fn unicast_from_a_stranger_from_afar_or_in_the_name_of_a_peer_moves_nothing_where_packets_are_signed()
 {
    let test = "unicast_from_a_stranger_from_afar_or_in_the_name_of_a_peer_moves_nothing_where_packets_are_signed";
    let Some(mut pair) = Pair::new(test) else { return };
    pair.start_buoy(
        "[[vip]]\nname = \"web\"\naddress = \"10.77.0.100/24\"\nfailback = \"now\"\n\
         vrrp = { id = 51, interval = \"100ms\", peers = \"10.77.0.12\", auth = { keys = \"1 file:cluster.key\" } }\n",
    );
    pair.wait_holders("10.77.0.100", &["n1"], "alone");
    let router = theirs(VrrpAuth::None);
    inject_as(&pair, &router, (ipv4(13), ipv4(11)), 255, 1);
    inject_as(&pair, &router, (ipv4(12), ipv4(11)), 255, 1);
    // What comes from behind a router has lost one of its 255 hops.
    let further = "table ip far { chain out { type filter hook output priority 0; ip protocol 112 ip ttl set 254; }; }";
    pair.cluster.segment.inside(OTHER).unwrap().nft(further).unwrap();
    inject_as(&pair, &router, (ipv4(12), ipv4(11)), 255, 1);
    inject_as(&pair, &router, (ipv4(12), ipv4(11)), 0, 1);
    let counted = |status: &buoy_api::ClusterStatus| {
        let refused = &status.vips[0].refused;
        let count = |reason: &str| refused.get(reason).copied().unwrap_or(0);
        (count("stranger"), count("unsigned"), count("ttl")) == (2, 2, 4)
    };
    let waited = pair.cluster.buoy.wait_status("n1", SOON, "all of them to be counted", counted);
    let status = pair.cluster.buoy.status("n1").unwrap();
    assert!(waited.is_ok(), "{:?}", status.vips[0].refused);
    assert_eq!(status.vips[0].epoch, 1, "it never let go");
    assert_eq!(pair.holders("10.77.0.100"), ["n1"]);
    let told = support::events(&pair.cluster, "n1", "advert_refused");
    assert_eq!(told, 3, "an event for each reason");
}

#[test]
fn multicast_from_behind_a_router_is_counted_by_its_ttl_and_moves_nothing() {
    let test = "multicast_from_behind_a_router_is_counted_by_its_ttl_and_moves_nothing";
    let Some(mut pair) = Pair::new(test) else { return };
    // Nothing is signed here: the TTL alone keeps it out.
    pair.start_buoy(&every(Duration::from_millis(100)).vip_table(100, ""));
    pair.wait_holders("10.77.0.100", &["n1"], "alone");
    let router = theirs(VrrpAuth::None);
    let far = "table ip far { chain out { type filter hook output priority 0; ip protocol 112 ip ttl set 254; }; }";
    pair.cluster.segment.inside(OTHER).unwrap().nft(far).unwrap();
    inject(&pair, &router, 255, 1);
    inject(&pair, &router, 0, 1);
    let counted =
        |status: &buoy_api::ClusterStatus| status.vips[0].refused == [("ttl".to_owned(), 4)].into();
    let waited = pair.cluster.buoy.wait_status("n1", SOON, "all of them to be counted", counted);
    let status = pair.cluster.buoy.status("n1").unwrap();
    assert!(waited.is_ok(), "{:?}", status.vips[0].refused);
    assert_eq!(status.vips[0].epoch, 1, "it never let go");
    assert_eq!(pair.holders("10.77.0.100"), ["n1"]);
    assert_eq!(support::events(&pair.cluster, "n1", "advert_refused"), 1);
    // The same from this side of the router is believed.
    pair.cluster.segment.inside(OTHER).unwrap().nft("delete table ip far").unwrap();
    inject(&pair, &router, 255, 1);
    let yielded = |status: &buoy_api::ClusterStatus| status.vips[0].epoch != 1;
    pair.cluster.buoy.wait_status("n1", SOON, "it to let go, and to come back", yielded).unwrap();
}

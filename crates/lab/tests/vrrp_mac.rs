//! `virtual_mac = true` on the wire: the addresses keep one hardware address, whoever has them, beside keepalived's
//! `use_vmac` too; and what is made for that goes again.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::probe::arp::{ArpObserver, HardwareAddress};
use buoy_lab::probe::{Window, http};
use buoy_lab::process::wait_until;
use buoy_lab::skip;
use buoy_lab::speaker::Speaker;
use buoy_lab::topology::Topology;
use nix::sys::signal::Signal;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};
use support::{Cluster, LOCAL, MS, SOON, VIP, prepared_on, running, since, watch};

const MAC: HardwareAddress = [0, 0, 0x5e, 0, 1, 51];
const MAC_TEXT: &str = "00:00:5e:00:01:33";
const MAC_TEXT_V6: &str = "00:00:5e:00:02:33";
/// For as long a host repeats that it has left a multicast group (RFC 3810 §9.11, twice in this time at most).
const LISTENER_REPORTS: Duration = Duration::from_secs(2);
const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x100);

fn vip(more: &str) -> String {
    format!(
        "[[vip]]\nname = \"web\"\naddress = [\"{VIP}/24\", \"{VIP6}/64\"]\nfailback = \"now\"\n\
         vrrp = {{ id = 51, interval = \"300ms\"{more} }}\n\
         [[vip.service]]\nport = \"80/tcp\"\nbackends = [\"web1 10.77.0.21:80\", \"web3 [fd77::21]:80\"]\n"
    )
}

/// What `ip` says of that interface of a host; nothing where there is none.
fn shown(cluster: &Cluster, host: &str, interface: &str) -> String {
    let inside = cluster.segment.inside(host).unwrap();
    inside.ip(&format!("-details -oneline link show dev {interface}")).unwrap_or_default()
}

/// On which interfaces a host has the address.
fn places(cluster: &Cluster, host: &str, address: IpAddr) -> Vec<String> {
    let text = cluster.segment.inside(host).unwrap().ip("-oneline addr show").unwrap();
    let lines = text.lines().filter(|line| line.contains(&format!(" {address}/")));
    lines.filter_map(|line| Some(line.split_whitespace().nth(1)?.to_owned())).collect()
}

fn wait_places(cluster: &Cluster, host: &str, expected: &[&str], when: &str) {
    let families = [(IpAddr::from(VIP), "vrrp.51"), (VIP6.into(), "vrrp6.51")];
    for (address, own) in families {
        let expected: Vec<&str> =
            expected.iter().map(|name| if *name == "own" { own } else { *name }).collect();
        let waited = wait_until(SOON, "", || Ok(places(cluster, host, address) == expected));
        let found = places(cluster, host, address);
        assert!(waited.is_ok(), "{when}: {address} is on {found:?} of {host}, not {expected:?}");
    }
}

/// What the client remembers of the two addresses, and that it is served at both.
fn is_served_by_one_hardware_address(cluster: &Cluster, when: &str) {
    let client = cluster.segment.inside("client").unwrap();
    for (address, mac) in [(IpAddr::from(VIP), MAC_TEXT), (VIP6.into(), MAC_TEXT_V6)] {
        let served = || Ok(http::get(client, (address, 80).into(), 200 * MS).is_ok());
        wait_until(SOON, &format!("{when}: {address} to be served"), served).unwrap();
        let known = client.ip(&format!("neigh show {address}")).unwrap();
        assert!(known.contains(mac), "{when}: {known}");
    }
}

/// Nobody answered with another hardware address, and nobody twice: one host, one interface.
fn answered_once(observer: &ArpObserver, window: Window) {
    let answers = observer.answers(VIP, window);
    assert_eq!(answers.iter().find(|answer| answer.mac != MAC), None);
    let twice = answers.windows(2).find(|pair| pair[0].number == pair[1].number);
    assert_eq!(twice, None);
}

/// The port of the switch where it heard the hardware address last.
fn port_of(cluster: &Cluster, mac: &str) -> String {
    let switch = cluster.segment.switch.namespace();
    let shown = std::process::Command::new("ip")
        .args(["netns", "exec", switch.name(), "bridge", "fdb", "show"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(mac) && !line.contains("permanent"));
    line.and_then(|line| Some(line.split_whitespace().nth(2)?.to_owned())).unwrap_or_default()
}

#[test]
fn the_hardware_address_moves_with_the_addresses_between_hosts_that_run_buoy() {
    let test = "the_hardware_address_moves_with_the_addresses_between_hosts_that_run_buoy";
    let text = vip(", virtual_mac = true, priority = { n1 = 200, n2 = 100 }");
    let Some(mut cluster) = running(test, Topology::with_nodes(2), "", &text) else { return };
    let observer = cluster.observer(&[VIP]);
    wait_places(&cluster, "n1", &["own"], "at first");
    wait_places(&cluster, "n2", &[], "at first");
    is_served_by_one_hardware_address(&cluster, "at first");
    let from = Instant::now();
    for (out, owner) in [(true, "n2"), (false, "n1")] {
        let when = format!("drained: {out}");
        cluster.buoy.drain("n1", out).unwrap();
        wait_places(&cluster, owner, &["own"], &when);
        is_served_by_one_hardware_address(&cluster, &when);
        for mac in [MAC_TEXT, MAC_TEXT_V6] {
            let heard = || Ok(port_of(&cluster, mac) == owner);
            wait_until(SOON, &format!("{when}: {mac} at the port of {owner}"), heard).unwrap();
        }
        // The one that has given it away says nothing in its name: the switch would follow it.
        let from = Instant::now();
        while from.elapsed() < LISTENER_REPORTS {
            for mac in [MAC_TEXT, MAC_TEXT_V6] {
                assert_eq!(port_of(&cluster, mac), owner, "{when}: {mac}");
            }
        }
    }
    answered_once(&observer, since(from));
}

#[test]
fn keepalived_with_use_vmac_is_a_neighbour_like_any_other() {
    let test = "keepalived_with_use_vmac_is_a_neighbour_like_any_other";
    let mut keepalived = match Speaker::keepalived("n2") {
        Ok(keepalived) => keepalived,
        Err(error) => return skip(test, &error.to_string()),
    };
    let Some(mut cluster) = prepared_on(test, Topology::with_nodes(2), "", "") else { return };
    let head = "peers = { n1 = \"10.77.0.11\" }\nsecret = \"file:cluster.key\"\n";
    let instance = |family: u8, address: &str| {
        format!(
            "  version 3\n  state BACKUP\n  interface eth0\n  use_vmac\n  virtual_router_id 51\n  priority 150\n  \
             advert_int 0.3\n  {}virtual_ipaddress {{\n    {address}\n  }}\n",
            if family == 6 { "native_ipv6\n  " } else { "" }
        )
    };
    let vip = vip(", virtual_mac = true");
    cluster.buoy.write_config("n1", &format!("{head}{vip}")).unwrap();
    cluster.buoy.start(&cluster.segment, "n1").unwrap();
    wait_places(&cluster, "n1", &["own"], "alone");
    is_served_by_one_hardware_address(&cluster, "alone");
    let observer = cluster.observer(&[VIP]);
    answered_once(&observer, watch(&observer, 100));
    let instances = [instance(4, &format!("{VIP}/24")), instance(6, &format!("{VIP6}/64"))];
    keepalived.start(&cluster.segment, &instances).unwrap();
    wait_places(&cluster, "n1", &[], "keepalived is better");
    let is_theirs = || Ok(!places(&cluster, "n2", VIP.into()).is_empty());
    wait_until(SOON, "keepalived to have it", is_theirs).unwrap();
    let heard = |status: &buoy_api::ClusterStatus| {
        let mut routers = status.vips[0].vrrp.iter();
        routers.all(|router| router.heard.as_ref().map(|heard| heard.priority) == Some(150))
    };
    cluster.buoy.wait_status("n1", SOON, "both of its routers to be heard", heard).unwrap();
    keepalived.stop().unwrap();
    wait_places(&cluster, "n1", &["own"], "keepalived stopped");
    is_served_by_one_hardware_address(&cluster, "keepalived stopped");
    // Not while keepalived had it: its interface for IPv6 answers ARP too.
    answered_once(&observer, watch(&observer, 100));
    let status = cluster.buoy.status("n1").unwrap();
    assert!(status.vips[0].refused.is_empty(), "{:?}", status.vips[0].refused);
}

#[test]
fn what_is_made_for_it_stays_over_a_crash_and_goes_with_the_wish_for_it() {
    let test = "what_is_made_for_it_stays_over_a_crash_and_goes_with_the_wish_for_it";
    let with = vip(", virtual_mac = true");
    let Some(mut cluster) = running(test, Topology::with_nodes(1), "", &with) else { return };
    let setting = |cluster: &Cluster| {
        let inside = cluster.segment.inside("n1").unwrap();
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_ignore");
        inside.enter(read).unwrap().unwrap().trim().to_owned()
    };
    wait_places(&cluster, "n1", &["own"], "at first");
    assert_eq!(setting(&cluster), "1");
    let index =
        |cluster: &Cluster| shown(cluster, "n1", "vrrp.51").split(':').next().map(str::to_owned);
    let first = index(&cluster);
    // A crash: the same interface serves the next run.
    cluster.buoy.process("n1").unwrap().signal_family(Signal::SIGKILL).unwrap();
    cluster.buoy.start(&cluster.segment, "n1").unwrap();
    wait_places(&cluster, "n1", &["own"], "after a crash");
    assert_eq!(index(&cluster), first);
    // Somebody removes it, and somebody takes it down: it comes back with what was on it.
    for line in ["link delete vrrp.51", "link set dev vrrp6.51 down"] {
        cluster.segment.inside("n1").unwrap().ip(line).unwrap();
        wait_places(&cluster, "n1", &["own"], line);
        is_served_by_one_hardware_address(&cluster, line);
    }
    let head = support::config_head(&cluster.segment.topology);
    let change = |cluster: &mut Cluster, vips: &str| {
        cluster.buoy.write_config("n1", &format!("{head}{vips}")).unwrap();
        cluster.buoy.reload("n1").unwrap();
    };
    change(&mut cluster, &vip(""));
    wait_places(&cluster, "n1", &["eth0"], "without");
    assert_eq!(shown(&cluster, "n1", "vrrp.51"), "");
    assert_eq!(setting(&cluster), "0", "as it was");
    let observer = cluster.observer(&[VIP]);
    assert_eq!(cluster.wait_answerer(&observer, VIP), "n1");
    change(&mut cluster, &with);
    wait_places(&cluster, "n1", &["own"], "with it again");
    wait_until(SOON, "the virtual one to answer", || Ok(observer.owner(VIP) == Some(MAC))).unwrap();
    // A clean stop leaves nothing.
    cluster.buoy.process("n1").unwrap().signal(Signal::SIGTERM).unwrap();
    for name in ["vrrp.51", "vrrp6.51"] {
        wait_until(SOON, "it to go", || Ok(shown(&cluster, "n1", name).is_empty())).unwrap();
    }
    wait_until(SOON, "eth0 to be as it was", || Ok(setting(&cluster) == "0")).unwrap();
}

#[test]
fn a_hardware_address_that_somebody_else_has_made_keeps_the_host_out_of_that_vip_only() {
    let test = "a_hardware_address_that_somebody_else_has_made_keeps_the_host_out_of_that_vip_only";
    let other = LOCAL.replace("web", "plain").replace(".100", ".101");
    let text = format!("{}{other}", vip(", virtual_mac = true"));
    let Some(mut cluster) = prepared_on(test, Topology::with_nodes(1), "", &text) else { return };
    {
        let inside = cluster.segment.inside("n1").unwrap();
        let theirs =
            format!("link add theirs link eth0 address {MAC_TEXT} type macvlan mode private");
        inside.ip(&theirs).unwrap();
    }
    cluster.buoy.start(&cluster.segment, "n1").unwrap();
    let inside = cluster.segment.inside("n1").unwrap();
    let has = |address: &str| inside.ip("-oneline addr show").unwrap().contains(address);
    wait_until(SOON, "the other VIP", || Ok(has("10.77.0.101/"))).unwrap();
    let log = std::fs::read_to_string(cluster.buoy.log("n1")).unwrap();
    assert!(log.contains("theirs has 00:00:5e:00:01:33 already"), "{log}");
    let status = cluster.buoy.status("n1").unwrap();
    let web = status.vips.iter().find(|vip| vip.name == "web").unwrap();
    assert_ne!(web.owner.as_deref(), Some("n1"), "{web:?}");
    assert!(!has(&format!("{VIP}/")));
}

/// XDP sees the frames before they get to the interface of the virtual router.
#[test]
fn the_fast_path_forwards_what_comes_to_that_hardware_address() {
    let test = "the_fast_path_forwards_what_comes_to_that_hardware_address";
    let head = "[[vip]]\nname = \"web\"\naddress = \"10.77.0.100/24\"\nfailback = \"now\"\n";
    let services = "[[vip.service]]\nport = \"80/tcp\"\nmode = \"xdp\"\nforward = \"nat\"\nbackends = [\"web1 10.77.0.21:80\"]\nsource = \"vip\"\n";
    let vrrp = "vrrp = { id = 51, interval = \"300ms\", virtual_mac = true, priority = { n1 = 200, n2 = 100 } }\n";
    let text = format!("{head}{vrrp}{services}");
    let Some(mut cluster) = prepared_on(test, Topology::with_nodes(2), "", &text) else { return };
    cluster.segment.suit_xdp().unwrap();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    let served = |cluster: &Cluster, owner: &str| {
        let is_owner = || Ok(places(cluster, owner, VIP.into()) == ["vrrp.51"]);
        wait_until(SOON, &format!("{owner} to have it"), is_owner).unwrap();
        let client = cluster.segment.inside("client").unwrap();
        let get = || Ok(http::get(client, (VIP, 80).into(), 200 * MS).is_ok());
        wait_until(SOON, &format!("{owner} to forward"), get).unwrap();
        let known = client.ip(&format!("neigh show {VIP}")).unwrap();
        assert!(known.contains(MAC_TEXT), "{known}");
    };
    served(&cluster, "n1");
    let status = cluster.buoy.status("n1").unwrap();
    let engine = &status.vips[0].services[0];
    assert!(format!("{engine:?}").contains("xdp"), "{engine:?}");
    cluster.buoy.drain("n1", true).unwrap();
    served(&cluster, "n2");
}

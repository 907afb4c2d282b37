//! Real servers prepared for dsr and tunnel: TCP through a director, silence about the VIP, and nothing left behind.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod echo;
mod hosts;
mod world;

use buoy_kernel::backend::{Backend, BackendError, Condition, Health, Run, Tunnel, Wanted, Which};
use buoy_kernel::fast::{Capacity, Fast, FastError, Neighbours};
use buoy_kernel::packet::{Announcer, Heard, Listener};
use buoy_kernel::poll::Poller;
use buoy_kernel::{clock, host, sysctl};
use buoy_model::{FastPath, Forward, LinkId, Protocol};
use echo::{WAIT, connect, echoes, serve};
use hosts::{Hosts, ip};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use world::{permitted, service};

const VIPS: [&str; 2] = ["10.1.0.100", "fd01::100"];
const TO_VIPS: [&str; 2] = ["10.1.0.100:80", "[fd01::100]:80"];

/// Long enough for any answer on a veth.
const SILENCE: Duration = Duration::from_millis(200);

struct Records(std::path::PathBuf);

impl Records {
    fn new(test: &str) -> Self {
        let name = format!("buoy-backend-{}-{test}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn backend(&self) -> Backend {
        Backend::open(&self.0).unwrap()
    }

    fn add(&self, wanted: &[Wanted]) -> buoy_kernel::backend::Outcome {
        self.backend().add(wanted, Run::Real).unwrap()
    }
}

impl std::ops::Drop for Records {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn wanted(vip: &str, is_tunnel: bool) -> Wanted {
    in_tunnel(vip, if is_tunnel { Tunnel::IPIP } else { Tunnel::NONE })
}

fn in_tunnel(vip: &str, tunnel: Tunnel) -> Wanted {
    Wanted { address: vip.parse().unwrap(), tunnel, interface: Some("server".to_owned()) }
}

/// Whatever a command could have changed on this host.
fn everything() -> Vec<String> {
    let mut all: Vec<String> =
        ["addr show", "-d link show", "route show table all", "-6 route show table all"]
            .iter()
            .flat_map(|words| ip(words).lines().map(str::to_owned).collect::<Vec<_>>())
            // Multicast groups are joined, and link-local addresses made sure of, in their own time.
            .filter(|line| !["ff00::/8", "multicast", "fe80::"].iter().any(|w| line.contains(w)))
            .collect();
    for family in ["ipv4", "ipv6"] {
        for which in ["all", "default", "lo", "server"] {
            let folder = format!("/proc/sys/net/{family}/conf/{which}");
            let mut names: Vec<_> = std::fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            for name in names {
                let path = format!("net/{family}/conf/{which}/{name}");
                if name != "stable_secret" {
                    all.push(format!("{path} {}", sysctl::read(&path).unwrap_or_default()));
                }
            }
        }
    }
    all
}

/// The hosts, when the server's interface has become what it stays.
fn settled(test: &str) -> Option<Hosts> {
    let hosts = Hosts::new(test)?;
    let deadline = clock::now() + WAIT;
    let is_up = || {
        let facts = host::facts().unwrap();
        let up = facts.links.iter().any(|l| l.name == "server" && l.up);
        up && ip("-6 route show table local").contains("local fd02::2 ")
    };
    while !hosts.at_server(is_up) {
        assert!(clock::now() < deadline, "the server's interface does not come up");
        Poller::new().wait(Some(clock::now() + Duration::from_millis(5))).unwrap();
    }
    Some(hosts)
}

/// Nothing has come and nothing has gone.
fn unchanged(before: &[String]) {
    let after = everything();
    let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    let come: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
    assert!(gone.is_empty() && come.is_empty(), "gone: {gone:#?}\ncome: {come:#?}");
}

fn problems(conditions: Vec<Condition>) -> Vec<String> {
    let bad = conditions.into_iter().filter(|c| c.health != Health::Ok);
    bad.map(|c| format!("{}: {} ({})", c.about, c.found, c.fix)).collect()
}

fn link(name: &str) -> LinkId {
    host::facts().unwrap().links.iter().find(|l| l.name == name).unwrap().id
}

/// A director on the host in the middle: each VIP to the server, to the address said.
fn direct(forward: Forward, to: &[(&str, &str)]) -> Result<Fast, FastError> {
    let of =
        |&(vip, server): &(&str, &str)| service(Protocol::Tcp, vip, (80, 80), forward, &[server]);
    let path = FastPath { seed: 77, services: to.iter().map(of).collect() };
    let mut fast = Fast::open_unpinned(Capacity::of(&path))?;
    let mut neighbours = Neighbours::open()?;
    fast.apply(&path, &mut |to| neighbours.resolve(to))?;
    for name in ["to-client", "to-server"] {
        fast.attach(link(name))?;
    }
    let deadline = clock::now() + WAIT;
    while !fast.refresh(&mut |to| neighbours.resolve(to)).is_empty() {
        assert!(clock::now() < deadline, "the server's neighbour entry does not come");
        Poller::new().wait(Some(clock::now() + Duration::from_millis(5))).unwrap();
        neighbours.read().unwrap();
    }
    Fast::accept_answers("to-server").unwrap();
    for vip in VIPS {
        let prefix = if vip.contains(':') { "128" } else { "32" };
        ip(&format!("addr add {vip}/{prefix} dev to-client"));
    }
    Ok(fast)
}

/// Hears everything that is said on the server's segment about who has a VIP.
struct Watch {
    announcer: Announcer,
    listener: Listener,
    near: LinkId,
    claims: Vec<IpAddr>,
}

impl Watch {
    fn new() -> Self {
        let facts = host::facts().unwrap();
        let near = facts.links.iter().find(|l| l.name == "to-server").unwrap();
        let mut announcer = Announcer::open().unwrap();
        announcer.set_link(near.id, near.mac.unwrap(), false);
        let listener = Listener::open(near.id, near.mac.unwrap()).unwrap();
        Self { announcer, listener, near: near.id, claims: Vec::new() }
    }

    /// Asks who has the address, in every way, and listens; gives how often it was claimed.
    fn ask(&mut self, address: &str) -> usize {
        let address: IpAddr = address.parse().unwrap();
        self.hear(Duration::ZERO);
        self.claims.clear();
        match address {
            IpAddr::V4(_) => {
                self.announcer.ask(self.near, "10.2.0.1".parse().unwrap(), address).unwrap();
            }
            IpAddr::V6(v6) => {
                self.announcer.ask(self.near, "fd02::1".parse().unwrap(), address).unwrap();
                // The group of the address may be one that the server does not hear: to itself, and to all.
                let mut question = vec![135, 0, 0, 0, 0, 0, 0, 0];
                question.extend(v6.octets());
                let icmpv6 = Some(socket2::Protocol::ICMPV6);
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::RAW, icmpv6)
                        .unwrap();
                socket.set_unicast_hops_v6(255).unwrap();
                socket.set_multicast_hops_v6(255).unwrap();
                socket.set_multicast_if_v6(self.near.0).unwrap();
                for to in ["[fd02::2]:0", "[ff02::1]:0"] {
                    let to: SocketAddr = to.parse().unwrap();
                    socket.send_to(&question, &to.into()).unwrap();
                }
            }
        }
        self.hear(SILENCE);
        self.claims.iter().filter(|claim| **claim == address).count()
    }

    fn ask_until_claimed(&mut self, address: &str) {
        let deadline = clock::now() + WAIT;
        while self.ask(address) == 0 {
            assert!(clock::now() < deadline, "nobody claims {address}");
        }
    }

    fn hear(&mut self, time: Duration) {
        let deadline = clock::now() + time;
        let mut poller = Poller::new();
        loop {
            let claims = &mut self.claims;
            self.listener.read(&mut |Heard::Claim { address, .. }| claims.push(address)).unwrap();
            if clock::now() >= deadline {
                return;
            }
            poller.wait(Some(clock::now() + Duration::from_millis(5))).unwrap();
        }
    }

    /// No VIP was claimed since the last question.
    fn heard_nothing(&mut self) {
        self.hear(SILENCE);
        let vips = VIPS.map(|vip| vip.parse::<IpAddr>().unwrap());
        let claims: Vec<_> = self.claims.iter().filter(|claim| vips.contains(claim)).collect();
        assert!(claims.is_empty(), "{claims:?}");
    }
}

/// Connections through the director, while nobody on the server's segment hears of the VIP.
fn works_and_is_silent(hosts: &Hosts, vips: &[&str]) {
    let mut watch = Watch::new();
    // Who asks so is answered, if there is an answer.
    watch.ask_until_claimed("10.2.0.2");
    watch.ask_until_claimed("fd02::2");
    watch.claims.clear();
    for to in vips {
        // So the server has to ask for its router, and might do so in the name of the VIP.
        hosts.at_server(|| ip("neigh flush dev server"));
        let mut stream = hosts.at_client(|| connect(to).unwrap());
        echoes(&mut stream, 300_000);
    }
    watch.heard_nothing();
    for vip in VIPS {
        assert_eq!(watch.ask(vip), 0, "{vip} is claimed");
    }
    // A router answers neighbour solicitations for others, where it is told to: not for these.
    hosts.at_server(|| sysctl::write(sysctl::IPV6_FORWARD, "1").unwrap());
    assert_eq!(watch.ask(VIPS[1]), 0, "a router claims the VIP");
    hosts.at_server(|| sysctl::write(sysctl::IPV6_FORWARD, "0").unwrap());
}

/// Room for an outer header. Without it the director tells the client to send less, which between veths takes
/// seconds: what XDP sends back waits there for the next frame, unless the other end runs XDP too.
fn larger_frames(hosts: &Hosts) {
    ip("link set to-server mtu 1560");
    hosts.at_server(|| ip("link set server mtu 1560"));
}

/// The same without larger frames: the server asks clients for smaller segments.
fn smaller_segments(hosts: &Hosts) {
    hosts.at_server(|| {
        ip("route change default via 10.2.0.1 advmss 1400");
        ip("-6 route change default via fd02::1 advmss 1400");
    });
}

/// So that the driver takes no XDP program of the server: frames that might come do not fit into a page.
fn no_xdp_in_the_driver(hosts: &Hosts) {
    ip("link set to-server mtu 9000");
    hosts.at_server(|| ip("link set server mtu 1560"));
}

/// How packets come to the server, by its addresses for the VIP of IPv4 and of IPv6.
struct Case {
    forward: Forward,
    to: [&'static str; 2],
    make_room: fn(&Hosts),
    /// What `ip link` says of the server's interface.
    shown: &'static str,
}

fn prepared_for(test: &str, Case { forward, to, make_room, shown }: Case) {
    let tunnel = match forward {
        Forward::Dsr | Forward::Nat | Forward::Local => Tunnel::NONE,
        Forward::Tunnel => Tunnel::IPIP,
        Forward::Gue { port } => Tunnel { ipip: false, gue: Some(port) },
    };
    let wanted = VIPS.map(|vip| in_tunnel(vip, tunnel));
    let to: Vec<_> = VIPS.into_iter().zip(to).collect();
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    make_room(&hosts);
    let Some(fast) = permitted(test, direct(forward, &to)) else { return };
    let before = hosts.at_server(everything);
    hosts.at_server(|| {
        let outcome = records.add(&wanted);
        assert!(!outcome.steps.is_empty());
        let link = ip("link show server");
        assert!(link.contains(shown), "{link}");
        assert_eq!(problems(records.backend().check(&[]).unwrap()), [""; 0]);
        // Twice is once.
        assert_eq!(records.add(&wanted).steps, []);
        TO_VIPS.into_iter().for_each(serve);
    });
    works_and_is_silent(&hosts, &TO_VIPS);
    assert!(fast.dropped().values().all(|n| *n == 0), "{:?}", fast.dropped());
    hosts.at_server(|| {
        let outcome = records.backend().remove(&Which::All, Run::Real).unwrap();
        assert_eq!(outcome.notes, [""; 0]);
        assert!(!records.0.exists());
        assert_eq!(records.backend().remove(&Which::All, Run::Real).unwrap().steps, []);
    });
    hosts.at_server(|| unchanged(&before));
}

#[test]
fn a_server_prepared_for_dsr_serves_and_is_silent_and_is_given_back_as_it_was() {
    prepared_for(
        "a_server_prepared_for_dsr_serves_and_is_silent_and_is_given_back_as_it_was",
        Case {
            forward: Forward::Dsr,
            to: ["10.2.0.2:0", "[fd02::2]:0"],
            make_room: |_| {},
            shown: "",
        },
    );
}

#[test]
fn a_server_prepared_for_tunnels_serves_and_is_silent_and_is_given_back_as_it_was() {
    prepared_for(
        "a_server_prepared_for_tunnels_serves_and_is_silent_and_is_given_back_as_it_was",
        Case {
            forward: Forward::Tunnel,
            to: ["10.2.0.2:0", "[fd02::2]:0"],
            make_room: larger_frames,
            shown: " xdp ",
        },
    );
}

#[test]
fn ipv4_comes_through_a_tunnel_of_ipv6_and_the_other_way_round() {
    prepared_for(
        "ipv4_comes_through_a_tunnel_of_ipv6_and_the_other_way_round",
        Case {
            forward: Forward::Tunnel,
            to: ["[fd02::2]:0", "10.2.0.2:0"],
            make_room: smaller_segments,
            shown: " xdp ",
        },
    );
}

#[test]
fn tcp_comes_through_udp() {
    prepared_for(
        "tcp_comes_through_udp",
        Case {
            forward: Forward::Gue { port: 6080 },
            to: ["10.2.0.2:0", "[fd02::2]:0"],
            make_room: larger_frames,
            shown: " xdp ",
        },
    );
}

#[test]
fn tcp_comes_through_udp_of_the_other_family_and_to_another_port() {
    prepared_for(
        "tcp_comes_through_udp_of_the_other_family_and_to_another_port",
        Case {
            forward: Forward::Gue { port: 9886 },
            to: ["[fd02::2]:0", "10.2.0.2:0"],
            make_room: smaller_segments,
            shown: " xdp ",
        },
    );
}

/// Servers first, then directors: nothing is interrupted where both are taken out meanwhile.
#[test]
fn a_connection_lives_on_while_its_tunnel_becomes_another_one() {
    let test = "a_connection_lives_on_while_its_tunnel_becomes_another_one";
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    larger_frames(&hosts);
    let to = [(VIPS[0], "10.2.0.2:0")];
    let Some(mut fast) = permitted(test, direct(Forward::Tunnel, &to)) else { return };
    let prepare = |tunnel: &str| {
        hosts.at_server(|| {
            records.add(&[in_tunnel(VIPS[0], tunnel.parse().unwrap())]);
            assert_eq!(problems(records.backend().check(&[]).unwrap()), [""; 0]);
        });
    };
    prepare("ipip");
    hosts.at_server(|| serve(TO_VIPS[0]));
    let mut stream = hosts.at_client(|| connect(TO_VIPS[0]).unwrap());
    echoes(&mut stream, 50_000);
    prepare("ipip,gue");
    echoes(&mut stream, 50_000);
    let mut path = fast.path();
    path.services[0].forward = Forward::Gue { port: 6080 };
    let mut neighbours = Neighbours::open().unwrap();
    fast.apply(&path, &mut |to| neighbours.resolve(to)).unwrap();
    echoes(&mut stream, 50_000);
    prepare("gue");
    echoes(&mut stream, 50_000);
    // What is not wanted any more is not taken out either.
    path.services[0].forward = Forward::Tunnel;
    fast.apply(&path, &mut |to| neighbours.resolve(to)).unwrap();
    let before = hosts.at_server(|| records.backend().counts().unwrap());
    drop(hosts.at_client(|| hosts::begin(TO_VIPS[0])));
    Poller::new().wait(Some(clock::now() + SILENCE)).unwrap();
    assert_eq!(hosts.at_server(|| records.backend().counts().unwrap()), before);
}

#[test]
fn a_driver_without_xdp_does_for_a_tunnel_too() {
    prepared_for(
        "a_driver_without_xdp_does_for_a_tunnel_too",
        Case {
            forward: Forward::Tunnel,
            to: ["10.2.0.2:0", "10.2.0.2:0"],
            make_room: no_xdp_in_the_driver,
            shown: " xdpgeneric ",
        },
    );
}

/// What is true of a server that was prepared by hand, and badly: so the tests above can fail.
#[test]
fn a_server_that_is_not_told_to_be_silent_is_heard_and_the_check_says_so() {
    let test = "a_server_that_is_not_told_to_be_silent_is_heard_and_the_check_says_so";
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    hosts.at_server(|| ip("addr add 10.1.0.100/32 dev lo"));
    // By default Linux answers ARP for what is on loopback.
    Watch::new().ask_until_claimed(VIPS[0]);
    let found = hosts.at_server(|| records.backend().check(&[wanted(VIPS[0], true)]).unwrap());
    let problems = problems(found);
    let about: Vec<_> = problems.iter().map(|p| p.split(':').next().unwrap()).collect();
    assert_eq!(about, ["tunnel", "arp_ignore", "arp_announce"], "{problems:?}");
}

/// The same of its own questions: who hears one takes the sender's word for where the VIP is.
#[test]
fn a_server_that_only_answers_nobody_still_claims_the_vip_in_its_questions() {
    let test = "a_server_that_only_answers_nobody_still_claims_the_vip_in_its_questions";
    let Some(hosts) = settled(test) else { return };
    let to = [(VIPS[0], "10.2.0.2:0")];
    let Some(_fast) = permitted(test, direct(Forward::Dsr, &to)) else { return };
    hosts.at_server(|| {
        ip("addr add 10.1.0.100/32 dev lo");
        sysctl::write("net/ipv4/conf/all/arp_ignore", "1").unwrap();
        serve(TO_VIPS[0]);
        ip("neigh flush dev server");
    });
    let mut watch = Watch::new();
    echoes(&mut hosts.at_client(|| connect(TO_VIPS[0]).unwrap()), 1000);
    watch.hear(SILENCE);
    assert!(watch.claims.contains(&VIPS[0].parse().unwrap()), "{:?}", watch.claims);
}

/// Another server than the fresh one of the tests above.
#[test]
fn what_was_there_before_stays_and_what_others_changed_since_is_left_to_them() {
    let test = "what_was_there_before_stays_and_what_others_changed_since_is_left_to_them";
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    hosts.at_server(|| {
        let set =
            |name: &str, value| sysctl::write(&format!("net/ipv4/conf/{name}"), value).unwrap();
        ip("addr add 10.1.0.100/32 dev lo");
        set("all/arp_ignore", "3");
        set("server/arp_ignore", "2");
        set("server/arp_announce", "1");
        set("all/rp_filter", "1");
        let before = everything();
        let both = [wanted("10.1.0.100", false), wanted("10.1.0.101", false)];
        records.add(&both);
        assert_eq!(problems(records.backend().check(&[]).unwrap()), [""; 0]);
        assert_eq!(sysctl::read("net/ipv4/conf/server/arp_ignore").unwrap(), "2");
        assert_eq!(sysctl::read("net/ipv4/conf/server/rp_filter").unwrap(), "2");
        // One after the other, and the settings with the last one.
        let one = |vip: &str| Which::These([vip.parse().unwrap()].into());
        records.backend().remove(&one("10.1.0.101"), Run::Real).unwrap();
        assert_eq!(problems(records.backend().check(&[]).unwrap()), [""; 0]);
        records.backend().remove(&one("10.1.0.100"), Run::Real).unwrap();
        unchanged(&before);
        // Somebody else wants to have it otherwise meanwhile.
        records.add(&both);
        set("all/arp_announce", "1");
        let found = problems(records.backend().check(&[]).unwrap());
        assert_eq!(found, [""; 0], "the interface has a setting of its own");
        let removed = records.backend().remove(&Which::All, Run::Real).unwrap();
        assert_eq!(removed.notes.len(), 1, "{removed:?}");
        assert!(removed.notes[0].contains("all/arp_announce is 1 by now"), "{removed:?}");
        assert_eq!(sysctl::read("net/ipv4/conf/all/arp_announce").unwrap(), "1");
        set("all/arp_announce", "0");
        unchanged(&before);
    });
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_changed() {
    let test = "what_is_in_the_way_is_named_and_nothing_is_changed";
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    let refused = |wanted: &[Wanted]| {
        let before = everything();
        let error = records.backend().add(wanted, Run::Real).unwrap_err();
        assert!(matches!(error, BackendError::Obstacles(_)), "{error}");
        assert!(!records.0.exists());
        unchanged(&before);
        error.to_string()
    };
    let taken = hosts.at_server(|| {
        ip("addr add 10.1.0.100/24 dev server");
        let text = refused(&[wanted("10.1.0.100", false)]);
        assert!(text.contains("fix: ip address del 10.1.0.100/24 dev server"), "{text}");
        ip("addr del 10.1.0.100/24 dev server");
        ip("addr add 10.1.0.100/24 dev lo");
        let text = refused(&[wanted("10.1.0.100", false)]);
        assert!(text.contains("makes the whole subnet local"), "{text}");
        ip("addr del 10.1.0.100/24 dev lo");
        let nowhere = Wanted { interface: Some("eth9".to_owned()), ..wanted("10.1.0.100", false) };
        let text = refused(&[nowhere]);
        assert!(text.contains("packets cannot come by eth9"), "{text}");
        assert!(text.contains("name one of server"), "{text}");
        let text =
            refused(&[wanted("224.0.0.1", false), wanted("::1", false), wanted("fe80::1", false)]);
        assert_eq!(text.matches("cannot be a VIP").count(), 3, "{text}");
        sysctl::write("net/ipv6/conf/server/disable_ipv6", "1").unwrap();
        let text = refused(&[wanted("fd01::100", false)]);
        assert!(text.contains("IPv6 is switched off on server"), "{text}");
        let mut other = permitted(test, Fast::open_unpinned(Capacity::of(&FastPath::default())))?;
        other.attach(link("server")).unwrap();
        Some((refused(&[wanted("10.1.0.100", true)]), other))
    });
    let Some((text, _other)) = taken else { return };
    assert!(text.contains("server has another XDP program, `fast_forward`"), "{text}");
}

/// More VIPs than the program has room for: it is loaded after the settings were changed.
#[test]
fn what_fails_half_way_is_undone() {
    let test = "what_fails_half_way_is_undone";
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    hosts.at_server(|| {
        let before = everything();
        let many: Vec<Wanted> =
            (0..2100).map(|n| wanted(&format!("fd01::{n:x}:1"), true)).collect();
        let error = records.backend().add(&many, Run::Real).unwrap_err();
        assert!(error.to_string().contains("there is room for 2048 addresses only"), "{error}");
        assert!(error.to_string().contains("nothing is changed"), "{error}");
        let mut with_ipv4 = many;
        with_ipv4.push(wanted("10.1.0.100", false));
        let error = records.backend().add(&with_ipv4, Run::Real).unwrap_err();
        assert!(error.to_string().contains("is undone, so nothing is changed"), "{error}");
        unchanged(&before);
        assert!(records.backend().prepared().unwrap().is_empty());
    });
}

#[test]
fn a_dry_run_says_everything_and_does_nothing() {
    let test = "a_dry_run_says_everything_and_does_nothing";
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    hosts.at_server(|| {
        let before = everything();
        let wanted = VIPS.map(|vip| wanted(vip, true));
        let said = records.backend().add(&wanted, Run::Dry).unwrap().steps;
        unchanged(&before);
        assert!(!records.0.exists());
        assert_eq!(records.add(&wanted).steps, said);
        let said = records.backend().remove(&Which::All, Run::Dry).unwrap().steps;
        assert_eq!(problems(records.backend().check(&[]).unwrap()), [""; 0]);
        assert_eq!(records.backend().remove(&Which::All, Run::Real).unwrap().steps, said);
        unchanged(&before);
    });
}

#[test]
fn what_was_done_is_found_again_when_its_record_is_lost() {
    let test = "what_was_done_is_found_again_when_its_record_is_lost";
    let Some(hosts) = settled(test) else { return };
    let records = Records::new(test);
    hosts.at_server(|| {
        records.add(&VIPS.map(|vip| wanted(vip, true)));
        std::fs::remove_dir_all(&records.0).unwrap();
        let said = records.backend().remove(&Which::All, Run::Real).unwrap();
        assert_eq!(said.steps.len(), 3, "{said:?}");
        let shown = ip("-d addr show") + &ip("-d link show");
        assert!(!shown.contains("10.1.0.100") && !shown.contains("fd01::100"), "{shown}");
        assert!(!shown.contains("prog/xdp"), "{shown}");
    });
}

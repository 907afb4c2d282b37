//! What the host itself shows, with an agent or without one.

use super::Finding;
use super::network::{self, Host, Interface};
use super::remedy::Remedy;
use buoy_agent::ConfigurationError;
use buoy_api::{ClusterStatus, words};
use buoy_config::{Problem, Severity};
use buoy_kernel::fast::Neighbours;
use buoy_kernel::host::{self, Facts};
use buoy_kernel::netlink::Requests;
use buoy_kernel::{nft, sysctl};
use buoy_model::{Desired, Group, Mode, VipAddress};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// What the agent needs, by the bit of its capability and what for.
const CAPABILITIES: [(u32, &str, &str); 6] = [
    (12, "CAP_NET_ADMIN", "no address can be set"),
    (13, "CAP_NET_RAW", "nothing can be announced"),
    (39, "CAP_BPF", "there is no gate, and nothing is forwarded by XDP"),
    (38, "CAP_PERFMON", "there may be no gate"),
    (23, "CAP_SYS_NICE", "a busy host delays heartbeats"),
    (14, "CAP_IPC_LOCK", "a host that swaps delays heartbeats"),
];
/// Everything: bit 21 on kernels before 5.8 stands for those that came after it.
const CAP_SYS_ADMIN: u32 = 21;

/// Reads a setting of the kernel, as in `net/ipv4/ip_forward`.
type Setting<'s> = &'s dyn Fn(&str) -> Option<String>;

/// Examines the file and the host.
pub(super) fn examine(file: &Path, status: Option<&ClusterStatus>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let desired = configuration(file, status, &mut findings);
    findings.extend(capabilities(status.and_then(|status| status.pid)));
    findings.extend(kernel());
    findings.push(clock());
    let Some(desired) = desired else { return findings };
    match host::facts() {
        Ok(facts) => {
            findings.extend(addresses(&desired, &facts, status.is_some()));
            let read = |setting: &str| sysctl::read(setting).ok();
            findings.extend(settings(&desired, &facts, &read));
            findings.extend(paths(&desired, &facts, status));
        }
        Err(error) => findings.push(Finding::fail(
            "interfaces",
            format!("the kernel does not tell them: {error}"),
            "run it on the host itself, outside of a sandbox",
        )),
    }
    findings.extend(forwarding(&desired));
    findings
}

fn configuration(
    file: &Path,
    status: Option<&ClusterStatus>,
    findings: &mut Vec<Finding>,
) -> Option<Desired> {
    let shown = file.display();
    let checked = match buoy_agent::load(file) {
        Ok(checked) => checked,
        Err(error) => {
            findings.extend(refused(&error, file));
            return None;
        }
    };
    for problem in checked.warnings.problems() {
        let found = format!("{shown}:{}: {}", problem.line, problem.message);
        findings.push(Finding::warn("configuration", found, problem.fix.clone()));
    }
    let desired = checked.desired;
    let digest = format!("{:08x}", desired.digest);
    match status {
        Some(status) if status.digest != digest => findings.push(
            Finding::warn(
                "configuration",
                format!("{shown} ({digest}) is not what the agent runs ({})", status.digest),
                "`buoy reload` makes the agent read it",
            )
            .mended_by(Remedy::Reload),
        ),
        Some(_) | None => findings.push(Finding::ok(
            "configuration",
            format!(
                "{shown} is good: cluster {}, this node is {}",
                desired.cluster_name,
                desired.node_name(desired.me)
            ),
        )),
    }
    Some(desired)
}

/// Why there is no configuration to go by, one finding for each error of the file.
fn refused(error: &ConfigurationError, file: &Path) -> Vec<Finding> {
    let shown = file.display();
    match error {
        ConfigurationError::Host(cause) => vec![Finding::fail(
            "configuration",
            format!("this host's interfaces cannot be read: {cause}"),
            "run it on the host itself, outside of a sandbox",
        )],
        ConfigurationError::Unlayable(why) => vec![Finding::fail(
            "configuration",
            format!("{shown}: {why}"),
            "write each VIP as [[vip]]",
        )],
        ConfigurationError::Invalid(report) => {
            let errors = report.problems().iter().filter(|p| p.severity == Severity::Error);
            let finding = |problem: &Problem| {
                let found = format!("{shown}:{}: {}", problem.line, problem.message);
                Finding::fail("configuration", found, problem.fix.clone())
            };
            errors.map(finding).collect()
        }
    }
}

/// Of the agent where it runs, else of this command, which is the best guess there is.
fn capabilities(agent: Option<u32>) -> Vec<Finding> {
    let (whose, process) = match agent {
        Some(pid) => ("the agent has", pid.to_string()),
        None => ("this command has", "self".into()),
    };
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    match effective(&text) {
        Some(bits) => lacking(whose, bits),
        // An agent in another PID namespace; its own lines of defence say what it lacks.
        None => Vec::new(),
    }
}

fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn lacking(whose: &str, bits: u64) -> Vec<Finding> {
    let has = |bit: u32| bits & (1 << bit) != 0;
    // CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
    let stands_in = |bit: u32| bit > 37 && has(CAP_SYS_ADMIN);
    let lack: Vec<_> =
        CAPABILITIES.iter().filter(|(bit, ..)| !has(*bit) && !stands_in(*bit)).collect();
    if lack.is_empty() {
        return vec![Finding::ok("capabilities", format!("{whose} all that an agent needs"))];
    }
    let finding = |(bit, name, without): &&(u32, &str, &str)| {
        let found = format!("{whose} no {name}: {without}");
        let fix = "run it as root, or give it with AmbientCapabilities= of its systemd unit";
        match bit {
            12 | 13 => Finding::fail("capabilities", found, fix),
            _ => Finding::warn("capabilities", found, fix),
        }
    };
    lack.iter().map(finding).collect()
}

/// What the kernel may refuse whatever the capabilities are.
fn kernel() -> Option<Finding> {
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    lockdown.contains("[confidentiality]").then(|| {
        Finding::warn(
            "kernel",
            "it is locked down (confidentiality), so BPF programs may be refused",
            "boot with lockdown=integrity if the gate is missing",
        )
    })
}

fn clock() -> Finding {
    Finding::ok(
        "clock",
        "leases run on CLOCK_BOOTTIME: neither NTP nor a step of the wall clock moves them",
    )
}

/// VIPs on this host that somebody else put there, and those that nobody looks after.
fn addresses(desired: &Desired, facts: &Facts, agent_runs: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let present = facts.links.iter().flat_map(|link| link.addresses.iter().map(move |a| (link, a)));
    for (link, address) in present {
        let here = address.cidr.address();
        let Some(group) = desired.groups.iter().find(|g| has(g, here)) else { continue };
        let (name, vip) = (&link.name, &group.name);
        if !address.ours {
            let found = format!("{here} of {vip} is on {name}, and Buoy did not put it there");
            let fix = format!("ip address del {} dev {name}", address.cidr);
            let remedy =
                Remedy::RemoveAddress { link: link.id, name: name.clone(), cidr: address.cidr };
            findings.push(Finding::fail("address", found, fix).mended_by(remedy));
        } else if !agent_runs && name != "lo" {
            findings.push(Finding::warn(
                "address",
                format!("{here} of {vip} is on {name}, and no agent looks after it"),
                "start the agent, which takes it over or away; else it goes by itself in seconds",
            ));
        }
    }
    for link in carrying(desired) {
        let Some((up, name)) =
            facts.links.iter().find(|l| Some(l.id) == link.link).map(|l| (l.up, &l.name))
        else {
            continue;
        };
        if !up {
            findings.push(Finding::warn(
                "interface",
                format!("{name} has no carrier, so no VIP can be on it"),
                format!("ip link set {name} up; else look at its cable"),
            ));
        }
    }
    if findings.is_empty() && !desired.groups.is_empty() {
        findings.push(Finding::ok("address", "no VIP is here but those that Buoy put here"));
    }
    findings
}

fn has(group: &Group, address: IpAddr) -> bool {
    group.addresses.iter().any(|vip| vip.cidr.address() == address)
}

/// One address for each interface that carries VIPs on this host.
fn carrying(desired: &Desired) -> Vec<&VipAddress> {
    let mut seen = BTreeSet::new();
    let all = desired.groups.iter().flat_map(|group| &group.addresses);
    all.filter(|address| address.link.is_some_and(|link| seen.insert(link))).collect()
}

/// Settings of the kernel that keep a VIP from being found or its clients from being answered.
fn settings(desired: &Desired, facts: &Facts, read: Setting<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let in_use = facts.links.iter().filter(|link| {
        link.name != "lo" && link.addresses.iter().any(|a| a.cidr.address().is_ipv4())
    });
    let several = in_use.count() > 1;
    let links: Vec<&str> = carrying(desired)
        .into_iter()
        .filter(|address| address.cidr.address().is_ipv4())
        .map(|address| address.link_name.as_str())
        .collect();
    // The kernel takes the larger of the interface's own value and that of all.
    let effective = |link: &str, name: &str| {
        let of = |which: &str| {
            let value = read(&format!("net/ipv4/conf/{which}/{name}"));
            value.and_then(|value| value.parse::<u8>().ok()).unwrap_or_default()
        };
        of("all").max(of(link))
    };
    // Both of them, for the larger one counts; what is right already stays.
    let set = |link: &str, name: &str, bad: u8, good: &'static str| {
        let setting = |which: &str| format!("net/ipv4/conf/{which}/{name}");
        let is_bad = |setting: &String| read(setting).and_then(|v| v.parse().ok()) == Some(bad);
        let bad = [setting("all"), setting(link)].into_iter().filter(is_bad);
        Remedy::Settings(bad.map(|setting| (setting, good)).collect())
    };
    for link in links {
        if effective(link, "arp_ignore") == 8 {
            let found = format!("{link} is told to answer no ARP for any address of the host");
            let fix = format!("sysctl -w net/ipv4/conf/{link}/arp_ignore=1 (and that of `all`)");
            let remedy = set(link, "arp_ignore", 8, "1");
            findings.push(Finding::fail("arp_ignore", found, fix).mended_by(remedy));
        }
        if several && effective(link, "arp_filter") == 1 {
            let found =
                format!("{link} answers ARP only where it would route the answer out again");
            let fix = format!("sysctl -w net/ipv4/conf/{link}/arp_filter=0 (and that of `all`)");
            let remedy = set(link, "arp_filter", 1, "0");
            findings.push(Finding::warn("arp_filter", found, fix).mended_by(remedy));
        }
        if several && effective(link, "rp_filter") == 1 {
            let found = format!(
                "{link} drops clients of a VIP whom this host would answer through another \
                 interface (strict mode)"
            );
            let fix =
                format!("sysctl -w net/ipv4/conf/{link}/rp_filter=2, unless routes are symmetric");
            let remedy = set(link, "rp_filter", 1, "2");
            findings.push(Finding::warn("rp_filter", found, fix).mended_by(remedy));
        }
    }
    if findings.is_empty() && !desired.groups.is_empty() {
        findings
            .push(Finding::ok("settings", "arp_ignore, arp_filter and rp_filter do not hinder"));
    }
    findings
}

/// What services of mode "xdp" meet on their way to backends, and how fast it is.
fn paths(desired: &Desired, facts: &Facts, status: Option<&ClusterStatus>) -> Vec<Finding> {
    let services = desired.groups.iter().flat_map(|group| &group.services);
    if !services.clone().any(|service| matches!(service.mode, Mode::Xdp { .. })) {
        return Vec::new();
    }
    let unknown = |error: &dyn std::fmt::Display| {
        let found = format!("the kernel does not tell routes and MTUs: {error}");
        vec![Finding::warn("mtu", found, "run it on the host itself, outside of a sandbox")]
    };
    let mtus = match Requests::open().and_then(|mut requests| requests.cables()) {
        Ok(mtus) => mtus,
        Err(error) => return unknown(&error),
    };
    let mut neighbours = match Neighbours::open() {
        Ok(neighbours) => neighbours,
        Err(error) => return unknown(&error),
    };
    let interface = |link: &host::Link| {
        let mtu = mtus.iter().find(|facts| facts.link == link.id)?.mtu;
        Some((link.id, Interface { name: link.name.clone(), mtu }))
    };
    let interfaces = facts.links.iter().filter_map(interface).collect();
    let mut host = Host {
        interfaces: &interfaces,
        way: &mut |to| neighbours.resolve(to),
        driver: &|name| {
            let driver = fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
            Some(driver.file_name()?.to_string_lossy().into_owned())
        },
    };
    network::examine(desired, status, &mut host)
}

/// What services forwarded by the kernel need of the host.
fn forwarding(desired: &Desired) -> Vec<Finding> {
    let services = desired.groups.iter().flat_map(|group| &group.services);
    if !services.clone().any(|service| service.mode == Mode::Kernel) {
        return Vec::new();
    }
    let kernel = words::mode(Mode::Kernel);
    match nft::works() {
        Ok(()) => {
            let mut findings =
                vec![Finding::ok("nft", format!("nft works, for services with mode {kernel}"))];
            findings.extend(nft::pickup_problem().map(|problem| {
                let (found, fix) = problem.rsplit_once(": ").unwrap_or((&problem, ""));
                Finding::warn("nft", found, fix)
            }));
            findings
        }
        Err(error) => vec![Finding::fail(
            "nft",
            format!("services with mode {kernel} cannot be forwarded: {error}"),
            "install nftables (apt install nftables) and run this as root",
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use buoy_kernel::host::{Address, Link};
    use buoy_model::{Cidr, GroupId, LinkId, Node, NodeId};

    fn cidr(last: u8) -> Cidr {
        Cidr::new([10, 0, 0, last].into(), 24).unwrap()
    }

    fn desired() -> Desired {
        let address = VipAddress {
            cidr: cidr(100),
            link: Some(LinkId(2)),
            link_name: "eth0".into(),
            vip_name: "web".into(),
            presence: buoy_model::Presence::Assigned,
        };
        let group = Group::new(GroupId::of(cidr(100).address()), "web", vec![address]);
        Desired::new(
            "prod",
            NodeId::of("lb1"),
            vec![Node::new("lb1", ([10, 0, 0, 11], 4747).into())],
            vec![group],
        )
    }

    fn facts(vip: Option<bool>) -> Facts {
        let link = |id, name: &str, last| Link {
            id: LinkId(id),
            name: name.into(),
            up: true,
            mac: None,
            addresses: vec![Address { cidr: cidr(last), ours: false }],
        };
        let mut eth0 = link(2, "eth0", 11);
        eth0.addresses.extend(vip.map(|ours| Address { cidr: cidr(100), ours }));
        Facts { hostname: "lb1".into(), links: vec![eth0, link(3, "eth1", 21)] }
    }

    fn verdicts(findings: &[Finding]) -> Vec<(Verdict, &str)> {
        findings.iter().map(|f| (f.verdict, f.about)).collect()
    }

    #[test]
    fn a_vip_that_somebody_else_put_here_is_found() {
        let table = [
            (None, true, Verdict::Ok),
            (Some(true), true, Verdict::Ok),
            (Some(true), false, Verdict::Warn),
            (Some(false), true, Verdict::Fail),
            (Some(false), false, Verdict::Fail),
        ];
        for (vip, agent_runs, verdict) in table {
            let found = addresses(&desired(), &facts(vip), agent_runs);
            assert_eq!(verdicts(&found), [(verdict, "address")], "{vip:?} {agent_runs}");
        }
        let found = addresses(&desired(), &facts(Some(false)), true);
        assert_eq!(found[0].fix, "ip address del 10.0.0.100/24 dev eth0");
    }

    #[test]
    fn an_interface_without_carrier_is_found() {
        let mut facts = facts(None);
        facts.links[0].up = false;
        let found = addresses(&desired(), &facts, true);
        assert_eq!(verdicts(&found), [(Verdict::Warn, "interface")]);
    }

    #[test]
    fn settings_that_hide_a_vip_are_found_where_they_hide_it() {
        let table = [
            ("none", "0", Verdict::Ok, "settings"),
            ("net/ipv4/conf/eth0/arp_ignore", "1", Verdict::Ok, "settings"),
            ("net/ipv4/conf/eth0/arp_ignore", "8", Verdict::Fail, "arp_ignore"),
            ("net/ipv4/conf/all/arp_ignore", "8", Verdict::Fail, "arp_ignore"),
            ("net/ipv4/conf/eth1/arp_ignore", "8", Verdict::Ok, "settings"),
            ("net/ipv4/conf/all/rp_filter", "1", Verdict::Warn, "rp_filter"),
            ("net/ipv4/conf/eth0/arp_filter", "1", Verdict::Warn, "arp_filter"),
        ];
        for (setting, value, verdict, about) in table {
            let read = |name: &str| Some(if name == setting { value } else { "0" }.to_owned());
            let found = settings(&desired(), &facts(None), &read);
            assert_eq!(verdicts(&found), [(verdict, about)], "{setting}={value}");
        }
        let mut one = facts(None);
        one.links.truncate(1);
        let strict = |name: &str| Some(if name.ends_with("rp_filter") { "1" } else { "0" }.into());
        let found = settings(&desired(), &one, &strict);
        assert_eq!(verdicts(&found), [(Verdict::Ok, "settings")], "there is no other way out");
    }

    #[test]
    fn what_an_agent_lacks_is_named_with_what_it_costs() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("Name:\tx\n"), None);
        assert_eq!(verdicts(&lacking("it has", u64::MAX)), [(Verdict::Ok, "capabilities")]);
        let without_bpf = !(1 << 39) & !(1 << 38);
        assert_eq!(verdicts(&lacking("it has", without_bpf)), [(Verdict::Ok, "capabilities")]);
        let found = lacking("it has", without_bpf & !(1 << CAP_SYS_ADMIN));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0]
                .found
                .contains("no CAP_BPF: there is no gate, and nothing is forwarded by XDP"),
            "{found:?}"
        );
        let found = lacking("it has", 0);
        assert_eq!(found.iter().filter(|f| f.verdict == Verdict::Fail).count(), 2);
        assert_eq!(found.len(), CAPABILITIES.len());
    }
}

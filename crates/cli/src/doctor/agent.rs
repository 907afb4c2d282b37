//! What the running agent says of itself, of its peers and of the VIPs. Pure.

use super::Finding;
use crate::status::span;
use buoy_api::{ClusterStatus, NodeView};
use std::collections::BTreeMap;

/// What a defence that does not stand begins with.
const LACKS: &str = "NO ";
/// Services that are named for one engine.
const SERVICES_SHOWN: usize = 5;

/// Examines what the agent answered.
pub(super) fn examine(status: &ClusterStatus) -> Vec<Finding> {
    let mut findings = vec![runs(status)];
    findings.extend(drained(status));
    findings.extend(cordoned(status));
    findings.extend(status.defences.iter().map(|defence| line_of_defence(defence)));
    findings.extend(scheduling(&status.loop_.realtime));
    findings.extend(tempo(status));
    findings.push(configuration(status));
    findings.extend(status.nodes.iter().filter(|node| !node.me).flat_map(peer));
    findings.extend(links(status));
    findings.extend(vips(status));
    findings.extend(engines(status));
    findings.extend(answered(status));
    findings.extend(status.problems.iter().filter(|p| !is_said(status, p)).map(|problem| {
        let (found, fix) = problem.split_once(": ").unwrap_or((problem, ""));
        Finding::warn("problem", found, fix)
    }));
    findings
}

fn runs(status: &ClusterStatus) -> Finding {
    let pid = status.pid.map_or_else(String::new, |pid| format!(" as process {pid}"));
    let witness = if status.witness { ", as a witness: it votes and never owns" } else { "" };
    let found = format!("the agent of {} {} runs{pid}{witness}", status.node, status.version);
    if status.version == env!("CARGO_PKG_VERSION") {
        return Finding::ok("agent", found);
    }
    let mine = env!("CARGO_PKG_VERSION");
    Finding::warn(
        "agent",
        format!("{found}, but this program is {mine}"),
        "an upgrade is unfinished: `buoy drain --wait`, then restart the agent",
    )
}

fn drained(status: &ClusterStatus) -> Option<Finding> {
    let reason = status.draining.as_ref()?;
    let left = status
        .drain_left_ms
        .map_or_else(String::new, |left| format!(", for another {}", span(left)));
    let found = format!("{} is drained: {reason}{left}", status.node);
    Some(Finding::warn("drain", found, "`buoy undrain` when the work is done"))
}

fn cordoned(status: &ClusterStatus) -> Option<Finding> {
    let reason = status.cordoned.as_ref()?;
    let found = format!("{} is cordoned: {reason}", status.node);
    Some(Finding::warn("cordon", found, "`buoy node uncordon` when the work is done"))
}

fn line_of_defence(defence: &str) -> Finding {
    let Some(lack) = defence.strip_prefix(LACKS) else {
        return Finding::ok("defence", defence);
    };
    let fix = match lack.split([' ', ':']).next().unwrap_or_default() {
        "gate" => {
            "run the agent in the host's own user namespace with CAP_BPF, CAP_NET_ADMIN and \
             CAP_PERFMON, on Linux 5.8 or newer"
        }
        "supervisor" => "its log says why it ended (journalctl -u buoy); restart the agent",
        "systemd" | "watchdog" => {
            "run the agent from its systemd unit (systemctl start buoy), which sets WatchdogSec="
        }
        _ => "the sentence says what is missing",
    };
    Finding::warn("defence", defence, fix)
}

/// What the loop got of what it asked for; a part that it did not get says what to give.
fn scheduling(realtime: &str) -> Vec<Finding> {
    let parts = realtime.split("; ").filter(|part| !part.is_empty());
    let finding = |part: &str| {
        if part.starts_with("real-time scheduling") || part == "memory locked" {
            return Finding::ok("scheduling", part);
        }
        let (found, fix) = part.rsplit_once(": ").unwrap_or((part, ""));
        Finding::warn("scheduling", found, fix)
    };
    parts.map(finding).collect()
}

fn tempo(status: &ClusterStatus) -> Option<Finding> {
    let timing = &status.timing;
    let term = timing.term_ms?;
    if term <= timing.lease_ms {
        return Some(Finding::ok("lease", format!("asks for leases of {}", span(term))));
    }
    let reason = timing.term_reason.as_deref().unwrap_or("datagrams are lost or a host stalls");
    Some(Finding::warn(
        "lease",
        format!("asks for leases of {} instead of {}: {reason}", span(term), span(timing.lease_ms)),
        "a failover takes that much longer; `buoy events` says since when: look for load, for a \
         virtual machine without its processors, or for a bad link",
    ))
}

fn configuration(status: &ClusterStatus) -> Finding {
    let others = status.nodes.iter().filter(|node| !node.me && node.alive);
    let known = others.filter_map(|node| node.digest.as_ref().map(|d| (&node.name, d)));
    let different: Vec<&str> =
        known.filter(|(_, d)| **d != status.digest).map(|(name, _)| name.as_str()).collect();
    if different.is_empty() {
        let found = format!("{} on every node that is heard", status.digest);
        return Finding::ok("digest", found);
    }
    Finding::fail(
        "digest",
        format!("{} run another configuration than {}", different.join(", "), status.node),
        "copy the newer file to the others and run `buoy reload` there",
    )
}

fn peer(node: &NodeView) -> Vec<Finding> {
    let name = &node.name;
    if !node.alive {
        let found = match node.heard_ms {
            Some(heard) => format!("{name} has been silent for {}", span(heard)),
            None => format!("{name} was never heard since the agent started"),
        };
        let fix = format!(
            "on {name}: systemctl status buoy; between the hosts: UDP to {} must pass both ways",
            node.address
        );
        return vec![Finding::fail("peer", found, fix)];
    }
    if !node.hears_us {
        let found = format!("{name} is heard but does not answer");
        let fix = format!(
            "let UDP to {} pass, and compare the key files of the two hosts (sha256sum)",
            node.address
        );
        return vec![Finding::fail("peer", found, fix)];
    }
    let silent = node.legs.iter().filter(|leg| !leg.alive).map(|leg| {
        let since = leg.heard_ms.map_or_else(
            || "was never heard".to_owned(),
            |heard| format!("has been silent for {}", span(heard)),
        );
        Finding::warn(
            "leg",
            format!("leg {} of {name} ({}) {since}, another one is heard", leg.leg, leg.address),
            "look at the cable, the switch and the firewall of that network",
        )
    });
    let silent: Vec<Finding> = silent.collect();
    if !silent.is_empty() {
        return silent;
    }
    let legs = match node.legs.len() {
        0 | 1 => String::new(),
        n => format!(" on all {n} legs"),
    };
    let time = node.round_trip_ms.map_or_else(String::new, |ms| format!(", {}", span(ms)));
    vec![Finding::ok("peer", format!("{name} is heard and answers{legs}{time}"))]
}

fn links(status: &ClusterStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    for link in &status.links {
        if link.unheard {
            findings.push(Finding::warn(
                "link",
                format!("nobody is heard on {}, while another leg hears them", link.name),
                "look at its cable, its switch port and its VLAN; VIPs there move to other nodes",
            ));
        }
        if let Some(left) = link.damped_left_ms {
            findings.push(Finding::warn(
                "link",
                format!("{} came and went too often: damped for another {}", link.name, span(left)),
                "look at its cable and its switch port",
            ));
        }
    }
    findings
}

fn vips(status: &ClusterStatus) -> Vec<Finding> {
    let mut findings = Vec::new();
    for vip in &status.vips {
        let failing: Vec<_> = vip.checks.iter().filter(|check| check.state == "fail").collect();
        for check in failing {
            findings.push(Finding::warn(
                "check",
                format!("{} fails here for {}: {}", check.name, vip.name, check.reason),
                format!("make it so that {}", check.asks),
            ));
        }
        let why = format!("`buoy why {}` has the particulars", vip.name);
        match (&vip.problem, &vip.owner) {
            (Some(problem), None) => {
                findings.push(Finding::fail("vip", format!("{}: {problem}", vip.name), why));
            }
            (Some(problem), Some(_)) => {
                findings.push(Finding::warn("vip", format!("{}: {problem}", vip.name), why));
            }
            (None, _) => {}
        }
    }
    if findings.is_empty() && !status.vips.is_empty() {
        findings
            .push(Finding::ok("vip", format!("every one of {} has an owner", status.vips.len())));
    }
    if status.overlaps > 0 {
        findings.push(Finding::warn(
            "overlap",
            format!(
                "two nodes served one VIP at once, {} since the agent started",
                match status.overlaps {
                    1 => "once".to_owned(),
                    n => format!("{n} times"),
                }
            ),
            "that is what `safety = \"available\"` allows while the network is cut; a witness and \
             `safety = \"exclusive\"` end it",
        ));
    }
    findings
}

/// What forwards the services here, each engine with its services, and why it is not the one that was asked for.
fn engines(status: &ClusterStatus) -> Vec<Finding> {
    let mut by_engine: BTreeMap<&str, (Vec<String>, Option<&str>)> = BTreeMap::new();
    for vip in &status.vips {
        for service in vip.services.iter().filter(|service| !service.engine.is_empty()) {
            let named = format!("{} {}", vip.name, service.port);
            let (services, why) = by_engine.entry(&service.engine).or_default();
            services.push(named);
            *why = why.or(service.problem.as_deref());
        }
    }
    let finding = |(engine, (services, why)): (&str, (Vec<String>, Option<&str>))| {
        let more = services.len().saturating_sub(SERVICES_SHOWN);
        let shown = services[..services.len() - more].join(", ");
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let why = why.map_or_else(String::new, |why| format!(": {why}"));
        if engine == "none" {
            let found = format!("nothing forwards {shown}{more}{why}");
            return Finding::fail("engine", found, "`buoy status` says why, for each of them");
        }
        let found = format!("{engine} forwards {shown}{more}");
        if engine.contains("in place of") {
            let fix =
                "`buoy status` says what XDP lacks here; nftables is slower and does the same";
            return Finding::warn("engine", format!("{found}{why}"), fix);
        }
        // Where the program is behind the driver, `xdp mode` says so.
        Finding::ok("engine", found)
    };
    by_engine.into_iter().map(finding).collect()
}

/// Which addresses are on no interface here, so that nobody looks for them there.
fn answered(status: &ClusterStatus) -> Option<Finding> {
    let addresses = status.vips.iter().flat_map(|vip| &vip.addresses);
    let answered = addresses.filter(|address| address.answered && address.interface.is_some());
    let named: Vec<&str> = answered.map(|address| address.address.as_str()).collect();
    let more = named.len().saturating_sub(SERVICES_SHOWN);
    let shown = named[..named.len() - more].join(", ");
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let found = format!("{shown}{more} on no interface: XDP answers for it under the lease");
    (!named.is_empty()).then(|| Finding::ok("address", found))
}

/// Whether a problem of the status has a finding of its own already.
fn is_said(status: &ClusterStatus, problem: &str) -> bool {
    let said = ["runs another configuration", "is heard but does not answer"];
    let of_a_node = status.nodes.iter().any(|node| {
        let rest = problem.strip_prefix(node.name.as_str()).map(str::trim_start);
        rest.is_some_and(|rest| said.iter().any(|said| rest.starts_with(said)))
    });
    let of_a_leg = problem.starts_with("leg ") && problem.contains("is silent while another");
    let of_a_link = status.links.iter().any(|link| {
        problem.starts_with(&format!("{} came and went", link.name))
            || problem.starts_with(&format!("nobody is heard on {}", link.name))
    });
    of_a_node || of_a_leg || of_a_link
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use buoy_api::{
        CheckView, LegView, LinkView, LoopView, ServiceView, TimingView, VipAddressView, VipView,
    };

    fn healthy() -> ClusterStatus {
        let leg = |n, alive| LegView {
            leg: n,
            address: format!("10.{n}.0.12:4747"),
            heard_ms: Some(3.0),
            alive,
        };
        let node = |name: &str, me| NodeView {
            name: name.into(),
            address: "10.1.0.12:4747".into(),
            me,
            alive: true,
            hears_us: true,
            round_trip_ms: Some(0.2),
            digest: Some("00007f3c".into()),
            legs: vec![leg(1, true), leg(2, true)],
            ..NodeView::default()
        };
        ClusterStatus {
            node: "lb1".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: Some(7),
            digest: "00007f3c".into(),
            defences: vec!["gate: ARP and NDP stop at the end of the lease".into()],
            loop_: LoopView {
                realtime: "real-time scheduling (SCHED_FIFO); memory locked".into(),
                ..LoopView::default()
            },
            timing: TimingView { lease_ms: 36.0, term_ms: Some(36.0), ..TimingView::default() },
            nodes: vec![node("lb1", true), node("lb2", false)],
            vips: vec![VipView {
                name: "web".into(),
                owner: Some("lb1".into()),
                ..VipView::default()
            }],
            ..ClusterStatus::default()
        }
    }

    fn lines(status: &ClusterStatus) -> Vec<String> {
        examine(status)
            .iter()
            .map(|f| format!("{:?} {}: {}", f.verdict, f.about, f.found))
            .collect()
    }

    #[test]
    fn a_healthy_agent_has_only_good_lines() {
        let findings = examine(&healthy());
        assert!(findings.iter().all(|f| f.verdict == Verdict::Ok), "{findings:#?}");
        let lines = lines(&healthy());
        let expected = [
            format!("Ok agent: the agent of lb1 {} runs as process 7", env!("CARGO_PKG_VERSION")),
            "Ok defence: gate: ARP and NDP stop at the end of the lease".into(),
            "Ok scheduling: real-time scheduling (SCHED_FIFO)".into(),
            "Ok scheduling: memory locked".into(),
            "Ok lease: asks for leases of 36 ms".into(),
            "Ok digest: 00007f3c on every node that is heard".into(),
            "Ok peer: lb2 is heard and answers on all 2 legs, 0.2 ms".into(),
            "Ok vip: every one of 1 has an owner".into(),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn each_engine_is_named_with_its_services() {
        let with = |engines: &[&str]| {
            let mut status = healthy();
            let service = |engine: &&str| ServiceView {
                port: "80/tcp".into(),
                engine: (*engine).to_owned(),
                ..ServiceView::default()
            };
            status.vips[0].services = engines.iter().map(service).collect();
            lines(&status).into_iter().filter(|line| line.contains(" engine: ")).collect::<Vec<_>>()
        };
        let table = [
            ("nftables", "Ok engine: nftables forwards web 80/tcp"),
            ("XDP (eth0: driver)", "Ok engine: XDP (eth0: driver) forwards web 80/tcp"),
            ("XDP (eth0: generic)", "Ok engine: XDP (eth0: generic) forwards web 80/tcp"),
            (
                "nftables in place of XDP",
                "Warn engine: nftables in place of XDP forwards web 80/tcp",
            ),
            ("none", "Fail engine: nothing forwards web 80/tcp"),
        ];
        for (engine, line) in table {
            assert_eq!(with(&[engine]), [line]);
        }
        assert!(with(&["proxy"; 7])[0].ends_with("web 80/tcp and 2 more"));
        let mut status = healthy();
        status.vips[0].services = vec![ServiceView {
            port: "80/tcp".into(),
            engine: "none".into(),
            problem: Some("this process may not load BPF programs".into()),
            ..ServiceView::default()
        }];
        let said = lines(&status).into_iter().find(|line| line.contains(" engine: ")).unwrap();
        assert!(said.ends_with("web 80/tcp: this process may not load BPF programs"), "{said}");
        assert_eq!(with(&["proxy", "nftables", ""]).len(), 2);
    }

    #[test]
    fn addresses_that_are_on_no_interface_are_named() {
        let mut status = healthy();
        let address = |last: u8, interface: Option<&str>, answered| VipAddressView {
            address: format!("10.0.0.{last}/24"),
            interface: interface.map(str::to_owned),
            answered,
            ..VipAddressView::default()
        };
        let here = Some("eth0");
        status.vips[0].addresses =
            vec![address(1, here, false), address(2, here, true), address(3, None, true)];
        let said = lines(&status);
        let found = "Ok address: 10.0.0.2/24 on no interface: XDP answers for it under the lease";
        assert!(said.contains(&found.to_owned()), "{said:?}");
    }

    /// A change that makes the agent ill, and the finding that it is to give.
    type Ill = (fn(&mut ClusterStatus), &'static str);

    #[test]
    fn every_illness_has_its_line_and_its_remedy() {
        let table: [Ill; 16] = [
            (|s| s.version = "0.0.1".into(), "Warn agent: the agent of lb1 0.0.1 runs"),
            (|s| s.draining = Some("work (by ann)".into()), "Warn drain: lb1 is drained: work"),
            (|s| s.cordoned = Some("disk (by ann)".into()), "Warn cordon: lb1 is cordoned: disk"),
            (|s| s.defences = vec!["NO gate (no BPF)".into()], "Warn defence: NO gate (no BPF)"),
            (|s| s.defences = vec!["NO supervisor".into()], "Warn defence: NO supervisor"),
            (
                |s| s.loop_.realtime = "memory is not locked: give CAP_IPC_LOCK".into(),
                "Warn scheduling: memory is not locked",
            ),
            (|s| s.timing.term_ms = Some(120.0), "Warn lease: asks for leases of 120 ms"),
            (
                |s| s.nodes[1].digest = Some("dead".into()),
                "Fail digest: lb2 run another configuration than lb1",
            ),
            (
                |s| {
                    s.nodes[1].alive = false;
                    s.nodes[1].heard_ms = Some(4_000.0);
                },
                "Fail peer: lb2 has been silent for 4.0 s",
            ),
            (|s| s.nodes[1].alive = false, "Fail peer: lb2 was never heard"),
            (|s| s.nodes[1].hears_us = false, "Fail peer: lb2 is heard but does not answer"),
            (
                |s| s.nodes[1].legs[1].alive = false,
                "Warn leg: leg 2 of lb2 (10.2.0.12:4747) has been silent for 3.0 ms",
            ),
            (
                |s| {
                    s.links =
                        vec![LinkView { name: "eth0".into(), unheard: true, damped_left_ms: None }];
                },
                "Warn link: nobody is heard on eth0",
            ),
            (
                |s| {
                    s.vips[0].owner = None;
                    s.vips[0].problem = Some("no owner: lb1 drained".into());
                },
                "Fail vip: web: no owner: lb1 drained",
            ),
            (
                |s| {
                    s.vips[0].checks = vec![CheckView {
                        name: "postgres".into(),
                        asks: "process postgres runs".into(),
                        state: "fail".into(),
                        reason: "no such process".into(),
                    }];
                },
                "Warn check: postgres fails here for web: no such process",
            ),
            (|s| s.overlaps = 2, "Warn overlap: two nodes served one VIP at once, 2 times since"),
        ];
        for (ill, expected) in table {
            let mut status = healthy();
            ill(&mut status);
            let lines = lines(&status);
            assert!(lines.iter().any(|l| l.starts_with(expected)), "{expected}:\n{lines:#?}");
            let bad = examine(&status).into_iter().filter(|f| f.verdict != Verdict::Ok);
            let bad: Vec<_> = bad.collect();
            assert!(!bad.is_empty() && bad.iter().all(|f| !f.fix.is_empty()), "{bad:#?}");
        }
    }

    #[test]
    fn a_problem_is_not_told_twice() {
        let mut status = healthy();
        status.nodes[1].hears_us = false;
        let eth0 = LinkView { name: "eth0".into(), unheard: true, damped_left_ms: None };
        status.links = vec![eth0];
        status.problems = vec![
            "lb2 is heard but does not answer: is UDP towards lb2 filtered?".into(),
            "the file buoy.toml was refused: error".into(),
            "leg 2 of lb2 (10.2.0.12:4747) is silent while another is heard: look there".into(),
            "nobody is heard on eth0, while another leg hears them: so".into(),
        ];
        let problems: Vec<_> =
            lines(&status).into_iter().filter(|l| l.starts_with("Warn problem")).collect();
        assert_eq!(problems, ["Warn problem: the file buoy.toml was refused"]);
    }
}

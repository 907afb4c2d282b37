//! Decides what has to be changed on a host so that it is a real server for these VIPs and for no others.
//!
//! All is decided from what was recorded and what is seen; nothing is done here. Order matters: an address
//! comes last and goes first, so there is no moment at which this host would answer ARP for it.

use super::decap::{Decap, OnInterface};
use super::seen::Seen;
use super::state::{Changed, Prepared, State, Vips};
use super::tunnel::Tunnel;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

/// Everything on the host that is not said.
pub(super) const LOOPBACK: &str = "lo";

/// One change, which can be turned round.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// A setting of the kernel.
    Set {
        /// Its path below `/proc/sys`.
        setting: String,
        /// Its value.
        from: String,
        /// Its value afterwards.
        to: String,
    },
    /// A VIP on the loopback interface.
    Address {
        /// Which.
        address: IpAddr,
        /// With how long a prefix.
        prefix: u8,
        /// Put there, or taken away.
        add: bool,
    },
    /// Which packets are taken out of which, on this interface.
    Decapsulate {
        /// Which.
        interface: String,
        /// So it is; `None`: there is no program.
        from: Option<Decap>,
        /// So it is afterwards.
        to: Option<Decap>,
    },
}

impl Step {
    /// What undoes it.
    pub(super) fn turned(&self) -> Self {
        match self.clone() {
            Self::Set { setting, from, to } => Self::Set { setting, from: to, to: from },
            Self::Address { address, prefix, add } => Self::Address { address, prefix, add: !add },
            Self::Decapsulate { interface, from, to } => {
                Self::Decapsulate { interface, from: to, to: from }
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set { setting, from, to } => write!(f, "set {setting} to {to}, from {from}"),
            Self::Address { address, prefix, add: true } => {
                write!(f, "put {address}/{prefix} on {LOOPBACK}")
            }
            Self::Address { address, prefix, add: false } => {
                write!(f, "take {address}/{prefix} off {LOOPBACK}")
            }
            Self::Decapsulate { interface, to: None, .. } => {
                write!(f, "take the XDP program that decapsulates off {interface}")
            }
            Self::Decapsulate { interface, from, to: Some(to) } => {
                let vips = listed(to.vips.iter().map(|(vip, tunnel)| said(*vip, *tunnel)));
                match from {
                    None => write!(f, "put an XDP program on {interface} that decapsulates")?,
                    Some(_) => write!(f, "let the XDP program on {interface} decapsulate")?,
                }
                write!(f, " packets for {vips} sent to {}", listed(&to.own))
            }
        }
    }
}

/// A VIP, and what its packets come in where that is not just IP.
pub(super) fn said(vip: IpAddr, tunnel: Tunnel) -> String {
    if tunnel == Tunnel::IPIP { vip.to_string() } else { format!("{vip} ({tunnel})") }
}

/// As in `a, b and c`.
pub(super) fn listed<T: fmt::Display>(of: impl IntoIterator<Item = T>) -> String {
    let mut words: Vec<String> = of.into_iter().map(|one| one.to_string()).collect();
    match (words.pop(), words.is_empty()) {
        (None, _) => "none".to_owned(),
        (Some(last), true) => last,
        (Some(last), false) => format!("{} and {last}", words.join(", ")),
    }
}

/// Something that is in the way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Obstacle {
    /// What.
    pub found: String,
    /// What to do about it.
    pub fix: String,
}

/// What is to be done.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    /// What is to be remembered when it is done.
    pub(super) state: State,
    /// What is left alone, and why.
    pub(super) notes: Vec<String>,
}

/// What a value of a setting must be for packets to come through and for nobody to hear of the VIP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rule {
    /// `arp_ignore`: no answer for an address of another interface. 1 and 2 and 8 give none; higher values
    /// are taken before lower ones, and 3 answers.
    Silent,
    /// `arp_announce`: no question in the name of an address of another interface.
    Modest,
    /// `rp_filter` of an interface: not strict, whatever that of `all` is, as the larger one counts.
    Loose,
}

impl Rule {
    /// What to set it to, unless this value will do; `all` is that of `all`.
    pub(super) fn value_for(self, present: &str, all: &str) -> Option<&'static str> {
        match self {
            Self::Silent => (!["1", "2", "8"].contains(&present)).then_some("1"),
            Self::Modest => (present != "2").then_some("2"),
            Self::Loose => (effective(present, all) == 1).then_some("2"),
        }
    }
}

/// The kernel takes the larger of an interface's own value and that of `all`.
pub(super) fn effective(own: &str, all: &str) -> u8 {
    let number = |text: &str| text.parse().unwrap_or(0);
    number(own).max(number(all))
}

/// The settings that these VIPs need. IPv6 needs none: a host answers neighbour solicitations for addresses of the
/// interface that was asked only, and never looks at where packets come from.
fn settings(vips: &Vips) -> BTreeMap<String, Rule> {
    let mut settings = BTreeMap::new();
    for (_, vip) in vips.iter().filter(|(address, _)| address.is_ipv4()) {
        for which in ["all", &vip.interface] {
            let path = |name| format!("net/ipv4/conf/{which}/{name}");
            settings.insert(path("arp_ignore"), Rule::Silent);
            settings.insert(path("arp_announce"), Rule::Modest);
        }
        settings.insert(format!("net/ipv4/conf/{}/rp_filter", vip.interface), Rule::Loose);
    }
    settings
}

/// How a host for these VIPs, and no others, comes from what it is.
pub(super) fn plan(state: &State, target: Vips, seen: &Seen<'_>) -> Plan {
    let mut plan = Plan { state: State { vips: target, ..State::default() }, ..Plan::default() };
    for (address, vip) in &state.vips {
        if !plan.state.vips.contains_key(address) && !vip.found && seen.on_loopback(*address) {
            plan.steps.push(step(*address, false));
        }
    }
    restore(state, seen, &mut plan);
    change(state, seen, &mut plan);
    decapsulate(state, seen, &mut plan);
    for (address, vip) in &mut plan.state.vips {
        let there = seen.on_loopback(*address);
        vip.found = match state.vips.get(address) {
            Some(before) => before.found && there,
            None => there && !seen.is_prepared(*address),
        };
        if !there {
            plan.steps.push(step(*address, true));
        }
    }
    plan
}

/// The same for none at all, and whatever else carries our mark: a record may have been lost.
pub(super) fn sweep(state: &State, seen: &Seen<'_>) -> Plan {
    let mut plan = plan(state, Vips::new(), seen);
    let marked = seen.prepared().into_iter().filter(|address| !state.vips.contains_key(address));
    let mut steps: Vec<Step> = marked.map(|address| step(address, false)).collect();
    for (interface, on) in &seen.programs {
        let OnInterface::Ours(decap, _) = on else { continue };
        let step = take_off(interface, decap.clone());
        if !plan.steps.contains(&step) {
            steps.push(step);
        }
    }
    steps.append(&mut plan.steps);
    Plan { steps, ..plan }
}

fn step(address: IpAddr, add: bool) -> Step {
    Step::Address { address, prefix: if address.is_ipv4() { 32 } else { 128 }, add }
}

fn take_off(interface: &str, decap: Decap) -> Step {
    Step::Decapsulate { interface: interface.to_owned(), from: Some(decap), to: None }
}

/// Settings that nothing needs any more are what they were, unless somebody else has set them since.
fn restore(state: &State, seen: &Seen<'_>, plan: &mut Plan) {
    let wanted = settings(&plan.state.vips);
    for (setting, Changed { before, set }) in &state.settings {
        if wanted.contains_key(setting) {
            continue;
        }
        match seen.setting(setting) {
            // The interface is gone, and its settings with it.
            None => {}
            Some(now) if now == *before => {}
            Some(now) if now == *set => {
                let (setting, to) = (setting.clone(), before.clone());
                plan.steps.push(Step::Set { setting, from: now, to });
            }
            Some(now) => plan.notes.push(format!(
                "{setting} is {now} by now, though it was set to {set} here: somebody else has \
                 changed it, and it is left so (it was {before} before)"
            )),
        }
    }
}

fn change(state: &State, seen: &Seen<'_>, plan: &mut Plan) {
    for (setting, rule) in settings(&plan.state.vips) {
        let known = state.settings.get(&setting).cloned();
        let Some(now) = seen.setting(&setting) else { continue };
        let all = match setting.rsplit_once('/') {
            Some((_, name)) => seen.setting(&format!("net/ipv4/conf/all/{name}")),
            None => None,
        };
        let Some(to) = rule.value_for(&now, all.as_deref().unwrap_or("0")) else {
            plan.state.settings.extend(known.map(|known| (setting, known)));
            continue;
        };
        let before = known.map_or_else(|| now.clone(), |known| known.before);
        let changed = Changed { before, set: to.to_owned() };
        plan.state.settings.insert(setting.clone(), changed);
        plan.steps.push(Step::Set { setting, from: now, to: to.to_owned() });
    }
}

fn decapsulate(state: &State, seen: &Seen<'_>, plan: &mut Plan) {
    let mut wanted: BTreeMap<String, Decap> = BTreeMap::new();
    for (address, vip) in plan.state.vips.iter().filter(|(_, vip)| vip.tunnel.is_any()) {
        let decap = wanted.entry(vip.interface.clone()).or_default();
        decap.vips.insert(*address, vip.tunnel);
    }
    let own = seen.own(&plan.state.vips);
    let before =
        state.vips.values().filter(|vip| vip.tunnel.is_any()).map(|vip| vip.interface.clone());
    let interfaces: BTreeSet<String> = before.chain(wanted.keys().cloned()).collect();
    for interface in interfaces {
        let from = match seen.programs.get(&interface) {
            Some(OnInterface::Ours(decap, _)) => Some(decap.clone()),
            Some(OnInterface::Another(_)) | None => None,
        };
        let to = wanted.remove(&interface).map(|decap| Decap { own: own.clone(), ..decap });
        if from != to {
            plan.steps.push(Step::Decapsulate { interface, from, to });
        }
    }
}

/// What is in the way of preparing this host for these.
pub(super) fn obstacles<'v>(
    vips: impl IntoIterator<Item = (&'v IpAddr, &'v Prepared)>,
    seen: &Seen<'_>,
) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    for (address, vip) in vips {
        let mut obstacle = |found: String, fix: String| obstacles.push(Obstacle { found, fix });
        if is_unusable(*address) {
            obstacle(format!("{address} cannot be a VIP"), "give the VIP's own address".to_owned());
            continue;
        }
        if !seen.has_interface(&vip.interface) || vip.interface == LOOPBACK {
            obstacle(
                format!("packets cannot come by {}", vip.interface),
                format!("name one of {} with --interface", listed(seen.interfaces())),
            );
            continue;
        }
        for (interface, cidr) in seen.elsewhere(*address) {
            obstacle(
                format!("{address} is on {interface}, so this host answers for it on the segment"),
                format!("ip address del {cidr} dev {interface}"),
            );
        }
        for cidr in seen.too_wide(*address) {
            obstacle(
                format!("{LOOPBACK} has {cidr}, which makes the whole subnet local to this host"),
                format!("ip address del {cidr} dev {LOOPBACK}"),
            );
        }
        obstacles.extend(no_ipv6(*address, &vip.interface, seen));
        obstacles.extend(no_tunnel(vip, seen));
    }
    obstacles
}

/// Why packets cannot be taken out on this interface.
fn no_tunnel(vip: &Prepared, seen: &Seen<'_>) -> Option<Obstacle> {
    let name = &vip.interface;
    if !vip.tunnel.is_any() {
        return None;
    }
    if seen.bare.contains(name) {
        return Some(Obstacle {
            found: format!("{name} has no Ethernet headers, which the program needs"),
            fix: "name the interface by which tunnelled packets come with --interface".to_owned(),
        });
    }
    match seen.programs.get(name)? {
        OnInterface::Ours(..) => None,
        OnInterface::Another(program) => Some(Obstacle {
            found: format!("{name} has another XDP program, {program}, and there is room for one"),
            fix: format!("ip link set dev {name} xdp off, if nobody needs it"),
        }),
    }
}

fn is_unusable(address: IpAddr) -> bool {
    let of_its_family = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    of_its_family || address.is_multicast() || address.is_unspecified() || address.is_loopback()
}

fn no_ipv6(address: IpAddr, interface: &str, seen: &Seen<'_>) -> Vec<Obstacle> {
    let disabled = |which: &&str| {
        let setting = seen.setting(&format!("net/ipv6/conf/{which}/disable_ipv6"));
        address.is_ipv6() && setting.is_none_or(|value| value == "1")
    };
    let obstacle = |which: &str| Obstacle {
        found: format!("IPv6 is switched off on {which}"),
        fix: format!("sysctl -w net/ipv6/conf/{which}/disable_ipv6=0"),
    };
    [LOOPBACK, interface].into_iter().filter(disabled).map(obstacle).collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

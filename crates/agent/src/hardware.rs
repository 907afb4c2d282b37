//! Everything of the kernel that the loop holds open: opened before anything changes, so that what
//! is missing is said at the start, with what to do about it.

use crate::advert::{self, Stamps};
use crate::pulse::Pulse;
use buoy_core::Fence;
use buoy_kernel::apply::Apply;
use buoy_kernel::gate::{Answered, Answerer, Gate, GateError};
use buoy_kernel::host::{self, Facts};
use buoy_kernel::netlink::{Monitor, NetlinkError, News, Requests};
use buoy_kernel::packet::{Announcer, Heard, Listener, PacketError};
use buoy_kernel::poll::{FDS_MAX, Poller, Ready};
use buoy_kernel::sysctl;
use buoy_kernel::udp::{BindError, Transport};
use buoy_kernel::virtual_mac::{Unmade, VirtualMacs};
use buoy_kernel::vrrp::{Packet, Routers};
use buoy_kernel::wake::Wakeups;
use buoy_model::limits::LEGS_MAX;
use buoy_model::{Action, Desired, Event, Group, Instant, LinkId, Presence};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

const TRANSPORT: usize = 0;
const MONITOR: usize = TRANSPORT + LEGS_MAX;
const WAKEUPS: usize = MONITOR + 1;
/// One for each family.
const ROUTERS: usize = WAKEUPS + 1;
const LISTENERS: usize = ROUTERS + 2;

/// Why the agent cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The port of the lease protocol is not to be had.
    Bind(BindError),
    /// The kernel does not answer about interfaces and addresses.
    Netlink(NetlinkError),
    /// Frames can be neither sent nor heard.
    Packet(PacketError),
    /// No way to wake the loop.
    Wake(io::Error),
    /// No thread for the loop.
    Thread(io::Error),
    /// The kernel gives no random numbers.
    Random,
    /// The loop's thread ended as soon as it began.
    LoopEnded,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(cause) => cause.fmt(f),
            Self::Netlink(cause) => cause.fmt(f),
            Self::Packet(cause) => cause.fmt(f),
            Self::Wake(cause) => write!(f, "no eventfd to wake the loop with: {cause}"),
            Self::Thread(cause) => write!(f, "no thread for the loop: {cause}"),
            Self::Random => f.write_str("the kernel gives no random numbers (getrandom)"),
            Self::LoopEnded => f.write_str("the loop ended as soon as it began; see the log above"),
        }
    }
}

impl std::error::Error for StartError {}

/// What the loop holds open.
pub(crate) struct Hardware {
    pub(crate) desired: Arc<Desired>,
    pub(crate) transport: Transport,
    pub(crate) apply: Apply,
    pub(crate) fence: Fence,
    pub(crate) defences: Vec<String>,
    leases: Option<OwnedFd>,
    answerer: Result<Answerer, String>,
    monitor: Monitor,
    listeners: Vec<Listener>,
    /// What speaks VRRP.
    pub(crate) routers: Routers,
    /// Interfaces where the gate should stand and does not: as good as down.
    unfenced: Vec<LinkId>,
    poller: Poller,
    ready: Ready,
}

/// How many a node may have to put on its interfaces at once.
fn addresses(desired: &Desired) -> usize {
    desired.groups.iter().map(|group| group.addresses.len()).sum()
}

impl Hardware {
    pub(crate) fn open(desired: &Arc<Desired>) -> Result<Self, StartError> {
        let legs = desired.node(desired.me).map_or(&[][..], |me| &me.addresses[..]);
        let transport = Transport::open(legs).map_err(StartError::Bind)?;
        for &leg in transport.absent() {
            let address = legs[usize::from(leg.0)].ip();
            tracing::warn!(%address, "this host does not have this address of its own yet: nothing is heard there until it has");
        }
        let mut requests = Requests::open().map_err(StartError::Netlink)?;
        let mut macs = VirtualMacs::default();
        let desired = &without(desired, &macs.make(&mut requests, desired), &mut |problem| {
            tracing::error!("{problem}");
        });
        let monitor = Monitor::open().map_err(StartError::Netlink)?;
        let announcer = Announcer::open().map_err(StartError::Packet)?;
        let made = macs.all().map(|(link, _)| link);
        let mut gate = Gate::open(&links(desired).into_iter().chain(made).collect::<Vec<_>>());
        if let Ok(gate) = &mut gate {
            fence_everywhere(gate, desired);
        }
        let (fence, defences) = defences(&gate);
        let answerer = match &mut gate {
            Ok(gate) => gate.answerer().map_err(|error| error.to_string()),
            Err(error) => Err(format!("there is no gate: {error}")),
        };
        let leases = gate.as_ref().ok().and_then(|g| g.leases_fd().try_clone_to_owned().ok());
        let mut apply = Apply::new(requests, announcer, gate.ok()).with(macs);
        apply.make_room(addresses(desired));
        let adopted = apply.adopt(desired).map_err(StartError::Netlink)?;
        for address in adopted.kept {
            tracing::info!(address = %address.cidr, "kept, and silent: an earlier run left it here");
        }
        for address in adopted.removed {
            tracing::info!(address = %address.cidr, "removed: an earlier run left it here");
        }
        for problem in adopted.problems {
            tracing::warn!("an earlier run left it here: {problem}");
        }
        for problem in apply.forget_virtual_macs() {
            tracing::warn!("{problem}");
        }
        let mut hardware = Self {
            desired: Arc::clone(desired),
            transport,
            apply,
            fence,
            defences,
            leases,
            answerer,
            monitor,
            listeners: Vec::new(),
            routers: Routers::default(),
            unfenced: Vec::new(),
            poller: Poller::new(),
            ready: Ready::default(),
        };
        for (leg, fd) in hardware.transport.fds().enumerate() {
            hardware.poller.watch(TRANSPORT + leg, &fd);
        }
        hardware.poller.watch(MONITOR, &hardware.monitor);
        for problem in hardware.listen(desired) {
            tracing::warn!("{problem}");
        }
        Ok(hardware)
    }

    /// Puts the new configuration's interfaces in place; what did not work, as sentences.
    pub(crate) fn reload(&mut self, desired: Arc<Desired>) -> Vec<String> {
        let mut problems = Vec::new();
        let unmade = self.apply.make_virtual_macs(&desired);
        let desired = without(&desired, &unmade, &mut |problem| problems.push(problem));
        problems.extend(self.listen(&desired));
        self.apply.make_room(addresses(&desired));
        self.unfenced.clear();
        if let Some(gate) = self.apply.gate() {
            for link in links(&desired) {
                if let Err(error) = gate.attach(link) {
                    problems.push(format!("no VIP is taken there: {error}"));
                    self.unfenced.push(link);
                }
            }
        }
        self.desired = desired;
        problems
    }

    /// Takes what a reload removed out of the gate, so that it is nobody's business here any more.
    pub(crate) fn forget_what_left(&mut self, before: &Desired) {
        let desired = Arc::clone(&self.desired);
        let places = |d: &Desired| -> Vec<_> {
            let addresses = d.groups.iter().flat_map(|g| &g.addresses);
            addresses.filter_map(|a| a.link.map(|l| (l, a.cidr.address()))).collect()
        };
        let stay = places(&desired);
        for (link, address) in places(before).into_iter().filter(|p| !stay.contains(p)) {
            if let Err(error) = self.apply.forget(link, address) {
                tracing::warn!(%address, "{error}");
            }
        }
        for problem in self.apply.forget_virtual_macs() {
            tracing::warn!("{problem}");
        }
    }

    /// Listens on the interfaces that carry VIPs, and no others.
    fn listen(&mut self, desired: &Desired) -> Vec<String> {
        let wanted = links(desired);
        let facts = host::facts().unwrap_or_default();
        let mut problems = Vec::new();
        (ROUTERS..FDS_MAX).for_each(|token| self.poller.forget(token));
        problems.extend(self.routers.listen(routers(desired)));
        for (place, fd) in self.routers.fds() {
            self.poller.watch(ROUTERS + place, &fd);
        }
        self.listeners.retain(|l| wanted.contains(&l.link()));
        for link in wanted {
            let known = self.listeners.iter().any(|l| l.link() == link);
            let Some((mac, name)) = facts.link(link).and_then(|l| Some((l.mac?, &l.name))) else {
                problems.push(no_ethernet(&facts, link));
                continue;
            };
            self.apply.announcer().set_link(link, mac, routes_ipv6(name));
            if known {
                continue;
            }
            match Listener::open(link, mac) {
                Ok(listener) => self.listeners.push(listener),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let Some(gate) = self.apply.gate()
            && let Err(error) = gate.answer_for(&answered(desired, &facts))
        {
            problems.push(error.to_string());
        }
        for (i, listener) in self.listeners.iter().enumerate() {
            let [arp, ndp] = listener.fds();
            let room = self.poller.watch(LISTENERS + 2 * i, &arp)
                && self.poller.watch(LISTENERS + 2 * i + 1, &ndp);
            if !room {
                problems.push(format!(
                    "foreign claims are noticed on the first {} interfaces only",
                    (FDS_MAX - LISTENERS) / 2
                ));
                break;
            }
        }
        problems
    }

    pub(crate) fn watch_wakeups(&mut self, wakeups: &Wakeups) {
        self.poller.watch(WAKEUPS, wakeups);
    }

    /// Tells how all interfaces are.
    pub(crate) fn look(&mut self, tell: &mut dyn FnMut(Event<'static>)) {
        let Self { apply, unfenced, .. } = self;
        apply.observe_all(&mut |event| tell(as_fenced(unfenced, event)));
    }

    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        self.ready = self.poller.wait(deadline)?;
        Ok(())
    }

    /// Whether somebody called the loop: else there is no call to forget.
    pub(crate) const fn is_called(&self) -> bool {
        self.ready.contains(WAKEUPS)
    }

    pub(crate) fn read_news(&mut self, pulse: &Pulse, tell: &mut dyn FnMut(Event<'static>)) {
        if !self.ready.contains(MONITOR) {
            return;
        }
        let Self { monitor, apply, unfenced, .. } = self;
        let tell = &mut |event| tell(as_fenced(unfenced, event));
        let mut look = |news| match news {
            // News were lost, so all is looked at: it may take the kernel a while to say it all.
            News::Overrun => pulse.slowly(|| apply.observe(news, tell)),
            News::Link { .. } | News::AddressGone { .. } => apply.observe(news, tell),
        };
        if monitor.read(&mut look).is_err() {
            pulse.slowly(|| apply.observe_all(tell));
        }
    }

    /// For a supervisor, which closes the gate when this process cannot.
    pub(crate) fn leases(&self) -> Option<OwnedFd> {
        self.leases.as_ref().and_then(|leases| leases.try_clone().ok())
    }

    /// What answers for addresses that are on no interface, for the fast path; why there is nothing.
    pub(crate) fn answerer(&self) -> Result<Answerer, String> {
        let answerer = self.answerer.as_ref().map_err(Clone::clone)?;
        answerer.try_clone().map_err(|error| error.to_string())
    }

    /// When the first packet for an address came in since its gate was opened.
    pub(crate) fn first_packet(&self, link: LinkId, address: IpAddr) -> Option<Instant> {
        self.apply.first_packet(link, address)
    }

    /// Sends an advertisement; how many packets of it were sent, and how many could not be.
    pub(crate) fn advertise(&mut self, action: &Action, stamps: &mut Stamps) -> (u64, u64) {
        let Action::Advertise { router, .. } = action else { return (0, 0) };
        let Some(link) = self.apply.speaks_from(router) else { return (0, 1) };
        advert::send(action, link, &mut self.routers, stamps)
    }

    pub(crate) fn read_packets(&mut self, tell: &mut dyn FnMut(Heard)) {
        for (i, listener) in self.listeners.iter_mut().enumerate() {
            let [arp, ndp] = [LISTENERS + 2 * i, LISTENERS + 2 * i + 1];
            if self.ready.contains(arp) || self.ready.contains(ndp) {
                // An interface that went away is said by the monitor.
                let _ = listener.read(tell);
            }
        }
    }

    pub(crate) fn read_routers(&mut self, tell: &mut dyn FnMut(&Desired, Packet<'_>)) {
        if self.ready.contains(ROUTERS) || self.ready.contains(ROUTERS + 1) {
            let Self { routers, desired, .. } = self;
            routers.receive(&mut |packet| tell(desired, packet));
        }
    }

    /// Takes the gate away: to be called when nothing is served any more.
    pub(crate) fn close(self) -> Result<(), GateError> {
        self.apply.close()
    }
}

/// Without the VIPs whose virtual router has no hardware address here, though it should: whoever said that it is the
/// active one would have nothing to be reached at.
fn without(
    desired: &Arc<Desired>,
    unmade: &[Unmade],
    tell: &mut dyn FnMut(String),
) -> Arc<Desired> {
    if unmade.is_empty() {
        return Arc::clone(desired);
    }
    let mut rest = Desired::clone(desired);
    let is_unmade = |group: &&mut Group| {
        unmade.iter().any(|unmade| group.vrrp.iter().any(|r| Arc::ptr_eq(r, &unmade.router)))
    };
    for group in rest.groups.iter_mut().filter(is_unmade) {
        group.nodes.retain(|node| *node != desired.me);
        group.addresses.iter_mut().for_each(|address| address.link = None);
        for router in &mut group.vrrp {
            Arc::make_mut(router).link = None;
        }
        tell(format!("{} is never taken here", group.name));
    }
    unmade.iter().for_each(|unmade| tell(unmade.why.clone()));
    Arc::new(rest)
}

/// An interface without the gate that the others have cannot keep the promise, so it counts as down.
fn as_fenced(unfenced: &[LinkId], event: Event<'static>) -> Event<'static> {
    match event {
        Event::Link { link, up } => Event::Link { link, up: up && !unfenced.contains(&link) },
        Event::Tick
        | Event::Heard { .. }
        | Event::AddressLost { .. }
        | Event::ForeignClaim { .. }
        | Event::Advert(_)
        | Event::Weight { .. }
        | Event::Fitness { .. }
        | Event::Reload(_)
        | Event::Order(_)
        | Event::Stop => event,
    }
}

/// Puts the gate on the host's other Ethernet interfaces too: Linux answers ARP for any of its
/// IPv4 addresses on every interface that shares the segment.
fn fence_everywhere(gate: &mut Gate, desired: &Desired) {
    let carrying = links(desired);
    let others = host::facts()
        .unwrap_or_default()
        .links
        .into_iter()
        .filter(|l| l.mac.is_some() && !l.addresses.is_empty() && !carrying.contains(&l.id));
    for link in others {
        if let Err(error) = gate.attach(link.id) {
            tracing::debug!(link = link.name, "no gate beside the VIPs' own interfaces: {error}");
        }
    }
}

/// The interfaces that carry VIPs on this host.
fn links(desired: &Desired) -> Vec<LinkId> {
    let addresses = desired.groups.iter().flat_map(|g| &g.addresses);
    let mut links: Vec<LinkId> = addresses.filter_map(|a| a.link).collect();
    links.sort_unstable();
    links.dedup();
    links
}

/// Where this host has virtual routers, and over IPv6 or not.
fn routers(desired: &Desired) -> Vec<(LinkId, bool)> {
    let routers = desired.groups.iter().flat_map(|group| &group.vrrp);
    routers.filter_map(|router| Some((router.link?, router.v6))).collect()
}

/// The addresses that are on no interface, with what there is to answer for them.
fn answered(desired: &Desired, facts: &Facts) -> Vec<Answered> {
    let addresses = desired.groups.iter().flat_map(|group| &group.addresses);
    let addresses = addresses.filter(|address| address.presence == Presence::Answered);
    let answered = addresses.filter_map(|address| {
        let link = facts.link(address.link?)?;
        let (mac, router) = (link.mac?, routes_ipv6(&link.name));
        Some(Answered { address: address.cidr.address(), link: link.id, mac, router })
    });
    answered.collect()
}

/// Whether a neighbour advertisement from here must say "router" (RFC 4861 §4.4): who hears
/// otherwise of its default router looks for another.
fn routes_ipv6(link_name: &str) -> bool {
    let setting = format!("net/ipv6/conf/{link_name}/forwarding");
    sysctl::read(&setting).is_ok_and(|value| value != "0")
}

fn no_ethernet(facts: &Facts, link: LinkId) -> String {
    let name = facts.link(link).map_or("?", |l| &l.name);
    format!("interface {name} has no Ethernet address: a VIP there cannot be announced")
}

fn defences(gate: &Result<Gate, GateError>) -> (Fence, Vec<String>) {
    let lease = "lease: no vote of a majority, no address (exclusive VIPs)".to_owned();
    let lifetime = |seconds| {
        format!("kernel lifetime: an address that is not renewed disappears within {seconds}")
    };
    match gate {
        Ok(_) => {
            let gate = "gate: ARP and NDP, and all traffic of exclusive VIPs without services, stop \
                        in the kernel at the end of the lease, even when the agent is dead or frozen";
            // Which of the two depends on how many there are.
            (Fence::Gate, vec![lease, gate.into(), lifetime("9 s, with many VIPs 21 s")])
        }
        Err(error) => {
            let gate = format!(
                "NO gate ({error}): this node asks for leases of 2.5 s, so its kernel can forget the \
                 address first; a failover from it takes that long"
            );
            (Fence::Lifetime, vec![lease, gate, lifetime("2.5 s")])
        }
    }
}

//! The programs while they run: tables, interfaces, ways to backends, and what is wrong with them.

use super::turned::Turned;
use super::{
    About, Barred, Counted, Found, Order, RETRY, Reasons, ServiceKey, TURN, Traced, Wanted,
};
use crate::forward::Place;
use crate::health::Key;
use buoy_core::fast as core;
use buoy_kernel::fast::{
    self, Capacity, Count, Drop, Fast, FastError, Fate, Neighbours, Packet, Unreached, Way,
};
use buoy_kernel::gate::Answerer;
use buoy_kernel::solicited::Solicited;
use buoy_kernel::{host, nft};
use buoy_model::{
    Backend, BackendState, Desired, FastPath, Forward, Group, Instant, LinkId, Ports, Presence,
    Protocol, Service, Standing,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Every way is asked for again after so long, whether or not a neighbour has changed.
const REFRESH: Duration = Duration::from_secs(5);
/// A backend that was never reached is not spoken of earlier: its neighbour entry takes a moment.
const PATIENCE: Duration = Duration::from_secs(3);

/// Interfaces by their names.
type Names = BTreeMap<LinkId, String>;

/// The programs, and what they were told.
pub(super) struct Running {
    core: core::Fast,
    kernel: Fast,
    neighbours: Neighbours,
    began: Instant,
    /// What `core` should make of all services has to be looked at.
    is_changed: bool,
    /// There is an order that `core` has not heard of yet.
    is_ordered: bool,
    /// The one that it has heard of.
    followed: Option<Order>,
    /// See `stands`.
    stands: bool,
    /// Whether the tables are what `core` last told of.
    is_applied: bool,
    /// See `Found::tables`.
    digests: BTreeMap<Place, u32>,
    /// Services that are left out, for the program is not where their packets come in.
    out: BTreeSet<ServiceKey>,
    refreshed: Option<Instant>,
    read: Option<Instant>,
    /// Backends without a way, and since when.
    unreached: BTreeMap<Unreached, Instant>,
    names: Names,
    /// Interfaces towards translated backends that were made ready for their answers.
    ready: BTreeSet<LinkId>,
    /// Why they could not be.
    unready: Option<String>,
    /// For addresses that are on no interface.
    answerer: Option<Arc<Answerer>>,
    /// Whether there are such addresses: without one, no packet goes on to it.
    answers: bool,
    /// Where questions for such addresses are heard, and for which they may not be.
    solicited: Solicited,
    unheard: Vec<(Ipv6Addr, String)>,
}

impl Running {
    pub(super) fn open(
        now: Instant,
        order: &Order,
        answerer: Option<&Arc<Answerer>>,
    ) -> Result<Self, FastError> {
        let seed = order.seed;
        let (core, mut kernel) = if Fast::kept() {
            let kernel = Fast::open(Capacity::LEAST)?;
            (core::Fast::adopt(seed, now, &kernel.path()), kernel)
        } else {
            let mut core = core::Fast::new(seed);
            change(&mut core, now, &order.desired, order);
            let kernel = Fast::open(Capacity::of(&core.path()))?;
            (core, kernel)
        };
        // An earlier run's has leases that nobody renews.
        let answers = has_answered(&super::services(&order.desired));
        kernel.answer_by(answerer.filter(|_| answers).map(Arc::as_ref))?;
        if let Some(reason) = kernel.unpinned() {
            tracing::warn!("XDP forwarding ends with the agent: {reason}");
        }
        for maps in kernel.replaced() {
            tracing::warn!(
                maps,
                "XDP maps of another version are replaced: what was remembered of flows there is not known any more"
            );
        }
        Ok(Self {
            core,
            kernel,
            neighbours: Neighbours::open()?,
            began: now,
            is_changed: true,
            is_ordered: true,
            followed: None,
            stands: false,
            is_applied: false,
            digests: BTreeMap::new(),
            out: BTreeSet::new(),
            refreshed: None,
            read: None,
            unreached: BTreeMap::new(),
            names: Names::new(),
            ready: BTreeSet::new(),
            unready: None,
            answerer: answerer.cloned(),
            answers,
            solicited: Solicited::default(),
            unheard: Vec::new(),
        })
    }

    /// All services have to be looked at, whatever people want.
    pub(super) const fn follow_anew(&mut self) {
        self.is_changed = true;
    }

    /// People want something else, or a backend has another state.
    pub(super) const fn hear_of_order(&mut self) {
        self.is_ordered = true;
    }

    /// Whether all was as it should be once: since then the kernel forwards, whatever this side does.
    pub(super) const fn stands(&self) -> bool {
        self.stands
    }

    /// What is told to other nodes, and what they say goes to.
    pub(super) const fn about(&mut self) -> About<'_> {
        About { core: &mut self.core, kernel: &mut self.kernel }
    }

    /// Takes everything away.
    pub(super) fn detach(self) {
        self.kernel.detach();
    }

    /// Brings everything up to date.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        order: &Order,
        services: &[Wanted<'_>],
        barred: &mut Barred,
        found: &mut Found,
    ) -> Result<(), FastError> {
        self.kernel.tick(now.since(self.began).as_secs());
        if self.read.is_none_or(|at| at + TURN <= now) {
            self.neighbours.read()?;
            self.kernel.leave_vlans(self.neighbours.vlans())?;
            self.read = Some(now);
        }
        self.serve(now, order, services, barred)?;
        let is_due = self.refreshed.is_none_or(|at| at + REFRESH <= now);
        if is_due {
            self.names = host::facts()?.links.into_iter().map(|l| (l.id, l.name)).collect();
            let answers = self.answers(services);
            if self.attach(now, services, &answers, barred) {
                // Packets for some services come by a way that the program does not see.
                self.is_changed = true;
                self.serve(now, order, services, barred)?;
            }
            self.accept_answers(services, answers);
            self.hear(services);
        }
        if is_due || !self.unreached.is_empty() {
            self.look(now);
        }
        self.stands = true;
        self.report(now, services, barred, found);
        Ok(())
    }

    /// Brings the tables up to date, without services on interfaces where the program cannot be.
    fn serve(
        &mut self,
        now: Instant,
        order: &Order,
        services: &[Wanted<'_>],
        barred: &Barred,
    ) -> Result<(), FastError> {
        if self.core.seed() != order.seed {
            // Every flow is in another slot: what was in a change means nothing any more.
            self.core = core::Fast::new(order.seed);
            self.is_changed = true;
        }
        let is_over = self.core.deadline().is_some_and(|at| at <= now);
        if !self.is_changed && !self.is_ordered && !is_over && self.is_applied {
            return Ok(());
        }
        self.answer(services)?;
        self.core.tick(now);
        let is_barred = |service: &&Wanted<'_>| barred.contains_key(&service.link);
        let out: BTreeSet<_> = services.iter().filter(is_barred).map(|s| s.key).collect();
        let is_plain = !self.is_changed && out.is_empty() && self.out.is_empty();
        let before = self.followed.as_ref().filter(|_| is_plain);
        let turned = before.and_then(|before| Turned::of(before, order));
        self.out = out;
        self.followed = Some(order.clone());
        if let Some(turned) = &turned {
            let standing = standing(order);
            self.core.change_of(now, turned.services(&order.desired), standing);
            let digests = self.digests(services, |place| turned.places.contains(place));
            self.digests.extend(digests);
        } else {
            let desired = &order.desired;
            let left = (!self.out.is_empty()).then(|| without(desired, &self.out));
            change(&mut self.core, now, left.as_ref().unwrap_or(desired), order);
            self.digests = self.digests(services, |_| true);
        }
        self.write(turned.is_none_or(|turned| turned.is_some_there))?;
        (self.is_changed, self.is_ordered) = (false, false);
        Ok(())
    }

    /// Brings the tables of the kernel up to date: those of services that are not what they were, where that is
    /// possible. `is_some_new`: there may be backends whose ways are not known.
    fn write(&mut self, is_some_new: bool) -> Result<(), FastError> {
        let changed = self.core.changed();
        let neighbours = &mut self.neighbours;
        let amends = changed.filter(|_| self.is_applied).is_some_and(|changed| {
            self.refreshed = self.refreshed.filter(|_| changed.is_empty() || !is_some_new);
            let seed = self.core.seed();
            self.kernel.amend(seed, &changed, &mut |to| neighbours.resolve(to))
        });
        if !amends {
            let path = self.core.path();
            self.apply(&path)?;
            self.is_applied = true;
            self.refreshed = None;
        }
        Ok(())
    }

    fn digests(
        &self,
        services: &[Wanted<'_>],
        is_asked: impl Fn(&Place) -> bool,
    ) -> BTreeMap<Place, u32> {
        let mut keys: BTreeMap<Place, Vec<ServiceKey>> = BTreeMap::new();
        let is_here = |s: &&Wanted<'_>| is_asked(&s.place) && !self.out.contains(&s.key);
        for service in services.iter().filter(is_here) {
            keys.entry(service.place).or_default().push(service.key);
        }
        let digest =
            |(place, keys): (Place, Vec<_>)| (place, self.core.digest_of(keys.into_iter()));
        keys.into_iter().map(digest).collect()
    }

    fn apply(&mut self, path: &FastPath) -> Result<(), FastError> {
        self.is_applied = false;
        let neighbours = &mut self.neighbours;
        match self.kernel.apply(path, &mut |to| neighbours.resolve(to)) {
            Err(FastError::Full { .. }) => {}
            done => return done,
        }
        // Programs with more room take the place of these, on each interface in one step.
        let mut larger = Fast::open(Capacity::of(path))?;
        larger.answer_by(self.answerer.as_deref().filter(|_| self.answers))?;
        larger.leave_vlans(neighbours.vlans())?;
        larger.apply(path, &mut |to| neighbours.resolve(to))?;
        let links: Vec<_> = self.kernel.attached().map(|(link, _)| link).collect();
        for link in links {
            larger.attach(link)?;
        }
        self.kernel = larger;
        Ok(())
    }

    /// Attaches the program where packets for VIPs, and answers of translated backends, come in, and
    /// takes it away elsewhere; whether one more interface does not take it.
    fn attach(
        &mut self,
        now: Instant,
        services: &[Wanted<'_>],
        answers: &BTreeSet<LinkId>,
        barred: &mut Barred,
    ) -> bool {
        let mut links = answers.clone();
        links.extend(services.iter().map(|s| s.link));
        let others: Vec<_> = self.kernel.attached().map(|(link, _)| link).collect();
        for link in others.into_iter().filter(|link| !links.contains(link)) {
            self.kernel.detach_from(link);
        }
        links.retain(|link| !barred.contains_key(link));
        let known = barred.len();
        for link in links {
            let is_known = self.kernel.attached().any(|(at, _)| at == link);
            match self.kernel.attach(link) {
                Ok(mode) if !is_known => {
                    let (link, mode) = (self.name(link), mode.name());
                    tracing::info!(link, mode, "XDP forwarding is attached");
                }
                Ok(_) => {}
                Err(error) => {
                    barred.insert(link, (now + RETRY, error.to_string()));
                }
            }
        }
        known < barred.len()
    }

    /// Goes on to what answers for addresses that are on no interface, if there are such.
    fn answer(&mut self, services: &[Wanted<'_>]) -> Result<(), FastError> {
        let answers = has_answered(services);
        if answers != self.answers {
            self.kernel.answer_by(self.answerer.as_deref().filter(|_| answers))?;
            self.answers = answers;
            self.refreshed = None;
        }
        Ok(())
    }

    /// Lets questions for addresses that are on no interface come as far as the program.
    fn hear(&mut self, services: &[Wanted<'_>]) {
        let answered = services.iter().filter(|s| s.presence == Presence::Answered);
        let v6 = answered.filter_map(|service| match service.key.0 {
            IpAddr::V6(address) => Some((service.link, address)),
            IpAddr::V4(_) => None,
        });
        self.unheard = self.solicited.hear(&v6.collect());
    }

    /// The interfaces by which answers of translated backends come in.
    fn answers(&mut self, services: &[Wanted<'_>]) -> BTreeSet<LinkId> {
        let mut links = BTreeSet::new();
        for wanted in services.iter().filter(|s| s.forward == Forward::Nat) {
            let same = |ip: &IpAddr| ip.is_ipv4() == wanted.key.0.is_ipv4();
            let backends = wanted.service.backends.iter().map(|b| b.address.ip()).filter(same);
            let ways = backends.filter_map(|to| self.neighbours.resolve(to));
            links.extend(ways.filter_map(|way| match way {
                Way::Via(hop) => Some(hop.link),
                Way::Local => None,
            }));
        }
        links
    }

    /// Answers of translated backends are forwarded by the kernel, which has to be told to.
    fn accept_answers(&mut self, services: &[Wanted<'_>], links: BTreeSet<LinkId>) {
        if self.unready.is_none() && links.is_subset(&self.ready) {
            return;
        }
        let is = |v4: bool| {
            let mut nat = services.iter().filter(|s| s.forward == Forward::Nat);
            nat.any(|s| s.key.0.is_ipv4() == v4)
        };
        let enabled = nft::enable_forwarding(is(true), is(false)).map_err(|e| e.to_string());
        let accept = |mut done: Vec<String>, link: &LinkId| {
            done.extend(Fast::accept_answers(self.name(*link)).map_err(|e| e.to_string())?);
            Ok(done)
        };
        match enabled.and_then(|done| links.iter().try_fold(done, accept)) {
            Ok(changes) => {
                for change in changes {
                    tracing::info!("forwarding needs it: {change}");
                }
                (self.ready, self.unready) = (links, None);
            }
            Err(reason) => self.unready = Some(reason),
        }
    }

    /// Runs the program on a made-up packet.
    pub(super) fn trace(
        &mut self,
        services: &[Wanted<'_>],
        packet: &Packet,
    ) -> Result<Traced, FastError> {
        let fate = self.kernel.trace(packet)?;
        let Fate::Sent { mac, to, port } = fate else {
            return Ok(Traced { fate, backend: None, link: None });
        };
        let (vip, protocol, asked) = (packet.to.ip(), packet.protocol, packet.to.port());
        let has_port =
            |s: &&Wanted<'_>| (s.key.0, s.key.1) == (vip, protocol) && s.key.2.contains(asked);
        let service = services.iter().filter(has_port).min_by_key(|s| s.key.2.distance());
        // How far the port is from the first one, and so from the backend's.
        let above = service.map_or(0, |s| asked - s.key.2.first());
        let mut link = None;
        let mut is_it = |backend: &SocketAddr| {
            let Some(Way::Via(hop)) = self.neighbours.resolve(backend.ip()) else { return false };
            link = Some(hop.link);
            match service.map(|s| s.forward) {
                Some(Forward::Dsr) => hop.mac == Some(mac),
                Some(Forward::Tunnel | Forward::Gue { .. }) => backend.ip() == to,
                Some(Forward::Nat) => {
                    backend.ip() == to && Some(backend.port().wrapping_add(above)) == port
                }
                Some(Forward::Local) | None => false,
            }
        };
        let backends = service.into_iter().flat_map(|s| &s.service.backends);
        let backend = backends.map(|b| b.address).find(|address| is_it(address));
        let link = link.filter(|_| backend.is_some()).map(|link| self.name(link).to_owned());
        Ok(Traced { fate, backend, link })
    }

    /// Asks for the ways to all backends.
    fn look(&mut self, now: Instant) {
        let neighbours = &mut self.neighbours;
        let unreached = self.kernel.refresh(&mut |to| neighbours.resolve(to));
        self.refreshed = Some(now);
        let since = |known: &Unreached| self.unreached.get(known).copied().unwrap_or(now);
        self.unreached = unreached.iter().map(|known| (*known, since(known))).collect();
    }

    /// What people should know.
    pub(super) fn report(
        &self,
        now: Instant,
        services: &[Wanted<'_>],
        barred: &Barred,
        found: &mut Found,
    ) {
        let named: BTreeMap<ServiceKey, &Wanted<'_>> =
            services.iter().map(|s| (s.key, s)).collect();
        for service in services {
            let refused = barred.get(&service.link).filter(|_| self.out.contains(&service.key));
            if let Some((_, reason)) = refused {
                found.refused.insert(service.place, reason.clone());
            } else if let (Forward::Nat, Some(reason)) = (service.forward, &self.unready) {
                let said = format!("answers of backends may not come back to clients: {reason}");
                found.problems.insert(service.place, said);
            } else if let Some((vip, why)) = self.unheard.iter().find(|u| service.key.0 == u.0) {
                let said =
                    format!("not every host may find {vip}: its group cannot be joined: {why}");
                found.problems.insert(service.place, said);
            }
        }
        for (known, _) in self.unreached.iter().filter(|(_, since)| **since + PATIENCE <= now) {
            let fast::Key { address, protocol, ports } = known.service;
            if let Some(service) = named_by(&named, address, protocol, ports) {
                let mut backends = service.service.backends.iter();
                let backend = backends.find(|b| b.address.ip() == known.backend);
                let name = backend.map_or("?", |b| b.name.as_str());
                let said = format!("{name} ({}) gets no packets: {}", known.backend, known.why);
                found.problems.entry(service.place).or_insert(said);
            }
        }
        found.tables = self.digests.clone();
        let attached = self.kernel.attached();
        found.attached =
            attached.map(|(link, mode)| format!("{}: {}", self.name(link), mode.name())).collect();
        if let Some(reason) = self.kernel.unpinned() {
            found.host.push(format!("XDP forwarding ends with the agent: {reason}"));
        }
    }

    /// What was counted, of the services that are there now by backend too.
    pub(super) fn count(&self, services: &[Wanted<'_>]) -> Counted {
        let places: BTreeMap<ServiceKey, Place> =
            services.iter().map(|s| (s.key, s.place)).collect();
        let counts = self.kernel.counters();
        let mut counted = Counted::default();
        let mut add = |name, n| *counted.totals.entry(name).or_default() += n;
        for ((service, backend), count) in counts.forwarded {
            add("xdp_packets", count.packets);
            add("xdp_bytes", count.bytes);
            add("xdp_connections", count.flows);
            add("xdp_unnamed", count.unnamed);
            let fast::Key { address, protocol, ports } = service;
            if let Some(&place) = named_by(&places, address, protocol, ports) {
                let sum: &mut Count = counted.backends.entry((place, backend)).or_default();
                sum.packets += count.packets;
                sum.bytes += count.bytes;
                sum.flows += count.flows;
                sum.refused += count.refused;
                sum.unnamed += count.unnamed;
            }
        }
        let placed =
            |key: &fast::Key| named_by(&places, key.address, key.protocol, key.ports).copied();
        for (key, lost) in &counts.lost.services {
            let Some(place) = placed(key) else { continue };
            add_reasons(counted.lost.entry(place).or_default(), lost);
        }
        for ((key, backend), lost) in &counts.lost.backends {
            let Some(place) = placed(key) else { continue };
            add_reasons(counted.lost_by.entry((place, *backend)).or_default(), lost);
        }
        for (reason, n) in counts.dropped {
            add(counter(reason), n);
        }
        add("xdp_slots_in_change", self.core.moving() as u64);
        counted
    }

    fn name(&self, link: LinkId) -> &str {
        self.names.get(&link).map_or("?", String::as_str)
    }
}

fn add_reasons(to: &mut Reasons, counts: &fast::Reasons) {
    for (reason, n) in counts {
        *to.entry(reason.word()).or_default() += n;
    }
}

const fn counter(reason: Drop) -> &'static str {
    match reason {
        Drop::Truncated => "xdp_dropped_truncated",
        Drop::IpHeader => "xdp_dropped_ip_header",
        Drop::TcpHeader => "xdp_dropped_tcp_header",
        Drop::UdpHeader => "xdp_dropped_udp_header",
        Drop::Icmp => "xdp_dropped_icmp",
        Drop::NoBackend => "xdp_dropped_no_backend",
        Drop::NoNeighbour => "xdp_dropped_no_neighbour",
        Drop::TooBig => "xdp_dropped_too_big",
        Drop::TimeToLive => "xdp_dropped_time_to_live",
        Drop::NoRoom => "xdp_dropped_no_room",
        Drop::Source => "xdp_dropped_source",
        Drop::Limit => "xdp_dropped_limit",
        Drop::NoPort => "xdp_dropped_no_port",
    }
}

/// What is known of a service that the kernel crate speaks of.
fn named_by<T>(
    known: &BTreeMap<ServiceKey, T>,
    address: IpAddr,
    protocol: Protocol,
    (first, last): (u16, u16),
) -> Option<&T> {
    known.get(&(address, protocol, Ports::new(first, last)?))
}

fn has_answered(services: &[Wanted<'_>]) -> bool {
    services.iter().any(|service| service.presence == Presence::Answered)
}

/// The configuration without these services.
fn without(desired: &Desired, out: &BTreeSet<ServiceKey>) -> Desired {
    let mut desired = desired.clone();
    for service in desired.groups.iter_mut().flat_map(|g| &mut g.services) {
        let (protocol, ports) = (service.protocol, service.ports);
        service.addresses.retain(|address| !out.contains(&(*address, protocol, ports)));
    }
    desired.groups.iter_mut().for_each(|g| g.services.retain(|s| !s.addresses.is_empty()));
    desired
}

fn change(core: &mut core::Fast, now: Instant, desired: &Desired, order: &Order) {
    core.change(now, desired, standing(order));
}

/// What each backend gets.
fn standing(order: &Order) -> impl Fn(&Group, &Service, &Backend) -> Standing + '_ {
    |group, service, backend| {
        let key = Key::of(group.id, service, &backend.name);
        let known = order.states.get(&key);
        let state = known.map_or(BackendState::Unknown, |known| known.state);
        let standing = core::standing(service, state, known.is_some_and(|known| known.is_cut()));
        match standing {
            // Clients that it has let in may well be content with it.
            Standing::Up if order.out.contains(&key) => Standing::Keeps,
            Standing::Up | Standing::Keeps | Standing::Down => standing,
        }
    }
}

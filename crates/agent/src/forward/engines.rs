//! nftables and the proxies: does the difference between what should be there and what was done.

use super::meters::Meters;
use super::{Findings, Place, Refusal, Wanted, WantedProxy};
use buoy_kernel::conntrack::{self, Flows};
use buoy_kernel::{nft, program};
use buoy_model::Protocol;
use buoy_proxy::{Proxy, StartError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A table of nftables as it should be. With many services it is large: whoever works with it has the same one.
#[derive(Debug, Default, Eq, PartialEq)]
struct Rows {
    table: Vec<nft::Forward>,
    /// The service of each row of it.
    places: Vec<Place>,
}

impl Rows {
    fn of(wanted: Vec<(Place, nft::Forward)>) -> Arc<Self> {
        let (places, table) = wanted.into_iter().unzip();
        Arc::new(Self { table, places })
    }

    /// Most rounds bring nothing new.
    fn is_as(self: &Arc<Self>, known: Option<&Arc<Self>>) -> bool {
        known.is_some_and(|known| Arc::ptr_eq(self, known) || self == known)
    }
}

/// One table of nftables.
#[derive(Debug, Default)]
struct Kept {
    /// As last applied; `None`: not known, as after the start or an error.
    rows: Option<Arc<Rows>>,
    /// What the kernel counted, as of the last round.
    observed: nft::Observed,
}

impl Kept {
    /// Each row with its service and what it has done.
    fn counts(&self) -> impl Iterator<Item = (Place, nft::Counts)> {
        let rows = self.rows.iter().flat_map(|rows| rows.places.iter().zip(&rows.table));
        rows.map(|(place, row)| (*place, self.observed.counts(row)))
    }
}

/// What should be there.
#[derive(Debug, Default)]
struct Wish {
    translated: Arc<Rows>,
    direct: Arc<Rows>,
    dead: BTreeSet<Flows>,
    proxies: BTreeMap<(SocketAddr, Protocol), WantedProxy>,
    unaccepted: BTreeSet<IpAddr>,
    problems: BTreeMap<Place, String>,
}

/// What should be there, and what was done so far.
#[derive(Debug, Default)]
pub(super) struct Engines {
    wish: Wish,
    translated: Kept,
    /// For packets that keep their addresses.
    direct: Kept,
    /// Addresses without their packets, as last applied; `None`: not known.
    unaccepted: Option<BTreeSet<IpAddr>>,
    /// And those that a later configuration has.
    refusal: Refusal,
    pub(super) proxies: BTreeMap<(SocketAddr, Protocol), (WantedProxy, Proxy)>,
    /// Where the proxies are shown.
    meters: Meters,
    /// Flows that were forgotten, and that nothing has brought back since.
    forgotten: BTreeSet<Flows>,
    /// Something has to be tried again soon.
    pub(super) failing: bool,
}

impl Engines {
    /// Nothing was done yet; what proxies carry is to be seen there.
    pub(super) fn new(meters: Meters, refusal: Refusal) -> Self {
        Self { meters, refusal, ..Self::default() }
    }

    /// This should be there from now on.
    pub(super) fn wish(&mut self, wanted: Wanted) {
        let Wanted { kernel, direct, dead, proxies, unaccepted, problems } = wanted;
        let (translated, direct) = (Rows::of(kernel), Rows::of(direct));
        self.wish = Wish { translated, direct, dead, proxies, unaccepted, problems };
    }

    /// Does the difference, and returns what could not be done.
    pub(super) async fn converge(&mut self) -> Findings {
        let mut findings = Findings { services: self.wish.problems.clone(), ..Findings::default() };
        self.failing = false;
        self.converge_kernel(&mut findings).await;
        self.converge_direct(&mut findings).await;
        self.converge_accept(&mut findings).await;
        self.converge_proxies(&mut findings);
        self.count(&mut findings.counters);
        findings.limited = self.limited();
        findings
    }

    async fn converge_kernel(&mut self, findings: &mut Findings) {
        let rows = Arc::clone(&self.wish.translated);
        let known = self.translated.rows.take();
        let dead = self.wish.dead.clone();
        // With another table a flow may have come back; with the same one nothing brings it back.
        let done = std::mem::take(&mut self.forgotten);
        let stays = rows.is_as(known.as_ref());
        let due = if stays { dead.difference(&done).copied().collect() } else { dead.clone() };
        let work = {
            let rows = Arc::clone(&rows);
            tokio::task::spawn_blocking(move || converge_table(&rows, known.as_ref(), &due))
        };
        if let Some(found) = self.finish(&rows.places, work, findings).await {
            self.forgotten = dead;
            findings.host.extend(found.problems);
            self.translated = Kept { rows: Some(rows), observed: found.observed };
        }
    }

    async fn converge_direct(&mut self, findings: &mut Findings) {
        let rows = Arc::clone(&self.wish.direct);
        let known = self.direct.rows.take();
        let work = {
            let rows = Arc::clone(&rows);
            tokio::task::spawn_blocking(move || converge_direct(&rows, known.as_ref()))
        };
        if let Some(observed) = self.finish(&rows.places, work, findings).await {
            self.direct = Kept { rows: Some(rows), observed };
        }
    }

    async fn converge_accept(&mut self, findings: &mut Findings) {
        let known = self.unaccepted.take();
        // Held until the table stands: what is written later is newer.
        let refusal = self.refusal.clone();
        let refused = refusal.0.lock().await;
        let wanted: BTreeSet<IpAddr> = self.wish.unaccepted.union(&refused).copied().collect();
        let changed = known.as_ref() != Some(&wanted);
        let work = {
            let addresses = wanted.clone();
            tokio::task::spawn_blocking(move || converge_accept(&addresses, changed))
        };
        match ended(work).await {
            Ok(()) => self.unaccepted = Some(wanted),
            Err(said) => {
                self.failing = true;
                findings.host.push(match wanted.is_empty() {
                    true => format!("packets for VIPs may be dropped by an old table: {said}"),
                    false => format!(
                        "this host takes packets for VIPs with accept = false while it owns them: {said}"
                    ),
                });
            }
        }
    }

    /// Waits for work on a table; `None`: it was not done, and why is said of all in it.
    async fn finish<T>(
        &mut self,
        places: &[Place],
        work: JoinHandle<Result<T, nft::Error>>,
        findings: &mut Findings,
    ) -> Option<T> {
        match ended(work).await {
            Ok(done) => Some(done),
            Err(said) => {
                self.fail(places, &said, findings);
                None
            }
        }
    }

    fn fail(&mut self, places: &[Place], said: &str, findings: &mut Findings) {
        self.failing = true;
        findings.services.extend(places.iter().map(|place| (*place, said.to_owned())));
    }

    pub(super) fn converge_proxies(&mut self, findings: &mut Findings) {
        let Self { wish, proxies, .. } = self;
        proxies.retain(|at, _| wish.proxies.contains_key(at));
        let mut failed = Vec::new();
        for (&(address, protocol), wish) in &wish.proxies {
            match proxies.get_mut(&(address, protocol)) {
                Some((done, _)) if done == wish => {}
                Some((done, proxy)) => {
                    proxy.keep(&wish.finishing);
                    proxy.update(wish.settings.clone(), &wish.backends);
                    proxy.cut(&wish.cut);
                    *done = wish.clone();
                }
                None => match start(address, protocol, wish) {
                    Ok(proxy) => {
                        proxies.insert((address, protocol), (wish.clone(), proxy));
                    }
                    Err(error) => failed.push((wish.place, error)),
                },
            }
        }
        for (place, error) in failed {
            self.fail(&[place], &error.to_string(), findings);
        }
        let meter = |(wish, proxy): &(WantedProxy, Proxy)| (wish.place, proxy.meter());
        self.meters.set(self.proxies.values().map(meter));
    }

    /// Connections of each service that were refused for the rate of their client.
    fn limited(&self) -> BTreeMap<Place, u64> {
        let mut limited = BTreeMap::new();
        let mut add = |place: Place, n: u64| *limited.entry(place).or_default() += n;
        for (place, counts) in self.translated.counts().chain(self.direct.counts()) {
            add(place, counts.limited);
        }
        for (wanted, proxy) in self.proxies.values() {
            add(wanted.place, proxy.counts().throttled);
        }
        limited
    }

    /// Adds up what all services have done.
    fn count(&self, counters: &mut BTreeMap<&'static str, u64>) {
        let mut add = |name, n| *counters.entry(name).or_default() += n;
        for kept in [&self.translated, &self.direct] {
            if kept.rows.as_ref().is_none_or(|rows| rows.places.is_empty()) {
                continue;
            }
            for (_, counts) in kept.counts() {
                add("forward_packets", counts.packets);
                add("forward_connections", counts.connections);
                add("forward_refused", counts.refused);
                add("forward_limited", counts.limited);
                add("forward_stuck", counts.stuck);
                add("forward_unnamed", counts.unnamed);
            }
            add("forward_guarded", kept.observed.guarded());
            add("forward_denied", kept.observed.denied());
            add("forward_invalid", kept.observed.invalid());
        }
        for (_, proxy) in self.proxies.values() {
            let counts = proxy.counts();
            add("proxy_accepted", counts.accepted);
            add("proxy_active", counts.active.into());
            add("proxy_refused", counts.refused);
            add("proxy_denied", counts.denied);
            add("proxy_limited", counts.limited);
            add("proxy_throttled", counts.throttled);
            add("proxy_waiting", counts.waiting.into());
            add("proxy_queued", counts.queued);
            add("proxy_unserved", counts.unserved);
            add("proxy_unheard", counts.unheard);
            add("proxy_ejections", counts.ejections);
            add("proxy_stuck", counts.stuck);
            add("proxy_unnamed", counts.unnamed);
        }
    }
}

fn start(at: SocketAddr, protocol: Protocol, wish: &WantedProxy) -> Result<Proxy, StartError> {
    Proxy::start(at, protocol, wish.settings.clone(), &wish.backends)
}

/// Drops packets for these addresses; rounds, which follow, say why where it cannot be.
pub(super) async fn refuse(addresses: BTreeSet<IpAddr>) {
    let work = tokio::task::spawn_blocking(move || nft::accept::apply(&addresses));
    let _ = ended(work).await;
}

/// What work on a table brought, or why it was not done. It is always waited for: an attempt that was left alone would
/// go on beside the next one. How long `nft` may take is `kernel`'s to say, which ends it.
async fn ended<T>(work: JoinHandle<Result<T, nft::Error>>) -> Result<T, String> {
    match work.await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the thread that runs `nft` ended".to_owned()),
    }
}

/// What there is to say of a table that stands.
#[derive(Debug, Default)]
struct Standing {
    problems: Vec<String>,
    observed: nft::Observed,
}

/// Runs where it may block.
fn converge_table(
    rows: &Arc<Rows>,
    known: Option<&Arc<Rows>>,
    dead: &BTreeSet<Flows>,
) -> Result<Standing, nft::Error> {
    let mut standing = Standing::default();
    let table = &rows.table;
    if table.is_empty() {
        if known.is_none_or(|known| !known.table.is_empty()) {
            nft::remove()?;
        }
        return Ok(standing);
    }
    let on = |f: &&nft::Forward| f.spread != nft::Spread::Local;
    let v4 = table.iter().filter(on).any(|f| f.vip.is_ipv4());
    let v6 = table.iter().filter(on).any(|f| f.vip.is_ipv6());
    for change in nft::enable_forwarding(v4, v6)? {
        tracing::info!("forwarding needs it: {change}");
    }
    standing.observed = stand(rows, known, nft::observe, nft::apply)?;
    forget(dead, &mut standing.problems);
    match nft::enable_pickup() {
        Ok(changes) => {
            for change in changes {
                tracing::info!("a failover without loss needs it: {change}");
            }
        }
        Err(error) => standing
            .problems
            .push(format!("connections may not survive coming back to this host: {error}")),
    }
    standing.problems.extend(nft::pickup_problem());
    Ok(standing)
}

/// Runs where it may block.
fn converge_direct(
    rows: &Arc<Rows>,
    known: Option<&Arc<Rows>>,
) -> Result<nft::Observed, nft::Error> {
    if rows.table.is_empty() {
        if known.is_none_or(|known| !known.table.is_empty()) {
            nft::direct::remove()?;
        }
        return Ok(nft::Observed::default());
    }
    stand(rows, known, nft::direct::observe, nft::direct::apply)
}

/// Makes a table stand, and says what it has counted.
fn stand(
    rows: &Arc<Rows>,
    known: Option<&Arc<Rows>>,
    observe: impl Fn() -> Result<Option<nft::Observed>, nft::Error>,
    apply: impl Fn(&[nft::Forward], Option<&[nft::Forward]>) -> Result<(), nft::Error>,
) -> Result<nft::Observed, nft::Error> {
    let stays = rows.is_as(known);
    if stays && let Some(observed) = observe()? {
        return Ok(observed);
    }
    // Where it stays and yet is not there, somebody else has changed it: then nothing is known of it.
    let known = known.filter(|_| !stays).map(|known| known.table.as_slice());
    let done = apply(&rows.table, known).and_then(|()| observe());
    program::trim();
    Ok(done?.unwrap_or_default())
}

/// Runs where it may block.
fn converge_accept(addresses: &BTreeSet<IpAddr>, changed: bool) -> Result<(), nft::Error> {
    match addresses.is_empty() {
        true if changed => nft::accept::remove(),
        true => Ok(()),
        false if changed || !nft::accept::is_there()? => nft::accept::apply(addresses),
        false => Ok(()),
    }
}

/// After the table: a flow that is forgotten before would be given to the same backend again.
fn forget(dead: &BTreeSet<Flows>, problems: &mut Vec<String>) {
    for flows in dead {
        match conntrack::forget(flows) {
            Ok(0) => {}
            Ok(count) => {
                let protocol = flows.protocol.name();
                tracing::info!(count, protocol, backend = %flows.backend, "flows are cut");
            }
            Err(error) => problems.push(format!(
                "{} clients of {} that keep their port stay with {}, which is down, or is to have \
                 no connections: {error}",
                flows.protocol.name(),
                flows.vip,
                flows.backend
            )),
        }
    }
}

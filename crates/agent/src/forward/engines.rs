//! nftables and the proxies: does the difference between what should be there and what was done.

use super::{Findings, NFT_TIMEOUT, Place, Wanted, WantedProxy};
use buoy_kernel::conntrack::{self, Flows};
use buoy_kernel::nft;
use buoy_model::Protocol;
use buoy_proxy::{Proxy, StartError};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::time;

/// What was done so far.
#[derive(Debug, Default)]
pub(super) struct Engines {
    /// The table as last applied; `None`: not known, as after the start or an error.
    table: Option<Vec<nft::Forward>>,
    /// The service of each row of it.
    places: Vec<Place>,
    /// What the kernel counted, as of the last round.
    observed: nft::Observed,
    pub(super) proxies: BTreeMap<(SocketAddr, Protocol), (WantedProxy, Proxy)>,
    /// Something has to be tried again soon.
    pub(super) failing: bool,
}

impl Engines {
    /// Does the difference, and returns what could not be done.
    pub(super) async fn converge(&mut self, wanted: Wanted) -> Findings {
        let mut findings = Findings { services: wanted.problems, ..Findings::default() };
        self.failing = false;
        self.converge_kernel(wanted.kernel, wanted.dead, &mut findings).await;
        self.converge_proxies(wanted.proxies, &mut findings);
        self.count(&mut findings.counters);
        findings.limited = self.limited();
        findings
    }

    async fn converge_kernel(
        &mut self,
        wanted: Vec<(Place, nft::Forward)>,
        dead: BTreeSet<Flows>,
        findings: &mut Findings,
    ) {
        let (places, table): (Vec<Place>, Vec<nft::Forward>) = wanted.into_iter().unzip();
        let known = self.table.take();
        let changed = known.as_ref() != Some(&table);
        let work = {
            let table = table.clone();
            tokio::task::spawn_blocking(move || converge_table(&table, &dead, changed))
        };
        match time::timeout(NFT_TIMEOUT, work).await {
            Ok(Ok(Ok(found))) => {
                findings.host.extend(found.problems);
                self.observed = found.observed;
                self.table = Some(table);
                self.places = places;
            }
            Ok(Ok(Err(error))) => self.fail(places, &error.to_string(), findings),
            Ok(Err(_)) => self.fail(places, "the thread that runs `nft` ended", findings),
            Err(_) => {
                let said = format!("`nft` has not answered for {NFT_TIMEOUT:?}");
                self.fail(places, &said, findings);
            }
        }
    }

    fn fail(&mut self, places: Vec<Place>, said: &str, findings: &mut Findings) {
        self.failing = true;
        findings.services.extend(places.into_iter().map(|place| (place, said.to_owned())));
    }

    pub(super) fn converge_proxies(
        &mut self,
        wanted: BTreeMap<(SocketAddr, Protocol), WantedProxy>,
        findings: &mut Findings,
    ) {
        self.proxies.retain(|at, _| wanted.contains_key(at));
        for ((address, protocol), wish) in wanted {
            match self.proxies.get_mut(&(address, protocol)) {
                Some((done, _)) if *done == wish => {}
                Some((done, proxy)) => {
                    proxy.update(wish.settings.clone(), &wish.backends);
                    *done = wish;
                }
                None => match start(address, protocol, &wish) {
                    Ok(proxy) => {
                        self.proxies.insert((address, protocol), (wish, proxy));
                    }
                    Err(error) => self.fail(vec![wish.place], &error.to_string(), findings),
                },
            }
        }
    }

    /// Connections of each service that were refused for the rate of their client.
    fn limited(&self) -> BTreeMap<Place, u64> {
        let mut limited = BTreeMap::new();
        let mut add = |place: Place, n: u64| *limited.entry(place).or_default() += n;
        for (&place, forward) in self.places.iter().zip(self.table.iter().flatten()) {
            add(place, self.observed.counts(forward).limited);
        }
        for (wanted, proxy) in self.proxies.values() {
            add(wanted.place, proxy.counts().throttled);
        }
        limited
    }

    /// Adds up what all services have done.
    fn count(&self, counters: &mut BTreeMap<&'static str, u64>) {
        let mut add = |name, n| *counters.entry(name).or_default() += n;
        for forward in self.table.iter().flatten() {
            let counts = self.observed.counts(forward);
            add("forward_packets", counts.packets);
            add("forward_connections", counts.connections);
            add("forward_refused", counts.refused);
            add("forward_limited", counts.limited);
        }
        if self.table.as_ref().is_some_and(|table| !table.is_empty()) {
            add("forward_guarded", self.observed.guarded());
            add("forward_denied", self.observed.denied());
            add("forward_invalid", self.observed.invalid());
        }
        for (_, proxy) in self.proxies.values() {
            let counts = proxy.counts();
            add("proxy_accepted", counts.accepted);
            add("proxy_active", counts.active.into());
            add("proxy_refused", counts.refused);
            add("proxy_denied", counts.denied);
            add("proxy_limited", counts.limited);
            add("proxy_throttled", counts.throttled);
        }
    }
}

fn start(at: SocketAddr, protocol: Protocol, wish: &WantedProxy) -> Result<Proxy, StartError> {
    Proxy::start(at, protocol, wish.settings.clone(), &wish.backends)
}

/// What there is to say of a table that stands.
#[derive(Debug, Default)]
struct Standing {
    problems: Vec<String>,
    observed: nft::Observed,
}

/// Runs where it may block.
fn converge_table(
    table: &[nft::Forward],
    dead: &BTreeSet<Flows>,
    changed: bool,
) -> Result<Standing, nft::Error> {
    let mut standing = Standing::default();
    if table.is_empty() {
        if changed {
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
    match nft::observe()? {
        Some(observed) if !changed => standing.observed = observed,
        Some(_) | None => {
            nft::apply(table)?;
            standing.observed = nft::observe()?.unwrap_or_default();
        }
    }
    if changed {
        forget(dead, &mut standing.problems);
    }
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

/// After the table: a flow that is forgotten before would be given to the same backend again.
fn forget(dead: &BTreeSet<Flows>, problems: &mut Vec<String>) {
    for flows in dead {
        match conntrack::forget(flows) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, backend = %flows.backend, "UDP flows move on"),
            Err(error) => problems.push(format!(
                "UDP clients of {} that keep their port stay with {}, which is down: {error}",
                flows.vip, flows.backend
            )),
        }
    }
}

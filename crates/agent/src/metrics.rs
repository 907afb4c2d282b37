//! What monitoring reads, in Prometheus' text format: what the status says in numbers, and what has happened since
//! the agent began.
//!
//! Names are `buoy_NAME_UNIT`, of counters with `_total`. A VIP, peer, service and backend is a label with its name
//! in the file, so there are as many series as the file has names, whatever clients do. A test
//! asks `promtool` for its opinion.

mod alias;
mod budget;

use buoy_api::{BackendView, BudgetReply, ClusterStatus, NodeView, PoolView, ServiceView, VipView};
use buoy_model::{Fact, MetricAlias};
use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};
use std::time::Duration;

/// Upper ends of the classes of takeover times, in seconds: from a beat to what nobody should see.
const TAKEOVER_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What cannot be told.
pub(crate) type Result<T> = std::result::Result<T, prometheus::Error>;

/// What has happened since the agent began.
#[derive(Debug)]
pub(crate) struct Totals {
    registry: Registry,
    events: IntCounterVec,
    takeovers: HistogramVec,
}

impl Totals {
    /// Fails only where a name in this file is not one.
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new();
        let events = IntCounterVec::new(
            Opts::new("buoy_events_total", "What happened, by the word of `buoy events`."),
            &["vip", "kind"],
        )?;
        let takeovers = HistogramVec::new(
            HistogramOpts::new(
                "buoy_takeover_seconds",
                "From the decision to take a VIP to the end of each phase; detect: how long the owner before had been silent.",
            )
            .buckets(TAKEOVER_SECONDS.to_vec()),
            &["phase"],
        )?;
        registry.register(Box::new(events.clone()))?;
        registry.register(Box::new(takeovers.clone()))?;
        Ok(Self { registry, events, takeovers })
    }

    /// Something happened to a VIP, or to none of them.
    pub(crate) fn note(&self, vip: Option<&str>, kind: &str, fact: &Fact) {
        self.events.with_label_values(&[vip.unwrap_or(""), kind]).inc();
        let Fact::Served { detect, decide, address, announce, first_packet, .. } = fact else {
            return;
        };
        let observe = |phase: &str, took: &Duration| {
            self.takeovers.with_label_values(&[phase]).observe(took.as_secs_f64());
        };
        observe("detect", detect);
        observe("decide", decide);
        observe("address", address);
        observe("announce", announce);
        first_packet.iter().for_each(|took| observe("first_packet", took));
    }

    /// The page, with what holds at this moment. `file_refused`: the file on disk is not the one that runs.
    pub(crate) fn page(
        &self,
        (status, budget): (&ClusterStatus, &BudgetReply),
        pools: &[PoolView],
        file_refused: bool,
        aliases: &[MetricAlias],
    ) -> Result<String> {
        let page = Page(Registry::new());
        page.agent(status, file_refused)?;
        page.peers(&status.nodes, &status.digest)?;
        page.vips(status)?;
        budget::show(&page, budget)?;
        page.pools(pools)?;
        page.services(&status.vips)?;
        alias::show(&page, self, status, aliases)?;
        let mut families = self.registry.gather();
        families.extend(page.0.gather());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families)
    }
}

/// What holds at one moment.
struct Page(Registry);

impl Page {
    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    }

    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<CounterVec> {
        let counter = CounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(counter.clone()))?;
        Ok(counter)
    }

    fn one(&self, name: &str, help: &str, value: f64) -> Result<()> {
        self.gauge(name, help, &[])?.with_label_values::<&str>(&[]).set(value);
        Ok(())
    }

    /// What operators want of this node.
    fn ordered(&self, status: &ClusterStatus) -> Result<()> {
        let ordered = [
            ("buoy_draining", "1: this node gives its VIPs away.", status.draining.is_some()),
            (
                "buoy_cordoned",
                "1: this node keeps its VIPs and takes no new ones.",
                status.cordoned.is_some(),
            ),
        ];
        ordered.into_iter().try_for_each(|(name, help, is_so)| self.one(name, help, truth(is_so)))
    }

    /// Of pools that VIPs ask: of the others nothing is ever free.
    fn pools(&self, pools: &[PoolView]) -> Result<()> {
        let addresses = self.gauge(
            "buoy_pool_addresses",
            "Addresses of a pool that VIPs ask, by what they are: used, reserved (and no VIP) or free.",
            &["pool", "state"],
        )?;
        for pool in pools.iter().filter(|pool| pool.gives != "each") {
            for (state, count) in
                [("used", pool.used), ("reserved", pool.reserved), ("free", pool.free)]
            {
                addresses.with_label_values(&[pool.name.as_str(), state]).set(count as f64);
            }
        }
        Ok(())
    }

    fn agent(&self, status: &ClusterStatus, file_refused: bool) -> Result<()> {
        self.gauge("buoy_build_info", "Always 1; what runs.", &["version"])?
            .with_label_values(&[&status.version])
            .set(1.0);
        self.gauge(
            "buoy_config_info",
            "Always 1; digest of all that must be the same on every host.",
            &["cluster", "digest"],
        )?
        .with_label_values(&[&status.cluster, &status.digest])
        .set(1.0);
        self.one(
            "buoy_config_generation",
            "Grows with every configuration that was accepted since the agent began.",
            status.generation as f64,
        )?;
        self.one(
            "buoy_config_last_reload_successful",
            "0: the file on disk was refused, and the one before it runs.",
            truth(!file_refused),
        )?;
        self.ordered(status)?;
        self.one(
            "buoy_problems",
            "How many things are wrong with this host or this cluster: `buoy status` says which.",
            status.problems.len() as f64,
        )?;
        self.one(
            "buoy_heartbeat_seconds",
            "Time between two heartbeats.",
            status.timing.heartbeat_ms / 1e3,
        )?;
        if let Some(term) = status.timing.term_ms {
            self.one(
                "buoy_lease_term_seconds",
                "The term that this node asks for now.",
                term / 1e3,
            )?;
        }
        self.counter(
            "buoy_overlaps_total",
            "How often two nodes served one `available` VIP at once.",
            &[],
        )?
        .with_label_values::<&str>(&[])
        .inc_by(status.overlaps as f64);
        let rejected = self.counter(
            "buoy_datagrams_rejected_total",
            "Datagrams of the lease protocol that were not believed.",
            &["reason"],
        )?;
        let counted = self.counter(
            "buoy_counted_total",
            "Whatever else the agent counts, by the names in `buoy status -o json`.",
            &["name"],
        )?;
        for (name, count) in &status.loop_.counters {
            match name.strip_prefix("rejected_") {
                Some(reason) => rejected.with_label_values(&[reason]).inc_by(*count as f64),
                None => counted.with_label_values(&[name]).inc_by(*count as f64),
            }
        }
        Ok(())
    }

    fn peers(&self, nodes: &[NodeView], mine: &str) -> Result<()> {
        let heard =
            self.gauge("buoy_peer_heard", "1: this node has heard the peer lately.", &["peer"])?;
        let hears =
            self.gauge("buoy_peer_answers", "1: the peer answers, so both ways work.", &["peer"])?;
        let trip = self.gauge(
            "buoy_peer_round_trip_seconds",
            "Round trip of the last heartbeat that the peer answered.",
            &["peer"],
        )?;
        let same = self.gauge(
            "buoy_peer_config_same",
            "1: the peer runs the same configuration; 0: another one.",
            &["peer"],
        )?;
        for node in nodes.iter().filter(|node| !node.me) {
            let label = &[&node.name];
            heard.with_label_values(label).set(truth(node.alive));
            hears.with_label_values(label).set(truth(node.hears_us));
            if let Some(took) = node.round_trip_ms {
                trip.with_label_values(label).set(took / 1e3);
            }
            if let Some(theirs) = &node.digest {
                same.with_label_values(label).set(truth(mine == theirs));
            }
        }
        Ok(())
    }

    fn vips(&self, status: &ClusterStatus) -> Result<()> {
        let labels = &["vip", "node", "safety"];
        let owner = self.gauge(
            "buoy_vip_owner",
            "1: this node owns the VIP and may serve it. Over all nodes that is one, of an `exclusive` VIP never two.",
            labels,
        )?;
        let epoch = self.gauge("buoy_vip_epoch", "Grows at every change of owner.", &["vip"])?;
        let lease = self.gauge(
            "buoy_vip_lease_seconds",
            "How much longer this node may serve the VIP without a new vote.",
            &["vip"],
        )?;
        let held =
            self.gauge("buoy_vip_held", "1: an operator keeps the VIP where it is.", &["vip"])?;
        let problem =
            self.gauge("buoy_vip_problem", "1: something is wrong with the VIP.", &["vip"])?;
        for vip in &status.vips {
            owner
                .with_label_values(&[&vip.name, &status.node, &vip.safety])
                .set(truth(vip.mine && vip.lease_left_ms.is_none_or(|left| 0.0 < left)));
            let label = &[&vip.name];
            epoch.with_label_values(label).set(f64::from(vip.epoch));
            if let Some(left) = vip.lease_left_ms {
                lease.with_label_values(label).set(left / 1e3);
            }
            held.with_label_values(label).set(truth(vip.held.is_some()));
            problem.with_label_values(label).set(truth(vip.problem.is_some()));
        }
        self.routers(&status.vips)
    }

    /// Of VIPs that VRRP decides about.
    fn routers(&self, vips: &[VipView]) -> Result<()> {
        let elsewhere = self.gauge(
            "buoy_vip_router",
            "1: a router that is no node of the cluster has the VIP by VRRP.",
            &["vip"],
        )?;
        let labels = &["vip", "vrid", "family"];
        let active =
            self.gauge("buoy_vrrp_active", "1: this node is the active router (master).", labels)?;
        let priority =
            self.gauge("buoy_vrrp_priority", "What this node says of itself now.", labels)?;
        let refused = self.counter(
            "buoy_vrrp_refused_total",
            "Advertisements of VRRP that were not believed.",
            &["vip", "reason"],
        )?;
        for vip in vips.iter().filter(|vip| !vip.vrrp.is_empty()) {
            elsewhere.with_label_values(&[&vip.name]).set(truth(vip.router.is_some()));
            for router in &vip.vrrp {
                let label = &[vip.name.as_str(), &router.id.to_string(), &router.family];
                active.with_label_values(label).set(truth(router.state == "active"));
                priority.with_label_values(label).set(router.priority.into());
            }
            for (reason, count) in &vip.refused {
                refused.with_label_values(&[&vip.name, reason]).inc_by(*count as f64);
            }
        }
        Ok(())
    }

    fn services(&self, vips: &[VipView]) -> Result<()> {
        let states = ["up", "down", "unknown", "drain", "maint"];
        let count = self.gauge(
            "buoy_service_backends",
            "Backends of the service in each state.",
            &["service", "state"],
        )?;
        let ready = self.gauge(
            "buoy_service_backends_ready",
            "Backends that may get new connections.",
            &["service"],
        )?;
        let problem = self.gauge(
            "buoy_service_problem",
            "1: something is wrong with forwarding on this node.",
            &["service"],
        )?;
        let limited = self.counter(
            "buoy_service_limited_total",
            "New connections that were refused because one client opened too many.",
            &["service"],
        )?;
        let dropped = self.counter(
            "buoy_service_dropped_total",
            "Packets for the service that this node has dropped, in mode xdp; those for its backends are among them.",
            &["service", "reason"],
        )?;
        let backends = Backends::new(self)?;
        for service in vips.iter().flat_map(|vip| &vip.services) {
            let ServiceView { name, up, .. } = service;
            for state in states {
                let those = service.backends.iter().filter(|backend| backend.state == state);
                count.with_label_values(&[name.as_str(), state]).set(those.count() as f64);
            }
            ready.with_label_values(&[name]).set(*up as f64);
            problem.with_label_values(&[name]).set(truth(service.problem.is_some()));
            if let Some(refused) = service.limited {
                limited.with_label_values(&[name]).inc_by(refused as f64);
            }
            for (reason, count) in &service.dropped {
                dropped.with_label_values(&[name, reason]).inc_by(*count as f64);
            }
            service.backends.iter().for_each(|backend| backends.show(name, backend));
        }
        Ok(())
    }
}

/// What is told of every backend.
struct Backends {
    up: GaugeVec,
    weight: GaugeVec,
    share: GaugeVec,
    urgent: GaugeVec,
    connections: CounterVec,
    packets: CounterVec,
    bytes: CounterVec,
    dropped: CounterVec,
}

impl Backends {
    fn new(page: &Page) -> Result<Self> {
        let labels = &["service", "backend"];
        let gauge = |name, help| page.gauge(name, help, labels);
        let counter = |name, help| page.counter(name, help, labels);
        Ok(Self {
            up: gauge("buoy_backend_up", "1: the backend may get new connections.")?,
            weight: gauge(
                "buoy_backend_weight",
                "Its share relative to the others, as the file has it.",
            )?,
            share: gauge(
                "buoy_backend_share_ratio",
                "The part of its weight that it takes by its load or its agent's word.",
            )?,
            urgent: gauge(
                "buoy_backend_urgent",
                "1: the backend is well, and something will break if nobody acts, such as a certificate that ends.",
            )?,
            connections: counter(
                "buoy_backend_connections_total",
                "TCP connections that this node has forwarded to it.",
            )?,
            packets: counter(
                "buoy_backend_packets_total",
                "Packets of clients that this node has forwarded to it.",
            )?,
            bytes: counter(
                "buoy_backend_bytes_total",
                "Bytes of clients that this node has forwarded to it.",
            )?,
            dropped: page.counter(
                "buoy_backend_dropped_total",
                "Packets for the backend that this node has dropped, in mode xdp.",
                &["service", "backend", "reason"],
            )?,
        })
    }

    fn show(&self, service: &str, backend: &BackendView) {
        let label = &[service, backend.name.as_str()];
        let is_up = ["up", "unknown"].contains(&backend.state.as_str());
        self.up.with_label_values(label).set(truth(is_up));
        self.weight.with_label_values(label).set(f64::from(backend.weight));
        let share = backend.share.map_or(1.0, |percent| f64::from(percent) / 100.0);
        self.share.with_label_values(label).set(share);
        self.urgent.with_label_values(label).set(truth(backend.urgent));
        if let Some(traffic) = backend.traffic {
            self.connections.with_label_values(label).inc_by(traffic.connections as f64);
            self.packets.with_label_values(label).inc_by(traffic.packets as f64);
            self.bytes.with_label_values(label).inc_by(traffic.bytes as f64);
        }
        for (reason, count) in &backend.dropped {
            let label = &[service, backend.name.as_str(), reason];
            self.dropped.with_label_values(label).inc_by(*count as f64);
        }
    }
}

const fn truth(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests;

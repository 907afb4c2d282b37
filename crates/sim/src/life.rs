//! The lives of agents: how they start, hang, die and are mourned, and what sleep does to a host.
//!
//! A supervisor sees the death of its agent within a fraction of a millisecond: it turns the gate off,
//! sends the goodbyes that the agent has left with it, and takes the addresses away when it gets to
//! it. Without a gate the addresses go first. It ends an agent that hangs, and not one that sleeps with it.

use crate::agent::News;
use crate::network;
use crate::scenario::LINK;
use crate::trace::What;
use crate::world::{Planned, World};
use buoy_core::{Fence, Node, Settings, patience};
use buoy_model::{Incarnation, Timing};
use std::sync::Arc;
use std::time::Duration;

const MS: u64 = 1_000_000;
/// How long to wait for a host that sleeps.
const ASLEEP: u64 = 100 * MS;

impl World {
    /// Begins a life of an agent.
    pub(crate) fn start(&mut self, host: usize) {
        let now = self.hosts[host].clock.local(self.now);
        let settings = Settings {
            incarnation: Incarnation(self.random.next() | 1),
            seed: self.random.next(),
            fence: self.hosts[host].fence,
            #[cfg(feature = "mutants")]
            mutation: self.scenario.mutation,
        };
        self.hosts[host].load_gate();
        for goodbye in &mut self.agents[host].goodbyes {
            if let Some(datagram) = goodbye.take() {
                self.datagrams.leave(datagram);
            }
        }
        let node = Node::new(now, Arc::clone(&self.agents[host].desired), settings);
        self.agents[host].start(node);
        self.note(host, What::Started);
        if !self.hosts[host].carrier {
            self.agents[host].arrive(News::Link { link: LINK, up: false });
        }
        self.run_agent(host);
    }

    /// A new agent where none runs.
    pub(crate) fn restart(&mut self, host: usize) {
        if self.agents[host].is_running() {
            return;
        }
        // The driver removes what an earlier life has left, if it gets to it.
        if self.random.permille(500) {
            self.take_away(host);
        }
        self.start(host);
    }

    /// The agent ends, with all that it had not done, and nobody acts on it.
    pub(crate) fn kill(&mut self, host: usize) {
        if self.agents[host].is_running() {
            self.count_orphans(host);
            self.note(host, What::Died);
            self.ledger.died(host);
            self.bury(host);
        }
    }

    /// The agent dies; where there is a supervisor that lives, it acts.
    pub(crate) fn crash(&mut self, host: usize) {
        let running = self.agents[host].is_running();
        let goodbyes = self.agents[host].goodbyes.clone();
        goodbyes.iter().flatten().for_each(|datagram| self.datagrams.keep(*datagram));
        self.kill(host);
        if running && self.scenario.hosts[host].supervised && !self.random.permille(150) {
            self.agents[host].goodbyes = goodbyes;
            let life = self.agents[host].life;
            let at = self.now + self.random.within(20_000..800_000);
            self.plan(at, Planned::Mourns { host: host as u8, life });
        } else {
            goodbyes.iter().flatten().for_each(|datagram| self.datagrams.leave(*datagram));
        }
    }

    /// Everything of a life is gone.
    pub(crate) fn bury(&mut self, host: usize) {
        let agent = &mut self.agents[host];
        for news in &agent.inbox {
            if let News::Datagram { datagram, .. } = news {
                self.datagrams.leave(*datagram);
            }
        }
        for goodbye in &mut agent.goodbyes {
            if let Some(datagram) = goodbye.take() {
                self.datagrams.leave(datagram);
            }
        }
        agent.die();
    }

    /// The supervisor acts on the death that it saw.
    pub(crate) fn mourn(&mut self, host: usize, life: u32) {
        if self.agents[host].life != life {
            return;
        }
        if self.hosts[host].suspended > 0 {
            self.plan(self.now + ASLEEP, Planned::Mourns { host: host as u8, life });
            return;
        }
        self.note(host, What::Mourned);
        self.hosts[host].close_gate();
        if self.hosts[host].fence == Fence::Lifetime {
            self.take_away(host);
        }
        for to in 0..self.hosts.len() {
            if let Some(datagram) = self.agents[host].goodbyes[to].take() {
                self.carry(host, to, datagram, network::RARE);
                self.datagrams.leave(datagram);
            }
        }
        // The kernel's lock may be held by others.
        let at = self.now + self.random.within(10_000..50 * MS);
        self.plan(at, Planned::Sweeps { host: host as u8, life });
    }

    /// The supervisor takes the addresses away, unless a new agent has begun to.
    pub(crate) fn sweep(&mut self, host: usize, life: u32) {
        if self.agents[host].life == life {
            self.take_away(host);
            if self.random.permille(500) {
                let at = self.now + self.random.within(MS..300 * MS);
                self.plan(at, Planned::Starts { host: host as u8, life });
            }
        }
    }

    fn take_away(&mut self, host: usize) {
        let left: Vec<_> = self.hosts[host].addresses().collect();
        for address in left {
            self.hosts[host].remove(address);
            self.answered(address);
        }
    }

    /// The agent, or every program of the host, gets no processor.
    pub(crate) fn freeze(&mut self, host: usize, time: Duration, alone: bool) {
        if !self.agents[host].is_running() {
            return;
        }
        self.count_orphans(host);
        self.agents[host].frozen += 1;
        let (life, at) = (self.agents[host].life, self.now + time.as_nanos() as u64);
        self.plan(at, Planned::Thaws { host: host as u8, life });
        let Timing { heartbeat, lease, .. } = self.scenario.timing;
        let patience = patience::with_loop(true, heartbeat, lease, self.scenario.groups.len());
        if alone && self.scenario.hosts[host].supervised && patience < time {
            let at = self.now + patience.as_nanos() as u64;
            self.plan(at, Planned::Hangs { host: host as u8, life });
        }
    }

    /// The supervisor's patience with an agent that hangs is over.
    pub(crate) fn hangs(&mut self, host: usize, life: u32) {
        if self.agents[host].life == life && self.agents[host].frozen > 0 && !self.calm {
            self.crash(host);
        }
    }

    pub(crate) fn thaw(&mut self, host: usize, life: u32) {
        let agent = &mut self.agents[host];
        if agent.life != life || agent.frozen == 0 {
            return;
        }
        agent.frozen -= 1;
        if agent.frozen == 0 {
            self.note(host, What::Resumed);
            self.go_on(host);
        }
    }

    /// The host sleeps.
    pub(crate) fn suspend(&mut self, host: usize, time: Duration) {
        self.count_orphans(host);
        self.hosts[host].suspended += 1;
        self.plan(self.now + time.as_nanos() as u64, Planned::Resumes { host: host as u8 });
    }

    /// The host wakes; its clock has counted the time.
    pub(crate) fn resume(&mut self, host: usize) {
        if self.calm {
            return;
        }
        let suspended = &mut self.hosts[host].suspended;
        *suspended = suspended.saturating_sub(1);
        if *suspended > 0 {
            return;
        }
        self.note(host, What::Resumed);
        for address in 0..self.scenario.addresses.len() {
            self.begins(host, address);
        }
        if self.agents[host].frozen == 0 {
            self.go_on(host);
        }
    }

    /// Where it was: between two steps, or at the head of its loop.
    pub(crate) fn go_on(&mut self, host: usize) {
        if std::mem::take(&mut self.agents[host].halted) {
            self.plan_step(host);
        } else {
            self.run_agent(host);
        }
    }

    fn count_orphans(&mut self, host: usize) {
        let serving = self.hosts[host].addresses();
        let serving = serving.filter(|address| self.hosts[host].answers(self.now, *address));
        self.statistics.orphaned += serving.count() as u64;
    }
}

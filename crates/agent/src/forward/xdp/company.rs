//! Tells the other nodes about flows that no hash explains, and hears of theirs.
//!
//! Remembered flows and translations go to all peers soon after the programs have seen them, and once more a moment
//! later, since the exchange may lose them; a peer that came is told all, piece by piece. What is told in a turn is
//! bounded, and the rest is next turn's. Of the services whose addresses this node has, it tells the hash of their
//! past every second; who has another one asks (`buoy_core::history`).

use super::{Place, ServiceKey, Wanted};
use crate::exchange::{Handle, News};
use crate::forward::owned::Owned;
use buoy_core::fast::{self as core, name_of};
use buoy_core::history::Following;
use buoy_kernel::clock;
use buoy_kernel::fast::{Fast, FlowPlace, Learned};
use buoy_model::limits::HISTORY_BATCH;
use buoy_model::{FlowNews, Instant, NodeId, Remembered, Topic, Translation};
use buoy_wire::exchange::flows as wire;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often it is looked for news, at most.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Looking takes this part of the time at most: of many pools it takes long.
const LOOK_REST: u32 = 20;
/// But never less often.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// How often others are told which past services have.
const TELL: Duration = Duration::from_secs(1);
/// News are told once more after so long.
const AGAIN: Duration = Duration::from_millis(400);
/// Datagrams of each kind in one turn, and to each peer that is told all.
const PARCELS: usize = 48;
/// News that wait to be told once more.
const AGAIN_MAX: usize = 1024;
/// Datagrams that are looked at in one turn; more wait in the exchange's queue.
const HEAR_MAX: usize = 1024;
/// Questions that are answered in one turn.
const ANSWERS_MAX: usize = 8;

/// The way to the other nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    handle: Handle,
    news: mpsc::Receiver<News>,
    owned: watch::Receiver<Owned>,
}

impl Peers {
    /// Over this exchange, of these groups.
    pub(crate) fn new(handle: Handle, owned: watch::Receiver<Owned>) -> Self {
        let news = handle.subscribe(Topic::Flows);
        Self { handle, news, owned }
    }
}

/// What was told and heard.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    told: u64,
    learned: Learned,
    /// Those of them that have a port of a pool.
    translations_learned: u64,
    followed: u64,
    malformed: u64,
}

impl Counts {
    pub(super) const fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("flows_told", self.told),
            ("flows_learned", self.learned.taken),
            ("flows_translations_learned", self.translations_learned),
            ("flows_refused", self.learned.refused),
            ("flows_histories_followed", self.followed),
            ("flows_malformed", self.malformed),
        ]
    }
}

/// The talk with the other nodes.
#[derive(Debug)]
pub(super) struct Company {
    peers: Peers,
    following: Following,
    /// Who is still told all, and where that goes on.
    telling: BTreeMap<NodeId, FlowPlace>,
    again: VecDeque<(Instant, Vec<u8>)>,
    look_at: Instant,
    tell_at: Instant,
    pub(super) counts: Counts,
}

/// The tables that it is about.
pub(super) struct About<'r> {
    pub(super) core: &'r mut core::Fast,
    pub(super) kernel: &'r mut Fast,
}

impl Company {
    pub(super) fn new(now: Instant, peers: Peers) -> Self {
        Self {
            peers,
            following: Following::new(now),
            telling: BTreeMap::new(),
            again: VecDeque::new(),
            look_at: Instant::ZERO,
            tell_at: Instant::ZERO,
            counts: Counts::default(),
        }
    }

    /// Hears what came and tells what is new; whether some table has another past now.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        about: &mut About<'_>,
        services: &[Wanted<'_>],
    ) -> bool {
        let owned = self.peers.owned.borrow().clone();
        let is_ours = |place: &Place| owned.contains(&place.group);
        let ours = services.iter().filter(|s| is_ours(&s.place)).map(|s| s.key).collect();
        let followed = self.hear(now, about, services, &ours);
        for (peer, history, first) in self.following.asks(now) {
            self.say(Some(peer), &FlowNews::Ask(history, first));
        }
        if self.peers.handle.present().is_empty() {
            self.again.clear();
            return followed;
        }
        self.repeat(now);
        if self.tell_at <= now {
            self.tell_at = now + TELL;
            self.tell_histories(about, &ours);
        }
        if self.look_at <= now {
            let begun = clock::now();
            self.tell_flows(now, about);
            let took = clock::now().since(begun);
            self.look_at = begun + (took * LOOK_REST).clamp(LOOK, LOOK_MAX);
            self.tell_all(about);
        }
        followed
    }

    fn say(&self, to: Option<NodeId>, news: &FlowNews) {
        self.peers.handle.send(to, Topic::Flows, wire::emit(news));
    }

    fn hear(
        &mut self,
        now: Instant,
        about: &mut About<'_>,
        services: &[Wanted<'_>],
        ours: &Ours,
    ) -> bool {
        let names: BTreeMap<u64, ServiceKey> =
            services.iter().map(|s| (name_of(s.key), s.key)).collect();
        let (mut followed, mut answers) = (false, 0);
        for _ in 0..HEAR_MAX {
            let Ok(news) = self.peers.news.try_recv() else { break };
            let (peer, body) = match news {
                News::Came(peer) => {
                    self.telling.insert(peer, FlowPlace::FIRST);
                    self.tell_at = now;
                    continue;
                }
                News::Left(peer) => {
                    self.telling.remove(&peer);
                    self.following.forget(peer);
                    continue;
                }
                News::Parcel(peer, body) => (peer, body),
            };
            match wire::parse(&body) {
                None => self.counts.malformed += 1,
                Some(FlowNews::Remembered(flows)) => self.learn(about.kernel.remember(&flows)),
                Some(FlowNews::Translations(flows)) => {
                    let learned = about.kernel.translate(&flows);
                    self.counts.translations_learned += learned.taken;
                    self.learn(learned);
                }
                Some(FlowNews::Histories(told)) => {
                    let follows = |service: u64, history: u64| {
                        names.get(&service).is_some_and(|key| {
                            !ours.contains(key) && about.core.differs(*key, history)
                        })
                    };
                    self.following.hear(now, peer, &told, follows);
                }
                Some(FlowNews::Ask(history, first)) if answers < ANSWERS_MAX => {
                    answers += 1;
                    self.answer(now, about, peer, (history, first));
                }
                // Whoever asked asks again.
                Some(FlowNews::Ask(..)) => {}
                Some(FlowNews::Piece(piece)) => {
                    let told = piece.history;
                    let Some((bytes, of)) = self.following.piece(now, peer, piece) else {
                        continue;
                    };
                    let history = wire::parse_history(&bytes);
                    let keys = of.iter().filter_map(|name| names.get(name)).copied();
                    let done = history.is_some_and(|history| {
                        about.core.follow(now, keys, (told, &history)).is_ok()
                    });
                    self.counts.followed += u64::from(done);
                    self.counts.malformed += u64::from(!done);
                    followed |= done;
                }
            }
        }
        followed
    }

    const fn learn(&mut self, learned: Learned) {
        self.counts.learned.taken += learned.taken;
        self.counts.learned.known += learned.known;
        self.counts.learned.refused += learned.refused;
    }

    fn answer(&self, now: Instant, about: &About<'_>, peer: NodeId, (asked, first): (u64, u16)) {
        let Some(history) = about.core.history(now, asked) else { return };
        let bytes = wire::emit_history(&history);
        for piece in wire::pieces(asked, &bytes, first, HISTORY_BATCH) {
            self.say(Some(peer), &FlowNews::Piece(piece));
        }
    }

    fn tell_histories(&self, about: &About<'_>, ours: &Ours) {
        let all = about.core.histories().filter(|(key, _)| ours.contains(key));
        let all: Vec<(u64, u64)> = all.map(|(key, history)| (name_of(key), history)).collect();
        for some in all.chunks(wire::HISTORIES_MAX) {
            self.say(None, &FlowNews::Histories(some.to_vec()));
        }
    }

    /// Tells all peers what is new.
    fn tell_flows(&mut self, now: Instant, about: &mut About<'_>) {
        let most = (PARCELS * wire::REMEMBERED_MAX, PARCELS * wire::TRANSLATIONS_MAX);
        let news = about.kernel.news(about.core.moving() > 0, most);
        for news in bodies(&news.remembered, &news.translations, &mut self.counts.told) {
            let body = wire::emit(&news);
            self.peers.handle.send(None, Topic::Flows, body.clone());
            if self.again.len() < AGAIN_MAX {
                self.again.push_back((now + AGAIN, body));
            }
        }
    }

    /// Tells once more what may have been lost.
    fn repeat(&mut self, now: Instant) {
        while self.again.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, body)) = self.again.pop_front() {
                self.peers.handle.send(None, Topic::Flows, body);
            }
        }
    }

    /// Goes on to tell all to those who came.
    fn tell_all(&mut self, about: &About<'_>) {
        let most = (PARCELS * wire::REMEMBERED_MAX, PARCELS * wire::TRANSLATIONS_MAX);
        for (peer, place) in std::mem::take(&mut self.telling) {
            let (news, next) = about.kernel.all_from(place, most);
            for news in bodies(&news.remembered, &news.translations, &mut self.counts.told) {
                self.say(Some(peer), &news);
            }
            if let Some(next) = next {
                self.telling.insert(peer, next);
            }
        }
    }
}

/// Services whose addresses this node has.
type Ours = std::collections::BTreeSet<ServiceKey>;

/// What fits into one datagram each.
fn bodies(remembered: &[Remembered], flows: &[Translation], told: &mut u64) -> Vec<FlowNews> {
    *told += (remembered.len() + flows.len()) as u64;
    let (v4, v6): (Vec<Translation>, Vec<Translation>) =
        flows.iter().partition(|flow| flow.client.is_ipv4());
    let remembered = remembered.chunks(wire::REMEMBERED_MAX);
    let mut bodies: Vec<_> = remembered.map(|some| FlowNews::Remembered(some.to_vec())).collect();
    for (all, most) in [(v4, wire::TRANSLATIONS_V4_MAX), (v6, wire::TRANSLATIONS_MAX)] {
        bodies.extend(all.chunks(most).map(|some| FlowNews::Translations(some.to_vec())));
    }
    bodies
}

//! Decides which datagrams of the exchange are believed, and whom to greet when.
//!
//! The tag says that a member wrote a datagram; this machine says that it is new. A session with a life of a peer
//! begins when the peer echoes a challenge that was made for it and for no life before; within a session a
//! window of sequence numbers lets each datagram through once, in any order. So a recording is worth nothing,
//! without clocks that agree and without memory of earlier lives.
//!
//! | heard of a peer | with its session's echo | with the echo that was offered last | with another one |
//! |---|---|---|---|
//! | no session | refused, answered | session begins | refused, answered |
//! | a session with that life | believed once | refused | refused, answered |
//! | a session with another life | refused, answered | new session begins | refused, answered |
//!
//! An answer is a hello that echoes the challenge of what is refused: whoever is there can prove it with the next.

use crate::random::Random;
use alloc::vec::Vec;
use buoy_model::limits::{EXCHANGE_HELLO, EXCHANGE_SILENCE};
use buoy_model::{ClusterId, Desired, ExchangeHeader, Incarnation, Instant, NodeId, Sequence};
use core::time::Duration;

/// Between two answers to what was refused: a flood of recordings makes no flood of answers.
const ANSWER_PAUSE: Duration = Duration::from_millis(50);

/// One end of the exchange.
#[derive(Debug)]
pub struct Exchange {
    cluster: ClusterId,
    me: NodeId,
    incarnation: Incarnation,
    sequence: u64,
    random: Random,
    /// Sorted by id.
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    id: NodeId,
    /// What a life that is not known yet must echo.
    offered: u64,
    session: Option<Session>,
    greet_at: Instant,
    /// When something refused may be answered again.
    answer_at: Instant,
}

#[derive(Debug)]
struct Session {
    life: Incarnation,
    /// What the peer must echo.
    token: u64,
    /// What it wants to be echoed.
    echo: u64,
    window: Window,
    heard_at: Instant,
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// It is new and of a life that is there.
    Believed,
    /// So, and the first of that life: greet it, so that it knows us as well, then tell it all there is.
    Came,
    /// It proves nothing: send this as a hello.
    Answer(ExchangeHeader),
    /// It was heard before, or is not worth an answer.
    Refused,
}

/// What time brings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Due {
    /// Send this as a hello.
    Hello(ExchangeHeader),
    /// Nothing was heard of this peer for too long.
    Left(NodeId),
}

impl Exchange {
    /// Begins with nobody known.
    pub fn new(now: Instant, desired: &Desired, incarnation: Incarnation, seed: u64) -> Self {
        let mut exchange = Self {
            cluster: desired.cluster,
            me: desired.me,
            incarnation,
            sequence: 0,
            random: Random::new(seed),
            peers: Vec::new(),
        };
        let _ = exchange.adopt(now, desired);
        exchange
    }

    /// Follows a new configuration; says who has left with the old one.
    pub fn adopt(&mut self, now: Instant, desired: &Desired) -> Vec<NodeId> {
        let mut left = Vec::new();
        self.peers.retain(|peer| {
            let stays = desired.node(peer.id).is_some();
            if !stays && peer.session.is_some() {
                left.push(peer.id);
            }
            stays
        });
        for node in desired.nodes.iter().filter(|node| node.id != desired.me) {
            if let Err(place) = self.place(node.id) {
                let offered = self.random.next().max(1);
                let peer =
                    Peer { id: node.id, offered, session: None, greet_at: now, answer_at: now };
                self.peers.insert(place, peer);
            }
        }
        left
    }

    /// Peers that are there.
    pub fn present(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|peer| peer.session.is_some()).map(|peer| peer.id)
    }

    /// What to put before a parcel for a peer; `None`: it is not there.
    pub fn header(&mut self, to: NodeId) -> Option<ExchangeHeader> {
        let peer = self.peers.get(self.place(to).ok()?)?;
        peer.session.as_ref()?;
        self.next(to)
    }

    /// A datagram has come whose seal is right.
    pub fn hear(&mut self, now: Instant, header: &ExchangeHeader) -> Heard {
        let Ok(place) = self.place(header.from) else { return Heard::Refused };
        let fresh = self.random.next().max(1);
        let peer = &mut self.peers[place];
        let known = peer.session.as_mut().filter(|session| session.life == header.incarnation);
        if let Some(session) = known {
            if header.echo == session.token {
                if !session.window.take(header.sequence) {
                    return Heard::Refused;
                }
                session.echo = header.challenge;
                session.heard_at = now;
                return Heard::Believed;
            }
            if header.echo == peer.offered {
                return Heard::Refused;
            }
        } else if header.echo == peer.offered {
            let window = Window::starting(header.sequence);
            peer.session = Some(Session {
                life: header.incarnation,
                token: header.echo,
                echo: header.challenge,
                window,
                heard_at: now,
            });
            peer.offered = fresh;
            peer.greet_at = now;
            return Heard::Came;
        }
        if now < peer.answer_at {
            return Heard::Refused;
        }
        peer.answer_at = now + ANSWER_PAUSE;
        let is_known = peer.session.as_ref().filter(|s| s.life == header.incarnation);
        let challenge = is_known.map_or(peer.offered, |session| session.token);
        let answer = self.next(header.from);
        answer.map_or(Heard::Refused, |answer| {
            Heard::Answer(ExchangeHeader { challenge, echo: header.challenge, ..answer })
        })
    }

    /// When `tick` has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let of = |peer: &Peer| {
            let silent_at = peer.session.as_ref().map(|s| s.heard_at + EXCHANGE_SILENCE);
            silent_at.map_or(peer.greet_at, |at| at.min(peer.greet_at))
        };
        self.peers.iter().map(of).min()
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Due>) {
        for place in 0..self.peers.len() {
            let peer = &mut self.peers[place];
            let id = peer.id;
            let is_silent = |s: &Session| now >= s.heard_at + EXCHANGE_SILENCE;
            if peer.session.as_ref().is_some_and(is_silent) {
                peer.session = None;
                out.push(Due::Left(id));
            }
            if now >= peer.greet_at {
                peer.greet_at = now + EXCHANGE_HELLO;
                out.extend(self.next(id).map(Due::Hello));
            }
        }
    }

    fn place(&self, id: NodeId) -> Result<usize, usize> {
        self.peers.binary_search_by_key(&id, |peer| peer.id)
    }

    /// The header of the next datagram to a peer.
    fn next(&mut self, to: NodeId) -> Option<ExchangeHeader> {
        let peer = self.peers.get(self.place(to).ok()?)?;
        self.sequence += 1;
        let session = peer.session.as_ref();
        Some(ExchangeHeader {
            cluster: self.cluster,
            from: self.me,
            to,
            incarnation: self.incarnation,
            sequence: Sequence(self.sequence),
            challenge: session.map_or(peer.offered, |session| session.token),
            echo: session.map_or(0, |session| session.echo),
        })
    }
}

/// Which of the latest sequence numbers were heard.
#[derive(Debug)]
struct Window {
    newest: u64,
    /// Bit n: the one that is n older than the newest.
    heard: u128,
}

impl Window {
    const fn starting(at: Sequence) -> Self {
        Self { newest: at.0, heard: 1 }
    }

    /// Whether this one is heard for the first time; what is too old to say is not.
    fn take(&mut self, sequence: Sequence) -> bool {
        if sequence.0 > self.newest {
            let by = u32::try_from(sequence.0 - self.newest).unwrap_or(u32::MAX);
            self.heard = self.heard.checked_shl(by).unwrap_or(0) | 1;
            self.newest = sequence.0;
            return true;
        }
        let age = u32::try_from(self.newest - sequence.0).unwrap_or(u32::MAX);
        let Some(bit) = 1_u128.checked_shl(age) else { return false };
        let is_new = self.heard & bit == 0;
        self.heard |= bit;
        is_new
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;

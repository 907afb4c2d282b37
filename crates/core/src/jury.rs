//! Decides what holds of a backend that some of the nodes ask: whose turn it is to ask, and what their answers
//! come to.
//!
//! Each backend is asked by a few nodes, the same ones in everybody's eyes: those of the nodes that are there
//! which a hash of both puts first. They tell all others, again and again, so nothing depends on one datagram.
//! From the same answers every node comes to the same verdict, without a vote and without a leader: down is
//! what more askers call down than up. So one node whose own path is broken takes no backend from the others.
//!
//! Answers grow old. Where none is fresh, what was known holds, and a node asks for itself, whoever's turn it is.
//! A node that finds nearly everything down which the others reach is more likely to be wrong than they
//! are: nobody counts its answers, itself included, and it says so.
//!
//! Absent on purpose: clocks, sockets, reasons in words, and how a backend is asked (`check`).

use crate::random::mix;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use buoy_model::{BackendState, Instant, NodeId, Opinion, Subject};
use core::cmp::Reverse;
use core::time::Duration;

/// An answer that was not said again for so long does not count: five are said in that time.
pub const ANSWER_AGE_MAX: Duration = Duration::from_secs(5);
/// So many tenths of what a node answers for must be down for it to be doubted.
const NEARLY_ALL: usize = 9;
/// Fewer answers are no reason to doubt anybody.
const DOUBT_MIN: usize = 2;

/// Whose turn it is: so many of the nodes that are there, in the order of a hash that all agree on.
pub fn askers(subject: Subject, there: &[NodeId], count: usize) -> Vec<NodeId> {
    let mut all: Vec<NodeId> = there.to_vec();
    all.sort_unstable_by_key(|node| Reverse((mix(subject.0 ^ mix(u64::from(node.0))), node.0)));
    all.dedup();
    all.truncate(count.max(1));
    all
}

/// What the nodes have answered, as one of them knows it.
#[derive(Clone, Debug)]
pub struct Jury {
    me: NodeId,
    answers: BTreeMap<Subject, BTreeMap<NodeId, Answer>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Answer {
    opinion: Opinion,
    /// When it was said last; its own are as good as new.
    said: Instant,
}

/// What all that comes to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdicts {
    /// What holds of each subject of which a fresh answer counts.
    pub of: BTreeMap<Subject, Verdict>,
    /// What this node has to ask.
    pub mine: Vec<Subject>,
    /// Whose answers do not count, because they alone find nearly everything down.
    pub doubted: Vec<NodeId>,
}

/// What holds of one backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// Whether it may get new connections.
    pub state: BackendState,
    /// The share of its weight that it takes, in percent.
    pub share: u16,
    /// Whose words to show: the first node of those that agree.
    pub by: NodeId,
    /// How many askers agree.
    pub agree: usize,
    /// How many askers there are.
    pub of: usize,
}

impl Jury {
    /// Nobody has said anything.
    pub const fn new(me: NodeId) -> Self {
        Self { me, answers: BTreeMap::new() }
    }

    /// What a node says of a backend now; `None`: nothing any more. Whether that is anything new.
    pub fn hear(
        &mut self,
        now: Instant,
        node: NodeId,
        subject: Subject,
        said: Option<Opinion>,
    ) -> bool {
        let answers = self.answers.entry(subject).or_default();
        let before = match said {
            // Not asked yet is no answer.
            Some(Opinion { state: BackendState::Unknown, .. }) | None => answers.remove(&node),
            Some(opinion) => answers.insert(node, Answer { opinion, said: now }),
        };
        let after = answers.get(&node).map(|answer| answer.opinion);
        if answers.is_empty() {
            self.answers.remove(&subject);
        }
        before.map(|answer| answer.opinion) != after
    }

    /// A node is not there any more, and what it has said does not count.
    pub fn forget(&mut self, node: NodeId) {
        self.answers.retain(|_, answers| {
            answers.remove(&node);
            !answers.is_empty()
        });
    }

    /// What holds of the subjects, each asked by so many of the nodes that are there.
    pub fn judge(
        &mut self,
        now: Instant,
        subjects: &BTreeMap<Subject, usize>,
        there: &[NodeId],
    ) -> Verdicts {
        let me = self.me;
        let fresh = |node: &NodeId, answer: &Answer| {
            *node == me || (there.contains(node) && now.since(answer.said) <= ANSWER_AGE_MAX)
        };
        self.answers.retain(|subject, answers| {
            answers.retain(|node, answer| fresh(node, answer));
            subjects.contains_key(subject) && !answers.is_empty()
        });
        let doubted = self.doubted();
        let mut verdicts = Verdicts { doubted, ..Verdicts::default() };
        for (subject, count) in subjects {
            let turn = askers(*subject, there, *count).contains(&me);
            let verdict = self.answers.get(subject).and_then(|all| verdict(all, &verdicts.doubted));
            // Nobody whose turn it is has said anything lately: they may not know that it is.
            let heard = self.answers.get(subject).is_some_and(|all| all.keys().any(|n| *n != me));
            if turn || !heard {
                verdicts.mine.push(*subject);
            }
            if let Some(verdict) = verdict {
                verdicts.of.insert(*subject, verdict);
            }
        }
        verdicts
    }

    /// Those that find nearly all down of what they answer for, where the others find most of that up.
    fn doubted(&self) -> Vec<NodeId> {
        #[derive(Default)]
        struct Count {
            compared: usize,
            down: usize,
            alone: usize,
        }
        let mut counts: BTreeMap<NodeId, Count> = BTreeMap::new();
        for answers in self.answers.values().filter(|answers| 1 < answers.len()) {
            let up = answers.values().filter(|a| a.opinion.state == BackendState::Up).count();
            for (node, answer) in answers {
                let count = counts.entry(*node).or_default();
                count.compared += 1;
                if answer.opinion.state == BackendState::Down {
                    count.down += 1;
                    // Its own answer is none of those that are up.
                    count.alone += usize::from(answers.len() - 1 - up < up);
                }
            }
        }
        let is_doubted = |count: &Count| {
            DOUBT_MIN <= count.compared
                && NEARLY_ALL * count.compared <= 10 * count.down
                && count.compared < 2 * count.alone
        };
        counts.into_iter().filter(|(_, count)| is_doubted(count)).map(|(node, _)| node).collect()
    }
}

/// Down is what more call down than up; the others' doubts are left out, unless nothing else was said.
fn verdict(answers: &BTreeMap<NodeId, Answer>, doubted: &[NodeId]) -> Option<Verdict> {
    let counted = |node: &NodeId| !doubted.contains(node);
    let some = answers.keys().any(counted);
    let all: Vec<(NodeId, Opinion)> = answers
        .iter()
        .filter(|(node, _)| counted(node) || !some)
        .map(|(node, answer)| (*node, answer.opinion))
        .collect();
    let down = all.iter().filter(|(_, opinion)| opinion.state == BackendState::Down).count();
    let is_down = all.len() < 2 * down;
    let state = if is_down { BackendState::Down } else { BackendState::Up };
    let agree = if is_down { down } else { all.len() - down };
    let (by, opinion) = all.iter().find(|(_, opinion)| opinion.state == state)?;
    Some(Verdict { state, share: opinion.share, by: *by, agree, of: all.len() })
}

#[cfg(test)]
#[path = "jury_tests.rs"]
mod tests;

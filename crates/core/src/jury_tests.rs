//! Tables of answers and what they come to, and many nodes that hear each other badly and agree in the end.

use super::*;
use alloc::vec;

const UP: BackendState = BackendState::Up;
const DOWN: BackendState = BackendState::Down;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn opinion(state: BackendState) -> Opinion {
    Opinion { state, share: 100 }
}

fn subjects(count: u64, askers: usize) -> BTreeMap<Subject, usize> {
    (1..=count).map(|n| (Subject(mix(n)), askers)).collect()
}

fn nodes(count: u32) -> Vec<NodeId> {
    (1..=count).map(NodeId).collect()
}

#[test]
fn every_node_agrees_on_the_askers_and_each_has_its_share_of_the_work() {
    let there = nodes(5);
    let mut turned = there.clone();
    turned.reverse();
    let all = subjects(10_000, 3);
    let mut work = BTreeMap::new();
    for subject in all.keys() {
        let chosen = askers(*subject, &there, 3);
        assert_eq!(chosen, askers(*subject, &turned, 3));
        assert_eq!(chosen.len(), 3);
        // Whoever leaves makes room for one, and the others go on.
        let fewer: Vec<NodeId> = there.iter().copied().filter(|n| *n != chosen[0]).collect();
        let after = askers(*subject, &fewer, 3);
        assert!(chosen[1..].iter().all(|node| after.contains(node)));
        for node in chosen {
            *work.entry(node).or_insert(0_usize) += 1;
        }
    }
    for (node, count) in work {
        assert!((5_700..=6_300).contains(&count), "{node:?}: {count}");
    }
    assert_eq!(askers(Subject(1), &nodes(2), 3).len(), 2);
    assert_eq!(askers(Subject(1), &[], 3), []);
}

#[test]
fn more_askers_decide_and_a_tie_is_up() {
    type Case = (&'static [BackendState], Option<(BackendState, usize)>);
    let table: [Case; 7] = [
        (&[], None),
        (&[UP], Some((UP, 1))),
        (&[DOWN], Some((DOWN, 1))),
        (&[UP, DOWN], Some((UP, 1))),
        (&[DOWN, DOWN], Some((DOWN, 2))),
        (&[UP, DOWN, DOWN], Some((DOWN, 2))),
        (&[UP, UP, DOWN], Some((UP, 2))),
    ];
    let only = subjects(1, 3);
    let subject = *only.keys().next().unwrap();
    for (said, expected) in table {
        let mut jury = Jury::new(NodeId(9));
        for (node, state) in (1..).zip(said) {
            jury.hear(at(0), NodeId(node), subject, Some(opinion(*state)));
        }
        let verdicts = jury.judge(at(0), &only, &nodes(9));
        let found = verdicts.of.get(&subject).map(|verdict| (verdict.state, verdict.agree));
        assert_eq!(found, expected, "{said:?}");
        assert_eq!(verdicts.doubted, [], "one backend is no reason to doubt anybody");
    }
}

#[test]
fn an_answer_that_is_not_said_again_does_not_count_and_one_asks_oneself() {
    let only = subjects(1, 1);
    let subject = *only.keys().next().unwrap();
    let there = nodes(3);
    let asker = askers(subject, &there, 1)[0];
    let me = *there.iter().find(|node| **node != asker).unwrap();
    let mut jury = Jury::new(me);
    assert_eq!(jury.judge(at(0), &only, &there).mine, [subject], "nobody has said anything");
    jury.hear(at(0), asker, subject, Some(opinion(DOWN)));
    let heard = jury.judge(at(5_000), &only, &there);
    assert_eq!((heard.mine.as_slice(), heard.of[&subject].state), (&[][..], DOWN));
    let stale = jury.judge(at(5_001), &only, &there);
    assert_eq!((stale.mine.as_slice(), stale.of.len()), (&[subject][..], 0));
    // Its own answer is not said to itself, and is fresh as long as it is one.
    jury.hear(at(5_001), me, subject, Some(opinion(UP)));
    assert_eq!(jury.judge(at(60_000), &only, &there).of[&subject].state, UP);
    jury.hear(at(60_000), me, subject, None);
    assert_eq!(jury.judge(at(60_000), &only, &there).of.len(), 0);
    jury.hear(at(60_000), asker, subject, Some(opinion(UP)));
    jury.forget(asker);
    assert_eq!(jury.judge(at(60_000), &only, &there).of.len(), 0, "it has left");
}

#[test]
fn a_node_that_alone_finds_nearly_all_down_is_doubted_by_all() {
    let all = subjects(20, 2);
    let there = nodes(3);
    // Node 1 finds so many down of twenty; node 2 so many, node 3 so many.
    type Case = ([usize; 3], &'static [u32]);
    let table: [Case; 8] = [
        ([20, 0, 0], &[1]),
        ([18, 0, 0], &[1]),
        ([17, 0, 0], &[]),
        ([20, 9, 9], &[1]),
        // Half of them are down for the others too.
        ([20, 10, 10], &[]),
        ([20, 20, 20], &[]),
        // Two against one: who is right cannot be known, and the more are believed.
        ([20, 20, 0], &[]),
        ([0, 0, 0], &[]),
    ];
    for (down, expected) in table {
        let mut juries: Vec<Jury> = there.iter().map(|node| Jury::new(*node)).collect();
        for jury in &mut juries {
            for (node, down) in there.iter().zip(down) {
                for (place, subject) in all.keys().enumerate() {
                    let state = if place < down { DOWN } else { UP };
                    jury.hear(at(0), *node, *subject, Some(opinion(state)));
                }
            }
        }
        let found: Vec<Verdicts> =
            juries.iter_mut().map(|jury| jury.judge(at(0), &all, &there)).collect();
        let expected: Vec<NodeId> = expected.iter().copied().map(NodeId).collect();
        for verdicts in &found {
            assert_eq!(verdicts.doubted, expected, "{down:?}");
            assert_eq!(verdicts.of, found[0].of, "{down:?}");
        }
    }
}

/// Whatever is lost, late, heard twice or in another order, whoever comes and goes: once all is calm, all nodes
/// know the same, it is what the askers find, and each backend is asked by as many as it should be.
#[test]
fn nodes_that_hear_each_other_badly_know_the_same_in_the_end() {
    for seed in 0..200 {
        let mut random = crate::random::Random::new(seed);
        let mut below = |end: u64| random.next() % end;
        let count = 2 + below(4);
        let all = subjects(1 + below(30), 1 + usize::try_from(below(4)).unwrap());
        let everybody = nodes(u32::try_from(count).unwrap());
        let mut juries: Vec<Jury> = everybody.iter().map(|node| Jury::new(*node)).collect();
        let mut mine: Vec<Vec<Subject>> = everybody.iter().map(|_| vec![]).collect();
        // What each would find; it changes while it is not calm.
        let mut truth: BTreeMap<(NodeId, Subject), BackendState> = BTreeMap::new();
        let mut late: Vec<(NodeId, NodeId, Subject, Opinion)> = vec![];
        let mut judged: Vec<Verdicts> = vec![];
        for second in 0..60_u64 {
            let calm = 40 <= second;
            let now = at(second * 1_000);
            judged.clear();
            for place in 0..juries.len() {
                let me = everybody[place];
                let sees = |other: NodeId, below: &mut dyn FnMut(u64) -> u64| {
                    calm || other == me || below(4) != 0
                };
                let there: Vec<NodeId> =
                    everybody.iter().copied().filter(|n| sees(*n, &mut below)).collect();
                let before = core::mem::take(&mut mine[place]);
                for subject in all.keys() {
                    if !calm && below(5) == 0 {
                        let state = if below(2) == 0 { UP } else { DOWN };
                        truth.insert((me, *subject), state);
                    }
                    let state = truth.get(&(me, *subject)).copied().unwrap_or(UP);
                    let said = before.contains(subject).then(|| opinion(state));
                    juries[place].hear(now, me, *subject, said);
                    for other in everybody.iter().filter(|other| **other != me) {
                        let Some(said) = said else { continue };
                        match if calm { 0 } else { below(4) } {
                            0 => late.insert(0, (me, *other, *subject, said)),
                            1 => late.push((me, *other, *subject, said)),
                            2 => late.extend([(me, *other, *subject, said); 2]),
                            _ => {}
                        }
                    }
                }
                let verdicts = juries[place].judge(now, &all, &there);
                mine[place].clone_from(&verdicts.mine);
                judged.push(verdicts);
            }
            let keep = if calm { 0 } else { late.len() / 3 };
            for (from, to, subject, said) in late.drain(keep..) {
                let place = everybody.iter().position(|node| *node == to).unwrap();
                juries[place].hear(now, from, subject, Some(said));
            }
        }
        for (subject, count) in &all {
            let chosen = askers(*subject, &everybody, *count);
            for (place, node) in everybody.iter().enumerate() {
                assert_eq!(judged[place].of, judged[0].of, "seed {seed}");
                assert_eq!(
                    mine[place].contains(subject),
                    chosen.contains(node),
                    "seed {seed}: {node:?} of {chosen:?}"
                );
            }
            if judged[0].doubted.is_empty() {
                let down = chosen.iter().filter(|n| truth.get(&(**n, *subject)) == Some(&DOWN));
                let state = if chosen.len() < 2 * down.count() { DOWN } else { UP };
                assert_eq!(judged[0].of[subject].state, state, "seed {seed}");
            }
        }
    }
}

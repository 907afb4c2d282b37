//! Tables for the state machine of one group: every pair of state and judgement.

use super::*;
use alloc::string::String;
use alloc::vec;
use buoy_model::{Cidr, GroupId, LinkId, Presence, VipAddress};
use core::net::Ipv4Addr;

const LEASE: Duration = Duration::from_millis(50);

fn group(safety: Safety) -> Group {
    Group {
        safety,
        ..Group::new(
            GroupId(1),
            "web",
            vec![VipAddress {
                cidr: Cidr::new(Ipv4Addr::new(10, 0, 0, 100).into(), 24).unwrap(),
                link: Some(LinkId(2)),
                link_name: String::from("eth0"),
                vip_name: "web".into(),
                presence: Presence::Assigned,
            }],
        )
    }
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn context(group: &Group, now: Instant) -> Context<'_> {
    Context {
        now,
        group,
        gated: true,
        lifetime: Lifetime::of(true, 1),
        majority: 2,
        next: Sequence(7),
        shared_until: Instant::ZERO,
        own_lease_end: now + LEASE,
        patience: LEASE,
    }
}

/// The three states, made the way they come about.
fn states(group: &Group) -> [Ownership; 3] {
    let idle = Ownership::new(group);
    let mut wanting = Ownership::new(group);
    let votes = Votes::new(Sequence(7));
    wanting.state = State::Wanting { since: at(0), cause: Cause::NoOwner, votes, ready: false };
    let mut holding = wanting.clone();
    if let Some(votes) = holding.votes_mut() {
        votes.add(0, Sequence(7), at(50));
        votes.add(1, Sequence(7), at(50));
    }
    match group.safety {
        Safety::Exclusive => {
            holding.counted(context(group, at(1)), &mut Renewals::new(), &mut vec![])
        }
        Safety::Available => holding.acquire(context(group, at(1)), at(50), &mut vec![]),
    }
    assert_eq!(holding.claim(), ClaimKind::Holds);
    [idle, wanting, holding]
}

fn judgements() -> [Judgement; 4] {
    [
        Judgement::Take { cause: Cause::NoOwner, from: None },
        Judgement::Leave,
        Judgement::Yield { cause: Cause::Drain, to: NodeId(0) },
        Judgement::GiveUp(Cause::Reload),
    ]
}

#[test]
fn every_judgement_in_every_state() {
    use ClaimKind::{Eligible, Holds, Wants, Yields};
    // Rows: idle, wanting, holding. Columns: take, leave, yield, give up.
    let table = [
        (
            Safety::Exclusive,
            [[Wants, Eligible, Eligible, Eligible]; 2],
            [Holds, Holds, Yields, Eligible],
        ),
        (
            Safety::Available,
            [[Holds, Eligible, Eligible, Eligible]; 2],
            [Holds, Holds, Yields, Eligible],
        ),
    ];
    for (safety, [idle, wanting], holding) in table {
        let group = group(safety);
        for (row, wanted) in [idle, wanting, holding].into_iter().enumerate() {
            for (judgement, wanted) in judgements().into_iter().zip(wanted) {
                let mut ownership = states(&group)[row].clone();
                // A group that may be had without votes is never merely wanted.
                let wanted = if row == 1
                    && judgement == (Judgement::Take { cause: Cause::NoOwner, from: None })
                {
                    Wants
                } else {
                    wanted
                };
                ownership.judged(context(&group, at(2)), judgement.clone(), &mut vec![]);
                assert_eq!(ownership.claim(), wanted, "{safety:?} row {row} {judgement:?}");
            }
        }
    }
}

#[test]
fn serving_ends_in_the_one_safe_order() {
    let group = group(Safety::Exclusive);
    let [_, _, mut holding] = states(&group);
    let mut out = vec![];
    holding.judged(context(&group, at(2)), Judgement::GiveUp(Cause::Stop), &mut out);
    assert!(matches!(out[0], Action::Fence { until: Instant::ZERO, .. }));
    assert!(matches!(out[1], Action::RemoveAddress { .. }));
    assert!(matches!(out[2], Action::Record(_)));
    assert_eq!(out.len(), 3);
}

#[test]
fn a_lease_is_only_ever_extended_and_the_gate_is_told_each_time() {
    let group = group(Safety::Exclusive);
    let [_, _, mut holding] = states(&group);
    let before = holding.holding().unwrap().until(Instant::ZERO);
    let mut out = vec![];
    holding.counted(context(&group, at(2)), &mut Renewals::new(), &mut out);
    assert_eq!(out, [], "nothing new, nothing to tell");
    let votes = holding.votes_mut().unwrap();
    votes.add(0, Sequence(8), at(60));
    votes.add(1, Sequence(8), at(61));
    holding.counted(context(&group, at(3)), &mut Renewals::new(), &mut out);
    assert!(holding.holding().unwrap().until(Instant::ZERO) > before);
    assert!(matches!(out[..], [Action::Fence { until, .. }] if until == at(60)));
}

#[test]
fn without_a_gate_nothing_is_served_that_the_kernel_could_not_forget_in_time() {
    let group = group(Safety::Exclusive);
    for (left, wanted) in
        [(KERNEL_FENCE_LAG, ClaimKind::Wants), (KERNEL_FENCE_LAG * 2, ClaimKind::Holds)]
    {
        let [_, mut wanting, _] = states(&group);
        let now = at(5);
        let votes = wanting.votes_mut().unwrap();
        votes.add(0, Sequence(7), now + left);
        votes.add(1, Sequence(7), now + left);
        let ungated =
            Context { gated: false, lifetime: Lifetime::of(false, 1), ..context(&group, now) };
        wanting.counted(ungated, &mut Renewals::new(), &mut vec![]);
        assert_eq!(wanting.claim(), wanted);
    }
}

#[test]
fn without_a_gate_the_address_is_not_renewed_when_the_lease_is_short() {
    let group = group(Safety::Exclusive);
    let [_, mut ownership, _] = states(&group);
    let votes = ownership.votes_mut().unwrap();
    votes.add(0, Sequence(7), at(2_500));
    votes.add(1, Sequence(7), at(2_500));
    let ungated =
        |now| Context { gated: false, lifetime: Lifetime::of(false, 1), ..context(&group, now) };
    ownership.counted(ungated(at(1)), &mut Renewals::new(), &mut vec![]);
    let renewed = |ownership: &mut Ownership, now| {
        let mut out = vec![];
        ownership.serve(ungated(now), &mut out);
        out.iter().any(|a| matches!(a, Action::AddAddress { .. }))
    };
    assert!(renewed(&mut ownership, at(400)));
    assert!(!renewed(&mut ownership, at(1_200)), "1.3 s are left, the kernel may need 1.4 s");
}

#[test]
fn a_yield_that_nobody_follows_ends_in_time() {
    for safety in [Safety::Exclusive, Safety::Available] {
        ends_a_yield_in_time(&group(safety));
    }
}

fn ends_a_yield_in_time(group: &Group) {
    let [_, _, mut holding] = states(group);
    let mut out = vec![];
    holding.judged(
        context(group, at(2)),
        Judgement::Yield { cause: Cause::Stop, to: NodeId(0) },
        &mut out,
    );
    assert_eq!(holding.claim(), ClaimKind::Yields);
    let end = at(2) + LEASE;
    assert!(holding.deadline().unwrap() <= end);
    holding.judged(
        context(group, end),
        Judgement::Yield { cause: Cause::Stop, to: NodeId(0) },
        &mut out,
    );
    assert_eq!(holding.claim(), ClaimKind::Eligible);
}

#[test]
fn who_stepped_back_waits_and_a_passed_pause_is_no_deadline() {
    let group = group(Safety::Exclusive);
    let [_, mut wanting, _] = states(&group);
    wanting.step_back(&group, at(30), &mut vec![]);
    wanting.judged(
        context(&group, at(10)),
        Judgement::Take { cause: Cause::NoOwner, from: None },
        &mut vec![],
    );
    assert_eq!(wanting.claim(), ClaimKind::Eligible);
    assert_eq!(wanting.deadline(), Some(at(30)));
    wanting.judged(context(&group, at(30)), Judgement::Leave, &mut vec![]);
    assert_eq!(wanting.deadline(), None, "or the driver would spin");
}

#[test]
fn a_successor_is_ready_behind_a_closed_gate_and_takes_back_what_it_made_ready() {
    let group = group(Safety::Exclusive);
    let [mut idle, mut wanting, _] = states(&group);
    let from_owner = Judgement::Take { cause: Cause::NoOwner, from: Some(NodeId(9)) };
    for ownership in [&mut idle, &mut wanting] {
        let mut out = vec![];
        ownership.judged(context(&group, at(2)), from_owner.clone(), &mut out);
        assert_eq!(ownership.claim(), ClaimKind::Wants);
        assert!(matches!(out[0], Action::Fence { until: Instant::ZERO, lease: None, .. }));
        assert!(matches!(out[1], Action::AddAddress { .. }));
        out.clear();
        ownership.judged(context(&group, at(3)), from_owner.clone(), &mut out);
        assert_eq!(out, [], "ready once is ready");
        ownership.judged(context(&group, at(4)), Judgement::Leave, &mut out);
        assert!(matches!(out[..], [Action::RemoveAddress { .. }]));
    }
}

#[test]
fn without_a_gate_nothing_is_made_ready_early() {
    let group = group(Safety::Exclusive);
    let [mut idle, _, _] = states(&group);
    let from_owner = Judgement::Take { cause: Cause::NoOwner, from: Some(NodeId(9)) };
    let mut out = vec![];
    idle.judged(
        Context { gated: false, lifetime: Lifetime::of(false, 1), ..context(&group, at(2)) },
        from_owner,
        &mut out,
    );
    assert_eq!(idle.claim(), ClaimKind::Wants);
    assert_eq!(out, []);
}

#[test]
fn whoever_hands_over_does_not_ask_for_it_back_at_once() {
    let group = group(Safety::Exclusive);
    let [_, _, mut holding] = states(&group);
    holding.hand_over(context(&group, at(2)), Cause::Drain, &mut vec![]);
    let take = Judgement::Take { cause: Cause::NoOwner, from: None };
    holding.judged(context(&group, at(3)), take.clone(), &mut vec![]);
    assert_eq!(holding.claim(), ClaimKind::Eligible);
    let later = holding.deadline().unwrap();
    holding.judged(context(&group, later), take, &mut vec![]);
    assert_eq!(holding.claim(), ClaimKind::Wants);
}

#[test]
fn whoever_handed_over_comes_forward_when_the_new_owner_names_it() {
    let group = group(Safety::Exclusive);
    let [_, _, mut holding] = states(&group);
    holding.hand_over(context(&group, at(2)), Cause::Drain, &mut vec![]);
    holding.another_serves();
    let from_owner = Judgement::Take { cause: Cause::NoOwner, from: Some(NodeId(9)) };
    holding.judged(context(&group, at(3)), from_owner, &mut vec![]);
    assert_eq!(holding.claim(), ClaimKind::Wants);
}

#[test]
fn a_shared_lease_is_told_to_the_gate_once_and_parted_from_with_what_is_left() {
    let group = group(Safety::Exclusive);
    let [_, _, mut holding] = states(&group);
    let mut renewals = Renewals::new();
    renewals.add(0, Sequence(8), at(70));
    renewals.add(1, Sequence(8), at(71));
    renewals.renew(2);
    let mut out = vec![];
    holding.counted(context(&group, at(3)), &mut renewals, &mut out);
    let shared = Some(SharedLease::Majority);
    assert!(
        matches!(out[..], [Action::Fence { until, lease, .. }] if until == at(70) && lease == shared)
    );
    assert!(!holding.has_own_lease());
    assert_eq!(holding.holding().unwrap().until(at(90)), at(90));
    out.clear();
    let c = Context { shared_until: at(90), ..context(&group, at(4)) };
    holding.part(c, &mut out);
    assert!(matches!(out[..], [Action::Fence { until, lease: None, .. }] if until == at(90)));
    assert_eq!(holding.holding().unwrap().until(at(200)), at(90));
    assert!(holding.has_own_lease());
}

#[test]
fn what_need_not_go_stays_until_its_successor_is_ready() {
    let to = NodeId(9);
    for cause in [Cause::Failback { to }, Cause::Moved { to, reason: "x".into() }] {
        let group = group(Safety::Exclusive);
        let [_, _, mut holding] = states(&group);
        let yields = Judgement::Yield { cause, to };
        holding.judged(context(&group, at(2)), yields.clone(), &mut vec![]);
        assert_eq!((holding.claim(), holding.yields_to()), (ClaimKind::Yields, to));
        holding.judged(context(&group, at(2) + LEASE * 9), yields, &mut vec![]);
        assert_eq!(holding.claim(), ClaimKind::Yields, "nobody has it meanwhile");
        let keep = Judgement::Take { cause: Cause::NoOwner, from: None };
        holding.judged(context(&group, at(2) + LEASE * 9), keep, &mut vec![]);
        assert_eq!(holding.claim(), ClaimKind::Holds);
    }
}

#[test]
fn an_address_that_is_on_no_interface_is_said_and_unsaid_as_such() {
    let mut group = group(Safety::Exclusive);
    group.addresses[0].presence = Presence::Answered;
    let mut out = Vec::new();
    add_addresses(context(&group, at(0)), at(50), &mut out);
    remove_addresses(&group, &mut out);
    let [Action::AddAddress { presence: said, .. }, Action::RemoveAddress { presence: unsaid, .. }] =
        out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!((said, unsaid), (Presence::Answered, Presence::Answered));
}

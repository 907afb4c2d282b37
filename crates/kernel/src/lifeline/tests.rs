//! What the supervisor can rely on, with threads that die; processes that die are in `tests/lifeline.rs`.

use super::*;
use std::sync::mpsc::channel;
use std::thread;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn pair() -> (Lifeline, Watch) {
    let lifeline = Lifeline::create().unwrap();
    let watch = Watch::open(&lifeline).unwrap();
    (lifeline, watch)
}

fn told(watch: &Watch) -> Vec<(usize, SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    watch.goodbyes(|leg, to, bytes| all.push((leg, to, bytes.to_vec())));
    all
}

#[test]
fn no_death_of_a_thousand_is_missed() {
    for round in 0..1000 {
        let (lifeline, watch) = pair();
        let (ready, held) = channel();
        let loop_thread = thread::spawn(move || {
            let hold = lifeline.hold().unwrap();
            hold.beat(clock::now());
            ready.send(()).unwrap();
            // Half of the deaths come while the watcher falls asleep, half about before that.
            (0..round % 2 * 500).for_each(|_| std::hint::spin_loop());
        });
        held.recv().unwrap();
        let mut seen = watch.wait(PATIENCE);
        // The first sleep may be refused, because the word changed.
        while matches!(seen, Seen::Alive(_)) {
            seen = watch.wait(PATIENCE);
        }
        assert_eq!(seen, Seen::Died, "round {round}");
        loop_thread.join().unwrap();
    }
}

#[test]
fn a_panic_of_the_loop_is_its_death() {
    let (lifeline, watch) = pair();
    let loop_thread = thread::spawn(move || {
        let _hold = lifeline.hold().unwrap();
        std::panic::resume_unwind(Box::new("silently"));
    });
    loop_thread.join().unwrap_err();
    assert_eq!(watch.wait(PATIENCE), Seen::Died);
}

#[test]
fn an_orderly_end_is_no_death() {
    let (lifeline, watch) = pair();
    let sleeper = thread::spawn(move || {
        let mut seen = watch.wait(PATIENCE);
        while matches!(seen, Seen::Alive(_)) {
            seen = watch.wait(PATIENCE);
        }
        (seen, watch)
    });
    thread::spawn(move || lifeline.hold().unwrap().end()).join().unwrap();
    let (seen, watch) = sleeper.join().unwrap();
    assert_eq!(seen, Seen::Ended);
    // The thread is dead by now.
    assert_eq!(watch.wait(PATIENCE), Seen::Ended);
}

#[test]
fn a_loop_that_lives_is_told_from_one_that_stands_still() {
    let (lifeline, watch) = pair();
    let hold = lifeline.hold().unwrap();
    assert_eq!(lifeline.hold().unwrap_err(), LifelineError::Held);
    let noted = |at: Instant| Seen::Alive(Instant::from_nanos(at.as_nanos() / 1000 * 1000));
    let before = clock::now();
    hold.beat(before);
    assert_eq!(watch.wait(Duration::from_millis(1)), noted(before));
    assert_eq!(watch.wait(Duration::from_millis(1)), noted(before));
    let next = clock::now();
    hold.beat(next);
    assert_eq!(watch.look(), noted(next));
    assert!(before < next);
    hold.set_patience(Duration::from_millis(36));
    assert_eq!(watch.patience(), Duration::from_millis(36));
}

#[test]
fn the_time_of_a_turn_is_known_however_often_its_count_has_gone_round() {
    let at = |micros: u64| Instant::from_nanos(micros * NANOS_PER_MICRO);
    let round = 1 << 32;
    let minute = 60_000_000;
    for (case, turned, now, expected) in [
        ("at the start", 0, 5, 0),
        ("just now", 7 * round + 9, 7 * round + 9, 7 * round + 9),
        ("before the count went round", 3 * round - 2, 3 * round + 35_000, 3 * round - 2),
        ("half an hour ago", round, round + 30 * minute, round),
        ("too long ago to be told", round, round + 40 * minute, round + 40 * minute),
        ("noted after the time was taken", round + 1, round, round),
    ] {
        assert_eq!(moment(micros(at(turned)), at(now)), at(expected), "{case}");
    }
}

#[test]
fn a_goodbye_arrives_as_it_was_sealed_or_not_at_all() {
    let (lifeline, watch) = pair();
    let hold = lifeline.hold().unwrap();
    assert_eq!(told(&watch), []);
    let v4: SocketAddr = "192.0.2.7:4747".parse().unwrap();
    let v6: SocketAddr = "[fe80::1:2:3%5]:65535".parse().unwrap();
    let long: Vec<u8> = (0..GOODBYE_LEN_MAX).map(|i| i as u8).collect();
    hold.set_goodbye(0, v4, b"farewell!").unwrap();
    hold.set_goodbye(GOODBYES_MAX - 1, v6, &long).unwrap();
    assert_eq!(hold.set_goodbye(GOODBYES_MAX, v4, b"x"), Err(NoRoom));
    assert_eq!(hold.set_goodbye(1, v4, &[0; GOODBYE_LEN_MAX + 1]), Err(NoRoom));
    let both = [(0, v4, b"farewell!".to_vec()), (LEGS_MAX - 1, v6, long)];
    assert_eq!(told(&watch), both);

    // A writer that died at any point of its work has left the lock odd.
    let words = goodbyes(lifeline.words).next().unwrap();
    words[LOCK].fetch_add(1, Ordering::Relaxed);
    assert_eq!(told(&watch), both[1..]);
    words[LOCK].fetch_add(1, Ordering::Relaxed);
    assert_eq!(told(&watch), both);

    hold.clear_goodbye(0).unwrap();
    assert_eq!(told(&watch), both[1..]);
}

#[test]
fn a_goodbye_that_changes_meanwhile_is_one_or_the_other() {
    let (lifeline, watch) = pair();
    let to: SocketAddr = "192.0.2.7:4747".parse().unwrap();
    let writer = thread::spawn(move || {
        let hold = lifeline.hold().unwrap();
        for round in 0..20_000_u32 {
            let byte = (round % 250) as u8 + 1;
            hold.set_goodbye(3, to, &vec![byte; usize::from(byte)]).unwrap();
        }
    });
    let mut whole = 0;
    while !writer.is_finished() || whole == 0 {
        watch.goodbyes(|_, _, bytes| {
            assert!(bytes.iter().all(|byte| usize::from(*byte) == bytes.len()), "{bytes:?}");
            whole += 1;
        });
    }
    writer.join().unwrap();
}

#[test]
fn the_legs_of_this_host_are_known_to_the_supervisor() {
    let (lifeline, watch) = pair();
    let legs: [SocketAddr; 2] = ["10.0.0.1:4747", "[fd00::1]:4747"].map(|a| a.parse().unwrap());
    lifeline.set_legs(legs);
    let known: Vec<_> = watch.legs().collect();
    assert_eq!(known, [Some(legs[0]), Some(legs[1]), None, None]);
}

#[test]
fn the_processor_of_the_loop_is_known_and_can_be_gone_to() {
    let (lifeline, watch) = pair();
    let _hold = lifeline.hold().unwrap();
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let allowed: Vec<usize> =
        (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    for cpu in allowed {
        let there = on_processor(cpu, || watch.whereabouts(std::process::id())).unwrap();
        assert_eq!(there, Whereabouts { waits_for_kernel: false, processor: cpu });
    }
}

#[test]
fn a_thread_that_waits_for_the_kernel_is_told_from_others() {
    let stat = |state: &str| format!("7 (a) b) D 1) {state} {}3 0 0\n", "1 ".repeat(35));
    for (state, waits_for_kernel) in [("D", true), ("S", false), ("R", false), ("T", false)] {
        let expected = Some(Whereabouts { waits_for_kernel, processor: 3 });
        assert_eq!(Whereabouts::from_stat(&stat(state)), expected, "{state}");
    }
    for cut in ["", "7 (a) ", "7 (a) D 1 2 3"] {
        assert_eq!(Whereabouts::from_stat(cut), None, "{cut}");
    }
}

#[test]
fn where_a_thread_stands_is_said_in_the_names_of_the_kernel() {
    let (lifeline, watch) = pair();
    let (holds, is_held) = channel();
    let (end, ended) = channel::<()>();
    let holder = thread::spawn(move || {
        let _hold = lifeline.hold().unwrap();
        holds.send(()).unwrap();
        let _ = ended.recv();
    });
    is_held.recv().unwrap();
    let sleeps = |calls: &str| calls.contains("futex") && calls.contains(" < ");
    while !sleeps(&watch.calls(std::process::id())) {
        thread::yield_now();
    }
    drop(end);
    holder.join().unwrap();
}

#[test]
fn only_a_sealed_file_of_the_right_length_is_a_lifeline() {
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(Watch::open(&file).unwrap_err(), LifelineError::Foreign);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let unsealed = memfd_create(c"test", flags).unwrap();
    ftruncate(&unsealed, i64::try_from(WORDS * 4).unwrap()).unwrap();
    assert_eq!(Watch::open(&unsealed).unwrap_err(), LifelineError::Foreign);
    let lifeline = Lifeline::create().unwrap();
    assert!(ftruncate(&lifeline, 0).is_err(), "it can be cut");
}

//! The wall clock of a host steps by hours, and nothing moves: decisions use a clock that nobody sets.
//!
//! Only this host's agents see the step: a few lines of C in front of the C library add seconds to what
//! they are told. The time of an event, which is for people, shows that they believe it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_api::{HoldRequest, ReleaseRequest};
use buoy_lab::process::wait_until;
use buoy_lab::skip;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use support::{LOCAL, MS, SOON, VIP, prepared, since};

/// Adds the seconds in the file that `CLOCK_STEP` names to the wall clock.
const STEPPED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long step(void) {
    const char *name = getenv("CLOCK_STEP");
    FILE *file = name ? fopen(name, "re") : NULL;
    long seconds = 0;
    if (file && fscanf(file, "%ld", &seconds) != 1) seconds = 0;
    if (file) fclose(file);
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += step();
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec time;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return result;
}

time_t time(time_t *into) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    if (into) *into = time.tv_sec;
    return time.tv_sec;
}
"#;

/// The library with the stepped clock; `None` where there is no C compiler.
fn stepped(folder: &Path) -> Option<PathBuf> {
    let source = folder.join("clock.c");
    let library = folder.join("clock.so");
    std::fs::write(&source, STEPPED).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
    compiler.status().ok().filter(|status| status.success()).map(|_| library)
}

fn wall_clock() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[test]
fn a_wall_clock_that_steps_by_hours_moves_nothing() {
    let test = "a_wall_clock_that_steps_by_hours_moves_nothing";
    let Some(mut cluster) = prepared(test, 3, LOCAL) else { return };
    let folder = cluster.buoy.config("n1").parent().unwrap().to_owned();
    let Some(library) = stepped(&folder) else {
        skip(test, "there is no C compiler");
        return;
    };
    let step = folder.join("step");
    std::fs::write(&step, "0\n").unwrap();
    let (preload, file) = (format!("LD_PRELOAD={}", library.display()), step.display());
    cluster.buoy.through = vec!["env".into(), preload, format!("CLOCK_STEP={file}")];
    cluster.buoy.start_all(&cluster.segment).unwrap();
    cluster.wait_owned("n1");
    let observer = cluster.observer(&[VIP]);
    let owner = cluster.wait_answerer(&observer, VIP);
    let begun = Instant::now();
    for hours in [1_i64, -1, 24 * 365, 0] {
        std::fs::write(&step, format!("{}\n", hours * 3600)).unwrap();
        // An event carries the new time.
        let client = cluster.buoy.client(&owner).unwrap();
        client.hold("web", &HoldRequest::default()).unwrap();
        client.release("web", &ReleaseRequest::default()).unwrap();
        wait_until(SOON, "an event in the new time", || {
            let reply = client.events(1).unwrap();
            let ahead = i64::try_from(reply.events[0].at).unwrap() - wall_clock();
            Ok((ahead - hours * 3_600_000).abs() < 600_000)
        })
        .unwrap();
        let seen = Instant::now();
        wait_until(SOON, "a second of the new time", || Ok(seen.elapsed() > MS * 1000)).unwrap();
        let status = cluster.buoy.status(&owner).unwrap();
        assert_eq!(status.vips[0].owner.as_deref(), Some(owner.as_str()), "a step of {hours} h");
    }
    let window = since(begun);
    assert_eq!(observer.takeovers(VIP, window), 0, "{owner} keeps it");
    assert_eq!(observer.answered_by_two(VIP, window), []);
}

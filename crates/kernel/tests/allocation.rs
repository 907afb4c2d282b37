//! Proves that what the loop does all the time allocates nothing.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod segment;

use buoy_kernel::apply::Apply;
use buoy_kernel::gate::{Gate, GateError};
use buoy_kernel::netlink::{Monitor, Requests};
use buoy_kernel::packet::{Announcer, Listener};
use buoy_kernel::poll::Poller;
use buoy_kernel::udp::Transport;
use buoy_kernel::{clock, wake};
use buoy_model::{Action, FrameKind, Guard, Instant, Leg, LinkId, Presence, SharedLease};
use segment::{Segment, cidr, wait_until};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const VIPS: [&str; 2] = ["10.0.0.100/24", "fd00::100/64"];

/// All that the loop holds.
struct Loop {
    link: LinkId,
    apply: Apply,
    monitor: Monitor,
    listener: Listener,
    far: (LinkId, Announcer),
    transport: Transport,
    peer: Transport,
    poller: Poller,
    waker: wake::Waker,
    wakeups: wake::Wakeups,
    heard: usize,
}

impl Loop {
    fn new(segment: &Segment, gate: Option<Gate>) -> Self {
        let mut announcer = Announcer::open().unwrap();
        announcer.set_link(segment.near, segment.near_mac, false);
        let (waker, wakeups) = wake::pair().unwrap();
        let mut this = Self {
            link: segment.near,
            apply: Apply::new(Requests::open().unwrap(), announcer, gate),
            monitor: Monitor::open().unwrap(),
            listener: Listener::open(segment.near, segment.near_mac).unwrap(),
            far: segment.there(|| {
                let mut announcer = Announcer::open().unwrap();
                announcer.set_link(segment.far, segment.far_mac, false);
                (segment.far, announcer)
            }),
            transport: Transport::open(&["10.0.0.1:0".parse().unwrap()]).unwrap(),
            peer: Transport::open(&["10.0.0.1:0".parse().unwrap()]).unwrap(),
            poller: Poller::new(),
            waker,
            wakeups,
            heard: 0,
        };
        assert!(this.poller.watch(0, &this.monitor));
        assert!(this.poller.watch(1, &this.transport.fds().next().unwrap()));
        assert!(this.poller.watch(2, &this.wakeups));
        let [arp, ndp] = this.listener.fds();
        assert!(this.poller.watch(3, &arp) && this.poller.watch(4, &ndp));
        this
    }

    /// A heartbeat each way, a renewal of everything, an announcement, and all that comes of it.
    fn turn(&mut self) {
        let (link, kind) = (self.link, FrameKind::Gratuitous);
        let until = clock::now() + Duration::from_secs(60);
        for vip in [cidr(VIPS[0]), cidr(VIPS[1])] {
            let address = vip.address();
            let actions = [
                Action::Fence {
                    address,
                    link,
                    until,
                    lease: Some(SharedLease::Majority),
                    guard: Guard::Neighbours,
                },
                Action::Renew { lease: SharedLease::Majority, until },
                Action::AddAddress {
                    link,
                    cidr: vip,
                    valid_lifetime: 60,
                    presence: Presence::Assigned,
                },
                Action::Announce { link, address, kind },
            ];
            for action in &actions {
                self.apply.apply(action).unwrap();
            }
            self.far.1.announce(self.far.0, address, kind).unwrap();
        }
        self.waker.wake();
        self.peer.send(Leg(0), self.transport.local(Leg(0)).unwrap(), &[7; 1000]).unwrap();
        let mut buffer = [0; 2048];
        let ready = self.poller.wait(Some(clock::now() + segment::PATIENCE)).unwrap();
        assert!(!ready.is_empty());
        self.wakeups.clear();
        while let Some((_, from, leg)) = self.transport.receive(&mut buffer).unwrap() {
            self.transport.send(leg, from, &buffer[..1000]).unwrap();
        }
        while self.peer.receive(&mut buffer).unwrap().is_some() {}
        let Self { apply, monitor, listener, heard, .. } = self;
        monitor.read(&mut |news| apply.observe(news, &mut |_event| *heard += 1)).unwrap();
        listener.read(&mut |_claim| *heard += 1).unwrap();
        self.poller.wait(Some(Instant::ZERO)).unwrap();
    }
}

fn turns_allocate_nothing(segment: &Segment, gate: Option<Gate>) {
    let mut all = Loop::new(segment, gate);
    let turn = |all: &mut Loop| {
        all.turn();
        wait_until("the orders are carried out", || all.apply.pending() == 0);
    };
    for _ in 0..10 {
        turn(&mut all);
    }
    let region = Region::new(ALLOCATOR);
    for _ in 0..100 {
        turn(&mut all);
    }
    let change = region.change();
    assert!(all.heard > 0);
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

/// One test for both, because the count is the whole process's.
#[test]
fn the_loop_allocates_nothing_in_steady_state() {
    let test = "the_loop_allocates_nothing_in_steady_state";
    let Some(segment) = Segment::new(test) else { return };
    turns_allocate_nothing(&segment, None);
    match Gate::open(&[segment.near]) {
        Ok(gate) => turns_allocate_nothing(&segment, Some(gate)),
        Err(GateError::Permission) => {
            eprintln!("SKIPPED: {test}: BPF programs are not permitted here");
        }
        Err(error) => panic!("{error}"),
    }
}

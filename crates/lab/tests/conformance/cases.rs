//! What every engine does: each case changes something, sees what becomes of it, and takes it back.

use crate::engine::{Engine, File, Seen};
use crate::support::{SOON, VIP};
use crate::world::{Answer, BACKENDS, BOTH, CLIENTS, NO_ANSWER, NODE, World};
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT, PROXY_PORT};
use buoy_lab::topology::{ipv4, ipv6};
use socket2::Type;
use std::collections::BTreeSet;
use std::net::IpAddr;

pub(crate) fn every_connection_is_answered(world: &mut World) {
    for kind in [Type::STREAM, Type::DGRAM] {
        world.wait_all("both backends", kind, &BACKENDS);
        for from in CLIENTS {
            // Each alike, by a coin that is thrown thirty times.
            let by = world.answerers(from, kind, 30);
            assert!(by.keys().eq(BACKENDS.iter()), "{:?} {from} {kind:?}: {by:?}", world.engine);
        }
    }
}

/// UDP does not say what is new, so in XDP it stays for a while with who had it before the changes.
pub(crate) fn every_connection_is_answered_still(world: &mut World) {
    world.wait_all("both backends", Type::STREAM, &BACKENDS);
    for from in CLIENTS {
        assert_eq!(world.answerers(from, Type::STREAM, 30).len(), 2, "{:?} {from}", world.engine);
        let by = world.answerers(from, Type::DGRAM, 30);
        assert!(world.engine.is_xdp() || by.len() == 2, "{:?} {from}: {by:?}", world.engine);
    }
}

pub(crate) fn a_backend_sees_the_client(world: &mut World) {
    let clients = CLIENTS.map(|text| text.parse::<IpAddr>().unwrap());
    let host = [IpAddr::from(ipv4(11)), ipv6(11).into()];
    for vip in [IpAddr::from(VIP), ipv6(100).into()] {
        let seen = world.by_http(vip, HTTP_PORT).1;
        let is = match world.engine.seen() {
            Seen::Client => clients.contains(&seen),
            Seen::Vip => seen == vip,
            Seen::Host => host.contains(&seen),
        };
        assert!(is, "{:?} {vip}: {seen}", world.engine);
        if world.engine == Engine::Proxy {
            let told = world.by_http(vip, PROXY_PORT).1;
            assert!(clients.contains(&told), "{vip}: told {told}");
        }
    }
}

pub(crate) fn the_same_port_has_the_same_backend(world: &mut World) {
    for from in BOTH {
        let mut all = BTreeSet::new();
        for port in 20_000..20_012 {
            let ask = || world.ask_at((from, port), ECHO_PORT, Type::STREAM, SOON);
            let first = ask();
            assert!(
                matches!(first, Answer::From(_)),
                "{:?} {from}:{port}: {first:?}",
                world.engine
            );
            for _ in 0..3 {
                assert_eq!(ask(), first, "{:?} {from}:{port}", world.engine);
            }
            all.insert(format!("{first:?}"));
        }
        assert_eq!(all.len(), 2, "{:?} {from}: {all:?}", world.engine);
    }
    if world.engine.is_xdp() {
        // By `persist`, whatever the port.
        let answer = |_| world.by_http(VIP.into(), HTTP_PORT).0;
        let all: BTreeSet<String> = (0..12).map(answer).collect();
        assert_eq!(all.len(), 1, "{:?}: {all:?}", world.engine);
    }
}

pub(crate) fn a_backend_that_is_down(world: &mut World) {
    let mut open = world.open_to_both(CLIENTS[0]);
    world.set_healthy(BACKENDS[0], false);
    for kind in [Type::STREAM, Type::DGRAM] {
        world.wait_all("the other one alone", kind, &BACKENDS[1..]);
    }
    assert_eq!(world.answerers(CLIENTS[0], Type::STREAM, 20)[BACKENDS[1]], 20);
    assert!(open[1].goes_on("other", SOON), "{:?}", world.engine);
    world.set_healthy(BACKENDS[0], true);
    world.wait_all("both again", Type::STREAM, &BACKENDS);
}

pub(crate) fn a_backend_that_is_drained(world: &mut World) {
    let mut open = world.open_to_both(CLIENTS[0]);
    world.reload(&File { backends: [Some(" weight=0"), Some("")], ..File::plain() });
    world.wait_all("the one with a weight", Type::STREAM, &BACKENDS[1..]);
    assert_eq!(world.answerers(CLIENTS[2], Type::STREAM, 20)[BACKENDS[1]], 20);
    for open in &mut open {
        assert!(open.goes_on("drained", SOON), "{:?}", world.engine);
    }
    world.reload(&File::plain());
    world.wait_all("both again", Type::STREAM, &BACKENDS);
}

pub(crate) fn weights(world: &mut World) {
    world.reload(&File { backends: [Some(" weight=3"), Some(" weight=1")], ..File::plain() });
    for from in BOTH {
        let mut share = 0;
        let waited = wait_until(2 * SOON, "shares of 3 and 1", || {
            let by = world.answerers(from, Type::STREAM, 200);
            share = by.get(BACKENDS[0]).copied().unwrap_or(0);
            // Three quarters of 200, with a deviation of six: half of 200 is eight of them away.
            Ok((130..=170).contains(&share))
        });
        assert!(waited.is_ok(), "{:?} {from}: {share} of 200", world.engine);
    }
    world.reload(&File::plain());
}

pub(crate) fn a_reload_keeps_connections(world: &mut World) {
    world.wait_all("both", Type::STREAM, &BACKENDS);
    let mut open: Vec<_> = BOTH.iter().flat_map(|from| world.open_to_both(from)).collect();
    world.reload(&File { backends: [Some(""), None], ..File::plain() });
    world.wait_all("the one in the file", Type::STREAM, &BACKENDS[..1]);
    for (n, open) in open.iter_mut().enumerate() {
        let is_of_who_left = n % 2 == 1;
        let wanted = !is_of_who_left || world.engine.keeps_who_left();
        let is = open.goes_on("reloaded", if wanted { SOON } else { NO_ANSWER });
        assert_eq!(is, wanted, "{:?}: connection {n}", world.engine);
    }
    world.reload(&File::plain());
    world.wait_all("both again", Type::STREAM, &BACKENDS);
    for (n, open) in open.iter_mut().enumerate().filter(|(n, _)| n % 2 == 0) {
        assert!(open.goes_on("again", SOON), "{:?}: connection {n}", world.engine);
    }
}

pub(crate) fn no_backend(world: &mut World) {
    BACKENDS.iter().for_each(|name| world.set_healthy(name, false));
    world.wait_heard("nobody", &BOTH, Type::STREAM, &world.engine.no_backend());
    BACKENDS.iter().for_each(|name| world.set_healthy(name, true));
    world.wait_all("both again", Type::STREAM, &BACKENDS);
}

/// The kernel of the VIP's host answers what is nobody's.
pub(crate) fn no_service(world: &mut World) {
    for from in BOTH {
        for kind in [Type::STREAM, Type::DGRAM] {
            let mut heard = Answer::Silence;
            // A host says only so often that nobody listens for datagrams.
            let waited = wait_until(SOON, "a refusal", || {
                heard = world.ask_at((from, 0), 99, kind, NO_ANSWER);
                Ok(heard != Answer::Silence)
            });
            assert!(waited.is_ok(), "{:?} {from} {kind:?}: {waited:?}", world.engine);
            assert_eq!(heard, Answer::Refusal, "{:?} {from} {kind:?}", world.engine);
        }
    }
}

pub(crate) fn a_limit_of_new_connections(world: &mut World) {
    let mut open = world.open_to_both(CLIENTS[0]);
    let before = refused(world);
    assert_eq!(before, None, "{:?}", world.engine);
    world.reload(&File { of_tcp: "new_connections = \"3/h\"".into(), ..File::plain() });
    // The reload is done when somebody is refused, and whoever is was let in three times.
    for from in [CLIENTS[0], CLIENTS[2]] {
        world.wait_heard("too many", &[from], Type::STREAM, &world.engine.refusal());
    }
    let all: Vec<_> = (0..5).map(|_| world.ask(CLIENTS[1], Type::STREAM)).collect();
    let answered = all.iter().filter(|answer| matches!(answer, Answer::From(_))).count();
    assert_eq!((answered, &all[4]), (3, &world.engine.refusal()), "{:?}: {all:?}", world.engine);
    // An IPv6 client has a whole subnet, and one that is refused none of it.
    assert_eq!(world.ask(CLIENTS[3], Type::STREAM), world.engine.refusal(), "{:?}", world.engine);
    for open in &mut open {
        assert!(open.goes_on("limited", SOON), "{:?}", world.engine);
    }
    assert_eq!(world.answerers(CLIENTS[0], Type::DGRAM, 10).values().sum::<usize>(), 10);
    let engine = world.engine;
    let waited = wait_until(2 * SOON, "a count", || Ok(refused(world).is_some_and(|n| n >= 5)));
    assert!(waited.is_ok(), "{engine:?}: {:?}", refused(world));
    world.reload(&File::plain());
    world.wait_all("without a limit", Type::STREAM, &BACKENDS);
}

/// What the status says of the service of TCP with a limit.
fn refused(world: &World) -> Option<u64> {
    world.cluster.buoy.status(NODE).unwrap().vips[0].services[0].limited
}

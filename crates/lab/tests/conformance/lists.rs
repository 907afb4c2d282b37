//! `allow` and `deny`: the same lists, clients and answers in every engine.

use crate::engine::File;
use crate::support::{MS, SOON};
use crate::world::{Answer, CLIENTS, NODE, Open, World};
use buoy_lab::process::wait_until;
use buoy_lab::segment::ECHO_PORT;
use socket2::Type;
use std::time::Duration;

/// Longer than any answer takes here.
const NO_ANSWER: Duration = Duration::from_millis(500);

/// Lines of the service, which of the clients it is there for, and whether the connection that the first of
/// them has from before goes on in kernel and XDP.
type Case = (&'static str, [bool; 4], bool);

const CASES: [Case; 6] = [
    ("", [true; 4], true),
    ("allow = [\"10.77.0.50\", \"fd77::50\"]", [true, false, true, false], true),
    ("deny = [\"10.77.0.0/25\", \"fd77::/120\"]", [false, true, false, true], false),
    ("allow = \"10.77.0.0/24\"\ndeny = \"10.77.0.128/25\"", [true, false, false, false], true),
    (
        "allow = [\"fd77::/64\"]\ndeny = [\"fd77::100/120\", \"10.77.0.50\"]",
        [false, false, true, false],
        false,
    ),
    ("allow = [\"::/0\", \"10.77.0.0/26\"]", [true, false, true, true], true),
];

pub(crate) fn who_is_refused(world: &mut World) {
    let stream = world.socket((CLIENTS[0], 0), ECHO_PORT, Type::STREAM, SOON).unwrap();
    let mut open = Open(stream);
    assert!(open.goes_on("begin", SOON));
    for (n, (lines, there_for, goes_on)) in CASES.into_iter().enumerate() {
        world.reload(&File { lines: lines.into(), ..File::plain() });
        for kind in [Type::STREAM, Type::DGRAM] {
            let refusal =
                if kind == Type::STREAM { world.engine.refusal() } else { Answer::Silence };
            let mut heard = Vec::new();
            let is = |(heard, there_for): (&Answer, &bool)| match heard {
                Answer::From(_) => *there_for,
                other @ (Answer::Refusal | Answer::Silence) => !there_for && *other == refusal,
            };
            let waited = wait_until(2 * SOON, lines, || {
                heard = CLIENTS.map(|from| world.ask(from, kind)).to_vec();
                Ok(heard.iter().zip(&there_for).all(is))
            });
            assert!(waited.is_ok(), "{:?} {kind:?}: {heard:?} of {lines}", world.engine);
        }
        let goes_on = goes_on || world.engine.lets_go_on();
        // What was on its way while it was refused is sent again by and by.
        let patience = if goes_on { SOON } else { NO_ANSWER };
        let is = open.goes_on(&format!("word-{n}"), patience);
        assert_eq!(is, goes_on, "{:?}: {lines}", world.engine);
    }
    let counter = world.engine.denied();
    let waited = wait_until(SOON, counter, || {
        std::thread::sleep(50 * MS);
        let status = world.cluster.buoy.status(NODE);
        Ok(status.is_ok_and(|status| status.loop_.counters.get(counter).is_some_and(|n| *n > 0)))
    });
    waited.unwrap();
    world.reload(&File::plain());
}

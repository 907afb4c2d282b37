//! Flows that one host remembers and another one hears of: each packet then goes the same way on both, byte for byte,
//! and nothing that is said takes anything from flows of the host that hears it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod packets;
mod pools;
mod world;

use buoy_kernel::fast::{Fast, FlowPlace, Learned, Verdict};
use buoy_model::{FastPath, FlowSigns, Forward, Protocol, Remembered, Slot, Translation};
use buoy_xdp::pool::{PORT_FIRST, PORT_LAST, TCP_SECONDS};
use packets::{ACK, Packet, tcp, udp};
use pools::{client, one, pooled, pools, port_of, source_of};
use std::net::SocketAddr;
use world::{open, service, way};

const VIP: &str = "10.0.0.100:80";
const MANY: (usize, usize) = (100_000, 100_000);
const FIN: u8 = 0x01;

/// All slots from one backend to another.
fn between(previous: u16, current: u16) -> FastPath {
    let backends = ["10.0.0.11:0", "10.0.0.12:0", "10.0.0.13:0"];
    let mut service = service(Protocol::Tcp, "10.0.0.100", (80, 80), Forward::Dsr, &backends);
    service.slots = vec![Slot { current, previous }; 64].into();
    FastPath { seed: 5, services: vec![service] }
}

/// Two hosts with the same tables.
fn two(test: &str, path: &FastPath) -> Option<(Fast, Fast)> {
    let mut one = open(test, path)?;
    // What is there from before is nobody's news.
    assert_eq!(one.news(true, MANY), buoy_kernel::fast::News::default());
    Some((one, open(test, path)?))
}

/// Which backend gets it, by the last byte of its Ethernet address.
fn taker(fast: &Fast, packet: &Packet) -> u8 {
    let tried = fast.try_frame(&packet.frame()).unwrap();
    assert_eq!(tried.verdict, Verdict::Transmit);
    tried.frame[5]
}

fn connect(fast: &Fast, from: &str) -> u8 {
    let first = taker(fast, &tcp(from, VIP).syn());
    assert_eq!(taker(fast, &tcp(from, VIP)), first);
    first
}

fn learned(taken: u64, known: u64, refused: u64) -> Learned {
    Learned { taken, known, refused }
}

#[test]
fn a_connection_opened_in_a_changed_slot_is_known_to_who_hears_of_it() {
    let test = "a_connection_opened_in_a_changed_slot_is_known_to_who_hears_of_it";
    let Some((mut one, mut other)) = two(test, &between(0, 1)) else { return };
    for n in 0..100 {
        assert_eq!(connect(&one, &client(n)), 12);
    }
    for n in 100..200 {
        // Only opened: it may be a flood.
        assert_eq!(taker(&one, &tcp(&client(n), VIP).syn()), 12);
    }
    assert_eq!(taker(&other, &tcp(&client(0), VIP)), 11, "nobody has told it");
    let told = one.news(true, MANY).remembered;
    assert_eq!(told.len(), 100);
    assert_eq!(one.news(true, MANY).remembered, [], "it was told");
    assert_eq!(other.remember(&told), learned(100, 0, 0));
    assert_eq!(other.remember(&told), learned(0, 100, 0));
    assert_eq!(other.news(true, MANY).remembered, [], "what was heard is not this host's news");
    for n in 0..200 {
        assert_eq!(taker(&other, &tcp(&client(n), VIP)), if n < 100 { 12 } else { 11 });
    }
    // Whoever is the current and the previous one.
    other.apply(&between(0, 2), &mut way).unwrap();
    assert_eq!(taker(&other, &tcp(&client(7), VIP)), 12);
    // Those that went on are told again before they would be forgotten, and all to who asks for all.
    for seconds in [60, 61] {
        one.tick(seconds);
    }
    for n in 0..50 {
        assert_eq!(taker(&one, &tcp(&client(n), VIP)), 12);
    }
    let again = one.news(true, MANY).remembered;
    assert_eq!((again.len(), again[0].idle), (50, 0));
    let (mut place, mut all) = (Some(FlowPlace::FIRST), 0);
    while let Some(at) = place {
        let (news, next) = one.all_from(at, (7, 7));
        assert!(news.remembered.len() <= 7);
        all += news.remembered.len();
        place = next;
    }
    assert_eq!(all, 100);
}

#[test]
fn what_a_host_has_seen_itself_is_not_changed_by_others() {
    let test = "what_a_host_has_seen_itself_is_not_changed_by_others";
    let Some((mut one, mut other)) = two(test, &between(0, 1)) else { return };
    other.apply(&between(0, 2), &mut way).unwrap();
    assert_eq!((connect(&one, &client(1)), connect(&other, &client(1))), (12, 13));
    let told = one.news(true, MANY).remembered;
    assert_eq!(other.remember(&told), learned(0, 1, 0));
    assert_eq!(taker(&other, &tcp(&client(1), VIP)), 13);
    // What it was told, it is told otherwise: the latest counts, until a packet comes.
    assert_eq!(connect(&one, &client(2)), 12);
    let first = one.news(true, MANY).remembered;
    assert_eq!(other.remember(&first), learned(1, 0, 0));
    one.apply(&between(1, 0), &mut way).unwrap();
    assert_eq!(connect(&one, &client(2)), 11);
    let second = one.news(true, MANY).remembered;
    assert_eq!(other.remember(&second), learned(1, 0, 0));
    assert_eq!(taker(&other, &tcp(&client(2), VIP)), 11);
    // And what was said of a moment before that is old.
    let late: Vec<Remembered> = first.iter().map(|f| Remembered { idle: 9, ..*f }).collect();
    assert_eq!(other.remember(&late), learned(0, 1, 0));
    assert_eq!(taker(&other, &tcp(&client(2), VIP)), 11);
}

/// Whatever a member says, flows stay where they are, and what leads nowhere leads nowhere.
#[test]
fn nonsense_about_remembered_flows_moves_nobody() {
    let test = "nonsense_about_remembered_flows_moves_nobody";
    let Some((_, mut other)) = two(test, &between(0, 1)) else { return };
    for n in 0..100 {
        assert_eq!(connect(&other, &client(n)), 12);
    }
    let mut random = 7_u64;
    let mut next = || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        random >> 33
    };
    let flood: Vec<Remembered> = (0..600_000)
        .map(|_| Remembered {
            bucket: next() as u16,
            mark: next() as u32,
            identity: next() as u16,
            idle: next() as u16 % 400,
        })
        .collect();
    let said = other.remember(&flood);
    assert_eq!(said.taken + said.known + said.refused, 600_000);
    assert!(said.refused > 100_000, "{said:?}");
    for n in 0..100 {
        assert_eq!(taker(&other, &tcp(&client(n), VIP)), 12);
        assert_eq!(taker(&other, &tcp(&client(200 + n), VIP)), 11);
    }
}

/// Opens a flow through a pool, with an answer and a word of the client; says as whom the backend sees it.
fn open_pooled(fast: &Fast, new: fn(&str, &str) -> Packet, ends: [&str; 3]) -> SocketAddr {
    let [client, vip, backend] = ends;
    let probe = fast.try_frame(&new(client, vip).syn_of_tcp().frame()).unwrap();
    let seen = source_of(&probe.frame);
    let answer = new(backend, &seen.to_string());
    assert_eq!(fast.try_frame(&answer.frame()).unwrap().verdict, Verdict::Pass);
    fast.try_frame(&new(client, vip).frame()).unwrap();
    seen
}

type Kind = (fn(&str, &str) -> Packet, [&'static str; 3]);

const KINDS: [Kind; 4] = [
    (tcp, ["10.9.0.9:40000", "10.0.0.106:80", "10.0.0.36:8080"]),
    (udp, ["10.9.0.9:40000", "10.0.0.106:53", "10.0.2.37:5353"]),
    (tcp, ["[fd09::9]:40000", "[fd00::106]:80", "[fd00::36]:8080"]),
    (udp, ["[fd09::9]:40000", "[fd00::106]:53", "[fd00:2::37]:5353"]),
];

#[test]
fn a_flow_with_a_port_goes_on_byte_for_byte_where_it_was_heard_of() {
    let test = "a_flow_with_a_port_goes_on_byte_for_byte_where_it_was_heard_of";
    let Some((mut one, mut other)) = two(test, &pools()) else { return };
    for (new, ends) in KINDS {
        let [client, vip, backend] = ends;
        let seen = open_pooled(&one, new, ends).to_string();
        let told = one.news(false, MANY).translations;
        let [flow] = &told[..] else { panic!("{told:?}") };
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!((flow.client, flow.vip, flow.backend), (at(client), at(vip), at(backend)));
        assert_eq!((flow.seen_as, flow.idle), (at(&seen), 0));
        assert_eq!(other.translate(&told), learned(1, 0, 0));
        assert_eq!(other.translate(&told), learned(0, 1, 0));
        assert_eq!(other.news(false, MANY).translations, [], "heard, not seen");
        for packet in [new(client, vip).long(99), new(backend, &seen).long(77)] {
            let here = one.try_frame(&packet.frame()).unwrap();
            let there = other.try_frame(&packet.frame()).unwrap();
            assert_eq!(here, there);
            assert_ne!(here.frame, packet.frame(), "translated");
        }
    }
    // To who asks for all, too.
    assert_eq!(one.all_from(FlowPlace::FIRST, MANY).0.translations.len(), 4);
    assert_eq!(one.all_from(FlowPlace::FIRST, (9, 3)).0.translations.len(), 3);
}

#[test]
fn ports_that_were_heard_of_are_given_to_nobody_until_their_time_is_over() {
    let test = "ports_that_were_heard_of_are_given_to_nobody_until_their_time_is_over";
    let Some((mut one, mut other)) = two(test, &one()) else { return };
    let backend = "10.0.0.36:8080";
    let mut seen = Vec::new();
    for n in 0..500 {
        seen.push(open_pooled(&one, tcp, [&client(n), "10.0.0.106:80", backend]));
    }
    let told = one.news(false, (0, 300)).translations;
    assert_eq!(told.len(), 300, "the rest is next time's");
    let rest = one.news(false, MANY).translations;
    assert_eq!(rest.len(), 200);
    assert_eq!(other.translate(&told).taken + other.translate(&rest).taken, 500);
    let probe = other.probe().unwrap();
    let ask =
        |n: u32, p: fn(Packet) -> Packet| port_of(&probe, &p(tcp(&client(n), "10.0.0.106:80")));
    for n in 1000..21_000 {
        if let Some(port) = ask(n, Packet::syn) {
            assert!(!seen.contains(&port), "{port} is in use");
        }
    }
    for (n, port) in (0..).zip(&seen) {
        assert_eq!(ask(n, |p| p), Some(*port));
    }
    // One that is over is over everywhere, and what goes on is told again in time.
    let vip = "10.0.0.106:80";
    for packet in
        [tcp(&client(3), vip).flags(FIN | ACK), tcp(backend, &seen[3].to_string()).flags(FIN | ACK)]
    {
        one.try_frame(&packet.frame()).unwrap();
    }
    let over = one.news(false, MANY).translations;
    assert!(over.len() == 1 && over[0].signs.is_over(), "{over:?}");
    one.tick(TCP_SECONDS / 4);
    one.try_frame(&tcp(&client(5), vip).frame()).unwrap();
    let again = one.news(false, MANY).translations;
    assert_eq!((again.len(), again[0].seen_as), (1, seen[5]));
}

#[test]
fn what_is_said_takes_no_port_from_a_flow_that_was_seen_here() {
    let test = "what_is_said_takes_no_port_from_a_flow_that_was_seen_here";
    let Some((mut one, mut other)) = two(test, &one()) else { return };
    let ends = |n: u32| [client(n), "10.0.0.106:80".to_owned(), "10.0.0.36:8080".to_owned()];
    let open_at = |fast: &Fast, n: u32| {
        let [a, b, c] = &ends(n);
        open_pooled(fast, tcp, [a, b, c])
    };
    let mine = open_at(&other, 1);
    let theirs = open_at(&one, 2);
    let [flow] = one.news(false, MANY).translations[..] else { panic!() };
    let says = |change: &dyn Fn(&mut Translation)| {
        let mut said = flow;
        change(&mut said);
        said
    };
    let port = |n: u16| SocketAddr::new(theirs.ip(), n);
    let nonsense = [
        says(&|f| f.seen_as = mine),
        says(&|f| f.seen_as = port(PORT_FIRST - 1)),
        says(&|f| f.seen_as = port(PORT_LAST + 1)),
        says(&|f| f.seen_as = "10.0.0.77:2000".parse().unwrap()),
        says(&|f| f.seen_as = "[fd00::77]:2000".parse().unwrap()),
        says(&|f| f.backend = "10.0.0.37:8080".parse().unwrap()),
        says(&|f| f.backend = "10.0.0.36:8081".parse().unwrap()),
        says(&|f| f.vip = "10.0.0.106:81".parse().unwrap()),
        says(&|f| f.vip = "10.0.0.100:80".parse().unwrap()),
        says(&|f| f.protocol = Protocol::Udp),
        says(&|f| f.idle = 901),
        says(&|f| f.signs = FlowSigns::RESET.and(f.signs)),
    ];
    for (n, said) in nonsense.into_iter().enumerate() {
        let late = Translation { idle: if n == 11 { 11 } else { said.idle }, ..said };
        assert_eq!(other.translate(&[late]), learned(0, 0, 1), "{n}: {said:?}");
    }
    // A port that the flow's hash does not lead to: nobody would look for it there.
    let elsewhere: Vec<Translation> =
        (PORT_FIRST..=PORT_LAST).map(|n| says(&|f| f.seen_as = port(n))).collect();
    let said = other.translate(&elsewhere);
    assert!(said.taken <= 64 && said.refused > 31_000, "{said:?}");
    // The latest of what was said counts, and leaves no other port behind.
    assert_eq!(other.translate(&[flow]).refused, 0);
    assert_eq!(port_of(&other.probe().unwrap(), &tcp(&client(2), "10.0.0.106:80")), Some(theirs));
    assert_eq!(port_of(&other.probe().unwrap(), &tcp(&client(1), "10.0.0.106:80")), Some(mine));
    let all = other.all_from(FlowPlace::FIRST, MANY).0.translations;
    assert_eq!(all.iter().filter(|f| f.client == flow.client).count(), 1);
}

#[test]
fn a_table_of_ports_that_becomes_another_ones_forgets_what_was_told() {
    let test = "a_table_of_ports_that_becomes_another_ones_forgets_what_was_told";
    let Some((mut one, mut other)) = two(test, &one()) else { return };
    let vip = "10.0.0.106:80";
    open_pooled(&one, tcp, [&client(1), vip, "10.0.0.36:8080"]);
    assert_eq!(one.news(false, MANY).translations.len(), 1);
    let next = pooled(Protocol::Tcp, "10.0.0.106", 80, &["10.0.0.36:8080"], &["10.0.0.51"]);
    let path = FastPath { seed: 7, services: vec![next] };
    for fast in [&mut one, &mut other] {
        fast.apply(&path, &mut way).unwrap();
    }
    assert_eq!(one.news(false, MANY).translations, []);
    let seen = open_pooled(&one, tcp, [&client(1), vip, "10.0.0.36:8080"]);
    assert_eq!(seen.ip().to_string(), "10.0.0.51");
    let told = one.news(false, MANY).translations;
    assert_eq!(told.len(), 1);
    assert_eq!(other.translate(&told), learned(1, 0, 0));
    assert_eq!(port_of(&other.probe().unwrap(), &tcp(&client(1), vip)), Some(seen));
}

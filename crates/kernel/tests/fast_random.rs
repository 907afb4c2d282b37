//! The fast path against a simple model of it, with packets that nobody has thought of.
//!
//! `BUOY_SEED` gives the seed of a run that failed, `BUOY_PACKETS` another number of packets.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod mirror;
mod packets;
mod watched;
mod world;

use buoy_kernel::fast::{Action, Capture, Captured, Fast, Only, Shown, Verdict};
use buoy_model::{
    FastPath, FastService, FlowFields, Forward, Prefixes, Protocol, Quic, ServerId, Slot, Standing,
};
use buoy_xdp::forward::Drop;
use buoy_xdp::watch::HEAD_LEN;
use mirror::{Fate, Mirror};
use packets::{Body, Packet, raw};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use watched::open_pinned;
use world::{hourly, ip, open, path, service, sources, way};

const PACKETS: u64 = 1_000_000;

/// Numbers that a seed gives (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len() as u64) as usize].clone()
    }
}

/// Protocol, VIP, ports, way, and backends.
type Changing = (Protocol, &'static str, (u16, u16), Forward, [String; 3]);

/// Services whose slots change hands; the last four have a pool.
fn changing() -> [Changing; 10] {
    use Forward::{Dsr, Gue, Nat, Tunnel};
    const ALL_PORTS: (u16, u16) = (0, 65_535);
    let v4 = |last: u8, port: u16| format!("10.0.0.{last}:{port}");
    [
        (Protocol::Tcp, "10.0.0.104", (80, 80), Dsr, [v4(41, 0), v4(42, 0), v4(43, 0)]),
        (Protocol::Udp, "10.0.0.104", (53, 53), Nat, [v4(43, 5), v4(44, 6), v4(47, 7)]),
        (
            Protocol::Tcp,
            "fd00::104",
            (80, 90),
            Nat,
            ["[fd00::45]:99", "[fd00::46]:99", "[fd00::47]:99"].map(String::from),
        ),
        (
            Protocol::Udp,
            "fd00::104",
            ALL_PORTS,
            Tunnel,
            ["10.0.2.47:0", "[fd00:2::48]:0", "10.0.0.48:0"].map(String::from),
        ),
        (Protocol::Tcp, "10.0.0.104", (81, 81), Tunnel, [v4(49, 0), v4(50, 0), v4(51, 0)]),
        (
            Protocol::Tcp,
            "10.0.0.104",
            (82, 83),
            Gue { port: 6080 },
            ["10.0.2.52:0", "[fd00::53]:0", "[fd00:2::54]:0"].map(String::from),
        ),
        (Protocol::Tcp, "10.0.0.106", (80, 90), Nat, [v4(52, 99), v4(53, 99), v4(54, 99)]),
        (Protocol::Udp, "10.0.0.106", (53, 53), Nat, [v4(52, 5), v4(55, 6), v4(56, 7)]),
        (
            Protocol::Tcp,
            "fd00::106",
            (80, 80),
            Nat,
            ["[fd00::52]:99", "[fd00:2::53]:99", "[fd00::54]:99"].map(String::from),
        ),
        (
            Protocol::Udp,
            "fd00::106",
            (53, 53),
            Nat,
            ["[fd00::52]:99", "[fd00::55]:99", "[fd00::56]:98"].map(String::from),
        ),
    ]
}

/// Whom backends see in place of clients: the VIP, others, an address that other services have, and one of each.
const POOLS: [&[&str]; 4] = [
    &["10.0.0.106"],
    &["10.0.0.57", "10.0.0.58", "10.0.0.59"],
    &["fd00::104"],
    &["fd00::106", "fd00::57"],
];

/// The services of the other tests, and some whose slots change hands, in one of three stages: each leaves
/// flows behind that are remembered in the next, and in the second the last backend is not there.
fn busy_path(stage: usize) -> FastPath {
    let mut path = path();
    // Not the same in all stages: what a client owes is then judged by another limit. An hour's part is
    // longer than the test.
    for (n, service) in path.services.iter_mut().filter(|s| s.protocol == Protocol::Tcp).enumerate()
    {
        service.new_connections = if n % 3 == stage { None } else { hourly(2 + stage as u32) };
    }
    let pairs = [
        (0, 0),
        (1, 0),
        (0, 1),
        (2, 1),
        (Slot::NOBODY, 0),
        (0, Slot::REMEMBERED),
        (Slot::NOBODY, Slot::REMEMBERED),
        (1, 2),
        (Slot::NOBODY, Slot::NOBODY),
    ];
    for (n, (protocol, address, ports, forward, backends)) in changing().into_iter().enumerate() {
        let mut service =
            service(protocol, address, ports, forward, &backends.each_ref().map(|b| b.as_str()));
        if let Some(pool) = n.checked_sub(6).map(|n| POOLS[n]) {
            service.pool = pool.iter().map(|text| ip(text)).collect();
        }
        service.flow = if n == 4 || n == 7 { FlowFields::Client } else { FlowFields::Connection };
        let slot = |at: usize| {
            let (current, previous) = pairs[(at + stage * 4) % pairs.len()];
            let is_gone = stage == 1 && current == 2;
            Slot { current: if is_gone { 1 } else { current }, previous }
        };
        service.slots = (0..64).map(slot).collect();
        if stage == 1 {
            let nobody = if service.backends[2].address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            Arc::make_mut(&mut service.backends)[2].address = nobody.parse().unwrap();
        }
        if n % 2 == stage % 2 {
            service.sources = sources(LISTS[(n + stage) % LISTS.len()]);
        }
        path.services.push(service);
    }
    path.services.extend(apart(&pairs, stage));
    // Of ranges that others have around them.
    for (protocol, vip, last) in
        [(Protocol::Tcp, "10.0.0.102", 1031), (Protocol::Udp, "fd00::104", 1016)]
    {
        let owner = std::net::SocketAddr::new(vip.parse().unwrap(), 1010).to_string();
        let mut local = service(protocol, vip, (1010, last), Forward::Local, &[&owner]);
        if stage == 2 {
            local.sources = sources(LISTS[0]);
        }
        path.services.push(local);
    }
    path
}

/// Services where more than a slot decides, with backends that come and go.
fn apart(pairs: &[(u16, u16)], stage: usize) -> Vec<FastService> {
    use Forward::{Dsr, Nat, Tunnel};
    const V4: [&str; 3] = ["10.0.0.61:0", "10.0.0.62:0", "10.0.0.63:0"];
    const V6: [&str; 3] = ["[fd00::61]:0", "[fd00::62]:0", "[fd00::63]:0"];
    const NAT: [&str; 3] = ["[fd00::64]:8080", "[fd00::65]:8080", "[fd00::66]:8080"];
    let (one, hour) = (|port| (port, port), Some(Duration::from_secs(3600)));
    let bits = |v4, v6| FlowFields::of_prefixes(Prefixes::new(v4, v6).unwrap());
    let quic = |config, length| Some(Quic { config, length });
    let all = [
        (service(Protocol::Tcp, "10.0.0.105", one(80), Dsr, &V4), bits(24, 128), hour, None),
        (service(Protocol::Udp, "10.0.0.105", one(53), Tunnel, &V4), bits(32, 128), hour, None),
        (service(Protocol::Udp, "10.0.0.105", one(443), Dsr, &V4), bits(31, 128), hour, quic(0, 1)),
        (service(Protocol::Tcp, "fd00::105", one(80), Nat, &NAT), bits(32, 64), hour, None),
        (service(Protocol::Tcp, "fd00::105", one(53), Dsr, &V6), bits(32, 124), None, None),
        (
            service(Protocol::Udp, "fd00::105", one(443), Tunnel, &V6),
            FlowFields::Connection,
            None,
            quic(5, 8),
        ),
    ];
    let make =
        |(n, (mut service, flow, stick, quic)): (usize, (FastService, _, _, Option<Quic>))| {
            (service.flow, service.stick, service.quic) = (flow, stick, quic);
            let slot = |at: usize| {
                let (current, previous) = pairs[(at + n + stage * 4) % pairs.len()];
                let is_gone = stage == 1 && current == 2;
                Slot { current: if is_gone { 1 } else { current }, previous }
            };
            service.slots = (0..64).map(slot).collect();
            for (at, backend) in Arc::make_mut(&mut service.backends).iter_mut().enumerate() {
                backend.standing =
                    [Standing::Up, Standing::Keeps, Standing::Down][(at + stage * n) % 3];
                backend.server_id =
                    quic.and_then(|quic| ServerId::of_number(quic.length, at as u64));
            }
            if stage == 1 {
                let nobody = if service.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                Arc::make_mut(&mut service.backends)[2].address = nobody.parse().unwrap();
            }
            service
        };
    all.into_iter().enumerate().map(make).collect()
}

/// The payload of a datagram that may name a server.
fn quic(dice: &mut Dice) -> Vec<u8> {
    let head = dice.pick(&[0x00, 0x1f, 0xa0, 0xbf, 0x40]);
    let id =
        [&[head][..], &[0; 8][dice.below(9) as usize..], &[dice.below(4) as u8, 7, 7]].concat();
    let mut bytes = vec![0x40];
    if dice.one_in(3) {
        let length = dice.pick(&[0, 1, 2, 8, 9, id.len() as u8, 20, 255]);
        bytes = vec![0xc0, 0, 0, 0, 1, length];
    }
    bytes.extend(id);
    bytes.truncate(if dice.one_in(4) { dice.below(20) as usize } else { bytes.len() });
    bytes
}

/// Who may ask, and with `!` who may not.
const LISTS: [&[&str]; 4] = [
    &["!10.9.0.0/24", "10.9.0.9/32", "10.0.0.0/8", "!10.0.1.0/24", "fd00::/16"],
    &["::/0", "!fd09::/16"],
    &["!::/0", "!10.0.0.0/31", "!10.9.0.10/32"],
    &["fd00::/17", "!fd00::1/128", "10.9.0.0/16", "!0.0.0.0/0"],
];

const V4: [&str; 18] = [
    "10.0.0.1",
    "10.0.1.1",
    "10.0.0.100",
    "10.0.0.101",
    "10.0.0.102",
    "10.0.0.103",
    "10.0.0.104",
    "10.0.0.104",
    "10.0.0.200",
    "10.9.0.9",
    "10.9.0.10",
    "10.0.0.31",
    "10.0.2.32",
    "10.0.0.33",
    "10.0.0.106",
    "10.0.0.57",
    "10.0.0.52",
    "10.0.0.55",
];
const V6: [&str; 14] = [
    "fd00::1",
    "fd00:1::1",
    "fd00::100",
    "fd00::101",
    "fd00::104",
    "fd00::200",
    "fd09::9",
    "fd09::10",
    "fd00::31",
    "fd00:2::32",
    "fd00::45",
    "fd00::106",
    "fd00::57",
    "fd00::52",
];
/// Where most packets go.
const TARGETS: [&str; 32] = [
    "10.0.0.105:80",
    "10.0.0.105:80",
    "10.0.0.105:53",
    "10.0.0.105:443",
    "10.0.0.105:443",
    "[fd00::105]:80",
    "[fd00::105]:53",
    "[fd00::105]:443",
    "10.0.0.100:80",
    "10.0.0.100:53",
    "10.0.0.100:443",
    "10.0.0.101:80",
    "10.0.0.101:53",
    "10.0.0.102:8042",
    "10.0.0.104:80",
    "10.0.0.104:53",
    "10.0.0.104:81",
    "10.0.0.104:82",
    "10.0.0.100:445",
    "10.0.0.100:446",
    "[fd00::100]:80",
    "[fd00::100]:443",
    "[fd00::100]:445",
    "[fd00::100]:446",
    "[fd00::101]:80",
    "[fd00::104]:85",
    "[fd00::104]:85",
    "10.0.0.106:80",
    "10.0.0.106:85",
    "10.0.0.106:53",
    "[fd00::106]:80",
    "[fd00::106]:53",
];
const PORTS: [u16; 16] =
    [0, 53, 80, 81, 82, 83, 84, 99, 443, 444, 5353, 7000, 7999, 8042, 8080, 17_500];

fn end(dice: &mut Dice, addresses: &[&str]) -> SocketAddr {
    let port = if dice.one_in(2) { dice.pick(&PORTS) } else { dice.below(40) as u16 + 1000 };
    SocketAddr::new(dice.pick(addresses).parse().unwrap(), port)
}

fn plain(dice: &mut Dice) -> Packet {
    let addresses: &[&str] = if dice.one_in(3) { &V6 } else { &V4 };
    let from = end(dice, addresses);
    let target: SocketAddr = dice.pick(&TARGETS).parse().unwrap();
    let is_target = target.is_ipv4() == from.is_ipv4() && !dice.one_in(4);
    let to = if is_target { target } else { end(dice, addresses) };
    let flags = dice.pick(&[0x02, 0x10, 0x12, 0x18, 0x11, 0x04, 0x00, 0xff]);
    let body = match dice.below(5) {
        0..=2 => Body::Tcp { flags },
        _ => Body::Udp,
    };
    let length = match dice.below(20) {
        0 => dice.below(1700),
        1 => 1380 + dice.below(90),
        _ => dice.below(40),
    };
    let ttl = dice.pick(&[0, 1, 2, 64, 64, 64, 255]);
    let mut packet = Packet::of(from, to, body).long(length as usize).ttl(ttl);
    if to.port() == 443 && dice.one_in(2) {
        packet = packet.payload(&quic(dice));
    }
    packet = packet.class(dice.pick(&[0, 0, 0, 1, 0xb8, 0xff])).id(dice.below(2) as u32);
    if dice.one_in(8) {
        packet = packet.padding(dice.below(20) as usize);
    }
    if dice.one_in(20) {
        packet = packet.unsummed();
    }
    packet
}

/// What a backend, or somebody on the way to it, says to the port of a flow.
fn answer(dice: &mut Dice, mirror: &Mirror<'_>) -> Option<Packet> {
    let (from, to, protocol) = mirror.answer(dice.next())?;
    let body = |dice: &mut Dice| match protocol {
        packets::TCP => Body::Tcp { flags: dice.pick(&[0x12, 0x10, 0x10, 0x18, 0x11, 0x04]) },
        _ => Body::Udp,
    };
    let length = dice.below(60) as usize;
    let packet = if dice.one_in(5) {
        let asked = Packet::of(to, from, body(dice)).long(length).frame()[14..].to_vec();
        let kind = dice.pick(if to.is_ipv4() { &[3, 3, 11, 5] } else { &[2, 2, 1, 3] });
        let who = if dice.one_in(2) {
            from.ip()
        } else {
            ip(if to.is_ipv4() { "10.5.0.1" } else { "fd05::1" })
        };
        packets::icmp(&who.to_string(), &to.ip().to_string(), kind, 0)
            .rest([0, 0, 5, 0])
            .payload(&asked)
    } else {
        Packet::of(from, to, body(dice)).long(length)
    };
    Some(packet.ttl(dice.pick(&[1, 64])).id(dice.below(2) as u32))
}

/// An ICMP message to where the quoted packet came from.
fn complaint(dice: &mut Dice) -> Packet {
    let addresses: &[&str] = if dice.one_in(3) { &V6 } else { &V4 };
    let about = {
        let (from, to) = (end(dice, addresses), end(dice, addresses));
        let body = if dice.one_in(2) { Body::Udp } else { Body::Tcp { flags: 0x10 } };
        let packet = Packet::of(from, to, body).long(dice.below(40) as usize);
        let options = addresses == V4 && dice.one_in(4);
        (from.ip(), if options { packet.options(&[1; 4]) } else { packet })
    };
    let quoted = about.1.frame()[14..].to_vec();
    let kind = dice.pick(&[0, 1, 2, 3, 3, 3, 4, 5, 8, 11, 12, 128, 128, 129, 135]);
    let target: IpAddr = if dice.one_in(8) { ip(dice.pick(addresses)) } else { about.0 };
    let message = packets::icmp(dice.pick(addresses), &target.to_string(), kind, 0);
    let length =
        quoted.len() - if dice.one_in(4) { dice.below(quoted.len() as u64) as usize } else { 0 };
    message.rest([0, 0, 5, 0]).payload(&quoted[..length]).ttl(dice.pick(&[1, 2, 64]))
}

fn packet(dice: &mut Dice, mirror: &Mirror<'_>) -> Vec<u8> {
    let answer = if dice.one_in(8) { answer(dice, mirror) } else { None };
    let mut packet = match dice.below(10) {
        _ if answer.is_some() => answer.unwrap(),
        0 => complaint(dice),
        1 => {
            let (from, to) = (dice.pick(&V4), dice.pick(&V4));
            raw(from, to, dice.next() as u8).long(dice.below(60) as usize)
        }
        _ => plain(dice),
    };
    let is_ipv4 = packet.frame()[12..14] == [8, 0];
    if is_ipv4 && dice.one_in(8) {
        packet = packet.options(&vec![1; dice.below(41) as usize]);
    }
    for _ in 0..if is_ipv4 || !dice.one_in(4) { 0 } else { dice.below(8) } {
        packet = packet.extension(dice.pick(&[0, 60, 60, 43]), dice.below(3) as u8 + 1);
    }
    if dice.one_in(8) {
        let size = dice.pick(&[8, 16, 24, 64]);
        let pieces = packet.pieces(size);
        packet = if pieces.is_empty() { packet } else { dice.pick(&pieces) };
    }
    if dice.one_in(12) {
        packet = packet.vlan(dice.pick(&[0, 0, 7, 7, 4095]), dice.below(8) as u16);
    }
    let mut frame = packet.frame();
    // A few wrong bytes, most of them in headers.
    for _ in 0..if dice.one_in(4) { 1 + dice.below(3) } else { 0 } {
        let at = 12 + dice.below(60) as usize;
        if at < frame.len() {
            frame[at] =
                if dice.one_in(2) { dice.next() as u8 } else { frame[at] ^ 1 << dice.below(8) };
        }
    }
    if dice.one_in(10) {
        frame.truncate(14.max(dice.below(frame.len() as u64 + 1) as usize));
    }
    frame
}

fn tried(fast: &Fast, frame: &[u8]) -> Fate {
    let before = fast.dropped();
    let tried = fast.try_frame(frame).unwrap();
    match tried.verdict {
        Verdict::Pass => Fate::Pass(tried.frame),
        Verdict::Transmit => Fate::Transmit(tried.frame),
        Verdict::Redirect => Fate::Redirect(tried.frame),
        Verdict::Drop => {
            let after = fast.dropped();
            let reason = Drop::ALL.into_iter().find(|r| before[r] != after[r]);
            Fate::Drop(reason.expect("a dropped packet is counted"))
        }
        Verdict::Aborted => panic!("aborted"),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// What is shown of a packet is what it was and what became of it.
fn check_shown(captured: Option<&Captured>, frame: &[u8], is: &Fate) {
    let head = |frame: &[u8]| frame[..frame.len().min(HEAD_LEN)].to_vec();
    let Some(captured) = captured else {
        assert_eq!(*is, Fate::Pass(frame.to_vec()), "{frame:02x?}");
        return;
    };
    assert_eq!(captured.came.head, head(frame));
    let left = captured.left.as_ref().map(|left| (left.head.clone(), left.length as usize));
    let wanted = match is {
        Fate::Pass(after) if after == frame => None,
        Fate::Drop(reason) => {
            assert_eq!(captured.action, Action::Dropped(Some(*reason)), "{frame:02x?}");
            None
        }
        Fate::Pass(after) | Fate::Transmit(after) | Fate::Redirect(after) => {
            Some((head(after), after.len()))
        }
    };
    assert_eq!(left, wanted, "{frame:02x?}");
}

#[test]
fn the_programs_do_what_the_model_says() {
    let test = "the_programs_do_what_the_model_says";
    let stages = [0, 1, 2].map(busy_path);
    let Some(mut fast) = open(test, &stages[0]) else { return };
    try_packets(&mut fast, &stages, number("BUOY_PACKETS").unwrap_or(PACKETS), None);
}

#[test]
fn the_programs_do_the_same_while_somebody_watches() {
    let test = "the_programs_do_the_same_while_somebody_watches";
    let stages = [0, 1, 2].map(busy_path);
    let Some(mut fast) = open_pinned(test, &stages[0]) else { return };
    let shown = Shown { only: Only::Everything, ..Shown::default() };
    let capture = Capture::begin(shown).unwrap();
    let count = number("BUOY_PACKETS").unwrap_or(PACKETS) / 4;
    try_packets(&mut fast, &stages, count, Some(capture));
    fast.detach();
}

fn try_packets(fast: &mut Fast, stages: &[FastPath; 3], count: u64, mut capture: Option<Capture>) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = number("BUOY_SEED").unwrap_or(since.as_nanos() as u64);
    eprintln!("BUOY_SEED={seed} BUOY_PACKETS={count}");
    let (mut dice, mut mirror) = (Dice(seed), Mirror::new(&stages[0]));
    let (mut fates, mut forgotten) = ([0_u64; 4], 0);
    for n in 0..count {
        let stage = &stages[(n * 3 / count) as usize];
        if !std::ptr::eq(mirror.path, stage) {
            mirror.compare_losses(fast);
            fast.apply(stage, &mut way).unwrap();
            mirror.change(stage);
            mirror.begin_to_compare_losses(fast);
        }
        let frame = packet(&mut dice, &mirror);
        if let Some(capture) = capture.as_mut().filter(|_| n % 1000 == 0) {
            capture.renew().unwrap();
        }
        let is = tried(fast, &frame);
        let wanted = mirror.judge(&frame, is.frame());
        if let Some(capture) = &mut capture {
            let captured = capture.take();
            if !mirror.is_unsure {
                check_shown(captured.as_ref(), &frame, &is);
            }
        }
        if mirror.is_unsure {
            mirror.count_losses(false);
            continue;
        }
        if mirror.follows && is == Fate::Pass(frame.clone()) {
            forgotten += 1;
            continue;
        }
        assert_eq!(is, wanted, "packet {n} of seed {seed}: {frame:02x?}");
        mirror.count_losses(true);
        fates[match is {
            Fate::Pass(_) => 0,
            Fate::Drop(_) => 1,
            Fate::Transmit(_) => 2,
            Fate::Redirect(_) => 3,
        }] += 1;
    }
    mirror.compare_losses(fast);
    assert!(mirror.lost.compared > count / 100, "{}", mirror.lost.compared);
    for reason in [Drop::Source, Drop::Limit] {
        let refused = fast.dropped()[&reason];
        assert!(refused > count / 1000, "{reason:?}: {refused}");
    }
    let unnamed: u64 = fast.counters().forwarded.values().map(|count| count.unnamed).sum();
    assert!(unnamed > count / 1000, "{unnamed}");
    eprintln!("passed, dropped, transmitted, redirected: {fates:?}; forgotten pieces: {forgotten}");
    assert!(forgotten <= count / 1000, "{forgotten}");
    assert!(fates.iter().all(|&n| n > count / 100), "{fates:?}");
}

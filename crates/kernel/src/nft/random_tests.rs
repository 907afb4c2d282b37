//! Whatever the table was, what is made of it is what would be made from nothing: random services, in the real kernel.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // All of it is test.

use super::ruleset::{Ruleset, TableFamily, There};
use super::{Forward, Spread, TABLE, direct, run, run_all, seen, steps, tables};
use buoy_model::{
    Cidr, FlowFields, Per, Ports, Prefixes, Protocol, Quic, Rate, ServerId, SourceAddress,
    SourceRule, Sources, Stick,
};
use nix::sched::{CloneFlags, unshare};
use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

/// Numbers that a seed gives (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize].clone()
    }

    /// Each of them or not.
    fn some<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        all.iter().filter(|_| !self.one_in(3)).cloned().collect()
    }
}

fn vip(number: u8) -> IpAddr {
    match number {
        0..3 => IpAddr::from([10, 0, 0, 100 + number]),
        _ => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

/// Another host of the family of a VIP.
fn host(vip: IpAddr, number: u8) -> IpAddr {
    match vip {
        IpAddr::V4(_) => IpAddr::from([10, 0, 0, number]),
        IpAddr::V6(_) => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 1, u16::from(number)]),
    }
}

/// Services of some VIPs; none has a port of another.
fn services(random: &mut Random) -> Vec<Forward> {
    let of_ranges = [Ports::new(8000, 8009).unwrap(), Ports::ALL];
    let mut all = Vec::new();
    for vip in (0..5).map(vip) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut ports = random.some(&[Ports::one(80), Ports::one(443), Ports::one(8001)]);
            if random.one_in(2) {
                ports.push(random.of(&of_ranges));
            }
            for own in &ports {
                let overlaps = |other: &&Ports| own != *other && own.overlaps(**other);
                let within = ports.iter().filter(overlaps).copied();
                let within = within.filter(|_| !own.is_one()).collect();
                all.push(service(random, vip, protocol, *own, within));
            }
        }
    }
    all.retain(|_| !random.one_in(4));
    // A few have rules of their own, and more than that are looked up.
    if random.one_in(2) {
        all.sort_by_cached_key(|_| random.below(1 << 16));
        all.truncate(random.below(7) as usize);
    }
    all
}

fn service(
    random: &mut Random,
    vip: IpAddr,
    protocol: Protocol,
    ports: Ports,
    within: Vec<Ports>,
) -> Forward {
    let base = random.of(&[ports.first(), 9000]);
    // Where all ports are one service, none is left to move them to.
    let base = if ports == Ports::ALL { ports.first() } else { base };
    let hosts: Vec<IpAddr> = (21..25).map(|number| host(vip, number)).collect();
    let mut backends = random.some(&hosts);
    backends.push(host(vip, 25));
    let backends: Vec<SocketAddr> = backends.iter().map(|ip| SocketAddr::new(*ip, base)).collect();
    let standing = random.some(&backends);
    let slots = (0..random.of(&[2, 8])).map(|_| random.of(&backends)).collect::<Vec<_>>();
    let client = FlowFields::of_prefixes(Prefixes::new(24, 64).unwrap());
    let spread = match random.below(5) {
        0 => Spread::Refuse,
        1 => Spread::Local,
        2 => Spread::HashClient(slots.into(), client),
        3 => Spread::Turns(slots.into()),
        _ => Spread::Hash(slots.into()),
    };
    let stick = Stick { timeout: Duration::from_secs(random.of(&[60, 300])), client };
    let rate = Rate::new(random.of(&[10, 20]), Per::Second, 5).unwrap();
    let servers = [("0a", 0), ("0b", 1)].map(|(id, of)| (ServerId::parse(id).unwrap(), of));
    let named = servers.map(|(id, of)| (id, backends[of % backends.len()])).to_vec();
    let named = (Quic { config: 5, length: 1 }, random.some(&named));
    let pool = [host(vip, 50), host(vip, 51)];
    let sources = [SourceAddress::Vip, SourceAddress::Client, SourceAddress::Pool(pool.into())];
    Forward {
        vip,
        ports,
        within,
        protocol,
        source: random.of(&sources),
        sources: clients(random).into(),
        new_connections: random.one_in(4).then_some(rate),
        spread,
        stick: random.one_in(4).then_some(stick),
        standing,
        quic: (protocol == Protocol::Udp && ports.is_one() && random.one_in(3)).then_some(named),
        backends,
        relays: random.some(&[host(vip, 11), host(vip, 12)]),
        link: random.of(&["e0", "e1"]).into(),
    }
}

fn clients(random: &mut Random) -> Sources {
    let refused = |length| SourceRule {
        prefix: Cidr::new(IpAddr::from([10, 9, 0, 0]), length).unwrap(),
        allows: false,
    };
    let lists = [vec![], vec![], vec![refused(16)], vec![refused(24)]];
    Sources::new(random.of(&lists)).unwrap()
}

/// All tables: their sets and chains without an order, and each rule without that of its elements.
fn listed() -> Vec<String> {
    let text = run(&["list", "ruleset"], "").unwrap();
    // Whose they are is in their words.
    let inside = |line: &&str| line.starts_with('\t');
    let text: String = text.lines().filter(inside).map(|line| format!("{line}\n")).collect();
    let sorted = |words: &str| {
        let mut words: Vec<&str> = words.split([' ', '\t', '\n', ',']).collect();
        words.retain(|word| !word.is_empty());
        words.sort_unstable();
        words.join(" ")
    };
    let block = |block: &str| match block.trim_start().starts_with("chain") {
        true => block.lines().map(sorted).collect::<Vec<_>>().join("\n"),
        false => sorted(block),
    };
    let mut blocks: Vec<String> = text.split("\n\t}\n").map(block).collect();
    blocks.sort();
    blocks
}

#[test]
fn a_table_that_was_changed_is_the_one_that_is_made_from_nothing() {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("SKIPPED: a_table_that_was_changed: no network namespace: {errno}");
        return;
    }
    let links = ["link", "add", "e0", "type", "veth", "peer", "name", "e1"];
    assert!(Command::new("ip").args(links).status().unwrap().success());
    let all = |services: &[Forward]| {
        let [translated, v4, v6] = tables(services);
        [translated, v4, v6, direct::ruleset(services)]
    };
    let mut random = Random(7);
    let mut before: Option<[Ruleset; 4]> = None;
    for round in 0..40 {
        let services = if round == 20 { Vec::new() } else { services(&mut random) };
        let tables = all(&services);
        // Somebody else takes rules away, and that is seen where it is looked for.
        let is_emptied =
            random.one_in(4) && seen(TableFamily::Inet).is_ok_and(|there| is_table(&there));
        if is_emptied {
            run(&["flush", "table", "inet", TABLE], "").unwrap();
            assert!(super::observe().unwrap().is_none());
        }
        // By what is known, or by what is found.
        let is_known = random.one_in(2);
        let there = |of: usize| match &before {
            Some(before) if is_known && !is_emptied => There::known(&before[of]),
            Some(_) | None => seen(tables[of].family()).unwrap(),
        };
        let there: Vec<There<'_>> = (0..tables.len()).map(there).collect();
        run_all(&steps(&tables, &there)).unwrap();
        let changed = listed();
        run(&["flush", "ruleset"], "").unwrap();
        run_all(&steps(&tables, &[const { There::Nothing }; 4])).unwrap();
        let made = listed();
        let differs = |of: &[String], other: &[String]| -> Vec<String> {
            of.iter().filter(|block| !other.contains(block)).cloned().collect()
        };
        let (kept, missing) = (differs(&changed, &made), differs(&made, &changed));
        let none: (Vec<String>, Vec<String>) = Default::default();
        assert_eq!((kept, missing), none, "round {round}, by what is known: {is_known}");
        before = Some(tables);
    }
}

fn is_table(there: &There<'_>) -> bool {
    match there {
        There::Nothing => false,
        There::Known(_) | There::Seen(_) => true,
    }
}

/// So many services of as many VIPs, with ten backends each.
fn many(count: u32) -> Vec<Forward> {
    let mut random = Random(1);
    let address = |number: u32| IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    let mut all = Vec::new();
    for number in 0..count {
        let own = service(&mut random, vip(0), Protocol::Tcp, Ports::one(80), vec![]);
        let at = |host: u32| SocketAddr::new(address(0x1_0000 + number * 10 + host), 8080);
        let backends: Vec<SocketAddr> = (0..10).map(at).collect();
        all.push(Forward {
            vip: address(number),
            spread: Spread::Hash(backends.clone().into()),
            sources: Sources::default().into(),
            standing: backends.clone(),
            backends,
            ..own
        });
    }
    all
}

#[test]
fn services_that_all_give_way_to_others_need_no_table_made_anew() {
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("SKIPPED: services_that_all_give_way: no network namespace: {errno}");
        return;
    }
    let mut all = many(80);
    all.iter_mut().for_each(|forward| forward.link = "lo".into());
    let (old, new) = (tables(&all[..40]), tables(&all[40..]));
    run_all(&steps(&old, &[const { There::Nothing }; 3])).unwrap();
    run_all(&steps(&new, &old.each_ref().map(There::known))).unwrap();
}

#[test]
fn much_work_is_many_transactions_and_a_change_of_one_of_many_services_is_a_small_one() {
    let mut services = many(1000);
    let before = tables(&services);
    let made = steps(&before, &[const { There::Nothing }; 3]);
    let made: Vec<&str> = made.scripts().collect();
    assert!(made.len() > 20, "{}", made.len());
    assert!(made.iter().all(|script| script.len() <= 64 << 10));
    let down = services[500].backends[3];
    services[500].standing.retain(|backend| *backend != down);
    services[500].spread = Spread::Hash(services[500].standing.clone().into());
    let after = tables(&services);
    let change = steps(&after, &before.each_ref().map(There::known)).whole().to_owned();
    assert!(change.contains(TABLE) && change.len() < 4096, "{change}");
    assert!(!change.contains("10.0.1.243"), "another service: {change}");
}

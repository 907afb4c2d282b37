//! Clients that come again, and datagrams that name their server, with the real nftables: own namespaces with a client, two
//! balancers and two backends on one switch.

#![allow(clippy::unwrap_used, clippy::print_stderr)] // All of it is test.

mod balancers;
mod talk;

use balancers::{Family, Lab, answer, backend, everywhere, forward, hash, service, turns};
use buoy_kernel::nft::{self, Forward, Spread};
use buoy_model::{FlowFields, Prefixes, Protocol, Quic, ServerId, Stick};
use std::net::SocketAddr;
use std::time::Duration;

const BOTH: [Family; 2] = [Family::V4, Family::V6];

/// All new connections to one backend, and clients of a network keep the one they had.
fn to(host: u8, standing: &[u8], seconds: u64) -> Vec<Forward> {
    let client = FlowFields::of_prefixes(Prefixes::new(24, 64).unwrap());
    let stick = Some(Stick { timeout: Duration::from_secs(seconds), client });
    let mut all = everywhere(turns);
    for forward in &mut all {
        let family = if forward.vip.is_ipv4() { Family::V4 } else { Family::V6 };
        forward.spread = Spread::HashClient(vec![backend(family, host); 4].into(), client);
        forward.stick = stick;
        forward.standing = standing.iter().map(|host| backend(family, *host)).collect();
    }
    all
}

/// Who answers a connection and a datagram.
fn asked(lab: &Lab, family: Family) -> [String; 2] {
    let mut tcp = lab.connect("client", service(family)).unwrap();
    assert!(tcp.echoes("on").unwrap());
    [tcp.server, lab.ask("client", service(family)).unwrap().0]
}

#[test]
fn a_client_that_comes_again_in_time_gets_the_backend_it_had() {
    let Some(lab) = Lab::new("a_client_that_comes_again_in_time") else { return };
    lab.serve();
    lab.own("a");
    lab.apply(&to(21, &[21, 22], 60));
    BOTH.iter().for_each(|family| assert_eq!(asked(&lab, *family), ["s1", "s1"]));
    // Others have its slots, or its backend is drained.
    lab.apply(&to(22, &[21, 22], 60));
    BOTH.iter().for_each(|family| assert_eq!(asked(&lab, *family), ["s1", "s1"]));
    let observed = lab.inside("a", nft::observe).unwrap().unwrap();
    let counts = to(22, &[21, 22], 60).into_iter().map(|forward| observed.counts(&forward));
    counts.for_each(|counts| assert_eq!((counts.stuck, counts.connections), (1, 2)));
    // It is down, and comes back: who had it stays with the other one.
    lab.apply(&to(22, &[22], 60));
    BOTH.iter().for_each(|family| assert_eq!(asked(&lab, *family), ["s2", "s2"]));
    lab.apply(&to(21, &[21, 22], 60));
    BOTH.iter().for_each(|family| assert_eq!(asked(&lab, *family), ["s2", "s2"]));
    // Another time is another set; and when the time is over, the client is as anybody else.
    lab.apply(&to(22, &[21, 22], 1));
    BOTH.iter().for_each(|family| assert_eq!(asked(&lab, *family), ["s2", "s2"]));
    lab.apply(&to(21, &[21, 22], 1));
    BOTH.iter().for_each(|family| assert_eq!(asked(&lab, *family), ["s2", "s2"]));
    std::thread::sleep(Duration::from_millis(1500));
    BOTH.iter().for_each(|family| assert_eq!(asked(&lab, *family), ["s1", "s1"]));
    lab.apply(&everywhere(hash));
    let sets = lab
        .inside("a", || std::process::Command::new("nft").args(["list", "sets"]).output().unwrap());
    assert!(!String::from_utf8_lossy(&sets.stdout).contains("_stick_"));
}

/// Who answers this, from a port of its own.
fn told(lab: &Lab, family: Family, data: &[u8]) -> String {
    let socket = lab.socket("client", service(family)).unwrap();
    socket.send(data).unwrap();
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer).unwrap();
    let server = String::from_utf8_lossy(&buffer[..2]).into_owned();
    // The flow stays, whatever its next datagram says.
    assert_eq!(answer(&socket).unwrap().0, server, "{length}");
    server
}

#[test]
fn a_datagram_goes_to_the_server_that_it_names() {
    let Some(lab) = Lab::new("a_datagram_goes_to_the_server_that_it_names") else { return };
    lab.serve();
    lab.own("a");
    let mut wanted = 0;
    for (length, first, second) in
        [(1, "01", "ff"), (2, "0a01", "0a02"), (8, "0a00000000000001", "ffffffffffffffff")]
    {
        let ids = [first, second].map(|text| ServerId::parse(text).unwrap());
        let quic = Quic { config: 5, length };
        let named = |host: u8| {
            let make = |family: Family| {
                let mut one = forward(family, Protocol::Udp, hash);
                one.spread = hash(vec![backend(family, host)]);
                let servers: [SocketAddr; 2] = [21, 22].map(|host| backend(family, host));
                one.quic = Some((quic, ids.into_iter().zip(servers).collect()));
                one
            };
            BOTH.map(make)
        };
        let bytes = |id: ServerId| id.number().to_be_bytes()[8 - usize::from(length)..].to_vec();
        let short = |id, config: u8| [&[0x40, config << 5][..], &bytes(id), &[7, 7]].concat();
        let long = |id, config: u8| {
            let own = [&[config << 5][..], &bytes(id), &[7, 7]].concat();
            [&[0xc0, 0, 0, 0, 1, own.len() as u8][..], &own, &[0; 20]].concat()
        };
        for (host, by_hash) in [(21, "s1"), (22, "s2")] {
            lab.apply(&named(host));
            for family in BOTH {
                for (id, server) in ids.into_iter().zip(["s1", "s2"]) {
                    assert_eq!(told(&lab, family, &short(id, 5)), server, "{id} {family:?}");
                    assert_eq!(told(&lab, family, &long(id, 5)), server, "{id} {family:?}");
                    assert_eq!(told(&lab, family, &short(id, 4)), by_hash);
                    assert_eq!(told(&lab, family, &long(id, 4)), by_hash);
                }
                let cut = &short(ids[0], 5)[..usize::from(length) + 1];
                assert_eq!(told(&lab, family, cut), by_hash, "cut in the id");
                assert_eq!(told(&lab, family, &[]), by_hash);
            }
        }
        wanted += 6;
        let observed = lab.inside("a", nft::observe).unwrap().unwrap();
        named(22).iter().for_each(|forward| assert_eq!(observed.counts(forward).unnamed, wanted));
    }
}

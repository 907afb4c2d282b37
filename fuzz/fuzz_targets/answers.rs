//! What servers answer to checks: the first byte chooses the parser, and no input panics.
#![no_main]

use buoy_wire::answer::echo::Echo;
use buoy_wire::answer::{certificate, dns, grpc, lines, mysql, postgres, segment, text};
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    match choice % 13 {
        0 => drop(lines::agent(bytes)),
        1 => drop(lines::redis(bytes)),
        2 => drop(lines::smtp(bytes, "220")),
        3 => drop(dns::judge(&dns::question([1, 2], "a.example", 1), bytes, "a")),
        4 => drop(mysql::judge(bytes)),
        5 => {
            let (kind, body) = bytes.split_first().unwrap_or((&0, &[]));
            drop(postgres::open(*kind, body, choice & 0x80 == 0));
            drop(postgres::row(*kind, body));
        }
        6 => drop(grpc::status(bytes)),
        7 => drop(certificate::end(bytes)),
        8 => assert!(lines::load(bytes).is_none_or(|load| load <= 100)),
        9 => drop(text::weight(bytes, "/f")),
        10 => drop(segment::heard(bytes)),
        11 => {
            let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            // A mark is random: what answers both of two marks answers anything.
            let answers = |host, mark| Echo::new(host, mark).is_answer(bytes);
            assert!(
                !hosts
                    .iter()
                    .any(|host| answers(*host, [1, 2, 3, 4]) && answers(*host, [1, 2, 3, 5]))
            );
        }
        _ => drop(text::judge("/f", bytes, Some("ready"), true)),
    }
});

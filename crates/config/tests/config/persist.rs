//! Files about clients that get the same backend again, connections of who is down, and servers that datagrams name; the
//! marks of wrong ones are those of `cases`.

use crate::accepted::services;
use crate::cases::Case;
use buoy_config::Code;
use buoy_model::{
    Balance, FlowFields, Mode, OnDown, Prefixes, Protocol, Quic, ServerId, Service, Stick,
};
use core::time::Duration;

/// Lines of a `[[vip.service]]` as in `cases`.
pub(crate) const PERSIST: &[Case] = &[
    (Code::NeedsOther, "»persist_ipv4 = 24", "persist = \"client\""),
    (Code::NeedsOther, "mode = \"proxy\"\n»persist_ipv6 = 64", "persist_timeout"),
    (Code::OutOfRange, "persist = \"client\"\npersist_ipv4 = »33", "1 to 32"),
    (Code::OutOfRange, "persist = \"client\"\npersist_ipv6 = »0", "1 to 128"),
    (Code::OutOfRange, "persist_timeout = »\"1s\"", "4s"),
    (Code::UnknownKey, "»persistence_timeout = 300", "persist_timeout"),
    (Code::UnknownKey, "»persistence_granularity = 24", "persist_ipv4"),
    (
        Code::Contradiction,
        "forward = \"nat\"\nsource = \"vip\"\n»persist_timeout = \"5m\"",
        "remove `source`",
    ),
    (
        Code::Contradiction,
        "mode = \"proxy\"\nbalance = \"random\"\n»persist = \"client\"",
        "persist_timeout",
    ),
    (Code::UnknownWord, "on_down = »\"drop\"", "\"reset\""),
    (Code::NeedsTcp, "port = \"53/udp\"\n»on_down = \"reset\"", "remove the line"),
    (
        Code::NeedsUdp,
        "port = »\"443/tcp\"\nquic = 0\nbackends = [\"10.0.0.21:443 id=01\"]",
        "without `quic` for tcp",
    ),
    (
        Code::OutOfRange,
        "port = \"443/udp\"\nquic = »7\nbackends = [\"10.0.0.21:443 id=01\"]",
        "0 to 6",
    ),
    (
        Code::BadServerId,
        "port = \"443/udp\"\nquic = 0\nbackends = [\"10.0.0.21:443 id=»1\"]",
        "id=0a01",
    ),
    (
        Code::BadServerId,
        "port = \"443/udp\"\nquic = 0\nbackends = »[\"10.0.0.21:443 id=01\", \"10.0.0.22:443\"]",
        "id=HEX",
    ),
    (
        Code::BadServerId,
        "port = \"443/udp\"\nquic = 0\nbackends = »[\"10.0.0.21:443 id=01\", \"10.0.0.22:443 id=0002\"]",
        "as many digits",
    ),
    (
        Code::BadServerId,
        "port = \"443/udp\"\nquic = 0\nbackends = [\"10.0.0.21:443 id=01\", »\"10.0.0.22:443 id=01\"]",
        "its own",
    ),
    (
        Code::BadServerId,
        "port = \"443/udp\"\nquic = 0\nbackends = [»\"dns:a.example:443 id=01\"]",
        "where a file lists",
    ),
    (Code::NeedsOther, "port = \"443/udp\"\nbackends = »[\"10.0.0.21:443 id=01\"]", "quic = 0"),
    (
        Code::BadBackend,
        "port = \"443/udp\"\nbackends = [\"10.0.0.21:443 »server_id=01\"]",
        "id=HEX",
    ),
];

fn one(lines: &str) -> Service {
    services(&format!("port = \"443/tcp\"\nbackends = [\"10.0.0.21:443\"]\n{lines}")).remove(0)
}

#[test]
fn clients_are_as_wide_as_the_file_says_and_known_for_as_long() {
    let bits = |v4, v6| FlowFields::of_prefixes(Prefixes::new(v4, v6).unwrap());
    let minutes = |n: u64, client| Some(Stick { timeout: Duration::from_secs(60 * n), client });
    let client = FlowFields::Client;
    for (lines, balance, stick) in [
        ("persist = \"client\"", Balance::Hash(client), None),
        ("persist = \"client\"\npersist_ipv4 = 32", Balance::Hash(client), None),
        ("balance = \"source\"\npersist_ipv4 = 24", Balance::Hash(bits(24, 128)), None),
        ("persist_timeout = \"5m\"", Balance::Hash(client), minutes(5, client)),
        (
            "balance = \"roundrobin\"\npersist_timeout = \"1h\"\npersist_ipv6 = 56",
            Balance::RoundRobin,
            minutes(60, bits(32, 56)),
        ),
        (
            "mode = \"proxy\"\nbalance = \"leastconn\"\npersist = \"client\"\npersist_timeout = \"1m\"",
            Balance::LeastConnections,
            minutes(1, client),
        ),
        ("mode = \"proxy\"\npersist_timeout = \"1m\"", Balance::Hash(client), minutes(1, client)),
    ] {
        let service = one(lines);
        assert_eq!((service.balance, service.life.stick), (balance, stick), "{lines}");
    }
    let service =
        one("forward = \"nat\"\npersist = \"client\"\npersist_ipv4 = 24\npersist_ipv6 = 64");
    let Mode::Xdp { flow, .. } = service.mode else { panic!("{service:?}") };
    assert_eq!(flow, bits(24, 64));
}

#[test]
fn connections_of_who_is_down_stay_or_are_reset_as_the_engine_does_or_as_the_file_says() {
    for (lines, wanted) in [
        ("", OnDown::Keep),
        ("mode = \"proxy\"", OnDown::Keep),
        ("forward = \"nat\"", OnDown::Reset),
        ("forward = \"nat\"\non_down = \"keep\"", OnDown::Keep),
        ("on_down = \"reset\"", OnDown::Reset),
        ("mode = \"proxy\"\non_down = \"reset\"", OnDown::Reset),
    ] {
        assert_eq!(one(lines).on_down(), wanted, "{lines}");
    }
    let both = services(
        "port = [\"53/tcp\", \"53/udp\"]\nbackends = [\"10.0.0.21:53\"]\non_down = \"keep\"",
    );
    for service in both {
        let is_tcp = service.protocol == Protocol::Tcp;
        assert_eq!(service.on_down() == OnDown::Keep, is_tcp, "flows of UDP never stay");
    }
}

#[test]
fn servers_have_the_names_that_connection_ids_call_them() {
    let service = services(
        "port = \"443/udp\"\nquic = 6\nbackends = [\"a 10.0.0.21:443 id=0A01\", \"b 10.0.0.22:443 id=0a02\"]",
    )
    .remove(0);
    assert_eq!(service.front.quic, Some(Quic { config: 6, length: 2 }));
    let ids: Vec<_> = service.backends.iter().map(|b| b.server_id).collect();
    assert_eq!(ids, [ServerId::new(&[0x0a, 1]), ServerId::new(&[0x0a, 2])]);
}

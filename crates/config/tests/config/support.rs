//! A host with two legs and a table of files, so that no test depends on the machine it runs on.

use buoy_config::{Checked, FileFacts, Host, HostAddress, HostLink, Report};
use buoy_model::{Cidr, LinkId};
use std::io;

/// The smallest file: everything else has a default.
pub(crate) const SMALL: &str = r#"peers  = ["10.0.0.11", "10.0.0.12"]
secret = "file:cluster.key"

[[vip]]
address = "10.0.0.100/24"
"#;

pub(crate) const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
pub(crate) const KEY_2: &str = "f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

pub(crate) fn cidr(text: &str) -> Cidr {
    let (address, prefix) = text.split_once('/').unwrap();
    Cidr::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
}

fn link(id: u32, name: &str, addresses: &[&str]) -> HostLink {
    let addresses = addresses.iter().map(|a| HostAddress { cidr: cidr(a), ours: false }).collect();
    HostLink { id: LinkId(id), name: name.to_owned(), up: true, addresses }
}

/// The host lb1.
pub(crate) fn host() -> Host {
    Host {
        hostname: "lb1".to_owned(),
        links: vec![
            link(1, "lo", &["127.0.0.1/8", "::1/128"]),
            link(2, "eth0", &["10.0.0.11/24", "2001:db8::11/64", "fe80::11/64"]),
            link(3, "eth1", &["192.168.5.11/24", "fe80::12/64"]),
        ],
    }
}

/// Of a token in tests.
const HASH: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// The files that exist in tests.
pub(crate) fn files(path: &str) -> io::Result<FileFacts> {
    let (content, mode) = match path {
        "/etc/buoy/cluster.key" | "/etc/buoy/copy.key" => (KEY.to_owned(), 0o600),
        "/etc/buoy/second.key" => (format!("# second\n{KEY_2}\n"), 0o400),
        "/etc/buoy/world.key" => (KEY.to_owned(), 0o644),
        "/etc/buoy/group.key" => (KEY.to_owned(), 0o640),
        "/etc/buoy/groupwrite.key" => (KEY.to_owned(), 0o660),
        "/etc/buoy/1.key" => (KEY.replace("00", "a1"), 0o600),
        "/etc/buoy/2.key" => (KEY.replace("00", "a2"), 0o600),
        "/etc/buoy/3.key" => (KEY.replace("00", "a3"), 0o600),
        "/etc/buoy/short.key" => (KEY[..40].to_owned(), 0o600),
        "/etc/buoy/ca.pem" => ("-----BEGIN CERTIFICATE-----\n".to_owned(), 0o644),
        "/etc/buoy/empty.pem" => (String::new(), 0o644),
        "/etc/buoy/api.key" => ("-----BEGIN PRIVATE KEY-----\n".to_owned(), 0o600),
        "/etc/buoy/tokens" => (format!("# users\nann operate {HASH}\n"), 0o640),
        "/etc/buoy/tokens.open" => (format!("ann operate {HASH}\n"), 0o622),
        "/etc/buoy/tokens.bad" => ("ann root 00\n".to_owned(), 0o600),
        "/etc/buoy/tokens.twice" => (format!("ann read {HASH}\nben read {HASH}\n"), 0o600),
        "/etc/buoy/tokens.none" => ("# nobody\n".to_owned(), 0o600),
        "/usr/local/lib/fit" => ("#!/bin/sh\n".to_owned(), 0o755),
        "/usr/local/lib/open" => ("#!/bin/sh\n".to_owned(), 0o757),
        "/usr/local/lib/plain" => ("#!/bin/sh\n".to_owned(), 0o644),
        "/etc/buoy/locked.key" => return Err(io::ErrorKind::PermissionDenied.into()),
        "/etc/buoy/directory" => return Err(io::ErrorKind::IsADirectory.into()),
        _ => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok(FileFacts { content: content.into_bytes(), mode })
}

/// The verdict of the host lb1 on a text.
pub(crate) fn check(text: &str) -> Result<Checked, Report> {
    check_on(text, &host())
}

pub(crate) fn check_on(text: &str, host: &Host) -> Result<Checked, Report> {
    buoy_config::check(text, "/etc/buoy/buoy.toml", host, &files)
}

/// All that is said of a text, warnings too.
pub(crate) fn report(text: &str) -> Report {
    check(text).map_or_else(|report| report, |checked| checked.warnings)
}

/// What is accepted, or the whole report as the test's failure.
pub(crate) fn accepted(text: &str) -> Checked {
    check(text).unwrap_or_else(|report| panic!("refused:\n{report}"))
}

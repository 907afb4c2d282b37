//! Questions for addresses and their answers as frames, made by hand so that the programs have no say in them.
#![allow(dead_code)] // Each test takes what it needs.

use buoy_model::Mac;
use std::net::{IpAddr, Ipv6Addr};

/// The interface that answers.
pub(crate) const HERE: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
/// Who asks.
pub(crate) const ASKER: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);
pub(crate) const BROADCAST: Mac = Mac([0xff; 6]);
pub(crate) const MANY: Mac = Mac([0x33, 0x33, 0xff, 0, 1, 0]);
pub(crate) const ALL_NODES: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);
pub(crate) const OPTION_SOURCE: u8 = 1;
pub(crate) const OPTION_NONCE: u8 = 14;

fn octets(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

/// An ARP message: operation, Ethernet from and to, sender, target.
pub(crate) fn arp(
    operation: u8,
    (from, to): (Mac, Mac),
    sender: (Mac, &str),
    target: (Mac, &str),
) -> Vec<u8> {
    let fixed = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    let parts: [&[u8]; 7] =
        [&to.0, &from.0, &fixed, &sender.0.0, &octets(sender.1), &target.0.0, &octets(target.1)];
    parts.concat()
}

/// A neighbour solicitation before it is a frame.
#[derive(Clone, Debug)]
pub(crate) struct Solicitation {
    pub(crate) to: Mac,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) hops: u8,
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) target: IpAddr,
    pub(crate) options: Vec<u8>,
}

impl Solicitation {
    /// As a host asks that has never heard of it.
    pub(crate) fn of(target: &str) -> Self {
        Self {
            to: MANY,
            source: "fd00::9".parse().unwrap(),
            destination: group_of(target),
            hops: 255,
            kind: 135,
            code: 0,
            target: target.parse().unwrap(),
            options: option(OPTION_SOURCE, ASKER),
        }
    }
}

/// The solicited-node group of an address.
pub(crate) fn group_of(address: &str) -> IpAddr {
    let octets = address.parse::<Ipv6Addr>().unwrap().octets();
    let mut group = "ff02::1:ff00:0".parse::<Ipv6Addr>().unwrap().octets();
    group[13..].copy_from_slice(&octets[13..]);
    IpAddr::from(group)
}

pub(crate) fn option(kind: u8, Mac(mac): Mac) -> Vec<u8> {
    [&[kind, 1], &mac[..]].concat()
}

pub(crate) fn solicitation(asked: &Solicitation) -> Vec<u8> {
    let body = [&[asked.kind, asked.code, 0, 0, 0, 0, 0, 0][..], &v6(asked.target), &asked.options];
    message((ASKER, asked.to), (asked.source, asked.destination), asked.hops, &body.concat())
}

/// With its flags in the highest three bits; Ethernet from and to; whose it is, and to whom.
pub(crate) fn advertisement(flags: u8, macs: (Mac, Mac), target: &str, to: &str) -> Vec<u8> {
    let (target, to) = (target.parse().unwrap(), to.parse().unwrap());
    let body = [&[136, 0, 0, 0, flags, 0, 0, 0][..], &v6(target), &option(2, macs.0)];
    message(macs, (target, to), 255, &body.concat())
}

fn v6(address: IpAddr) -> [u8; 16] {
    let IpAddr::V6(address) = address else { panic!("{address} is IPv4") };
    address.octets()
}

fn message((from, to): (Mac, Mac), ends: (IpAddr, IpAddr), hops: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let (source, destination) = (v6(ends.0), v6(ends.1));
    let fixed = [0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], 58, hops];
    let mut frame = [&to.0[..], &from.0, &fixed, &source, &destination, body].concat();
    let pseudo = [&source[..], &destination, &[0, 0, length[0], length[1], 0, 0, 0, 58], body];
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = pseudo.concat().chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let check = !u16::try_from(sum).unwrap();
    frame[56..58].copy_from_slice(&check.to_be_bytes());
    frame
}

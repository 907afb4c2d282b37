//! Reads what a table has counted from the kernel itself: `nft` reads all sets first, which takes a quarter of a second
//! and 55 MiB where there are a thousand services, every few seconds.

use super::TABLE;
use super::ruleset::TableFamily;
use crate::nfnetlink::{BEFORE, exchange, find, open, request};
use std::collections::BTreeMap;
use std::io;

/// linux/netfilter/nf_tables.h: the subsystem is the upper byte of the type.
const GET_RULE: u16 = 0x0a07;
const GET_OBJECT: u16 = 0x0a13;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const OBJECT_TABLE: u16 = 1;
const OBJECT_NAME: u16 = 2;
const OBJECT_TYPE: u16 = 3;
const OBJECT_DATA: u16 = 4;
const COUNTER: u32 = 1;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// Packets and bytes of each counter of a family's table by name; none where there is no table.
pub(super) fn read(family: TableFamily) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let mut question = request(GET_OBJECT, libc::NLM_F_DUMP, family.number());
    question.attribute(OBJECT_TABLE, &text(TABLE)).attribute(OBJECT_TYPE, &COUNTER.to_be_bytes());
    let mut counters = BTreeMap::new();
    exchange(&open()?, &mut question, |entry| counters.extend(counter(entry)))?;
    Ok(counters)
}

/// Whether a chain of a family's table has rules.
pub(super) fn has_rules(family: TableFamily, chain: &str) -> io::Result<bool> {
    let mut question = request(GET_RULE, libc::NLM_F_DUMP, family.number());
    question.attribute(RULE_TABLE, &text(TABLE)).attribute(RULE_CHAIN, &text(chain));
    let mut has = false;
    exchange(&open()?, &mut question, |_| has = true)?;
    Ok(has)
}

fn counter(entry: &[u8]) -> Option<(String, (u64, u64))> {
    let attributes = entry.get(BEFORE..)?;
    let name = std::str::from_utf8(find(attributes, OBJECT_NAME)?).ok()?.trim_end_matches('\0');
    let data = find(attributes, OBJECT_DATA)?;
    let read = |what| Some(u64::from_be_bytes(*find(data, what)?.first_chunk()?));
    Some((name.to_owned(), (read(COUNTER_PACKETS)?, read(COUNTER_BYTES)?)))
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

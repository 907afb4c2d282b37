//! The programs in the kernel do not get longer by much without somebody saying so.
//!
//! `crates/xdp/bpf/lengths.txt` says how long each was; the committed objects are read, so this needs neither
//! a compiler nor a kernel.

use crate::fail_if_any;
use crate::repository::{read, root};
use std::collections::BTreeMap;

const RECORD: &str = "crates/xdp/bpf/lengths.txt";
const OBJECTS: [&str; 3] = ["gate", "forward", "via"];
/// In a hundred; a program that is shorter by more than this is written down too, or else it may grow again.
const SLACK: u64 = 5;

#[test]
fn no_program_has_grown_unnoticed() {
    let mut lengths = BTreeMap::new();
    for object in OBJECTS {
        let path = root().join(format!("crates/xdp/prebuilt/{object}.bpf.o"));
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        lengths.extend(programs(&bytes).unwrap_or_else(|| panic!("{object} is no object file")));
    }
    assert!(lengths.contains_key("fast_forward"), "{lengths:?}");
    let rule = format!(
        "programs of another length than {RECORD} says (write the new one there, and why in the commit)"
    );
    fail_if_any(&rule, &differences(&read(RECORD), &lengths));
}

#[test]
fn a_program_that_grew_is_caught() {
    let record = "# a comment\nkernel 6.1 x86_64\none 1000 1 2\ntwo 1000\ngone 8\n";
    let lengths = |one, two| {
        BTreeMap::from([("one".to_owned(), one), ("two".to_owned(), two), ("gone".to_owned(), 8)])
    };
    assert_eq!(differences(record, &lengths(1050, 950)), [""; 0]);
    assert_eq!(
        differences(record, &lengths(1051, 1000)),
        ["one: 1051 bytes, 1000 are written down"]
    );
    assert_eq!(differences(record, &lengths(1000, 949)), ["two: 949 bytes, 1000 are written down"]);
    let mut other = lengths(1000, 1000);
    other.remove("gone");
    other.insert("new".to_owned(), 16);
    let found = differences(record, &other);
    assert_eq!(found, ["new: 16 bytes, nothing is written down", "gone: there is no such program"]);
}

fn differences(record: &str, lengths: &BTreeMap<String, u64>) -> Vec<String> {
    let mut recorded: BTreeMap<&str, u64> = record
        .lines()
        .filter(|line| !line.starts_with(['#', 'k']))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.parse().ok()?))
        })
        .collect();
    let mut found = Vec::new();
    for (name, &now) in lengths {
        match recorded.remove(name.as_str()) {
            Some(then) if now.abs_diff(then) * 100 <= then * SLACK => {}
            Some(then) => found.push(format!("{name}: {now} bytes, {then} are written down")),
            None => found.push(format!("{name}: {now} bytes, nothing is written down")),
        }
    }
    found.extend(recorded.keys().map(|name| format!("{name}: there is no such program")));
    found
}

/// The global functions of an ELF object (64 bits, little-endian), with their lengths.
fn programs(object: &[u8]) -> Option<BTreeMap<String, u64>> {
    const SYMBOLS: u64 = 2; // SHT_SYMTAB
    const GLOBAL_FUNCTION: u8 = 0x12; // STB_GLOBAL, STT_FUNC
    let headers = usize::try_from(number(object, 0x28, 8)?).ok()?;
    let header = |at: u64| Some(headers + usize::try_from(at).ok()? * 64);
    let count = number(object, 0x3c, 2)?;
    let content = |section: usize| -> Option<&[u8]> {
        let start = usize::try_from(number(object, section + 0x18, 8)?).ok()?;
        let length = usize::try_from(number(object, section + 0x20, 8)?).ok()?;
        object.get(start..start + length)
    };
    let mut found = BTreeMap::new();
    for at in 0..count {
        let section = header(at)?;
        if number(object, section + 4, 4)? != SYMBOLS {
            continue;
        }
        let names = content(header(number(object, section + 0x28, 4)?)?)?;
        for symbol in content(section)?.chunks_exact(24) {
            if symbol[4] != GLOBAL_FUNCTION {
                continue;
            }
            let name = names.get(usize::try_from(number(symbol, 0, 4)?).ok()?..)?;
            let name = name.split(|&byte| byte == 0).next()?;
            found.insert(String::from_utf8(name.to_vec()).ok()?, number(symbol, 16, 8)?);
        }
    }
    Some(found)
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + length)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

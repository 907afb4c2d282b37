//! How a source file looks: its head, its length, its names, and what it must not contain.

use crate::fail_if_any;
use crate::repository::{File, before_tests, rust_files, words};

/// Lines of a file before its tests.
const LINES_MAX: usize = 600;

/// The only places for `unsafe`: system calls, and the loop's memory.
const UNSAFE_HOMES: [&str; 2] = ["crates/kernel/src/sys.rs", "crates/kernel/src/sys/pool.rs"];

/// Crates that decide or speak, and therefore know no clock, file, socket or thread.
const PURE: [&str; 3] = ["model", "wire", "core"];

fn every_file(rule: &str, check: impl Fn(&File) -> Vec<String>) {
    fail_if_any(rule, &rust_files().iter().flat_map(check).collect::<Vec<_>>());
}

#[test]
fn every_file_says_what_it_is_for() {
    every_file("the first line must be a `//! ` sentence that ends with a full stop", heads);
    assert_eq!(heads(&File::new("a.rs", "use x;\n//! Late.\n")).len(), 1);
    assert_eq!(heads(&File::new("a.rs", "//! fragment\n")).len(), 1);
    assert_eq!(heads(&File::new("a.rs", "//! A sentence that\n//! takes two lines.\n")).len(), 0);
}

fn heads(file: &File) -> Vec<String> {
    let head: Vec<&str> =
        file.text.lines().map_while(|line| line.strip_prefix("//! ")).map(str::trim).collect();
    let good = head.iter().any(|line| line.trim_end_matches(')').ends_with(['.', ':', '?']));
    if good { Vec::new() } else { vec![file.path.clone()] }
}

#[test]
fn no_file_is_longer_than_600_lines_before_its_tests() {
    every_file("split these files by concern", long);
    assert_eq!(long(&File::new("a.rs", &"x\n".repeat(LINES_MAX + 1))).len(), 1);
    let tests = format!("x\n#[cfg(test)]\nmod tests {{\n{}}}\n", "x\n".repeat(LINES_MAX));
    assert_eq!(long(&File::new("a.rs", &tests)).len(), 0);
}

fn long(file: &File) -> Vec<String> {
    let lines = before_tests(&file.text).lines().count();
    if lines > LINES_MAX { vec![format!("{} ({lines} lines)", file.path)] } else { Vec::new() }
}

#[test]
fn unsafe_code_has_one_home() {
    every_file("`unsafe` belongs in crates/kernel/src/sys.rs, or beside it", unsafe_words);
    let bad = "fn f() { unsafe { g() } }";
    assert_eq!(unsafe_words(&File::new("crates/lab/src/a.rs", bad)).len(), 1);
    for home in UNSAFE_HOMES {
        assert_eq!(unsafe_words(&File::new(home, bad)).len(), 0);
    }
    let good = "#![forbid(unsafe_code)]\n// no unsafe here\nlet a = \"unsafe\";";
    assert_eq!(unsafe_words(&File::new("crates/lab/src/a.rs", good)).len(), 0);
}

fn unsafe_words(file: &File) -> Vec<String> {
    if UNSAFE_HOMES.contains(&file.path.as_str()) {
        return Vec::new();
    }
    // Tests too: what they need of the kernel is in the kernel crate.
    let code = crate::repository::code_only(&file.text);
    let found = words(&code).filter(|(_, word)| *word == "unsafe");
    found.map(|(line, _)| format!("{}:{line}", file.path)).collect()
}

/// Crates of the agent's process.
const OF_THE_AGENT: [&str; 5] = ["agent", "kernel", "proxy", "store", "api"];

/// A fork holds up the loop (docs/design/leases.md). The standard library forks where it is to look for the program in
/// a path of the child's own, where something is to run before it, and for another user.
#[test]
fn the_agent_starts_programs_without_a_fork() {
    every_file("name the program by its whole path, and run nothing before it", forks);
    for bad in ["Command::new(\"nft\")", "command.pre_exec(f)", "command.uid(1)", "libc::fork()"] {
        assert_eq!(forks(&File::new("crates/kernel/src/a.rs", bad)).len(), 1, "{bad}");
        assert_eq!(forks(&File::new("crates/lab/src/a.rs", bad)).len(), 0, "{bad}");
        assert_eq!(forks(&File::new("crates/kernel/tests/a.rs", bad)).len(), 0, "{bad}");
    }
    let good = "Command::new(\"/bin/true\"); Command::new(path); peer.uid()\n#[cfg(test)]\nmod tests {\nCommand::new(\"ip\")\n}\n";
    assert_eq!(forks(&File::new("crates/kernel/src/a.rs", good)).len(), 0);
}

fn forks(file: &File) -> Vec<String> {
    let is_agent = file.krate().is_some_and(|krate| OF_THE_AGENT.contains(&krate));
    // Checks and hooks of another user: the one fork there is.
    let is_known = file.path == "crates/agent/src/health/ask/exec.rs";
    if !is_agent || is_known || file.is_test() || !file.path.contains("/src/") {
        return Vec::new();
    }
    let forks = |line: &&str| {
        let bare = line.split("Command::new(\"").skip(1).any(|name| !name.starts_with('/'));
        bare || [".pre_exec(", "::fork("].iter().any(|word| line.contains(word))
            || line.split(".uid(").skip(1).any(|user| !user.starts_with(')'))
    };
    let lines = before_tests(&file.text).lines();
    lines.filter(forks).map(|line| format!("{}: {}", file.path, line.trim())).collect()
}

#[test]
fn pure_crates_know_no_clock_no_io_and_no_hash_order() {
    every_file("not in model, wire or core", impure);
    for krate in PURE {
        let head = crate::repository::read(&format!("crates/{krate}/src/lib.rs"));
        for attribute in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            assert!(head.lines().any(|line| line == attribute), "{krate}/src/lib.rs: {attribute}");
        }
    }
    for bad in ["use std::time::Instant;", "let m: HashMap<A, B>;", "Instant::now()", "SystemTime"]
    {
        assert_eq!(impure(&File::new("crates/core/src/a.rs", bad)).len(), 1, "{bad}");
        assert_eq!(impure(&File::new("crates/agent/src/a.rs", bad)).len(), 0, "{bad}");
    }
    let tests = "fn f() {}\n#[cfg(test)]\nmod tests {\nuse std::vec;\n}\n";
    assert_eq!(impure(&File::new("crates/core/src/a.rs", tests)).len(), 0);
}

fn impure(file: &File) -> Vec<String> {
    let pure = file.krate().is_some_and(|krate| PURE.contains(&krate));
    if !pure || file.is_test() || !file.path.contains("/src/") {
        return Vec::new();
    }
    let code = file.code();
    let banned = ["std::", "HashMap", "HashSet", "Instant::now", "SystemTime"];
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        if banned.iter().any(|word| line.contains(word)) {
            found.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
        }
    }
    found
}

#[test]
fn names_say_what_a_thing_is() {
    every_file("these names say nothing: name the thing", empty_names);
    for bad in ["struct LeaseManager;", "mod util;", "fn get_owner() {}", "struct IoHelper;"] {
        assert_eq!(empty_names(&File::new("crates/core/src/a.rs", bad)).len(), 1, "{bad}");
    }
    assert_eq!(empty_names(&File::new("crates/core/src/utils.rs", "")).len(), 1);
    let good = "fn target_get() {} let managers = 1; fn get(at: usize) {} // Manager";
    assert_eq!(empty_names(&File::new("crates/core/src/a.rs", good)).len(), 0);
}

fn empty_names(file: &File) -> Vec<String> {
    const MODULES: [&str; 6] = ["util", "utils", "helper", "helpers", "misc", "common"];
    // Methods of traits of others are named by them.
    const OPENRAFT: [&str; 4] =
        ["get_log_state", "get_log_reader", "get_snapshot_builder", "get_current_snapshot"];
    let code = crate::repository::code_only(&file.text);
    let mut found = Vec::new();
    if file.path.split(['/', '.']).any(|part| MODULES.contains(&part)) {
        found.push(file.path.clone());
    }
    let mut before = "";
    for (line, word) in words(&code) {
        let empty = word.ends_with("Manager")
            || word.ends_with("Helper")
            || (before == "mod" && MODULES.contains(&word))
            || (before == "fn" && word.starts_with("get_") && !OPENRAFT.contains(&word));
        if empty {
            found.push(format!("{}:{line}: {word}", file.path));
        }
        before = word;
    }
    found
}

#[test]
fn a_test_that_cannot_run_says_so() {
    let rule = "an ignored test is not counted: print `SKIPPED: name: reason` and return";
    every_file(rule, ignored);
    assert_eq!(ignored(&File::new("a.rs", "#[ignore]\nfn f() {}")).len(), 1);
    assert_eq!(ignored(&File::new("a.rs", "#[ignore = \"slow\"]\nfn f() {}")).len(), 1);
    assert_eq!(ignored(&File::new("a.rs", "// #[ignore]\nfn ignore() {}")).len(), 0);
}

fn ignored(file: &File) -> Vec<String> {
    let code = crate::repository::code_only(&file.text);
    let lines = code.lines().enumerate().filter(|(_, line)| line.trim().starts_with("#[ignore"));
    lines.map(|(number, _)| format!("{}:{}", file.path, number + 1)).collect()
}

#[test]
fn a_denied_lint_is_not_switched_off_again() {
    every_file("these lints hold outside tests, without exception", switched_off);
    let bad = "#![allow(clippy::unwrap_used)]\nfn f() {}";
    assert_eq!(switched_off(&File::new("crates/core/src/a.rs", bad)).len(), 1);
    assert_eq!(switched_off(&File::new("crates/core/tests/a.rs", bad)).len(), 0);
    let good = "#![allow(clippy::print_stdout, reason = \"a program for people\")]";
    assert_eq!(switched_off(&File::new("crates/cli/src/a.rs", good)).len(), 0);
}

fn switched_off(file: &File) -> Vec<String> {
    const HELD: [&str; 6] = [
        "clippy::unwrap_used",
        "clippy::too_many_lines",
        "clippy::wildcard_enum_match_arm",
        "clippy::panic",
        "clippy::undocumented_unsafe_blocks",
        "clippy::todo",
    ];
    if file.is_test() {
        return Vec::new();
    }
    let code = file.code();
    let lines = code.lines().enumerate();
    lines
        .filter(|(_, line)| HELD.iter().any(|lint| line.contains(lint)))
        .map(|(number, line)| format!("{}:{}: {}", file.path, number + 1, line.trim()))
        .collect()
}

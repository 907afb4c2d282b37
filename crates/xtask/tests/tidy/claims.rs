//! What the documents claim can be run: promises name their tests, the manual names real commands.

use crate::documents::quoted;
use crate::fail_if_any;
use crate::repository::{files, read, rust_files, words};
use std::collections::BTreeSet;

/// Names of all tests of the workspace.
fn tests() -> BTreeSet<String> {
    rust_files().iter().flat_map(|file| tests_in(&file.text)).collect()
}

/// Names of the functions that follow an attribute `test`.
fn tests_in(text: &str) -> Vec<String> {
    let code = crate::repository::code_only(text);
    let mut names = Vec::new();
    let mut is_test = false;
    let mut before = "";
    for (_, word) in words(&code) {
        if before == "fn" && std::mem::take(&mut is_test) {
            names.push(word.to_owned());
        }
        is_test |= word == "test" && before != "cfg";
        before = word;
    }
    names
}

#[test]
fn only_tests_count_as_proof() {
    let text = "#[cfg(test)]\nmod tests {\nfn a_b() {}\n#[test]\nfn c_d() {}\nfn e_f() {}\n\
                #[tokio::test(flavor = \"x\")]\nasync fn g_h() {}\n}\n";
    assert_eq!(tests_in(text), ["c_d", "g_h"]);
}

#[test]
fn every_promise_names_a_proof_that_exists() {
    let found = unproven(&read("SPECIFICATION.md"), &tests());
    fail_if_any("SPECIFICATION.md promises without a proof", &found);
}

#[test]
fn a_promise_without_a_proof_is_caught() {
    let tests = BTreeSet::from(["one_owner_at_most".to_owned()]);
    let row = |proof: &str| format!("| promise | proof |\n|---|---|\n| It holds. | {proof} |\n");
    assert_eq!(unproven(&row("`one_owner_at_most`"), &tests), [""; 0]);
    assert_eq!(unproven(&row("`make demo`"), &tests), [""; 0]);
    assert_eq!(unproven(&row("`two_owners_at_most`"), &tests).len(), 1);
    assert_eq!(unproven(&row("believe us"), &tests).len(), 1);
    assert_eq!(unproven("no table at all", &tests), ["no promise at all"]);
}

/// Rows without a test or command, and tests that are not there. The proof is the last cell.
fn unproven(specification: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut promises = 0;
    for (number, line) in specification.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
        let heading =
            line.contains("---") || cells.last().is_some_and(|cell| cell.trim() == "proof");
        if !line.starts_with('|') || heading {
            continue;
        }
        promises += 1;
        let proofs = quoted(cells.last().unwrap_or(&""));
        if !proofs.iter().any(|(_, text)| is_test_name(text) || is_command(text)) {
            found.push(format!("line {}: no test and no command", number + 1));
        }
        for (_, text) in proofs.iter().filter(|(_, text)| is_test_name(text)) {
            if !tests.contains(text) {
                found.push(format!("line {}: no test is called `{text}`", number + 1));
            }
        }
    }
    if promises == 0 {
        found.push("no promise at all".into());
    }
    found
}

fn is_test_name(text: &str) -> bool {
    text.contains('_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn is_command(text: &str) -> bool {
    text.starts_with("make ") || text.starts_with("buoy ") || text.starts_with("cargo ")
}

#[test]
fn every_command_in_the_readme_exists() {
    let sources: String =
        files(&["crates/cli/src"], &[".rs"]).into_iter().map(|file| file.text).collect();
    let found = unknown_commands(&read("README.md"), &sources);
    fail_if_any("README.md names commands that the program does not have", &found);
}

#[test]
fn a_command_that_is_gone_is_caught() {
    let sources = "enum Command { Status, /// x\n Config(Config) }\nenum Config { Check }";
    let readme =
        "`buoy status` and\n```sh\nbuoy config check FILE\nsudo buoy vanish\n```\nbuoy is.\n";
    assert_eq!(unknown_commands(readme, sources), ["buoy vanish: no `Vanish` in crates/cli/src"]);
    assert_eq!(unknown_commands("`buoy config diff`", sources).len(), 1);
}

/// Commands with commands of their own.
const FAMILIES: [&str; 4] = ["backend", "config", "key", "lab"];

/// Each command of the manual must be a variant in the program's own list of commands.
fn unknown_commands(readme: &str, sources: &str) -> Vec<String> {
    let known: BTreeSet<&str> = words(sources).map(|(_, word)| word).collect();
    let mut found = Vec::new();
    for text in commands(readme) {
        let mut parts = text.split_whitespace().skip(1);
        let first = parts.next().unwrap_or_default();
        let second = parts.next().filter(|_| FAMILIES.contains(&first));
        for word in [Some(first), second].into_iter().flatten() {
            if !is_word(word) {
                continue;
            }
            let variant = word[..1].to_uppercase() + &word[1..];
            if !known.contains(variant.as_str()) {
                found.push(format!("buoy {word}: no `{variant}` in crates/cli/src"));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Everything in backticks or fenced blocks that begins with the program's name.
fn commands(readme: &str) -> Vec<String> {
    let mut found: Vec<String> = quoted(readme).into_iter().map(|(_, text)| text).collect();
    let mut fenced = false;
    for line in readme.lines().map(str::trim) {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            let line = line.trim_start_matches("$ ").trim_start_matches("sudo ");
            found.push(line.to_owned());
        }
    }
    found.retain(|text| text.starts_with("buoy "));
    found
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase())
}

#[test]
fn every_configuration_in_the_readme_is_accepted() {
    let texts = configurations(&read("README.md"));
    assert!(texts.len() >= 2, "the README shows a failover address and balancing");
    for text in &texts {
        let checked = buoy_config::check_offline(text, "README.md");
        let report = checked.err().map(|report| report.render(100, false));
        assert!(report.is_none(), "{}\n{text}", report.unwrap_or_default());
    }
    let lines = |text: &String| text.lines().filter(|line| !line.trim().is_empty()).count();
    assert_eq!(texts.iter().map(lines).collect::<Vec<_>>(), [4, 7], "as the README says");
    let bad = "```toml\npeers = []\npears = []\n```\n";
    assert!(buoy_config::check_offline(&configurations(bad)[0], "x").is_err());
}

/// The TOML texts of a document; an indented one goes on where the one before it ended.
fn configurations(document: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for block in document.split("```toml\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default();
        match found.last() {
            Some(before) if block.starts_with(' ') => found.push(format!("{before}{block}")),
            Some(_) | None => found.push(block.to_owned()),
        }
    }
    found
}

//! The crates depend on each other in one direction only, and every one of them obeys the lints.

use crate::fail_if_any;
use crate::repository::{crates, read};
use toml::Table;

/// The flow. A crate may depend only on crates before it, also in its tests.
const ORDER: [&str; 16] = [
    "model", "wire", "config", "import", "core", "xdp", "kernel", "proxy", "page", "api", "store",
    "agent", "sim", "lab", "cli", "xtask",
];

/// What must be refused everywhere, with the reason in CONTRIBUTING.md.
const DENIED: [&str; 10] = [
    "dbg_macro",
    "get_unwrap",
    "panic",
    "print_stdout",
    "print_stderr",
    "todo",
    "too_many_lines",
    "undocumented_unsafe_blocks",
    "unwrap_used",
    "wildcard_enum_match_arm",
];

fn manifest(path: &str) -> Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn dependencies_point_one_way() {
    let mut found = Vec::new();
    for name in crates() {
        found.extend(against_the_flow(&name, &manifest(&format!("crates/{name}/Cargo.toml"))));
    }
    fail_if_any("edges against the flow", &found);
}

#[test]
fn an_edge_against_the_flow_is_caught() {
    let parse = |text: &str| text.parse::<Table>().unwrap();
    let backwards = parse("[dependencies]\nbuoy-kernel.workspace = true");
    assert_eq!(against_the_flow("core", &backwards), ["core -> kernel"]);
    let in_tests = parse("[dev-dependencies]\nbuoy-lab = { path = \"../lab\" }");
    assert_eq!(against_the_flow("agent", &in_tests), ["agent -> lab"]);
    let by_target = parse("[target.'cfg(unix)'.dependencies]\nbuoy-core = \"1\"");
    assert_eq!(against_the_flow("core", &by_target), ["core -> core"]);
    let forward = parse("[dependencies]\nbuoy-model.workspace = true\nserde = \"1\"");
    assert_eq!(against_the_flow("core", &forward), [""; 0]);
    assert_eq!(against_the_flow("stray", &forward), ["stray is not in the order"]);
}

fn against_the_flow(name: &str, manifest: &Table) -> Vec<String> {
    let Some(place) = ORDER.iter().position(|krate| *krate == name) else {
        return vec![format!("{name} is not in the order")];
    };
    let mut found = Vec::new();
    for dependency in dependencies(manifest) {
        let Some(other) = dependency.strip_prefix("buoy-") else { continue };
        if !ORDER[..place].contains(&other) {
            found.push(format!("{name} -> {other}"));
        }
    }
    found
}

/// The names of all dependencies, for builds, tests and single targets too.
fn dependencies(manifest: &Table) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        if let Some(table) = manifest.get(kind).and_then(|table| table.as_table()) {
            found.extend(table.keys().cloned());
        }
    }
    for target in manifest.get("target").and_then(|table| table.as_table()).into_iter().flatten() {
        found.extend(target.1.as_table().into_iter().flat_map(dependencies));
    }
    found
}

#[test]
fn every_crate_is_in_the_order_and_obeys_the_lints() {
    let mut found: Vec<String> = Vec::new();
    for name in crates() {
        let manifest = manifest(&format!("crates/{name}/Cargo.toml"));
        let lints = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(|on| on.as_bool()) != Some(true) {
            found.push(format!("{name}: `[lints] workspace = true` is missing"));
        }
        let package = manifest.get("package").and_then(|package| package.get("name"));
        if package.and_then(|name| name.as_str()) != Some(&format!("buoy-{name}")) {
            found.push(format!("{name}: the package is not called buoy-{name}"));
        }
    }
    fail_if_any("manifests", &found);
}

#[test]
fn the_lints_that_the_rules_rely_on_are_on() {
    let found = missing_lints(&manifest("Cargo.toml"), &manifest("clippy.toml"));
    fail_if_any("lints", &found);
    let none = missing_lints(&Table::new(), &Table::new());
    assert_eq!(none.len(), DENIED.len() + 1, "a workspace without lints is caught: {none:?}");
}

fn missing_lints(workspace: &Table, clippy: &Table) -> Vec<String> {
    let lints = workspace.get("workspace").and_then(|table| table.get("lints"));
    let lints = lints.and_then(|table| table.get("clippy"));
    let mut found = Vec::new();
    for lint in DENIED {
        let level = lints.and_then(|table| table.get(lint)).and_then(|level| level.as_str());
        // CI turns warnings into errors, so a warning holds there too.
        if !matches!(level, Some("deny" | "forbid" | "warn")) {
            found.push(format!("clippy::{lint} is not set in Cargo.toml"));
        }
    }
    if clippy.get("too-many-lines-threshold").and_then(|lines| lines.as_integer()) != Some(70) {
        found.push("clippy.toml: too-many-lines-threshold = 70 is missing".into());
    }
    found
}

#[test]
fn every_dependency_has_its_reason_in_writing() {
    let workspace = manifest("Cargo.toml");
    let table = workspace["workspace"]["dependencies"].as_table().unwrap();
    let mut names: Vec<String> = table.keys().cloned().collect();
    // Those that a crate adds past the workspace's table.
    for name in crates() {
        names.extend(dependencies(&manifest(&format!("crates/{name}/Cargo.toml"))));
    }
    names.retain(|name| !name.starts_with("buoy-"));
    names.sort();
    names.dedup();
    let found = unexplained(&names, &read("docs/dependencies.md"));
    fail_if_any("docs/dependencies.md and the manifests differ", &found);
}

#[test]
fn a_dependency_without_a_reason_is_caught() {
    let table =
        "| crate | for | why |\n|---|---|---|\n| `libc` | calls | small |\n| gone | x | y |\n";
    let names = ["libc".to_owned(), "nix".to_owned()];
    assert_eq!(unexplained(&names, table), ["nix: no row", "gone: a row, but nobody uses it"]);
    assert_eq!(unexplained(&names[..1], "| `libc` | calls | |\n"), ["libc: a cell is empty"]);
    assert_eq!(unexplained(&names, "| libc, nix | calls | small |\n"), [""; 0]);
}

fn unexplained(names: &[String], document: &str) -> Vec<String> {
    let mut rows: Vec<(&str, bool)> = Vec::new();
    for line in document.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells[0] == "crate" || cells[0].starts_with("--") {
            continue;
        }
        let filled = cells.len() >= 3 && cells.iter().all(|cell| !cell.is_empty());
        // Crates that come together may share a row.
        rows.extend(cells[0].split(',').map(|name| (name.trim().trim_matches('`'), filled)));
    }
    let mut found = Vec::new();
    for name in names {
        match rows.iter().find(|(row, _)| row == name) {
            None => found.push(format!("{name}: no row")),
            Some((_, false)) => found.push(format!("{name}: a cell is empty")),
            Some((_, true)) => {}
        }
    }
    for (row, _) in rows.iter().filter(|(row, _)| !names.iter().any(|name| name == row)) {
        found.push(format!("{row}: a row, but nobody uses it"));
    }
    found
}

//! The documents are short, speak of no machine in particular, and name only what exists.

use crate::fail_if_any;
use crate::repository::{File, crates, documents, files, read, root, rust_files};

/// Lines of README.md: past it, it belongs in `docs`.
const README_LINES_MAX: usize = 180;

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines: the manual belongs in docs/");
}

#[test]
fn every_document_has_one_title() {
    let found: Vec<String> = documents().iter().flat_map(titles).collect();
    fail_if_any("a document begins with its one `# ` title", &found);
    assert_eq!(titles(&File::new("a.md", "# One\n\n# Two\n")).len(), 1);
    assert_eq!(titles(&File::new("a.md", "text\n")).len(), 1);
    assert_eq!(titles(&File::new("a.md", "# One\n```sh\n# a comment\n```\n")).len(), 0);
}

fn titles(file: &File) -> Vec<String> {
    let mut fenced = false;
    let mut count = 0;
    for line in file.text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        count += usize::from(!fenced && line.starts_with("# "));
    }
    let first = file.text.lines().next().is_some_and(|line| line.starts_with("# "));
    if count == 1 && first { Vec::new() } else { vec![format!("{}: {count} titles", file.path)] }
}

#[test]
fn no_text_names_a_path_of_one_machine() {
    let mut all = documents();
    let places = ["Makefile", "Cargo.toml", "deny.toml", "clippy.toml", ".ci", ".config"];
    all.extend(files(&places, &[""]));
    all.extend(files(&["crates", "scripts", "packaging", "docs"], &[".toml", ".sh", ".service"]));
    let found: Vec<String> = all.iter().flat_map(machine_paths).collect();
    fail_if_any("paths of one machine", &found);
    for folder in ["tmp", "work", "home", "root"] {
        let text = format!("see `/{folder}/buoy` there");
        assert_eq!(machine_paths(&File::new("a.md", &text)).len(), 1, "{text}");
    }
    let good = "/etc/buoy/buoy.toml, tests/work/a, https://a.example/tmp/x";
    assert_eq!(machine_paths(&File::new("a.md", good)).len(), 0);
}

fn machine_paths(file: &File) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for folder in ["/tmp/", "/work/", "/home/", "/root/", "/farm/"] {
            let starts = line.match_indices(folder).any(|(at, _)| {
                // Inside a longer path or an address it is somebody else's folder.
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/*".contains(c))
            });
            if starts {
                found.push(format!("{}:{}: {folder}", file.path, number + 1));
            }
        }
    }
    found
}

/// The socket for HAProxy's commands is where the file says: this is what documents have it say.
const HAPROXY_SOCKET: &str = "haproxy.sock";

#[test]
fn documents_name_the_sockets_that_there_are() {
    let sources = ["crates/api/src/lib.rs", "crates/agent/src/server/socket.rs"].map(read).concat();
    let found: Vec<String> = documents().iter().flat_map(|f| wrong_sockets(f, &sources)).collect();
    fail_if_any("sockets that no agent has", &found);
    for (name, count) in [("api.sock", 0), ("ro.sock", 0), (HAPROXY_SOCKET, 0), ("buoy.sock", 1)] {
        let file = File::new("a.md", &format!("curl --unix-socket /run/buoy/{name} http://x/"));
        assert_eq!(wrong_sockets(&file, &sources).len(), count, "{name}");
    }
}

fn wrong_sockets(file: &File, sources: &str) -> Vec<String> {
    let folder = "/run/buoy/";
    let mut found = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for (at, _) in line.match_indices(folder) {
            let rest = &line[at + folder.len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && !"._-".contains(c));
            let name = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            let is_known = [format!("{folder}{name}\""), format!("\"{name}\"")]
                .iter()
                .any(|quoted| sources.contains(quoted));
            if name.ends_with(".sock") && !is_known && name != HAPROXY_SOCKET {
                found.push(format!("{}:{}: {folder}{name}", file.path, number + 1));
            }
        }
    }
    found
}

#[test]
fn the_code_map_names_every_crate() {
    let map = read("ARCHITECTURE.md");
    let found: Vec<String> = crates().into_iter().filter(|name| !names_crate(&map, name)).collect();
    fail_if_any("ARCHITECTURE.md does not say what these crates are", &found);
    assert!(!names_crate("the core of `crates/model`", "core"));
}

fn names_crate(map: &str, name: &str) -> bool {
    map.contains(&format!("`crates/{name}`")) || map.contains(&format!("| `{name}` |"))
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut found = Vec::new();
    for file in documents() {
        for (line, text) in quoted(&file.text) {
            if let Some(reason) = missing(&text) {
                found.push(format!("{}:{line}: `{text}`: {reason}", file.path));
            }
        }
    }
    fail_if_any("documents name what does not exist", &found);
}

#[test]
fn a_path_or_function_that_is_gone_is_caught() {
    let gone = [
        "crates/core/src/gone.rs",
        "crates/core/src/node.rs::gone",
        "docs/gone.md",
        "make gone",
        "scripts/gone",
    ];
    for text in gone {
        assert!(missing(text).is_some(), "{text}");
    }
    let here = ["crates/core/src/node.rs::Node", "crates/core", "make test", "core", "1..=3"];
    for text in here {
        assert_eq!(missing(text), None, "{text}");
    }
}

/// Why what a document names is not there; `None` when it is, or names nothing of ours.
fn missing(text: &str) -> Option<String> {
    if let Some(target) = text.strip_prefix("make ") {
        let target = target.split_whitespace().next().unwrap_or_default();
        let known = read("Makefile").lines().any(|line| line.starts_with(&format!("{target}:")));
        return (!known).then(|| "no such target in the Makefile".into());
    }
    let ours = ["crates/", "docs/", "scripts/", "packaging/", ".ci/", ".config/"];
    if !ours.iter().any(|folder| text.starts_with(folder)) || text.contains([' ', '*', '{', '<']) {
        return None;
    }
    let (path, item) =
        text.split_once("::").map_or((text, None), |(path, item)| (path, Some(item)));
    if !root().join(path).exists() {
        return Some("no such file".into());
    }
    let item = item?.trim_end_matches("()");
    // `Type::method` is found by its last word.
    let item = item.rsplit("::").next().unwrap_or(item);
    (!defines(&read(path), item)).then(|| "no such item in the file".into())
}

/// Whether the text defines a function, type, constant or variant of this name.
fn defines(text: &str, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "trait", "const", "type", "mod", "macro_rules!"];
    text.lines().map(str::trim).any(|line| {
        let defined = kinds.iter().any(|kind| {
            line.split_once(&format!("{kind} ")).is_some_and(|(_, rest)| begins_with(rest, name))
        });
        defined || (begins_with(line, name) && name.starts_with(char::is_uppercase))
    })
}

fn begins_with(text: &str, word: &str) -> bool {
    let rest = text.strip_prefix(word);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// What stands between backticks, with its line number; not in fenced blocks.
pub(crate) fn quoted(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced {
            let inside = line.split('`').skip(1).step_by(2);
            found.extend(inside.map(|text| (number + 1, text.to_owned())));
        }
    }
    found
}

#[test]
fn links_between_documents_lead_somewhere() {
    let found: Vec<String> = documents().iter().flat_map(dead_links).collect();
    fail_if_any("dead links", &found);
    assert_eq!(dead_links(&File::new("docs/a.md", "[x](gone.md) [y](../README.md)")).len(), 1);
    assert_eq!(dead_links(&File::new("a.md", "[x](https://a.example) [y](#here)")).len(), 0);
}

fn dead_links(file: &File) -> Vec<String> {
    let folder = root().join(&file.path);
    let folder = folder.parent().unwrap().to_path_buf();
    let mut found = Vec::new();
    for part in file.text.split("](").skip(1) {
        let target = part.split([')', '#', ' ']).next().unwrap_or_default();
        let elsewhere =
            target.is_empty() || target.contains("://") || target.starts_with("mailto:");
        if !elsewhere && !folder.join(target).exists() {
            found.push(format!("{}: {target}", file.path));
        }
    }
    found
}

#[test]
fn the_rules_see_the_code_they_judge() {
    let seen = rust_files();
    for name in crates() {
        assert!(seen.iter().any(|file| file.krate() == Some(&name)), "{name} has no source file");
    }
}

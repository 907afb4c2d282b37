//! What the rules read: the files of the repository, and Rust text with only its code left.

use std::fs;
use std::path::{Path, PathBuf};

/// One file; its path counts from the root of the repository and uses `/`.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The crate's folder name, for files under `crates/`.
    pub(crate) fn krate(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// Whether all of it is test code.
    pub(crate) fn is_test(&self) -> bool {
        let mut parts = self.path.split('/').skip(2);
        parts.any(|part| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs"))
    }

    /// Code without comments and texts, up to the tests; line numbers stay.
    pub(crate) fn code(&self) -> String {
        code_only(before_tests(&self.text))
    }
}

pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("crates/xtask is two levels below the root").into()
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file below these folders (or the files themselves) whose name ends so.
pub(crate) fn files(under: &[&str], ends: &[&str]) -> Vec<File> {
    let mut paths = Vec::new();
    for folder in under {
        collect(&root().join(folder), &mut paths);
    }
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if ends.iter().any(|end| name.ends_with(end)) {
            // A file that another program removes meanwhile is none of ours.
            if let Ok(text) = fs::read_to_string(&path) {
                found.push(File { path: name, text });
            }
        }
    }
    found
}

fn collect(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_file() {
        into.push(path.into());
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name != "target" && name != ".git" && name != "node_modules" {
            collect(&entry.path(), into);
        }
    }
}

pub(crate) fn rust_files() -> Vec<File> {
    let found = files(&["crates"], &[".rs"]);
    assert!(found.len() > 12, "the rules must see the code");
    found
}

/// Every document of the repository, at the root and in `docs`.
pub(crate) fn documents() -> Vec<File> {
    let mut found = files(&["docs"], &[".md"]);
    for entry in fs::read_dir(root()).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".md") {
            found.push(File { text: read(&name), path: name });
        }
    }
    found
}

/// Names of the folders in `crates`.
pub(crate) fn crates() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().join("Cargo.toml").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The text up to the test module at its end; a test module in a file of its own is no end.
pub(crate) fn before_tests(text: &str) -> &str {
    let mut from = 0;
    while let Some(at) = text[from..].find("#[cfg(test)]\n") {
        let start = from + at;
        let after = start + "#[cfg(test)]\n".len();
        let starts_line = start == 0 || text.as_bytes()[start - 1] == b'\n';
        let mut lines = text[after..].lines().skip_while(|line| line.starts_with("#["));
        let item = lines.next().unwrap_or_default();
        if starts_line && item.contains("mod ") && item.ends_with('{') {
            return &text[..start];
        }
        from = after;
    }
    text
}

/// Blanks comments and the insides of texts, so that a rule reads code and nothing else.
pub(crate) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = skipped(rest, out.chars().last());
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    out
}

/// The length of the comment, text or character that begins here; 0 when it is code.
fn skipped(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |at| at + 2);
    }
    if rest.starts_with('"') {
        return quoted(rest);
    }
    let inside_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !inside_word && (rest.starts_with("r\"") || rest.starts_with("r#")) {
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if rest[1 + hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
        }
    }
    if rest.starts_with('\'') { character(rest) } else { 0 }
}

fn quoted(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    rest.len()
}

/// A character literal; a lifetime is code.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    let Some((_, first)) = chars.next() else { return 0 };
    if first == '\\' {
        return rest[2..]
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == '\'')
            .map_or(0, |(at, _)| at + 3);
    }
    match chars.next() {
        Some((at, '\'')) => at + 1,
        Some(_) | None => 0,
    }
}

/// The words (identifiers) of some code, with their line numbers from 1.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(number, line)| {
        line.split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .filter(|word| !word.is_empty())
            .map(move |word| (number + 1, word))
    })
}

#[test]
fn only_code_is_read_as_code() {
    let text = r##"let a = "unsafe \" unsafe"; // unsafe
/* unsafe */ let b = r#"unsafe " unsafe"#; let c = '"'; let d: &'static str = "x"; let e = '\''; end"##;
    let code = code_only(text);
    assert!(!code.contains("unsafe"), "{code}");
    assert!(code.contains("&'static str"));
    assert!(code.contains("let e ="));
    assert!(code.ends_with("end"));
    assert_eq!(code.lines().count(), 2);
}

#[test]
fn a_test_module_elsewhere_does_not_end_a_file() {
    let text = "a\n#[cfg(test)]\nmod tests;\nb\n#[cfg(test)]\n#[allow(x)]\nmod more {\nc\n}\n";
    assert_eq!(before_tests(text), "a\n#[cfg(test)]\nmod tests;\nb\n");
}

//! Holds the committed page equal to what its source gives, and looks at it in a browser.

#![allow(clippy::print_stderr, reason = "a test says why it did not run")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs, process};

fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

/// Runs a script of the page's source with node; `None`: it cannot run here, which is said.
fn node(test: &str, needs: &str, arguments: &[&str]) -> Option<Output> {
    if !web().join("node_modules").join(needs).exists() {
        eprintln!("SKIPPED: {test}: run scripts/install-deps (npm ci in crates/page/web)");
        return None;
    }
    match Command::new("node").args(arguments).current_dir(web()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIPPED: {test}: node does not run: {error}");
            None
        }
    }
}

fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    texts.concat()
}

#[test]
fn the_committed_page_is_what_its_source_gives() {
    let test = "the_committed_page_is_what_its_source_gives";
    let folder = env::temp_dir().join(format!("buoy-{}-page", process::id()));
    let out = folder.to_str().expect("a path in UTF-8");
    let build = ["node_modules/vite/bin/vite.js", "build", "--outDir", out, "--emptyOutDir"];
    let Some(output) = node(test, "vite", &build) else { return };
    assert!(output.status.success(), "{}", said(&output));
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    for name in ["index.html", "page/page.js", "page/page.css", "page/icon.svg"] {
        let built = fs::read(folder.join(name)).unwrap();
        let same = built == fs::read(dist.join(name)).unwrap();
        assert!(same, "dist/{name} is old: run `npm run build` in crates/page/web");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn the_types_of_the_page_are_right() {
    let check = ["node_modules/svelte-check/bin/svelte-check", "--fail-on-warnings"];
    let Some(output) = node("the_types_of_the_page_are_right", "svelte-check", &check) else {
        return;
    };
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_large_cluster_is_readable_and_nothing_is_inaccessible() {
    let test = "a_large_cluster_is_readable_and_nothing_is_inaccessible";
    let chromium = env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
    if !Path::new(&chromium).exists() {
        eprintln!("SKIPPED: {test}: {chromium} is not installed");
        return;
    }
    let Some(output) = node(test, "playwright-core", &["test/large.mjs"]) else { return };
    let said = said(&output);
    assert!(output.status.success() && said.contains("ENDED WELL"), "{said}");
}

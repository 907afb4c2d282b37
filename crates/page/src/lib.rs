//! The web page as files in the binary: it needs no disk, no node and no network where it runs.
//!
//! The source is in `web/` (Svelte and TypeScript), what is built from it in `dist/`, which is
//! committed: `cargo build` needs no node. A test builds it again and compares. Absent on purpose:
//! everything that the page shows; it asks the HTTP API like any other client.

#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Headers of every file of the page.
///
/// The policy lets nothing in but what comes from the same agent: a name or a reason that somebody
/// wrote into the configuration can never become a script, and the page calls nobody else.
pub const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    // Asked again each time, and answered with "not modified": an upgrade shows at once.
    ("cache-control", "no-cache"),
];

/// One file of the page.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// What is in it.
    pub bytes: &'static [u8],
    /// Its media type.
    pub mime: &'static str,
    /// Its strong entity tag, with the quotes.
    pub etag: &'static str,
}

/// Path, media type and content; the names stay the same from build to build.
const FILES: [(&str, &str, &[u8]); 4] = [
    ("/", "text/html; charset=utf-8", include_bytes!("../dist/index.html")),
    ("/page/page.js", "text/javascript; charset=utf-8", include_bytes!("../dist/page/page.js")),
    ("/page/page.css", "text/css; charset=utf-8", include_bytes!("../dist/page/page.css")),
    ("/page/icon.svg", "image/svg+xml", include_bytes!("../dist/page/icon.svg")),
];

static TAGS: LazyLock<[String; FILES.len()]> =
    LazyLock::new(|| FILES.map(|(_, _, bytes)| tag(bytes)));

/// The file at that path, as in `/` or `/page/page.js`.
pub fn file(path: &str) -> Option<File> {
    let place = FILES.iter().position(|(name, _, _)| *name == path)?;
    let (_, mime, bytes) = FILES[place];
    Some(File { bytes, mime, etag: &TAGS[place] })
}

fn tag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_the_page_names_is_there_and_nothing_else_is_asked_for() {
        let index = std::str::from_utf8(file("/").unwrap().bytes).unwrap();
        let named: Vec<&str> =
            index.split(['"', '\'']).filter(|part| part.starts_with("/page/")).collect();
        assert!(named.len() >= 3, "script, style and icon: {named:?}");
        for path in named {
            assert!(file(path).is_some(), "{path} is named and not there");
        }
        assert!(!index.contains("://") && !index.contains("<style") && !index.contains("style="));
        assert!(file("/page/../index.html").is_none() && file("/page").is_none());
    }

    #[test]
    fn files_have_different_tags_that_follow_their_content() {
        let tags: std::collections::BTreeSet<_> =
            FILES.iter().filter_map(|(path, _, _)| file(path)).map(|file| file.etag).collect();
        assert_eq!(tags.len(), FILES.len());
        assert_ne!(tag(b"a"), tag(b"b"));
    }
}

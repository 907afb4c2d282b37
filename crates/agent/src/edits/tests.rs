//! Edits over a file, on a store of one node, with a host that is made up.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use buoy_config::{FileFacts, Host, HostAddress, HostLink};
use buoy_model::{Cidr, LinkId};
use serde_json::json;
use tempfile::TempDir;

const FILE: &str = r#"peers = ["10.0.0.11"]
secret = "file:cluster.key"
safety = "available"

[[vip]]
name = "web"
address = "10.0.0.100/24"
"#;

fn check(layered: &Layered) -> Result<Checked, ConfigurationError> {
    let cidr = Cidr::new("10.0.0.11".parse().unwrap(), 24).unwrap();
    let addresses = vec![HostAddress { cidr, ours: false }];
    let link = HostLink { id: LinkId(2), name: "eth0".into(), up: true, addresses };
    let host = Host { hostname: "lb1".into(), links: vec![link] };
    let files = |_: &str| Ok(FileFacts { content: "0f".repeat(32).into_bytes(), mode: 0o600 });
    let checked = buoy_config::check(&layered.text, "buoy.toml", &host, &files);
    checked.map_err(|report| ConfigurationError::Invalid(report.over(&layered.layers)))
}

pub(crate) fn plain(text: &str) -> Checked {
    check(&Layered { text: text.into(), layers: vec![] }).unwrap()
}

/// Edits that can be tried, and are taken by nobody; for those who test what stands before them.
pub(crate) fn tried(file: &str) -> Edits {
    let base = (file.to_owned(), buoy_config::Store::Embedded);
    let store = Store::nowhere("a test has none");
    Edits::with(Path::new("buoy.toml"), base, store, Box::new(check), PathBuf::new())
}

/// Edits that this node takes alone, whoever else there is in the file.
pub(crate) async fn edits(folder: &TempDir, file: &str) -> Edits {
    let checked = plain(file);
    let mut alone = peers(&checked.desired);
    alone.nodes.retain(|node| node.name == alone.me);
    let (_, watched) = watch::channel(Arc::new(alone));
    let (_, keys) = watch::channel(checked.keyring.clone());
    let directory = folder.path().to_owned();
    let options = Options { directory, peers: watched, keys, pace: Pace::CALM };
    let store = Store::Embedded(Embedded::start(options, LEARN_TIMEOUT).await.unwrap());
    let last = folder.path().join("last.json");
    let base = (file.to_owned(), checked.store);
    Edits::with(Path::new("buoy.toml"), base, store, Box::new(check), last)
}

pub(crate) fn by(seen: Option<u64>) -> By {
    By { user: "ann".into(), reason: "a test".into(), seen, dry_run: false }
}

fn put(name: &str, address: &str) -> Wish {
    Wish::Put(name.into(), json!({ "address": address }))
}

#[tokio::test]
async fn an_edit_is_checked_taken_and_laid_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let edits = edits(&folder, FILE).await;
    let before = edits.begin(plain(FILE)).desired;
    let tried = By { dry_run: true, ..by(None) };
    let reply = edits.edit(&put("new", "10.0.0.101/24"), &tried, &before).await.unwrap();
    assert_eq!((reply.revision, reply.valid, edits.now().revision), (0, true, 0));
    assert_eq!(reply.changes, ["vip new is new"]);
    assert!(reply.diff.contains(&"+ address = \"10.0.0.101/24\"".to_owned()), "{reply:?}");
    let reply = edits.edit(&put("new", "10.0.0.101/24"), &by(None), &before).await.unwrap();
    assert_eq!(reply.revision, 1);
    assert!(!edits.is_in_force());
    let whole = edits.whole_again().unwrap();
    assert_eq!(whole.checked.desired.groups.len(), 2);
    edits.hold(&whole);
    assert!(edits.is_in_force());
    let view = edits.view(&before);
    let origin = |path: &str| view.entries.iter().find(|e| e.path == path).unwrap().origin.clone();
    assert_eq!(origin("vip/web"), buoy_api::Origin::File { line: 5 });
    assert!(matches!(origin("vip/new"), buoy_api::Origin::Api { revision: 1, .. }));
    let history = edits.history(&before).revisions;
    assert_eq!((history[0].user.as_str(), history[0].reason.as_str()), ("ann", "a test"));
    let rolled = edits.edit(&Wish::Rollback(0), &by(None), &before).await.unwrap();
    assert_eq!((rolled.revision, rolled.changes.len()), (2, 0), "against what is in force here");
    assert_eq!(edits.whole_again().unwrap().checked.text, FILE);
}

#[tokio::test]
async fn who_has_not_seen_the_last_change_of_an_entry_is_told_whose_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let edits = edits(&folder, FILE).await;
    let before = edits.begin(plain(FILE)).desired;
    edits.edit(&put("new", "10.0.0.101/24"), &by(Some(0)), &before).await.unwrap();
    let refused = edits.edit(&put("new", "10.0.0.102/24"), &by(Some(0)), &before).await;
    let Err(EditRefusal::Conflict { key, user, revision: 1, now: 1, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((key.as_str(), user.as_str()), ("vip/new", "ann"));
    let other = edits.edit(&put("other", "10.0.0.103/24"), &by(Some(0)), &before).await.unwrap();
    assert_eq!(other.revision, 2, "another entry is another matter");
}

#[tokio::test]
async fn who_has_seen_what_never_was_here_edits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let edits = edits(&folder, FILE).await;
    let before = edits.begin(plain(FILE)).desired;
    edits.edit(&put("new", "10.0.0.101/24"), &by(None), &before).await.unwrap();
    // The tag of a store that all nodes have lost.
    for dry_run in [false, true] {
        let late = By { dry_run, ..by(Some(7)) };
        let refused = edits.edit(&put("new", "10.0.0.102/24"), &late, &before).await;
        let Err(EditRefusal::Unseen { seen: 7, now: 1 }) = refused else { panic!("{refused:?}") };
    }
    // That of another node, which this one has not heard of yet.
    let (seen, any) = (by(Some(2)), by(None));
    let (second, third) = (put("second", "10.0.0.103/24"), put("third", "10.0.0.104/24"));
    let (late, first) =
        tokio::join!(edits.edit(&third, &seen, &before), edits.edit(&second, &any, &before));
    assert_eq!((first.unwrap().revision, late.unwrap().revision), (2, 3));
}

#[tokio::test]
async fn what_no_node_could_use_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let edits = edits(&folder, FILE).await;
    let before = edits.begin(plain(FILE)).desired;
    let twice = put("new", "10.0.0.100/24");
    let Err(EditRefusal::Invalid(report)) = edits.edit(&twice, &by(None), &before).await else {
        panic!("the address is there twice");
    };
    let problem = report.problems().iter().find(|p| p.layer.is_some()).unwrap();
    assert_eq!(problem.layer.as_deref(), Some("vip/new: revision 1 of ann"));
    let rendered = report.render(100, false);
    assert!(rendered.contains("vip/new: revision 1 of ann:2:"), "{rendered}");
    let tried = By { dry_run: true, ..by(None) };
    let reply = edits.edit(&twice, &tried, &before).await.unwrap();
    assert!(!reply.valid && !reply.problems.is_empty());
    let moved = put("web", "10.0.0.99/24");
    edits.edit(&moved, &by(None), &before).await.unwrap();
    assert_eq!(edits.now().revision, 1, "only what is valid was taken");
}

#[tokio::test]
async fn at_a_start_what_is_not_valid_any_more_gives_way_to_what_was_in_force() {
    let folder = tempfile::tempdir().unwrap();
    {
        let edits = edits(&folder, FILE).await;
        let before = edits.begin(plain(FILE)).desired;
        edits.edit(&put("new", "10.0.0.101/24"), &by(None), &before).await.unwrap();
        edits.hold(&edits.whole_again().unwrap());
        let Store::Embedded(store) = edits.store else { panic!("it is embedded") };
        store.stop().await;
    }
    // Somebody gives the file the same address while the agent is down.
    let changed = FILE.replace("10.0.0.100", "10.0.0.101");
    let edits = edits(&folder, &changed).await;
    let checked = edits.begin(plain(&changed));
    let addresses: Vec<String> = checked.desired.groups.iter().map(|g| g.name.clone()).collect();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let problem = edits.problems().join(" ");
    assert!(problem.contains("what was in force before goes on"), "{problem}");
}

#[tokio::test]
async fn without_a_store_nothing_is_edited() {
    let folder = tempfile::tempdir().unwrap();
    let choice = (FILE.to_owned(), buoy_config::Store::None);
    let last = folder.path().join("last.json");
    let store = Store::nowhere("the file says so");
    let edits = Edits::with(Path::new("buoy.toml"), choice, store, Box::new(check), last);
    let before = edits.begin(plain(FILE)).desired;
    let refused = edits.edit(&put("new", "10.0.0.101/24"), &by(None), &before).await;
    assert!(matches!(refused, Err(EditRefusal::Off)), "{refused:?}");
}

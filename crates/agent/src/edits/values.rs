//! Says of every value of the configuration where it comes from: a line of the file, or the edit that made it so.
//!
//! An edit keeps the whole entry, also what it found there. So the history is gone through backwards: a value is of the
//! edit before which it was not there, and one that was there before the first edit is the file's.

use super::Edits;
use buoy_api::{Origin, ValueView, ValuesReply};
use buoy_config::origin::{self, Leaf};
use buoy_model::Desired;
use buoy_store::{Content, Entry, Revision, State};

impl Edits {
    /// The answer to `GET /v1/config/values`.
    pub(crate) fn values(&self, desired: &Desired) -> ValuesReply {
        let state = self.now();
        let base = self.held().base.clone();
        ValuesReply {
            node: desired.node_name(desired.me).into(),
            revision: state.revision,
            path: self.path.display().to_string(),
            values: values(&base, &state),
        }
    }
}

/// The file's in its order, then those of entries that were edited.
fn values(file: &str, state: &State) -> Vec<ValueView> {
    let is_edited = |entry: &Entry| entry.content != Content::AsFile;
    let edited: Vec<(&String, &Entry)> =
        state.entries.iter().filter(|(_, entry)| is_edited(entry)).collect();
    let of = |leaf: &Leaf, key: &str| {
        leaf.path.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))
    };
    let is_of_an_edit = |leaf: &Leaf| edited.iter().any(|(key, _)| of(leaf, key));
    let (replaced, kept): (Vec<Leaf>, Vec<Leaf>) =
        origin::of_text(file).into_iter().partition(is_of_an_edit);
    let mut all: Vec<ValueView> = kept.iter().map(|leaf| view(leaf, in_file(leaf))).collect();
    for (key, entry) in edited {
        let file: Vec<Leaf> = replaced.iter().filter(|leaf| of(leaf, key)).cloned().collect();
        all.extend(of_entry(key, entry, &file, state));
    }
    all
}

/// Those of one entry that was edited, and those of the file that are not there any more.
fn of_entry(key: &str, entry: &Entry, file: &[Leaf], state: &State) -> Vec<ValueView> {
    let leaves = |content: &Content| match content {
        Content::AsFile => file.to_vec(),
        Content::Hidden => Vec::new(),
        Content::Set(value) => {
            super::plan::table(value).map_or_else(|_| Vec::new(), |t| origin::of_entry(key, &t))
        }
    };
    let has = |leaves: &[Leaf], leaf: &Leaf| leaves.iter().any(|other| other.is(leaf));
    let now = leaves(&entry.content);
    let gone = file.iter().filter(|leaf| !has(&now, leaf));
    // Each with the edit that it is of, once that is found.
    let mut wanted: Vec<(&Leaf, bool, Option<Origin>)> =
        now.iter().map(|leaf| (leaf, false, None)).collect();
    wanted.extend(gone.map(|leaf| (leaf, true, None)));
    let mut first: Option<(&Revision, bool)> = None;
    for revision in state.history.iter().rev() {
        let Some(change) = revision.changes.iter().find(|change| change.key == key) else {
            continue;
        };
        let before = leaves(&change.before);
        for (leaf, hidden, found) in wanted.iter_mut().filter(|(_, _, found)| found.is_none()) {
            // A value that is there came with it; one that is not went with it.
            if has(&before, leaf) == *hidden {
                *found = Some(by(revision, *hidden));
            }
        }
        first = Some((revision, change.before == Content::AsFile));
    }
    let origin = |(leaf, hidden, found): (&Leaf, bool, Option<Origin>)| {
        let at_first = || match first {
            // It was there before anything was edited.
            Some((_, true)) if !hidden => file.iter().find(|other| other.is(leaf)).map(in_file),
            Some((revision, _)) => Some(by(revision, hidden)),
            None => None,
        };
        view(leaf, found.or_else(at_first).unwrap_or_else(|| last(entry, hidden)))
    };
    wanted.into_iter().map(origin).collect()
}

fn view(leaf: &Leaf, origin: Origin) -> ValueView {
    ValueView { path: leaf.path.clone(), value: leaf.value.clone(), origin }
}

fn in_file(leaf: &Leaf) -> Origin {
    Origin::File { line: leaf.line.unwrap_or_default() }
}

fn by(revision: &Revision, hidden: bool) -> Origin {
    let Revision { revision, user, at_ms, .. } = revision;
    Origin::Api { user: user.clone(), at_ms: *at_ms, revision: *revision, hidden }
}

/// Of an entry whose history is forgotten it is only known who wrote it last.
fn last(entry: &Entry, hidden: bool) -> Origin {
    let Entry { revision, user, at_ms, .. } = entry;
    Origin::Api { user: user.clone(), at_ms: *at_ms, revision: *revision, hidden }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_store::{Change, Edit};
    use serde_json::json;

    const FILE: &str = "peers = [\"10.0.0.11\"]\n\n\
        [[vip]]\nname = \"web\"\naddress = \"10.0.0.100/24\"\nfailback = \"30s\"\nprefer = [\"lb1\"]\n\n\
        [[vip]]\nname = \"db\"\naddress = \"10.0.0.101/24\"\n";

    fn edit(state: &mut State, user: &str, key: &str, content: Content) {
        let on = state.revision;
        state.apply(&Edit {
            id: on + 1,
            on,
            user: user.into(),
            node: "lb1".into(),
            reason: String::new(),
            at_ms: on * 1000,
            changes: vec![Change { key: key.into(), content }],
        });
        assert_eq!(state.revision, on + 1);
    }

    /// As a line for each: path, value, and the line of the file or the editor.
    fn told(state: &State) -> Vec<String> {
        let line = |view: ValueView| {
            let from = match view.origin {
                Origin::File { line } => format!("line {line}"),
                Origin::Api { user, revision, hidden, at_ms } => {
                    assert_eq!(at_ms, (revision - 1) * 1000);
                    format!("{}{user} {revision}", if hidden { "hidden by " } else { "" })
                }
            };
            format!("{} {} {from}", view.path, view.value)
        };
        values(FILE, state).into_iter().map(line).collect()
    }

    #[test]
    fn a_value_is_of_the_file_or_of_the_edit_that_made_it_so() {
        let mut state = State::default();
        let expected = [
            "peers \"10.0.0.11\" line 1",
            "vip/web.name \"web\" line 4",
            "vip/web.address \"10.0.0.100/24\" line 5",
            "vip/web.failback \"30s\" line 6",
            "vip/web.prefer \"lb1\" line 7",
            "vip/db.name \"db\" line 10",
            "vip/db.address \"10.0.0.101/24\" line 11",
        ];
        assert_eq!(told(&state), expected);

        let web = json!({ "name": "web", "address": "10.0.0.100/24", "failback": "10s", "prefer": ["lb1"] });
        edit(&mut state, "ann", "vip/web", Content::Set(web));
        let web = json!({ "name": "web", "address": "10.0.0.100/24", "failback": "10s", "prefer": ["lb2", "lb1"] });
        edit(&mut state, "bob", "vip/web", Content::Set(web));
        edit(&mut state, "cyd", "vip/db", Content::Hidden);
        let expected = [
            "peers \"10.0.0.11\" line 1",
            "vip/db.name \"db\" hidden by cyd 3",
            "vip/db.address \"10.0.0.101/24\" hidden by cyd 3",
            "vip/web.address \"10.0.0.100/24\" line 5",
            "vip/web.failback \"10s\" ann 1",
            "vip/web.name \"web\" line 4",
            "vip/web.prefer \"lb2\" bob 2",
            "vip/web.prefer \"lb1\" line 7",
            "vip/web.failback \"30s\" hidden by ann 1",
        ];
        assert_eq!(told(&state), expected);

        // Who puts a value back has made it so.
        let web = json!({ "name": "web", "address": "10.0.0.100/24", "failback": "30s" });
        edit(&mut state, "dan", "vip/web", Content::Set(web));
        let told = told(&state);
        assert!(told.contains(&"vip/web.failback \"30s\" dan 4".to_owned()), "{told:#?}");
        assert!(told.contains(&"vip/web.prefer \"lb1\" hidden by dan 4".to_owned()), "{told:#?}");
    }

    #[test]
    fn what_an_edit_took_from_a_file_that_is_another_one_now_is_the_edits() {
        let mut state = State::default();
        // The file said 10.0.0.99 then.
        let web = json!({ "name": "web", "address": "10.0.0.99/24", "failback": "10s" });
        edit(&mut state, "ann", "vip/web", Content::Set(web));
        let told = told(&state);
        assert!(told.contains(&"vip/web.address \"10.0.0.99/24\" ann 1".to_owned()), "{told:#?}");
    }

    #[test]
    fn of_a_forgotten_edit_the_last_one_answers() {
        let mut state = State::default();
        let web = json!({ "name": "web", "address": "10.0.0.100/24", "failback": "10s" });
        edit(&mut state, "ann", "vip/web", Content::Set(web));
        state.history.clear();
        let told = told(&state);
        assert!(told.contains(&"vip/web.failback \"10s\" ann 1".to_owned()), "{told:#?}");
    }
}

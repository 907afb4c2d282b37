//! Decides what an edit makes of what was edited before: the same on every node that applies the same edits.
//!
//! An entry lies over the file: it has a table of its own, hides that of the file, or leaves the file's as it is
//! (which is remembered, so that who edited it last is known). An edit says on which revision it was made, and
//! is taken only there: what was checked as a whole is what holds afterwards.
//! Absent on purpose: clocks, disks and what an entry means.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};

/// Revisions that are remembered, to be shown and gone back to.
pub const HISTORY_MAX: usize = 1000;
/// Bytes of the remembered revisions, as JSON.
pub const HISTORY_BYTES_MAX: usize = 4 << 20;
/// Bytes of one edit, as JSON.
pub const EDIT_BYTES_MAX: usize = 1 << 20;
/// Bytes of all entries, as JSON.
pub const ENTRIES_BYTES_MAX: usize = 4 << 20;

/// What an entry says of its place in the file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// What the file has holds.
    #[default]
    AsFile,
    /// The file's is as if it were not there.
    Hidden,
    /// This, in place of what the file has.
    Set(Value),
}

/// An entry, and who wrote it last.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    /// What holds.
    pub content: Content,
    /// The revision that made it so.
    pub revision: u64,
    /// Whose edit it was.
    pub user: String,
    /// When, in milliseconds since 1970 by the clock of the node that took it.
    pub at_ms: u64,
}

/// What an edit makes of one entry, named as in `vip/web`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Change {
    /// Which entry.
    pub key: String,
    /// What it says from then on.
    pub content: Content,
}

/// What somebody wants to be changed, all of it or nothing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Edit {
    /// Random: an edit whose answer was lost is found again by it.
    pub id: u64,
    /// The revision it was made and checked on.
    pub on: u64,
    /// Who wants it.
    pub user: String,
    /// On which node it was asked for.
    pub node: String,
    /// Why, in that person's words.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub changes: Vec<Change>,
}

/// What became of one entry.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Changed {
    /// Which entry.
    pub key: String,
    /// What it said before.
    pub before: Content,
    /// What it said afterwards.
    pub after: Content,
}

/// An edit that was taken.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Revision {
    /// Its number: one more than the one before.
    pub revision: u64,
    /// That of the edit.
    pub id: u64,
    /// Who wanted it.
    pub user: String,
    /// On which node it was asked for.
    pub node: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What it changed.
    pub changes: Vec<Changed>,
}

/// Everything that was edited.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct State {
    /// The number of edits taken so far.
    pub revision: u64,
    /// By name.
    pub entries: BTreeMap<String, Entry>,
    /// The latest revisions, oldest first.
    pub history: VecDeque<Revision>,
    /// Bytes of `history`.
    history_bytes: usize,
    /// Up to this revision, who left an entry to the file again is forgotten.
    forgotten: u64,
}

/// What became of an edit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is taken, and is this revision.
    Taken(u64),
    /// Another one came first, and made this revision: look at it and try again.
    Moved(u64),
    /// It does not fit, in words.
    Full(String),
}

/// A revision that cannot be gone back to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoSuchRevision {
    /// The oldest that can.
    pub oldest: u64,
    /// The one that holds.
    pub newest: u64,
}

impl State {
    /// Takes an edit, or says why not and stays as it is.
    pub fn apply(&mut self, edit: &Edit) -> Outcome {
        // An answer was lost and the edit is here again: it is what it is.
        if let Some(known) = self.history.iter().rev().find(|r| r.id == edit.id) {
            return Outcome::Taken(known.revision);
        }
        if edit.on != self.revision {
            return Outcome::Moved(self.revision);
        }
        if bytes(edit) > EDIT_BYTES_MAX {
            return Outcome::Full(format!("an edit has at most {} KiB", EDIT_BYTES_MAX >> 10));
        }
        let revision = self.revision + 1;
        let mut entries = self.entries.clone();
        let mut changes = Vec::new();
        for Change { key, content } in &edit.changes {
            let (user, at_ms) = (edit.user.clone(), edit.at_ms);
            let entry = Entry { content: content.clone(), revision, user, at_ms };
            let before = entries.insert(key.clone(), entry).map(|e| e.content).unwrap_or_default();
            changes.push(Changed { key: key.clone(), before, after: content.clone() });
        }
        if bytes(&entries) > ENTRIES_BYTES_MAX {
            let most = ENTRIES_BYTES_MAX >> 20;
            return Outcome::Full(format!(
                "all that is edited has at most {most} MiB: put some of it into the file, and take it back here"
            ));
        }
        self.entries = entries;
        self.revision = revision;
        let Edit { id, user, node, reason, at_ms, .. } = edit.clone();
        let taken = Revision { revision, id, user, node, reason, at_ms, changes };
        self.history_bytes += bytes(&taken);
        self.history.push_back(taken);
        self.forget();
        Outcome::Taken(revision)
    }

    /// Keeps what is remembered within its bounds.
    fn forget(&mut self) {
        while self.history.len() > HISTORY_MAX
            || (self.history_bytes > HISTORY_BYTES_MAX && self.history.len() > 1)
        {
            let Some(oldest) = self.history.pop_front() else { return };
            self.history_bytes -= bytes(&oldest);
            self.forgotten = oldest.revision;
        }
        let forgotten = self.forgotten;
        self.entries.retain(|_, e| e.content != Content::AsFile || e.revision > forgotten);
    }

    /// Who has changed the entry since that revision: the name, the moment and the number of the change.
    pub fn changed_since(&self, key: &str, revision: u64) -> Option<(String, u64, u64)> {
        match self.entries.get(key) {
            Some(entry) if entry.revision > revision => {
                Some((entry.user.clone(), entry.at_ms, entry.revision))
            }
            Some(_) => None,
            // It may have been changed and left to the file again, long ago.
            None if revision < self.forgotten => Some(("somebody".into(), 0, self.forgotten)),
            None => None,
        }
    }

    /// What leads back to how it was after that revision.
    pub fn back_to(&self, revision: u64) -> Result<Vec<Change>, NoSuchRevision> {
        let oldest = self.history.front().map_or(self.revision, |r| r.revision - 1);
        if revision < oldest || revision > self.revision {
            return Err(NoSuchRevision { oldest, newest: self.revision });
        }
        let mut then: BTreeMap<&str, &Content> = BTreeMap::new();
        for later in self.history.iter().rev().take_while(|r| r.revision > revision) {
            then.extend(later.changes.iter().map(|c| (c.key.as_str(), &c.before)));
        }
        let now = |key: &str| self.entries.get(key).map(|e| &e.content);
        let differs =
            |(key, content): &(&str, &Content)| now(key).unwrap_or(&Content::AsFile) != *content;
        let change = |(key, content): (&str, &Content)| Change {
            key: key.to_owned(),
            content: content.clone(),
        };
        Ok(then.into_iter().filter(differs).map(change).collect())
    }

    /// Up to which revision something may be forgotten.
    pub(crate) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes up what was kept elsewhere, beside the entries.
    pub(crate) fn remember(
        &mut self,
        revision: u64,
        forgotten: u64,
        history: impl Iterator<Item = Revision>,
    ) {
        (self.revision, self.forgotten) = (revision, forgotten);
        self.history = history.collect();
        self.history_bytes = self.history.iter().map(bytes).sum();
    }

    /// The revision that an edit has become, if it was taken.
    pub fn find(&self, id: u64) -> Option<u64> {
        self.history.iter().rev().find(|r| r.id == id).map(|r| r.revision)
    }
}

/// What it takes as JSON; the same on all nodes.
fn bytes(what: &impl Serialize) -> usize {
    serde_json::to_vec(what).map_or(usize::MAX, |text| text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(on: u64, key: &str, content: Content) -> Edit {
        Edit {
            id: on * 1000 + key.len() as u64,
            on,
            user: "ann".into(),
            node: "n1".into(),
            reason: String::new(),
            at_ms: 7,
            changes: vec![Change { key: key.into(), content }],
        }
    }

    fn set(n: u64) -> Content {
        Content::Set(Value::from(n))
    }

    #[test]
    fn an_edit_is_taken_only_on_the_revision_it_was_made_on() {
        let mut state = State::default();
        assert_eq!(state.apply(&edit(0, "vip/a", set(1))), Outcome::Taken(1));
        let same = state.clone();
        let late = Edit { id: 9, ..edit(0, "vip/b", set(1)) };
        assert_eq!(state.apply(&late), Outcome::Moved(1));
        assert_eq!(state, same, "what is refused changes nothing");
        assert_eq!(state.apply(&edit(0, "vip/a", set(1))), Outcome::Taken(1), "the same again");
        assert_eq!(state.changed_since("vip/a", 0), Some(("ann".into(), 7, 1)));
        assert_eq!(state.changed_since("vip/a", 1), None);
        assert_eq!(state.changed_since("vip/b", 0), None);
    }

    #[test]
    fn every_remembered_revision_can_be_gone_back_to() {
        let mut state = State::default();
        let steps = [("vip/a", set(1)), ("vip/b", Content::Hidden), ("vip/a", Content::AsFile)];
        let mut seen = vec![state.clone()];
        for (on, (key, content)) in (0..).zip(steps) {
            state.apply(&edit(on, key, content));
            seen.push(state.clone());
        }
        let contents = |s: &State| -> BTreeMap<String, Content> {
            let said = s.entries.iter().filter(|(_, e)| e.content != Content::AsFile);
            said.map(|(k, e)| (k.clone(), e.content.clone())).collect()
        };
        for then in &seen {
            let mut back = state.clone();
            let changes = state.back_to(then.revision).unwrap();
            let edit = Edit { id: 77, changes, ..edit(3, "", set(0)) };
            assert_eq!(back.apply(&edit), Outcome::Taken(4));
            assert_eq!(contents(&back), contents(then), "to {}", then.revision);
        }
        assert_eq!(state.back_to(4), Err(NoSuchRevision { oldest: 0, newest: 3 }));
    }

    #[test]
    fn what_is_remembered_has_bounds() {
        let mut state = State::default();
        for on in 0..HISTORY_MAX as u64 + 5 {
            let content = if on == 0 { Content::AsFile } else { set(on) };
            let key = if on == 0 { "vip/first" } else { "vip/a" };
            assert_eq!(state.apply(&edit(on, key, content)), Outcome::Taken(on + 1));
        }
        assert_eq!(state.history.len(), HISTORY_MAX);
        assert!(!state.entries.contains_key("vip/first"), "it says nothing, and is old");
        assert!(state.changed_since("vip/first", 0).is_some(), "nobody knows: so it may have been");
        assert_eq!(state.back_to(2).unwrap_err().oldest, 5);
        let large = Content::Set(Value::from("x".repeat(EDIT_BYTES_MAX)));
        let refused = state.apply(&edit(state.revision, "vip/a", large));
        assert!(matches!(refused, Outcome::Full(_)), "{refused:?}");
    }
}

//! Reads `auth_hmac` of an instance (keepalived 2.4.1) and writes it as `auth` of `vrrp`.

use super::tree::Node;
use crate::draft::{duration, inline, one_or_list, quoted};
use crate::notes::Notes;

/// What `auth_hmac` has on one line.
const WORDS: [&str; 5] = ["key", "active_key", "mode", "time_window", "anti_replay"];

/// Keys that sign advertisements.
#[derive(Clone, Debug, Default)]
pub(super) struct Hmac {
    /// Number and path.
    keys: Vec<(String, String)>,
    active: Option<String>,
    mode: Option<String>,
    window: Option<u64>,
}

impl Hmac {
    pub(super) fn read(block: &Node, notes: &mut Notes) -> Self {
        let mut hmac = Self::default();
        for line in block.lines_of(&WORDS) {
            match line.keyword() {
                "key" => hmac.read_key(&line, notes),
                "active_key" => hmac.active = Some(line.word(1).to_owned()),
                "mode" if ["enforce", "permissive"].contains(&line.word(1)) => {
                    hmac.mode = Some(line.word(1).to_owned());
                }
                "time_window" => hmac.window = line.word(1).parse().ok().map(|s: u64| s * 1000),
                "anti_replay" if line.word(1) == "time" => {
                    notes.say_at(&line.place, "`anti_replay time` needs no key: it is so in Buoy");
                }
                "anti_replay" => notes.left_at(
                    &line.place,
                    &line.text(),
                    "Buoy compares clocks: what was recorded long ago is not believed either",
                ),
                keyword => notes.left_at(&line.place, keyword, "Buoy has no such key in `auth`"),
            }
        }
        hmac
    }

    fn read_key(&mut self, line: &Node, notes: &mut Notes) {
        let (id, value) = (line.word(1), line.word(2));
        let path = match value.strip_prefix("file:") {
            Some(path) => {
                let said = format!(
                    "{path} must hold 64 hexadecimal digits and nothing else: Buoy knows no `hex:` and no words"
                );
                notes.say_at(&line.place, said);
                path.to_owned()
            }
            None => {
                let path = format!("vrrp-{id}.key");
                let said = format!(
                    "a key stands in no configuration of Buoy: write its 64 hexadecimal digits into {path}, readable by root only"
                );
                notes.say_at(&line.place, said);
                path
            }
        };
        self.keys.push((id.to_owned(), path));
    }

    /// As the value of `auth`: the key that signs comes first.
    pub(super) fn written(&self) -> Option<String> {
        let is_active = |(id, _): &&(String, String)| Some(id) == self.active.as_ref();
        let (active, others): (Vec<_>, Vec<_>) = self.keys.iter().partition(is_active);
        let keys = active.into_iter().chain(others);
        let keys: Vec<String> =
            keys.map(|(id, path)| quoted(&format!("{id} file:{path}"))).collect();
        if keys.is_empty() {
            return None;
        }
        let mut pairs = vec![("keys", one_or_list(keys))];
        pairs.extend(self.mode.as_ref().map(|mode| ("mode", quoted(mode))));
        pairs.extend(self.window.map(|window| ("window", duration(window))));
        Some(inline(pairs))
    }
}

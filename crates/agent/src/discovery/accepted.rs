//! Keeps what was found and passed the checks of the configuration, over restarts too.

use super::Looked;
use crate::configuration;
use buoy_config::{Checked, Found};
use buoy_model::Desired;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Checks a text with what was found; why it does not pass, in one line.
pub(super) type Check = Box<dyn Fn(&str, &Found) -> Result<Checked, String> + Send + Sync>;

/// What holds now.
pub(crate) struct Accepted {
    /// The text of the configuration that runs.
    text: String,
    check: Check,
    found: Found,
    /// By entry: why what it says is not what holds.
    problems: BTreeMap<String, String>,
    /// Where `found` is kept.
    kept: PathBuf,
}

impl Accepted {
    /// Begins with what was found in the agent's last life.
    pub(crate) fn new(config: &Path, kept: &Path) -> Self {
        let config = config.to_owned();
        let check = move |text: &str, found: &Found| {
            let host = configuration::this_host().map_err(|cause| cause.to_string())?;
            let checked = buoy_config::check_again(text, &config, &host, found);
            checked.map_err(|report| report.summary())
        };
        Self::with(Box::new(check), kept)
    }

    pub(super) fn with(check: Check, kept: &Path) -> Self {
        let found = fs::read(kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self {
            text: String::new(),
            check,
            found: found.unwrap_or_default(),
            problems: BTreeMap::new(),
            kept: kept.to_owned(),
        }
    }

    /// What does not work, in sentences.
    pub(crate) fn problems(&self) -> Vec<String> {
        let sentence = |(entry, why): (&String, &String)| match self.found.contains_key(entry) {
            true => format!("backends \"{entry}\": {why}; what was found before stays"),
            false => format!("backends \"{entry}\": {why}; none are known"),
        };
        self.problems.iter().map(sentence).collect()
    }

    /// Entries for which something was found.
    pub(crate) fn known(&self) -> BTreeSet<String> {
        self.found.keys().cloned().collect()
    }

    /// Follows a text that was read and checked without what is found: now with it.
    pub(crate) fn follow(&mut self, checked: Checked, looked: &Looked) -> Checked {
        self.text.clone_from(&checked.text);
        let last = std::mem::take(&mut self.found);
        let wished = self.wish(&checked.desired, looked, &last);
        if wished.is_empty() {
            return checked;
        }
        self.build(&wished, &last).unwrap_or(checked)
    }

    /// A text that was read and checked, with what is found now; nothing is kept of it.
    pub(crate) fn rehearse(&self, checked: Checked) -> Checked {
        (self.check)(&checked.text, &self.found).unwrap_or(checked)
    }

    /// Takes what was found for the configuration that runs. That with it, when something is new.
    pub(crate) fn take(&mut self, desired: &Desired, looked: &Looked) -> Option<Checked> {
        let last = std::mem::take(&mut self.found);
        let wished = self.wish(desired, looked, &last);
        if wished == last {
            self.found = last;
            return None;
        }
        let checked = self.build(&wished, &last);
        if self.found == last {
            return None;
        }
        for (entry, texts) in
            self.found.iter().filter(|(entry, texts)| last.get(*entry) != Some(texts))
        {
            tracing::info!(entry, "backends found: {}", texts.join(", "));
        }
        if let Err(cause) = self.keep() {
            let kept = self.kept.display();
            tracing::warn!("what backends were found cannot be kept in {kept}: {cause}");
        }
        checked
    }

    /// Of each entry what was found, or what was before it.
    fn wish(&mut self, desired: &Desired, looked: &Looked, last: &Found) -> Found {
        self.problems.clear();
        let mut wished = Found::new();
        let services = desired.groups.iter().flat_map(|group| &group.services);
        for entry in services.flat_map(|service| &service.discovered) {
            let text = &entry.text;
            let found = match looked.get(text) {
                Some(Ok(found)) => Some(found),
                Some(Err(why)) => {
                    self.problems.insert(text.clone(), why.clone());
                    last.get(text)
                }
                None => last.get(text),
            };
            if let Some(found) = found {
                wished.insert(text.clone(), found.clone());
            }
        }
        wished
    }

    /// All that is wished when it passes, else as much as does, entry by entry: the wished or the last.
    fn build(&mut self, wished: &Found, last: &Found) -> Option<Checked> {
        if let Ok(checked) = self.check(wished) {
            self.found.clone_from(wished);
            return Some(checked);
        }
        let mut best = None;
        let mut found = Found::new();
        for (entry, texts) in wished {
            let mut tries = vec![texts];
            tries.extend(last.get(entry).filter(|last| *last != texts));
            for (n, texts) in tries.into_iter().enumerate() {
                found.insert(entry.clone(), texts.clone());
                match self.check(&found) {
                    Ok(checked) => {
                        best = Some(checked);
                        break;
                    }
                    Err(why) => {
                        found.remove(entry);
                        if n == 0 {
                            self.problems.insert(entry.clone(), why);
                        }
                    }
                }
            }
        }
        self.found = found;
        best.or_else(|| self.check(&Found::new()).ok())
    }

    fn check(&self, found: &Found) -> Result<Checked, String> {
        (self.check)(&self.text, found)
    }

    /// Whole or not at all: a reader never sees half a file.
    fn keep(&self) -> io::Result<()> {
        let new = self.kept.with_extension("new");
        let mut file = fs::File::create(&new)?;
        file.write_all(&serde_json::to_vec(&self.found).map_err(io::Error::other)?)?;
        fs::rename(&new, &self.kept)
    }
}

//! `buoy config explain`: what a key takes, what holds without it, what a reload does with it, and what it means.

use crate::failure::Failure;
use crate::output::{self, Form};
use crate::table::{Align, Table, Tone, wrapped};
use buoy_config::keys::{self, Key, Schema};
use buoy_config::{Code, nearest, reference};
use serde::Serialize;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// A key by its tables, as in `lease` or `vip.service.balance`; a table, as in `vip`; or a code, as in V0103
    #[arg(value_name = "KEY")]
    what: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let what = arguments.what.as_deref().unwrap_or_default();
    let answer = find(what).map_err(Failure::failed)?;
    match arguments.output {
        Form::Json | Form::Yaml => output::value(arguments.output, &answer),
        Form::Table => output::text(&answer.text(output::colour(), output::wrap())),
    }
}

/// What was asked about.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
enum Answer {
    Key(KeyView),
    Table { name: String, keys: Vec<KeyView> },
    Code { code: &'static str, severity: &'static str, meaning: &'static str },
}

/// A key, in words.
#[derive(Debug, Serialize)]
struct KeyView {
    name: String,
    takes: &'static str,
    example: String,
    default: &'static str,
    reload: &'static str,
    reload_means: String,
    meaning: String,
    /// The keys of a table, by name.
    keys: Vec<&'static str>,
}

impl KeyView {
    fn of(path: &str, schema: &'static Schema, key: &'static Key) -> Self {
        let dot = if path.is_empty() { "" } else { "." };
        let below = reference::below(schema, key.name);
        Self {
            name: format!("{path}{dot}{}", key.name),
            takes: key.form,
            example: if key.example.starts_with("[[") {
                key.example.to_owned()
            } else {
                format!("{} = {}", key.name, key.example)
            },
            default: key.default,
            reload: key.reload.name(),
            reload_means: reference::reload_means(key.reload),
            meaning: reference::meaning(schema, key),
            keys: below.map(|schema| names(schema).collect()).unwrap_or_default(),
        }
    }
}

fn names(schema: &'static Schema) -> impl Iterator<Item = &'static str> {
    schema.keys.iter().map(|key| key.name)
}

fn find(what: &str) -> Result<Answer, String> {
    let is_code = |code: &&Code| code.id().eq_ignore_ascii_case(what);
    if let Some(code) = Code::ALL.iter().find(is_code) {
        let severity = code.severity().name();
        return Ok(Answer::Code { code: code.id(), severity, meaning: code.meaning() });
    }
    let (mut schema, mut path) = (&keys::top::SCHEMA, String::new());
    let words: Vec<&str> = what.split('.').filter(|word| !word.is_empty()).collect();
    for (place, word) in words.iter().enumerate() {
        let word = word.trim_matches(['[', ']']);
        let key = schema.keys.iter().find(|key| key.name == word);
        let key = key.ok_or_else(|| unknown(word, &path, schema))?;
        let is_last = place + 1 == words.len();
        match reference::below(schema, key.name) {
            Some(below) if !is_last || what.ends_with(']') || key.example.starts_with("[[") => {
                schema = below;
                path = if path.is_empty() { word.to_owned() } else { format!("{path}.{word}") };
            }
            None if !is_last => return Err(format!("{path} {word} has no keys of its own")),
            Some(_) | None => return Ok(Answer::Key(KeyView::of(&path, schema, key))),
        }
    }
    let keys = schema.keys.iter().map(|key| KeyView::of(&path, schema, key)).collect();
    Ok(Answer::Table { name: schema.title.to_owned(), keys })
}

/// What to say of a word that is no key there: what it is called here, or where it belongs.
fn unknown(word: &str, path: &str, schema: &'static Schema) -> String {
    let place = schema.place;
    let said = |list: &[(&'static str, &'static str)]| {
        list.iter().find(|(name, _)| *name == word).map(|(_, advice)| *advice)
    };
    let dot = if path.is_empty() { "" } else { "." };
    if let Some(meant) = said(schema.foreign) {
        return format!("there is no key {word} {place}; it is called {path}{dot}{meant} here");
    }
    if let Some(advice) = said(schema.later).or_else(|| said(schema.unneeded)) {
        return format!("there is no key {word} {place}: {advice}");
    }
    let elsewhere = keys::SCHEMAS.iter().filter(|s| names(s).any(|name| name == word));
    let elsewhere: Vec<&str> = elsewhere.map(|schema| schema.title).collect();
    let advice = match nearest(word, names(schema)) {
        Some(near) => format!("did you mean {path}{dot}{near}?"),
        None if !elsewhere.is_empty() => format!("there is one in {}", elsewhere.join(", ")),
        None => format!("there are {}", names(schema).collect::<Vec<_>>().join(", ")),
    };
    format!("there is no key {word} {place}; {advice}")
}

impl Answer {
    fn text(&self, colour: bool, width: usize) -> String {
        match self {
            Self::Key(key) => key.text(width),
            Self::Code { code, severity, meaning } => format!("{severity} {code}: {meaning}\n"),
            Self::Table { name, keys } => {
                let mut table = Table::new([
                    ("KEY", Align::Left),
                    ("DEFAULT", Align::Left),
                    ("RELOAD", Align::Left),
                    ("TAKES", Align::Left),
                ]);
                for key in keys {
                    let cells = [&key.name, key.default, key.reload, key.takes];
                    table.row(Tone::Plain, cells.map(str::to_owned));
                }
                let hint = "`buoy config explain KEY` says more of one.";
                format!("{name}\n\n{}\n{hint}\n", table.render(colour))
            }
        }
    }
}

impl KeyView {
    fn text(&self, width: usize) -> String {
        let line = |about: &str, what: &str| format!("  {about:<8} {}\n", wrapped(what, 11, width));
        let mut text = format!("{}\n", self.name);
        text.push_str(&line("takes", self.takes));
        text.push_str(&line("example", &self.example));
        text.push_str(&line("default", self.default));
        text.push_str(&line("reload", &format!("{}: {}", self.reload, self.reload_means)));
        if !self.keys.is_empty() {
            text.push_str(&line("keys", &self.keys.join(", ")));
        }
        format!("{text}\n{}\n", wrapped(&self.meaning, 0, width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_tables() {
        let names = |what: &str| match find(what) {
            Ok(Answer::Key(key)) => key.name,
            Ok(Answer::Table { name, keys }) => format!("{name} {}", keys[0].name),
            Ok(Answer::Code { code, .. }) => code.to_owned(),
            Err(error) => error,
        };
        let table = [
            ("", "the top of the file peers"),
            ("lease", "lease"),
            ("vip", "[[vip]] vip.name"),
            ("[[vip.service]]", "[[vip.service]] vip.service.port"),
            ("vip.service.balance", "vip.service.balance"),
            ("vip.service.check", "vip.service.check"),
            ("vip.service.check.udp.send", "vip.service.check.udp.send"),
            ("vip.check.process", "vip.check.process"),
            ("v0101", "V0101"),
            ("vip.adress", "there is no key adress in [[vip]]; did you mean vip.address?"),
            (
                "vip.virtual_ipaddress",
                "there is no key virtual_ipaddress in [[vip]]; it is called vip.address here",
            ),
            (
                "balance",
                "there is no key balance at the top of the file; there is one in [[vip.service]]",
            ),
        ];
        for (what, expected) in table {
            assert_eq!(names(what), expected, "{what}");
        }
        assert!(names("vip.name.x").ends_with("has no keys of its own"));
        assert!(names("advert_int").contains("it is called heartbeat here"));
    }

    #[test]
    fn a_key_is_explained_on_one_screen() {
        let Ok(Answer::Key(key)) = find("vip.failback") else { unreachable!("it is a key") };
        let text = key.text(80);
        assert!(
            text.starts_with("vip.failback\n  takes    \"never\", \"now\" or a duration\n"),
            "{text}"
        );
        assert!(
            text.contains("  reload   live: taken at once, nothing else is disturbed\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }
}

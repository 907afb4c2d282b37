//! Walks the parsed TOML by hand, so that every wrong key and type is reported and none stops the rest.

use crate::Code;
use crate::keys::{self, Key, Schema};
use crate::mask::SECRET_WORDS;
use crate::report::{At, Problems, Span, choice, listed, shown};
use crate::value;
use core::ops::RangeInclusive;
use core::time::Duration;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// One table of the file, of a known kind.
#[derive(Clone, Debug)]
pub(crate) struct Section<'t> {
    schema: &'static Schema,
    table: &'t DeTable<'t>,
    span: Span,
    /// Keys that unknown ones stand for, mostly by a slip of the finger.
    meant: Vec<&'static str>,
}

/// A word that a key takes, and what it means; `Also` words are other people's names for the same, which are
/// understood and not offered, and `Later` words are planned.
pub(crate) enum Word<T> {
    Now(T),
    Also(T),
    #[allow(dead_code, reason = "at the moment no word is planned")]
    Later,
}

impl<'t> Section<'t> {
    /// Looks at the names of all keys at once; what is not known is a problem, and is not read.
    pub(crate) fn new(
        schema: &'static Schema,
        table: &'t DeTable<'t>,
        span: Span,
        problems: &mut Problems<'_>,
    ) -> Self {
        let mut section = Self { schema, table, span, meant: Vec::new() };
        for (key, value) in table {
            if !schema.keys.iter().any(|known| known.name == key.get_ref().as_ref()) {
                let meant = section.refuse_key(key, &value.span(), problems);
                section.meant.extend(meant);
            }
        }
        section
    }

    /// Whether an unknown key stands for one of these: then what is missing was said.
    pub(crate) fn has_unknown(&self, known: &[&Key]) -> bool {
        self.meant.iter().any(|meant| known.iter().any(|k| k.name == *meant))
    }

    /// Where the table begins: its header.
    pub(crate) const fn span(&self) -> &Span {
        &self.span
    }

    /// Whether the key is there, whatever its value.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.table.contains_key(key.name)
    }

    /// Where the key's name stands, if it is there.
    pub(crate) fn key_span(&self, key: &Key) -> Option<Span> {
        self.table.get_key_value(key.name).map(|(name, _)| name.span())
    }

    /// The value as it is.
    pub(crate) fn raw(&self, key: &Key) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key.name)
    }

    /// Reports that the key must be there.
    pub(crate) fn miss(&self, key: &Key, problems: &mut Problems<'_>) {
        if self.meant.contains(&key.name) {
            return; // It is there under a wrong name, and that was said.
        }
        let message = format!("`{}` is missing {}", key.name, self.schema.place);
        let reason = format!("`{}` takes {}", key.name, key.form);
        let fix = format!("add it, as in `{} = {}`", key.name, key.example);
        problems.add(Code::MissingKey, &self.span, message, reason, fix);
    }

    pub(crate) fn text(&self, key: &Key, problems: &mut Problems<'_>) -> Option<At<&'t str>> {
        let value = self.raw(key)?;
        let DeValue::String(text) = value.get_ref() else {
            wrong_type(key, value, problems);
            return None;
        };
        Some(At::new(text.as_ref(), value.span()))
    }

    pub(crate) fn flag(&self, key: &Key, problems: &mut Problems<'_>) -> Option<At<bool>> {
        let value = self.raw(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            wrong_type(key, value, problems);
            return None;
        };
        Some(At::new(*flag, value.span()))
    }

    pub(crate) fn number(
        &self,
        key: &Key,
        range: RangeInclusive<u32>,
        problems: &mut Problems<'_>,
    ) -> Option<At<u32>> {
        read_number(key, self.raw(key)?, range, problems)
    }

    pub(crate) fn duration(
        &self,
        key: &Key,
        range: RangeInclusive<Duration>,
        problems: &mut Problems<'_>,
    ) -> Option<At<Duration>> {
        let value = self.raw(key)?;
        let DeValue::String(text) = value.get_ref() else {
            wrong_type(key, value, problems);
            return None;
        };
        read_duration(key, &At::new(text.as_ref(), value.span()), range, problems)
    }

    /// A string, or a list of strings; a wrong element is reported and left out.
    pub(crate) fn texts(
        &self,
        key: &Key,
        problems: &mut Problems<'_>,
    ) -> Option<At<Vec<At<&'t str>>>> {
        let value = self.raw(key)?;
        if let DeValue::String(text) = value.get_ref() {
            return Some(At::new(vec![At::new(text.as_ref(), value.span())], value.span()));
        }
        let DeValue::Array(array) = value.get_ref() else {
            wrong_type(key, value, problems);
            return None;
        };
        if array.is_empty() {
            let message = format!("`{}` is an empty list", key.name);
            let reason = format!("it takes {}", key.form);
            let fix = match key.default {
                "required" => format!("write `{} = {}`", key.name, key.example),
                default => format!("name at least one, or remove the line (default: {default})"),
            };
            problems.add(Code::EmptyList, &value.span(), message, reason, fix);
        }
        let mut list = Vec::new();
        for item in array.iter() {
            if let DeValue::String(text) = item.get_ref() {
                list.push(At::new(text.as_ref(), item.span()));
            } else {
                wrong_type(key, item, problems);
            }
        }
        Some(At::new(list, value.span()))
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &self,
        key: &Key,
        words: &[(&'static str, Word<T>)],
        problems: &mut Problems<'_>,
    ) -> Option<At<T>> {
        let text = self.text(key, problems)?;
        let now = || words.iter().filter(|(_, w)| matches!(w, Word::Now(_))).map(|(name, _)| *name);
        let choices = choice(now().map(|name| format!("\"{name}\"")));
        match words.iter().find(|(name, _)| *name == text.value) {
            Some((_, Word::Now(meaning) | Word::Also(meaning))) => {
                return Some(At::new(*meaning, text.span));
            }
            Some((name, Word::Later)) => {
                let message = format!("`{} = \"{name}\"` is not in this version of Buoy", key.name);
                let reason = format!("this version has {choices}");
                let fix = format!("write `{} = {}`, or remove the line", key.name, key.example);
                problems.add(Code::NotInThisVersion, &text.span, message, reason, fix);
            }
            None => {
                let message = format!("`{}` cannot be \"{}\"", key.name, shown(text.value));
                let fix = match value::nearest(text.value, now()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("write `{} = {}`", key.name, key.example),
                };
                problems.add(
                    Code::UnknownWord,
                    &text.span,
                    message,
                    format!("it takes {choices}"),
                    fix,
                );
            }
        }
        None
    }

    /// A list of tables; `[vip]` instead of `[[vip]]` is a table, and said so.
    /// The one table of that key.
    pub(crate) fn section(
        &self,
        key: &Key,
        schema: &'static Schema,
        problems: &mut Problems<'_>,
    ) -> Option<Section<'t>> {
        let value = self.raw(key)?;
        let DeValue::Table(table) = value.get_ref() else {
            wrong_type(key, value, problems);
            return None;
        };
        let span = header(value.span(), problems);
        Some(Section::new(schema, table, span, problems))
    }

    pub(crate) fn sections(
        &self,
        key: &Key,
        schema: &'static Schema,
        problems: &mut Problems<'_>,
    ) -> Vec<Section<'t>> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        if let DeValue::Table(table) = value.get_ref() {
            if let Some(named) = named_tables(table, schema) {
                return refuse_named(key, &named, schema, problems);
            }
            let title = schema.title;
            let message = format!("{} must be {title}", &title[1..title.len() - 1]);
            let reason = "there can be several, so each has double brackets";
            let span = header(value.span(), problems);
            problems.add(Code::WrongType, &span, message, reason, format!("write {title}"));
            // Read it all the same: what is wrong inside is wrong in any case.
            return vec![Section::new(schema, table, span, problems)];
        }
        let DeValue::Array(array) = value.get_ref() else {
            wrong_type(key, value, problems);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            if let DeValue::Table(table) = item.get_ref() {
                let span = header(item.span(), problems);
                sections.push(Section::new(schema, table, span, problems));
            } else {
                wrong_type(key, item, problems);
            }
        }
        sections
    }

    /// Reports a key that is not known; the answer is the key that was meant, if that is clear.
    fn refuse_key(
        &self,
        key: &Spanned<DeString<'_>>,
        value: &Span,
        problems: &mut Problems<'_>,
    ) -> Option<&'static str> {
        let (name, schema) = (key.get_ref().as_ref(), self.schema);
        let span = key.span();
        if let Some((_, instead)) = schema.later.iter().find(|(later, _)| *later == name) {
            let message = format!("`{name}` is not in this version of Buoy");
            problems.add(
                Code::NotInThisVersion,
                &span,
                message,
                "a later version has it",
                *instead,
            );
            return None;
        }
        let known = schema.keys.iter().map(|k| k.name);
        let foreign =
            schema.foreign.iter().find(|(word, _)| *word == name).map(|(_, meant)| *meant);
        let elsewhere = elsewhere(schema, name);
        let meant = match (foreign, elsewhere) {
            (Some(meant), _) => Some(meant),
            (None, Some(_)) => None,
            (None, None) => value::nearest(name, known.clone()),
        };
        if meant == Some(keys::top::SECRET.name) || SECRET_WORDS.contains(&name) {
            problems.mask(value);
        }
        let unneeded = schema.unneeded.iter().find(|(word, _)| *word == name);
        let example = |meant: &str| schema.keys.iter().find(|k| k.name == meant).map(|k| k.example);
        let fix = match (meant, elsewhere) {
            _ if let Some((_, instead)) = unneeded => (*instead).to_owned(),
            (Some(meant), _) => match example(meant) {
                Some(example) if example.starts_with("[[") => format!("write {example}"),
                Some(example) if foreign.is_some() => {
                    format!("write `{meant}`, as in `{meant} = {example}`")
                }
                Some(_) | None => format!("did you mean `{meant}`?"),
            },
            (None, Some(other)) => format!("move it: `{name}` belongs {}", other.place),
            (None, None) => format!("remove it; the keys here are {}", listed(known)),
        };
        let message = format!("unknown key `{}` {}", shown(name), schema.place);
        problems.add(Code::UnknownKey, &span, message, "", fix);
        meant
    }
}

/// `[vip.web]`, `[vip.dns]`: tables by name where a list of tables is meant.
fn named_tables<'t>(
    table: &'t DeTable<'t>,
    schema: &Schema,
) -> Option<Vec<(&'t Spanned<DeString<'t>>, &'t DeTable<'t>)>> {
    let names =
        table.keys().any(|k| schema.keys.iter().any(|known| known.name == k.get_ref().as_ref()));
    let tables = table.iter().map(|(name, value)| Some((name, value.get_ref().as_table()?)));
    let tables: Option<Vec<_>> = tables.collect();
    tables.filter(|tables| !names && !tables.is_empty())
}

fn refuse_named<'t>(
    key: &Key,
    tables: &[(&'t Spanned<DeString<'t>>, &'t DeTable<'t>)],
    schema: &'static Schema,
    problems: &mut Problems<'_>,
) -> Vec<Section<'t>> {
    let mut sections = Vec::new();
    for (name, table) in tables {
        let shown = shown(name.get_ref());
        let message = format!("[{}.{shown}] must be {}", key.name, schema.title);
        let reason = "the name is a key of its own";
        let fix = format!("write {}, and name = \"{shown}\" below it", schema.title);
        problems.add(Code::WrongType, &name.span(), message, reason, fix);
        sections.push(Section::new(schema, table, name.span(), problems));
    }
    sections
}

/// Another table that has this key; the one right below comes first.
fn elsewhere(schema: &Schema, name: &str) -> Option<&'static Schema> {
    let others = keys::SCHEMAS.iter().filter(|s| s.title != schema.title);
    let below = keys::SCHEMAS.iter().skip_while(|s| s.title != schema.title).skip(1);
    below.chain(others).find(|s| s.keys.iter().any(|k| k.name == name)).copied()
}

/// A value that must be a number within a range.
pub(crate) fn read_number(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    range: RangeInclusive<u32>,
    problems: &mut Problems<'_>,
) -> Option<At<u32>> {
    let DeValue::Integer(integer) = value.get_ref() else {
        wrong_type(key, value, problems);
        return None;
    };
    let number = i128::from_str_radix(integer.as_str(), integer.radix());
    let number = number.ok().and_then(|n| u32::try_from(n).ok());
    let found = number.filter(|n| range.contains(n));
    if found.is_none() {
        let message = format!("`{}` is out of range", key.name);
        let reason = format!("it may be {} to {}", range.start(), range.end());
        let fix = format!("write a number from {} to {}", range.start(), range.end());
        problems.add(Code::OutOfRange, &value.span(), message, reason, fix);
    }
    found.map(|n| At::new(n, value.span()))
}

/// A string that must be a time span within a range.
pub(crate) fn read_duration(
    key: &Key,
    text: &At<&str>,
    range: RangeInclusive<Duration>,
    problems: &mut Problems<'_>,
) -> Option<At<Duration>> {
    let duration = match value::duration(text.value) {
        Ok(duration) => duration,
        Err(reason) => {
            let message = format!("`{}` is not a duration: \"{}\"", key.name, shown(text.value));
            let fix = format!("write number and unit (ms, s, m, h, d), as in {}", key.example);
            problems.add(Code::BadDuration, &text.span, message, reason, fix);
            return None;
        }
    };
    if range.contains(&duration) {
        return Some(At::new(duration, text.span.clone()));
    }
    let (least, most) = (value::written(*range.start()), value::written(*range.end()));
    let message = format!("`{}` is out of range: {}", key.name, value::written(duration));
    let nearest = if duration < *range.start() { &least } else { &most };
    let fix = format!("write \"{nearest}\"");
    problems.add(
        Code::OutOfRange,
        &text.span,
        message,
        format!("it may be {least} to {most}"),
        fix,
    );
    None
}

/// Reports a value of the wrong type, with the value people most likely meant.
pub(crate) fn wrong_type(key: &Key, value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) {
    let message = format!("`{}` cannot be {}", key.name, type_name(value.get_ref()));
    let reason = format!("it takes {}", key.form);
    let number = value.get_ref().as_integer().map(|n| shown(n.as_str()));
    let text = value.get_ref().as_str();
    let unquoted = text.filter(|t| t.parse::<u64>().is_ok() || matches!(*t, "true" | "false"));
    let fix = if let Some(n) = number.as_ref().filter(|_| key.form.contains("duration")) {
        format!("write \"{n}ms\" or \"{n}s\": a time span has a unit")
    } else if let Some(n) = number.filter(|_| key.form.contains("PORT/tcp")) {
        format!("write \"{n}/tcp\"")
    } else if let Some(text) = unquoted {
        format!("write {} = {}, without quotes", key.name, shown(text))
    } else if key.example.starts_with("[[") {
        format!("write {} on a line of its own, and its keys below", key.example)
    } else {
        format!("write `{} = {}`", key.name, key.example)
    };
    problems.add(Code::WrongType, &value.span(), message, reason, fix);
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a bare number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The first line of a table: all that a caret should stand under.
pub(crate) fn header(span: Span, problems: &Problems<'_>) -> Span {
    let text = problems.text();
    let start = span.start.min(text.len());
    let end = text
        .get(start..)
        .and_then(|rest| rest.find('\n'))
        .map_or(span.end, |at| span.end.min(start + at));
    start..end.max(start)
}

/// The part of a string value, from a byte of its content; the whole value when it has escapes.
pub(crate) fn inside(whole: &At<&str>, part: &str, problems: &Problems<'_>) -> Span {
    let text = problems.text();
    let offset = (part.as_ptr() as usize).wrapping_sub(whole.value.as_ptr() as usize);
    let source = text.get(whole.span.clone()).unwrap_or_default();
    let content = source.len().checked_sub(2).and_then(|n| source.get(1..=n));
    let is_part = offset.checked_add(part.len()).is_some_and(|end| end <= whole.value.len());
    if content == Some(whole.value) && is_part && !part.is_empty() {
        let start = whole.span.start + 1 + offset;
        start..start + part.len()
    } else {
        whole.span.clone()
    }
}

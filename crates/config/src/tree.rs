//! Walks the parsed TOML by hand, so that every wrong key and type is reported and none stops the rest.

use crate::Code;
use crate::keys::{self, Key, Schema};
use crate::report::{At, Problems, Span, listed, shown};
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
}

/// A word that a key takes, and what it means; `Later` words are planned.
pub(crate) enum Word<T> {
    Now(T),
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
        let section = Self { schema, table, span };
        for key in table.keys() {
            if !schema.keys.iter().any(|known| known.name == key.get_ref().as_ref()) {
                section.refuse_key(key, problems);
            }
        }
        section
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
        let title = self.schema.title;
        let message = format!("`{}` is missing in {title}", key.name);
        let reason = format!("it takes {}", key.form);
        let fix = format!("add `{} = {}`", key.name, key.example);
        problems.add(Code::MissingKey, &self.span, message, reason, fix);
    }

    pub(crate) fn text(&self, key: &Key, problems: &mut Problems<'_>) -> Option<At<&'t str>> {
        let value = self.raw(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(At::new(text.as_ref(), value.span())),
            other => {
                wrong_type(key, other, &value.span(), problems);
                None
            }
        }
    }

    pub(crate) fn flag(&self, key: &Key, problems: &mut Problems<'_>) -> Option<At<bool>> {
        let value = self.raw(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(At::new(*flag, value.span())),
            other => {
                wrong_type(key, other, &value.span(), problems);
                None
            }
        }
    }

    pub(crate) fn number(
        &self,
        key: &Key,
        range: RangeInclusive<u32>,
        problems: &mut Problems<'_>,
    ) -> Option<At<u32>> {
        let value = self.raw(key)?;
        let DeValue::Integer(integer) = value.get_ref() else {
            wrong_type(key, value.get_ref(), &value.span(), problems);
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

    pub(crate) fn duration(
        &self,
        key: &Key,
        range: RangeInclusive<Duration>,
        problems: &mut Problems<'_>,
    ) -> Option<At<Duration>> {
        let value = self.raw(key)?;
        let DeValue::String(text) = value.get_ref() else {
            wrong_type(key, value.get_ref(), &value.span(), problems);
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
        let list = match value.get_ref() {
            DeValue::String(text) => vec![At::new(text.as_ref(), value.span())],
            DeValue::Array(array) => {
                let mut list = Vec::new();
                for item in array.iter() {
                    match item.get_ref() {
                        DeValue::String(text) => list.push(At::new(text.as_ref(), item.span())),
                        other => wrong_type(key, other, &item.span(), problems),
                    }
                }
                if array.is_empty() {
                    let message = format!("`{}` is an empty list", key.name);
                    let reason = format!("it takes {}", key.form);
                    let fix = match key.default {
                        "required" => format!("write `{} = {}`", key.name, key.example),
                        default => {
                            format!("name at least one, or remove the line (default: {default})")
                        }
                    };
                    problems.add(Code::EmptyList, &value.span(), message, reason, fix);
                }
                list
            }
            other => {
                wrong_type(key, other, &value.span(), problems);
                return None;
            }
        };
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
        let choices = listed(now().map(|name| format!("\"{name}\"")));
        match words.iter().find(|(name, _)| *name == text.value) {
            Some((_, Word::Now(meaning))) => return Some(At::new(*meaning, text.span)),
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
    pub(crate) fn sections(
        &self,
        key: &Key,
        schema: &'static Schema,
        problems: &mut Problems<'_>,
    ) -> Vec<Section<'t>> {
        let Some(value) = self.raw(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(array) => {
                let mut out = Vec::new();
                for item in array.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) => {
                            out.push(Section::new(
                                schema,
                                table,
                                header(item.span(), problems),
                                problems,
                            ));
                        }
                        other => wrong_type(key, other, &item.span(), problems),
                    }
                }
                out
            }
            DeValue::Table(table) => {
                let title = schema.title;
                let single = &title[1..title.len() - 1];
                let message = format!("{single} must be {title}");
                let reason = "there can be several, so each has double brackets";
                let span = header(value.span(), problems);
                problems.add(Code::WrongType, &span, message, reason, format!("write {title}"));
                // Read it all the same: what is wrong inside is wrong in any case.
                vec![Section::new(schema, table, span, problems)]
            }
            other => {
                wrong_type(key, other, &value.span(), problems);
                Vec::new()
            }
        }
    }

    fn refuse_key(&self, key: &Spanned<DeString<'_>>, problems: &mut Problems<'_>) {
        let (name, title) = (key.get_ref().as_ref(), self.schema.title);
        let span = key.span();
        if let Some((_, instead)) = self.schema.later.iter().find(|(later, _)| *later == name) {
            let message = format!("`{name}` is not in this version of Buoy");
            problems.add(
                Code::NotInThisVersion,
                &span,
                message,
                "a later version has it",
                *instead,
            );
            return;
        }
        let known = self.schema.keys.iter().map(|k| k.name);
        let elsewhere = keys::SCHEMAS
            .iter()
            .filter(|s| s.title != title)
            .find(|s| s.keys.iter().any(|k| k.name == name));
        let foreign =
            self.schema.foreign.iter().find(|(word, _)| *word == name).map(|(_, meant)| *meant);
        let meant = value::nearest(name, known.clone()).or(foreign);
        let reason = format!("not a key of {title}");
        let fix = match (foreign, meant, elsewhere) {
            (Some(meant), _, _) | (None, Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, None, Some(schema)) => format!("move it: it is a key of {}", schema.title),
            (None, None, None) => format!("remove it; the keys of {title} are {}", listed(known)),
        };
        problems.add(
            Code::UnknownKey,
            &span,
            format!("unknown key `{}` in {title}", shown(name)),
            reason,
            fix,
        );
    }
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
            let fix = format!("write number and unit (ms, s, m, h), as in {}", key.example);
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
pub(crate) fn wrong_type(key: &Key, value: &DeValue<'_>, span: &Span, problems: &mut Problems<'_>) {
    let message = format!("`{}` cannot be {}", key.name, type_name(value));
    let reason = format!("it takes {}", key.form);
    let fix = match value {
        DeValue::Integer(number) if key.form.contains("duration") => {
            format!(
                "write \"{}ms\" or \"{}s\": a time span has a unit",
                shown(number.as_str()),
                shown(number.as_str())
            )
        }
        DeValue::Integer(number) if key.form.contains("PORT/tcp") => {
            format!("write \"{}/tcp\"", shown(number.as_str()))
        }
        DeValue::String(text) if text.parse::<u64>().is_ok() => {
            format!("write {} = {}, without quotes", key.name, shown(text))
        }
        DeValue::String(text) if matches!(text.as_ref(), "true" | "false") => {
            format!("write {} = {text}, without quotes", key.name)
        }
        _ if key.example.starts_with('[') && key.example.ends_with("]]") => {
            format!("write {} on a line of its own, and its keys below", key.example)
        }
        _ => format!("write `{} = {}`", key.name, key.example),
    };
    problems.add(Code::WrongType, span, message, reason, fix);
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
fn header(span: Span, problems: &Problems<'_>) -> Span {
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

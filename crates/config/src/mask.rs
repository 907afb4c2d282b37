//! Takes secrets out of a file that is to be shown to strangers: what authenticates, and nothing else.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Names of keys whose values nobody else should read.
pub(crate) const SECRET_WORDS: &[&str] =
    &["authentication", "auth_pass", "auth_key", "password", "key", "token"];
/// Parts of words that stand before a secret in arguments, headers and comments.
const SECRET_PARTS: &[&str] =
    &["pass", "secret", "token", "auth", "cookie", "credential", "api_key", "apikey"];
/// What stands there instead.
const MASK: &str = "***";

/// The text without its secrets; `None`: it is not TOML, so nobody knows what is one.
pub fn mask(text: &str) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    let mut changes = Vec::new();
    walk(table.get_ref(), &mut changes);
    changes.sort_by_key(|(from, ..)| std::cmp::Reverse(*from));
    let mut masked = text.to_owned();
    for (from, to, new) in changes {
        masked.replace_range(from..to, &new);
    }
    let line = |line: &str| {
        let is_comment = line.trim_start().starts_with('#');
        if is_comment && is_secret(line) { format!("# {MASK}\n") } else { format!("{line}\n") }
    };
    Some(masked.lines().map(line).collect())
}

/// Where something is replaced, in bytes, and by what.
type Change = (usize, usize, String);

fn walk(table: &DeTable<'_>, changes: &mut Vec<Change>) {
    for (key, value) in table {
        let key = key.get_ref().as_ref();
        match key {
            "secret" => each(value, changes, |text, _| {
                (!text.starts_with("file:")).then(|| MASK.to_owned())
            }),
            "headers" => each(value, changes, |text, _| {
                let name = text.split(':').next().unwrap_or_default();
                Some(format!("{name}: {MASK}"))
            }),
            "exec" => arguments(value, changes),
            // Where to post is all that it takes to post there, as often as not.
            "url" => each(value, changes, |text, _| Some(without_path(text))),
            _ if SECRET_WORDS.contains(&key) || is_secret(key) => {
                each(value, changes, |text, _| {
                    let is_place = text.starts_with("file:");
                    (!is_place).then(|| MASK.to_owned())
                });
            }
            _ => below(value, changes),
        }
    }
}

fn below(value: &Spanned<DeValue<'_>>, changes: &mut Vec<Change>) {
    match value.get_ref() {
        DeValue::Table(table) => walk(table, changes),
        DeValue::Array(array) => array.iter().for_each(|value| below(value, changes)),
        DeValue::String(_) => each(value, changes, |text, _| in_addresses(text)),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

/// A program and its arguments: what is secret in itself, and what follows an option that says so.
fn arguments(value: &Spanned<DeValue<'_>>, changes: &mut Vec<Change>) {
    let all = value.get_ref().as_array().into_iter().flat_map(|all| all.iter());
    let texts: Vec<&str> = all.map(|one| one.get_ref().as_str().unwrap_or_default()).collect();
    each(value, changes, |text, place| {
        let is_option = |text: &&str| is_secret(text) && !text.contains('=');
        let follows = place > 1 && texts.get(place - 1).is_some_and(is_option);
        (place > 0 && (is_secret(text) || follows)).then(|| MASK.to_owned())
    });
}

/// Of an address no more than where it leads.
fn without_path(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return MASK.to_owned() };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}/{MASK}")
}

/// The text without users of addresses and without what a query names as secret; `None`: it has neither.
fn in_addresses(text: &str) -> Option<String> {
    let mut masked = text.to_owned();
    if let Some((scheme, rest)) = text.split_once("://") {
        let end = rest.find(['/', '?', '#', ' ']).unwrap_or(rest.len());
        if let Some(at) = rest[..end].rfind('@') {
            masked = format!("{scheme}://{MASK}{}", &rest[at..]);
        }
    }
    if let Some((path, query)) = masked.split_once('?') {
        let part = |part: &str| match part.split_once('=') {
            Some((name, _)) if is_secret(name) || SECRET_WORDS.contains(&name) => {
                format!("{name}={MASK}")
            }
            Some(_) | None => part.to_owned(),
        };
        let parts: Vec<String> = query.split('&').map(part).collect();
        masked = format!("{path}?{}", parts.join("&"));
    }
    (masked != text).then_some(masked)
}

/// Replaces texts of a value, of a list by their place in it.
fn each(
    value: &Spanned<DeValue<'_>>,
    changes: &mut Vec<Change>,
    new: impl Fn(&str, usize) -> Option<String>,
) {
    let mut one = |value: &Spanned<DeValue<'_>>, place| {
        let text = match value.get_ref() {
            DeValue::String(text) => new(text, place),
            DeValue::Integer(_) | DeValue::Float(_) => Some(MASK.to_owned()),
            DeValue::Boolean(_) | DeValue::Datetime(_) => None,
            // Something that is no key of ours: nobody knows what is in there.
            DeValue::Array(_) | DeValue::Table(_) => Some(MASK.to_owned()),
        };
        let quoted = text.map(|text| toml::Value::String(text).to_string());
        changes.extend(quoted.map(|text| (value.span().start, value.span().end, text)));
    };
    if let DeValue::Array(array) = value.get_ref() {
        array.iter().enumerate().for_each(|(place, value)| one(value, place));
    } else {
        one(value, 0);
    }
}

fn is_secret(text: &str) -> bool {
    let text = text.to_lowercase();
    SECRET_PARTS.iter().any(|part| text.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let text = "\
secret = [\"file:a.key\", \"00ff\"] # where
# auth_pass = hunter2
[[vip]]
name = \"web\" # the site
password = \"hunter2\"
check = { http = \"GET http://127.0.0.1/\", headers = [\"Authorization: Basic x\", \"X-Y: z\"] }
[[vip.service]]
check = { exec = [\"/bin/fit\", \"--password=x\", \"{port}\"], user = \"buoy\" }
[[vip.service]]
check = { exec = [\"/bin/fit\", \"--password\", \"hunter2\", \"-v\"], every = \"1s\" }
[[vip.service]]
check = { http = \"GET /ready?a=1&token=hunter2&key=hunter2&b=2\" }
[[vip.service]]
check = { http = \"GET http://ann:hunter2@127.0.0.1/x@y\" }
[[hook]]
url = \"https://hooks.example.org:8443/services/T1/hunter2?x=y\"
";
        let masked = mask(text).unwrap();
        let expected = "\
secret = [\"file:a.key\", \"***\"] # where
# ***
[[vip]]
name = \"web\" # the site
password = \"***\"
check = { http = \"GET http://127.0.0.1/\", headers = [\"Authorization: ***\", \"X-Y: ***\"] }
[[vip.service]]
check = { exec = [\"/bin/fit\", \"***\", \"{port}\"], user = \"buoy\" }
[[vip.service]]
check = { exec = [\"/bin/fit\", \"***\", \"***\", \"-v\"], every = \"1s\" }
[[vip.service]]
check = { http = \"GET /ready?a=1&token=***&key=***&b=2\" }
[[vip.service]]
check = { http = \"GET http://***@127.0.0.1/x@y\" }
[[hook]]
url = \"https://hooks.example.org:8443/***\"
";
        assert_eq!(masked, expected);
        assert_eq!(mask("secret = "), None);
    }
}

//! Changes which key files a configuration names, and leaves every other character of it as it is.

use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The paths behind `file:` in `secret`, as they are written; `None`: there is none, or it is no such thing.
pub fn files(text: &str) -> Option<Vec<String>> {
    let table = DeTable::parse(text).ok()?;
    let value = table.get_ref().get("secret")?;
    let path = |value: &DeValue<'_>| match value {
        DeValue::String(text) => text.strip_prefix("file:").map(str::to_owned),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    match value.get_ref() {
        DeValue::Array(all) => all.iter().map(|one| path(one.get_ref())).collect(),
        one @ (DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Table(_)) => path(one).map(|path| vec![path]),
    }
}

/// The same text with these paths in `secret`.
pub fn with_files(text: &str, paths: &[String]) -> Option<String> {
    let place = DeTable::parse(text).ok()?.get_ref().get("secret")?.span();
    let written = |path: &String| toml::Value::String(format!("file:{path}")).to_string();
    let value = match paths {
        [] => return None,
        [one] => written(one),
        many => format!("[{}]", many.iter().map(written).collect::<Vec<_>>().join(", ")),
    };
    let changed = format!("{}{value}{}", text.get(..place.start)?, text.get(place.end..)?);
    (files(&changed)? == paths).then_some(changed)
}

/// Where a path of `secret` leads in a configuration at `config`.
pub fn resolve(config: &Path, path: &str) -> PathBuf {
    config.parent().unwrap_or(Path::new("")).join(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn the_key_files_change_and_nothing_else_does() {
        let table = [
            (
                "secret = \"file:a.key\"  # ours\n",
                "secret = [\"file:b.key\", \"file:a.key\"]  # ours\n",
            ),
            (
                "peers = []\n  secret=[\n  'file:a.key', # old\n  \"file:b.key\"]\n[api]\nsecret = 1\n",
                "peers = []\n  secret=[\"file:b.key\", \"file:a.key\"]\n[api]\nsecret = 1\n",
            ),
            (
                "\"secret\" = \"file:\u{fc}.key\"\r\n",
                "\"secret\" = [\"file:b.key\", \"file:a.key\"]\r\n",
            ),
        ];
        for (text, expected) in table {
            let changed = with_files(text, &strings(&["b.key", "a.key"])).unwrap();
            assert_eq!(changed, expected);
            assert_eq!(files(&changed), Some(strings(&["b.key", "a.key"])));
            let one = with_files(&changed, &strings(&["we \"quote\".key"])).unwrap();
            assert_eq!(files(&one), Some(strings(&["we \"quote\".key"])), "{one}");
        }
        assert_eq!(with_files(table[0].0, &[]), None, "a cluster has a key");
    }

    #[test]
    fn what_names_no_key_files_is_left_alone() {
        for text in
            ["", "secret = 1\n", "secret = \"0011\"\n", "secret = [\"file:a\", 2]", "secret = ["]
        {
            assert_eq!(files(text), None, "{text}");
        }
        assert_eq!(with_files("peers = []\n", &strings(&["a"])), None);
    }

    #[test]
    fn a_path_is_relative_to_the_configuration() {
        let config = Path::new("/etc/buoy/buoy.toml");
        assert_eq!(resolve(config, "a.key"), Path::new("/etc/buoy/a.key"));
        assert_eq!(resolve(config, "/root/a.key"), Path::new("/root/a.key"));
    }
}

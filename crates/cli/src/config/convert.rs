//! `buoy config convert`: the same configuration as TOML, JSON or YAML, for programs that make or read one.
//!
//! The agent reads TOML; what other tools write as JSON or YAML becomes it here.

use super::FILE_DEFAULT;
use super::format::{read, standard_input};
use crate::failure::{Exit, Failure};
use crate::output;
use serde_json::Value;
use serde_saphyr::UserMessageFormatter;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration; `-` reads standard input
    #[arg(value_name = "FILE", default_value = FILE_DEFAULT)]
    file: PathBuf,
    /// What it is written in; without this the end of its name says it (.json, .yaml, .yml), or a brace at its beginning
    #[arg(long, value_enum)]
    from: Option<Language>,
    /// What to write to standard output
    #[arg(long, value_enum)]
    to: Language,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Language {
    /// What the agent reads
    Toml,
    /// For programs, and for the API
    Json,
    /// For files of other tools
    Yaml,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let is_stream = arguments.file == Path::new("-");
    let text = if is_stream { standard_input()? } else { read(&arguments.file)? };
    let name =
        if is_stream { "standard input".into() } else { arguments.file.display().to_string() };
    let from = arguments.from.unwrap_or_else(|| Language::of(&name, &text));
    output::text(&convert(&text, &name, from, arguments.to)?)
}

impl Language {
    /// What a file is written in; JSON begins with a brace, which TOML cannot.
    fn of(name: &str, text: &str) -> Self {
        match Path::new(name).extension().and_then(|end| end.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            Some("json") => Self::Json,
            Some(_) | None if text.trim_start().starts_with('{') => Self::Json,
            Some(_) | None => Self::Toml,
        }
    }
}

fn convert(text: &str, name: &str, from: Language, to: Language) -> Result<String, Failure> {
    let value = value(text, name, from)?;
    match to {
        Language::Toml => toml(&value, name),
        Language::Json => {
            let json = serde_json::to_string_pretty(&value).map_err(Failure::failed)?;
            Ok(format!("{json}\n"))
        }
        Language::Yaml => {
            let yaml = serde_saphyr::to_string(&value).map_err(Failure::failed)?;
            Ok(format!("{}\n", yaml.trim_end()))
        }
    }
}

/// The configuration as a value.
fn value(text: &str, name: &str, from: Language) -> Result<Value, Failure> {
    let bad = |kind: &str, error: &dyn std::fmt::Display, fix: &str| Failure {
        exit: Exit::Config,
        message: format!("{name} is no {kind}: {error}{fix}"),
    };
    match from {
        Language::Json => serde_json::from_str(text).map_err(|error| bad("JSON", &error, "")),
        Language::Yaml => {
            // In words for whoever writes YAML, not for whoever writes programs that read it.
            let said =
                |error: serde_saphyr::Error| error.render_with_formatter(&UserMessageFormatter);
            let value: Value = serde_saphyr::from_str(text)
                .map_err(|error| bad("YAML", &said(error).trim_start_matches("error: "), ""))?;
            if value.is_object() {
                return Ok(value);
            }
            Err(bad(
                "configuration in YAML",
                &"it has no names at its top, as in `peers: [...]`",
                "",
            ))
        }
        Language::Toml => {
            let fix = "if it is YAML or JSON, say --from yaml or --from json";
            let table: toml::Table =
                toml::from_str(text).map_err(|error| bad("TOML", &error, fix))?;
            serde_json::to_value(table).map_err(Failure::failed)
        }
    }
}

fn toml(value: &Value, name: &str) -> Result<String, Failure> {
    if let Some(place) = null_in(value) {
        return Err(Failure {
            exit: Exit::Config,
            message: format!("{name}: {place} is null, which TOML does not have: leave it out"),
        });
    }
    let text = toml::to_string(value)
        .map_err(|error| Failure::failed(format!("{name} cannot be written as TOML: {error}")))?;
    // What cannot be set in order is no configuration, and `config check` says why.
    Ok(buoy_config::format::format(&text).unwrap_or(text))
}

/// Where there is a null, as in `vip[0].pool`.
fn null_in(value: &Value) -> Option<String> {
    let below = |step: String, value: &Value| {
        let rest = null_in(value)?;
        let dot = if rest.is_empty() || rest.starts_with('[') { "" } else { "." };
        Some(format!("{step}{dot}{rest}"))
    };
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        Value::Array(all) => {
            all.iter().enumerate().find_map(|(n, item)| below(format!("[{n}]"), item))
        }
        Value::Object(all) => all.iter().find_map(|(key, item)| below(key.clone(), item)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# what nobody carries
peers = ["10.0.0.11", "10.0.0.12"]
secret = "file:cluster.key"

[[vip]]
name = "web"
address = "10.0.0.100/24"
  [[vip.service]]
  port = "443/tcp"
  backends = ["web1 10.0.0.21:8443"]
  check = { http = "GET /health" }
"#;

    /// The same text in another language, from a file without an ending.
    fn to(text: &str, to: Language) -> String {
        convert(text, "a", Language::of("a", text), to).unwrap()
    }

    #[test]
    fn a_configuration_means_the_same_in_each_language() {
        let json = to(FILE, Language::Json);
        let back = to(&json, Language::Toml);
        let parsed = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        assert_eq!(parsed(&back), parsed(FILE));
        assert_eq!(to(&back, Language::Json), json);
        let yaml = to(&json, Language::Yaml);
        assert!(yaml.contains("secret: file:cluster.key\n"), "{yaml}");
        assert!(yaml.contains("port: 443/tcp"), "{yaml}");
        assert!(buoy_config::check_offline(&back, "back.toml").is_ok(), "{back}");
        for name in ["a.yaml", "a.yml"] {
            let again = convert(&yaml, name, Language::of(name, &yaml), Language::Json).unwrap();
            assert_eq!(again, json);
        }
    }

    #[test]
    fn yaml_as_people_write_it_is_read() {
        let yaml = "# ours\npeers: [10.0.0.11, 10.0.0.12]\nsecret: 'file:cluster.key'\nvip:\n  - name: web\n    \
                    address: 10.0.0.100/24\n    failback: now\n    service:\n      - &s\n        port: 443/tcp\n        \
                    backends:\n          - web1 10.0.0.21:8443\n      - <<: *s\n        port: 80/tcp\n";
        let toml = convert(yaml, "a", Language::Yaml, Language::Toml).unwrap();
        let checked = buoy_config::check_offline(&toml, "a.toml").unwrap();
        assert_eq!(checked.groups[0].services.len(), 2, "{toml}");
    }

    #[test]
    fn what_cannot_be_converted_says_where_and_why() {
        let table = [
            ("a", "peers = [", Language::Json, "a is no TOML"),
            ("a", "peers:\n  - 10.0.0.11\n", Language::Toml, "say --from yaml"),
            ("a", "{\"peers\": [", Language::Toml, "a is no JSON"),
            ("a", "{\"vip\": [{\"pool\": null}]}", Language::Toml, "a: vip[0].pool is null"),
            ("a", "{\"a\": [1, null]}", Language::Toml, "a: a[1] is null"),
            ("a.json", "peers = []", Language::Toml, "a.json is no JSON"),
            ("a.yml", "peers: [", Language::Toml, "a.yml is no YAML"),
            (
                "a.yml",
                "a: 1\na: 2\n",
                Language::Json,
                "a.yml is no YAML: line 2 column 1: duplicate",
            ),
            ("a.yml", "peers = []", Language::Json, "no names at its top"),
            ("a.yml", "peers:\n", Language::Toml, "a.yml: peers is null"),
        ];
        for (name, text, to, says) in table {
            let failure = convert(text, name, Language::of(name, text), to).unwrap_err();
            assert_eq!(failure.exit, Exit::Config, "{text}");
            assert!(failure.message.contains(says), "{text}: {}", failure.message);
        }
        assert_eq!(to("{\"a\": null}", Language::Yaml), "a: null\n");
    }

    #[test]
    fn a_text_that_grows_without_end_is_refused() {
        let mut yaml = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..9 {
            let all = vec![format!("*a{}", n - 1); 10].join(", ");
            yaml.push_str(&format!("a{n}: &a{n} [{all}]\n"));
        }
        let failure = convert(&yaml, "a.yml", Language::Yaml, Language::Json).unwrap_err();
        assert_eq!(failure.exit, Exit::Config, "{}", failure.message);
    }
}

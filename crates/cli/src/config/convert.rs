//! `buoy config convert`: the same configuration as TOML, JSON or YAML, for programs that make or read one.
//!
//! The agent reads TOML. YAML is written only: a program that has YAML has JSON too.

use super::FILE_DEFAULT;
use super::format::{read, standard_input};
use crate::failure::{Exit, Failure};
use crate::output;
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration, as TOML or JSON; `-` reads standard input
    #[arg(value_name = "FILE", default_value = FILE_DEFAULT)]
    file: PathBuf,
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
    output::text(&convert(&text, &name, arguments.to)?)
}

fn convert(text: &str, name: &str, to: Language) -> Result<String, Failure> {
    let value = value(text, name)?;
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

/// The configuration as a value: JSON begins with a brace, which TOML cannot.
fn value(text: &str, name: &str) -> Result<Value, Failure> {
    let bad = |kind: &str, error: &dyn std::fmt::Display| Failure {
        exit: Exit::Config,
        message: format!("{name} is no {kind}: {error}"),
    };
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| bad("JSON", &error));
    }
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        bad("TOML (nor JSON, which begins with a brace; YAML is not read)", &error)
    })?;
    serde_json::to_value(table).map_err(Failure::failed)
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

    #[test]
    fn a_configuration_means_the_same_in_each_language() {
        let json = convert(FILE, "a", Language::Json).unwrap();
        let back = convert(&json, "b", Language::Toml).unwrap();
        let parsed = |text: &str| toml::from_str::<toml::Table>(text).unwrap();
        assert_eq!(parsed(&back), parsed(FILE));
        assert_eq!(convert(&back, "c", Language::Json).unwrap(), json);
        let yaml = convert(&json, "b", Language::Yaml).unwrap();
        assert!(yaml.contains("secret: file:cluster.key\n"), "{yaml}");
        assert!(yaml.contains("port: 443/tcp"), "{yaml}");
        assert!(buoy_config::check_offline(&back, "back.toml").is_ok(), "{back}");
    }

    #[test]
    fn what_cannot_be_converted_says_where_and_why() {
        let table = [
            ("peers = [", Language::Json, "a is no TOML"),
            ("peers:\n  - 10.0.0.11\n", Language::Toml, "YAML is not read"),
            ("{\"peers\": [", Language::Toml, "a is no JSON"),
            ("{\"vip\": [{\"pool\": null}]}", Language::Toml, "a: vip[0].pool is null"),
            ("{\"a\": [1, null]}", Language::Toml, "a: a[1] is null"),
        ];
        for (text, to, says) in table {
            let failure = convert(text, "a", to).unwrap_err();
            assert_eq!(failure.exit, Exit::Config, "{text}");
            assert!(failure.message.contains(says), "{text}: {}", failure.message);
        }
        assert_eq!(convert("{\"a\": null}", "a", Language::Yaml).unwrap(), "a: null\n");
    }
}

//! The reference for operators and the parser know the same keys, defaults and codes.

use crate::examples::root;
use buoy_config::reference::{HEADINGS, rows};
use buoy_config::{Code, keys};

fn reference() -> String {
    std::fs::read_to_string(root().join("docs/configuration.md")).unwrap()
}

#[test]
fn the_reference_has_every_key_and_no_other() {
    let text = reference();
    let mut wrong = Vec::new();
    assert_eq!(HEADINGS.len(), keys::SCHEMAS.len());
    for (heading, schema) in HEADINGS.iter().zip(keys::SCHEMAS) {
        let rows = rows(&text, heading);
        assert!(!rows.is_empty(), "no heading {heading}");
        let documented: Vec<&str> = rows.iter().map(|r| r[0].as_str()).collect();
        let known: Vec<&str> = schema.keys.iter().map(|k| k.name).collect();
        assert_eq!(documented, known, "{heading}: keys and their order");
        for (row, key) in rows.iter().zip(schema.keys) {
            let expected = [key.form, key.default, key.reload.name()].map(|c| c.replace('`', ""));
            if row[1..4] != expected {
                wrong.push(format!(
                    "{heading} {}: {:?}, the parser has {expected:?}",
                    key.name,
                    &row[1..4]
                ));
            }
            if row[4].len() < 10 {
                wrong.push(format!("{heading} {}: says nothing", key.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reference_has_every_code_with_its_meaning() {
    let rows = rows(&reference(), "## Messages");
    let documented: Vec<[&str; 3]> =
        rows.iter().map(|r| [r[0].as_str(), r[1].as_str(), r[2].as_str()]).collect();
    let meaning = |code: &Code| code.meaning().replace('`', "");
    let meanings: Vec<String> = Code::ALL.iter().map(meaning).collect();
    let known: Vec<[&str; 3]> = Code::ALL
        .iter()
        .zip(&meanings)
        .map(|(c, m)| [c.id(), c.severity().name(), m.as_str()])
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn every_text_of_the_reference_that_is_a_file_is_accepted() {
    let text = reference();
    let mut blocks = 0;
    for block in text.split("```toml\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        blocks += 1;
        // A part of a file is completed to a whole one.
        let peers = if block.contains("peers") {
            ""
        } else {
            "peers = { lb1 = \"10.0.0.11\", lb2 = \"10.0.0.12\", lb3 = \"10.0.0.13\" }\n"
        };
        let above = block.split("[[").next().unwrap_or_default();
        let secret = if above.contains("secret") { "" } else { "secret = \"file:cluster.key\"\n" };
        let vip = if block.contains("[[vip.service]]") && !block.contains("[[vip]]") {
            "[[vip]]\naddress = \"10.0.0.100/24\"\n"
        } else {
            ""
        };
        let some = if block.contains("[[") { "" } else { "[[vip]]\naddress = \"10.0.0.100/24\"\n" };
        let whole = format!("{secret}{peers}{vip}{block}{some}");
        let report = buoy_config::check_offline(&whole, "docs/configuration.md")
            .map_or_else(|r| r, |c| c.warnings);
        assert!(report.is_empty(), "{report}\nin\n{whole}");
    }
    assert!(blocks >= 3);
}

#[test]
fn examples_and_defaults_of_keys_are_toml() {
    for schema in keys::SCHEMAS {
        for key in schema.keys.iter().filter(|k| !k.example.starts_with("[[")) {
            let text = format!("{} = {}", key.name, key.example);
            assert!(text.parse::<toml::Table>().is_ok(), "{text}");
        }
        for (word, meant) in schema.foreign {
            assert!(
                schema.keys.iter().any(|k| k.name == *meant),
                "{word} means {meant}, which is no key"
            );
            assert!(!schema.keys.iter().any(|k| k.name == *word), "{word} is a key");
        }
        for (word, instead) in schema.later {
            assert!(!schema.keys.iter().any(|k| k.name == *word) && !instead.is_empty(), "{word}");
        }
    }
}

#[test]
fn the_defaults_of_the_reference_are_those_of_the_limits() {
    use buoy_model::limits::{
        HEARTBEAT_DEFAULT, LEASE_CEILING_DEFAULT, LEASE_DEFAULT, PORT_DEFAULT,
        PROXY_CONNECTIONS_DEFAULT,
    };
    use keys::{check, service, top};
    let millis = |d: std::time::Duration| format!("\"{}ms\"", d.as_millis());
    assert_eq!(top::HEARTBEAT.default, millis(HEARTBEAT_DEFAULT));
    assert_eq!(top::LEASE.default, millis(LEASE_DEFAULT));
    assert!(top::LEASE_MAX.default.starts_with(&millis(LEASE_CEILING_DEFAULT)));
    assert_eq!(top::PORT.default, PORT_DEFAULT.to_string());
    assert_eq!(service::MAX_CONNECTIONS.default, PROXY_CONNECTIONS_DEFAULT.to_string());
    assert_eq!(check::FALL.default, buoy_model::limits::CHECK_FALL_DEFAULT.to_string());
    assert_eq!(check::RISE.default, buoy_model::limits::CHECK_RISE_DEFAULT.to_string());
}

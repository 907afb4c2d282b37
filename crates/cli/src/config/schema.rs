//! `buoy config schema`: a JSON Schema of the file, so that an editor completes and explains its keys.
//!
//! It follows from the keys of the parser and the words of the reference. It says which keys there are, of which
//! types, and what they mean; whether a file is right as a whole says `buoy config check`.

use crate::failure::Failure;
use crate::output;
use buoy_config::keys::{self, Key, Schema};
use buoy_config::reference;
use serde_json::{Map, Value, json};

pub(super) fn run() -> Result<(), Failure> {
    output::json(&schema())
}

fn schema() -> Value {
    let mut top = table(&keys::top::SCHEMA);
    if let Value::Object(top) = &mut top {
        top.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        top.insert("title".into(), json!("buoy.toml"));
        let required = keys::top::SCHEMA.keys.iter().filter(|key| key.default == "required");
        top.insert("required".into(), required.map(|key| key.name).collect());
    }
    top
}

fn table(schema: &'static Schema) -> Value {
    let key = |key: &&'static Key| (key.name.to_owned(), property(schema, key));
    let properties: Map<String, Value> = schema.keys.iter().map(key).collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn property(schema: &'static Schema, key: &'static Key) -> Value {
    let mut property = Map::new();
    property.insert("description".into(), json!(reference::meaning(schema, key)));
    if key.default != "required" && key.default != "none" {
        property.insert("$comment".into(), json!(format!("without it: {}", key.default)));
    }
    let below = reference::below(schema, key.name);
    let any = alternatives(key.form, below);
    if let [Value::Object(one)] = any.as_slice() {
        property.extend(one.clone());
    } else {
        property.insert("anyOf".into(), Value::Array(any));
    }
    if let Ok(example) = format!("{} = {}", key.name, key.example).parse::<toml::Table>()
        && below.is_none()
    {
        let value = example.get(key.name).and_then(|value| serde_json::to_value(value).ok());
        property.extend(value.map(|value| ("examples".to_owned(), json!([value]))));
    }
    Value::Object(property)
}

/// What a form in words allows, by type.
fn alternatives(form: &str, below: Option<&'static Schema>) -> Vec<Value> {
    let object = || below.map_or_else(|| json!({ "type": "object" }), table);
    if form.starts_with("a list of tables") {
        return vec![json!({ "type": "array", "items": object() })];
    }
    let (quoted, words) = parts(form);
    let has = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
    let mut any = Vec::new();
    let is_word = |text: &&String| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let is_closed = !quoted.is_empty()
        && quoted.iter().all(|text| is_word(&text))
        && words.iter().all(|word| ["or", "true", "false"].contains(&word.as_str()));
    if is_closed {
        any.push(json!({ "enum": quoted }));
    } else if !quoted.is_empty() || has(STRINGS) {
        any.push(json!({ "type": "string" }));
    }
    // As in "2 or 3".
    let listed = words.iter().filter(|word| *word != "or").map(|word| word.parse::<u64>().ok());
    let listed: Option<Vec<u64>> = listed.collect();
    if let Some(numbers) = listed.filter(|numbers| quoted.is_empty() && !numbers.is_empty()) {
        any.push(json!({ "enum": numbers }));
    }
    if has(&["number", "status"]) {
        any.push(json!({ "type": "integer" }));
    }
    match (has(&["true"]), has(&["false"])) {
        (true, true) => any.push(json!({ "type": "boolean" })),
        (true, false) => any.push(json!({ "const": true })),
        (false, true) => any.push(json!({ "const": false })),
        (false, false) => {}
    }
    if has(&["table"]) {
        any.push(object());
    }
    if has(&["list"]) {
        let items = if has(&["table"]) && below.is_some() {
            object()
        } else {
            json!({ "type": ["string", "integer"] })
        };
        // "A list of" says that there is nothing but lists, and maybe tables.
        if form.starts_with("a list of") {
            any.retain(|one: &Value| one["type"] == "object");
        }
        any.push(json!({ "type": "array", "items": items }));
    }
    any
}

/// Words of a form that stand for a text.
const STRINGS: &[&str] = &[
    "address",
    "duration",
    "expression",
    "label",
    "name",
    "path",
    "prefix",
    "program",
    "range",
    "text",
];

/// What stands in quotes, and the words around it.
fn parts(form: &str) -> (Vec<String>, Vec<String>) {
    let pieces = form.split('"').enumerate();
    let (quoted, plain): (Vec<_>, Vec<_>) = pieces.partition(|(place, _)| place % 2 == 1);
    let words = plain.iter().flat_map(|(_, text)| text.split(|c: char| !c.is_alphanumeric()));
    let words = words.filter(|word| !word.is_empty()).map(str::to_owned).collect();
    (quoted.into_iter().map(|(_, text)| text.to_owned()).collect(), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a value is what a schema says, of the words that `schema` uses.
    fn fits(schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
            let tried: Vec<_> = any.iter().map(|one| fits(one, value)).collect();
            if !tried.iter().any(Result::is_ok) {
                return Err(format!("{value} is nothing of {any:?}: {tried:?}"));
            }
        }
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            return Err(format!("{value} is none of {allowed:?}"));
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return Err(format!("{value} is not {}", schema["const"]));
        }
        let kind = match value {
            Value::String(_) => "string",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
            Value::Null => "null",
        };
        let is_kind = |allowed: &Value| {
            allowed.as_array().map_or(allowed == kind, |list| list.contains(&json!(kind)))
        };
        if schema.get("type").is_some_and(|allowed| !is_kind(allowed)) {
            return Err(format!("{value} is no {}", schema["type"]));
        }
        if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
            list.iter().try_for_each(|item| fits(items, item))?;
        }
        if let (Some(known), Some(table)) = (schema.get("properties"), value.as_object()) {
            for (key, value) in table {
                let schema = known.get(key).ok_or_else(|| format!("{key} is not known"))?;
                fits(schema, value).map_err(|error| format!("{key}: {error}"))?;
            }
        }
        Ok(())
    }

    fn value(text: &str) -> Value {
        serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap()
    }

    #[test]
    fn every_example_fits_and_slips_do_not() {
        let schema = schema();
        let mut seen = 0;
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
        let reference = include_str!("../../../../docs/configuration.md");
        for block in reference.split("```toml\n").skip(1).filter_map(|b| b.split("```").next()) {
            // Some begin inside of a VIP.
            let whole = value(block);
            let is_part = whole.get("vip").is_some_and(Value::is_object);
            let whole = if is_part { value(&format!("[[vip]]\n{block}")) } else { whole };
            if whole.get("check").is_none() {
                assert_eq!(fits(&schema, &whole), Ok(()), "{block}");
            }
        }
        for entry in std::fs::read_dir(root).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ext| ext == "toml") {
                seen += 1;
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(fits(&schema, &value(&text)), Ok(()), "{}", path.display());
            }
        }
        assert!(seen > 5);
        for wrong in [
            "peer = []",
            "peers = 7",
            "safety = \"both\"",
            "[[vip]]\nadress = \"10.0.0.1/24\"",
            "[vip]\naddress = \"10.0.0.1/24\"",
            "[[vip]]\n[[vip.service]]\nbalance = \"fair\"",
            "[[vip]]\n[[vip.service]]\ncheck = { tcp = false }",
            "[[vip]]\nassign = \"no\"",
        ] {
            assert!(fits(&schema, &value(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_example_of_every_key_fits_it() {
        for table in keys::SCHEMAS {
            for key in table.keys.iter().filter(|key| !key.example.starts_with("[[")) {
                let text = format!("{} = {}", key.name, key.example);
                let property = property(table, key);
                assert_eq!(fits(&property, &value(&text)[key.name]), Ok(()), "{text}");
            }
        }
    }
}

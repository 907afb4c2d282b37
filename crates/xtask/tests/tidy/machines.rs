//! A machine spells out every pair of state and event: a `_` would swallow the next one unseen.
//!
//! Clippy's `wildcard_enum_match_arm` does not look into tuples, and the machines match on pairs.

use crate::fail_if_any;
use crate::repository::{File, rust_files};

#[test]
fn machines_spell_out_every_pair() {
    let found: Vec<String> = rust_files()
        .iter()
        .filter(|file| file.path.starts_with("crates/core/src") && !file.is_test())
        .flat_map(wildcards)
        .collect();
    fail_if_any("an arm with `_` hides new states and events: spell them out", &found);
}

/// Every arm whose pattern is `_` or has a bare `_` in its tuple.
fn wildcards(file: &File) -> Vec<String> {
    let code = file.code();
    let arms = code.match_indices("=>");
    arms.filter(|(at, _)| hides(pattern(&code[..*at])))
        .map(|(at, _)| format!("{}:{}", file.path, code[..=at].lines().count()))
        .collect()
}

/// The pattern at the end of the text: back to the comma or brace that ends the arm before it.
fn pattern(before: &str) -> &str {
    let mut depth = 0i32;
    let mut start = 0;
    let mut seen = false;
    for (at, c) in before.char_indices().rev() {
        // The block of the arm before; a struct pattern's brace stands before anything else was seen.
        let ends = depth == 0 && (matches!(c, ',' | ';' | '{' | '(') || (c == '}' && seen));
        if ends {
            start = at + 1;
            break;
        }
        depth += i32::from(matches!(c, ')' | '}' | ']')) - i32::from(matches!(c, '(' | '{' | '['));
        seen |= !c.is_whitespace();
    }
    before[start..].trim()
}

fn hides(pattern: &str) -> bool {
    let pattern = pattern.split(" if ").next().unwrap_or(pattern);
    split(pattern, '|').into_iter().any(|choice| {
        let choice = choice.trim();
        let tuple = choice.strip_prefix('(').and_then(|inner| inner.strip_suffix(')'));
        choice == "_" || tuple.is_some_and(|inner| split(inner, ',').into_iter().any(hides))
    })
}

/// Splits where no bracket is open.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c: char| {
        depth += i32::from("({[".contains(c)) - i32::from(")}]".contains(c));
        c == separator && depth == 0
    })
    .collect()
}

#[test]
fn a_hidden_variant_is_caught() {
    let bad = [
        "match s { (State::Init, _) => {} }",
        "match s { A => { b() } _ if late => {} }",
        "match s {\n    A => {}\n    _ => {}\n}",
        "match s { (A, B) | (_, C) => 1, }",
        "match s {\n    (A { x }, Event::Tick)\n    | (B { .. }, _) => {}\n}",
        "match s { (A, (B, _)) => {} }",
        "match s { A | _ => {} }",
    ];
    for text in bad {
        assert_eq!(wildcards(&File::new("crates/core/src/x.rs", text)).len(), 1, "{text}");
    }
}

#[test]
fn a_field_that_does_not_matter_is_no_hidden_variant() {
    let good = "match s {
        (State::Init, Event::Advert(_) | Event::Tick) => {}
        State::Backup { .. } => {}
        State::Active { at } if _x => {}
        // _ => {}
        (Some(_), A { b: _ }) => \"_ => \",
    }
    let (a, _) = pair;
    #[cfg(test)]
    mod tests { fn f() { match x { _ => {} } } }";
    let good = good.replace("    #[cfg", "#[cfg").replace("    mod tests {", "mod tests {\n");
    assert_eq!(wildcards(&File::new("crates/core/src/x.rs", &good)), Vec::<String>::new());
}

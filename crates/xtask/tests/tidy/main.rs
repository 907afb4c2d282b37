//! Rules of the repository that the compiler cannot check: one test per rule, and one that it bites.
//!
//! A rule is a function from text to the list of what breaks it; the test applies it to the
//! repository, and to a bad example that it must refuse.

#[cfg(test)]
mod claims;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod flow;
#[cfg(test)]
mod lengths;
#[cfg(test)]
mod machines;
#[cfg(test)]
mod repository;
#[cfg(test)]
mod source;

/// Fails with the rule and every place that breaks it.
#[track_caller]
fn fail_if_any(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "\n{rule}:\n  {}\n", found.join("\n  "));
}

//! Reads the questions that are answered on this host: a program, a file, a process.

use super::refuse;
use crate::Code;
use crate::keys::{Key, check};
use crate::report::{At, Problems, shown};
use crate::tree::Section;
use buoy_model::limits::{CHECK_AGE_MAX, CHECK_EVERY_MIN, CHECK_TEXT_MAX};
use buoy_model::{CheckKind, Running};

/// Bytes of a process's name that the kernel keeps (`TASK_COMM_LEN`, less the final zero).
const COMM_MAX: usize = 15;
/// Bytes of a user's name.
const USER_MAX: usize = 32;
/// Who runs a program unless the file says otherwise.
const NOBODY: &str = "nobody";

/// What a path or an argument may hold in place of the backend's own.
const PLACES: [&str; 3] = ["{name}", "{address}", "{port}"];

/// The question by that key, which is there.
pub(super) fn read(
    section: &Section<'_>,
    question: &Key,
    problems: &mut Problems<'_>,
) -> Option<CheckKind> {
    let weighs = section.flag(&check::WEIGHT, problems).is_some_and(|flag| flag.value);
    if question.name == check::EXEC.name {
        let user = read_user(section, problems);
        let (program, arguments) = read_program(section, &check::EXEC, problems)?;
        return Some(CheckKind::Exec { program, arguments, user: user?, weighs });
    }
    let text = section.text(question, problems)?;
    match question.name {
        "process" => {
            let name = read_process(&text, problems)?;
            Some(CheckKind::Process(Running::Called(name)))
        }
        "pidfile" => Some(CheckKind::Process(Running::In(read_path(&text, problems)?))),
        _ => {
            let contains = read_contains(section, problems);
            let age_max =
                section.duration(&check::MAX_AGE, CHECK_EVERY_MIN..=CHECK_AGE_MAX, problems);
            let path = read_path(&text, problems)?;
            refuse_unknown_place(&text, problems)?;
            Some(CheckKind::File {
                path,
                contains: contains?,
                age_max: age_max.map(|d| d.value),
                weighs,
            })
        }
    }
}

/// Settings of a file or a program in a check that has none.
pub(super) fn refuse_misplaced(section: &Section<'_>, question: &Key, problems: &mut Problems<'_>) {
    let (file, exec) = (&check::FILE, &check::EXEC);
    let table: [(&Key, &[&Key]); 3] =
        [(&check::CONTAINS, &[file]), (&check::MAX_AGE, &[file]), (&check::WEIGHT, &[file, exec])];
    for (key, of) in table {
        if of.iter().any(|of| of.name == question.name) {
            continue;
        }
        if let Some(span) = section.key_span(key) {
            let message = format!("`{}` belongs to a check by `{}`", key.name, of[0].name);
            let reason = format!("this check asks by `{}`", question.name);
            let fix = format!(
                "write {} = {} in its place, or remove `{}`",
                of[0].name, of[0].example, key.name
            );
            refuse(&span, &message, &reason, &fix, problems);
        }
    }
}

/// `None`: it cannot be looked for. `Some(None)`: nothing is.
fn read_contains(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Option<String>> {
    let Some(text) = section.text(&check::CONTAINS, problems) else { return Some(None) };
    let reason = match text.value.len() {
        0 => "it is empty, and every file holds that",
        1..=CHECK_TEXT_MAX => return Some(Some(text.value.to_owned())),
        _ => "it is longer than 1024 bytes",
    };
    let message = format!("\"{}\" cannot be looked for", shown(text.value));
    let fix = "write what the file must hold, as in contains = \"ready\"";
    problems.add(Code::BadPattern, &text.span, message, reason, fix);
    None
}

fn read_user(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<String> {
    read_user_of(section, &check::USER, "a check", problems)
}

/// The user that runs a program of `whose`; root is none.
pub(crate) fn read_user_of(
    section: &Section<'_>,
    key: &Key,
    whose: &str,
    problems: &mut Problems<'_>,
) -> Option<String> {
    let Some(user) = section.text(key, problems) else { return Some(NOBODY.to_owned()) };
    let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let reason = match user.value {
        "root" | "0" => "such a program needs no rights over this host",
        name if (1..=USER_MAX).contains(&name.len()) && name.bytes().all(sound) => {
            return Some(name.to_owned());
        }
        _ => "a name has 1 to 32 letters, digits, `-`, `_` and `.`",
    };
    let message = format!("\"{}\" cannot be the user of {whose}", shown(user.value));
    let fix = format!(
        "write a user of its own, as in user = {}, or remove it for \"nobody\"",
        key.example
    );
    problems.add(Code::CheckUser, &user.span, message, reason, fix);
    None
}

/// A program with its arguments.
pub(crate) fn read_program(
    section: &Section<'_>,
    key: &Key,
    problems: &mut Problems<'_>,
) -> Option<(String, Vec<String>)> {
    let At { value: texts, span } = section.texts(key, problems)?;
    let (program, arguments) = texts.split_first()?;
    let zero = texts.iter().find(|text| text.value.contains('\0'));
    let message = format!("\"{}\" cannot be run", shown(program.value));
    let (reason, fix) = if !program.value.starts_with('/') {
        let fix = "write its absolute path, as in exec = [\"/usr/local/lib/fit\", \"--quick\"]";
        ("there is no shell and no search path", fix.to_owned())
    } else if zero.is_some() {
        ("it holds a zero byte", "remove it".to_owned())
    } else {
        let arguments = arguments.iter().map(|a| a.value.to_owned()).collect();
        return Some((program.value.to_owned(), arguments));
    };
    refuse(&span, &message, reason, &fix, problems);
    None
}

/// An absolute path.
pub(crate) fn read_path(text: &At<&str>, problems: &mut Problems<'_>) -> Option<String> {
    if text.value.starts_with('/') && !text.value.contains('\0') {
        return Some(text.value.to_owned());
    }
    let message = format!("\"{}\" is not an absolute path", shown(text.value));
    let reason = "it is looked for on every host, wherever its configuration is";
    refuse(&text.span, &message, reason, "begin it with `/`, as in \"/run/ready\"", problems);
    None
}

/// A brace in the path of a file is one of the known places: a typing error would look for the wrong file.
fn refuse_unknown_place(text: &At<&str>, problems: &mut Problems<'_>) -> Option<()> {
    let rest = PLACES.iter().fold(text.value.to_owned(), |rest, place| rest.replace(place, ""));
    if !rest.contains(['{', '}']) {
        return Some(());
    }
    let message = format!("\"{}\" has a `{{` or `}}` of no meaning", shown(text.value));
    let reason = "what stands for the backend's own is {name}, {address} and {port}";
    let fix = "write one of these, as in \"/run/backends/{name}\"";
    refuse(&text.span, &message, reason, fix, problems);
    None
}

/// The name of a process, as the kernel keeps it.
pub(crate) fn read_process(text: &At<&str>, problems: &mut Problems<'_>) -> Option<String> {
    let name = text.value;
    let message = format!("\"{}\" cannot be the name of a process", shown(name));
    let kept = name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= COMM_MAX).count();
    let (reason, fix) = if name.is_empty() || name.contains(char::is_control) {
        ("it has no name", "write the name that `ps -o comm` shows".to_owned())
    } else if let Some((_, last)) = name.rsplit_once('/') {
        ("it is a path, and processes go by name", format!("write process = \"{}\"", shown(last)))
    } else if name.len() > COMM_MAX {
        let short: String = name.chars().take(kept).collect();
        (
            "the kernel keeps 15 characters of a name",
            format!("write process = \"{}\"", shown(&short)),
        )
    } else {
        return Some(name.to_owned());
    };
    refuse(&text.span, &message, reason, &fix, problems);
    None
}

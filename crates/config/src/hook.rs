//! Reads `[[hook]]`: who is told when something happens.

use crate::Code;
use crate::bundle::Bundle;
use crate::check::local;
use crate::cluster;
use crate::files::{self, ReadFile};
use crate::keys::{Key, hook as keys};
use crate::report::{At, Problems, listed, shown};
use crate::tree::Section;
use crate::value::nearest;
use crate::{url, vip};
use buoy_model::limits::{
    HOOK_RETRY_DEFAULT, HOOK_RETRY_MAX, HOOK_TIMEOUT_DEFAULT, HOOK_TIMEOUT_MAX, HOOKS_MAX,
};
use buoy_model::{GroupId, Hook, HookAct, HookStyle, HookTopic, VrrpState};
use core::time::Duration;

/// A hook, and where the files stand that it names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) hook: Hook,
    files: Files,
}

/// The files of a hook.
#[derive(Clone, Debug, Default)]
struct Files {
    program: Option<At<String>>,
    key: Option<At<String>>,
    ca: Option<At<String>>,
}

/// Every `[[hook]]`.
pub(crate) fn read(
    top: &Section<'_>,
    bundles: &[Bundle],
    problems: &mut Problems<'_>,
) -> Vec<Named> {
    let sections = top.sections(&crate::keys::top::HOOK, &keys::SCHEMA, problems);
    let spans: Vec<At<()>> = sections.iter().map(|s| At::new((), s.span().clone())).collect();
    let fix = "let one program tell the others";
    vip::refuse_too_many("hooks", &spans, HOOKS_MAX, fix, problems);
    let mut hooks: Vec<(Named, At<()>)> = Vec::new();
    for (place, section) in sections.iter().take(HOOKS_MAX).enumerate() {
        let Some(named) = read_one(section, place + 1, bundles, problems) else { continue };
        let same = hooks.iter().find(|(other, _)| other.hook.name == named.hook.name);
        if let Some((_, first)) = same {
            let message = format!("two hooks are called \"{}\"", shown(&named.hook.name));
            let (again, first) = ((section.span(), "again here"), (&first.span, "first here"));
            problems.add_pair(Code::DuplicateName, again, first, message, "rename one of them");
            continue;
        }
        hooks.push((named, At::new((), section.span().clone())));
    }
    hooks.into_iter().map(|(named, _)| named).collect()
}

fn read_one(
    section: &Section<'_>,
    place: usize,
    bundles: &[Bundle],
    problems: &mut Problems<'_>,
) -> Option<Named> {
    let name = section.text(&keys::NAME, problems);
    let name = name.filter(|n| cluster::check_name("name", n, problems));
    let timeout =
        section.duration(&keys::TIMEOUT, Duration::from_millis(100)..=HOOK_TIMEOUT_MAX, problems);
    let topics = read_topics(section, problems);
    let groups = read_groups(section, bundles, problems);
    let (act, files) = read_act(section, problems)?;
    let hook = Hook {
        name: name.map_or_else(|| format!("hook-{place}"), |name| name.value.to_owned()),
        act,
        topics: topics?,
        groups: groups?,
        timeout: timeout.map_or(HOOK_TIMEOUT_DEFAULT, |timeout| timeout.value),
    };
    Some(Named { hook, files })
}

/// The act, and the files that it needs.
type Act = (HookAct, Files);

/// The key that says who is told; one of them must be there.
const ACTS: [&Key; 3] = [&keys::EXEC, &keys::FIFO, &keys::URL];

/// Settings that belong to some kinds of hooks only.
const OWNERS: [(&Key, &[&Key]); 6] = [
    (&keys::USER, &[&keys::EXEC]),
    (&keys::STYLE, &[&keys::EXEC, &keys::FIFO]),
    (&keys::STATES, &[&keys::EXEC]),
    (&keys::SECRET, &[&keys::URL]),
    (&keys::CA, &[&keys::URL]),
    (&keys::RETRY, &[&keys::URL, &keys::FIFO]),
];

fn read_act(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Act> {
    let acts: Vec<&Key> = ACTS.into_iter().filter(|key| section.has(key)).collect();
    let act = match acts.as_slice() {
        [one] => *one,
        [] => {
            if !section.has_unknown(&ACTS) {
                let message = "this hook tells nobody";
                let reason = format!("it has none of {}", listed(ACTS.map(|key| key.name)));
                let fix = format!("add one of them, as in exec = {}", keys::EXEC.example);
                problems.add(Code::BadHook, section.span(), message, reason, fix);
            }
            return None;
        }
        [first, second, ..] => {
            let span = section.key_span(second).unwrap_or_default();
            let message = "a hook does one thing, and this does two";
            let reason = format!("it has `{}` already", first.name);
            let fix =
                format!("make two of it: one with `{}`, one with `{}`", first.name, second.name);
            problems.add(Code::BadHook, &span, message, reason, fix);
            return None;
        }
    };
    for (key, of) in OWNERS {
        if !of.iter().any(|of| of.name == act.name) {
            refuse_misplaced(section, key, of[0], problems);
        }
    }
    match act.name {
        "exec" => read_run(section, problems),
        "fifo" => read_fifo(section, problems),
        _ => read_post(section, problems),
    }
}

/// A setting that belongs to another kind of hook.
fn refuse_misplaced(section: &Section<'_>, key: &Key, with: &Key, problems: &mut Problems<'_>) {
    if let Some(span) = section.key_span(key) {
        let message = format!("`{}` belongs to a hook with `{}`", key.name, with.name);
        let fix = format!("remove `{}`", key.name);
        problems.add(Code::BadHook, &span, message, "this one has none", fix);
    }
}

fn read_run(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Act> {
    let user = local::read_user_of(section, &keys::USER, "a hook", problems);
    let is_keepalived = read_style(section, problems)?;
    let style = match is_keepalived {
        true => {
            refuse_events(section, "style = \"keepalived\"", problems);
            HookStyle::Keepalived { states: read_states(section, problems)? }
        }
        false => {
            if let Some(span) = section.key_span(&keys::STATES) {
                let message = "`states` belongs to style = \"keepalived\"";
                let reason = "a message in JSON is about an event";
                let fix = "add style = \"keepalived\", or write events = [\"ownership\"] instead";
                problems.add(Code::BadHook, &span, message, reason, fix);
            }
            HookStyle::Json
        }
    };
    let (program, arguments) = local::read_program(section, &keys::EXEC, problems)?;
    let span = section.raw(&keys::EXEC).map(toml::Spanned::span).unwrap_or_default();
    let files = Files { program: Some(At::new(program.clone(), span)), ..Files::default() };
    Some((HookAct::Run { program, arguments, user: user?, style }, files))
}

fn read_fifo(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Act> {
    let path = section.text(&keys::FIFO, problems)?;
    let path = local::read_path(&path, problems);
    refuse_events(section, "`fifo`", problems);
    if section.has(&keys::STYLE) && !read_style(section, problems)? {
        let span = section.key_span(&keys::STYLE).unwrap_or_default();
        let message = "`fifo` has lines of keepalived's form, and no JSON";
        let reason = "who reads a pipe takes a line at a time";
        problems.add(Code::BadHook, &span, message, reason, "write style = \"keepalived\"");
        return None;
    }
    let retry = read_retry(section, problems);
    Some((HookAct::Fifo { path: path?, retry }, Files::default()))
}

fn read_retry(section: &Section<'_>, problems: &mut Problems<'_>) -> Duration {
    let retry = section.duration(&keys::RETRY, Duration::from_secs(1)..=HOOK_RETRY_MAX, problems);
    retry.map_or(HOOK_RETRY_DEFAULT, |retry| retry.value)
}

/// Whether it is keepalived's.
fn read_style(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<bool> {
    const STYLES: [&str; 2] = ["json", "keepalived"];
    if !section.has(&keys::STYLE) {
        return Some(false);
    }
    let text = section.text(&keys::STYLE, problems)?;
    let place = STYLES.iter().position(|style| *style == text.value);
    if place.is_none() {
        let message = format!("\"{}\" is no form in which a hook is told", shown(text.value));
        let reason = format!("there are {}", listed(STYLES));
        let fix = match nearest(text.value, STYLES) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => "write one of them, or remove `style`".to_owned(),
        };
        problems.add(Code::UnknownWord, &text.span, message, reason, fix);
    }
    place.map(|place| place == 1)
}

fn read_states(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Vec<VrrpState>> {
    let Some(texts) = section.texts(&keys::STATES, problems) else {
        return (!section.has(&keys::STATES)).then(Vec::new);
    };
    let names = VrrpState::ALL.map(VrrpState::name);
    let mut states = Vec::new();
    for text in &texts.value {
        match VrrpState::ALL.into_iter().find(|state| state.name() == text.value) {
            Some(state) if states.contains(&state) => {}
            Some(state) => states.push(state),
            None => {
                let message = format!("\"{}\" is no state of a VIP", shown(text.value));
                let reason = format!("there are {}", listed(names));
                let fix = match nearest(&text.value.to_uppercase(), names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write one of them, or remove `states` for all".to_owned(),
                };
                problems.add(Code::UnknownWord, &text.span, message, reason, fix);
            }
        }
    }
    (!states.is_empty()).then_some(states)
}

/// Who is told states is not told events.
fn refuse_events(section: &Section<'_>, with: &str, problems: &mut Problems<'_>) {
    if let Some(span) = section.key_span(&keys::EVENTS) {
        let message = format!("`events` beside {with}");
        let reason = "keepalived's form says in which state a VIP is here, and nothing else";
        problems.add(Code::BadHook, &span, message, reason, "remove `events`");
    }
}

fn read_post(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Act> {
    let url = section.text(&keys::URL, problems)?;
    let retry = read_retry(section, problems);
    let key = section.text(&keys::SECRET, problems).and_then(|text| {
        let path = text.value.strip_prefix("file:").filter(|path| !path.is_empty());
        if path.is_none() {
            problems.mask(&text.span);
            let message = "`secret` names a key file, it is not the key itself";
            let reason = "a configuration is read by many, a key by root only";
            let fix = "run `buoy key new hook.key`, and write secret = \"file:hook.key\"";
            problems.add(Code::BadSecret, &text.span, message, reason, fix);
        }
        path.map(|path| At::new(path.to_owned(), text.span.clone()))
    });
    let ca = section.text(&keys::CA, problems);
    let ca = ca.map(|ca| At::new(ca.value.to_owned(), ca.span.clone()));
    let (is_tls, host, port, path) = match url::parts(url.value) {
        Ok(parts) => parts,
        Err(reason) => {
            let message = format!("\"{}\" is not where a hook can be told", shown(url.value));
            let fix = "write url = \"https://alerts.example.org/buoy\"";
            problems.add(Code::BadHook, &url.span, message, reason, fix);
            return None;
        }
    };
    match (is_tls, &ca) {
        (true, None) => {
            let message = "`https` without `ca`: nobody knows who answers there";
            let reason = "Buoy trusts no authority by itself";
            let fix = "add ca = \"ca.pem\", the authorities that sign the server's certificate";
            problems.add(Code::BadHook, &url.span, message, reason, fix);
        }
        (false, Some(ca)) => {
            let message = "`ca` is of no use with `http`";
            let fix = "write `https`, or remove `ca`";
            problems.add(Code::BadHook, &ca.span, message, "nothing is signed there", fix);
        }
        (true, Some(_)) | (false, None) => {}
    }
    let file = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
    let act = HookAct::Post { host, port, path, ca: file(&ca), key: file(&key), retry };
    Some((act, Files { program: None, key, ca }))
}

fn read_topics(section: &Section<'_>, problems: &mut Problems<'_>) -> Option<Vec<HookTopic>> {
    let Some(texts) = section.texts(&keys::EVENTS, problems) else {
        let is_wrong = section.has(&keys::EVENTS);
        return (!is_wrong).then(|| HookTopic::ALL.to_vec());
    };
    let mut topics = Vec::new();
    for text in &texts.value {
        let word = HookTopic::ALL.into_iter().find(|topic| topic.name() == text.value);
        match word {
            Some(topic) if topics.contains(&topic) => {}
            Some(topic) => topics.push(topic),
            None => {
                let names = HookTopic::ALL.map(HookTopic::name);
                let message = format!("\"{}\" is no kind of events", shown(text.value));
                let reason = format!("there are {}", listed(names));
                let fix = match nearest(text.value, names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write one of them, or remove `events` for all".to_owned(),
                };
                problems.add(Code::UnknownWord, &text.span, message, reason, fix);
            }
        }
    }
    (!topics.is_empty()).then_some(topics)
}

fn read_groups(
    section: &Section<'_>,
    bundles: &[Bundle],
    problems: &mut Problems<'_>,
) -> Option<Vec<GroupId>> {
    if !section.has(&keys::VIPS) {
        return Some(Vec::new());
    }
    let texts = section.texts(&keys::VIPS, problems)?;
    let mut groups = Vec::new();
    for text in &texts.value {
        let is_it = |bundle: &&Bundle| {
            bundle.name.value == text.value
                || bundle.vips.iter().any(|v| v.name.value == text.value)
        };
        match bundles.iter().find(is_it) {
            Some(bundle) => groups.push(bundle.id()),
            None => {
                let names = bundles.iter().map(|bundle| bundle.name.value.as_str());
                let message = format!("there is no VIP \"{}\"", shown(text.value));
                let fix = match nearest(text.value, names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => "write the `name` of a [[vip]], or remove `vips` for all".to_owned(),
                };
                problems.add(
                    Code::HookVip,
                    &text.span,
                    message,
                    "a hook is told of VIPs by name",
                    fix,
                );
            }
        }
    }
    groups.sort_unstable();
    groups.dedup();
    (!groups.is_empty()).then_some(groups)
}

/// The hooks with the paths of their files, which are read once to see that they are good.
pub(crate) fn place(
    hooks: &[Named],
    config: &str,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Vec<Hook> {
    let one = |named: &Named| {
        let mut hook = named.hook.clone();
        if let Some(program) = &named.files.program {
            files::check_program(&program.value, &program.span, files, problems);
        }
        if let HookAct::Post { ca, key, .. } = &mut hook.act {
            if let Some(at) = &named.files.key {
                let path = files::resolve(config, &at.value);
                // What is wrong with it is said; the agent reads it again each time.
                drop(files::read_key(&path, &at.span, files, problems));
                *key = Some(path);
            }
            if let Some(at) = &named.files.ca {
                let path = files::resolve(config, &at.value);
                let at = At::new(at.value.as_str(), at.span.clone());
                files::check_authority(config, &at, files, problems);
                *ca = Some(path);
            }
        }
        hook
    };
    hooks.iter().map(one).collect()
}

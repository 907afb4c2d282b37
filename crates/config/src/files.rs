//! Reads the files that the configuration names: cluster keys and certificate authorities.

use crate::Code;
use crate::keys::{check as check_key, service as service_key, top, vip as vip_key};
use crate::report::{At, Problems, Span, shown};
use crate::tree::Section;
use crate::{key, vip};
use buoy_model::limits::{KEY_LEN, KEYS_MAX};
use buoy_wire::{Key, Keyring};
use std::io;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// What the rules about a file need to know of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileFacts {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Its permission bits, as in `0o600`.
    pub mode: u32,
}

/// How a file is read: by the kernel in the agent, from a table in tests.
pub type ReadFile<'f> = dyn Fn(&str) -> io::Result<FileFacts> + 'f;

/// A path of the file is relative to the directory the file is in.
pub(crate) fn resolve(config: &str, path: &str) -> String {
    let base = Path::new(config).parent().unwrap_or_else(|| Path::new(""));
    base.join(path).to_string_lossy().into_owned()
}

/// The paths of the key files, as written.
pub(crate) fn read_secret<'t>(top: &Section<'t>, problems: &mut Problems<'_>) -> Vec<At<&'t str>> {
    if !top.has(&top::SECRET) {
        top.miss(&top::SECRET, problems);
    }
    let Some(texts) = top.texts(&top::SECRET, problems) else { return Vec::new() };
    let fix = "remove the oldest; after a change of keys one is enough";
    vip::refuse_too_many("keys", &texts.value, KEYS_MAX, fix, problems);
    let mut paths: Vec<At<&str>> = Vec::new();
    for text in texts.value.into_iter().take(KEYS_MAX) {
        let Some(path) = text.value.strip_prefix("file:").filter(|path| !path.is_empty()) else {
            refuse_secret(&text, problems);
            continue;
        };
        match paths.iter().find(|p| p.value == path) {
            Some(first) => {
                let message = format!("the key file {} is listed twice", shown(path));
                let (again, first) = ((&text.span, "again here"), (&first.span, "first here"));
                problems.add_pair(Code::SameKey, again, first, message, "remove one");
            }
            None => paths.push(At::new(path, text.span)),
        }
    }
    paths
}

fn refuse_secret(text: &At<&str>, problems: &mut Problems<'_>) {
    let empty = text.value.is_empty() || text.value == "file:";
    // A path without `file:` is no secret; anything else may be, and is not printed.
    let path = text.value.starts_with(['/', '.']) || text.value.ends_with(".key");
    if !path && !empty {
        problems.mask(&text.span);
    }
    let fix = if path {
        format!("write \"file:{}\"", shown(text.value))
    } else {
        "run `buoy key new cluster.key`, copy it to every host, and write secret = \"file:cluster.key\"".to_owned()
    };
    let message = "`secret` names a key file, it is not the key itself";
    let reason = "a configuration is read by many, a key by root only";
    problems.add(Code::BadSecret, &text.span, message, reason, fix);
}

/// The keyring of these files; every problem of every file is reported.
pub(crate) fn read_keyring(
    config: &str,
    paths: &[At<&str>],
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Keyring> {
    let mut keys: Vec<At<Key>> = Vec::new();
    for path in paths {
        let Some(key) = read_key(&resolve(config, path.value), &path.span, files, problems) else {
            continue;
        };
        if let Some(first) = keys.iter().find(|k| k.value.id() == key.id()) {
            let message = "two key files hold the same key";
            let (again, first) = ((&path.span, "the same key"), (&first.span, "first here"));
            let fix = format!(
                "remove one of them, or make a new key: `buoy key new {}`",
                shown(path.value)
            );
            problems.add_pair(Code::SameKey, again, first, message, fix);
            continue;
        }
        keys.push(At::new(key, path.span.clone()));
    }
    // What makes no keyring was said above, at the place where it is wrong.
    Keyring::new(keys.into_iter().map(|k| k.value).collect()).ok()
}

pub(crate) fn read_key(
    path: &str,
    span: &Span,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Key> {
    read_key_bytes(path, span, files, problems).map(Key::new)
}

/// The bytes of a key file, for those who sign in another way than the peers do.
pub(crate) fn read_key_bytes(
    path: &str,
    span: &Span,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<[u8; KEY_LEN]> {
    let shown_path = shown(path);
    let facts = match files(path) {
        Ok(facts) => facts,
        Err(error) => {
            let fix = if error.kind() == io::ErrorKind::NotFound {
                format!(
                    "run `buoy key new {shown_path}` on one host, and copy the file to the others"
                )
            } else if error.kind() == io::ErrorKind::PermissionDenied {
                "run as root, or as a user who may read the key".to_owned()
            } else {
                format!("make it a file of one key: `buoy key new {shown_path}`")
            };
            let message = format!("cannot read the key file {shown_path}");
            problems.add(Code::KeyUnreadable, span, message, error_words(&error), fix);
            return None;
        }
    };
    refuse_open(&shown_path, facts.mode, span, problems);
    let text = String::from_utf8(facts.content).unwrap_or_else(|_| "\u{fffd}".to_owned());
    match key::bytes(&text) {
        Ok(key) => Some(key),
        Err(error) => {
            let message = format!("{shown_path} is not a key file");
            let fix = format!(
                "copy the file of a host that works, or make a new one: `buoy key new {shown_path}`"
            );
            problems.add(Code::BadKey, span, message, error.to_string(), fix);
            None
        }
    }
}

/// A certificate, with those between it and its authority, as PEM.
pub(crate) fn read_pem_certificate(
    path: &str,
    (span, code): (&Span, Code),
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<u8>> {
    let reason = match files(path) {
        Ok(facts) => {
            let begin = b"-----BEGIN CERTIFICATE-----";
            if facts.content.windows(begin.len()).any(|w| w == begin) {
                return Some(facts.content);
            }
            "it holds no PEM certificate".to_owned()
        }
        Err(error) => error_words(&error),
    };
    let message = format!("cannot use {} as certificate", shown(path));
    problems.add(code, span, message, reason, "write the path of a PEM file");
    None
}

/// The private key of a certificate, as PEM.
pub(crate) fn read_pem_key(
    path: &str,
    (span, code): (&Span, Code),
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<u8>> {
    let shown_path = shown(path);
    let reason = match files(path) {
        Ok(facts) if facts.mode & 0o027 != 0 => {
            let message = format!("others than root can use the key {shown_path}");
            let reason = format!(
                "its mode is {:04o}; whoever has it can pretend to be this host",
                facts.mode & 0o7777
            );
            let fix = format!("run `chmod 600 {shown_path}`");
            problems.add(code, span, message, reason, fix);
            return None;
        }
        Ok(facts) => {
            let end = b"PRIVATE KEY-----";
            if facts.content.windows(end.len()).any(|w| w == end) {
                return Some(facts.content);
            }
            "it holds no PEM private key".to_owned()
        }
        Err(error) => error_words(&error),
    };
    let message = format!("cannot use {shown_path} as the key of a certificate");
    let fix = "write the path of a PEM file that only root can read";
    problems.add(code, span, message, reason, fix);
    None
}

/// Whoever reads the key can take every address of the cluster. For everybody that is an error.
/// A group may be a deliberate choice, such as that of the administrators: a warning.
fn refuse_open(path: &str, mode: u32, span: &Span, problems: &mut Problems<'_>) {
    let fix = format!("run `chmod 600 {path}`");
    let message = |who: &str| format!("{who} the key file {path}");
    let reason =
        format!("its mode is {:04o}; whoever has the key can take every address", mode & 0o7777);
    if mode & 0o007 != 0 {
        problems.add(Code::KeyOpen, span, message("every user of this host can use"), reason, fix);
    } else if mode & 0o020 != 0 {
        problems.add(Code::KeyOpen, span, message("a group can change"), reason, fix);
    } else if mode & 0o050 != 0 {
        problems.add(Code::KeyGroup, span, message("a group can read"), reason, fix);
    }
}

/// Every `ca` of every check of a service; all hosts check those.
pub(crate) fn authorities<'t>(top: &'t DeTable<'t>) -> Vec<At<&'t str>> {
    let found = checks(top).filter_map(|check| check.get(check_key::CA.name));
    found.filter_map(|ca| Some(At::new(ca.get_ref().as_str()?, ca.span()))).collect()
}

/// Every program of every check of a service; all hosts check those.
pub(crate) fn programs<'t>(top: &'t DeTable<'t>) -> Vec<At<&'t str>> {
    let found = checks(top).filter_map(|check| {
        let exec = check.get(check_key::EXEC.name)?;
        let first = exec.get_ref().as_array().and_then(|list| list.first());
        let program = first.unwrap_or(exec);
        Some(At::new(program.get_ref().as_str()?, program.span()))
    });
    // Others are refused for what they are.
    found.filter(|program| program.value.starts_with('/')).collect()
}

fn checks<'t>(top: &'t DeTable<'t>) -> impl Iterator<Item = &'t DeTable<'t>> {
    let tables = |value: Option<&'t toml::Spanned<DeValue<'t>>>| -> Vec<&'t DeTable<'t>> {
        let array = value.and_then(|v| v.get_ref().as_array());
        array.into_iter().flat_map(|a| a.iter()).filter_map(|v| v.get_ref().as_table()).collect()
    };
    let pools = tables(top.get(top::POOL.name));
    let vips = tables(top.get(top::VIP.name)).into_iter().chain(pools);
    let services = vips.flat_map(move |vip| tables(vip.get(vip_key::SERVICE.name)));
    services.filter_map(|s| s.get(service_key::CHECK.name)?.get_ref().as_table())
}

/// A check whose authority is missing would fail for ever, and take every backend down.
pub(crate) fn check_authority(
    config: &str,
    path: &At<&str>,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) {
    let full = resolve(config, path.value);
    let reason = match files(&full) {
        Ok(facts) => {
            let begin = b"-----BEGIN CERTIFICATE-----";
            if facts.content.windows(begin.len()).any(|w| w == begin) {
                return;
            }
            "it holds no PEM certificate".to_owned()
        }
        Err(error) => error_words(&error),
    };
    let message = format!("cannot use {} as certificate authority", shown(&full));
    let fix = "write the path of a PEM file with the authorities that sign the certificate";
    problems.add_once(Code::BadAuthority, &path.span, message, reason, fix);
}

/// A program that cannot be run fails for ever; one that anybody can change runs as root all the same.
pub(crate) fn check_program(
    path: &str,
    span: &Span,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) {
    let name = shown(path);
    let (message, reason, fix) = match files(path) {
        Ok(facts) if facts.mode & 0o002 != 0 => (
            format!("every user of this host can change {name}"),
            format!("its mode is {:04o}, and the agent runs it", facts.mode & 0o7777),
            format!("run `chmod go-w {name}`"),
        ),
        Ok(facts) if facts.mode & 0o111 == 0 => (
            format!("{name} cannot be run"),
            format!("its mode is {:04o}", facts.mode & 0o7777),
            format!("run `chmod 755 {name}`"),
        ),
        Ok(_) => return,
        Err(error) => (
            format!("cannot run {name}"),
            error_words(&error),
            "write the path of a program that is on every host".to_owned(),
        ),
    };
    problems.add_once(Code::BadProgram, span, message, reason, fix);
}

/// An error of the system in plain words, without its number.
pub(crate) fn error_words(error: &io::Error) -> String {
    let known = [
        (io::ErrorKind::NotFound, "there is no such file"),
        (io::ErrorKind::PermissionDenied, "this user may not read it"),
        (io::ErrorKind::IsADirectory, "it is a directory"),
    ];
    let plain = known.iter().find(|(kind, _)| *kind == error.kind());
    plain.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
}

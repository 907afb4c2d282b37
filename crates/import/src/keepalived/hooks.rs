//! Writes the notify scripts and pipes as `[[hook]]`s in keepalived's form.

use super::model::{Model, Notify};
use super::tree::Place;
use super::vips::Vip;
use crate::draft::{Table, list, quoted};
use crate::notes::Notes;

/// Hooks that a host of Buoy may have.
const HOOKS_MAX: usize = 16;

/// A hook, and the VIPs that it is about.
struct Hook {
    exec: String,
    state: Option<&'static str>,
    user: Option<String>,
    vips: Vec<String>,
}

pub(super) fn write(model: &Model, vips: &[Vip], notes: &mut Notes) -> Vec<Table> {
    let mut hooks: Vec<Hook> = Vec::new();
    let of_instances = model.instances.iter().map(|i| (i.name.as_str(), i.notifies.as_slice()));
    let of_groups = model.groups.iter().map(|g| (g.name.as_str(), g.notifies.as_slice()));
    for (name, notifies) in of_instances.chain(of_groups) {
        let Some(about) = about(name, vips) else {
            for notify in notifies {
                notes.left_at(
                    &notify.place,
                    &notify.script.argv.join(" "),
                    "its instance has no VIP in Buoy",
                );
            }
            continue;
        };
        for notify in notifies.iter().filter(|notify| !notify.script.argv.is_empty()) {
            add(notify, about, model.script_user.as_deref(), &mut hooks, notes);
        }
    }
    let mut tables: Vec<Table> = hooks.iter().map(table).collect();
    for (place, path) in &model.fifos {
        fifo(place, path, &mut tables, notes);
    }
    if tables.len() > HOOKS_MAX {
        notes.say(0, format!("a host of Buoy has {HOOKS_MAX} hooks at most: the others are left out, let one program tell them"));
        tables.truncate(HOOKS_MAX);
    }
    tables
}

/// What the VIPs of that instance or group are called together.
fn about<'v>(name: &str, vips: &'v [Vip]) -> Option<&'v str> {
    let is_it = |vip: &&Vip| vip.instance == name || vip.group.as_deref() == Some(name);
    let vip = vips.iter().find(is_it)?;
    match vip.group.as_deref() {
        Some(group) if group == name => Some(group),
        Some(_) | None => Some(&vip.name),
    }
}

fn add(
    notify: &Notify,
    about: &str,
    script_user: Option<&str>,
    hooks: &mut Vec<Hook>,
    notes: &mut Notes,
) {
    let script = &notify.script;
    if !script.is_absolute() {
        return notes.left_at(
            &notify.place,
            &script.argv.join(" "),
            "a hook is run by its absolute path, without a shell",
        );
    }
    let user = match script.user.as_deref().or(script_user) {
        Some("root") => {
            notes.say_at(&notify.place, "a hook is never run as root: it is run as nobody, unless you write a user of its own");
            None
        }
        Some(user) => Some(user.to_owned()),
        None => {
            notes.say_at(&notify.place, "keepalived runs it as keepalived_script or root: here it is run as nobody, unless you write a `user`");
            None
        }
    };
    if notify.state.is_some() {
        notes.say_at(&notify.place, "it gets four more arguments than keepalived gives it: INSTANCE or GROUP, name, state, priority");
    }
    let (exec, state) = (script.exec(), notify.state);
    let same = |hook: &&mut Hook| hook.exec == exec && hook.state == state && hook.user == user;
    match hooks.iter_mut().find(same) {
        Some(hook) if hook.vips.iter().any(|vip| vip == about) => {}
        Some(hook) => hook.vips.push(about.to_owned()),
        None => hooks.push(Hook { exec, state, user, vips: vec![about.to_owned()] }),
    }
}

fn table(hook: &Hook) -> Table {
    let mut table = Table::new("[[hook]]");
    table.set("exec", hook.exec.clone());
    table.set("style", quoted("keepalived"));
    if let Some(state) = hook.state {
        table.set("states", list([quoted(state)]));
    }
    if let Some(user) = &hook.user {
        table.set("user", quoted(user));
    }
    table.set("vips", list(hook.vips.iter().map(|vip| quoted(vip))));
    table
}

fn fifo(place: &Place, path: &str, tables: &mut Vec<Table>, notes: &mut Notes) {
    if !path.starts_with('/') {
        return notes.left_at(place, path, "a named pipe has an absolute path");
    }
    let mut table = Table::new("[[hook]]");
    table.set("fifo", quoted(path));
    tables.push(table);
}

//! `buoy key rotate`: brings this host one step further in a change of the cluster's key, once all others have come far enough.
//!
//! First all accept the new key, then all sign with it, then nobody accepts the old one. A step is done only where no
//! datagram is refused for it, so the order in which hosts are visited does not matter, nor does a host that is late.

use super::{Has, Keys};
use crate::Asking;
use crate::config::during;
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::progress::Progress;
use buoy_api::{Client, MatrixReply, MatrixRow};
use buoy_config::secret;
use serde::Serialize;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the others.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// From the moment when the others are seen to have come far enough until this host goes on: their answer may be ahead of
/// their loops, and what was signed before may be on its way.
const SETTLE: Duration = Duration::from_secs(1);

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    asking: Asking,
    /// The file with the new key, made by `buoy key new` on one host and copied to all
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Go through all steps, and wait for the other hosts before each
    #[arg(long)]
    wait: bool,
    /// How long to wait for them, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, requires = "wait")]
    timeout: u64,
    /// Go on without this node, which is gone: with the old key alone it is refused when it returns
    #[arg(long, value_name = "NODE")]
    without: Vec<String>,
    /// Say what the next step of this host is and what it waits for; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on where connections break: those of mode `xdp`, when this host begins to sign with the new key
    #[arg(long)]
    yes: bool,
}

/// What is left for a host to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Step {
    /// It does not understand the new key yet.
    Accept,
    /// It understands it, and signs with another.
    Sign,
    /// It signs with it, and accepts others.
    Enforce,
    /// It has the new key alone.
    Done,
}

/// What a run has done, and where that leaves the cluster.
#[derive(Serialize)]
struct Outcome {
    node: String,
    /// The new key.
    key: String,
    /// The steps that this run has done.
    did: Vec<Step>,
    /// What is left for this host.
    next: Step,
    /// What that waits for.
    waits_for: Vec<String>,
    /// Where the configuration of this host says so.
    file: String,
    keys: Keys,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let host = Host::of(arguments)?;
    let deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let mut did = Vec::new();
    loop {
        let own = host.row()?.keys;
        let step = Step::next(&own, &host.key);
        let waits_for = host.wait(arguments, step, deadline)?;
        let ends = step == Step::Done
            || !waits_for.is_empty()
            || arguments.dry_run
            || (!arguments.wait && !did.is_empty());
        if ends {
            return show(arguments, &host, did, step, waits_for);
        }
        host.may_break(arguments, step)?;
        during("what the others have sent arrives", || thread::sleep(SETTLE));
        host.go(step, &own)?;
        did.push(step);
    }
}

fn show(
    arguments: &Arguments,
    host: &Host,
    did: Vec<Step>,
    next: Step,
    waits_for: Vec<String>,
) -> Result<(), Failure> {
    let keys = Keys::of(&host.matrix()?, Some(&host.key));
    let is_late = !waits_for.is_empty() && (did.is_empty() || arguments.wait);
    let file = host.config.display().to_string();
    let (node, key) = (host.node.clone(), host.key.clone());
    let outcome = Outcome { node, key, did, next, waits_for, file, keys };
    match arguments.asking.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &outcome)?,
        Form::Table => output::text(&outcome.screen(output::colour()))?,
    }
    if is_late && !arguments.dry_run { Err(Failure::said(Exit::Failed)) } else { Ok(()) }
}

impl Step {
    fn next(own: &[String], new: &str) -> Self {
        match own {
            [only] if only == new => Self::Done,
            [first, ..] if first == new => Self::Enforce,
            all if all.iter().any(|key| key == new) => Self::Sign,
            _ => Self::Accept,
        }
    }

    /// What it says of a host that has done it.
    fn done(self, node: &str, key: &str) -> String {
        match self {
            Self::Accept => {
                format!("step 1 of 3 is done: {node} accepts {key}, and signs with the old key")
            }
            Self::Sign => {
                format!("step 2 of 3 is done: {node} signs with {key}, and accepts the old key")
            }
            Self::Enforce => format!("step 3 of 3 is done: {node} accepts {key} alone"),
            Self::Done => String::new(),
        }
    }

    /// Which nodes must come further before a host may do it, and what they lack.
    fn waits_for(self, nodes: &[Has], new: &str) -> Vec<String> {
        let lack = |node: &Has| {
            if self == Self::Accept || self == Self::Done {
                // Who accepts one key more refuses nothing.
                return None;
            }
            let name = &node.node;
            if let Some(why) = &node.unknown {
                return Some(format!(
                    "the keys of {name} are not known ({why}): bring it back, or go on --without {name}"
                ));
            }
            if !node.accepts.iter().any(|key| key == new) {
                let has = node.accepts.join(", ");
                return Some(format!(
                    "{name} does not accept {new} (it has {has}): copy the very same file there and run the same command"
                ));
            }
            let old = node.signs_with.as_deref().filter(|key| *key != new)?;
            (self == Self::Enforce).then(|| {
                format!("{name} signs with {old}, the old key: run the same command there")
            })
        };
        nodes.iter().filter_map(lack).collect()
    }
}

impl Outcome {
    fn screen(&self, colour: bool) -> String {
        let mut text = self.keys.table(colour);
        let mut say = |line: String| text.push_str(&format!("{line}\n"));
        say(String::new());
        self.did.iter().for_each(|step| say(step.done(&self.node, &self.key)));
        self.waits_for.iter().for_each(|line| say(format!("next waits: {line}")));
        match (self.next, self.waits_for.is_empty()) {
            (Step::Done, _) => {
                let node = &self.node;
                say(format!(
                    "{node} has the new key alone: its old key file is in no use any more, delete it"
                ));
            }
            (Step::Accept, true) => {
                say("next: run this to accept the new key beside the old one".into())
            }
            (Step::Sign, true) => say("next: run the same again to sign with the new key".into()),
            (Step::Enforce, true) => say("next: run the same again to refuse the old key".into()),
            (Step::Accept | Step::Sign | Step::Enforce, false) => {}
        }
        text
    }
}

/// This host: its agent, the file that the agent reads, and the new key.
struct Host {
    client: Client,
    node: String,
    config: PathBuf,
    new: PathBuf,
    key: String,
}

impl Host {
    fn of(arguments: &Arguments) -> Result<Self, Failure> {
        let new = std::path::absolute(&arguments.new).map_err(Failure::failed)?;
        let key = id_of(&new)?;
        let client = arguments.asking.client()?;
        let reply = client.config()?;
        let config = PathBuf::from(&reply.base.path);
        if !config.is_absolute() {
            let path = config.display();
            return Err(Failure::failed(format!(
                "the agent was started with --config {path}, so this command cannot tell which file that is: start it \
                 with a path from the root"
            )));
        }
        // The file itself, where the path is a link to it.
        let config = config.canonicalize().map_err(|error| cannot("read", &config, &error))?;
        Ok(Self { client, node: reply.node, config, new, key })
    }

    fn row(&self) -> Result<MatrixRow, Failure> {
        Ok(self.client.matrix_row(&self.node)?)
    }

    /// What all say: the others a moment ago, this host now.
    fn matrix(&self) -> Result<MatrixReply, Failure> {
        let mut reply = self.client.matrix()?;
        let own = self.row()?;
        reply.rows.iter_mut().filter(|row| row.node == own.node).for_each(|row| *row = own.clone());
        Ok(reply)
    }

    /// What a step waits for, in the end.
    fn wait(
        &self,
        arguments: &Arguments,
        step: Step,
        deadline: Instant,
    ) -> Result<Vec<String>, Failure> {
        let progress = Progress::start("the other nodes are asked for their keys");
        loop {
            let reply = self.matrix()?;
            let mut nodes = Keys::of(&reply, None).nodes;
            if let Some(unknown) =
                arguments.without.iter().find(|name| nodes.iter().all(|node| node.node != **name))
            {
                let names = nodes.iter().map(|node| node.node.as_str()).collect::<Vec<_>>();
                let names = names.join(", ");
                return Err(Failure::failed(format!(
                    "there is no node {unknown}; there are {names}"
                )));
            }
            nodes.retain(|node| node.node != self.node && !arguments.without.contains(&node.node));
            let lacks = step.waits_for(&nodes, &self.key);
            let Some(first) = lacks.first() else { return Ok(lacks) };
            if !arguments.wait || arguments.dry_run || deadline < Instant::now() {
                return Ok(lacks);
            }
            progress.say(first.clone());
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Who signs with another key has another hash over flows, and services of mode `xdp` have no other memory.
    fn may_break(&self, arguments: &Arguments, step: Step) -> Result<(), Failure> {
        if step != Step::Sign || arguments.yes {
            return Ok(());
        }
        let status = self.client.status()?;
        let services = status.vips.iter().flat_map(|vip| &vip.services);
        let count = services.filter(|service| service.mode == "xdp").count();
        if count == 0 {
            return Ok(());
        }
        Err(Failure::forbidden(format!(
            "{count} services here are of mode xdp, and most of their connections break when the new key begins to sign: \
             choose the hour, and say --yes"
        )))
    }

    /// Does the step: in the file, and in force.
    fn go(&self, step: Step, own: &[String]) -> Result<(), Failure> {
        let text = buoy_config::read_text(&self.config)
            .map_err(|report| Failure { exit: Exit::Config, message: report.to_string() })?;
        let files = self.files_in_force(&text, own)?;
        let new = || (self.written(), self.key.clone());
        let after: Vec<(String, String)> = match step {
            Step::Accept => files.into_iter().chain([new()]).collect(),
            Step::Sign => {
                let (first, rest): (Vec<_>, Vec<_>) =
                    files.into_iter().partition(|(_, key)| *key == self.key);
                first.into_iter().chain(rest).collect()
            }
            Step::Enforce | Step::Done => {
                files.into_iter().filter(|(_, key)| *key == self.key).collect()
            }
        };
        let (paths, keys): (Vec<String>, Vec<String>) = after.into_iter().unzip();
        let changed = secret::with_files(&text, &paths)
            .ok_or_else(|| Failure::failed(self.by_hand("has no `secret` that can be changed")))?;
        write(&self.config, &changed)?;
        let refused = match self.client.reload() {
            Err(error) => Failure::from(error),
            Ok(_) if self.row()?.keys == keys => return Ok(()),
            Ok(_) => {
                Failure::failed(self.by_hand("was changed, and the agent does not have its keys"))
            }
        };
        // The file said what runs, and does so again.
        write(&self.config, &text)?;
        Err(refused)
    }

    /// The key files with the ids of their keys: those that the agent has in force, or it is not this command's business.
    fn files_in_force(&self, text: &str, own: &[String]) -> Result<Vec<(String, String)>, Failure> {
        let paths = secret::files(text)
            .ok_or_else(|| Failure::failed(self.by_hand("has no `secret` of key files")))?;
        let with_key =
            |path: String| Ok((path.clone(), id_of(&secret::resolve(&self.config, &path))?));
        let files = paths.into_iter().map(with_key).collect::<Result<Vec<_>, Failure>>()?;
        let is_same = files.iter().map(|(_, key)| key).eq(own);
        let other = self.client.rehearse_reload()?.changes;
        if is_same && other.is_empty() {
            return Ok(files);
        }
        let other = if is_same { other.join("; ") } else { "its keys".into() };
        Err(Failure::failed(format!(
            "{} has changes that are not in force ({other}): `buoy reload` them first, so that this changes the key alone",
            self.config.display()
        )))
    }

    /// The new file as `secret` names it: short where it is beside the configuration.
    fn written(&self) -> String {
        let folder = self.config.parent().unwrap_or(Path::new("/"));
        let path = self.new.strip_prefix(folder).unwrap_or(&self.new);
        path.to_string_lossy().into_owned()
    }

    fn by_hand(&self, what: &str) -> String {
        let path = self.config.display();
        format!(
            "{path} {what}: change the key by hand, docs/configuration.md says how (\"Changing the key\")"
        )
    }
}

/// The id of the key in a file.
pub(super) fn id_of(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            let path = path.display();
            return Failure::failed(format!(
                "{path} is not there: make it with `buoy key new {path}` on one host and copy it to all others"
            ));
        }
        cannot("read", path, &error)
    })?;
    let key = buoy_config::key::parse(&text)
        .map_err(|error| Failure::failed(format!("{} is no key file: {error}", path.display())))?;
    Ok(format!("{:08x}", key.id()))
}

/// Puts a text in place of a file at once, for whoever reads it at any moment; owner and mode stay.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = path.with_extension("toml.rotating");
    let written = || {
        let known = fs::metadata(path)?;
        let mut file = File::create(&beside)?;
        file.set_permissions(Permissions::from_mode(known.mode() & 0o7777))?;
        chown(&beside, Some(known.uid()), Some(known.gid()))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(|error| {
        // The file is our own; if it cannot even be removed, the first error counts.
        drop(fs::remove_file(&beside));
        cannot("write", path, &error)
    })
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Failure::failed(format!("this user cannot {what} {path}: use sudo"));
    }
    Failure::failed(format!("cannot {what} {path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, keys: &[&str]) -> Has {
        let accepts: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let unknown = keys.is_empty().then(|| "no answer".to_owned());
        let signs_with = accepts.first().cloned();
        Has { node: name.into(), signs_with, accepts, step: None, unknown }
    }

    #[test]
    fn a_host_has_three_steps_and_none_twice() {
        let next = |keys: &[&str]| Step::next(&node("n1", keys).accepts, "new");
        assert_eq!(next(&["old"]), Step::Accept);
        assert_eq!(next(&["old", "new"]), Step::Sign);
        assert_eq!(next(&["old", "older", "new"]), Step::Sign);
        assert_eq!(next(&["new", "old"]), Step::Enforce);
        assert_eq!(next(&["new"]), Step::Done);
    }

    #[test]
    fn in_every_order_of_steps_each_accepts_what_each_signs() {
        // Every state of three hosts that can be reached by steps that wait for nothing, in whatever order.
        let rings: [&[&str]; 4] = [&["old"], &["old", "new"], &["new", "old"], &["new"]];
        let mut reached = vec![[0_usize; 3]];
        let mut seen = 0;
        while let Some(state) = reached.get(seen).copied() {
            seen += 1;
            let names = ["n1", "n2", "n3"];
            let nodes: Vec<Has> =
                state.iter().zip(names).map(|(at, name)| node(name, rings[*at])).collect();
            for from in &nodes {
                let signs = from.signs_with.as_ref().unwrap();
                assert!(nodes.iter().all(|to| to.accepts.contains(signs)), "{state:?}");
            }
            for host in 0..3 {
                let others: Vec<Has> = (0..3)
                    .filter(|other| *other != host)
                    .map(|other| node(names[other], rings[state[other]]))
                    .collect();
                let step = Step::next(&nodes[host].accepts, "new");
                if step == Step::Done || !step.waits_for(&others, "new").is_empty() {
                    continue;
                }
                let mut after = state;
                after[host] += 1;
                if !reached.contains(&after) {
                    reached.push(after);
                }
            }
        }
        assert!(reached.contains(&[3, 3, 3]), "and the end is reached: {reached:?}");
    }

    #[test]
    fn what_a_step_waits_for_is_named_with_what_to_do() {
        let says = |step: Step, keys: &[&str]| step.waits_for(&[node("n2", keys)], "new").join("");
        assert_eq!(says(Step::Accept, &[]), "", "one key more refuses nothing");
        assert!(says(Step::Sign, &["old", "another"]).contains("it has old, another"));
        assert!(
            says(Step::Sign, &[]).contains("(no answer): bring it back, or go on --without n2")
        );
        assert!(says(Step::Enforce, &["old", "new"]).contains("n2 signs with old"));
        assert_eq!(says(Step::Enforce, &["new"]), "");
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buoy.toml");
        fs::write(&path, "a").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write(&path, "b").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "b");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

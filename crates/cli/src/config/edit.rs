//! `buoy config show`, `diff`, `apply`, `history` and `rollback`: edits over the file, on any node for all of them.
//!
//! What is applied is what was shown: the edit says on which revision it was looked at, and is refused when
//! somebody else has changed the same meanwhile.

use crate::AgentSocket;
use crate::consent;
use crate::events::moment;
use crate::failure::{Exit, Failure};
use crate::output::{self, Form};
use crate::progress::Progress;
use buoy_api::{
    ConfigRequest, EditReply, HistoryReply, Origin, RollbackRequest, ValueView, ValuesReply,
};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// What is waited for before an edit is shown, and after it is meant.
pub(crate) const CHECKED: &str = "the agent checks what would hold";
pub(crate) const AGREED: &str = "the nodes agree on the edit, and this one puts it into force";
/// Characters of a value that are shown.
const VALUE_WIDTH: usize = 48;
/// Bytes of a text that the agent takes.
const TEXT_MAX: u64 = buoy_api::BODY_MAX as u64;

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Say of each value where it comes from: a line of the file, or who edited it and when
    #[arg(long)]
    origin: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct DiffArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// A whole configuration, as `buoy config show` prints it; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct ApplyArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// A whole configuration, as `buoy config show` prints it; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The revision that the text was made from: what others have changed since is not undone
    #[arg(long, value_name = "REVISION")]
    on: Option<u64>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(clap::Args, Debug)]
pub(crate) struct HistoryArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// With what each edit changed
    #[arg(long)]
    diff: bool,
    /// The latest so many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20)]
    count: usize,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RollbackArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// As `buoy config history` numbers them; 0 is before the first edit
    #[arg(value_name = "REVISION")]
    revision: u64,
    #[command(flatten)]
    consent: Consent,
}

/// Whether an edit is meant once it was seen, why, and how the answer looks.
#[derive(clap::Args, Debug)]
pub(crate) struct Consent {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// For the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn show(arguments: &ShowArguments) -> Result<(), Failure> {
    let client = arguments.agent.client()?;
    if arguments.origin {
        let reply = client.config_values()?;
        return match arguments.output {
            Form::Table => output::text(&origins(&reply)),
            form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
        };
    }
    let reply = client.config()?;
    match arguments.output {
        Form::Table => output::text(&reply.text),
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
    }
}

/// A line for each value.
fn origins(reply: &ValuesReply) -> String {
    let shortened = |value: &str| match value.char_indices().nth(VALUE_WIDTH - 1) {
        Some((at, _)) if value.chars().count() > VALUE_WIDTH => format!("{}\u{2026}", &value[..at]),
        Some(_) | None => value.to_owned(),
    };
    let values: Vec<String> = reply.values.iter().map(|v| shortened(&v.value)).collect();
    let width = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or(0);
    let path = width(&mut reply.values.iter().map(|view| view.path.chars().count()));
    let value = width(&mut values.iter().map(|value| value.chars().count()));
    let line = |(view, shown): (&ValueView, &String)| {
        let origin = match &view.origin {
            Origin::File { line } => format!("{}:{line}", reply.path),
            Origin::Api { user, at_ms, revision, hidden } => {
                let removed = if *hidden { "removed by " } else { "" };
                format!("{removed}revision {revision}, {user}, {} UTC", moment(*at_ms))
            }
        };
        format!("{:path$}  {shown:value$}  {origin}\n", view.path)
    };
    reply.values.iter().zip(&values).map(line).collect()
}

pub(crate) fn diff(arguments: &DiffArguments) -> Result<(), Failure> {
    let text = read(&arguments.file)?;
    let reply = arguments.agent.client()?.config_diff(&ConfigRequest { text, reason: None })?;
    match arguments.output {
        Form::Table => output::text(&shown(&reply))?,
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply)?,
    }
    if reply.valid { Ok(()) } else { Err(Failure::said(Exit::Config)) }
}

pub(crate) fn apply(arguments: ApplyArguments) -> Result<(), Failure> {
    let ApplyArguments { agent, file, on, consent } = arguments;
    let client = agent.client()?;
    let request = ConfigRequest { text: read(&file)?, reason: consent.reason.clone() };
    let tried = during(CHECKED, || client.config_diff(&request))?;
    if consent.is_to_be_done(&tried, file == Path::new("-"))? {
        let seen = on.unwrap_or(tried.revision);
        let reply = during(AGREED, || client.config_apply(&request, seen))?;
        consent.say(&reply)?;
    }
    Ok(())
}

pub(crate) fn rollback(arguments: RollbackArguments) -> Result<(), Failure> {
    let RollbackArguments { agent, revision, consent } = arguments;
    let client = agent.client()?;
    let request = RollbackRequest { revision, reason: consent.reason.clone() };
    let tried = during(CHECKED, || client.config_rollback(&request, None))?;
    if consent.is_to_be_done(&tried, false)? {
        let reply = during(AGREED, || client.config_rollback(&request, Some(tried.revision)))?;
        consent.say(&reply)?;
    }
    Ok(())
}

/// Asks with a word about what is waited for.
pub(crate) fn during<T>(what: &str, ask: impl FnOnce() -> T) -> T {
    let _progress = Progress::start(what);
    ask()
}

impl Consent {
    /// Why, in the words of who asks.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Shows what would be, and asks whether it is meant.
    pub(crate) fn is_to_be_done(&self, tried: &EditReply, is_read: bool) -> Result<bool, Failure> {
        let is_table = self.output == Form::Table;
        if is_table {
            output::text(&shown(tried))?;
        }
        if !tried.valid {
            if !is_table {
                output::value(self.output, tried)?;
            }
            return Err(Failure::said(Exit::Config));
        }
        if tried.diff.is_empty() {
            if !is_table {
                output::value(self.output, tried)?;
            }
            return Ok(false);
        }
        if self.yes {
            return Ok(true);
        }
        if is_read || !consent::can_be_asked(self.output) {
            let why = "this changes what all nodes serve, and nobody can be asked here: say --yes";
            return Err(Failure::forbidden(why));
        }
        consent::asked("Apply this on all nodes?")
    }

    /// Says what was taken.
    pub(crate) fn say(&self, reply: &EditReply) -> Result<(), Failure> {
        match self.output {
            Form::Table => {
                output::text(&format!("revision {} is taken\n", reply.revision))?;
            }
            form @ (Form::Json | Form::Yaml) => output::value(form, reply)?,
        }
        match &reply.refused_here {
            None => Ok(()),
            Some(why) => Err(Failure {
                exit: Exit::Config,
                message: format!("it is not in force on {}:\n{why}", reply.node),
            }),
        }
    }
}

/// What would be different, and what is wrong with it.
fn shown(reply: &EditReply) -> String {
    let mut text = String::new();
    for line in &reply.diff {
        text.push_str(&format!("{line}\n"));
    }
    for change in &reply.changes {
        text.push_str(&format!("=> {change}\n"));
    }
    for problem in &reply.problems {
        let place = match problem.span.line {
            0 => String::new(),
            line => format!("{line}:{}: ", problem.span.column),
        };
        text.push_str(&format!(
            "{}[{}]: {place}{}; {}\n",
            problem.severity, problem.code, problem.message, problem.fix
        ));
    }
    if reply.diff.is_empty() && reply.problems.is_empty() {
        text.push_str(&format!("nothing is different from revision {}\n", reply.revision));
    }
    text
}

pub(crate) fn history(arguments: &HistoryArguments) -> Result<(), Failure> {
    let mut reply = arguments.agent.client()?.config_history()?;
    let surplus = reply.revisions.len().saturating_sub(arguments.count);
    reply.revisions.drain(..surplus);
    match arguments.output {
        Form::Table => output::text(&told(&reply, arguments.diff)),
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
    }
}

fn told(reply: &HistoryReply, with_diff: bool) -> String {
    if reply.revisions.is_empty() {
        return "nothing was edited: there is only the file\n".into();
    }
    let mut text = String::new();
    for revision in &reply.revisions {
        let why = match revision.reason.as_str() {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        text.push_str(&format!(
            "{}  {} UTC  {} on {}  {}{why}\n",
            revision.revision,
            moment(revision.at_ms),
            revision.user,
            revision.node,
            revision.entries.join(", "),
        ));
        for line in revision.diff.iter().filter(|_| with_diff) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    text
}

/// A text of at most what the agent takes.
fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().take(TEXT_MAX + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|f| f.take(TEXT_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))?;
    if text.len() as u64 > TEXT_MAX {
        let most = TEXT_MAX >> 20;
        return Err(Failure::failed(format!("{} is larger than {most} MiB", file.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::{ConfigProblem, RevisionView};

    #[test]
    fn every_value_says_where_it_comes_from() {
        let view = |path: &str, value: &str, origin| ValueView {
            path: path.into(),
            value: value.into(),
            origin,
        };
        let api = |hidden| Origin::Api { user: "ann".into(), at_ms: 0, revision: 3, hidden };
        let reply = ValuesReply {
            path: "/etc/buoy/buoy.toml".into(),
            values: vec![
                view("peers", "\"10.0.0.11\"", Origin::File { line: 1 }),
                view("vip/web.failback", "\"10s\"", api(false)),
                view("vip/web.group", "\"shop\"", api(true)),
            ],
            ..ValuesReply::default()
        };
        let expected = "peers             \"10.0.0.11\"  /etc/buoy/buoy.toml:1\n\
                        vip/web.failback  \"10s\"        revision 3, ann, 1970-01-01 00:00:00.000 UTC\n\
                        vip/web.group     \"shop\"       removed by revision 3, ann, 1970-01-01 00:00:00.000 UTC\n";
        assert_eq!(origins(&reply), expected);
        let long = ValuesReply { values: vec![view("a", &"x".repeat(60), api(false))], ..reply };
        let told = origins(&long);
        assert!(told.contains(&format!("  {}\u{2026}  ", "x".repeat(VALUE_WIDTH - 1))), "{told}");
    }

    #[test]
    fn what_would_be_is_shown_with_what_is_wrong() {
        let problem = ConfigProblem {
            code: "V0402".into(),
            severity: "error".into(),
            message: "no".into(),
            fix: "do".into(),
            ..ConfigProblem::default()
        };
        let reply = EditReply {
            diff: vec!["vip/web".into(), "- a".into()],
            changes: vec!["vip web is gone".into()],
            problems: vec![problem],
            ..EditReply::default()
        };
        assert_eq!(shown(&reply), "vip/web\n- a\n=> vip web is gone\nerror[V0402]: no; do\n");
        let same = EditReply { revision: 4, ..EditReply::default() };
        assert_eq!(shown(&same), "nothing is different from revision 4\n");
    }

    #[test]
    fn a_history_says_who_and_why() {
        let revision = RevisionView {
            revision: 2,
            user: "ann".into(),
            node: "n1".into(),
            reason: "more".into(),
            entries: vec!["vip/web".into()],
            diff: vec!["+ a".into()],
            ..RevisionView::default()
        };
        let reply = HistoryReply { revisions: vec![revision], ..HistoryReply::default() };
        let line = "2  1970-01-01 00:00:00.000 UTC  ann on n1  vip/web: more\n";
        assert_eq!(told(&reply, false), line);
        assert_eq!(told(&reply, true), format!("{line}    + a\n"));
        assert!(told(&HistoryReply::default(), false).contains("only the file"));
    }
}

//! `buoy reload`: makes the agent read its file again and apply the difference.

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output::{self, Form};
use buoy_api::ReloadReply;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let reply = arguments.agent.client()?.reload()?;
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &reply),
        Form::Table => output::text(&summary(&reply)),
    }
}

fn summary(reply: &ReloadReply) -> String {
    let mut text = String::new();
    for warning in &reply.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    for change in &reply.changes {
        text.push_str(&format!("{change}\n"));
    }
    let changed = if reply.changes.is_empty() { ", nothing changed" } else { "" };
    text.push_str(&format!("generation {} is in force{changed}\n", reply.generation));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_what_it_changed() {
        let mut reply = ReloadReply {
            generation: 3,
            warnings: vec!["old key".into()],
            ..ReloadReply::default()
        };
        assert_eq!(
            summary(&reply),
            "warning: old key\ngeneration 3 is in force, nothing changed\n"
        );
        reply.changes.push("vip web is new".into());
        assert_eq!(summary(&reply), "warning: old key\nvip web is new\ngeneration 3 is in force\n");
    }
}

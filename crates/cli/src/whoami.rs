//! `buoy whoami`: who the agent takes the user for, and what he may do.

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output::{self, Form};
use buoy_api::MeReply;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let me = arguments.agent.client()?.me()?;
    match arguments.output {
        form @ (Form::Json | Form::Yaml) => output::value(form, &me),
        Form::Table => output::text(&screen(&me)),
    }
}

fn screen(me: &MeReply) -> String {
    let MeReply { node, name, by, role, .. } = me;
    let by = match by.as_str() {
        "kernel" => "by the word of the kernel",
        "token" => "by a token",
        "certificate" => "by a certificate",
        _ => "by what its agent says",
    };
    let may: String = me.may.iter().map(|what| format!("  {what}\n")).collect();
    format!("{name} on {node}, {by}, with the role {role}, may\n{may}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_told_who_he_is_and_what_he_may() {
        let me = MeReply {
            node: "lb1".into(),
            name: "ann".into(),
            by: "kernel".into(),
            role: "read".into(),
            may: vec!["ask".into()],
            ..MeReply::default()
        };
        let said = "ann on lb1, by the word of the kernel, with the role read, may\n  ask\n";
        assert_eq!(screen(&me), said);
    }
}

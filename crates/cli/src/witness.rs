//! `buoy witness`: runs this host as a witness, which votes and never owns.
//!
//! The agent is the same; this command refuses to run on a host that the file does not make a
//! witness, so that a third host meant to vote cannot end up with an address.

use crate::agent;
use crate::failure::{Exit, Failure};
use crate::output;
use buoy_model::Desired;
use std::path::Path;

pub(crate) fn run(arguments: agent::Arguments) -> Result<(), Failure> {
    let checked = buoy_agent::load(&arguments.config).map_err(|error| {
        let report = error.render(output::width(), output::error_colour());
        Failure { exit: Exit::Config, message: format!("the configuration is refused\n{report}") }
    })?;
    if let Some(message) = refusal(&checked.desired, &arguments.config) {
        return Err(Failure { exit: Exit::Config, message });
    }
    agent::run(arguments)
}

/// Why this host is not to run as a witness; `None`: it is.
fn refusal(desired: &Desired, file: &Path) -> Option<String> {
    let me = desired.node(desired.me)?;
    if me.witness {
        return None;
    }
    let witnesses: Vec<&str> =
        desired.nodes.iter().filter(|n| n.witness).map(|n| n.name.as_str()).collect();
    let there_are = match witnesses.as_slice() {
        [] => "the file has no witness".to_owned(),
        some => format!("the file's witness is {}", some.join(", ")),
    };
    Some(format!(
        "this host is {name}, and {file} does not make it a witness ({there_are}): move it from \
         `peers` to `witness = {{ {name} = \"{address}\" }}`, or run `buoy agent`",
        name = me.name,
        file = file.display(),
        address = me.address().ip(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{Node, NodeId};

    #[test]
    fn only_a_host_that_the_file_makes_a_witness_runs_as_one() {
        let node = |name: &str, last: u8| Node::new(name, ([10, 0, 0, last], 4747).into());
        let mut desired =
            Desired::new("buoy", NodeId::of("w1"), vec![node("lb1", 11), node("w1", 13)], vec![]);
        desired.nodes.sort_by_key(|n| n.id);
        let file = Path::new("buoy.toml");
        let said = refusal(&desired, file).expect("it is none");
        assert!(said.contains("`witness = { w1 = \"10.0.0.13\" }`"), "{said}");
        assert!(said.contains("buoy.toml does not make it a witness (the file has no"), "{said}");
        for node in &mut desired.nodes {
            node.witness = node.name == "w1";
        }
        assert_eq!(refusal(&desired, file), None);
        desired.me = NodeId::of("lb1");
        let said = refusal(&desired, file).expect("another one is");
        assert!(said.contains("the file's witness is w1"), "{said}");
    }
}

//! `buoy node`: the members of the cluster, and what one of them is to do with VIPs.

mod leave;

use crate::failure::Failure;
use crate::listing::Listing;
use crate::status::{self, span};
use crate::table::{Align, Table, Tone};
use crate::{Asking, drain, output};
use buoy_api::{DrainReply, HeardView, MatrixReply, NodePatch, NodesReply};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// One line for each node, as this one hears it
    Ls(Listing),
    /// Who hears whom, by the word of each node: this one asks the others
    Matrix(Asking),
    /// Keep what the node owns, and let it take nothing that another node can take
    Cordon(CordonArguments),
    /// Let it take VIPs like any other node again
    Uncordon(UncordonArguments),
    /// Take a node out of service: its VIPs move to the others (as `buoy drain`)
    Drain(drain::DrainArguments),
    /// Have a node give everything away for good, and say what makes it no member any more
    Leave(leave::Arguments),
    /// Put a node back into service (as `buoy undrain`)
    Undrain(drain::UndrainArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct CordonArguments {
    #[command(flatten)]
    which: Which,
    /// For the record and for `buoy why`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct UncordonArguments {
    #[command(flatten)]
    which: Which,
    /// For the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Which node, and how the answer looks.
#[derive(clap::Args, Debug)]
struct Which {
    #[command(flatten)]
    asking: Asking,
    /// Its name; without it: this node
    node: Option<String>,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(listing) => {
            let table = |reply: &NodesReply| status::nodes(&reply.nodes).render(output::colour());
            // Whoever looks again and again is not to wait for a node that is dead.
            let matrix = match listing.is_watch() {
                true => None,
                false => listing.client()?.matrix().ok(),
            };
            let told = |mut reply: NodesReply| {
                mark(&mut reply, matrix.as_ref());
                reply
            };
            listing.show("/v1/nodes", told, table)
        }
        Command::Matrix(asking) => {
            let reply = asking.client()?.matrix()?;
            asking.show(&reply, |reply| matrix(reply, output::colour()))
        }
        Command::Leave(arguments) => leave::run(&arguments),
        Command::Drain(arguments) => drain::drain(arguments),
        Command::Undrain(arguments) => drain::undrain(arguments),
        Command::Cordon(CordonArguments { which, reason }) => {
            let patch = NodePatch { cordon: Some(true), reason, ..NodePatch::default() };
            order(&which, &patch)
        }
        Command::Uncordon(UncordonArguments { which, reason }) => {
            order(&which, &NodePatch { cordon: Some(false), reason, ..NodePatch::default() })
        }
    }
}

/// Whether another node is cordoned is known to itself alone: by its own word.
fn mark(reply: &mut NodesReply, matrix: Option<&MatrixReply>) {
    for row in matrix.iter().flat_map(|matrix| &matrix.rows).filter(|row| row.cordoned.is_some()) {
        let member = reply.nodes.iter_mut().find(|node| node.name == row.node && node.alive);
        let Some(member) = member.filter(|member| !member.cordoned) else { continue };
        member.cordoned = true;
        if !member.draining {
            member.state = "cordoned".into();
        }
    }
}

/// A line for each that hears and each that is heard, and why a node has none.
fn matrix(reply: &MatrixReply, colour: bool) -> String {
    let mut table = Table::new([
        ("NODE", Align::Left),
        ("OF", Align::Left),
        ("HEARS", Align::Left),
        ("ROUND TRIP", Align::Right),
        ("LOSS", Align::Right),
        ("HEARD", Align::Right),
    ]);
    for row in &reply.rows {
        for heard in &row.hears {
            let (tone, cells) = line(reply, &row.node, heard);
            table.row(tone, cells);
        }
    }
    let mut text = table.render(colour);
    for row in &reply.rows {
        if let Some(why) = &row.unknown {
            text.push_str(&format!("\nwhat {} hears is not known: {why}\n", row.node));
        }
    }
    text
}

fn line(reply: &MatrixReply, node: &str, heard: &HeardView) -> (Tone, [String; 6]) {
    let other = reply.rows.iter().find(|row| row.node == heard.node);
    let back = other.and_then(|row| row.hears.iter().find(|back| back.node == node));
    let hears_back = back.map_or(heard.answers, |back| back.alive);
    let (tone, hears) = match (heard.alive, hears_back) {
        (true, true) => (Tone::Plain, "both ways"),
        (true, false) => (Tone::Wrong, "one way"),
        (false, _) => (Tone::Wrong, "no"),
    };
    let cells = [
        node.to_owned(),
        heard.node.clone(),
        hears.to_owned(),
        heard.round_trip_ms.filter(|_| heard.alive).map_or_else(String::new, span),
        heard.loss_percent.map_or_else(String::new, |loss| format!("{loss:.0} %")),
        heard.heard_ms.map_or_else(|| "never".into(), |ms| format!("{} ago", span(ms))),
    ];
    (tone, cells)
}

fn order(which: &Which, patch: &NodePatch) -> Result<(), Failure> {
    let client = which.asking.client()?;
    let node = match &which.node {
        Some(node) => node.clone(),
        None => client.nodes()?.node,
    };
    let reply = client.patch_node(&node, patch)?;
    which.asking.show(&reply, |reply| format!("{}\n", said(reply, which.node.as_deref())))
}

/// What holds now, for people; `asked`: the node that the command named.
fn said(reply: &DrainReply, asked: Option<&str>) -> String {
    let DrainReply { node, owned, .. } = reply;
    let Some(reason) = &reply.cordoned else {
        return format!("{node} takes VIPs like any other node again");
    };
    let keeps = match owned {
        0 => "it owns no VIP".to_owned(),
        1 => "it keeps its VIP".to_owned(),
        n => format!("it keeps its {n} VIPs"),
    };
    let command = format!("buoy node uncordon {}", asked.unwrap_or_default());
    let command = command.trim_end();
    format!(
        "{node} is cordoned: {reason}; {keeps}, and takes another only if no other node can\n\
         `{command}` ends it, and so does a restart of its agent"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::MatrixRow;

    #[test]
    fn a_path_that_works_one_way_only_is_said_and_so_is_a_row_that_is_not_known() {
        let heard = |node: &str, alive, answers| HeardView {
            node: node.into(),
            alive,
            answers,
            heard_ms: alive.then_some(4.0),
            round_trip_ms: Some(0.2),
            loss_percent: Some(if answers { 0.0 } else { 100.0 }),
        };
        let row =
            |node: &str, hears| MatrixRow { node: node.into(), hears, ..MatrixRow::default() };
        let rows = vec![
            row("lb1", vec![heard("lb2", true, true), heard("lb3", true, true)]),
            row("lb2", vec![heard("lb1", false, false), heard("lb3", false, false)]),
            MatrixRow::unknown("lb3", "no answer within 1 s"),
        ];
        let expected = "\
NODE  OF   HEARS      ROUND TRIP   LOSS       HEARD
lb1   lb2  one way        0.2 ms    0 %  4.0 ms ago
lb1   lb3  both ways      0.2 ms    0 %  4.0 ms ago
lb2   lb1  no                  -  100 %       never
lb2   lb3  no                  -  100 %       never

what lb3 hears is not known: no answer within 1 s
";
        assert_eq!(matrix(&MatrixReply { node: "lb1".into(), rows }, false), expected);
    }

    #[test]
    fn another_node_that_says_so_itself_is_cordoned_in_the_list() {
        let node = |name: &str, alive| buoy_api::NodeView {
            name: name.into(),
            alive,
            state: "healthy".into(),
            ..buoy_api::NodeView::default()
        };
        let nodes = vec![node("lb1", true), node("lb2", true), node("lb3", false)];
        let mut reply = NodesReply { nodes, ..NodesReply::default() };
        let row = |name: &str, cordoned: Option<&str>| MatrixRow {
            node: name.into(),
            cordoned: cordoned.map(str::to_owned),
            ..MatrixRow::default()
        };
        let rows = vec![row("lb1", None), row("lb2", Some("disk")), row("lb3", Some("disk"))];
        mark(&mut reply, None);
        assert!(reply.nodes.iter().all(|node| !node.cordoned));
        mark(&mut reply, Some(&MatrixReply { node: "lb1".into(), rows }));
        let states: Vec<_> =
            reply.nodes.iter().map(|node| (node.cordoned, node.state.as_str())).collect();
        assert_eq!(states, [(false, "healthy"), (true, "cordoned"), (false, "healthy")]);
    }

    #[test]
    fn a_cordon_says_what_stays_and_what_ends_it() {
        let reply = |owned, reason: Option<&str>| DrainReply {
            node: "lb1".into(),
            owned,
            cordoned: reason.map(str::to_owned),
            ..DrainReply::default()
        };
        let table = [(0, "it owns no VIP"), (1, "it keeps its VIP"), (3, "it keeps its 3 VIPs")];
        for (owned, keeps) in table {
            let text = said(&reply(owned, Some("disk (by ann)")), None);
            assert!(text.contains("\n`buoy node uncordon` ends it"), "{text}");
            let first = text.lines().next().unwrap_or_default();
            let takes = "and takes another only if no other node can";
            assert_eq!(first, format!("lb1 is cordoned: disk (by ann); {keeps}, {takes}"));
        }
        let text = said(&reply(1, Some("disk (by ann)")), Some("lb1"));
        assert!(text.contains("\n`buoy node uncordon lb1` ends it"), "{text}");
        assert_eq!(said(&reply(3, None), None), "lb1 takes VIPs like any other node again");
    }
}

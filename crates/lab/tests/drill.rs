//! Breaking things on purpose from the command line: real in a standing lab, careful on a live cluster.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::{agent, privilege, skip};
use std::path::Path;
use std::process::{Command, Output};
use support::{Cluster, LOCAL, SOON, VIP, cluster};

fn run(program: &Path, words: &[&str]) -> (bool, String) {
    let Output { status, stdout, stderr } = Command::new(program).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (status.success(), said.into_owned())
}

/// `buoy drill` on the agent of a node, as its administrator would.
fn drill(cluster: &Cluster, node: &str, words: &[&str]) -> (bool, String) {
    let socket = cluster.buoy.socket(node);
    let mut all = vec!["drill", "web", "--socket", socket.to_str().unwrap()];
    all.extend(words);
    run(cluster.buoy.program(), &all)
}

#[test]
fn a_drill_on_a_live_cluster_needs_consent_and_breaks_nothing() {
    let test = "a_drill_on_a_live_cluster_needs_consent_and_breaks_nothing";
    let vip = format!("{LOCAL}prefer = [\"n1\"]\nfailback = \"now\"\n");
    let Some(cluster) = cluster(test, 3, &vip) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_at(&observer, "n1");
    for (node, words, complaint) in [
        ("n1", &["--kind", "kill", "--yes"][..], "in the lab only"),
        ("n1", &["--kind", "drain"], "--yes"),
        ("n2", &["--kind", "drain", "--yes"], "n1 owns web"),
    ] {
        let (well, said) = drill(&cluster, node, words);
        assert!(!well && said.contains(complaint), "{words:?} on {node}: {said}");
        assert_eq!(cluster.buoy.owner("n3", "web").as_deref(), Some("n1"), "it moved");
    }

    let (well, said) = drill(&cluster, "n1", &["--kind", "drain", "--yes", "--repeat", "1"]);
    assert!(well && said.contains("1: n1 -> "), "{said}");
    assert!(said.contains(" -> n1"), "it did not come back: {said}");
    let in_service = |status: &buoy_api::ClusterStatus| status.draining.is_none();
    cluster.buoy.wait_status("n1", SOON, "n1 in service", in_service).unwrap();
    cluster.wait_at(&observer, "n1");
}

#[test]
fn a_drill_by_moves_is_run_from_any_node_and_leaves_the_vip_as_free_as_before() {
    let test = "a_drill_by_moves_is_run_from_any_node_and_leaves_the_vip_as_free_as_before";
    let Some(cluster) = cluster(test, 3, &format!("{LOCAL}prefer = [\"n1\"]\n")) else { return };
    let observer = cluster.observer(&[VIP]);
    cluster.wait_at(&observer, "n1");
    let moves =
        |node: &str, words: &[&str]| drill(&cluster, node, &[&["--kind", "move"], words].concat());
    for (words, complaint) in [
        (&[][..], "and back, 3 times; nothing else moves"),
        (&["--to", "n1", "--yes"], "n1 cannot take it from its owner now"),
        (&["--repeat", "0", "--yes"], "from 1 to 20"),
    ] {
        let (well, said) = moves("n3", words);
        assert!(!well && said.contains(complaint), "{words:?}: {said}");
        assert_eq!(cluster.buoy.owner("n3", "web").as_deref(), Some("n1"), "it moved");
    }
    let words = ["--to", "n2", "--repeat", "2", "--reason", "a test", "--yes"];
    let (well, said) = moves("n3", &words);
    assert!(well && said.contains("1: n1 -> n2, seen after "), "{said}");
    assert!(said.contains("4: n2 -> n1, ") && said.contains("(4 takeovers)"), "{said}");
    cluster.wait_at(&observer, "n1");
    let free = |status: &buoy_api::ClusterStatus| status.vips.iter().all(|vip| vip.held.is_none());
    cluster.buoy.wait_status("n1", SOON, "web to be free", free).unwrap();
    // Two of them went by n2: its record has why, and who asked where.
    let events = cluster.buoy.client("n2").unwrap().events(200).unwrap().events;
    let why = |event: &&buoy_api::EventView| event.sentence.contains("drill: a test");
    assert!(events.iter().any(|event| why(&event)), "{events:?}");
    let drills = cluster.buoy.client("n3").unwrap().drills().unwrap().drills;
    assert_eq!((drills.len(), &drills[0].failed, drills[0].takeovers.len()), (1, &None, 4));
}

#[test]
fn a_drill_breaks_a_standing_lab_and_mends_it() {
    let test = "a_drill_breaks_a_standing_lab_and_mends_it";
    if let Some(reason) = privilege::missing() {
        return skip(test, &reason);
    }
    if !buoy_lab::namespace::of_run("lab").is_empty() {
        return skip(test, "somebody's `buoy lab up` stands on this machine");
    }
    let program = match agent::program() {
        Ok(program) => program,
        Err(error) => return skip(test, &error.to_string()),
    };
    let up = run(&program, &["lab", "up"]);
    let drills: Vec<_> = ["drain", "kill", "freeze", "link"]
        .map(|kind| (kind, run(&program, &["drill", "web", "--kind", kind, "--repeat", "1"])))
        .into();
    let unknown = run(&program, &["drill", "nothing"]);
    let down = run(&program, &["lab", "down"]);
    assert!(up.0, "{}", up.1);
    for (kind, (well, said)) in drills {
        assert!(well && said.contains("recorded: 1"), "{kind}: {said}");
    }
    assert!(!unknown.0 && unknown.1.contains("no VIP nothing: there are db, mail, web"));
    assert!(down.0, "{}", down.1);
}

#[test]
fn the_benchmark_runs_and_writes_its_page() {
    let test = "the_benchmark_runs_and_writes_its_page";
    if let Some(reason) = privilege::missing() {
        return skip(test, &reason);
    }
    let program = match agent::program() {
        Ok(program) => program,
        Err(error) => return skip(test, &error.to_string()),
    };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("failover.md");
    let file = page.to_str().unwrap();
    let words =
        ["lab", "bench", "failover", "--repeat", "1", "--only", "planned", "--report", file];
    let (well, said) = run(&program, &words);
    assert!(well, "{said}");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.contains("## planned") && text.contains("| buoy | 1 |"), "{text}\n{said}");
    assert!(page.with_extension("json").is_file());
}

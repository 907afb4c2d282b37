//! What the API of real agents says of itself and of its host.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use support::{LOCAL, cluster};

#[test]
fn an_agent_gives_out_the_support_archive_of_its_host() {
    let test = "an_agent_gives_out_the_support_archive_of_its_host";
    let Some(cluster) = cluster(test, 3, LOCAL) else { return };
    let client = cluster.buoy.client("n1").unwrap();
    let me = client.me().unwrap();
    assert_eq!((me.node.as_str(), me.role.as_str(), me.uid), ("n1", "admin", Some(0)));
    let archive = client.support().unwrap();
    let tar = |arguments: &[&str]| {
        let mut tar = Command::new("tar");
        tar.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = tar.spawn().unwrap();
        let mut into = child.stdin.take().expect("it is piped");
        let bytes = archive.clone();
        let writer = std::thread::spawn(move || into.write_all(&bytes));
        let output = child.wait_with_output().unwrap();
        writer.join().expect("it does not panic").unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let parts = tar(&["-tzf", "-"]);
    for part in ["/version", "/configuration.toml", "/status.json", "/doctor", "/addresses"] {
        assert!(parts.lines().any(|line| line.ends_with(part)), "{part}: {parts}");
    }
    let status = tar(&["-xzOf", "-", "--wildcards", "*/status.json"]);
    assert!(status.contains("\"node\": \"n1\""), "{status}");
    let file = tar(&["-xzOf", "-", "--wildcards", "*/configuration.toml"]);
    assert!(file.contains("address = \"10.77.0.100/24\""), "{file}");
}

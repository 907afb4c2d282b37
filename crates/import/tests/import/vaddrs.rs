//! vaddrs files.

use super::{accepted, has_lines, has_note, notes, options};
use buoy_import::{Options, vaddrs};

#[test]
fn each_line_of_a_vaddrs_file_is_a_vip_on_its_interface() {
    let text = "# VIP interface sub-interface\n10.0.0.100/24 eth0 eth0:1\n\n10.0.0.101 eth1 2 # the second\n2001:db8::100/64 eth0\n";
    let imported = vaddrs(text, "vaddrs", &options());
    let toml = accepted(&imported);
    has_lines(
        &toml,
        &[
            "peers = { \"lb1\" = \"10.0.0.11\", \"lb2\" = \"10.0.0.12\" }",
            "address = \"10.0.0.100/24\"",
            "address = \"10.0.0.101/24\"",
            "address = \"2001:db8::100/64\"",
            "interface = \"eth1\"",
        ],
    );
    assert_eq!(toml.matches("[[vip]]").count(), 3);
    has_note(&imported, 2, "`eth0:1` is not carried");
    has_note(&imported, 4, "/24 is assumed");
    has_note(&imported, 4, "`2` is not carried");
    assert_eq!(imported.notes.len(), 3, "{:?}", notes(&imported));
    assert!(notes(&imported)[0].starts_with("vaddrs:2: "), "{:?}", notes(&imported));
}

#[test]
fn what_is_no_vip_is_named_and_a_file_without_one_gives_nothing() {
    let imported = vaddrs("eth0 10.0.0.1\n10.0.0.1/33 eth0\n", "v", &options());
    assert_eq!(imported.toml, None);
    has_note(&imported, 1, "no address");
    has_note(&imported, 2, "no address");
    assert_eq!(vaddrs("", "v", &options()).toml, None);
}

#[test]
fn an_address_that_is_there_twice_or_cannot_be_a_vip_is_said() {
    let imported = vaddrs("10.0.0.100/24 eth0\n10.0.0.100/24 eth1\n", "v", &options());
    accepted(&imported);
    has_note(&imported, 2, "was there before");
    let network = vaddrs("10.0.0.0/24 eth0\n", "v", &options());
    let said = notes(&network).join("\n");
    assert!(said.contains("output:") && said.contains("cannot be a VIP"), "{said}");
}

#[test]
fn without_peers_made_up_ones_are_written_and_it_is_said() {
    let imported = vaddrs("10.0.0.100/24 eth0\n", "v", &Options::default());
    let toml = accepted(&imported);
    has_lines(&toml, &["peers = [\"192.0.2.11\", \"192.0.2.12\"]"]);
    assert!(notes(&imported)[0].contains("--peers"), "{:?}", notes(&imported));
}

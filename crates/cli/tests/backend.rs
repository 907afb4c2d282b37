//! `buoy backend` as an operator runs it, in a network namespace that goes with the test.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "clippy.toml allows it in tests; it does not see that these functions are in one"
)]

use std::process::{Command, Output};

/// Runs a script whose `buoy` is this one, on a host of its own with eth0; `None` where that is not permitted.
fn on_a_host(test: &str, script: &str) -> Option<Output> {
    let permitted = Command::new("unshare").args(["-n", "true"]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {test}: no network namespace is permitted here");
        return None;
    }
    let host = "ip link set lo up
        ip link add eth0 type veth peer name far
        ip link set eth0 up
        ip link set far up
        ip address add 10.0.0.21/24 dev eth0
        ip address add fd00::21/64 dev eth0 nodad
        buoy() { \"$BUOY\" \"$@\"; }";
    let output = Command::new("unshare")
        .args(["-n", "sh", "-c", &format!("{host}\n{script}")])
        .env("BUOY", env!("CARGO_BIN_EXE_buoy"))
        .env_remove("COLUMNS")
        .output();
    Some(output.unwrap())
}

fn out(output: &Output) -> &str {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.is_empty(), "{error}");
    std::str::from_utf8(&output.stdout).unwrap()
}

#[test]
fn an_operator_prepares_a_real_server_looks_at_it_and_undoes_it() {
    let test = "an_operator_prepares_a_real_server_looks_at_it_and_undoes_it";
    let script = "
        buoy backend add 10.0.0.100 fd00::100
        buoy backend add 10.0.0.100
        buoy backend check
        buoy backend list
        buoy doctor --config ./none --socket ./none.sock
        buoy backend remove 10.0.0.100 10.0.0.99
        buoy backend remove --all
        buoy backend list";
    let Some(output) = on_a_host(test, script) else { return };
    let expected = "  \
  set net/ipv4/conf/all/arp_announce to 2, from 0
  set net/ipv4/conf/all/arp_ignore to 1, from 0
  set net/ipv4/conf/eth0/arp_announce to 2, from 0
  set net/ipv4/conf/eth0/arp_ignore to 1, from 0
  put 10.0.0.100/32 on lo
  put fd00::100/128 on lo
10.0.0.100 is prepared until the next boot: packets come by eth0, as they are (dsr)
fd00::100 is prepared until the next boot: packets come by eth0, as they are (dsr)
this host is prepared already: nothing to do
10.0.0.100 is prepared until the next boot: packets come by eth0, as they are (dsr)
ok    address    10.0.0.100 is on lo
ok    address    fd00::100 is on lo
ok    interface  eth0 is up
ok    rp_filter  eth0 takes packets from wherever clients are
ok    ARP        nobody is answered or asked for the VIP

all is well
VIP         FORWARD  INTERFACE
10.0.0.100  dsr      eth0
fd00::100   dsr      eth0
ok    address    10.0.0.100 is on lo
ok    address    fd00::100 is on lo
ok    interface  eth0 is up
ok    rp_filter  eth0 takes packets from wherever clients are
ok    ARP        nobody is answered or asked for the VIP
ok    agent      none runs and there is no ./none: this host is a real server only

all is well
  take 10.0.0.100/32 off lo
  set net/ipv4/conf/all/arp_announce to 0, from 2
  set net/ipv4/conf/all/arp_ignore to 0, from 1
  set net/ipv4/conf/eth0/arp_announce to 0, from 2
  set net/ipv4/conf/eth0/arp_ignore to 0, from 1
note: this host is not prepared for 10.0.0.99
  take fd00::100/128 off lo
this host is prepared for no VIP: buoy backend add VIP
";
    assert_eq!(out(&output), expected);
}

#[test]
fn what_would_drop_packets_ends_the_check_in_an_exit_code() {
    let test = "what_would_drop_packets_ends_the_check_in_an_exit_code";
    let script = "
        buoy backend check 10.0.0.100 --tunnel > first; echo $?
        buoy backend add 10.0.0.100 > added; echo $?
        buoy backend check > second; echo $?
        ip link set eth0 down
        buoy backend check -o json; echo $?
        buoy doctor --config ./none --socket ./none.sock > doctor; echo $?
        echo 'peers = { lb1 = \"192.0.2.11\" }' > buoy.toml
        buoy doctor --config buoy.toml --socket ./none.sock > node
        buoy backend remove --all > removed";
    let folder = std::env::temp_dir().join(format!("buoy-cli-{}-{test}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let script = format!("cd {}\n{script}", folder.display());
    let Some(output) = on_a_host(test, &script) else { return };
    let (exits, rest) = out(&output).split_at(6);
    assert_eq!(exits, "1\n0\n0\n");
    let (json, exits) = rest.split_at(rest.rfind('}').unwrap() + 1);
    assert_eq!(exits, "\n1\n2\n");
    let reply: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(reply["ok"], false);
    let first = std::fs::read_to_string(folder.join("first")).unwrap();
    for text in [
        "10.0.0.100 is not on lo",
        "nothing decapsulates on eth0",
        "ARP for the VIP is answered on eth0",
    ] {
        assert!(first.contains(text), "{text}: {first}");
    }
    assert!(first.contains("fix: buoy backend add 10.0.0.100 --tunnel"), "{first}");
    // A host that has a configuration is a node as well.
    let node = std::fs::read_to_string(folder.join("node")).unwrap();
    for text in ["configuration", "10.0.0.100 is on lo", "eth0 is down", "agent"] {
        assert!(node.contains(text), "{text}: {node}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_packets_come_in_is_said_in_the_words_of_the_configuration() {
    let test = "what_packets_come_in_is_said_in_the_words_of_the_configuration";
    let script = "
        buoy backend add --tunnel=gue 10.0.0.100 | grep -e decapsulates -e prepared -e note
        buoy backend add 10.0.0.100 --tunnel=ipip,gue:9886 | grep -e decapsulate -e prepared
        buoy backend add --tunnel fd00::100 | grep -e decapsulate -e prepared
        buoy backend list
        buoy backend check 10.0.0.100 --tunnel=gue | grep -e decapsulated -e fix
        buoy backend add 10.0.0.101 --tunnel=gre 2>&1 | head -1
        buoy backend remove --all > /dev/null; buoy backend list";
    let Some(output) = on_a_host(test, script) else { return };
    let expected = "  \
  put an XDP program on eth0 that decapsulates packets for 10.0.0.100 (gue) sent to 10.0.0.21 and fd00::21
note: the outer header takes 28 bytes (IPv4) or 48 (IPv6): give the way from the director an MTU that is larger by \
that, or let this host ask for smaller segments (ip route change default ... advmss 1400); see docs/backend.md
10.0.0.100 is prepared until the next boot: packets come by eth0, tunnelled (gue)
  let the XDP program on eth0 decapsulate packets for 10.0.0.100 (ipip,gue:9886) sent to 10.0.0.21 and fd00::21
10.0.0.100 is prepared until the next boot: packets come by eth0, tunnelled (ipip,gue:9886)
  let the XDP program on eth0 decapsulate packets for 10.0.0.100 (ipip,gue:9886) and fd00::100 sent to 10.0.0.21 and fd00::21
fd00::100 is prepared until the next boot: packets come by eth0, tunnelled (ipip)
VIP         FORWARD                 INTERFACE
10.0.0.100  tunnel (ipip,gue:9886)  eth0
fd00::100   tunnel                  eth0

0 packets were decapsulated on eth0
FAIL  tunnel     packets for 10.0.0.100 (ipip,gue) are not decapsulated on eth0
                 fix: buoy backend add 10.0.0.100 --tunnel=ipip,gue --interface eth0
error: invalid value 'gre' for '--tunnel[=<ENCAPSULATION>]': ipip, gue or gue:PORT, or ipip and one of gue as in ipip,gue
this host is prepared for no VIP: buoy backend add VIP
";
    assert_eq!(out(&output), expected);
}

#[test]
fn nothing_is_done_without_the_right_to_do_it() {
    let test = "nothing_is_done_without_the_right_to_do_it";
    let script = "
        setpriv --reuid 65534 --clear-groups \"$BUOY\" backend add 10.0.0.100; echo $?
        buoy backend list";
    let program = program_for_anybody();
    let Some(output) = on_a_host(test, &format!("BUOY={program}\n{script}")) else { return };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.starts_with("buoy: /run/buoy-backend"), "{error}");
    assert!(error.contains("run it as root"), "{error}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "1\nthis host is prepared for no VIP: buoy backend add VIP\n"
    );
    let _ = std::fs::remove_file(program);
}

/// The program where anybody may run it.
fn program_for_anybody() -> String {
    let path = std::env::temp_dir().join(format!("buoy-cli-{}-program", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_buoy"), &path).unwrap();
    path.to_str().unwrap().to_owned()
}

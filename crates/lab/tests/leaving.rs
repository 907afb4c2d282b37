//! A host that Buoy leaves: `make uninstall` takes away what `make install` put there and what agents made of the kernel.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use nix::sys::signal::{Signal, kill};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};
use support::{Cluster, LEASE, LOCAL, SOON, prepared_on, supervisor};

const PROGRAM: &str = "usr/bin/buoy";
const UNIT: &str = "units/buoy.service";

/// Where files are put for one test, and what has been "built" for it.
struct Place {
    root: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Place {
    /// With this as the program that was built.
    fn of(test: &str, program: &[u8]) -> Self {
        let root = env::temp_dir().join(format!("buoy-{test}-{}", std::process::id()));
        let place = Self { root };
        let built = place.root.join("target/release/buoy");
        fs::create_dir_all(built.parent().unwrap()).unwrap();
        fs::write(&built, program).unwrap();
        fs::set_permissions(&built, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    /// `make` with these words; what is given to it is whole on the command line.
    fn make(&self, words: &[&str]) -> Command {
        let mut make = Command::new("make");
        make.args(["--no-print-directory", "-C", concat!(env!("CARGO_MANIFEST_DIR"), "/../..")])
            .env("CARGO_TARGET_DIR", self.root.join("target"))
            .args(words);
        make
    }

    /// Files below a folder of it, without it.
    fn files(&self, folder: &str) -> Vec<String> {
        let mut left = vec![self.root.join(folder)];
        let mut found = Vec::new();
        while let Some(at) = left.pop() {
            if at.is_dir() {
                left.extend(fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let name = at.strip_prefix(self.root.join(folder)).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found
    }
}

fn told(output: Output) -> (bool, String) {
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// As who makes a package has it: no service and no kernel is touched, and the program is never run.
#[test]
fn what_is_installed_below_a_folder_is_removed_from_there_and_nothing_else() {
    let test = "what_is_installed_below_a_folder_is_removed_from_there_and_nothing_else";
    let place = Place::of(test, b"#!/bin/sh\ntouch \"$(dirname \"$0\")/was-run\"\n");
    let host = place.root.join("host");
    let others = ["etc/buoy/buoy.toml", "units/other.service", "usr/bin/other", "var/lib/buoy/x"];
    for other in others {
        fs::create_dir_all(host.join(other).parent().unwrap()).unwrap();
        fs::write(host.join(other), "of others").unwrap();
    }
    let destination = format!("DESTDIR={}", host.display());
    let run = |what: &str| {
        let mut make = place.make(&[what, &destination, "PREFIX=/usr", "UNITS=/units"]);
        told(make.output().unwrap())
    };
    let (done, said) = run("install");
    assert!(done, "{said}");
    let mut all = [&others[..], &[PROGRAM, UNIT]].concat();
    all.sort_unstable();
    assert_eq!(place.files("host"), all, "{said}");
    let unit = fs::read_to_string(host.join(UNIT)).unwrap();
    assert!(unit.contains("\nExecStart=/usr/bin/buoy agent "), "{unit}");
    assert!(!unit.contains("/usr/local"), "{unit}");
    assert_eq!(fs::metadata(host.join(PROGRAM)).unwrap().permissions().mode() & 0o777, 0o755);

    for _ in 0..2 {
        let (done, said) = run("uninstall");
        assert!(done, "{said}");
        assert_eq!(place.files("host"), others, "{said}");
        for stays in ["etc/buoy", "var/lib/buoy"] {
            let hint = format!("(rm -r {})", host.join(stays).display());
            assert!(said.contains(&hint), "{hint}: {said}");
        }
    }
}

/// A node whose agent is going to forward by XDP and nftables, and to answer behind a gate.
fn host(test: &str) -> Option<Cluster> {
    let service = |port: u16, more: &str| {
        format!(
            "[[vip.service]]\nport = \"{port}/tcp\"\ncheck = false\n{more}backends = [\"10.77.0.21:80\"]\n"
        )
    };
    let vips = format!(
        "{LOCAL}{}{}",
        service(80, "forward = \"dsr\"\n"),
        service(81, "mode = \"kernel\"\n")
    )
    .replacen("\"10.77.0.21:80\"", "\"10.77.0.21\"", 1);
    let cluster = prepared_on(test, Topology::with_nodes(1), LEASE, &vips)?;
    cluster.segment.suit_xdp().unwrap();
    Some(cluster)
}

fn inside(cluster: &Cluster, command: &mut Command) -> (bool, String) {
    let output = cluster.segment.inside("n1").unwrap().enter(|| command.output());
    told(output.unwrap().unwrap())
}

fn words(cluster: &Cluster, line: &str) -> String {
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    inside(cluster, command.args(words)).1
}

/// Whether programs and maps are pinned for the node, and whether `buoy backend` knows of what it has changed there.
fn kept(cluster: &Cluster) -> [bool; 2] {
    let namespace = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    let of = cluster.segment.inside("n1").unwrap().enter(namespace).unwrap();
    let mut list = Command::new(cluster.buoy.program());
    let (_, listed) = inside(cluster, list.args(["backend", "list"]));
    [Path::new(&format!("/sys/fs/bpf/buoy/net-{of}")).exists(), listed.contains("192.0.2.100")]
}

/// What a host has, where Buoy would show: in words, to be compared.
fn kernel(cluster: &Cluster) -> Vec<String> {
    let no_figures = |text: String| {
        text.lines().filter(|line| !line.contains("valid_lft")).collect::<Vec<_>>().join("\n")
    };
    [
        "ip -o link show",
        "ip address show scope global",
        "ip rule show",
        "ip route show table all type unicast",
        "nft list ruleset",
        "tc qdisc show dev eth0",
        "tc filter show dev eth0 ingress",
        "sysctl net.ipv4.conf.lo.arp_ignore net.ipv4.conf.all.arp_ignore net.ipv4.conf.eth0.arp_ignore",
    ]
    .map(|line| no_figures(words(cluster, line)))
    .to_vec()
}

#[test]
fn after_make_uninstall_nothing_of_it_is_in_the_kernel() {
    let test = "after_make_uninstall_nothing_of_it_is_in_the_kernel";
    let Some(mut cluster) = host(test) else { return };
    let program = fs::read(cluster.buoy.program()).unwrap();
    let place = Place::of(test, &program);
    let prefix = format!("PREFIX={}", place.root.join("usr").display());
    let units = format!("UNITS={}", place.root.join("units").display());
    let socket = format!("SOCKET={}", cluster.buoy.socket("n1").display());
    let make = |cluster: &Cluster, what: &str| {
        inside(cluster, &mut place.make(&[what, &prefix, &units, &socket]))
    };
    let before = kernel(&cluster);
    cluster.buoy.start_all(&cluster.segment).unwrap();
    // A kernel that is busy takes its time to verify the programs.
    wait_until(4 * SOON, "everything of the agent", || {
        let now = kernel(&cluster);
        let shows = [(0, "xdp"), (1, "10.77.0.100"), (4, "buoy"), (6, "buoy")];
        Ok(shows.iter().all(|&(place, word)| now[place].contains(word)))
    })
    .unwrap();
    let (done, said) = make(&cluster, "install");
    assert!(done, "{said}");
    let mut add = Command::new(place.root.join(PROGRAM));
    let (done, said) = inside(&cluster, add.args(["backend", "add", "192.0.2.100"]));
    assert!(done, "{said}");
    assert_eq!(kept(&cluster), [true, true]);

    // An agent that runs is not the installed one's business.
    let (done, said) = make(&cluster, "uninstall");
    assert!(!done && said.contains("the agent runs"), "{said}");
    assert!(place.root.join(PROGRAM).exists() && kernel(&cluster)[0].contains("xdp"), "{said}");

    // Killed, with all who would clean up behind it.
    let watchman = supervisor(&mut cluster, "n1");
    kill(watchman, Signal::SIGSTOP).unwrap();
    let agent = cluster.buoy.process("n1").unwrap();
    agent.signal(Signal::SIGKILL).unwrap();
    agent.wait_end(SOON).unwrap();
    kill(watchman, Signal::SIGKILL).unwrap();

    let (done, said) = make(&cluster, "uninstall");
    assert!(done, "{said}");
    assert_eq!(place.files("usr"), [""; 0]);
    assert_eq!(place.files("units"), [""; 0]);
    assert_eq!(kept(&cluster), [false, false], "{said}");
    assert_eq!(kernel(&cluster), before, "{said}");
    let (done, said) = make(&cluster, "uninstall");
    assert!(done && said.contains("is not there"), "{said}");
}

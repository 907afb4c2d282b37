//! A lab that stays: `up` leaves three nodes with their agents running, `down` takes them away.
//!
//! The lab's servers are threads, so somebody must stay with them: `up` starts this program once
//! more in the background, which builds and keeps the lab until it is asked to end.

#![allow(clippy::print_stdout, reason = "says how to look inside")]

use crate::agent::Buoy;
use crate::peer::Peer;
use crate::process::wait_until;
use crate::segment::Segment;
use crate::topology::{Topology, ipv4};
use crate::{Error, Result, demo, namespace, privilege, standing};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Set in the process that stays.
const KEEPER: &str = "BUOY_LAB_KEEPER";
/// The name of the run, in place of a pid: no sweep takes it for a dead process.
const RUN: &str = "lab";
/// How long the lab may take to stand, or to be gone.
const DONE_MAX: Duration = Duration::from_secs(30);

/// Builds the lab and leaves it standing; prints how to look inside.
pub fn up() -> Result<()> {
    if std::env::var_os(KEEPER).is_some() {
        return keep();
    }
    let mode = privilege::acquire()?;
    if running().is_some() {
        return Err(Error::Forbidden {
            reason: "a lab is up already: look inside it, or `buoy lab down` first".to_owned(),
        });
    }
    sweep_own();
    let folder = folder();
    std::fs::create_dir_all(&folder).map_err(Error::system("make the lab's folder"))?;
    let log = File::create(folder.join("keeper.log")).map_err(Error::system("open the log"))?;
    let second = log.try_clone().map_err(Error::system("share the log"))?;
    let program = std::env::current_exe().map_err(Error::system("find this program"))?;
    let mut keeper = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(KEEPER, "1")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(second)
        // Out of the terminal's reach: Ctrl-C of a later command must not end it.
        .process_group(0)
        .spawn()
        .map_err(Error::system("start the lab's keeper"))?;
    println!(
        "Building three nodes, two web servers, a client and an observer, {}.",
        mode.describe()
    );
    let guide = folder.join("guide");
    wait_until(DONE_MAX, "the lab", || {
        let ended = keeper.try_wait().map_err(Error::system("look after the keeper"))?;
        if ended.is_some() {
            let said = std::fs::read_to_string(folder.join("keeper.log")).unwrap_or_default();
            return Err(Error::Command { line: "buoy lab up".to_owned(), said });
        }
        Ok(guide.exists())
    })?;
    print!("{}", std::fs::read_to_string(&guide).unwrap_or_default());
    if mode == privilege::Mode::UserNamespace {
        println!(
            "\nThe lab lives in a user namespace. Enter it before all of the above:\n  \
             nsenter --preserve-credentials -t {} -U -n -m",
            keeper.id()
        );
    }
    Ok(())
}

/// Takes the lab away that `up` left, and whatever dead labs left besides.
pub fn down() -> Result<()> {
    if let Some(pid) = running() {
        kill(pid, Signal::SIGTERM).map_err(Error::errno("ask the lab to end"))?;
        wait_until(DONE_MAX, "the lab to end", || Ok(running().is_none()))?;
    }
    let swept = sweep_own();
    println!("The lab is down{}.", if 0 < swept { ", leftovers included" } else { "" });
    Ok(())
}

/// Stays with the lab until a signal ends it.
fn keep() -> Result<()> {
    namespace::remove_all_on_signal();
    let folder = folder();
    let pid = format!("{}\n", std::process::id());
    std::fs::write(folder.join("pid"), pid).map_err(Error::system("write the pid"))?;
    let segment = Segment::build_as(RUN, Topology::with_nodes(3), &mut |_| {})?;
    let mut buoy = Buoy::new(&segment, &demo::config(&segment.topology))?;
    buoy.start_all(&segment)?;
    let orders = standing::listen(&folder, &buoy)?;
    let unfinished = folder.join("guide.new");
    std::fs::write(&unfinished, guide(&segment, &buoy))
        .map_err(Error::system("write the guide"))?;
    std::fs::rename(&unfinished, folder.join("guide")).map_err(Error::system("show the guide"))?;
    // The thread of `remove_all_on_signal` ends this process.
    loop {
        standing::obey(&orders, &segment, &mut buoy);
    }
}

fn guide(segment: &Segment, buoy: &Buoy) -> String {
    let program = buoy.program().display();
    let mut text = String::from("\nLook inside:\n");
    for node in buoy.nodes() {
        text += &format!(
            "  ip netns exec buoy-{RUN}-{node} {program} status --socket {}\n",
            buoy.socket(node).display()
        );
    }
    let vip = ipv4(100);
    text += &format!("\nBe the client:\n  ip netns exec buoy-{RUN}-client curl -s http://{vip}/\n");
    text += &format!(
        "\nBreak something:\n  {program} drain --socket {}\n  ip -n buoy-{RUN}-switch link set n1 down\n",
        buoy.socket("n1").display()
    );
    text += &format!(
        "\nBreak it again and again, and see how long each step of the takeover took:\n  {program} drill web --kind kill --repeat 5\n"
    );
    text += &format!(
        "\nThe file of every node is {}, the log {}.\nEnd it with `buoy lab down`.\n",
        buoy.config("n1").display(),
        segment.file("n1.log").display()
    );
    text
}

/// Where the keeper of this user leaves its pid and its guide.
pub(crate) fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("buoy-lab-{}", privilege::user()))
}

pub(crate) fn running() -> Option<Pid> {
    let text = std::fs::read_to_string(folder().join("pid")).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    // A pid that was given to another program since then is not the keeper's.
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let is_keeper =
        environment.split(|byte| *byte == 0).any(|pair| pair.starts_with(KEEPER.as_bytes()));
    (is_keeper && Path::new(&format!("/proc/{pid}")).exists()).then(|| Pid::from_raw(pid))
}

/// Removes what a killed keeper left; returns how much.
fn sweep_own() -> usize {
    let leftovers = namespace::of_run(RUN);
    leftovers.iter().for_each(|name| namespace::remove(name));
    let _none = std::fs::remove_dir_all(folder());
    leftovers.len() + namespace::sweep()
}

//! Programs of another version were here, whose maps lie otherwise or lack one: the next run takes their place at once.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)] // All of it is test.

mod echo;
mod hosts;
mod world;

use buoy_kernel::fast::{Capacity, Fast, FastError, Mode, Neighbours};
use buoy_kernel::{clock, host, sysctl};
use buoy_model::{FastPath, Forward, LinkId, Protocol};
use buoy_xdp::forward::{Drop, LAYOUT, LOST};
use echo::{WAIT, connect, echoes, serve};
use hosts::{Hosts, know_all};
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;
use world::{permitted, service};

const VIP: &str = "10.1.0.100";

/// Ports 80 and 82 have a backend; that of port 81 is nowhere.
fn path() -> FastPath {
    let tcp = service(Protocol::Tcp, VIP, (80, 80), Forward::Dsr, &["10.2.0.2:0"]);
    let udp = service(Protocol::Udp, VIP, (82, 82), Forward::Dsr, &["10.2.0.2:0"]);
    let lost = service(Protocol::Udp, VIP, (81, 81), Forward::Dsr, &["10.2.0.77:0"]);
    FastPath { seed: 77, services: vec![tcp, udp, lost] }
}

fn links() -> [LinkId; 2] {
    let link = |name| host::facts().unwrap().links.iter().find(|l| l.name == name).unwrap().id;
    ["to-client", "to-server"].map(link)
}

fn open() -> Result<Fast, FastError> {
    let mut fast = Fast::open(Capacity::of(&path()))?;
    assert_eq!(fast.unpinned(), None);
    let mut neighbours = Neighbours::open()?;
    fast.apply(&path(), &mut |to| neighbours.resolve(to))?;
    know_all_but_one(&mut fast, &mut neighbours);
    Ok(fast)
}

/// Of the backend that is nowhere no way can be known.
fn know_all_but_one(fast: &mut Fast, neighbours: &mut Neighbours) {
    let known = FastPath { services: path().services[..2].to_vec(), ..path() };
    fast.apply(&known, &mut |to| neighbours.resolve(to)).unwrap();
    know_all(fast, neighbours);
    fast.apply(&path(), &mut |to| neighbours.resolve(to)).unwrap();
}

fn attach(fast: &mut Fast) {
    for link in links() {
        assert_eq!(fast.attach(link).unwrap(), Mode::Driver);
    }
}

/// Where the maps of a layout are pinned, in the namespace of this thread.
fn pinned(layout: u32) -> PathBuf {
    let namespace = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
    PathBuf::from(format!("/sys/fs/bpf/buoy/net-{namespace}/layout-{layout}"))
}

/// Which programs are on the interfaces, as `ip` shows their ids.
fn programs() -> Vec<String> {
    let shown = hosts::ip("link show");
    let ids = shown.lines().filter_map(|line| line.split("prog/xdp id ").nth(1));
    ids.map(|id| id.split_whitespace().next().unwrap().to_owned()).collect()
}

/// A server that sends back each datagram, for ever.
fn serve_datagrams() {
    let socket = UdpSocket::bind((VIP, 82)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
}

/// A datagram in pieces, which another program looks at than at most packets, comes there and back.
fn pieces(hosts: &Hosts, when: &str) {
    let socket = hosts.at_client(|| UdpSocket::bind("10.1.0.2:0").unwrap());
    socket.set_read_timeout(Some(WAIT)).unwrap();
    let sent = [7; 4000];
    socket.send_to(&sent, (VIP, 82)).unwrap();
    let mut heard = [0; 8192];
    let answer = socket.recv_from(&mut heard).map(|(length, _)| length);
    assert_eq!(answer.ok(), Some(sent.len()), "{when}");
}

/// What programs go on to that were replaced, and are still on some interface.
fn set_aside() -> usize {
    let folder = pinned(LAYOUT).parent().unwrap().to_owned();
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("programs-")).count()
}

/// One more datagram for the backend that is nowhere: then so many are lost.
fn lose(hosts: &Hosts, fast: &Fast, wanted: u64) {
    hosts.at_client(|| {
        let socket = UdpSocket::bind("10.1.0.2:0").unwrap();
        socket.send_to(b"lost", (VIP, 81)).unwrap();
    });
    let deadline = clock::now() + WAIT;
    while lost(fast) != wanted {
        assert!(clock::now() < deadline, "{} and not {wanted}", lost(fast));
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn lost(fast: &Fast) -> u64 {
    fast.dropped()[&Drop::NoNeighbour]
}

/// A connection through an earlier run, which then is as another version would have left it.
fn stand(test: &str, age: impl Fn()) -> Option<()> {
    let hosts = Hosts::new(test)?;
    let mut fast = permitted(test, open())?;
    attach(&mut fast);
    sysctl::write("net/ipv4/conf/all/rp_filter", "1").unwrap();
    Fast::accept_answers("to-server").unwrap();
    hosts::ip("addr add 10.1.0.100/32 dev to-client");
    hosts.at_server(|| {
        hosts::ip("addr add 10.1.0.100/32 dev lo");
        serve("10.1.0.100:80");
        serve_datagrams();
    });
    let mut stream = hosts.at_client(|| connect("10.1.0.100:80")).unwrap();
    echoes(&mut stream, 10_000);
    let before = lost(&fast) + 1;
    lose(&hosts, &fast, before);
    assert_eq!(fast.replaced(), [] as [String; 0]);
    let earlier = programs();
    drop(fast);
    age();
    echoes(&mut stream, 10_000);
    pieces(&hosts, "by programs that nobody holds");

    let is_other_layout = pinned(LAYOUT - 1).exists();
    let next = open().unwrap();
    let names: Vec<String> = next.replaced().to_vec();
    let wanted = is_other_layout.then(|| format!("layout-{}", LAYOUT - 1));
    assert_eq!(names, wanted.into_iter().collect::<Vec<_>>());
    assert!(!pinned(LAYOUT - 1).exists(), "its maps are pinned for nobody");
    // The earlier programs are still there, and forward by their own maps.
    assert_eq!(programs(), earlier);
    echoes(&mut stream, 10_000);
    pieces(&hosts, "by the earlier programs, beside the new ones");
    // Nor is anything lost when this run comes no further.
    drop(next);
    pieces(&hosts, "by the earlier programs, alone again");
    let mut next = open().unwrap();
    pieces(&hosts, "by the earlier programs, beside the next ones");
    next.attach(links()[1]).unwrap();
    assert_eq!(set_aside(), 1);
    pieces(&hosts, "with both on interfaces");
    attach(&mut next);
    assert_eq!(set_aside(), 0);
    let now = programs();
    assert!(now.len() == 2 && now.iter().all(|id| !earlier.contains(id)), "{earlier:?} {now:?}");
    echoes(&mut stream, 10_000);
    pieces(&hosts, "by the new programs");
    let mut new = hosts.at_client(|| connect("10.1.0.100:80")).unwrap();
    echoes(&mut new, 10_000);
    // Counts go on, unless they lie otherwise too.
    let base = if is_other_layout { 0 } else { before };
    lose(&hosts, &next, base + 1);
    next.detach();
    Some(())
}

#[test]
fn maps_of_another_layout_are_replaced_under_a_connection() {
    let age = || std::fs::rename(pinned(LAYOUT), pinned(LAYOUT - 1)).unwrap();
    stand("maps_of_another_layout_are_replaced_under_a_connection", age);
}

#[test]
fn maps_that_lack_one_are_replaced_and_keep_what_was_counted() {
    let age = || std::fs::remove_file(pinned(LAYOUT).join(LOST)).unwrap();
    stand("maps_that_lack_one_are_replaced_and_keep_what_was_counted", age);
}

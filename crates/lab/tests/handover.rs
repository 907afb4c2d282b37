//! A restart of the agent cuts no proxied connection and refuses none, where a service manager keeps the sockets meanwhile.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::peer::Peer;
use buoy_lab::probe::tcp::TcpProbe;
use buoy_lab::process::wait_until;
use buoy_lab::segment::{ECHO_PORT, HTTP_PORT};
use buoy_lab::topology::Topology;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fmt::Write as _;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use support::{LEASE, LOCAL, MS, SOON, VIP, prepared_on};

/// What systemd does with descriptors: keeps what a service gives it (sd_notify(3)), and passes it on to the next run
/// (sd_listen_fds(3)).
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Vec<RawFd>>>);

impl Store {
    fn listen(at: &Path) -> Self {
        let store = Self::default();
        let (socket, told) = (UnixDatagram::bind(at).unwrap(), store.clone());
        // Ends with the test's process.
        std::thread::spawn(move || while told.hear(&socket) {});
        store
    }

    fn hear(&self, socket: &UnixDatagram) -> bool {
        let mut text = [0; 256];
        let mut room = nix::cmsg_space!([RawFd; 253]);
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::empty();
        let Ok(message) = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), flags)
        else {
            return false;
        };
        let length = message.bytes;
        let mut passed = Vec::new();
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(some) = control {
                passed.extend(some);
            }
        }
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        let mut kept = self.0.lock().unwrap();
        if text.starts_with("FDSTORE=1") {
            kept.append(&mut passed);
        }
        if text.starts_with("FDSTOREREMOVE=1") {
            passed.append(&mut kept);
        }
        // What it does not keep it closes, a barrier as well.
        passed.into_iter().for_each(|fd| nix::unistd::close(fd).unwrap());
        true
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// A script that starts its arguments with what is kept, as from 3 on, the last one first.
    fn pass_on(&self) -> String {
        let kept = self.0.lock().unwrap().clone();
        let mut script = String::new();
        // First out of the way of the numbers that are wanted. One at a time: the shell keeps what it may have to
        // undo under numbers that are free at that moment.
        for (place, fd) in kept.iter().rev().enumerate() {
            write!(script, "exec {}<&{fd}; exec {fd}<&-; ", 1000 + place).unwrap();
        }
        for place in 0..kept.len() {
            write!(script, "exec {}<&{}; exec {1}<&-; ", 3 + place, 1000 + place).unwrap();
        }
        script + &format!("LISTEN_PID=$$ LISTEN_FDS={} exec \"$@\"", kept.len())
    }
}

/// Connects again and again; what went wrong is kept in words.
fn connecting(to: SocketAddr, stop: &AtomicBool, done: &AtomicUsize) -> Vec<String> {
    let mut wrong = Vec::new();
    while !stop.load(Relaxed) {
        // A host that has no VIP at the moment answers nothing, and the client asks again.
        match TcpStream::connect_timeout(&to, SOON) {
            Ok(mut stream) => {
                let mut answer = [0; 8];
                let asked = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                match asked.and_then(|()| stream.read(&mut answer)) {
                    Ok(length) if 0 < length => drop(done.fetch_add(1, Relaxed)),
                    ended => wrong.push(format!("no answer: {ended:?}")),
                }
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => wrong.push("nobody there".into()),
            Err(error) => wrong.push(error.to_string()),
        }
        std::thread::sleep(5 * MS);
    }
    wrong
}

#[test]
fn a_restart_of_the_agent_cuts_no_proxied_connection_and_refuses_none() {
    let test = "a_restart_of_the_agent_cuts_no_proxied_connection_and_refuses_none";
    let service = |port: u16| {
        format!(
            "[[vip.service]]\nport = \"{port}/tcp\"\nmode = \"proxy\"\n\
             backends = [\"web1 10.77.0.21:{port}\", \"web2 10.77.0.22:{port}\"]\n"
        )
    };
    let vips = format!("{LOCAL}{}{}", service(ECHO_PORT), service(HTTP_PORT));
    let Some(mut cluster) = prepared_on(test, Topology::with_nodes(1), LEASE, &vips) else {
        return;
    };
    let socket = cluster.segment.file("notify");
    let store = Store::listen(&socket);
    let env = ["env".to_owned(), format!("NOTIFY_SOCKET={}", socket.display())];
    cluster.buoy.through = env.to_vec();
    cluster.buoy.start_all(&cluster.segment).unwrap();
    cluster.wait_owned("n1");
    let client = cluster.segment.inside("client").unwrap();
    let tcp = TcpProbe::start(client, (VIP, ECHO_PORT).into(), 40).unwrap();
    let opened = Instant::now();
    wait_until(SOON, "lines", || Ok(tcp.figures(opened).survived == 40)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicUsize::new(0));
    let (told, counted) = (Arc::clone(&stop), Arc::clone(&done));
    let more = |than: usize| move |done: &AtomicUsize| Ok(than + 20 < done.load(Relaxed));
    let others = client
        .spawn("connecting", move || connecting((VIP, HTTP_PORT).into(), &told, &counted))
        .unwrap();

    wait_until(SOON, "connections", || more(0)(&done)).unwrap();
    let process = cluster.buoy.process("n1").unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    process.wait_end(SOON).unwrap();
    // At least both ends of each connection, a listener of each service, and what says which is which.
    assert!(80 + 2 < store.count(), "{}", store.count());
    let script = store.pass_on();
    cluster.buoy.through =
        env.iter().cloned().chain(["bash".into(), "-c".into(), script, "manager".into()]).collect();
    cluster.buoy.start(&cluster.segment, "n1").unwrap();
    cluster.wait_owned("n1");
    let (again, before) = (Instant::now(), done.load(Relaxed));
    wait_until(SOON, "lines again", || Ok(tcp.figures(again).survived == 40)).unwrap();
    wait_until(SOON, "new connections", || more(before)(&done)).unwrap();
    stop.store(true, Relaxed);
    assert_eq!(others.join().unwrap(), Vec::<String>::new());
    let figures = tcp.figures(opened);
    assert_eq!((figures.broken, figures.survived), (0, 40), "{figures:?}");
    assert_eq!(store.count(), 0, "what the agent has is not kept any longer");
}

//! What it costs to ask many backends: processor time of an agent that asks ten thousand every second, beside
//! that of a bare loop that opens as many connections and does nothing else.

use super::report;
use crate::agent::{Buoy, config_head};
use crate::namespace::Namespace;
use crate::process::wait_until;
use crate::segment::Segment;
use crate::topology::{Topology, ipv4};
use crate::{Error, Result, agent, namespace, privilege};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The port that all backends have.
const PORT: u16 = 9000;
/// Backends of one service.
const PER_SERVICE: usize = 100;
/// Services of one VIP.
const PER_VIP: usize = 25;
/// How long the agent may take to know all backends.
const KNOWN_MAX: Duration = Duration::from_secs(60);
/// What an agent does after a reload is not its everyday work.
const SETTLE: Duration = Duration::from_secs(5);
/// How often the bare loop begins a round.
const ROUND: Duration = Duration::from_millis(10);
/// What the issue asks for, in hundredths of one processor.
const GOAL: f64 = 20.0;

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct ChecksOptions {
    /// How many backends, each asked once a second.
    pub backends: usize,
    /// How long each is measured.
    pub time: Duration,
    /// Where the report goes.
    pub report: PathBuf,
}

/// Processor time, and what was done with it.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// Hundredths of one processor.
    share: f64,
    /// Connections begun each second.
    rate: f64,
}

/// Measures and writes the report. May restart this program in a user namespace, so call it first.
pub fn checks(options: &ChecksOptions) -> Result<()> {
    let mode = privilege::acquire()?;
    namespace::remove_all_on_signal();
    agent::program()?;
    let count = options.backends;
    println!("{count} backends are asked every second, {}.", mode.describe());
    let segment = Segment::build(Topology::with_nodes(1), &mut |_| {})?;
    let _servers = serve(&segment)?;
    let inside = segment.inside("n1")?;
    let before = bare(inside, options, Kind::Reset)?;
    let whole = bare(inside, options, Kind::Whole)?;
    let text = config(&segment, count, "false");
    let mut buoy = Buoy::new(&segment, &text)?;
    buoy.start_all(&segment)?;
    std::thread::sleep(SETTLE);
    let idle = measure(&mut buoy, inside, options)?;
    buoy.write_config("n1", &config(&segment, count, "{ tcp = true, every = \"1s\" }"))?;
    buoy.reload("n1")?;
    wait_until(KNOWN_MAX, "all backends to be up", || Ok(up(&buoy)? == count))?;
    std::thread::sleep(SETTLE);
    let asking = measure(&mut buoy, inside, options)?;
    // Its connections would be counted with those of the loop.
    drop(buoy);
    let after = bare(inside, options, Kind::Reset)?;
    let text = render(options, &[before, after, whole], idle, asking);
    report::save(&options.report, &text)
}

/// The n-th backend.
fn backend(n: usize) -> Ipv4Addr {
    let [.., high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 81, high, low)
}

/// One server for all addresses, on the node itself: a path of bridges and pairs would be counted with who
/// sends, and here it is the checks that are measured.
fn serve(segment: &Segment) -> Result<std::thread::JoinHandle<()>> {
    let inside = segment.inside("n1")?;
    inside.ip("route add local 10.81.0.0/16 dev lo")?;
    let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
    let server = inside.enter(listen)?.map_err(Error::system("listen for all backends"))?;
    inside.spawn("servers", move || while server.accept().is_ok() {})
}

fn config(segment: &Segment, count: usize, check: &str) -> String {
    let mut text = config_head(&segment.topology);
    for service in 0..count.div_ceil(PER_SERVICE) {
        let (vip, nth) = (service / PER_VIP, service % PER_VIP);
        let number = u8::try_from(100 + vip).unwrap_or(u8::MAX);
        if nth == 0 {
            // Infallible, as below: a `String` takes whatever is written to it.
            let _ = writeln!(text, "[[vip]]\naddress = \"{}/24\"", ipv4(number));
        }
        let all = service * PER_SERVICE..count.min((service + 1) * PER_SERVICE);
        let all: Vec<String> = all.map(|n| format!("\"{}:{PORT}\"", backend(n))).collect();
        let _ = writeln!(
            text,
            "[[vip.service]]\nport = \"{}/tcp\"\nbackends = [{}]\ncheck = {check}",
            8000 + nth,
            all.join(", ")
        );
    }
    text
}

fn up(buoy: &Buoy) -> Result<usize> {
    let status = buoy.status("n1")?;
    let services = status.vips.iter().flat_map(|vip| &vip.services);
    let backends = services.flat_map(|service| &service.backends);
    Ok(backends.filter(|backend| backend.state == "up").count())
}

fn measure(buoy: &mut Buoy, inside: &Namespace, options: &ChecksOptions) -> Result<Cost> {
    let opened = opened(inside)?;
    let process = crate::peer::Peer::process(buoy, "n1")?;
    let (used, from) = (process.cpu_time(), Instant::now());
    std::thread::sleep(options.time);
    let used = process.cpu_time() - used;
    Ok(cost(used, from.elapsed(), self::opened(inside)? - opened))
}

fn cost(used: Duration, time: Duration, opened: f64) -> Cost {
    let share = 100.0 * used.as_secs_f64() / time.as_secs_f64();
    Cost { share, rate: opened / time.as_secs_f64() }
}

/// Connections that this host has begun so far.
fn opened(inside: &Namespace) -> Result<f64> {
    let read = || std::fs::read_to_string("/proc/thread-self/net/snmp");
    let text = inside.enter(read)?.map_err(Error::system("read the counters of TCP"))?;
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
    let mut pairs = names.split(' ').zip(values.split(' '));
    let found = pairs.find(|(name, _)| *name == "ActiveOpens");
    found
        .and_then(|(_, value)| value.parse().ok())
        .ok_or(Error::Unknown { what: "number of connections begun".to_owned() })
}

/// How the bare loop ends its connections.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// As the agent does: without the last part of the handshake, by a reset.
    Reset,
    /// By the book.
    Whole,
}

/// A loop of `socket`, `connect`, `epoll_wait` and `close`, as often as the agent asks.
fn bare(inside: &Namespace, options: &ChecksOptions, kind: Kind) -> Result<Cost> {
    let count = options.backends;
    let time = options.time;
    let run = move || -> std::io::Result<Duration> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let begin = thread_time()?;
        let start = Instant::now();
        let (mut open, mut next) = (HashMap::new(), 0_u64);
        while start.elapsed() < time {
            std::thread::sleep(ROUND);
            // As many as are due by now, whatever the sleep took.
            let due = start.elapsed().as_secs_f64() * count as f64;
            while (next as f64) < due {
                let place = usize::try_from(next).unwrap_or_default() % count.max(1);
                open.insert(next, begin_one(&epoll, backend(place), next, kind)?);
                next += 1;
            }
            while close_some(&epoll, &mut open)? {}
        }
        Ok(thread_time()?.saturating_sub(begin))
    };
    let opened_before = opened(inside)?;
    let from = Instant::now();
    let used = inside.enter(run)?.map_err(Error::system("run the bare loop"))?;
    Ok(cost(used, from.elapsed(), opened(inside)? - opened_before))
}

fn begin_one(epoll: &Epoll, to: Ipv4Addr, number: u64, kind: Kind) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match kind {
        Kind::Reset => {
            socket.set_linger(Some(Duration::ZERO))?;
            socket.set_tcp_quickack(false)?;
        }
        Kind::Whole => {}
    }
    // Under way, which is what it is for.
    let _ = socket.connect(&SockAddr::from(SocketAddr::from((to, PORT))));
    epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLOUT, number))?;
    Ok(socket)
}

/// Whether there may be more.
fn close_some(epoll: &Epoll, open: &mut HashMap<u64, Socket>) -> std::io::Result<bool> {
    let mut events = [EpollEvent::empty(); 64];
    let count = epoll.wait(&mut events, EpollTimeout::ZERO)?;
    for event in events.iter().take(count) {
        if let Some(socket) = open.remove(&event.data()) {
            let _ = socket.take_error()?;
        }
    }
    Ok(count == events.len())
}

fn thread_time() -> std::io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn render(options: &ChecksOptions, bare: &[Cost; 3], idle: Cost, asking: Cost) -> String {
    let [before, after, whole] = bare;
    let share = asking.share - idle.share;
    let verdict = if share < GOAL { "kept" } else { "missed" };
    let row =
        |name: &str, cost: &Cost| format!("| {name} | {:.1} | {:.0} |\n", cost.share, cost.rate);
    let mut text = format!(
        "# What it costs to ask {} backends every second\n\n\
         Written by `make bench-checks` (`buoy lab bench checks --backends {} --seconds {}`).\n\n\
         | | |\n|---|---|\n{}\n\
         One agent asks every backend by TCP once a second; all are addresses of its own host, so the kernel's work for \
         the server's side is counted as well. Hundredths of one processor, all processes of the agent. The bare loop opens as many connections by \
         `socket`, `connect`, `epoll_wait` and `close`, 100 times a second, and does nothing else.\n\n\
         | | share of one processor, % | connections a second |\n|---|--:|--:|\n",
        options.backends,
        options.backends,
        options.time.as_secs(),
        report::machine(),
    );
    text += &row("bare loop, ended by a reset as the agent does, before", before);
    text += &row("bare loop, ended by a reset as the agent does, after", after);
    text += &row("bare loop, whole handshakes", whole);
    text += &row("agent that asks nobody, with the same backends", &idle);
    text += &row("agent that asks all", &asking);
    let floor = (before.share + after.share) / 2.0;
    // Infallible: a `String` takes whatever is written to it.
    let _ = writeln!(
        text,
        "\nThe checks take {share:.1} % of one processor, {:.2} times what the bare loop takes. Goal: under {GOAL:.0} %: {verdict}.",
        share / floor
    );
    text
}

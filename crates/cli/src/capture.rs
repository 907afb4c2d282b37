//! `buoy capture`: shows packets where XDP drops or rewrites them, which no other tool sees.
//!
//! The maps in the kernel are asked, not the agent: this works while no agent runs. The agent, where it
//! answers, gives names, and says which services something else forwards.

mod frame;
mod pcapng;
mod words;

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::table::plain;
use buoy_api::{ClusterStatus, ServiceView, VipView};
use buoy_kernel::fast::{Capture, Captured, Drop, HOLD, Only, Shown};
use buoy_kernel::interrupt::Interrupt;
use buoy_kernel::poll::Poller;
use buoy_kernel::{clock, host};
use buoy_model::Cidr;
use frame::Headers;
use pcapng::Pcapng;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;
use words::{Done, Names};

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Only for this VIP, or this port of it, as in 10.0.0.100, 10.0.0.100:443 or [fd00::100]:443
    #[arg(value_name = "VIP[:PORT]", value_parser = vip)]
    vip: Option<Vip>,
    /// Only from these clients, and answers to them: an address, or a prefix as in 192.0.2.0/24
    #[arg(long, value_name = "ADDRESS|PREFIX", value_parser = client)]
    client: Option<Cidr>,
    /// Only what is dropped, or refused in an answer to its sender
    #[arg(long)]
    dropped: bool,
    /// Only what is dropped for this reason, as in no-backend
    #[arg(long, value_name = "WORD", value_parser = reason)]
    reason: Option<Drop>,
    /// Also what is for a VIP and left to the kernel of this host
    #[arg(long, conflicts_with_all = ["dropped", "reason"])]
    passed: bool,
    /// End after so many packets
    #[arg(long, value_name = "N", default_value = "1000")]
    count: NonZeroU64,
    /// End after so many seconds
    #[arg(long, value_name = "S", default_value = "30", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Write pcapng, for Wireshark and tcpdump: each packet as it came and as it left; - is standard output
    #[arg(long, value_name = "FILE.pcapng|-")]
    write: Option<PathBuf>,
    /// Form of the answer; JSON is one object a line
    #[arg(short, long, value_enum, default_value_t, conflicts_with = "write")]
    output: Form,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Vip {
    address: IpAddr,
    port: Option<u16>,
}

fn vip(text: &str) -> Result<Vip, String> {
    let alone = text.parse().map(|address| Vip { address, port: None });
    let with_port =
        |_| text.parse::<SocketAddr>().map(|to| Vip { address: to.ip(), port: Some(to.port()) });
    let vip = alone.or_else(with_port).map_err(|_| {
        "give an address of a VIP, as in 10.0.0.100, or one with a port, as in 10.0.0.100:443 or \
         [fd00::100]:443"
            .to_owned()
    })?;
    if vip.port == Some(0) {
        return Err("a service has a port from 1 to 65535; without one, all are shown".into());
    }
    Ok(vip)
}

fn client(text: &str) -> Result<Cidr, String> {
    let wrong = || "give an address or a prefix, as in 192.0.2.7 or 192.0.2.0/24".to_owned();
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().map_err(|_| wrong())?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    Cidr::new(address, length.unwrap_or(all))
        .ok_or_else(|| format!("a prefix of {address} has at most {all} bits"))
}

fn reason(text: &str) -> Result<Drop, String> {
    Drop::ALL
        .into_iter()
        .find(|reason| words::reason_word(*reason) == text)
        .ok_or_else(|| format!("one of {}", Drop::ALL.map(words::reason_word).join(", ")))
}

/// One packet, for programs.
#[derive(Debug, Serialize)]
struct Line {
    /// Milliseconds since 1970.
    at: u64,
    interface: String,
    #[serde(flatten)]
    headers: Option<Headers>,
    verdict: &'static str,
    done: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    fix: &'static str,
    /// By which interface it left, if it was sent.
    by: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let status = arguments.agent.client()?.status().ok();
    if let (Some(vip), Some(status)) = (arguments.vip, &status) {
        seen_by_xdp(vip, status).map_err(Failure::failed)?;
    }
    let interrupt = Interrupt::open().map_err(Failure::failed)?;
    let mut capture = Capture::begin(shown(arguments)).map_err(Failure::failed)?;
    let mut printer = Printer::new(arguments, names(status.as_ref()))?;
    if let Some(status) = &status {
        note(&elsewhere(arguments.vip, status));
    }
    let ended = watch(arguments, &mut capture, &interrupt, &mut printer);
    let missed = capture.missed();
    // Off before anything else is said.
    drop(capture);
    note(&summary(printer.count, missed, status.as_ref()));
    ended
}

fn shown(arguments: &Arguments) -> Shown {
    Shown {
        vip: arguments.vip.map(|vip| vip.address),
        port: arguments.vip.and_then(|vip| vip.port),
        client: arguments.client,
        only: match (arguments.reason, arguments.dropped, arguments.passed) {
            (Some(reason), _, _) => Only::Dropped(Some(reason)),
            (None, true, _) => Only::Dropped(None),
            (None, false, true) => Only::Everything,
            (None, false, false) => Only::Handled,
        },
    }
}

/// Until it has been long enough, there were enough, or somebody stops it.
fn watch(
    arguments: &Arguments,
    capture: &mut Capture,
    interrupt: &Interrupt,
    printer: &mut Printer,
) -> Result<(), Failure> {
    const PACKET: usize = 0;
    const INTERRUPT: usize = 1;
    let end = clock::now() + Duration::from_secs(arguments.seconds);
    let mut renew_at = clock::now() + HOLD / 3;
    let mut poller = Poller::new();
    poller.watch(INTERRUPT, interrupt);
    loop {
        while let Some(captured) = capture.take() {
            printer.print(&captured)?;
            // Whoever reads this may be slow.
            if renew_at <= clock::now() || printer.count >= arguments.count.get() {
                break;
            }
        }
        let now = clock::now();
        if end <= now || printer.count >= arguments.count.get() || interrupt.has_come() {
            return Ok(());
        }
        if renew_at <= now {
            capture.renew().map_err(Failure::failed)?;
            renew_at = now + HOLD / 3;
        }
        // Other maps may have taken the place of these.
        poller.watch(PACKET, capture);
        poller.wait(Some(end.min(renew_at))).map_err(Failure::failed)?;
    }
}

/// Where packets are shown.
struct Printer {
    names: Names,
    form: Form,
    file: Option<Pcapng<Box<dyn Write>>>,
    count: u64,
}

impl Printer {
    fn new(arguments: &Arguments, names: Names) -> Result<Self, Failure> {
        let file = arguments.write.as_deref().map(open).transpose()?;
        Ok(Self { names, form: arguments.output, file, count: 0 })
    }

    fn print(&mut self, captured: &Captured) -> Result<(), Failure> {
        self.count += 1;
        let done = words::done(captured, &self.names);
        if let Some(file) = &mut self.file {
            let comment = plain(&done.said);
            return match file.write(captured, &comment, |link| self.names.link(link.0)) {
                // `buoy capture --write - | head`: the reader has what it wanted.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
                written => {
                    written.map_err(|e| Failure::failed(format!("cannot write packets: {e}")))
                }
            };
        }
        match self.form {
            Form::Table => output::text(&line(captured, &done, &self.names)),
            form @ (Form::Json | Form::Yaml) => {
                output::item(form, &view(captured, done, &self.names))
            }
        }
    }
}

fn open(path: &Path) -> Result<Pcapng<Box<dyn Write>>, Failure> {
    let cannot = |error| Failure::failed(format!("{}: {error}", path.display()));
    let to: Box<dyn Write> = if path == Path::new("-") {
        if output::terminal() {
            return Err(Failure::failed(
                "pcapng is not for a terminal: give a file, or a pipe as in \
                 `buoy capture --write - | wireshark -k -i -`",
            ));
        }
        Box::new(io::stdout())
    } else {
        Box::new(File::create(path).map_err(cannot)?)
    };
    Pcapng::new(to).map_err(cannot)
}

/// As in `10:20:30.123456  eth0  192.0.2.7:40000 -> 10.0.0.100:80 tcp SYN 60  dsr to web1 (10.0.0.11) by eth0`.
fn line(captured: &Captured, done: &Done, names: &Names) -> String {
    let second = captured.at / 1_000_000_000 % 86_400;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let micros = captured.at / 1_000 % 1_000_000;
    let interface = names.link(captured.came.link.0);
    let what = match frame::read(&captured.came.head) {
        Some(Headers { from, to, protocol, flags, length }) => {
            let flags = flags.map_or_else(String::new, |flags| format!(" {flags}"));
            format!("{from} -> {to} {protocol}{flags} {length}")
        }
        None => format!("{} bytes that are not IP", captured.came.length),
    };
    let fix = if done.fix.is_empty() { String::new() } else { format!("; fix: {}", done.fix) };
    let line = format!(
        "{hour:02}:{minute:02}:{second:02}.{micros:06}  {interface}  {what}  {}{fix}",
        done.said
    );
    format!("{}\n", plain(&line))
}

fn view(captured: &Captured, done: Done, names: &Names) -> Line {
    let sent = captured.left.as_ref().filter(|_| done.verdict != "translated");
    Line {
        at: captured.at / 1_000_000,
        interface: names.link(captured.came.link.0),
        headers: frame::read(&captured.came.head),
        verdict: done.verdict,
        done: done.said,
        fix: done.fix,
        by: sent.map(|left| names.link(left.link.0)),
    }
}

/// Without an agent, numbers do.
fn names(status: Option<&ClusterStatus>) -> Names {
    let links = host::facts().map(|facts| facts.links).unwrap_or_default();
    let services = status.iter().flat_map(|s| &s.vips).flat_map(|vip| &vip.services);
    let backends = services.flat_map(|service| &service.backends).filter_map(|backend| {
        let alone = backend.address.parse::<IpAddr>();
        let address = alone.or_else(|_| backend.address.parse::<SocketAddr>().map(|a| a.ip()));
        Some((address.ok()?, backend.name.clone()))
    });
    Names {
        backends: backends.collect(),
        links: links.into_iter().map(|link| (link.id.0, link.name)).collect(),
    }
}

fn is_xdp(service: &ServiceView) -> bool {
    service.engine.starts_with("XDP")
}

fn has(view: &VipView, address: IpAddr) -> bool {
    view.addresses.iter().any(|a| {
        let alone = a.address.split('/').next().unwrap_or_default();
        alone.parse() == Ok(address)
    })
}

/// Of a service as in `443/tcp`, `8000-8099/tcp` or `*/tcp`.
fn has_port(service: &ServiceView, port: Option<u16>) -> bool {
    let ports = service.port.split('/').next().unwrap_or_default();
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (port, first.parse::<u16>(), last.parse::<u16>()) {
        (Some(port), Ok(first), Ok(last)) => (first..=last).contains(&port),
        _ => true,
    }
}

/// What shows packets of another engine.
fn other_tool(engine: &str, address: IpAddr) -> String {
    match engine {
        "" => "nothing forwards it yet (`buoy status`)".into(),
        proxy if proxy.contains("proxy") => {
            format!("use `tcpdump -ni any host {address}` for what clients say and hear")
        }
        _ => format!(
            "use `tcpdump -ni any host {address}`, and `nft monitor trace` with a rule that sets \
             `meta nftrace set 1` for what its rules decide"
        ),
    }
}

/// Whether there is anything to see of this VIP; in words why not.
fn seen_by_xdp(vip: Vip, status: &ClusterStatus) -> Result<(), String> {
    let Some(view) = status.vips.iter().find(|view| has(view, vip.address)) else {
        let addresses = status.vips.iter().flat_map(|v| &v.addresses).map(|a| a.address.as_str());
        let all: Vec<&str> = addresses.collect();
        return Err(format!(
            "{} is no VIP of this node; these are: {}",
            vip.address,
            all.join(", ")
        ));
    };
    let mut services = view.services.iter().filter(|s| has_port(s, vip.port)).peekable();
    let Some(first) = services.peek().copied() else {
        let port = vip.port.map_or_else(String::new, |port| format!(" at port {port}"));
        return Err(format!(
            "VIP {} has no service{port}: packets go to the kernel of this host as they are; use \
             `tcpdump -ni any host {}`",
            view.name, vip.address
        ));
    };
    if services.any(is_xdp) {
        return Ok(());
    }
    let engine = if first.engine.is_empty() { "no engine" } else { first.engine.as_str() };
    Err(format!(
        "{} {} is forwarded by {engine}, not by XDP: {}",
        view.name,
        first.port,
        other_tool(&first.engine, vip.address)
    ))
}

/// Services of which nothing is shown, in a line for each engine; nothing if all are.
fn elsewhere(vip: Option<Vip>, status: &ClusterStatus) -> String {
    let vips = status.vips.iter().filter(|view| vip.is_none_or(|vip| has(view, vip.address)));
    let services = vips.flat_map(|view| view.services.iter().map(move |s| (view, s)));
    let port = vip.and_then(|vip| vip.port);
    let others = services.filter(|(_, s)| has_port(s, port) && !is_xdp(s) && !s.engine.is_empty());
    let others: Vec<String> =
        others.map(|(view, s)| format!("{} {} ({})", view.name, s.port, s.engine)).collect();
    if others.is_empty() {
        return String::new();
    }
    format!(
        "not shown, because XDP does not forward them: {}; use tcpdump, and `nft monitor trace`",
        others.join(", ")
    )
}

fn summary(count: u64, missed: u64, status: Option<&ClusterStatus>) -> String {
    let lost = match missed {
        0 => String::new(),
        n => format!(
            "; {n} more were missed, because they came faster than they were read: ask for fewer \
             (a client, a port, --dropped)"
        ),
    };
    let engines = status.iter().flat_map(|s| &s.vips).flat_map(|v| &v.services);
    let engine = engines.map(|s| s.engine.as_str()).find(|engine| engine.starts_with("XDP"));
    let engine = engine.map_or_else(String::new, |engine| format!(" by {engine}"));
    match (count, missed) {
        (0, 0) => format!(
            "no such packet came{engine}: is this node the owner (`buoy status`), and do packets come \
             by these interfaces?"
        ),
        (1, _) => format!("1 packet{lost}"),
        _ => format!("{count} packets{lost}"),
    }
}

/// Beside the packets, so that programs can read those.
fn note(text: &str) {
    if !text.is_empty() {
        // Nobody may listen, and then nobody misses it.
        let _ = writeln!(io::stderr(), "{}", plain(text));
    }
}

#[cfg(test)]
mod tests;

//! Whether an agent's heartbeats keep their times while two hundred ask it and a page is open, and while hundreds of
//! its checks meet servers that mean harm.

use crate::agent::Buoy;
use crate::capture::Capture;
use crate::harm::{self, EACH, EVERY, HARMS};
use crate::probe::{median, percentile};
use crate::segment::Segment;
use crate::{Error, Result};
use buoy_api::ClusterStatus;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Who asks at a time.
pub(super) const CLIENTS: usize = 200;
/// How long each of them waits between two questions.
const PAUSE: Duration = Duration::from_millis(200);
/// Port of the heartbeats.
const HEARTBEATS: u16 = 4747;
/// How often an agent with harmful servers and the same one without them take turns, half as long as the others.
const TURNS: u32 = 4;
/// How long all of its checks may take to have failed.
const KNOWN_MAX: Duration = Duration::from_secs(60);
/// What an agent does after a reload is not its everyday work.
const SETTLE: Duration = Duration::from_secs(3);

/// What the section says.
#[derive(Clone, Debug)]
pub(super) struct Heartbeats {
    quiet: Beats,
    crowded: Beats,
    /// Without and with harmful servers, of all turns.
    spared: Beats,
    harmed: Beats,
    /// How many times as long the 99 % is with them, in each turn.
    ratios: Vec<f64>,
    /// How often somebody took the VIP from n1, or n1 took it back, in all turns.
    moves: u32,
}

/// Times between two heartbeats of one node to another.
#[derive(Clone, Copy, Debug)]
struct Beats {
    count: usize,
    median: Duration,
    p99: Duration,
    worst: Duration,
    /// Answers that were given meanwhile, or connections that harmful servers were asked by.
    answers: u64,
}

impl Beats {
    fn of(gaps: &[Duration], answers: u64) -> Self {
        Self {
            count: gaps.len(),
            median: median(gaps),
            p99: percentile(gaps, 99),
            worst: gaps.iter().max().copied().unwrap_or_default(),
            answers,
        }
    }
}

/// Records the heartbeats of n1 with nobody and with many who ask, then without and with harmful servers in turns.
pub(super) fn measure(segment: &Segment, buoy: &mut Buoy, time: Duration) -> Result<Heartbeats> {
    println!("Its heartbeats, with nobody and with {CLIENTS} who ask.");
    let quiet = record(segment, "quiet", time)?;
    let (crowded, answers) = crowd(segment, buoy, time)?;
    println!("The same, without and with {} harmful servers in turns.", harms());
    let plain = std::fs::read_to_string(buoy.config("n1"));
    let plain = plain.map_err(Error::system("read the configuration"))?;
    let harmful = format!("{plain}{}", harm::services());
    let servers = harm::Servers::start(segment)?;
    let (mut spared, mut harmed, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut asked, first) = (0, epoch(buoy)?);
    for _ in 0..TURNS {
        give(buoy, &harmful, harms())?;
        let before = servers.asked();
        let with = record(segment, "harmed", time / 2)?;
        asked += servers.asked() - before;
        give(buoy, &plain, 0)?;
        let without = record(segment, "spared", time / 2)?;
        let ms = |gaps: &[Duration]| percentile(gaps, 99).as_secs_f64();
        ratios.push(ms(&with) / ms(&without));
        harmed.extend(with);
        spared.extend(without);
    }
    Ok(Heartbeats {
        quiet: Beats::of(&quiet, 0),
        crowded: Beats::of(&crowded, answers),
        spared: Beats::of(&spared, 0),
        harmed: Beats::of(&harmed, asked),
        ratios,
        moves: epoch(buoy)? - first,
    })
}

/// How often the VIP was taken so far.
fn epoch(buoy: &Buoy) -> Result<u32> {
    Ok(buoy.status("n1")?.vips.first().map_or(0, |vip| vip.epoch))
}

fn harms() -> usize {
    HARMS.len() * usize::from(EACH)
}

/// Gives all nodes another file and waits until n1 says that so many backends are down, and has calmed down.
fn give(buoy: &mut Buoy, config: &str, down: usize) -> Result<()> {
    for node in crate::peer::Peer::nodes(buoy) {
        buoy.write_config(node, config)?;
        buoy.reload(node)?;
    }
    let has_failed = |status: &ClusterStatus| {
        let backends = status.vips.iter().flat_map(|vip| &vip.services).flat_map(|s| &s.backends);
        let (failed, others): (Vec<_>, Vec<_>) = backends.partition(|b| b.state == "down");
        failed.len() == down && others.is_empty()
    };
    buoy.wait_status("n1", KNOWN_MAX, "all checks to have failed", has_failed)?;
    std::thread::sleep(SETTLE);
    Ok(())
}

/// Records while many ask n1, and one follows it as the page does; says how many answers they got.
fn crowd(segment: &Segment, buoy: &Buoy, time: Duration) -> Result<(Vec<Duration>, u64)> {
    let answers = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let gaps = std::thread::scope(|scope| -> Result<Vec<Duration>> {
        for _ in 0..CLIENTS {
            let client = buoy.client("n1")?;
            let (answers, is_over) = (&answers, &is_over);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    answers.fetch_add(u64::from(client.status().is_ok()), Ordering::Relaxed);
                    std::thread::sleep(PAUSE);
                }
            });
        }
        let client = buoy.client("n1")?;
        let followed = &is_over;
        scope.spawn(move || {
            // How it ends is of no interest: it is there to be told.
            drop(client.follow_status(PAUSE, |_| !followed.load(Ordering::Relaxed)));
        });
        let recorded = record(segment, "crowded", time);
        is_over.store(true, Ordering::Relaxed);
        recorded
    })?;
    Ok((gaps, answers.load(Ordering::Relaxed)))
}

/// The times between heartbeats of n1 to one peer.
fn record(segment: &Segment, name: &str, time: Duration) -> Result<Vec<Duration>> {
    let file = segment.file(&format!("{name}.pcap"));
    let capture = Capture::start(segment.inside("n1")?, "eth0", &file)?;
    std::thread::sleep(time);
    drop(capture);
    gaps(&file)
}

/// Times between heartbeats to one peer in a capture (pcap, in the order of this machine's bytes).
fn gaps(file: &Path) -> Result<Vec<Duration>> {
    let bytes = std::fs::read(file).map_err(Error::system("read the capture"))?;
    let mut rest = bytes.get(24..).unwrap_or_default();
    let mut last: Option<Duration> = None;
    let (mut gaps, mut peer) = (Vec::new(), None);
    while let Some((head, after)) = rest.split_at_checked(16) {
        let word = |at: usize| -> u32 {
            let bytes = head.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        let length = usize::try_from(word(8)).unwrap_or(usize::MAX);
        let Some((frame, after)) = after.split_at_checked(length) else { break };
        rest = after;
        let at = Duration::new(word(0).into(), word(4).saturating_mul(1000));
        let Some(to) = heartbeat(frame) else { continue };
        if *peer.get_or_insert(to) == to {
            gaps.extend(last.map(|last| at.saturating_sub(last)));
            last = Some(at);
        }
    }
    Ok(gaps)
}

/// To whom a frame is a heartbeat of this node: IPv4, UDP, to the port of heartbeats, from the node itself.
fn heartbeat(frame: &[u8]) -> Option<[u8; 4]> {
    let packet = frame.get(14..)?;
    let is_udp = frame.get(12..14) == Some(&[8, 0]) && packet.get(9) == Some(&17);
    let start = usize::from(packet.first()? & 15) * 4;
    let port = packet.get(start + 2..start + 4)?;
    let from = packet.get(12..16)?;
    let is_mine = from.last() == Some(&11);
    (is_udp && is_mine && port == HEARTBEATS.to_be_bytes())
        .then(|| packet.get(16..20)?.try_into().ok())?
}

/// The section of the report.
pub(super) fn render(heartbeats: &Heartbeats) -> String {
    let Heartbeats { quiet, crowded, spared, harmed, ratios, moves } = heartbeats;
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let mut text = format!(
        "\n## Heartbeats\n\nTimes between two messages of one node to another, on the wire: a heartbeat every 10 ms, and answers to those of the other between them. {CLIENTS} clients ask for the whole status, each again {} ms after \
         its answer, and one follows it as the page does; they run on the same machine.\n\n\
         | | messages | median, ms | 99 %, ms | worst, ms | answers meanwhile |\n|---|--:|--:|--:|--:|--:|\n",
        PAUSE.as_millis()
    );
    let asking = format!("{CLIENTS} ask");
    let harmful = format!("{} harmful servers are checked", harms());
    let rows = [
        ("nobody asks", quiet),
        (&asking, crowded),
        ("in turns: no backends", spared),
        (&format!("in turns: {harmful}"), harmed),
    ];
    for (name, beats) in rows {
        let Beats { count, median, p99, worst, answers } = *beats;
        // Infallible, as below: a `String` takes whatever is written to it.
        let _ = writeln!(
            text,
            "| {name} | {count} | {:.2} | {:.2} | {:.2} | {answers} |",
            ms(median),
            ms(p99),
            ms(worst)
        );
    }
    let ratio = ms(crowded.p99) / ms(quiet.p99);
    let _ =
        writeln!(text, "\nThe 99 % with {CLIENTS} who ask is {ratio:.2} times that with nobody.");
    let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let _ = writeln!(
        text,
        "\nHarmful servers, {EACH} of each kind, send heads without end, a byte a second, what is not TLS, bodies without end, or redirects to themselves (`crates/lab/src/harm.rs`). All three nodes check each of them every {} ms; \
         they run on the same machine, and what they answer counts the connections to them. The 99 % with them is {:.2} times that without, in {TURNS} turns (median; {}). The VIP was taken {moves} times meanwhile.",
        EVERY.as_millis(),
        super::middle(ratios, |ratio| *ratio),
        each.join(", "),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(from: u8, to: u8, port: u16) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend([10, 77, 0, from, 10, 77, 0, to, 0x12, 0x34]);
        frame.extend(port.to_be_bytes());
        frame.extend([0, 8, 0, 0]);
        frame
    }

    #[test]
    fn gaps_are_those_of_heartbeats_to_one_peer() {
        let mut pcap = vec![0; 24];
        let mut add = |micros: u32, frame: &[u8]| {
            let length = u32::try_from(frame.len()).unwrap();
            for word in [7, micros, length, length] {
                pcap.extend(word.to_ne_bytes());
            }
            pcap.extend(frame);
        };
        add(0, &frame(11, 12, 4747));
        add(5, &frame(11, 13, 4747));
        add(9, &frame(12, 11, 4747));
        add(20, &frame(11, 12, 4748));
        add(10_000, &frame(11, 12, 4747));
        add(21_500, &frame(11, 12, 4747));
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pcap");
        std::fs::write(&file, &pcap).unwrap();
        let micros: Vec<u128> = gaps(&file).unwrap().iter().map(Duration::as_micros).collect();
        assert_eq!(micros, [10_000, 11_500]);
        std::fs::write(&file, &pcap[..pcap.len() - 3]).unwrap();
        assert_eq!(gaps(&file).unwrap().len(), 1, "the end of a capture may be cut");
    }

    #[test]
    fn the_section_says_how_much_longer_harm_makes_it() {
        let beats = |p99| Beats {
            count: 800,
            median: Duration::from_millis(10),
            p99: Duration::from_micros(p99),
            worst: Duration::from_millis(20),
            answers: 7,
        };
        let text = render(&Heartbeats {
            quiet: beats(10_000),
            crowded: beats(11_000),
            spared: beats(10_000),
            harmed: beats(12_500),
            ratios: vec![1.3, 1.25, 9.0],
            moves: 2,
        });
        for line in [
            "| 200 ask | 800 | 10.00 | 11.00 | 20.00 | 7 |",
            "| in turns: no backends | 800 | 10.00 | 10.00 | 20.00 | 7 |",
            "| in turns: 300 harmful servers are checked | 800 | 10.00 | 12.50 | 20.00 | 7 |",
            "with 200 who ask is 1.10 times",
            "every 1000 ms",
            "is 1.30 times that without, in 4 turns (median; 1.30, 1.25, 9.00)",
            "was taken 2 times",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}

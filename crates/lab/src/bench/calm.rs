//! The minutes in which nothing should happen: processors that are kept busy, and a segment that loses
//! frames. Every change of owner in them is a false takeover.

use super::many::{MASS, Standing};
use super::stand::{LOCAL, Stand};
use super::{Options, Outcome, brief};
use crate::Result;
use crate::hogs::{Hogs, Niceness};
use crate::probe::Window;
use crate::probe::arp::ArpObserver;
use crate::probe::stall::StallMeter;
use std::time::{Duration, Instant};

/// Programs that burn the processors, on two of them.
const HOGS: usize = 4;
/// Frames of a hundred that the switch drops.
const LOSS: u8 = 10;
/// Between two questions of the observer: so many minutes are many questions.
const BEAT: Duration = Duration::from_millis(2);
/// A stall that is worth counting.
const LONG: Duration = Duration::from_millis(20);

/// What one system did in such minutes.
#[derive(Clone, Debug)]
pub struct Calm {
    /// Who.
    pub system: String,
    /// What disturbed it.
    pub disturbance: String,
    /// For how long.
    pub time: Duration,
    /// Changes of the one who answers.
    pub takeovers: usize,
    /// Time with two answerers.
    pub two_answerers: Duration,
    /// The longest time that the machine itself stood still meanwhile.
    pub stall: Duration,
    /// How often it stood still for 20 ms and more.
    pub stalls: usize,
}

/// Both disturbances, one after the other, with all systems at once.
pub(super) fn measure(
    options: &Options,
    stands: &mut [Stand],
    meter: &StallMeter,
    outcome: &mut Outcome,
) -> Result<()> {
    println!("{HOGS} programs burn the processors for {} s.", options.minutes.as_secs());
    let longest = options.minutes + Duration::from_secs(60);
    let observers = observers(stands, outcome)?;
    let Some(first) = stands.first() else { return Ok(()) };
    let inside = first.segment.switch.namespace();
    let log = first.segment.file("hogs.log");
    let hogs = Hogs::start(inside, HOGS, Niceness::Ordinary, longest, &log)?;
    let busy = watch(options.minutes);
    let burnt = hogs.burnt().as_secs_f64() / (busy.to - busy.from).as_secs_f64();
    drop(hogs);
    let what = format!("{HOGS} busy programs (they got {burnt:.2} processors)");
    read(stands, &observers, &what, busy, meter, outcome);
    drop(observers);

    println!("The switches drop {LOSS} % of all frames for {} s.", options.minutes.as_secs());
    let observers = self::observers(stands, outcome)?;
    // On a segment that loses nothing, and meanwhile because it takes as long.
    let thousand = Standing::begin(MASS);
    for stand in &*stands {
        stand.segment.switch.set_loss(LOSS)?;
    }
    let lossy = watch(options.minutes);
    for stand in &*stands {
        stand.segment.switch.set_loss(0)?;
    }
    read(stands, &observers, &format!("{LOSS} % random loss"), lossy, meter, outcome);
    match thousand.and_then(Standing::end) {
        Ok((idle, _)) => outcome.idle.push(idle),
        Err(error) => outcome.notes.push(format!("a thousand idle VIPs: {}", brief(&error))),
    }
    Ok(())
}

/// An observer for each system, once it is steady.
fn observers(stands: &mut [Stand], outcome: &mut Outcome) -> Result<Vec<ArpObserver>> {
    let mut observers = Vec::new();
    for stand in stands {
        let inside = stand.segment.inside("observer")?;
        let quick = ArpObserver::start(inside, &[LOCAL, super::stand::FORWARDED])?;
        if let Err(error) = stand.steady(&quick) {
            outcome.notes.push(format!("before the calm minutes: {}", brief(&error)));
        }
        drop(quick);
        let inside = stand.segment.inside("observer")?;
        observers.push(ArpObserver::start_every(inside, &[LOCAL], BEAT)?);
    }
    Ok(observers)
}

fn watch(time: Duration) -> Window {
    // What was said before the first question is over by then.
    std::thread::sleep(10 * BEAT);
    let from = Instant::now();
    std::thread::sleep(time);
    Window { from, to: Instant::now() }
}

fn read(
    stands: &[Stand],
    observers: &[ArpObserver],
    disturbance: &str,
    window: Window,
    meter: &StallMeter,
    outcome: &mut Outcome,
) {
    for (stand, arp) in stands.iter().zip(observers) {
        let twice = u32::try_from(arp.answered_by_two(LOCAL, window).len()).unwrap_or(u32::MAX);
        let calm = Calm {
            system: stand.system.name(),
            disturbance: disturbance.to_owned(),
            time: window.to - window.from,
            takeovers: arp.takeovers(LOCAL, window),
            two_answerers: BEAT * twice,
            stall: meter.worst(window),
            stalls: meter.count(window, LONG),
        };
        println!("  {}: {} takeovers", calm.system, calm.takeovers);
        outcome.calm.push(calm);
    }
}

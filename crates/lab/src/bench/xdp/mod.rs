//! What a packet costs on the fast path, beside simple programs and beside nftables, and what its tables cost.
//!
//! `world` is the services and packets, `cases` what is measured, `measure` runs it with `kernel::rig`,
//! `verify` says whether packets come out right; `live` sends frames, `tables` changes backends; `goals`
//! judges, `page` writes it down. Interfaces are in namespaces that this made.

mod cases;
mod goals;
mod live;
mod measure;
mod one;
mod page;
mod tables;
mod verify;
mod world;

use crate::namespace::{self, Namespace};
use crate::{Result, command, privilege};
use buoy_kernel::fast::Length;
use buoy_kernel::rig::Rig;
use cases::Subject;
use goals::Outcome;
use measure::{Loaded, refused};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::time::Instant;
use world::{Family, How, World};

/// Rounds of frames that are sent: they take longer, and connections are not more than the kernel takes.
const LIVE_ROUNDS: usize = 15;

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// How often each case has its turn.
    pub rounds: usize,
    /// Packets of one turn.
    pub packets: u32,
    /// Numbers of services, beside one.
    pub services: Vec<u32>,
    /// Words of the names of what is measured; none: all of it.
    pub only: Vec<String>,
    /// Where the report goes.
    pub report: PathBuf,
}

impl XdpOptions {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }
}

/// Measures and writes the report. Needs root: BPF is not permitted in a user namespace.
pub fn xdp(options: &XdpOptions) -> Result<()> {
    privilege::acquire()?;
    namespace::remove_all_on_signal();
    command::require("nft", "apt-get install nftables")?;
    let start = Instant::now();
    let place = Namespace::create(&std::process::id().to_string(), "xdp")?;
    let (outcome, lengths) = place.enter(|| measure_all(options))??;
    let text = page::render(options, &outcome, &lengths, start.elapsed());
    crate::bench::report::save(&options.report, &text)
}

fn measure_all(options: &XdpOptions) -> Result<(Outcome, Vec<Length>)> {
    let mut outcome = Outcome { services: options.services.clone(), ..Outcome::default() };
    let mut rig = Rig::open().map_err(refused)?;
    if options.wants("down") {
        println!("A backend goes down, again and again.");
        outcome.down = Some(tables::down()?);
        if let Some(&most) = options.services.iter().max() {
            outcome.one = Some(one::one_of(most)?);
        }
    }
    if options.wants("frames") {
        println!("Frames through veth pairs, {LIVE_ROUNDS} rounds.");
        outcome.live = live::measure(&mut rig, LIVE_ROUNDS)?;
    }
    let mut cases = goals::all_cases(&options.services);
    cases.retain(|case| matches!(case.subject, Subject::Floor(..)) || options.wants(&case.name()));
    let mut worlds: BTreeMap<World, Loaded> = BTreeMap::new();
    let wanted = cases.iter().filter_map(|case| match case.subject {
        Subject::Buoy(world) => Some(world),
        Subject::Floor(..) => None,
    });
    for world in wanted {
        if let Entry::Vacant(place) = worlds.entry(world) {
            let (cost, fast, slots) = tables::cost(world)?;
            if world.services > 1 || world == World::one(How::Tunnel, Family::V4) {
                println!(
                    "{} services: {} MiB, {} ms.",
                    cost.services,
                    cost.bytes >> 20,
                    cost.apply.as_millis()
                );
                outcome.costs.push(cost);
            }
            place.insert(Loaded { fast, slots });
        }
    }
    println!("{} cases, {} rounds.", cases.len(), options.rounds);
    outcome.figures =
        measure::measure(&mut rig, &mut worlds, &cases, options.rounds, options.packets)?;
    let any = worlds.values_mut().next();
    let lengths = any.map(|loaded| loaded.fast.lengths()).transpose().map_err(refused)?;
    Ok((outcome, lengths.unwrap_or_default()))
}

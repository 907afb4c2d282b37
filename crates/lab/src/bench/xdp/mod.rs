//! What a packet costs on the fast path, beside simple programs and beside nftables, and what its tables cost.
//!
//! `world` is the services and packets, `cases` what is measured, `measure` runs it with `kernel::rig`,
//! `verify` says whether packets come out right.

mod cases;
mod measure;
mod verify;
mod world;

use crate::namespace::{self, Namespace};
use crate::{Result, privilege};
use buoy_kernel::rig::Rig;
use cases::Subject;
use measure::{Loaded, refused};
use std::collections::BTreeMap;
use std::path::PathBuf;
use world::World;

/// What the caller may choose.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// How often each case has its turn.
    pub rounds: usize,
    /// Packets of one turn.
    pub packets: u32,
    /// Numbers of services, beside one.
    pub services: Vec<u32>,
    /// Where the report goes.
    pub report: PathBuf,
}

/// Measures and writes the report.
pub fn xdp(options: &XdpOptions) -> Result<()> {
    privilege::acquire()?;
    namespace::remove_all_on_signal();
    let place = Namespace::create(&std::process::id().to_string(), "xdp")?;
    place.enter(|| run(options))?
}

fn run(options: &XdpOptions) -> Result<()> {
    let mut rig = Rig::open().map_err(refused)?;
    let mut worlds: BTreeMap<World, Loaded> = BTreeMap::new();
    let cases = [cases::floors(), cases::cases(&options.services)].concat();
    for case in &cases {
        if let Subject::Buoy(world) = case.subject
            && !worlds.contains_key(&world)
        {
            worlds.insert(world, Loaded::open(world, None)?);
        }
    }
    println!("{} cases, {} rounds:", cases.len(), options.rounds);
    let figures = measure::measure(&mut rig, &mut worlds, &cases, options.rounds, options.packets)?;
    for case in &cases {
        let figure = figures[case];
        println!(
            "{:>7.1} {:>7.1} {:>7.1} {:>7.1}  {}",
            measure::net(&figures, *case).unwrap_or(0.0),
            figure.best,
            figure.tenth,
            figure.median,
            case.name()
        );
    }
    Ok(())
}

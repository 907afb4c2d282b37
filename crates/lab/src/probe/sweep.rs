//! Asks who has each of very many addresses until each has answered from a new place.

use super::arp::{self, HardwareAddress};
use super::stall::go_first_as_a_probe;
use super::{Metronome, TICK};
use crate::Result;
use crate::namespace::Namespace;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

/// Questions a millisecond: a thousand addresses are asked in forty.
const AT_ONCE: usize = 25;

/// A running sweep; it ends when dropped.
#[derive(Debug)]
pub struct Sweep {
    answered: Arc<Mutex<BTreeMap<Ipv4Addr, Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweep {
    /// Asks for all these addresses, of which those count as answered whose answer or announcement
    /// does not come from `old`.
    pub fn start(inside: &Namespace, addresses: &[Ipv4Addr], old: HardwareAddress) -> Result<Self> {
        let (socket, mac) = inside.enter(arp::open)??;
        let answered = Arc::new(Mutex::new(BTreeMap::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_answered, its_stop) = (Arc::clone(&answered), Arc::clone(&stop));
        let addresses = addresses.to_vec();
        let thread = Some(inside.spawn("arp sweep", move || {
            go_first_as_a_probe();
            let mut metronome = Metronome::new(TICK);
            let mut pending = addresses;
            let mut next = 0;
            while !its_stop.load(Ordering::Relaxed) {
                metronome.wait();
                let mut answered = its_answered.lock().unwrap_or_else(PoisonError::into_inner);
                arp::each_claim(&socket, |address, mac| {
                    if mac != old {
                        answered.entry(address).or_insert_with(Instant::now);
                    }
                });
                pending.retain(|address| !answered.contains_key(address));
                drop(answered);
                for _ in 0..AT_ONCE.min(pending.len()) {
                    next = (next + 1) % pending.len();
                    arp::ask(&socket, mac, pending[next]);
                }
            }
        })?);
        Ok(Self { answered, stop, thread })
    }

    /// When each address was first answered for or announced from a new place.
    pub fn answered(&self) -> Vec<Instant> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        answered.values().copied().collect()
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

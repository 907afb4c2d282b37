//! The addresses that are answered for without being on an interface: with which Ethernet address, and where.
//!
//! All that the configuration names are here at all times, so that a ping to one that this host does not serve is
//! known from one to an address that it has. Whether anything is answered, the entry of the address says.

use super::error::errno;
use super::{GateError, array, typed};
use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::ProgramFd;
use buoy_model::{LinkId, Mac};
use buoy_xdp::{GATE_ANSWERS, GATE_BACK_BY_REDIRECT, GATE_HOST, GateAnswer, GateKey};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// The program that answers, for the fast path to go on to. It has the leases of the gate that it comes from.
#[derive(Debug)]
pub struct Answerer(pub(crate) ProgramFd);

impl Answerer {
    /// Another handle of the same program.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// An address that is to be answered for without being on an interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    /// Which.
    pub address: IpAddr,
    /// Where.
    pub link: LinkId,
    /// The Ethernet address of that interface.
    pub mac: Mac,
    /// Whether this host routes IPv6 there: advertisements say so.
    pub router: bool,
}

impl From<Answered> for GateAnswer {
    fn from(answered: Answered) -> Self {
        let Answered { address: _, link, mac, router } = answered;
        Self { mac: mac.0, router, link: link.0 }
    }
}

pub(super) struct Answers {
    map: HashMap<MapData, [u8; 16], [u64; 2]>,
    host: Array<MapData, u64>,
    known: BTreeMap<IpAddr, Answered>,
}

impl Answers {
    pub(super) fn new(programs: &mut Ebpf) -> Result<Self, GateError> {
        let host = Map::Array(array(programs, GATE_HOST)?).try_into();
        let wrong =
            |_| GateError::Load { reason: format!("its map `{GATE_HOST}` is of another type") };
        let map = typed(programs, GATE_ANSWERS)?;
        Ok(Self { map, host: host.map_err(wrong)?, known: BTreeMap::new() })
    }

    /// Makes them these.
    pub(super) fn set(&mut self, wanted: &[Answered]) -> Result<(), GateError> {
        let is_wanted = |address: &IpAddr| wanted.iter().any(|w| w.address == *address);
        let left = self.known.keys().copied().filter(|address| !is_wanted(address));
        for address in left.collect::<Vec<_>>() {
            match self.map.remove(&key(address)).map_err(|e| errno(&e)) {
                Ok(()) | Err(Some(Errno::ENOENT)) => {}
                Err(errno) => return Err(unwritten(address, errno)),
            }
            self.known.remove(&address);
        }
        wanted.iter().try_for_each(|answered| self.put(*answered))
    }

    /// The interface has another Ethernet address now.
    pub(super) fn set_mac(&mut self, link: LinkId, mac: Mac) -> Result<(), (IpAddr, GateError)> {
        let here = self.known.values().filter(|a| a.link == link && a.mac != mac);
        let changed: Vec<_> = here.map(|answered| Answered { mac, ..*answered }).collect();
        let mut put = |answered: Answered| self.put(answered).map_err(|e| (answered.address, e));
        changed.into_iter().try_for_each(&mut put)
    }

    /// What goes out where it came in is redirected there.
    pub(super) fn send_back_by_redirect(&mut self) -> Result<(), GateError> {
        let set = self.host.set(0, GATE_BACK_BY_REDIRECT, 0);
        set.map_err(|e| GateError::Load { reason: e.to_string() })
    }

    /// Whether the address can be answered for there.
    pub(super) fn has(&self, link: LinkId, address: IpAddr) -> bool {
        self.known.get(&address).is_some_and(|answered| answered.link == link)
    }

    fn put(&mut self, answered: Answered) -> Result<(), GateError> {
        let address = answered.address;
        if self.known.get(&address) == Some(&answered) {
            return Ok(());
        }
        let words = GateAnswer::from(answered).to_words();
        let put = self.map.insert(key(address), words, 0);
        put.map_err(|e| unwritten(address, errno(&e)))?;
        self.known.insert(address, answered);
        Ok(())
    }
}

const fn key(address: IpAddr) -> [u8; 16] {
    GateKey::new(address, 0).address
}

fn unwritten(address: IpAddr, errno: Option<Errno>) -> GateError {
    GateError::Write { address, errno: errno.unwrap_or(Errno::EIO) }
}

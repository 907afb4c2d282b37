//! What the lab asks of any system that keeps an address alive, so that all stand in the same tests.
//!
//! A new peer is a file with an implementation of `Peer`, and a line where `demo` lists its peers.

use crate::Result;
use crate::process::Process;
use crate::segment::Segment;
use nix::unistd::Pid;
use std::net::Ipv4Addr;

/// A system under test: one daemon on each of its nodes.
pub trait Peer {
    /// Its name and setting, for tables.
    fn name(&self) -> &str;

    /// The nodes that it runs on.
    fn nodes(&self) -> Vec<&'static str>;

    /// Starts the daemon of a node (anew).
    fn start(&mut self, segment: &Segment, node: &str) -> Result<()>;

    /// The daemon of a node.
    fn process(&mut self, node: &str) -> Result<&mut Process>;

    /// The process of that daemon which runs the protocol.
    fn protocol_process(&mut self, node: &str) -> Result<Pid>;

    /// Takes a node out of service, or back in; `false`: it knows no such thing.
    fn drain(&mut self, node: &str, out: bool) -> Result<bool>;

    /// Whether that node could take over at this moment.
    fn is_ready(&mut self, node: &str) -> bool;

    /// Whether it promises never to have two owners.
    fn is_exclusive(&self) -> bool;

    /// Why an address is where it is, in the words of the system, if it has words.
    fn why(&mut self, node: &str, vip: Ipv4Addr) -> Option<String>;
}

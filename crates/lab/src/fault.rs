//! What can happen to a host: every fault is injected and healed in one place.
//!
//! A new fault is a variant, its name, what `inject` does and what `heal` undoes.

use crate::peer::Peer;
use crate::process::wait_until;
use crate::segment::Segment;
use crate::switch::PortRule;
use crate::{Error, Result};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;

/// How long a daemon may take to end after SIGTERM before it is killed.
pub(crate) const END_MAX: Duration = Duration::from_secs(5);

/// One kind of fault, at one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Planned: the operator takes the node out of service.
    Drain,
    /// The daemon is asked to end (SIGTERM).
    Terminate,
    /// The process that runs the protocol is killed (SIGKILL); the rest of the daemon lives.
    Crash,
    /// The process that runs the protocol is stopped (SIGSTOP); the rest of the daemon lives.
    Hang,
    /// The daemon and its children are killed (SIGKILL); the host lives.
    Kill,
    /// The daemon and its children are stopped (SIGSTOP), and go on when healed.
    Freeze,
    /// The cable is pulled: the host loses its carrier.
    Unplug,
    /// The switch drops everything from and to the host, which keeps its carrier.
    SilentCut,
    /// The switch drops what the host sends.
    DeafSwitch,
    /// The switch drops what is sent to the host.
    DeafHost,
    /// The switch drops so many of a hundred frames, in each direction.
    Loss(u8),
    /// The host loses power: everything on it is gone, and so is its carrier.
    PowerOff,
}

/// How long after its fault a daemon may turn out to be dead.
const RESTART_MAX: Duration = Duration::from_millis(150);

/// Whether a fault could be injected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Injected {
    /// It was.
    Yes,
    /// The peer has nothing that corresponds to it.
    NotApplicable,
}

impl Fault {
    /// For tables.
    pub fn name(self) -> String {
        match self {
            Self::Drain => "drain (planned)".to_owned(),
            Self::Terminate => "stop (SIGTERM)".to_owned(),
            Self::Crash => "crash (SIGKILL, protocol)".to_owned(),
            Self::Hang => "hang (SIGSTOP, protocol)".to_owned(),
            Self::Kill => "crash (SIGKILL)".to_owned(),
            Self::Freeze => "freeze (SIGSTOP)".to_owned(),
            Self::Unplug => "unplug".to_owned(),
            Self::SilentCut => "silent cut".to_owned(),
            Self::DeafSwitch => "one-way cut (out)".to_owned(),
            Self::DeafHost => "one-way cut (in)".to_owned(),
            Self::Loss(percent) => format!("{percent} % loss"),
            Self::PowerOff => "power off".to_owned(),
        }
    }

    /// Lets it happen.
    pub fn inject(self, segment: &Segment, peer: &mut dyn Peer, node: &str) -> Result<Injected> {
        match self {
            Self::Drain => {
                let drained = peer.drain(node, true)?;
                return Ok(if drained { Injected::Yes } else { Injected::NotApplicable });
            }
            Self::Terminate => peer.process(node)?.signal(Signal::SIGTERM)?,
            Self::Crash => signal(peer, node, Signal::SIGKILL)?,
            Self::Hang => signal(peer, node, Signal::SIGSTOP)?,
            Self::Kill => {
                // Stopped first, so that none of them sees another one die.
                let daemon = peer.process(node)?;
                daemon.signal_family(Signal::SIGSTOP)?;
                daemon.signal_family(Signal::SIGKILL)?;
            }
            Self::Freeze => peer.process(node)?.signal_family(Signal::SIGSTOP)?,
            Self::Unplug => segment.switch.set_carrier(node, false)?,
            Self::SilentCut => cut(segment, node, true, true, 0)?,
            Self::DeafSwitch => cut(segment, node, true, false, 0)?,
            Self::DeafHost => cut(segment, node, false, true, 0)?,
            Self::Loss(percent) => cut(segment, node, false, false, percent)?,
            Self::PowerOff => {
                segment.switch.set_carrier(node, false)?;
                peer.process(node)?.signal_family(Signal::SIGKILL)?;
            }
        }
        Ok(Injected::Yes)
    }

    /// Undoes it: afterwards the node runs again as at first.
    pub fn heal(self, segment: &Segment, peer: &mut dyn Peer, node: &str) -> Result<()> {
        match self {
            Self::Drain => peer.drain(node, false).map(drop),
            Self::Terminate => {
                let daemon = peer.process(node)?;
                if daemon.wait_end(END_MAX).is_err() {
                    daemon.signal_family(Signal::SIGKILL)?;
                }
                peer.start(segment, node)
            }
            Self::Kill => {
                peer.process(node)?.wait_end(END_MAX)?;
                peer.start(segment, node)
            }
            Self::Crash => {
                let daemon = peer.process(node)?;
                // Some daemons start the part anew that was killed.
                if daemon.wait_end(RESTART_MAX).is_ok() {
                    return peer.start(segment, node);
                }
                Ok(())
            }
            Self::Hang | Self::Freeze => {
                let daemon = peer.process(node)?;
                daemon.signal_family(Signal::SIGCONT)?;
                // A supervisor may have ended what stood still.
                if daemon.wait_end(RESTART_MAX).is_ok() {
                    return peer.start(segment, node);
                }
                Ok(())
            }
            Self::Unplug => segment.switch.set_carrier(node, true),
            Self::SilentCut | Self::DeafSwitch | Self::DeafHost | Self::Loss(_) => {
                cut(segment, node, false, false, 0)
            }
            Self::PowerOff => {
                peer.process(node)?.wait_end(END_MAX)?;
                // A host that boots has no addresses but its own.
                let host = *segment.host(node)?;
                let inside = segment.inside(node)?;
                inside.ip("addr flush dev eth0")?;
                for address in segment.topology.addresses(&host) {
                    inside.ip(&format!("addr add dev eth0 {address}"))?;
                }
                segment.switch.set_carrier(node, true)?;
                wait_until(END_MAX, "the carrier to come back", || {
                    Ok(inside.ip("link show eth0")?.contains("LOWER_UP"))
                })?;
                peer.start(segment, node)
            }
        }
    }
}

fn signal(peer: &mut dyn Peer, node: &str, signal: Signal) -> Result<()> {
    let pid = peer.protocol_process(node)?;
    kill(pid, signal).map_err(Error::errno(format!("send {signal} to {pid}")))
}

fn cut(segment: &Segment, node: &str, from_host: bool, to_host: bool, loss: u8) -> Result<()> {
    segment.switch.set_rule(node, PortRule { from_host, to_host, loss_percent: loss })
}

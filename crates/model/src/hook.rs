//! Who is told when something happens: a program of this host, or a server by HTTP.

use crate::GroupId;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

/// One `[[hook]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hook {
    /// What people call it; no two have one name.
    pub name: String,
    /// How it is told.
    pub act: HookAct,
    /// Of what it is told.
    pub topics: Vec<HookTopic>,
    /// Of which groups; none: of all, and of what is about no group.
    pub groups: Vec<GroupId>,
    /// How long one telling may take.
    pub timeout: Duration,
}

/// How a hook is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HookAct {
    /// A program is run, without a shell.
    Run {
        /// Its absolute path.
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// Whose rights it has.
        user: String,
        /// In which form it is told.
        style: HookStyle,
    },
    /// Lines are written into a named pipe, in keepalived's form.
    Fifo {
        /// Its absolute path; it is made where there is none.
        path: String,
        /// How long a line waits for somebody who reads.
        retry: Duration,
    },
    /// A server is told by HTTP POST.
    Post {
        /// Its host, a name or an address.
        host: String,
        /// Its port.
        port: u16,
        /// The path, with what is asked.
        path: String,
        /// The authorities that sign its certificate, a PEM file; `None`: there is no TLS.
        ca: Option<String>,
        /// The file with the key that signs what is said.
        key: Option<String>,
        /// How long it is tried again when the server does not take it.
        retry: Duration,
    },
}

/// In which form a program is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HookStyle {
    /// The message on its input.
    Json,
    /// Four more arguments, as keepalived gives them to its `notify` scripts.
    Keepalived {
        /// The states that it hears of; none: all.
        states: Vec<VrrpState>,
    },
}

/// What keepalived's scripts call the state of a VIP on one host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VrrpState {
    /// This node serves it.
    Master,
    /// It does not, and could.
    Backup,
    /// It cannot.
    Fault,
    /// The agent ends.
    Stop,
}

impl VrrpState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Master, Self::Backup, Self::Fault, Self::Stop];

    /// As keepalived writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Master => "MASTER",
            Self::Backup => "BACKUP",
            Self::Fault => "FAULT",
            Self::Stop => "STOP",
        }
    }
}

impl HookAct {
    /// Whether it hears of this state of a VIP.
    pub fn hears(&self, state: VrrpState) -> bool {
        match self {
            Self::Run { style: HookStyle::Keepalived { states }, .. } => {
                states.is_empty() || states.contains(&state)
            }
            Self::Fifo { .. } => true,
            Self::Run { style: HookStyle::Json, .. } | Self::Post { .. } => false,
        }
    }

    /// Whether it hears of events.
    pub const fn hears_events(&self) -> bool {
        match self {
            Self::Run { style: HookStyle::Json, .. } | Self::Post { .. } => true,
            Self::Run { style: HookStyle::Keepalived { .. }, .. } | Self::Fifo { .. } => false,
        }
    }
}

/// A kind of things that happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HookTopic {
    /// Who owns a VIP, and how it came to it.
    Ownership,
    /// Hosts that come, go, and are drained.
    Nodes,
    /// Backends that turn up or down, and what operators order of them.
    Health,
    /// A configuration that was taken, or refused.
    Config,
}

impl HookTopic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ownership, Self::Nodes, Self::Health, Self::Config];

    /// As the file and the message call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ownership => "ownership",
            Self::Nodes => "nodes",
            Self::Health => "health",
            Self::Config => "config",
        }
    }
}

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

//! The agent's loop of one host, as the driver runs it: everything that arrived first, then the tick.

use buoy_core::Node;
use buoy_model::{Action, Desired, Fitness, GroupId, Instant, LinkId, Order, WireVersion};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

/// Datagrams that a socket holds while nobody reads it.
const SOCKET_MAX: usize = 128;

/// One host's agent.
#[derive(Debug)]
pub(crate) struct Agent {
    /// `None`: dead.
    pub(crate) node: Option<Node>,
    /// Grows with every life, so that what was planned for an earlier one can be told apart.
    pub(crate) life: u32,
    /// How many freezes hold it.
    pub(crate) frozen: u32,
    /// What arrived and was not looked at.
    pub(crate) inbox: VecDeque<News>,
    datagrams: usize,
    /// Decided and not done yet.
    pub(crate) todo: VecDeque<Action>,
    /// Whether the next step of `todo` is planned.
    pub(crate) stepping: bool,
    /// Whether a freeze met it between two steps.
    pub(crate) halted: bool,
    /// The true time of the next planned wake-up, and the deadline that it is for.
    pub(crate) wake_at: u64,
    pub(crate) wake_for: Instant,
    /// The file on this host.
    pub(crate) desired: Arc<Desired>,
    pub(crate) draining: bool,
    /// The program on this host: an old one understands the first wire version only.
    pub(crate) speaks: WireVersion,
    /// What its supervisor would send: a datagram to each host.
    pub(crate) goodbyes: Vec<Option<u32>>,
}

/// What can arrive at an agent.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Datagram { datagram: u32, leg: u8, again: bool },
    Link { link: LinkId, up: bool },
    AddressLost { link: LinkId, address: IpAddr },
    ForeignClaim { link: LinkId, address: IpAddr },
    Fitness { group: GroupId, fitness: Fitness },
    Reload,
    Order(Order),
    Stop,
}

impl Agent {
    pub(crate) fn new(desired: Arc<Desired>, speaks: WireVersion) -> Self {
        Self {
            node: None,
            life: 0,
            frozen: 0,
            inbox: VecDeque::new(),
            datagrams: 0,
            todo: VecDeque::new(),
            stepping: false,
            halted: false,
            wake_at: u64::MAX,
            wake_for: Instant::ZERO,
            goodbyes: vec![None; desired.nodes.len()],
            desired,
            draining: false,
            speaks,
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.node.is_some()
    }

    /// Begins a life.
    pub(crate) fn start(&mut self, node: Node) {
        self.node = Some(node);
        self.life += 1;
        self.draining = false;
    }

    /// Ends it, with all that was not done.
    pub(crate) fn die(&mut self) {
        self.node = None;
        self.life += 1;
        self.frozen = 0;
        self.inbox.clear();
        self.datagrams = 0;
        self.todo.clear();
        self.stepping = false;
        self.halted = false;
        self.wake_at = u64::MAX;
    }

    /// Something arrives; false when the socket has no room for it.
    pub(crate) fn arrive(&mut self, news: News) -> bool {
        if let News::Datagram { .. } = news {
            if self.datagrams >= SOCKET_MAX {
                return false;
            }
            self.datagrams += 1;
        }
        self.inbox.push_back(news);
        true
    }

    /// What arrived first.
    pub(crate) fn next_news(&mut self) -> Option<News> {
        let news = self.inbox.pop_front()?;
        if let News::Datagram { .. } = news {
            self.datagrams -= 1;
        }
        Some(news)
    }
}

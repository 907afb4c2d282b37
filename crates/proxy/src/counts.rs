//! What a proxy tells of what it has done.

use std::time::Duration;

/// What a proxy has done so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Connections (or UDP sessions) that were accepted.
    pub accepted: u64,
    /// Those that are open now.
    pub active: u32,
    /// Those that found no backend and were reset, and datagrams that found no session.
    pub refused: u64,
    /// Connections that were closed, and datagrams that were not heard, for who sent them.
    pub denied: u64,
    /// How often the limit was met and accepting stopped for a while.
    pub limited: u64,
    /// Connections that were closed, and datagrams that got no session, because their client opens too many.
    pub throttled: u64,
    /// Connections that did not begin as they should: no PROXY header, or nothing in time.
    pub unheard: u64,
    /// How often a backend was left alone for what connections have seen of it.
    pub ejections: u64,
    /// Connections that wait now for a backend to have room.
    pub waiting: u32,
    /// Those that have waited, or do so now.
    pub queued: u64,
    /// Those that found no place to wait, or waited too long.
    pub unserved: u64,
    /// Connections and sessions that got the backend that their client had.
    pub stuck: u64,
    /// Sessions whose first datagram has a connection id that names nobody here.
    pub unnamed: u64,
    /// Each backend; one that left stays as long as it has connections.
    pub backends: Vec<BackendCounts>,
}

/// What one backend has done so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BackendCounts {
    /// Its name.
    pub name: String,
    /// Connections it was given.
    pub connections: u64,
    /// Those that are open now.
    pub active: u32,
    /// Connections that it did not accept in time.
    pub failures: u64,
    /// How long it is left alone for what connections have seen of it, if it is.
    pub ejected: Option<Duration>,
    /// Bytes from clients to it.
    pub bytes_to: u64,
    /// Bytes from it to clients.
    pub bytes_from: u64,
}

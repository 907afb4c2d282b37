//! Who gets the backend that it had before (`persist_timeout`), and whose datagram names one (`quic`).
//!
//! Those that are up count, whether or not they take new connections: one that is drained keeps its clients.

use crate::Settings;
use crate::front::Caller;
use buoy_core::stick::Clients;
use buoy_model::{Backend, Named, ServerId, name_key};
use std::net::SocketAddr;
use std::time::Duration;

/// What one port knows of it.
#[derive(Debug, Default)]
pub(crate) struct Again {
    clients: Clients,
    taking: Vec<Known>,
    finishing: Vec<Known>,
    /// Connections and sessions that got the backend that their client had.
    pub(crate) stuck: u64,
    /// Sessions whose first datagram names nobody here.
    pub(crate) unnamed: u64,
}

/// A backend that is up.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    key: u32,
    id: Option<ServerId>,
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// Connections that it gets.
    pub(crate) max: u32,
    is_named: bool,
}

impl Known {
    fn new(backend: &Backend) -> Self {
        Self {
            key: name_key(&backend.name),
            id: backend.server_id,
            name: backend.name.clone(),
            address: backend.address,
            max: backend.connections_max.unwrap_or(u32::MAX),
            is_named: false,
        }
    }
}

impl Again {
    /// These take new connections.
    pub(crate) fn take(&mut self, backends: &[Backend]) {
        self.taking = backends.iter().map(Known::new).collect();
    }

    /// These are up as well.
    pub(crate) fn finish(&mut self, backends: &[Backend]) {
        self.finishing = backends.iter().map(Known::new).collect();
    }

    /// Whom a connection or session belongs to, if anybody.
    pub(crate) fn find(
        &mut self,
        settings: &Settings,
        now: Duration,
        caller: &Caller,
    ) -> Option<Known> {
        let mut all = self.taking.iter().chain(&self.finishing);
        let named = match caller.named {
            Named::Server(id) | Named::Perhaps(id) => all.find(|known| known.id == Some(id)),
            Named::Stranger | Named::Nobody => None,
        };
        if let Some(known) = named {
            return Some(Known { is_named: true, ..known.clone() });
        }
        if matches!(caller.named, Named::Server(_) | Named::Stranger) {
            self.unnamed += 1;
        }
        let stick = settings.life.stick?;
        let (client, _) = stick.client.of(caller.client);
        let key = self.clients.get(now, client.to_canonical(), stick.timeout)?;
        let mut all = self.taking.iter().chain(&self.finishing);
        all.find(|known| known.key == key).cloned()
    }

    /// It took it.
    pub(crate) fn took(
        &mut self,
        settings: &Settings,
        now: Duration,
        caller: &Caller,
        known: &Known,
    ) {
        self.stuck += u64::from(!known.is_named);
        self.learn(settings, now, caller, &known.name);
    }

    /// The client has this backend now.
    pub(crate) fn learn(
        &mut self,
        settings: &Settings,
        now: Duration,
        caller: &Caller,
        backend: &str,
    ) {
        let Some(stick) = settings.life.stick else { return };
        let (client, _) = stick.client.of(caller.client);
        self.clients.put(now, client.to_canonical(), name_key(backend));
    }
}

//! The vocabulary: what people want, what is decided, what happened, and every limit.
//!
//! The flow is `Desired` (what people want, complete and checked) into the machines of `core`,
//! which take an `Event` at an `Instant` and answer with `Action`s. Every crate speaks these
//! words and no other. Absent on purpose: behaviour, clocks, sockets, text.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod action;
mod backend_order;
mod check;
mod desired;
mod discovery;
mod event;
mod exchange;
mod fast;
mod flow;
mod flow_fields;
mod front;
mod hook;
mod id;
pub mod limits;
mod link;
mod locality;
mod message;
mod pool;
mod ports;
mod quic;
mod rate;
mod record;
mod service;
mod sources;
mod time;
mod traces;
mod virtual_route;
mod vrrp;

pub use action::{Action, FrameKind, Guard, SharedLease};
pub use backend_order::{BackendId, BackendOrder, Duty, OrderVersion, OrderedWeight};
pub use check::{
    Check, CheckKind, DNS_TYPES, HttpCheck, Load, Measured, Opinion, Pace, PostgresRole, Running,
    Sought, Statuses, Subject, TlsCheck, Told, Via, dns_type,
};
pub use desired::{
    Desired, Failback, Group, MetricAlias, Node, NodeCheck, NodeCheckKind, Presence, Safety, Share,
    Timing, VipAddress,
};
pub use discovery::{Discovery, DiscoveryPlace};
pub use event::{Event, Fitness, Order};
pub use exchange::{ExchangeHeader, Topic};
pub use fast::{FastBackend, FastPath, FastService, Forward, GUE_PORT, Slot, Standing};
pub use flow::{FlowNews, FlowSigns, History, HistoryPiece, HistorySlot, Remembered, Translation};
pub use flow_fields::{FlowFields, Prefixes};
pub use front::{Front, Route, ServerName};
pub use hook::{Hook, HookAct, HookStyle, HookTopic, VrrpState};
pub use id::{
    ClusterId, Epoch, GroupId, Incarnation, Leg, ListVersion, NodeId, Sequence, name_key,
};
pub use link::{Cidr, LinkId, Mac};
pub use locality::{Locality, Location};
pub use message::{
    Claim, ClaimKind, Grant, Header, Message, MessageKind, Rest, Verdict, WireVersion,
};
pub use pool::{Block, Given, Giving, Pool, Reserved};
pub use ports::Ports;
pub use quic::{CONFIG_UNROUTABLE, Named, Quic, SERVER_ID_MAX, ServerId};
pub use rate::{Per, Rate, client};
pub use record::{Cause, Fact, Record};
pub use service::{
    Backend, BackendLife, BackendState, Balance, Eject, Mode, OnDown, Protocol, SendProxy, Service,
    SourceAddress, Stick,
};
pub use sources::{SourceRule, Sources, is_mapped, network};
pub use time::Instant;
pub use traces::Traces;
pub use virtual_route::{TABLE_MAIN, VirtualRoute, VirtualRule};
pub use vrrp::{
    Advert, AdvertReject, HeardAdvert, HmacMode, PRIORITY_OWNER, PRIORITY_RELEASE, Password, Proof,
    Stamp, VirtualRouter, VrrpAuth, VrrpChecksum, VrrpHmac, VrrpKey, VrrpVersion, router_label,
};

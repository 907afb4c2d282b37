//! Reads how a service chooses a backend (`balance`, `persist`), and says which engine can do so.
//!
//! | | `kernel` | `xdp` | `proxy` |
//! |---|---|---|---|
//! | `hash`, `source` | yes | yes | yes |
//! | `maglev` | no | yes, and the same as `hash` | yes |
//! | `roundrobin` | yes | no | yes |
//! | all others | no | no | yes |

use crate::Code;
use crate::keys::{Key, service};
use crate::persist::{self, Persist};
use crate::report::{At, Problems};
use crate::tree::{Section, Word};
use buoy_model::{Backend, Balance, FlowFields, Mode, SourceAddress, Stick};

/// The words of `balance`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Hash,
    /// `Hash` of the client's address alone.
    Source,
    /// What `Hash` is in mode "xdp".
    Maglev,
    Rendezvous,
    RoundRobin,
    LeastConnections,
    ShortestDelay,
    Random,
    First,
}

/// `Also`: what IPVS calls them.
const WORDS: [(&str, Word<Way>); 17] = [
    ("hash", Word::Now(Way::Hash)),
    ("source", Word::Now(Way::Source)),
    ("maglev", Word::Now(Way::Maglev)),
    ("rendezvous", Word::Now(Way::Rendezvous)),
    ("roundrobin", Word::Now(Way::RoundRobin)),
    ("leastconn", Word::Now(Way::LeastConnections)),
    ("sed", Word::Now(Way::ShortestDelay)),
    ("random", Word::Now(Way::Random)),
    ("first", Word::Now(Way::First)),
    ("sh", Word::Also(Way::Source)),
    ("mh", Word::Also(Way::Maglev)),
    ("hrw", Word::Also(Way::Rendezvous)),
    ("rr", Word::Also(Way::RoundRobin)),
    ("wrr", Word::Also(Way::RoundRobin)),
    ("round_robin", Word::Also(Way::RoundRobin)),
    ("lc", Word::Also(Way::LeastConnections)),
    ("wlc", Word::Also(Way::LeastConnections)),
];

/// What the file says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chosen {
    way: Option<Way>,
    persist: Persist,
    /// Whether both could be read, as far as they are there.
    pub(crate) readable: bool,
}

pub(crate) fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Chosen {
    let way = section.word(&service::BALANCE, &WORDS, problems).map(|word| word.value);
    let persist = persist::read(section, problems);
    let read = |key: &Key, value: bool| value || !section.has(key);
    let readable = read(&service::BALANCE, way.is_some()) && persist.readable;
    Chosen { way, persist, readable }
}

impl Chosen {
    /// Whether only the proxy can do it, so that the word chooses it.
    pub(crate) fn needs_proxy(&self) -> bool {
        self.way.is_some_and(needs_proxy)
    }

    /// What makes connections of a client one.
    pub(crate) fn fields(&self) -> FlowFields {
        if self.is_by_client() { self.persist.client() } else { FlowFields::Connection }
    }

    fn is_by_client(&self) -> bool {
        self.way == Some(Way::Source) || self.persist.is_wanted
    }

    /// For how long clients are remembered.
    pub(crate) fn stick(&self) -> Option<Stick> {
        self.persist.stick()
    }

    /// What of `persist` cannot be done.
    pub(crate) fn refuse_persist(
        &self,
        section: &Section<'_>,
        (mode, source): (Mode, &SourceAddress),
        problems: &mut Problems<'_>,
    ) {
        let how = (mode, source, self.is_by_client());
        self.persist.refuse_misplaced(section, how, problems);
    }

    /// What it means in this mode.
    pub(crate) fn of(&self, mode: Mode) -> Balance {
        let default = match (mode, self.persist.is_wanted) {
            // Whoever asks for the same backend again asks for hashing.
            (Mode::Kernel | Mode::Xdp { .. }, _) | (Mode::Proxy, true) => Way::Hash,
            (Mode::Proxy, false) => Way::RoundRobin,
        };
        let fields = self.fields();
        match (self.way.unwrap_or(default), mode) {
            (Way::Hash | Way::Source, _) | (Way::Maglev, Mode::Kernel | Mode::Xdp { .. }) => {
                Balance::Hash(fields)
            }
            (Way::Maglev, Mode::Proxy) => Balance::Maglev(fields),
            (Way::Rendezvous, _) => Balance::Rendezvous(fields),
            (Way::RoundRobin, _) => Balance::RoundRobin,
            (Way::LeastConnections, _) => Balance::LeastConnections,
            (Way::ShortestDelay, _) => Balance::ShortestDelay,
            (Way::Random, _) => Balance::Random,
            (Way::First, _) => Balance::First,
        }
    }

    /// What the engine of this mode cannot do.
    pub(crate) fn refuse_misplaced(
        &self,
        section: &Section<'_>,
        mode: Mode,
        (reason, fix): (&str, &str),
        problems: &mut Problems<'_>,
    ) {
        let Some(way) = self.way else { return };
        let Some(span) = section.key_span(&service::BALANCE) else { return };
        let word = word(way);
        match (mode, way) {
            (Mode::Proxy, _) => {}
            (Mode::Kernel | Mode::Xdp { .. }, _) if needs_proxy(way) => {
                let message = format!("`balance = \"{word}\"` works in mode \"proxy\" only");
                problems.add(Code::NeedsProxy, &span, message, reason, fix);
            }
            (Mode::Kernel, Way::Maglev) => {
                let message = "`balance = \"maglev\"` does not work in mode \"kernel\"";
                let reason = "nftables would have to list thousands of slots; the 256 of \"hash\" \
                              are as even, and as few of them change hands";
                let fix =
                    "write balance = \"hash\", or `forward` for mode \"xdp\", or mode = \"proxy\"";
                problems.add(Code::NotInKernel, &span, message, reason, fix);
            }
            (Mode::Xdp { .. }, Way::RoundRobin) => {
                let message = "`balance = \"roundrobin\"` does not work in mode \"xdp\"";
                let reason = "nobody remembers there whose turn it was for a connection";
                let fix = "remove the line: in mode \"xdp\" it is \"maglev\"";
                problems.add(Code::NotInXdp, &span, message, reason, fix);
            }
            (Mode::Kernel | Mode::Xdp { .. }, _) => {}
        }
    }

    /// What one of the two says against the other.
    pub(crate) fn refuse_contradiction(
        &self,
        section: &Section<'_>,
        mode: Mode,
        problems: &mut Problems<'_>,
    ) {
        let Some(span) = section.key_span(&service::PERSIST) else { return };
        match self.of(mode) {
            _ if self.persist.remembers() => {}
            Balance::Hash(_) | Balance::Maglev(_) | Balance::Rendezvous(_) => {}
            Balance::RoundRobin
            | Balance::LeastConnections
            | Balance::ShortestDelay
            | Balance::Random
            | Balance::First => {
                let word = self.way.map_or("roundrobin", word);
                let message = format!("`persist` and `balance = \"{word}\"` contradict each other");
                let reason =
                    "a client has the same backend again only where it is found by hashing";
                let fix = "write balance = \"source\", or add persist_timeout = \"5m\", or remove `persist`";
                problems.add(Code::Contradiction, &span, message, reason, fix);
            }
        }
    }

    /// Who fills one after the other must know when one is full.
    pub(crate) fn refuse_endless(
        &self,
        section: &Section<'_>,
        mode: Mode,
        backends: &[At<Backend>],
        problems: &mut Problems<'_>,
    ) {
        let is_limited = section.has(&service::BACKEND_MAX_CONNECTIONS);
        if self.way != Some(Way::First) || mode != Mode::Proxy || is_limited {
            return;
        }
        let endless = |b: &&At<Backend>| b.value.connections_max.is_none() && !b.value.backup;
        let Some(endless) = backends.iter().find(endless) else { return };
        let message = format!("backend {} has no maximum", endless.value.name);
        let reason = "`balance = \"first\"` goes on to the next backend when one has its maximum";
        let fix = "write max=N into each backend, or backend_max_connections = N for all";
        problems.add(Code::NeedsOther, &endless.span, message, reason, fix);
    }
}

const fn needs_proxy(way: Way) -> bool {
    match way {
        Way::Hash | Way::Source | Way::Maglev | Way::RoundRobin => false,
        Way::Rendezvous | Way::LeastConnections | Way::ShortestDelay | Way::Random | Way::First => {
            true
        }
    }
}

const fn word(way: Way) -> &'static str {
    match way {
        Way::Hash => "hash",
        Way::Source => "source",
        Way::Maglev => "maglev",
        Way::Rendezvous => "rendezvous",
        Way::RoundRobin => "roundrobin",
        Way::LeastConnections => "leastconn",
        Way::ShortestDelay => "sed",
        Way::Random => "random",
        Way::First => "first",
    }
}

//! One table of nftables as data, and the transactions that make one of another.
//!
//! ```text
//! hook ─► shared map (address, protocol, port) ─► chain of a service
//! ```
//!
//! A chain of a service has a name that tells what is in it (a hash), so it is never changed: another one is put beside
//! it, the map leads there, and the old one goes. So a change of one service costs the same among one and among
//! thousands, and what an earlier agent left is known by its names alone.
//!
//! The kernel does a transaction in one go, and where it does not preempt itself nothing else runs on that processor
//! meanwhile, not even the loop, which is a lease. So much work is cut into many transactions: first all that is
//! new and that nothing leads to yet, then what changes (in one transaction, however much it is), then what has
//! gone. Between them, everything that was there before goes on as it was.

use super::TABLE;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

/// Characters of a script in one transaction: some 4 ms of a processor.
const TRANSACTION_MAX: usize = 32 << 10;
/// Elements in one command.
const ELEMENTS_MAX: usize = 64;
/// The least size of a shared set.
const SIZE_MIN: usize = 64;

/// What packets a table is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TableFamily {
    Inet,
    Ip,
    Ip6,
    Netdev,
}

impl TableFamily {
    /// The word of `nft`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Netdev => "netdev",
        }
    }

    /// The number of the kernel.
    pub(super) const fn number(self) -> i32 {
        match self {
            Self::Inet => libc::NFPROTO_INET,
            Self::Ip => libc::NFPROTO_IPV4,
            Self::Ip6 => libc::NFPROTO_IPV6,
            Self::Netdev => libc::NFPROTO_NETDEV,
        }
    }
}

/// All that a table has.
#[derive(Debug)]
pub(crate) struct Ruleset {
    family: TableFamily,
    counters: BTreeSet<String>,
    /// Sets that rules put elements into, with what they are.
    learning: BTreeMap<String, String>,
    shared: Vec<Shared>,
    /// By their names, which come of their rules.
    chains: BTreeMap<String, Chain>,
    /// Their rules, one line each. A thousand services have megabytes of them: in one place they are given back to the
    /// kernel when they have been used, and each in a place of its own they leave holes.
    rules: String,
    hooks: BTreeMap<String, Hook>,
}

/// A chain of a service.
#[derive(Debug)]
struct Chain {
    /// Where its rules are in `Ruleset::rules`.
    at: Range<usize>,
    /// How many they are.
    count: usize,
}

/// A chain that the kernel calls.
#[derive(Debug, Eq, PartialEq)]
struct Hook {
    at: String,
    rules: Vec<String>,
}

/// A set or a map that rules of a hook look into.
#[derive(Debug)]
pub(crate) struct Shared {
    name: String,
    kind: &'static str,
    definition: String,
    has_ranges: bool,
    /// By their keys; what they lead to, or nothing.
    elements: BTreeMap<String, String>,
}

/// The elements of a set, with and without ranges: the kernel keeps them in different ways.
#[derive(Debug, Default)]
pub(crate) struct Elements {
    one: BTreeMap<String, String>,
    ranges: BTreeMap<String, String>,
}

impl Elements {
    /// What a key leads to.
    pub(crate) fn add(&mut self, key: String, is_range: bool, to: String) {
        let of = if is_range { &mut self.ranges } else { &mut self.one };
        of.insert(key, to);
    }
}

/// What the kernel has of a table.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Names {
    counters: BTreeSet<String>,
    /// With `set` or `map`.
    sets: BTreeMap<String, String>,
    /// With the number of their rules.
    chains: BTreeMap<String, usize>,
}

/// What a table is made from.
pub(crate) enum There<'r> {
    /// There is none.
    Nothing,
    /// Exactly this.
    Known(&'r Ruleset),
    /// Whatever has these names.
    Seen(Names),
}

impl<'r> There<'r> {
    /// What is there after somebody made it so.
    pub(crate) fn known(ruleset: &'r Ruleset) -> Self {
        if ruleset.is_empty() { Self::Nothing } else { Self::Known(ruleset) }
    }
}

impl Ruleset {
    pub(crate) const fn new(family: TableFamily) -> Self {
        Self {
            family,
            counters: BTreeSet::new(),
            learning: BTreeMap::new(),
            shared: Vec::new(),
            chains: BTreeMap::new(),
            rules: String::new(),
            hooks: BTreeMap::new(),
        }
    }

    pub(crate) const fn family(&self) -> TableFamily {
        self.family
    }

    /// Whether it does nothing.
    fn is_empty(&self) -> bool {
        self.hooks.is_empty()
    }

    pub(crate) fn counter(&mut self, name: String) {
        self.counters.insert(name);
    }

    /// A set that rules put elements into.
    pub(crate) fn learning(&mut self, name: String, definition: String) {
        self.learning.insert(name, definition);
    }

    /// A chain with these rules; its name.
    pub(crate) fn chain(&mut self, name: &str, rules: &[String]) -> String {
        let mut hasher = DefaultHasher::new();
        rules.hash(&mut hasher);
        let name = format!("{name}_{:016x}", hasher.finish());
        let from = self.rules.len();
        if !self.chains.contains_key(&name) {
            for rule in rules {
                self.rules.push_str(rule);
                self.rules.push('\n');
            }
            let chain = Chain { at: from..self.rules.len(), count: rules.len() };
            self.chains.insert(name.clone(), chain);
        }
        name
    }

    fn rules_of(&self, chain: &Chain) -> impl Iterator<Item = &str> {
        self.rules.get(chain.at.clone()).unwrap_or_default().lines()
    }

    /// Sets or maps with these elements, to whose keys that type belongs; the names of those that are needed.
    pub(crate) fn shared(
        &mut self,
        name: &str,
        key: &str,
        to: Option<&str>,
        all: Elements,
    ) -> Vec<String> {
        let (kind, of) = match to {
            Some(to) => ("map", format!("type {key} : {to};")),
            None => ("set", format!("type {key};")),
        };
        // What comes is there before what goes has gone.
        let size = (2 * all.one.len()).next_power_of_two().max(SIZE_MIN);
        // Of that size the kernel makes a table that needs no growing, the faster one.
        let one = (format!("{name}_{size}"), format!("{of} size {size};"), false, all.one);
        let ranges = (format!("{name}_ranges"), format!("{of} flags interval;"), true, all.ranges);
        let mut names = Vec::new();
        for (name, definition, has_ranges, elements) in [one, ranges] {
            if !elements.is_empty() {
                names.push(name.clone());
                self.shared.push(Shared { name, kind, definition, has_ranges, elements });
            }
        }
        names
    }

    /// A chain that the kernel calls.
    pub(crate) fn hook(&mut self, name: String, at: String, rules: Vec<String>) {
        self.hooks.insert(name, Hook { at, rules });
    }

    fn find(&self, name: &str) -> Option<&Shared> {
        self.shared.iter().find(|set| set.name == name)
    }

    fn names(&self) -> Names {
        let shared = self.shared.iter().map(|set| (set.name.clone(), set.kind.to_owned()));
        let learning = self.learning.keys().map(|name| (name.clone(), "set".to_owned()));
        Names {
            counters: self.counters.clone(),
            sets: shared.chain(learning).collect(),
            chains: self.lengths().collect(),
        }
    }

    /// All chains, and how many rules each has.
    fn lengths(&self) -> impl Iterator<Item = (String, usize)> {
        let hooks = self.hooks.iter().map(|(name, hook)| (name, hook.rules.len()));
        let chains = self.chains.iter().map(|(name, chain)| (name, chain.count));
        chains.chain(hooks).map(|(name, count)| (name.clone(), count))
    }

    /// What makes the table into this one, in the order in which it has to happen.
    pub(crate) fn steps(&self, there: &There<'_>, steps: &mut Transactions) {
        if self.is_empty() {
            return match there {
                There::Nothing => {}
                There::Known(_) | There::Seen(_) => {
                    steps.push(&format!("delete table {} {TABLE}\n", self.family.word()));
                }
            };
        }
        let (known, names) = match there {
            There::Nothing => (None, &Names::default()),
            There::Known(known) => (Some(*known), &known.names()),
            There::Seen(names) => (None, names),
        };
        if known.is_none() {
            steps.push(&format!("add table {} {TABLE}\n", self.family.word()));
        }
        self.add(known, names, steps);
        let switch = self.switch(known, names);
        if !switch.is_empty() {
            steps.push(&switch);
        }
        self.sweep(names, steps);
    }

    /// `nft`'s words for something of this table.
    fn at(&self, name: &str) -> String {
        format!("{} {TABLE} {name}", self.family.word())
    }

    /// What is new and does not change what is there.
    fn add(&self, known: Option<&Self>, names: &Names, steps: &mut Transactions) {
        for name in self.counters.difference(&names.counters) {
            steps.push(&format!("add counter {}\n", self.at(name)));
        }
        let learning = self.learning.iter().map(|(name, of)| (name, "set", of));
        let shared = self.shared.iter().map(|set| (&set.name, set.kind, &set.definition));
        for (name, kind, definition) in learning.chain(shared) {
            if !names.sets.contains_key(name) {
                steps.push(&format!("add {kind} {} {{ {definition} }}\n", self.at(name)));
            }
        }
        let is_new = |(name, chain): &(&String, &Chain)| {
            names.chains.get(*name).is_none_or(|length| *length != chain.count)
        };
        // All chains before the first rule, for rules speak of other chains.
        for (name, _) in self.chains.iter().filter(is_new) {
            // Somebody may have emptied it.
            let verb = if names.chains.contains_key(name) { "flush" } else { "add" };
            steps.push(&format!("{verb} chain {}\n", self.at(name)));
        }
        let mut text = String::new();
        for (name, chain) in self.chains.iter().filter(is_new) {
            text.clear();
            self.add_rules(name, self.rules_of(chain), &mut text);
            steps.push(&text);
        }
        for set in self.shared.iter().filter(|set| !set.has_ranges) {
            let before = known.and_then(|known| known.find(&set.name));
            if before.is_none() && names.sets.contains_key(&set.name) {
                continue;
            }
            let is_new = |key: &String| before.is_none_or(|set| !set.elements.contains_key(key));
            let new = set.elements.iter().filter(|(key, _)| is_new(key));
            let new = new.map(|(key, to)| written(key, to));
            self.elements("add", &set.name, new).for_each(|step| steps.push(&step));
        }
    }

    /// What changes what is there.
    fn switch(&self, known: Option<&Self>, names: &Names) -> String {
        let mut text = String::new();
        for set in &self.shared {
            let before = known.and_then(|known| known.find(&set.name));
            let (gone, new) = match before {
                Some(before) => changed(before, set),
                None if names.sets.contains_key(&set.name) => {
                    let _ = writeln!(text, "flush {} {}", set.kind, self.at(&set.name));
                    (Vec::new(), set.elements.iter().collect())
                }
                None if set.has_ranges => (Vec::new(), set.elements.iter().collect()),
                None => continue,
            };
            let new = new.into_iter().map(|(key, to)| written(key, to));
            text.extend(self.elements("delete", &set.name, gone.into_iter().cloned()));
            text.extend(self.elements("add", &set.name, new));
        }
        for (name, hook) in &self.hooks {
            let before = known.and_then(|known| known.hooks.get(name));
            if before == Some(hook) {
                continue;
            }
            let at = self.at(name);
            let _ = writeln!(text, "add chain {at} {{ type {}; policy accept; }}", hook.at);
            if names.chains.contains_key(name) {
                let _ = writeln!(text, "flush chain {at}");
            }
            self.add_rules(name, hook.rules.iter().map(String::as_str), &mut text);
        }
        // Nothing comes by there any more, also where what they look into stays for a while.
        for name in known.iter().flat_map(|known| known.hooks.keys()) {
            if !self.hooks.contains_key(name) {
                let _ = writeln!(text, "flush chain {}", self.at(name));
            }
        }
        text
    }

    /// What nobody needs any more.
    fn sweep(&self, names: &Names, steps: &mut Transactions) {
        let stays = |name: &String| self.chains.contains_key(name) || self.hooks.contains_key(name);
        let gone: Vec<&String> = names.chains.keys().filter(|name| !stays(name)).collect();
        // Chains speak of sets and of other chains, and maps lead to chains.
        let chains = |verb| {
            let line = move |name: &&String| format!("{verb} chain {}\n", self.at(name));
            gone.iter().map(line)
        };
        chains("flush").for_each(|step| steps.push(&step));
        for (name, kind) in &names.sets {
            if !self.learning.contains_key(name) && self.find(name).is_none() {
                steps.push(&format!("delete {kind} {}\n", self.at(name)));
            }
        }
        chains("delete").for_each(|step| steps.push(&step));
        for name in names.counters.difference(&self.counters) {
            steps.push(&format!("delete counter {}\n", self.at(name)));
        }
    }

    fn add_rules<'r>(&self, chain: &str, rules: impl Iterator<Item = &'r str>, text: &mut String) {
        for rule in rules {
            let _ = writeln!(text, "add rule {} {rule}", self.at(chain));
        }
    }

    /// A verb of elements, not too many at a time.
    fn elements(
        &self,
        verb: &str,
        set: &str,
        all: impl Iterator<Item = String>,
    ) -> impl Iterator<Item = String> {
        let all: Vec<String> = all.collect();
        let at = self.at(set);
        let line = |some: &[String]| format!("{verb} element {at} {{ {} }}\n", some.join(", "));
        all.chunks(ELEMENTS_MAX).map(line).collect::<Vec<_>>().into_iter()
    }
}

fn written(key: &str, to: &str) -> String {
    if to.is_empty() { key.to_owned() } else { format!("{key} : {to}") }
}

/// The keys that have to go, and the elements that come after them. Ranges may overlap, so they all change here.
fn changed<'s>(
    before: &'s Shared,
    set: &'s Shared,
) -> (Vec<&'s String>, Vec<(&'s String, &'s String)>) {
    let stays = |key: &String, to: &String| set.elements.get(key) == Some(to);
    let gone = before.elements.iter().filter(|(key, to)| !stays(key, to)).map(|(key, _)| key);
    let is_due = |key: &String, to: &String| match before.elements.get(key) {
        Some(before) => before != to,
        None => set.has_ranges,
    };
    let new = set.elements.iter().filter(|(key, to)| is_due(key, to));
    (gone.collect(), new.collect())
}

/// Scripts for `nft -f`, each of which is done in one go, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    /// In one place, as rules are.
    text: String,
    /// Where each of them ends.
    ends: Vec<usize>,
}

impl Transactions {
    /// Does this too, all at once; with what comes before it if that is not too much.
    fn push(&mut self, step: &str) {
        let before = self.ends.len().checked_sub(2).and_then(|n| self.ends.get(n)).copied();
        let last = self.text.len() - before.unwrap_or_default();
        self.text.push_str(step);
        let end = self.text.len();
        match self.ends.last_mut().filter(|_| last + step.len() <= TRANSACTION_MAX) {
            Some(last) => *last = end,
            None => self.ends.push(end),
        }
    }

    pub(crate) fn scripts(&self) -> impl Iterator<Item = &str> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).filter_map(|(from, to)| self.text.get(from..*to))
    }

    /// All of them, one after the other.
    pub(crate) fn whole(&self) -> &str {
        &self.text
    }
}

impl Names {
    /// Reads what `nft --terse list table` prints.
    pub(crate) fn parse(text: &str) -> Self {
        let mut names = Self::default();
        let mut chain: Option<&mut usize> = None;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match (words.as_slice(), &mut chain) {
                (["}"], _) => chain = None,
                (["type", "filter" | "nat", "hook", ..] | [], Some(_)) => {}
                (_, Some(rules)) => **rules += 1,
                (["counter", name, "{"], None) => {
                    names.counters.insert((*name).to_owned());
                }
                ([kind @ ("set" | "map"), name, "{"], None) => {
                    names.sets.insert((*name).to_owned(), (*kind).to_owned());
                }
                (["chain", name, "{"], None) => {
                    chain = Some(names.chains.entry((*name).to_owned()).or_default());
                }
                (_, None) => {}
            }
        }
        names
    }
}

//! Says what a wish changes: which entries over the file say what afterwards.
//!
//! An entry that says what the file has anyway is taken back: what was edited by hand into the file later holds.

mod service;

use buoy_config::layer::{self, reservation_key, vip_key as key, vip_name};
use buoy_config::nearest;
use buoy_model::{Desired, Given, Group, Service};
use buoy_store::{Change, Content, State};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use toml::Table;

/// What somebody wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// The whole configuration to be this text.
    Text(String),
    /// A VIP that there is not yet.
    Add(Value),
    /// A VIP to be this, whether there is one or not.
    Put(String, Value),
    /// A VIP with these keys changed (RFC 7396).
    Patch(String, Value),
    /// A VIP to be no more.
    Remove(String),
    /// Something of one service.
    Service(Place, ServiceWish),
    /// Something of a backend of the service of one VIP.
    Backend(Place, String, BackendWish),
    /// An address of a pool to be kept for somebody.
    Reserve(IpAddr, String),
    /// An address of a pool to be kept for nobody.
    Free(IpAddr),
    /// All to be as it was after a revision.
    Rollback(u64),
}

/// What is wanted of a service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ServiceWish {
    /// To be this, whether there is one or not.
    Put(Value),
    /// To have other values of these keys (RFC 7396).
    Patch(Value),
    Remove,
}

/// What is wanted of a backend.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum BackendWish {
    Put(Value),
    Patch(Value),
    Remove,
}

/// A service as the file knows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// The name of its VIP, or one of its addresses.
    vip: Option<String>,
    /// Its port, as in `443/tcp`.
    port: String,
    /// As people call it.
    name: String,
}

impl Place {
    pub(crate) fn of(group: &Group, service: &Service) -> Self {
        let port = format!("{}/{}", service.ports, service.protocol.name());
        let name = buoy_api::service_name(group, service);
        Self { vip: group.vip_of(service).map(str::to_owned), port, name }
    }

    /// One that need not be there yet, by its whole name: `web:443/tcp`, `[2001:db8::100]:443/tcp`.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (vip, port) = name.rsplit_once(':')?;
        let bare = vip.strip_prefix('[').and_then(|vip| vip.strip_suffix(']')).unwrap_or(vip);
        let is_whole = !bare.is_empty() && port.contains('/');
        let (vip, port) = (Some(bare.to_owned()), port.to_owned());
        is_whole.then(|| Self { vip, port, name: name.to_owned() })
    }

    /// That no VIP of the file and of the edits is written with it.
    pub(crate) fn of_no_vip(&self) -> Unplanned {
        let why = "it is that of a pool: change it in the file".to_owned();
        Unplanned::Unknown(format!("no VIP has the service {}", self.name), why)
    }

    /// The same under the name of its VIP, where a pool gave that the address.
    pub(crate) fn meant(&self, plan: &Plan<'_>, desired: &Desired) -> Self {
        let vip = self.vip.as_ref().map(|vip| plan.meant(vip, desired));
        Self { vip, ..self.clone() }
    }
}

/// Why a wish means nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Unplanned {
    /// It is no VIP, no backend, no text.
    Malformed(String),
    /// It would change what can only be changed in the file.
    OnlyInFile(String),
    /// There is no such thing; what is near.
    Unknown(String, String),
    /// There is one already.
    Exists(String),
    /// That revision is not remembered.
    Forgotten { asked: u64, oldest: u64, newest: u64 },
}

/// The file, and what was edited.
pub(crate) struct Plan<'a> {
    rest: Table,
    file: BTreeMap<String, Table>,
    state: &'a State,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(file: &str, state: &'a State) -> Result<Self, Unplanned> {
        let (rest, file) = layer::take_apart(file).map_err(Unplanned::Malformed)?;
        Ok(Self { rest, file, state })
    }

    /// The entry as it is with what was edited.
    fn entry(&self, key: &str) -> Option<Table> {
        match self.state.entries.get(key).map(|entry| &entry.content) {
            Some(Content::Set(value)) => table(value).ok(),
            Some(Content::Hidden) => None,
            Some(Content::AsFile) | None => self.file.get(key).cloned(),
        }
    }

    /// The VIP as it is with what was edited.
    pub(crate) fn vip(&self, name: &str) -> Option<Table> {
        self.entry(&key(name))
    }

    /// The entries that are there with what was edited.
    fn keys(&self) -> BTreeSet<&str> {
        let all = self.file.keys().chain(self.state.entries.keys());
        all.map(String::as_str).filter(|key| self.entry(key).is_some()).collect()
    }

    /// The names of all VIPs with what was edited.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let names = self.keys().into_iter().filter_map(|key| key.strip_prefix("vip/"));
        names.map(str::to_owned).collect()
    }

    /// The name of the VIP that is called so, or has that address.
    pub(crate) fn find(&self, asked: &str) -> Option<String> {
        let names = self.names();
        if names.contains(asked) {
            return Some(asked.to_owned());
        }
        let address: IpAddr = asked.split('/').next()?.parse().ok()?;
        names.into_iter().find(|name| self.vip(name).is_some_and(|vip| has(&vip, address)))
    }

    /// The name of the VIP that is asked for by an address which a pool gave it.
    pub(crate) fn meant(&self, asked: &str, desired: &Desired) -> String {
        let address: Option<IpAddr> = asked.split('/').next().and_then(|text| text.parse().ok());
        let mut all = desired.groups.iter().flat_map(|group| &group.addresses);
        let given = all.find(|a| Some(a.cidr.address()) == address).map(|a| &a.vip_name);
        match given.filter(|name| self.find(asked).is_none() && self.vip(name).is_some()) {
            Some(name) => name.clone(),
            None => asked.to_owned(),
        }
    }

    /// What the wish changes; nothing where all is so already.
    pub(crate) fn changes(&self, wish: &Wish) -> Result<Vec<Change>, Unplanned> {
        let wanted = match wish {
            Wish::Rollback(revision) => {
                return self.state.back_to(*revision).map_err(|none| Unplanned::Forgotten {
                    asked: *revision,
                    oldest: none.oldest,
                    newest: none.newest,
                });
            }
            Wish::Text(text) => self.whole(text)?,
            Wish::Add(value) => {
                let vip = table(value)?;
                let name = vip_name(&vip).ok_or_else(nameless)?;
                if self.vip(&name).is_some() {
                    return Err(Unplanned::Exists(name));
                }
                vec![(key(&name), Some(vip))]
            }
            Wish::Put(asked, value) => {
                let name = self.find(asked).unwrap_or_else(|| asked.clone());
                vec![(key(&name), Some(named(&name, table(value)?)?))]
            }
            Wish::Patch(asked, patch) => {
                let name = self.known(asked)?;
                let mut vip = json(&self.vip(&name).unwrap_or_default());
                merge(&mut vip, patch);
                vec![(key(&name), Some(named(&name, table(&vip)?)?))]
            }
            Wish::Remove(asked) => vec![(key(&self.known(asked)?), None)],
            Wish::Service(place, wish) => vec![self.with_service(place, wish)?],
            Wish::Backend(place, backend, wish) => vec![self.backend(place, backend, wish)?],
            Wish::Reserve(address, holder) => {
                vec![(reservation_key(*address), Some(reservation(*address, holder)))]
            }
            Wish::Free(address) => vec![(reservation_key(*address), None)],
        };
        let change = |(key, table): (String, Option<Table>)| {
            let content = match (table, self.file.get(&key)) {
                (table, file) if table.as_ref() == file => Content::AsFile,
                (Some(table), _) => Content::Set(json(&table)),
                (None, _) => Content::Hidden,
            };
            Change { key, content }
        };
        let all = wanted.into_iter().map(change);
        Ok(all.filter(|change| self.content(&change.key) != change.content).collect())
    }

    fn content(&self, key: &str) -> Content {
        self.state.entries.get(key).map(|entry| entry.content.clone()).unwrap_or_default()
    }

    fn known(&self, asked: &str) -> Result<String, Unplanned> {
        self.find(asked).ok_or_else(|| {
            let names = self.names();
            let near = nearest(asked, names.iter().map(String::as_str));
            let instead = match near {
                Some(near) => format!("did you mean {near}?"),
                None if names.is_empty() => "there is none".into(),
                None => format!("there are {}", names.into_iter().collect::<Vec<_>>().join(", ")),
            };
            Unplanned::Unknown(format!("there is no VIP {asked:?}"), instead)
        })
    }

    /// All entries of a whole text, and those that it does not have any more.
    fn whole(&self, text: &str) -> Result<Vec<(String, Option<Table>)>, Unplanned> {
        let (rest, entries) = layer::take_apart(text).map_err(Unplanned::Malformed)?;
        let keys: BTreeSet<&String> = rest.keys().chain(self.rest.keys()).collect();
        let differing: Vec<&str> = keys
            .into_iter()
            .filter(|key| rest.get(*key) != self.rest.get(*key))
            .map(String::as_str)
            .collect();
        if !differing.is_empty() {
            return Err(Unplanned::OnlyInFile(differing.join(", ")));
        }
        // What the agents keep goes with what it is kept for: a text need not have it.
        let is_kept = |key: &str| self.entry(key).is_some_and(|table| is_given(key, &table));
        let gone = self.keys().into_iter().filter(|key| !entries.contains_key(*key));
        let gone = gone.filter(|key| !is_kept(key)).map(|key| (key.to_owned(), None));
        let mut all: Vec<_> = gone.collect();
        all.extend(entries.into_iter().map(|(key, table)| (key, Some(table))));
        Ok(all)
    }

    fn backend(
        &self,
        place: &Place,
        backend: &str,
        wish: &BackendWish,
    ) -> Result<(String, Option<Table>), Unplanned> {
        let vip = place.vip.as_ref().and_then(|name| Some((name.clone(), self.vip(name)?)));
        let none = || place.of_no_vip();
        let (name, mut vip) = vip.ok_or_else(none)?;
        let services = vip.get_mut("service").and_then(toml::Value::as_array_mut);
        let mut services = services.into_iter().flatten();
        let service = services.find(|s| s.get("port").is_some_and(|port| names(port, &place.port)));
        let service = service.and_then(toml::Value::as_table_mut).ok_or_else(none)?;
        let mut all = texts(service.get("backends"));
        let at = all.iter().position(|text| Written::parse(text).name == backend);
        match (wish, at) {
            (BackendWish::Remove, Some(at)) => drop(all.remove(at)),
            (BackendWish::Put(value), Some(at)) => all[at] = Written::of(backend, value)?.to_text(),
            (BackendWish::Put(value), None) => all.push(Written::of(backend, value)?.to_text()),
            (BackendWish::Patch(patch), Some(at)) => {
                let mut value = Written::parse(&all[at]).value;
                merge(&mut value, patch);
                all[at] = Written::of(backend, &value)?.to_text();
            }
            (BackendWish::Remove | BackendWish::Patch(_), None) => {
                let what = format!("{backend} is not a backend of {}", place.name);
                let instead = format!(
                    "`backends` has {}; one that was found is changed where it was found",
                    all.join(", ")
                );
                return Err(Unplanned::Unknown(what, instead));
            }
        }
        let list = all.into_iter().map(toml::Value::String).collect();
        service.insert("backends".into(), toml::Value::Array(list));
        Ok((key(&name), Some(vip)))
    }
}

fn reservation(address: IpAddr, holder: &str) -> Table {
    let text = |text: String| toml::Value::String(text);
    let (address, holder) = (text(address.to_string()), text(holder.to_owned()));
    Table::from_iter([("address".to_owned(), address), ("for".to_owned(), holder)])
}

fn is_given(key: &str, table: &Table) -> bool {
    key.starts_with("reservation/")
        && table.get("given").and_then(toml::Value::as_bool) == Some(true)
}

/// What a VIP would lose that a pool gave it, though the edit is not about that VIP.
pub(crate) fn lost(before: &Desired, after: &Desired, changes: &[Change]) -> Option<Given> {
    let about = |vip: &str| {
        let of = |change: &Change| {
            let Content::Set(value) = &change.content else { return change.key == key(vip) };
            change.key == key(vip) || value.get("for").and_then(Value::as_str) == Some(vip)
        };
        changes.iter().any(of)
    };
    let given = |desired: &'_ Desired| {
        desired.pools.iter().flat_map(|pool| pool.given.clone()).collect::<Vec<_>>()
    };
    let still = given(after);
    let is_lost = |was: &Given| {
        let asks = still.iter().any(|is| is.vip == was.vip);
        asks && !still.contains(was) && !about(&was.vip)
    };
    given(before).into_iter().find(is_lost)
}

/// What has to be kept so that VIPs keep what pools gave them, and what need not be kept any more.
pub(crate) fn upkeep(desired: &Desired, state: &State) -> Vec<Change> {
    let mut changes = Vec::new();
    for pool in desired.pools.iter().filter(|pool| pool.can_be_asked()) {
        let kept = |address| pool.reserved.iter().any(|r| r.address == address);
        for Given { vip, address } in pool.given.iter().filter(|given| !kept(given.address)) {
            let mut table = reservation(*address, vip);
            table.insert("given".into(), toml::Value::Boolean(true));
            let content = Content::Set(json(&table));
            changes.push(Change { key: reservation_key(*address), content });
        }
    }
    for (key, entry) in &state.entries {
        let Content::Set(value) = &entry.content else { continue };
        let Some(table) = table(value).ok().filter(|table| is_given(key, table)) else { continue };
        let holder = table.get("for").and_then(toml::Value::as_str);
        let has = |given: &Given| {
            Some(given.vip.as_str()) == holder && reservation_key(given.address) == *key
        };
        let is_new = changes.iter().any(|change| change.key == *key);
        if !is_new && !desired.pools.iter().any(|pool| pool.given.iter().any(has)) {
            changes.push(Change { key: key.clone(), content: Content::AsFile });
        }
    }
    changes
}

fn nameless() -> Unplanned {
    Unplanned::Malformed(
        "a VIP needs `address`, as in \"10.0.0.100/24\", or `name` and `pool`".into(),
    )
}

/// JSON as the file would have it.
pub(crate) fn table(value: &Value) -> Result<Table, Unplanned> {
    if !value.is_object() {
        return Err(Unplanned::Malformed("a VIP is an object with the keys of [[vip]]".into()));
    }
    serde_json::from_value(value.clone()).map_err(|error| Unplanned::Malformed(error.to_string()))
}

pub(crate) fn json(table: &Table) -> Value {
    serde_json::to_value(table).unwrap_or_default()
}

/// A name that the path says already need not be said again, and must not be another one.
fn named(name: &str, mut vip: Table) -> Result<Table, Unplanned> {
    if !vip.contains_key("name") && vip_name(&vip).as_deref() != Some(name) {
        vip.insert("name".into(), toml::Value::String(name.to_owned()));
    }
    match vip_name(&vip) {
        Some(its) if its == name => Ok(vip),
        Some(its) => Err(Unplanned::Malformed(format!(
            "the VIP {name} cannot be called {its}: take it away, and add it under its new name"
        ))),
        None => Err(nameless()),
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// A string, or a list of them.
fn texts(value: Option<&toml::Value>) -> Vec<String> {
    match value {
        Some(toml::Value::Array(all)) => {
            all.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
        }
        Some(other) => other.as_str().map(str::to_owned).into_iter().collect(),
        None => Vec::new(),
    }
}

fn has(vip: &Table, address: IpAddr) -> bool {
    let is_it =
        |text: &String| text.split('/').next().and_then(|a| a.parse().ok()) == Some(address);
    texts(vip.get("address")).iter().any(is_it)
}

fn names(port: &toml::Value, asked: &str) -> bool {
    texts(Some(port)).iter().any(|text| text.trim() == asked)
}

/// A backend as `backends` has it: `[name] ADDRESS:PORT [weight=N] ... [backup]`.
struct Written {
    name: String,
    value: Value,
}

/// The settings of a backend that are written `key=value`.
const SETTINGS: [&str; 5] = ["weight", "max", "id", "zone", "node"];

impl Written {
    fn parse(text: &str) -> Self {
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_place = |word: &str| word.contains([':', '[']) || word.parse::<IpAddr>().is_ok();
        let (name, rest) = match &words[..] {
            [name, place, rest @ ..] if !is_place(name) && !place.contains('=') => {
                let mut value = Map::new();
                value.insert("address".into(), Value::from(*place));
                return Self::with(name, value, rest);
            }
            [place, rest @ ..] => (*place, rest),
            [] => ("", &[][..]),
        };
        let value = Map::from_iter([("address".to_owned(), Value::from(name))]);
        Self::with(name, value, rest)
    }

    fn with(name: &str, mut value: Map<String, Value>, settings: &[&str]) -> Self {
        for word in settings {
            match word.split_once('=') {
                Some((key, text)) => {
                    let number =
                        text.parse::<u64>().ok().filter(|_| matches!(key, "weight" | "max"));
                    value.insert(key.into(), number.map_or_else(|| text.into(), Value::from));
                }
                None => drop(value.insert((*word).into(), Value::Bool(true))),
            }
        }
        Self { name: name.to_owned(), value: Value::Object(value) }
    }

    /// A backend of that name, if the object says one.
    fn of(name: &str, value: &Value) -> Result<Self, Unplanned> {
        let malformed = |why: String| Err(Unplanned::Malformed(why));
        let Value::Object(settings) = value else {
            return malformed(
                "a backend is an object, as in {\"address\": \"10.0.0.21:8443\"}".into(),
            );
        };
        let place = settings.get("address").and_then(Value::as_str).unwrap_or_default();
        if place.is_empty() || place.contains(char::is_whitespace) {
            return malformed("`address` of a backend is missing, as in \"10.0.0.21:8443\"".into());
        }
        for (key, value) in settings {
            let is_word = match value {
                Value::String(text) => !text.is_empty() && !text.contains(char::is_whitespace),
                Value::Number(_) => key != "address",
                Value::Bool(_) => key == "backup",
                Value::Null | Value::Array(_) | Value::Object(_) => false,
            };
            let is_known = key == "address" || key == "backup" || SETTINGS.contains(&key.as_str());
            if !is_known {
                return malformed(format!(
                    "a backend has no {key:?}; it has address, {} and backup",
                    SETTINGS.join(", ")
                ));
            }
            if !is_word || (key == "backup") != value.is_boolean() {
                return malformed(format!("`{key}` of a backend cannot be {value}"));
            }
        }
        Ok(Self { name: name.to_owned(), value: value.clone() })
    }

    fn to_text(&self) -> String {
        let place = self.value["address"].as_str().unwrap_or_default();
        let mut text = place.to_owned();
        if self.name != place {
            text = format!("{} {place}", self.name);
        }
        for key in SETTINGS {
            match &self.value[key] {
                Value::String(value) => text.push_str(&format!(" {key}={value}")),
                Value::Number(value) => text.push_str(&format!(" {key}={value}")),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {}
            }
        }
        if self.value["backup"] == Value::Bool(true) {
            text.push_str(" backup");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_store::Edit;
    use serde_json::json;

    const FILE: &str = r#"
peers = ["10.0.0.11"]
[[vip]]
name = "web"
address = "10.0.0.100/24"
[[vip.service]]
port = "80/tcp"
backends = ["web1 10.0.0.21:80 weight=2", "10.0.0.22:80"]
[[vip]]
address = "10.0.0.101/24"
"#;

    fn place() -> Place {
        Place { vip: Some("web".into()), port: "80/tcp".into(), name: "web:80/tcp".into() }
    }

    fn after(state: &State, wish: &Wish) -> State {
        let changes = Plan::new(FILE, state).unwrap().changes(wish).unwrap();
        let mut next = state.clone();
        next.apply(&Edit {
            id: state.revision + 1,
            on: state.revision,
            user: "ann".into(),
            node: "n1".into(),
            reason: String::new(),
            at_ms: 1,
            changes,
        });
        next
    }

    fn backends(state: &State) -> Vec<String> {
        let vip = Plan::new(FILE, state).unwrap().vip("web").unwrap();
        texts(vip["service"][0].get("backends"))
    }

    #[test]
    fn a_vip_is_put_patched_and_removed_and_what_the_file_has_is_nothing_to_keep() {
        let none = State::default();
        let put = Wish::Put("web".into(), json!({ "address": "10.0.0.105/24" }));
        let one = after(&none, &put);
        let vip = Plan::new(FILE, &one).unwrap().vip("web").unwrap();
        assert_eq!(vip_name(&vip).as_deref(), Some("web"), "the path says its name");
        let file: Value = json(&Plan::new(FILE, &none).unwrap().vip("web").unwrap());
        let back = after(&one, &Wish::Put("web".into(), file));
        assert_eq!(back.entries["vip/web"].content, Content::AsFile);
        let patch = Wish::Patch("10.0.0.100".into(), json!({ "failback": "now", "service": null }));
        let patched = after(&none, &patch);
        let vip = Plan::new(FILE, &patched).unwrap().vip("web").unwrap();
        assert_eq!((vip.get("service"), vip["failback"].as_str()), (None, Some("now")));
        let removed = after(&none, &Wish::Remove("10.0.0.101/24".into()));
        assert_eq!(removed.entries["vip/10.0.0.101"].content, Content::Hidden);
        assert_eq!(Plan::new(FILE, &removed).unwrap().find("10.0.0.101"), None);
        let rolled = after(&removed, &Wish::Rollback(0));
        assert_eq!(rolled.entries["vip/10.0.0.101"].content, Content::AsFile);
        let added = after(&none, &Wish::Add(json!({ "address": "10.0.0.109/24" })));
        let gone = after(&added, &Wish::Remove("10.0.0.109".into()));
        assert_eq!(gone.entries["vip/10.0.0.109"].content, Content::AsFile, "nothing to hide");
    }

    #[test]
    fn a_backend_is_one_text_of_the_list() {
        let none = State::default();
        let wish = |name: &str, wish| Wish::Backend(place(), name.into(), wish);
        let patch = BackendWish::Patch(json!({ "weight": 5, "backup": true }));
        let state = after(&none, &wish("web1", patch));
        assert_eq!(backends(&state)[0], "web1 10.0.0.21:80 weight=5 backup");
        let put = BackendWish::Put(json!({ "address": "10.0.0.23:80", "zone": "a" }));
        let state = after(&state, &wish("web3", put));
        assert_eq!(backends(&state)[2], "web3 10.0.0.23:80 zone=a");
        let state = after(&state, &wish("10.0.0.22:80", BackendWish::Remove));
        assert_eq!(backends(&state).len(), 2);
        let plan = Plan::new(FILE, &state).unwrap();
        for wrong in [
            wish("web9", BackendWish::Remove),
            wish("web1", BackendWish::Put(json!({ "address": "1 2" }))),
            wish("web1", BackendWish::Put(json!({ "address": "a:1", "colour": "red" }))),
            wish("web1", BackendWish::Put(json!({ "address": "a:1", "backup": 1 }))),
            wish("web1", BackendWish::Put(json!(["a"]))),
        ] {
            assert!(plan.changes(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_whole_text_changes_vips_and_nothing_else() {
        let none = State::default();
        let plan = Plan::new(FILE, &none).unwrap();
        assert_eq!(plan.changes(&Wish::Text(FILE.into())), Ok(vec![]));
        let without = FILE.replace("[[vip]]\naddress = \"10.0.0.101/24\"\n", "");
        let text = without.replace("weight=2", "weight=3");
        let changes = plan.changes(&Wish::Text(text)).unwrap();
        let keys: Vec<&str> = changes.iter().map(|c| c.key.as_str()).collect();
        assert_eq!(keys, ["vip/10.0.0.101", "vip/web"]);
        let other = FILE.replace("10.0.0.11\"", "10.0.0.12\"");
        let refused = plan.changes(&Wish::Text(other));
        assert_eq!(refused, Err(Unplanned::OnlyInFile("peers".into())));
        for (wish, word) in [
            (Wish::Text("[[vip".into()), "vip"),
            (Wish::Add(json!({ "name": "web", "address": "10.0.0.1/24" })), "web"),
            (Wish::Add(json!([])), "object"),
            (Wish::Patch("wep".into(), json!({})), "web"),
            (Wish::Put("web".into(), json!({ "name": "other" })), "other"),
            (Wish::Rollback(7), "7"),
        ] {
            let refused = plan.changes(&wish).unwrap_err();
            assert!(format!("{refused:?}").contains(word), "{refused:?}");
        }
    }
}

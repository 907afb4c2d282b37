//! `buoy vip`: shows VIPs, adds and removes them, and the same for services and their backends: edits of one object, on any node for all.
//!
//! What is applied is what was shown: the difference first, then the question, then the edit on the revision that was
//! looked at.

mod budget;

use crate::config::{AGREED, CHECKED, Consent, during};
use crate::failure::Failure;
use crate::listing::Listing;
use crate::service::plain_lines;
use crate::{AgentSocket, Asking, output, status};
use budget::BudgetArguments;
use buoy_api::{Client, Edit, VipView, VipsReply};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// One line for each VIP, as this node sees it
    Ls(Listing),
    /// One VIP: how it is, and how it is written
    Show(ShowArguments),
    /// How well each VIP has kept its promise since the agent of this node started: for how long it was served, how long it
    /// took to find it another owner, and by how much its lease was renewed in time
    Budget(BudgetArguments),
    /// Add a VIP on all nodes
    Add(AddArguments),
    /// Take a VIP away on all nodes
    Rm(RemoveArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    asking: Asking,
    /// Its name, or one of its addresses
    vip: String,
}

/// A VIP as it is and as it is written.
#[derive(Serialize)]
struct Shown {
    status: VipView,
    /// The keys of `[[vip]]`.
    written: Value,
}

#[derive(clap::Args, Debug)]
pub(crate) struct AddArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// What to call it
    name: String,
    /// Its address with its prefix, as in 10.0.0.100/24; not for one that asks a pool
    address: Option<String>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    consent: Consent,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// Its name
    vip: String,
    #[command(flatten)]
    consent: Consent,
}

#[derive(clap::Args, Debug)]
pub(crate) struct AddServiceArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// The VIP that it is of
    vip: String,
    /// As in 443/tcp
    port: String,
    /// A server behind it as the file writes it, as in "web1 10.0.0.21:8443"; once for each
    #[arg(long, value_name = "BACKEND", required = true)]
    backend: Vec<String>,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    consent: Consent,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RemoveServiceArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// As in web:443/tcp; what tells it from the others is enough
    service: String,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum BackendCommand {
    /// Add a server to a service on all nodes, or make one of that name be this
    Add(AddBackendArguments),
    /// Take a server away from a service on all nodes
    Rm(RemoveBackendArguments),
}

#[derive(clap::Args, Debug)]
pub(crate) struct AddBackendArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// As in web:443/tcp; what tells it from the others is enough
    service: String,
    /// What to call it
    backend: String,
    /// Where it listens, as in 10.0.0.21:8443
    address: String,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    consent: Consent,
}

#[derive(clap::Args, Debug)]
pub(crate) struct RemoveBackendArguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// As in web:443/tcp; what tells it from the others is enough
    service: String,
    /// Its name
    backend: String,
    #[command(flatten)]
    consent: Consent,
}

/// Further keys of the object.
#[derive(clap::Args, Debug)]
struct Keys {
    /// A key as the file has it, as in failback=now, prefer='["lb1"]' or check.http='GET /'; once for each (`buoy config explain` has them)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key)]
    set: Vec<(String, Value)>,
}

impl Keys {
    /// The object with these keys and those that have an argument of their own.
    fn with(self, own: Value) -> Value {
        let mut all = Map::new();
        self.set.into_iter().for_each(|(key, value)| put(&mut all, &key, value));
        if let Value::Object(own) = own {
            all.extend(own.into_iter().filter(|(_, value)| !value.is_null()));
        }
        Value::Object(all)
    }
}

/// Puts it below what comes before its first dot.
fn put(all: &mut Map<String, Value>, key: &str, value: Value) {
    let Some((table, key)) = key.split_once('.') else {
        all.insert(key.to_owned(), value);
        return;
    };
    let below = all.entry(table).or_insert_with(|| Value::Object(Map::new()));
    match below {
        Value::Object(below) => put(below, key, value),
        // It was set as a whole before; what comes last holds.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            let mut fresh = Map::new();
            put(&mut fresh, key, value);
            *below = Value::Object(fresh);
        }
    }
}

/// A key with its value as TOML; what is none is a text.
fn key(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("a key and its value, as in failback=now")?;
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if key.split('.').any(|part| part.is_empty() || !part.chars().all(is_key)) {
        return Err(format!("{key:?} is no key of the file"));
    }
    let read = toml::from_str::<Map<String, Value>>(&format!("value = {value}"));
    let value = match read {
        Ok(mut read) if read.len() == 1 => read.remove("value").unwrap_or_default(),
        Ok(_) | Err(_) => Value::String(value.into()),
    };
    Ok((key.into(), value))
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Ls(listing) => {
            let as_it_is = |reply: VipsReply| reply;
            listing.show("/v1/vips", as_it_is, |reply| match reply.vips.as_slice() {
                [] => status::NO_VIP.into(),
                all => status::vips(all).render(output::colour()),
            })
        }
        Command::Show(ShowArguments { asking, vip }) => {
            let client = asking.client()?;
            let (status, written) = (client.vip(&vip)?.vip, client.written_vip(&vip)?);
            let text = written_text(&status.name, &written)?;
            let shown = Shown { status, written };
            asking.show(&shown, |shown| {
                let table = status::vips(std::slice::from_ref(&shown.status));
                format!("{}\n{}", table.render(output::colour()), plain_lines(&text))
            })
        }
        Command::Budget(arguments) => budget::run(arguments),
        Command::Add(AddArguments { agent, name, address, keys, consent }) => {
            let vip = keys.with(json!({ "name": name, "address": address }));
            apply(&agent.client()?, &Edit::AddVip(vip), None, &consent)
        }
        Command::Rm(RemoveArguments { agent, vip, consent }) => {
            apply(&agent.client()?, &Edit::RemoveVip(vip), None, &consent)
        }
    }
}

/// The table as a file has it.
fn written_text(name: &str, written: &Value) -> Result<String, Failure> {
    let table = BTreeMap::from([("vip", [written])]);
    toml::to_string(&table)
        .map_err(|error| Failure::failed(format!("{name} cannot be written as TOML: {error}")))
}

pub(crate) fn add_service(arguments: AddServiceArguments) -> Result<(), Failure> {
    let AddServiceArguments { agent, vip, port, backend, keys, consent } = arguments;
    let client = agent.client()?;
    // Before the list is read: what others add meanwhile is not undone, but refuses the edit.
    let seen = client.config()?.revision;
    let mut services = match client.written_vip(&vip)?["service"].take() {
        Value::Array(services) => services,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            Vec::new()
        }
    };
    services.push(keys.with(json!({ "port": port, "backends": backend })));
    let patch = json!({ "service": services });
    apply(&client, &Edit::PatchVip(vip, patch), Some(seen), &consent)
}

pub(crate) fn remove_service(arguments: RemoveServiceArguments) -> Result<(), Failure> {
    let RemoveServiceArguments { agent, service, consent } = arguments;
    apply(&agent.client()?, &Edit::RemoveService(service), None, &consent)
}

pub(crate) fn backend(command: BackendCommand) -> Result<(), Failure> {
    match command {
        BackendCommand::Add(arguments) => {
            let AddBackendArguments { agent, service, backend, address, keys, consent } = arguments;
            let value = keys.with(json!({ "address": address }));
            apply(&agent.client()?, &Edit::PutBackend(service, backend, value), None, &consent)
        }
        BackendCommand::Rm(RemoveBackendArguments { agent, service, backend, consent }) => {
            apply(&agent.client()?, &Edit::RemoveBackend(service, backend), None, &consent)
        }
    }
}

/// Shows what would be, and does it if it is meant.
fn apply(
    client: &Client,
    edit: &Edit,
    seen: Option<u64>,
    consent: &Consent,
) -> Result<(), Failure> {
    let tried = during(CHECKED, || client.edit(edit, seen, consent.reason(), true))?;
    if consent.is_to_be_done(&tried, false)? {
        let seen = seen.or(Some(tried.revision));
        let reply = during(AGREED, || client.edit(edit, seen, consent.reason(), false))?;
        consent.say(&reply)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_as_in_the_file_and_a_word_is_a_text() {
        let table = [
            ("failback=now", json!("now")),
            ("failback=\"now\"", json!("now")),
            ("weight=3", json!(3)),
            ("prefer=[\"lb1\", \"lb2\"]", json!(["lb1", "lb2"])),
            ("check={ link = \"eth1\" }", json!({ "link": "eth1" })),
            ("mode=", json!("")),
            ("note=a = b", json!("a = b")),
        ];
        for (text, value) in table {
            assert_eq!(key(text).unwrap().1, value, "{text}");
        }
        for wrong in ["failback", "=now", "a b=c", "a..b=c", ".a=c", "a.=c"] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_of_a_table_is_named_with_it() {
        let set = ["check.http=GET /", "check.every=2s", "mode=proxy", "a.b.c=3", "mode.x=1"];
        let keys = Keys { set: set.iter().map(|text| key(text).unwrap()).collect() };
        let expected = json!({
            "check": { "http": "GET /", "every": "2s" },
            "a": { "b": { "c": 3 } },
            "mode": { "x": 1 },
            "name": "web",
        });
        assert_eq!(keys.with(json!({ "name": "web" })), expected);
    }

    #[test]
    fn a_vip_is_shown_as_a_file_has_it() {
        let service = json!({ "port": "80/tcp", "backends": ["10.0.0.21:80"] });
        let vip = json!({ "name": "web", "address": "10.0.0.100/24", "service": [service] });
        let text = written_text("web", &vip).unwrap();
        let expected = "[[vip]]\naddress = \"10.0.0.100/24\"\nname = \"web\"\n\n\
                        [[vip.service]]\nbackends = [\"10.0.0.21:80\"]\nport = \"80/tcp\"\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn an_object_has_its_arguments_and_its_keys() {
        let keys = Keys { set: vec![key("pool=outside").unwrap(), key("name=other").unwrap()] };
        let vip = keys.with(json!({ "name": "web", "address": null }));
        assert_eq!(vip, json!({ "name": "web", "pool": "outside" }));
    }
}

//! Says what a wish about one service makes of the VIP that it is written in.
//!
//! The file may write several services as one table, by a list of ports. A wish is about one of them: it gets a table of
//! its own, and the others stay as they are.

use super::{Place, Plan, ServiceWish, Unplanned, json, key, merge, names, texts};
use serde_json::Value;
use toml::Table;

impl Plan<'_> {
    /// The service as it is written: what `PUT` takes.
    pub(crate) fn service(&self, place: &Place) -> Option<Table> {
        let vip = self.vip(&self.find(place.vip.as_deref()?)?)?;
        let table = tables(&vip).into_iter().find(|table| is_of(table, &place.port))?;
        Some(alone(table, &place.port))
    }

    /// The entry of its VIP with what is wanted of the service.
    pub(super) fn with_service(
        &self,
        place: &Place,
        wish: &ServiceWish,
    ) -> Result<(String, Option<Table>), Unplanned> {
        let none = || place.of_no_vip();
        let vip = self.known(place.vip.as_deref().ok_or_else(none)?)?;
        let mut table = self.vip(&vip).ok_or_else(none)?;
        let mut all = tables(&table);
        let at = all.iter().position(|table| is_of(table, &place.port));
        let wanted = match (wish, at) {
            (ServiceWish::Put(value), _) => Some(named(place, value)?),
            (ServiceWish::Patch(patch), Some(at)) => {
                let mut value = json(&alone(all[at].clone(), &place.port));
                merge(&mut value, patch);
                Some(named(place, &value)?)
            }
            (ServiceWish::Remove, Some(_)) => None,
            (ServiceWish::Patch(_) | ServiceWish::Remove, None) => return Err(none()),
        };
        match at {
            Some(at) => {
                let rest = without(&all[at], &place.port);
                all.splice(at..=at, rest.into_iter().chain(wanted));
            }
            None => all.extend(wanted),
        }
        if all.is_empty() {
            table.remove("service");
        } else {
            let all = all.into_iter().map(toml::Value::Table).collect();
            table.insert("service".into(), toml::Value::Array(all));
        }
        Ok((key(&vip), Some(table)))
    }
}

/// The tables of its services.
fn tables(vip: &Table) -> Vec<Table> {
    let all = vip.get("service").and_then(toml::Value::as_array);
    all.into_iter().flatten().filter_map(|service| service.as_table().cloned()).collect()
}

fn is_of(service: &Table, port: &str) -> bool {
    service.get("port").is_some_and(|written| names(written, port))
}

/// The same for this port only.
fn alone(mut service: Table, port: &str) -> Table {
    service.insert("port".into(), toml::Value::String(port.to_owned()));
    service
}

/// What is left of the table when it is not about this port any more.
fn without(service: &Table, port: &str) -> Option<Table> {
    let mut left = texts(service.get("port"));
    left.retain(|written| written.trim() != port);
    let ports = match &left[..] {
        [] => return None,
        [one] => toml::Value::String(one.clone()),
        _ => toml::Value::Array(left.into_iter().map(toml::Value::String).collect()),
    };
    let mut rest = service.clone();
    rest.insert("port".into(), ports);
    Some(rest)
}

/// A port that the path says already need not be said again, and must not be another one.
fn named(place: &Place, value: &Value) -> Result<Table, Unplanned> {
    let malformed = |why: String| Err(Unplanned::Malformed(why));
    if !value.is_object() {
        return malformed("a service is an object with the keys of [[vip.service]]".into());
    }
    let service: Table = serde_json::from_value(value.clone())
        .map_err(|error| Unplanned::Malformed(error.to_string()))?;
    let said = texts(service.get("port"));
    let is_it = match &said[..] {
        [] => !service.contains_key("port"),
        [one] => one.trim() == place.port,
        _ => false,
    };
    if !is_it {
        return malformed(format!(
            "the service {} cannot have the port {}: take it away, and add it with its new port",
            place.name, value["port"]
        ));
    }
    Ok(alone(service, &place.port))
}

#[cfg(test)]
mod tests {
    use super::super::Wish;
    use super::*;
    use buoy_store::{Content, State};
    use serde_json::json;

    const FILE: &str = r#"
peers = ["10.0.0.11"]
[[vip]]
name = "web"
address = "10.0.0.100/24"
[[vip.service]]
port = ["80/tcp", "443/tcp"]
backends = ["10.0.0.21"]
mode = "proxy"
[[vip.service]]
port = "53/udp"
backends = ["10.0.0.22:53"]
[[vip]]
name = "bare"
address = "10.0.0.101/24"
"#;

    fn place(vip: &str, port: &str) -> Place {
        Place { vip: Some(vip.into()), port: port.into(), name: format!("{vip}:{port}") }
    }

    /// The services of the VIP afterwards.
    fn after(vip: &str, port: &str, wish: ServiceWish) -> Result<Value, Unplanned> {
        let none = State::default();
        let plan = Plan::new(FILE, &none)?;
        let changes = plan.changes(&Wish::Service(place(vip, port), wish))?;
        let [change] = &changes[..] else { panic!("one entry: {changes:?}") };
        let Content::Set(value) = &change.content else { panic!("{change:?}") };
        assert_eq!(change.key, "vip/web".replace("web", value["name"].as_str().unwrap()));
        Ok(value["service"].clone())
    }

    #[test]
    fn one_service_of_a_table_of_several_gets_a_table_of_its_own() {
        let (dns, both) = (
            json!({ "port": "53/udp", "backends": ["10.0.0.22:53"] }),
            |port: &str| json!({ "port": port, "backends": ["10.0.0.21"], "mode": "proxy" }),
        );
        let patch = ServiceWish::Patch(json!({ "mode": null, "balance": "random" }));
        let patched = json!({ "port": "80/tcp", "backends": ["10.0.0.21"], "balance": "random" });
        let services = after("web", "80/tcp", patch).unwrap();
        assert_eq!(services, json!([both("443/tcp"), patched, dns]));
        let services = after("web", "443/tcp", ServiceWish::Remove).unwrap();
        assert_eq!(services, json!([both("80/tcp"), dns]));
        let put = ServiceWish::Put(json!({ "backends": ["10.0.0.29:53"] }));
        let services = after("10.0.0.100", "53/udp", put).unwrap();
        let dns = json!({ "port": "53/udp", "backends": ["10.0.0.29:53"] });
        assert_eq!(services[1], dns, "the path says its port");
        assert_eq!(services[0]["port"], json!(["80/tcp", "443/tcp"]), "the others stay");
        let put = ServiceWish::Put(json!({ "port": "25/tcp", "backends": ["10.0.0.31:25"] }));
        let services = after("bare", "25/tcp", put).unwrap();
        assert_eq!(services, json!([{ "port": "25/tcp", "backends": ["10.0.0.31:25"] }]));
    }

    #[test]
    fn the_last_service_leaves_no_list_behind_and_what_is_none_is_said() {
        let state = State::default();
        let file = FILE.split("[[vip.service]]\nport = [").next().unwrap().to_owned()
            + "[[vip.service]]\nport = \"53/udp\"\nbackends = [\"10.0.0.22:53\"]\n";
        let plan = Plan::new(&file, &state).unwrap();
        let gone = plan.changes(&Wish::Service(place("web", "53/udp"), ServiceWish::Remove));
        let Content::Set(value) = &gone.unwrap()[0].content else { panic!("it is set") };
        assert_eq!(value.get("service"), None);

        let plan = Plan::new(FILE, &state).unwrap();
        assert_eq!(plan.service(&place("web", "80/tcp")).unwrap()["port"].as_str(), Some("80/tcp"));
        assert_eq!(plan.service(&place("web", "81/tcp")), None);
        let put = |value: Value| ServiceWish::Put(value);
        for (vip, port, wish, word) in [
            ("web", "81/tcp", ServiceWish::Remove, "web:81/tcp"),
            ("web", "81/tcp", ServiceWish::Patch(json!({ "mode": "proxy" })), "web:81/tcp"),
            ("wep", "81/tcp", put(json!({ "backends": ["10.0.0.1:1"] })), "did you mean web?"),
            ("web", "80/tcp", put(json!({ "port": "81/tcp", "backends": [] })), "new port"),
            ("web", "80/tcp", put(json!({ "port": 80, "backends": [] })), "new port"),
            ("web", "80/tcp", put(json!({ "port": ["80/tcp", "443/tcp"] })), "new port"),
            ("web", "80/tcp", ServiceWish::Patch(json!({ "port": "81/tcp" })), "new port"),
            ("web", "80/tcp", put(json!([])), "object"),
        ] {
            let refused = plan.changes(&Wish::Service(place(vip, port), wish)).unwrap_err();
            assert!(format!("{refused:?}").contains(word), "{word}: {refused:?}");
        }
    }
}

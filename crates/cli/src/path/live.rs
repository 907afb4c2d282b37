//! `buoy path --live`: the counters of the backends that the packet could go to, until Ctrl-C.

use crate::failure::Failure;
use crate::output::{self, Form};
use crate::service::{counted, numbers};
use crate::table::Table;
use buoy_api::{BackendFlows, Client, PathReply, ServiceReply};
use serde::Serialize;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// One look.
#[derive(Serialize)]
struct Look {
    service: String,
    /// Those that the packet goes to, as it was traced.
    chosen: Vec<String>,
    backends: Vec<BackendFlows>,
}

/// Shows them again and again.
pub(super) fn follow(
    client: &Client,
    reply: &PathReply,
    to: SocketAddr,
    form: Form,
) -> Result<(), Failure> {
    let services = client.services()?.services;
    let Some(service) = serving(&services, to, &reply.protocol) else {
        return Err(Failure::failed(format!(
            "no service has {to}/{}: there is nothing to count (`buoy service ls` has them)",
            reply.protocol
        )));
    };
    let mut before: Option<Look> = None;
    loop {
        let look = look(client, reply, service)?;
        match form {
            form @ (Form::Json | Form::Yaml) => output::item(form, &look)?,
            Form::Table => {
                let table = table(&look, before.as_ref());
                output::text(&format!("\n{}", table.render(output::colour())))?;
            }
        }
        before = Some(look);
        thread::sleep(EVERY);
    }
}

fn look(client: &Client, reply: &PathReply, service: &ServiceReply) -> Result<Look, Failure> {
    let name = &service.service.name;
    let chosen: Vec<String> = reply.ways.iter().filter_map(|way| way.backend.clone()).collect();
    let mut backends = client.flows_of_all(name)?.backends;
    // Where it is not known which one is chosen, it could be any.
    backends.retain(|of| chosen.is_empty() || chosen.contains(&of.backend));
    Ok(Look { service: name.clone(), chosen, backends })
}

/// The service that answers for the port: that with the fewest ports.
fn serving<'s>(
    services: &'s [ServiceReply],
    to: SocketAddr,
    protocol: &str,
) -> Option<&'s ServiceReply> {
    let address = to.ip().to_string();
    let width = |service: &&ServiceReply| {
        let (ports, of) = service.service.port.split_once('/')?;
        let (first, last) = match ports.split_once('-') {
            Some((first, last)) => (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?),
            None if ports == "*" => (0, u16::MAX),
            None => (ports.parse().ok()?, ports.parse().ok()?),
        };
        let is_it = of == protocol && service.addresses.contains(&address);
        (is_it && (first..=last).contains(&to.port())).then_some(last - first)
    };
    let all = services.iter().filter_map(|service| Some((width(&service)?, service)));
    all.min_by_key(|(width, _)| *width).map(|(_, service)| service)
}

fn table(look: &Look, before: Option<&Look>) -> Table<6> {
    let row = |of: &BackendFlows| {
        let known = before.and_then(|look| look.backends.iter().find(|b| b.backend == of.backend));
        let was = known.map_or([None; 5], |known| numbers(&known.flows));
        let now = numbers(&of.flows);
        let mark = if look.chosen.contains(&of.backend) { " *" } else { "" };
        let cells = std::array::from_fn(|i| moved(now[i], was[i]));
        (format!("{} of {}{mark}", of.backend, look.service), cells)
    };
    counted(look.backends.iter().map(row))
}

/// As in `17 (+3)`: a counter, and by how much it moved since the last look.
fn moved(now: Option<u64>, before: Option<u64>) -> String {
    match (now, before) {
        (None, _) => String::new(),
        (Some(now), Some(before)) if now > before => format!("{now} (+{})", now - before),
        (Some(now), Some(before)) if now < before => format!("{now} (-{})", before - now),
        (Some(now), _) => now.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::{FlowsView, ServiceView};

    #[test]
    fn the_service_with_the_fewest_ports_answers() {
        let service = |address: &str, port: &str| ServiceReply {
            addresses: vec![address.into()],
            service: ServiceView {
                name: format!("web:{port}"),
                port: port.into(),
                ..ServiceView::default()
            },
            ..ServiceReply::default()
        };
        let all = [
            service("10.0.0.100", "*/tcp"),
            service("10.0.0.100", "8000-8099/tcp"),
            service("10.0.0.100", "8005/tcp"),
            service("10.0.0.100", "8005/udp"),
            service("fd00::100", "8005/tcp"),
        ];
        let found = |to: &str, protocol: &str| {
            let found = serving(&all, to.parse().unwrap(), protocol);
            found.map(|service| (service.addresses[0].as_str(), service.service.port.as_str()))
        };
        assert_eq!(found("10.0.0.100:8005", "tcp"), Some(("10.0.0.100", "8005/tcp")));
        assert_eq!(found("10.0.0.100:8006", "tcp"), Some(("10.0.0.100", "8000-8099/tcp")));
        assert_eq!(found("10.0.0.100:22", "tcp"), Some(("10.0.0.100", "*/tcp")));
        assert_eq!(found("10.0.0.100:8005", "udp"), Some(("10.0.0.100", "8005/udp")));
        assert_eq!(found("[fd00::100]:8005", "tcp"), Some(("fd00::100", "8005/tcp")));
        assert_eq!(found("10.0.0.100:22", "udp"), None);
    }

    #[test]
    fn a_counter_says_by_how_much_it_moved() {
        let look = |open, packets| Look {
            service: "web:80/tcp".into(),
            chosen: vec!["web1".into()],
            backends: vec![BackendFlows {
                backend: "web1".into(),
                flows: FlowsView { open, packets, ..FlowsView::default() },
            }],
        };
        let text = table(&look(Some(2), Some(17)), Some(&look(Some(3), Some(5)))).render(false);
        let expected = "\
BACKEND               OPEN  OPENED   PACKETS  BYTES  BACK
web1 of web:80/tcp *  2 (-1)       -  17 (+12)      -     -
";
        assert_eq!(
            text.split_whitespace().collect::<Vec<_>>(),
            expected.split_whitespace().collect::<Vec<_>>()
        );
        let first = table(&look(None, Some(5)), None).render(false);
        assert!(first.contains(" 5 ") && !first.contains('+'), "{first}");
    }
}

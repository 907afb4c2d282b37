//! `buoy path`: where a packet of a client would go on this node, and why.

mod live;

use crate::AgentSocket;
use crate::failure::Failure;
use crate::output::{self, Form};
use crate::table::{plain, wrapped};
use buoy_api::{PathReply, VipView};
use clap::ValueEnum;
use std::net::{IpAddr, SocketAddr};

/// The client's port, where it is not given: one of those that clients use (RFC 6335, section 6).
const PORT: u16 = 49_152;

#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    #[command(flatten)]
    agent: AgentSocket,
    /// The client: an address, or ADDRESS:PORT
    #[arg(value_name = "CLIENT", value_parser = client)]
    from: SocketAddr,
    /// The VIP and its port, as in web:443, 10.0.0.100:443 or [fd00::100]:443
    #[arg(value_name = "VIP:PORT", value_parser = target)]
    to: Target,
    /// The transport
    #[arg(short, long, value_enum, default_value_t)]
    protocol: Protocol,
    /// Go on with the counters of the backends that it could go to, each second until Ctrl-C; JSON is one object a line then
    #[arg(long)]
    live: bool,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// What a client asks: an address, or a VIP by its name.
#[derive(Clone, Debug, PartialEq)]
enum Target {
    Address(SocketAddr),
    Name(String, u16),
}

fn target(text: &str) -> Result<Target, String> {
    if let Ok(address) = text.parse() {
        return Ok(Target::Address(address));
    }
    let named = text.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse().ok()?)));
    match named {
        // Of IPv6 without brackets nobody knows where the port begins.
        Some((name, port)) if !name.is_empty() && !name.contains(':') => {
            Ok(Target::Name(name.into(), port))
        }
        Some(_) | None => Err("give a VIP and its port, as in web:443, 10.0.0.100:443 or \
                               [2001:db8::100]:443"
            .into()),
    }
}

/// The address of a VIP that a client of this IP version would ask.
fn address_of(vip: &VipView, from: IpAddr) -> Result<IpAddr, Failure> {
    let host = |text: &str| text.split('/').next().unwrap_or_default().parse::<IpAddr>().ok();
    let all = vip.addresses.iter().filter_map(|address| host(&address.address));
    let its = all.into_iter().find(|address| address.is_ipv4() == from.is_ipv4());
    its.ok_or_else(|| {
        let version = if from.is_ipv4() { "IPv4" } else { "IPv6" };
        Failure::failed(format!("{} has no {version} address, and {from} is one", vip.name))
    })
}

fn client(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    alone.or_else(|_| text.parse::<SocketAddr>()).map_err(|_| {
        "give an address, as in 192.0.2.7, or one with a port, as in 192.0.2.7:40000 or \
         [2001:db8::7]:40000"
            .to_owned()
    })
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let protocol = match arguments.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let client = arguments.agent.client()?;
    let to = match &arguments.to {
        Target::Address(address) => *address,
        Target::Name(name, port) => {
            let vip = client.why(name)?.vip;
            SocketAddr::new(address_of(&vip, arguments.from.ip())?, *port)
        }
    };
    let reply = client.path(arguments.from, to, protocol)?;
    match (arguments.output, arguments.live) {
        (form @ (Form::Json | Form::Yaml), false) => output::value(form, &reply)?,
        (form @ (Form::Json | Form::Yaml), true) => output::item(form, &reply)?,
        (Form::Table, _) => output::text(&screen(&reply, output::wrap()))?,
    }
    match arguments.live {
        true => live::follow(&client, &reply, to, arguments.output),
        false => Ok(()),
    }
}

fn screen(reply: &PathReply, width: usize) -> String {
    let by = if reply.engine.is_empty() {
        String::new()
    } else {
        format!(", forwarded by {}", reply.engine)
    };
    let vip = reply.vip.as_ref().map_or_else(|| "no VIP".to_owned(), |vip| format!("VIP {vip}"));
    let mut text = format!(
        "{} to {}/{} ({vip}) on {}{by}\n",
        reply.from, reply.to, reply.protocol, reply.node
    );
    for way in &reply.ways {
        let what = match (way.verdict.as_str(), &way.backend) {
            ("sent", Some(backend)) => format!("goes to {backend}"),
            ("sent", None) => "is sent".to_owned(),
            ("dropped", _) => "is DROPPED".to_owned(),
            ("passed", _) => "stays on this host".to_owned(),
            _ => "is not followed here".to_owned(),
        };
        let line = format!("{} {what}: {}", way.of, way.reason);
        text.push_str(&format!("  {}\n", wrapped(&plain(&line), 4, width)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_api::WayView;

    #[test]
    fn a_client_may_be_given_with_its_port_or_without() {
        assert_eq!(client("192.0.2.7").unwrap().to_string(), "192.0.2.7:49152");
        assert_eq!(client("192.0.2.7:1").unwrap().port(), 1);
        assert_eq!(client("2001:db8::7").unwrap().to_string(), "[2001:db8::7]:49152");
        assert_eq!(client("[2001:db8::7]:9").unwrap().port(), 9);
        assert!(client("web").unwrap_err().contains("192.0.2.7:40000"));
    }

    #[test]
    fn a_vip_is_asked_by_its_name_at_the_address_that_the_client_can_reach() {
        assert_eq!(target("web:80"), Ok(Target::Name("web".into(), 80)));
        assert_eq!(target("10.0.0.100:80"), Ok(Target::Address(([10, 0, 0, 100], 80).into())));
        assert!(matches!(target("[2001:db8::100]:80"), Ok(Target::Address(_))));
        for text in ["web", ":80", "web:http", "web:70000", "2001:db8::100:80", ""] {
            assert!(target(text).is_err_and(|why| why.contains("web:443")), "{text}");
        }
        let address = |address: &str| buoy_api::VipAddressView {
            address: address.into(),
            ..buoy_api::VipAddressView::default()
        };
        let addresses = vec![address("10.0.0.100/24"), address("2001:db8::100/64")];
        let mut vip = VipView { name: "web".into(), addresses, ..VipView::default() };
        let of = |vip: &VipView, from: &str| {
            address_of(vip, from.parse().unwrap()).map_err(|failure| failure.message)
        };
        assert_eq!(of(&vip, "192.0.2.7").unwrap().to_string(), "10.0.0.100");
        assert_eq!(of(&vip, "2001:db8::7").unwrap().to_string(), "2001:db8::100");
        vip.addresses.pop();
        assert!(of(&vip, "2001:db8::7").unwrap_err().contains("web has no IPv6 address"));
    }

    #[test]
    fn the_answer_is_a_sentence_for_each_kind_of_packet() {
        let way = |of: &str, verdict: &str, backend: Option<&str>| WayView {
            of: of.into(),
            verdict: verdict.into(),
            backend: backend.map(str::to_owned),
            reason: "as it is".into(),
        };
        let reply = PathReply {
            node: "lb1".into(),
            from: "192.0.2.7:40000".into(),
            to: "10.0.0.100:80".into(),
            protocol: "tcp".into(),
            vip: Some("web".into()),
            engine: "XDP (eth0: driver)".into(),
            ways: vec![
                way("a new connection", "sent", Some("web2")),
                way("an open connection", "dropped", None),
            ],
        };
        let text = screen(&reply, 200);
        assert_eq!(
            text,
            "192.0.2.7:40000 to 10.0.0.100:80/tcp (VIP web) on lb1, forwarded by XDP (eth0: driver)\n  \
             a new connection goes to web2: as it is\n  an open connection is DROPPED: as it is\n"
        );
    }
}

//! Reads `store`: where edits that are made beside the file are kept.

use crate::Code;
use crate::keys::top;
use crate::report::{At, Problems, shown};
use crate::tree::Section;
use crate::value;

/// Servers of etcd that are named.
const SERVERS_MAX: usize = 9;
/// Port of etcd's clients.
const PORT: u16 = 2379;

/// Where edits are kept.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Store {
    /// On the nodes themselves, which agree on them.
    #[default]
    Embedded,
    /// Nowhere: there is only the file.
    None,
    /// In etcd, at these servers (`HOST:PORT`).
    Etcd(Vec<String>),
}

pub(crate) fn read(top: &Section<'_>, problems: &mut Problems<'_>) -> Store {
    let Some(text) = top.text(&top::STORE, problems) else { return Store::Embedded };
    let Some(servers) = text.value.strip_prefix("etcd://") else {
        return match text.value {
            "embedded" => Store::Embedded,
            "none" => Store::None,
            _ => refuse(&text, "it is one of two words, or begins with \"etcd://\"", problems),
        };
    };
    let servers: Vec<&str> = servers.trim_end_matches('/').split(',').map(str::trim).collect();
    if servers.len() > SERVERS_MAX {
        return refuse(&text, &format!("at most {SERVERS_MAX} servers are asked"), problems);
    }
    match servers.into_iter().map(server).collect::<Result<Vec<_>, _>>() {
        Ok(servers) => Store::Etcd(servers),
        Err(fault) => refuse(&text, fault, problems),
    }
}

/// A name or an address, and a port.
fn server(text: &str) -> Result<String, &'static str> {
    if let Ok((address, port)) = value::host_port(text) {
        return Ok(std::net::SocketAddr::new(address, port.unwrap_or(PORT)).to_string());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse::<u16>().ok().filter(|port| *port != 0)),
        None => (text, Some(PORT)),
    };
    let port = port.ok_or("a port is a number from 1 to 65535")?;
    let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(sound);
    let is_name = host.len() <= 253 && host.split('.').all(is_label);
    if is_name {
        Ok(format!("{host}:{port}"))
    } else {
        Err("a server is an address or a name, and a port")
    }
}

fn refuse(text: &At<&str>, fault: &str, problems: &mut Problems<'_>) -> Store {
    let message = format!("`store` cannot be \"{}\"", shown(text.value));
    let fix = "write \"embedded\", \"none\" or \"etcd://10.0.0.31:2379,10.0.0.32:2379\"";
    problems.add(Code::BadStore, &text.span, message, fault, fix);
    Store::Embedded
}

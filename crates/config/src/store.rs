//! Reads `store` and `etcd_tls`: where edits that are made beside the file are kept.

use crate::Code;
use crate::files::{self, ReadFile};
use crate::keys::{etcd_tls, top};
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
    /// In etcd.
    Etcd {
        /// Its servers (`HOST:PORT`).
        servers: Vec<String>,
        /// How they and this host prove who they are; `None`: not at all.
        tls: Option<EtcdTls>,
    },
}

/// The files of a connection to etcd, as `etcdctl` takes them; read whenever one is made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EtcdTls {
    /// The authorities that sign the certificates of the servers, a PEM file.
    pub ca: String,
    /// The certificate of this host and its key, PEM files; `None`: the servers ask for none.
    pub identity: Option<(String, String)>,
}

/// What the file says, and where the files stand that it names.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) store: Store,
    tls: Option<Files>,
}

#[derive(Clone, Debug)]
struct Files {
    ca: At<String>,
    identity: Option<(At<String>, At<String>)>,
}

pub(crate) fn read(top: &Section<'_>, problems: &mut Problems<'_>) -> Named {
    let text = top.text(&top::STORE, problems);
    let store = text.as_ref().map(|text| read_store(text, problems)).unwrap_or_default();
    let table = top.section(&top::ETCD_TLS, &etcd_tls::SCHEMA, problems);
    let is_secured = text.as_ref().is_some_and(|text| text.value.starts_with(SECURED));
    let tls = match (table, text) {
        (Some(table), _) if is_secured => read_tls(&table, problems),
        (Some(table), _) => {
            let message = "`etcd_tls` is of no use: edits are not kept in etcd with TLS";
            let fix = "write store = \"etcds://10.0.0.31:2379\", or remove `etcd_tls`";
            problems.add(Code::BadStore, table.span(), message, "`store` says so", fix);
            None
        }
        (None, Some(text)) if is_secured && !top.has(&top::ETCD_TLS) => {
            let message = "`etcds` without `etcd_tls`: nobody knows who answers there";
            let reason = "Buoy trusts no authority by itself";
            let fix = format!("add etcd_tls = {}", top::ETCD_TLS.example);
            problems.add(Code::BadStore, &text.span, message, reason, fix);
            None
        }
        (None, _) => None,
    };
    Named { store, tls }
}

/// What the name of a store begins with that is etcd, in the clear and with TLS.
const PLAIN: &str = "etcd://";
const SECURED: &str = "etcds://";

fn read_store(text: &At<&str>, problems: &mut Problems<'_>) -> Store {
    let servers = text.value.strip_prefix(PLAIN).or_else(|| text.value.strip_prefix(SECURED));
    let Some(servers) = servers else {
        let fault = "it is one of two words, or begins with \"etcd://\" or \"etcds://\"";
        return match text.value {
            "embedded" => Store::Embedded,
            "none" => Store::None,
            _ => refuse(text, fault, problems),
        };
    };
    let servers: Vec<&str> = servers.trim_end_matches('/').split(',').map(str::trim).collect();
    if servers.len() > SERVERS_MAX {
        return refuse(text, &format!("at most {SERVERS_MAX} servers are asked"), problems);
    }
    match servers.into_iter().map(server).collect::<Result<Vec<_>, _>>() {
        Ok(servers) => Store::Etcd { servers, tls: None },
        Err(fault) => refuse(text, fault, problems),
    }
}

fn read_tls(table: &Section<'_>, problems: &mut Problems<'_>) -> Option<Files> {
    if !table.has(&etcd_tls::CA) {
        table.miss(&etcd_tls::CA, problems);
    }
    let mut file = |key| {
        let text = table.text(key, problems);
        text.map(|text| At::new(text.value.to_owned(), text.span.clone()))
    };
    let (ca, cert, key) = (file(&etcd_tls::CA), file(&etcd_tls::CERT), file(&etcd_tls::KEY));
    let alone = [(&etcd_tls::CERT, &etcd_tls::KEY), (&etcd_tls::KEY, &etcd_tls::CERT)];
    for (one, other) in alone {
        if table.has(one) && !table.has(other) && !table.has_unknown(&[other]) {
            let message = format!("`{}` of `etcd_tls` without `{}`", one.name, other.name);
            let reason = "this host shows its certificate and proves that it has the key";
            let fix = format!("add {} = {}, or remove `{}`", other.name, other.example, one.name);
            let span = table.key_span(one).unwrap_or_default();
            problems.add(Code::BadStore, &span, message, reason, fix);
        }
    }
    Some(Files { ca: ca?, identity: cert.zip(key) })
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

/// The same with the paths of its files, which are read once to see that they are good.
pub(crate) fn place(
    named: &Named,
    config: &str,
    files: &ReadFile<'_>,
    problems: &mut Problems<'_>,
) -> Store {
    let (Store::Etcd { servers, .. }, Some(named)) = (&named.store, &named.tls) else {
        return named.store.clone();
    };
    let ca = At::new(named.ca.value.as_str(), named.ca.span.clone());
    files::check_authority(config, &ca, files, problems);
    let identity = named.identity.as_ref().map(|(cert, key)| {
        let path = |at: &At<String>| files::resolve(config, &at.value);
        let (cert_path, key_path) = (path(cert), path(key));
        let (cert, key) = ((&cert.span, Code::BadStoreFile), (&key.span, Code::BadStoreFile));
        // What is wrong with them is said; they are read again for each connection.
        drop(files::read_pem_certificate(&cert_path, cert, files, problems));
        drop(files::read_pem_key(&key_path, key, files, problems));
        (cert_path, key_path)
    });
    let tls = EtcdTls { ca: files::resolve(config, &named.ca.value), identity };
    Store::Etcd { servers: servers.clone(), tls: Some(tls) }
}

//! Looks once where an entry says: asks the DNS, or reads a file.
//!
//! What is found is sorted, so that hosts which find the same have the same backends in the same order.

use super::Wanted;
use buoy_model::DiscoveryPlace;
use buoy_model::limits::{BACKEND_WEIGHT_MAX, BACKENDS_FILE_MAX};
use domain::base::iana::Rcode;
use domain::base::{Name, Rtype};
use domain::rdata::AllRecordData;
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::{ResolvConf, ServerConf, Transport};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::time::Duration;
use tokio::{task, time};

/// A TTL is believed within these bounds.
const TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How long a question may take, with all its repetitions.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a file is read.
const FILE_EVERY: Duration = Duration::from_secs(1);

/// Texts of backends, and when to look again.
type Finding = (Vec<String>, Duration);

pub(super) async fn look(wanted: &Wanted) -> Result<Finding, String> {
    let settings = &wanted.entry.settings;
    match &wanted.entry.place {
        DiscoveryPlace::File { path } => {
            let path = path.clone();
            let text = task::spawn_blocking(move || read(&path)).await;
            let text = text.map_err(|cause| cause.to_string())??;
            let texts = lines(&text).map(|line| with(line, settings)).collect();
            Ok((texts, FILE_EVERY))
        }
        DiscoveryPlace::Name { name, port } => {
            let (addresses, ttl) = Asking::new(wanted).addresses(name).await?;
            let text = |address: &IpAddr| match (port, address) {
                (Some(port), _) => SocketAddr::new(*address, *port).to_string() + settings,
                (None, IpAddr::V4(_)) => format!("{address}{settings}"),
                (None, IpAddr::V6(_)) => format!("[{address}]{settings}"),
            };
            Ok((addresses.iter().map(text).collect(), ttl))
        }
        DiscoveryPlace::Servers { name } => servers(wanted, name).await,
    }
}

/// At most as much of a file as is believed.
fn read(path: &str) -> Result<String, String> {
    let bytes = || {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(BACKENDS_FILE_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = bytes().map_err(|cause| format!("{path} cannot be read: {cause}"))?;
    if bytes.len() > BACKENDS_FILE_MAX {
        return Err(format!("{path} is larger than {} KiB", BACKENDS_FILE_MAX >> 10));
    }
    String::from_utf8(bytes).map_err(|_| format!("{path} is not UTF-8 text"))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    let content = |line| str::split(line, '#').next().unwrap_or_default().trim();
    text.lines().map(content).filter(|line| !line.is_empty())
}

/// A line with the settings of its entry that it does not have itself.
fn with(line: &str, settings: &str) -> String {
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let own: BTreeSet<String> = line.split_whitespace().map(key).collect();
    let more = settings.split_whitespace().filter(|word| !own.contains(&key(word)));
    more.fold(line.to_owned(), |text, word| format!("{text} {word}"))
}

/// The servers of a name (RFC 2782).
async fn servers(wanted: &Wanted, name: &str) -> Result<Finding, String> {
    let asking = Asking::new(wanted);
    let (mut servers, mut ttl) = asking.servers(name).await?;
    if servers.is_empty() {
        return Err(format!("{name} has no servers"));
    }
    servers.sort();
    let best = servers[0].priority;
    let heaviest = servers.iter().map(|s| s.weight).max().unwrap_or_default();
    let mut texts = Vec::new();
    for server in &servers {
        let (addresses, shorter) = asking.addresses(&server.target).await?;
        ttl = ttl.min(shorter);
        let weight = scaled(server.weight, heaviest);
        let backup = if server.priority == best { "" } else { " backup" };
        for address in addresses {
            let line = format!("{} weight={weight}{backup}", SocketAddr::new(address, server.port));
            texts.push(with(&line, &wanted.entry.settings));
        }
    }
    // Two servers with one address and port are one backend.
    let mut seen = BTreeSet::new();
    texts.retain(|text| seen.insert(text.split(' ').next().unwrap_or_default().to_owned()));
    Ok((texts, ttl))
}

/// A weight of RFC 2782 among the others, as ours: nobody is left out.
fn scaled(weight: u16, heaviest: u16) -> u16 {
    let most = u32::from(BACKEND_WEIGHT_MAX);
    let scaled = match u32::from(heaviest) {
        heaviest if heaviest > most => u32::from(weight) * most / heaviest,
        _ => u32::from(weight),
    };
    u16::try_from(scaled).unwrap_or(BACKEND_WEIGHT_MAX).max(1)
}

#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Server {
    priority: u16,
    target: String,
    port: u16,
    weight: u16,
}

/// Who asks, for what. Made anew for each look, because the host's name servers may have changed.
struct Asking {
    resolver: StubResolver,
    ipv4: bool,
    ipv6: bool,
}

impl Asking {
    fn new(wanted: &Wanted) -> Self {
        let mut conf = ResolvConf::default();
        if !wanted.entry.resolvers.is_empty() {
            let server = |at: &SocketAddr| ServerConf::new(*at, Transport::UdpTcp);
            conf.servers = wanted.entry.resolvers.iter().map(server).collect();
        }
        let resolver = StubResolver::from_conf(conf);
        Self { resolver, ipv4: wanted.ipv4, ipv6: wanted.ipv6 }
    }

    /// The addresses of a name, at least one; and how long that holds.
    async fn addresses(&self, name: &str) -> Result<(BTreeSet<IpAddr>, Duration), String> {
        let mut all = BTreeSet::new();
        let mut ttl = TTL.1;
        for (kind, is_wanted) in [(Rtype::A, self.ipv4), (Rtype::AAAA, self.ipv6)] {
            if !is_wanted {
                continue;
            }
            for (record, lasts) in self.ask(name, kind).await? {
                ttl = ttl.min(lasts);
                match record {
                    Record::Address(address) => drop(all.insert(address)),
                    Record::Server(_) | Record::Other => {}
                }
            }
        }
        if all.is_empty() {
            return Err(format!("{name} has no address"));
        }
        Ok((all, ttl.max(TTL.0)))
    }

    async fn servers(&self, name: &str) -> Result<(Vec<Server>, Duration), String> {
        let mut all = Vec::new();
        let mut ttl = TTL.1;
        for (record, lasts) in self.ask(name, Rtype::SRV).await? {
            ttl = ttl.min(lasts);
            match record {
                // The root as target says that the service is not there (RFC 2782).
                Record::Server(server) if !server.target.is_empty() => all.push(server),
                Record::Server(_) | Record::Address(_) | Record::Other => {}
            }
        }
        Ok((all, ttl.max(TTL.0)))
    }

    async fn ask(&self, name: &str, kind: Rtype) -> Result<Vec<(Record, Duration)>, String> {
        let fault = |what: &str| format!("{name} ({kind}): {what}");
        let question =
            Name::<Vec<u8>>::from_str(name).map_err(|cause| fault(&cause.to_string()))?;
        let answer = time::timeout(ANSWER_TIMEOUT, self.resolver.query((question, kind))).await;
        let answer = match answer {
            // Whichever is patient for a shorter time.
            Ok(answer) => answer
                .map_err(|cause| fault(&format!("the name servers do not answer: {cause}")))?,
            Err(_) => return Err(fault("the name servers do not answer")),
        };
        let message = answer.into_message();
        match message.header().rcode() {
            Rcode::NOERROR => {}
            Rcode::NXDOMAIN => return Err(format!("{name}: there is no such name")),
            other => return Err(fault(&format!("the name server answers {other}"))),
        }
        let broken = |_| fault("the answer is malformed");
        let mut records = Vec::new();
        for record in message.answer().map_err(broken)?.limit_to_in::<AllRecordData<_, _>>() {
            let record = record.map_err(broken)?;
            let ttl = Duration::from_secs(record.ttl().as_secs().into());
            let data = record.data();
            let data = if let AllRecordData::A(a) = data {
                Record::Address(IpAddr::V4(a.addr()))
            } else if let AllRecordData::Aaaa(a) = data {
                Record::Address(IpAddr::V6(a.addr()))
            } else if let AllRecordData::Srv(srv) = data {
                Record::Server(Server {
                    priority: srv.priority(),
                    target: srv.target().to_string().trim_end_matches('.').to_owned(),
                    port: srv.port(),
                    weight: srv.weight(),
                })
            } else {
                Record::Other
            };
            records.push((data, ttl));
        }
        Ok(records)
    }
}

enum Record {
    Address(IpAddr),
    Server(Server),
    /// An alias, mostly; how long it holds counts.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_keeps_its_own_settings() {
        for (line, settings, text) in [
            ("10.0.0.1:80", "", "10.0.0.1:80"),
            ("10.0.0.1:80", " weight=2 backup", "10.0.0.1:80 weight=2 backup"),
            ("a 10.0.0.1:80 weight=9", " weight=2 max=5", "a 10.0.0.1:80 weight=9 max=5"),
            ("10.0.0.1:80 backup", " backup", "10.0.0.1:80 backup"),
        ] {
            assert_eq!(with(line, settings), text);
        }
    }

    #[test]
    fn comments_and_empty_lines_are_no_backends() {
        let text = "# the web\n\n10.0.0.1:80 # first\n  web2 10.0.0.2:80\t\n#10.0.0.3:80";
        assert_eq!(lines(text).collect::<Vec<_>>(), ["10.0.0.1:80", "web2 10.0.0.2:80"]);
    }

    #[test]
    fn weights_are_scaled_together_and_nobody_is_left_out() {
        for (weight, heaviest, ours) in [
            (0, 0, 1),
            (5, 10, 5),
            (256, 256, 256),
            (65535, 65535, 256),
            (32768, 65535, 128),
            (1, 65535, 1),
        ] {
            assert_eq!(scaled(weight, heaviest), ours, "{weight} of {heaviest}");
        }
    }
}

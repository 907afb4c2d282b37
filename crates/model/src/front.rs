//! What is heard of a connection before a backend is chosen: whose it is, and which server it wants.

use crate::Cidr;
use crate::quic::Quic;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

/// What is heard before a backend is chosen: by a proxy at the beginning of a TCP connection, and by all engines of
/// datagrams of QUIC.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Front {
    /// Whose connections begin with a PROXY header, which is believed.
    pub believed: Arc<[Cidr]>,
    /// Backends of some server names alone; those that no route names serve all other names.
    pub routes: Arc<[Route]>,
    /// Datagrams that name their server go there; `None`: nobody looks.
    pub quic: Option<Quic>,
}

impl Front {
    /// Whether a connection from there begins with a PROXY header.
    pub fn believes(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.believed.iter().any(|prefix| prefix.contains(from))
    }
}

/// The backends of a server name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// The name that a TLS client asks for.
    pub name: ServerName,
    /// Names of backends of the service.
    pub backends: Vec<String>,
}

/// A name of TLS servers in small letters: one host, or all hosts below a domain.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ServerName {
    /// This host.
    Exact(String),
    /// Whatever ends in a dot and this domain; not the domain itself.
    Below(String),
}

impl ServerName {
    /// `www.example.org`, or `*.example.org`; `None` if it is neither.
    pub fn new(text: &str) -> Option<Self> {
        let (domain, is_below) = match text.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (text, false),
        };
        let is_part = |part: &str| {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            (1..=63).contains(&part.len()) && part.bytes().all(inner)
        };
        // RFC 6066 section 3: an address is no name.
        let is_name = domain.len() <= 253
            && domain.split('.').all(is_part)
            && domain.parse::<IpAddr>().is_err();
        let domain = domain.to_ascii_lowercase();
        is_name.then_some(if is_below { Self::Below(domain) } else { Self::Exact(domain) })
    }

    /// How closely the name of a server, in small letters, is meant; `None`: not at all.
    pub fn fits(&self, name: &str) -> Option<usize> {
        match self {
            Self::Exact(host) => (host == name).then_some(usize::MAX),
            Self::Below(domain) => {
                let host = name.strip_suffix(domain.as_str())?.strip_suffix('.')?;
                (!host.is_empty()).then_some(domain.len())
            }
        }
    }
}

impl core::fmt::Display for ServerName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_meant_more_closely_than_its_domains() {
        let name = |text| ServerName::new(text).unwrap();
        let fits = |pattern, host| name(pattern).fits(host);
        assert_eq!(fits("www.Example.org", "www.example.org"), Some(usize::MAX));
        assert!(
            fits("*.b.example.org", "a.b.example.org") > fits("*.example.org", "a.b.example.org")
        );
        assert_eq!(fits("*.example.org", "example.org"), None);
        assert_eq!(fits("*.example.org", "www.badexample.org"), None);
        assert_eq!(fits("*.example.org", ".example.org"), None);
        for bad in ["", "*", "*.", "a..b", "a b", "10.0.0.1", "a.*.b", "https://a", "a.", "a:443"] {
            assert_eq!(ServerName::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn who_is_believed_is_a_matter_of_prefixes() {
        let prefix = |text: &str| {
            let (address, length) = text.split_once('/').unwrap();
            Cidr::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
        };
        let front = Front {
            believed: [prefix("10.1.0.0/16"), prefix("fd00::/8")].into(),
            ..Front::default()
        };
        let believes = |text: &str| front.believes(text.parse().unwrap());
        assert!(believes("10.1.2.3") && believes("::ffff:10.1.2.3") && believes("fd01::1"));
        assert!(!believes("10.2.0.1") && !believes("fe80::1"));
        assert!(!Front::default().believes("10.1.2.3".parse().unwrap()));
    }
}

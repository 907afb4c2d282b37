//! Writes the PROXY protocol header, version 1 or 2, that tells a backend who its client is.
//!
//! After haproxy.org's `proxy-protocol.txt`. Section 2.1: a line of words. Section 2.2: a signature, version and
//! command, family and transport, the length of what follows, and the two addresses with ports.

use buoy_model::{Protocol, SendProxy};
use std::net::{IpAddr, SocketAddr};

pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY: the connection is somebody else's.
const VERSION_COMMAND: u8 = 0x21;

/// The header of that version for a connection from `client` that arrived at `service`.
pub fn emit(version: SendProxy, client: SocketAddr, service: SocketAddr) -> Vec<u8> {
    match version {
        SendProxy::Off => Vec::new(),
        SendProxy::V1 => line(client, service),
        SendProxy::V2 => binary(Protocol::Tcp, client, service),
    }
}

fn line(client: SocketAddr, service: SocketAddr) -> Vec<u8> {
    let (mut source, mut destination) = (client.ip().to_canonical(), service.ip().to_canonical());
    let family = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_) | IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(_)) => {
            (source, destination) = (wide(source).into(), wide(destination).into());
            "TCP6"
        }
    };
    let (from, to) = (client.port(), service.port());
    format!("PROXY {family} {source} {destination} {from} {to}\r\n").into_bytes()
}

/// The header of version 2 for a connection, or a datagram, from `client` that arrived at `service`.
pub fn binary(protocol: Protocol, client: SocketAddr, service: SocketAddr) -> Vec<u8> {
    let transport = match protocol {
        Protocol::Tcp => 0x1,
        Protocol::Udp => 0x2,
    };
    let (source, destination) = (client.ip().to_canonical(), service.ip().to_canonical());
    let (family, addresses) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (0x10, [source.octets(), destination.octets()].concat())
        }
        (IpAddr::V6(_), IpAddr::V6(_) | IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(_)) => {
            (0x20, [wide(source), wide(destination)].concat())
        }
    };
    let ports = [client.port().to_be_bytes(), service.port().to_be_bytes()].concat();
    let length = u8::try_from(addresses.len() + ports.len()).unwrap_or(u8::MAX);
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_COMMAND, family | transport, 0, length]);
    header.extend(addresses);
    header.extend(ports);
    header
}

const fn wide(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: [u8; 12] =
        [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];

    #[test]
    fn a_line_of_version_1_has_addresses_of_one_family() {
        let of = |client: &str, service: &str| {
            let line = emit(SendProxy::V1, client.parse().unwrap(), service.parse().unwrap());
            String::from_utf8(line).unwrap()
        };
        let v4 = of("192.0.2.1:56324", "[::ffff:10.0.0.100]:443");
        assert_eq!(v4, "PROXY TCP4 192.0.2.1 10.0.0.100 56324 443\r\n");
        let v6 = of("[2001:db8::1]:4000", "10.0.0.100:53");
        assert_eq!(v6, "PROXY TCP6 2001:db8::1 ::ffff:10.0.0.100 4000 53\r\n");
    }

    #[test]
    fn tcp_over_ipv4_is_28_known_bytes() {
        let header = binary(
            Protocol::Tcp,
            "192.0.2.1:56324".parse().unwrap(),
            "10.0.0.100:443".parse().unwrap(),
        );
        let mut expected = START.to_vec();
        expected.extend([0x21, 0x11, 0x00, 0x0c]);
        expected.extend([192, 0, 2, 1, 10, 0, 0, 100, 0xdc, 0x04, 0x01, 0xbb]);
        assert_eq!(header, expected);
    }

    #[test]
    fn udp_over_ipv6_is_52_known_bytes() {
        let header = binary(
            Protocol::Udp,
            "[2001:db8::1]:4000".parse().unwrap(),
            "[2001:db8::64]:53".parse().unwrap(),
        );
        let mut expected = START.to_vec();
        expected.extend([0x21, 0x22, 0x00, 0x24]);
        expected.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        expected.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x64]);
        expected.extend([0x0f, 0xa0, 0x00, 0x35]);
        assert_eq!(header, expected);
    }

    #[test]
    fn an_ipv4_client_of_a_mapped_socket_is_an_ipv4_client() {
        let mapped = binary(
            Protocol::Tcp,
            "[::ffff:192.0.2.1]:1".parse().unwrap(),
            "[::ffff:10.0.0.100]:2".parse().unwrap(),
        );
        let plain =
            binary(Protocol::Tcp, "192.0.2.1:1".parse().unwrap(), "10.0.0.100:2".parse().unwrap());
        assert_eq!(mapped, plain);
    }
}

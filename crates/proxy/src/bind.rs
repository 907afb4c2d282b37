//! Opens listening sockets for addresses that may not be here yet, and says why it cannot.

use buoy_model::Protocol;
use socket2::{Domain, Socket, Type};
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use tokio::net::UdpSocket;

/// Connections that the kernel keeps for us while we are at the limit.
const BACKLOG: i32 = 1024;

/// Why a port cannot be served.
#[derive(Debug)]
pub enum StartError {
    /// Somebody else listens there.
    InUse {
        /// Where.
        address: SocketAddr,
        /// On which transport.
        protocol: Protocol,
        /// Who, as far as `/proc` shows.
        holder: Option<String>,
    },
    /// Not allowed to listen there.
    NotPermitted {
        /// Where.
        address: SocketAddr,
        /// On which transport.
        protocol: Protocol,
    },
    /// Anything else.
    Socket {
        /// Where.
        address: SocketAddr,
        /// On which transport.
        protocol: Protocol,
        /// In the kernel's words.
        error: io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |address: &SocketAddr, protocol: &Protocol| {
            format!("port {}/{} on {}", address.port(), protocol.name(), address.ip())
        };
        match self {
            Self::InUse { address, protocol, holder } => {
                let place = place(address, protocol);
                let holder = holder.as_deref().unwrap_or("another process");
                write!(
                    f,
                    "{place} is in use by {holder}: stop it, or make it listen on another address \
                     than {}",
                    address.ip()
                )
            }
            Self::NotPermitted { address, protocol } => write!(
                f,
                "not permitted to listen on {}: run the agent as root or give it \
                 CAP_NET_BIND_SERVICE",
                place(address, protocol)
            ),
            Self::Socket { address, protocol, error } => {
                write!(f, "cannot listen on {}: {error}", place(address, protocol))
            }
        }
    }
}

impl std::error::Error for StartError {}

/// Listens for connections to an address, here or not, with so many sockets that share what comes.
pub(crate) fn tcp(address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, StartError> {
    let all = || {
        // Sockets that share a port let others of the same user in: first see that nobody is there.
        drop(open(address, Type::STREAM, false)?);
        let mut address = address;
        let mut sockets = Vec::new();
        for _ in 0..count {
            let socket = open(address, Type::STREAM, true)?;
            // Each connection has it from here: one system call less for each.
            socket.set_tcp_nodelay(true)?;
            socket.listen(BACKLOG)?;
            let socket: TcpListener = socket.into();
            // Where any port will do, all of them have the first one's.
            address = socket.local_addr()?;
            sockets.push(socket);
        }
        Ok(sockets)
    };
    all().map_err(|error| explain(address, Protocol::Tcp, error))
}

/// Listens for datagrams to an address, here or not.
pub(crate) fn udp(address: SocketAddr) -> Result<UdpSocket, StartError> {
    open(address, Type::DGRAM, false)
        .and_then(|socket| UdpSocket::from_std(socket.into()))
        .map_err(|error| explain(address, Protocol::Udp, error))
}

fn open(address: SocketAddr, kind: Type, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_nonblocking(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    // A restart finds connections of the last life in TIME_WAIT. For datagrams the same option
    // would let two processes share the port, and one would get nothing.
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn explain(address: SocketAddr, protocol: Protocol, error: io::Error) -> StartError {
    if error.kind() == io::ErrorKind::AddrInUse {
        return StartError::InUse { address, protocol, holder: holder(protocol, address.port()) };
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return StartError::NotPermitted { address, protocol };
    }
    StartError::Socket { address, protocol, error }
}

/// Who listens on the port in this network namespace, as far as `/proc` shows.
fn holder(protocol: Protocol, port: u16) -> Option<String> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
        Protocol::Udp => ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"],
    };
    let inode = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| inode_of(&table, protocol, port))?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| has_open(*pid, &socket)).find_map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("`{}` (pid {pid})", name.trim()))
    })
}

/// The columns are `sl local_address rem_address st .. .. .. uid timeout inode`, see
/// `proc_net_tcp(5)`.
fn inode_of(table: &str, protocol: Protocol, port: u16) -> Option<u64> {
    let suffix = format!(":{port:04X}");
    let state = match protocol {
        Protocol::Tcp => "0A", // LISTEN
        Protocol::Udp => "07",
    };
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let listens = columns.get(1)?.ends_with(&suffix) && *columns.get(3)? == state;
        listens.then(|| columns.get(9)?.parse().ok()).flatten()
    })
}

fn has_open(pid: u32, socket: &str) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|to| to.as_os_str() == socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_names_who_has_it() {
        let first = tcp("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first[1].local_addr().unwrap(), address);
        let said = tcp(address, 2).unwrap_err().to_string();
        let place = format!("port {}/tcp on 127.0.0.1 is in use by `", address.port());
        assert!(said.starts_with(&place), "{said}");
        assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");

        let first = udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let said = udp(first.local_addr().unwrap()).unwrap_err().to_string();
        assert!(said.contains("/udp on 127.0.0.1 is in use by"), "{said}");
    }

    #[test]
    fn connections_that_come_in_send_at_once() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let sockets = match tcp(address.parse().unwrap(), 1) {
                // A host without IPv6.
                Err(_) if address.starts_with('[') => continue,
                sockets => sockets.unwrap(),
            };
            let listener = &sockets[0];
            listener.set_nonblocking(false).unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            assert!(accepted.nodelay().unwrap() && !client.nodelay().unwrap(), "{address}");
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_here_yet_can_be_listened_on() {
        for address in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let address: SocketAddr = address.parse().unwrap();
            if address.is_ipv6() && std::net::UdpSocket::bind("[::1]:0").is_err() {
                eprintln!("SKIPPED: an_address_that_is_not_here_yet: no IPv6 on this host");
                continue;
            }
            assert!(tcp(address, 2).is_ok(), "{address}");
            assert!(udp(address).is_ok(), "{address}");
        }
    }
}

//! Sends one datagram and waits for one; an ICMP "port unreachable" ends the wait at once.

use super::{Answer, Said};
use buoy_model::limits::CHECK_ANSWER_MAX;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::UdpSocket;

pub(super) async fn ask(address: SocketAddr, send: &[u8], expect: &[u8]) -> Answer {
    let answer = exchange(address, send).await?;
    if expect.is_empty() || answer.windows(expect.len()).any(|window| window == expect) {
        return Ok(Said::default());
    }
    Err(format!(
        "the answer does not hold what is expected: \"{}\"",
        buoy_wire::answer::shown(&answer)
    ))
}

/// The first datagram that comes back, cut to `CHECK_ANSWER_MAX`. From a port of its own, so that an answer to
/// the last question does not count for this one.
pub(super) async fn exchange(address: SocketAddr, send: &[u8]) -> Result<Vec<u8>, String> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await.map_err(|e| format!("no socket: {e}"))?;
    socket.connect(address).await.map_err(|e| explain(&e))?;
    socket.send(send).await.map_err(|e| explain(&e))?;
    let mut answer = vec![0; CHECK_ANSWER_MAX];
    let length = socket.recv(&mut answer).await.map_err(|e| explain(&e))?;
    answer.truncate(length);
    Ok(answer)
}

fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        return "port unreachable: nobody listens there".into();
    }
    super::explain(error)
}

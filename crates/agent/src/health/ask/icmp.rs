//! Asks a host by ICMP echo. What else the host says meanwhile is passed over.

use super::{Answer, Said};
use buoy_kernel::ping;
use buoy_wire::answer::echo::{Echo, MESSAGE_MAX};
use std::io;
use std::net::IpAddr;
use tokio::net::UdpSocket;

pub(super) async fn ask(address: IpAddr) -> Answer {
    let mut mark = [0; 4];
    getrandom::fill(&mut mark).map_err(|e| format!("no random number: {e}"))?;
    let echo = Echo::new(address, mark);
    let socket = ping::open(address).and_then(UdpSocket::from_std).map_err(|e| explain(&e))?;
    socket.send(&echo.question()).await.map_err(|e| explain(&e))?;
    let mut heard = [0; MESSAGE_MAX];
    loop {
        let length = socket.recv(&mut heard).await.map_err(|e| explain(&e))?;
        if echo.is_answer(&heard[..length]) {
            return Ok(Said::default());
        }
        // A host that talks without end must not keep the others from being asked.
        tokio::task::yield_now().await;
    }
}

fn explain(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!("cannot ping: {error} (the agent needs CAP_NET_RAW)");
    }
    super::explain(error)
}

//! Sends one datagram and waits for one; an ICMP "port unreachable" ends the wait at once.

use super::vip::Door;
use super::{Answer, Said};
use buoy_model::limits::CHECK_ANSWER_MAX;
use std::io;

pub(super) async fn ask(door: Door, send: &[u8], expect: &[u8]) -> Answer {
    let answer = exchange(door, send).await?;
    if expect.is_empty() || answer.windows(expect.len()).any(|window| window == expect) {
        return Ok(Said::default());
    }
    Err(format!(
        "the answer does not hold what is expected: \"{}\"",
        buoy_wire::answer::shown(&answer)
    ))
}

/// The first datagram that comes back, cut to `CHECK_ANSWER_MAX`.
pub(super) async fn exchange(door: Door, send: &[u8]) -> Result<Vec<u8>, String> {
    let socket = door.datagrams(explain).await?;
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

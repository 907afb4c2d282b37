//! Asks a DNS server for one name, and looks whether there is an answer (RFC 1035 §4).
//!
//! Of the answer only the head and the question are read; what the records say is not judged.

use super::vip::Door;
use super::{Answer, CLOSED, udp};
use buoy_model::limits::CHECK_ANSWER_MAX;
use buoy_model::{Protocol, dns_type};
use buoy_wire::answer::dns;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(super) async fn ask(door: Door, name: &str, record: &str, over: Protocol) -> Answer {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(|e| format!("no random number: {e}"))?;
    let question = dns::question(id, name, dns_type(record).unwrap_or_default());
    let answer = match over {
        Protocol::Udp => udp::exchange(door, &question).await?,
        Protocol::Tcp => by_tcp(door, &question).await?,
    };
    dns::judge(&question, &answer, &format!("{name} {record}"))
}

async fn by_tcp(door: Door, question: &[u8]) -> Result<Vec<u8>, String> {
    let mut stream = door.connect().await?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    let framed = [&length.to_be_bytes(), question].concat();
    stream.write_all(&framed).await.map_err(|_| CLOSED.to_owned())?;
    let length = stream.read_u16().await.map_err(|_| CLOSED.to_owned())?;
    let mut answer = vec![0; usize::from(length).min(CHECK_ANSWER_MAX)];
    stream.read_exact(&mut answer).await.map_err(|_| CLOSED.to_owned())?;
    Ok(answer)
}

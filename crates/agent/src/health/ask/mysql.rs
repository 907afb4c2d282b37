//! Reads the first packet of a MySQL server: its greeting, or why there is none.

use super::{Answer, CLOSED};
use buoy_model::limits::CHECK_ANSWER_MAX;
use buoy_wire::answer::mysql;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

pub(super) async fn ask(mut stream: TcpStream) -> Answer {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(|_| CLOSED.to_owned())?;
    let length = usize::from(u16::from_le_bytes([head[0], head[1]]));
    // The first packet of a connection has the number 0.
    if head[2] != 0 || head[3] != 0 || length == 0 || CHECK_ANSWER_MAX < length {
        return Err("the answer is not MySQL".into());
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await.map_err(|_| CLOSED.to_owned())?;
    mysql::judge(&packet)
}

//! Asks by protocols of lines: Redis, SMTP, and HAProxy's agent protocol.
//!
//! Of all that a server says `CHECK_ANSWER_MAX` bytes are read. What they mean: `buoy_wire::answer`.

use super::{Answer, CLOSED, Said};
use buoy_model::limits::CHECK_ANSWER_MAX;
use buoy_wire::answer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A stream that is read by lines.
struct Lines<S> {
    stream: S,
    /// Read and not yet taken.
    bytes: Vec<u8>,
    /// How many bytes may still come.
    room: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    fn new(stream: S) -> Self {
        Self { stream, bytes: Vec::new(), room: CHECK_ANSWER_MAX }
    }

    async fn say(&mut self, text: &str) -> Result<(), String> {
        self.stream.write_all(text.as_bytes()).await.map_err(|_| CLOSED.to_owned())
    }

    /// The next line without its end. The last one may end with the connection.
    async fn next(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|b| *b == b'\n') {
                let rest = self.bytes.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.truncate(end - usize::from(end > 0 && line[end - 1] == b'\r'));
                return Ok(line);
            }
            if self.room == 0 {
                return Err("the answer is too long".into());
            }
            let mut piece = [0; 512];
            let most = self.room.min(piece.len());
            let read = self.stream.read(&mut piece[..most]).await;
            let length = read.map_err(|_| CLOSED.to_owned())?;
            if length == 0 && self.bytes.is_empty() {
                return Err(CLOSED.into());
            }
            if length == 0 {
                return Ok(std::mem::take(&mut self.bytes));
            }
            self.room -= length;
            self.bytes.extend_from_slice(&piece[..length]);
        }
    }
}

/// `PING`.
pub(super) async fn redis(stream: TcpStream) -> Answer {
    let mut lines = Lines::new(stream);
    lines.say("PING\r\n").await?;
    answer::lines::redis(&lines.next().await?)
}

/// The greeting, `EHLO`, and goodbye.
pub(super) async fn smtp(stream: TcpStream) -> Answer {
    let me = stream.local_addr().map_or_else(
        |_| "localhost".to_owned(),
        |address| match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => format!("[{ip}]"),
            std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
        },
    );
    let mut lines = Lines::new(stream);
    reply(&mut lines, "220").await?;
    lines.say(&format!("EHLO {me}\r\n")).await?;
    reply(&mut lines, "250").await?;
    // It has answered; whether it hears the goodbye does not matter.
    let _ = lines.say("QUIT\r\n").await;
    Ok(Said::default())
}

/// One reply, of several lines perhaps, with this code.
async fn reply<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
    wanted: &str,
) -> Result<(), String> {
    loop {
        let line = lines.next().await?;
        if !answer::lines::smtp(&line, wanted)? {
            return Ok(());
        }
    }
}

/// One line of words that say how the server is.
pub(super) async fn agent(stream: TcpStream) -> Answer {
    answer::lines::agent(&Lines::new(stream).next().await?)
}

//! Asks by protocols of lines: Redis, SMTP, and HAProxy's agent protocol.
//!
//! Of all that a server says `CHECK_ANSWER_MAX` bytes are read; what is shown of it is short and printable.

use super::{Answer, CLOSED, Said};
use buoy_model::limits::{CHECK_ANSWER_MAX, CHECK_SHARE_MAX};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Characters of an answer that are shown to people.
const SHOWN_MAX: usize = 80;

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
    judge_redis(&lines.next().await?)
}

fn judge_redis(line: &[u8]) -> Answer {
    match line {
        // A server that wants a password first obeys commands, which is all that is asked.
        b"+PONG" => Ok(Said::default()),
        line if line.starts_with(b"-NOAUTH ") => Ok(Said::default()),
        [b'-', error @ ..] => Err(format!("Redis says {}", shown(error))),
        _ => Err("the answer is not Redis".into()),
    }
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
        if !part_of_reply(&line, wanted)? {
            return Ok(());
        }
    }
}

/// Whether more lines follow.
fn part_of_reply(line: &[u8], wanted: &str) -> Result<bool, String> {
    let (code, rest) = line.split_at_checked(3).ok_or("the answer is not SMTP")?;
    let more = match rest.first() {
        Some(b'-') => true,
        Some(b' ') | None => false,
        Some(_) => return Err("the answer is not SMTP".into()),
    };
    if !code.iter().all(u8::is_ascii_digit) {
        return Err("the answer is not SMTP".into());
    }
    if code != wanted.as_bytes() {
        return Err(format!("SMTP says {} instead of {wanted}", shown(line)));
    }
    Ok(more)
}

/// One line of words that say how the server is.
pub(super) async fn agent(stream: TcpStream) -> Answer {
    judge_agent(&Lines::new(stream).next().await?)
}

pub(super) fn judge_agent(line: &[u8]) -> Answer {
    let text = shown(line);
    let (words, reason) = text.split_once('#').unwrap_or((&text, ""));
    let mut share = None;
    let (mut ready, mut drained, mut ignored) = (false, false, false);
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let number = word.strip_suffix('%').and_then(|number| number.parse::<u16>().ok());
        match (word.to_ascii_lowercase().as_str(), number) {
            (_, Some(percent)) => share = Some(percent.min(CHECK_SHARE_MAX)),
            ("up" | "ready", None) => ready = true,
            ("drain", None) => drained = true,
            (bad @ ("down" | "fail" | "failed" | "stopped" | "maint"), None) => {
                let reason = reason.trim();
                let colon = if reason.is_empty() { "" } else { ": " };
                return Err(format!("its agent says {bad}{colon}{reason}"));
            }
            (other, None) if other.starts_with("maxconn:") => ignored = true,
            (_, None) => return Err(format!("its agent says \"{word}\", which is no state")),
        }
    }
    if !ready && !drained && !ignored && share.is_none() {
        return Err("its agent says nothing".into());
    }
    let share = if drained { 0 } else { share.unwrap_or(100) };
    let warning = match (share, ignored) {
        (0, _) => "its agent says drain: no new connections".to_owned(),
        (100, true) => "its agent says maxconn, which is not obeyed".to_owned(),
        (100, false) => String::new(),
        (percent, _) => format!("its agent says {percent}% of its weight"),
    };
    Ok(Said { warning, share })
}

/// What a server said, fit for people.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * SHOWN_MAX)]);
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().chars().take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::noise::Noise;
    use super::*;

    #[test]
    fn an_agent_says_how_its_server_is() {
        type Case = (&'static [u8], Result<(u16, &'static str), &'static str>);
        let table: [Case; 17] = [
            (b"up", Ok((100, ""))),
            (b"READY", Ok((100, ""))),
            (b"75%", Ok((75, "its agent says 75% of its weight"))),
            (b"up 50%", Ok((50, "its agent says 50% of its weight"))),
            (b"up,100%", Ok((100, ""))),
            (b"900%", Ok((255, "its agent says 255% of its weight"))),
            (b"drain", Ok((0, "its agent says drain: no new connections"))),
            (b"drain 50%", Ok((0, "its agent says drain: no new connections"))),
            (b"0%", Ok((0, "its agent says drain: no new connections"))),
            (b"up maxconn:30", Ok((100, "its agent says maxconn, which is not obeyed"))),
            (b"down", Err("its agent says down")),
            (b"down # disk \x1b full", Err("its agent says down: disk   full")),
            (b"maint", Err("its agent says maint")),
            (b"75% failed#x", Err("its agent says failed: x")),
            (b"", Err("its agent says nothing")),
            (b"hello", Err("its agent says \"hello\", which is no state")),
            (b"-5%", Err("its agent says \"-5%\", which is no state")),
        ];
        for (line, expected) in table {
            let said = judge_agent(line).map(|said| (said.share, said.warning));
            let expected = expected.map(|(share, warning)| (share, warning.to_owned()));
            assert_eq!(said, expected.map_err(str::to_owned), "{}", shown(line));
        }
    }

    #[test]
    fn whatever_comes_as_a_line_is_no_panic() {
        let mut noise = Noise::new(3);
        for _ in 0..300_000 {
            let line = noise.bytes(32);
            let _ = (judge_agent(&line), judge_redis(&line), part_of_reply(&line, "220"));
        }
    }
}

//! What the hosts of the forwarding tests say to each other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

/// Runs `ip`; what it said when it failed.
pub(crate) fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|e| format!("ip: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// A server that says who it is and whom it sees, and then echoes.
pub(crate) fn greet_and_echo(server: &str, mut stream: TcpStream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let mut said = stream.write_all(format!("{server} {}\n", peer.ip()).as_bytes());
    let mut buffer = [0; 4096];
    while said.is_ok() {
        said = match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => stream.write_all(&buffer[..length]),
        };
    }
}

/// A client's connection to such a server.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) server: String,
    pub(crate) peer: String,
}

impl Connection {
    pub(crate) fn line(&mut self) -> std::io::Result<String> {
        let (mut line, mut byte) = (Vec::new(), [0]);
        loop {
            self.stream.read_exact(&mut byte)?;
            if byte == *b"\n" {
                return Ok(String::from_utf8(line).unwrap());
            }
            line.push(byte[0]);
        }
    }

    /// Whether what is said comes back.
    pub(crate) fn echoes(&mut self, words: &str) -> std::io::Result<bool> {
        self.stream.write_all(format!("{words}\n").as_bytes())?;
        Ok(self.line()? == words)
    }
}

//! What an answer of so many bytes costs a server that has it ready: it writes them and does nothing else. No agent
//! that makes its answers goes below it.

use crate::{Error, Result};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// One answer to whatever is asked, on a socket of its own; ends when it is dropped.
pub(super) struct Ready {
    path: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ready {
    pub(super) fn start(path: &Path, body: &[u8]) -> Result<Self> {
        let listener =
            UnixListener::bind(path).map_err(Error::system("open a socket for bare answers"))?;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        let mut answer = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend_from_slice(body);
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                // A client that hangs up is heard of from the other side.
                let _ = client.and_then(|client| give(client, &answer));
            }
        });
        Ok(Self { path: path.into(), is_over, thread: Some(thread) })
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // Whoever waits for a client gets one.
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        drop(std::fs::remove_file(&self.path));
    }
}

fn give(mut client: UnixStream, answer: &[u8]) -> std::io::Result<()> {
    let (mut asked, mut piece) = (Vec::new(), [0; 4096]);
    while !asked.ends_with(b"\r\n\r\n") {
        match client.read(&mut piece)? {
            0 => return Ok(()),
            n => asked.extend_from_slice(piece.get(..n).unwrap_or_default()),
        }
    }
    client.write_all(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_is_given_to_each_who_asks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ready.sock");
        let body = b"[1]".repeat(1 << 20);
        let ready = Ready::start(&path, &body).unwrap();
        let client = buoy_api::Client::connect(&path).unwrap();
        for _ in 0..2 {
            assert!(client.text("/").unwrap() == body);
        }
        drop(ready);
        assert!(!path.exists());
        assert!(client.text("/").is_err());
    }
}

//! Thousands of connections that are opened once and asked now and then: which of them still have the server that
//! they were opened to?
//!
//! All are asked at the same moment and heard until a deadline, by one thread: a probe of this size must not take
//! the processor from what it watches.

use crate::namespace::Namespace;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// How long opening one connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// How often it is looked for answers.
const LOOK: Duration = Duration::from_millis(5);

/// What is spoken on the port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Speech {
    /// A line is answered with the server's name and the line.
    Lines,
    /// HTTP/1.1, with the server's name as body.
    Http,
}

impl Speech {
    const fn question(self) -> &'static [u8] {
        match self {
            Self::Lines => b"who\n",
            Self::Http => b"GET / HTTP/1.1\r\nHost: crowd\r\n\r\n",
        }
    }

    /// The server that an answer is from, once the answer is whole.
    fn answerer(self, heard: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(heard).ok()?;
        match self {
            Self::Lines => text.strip_suffix(" who\n").map(str::to_owned),
            Self::Http => {
                let (_, body) = text.split_once("\r\n\r\n")?;
                body.strip_suffix('\n').map(str::to_owned)
            }
        }
    }
}

/// One connection of the crowd.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    speech: Speech,
    kind: &'static str,
    /// Who accepted it.
    server: String,
    heard: Vec<u8>,
    /// Why it is over.
    broken: Option<ErrorKind>,
}

/// Where connections of a kind are opened from and to.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// What it is called in figures.
    pub kind: &'static str,
    /// The client's address.
    pub from: IpAddr,
    /// The VIP and its port.
    pub to: SocketAddr,
    /// What is spoken there.
    pub speech: Speech,
}

/// What became of the connections of a kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Figures {
    /// Opened until now.
    pub opened: usize,
    /// Answered by the server that they were opened to.
    pub survived: usize,
    /// Those that did not, by why: the kind of error, silence, or another server.
    pub lost: BTreeMap<String, usize>,
}

/// The connections; closed when dropped.
#[derive(Debug, Default)]
pub struct Crowd {
    connections: Vec<Connection>,
}

impl Crowd {
    /// Opens so many more, each of which is answered once.
    pub fn open(&mut self, inside: &Namespace, way: Way, count: usize) -> Result<()> {
        let first = self.connections.len();
        let opened =
            inside.enter(|| (0..count).map(|_| open(way)).collect::<std::io::Result<Vec<_>>>())?;
        let what = |e| Error::system(format!("open connections to {}", way.to))(e);
        self.connections.extend(opened.map_err(what)?);
        self.ask_from(first, 4 * CONNECT_MAX);
        for connection in &mut self.connections[first..] {
            connection.server = connection.speech.answerer(&connection.heard).unwrap_or_default();
        }
        Ok(())
    }

    /// Asks all once more and waits for their answers; what became of each kind since it was opened.
    pub fn ask(&mut self, at_most: Duration) -> BTreeMap<&'static str, Figures> {
        self.ask_from(0, at_most);
        let mut figures: BTreeMap<&'static str, Figures> = BTreeMap::new();
        for connection in &self.connections {
            let figures = figures.entry(connection.kind).or_default();
            figures.opened += 1;
            match connection.fate() {
                None => figures.survived += 1,
                Some(why) => *figures.lost.entry(why).or_default() += 1,
            }
        }
        figures
    }

    /// How many connections each server has.
    pub fn servers(&self) -> BTreeMap<String, usize> {
        let mut servers = BTreeMap::new();
        for connection in &self.connections {
            *servers.entry(connection.server.clone()).or_default() += 1;
        }
        servers
    }

    fn ask_from(&mut self, first: usize, at_most: Duration) {
        let asked = &mut self.connections[first..];
        asked.iter_mut().for_each(Connection::ask);
        let until = Instant::now() + at_most;
        while Instant::now() < until {
            let mut waits = false;
            for connection in asked.iter_mut() {
                waits |= connection.listen();
            }
            if !waits {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Connection {
    fn ask(&mut self) {
        self.heard.clear();
        if self.broken.is_none()
            && let Err(error) = self.stream.write_all(self.speech.question())
        {
            self.broken = Some(error.kind());
        }
    }

    /// Whether its answer is still awaited.
    fn listen(&mut self) -> bool {
        let mut bytes = [0; 512];
        while self.broken.is_none() && self.speech.answerer(&self.heard).is_none() {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.broken = Some(ErrorKind::UnexpectedEof),
                Ok(length) => self.heard.extend_from_slice(&bytes[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) => self.broken = Some(error.kind()),
            }
        }
        false
    }

    /// Why it does not count as alive.
    fn fate(&self) -> Option<String> {
        if let Some(kind) = self.broken {
            return Some(kind.to_string());
        }
        match self.speech.answerer(&self.heard) {
            None => Some("no answer".to_owned()),
            Some(server) if server != self.server => Some("another server".to_owned()),
            Some(_) => None,
        }
    }
}

fn open(way: Way) -> std::io::Result<Connection> {
    let socket = Socket::new(Domain::for_address(way.to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(way.from, 0).into())?;
    socket.connect_timeout(&way.to.into(), CONNECT_MAX)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(Connection {
        stream: socket.into(),
        speech: way.speech,
        kind: way.kind,
        server: String::new(),
        heard: Vec::new(),
        broken: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_its_server_when_it_is_whole() {
        assert_eq!(Speech::Lines.answerer(b"web1 who\n").as_deref(), Some("web1"));
        assert_eq!(Speech::Lines.answerer(b"web1 wh"), None);
        let http = b"HTTP/1.1 200 OK\r\nX-Backend: web2\r\n\r\nweb2\n";
        assert_eq!(Speech::Http.answerer(http).as_deref(), Some("web2"));
        assert_eq!(Speech::Http.answerer(&http[..20]), None);
        assert_eq!(Speech::Http.answerer(&http[..http.len() - 1]), None);
    }
}

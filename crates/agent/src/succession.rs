//! Hands proxied connections from an agent that ends to the one that is started after it, through the service manager.
//!
//! The manager keeps sockets without knowing what they are, and in an order of its own. So one of its descriptors is a
//! memory file that says what each is, by the number that the kernel gives each socket (its inode):
//!
//! ```text
//! buoy-connections 1
//! listener INODE ADDRESS:PORT
//! pair INODE INODE SERVICE BACKEND-ADDRESS ENDED ENDED REST REST NAME
//! waiting INODE SERVICE CLIENT-ADDRESS REST
//! ```
//!
//! The pair is client and backend, ENDED is `1` where an end was passed on, REST what was read and not written, in
//! hexadecimal digits (`-`: nothing), first of the way to the backend. Who waits has no backend yet. What cannot be read is left out and said: those
//! sockets are closed.

use buoy_kernel::kept;
use buoy_proxy::handover::{Half, Handed, Pair, Waiting};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixDatagram;

const HEAD: &str = "buoy-connections 1";
/// More than a million connections with something left need.
const TEXT_MAX: u64 = 1 << 30;

/// Gives everything to the manager; how many connections there were.
pub(crate) fn leave(manager: &UnixDatagram, all: &[Handed]) -> io::Result<usize> {
    if all.is_empty() {
        return Ok(0);
    }
    let mut file = File::from(memfd_create(c"buoy-connections", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text(all)?.as_bytes())?;
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![file.as_fd()];
    let mut pairs = 0;
    for handed in all {
        match handed {
            Handed::Listener { socket, .. } => descriptors.push(socket.as_fd()),
            Handed::Pair(pair) => {
                pairs += 1;
                descriptors.extend([pair.client.as_fd(), pair.backend.as_fd()]);
            }
            Handed::Waiting(waiting) => {
                pairs += 1;
                descriptors.push(waiting.client.as_fd());
            }
        }
    }
    kept::keep(manager, &descriptors)?;
    Ok(pairs)
}

/// What the run before has left with the manager.
pub(crate) fn take(manager: Option<&UnixDatagram>) -> Vec<Handed> {
    let all = kept::take(manager);
    if all.is_empty() {
        return Vec::new();
    }
    let (handed, lost) = sort(all);
    if lost != 0 {
        tracing::warn!(lost, "sockets of the run before are closed: nothing says what they are");
    }
    handed
}

fn inode(socket: impl std::os::fd::AsFd) -> io::Result<u64> {
    Ok(File::from(socket.as_fd().try_clone_to_owned()?).metadata()?.ino())
}

fn text(all: &[Handed]) -> io::Result<String> {
    let mut text = format!("{HEAD}\n");
    for handed in all {
        let _infallible = match handed {
            Handed::Listener { address, socket } => {
                writeln!(text, "listener {} {address}", inode(socket)?)
            }
            Handed::Pair(pair) => {
                let Pair { service, name, address, client, backend, there, back } = pair;
                writeln!(
                    text,
                    "pair {} {} {service} {address} {} {} {} {} {name}",
                    inode(client)?,
                    inode(backend)?,
                    u8::from(there.ended),
                    u8::from(back.ended),
                    digits(&there.rest),
                    digits(&back.rest),
                )
            }
            Handed::Waiting(Waiting { service, from, client, said }) => {
                writeln!(text, "waiting {} {service} {from} {}", inode(client)?, digits(said))
            }
        };
    }
    Ok(text)
}

fn digits(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    if digits == "-" {
        return Some(Vec::new());
    }
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// What they are, and how many nothing is said of.
fn sort(all: Vec<OwnedFd>) -> (Vec<Handed>, usize) {
    let mut sockets: BTreeMap<u64, OwnedFd> = BTreeMap::new();
    let (mut texts, mut lost) = (Vec::new(), 0);
    for descriptor in all {
        let file = File::from(descriptor);
        match file.metadata() {
            Ok(about) if about.file_type().is_socket() => {
                sockets.insert(about.ino(), file.into());
            }
            Ok(about) if about.file_type().is_file() => texts.push(file),
            Ok(_) | Err(_) => lost += 1,
        }
    }
    let mut handed = Vec::new();
    for mut file in texts {
        let mut text = String::new();
        let read = file.rewind().and_then(|()| file.take(TEXT_MAX).read_to_string(&mut text));
        let mut lines = text.lines();
        if read.is_err() || lines.next() != Some(HEAD) {
            lost += 1;
            continue;
        }
        handed.extend(lines.filter_map(|line| parse(line, &mut sockets)));
    }
    (handed, lost + sockets.len())
}

fn parse(line: &str, sockets: &mut BTreeMap<u64, OwnedFd>) -> Option<Handed> {
    let mut words = line.splitn(10, ' ');
    let kind = words.next()?;
    let mut socket = |word: Option<&str>| sockets.remove(&word?.parse().ok()?);
    match kind {
        "listener" => {
            let socket = socket(words.next())?.into();
            Some(Handed::Listener { address: words.next()?.parse().ok()?, socket })
        }
        "pair" => {
            let (client, backend) = (socket(words.next())?.into(), socket(words.next())?.into());
            let (service, address) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let (there_ended, back_ended) = (words.next()? == "1", words.next()? == "1");
            let there = Half { rest: bytes(words.next()?)?, ended: there_ended };
            let back = Half { rest: bytes(words.next()?)?, ended: back_ended };
            let name = words.next()?.to_owned();
            Some(Pair { service, name, address, client, backend, there, back }.into())
        }
        "waiting" => {
            let client = socket(words.next())?.into();
            let (service, from) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let said = bytes(words.next()?)?;
            Some(Handed::Waiting(Waiting { service, from, client, said }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (Pair, TcpListener, TcpListener) {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (clients, backends) = (listen(), listen());
        let connect = |to: &TcpListener| TcpStream::connect(to.local_addr().unwrap()).unwrap();
        let pair = Pair {
            service: "[2001:db8::64]:443".parse().unwrap(),
            name: "web 1".into(),
            address: "10.0.0.21:8443".parse().unwrap(),
            client: connect(&clients),
            backend: connect(&backends),
            there: Half { rest: vec![0, 9, 255], ended: false },
            back: Half { rest: vec![], ended: true },
        };
        (pair, clients, backends)
    }

    /// As the manager gives them back: in another order.
    fn back(all: &[Handed], text: &str) -> Vec<OwnedFd> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut descriptors = Vec::new();
        for handed in all.iter().rev() {
            let clone = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().unwrap();
            match handed {
                Handed::Listener { socket, .. } => descriptors.push(clone(socket.as_fd())),
                Handed::Pair(p) => {
                    descriptors.extend([clone(p.backend.as_fd()), clone(p.client.as_fd())]);
                }
                Handed::Waiting(w) => descriptors.push(clone(w.client.as_fd())),
            }
        }
        descriptors.push(file.into());
        descriptors
    }

    #[test]
    fn what_is_left_is_what_is_taken_in_whatever_order() {
        let (pair, clients, _backends) = pair();
        let (client, backend) =
            (pair.client.local_addr().unwrap(), pair.backend.local_addr().unwrap());
        let address = clients.local_addr().unwrap();
        let waiting = TcpStream::connect(address).unwrap();
        let from = waiting.local_addr().unwrap();
        let (service, said) = (pair.service, b"PROXY ".to_vec());
        let waiting = Handed::Waiting(Waiting { service, from, client: waiting, said });
        let all = [Handed::Listener { address, socket: clients }, pair.into(), waiting];
        let (mut taken, lost) = sort(back(&all, &text(&all).unwrap()));
        assert_eq!((taken.len(), lost), (3, 0));
        let Some(Handed::Waiting(waiting)) = taken.pop() else { panic!("not who waits") };
        assert_eq!((waiting.from, waiting.client.local_addr().unwrap()), (from, from));
        assert_eq!((waiting.service, waiting.said.as_slice()), (service, &b"PROXY "[..]));
        let mut taken = taken.into_iter();
        let (Some(Handed::Listener { address: at, socket }), Some(Handed::Pair(pair))) =
            (taken.next(), taken.next())
        else {
            panic!("not what was left");
        };
        assert_eq!((at, socket.local_addr().unwrap()), (address, address));
        assert_eq!(pair.client.local_addr().unwrap(), client);
        assert_eq!(pair.backend.local_addr().unwrap(), backend);
        assert_eq!((pair.name.as_str(), pair.there.rest.as_slice()), ("web 1", &[0, 9, 255][..]));
        assert!(pair.back.ended && !pair.there.ended && pair.back.rest.is_empty());
    }

    #[test]
    fn what_nothing_is_said_of_is_counted_and_closed() {
        for wrong in ["", "buoy-connections 2\n", "buoy-connections 1\npair 1 2 3\nlistener\n\nx y"]
        {
            let (pair, _clients, _backends) = pair();
            let (taken, lost) = sort(back(&[pair.into()], wrong));
            assert!(taken.is_empty() && 2 <= lost, "{wrong:?}: {lost}");
        }
    }
}

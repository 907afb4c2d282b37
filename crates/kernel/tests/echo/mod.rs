//! A server that echoes, and clients of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

pub(crate) const WAIT: Duration = Duration::from_secs(10);

/// A server that sends back what it hears, for ever.
pub(crate) fn serve(address: &str) {
    let listener = TcpListener::bind(address.parse::<SocketAddr>().unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

pub(crate) fn connect(to: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to.parse().unwrap(), WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    Ok(stream)
}

/// Sends so many bytes and hears them again.
pub(crate) fn echoes(stream: &mut TcpStream, length: usize) {
    let sent: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
    let mut heard = vec![0; length];
    std::thread::scope(|scope| {
        let (mut writer, sent) = (stream.try_clone().unwrap(), &sent);
        scope.spawn(move || writer.write_all(sent).unwrap());
        stream.read_exact(&mut heard).unwrap();
    });
    assert!(heard == sent);
}

//! What the proxy hears before it chooses a backend, and what it learns from connections, by a real agent.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::process::wait_until;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;
use support::{Cluster, LOCAL, MS, SOON, VIP, cluster};

const SERVICES: &str = "
[[vip.service]]
port = \"443/tcp\"
check = false
backends = [\"web1 10.77.0.21:7\", \"web2 10.77.0.22:7\"]
[vip.service.sni]
\"one.example\" = \"web1\"
\"*.two.example\" = \"web2\"
[[vip.service]]
port = \"8081/tcp\"
accept_proxy = [\"10.77.0.50/32\"]
send_proxy = \"v2\"
check = false
backends = [\"web1 10.77.0.21:8080\"]
[[vip.service]]
port = \"7/tcp\"
mode = \"proxy\"
balance = \"roundrobin\"
eject_after = 2
check = false
backends = [\"web1 10.77.0.21:7\", \"web2 10.77.0.22:7\"]
";

/// What is answered to some bytes, up to so many; `None`: a reset.
fn ask(cluster: &Cluster, port: u16, question: &[u8], at_most: usize) -> Option<Vec<u8>> {
    let client = cluster.segment.inside("client").unwrap();
    let answer = client.enter(|| {
        let mut stream = TcpStream::connect((VIP, port))?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(question)?;
        let mut heard = vec![0; at_most];
        let mut length = 0;
        while length < at_most {
            match stream.read(&mut heard[length..])? {
                0 => break,
                more => length += more,
            }
        }
        heard.truncate(length);
        Ok::<_, std::io::Error>(heard)
    });
    match answer.unwrap() {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        answer => Some(answer.unwrap()),
    }
}

/// The first message of a TLS client that asks for a name (RFC 8446 section 4.1.2, RFC 6066 section 3), and a line for
/// the echo behind it.
fn hello(name: &str) -> Vec<u8> {
    let block = |width: usize, of: &[u8]| {
        let length = u32::try_from(of.len()).unwrap().to_be_bytes();
        [&length[4 - width..], of].concat()
    };
    let entry = [&[0][..], &block(2, name.as_bytes())].concat();
    let extension = [&[0, 0][..], &block(2, &block(2, &entry))].concat();
    let head = [&[3, 3][..], &[7; 32], &block(1, &[]), &block(2, &[0x13, 1]), &block(1, &[0])];
    let body = [head.concat(), block(2, &extension)].concat();
    let message = [&[1][..], &block(3, &body)].concat();
    [&[22, 3, 1][..], &block(2, &message), b"\n"].concat()
}

#[test]
fn a_proxy_hears_who_comes_and_what_is_asked_for_and_learns_from_failures() {
    let test = "a_proxy_hears_who_comes_and_what_is_asked_for_and_learns_from_failures";
    let Some(mut cluster) = cluster(test, 1, &format!("{LOCAL}{SERVICES}")) else { return };
    wait_until(SOON, "the VIP", || Ok(cluster.has_address("n1", "10.77.0.100"))).unwrap();

    // By the name that a TLS client asks for; nobody is there for other names.
    let server = |name: &str| ask(&cluster, 443, &hello(name), 4);
    assert_eq!(server("one.example").as_deref(), Some(&b"web1"[..]));
    assert_eq!(server("www.two.example").as_deref(), Some(&b"web2"[..]));
    assert_eq!(server("three.example"), None);

    // Whom the header names is the client, for the backend too; who sends none is not heard.
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    let told = format!("PROXY TCP4 192.0.2.7 10.77.0.100 4444 8081\r\n{request}");
    let answer = ask(&cluster, 8081, told.as_bytes(), 4096).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.contains("X-Client: 192.0.2.7:4444"), "{answer}");
    assert_eq!(ask(&cluster, 8081, request.as_bytes(), 4096), None);

    // A backend that accepts nothing is left alone, and nobody notices.
    cluster.segment.backend("web1").unwrap().set_listening(false);
    let client = cluster.segment.inside("client").unwrap();
    let is_closed = || TcpStream::connect("10.77.0.21:7").is_err();
    wait_until(SOON, "web1 to be gone", || client.enter(is_closed)).unwrap();
    let begin = Instant::now();
    let ejected = |cluster: &Cluster| {
        let status = cluster.buoy.status("n1").unwrap();
        let service = &status.vips[0].services[2];
        service.backends[0].reason.clone()
    };
    while !ejected(&cluster).contains("left alone") {
        assert_eq!(ask(&cluster, 7, b"who\n", 9).as_deref(), Some(&b"web2 who\n"[..]));
        assert!(begin.elapsed() < SOON, "{}", ejected(&cluster));
        std::thread::sleep(5 * MS);
    }
}

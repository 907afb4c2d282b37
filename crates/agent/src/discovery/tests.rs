//! Whether names, servers and files are looked up as they change, with a name server and a file of the test.

use super::accepted::Accepted;
use super::*;
use crate::sample::{self, PATIENCE};
use buoy_config::{FileFacts, Found, Host, HostAddress, HostLink};
use buoy_model::{Cidr, DiscoveryPlace, LinkId};
use domain::base::iana::Rcode;
use domain::base::message_builder::MessageBuilder;
use domain::base::{Message, Name, Rtype, Ttl};
use domain::rdata::{A, Aaaa, Srv};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

/// Name and data, as in a zone file.
type Zone = Arc<Mutex<Vec<(&'static str, &'static str)>>>;

/// Answers for the zone on loopback, with a TTL of a second; SRV data are `PRIORITY WEIGHT PORT TARGET`.
async fn name_server(zone: Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
            let answer = answer(&buffer[..length], &zone.lock().unwrap());
            socket.send_to(&answer, from).await.unwrap();
        }
    });
    at
}

fn answer(question: &[u8], zone: &[(&str, &str)]) -> Vec<u8> {
    let request = Message::from_octets(question).unwrap();
    let asked = request.sole_question().unwrap();
    let name = asked.qname().to_string().trim_end_matches('.').to_owned();
    let of_name: Vec<&str> = zone.iter().filter(|(n, _)| *n == name).map(|(_, d)| *d).collect();
    let code = if of_name.is_empty() { Rcode::NXDOMAIN } else { Rcode::NOERROR };
    let mut out = MessageBuilder::new_vec().start_answer(&request, code).unwrap();
    let owner = Name::<Vec<u8>>::from_str(&name).unwrap();
    let ttl = Ttl::from_secs(1);
    for data in of_name {
        match (data.parse::<IpAddr>(), asked.qtype()) {
            (Ok(IpAddr::V4(ip)), Rtype::A) => out.push((&owner, ttl, A::new(ip))).unwrap(),
            (Ok(IpAddr::V6(ip)), Rtype::AAAA) => out.push((&owner, ttl, Aaaa::new(ip))).unwrap(),
            (Err(_), Rtype::SRV) => {
                let words: Vec<&str> = data.split(' ').collect();
                let number = |n: usize| words[n].parse().unwrap();
                let target = Name::<Vec<u8>>::from_str(words[3]).unwrap();
                out.push((&owner, ttl, Srv::new(number(0), number(1), number(2), target))).unwrap();
            }
            _ => {}
        }
    }
    out.finish()
}

fn entry(text: &str, place: DiscoveryPlace, settings: &str, resolvers: &[SocketAddr]) -> Discovery {
    let (text, settings) = (text.into(), settings.into());
    Discovery { text, place, settings, resolvers: resolvers.to_vec() }
}

fn name(text: &str, name: &str, port: Option<u16>, resolver: SocketAddr) -> Discovery {
    let place = DiscoveryPlace::Name { name: name.into(), port };
    entry(text, place, " weight=2", &[resolver])
}

fn wanted_for(entry: Discovery, ipv6: bool) -> Wanted {
    Wanted { entry, ipv4: true, ipv6 }
}

#[tokio::test]
async fn a_name_is_its_addresses_of_the_versions_that_can_be_used() {
    let zone = [("a.org", "10.0.0.2"), ("a.org", "10.0.0.1"), ("a.org", "2001:db8::1")];
    let server = name_server(Arc::new(Mutex::new(zone.to_vec()))).await;
    let look = async |port, ipv6| {
        let wanted = wanted_for(name("dns:a.org", "a.org", port, server), ipv6);
        look::look(&wanted).await.unwrap()
    };
    let (texts, again) = look(Some(80), true).await;
    let all = ["10.0.0.1:80 weight=2", "10.0.0.2:80 weight=2", "[2001:db8::1]:80 weight=2"];
    assert_eq!(texts, all);
    assert_eq!(again, Duration::from_secs(1), "the TTL");
    assert_eq!(look(None, false).await.0, ["10.0.0.1 weight=2", "10.0.0.2 weight=2"]);
}

#[tokio::test]
async fn servers_have_ports_weights_and_backups_of_their_own() {
    let zone = [
        ("_s._tcp.a.org", "10 5 81 one.a.org"),
        ("_s._tcp.a.org", "20 7 82 two.a.org"),
        ("_s._tcp.a.org", "10 0 83 one.a.org"),
        ("one.a.org", "10.0.0.1"),
        ("two.a.org", "10.0.0.2"),
    ];
    let server = name_server(Arc::new(Mutex::new(zone.to_vec()))).await;
    let place = DiscoveryPlace::Servers { name: "_s._tcp.a.org".into() };
    let wanted = wanted_for(entry("srv:_s._tcp.a.org", place, " max=3", &[server]), false);
    let expected = [
        "10.0.0.1:81 weight=5 max=3",
        "10.0.0.1:83 weight=1 max=3",
        "10.0.0.2:82 weight=7 backup max=3",
    ];
    assert_eq!(look::look(&wanted).await.unwrap().0, expected);
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let server = name_server(Arc::new(Mutex::new(vec![("v6.org", "2001:db8::1")]))).await;
    let file = DiscoveryPlace::File { path: "/nowhere/backends".into() };
    for (entry, words) in [
        (name("dns:b.org:80", "b.org", Some(80), server), "there is no such name"),
        (name("dns:v6.org:80", "v6.org", Some(80), server), "v6.org has no address"),
        (entry("file:/nowhere/backends", file, "", &[]), "/nowhere/backends cannot be read"),
    ] {
        let why = look::look(&wanted_for(entry, false)).await.unwrap_err();
        assert!(why.contains(words), "{why}");
    }
}

/// What a name server makes of a question.
type Make = fn(&[u8]) -> Vec<u8>;

/// Answers over UDP and TCP, on one port, with what the function makes of a question.
async fn answering(make: Make) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(at).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let mut said = make(&buffer[..length]);
            if 512 < said.len() {
                // What does not fit is left out, and that is said.
                said = many(&buffer[..length], 0);
                said[2] |= 2;
            }
            udp.send_to(&said, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let Ok(length) = stream.read_u16().await else { continue };
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await.unwrap();
            let said = make(&question);
            let length = u16::try_from(said.len()).unwrap();
            let _ = stream.write_all(&[&length.to_be_bytes(), &said[..]].concat()).await;
        }
    });
    at
}

/// The question, and as many records as are said: the data of each is an address of its own.
fn many(question: &[u8], records: u16) -> Vec<u8> {
    let request = Message::from_octets(question).unwrap();
    let mut out = MessageBuilder::new_vec().start_answer(&request, Rcode::NOERROR).unwrap();
    let owner = Name::<Vec<u8>>::from_str("a.org").unwrap();
    for n in 0..records {
        let [high, low] = n.to_be_bytes();
        out.push((&owner, Ttl::from_secs(9), A::new([10, 1, high, low].into()))).unwrap();
    }
    out.finish()
}

#[tokio::test]
async fn an_answer_that_is_too_long_for_a_datagram_is_asked_for_by_tcp() {
    let server = answering(|question| many(question, 120)).await;
    let (texts, _) =
        look::look(&wanted_for(name("n", "a.org", Some(80), server), false)).await.unwrap();
    assert_eq!((texts.len(), texts[119].as_str()), (120, "10.1.0.119:80 weight=2"));
}

#[tokio::test]
async fn what_a_broken_name_server_says_is_no_backend() {
    let broken: [(Make, &str); 7] = [
        (|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "do not answer"),
        (|_| vec![], "do not answer"),
        (|asked| vec![asked[0] ^ 1; 600], "do not answer"),
        // Nobody has asked that.
        (|asked| many(&[&[asked[0] ^ 1], &asked[1..]].concat(), 1), "do not answer"),
        // One more record than there is, a record that is cut, and a name that leads to itself.
        (|asked| [&many(asked, 1)[..7], &[2], &many(asked, 1)[8..]].concat(), "malformed"),
        (|asked| many(asked, 1).split_last().unwrap().1.to_vec(), "malformed"),
        (
            |asked| [&many(asked, 0)[..7], &[1], &many(asked, 0)[8..], &[0xc0, 23]].concat(),
            "malformed",
        ),
    ];
    // Most of them are waited for.
    let all = broken.map(|(make, words)| {
        tokio::spawn(async move {
            let server = answering(make).await;
            let wanted = wanted_for(name("n", "a.org", Some(80), server), false);
            let why = look::look(&wanted).await.unwrap_err();
            assert!(why.contains(words), "{why}");
        })
    });
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn a_name_is_looked_up_again_and_a_file_read_again() {
    let zone: Zone = Arc::new(Mutex::new(vec![("a.org", "10.0.0.1")]));
    let server = name_server(Arc::clone(&zone)).await;
    let path = std::env::temp_dir().join(format!("buoy-backends-{}", std::process::id()));
    std::fs::write(&path, "10.0.1.1:80 # one\n").unwrap();
    let mut service = sample::service(Mode::Proxy, "10.0.0.100", 80, vec![]);
    let place = DiscoveryPlace::File { path: path.to_string_lossy().into_owned() };
    service.discovered = vec![name("n", "a.org", Some(80), server), entry("f", place, "", &[])];
    let desired = Arc::new(sample::desired(&["10.0.0.100"], "lo", vec![service]));
    let (changes, desired) = watch::channel(desired);
    let kept = start(desired);
    let mut looked = kept.states();
    let mut expect = async |n: &str, f: &str| {
        let is_it = |looked: &Looked| {
            looked.get("n") == Some(&Ok(vec![n.to_owned()]))
                && looked.get("f") == Some(&Ok(vec![f.to_owned()]))
        };
        time::timeout(PATIENCE, looked.wait_for(is_it)).await.unwrap().unwrap();
    };
    expect("10.0.0.1:80 weight=2", "10.0.1.1:80").await;
    zone.lock().unwrap()[0].1 = "10.0.0.2";
    std::fs::write(&path, "10.0.1.2:80\n").unwrap();
    expect("10.0.0.2:80 weight=2", "10.0.1.2:80").await;
    std::fs::remove_file(&path).unwrap();
    changes.send_replace(Arc::new(sample::desired(&["10.0.0.100"], "lo", vec![])));
    let all_gone = kept.states().wait_for(BTreeMap::is_empty).await.map(|_| ());
    assert!(all_gone.is_ok(), "what is not in the configuration is not looked for");
}

const TEXT: &str = "peers = [\"10.0.0.11\", \"10.0.0.12\"]\nsecret = \"file:cluster.key\"\n[[vip]]\n\
    address = \"10.0.0.100/24\"\n[[vip.service]]\nport = \"443/tcp\"\nforward = \"dsr\"\n\
    backends = [\"dns:a.org\", \"dns:b.org\"]\n";

fn check(text: &str, found: &Found) -> Result<Checked, String> {
    let cidr = Cidr::new("10.0.0.11".parse().unwrap(), 24).unwrap();
    let addresses = vec![HostAddress { cidr, ours: false }];
    let link = HostLink { id: LinkId(2), name: "eth0".into(), up: true, addresses };
    let host = Host { hostname: "lb1".into(), links: vec![link] };
    let key = |_: &str| {
        let content = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f".into();
        Ok(FileFacts { content, mode: 0o600 })
    };
    buoy_config::check_found(text, "buoy.toml", (&host, &key), found).map_err(|r| r.summary())
}

fn names(checked: &Checked) -> Vec<&str> {
    checked.desired.groups[0].services[0].backends.iter().map(|b| b.name.as_str()).collect()
}

fn looked(all: &[(&str, Result<&[&str], &str>)]) -> Looked {
    let texts = |found: &[&str]| found.iter().map(|t| (*t).to_owned()).collect();
    let one = |(entry, found): &(&str, Result<&[&str], &str>)| {
        ((*entry).to_owned(), found.map(texts).map_err(str::to_owned))
    };
    all.iter().map(one).collect()
}

#[test]
fn what_cannot_be_found_or_used_changes_nothing_and_is_said() {
    let kept = std::env::temp_dir().join(format!("buoy-found-{}", std::process::id()));
    let _ = std::fs::remove_file(&kept);
    let mut accepted = Accepted::with(Box::new(check), &kept);
    let start = check(TEXT, &Found::new()).unwrap();
    let first = looked(&[("dns:a.org", Ok(&["10.0.0.21"])), ("dns:b.org", Err("no answer"))]);
    let checked = accepted.follow(start.clone(), &first);
    assert_eq!(names(&checked), ["10.0.0.21"]);
    assert_eq!(accepted.problems(), ["backends \"dns:b.org\": no answer; none are known"]);

    let better = looked(&[("dns:a.org", Ok(&["10.0.0.22"])), ("dns:b.org", Ok(&["10.0.0.31"]))]);
    assert_eq!(
        names(&accepted.take(&checked.desired, &better).unwrap()),
        ["10.0.0.22", "10.0.0.31"]
    );
    assert!(accepted.problems().is_empty());
    assert!(accepted.take(&checked.desired, &better).is_none(), "nothing new");

    // One is in another subnet, the other is gone: both stay as they were.
    let worse = looked(&[("dns:a.org", Ok(&["10.7.0.22"])), ("dns:b.org", Err("no such name"))]);
    assert!(accepted.take(&checked.desired, &worse).is_none());
    let said = accepted.problems();
    assert!(said[0].contains("10.7.0.22 is not in the subnet"), "{said:?}");
    assert!(said.iter().all(|why| why.ends_with("what was found before stays")), "{said:?}");

    // The next life begins with what was found in this one.
    let mut next = Accepted::with(Box::new(check), &kept);
    assert_eq!(names(&next.follow(start, &Looked::new())), ["10.0.0.22", "10.0.0.31"]);
    std::fs::remove_file(&kept).unwrap();
}

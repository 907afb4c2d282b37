//! What a Prometheus and a collector of traces would read of a real agent, where the configuration says so and no longer.

#![allow(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod support;

use buoy_lab::process::wait_until;
use buoy_lab::topology::Topology;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use support::{LEASE, LOCAL, SOON, VIP, config_head, running};

const METRICS: &str = "metrics = \"0.0.0.0:9120\"\n";

fn get(path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((VIP, 9120))?;
    stream.set_read_timeout(Some(SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn metrics_are_where_the_configuration_says_and_nothing_else_is() {
    let test = "metrics_are_where_the_configuration_says_and_nothing_else_is";
    let top = format!("{LEASE}{METRICS}");
    let Some(mut cluster) = running(test, Topology::with_nodes(1), &top, LOCAL) else { return };
    let read = |cluster: &support::Cluster, path: &'static str| {
        cluster.segment.inside("client").unwrap().enter(move || get(path)).unwrap()
    };
    let owns = "buoy_vip_owner{node=\"n1\",safety=\"available\",vip=\"web\"} 1";
    wait_until(SOON, "the metrics", || {
        let page = read(&cluster, "/metrics").unwrap_or_default();
        Ok(page.starts_with("HTTP/1.1 200") && page.lines().any(|line| line == owns))
    })
    .unwrap();
    let page = read(&cluster, "/metrics").unwrap();
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("buoy_events_total{kind=\"acquired\",vip=\"web\"} 1"), "{page}");
    // Nobody can order anything, or look further.
    for path in ["/", "/v1/status", "/v1/drain"] {
        assert!(read(&cluster, path).unwrap().starts_with("HTTP/1.1 404"), "{path}");
    }

    // A file that is refused is seen, and without the key there is nobody to ask.
    cluster.buoy.write_config("n1", "peers = 7\n").unwrap();
    assert!(cluster.buoy.client("n1").unwrap().reload().is_err());
    let refused = "buoy_config_last_reload_successful 0";
    assert!(read(&cluster, "/metrics").unwrap().lines().any(|line| line == refused));
    let text = format!("{}{LOCAL}", config_head(&cluster.segment.topology));
    cluster.buoy.write_config("n1", &text).unwrap();
    cluster.buoy.reload("n1").unwrap();
    wait_until(SOON, "nobody to answer", || Ok(read(&cluster, "/metrics").is_err())).unwrap();
}

#[test]
fn a_collector_hears_of_the_takeover_of_a_real_agent() {
    let test = "a_collector_hears_of_the_takeover_of_a_real_agent";
    let vip = format!("[traces]\notlp = \"http://10.77.0.50:4318\"\n\n{LOCAL}");
    let Some(cluster) = running(test, Topology::with_nodes(1), LEASE, &vip) else { return };
    // The agent has begun before anybody listens: it tells again.
    let inside = cluster.segment.inside("client").unwrap();
    let collector = inside.enter(|| TcpListener::bind("0.0.0.0:4318")).unwrap().unwrap();
    collector.set_nonblocking(true).unwrap();
    let mut come = None;
    wait_until(SOON, "somebody who tells", || {
        come = collector.accept().ok();
        Ok(come.is_some())
    })
    .unwrap();
    let (mut stream, _) = come.unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut text = Vec::new();
    let told = wait_until(SOON, "the trace", || {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).map_err(buoy_lab::Error::system("read a trace"))?;
        text.extend(&piece[..count]);
        Ok(String::from_utf8_lossy(&text).ends_with("}]}]}]}"))
    });
    let text = String::from_utf8_lossy(&text).into_owned();
    told.unwrap();
    assert!(text.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("{\"key\":\"buoy.vip\",\"value\":{\"stringValue\":\"web\"}}"), "{text}");
    assert!(text.contains("\"name\":\"announce\""), "{text}");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
    wait_until(SOON, "the count of it", || {
        let status = cluster.buoy.client("n1")?.status();
        Ok(status.is_ok_and(|status| status.loop_.counters.get("traces_sent") == Some(&1)))
    })
    .unwrap();
}

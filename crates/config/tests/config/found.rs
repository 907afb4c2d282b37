//! What becomes of entries that say where to look, before and after something was found.

use crate::support::{self, SMALL, host};
use buoy_config::{Checked, Code, Found, Report};
use buoy_model::{DiscoveryPlace, Service};
use std::net::SocketAddr;

fn text(lines: &str) -> String {
    format!("{SMALL}\n[[vip.service]]\nport = \"443/tcp\"\n{lines}\n")
}

fn check(text: &str, found: &[(&str, &[&str])]) -> Result<Checked, Report> {
    let found: Found = found
        .iter()
        .map(|(entry, all)| ((*entry).to_owned(), all.iter().map(|t| (*t).to_owned()).collect()))
        .collect();
    buoy_config::check_found(text, "/etc/buoy/buoy.toml", (&host(), &support::files), &found)
}

fn service(checked: &Checked) -> &Service {
    &checked.desired.groups[0].services[0]
}

fn names(checked: &Checked) -> Vec<String> {
    service(checked).backends.iter().map(|b| b.name.clone()).collect()
}

#[test]
fn each_kind_of_entry_is_understood() {
    let lines = "backends = [\"web1 10.0.0.21:8443\", \"dns:Web.example.org.:8443 weight=2\",\n  \
                 \"srv:_http._tcp.example.org\", \"file:web.list backup\"]";
    let text =
        text(lines).replace("peers", "resolvers = [\"10.0.0.53\", \"[2001:db8::53]:5353\"]\npeers");
    let checked = check(&text, &[]).unwrap();
    assert_eq!(names(&checked), ["web1"]);
    let found: Vec<(&str, &DiscoveryPlace, &str)> = service(&checked)
        .discovered
        .iter()
        .map(|d| (d.text.as_str(), &d.place, d.settings.as_str()))
        .collect();
    let name = |name: &str, port| DiscoveryPlace::Name { name: name.into(), port };
    let servers = DiscoveryPlace::Servers { name: "_http._tcp.example.org".into() };
    let file = DiscoveryPlace::File { path: "/etc/buoy/web.list".into() };
    assert_eq!(
        found,
        [
            (
                "dns:Web.example.org.:8443 weight=2",
                &name("web.example.org", Some(8443)),
                " weight=2"
            ),
            ("srv:_http._tcp.example.org", &servers, ""),
            ("file:web.list backup", &file, " backup"),
        ]
    );
    let resolvers: [SocketAddr; 2] =
        ["10.0.0.53:53".parse().unwrap(), "[2001:db8::53]:5353".parse().unwrap()];
    assert!(service(&checked).discovered.iter().all(|d| d.resolvers == resolvers));
}

#[test]
fn what_was_found_is_read_as_if_it_stood_there() {
    let text = text("backends = [\"web1 10.0.0.21:8443\", \"dns:web.example.org:8443 weight=2\"]");
    let entry = "dns:web.example.org:8443 weight=2";
    let before = check(&text, &[]).unwrap();
    let some = ["10.0.0.31:8443 weight=2", "[2001:db8::31]:8443 weight=2", "app 10.0.0.32:8443"];
    let checked = check(&text, &[(entry, &some)]).unwrap();
    assert_eq!(names(&checked), ["web1", "10.0.0.31:8443", "app"], "IPv6 is of no use to this VIP");
    assert_eq!(service(&checked).backends[1].weight, 2);
    assert_eq!(checked.desired.digest, before.desired.digest, "hosts agree on the file");
    let other = check(&text.replace("web.example", "app.example"), &[]).unwrap();
    assert_ne!(other.desired.digest, before.desired.digest, "where to look is of the file");
    assert_eq!(checked.text, text);
}

#[test]
fn an_entry_in_a_pool_and_one_that_is_no_list_are_filled_too() {
    let pool = SMALL.split("[[vip]]").next().unwrap().to_owned()
        + "[[pool]]\nname = \"p\"\naddresses = \"10.0.0.100-10.0.0.101/24\"\n[[pool.service]]\nport = \"443/tcp\"\n\
           backends = \"dns:web.example.org:443\"\n";
    let checked = check(&pool, &[("dns:web.example.org:443", &["10.0.0.31:443"])]).unwrap();
    assert_eq!(checked.desired.groups.len(), 2);
    for group in &checked.desired.groups {
        assert_eq!(group.services[0].backends[0].name, "10.0.0.31:443");
    }
    assert_eq!(
        check(&pool, &[]).unwrap().desired.groups[0].services.len(),
        1,
        "it is there, and empty"
    );
}

#[test]
fn what_was_found_is_held_against_all_that_is_asked_of_backends() {
    let entry = "dns:web.example.org";
    let dsr = text("forward = \"dsr\"\nbackends = \"dns:web.example.org\"");
    assert_eq!(names(&check(&dsr, &[(entry, &["10.0.0.31"])]).unwrap()), ["10.0.0.31"]);
    for (found, code) in [
        ("10.9.9.9", Code::NotOnSegment),
        ("10.0.0.100", Code::BackendIsVip),
        ("224.0.0.1", Code::BadBackend),
        ("nonsense", Code::BadBackend),
    ] {
        let report = check(&dsr, &[(entry, &[found])]).unwrap_err();
        let problem = &report.problems()[0];
        assert_eq!(problem.code, code, "{found}");
        assert_eq!(problem.line, dsr.lines().position(|l| l.contains("dns:")).unwrap() + 1);
    }
    let nested = check(&dsr, &[(entry, &["file:more"])]).unwrap_err();
    assert_eq!(nested.problems()[0].code, Code::BadDiscovery);
    let twice = check(&dsr, &[(entry, &["10.0.0.31", "10.0.0.31"])]).unwrap_err();
    assert_eq!(twice.problems()[0].code, Code::DuplicateBackend);
}

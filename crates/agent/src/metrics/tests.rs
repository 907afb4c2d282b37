//! The page, and whether it, the alert rules and the dashboard fit each other.

use super::*;
use buoy_api::{BudgetView, Traffic};
use buoy_model::Epoch;
use regex::Regex;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A status that has something of everything.
fn status() -> ClusterStatus {
    let backend = |name: &str, state: &str| BackendView {
        name: name.into(),
        state: state.into(),
        weight: 10,
        share: Some(40),
        urgent: state == "up",
        traffic: Some(Traffic { connections: 3, packets: 40, bytes: 5000 }),
        dropped: [("no_neighbour".into(), 11)].into(),
        ..BackendView::default()
    };
    let service = ServiceView {
        name: "web:443/tcp".into(),
        backends: vec![backend("web1", "up"), backend("we\"b2", "down")],
        up: 1,
        limited: Some(7),
        dropped: [("no_neighbour".into(), 11), ("source".into(), 2)].into(),
        ..ServiceView::default()
    };
    let vip = |name: &str, mine: bool| VipView {
        name: name.into(),
        mine,
        epoch: 4,
        lease_left_ms: mine.then_some(25.0),
        safety: "exclusive".into(),
        services: vec![service.clone()],
        vrrp: vec![buoy_api::RouterView {
            id: 51,
            family: "ipv4".into(),
            state: if mine { "active" } else { "backup" }.into(),
            priority: 100,
            ..buoy_api::RouterView::default()
        }],
        refused: std::iter::once(("ttl".to_owned(), 3)).collect(),
        ..VipView::default()
    };
    let node = |name: &str, me: bool| NodeView {
        name: name.into(),
        me,
        alive: true,
        hears_us: !me,
        round_trip_ms: (!me).then_some(0.5),
        digest: Some("0a".into()),
        ..NodeView::default()
    };
    let mut status = ClusterStatus {
        cluster: "prod".into(),
        node: "lb1".into(),
        version: "1.0".into(),
        digest: "0a".into(),
        draining: Some("patches".into()),
        cordoned: Some("disk (by ann)".into()),
        nodes: vec![node("lb1", true), node("lb2", false)],
        vips: vec![vip("web", true), VipView { services: vec![], ..vip("db", false) }],
        ..ClusterStatus::default()
    };
    status.timing.term_ms = Some(32.0);
    let counters = [("rejected_forged", 2), ("late_wakeups", 5)];
    status.loop_.counters.extend(counters.map(|(name, count)| (name.to_owned(), count)));
    status
}

/// Of web all is known, of db nothing.
fn budget() -> BudgetReply {
    let web = BudgetView {
        vip: "web".into(),
        availability: Some(1.0),
        known_ms: 86_400_000.0,
        unserved_ms: 450.0,
        unknown_ms: 2_000.0,
        gaps: 40,
        gap_p50_ms: Some(1.2),
        gap_p99_ms: Some(400.0),
        over_bound: 1,
        slack_ms: Some(21.5),
        slack_least_ms: Some(4.0),
        ..BudgetView::default()
    };
    let why = Some("VRRP decides about it".to_owned());
    let db = BudgetView { vip: "db".into(), unknown: why, ..BudgetView::default() };
    BudgetReply { bound_ms: 314.7, vips: vec![db, web], ..BudgetReply::default() }
}

fn served(decide: u64) -> Fact {
    let millis = Duration::from_millis;
    Fact::Served {
        epoch: Epoch(4),
        detect: millis(30),
        decide: millis(decide),
        address: millis(decide + 1),
        announce: millis(decide + 1),
        first_packet: None,
    }
}

/// One that VIPs ask, and one whose addresses are VIPs.
fn pools() -> Vec<PoolView> {
    let pool = |name: &str, gives: &str| PoolView {
        name: name.into(),
        gives: gives.into(),
        size: 10,
        used: 7,
        reserved: 1,
        free: 2,
        ..PoolView::default()
    };
    vec![pool("office", "named"), pool("web", "each")]
}

fn page() -> String {
    let totals = Totals::new().unwrap();
    totals.note(Some("web"), "served", &served(2));
    totals.note(Some("web"), "served", &served(300));
    totals.note(None, "undrained", &Fact::Undrained { reason: String::new() });
    let aliases = [MetricAlias::Keepalived, MetricAlias::Metallb];
    totals.page((&status(), &budget()), &pools(), true, &aliases).unwrap()
}

#[test]
fn the_page_says_what_the_status_says() {
    let page = page();
    for line in [
        "buoy_build_info{version=\"1.0\"} 1",
        "buoy_config_info{cluster=\"prod\",digest=\"0a\"} 1",
        "buoy_config_last_reload_successful 0",
        "buoy_draining 1",
        "buoy_vip_router{vip=\"web\"} 0",
        "buoy_vrrp_active{family=\"ipv4\",vip=\"web\",vrid=\"51\"} 1",
        "buoy_vrrp_priority{family=\"ipv4\",vip=\"web\",vrid=\"51\"} 100",
        "buoy_vrrp_refused_total{reason=\"ttl\",vip=\"web\"} 3",
        "buoy_cordoned 1",
        "buoy_pool_addresses{pool=\"office\",state=\"free\"} 2",
        "buoy_pool_addresses{pool=\"office\",state=\"reserved\"} 1",
        "buoy_pool_addresses{pool=\"office\",state=\"used\"} 7",
        "buoy_lease_term_seconds 0.032",
        "buoy_datagrams_rejected_total{reason=\"forged\"} 2",
        "buoy_counted_total{name=\"late_wakeups\"} 5",
        "buoy_peer_heard{peer=\"lb2\"} 1",
        "buoy_peer_round_trip_seconds{peer=\"lb2\"} 0.0005",
        "buoy_peer_config_same{peer=\"lb2\"} 1",
        "buoy_vip_owner{node=\"lb1\",safety=\"exclusive\",vip=\"web\"} 1",
        "buoy_vip_owner{node=\"lb1\",safety=\"exclusive\",vip=\"db\"} 0",
        "buoy_vip_epoch{vip=\"web\"} 4",
        "buoy_vip_lease_seconds{vip=\"web\"} 0.025",
        "buoy_vip_gap_bound_seconds 0.3147",
        "buoy_vip_known_seconds_total{vip=\"web\"} 86400",
        "buoy_vip_unserved_seconds_total{vip=\"web\"} 0.45",
        "buoy_vip_unknown_seconds_total{vip=\"web\"} 2",
        "buoy_vip_gaps_total{vip=\"web\"} 40",
        "buoy_vip_gaps_over_bound{vip=\"web\"} 1",
        "buoy_vip_gap_p50_seconds{vip=\"web\"} 0.0012",
        "buoy_vip_gap_p99_seconds{vip=\"web\"} 0.4",
        "buoy_vip_lease_slack_seconds{vip=\"web\"} 0.0215",
        "buoy_vip_lease_slack_least_seconds{vip=\"web\"} 0.004",
        "buoy_service_backends{service=\"web:443/tcp\",state=\"up\"} 1",
        "buoy_service_backends{service=\"web:443/tcp\",state=\"maint\"} 0",
        "buoy_service_backends_ready{service=\"web:443/tcp\"} 1",
        "buoy_service_limited_total{service=\"web:443/tcp\"} 7",
        "buoy_service_dropped_total{reason=\"no_neighbour\",service=\"web:443/tcp\"} 11",
        "buoy_service_dropped_total{reason=\"source\",service=\"web:443/tcp\"} 2",
        "buoy_backend_dropped_total{backend=\"web1\",reason=\"no_neighbour\",service=\"web:443/tcp\"} 11",
        "buoy_backend_up{backend=\"we\\\"b2\",service=\"web:443/tcp\"} 0",
        "buoy_backend_share_ratio{backend=\"web1\",service=\"web:443/tcp\"} 0.4",
        "buoy_backend_bytes_total{backend=\"web1\",service=\"web:443/tcp\"} 5000",
        "buoy_events_total{kind=\"served\",vip=\"web\"} 2",
        "buoy_events_total{kind=\"undrained\",vip=\"\"} 1",
        "buoy_takeover_seconds_bucket{phase=\"decide\",le=\"0.0025\"} 1",
        "buoy_takeover_seconds_bucket{phase=\"decide\",le=\"0.5\"} 2",
        "buoy_takeover_seconds_count{phase=\"detect\"} 2",
    ] {
        assert!(page.lines().any(|has| has == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("phase=\"first_packet\""), "it was not seen");
    assert!(!page.contains("peer=\"lb1\""), "nobody is its own peer");
    assert!(
        !page.contains("gaps_total{vip=\"db\"}"),
        "of what VRRP decides about nothing is known"
    );
}

fn packaging(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(path)
}

/// Rules and dashboard ask for nothing that no page has: a name with a slip in it would never raise an alert.
#[test]
fn rules_and_dashboard_ask_for_what_there_is() {
    let page = page();
    let names: BTreeSet<&str> =
        page.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let asked = Regex::new("buoy_[a-z0-9_]+").unwrap();
    let rules = ["buoy.rules.yml", "buoy.rules.test.yml", "buoy.rules.hours.test.yml"];
    let rules = rules.map(|name| format!("prometheus/{name}"));
    for path in rules.iter().map(String::as_str).chain(["grafana/buoy.json"]) {
        let text = std::fs::read_to_string(packaging(path)).unwrap();
        let found: BTreeSet<&str> = asked.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(3 < found.len(), "{path} asks for {found:?}");
        for name in found {
            assert!(names.contains(name), "{path} asks for {name}, which no page has");
        }
    }
    let dashboard = std::fs::read_to_string(packaging("grafana/buoy.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
}

#[test]
fn promtool_finds_nothing_wrong() {
    let promtool = |words: &[&str], input: &str| {
        let folder = packaging("prometheus");
        let mut command = Command::new("promtool");
        command.args(words).current_dir(folder).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().ok()?;
        child.stdin.take()?.write_all(input.as_bytes()).unwrap();
        Some(child.wait_with_output().unwrap())
    };
    for (words, input) in [
        (&["check", "metrics"][..], page().as_str()),
        (&["check", "rules", "buoy.rules.yml"], ""),
        (&["test", "rules", "buoy.rules.test.yml", "buoy.rules.hours.test.yml"], ""),
    ] {
        let Some(output) = promtool(words, input) else {
            eprintln!("SKIPPED: promtool_finds_nothing_wrong: apt-get install prometheus");
            return;
        };
        assert!(output.status.success(), "{words:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn every_alert_is_tested() {
    let file = |name: &str| std::fs::read_to_string(packaging("prometheus").join(name)).unwrap();
    let rules = file("buoy.rules.yml");
    let tests = file("buoy.rules.test.yml") + &file("buoy.rules.hours.test.yml");
    // What is expected follows the name.
    let expected = |alert: &str| {
        let mut cases = tests.split("alertname: ").skip(1);
        cases.any(|case| case.lines().next() == Some(alert) && case.contains("exp_labels"))
    };
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    let untested: Vec<_> = alerts.iter().filter(|alert| !expected(alert)).collect();
    assert!(untested.is_empty(), "no test in packaging/prometheus sees these fire: {untested:?}");
    assert!(10 < alerts.len(), "{alerts:?}");
}

#[test]
fn others_names_tell_the_same_and_only_where_they_are_asked_for() {
    let mut status = status();
    let address = |address: &str| buoy_api::VipAddressView {
        address: address.into(),
        interface: Some("eth0".into()),
        ..buoy_api::VipAddressView::default()
    };
    status.vips[0].addresses = vec![address("10.0.0.100/24"), address("2001:db8::100/64")];
    status.vips[1].addresses = vec![address("10.0.0.101/24")];
    let totals = Totals::new().unwrap();
    totals.note(Some("web"), "acquired", &Fact::Undrained { reason: String::new() });
    let page =
        |aliases: &[MetricAlias]| totals.page((&status, &budget()), &[], false, aliases).unwrap();
    let told = page(&[MetricAlias::Keepalived, MetricAlias::Metallb]);
    for line in [
        r#"keepalived_vrrp_state{iname="web",intf="eth0",ip_address="2001:db8::100",vrid="0"} 2"#,
        r#"keepalived_vrrp_state{iname="db",intf="eth0",ip_address="10.0.0.101",vrid="0"} 1"#,
        r#"keepalived_become_master_total{iname="web",intf="eth0",vrid="0"} 1"#,
        r#"metallb_speaker_announced{ip="10.0.0.100",node="lb1",protocol="layer2",service="web"} 1"#,
    ] {
        assert!(told.lines().any(|l| l == line), "{line} in\n{told}");
    }
    assert!(!told.contains(r#"service="db""#), "only who announces says so");
    let plain = page(&[]);
    assert!(!plain.contains("keepalived_") && !plain.contains("metallb_"));
}

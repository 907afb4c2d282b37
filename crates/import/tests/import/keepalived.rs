//! keepalived's files: a corpus of our own, and what becomes of it in both forms.

use super::{accepted, has_lines, has_note, notes, options};
use buoy_import::{Imported, Options, keepalived};

/// The files of the corpus, each with its text.
fn corpus() -> Vec<(String, String)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/import/keepalived");
    let entries = std::fs::read_dir(folder).expect("the corpus is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut files: Vec<(String, String)> = paths
        .map(|path| {
            let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(&path).expect("it is a text"))
        })
        .collect();
    files.sort();
    files
}

fn text_of(name: &str) -> String {
    let found = corpus().into_iter().find(|(known, _)| known == name);
    found.expect("it is in the corpus").1
}

/// The files that `includes.conf` asks for.
fn include(pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
    match pattern {
        "parts/*.conf" => Ok(vec![("parts/one.conf".into(), text_of("pair-master"))]),
        _ => Err(format!("{from} asks for what is not there")),
    }
}

fn import(text: &str, options: &Options) -> Imported {
    keepalived(text, "k.conf", options, &include)
}

/// Read for lb1; under VRRP.
fn vrrp(name: &str) -> Imported {
    import(&text_of(name), &Options { host: Some("lb1".into()), ..options() })
}

/// Read for lb1; under the lease.
fn native(name: &str) -> Imported {
    import(&text_of(name), &Options { host: Some("lb1".into()), native: true, ..options() })
}

/// Files in which nothing is a VIP.
const EMPTY: [&str; 1] = ["cloud"];

#[test]
fn every_file_of_the_corpus_is_accepted_in_both_forms() {
    let files = corpus();
    assert!(files.len() >= 25, "{}", files.len());
    for (name, _) in files {
        for imported in [vrrp(&name), native(&name)] {
            let errors: Vec<String> =
                notes(&imported).into_iter().filter(|note| note.contains("error: ")).collect();
            assert_eq!(
                errors,
                Vec::<String>::new(),
                "{name}: {}",
                imported.toml.unwrap_or_default()
            );
            match EMPTY.contains(&name.as_str()) {
                true => assert_eq!(imported.toml, None, "{name}"),
                false => drop(accepted(&imported)),
            }
        }
    }
}

/// Lines that say what holds without them, or what nothing asks for.
const USUAL: [&str; 17] = [
    "state BACKUP",
    "state MASTER",
    "auth_type PASS",
    "protocol TCP",
    "@^lb1",
    "@lb2",
    "enable_sni",
    "advert_int 1",
    "interval 1",
    "weight 1",
    "priority 100",
    "rise 1",
    "path /",
    "delay_loop 10",
    "lb_kind NAT",
    "version 3",
    "connect_timeout 1",
];

/// The lines of blocks that are left out as a whole, and said to be.
fn left_out(text: &str, imported: &Imported) -> Vec<usize> {
    let is_left = |line: usize| {
        imported.notes.iter().any(|note| note.line == line && note.text.contains("is not carried"))
    };
    let (mut open, mut lines): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()) {
        if open.iter().any(|header| is_left(*header)) {
            lines.push(number);
        }
        for c in line.chars() {
            match c {
                '{' => open.push(number),
                '}' => drop(open.pop()),
                _ => {}
            }
        }
    }
    lines
}

/// What became of the text, whatever its lines are called.
fn outcome(text: &str, is_native: bool) -> (Option<String>, Vec<String>) {
    let imported =
        import(text, &Options { host: Some("lb1".into()), native: is_native, ..options() });
    let mut said: Vec<String> = imported.notes.into_iter().map(|note| note.text).collect();
    said.sort();
    (imported.toml, said)
}

#[test]
fn no_line_is_passed_over_in_silence() {
    let mut silent = Vec::new();
    for (name, text) in corpus() {
        let (vrrp, native) = (outcome(&text, false), outcome(&text, true));
        let imported = import(&text, &Options { host: Some("lb1".into()), ..options() });
        let left = left_out(&text, &imported);
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let words = line.trim().trim_end_matches(['\\', '{', '}']).trim();
            let is_usual = USUAL.iter().any(|usual| words.starts_with(usual));
            // Blocks without their first or last line are other files.
            if left.contains(&(at + 1))
                || words.is_empty()
                || words.starts_with(['!', '#'])
                || line.contains(['{', '}'])
                || is_usual
            {
                continue;
            }
            let mut without = lines.clone();
            without.remove(at);
            let without = without.join("\n");
            if outcome(&without, false) == vrrp && outcome(&without, true) == native {
                silent.push(format!("{name}:{}: {line}", at + 1));
            }
        }
    }
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn a_pair_of_keepaliveds_becomes_a_vip_under_vrrp_that_they_can_share() {
    let toml = accepted(&vrrp("pair-master"));
    has_lines(
        &toml,
        &[
            "name = \"VI_1\"",
            "address = \"10.0.0.100/24\"",
            "interface = \"eth0\"",
            "failback = \"now\"",
            "vrrp = { id = 51, priority = { \"lb1\" = 150 }, version = 2, interval = \"1s\", password = \"1111\" }",
        ],
    );
    let backup = vrrp("pair-backup");
    has_lines(&accepted(&backup), &["failback = \"never\""]);
    has_note(&backup, 10, "first eight characters");
    let unicast = accepted(&vrrp("unicast"));
    assert!(
        unicast.contains("peers = [\"10.0.0.11\", \"10.0.0.12\", \"10.0.0.13\"], min_ttl = 250"),
        "{unicast}"
    );
    has_lines(&unicast, &["failback = \"30s\""]);
    let version3 = vrrp("version3");
    assert!(accepted(&version3).contains(
        "version = 3, interval = \"50ms\", source = \"10.0.0.11\", checksum = \"message\""
    ));
    let virtual_mac = vrrp("virtual-mac");
    assert!(accepted(&virtual_mac).contains("virtual_mac = true, accept = false"));
    has_note(&virtual_mac, 10, "vrrp.ID or vrrp6.ID");
    has_note(&virtual_mac, 11, "advertisements leave with the hardware address");
    has_note(&native("virtual-mac"), 1, "hardware address of its owner");
    has_note(&version3, 4, "add those of the other hosts to `source`");
    has_note(&version3, 4, "version 3 has no passwords");
}

#[test]
fn a_number_in_a_file_is_a_check_that_weighs_something() {
    let found = vrrp("processes");
    let toml = accepted(&found);
    let zero = "name = \"standby\", exec = [\"/bin/grep\", \"-qE\", \"^[[:space:]]*-?0+[[:space:]]*$\", \"/etc/keepalived/standby\"]";
    assert!(toml.contains(zero), "{toml}");
    assert!(toml.contains("weight = -20"), "{toml}");
    let more = "name = \"better\", exec = [\"/bin/grep\", \"-qE\", \"[1-9]\", \"/run/better\"]";
    assert!(toml.contains(more), "{toml}");
    // The weight of the instance, not that of the file.
    assert_eq!(toml.matches("weight = 5").count(), 2, "{toml}");
    has_note(&found, 8, "counts as 0 or 1, and a file that is not there as 1");
    has_note(&found, 11, "never writes it");
    has_note(&vrrp("routes"), 7, "nothing tracks it");
    // Under the lease a host is not better than another by a number.
    let native = native("processes");
    assert!(!accepted(&native).contains("/run/better"));
    has_note(&native, 30, "nothing makes a host better than another");
}

#[test]
fn where_all_hosts_run_buoy_the_lease_decides_and_the_rest_stays() {
    let toml = accepted(&native("pair-master"));
    has_lines(&toml, &["prefer = [\"lb1\"]", "failback = \"now\""]);
    assert!(!toml.contains("vrrp"), "{toml}");
    let peers = Options { native: true, ..Options::default() };
    let found = import(&text_of("unicast"), &peers);
    has_lines(&accepted(&found), &["peers = [\"10.0.0.11\", \"10.0.0.12\", \"10.0.0.13\"]"]);
    let group = accepted(&native("sync-group"));
    assert_eq!(group.matches("= \"G1\"").count(), 2, "{group}");
    has_lines(&group, &["exec = \"/usr/local/lib/told\"", "vips = [\"G1\"]"]);
    let apart = accepted(&native("services-apart"));
    assert_eq!(
        (apart.matches("[[vip]]").count(), apart.matches("[[vip.service]]").count()),
        (3, 2),
        "{apart}"
    );
}

#[test]
fn routes_and_rules_go_along_and_what_would_change_their_meaning_is_left_out() {
    let text = "routes";
    for imported in [vrrp(text), native(text)] {
        let toml = accepted(&imported);
        let routes = r#"routes = ["192.168.3.0/24 via 10.0.0.1", "192.168.109.0/24 via 10.0.0.254 dev eth0 src 10.0.0.100 metric 20", "192.168.111.0/24 dev eth1", "0.0.0.0/0 via 10.0.0.254 table 100", "default via 2001:db8::1 table 253"]"#;
        let rules = r#"rules = ["from 10.0.0.100 table 1", "to 192.168.2.0/24 iif eth1 fwmark 5 table 100 priority 39"]"#;
        has_lines(&toml, &[routes, rules, "routes = \"192.168.4.0/24 via 10.0.0.1\""]);
        for (at, words) in [
            (1, "leave them to the system"),
            (26, "`no_track` is not carried"),
            (26, "`scope link` needs no word"),
            (27, "`protocol bird` is not carried"),
            (29, "nothing like \"or\""),
            (30, "nothing like \"blackhole\""),
            (31, "nothing like \"nexthop\""),
            (32, "nothing like \"onlink\""),
            (33, "not \"host\" here"),
            (34, "write \"192.168.117.0/24\""),
            (35, "where it leads"),
            (36, "write the number of the table"),
            (40, "`no_track` is not carried"),
            (41, "nothing like \"oif\""),
            (42, "\"24/12\""),
            (43, "which routing table"),
            (57, "a VIP before has it"),
        ] {
            has_note(&imported, at, words);
        }
        // The lists above are whole lines; VI_2 has nothing but what it does not share.
        assert_eq!(toml.matches("192.168.3.0/24").count(), 1, "{toml}");
    }
}

#[test]
fn a_vip_gets_as_many_routes_as_it_can_have_and_the_rest_is_said() {
    let routes: Vec<String> = (0..66).map(|n| format!("10.9.{n}.0/24 via 10.0.0.1\n")).collect();
    let text = format!(
        "vrrp_instance VI {{\nvirtual_router_id 5\ninterface eth0\nvirtual_ipaddress {{\n10.0.0.100/24\n}}\nvirtual_routes {{\n{}}}\n}}\n",
        routes.concat()
    );
    let imported = import(&text, &options());
    assert_eq!(accepted(&imported).matches("via 10.0.0.1").count(), 64);
    for line in [72, 73] {
        has_note(&imported, line, "at most 64 `routes`");
    }
}

#[test]
fn virtual_servers_become_services_with_their_checks_and_scripts() {
    has_lines(
        &accepted(&native("http")),
        &[
            "port = \"80/tcp\"",
            "mode = \"kernel\"",
            "source = \"client\"",
            "balance = \"roundrobin\"",
            "persist_timeout = \"50s\"",
            "persist_ipv4 = 24",
            "quorum = 2",
            "on_down = \"keep\"",
            "backends = [\"10.0.0.21:8080 weight=1\", \"10.0.0.22:8080 weight=3\", \"10.0.0.29:80 backup\"]",
        ],
    );
    let direct = accepted(&native("direct"));
    has_lines(
        &direct,
        &[
            "port = [\"80/tcp\", \"443/tcp\"]",
            "forward = \"dsr\"",
            "balance = \"maglev\"",
            "persist_timeout = \"6m\"",
        ],
    );
    has_lines(
        &accepted(&native("tunnel")),
        &["forward = \"tunnel\"", "encapsulation = \"gue:6080\""],
    );
    let checks = accepted(&native("checks"));
    for check in [
        "\"/usr/local/lib/fit\", \"{address}\", \"{port}\", \"x\"",
        "user = \"operator\"",
        "smtp = true",
        "icmp = true",
        "body_regex = \"^ok\"",
        "tls = true",
    ] {
        assert!(checks.contains(check), "{check}\n{checks}");
    }
    let scripts = accepted(&vrrp("scripts"));
    for check in [
        "process = \"haproxy\"",
        "weight = 2",
        "[\"/etc/keepalived/check_api.sh\", \"6443\"]",
        "\"/bin/sh\", \"-c\"",
    ] {
        assert!(scripts.contains(check), "{check}\n{scripts}");
    }
    let notify = accepted(&native("notify"));
    has_lines(
        &notify,
        &[
            "states = [\"MASTER\"]",
            "exec = [\"/etc/keepalived/notify.sh\", \"in fault\"]",
            "user = \"operator\"",
        ],
    );
}

#[test]
fn parameters_conditions_sequences_and_includes_are_read_as_keepalived_does() {
    has_lines(
        &accepted(&vrrp("parameters")),
        &["address = \"10.0.0.10/24\"", "address = \"10.0.1.11/24\"", "name = \"VI_11\""],
    );
    let for_lb2 = Options { host: Some("lb2".into()), ..options() };
    let lb2 = accepted(&import(&text_of("conditions"), &for_lb2));
    assert!(
        lb2.contains("priority = { \"lb2\" = 100 }")
            && lb2.contains("[\"10.0.0.12\", \"10.0.0.11\"]"),
        "{lb2}"
    );
    let nobody = import(&text_of("conditions"), &options());
    has_note(&nobody, 1, "--host");
    let sequences = accepted(&vrrp("sequences"));
    for address in ["10.0.0.103/24", "10.0.0.110/24", "10.0.0.131/24", "10.0.2.141/16"] {
        assert!(sequences.contains(address), "{address}\n{sequences}");
    }
    let includes = vrrp("includes");
    has_lines(&accepted(&includes), &["name = \"VI_1\""]);
    has_note(&includes, 2, "asks for what is not there");
}

#[test]
fn mistakes_are_read_over_as_keepalived_does_and_said() {
    let imported = vrrp("mistakes");
    accepted(&imported);
    let said = [
        (5, "no such block"),
        (8, "closes nothing"),
        (12, "is there twice"),
        (13, "and not what follows it"),
        (15, "no number of seconds"),
        (16, "no such keyword"),
        (21, "missing at the end"),
    ];
    for (line, words) in said {
        let near = imported
            .notes
            .iter()
            .any(|note| note.line.abs_diff(line) <= 1 && note.text.contains(words));
        assert!(near, "no note `{words}` at {line}:\n{}", notes(&imported).join("\n"));
    }
}

#[test]
fn of_what_is_there_twice_the_last_one_holds_and_lists_grow() {
    let imported = vrrp("twice");
    let toml = accepted(&imported);
    for kept in [
        "[\"10.0.0.100/24\", \"10.0.0.101/24\"]",
        "priority = { \"lb1\" = 150 }",
        "exec = \"/usr/local/lib/fit\", every = \"2s\"",
        "link = \"eth1\"",
        "link = \"eth2\"",
        "\"/usr/local/lib/master\"",
        "http = \"GET /new\", expect = \"200-299\", body_regex = \"^new\", every = \"10s\"",
        "timeout = \"3s\"",
        "10.0.0.21:80 weight=1",
    ] {
        assert!(toml.contains(kept), "{kept}\n{toml}");
    }
    for lost in ["old", "before"] {
        assert!(!toml.contains(lost), "{lost}\n{toml}");
    }
    let twice = |words: &str| notes(&imported).iter().filter(|note| note.contains(words)).count();
    // script, interval, priority, notify_master, delay_loop, weight, path, regex and connect_timeout.
    assert_eq!(twice("is there twice"), 9, "{:#?}", notes(&imported));
    assert_eq!(twice("a service of Buoy has one check"), 2, "{:#?}", notes(&imported));
}

#[test]
fn a_file_that_ends_anywhere_is_read_as_far_as_it_goes() {
    for (name, text) in corpus() {
        for (at, _) in text.char_indices().step_by(7) {
            let imported = import(&text[..at], &Options { native: at % 2 == 0, ..options() });
            let is_checked =
                imported.toml.is_none_or(|toml| buoy_config::format::format(&toml).is_some());
            assert!(is_checked, "{name}: the first {at} bytes give no TOML");
        }
    }
}

#[test]
fn a_file_that_would_grow_without_end_stops_and_says_so() {
    let own = |_: &str, _: &str| {
        Ok(vec![("k.conf".to_owned(), "include k.conf\ninclude k.conf\n".to_owned())])
    };
    let cases = [
        "include k.conf\n",
        "$A=${B}${B}\n$B=${A}${A}\nx $A\n",
        "~SEQ(A, 1, 4000) ~SEQ(B, 1, 4000) ~SEQ(C, 1, 4000) @nobody x\n",
    ];
    for text in cases {
        let options = Options { host: Some("lb1".into()), ..options() };
        let imported = keepalived(text, "k.conf", &options, &own);
        let said = notes(&imported);
        assert!(
            said.iter().any(|note| note.contains("nothing after this is read")),
            "{text}: {said:?}"
        );
    }
}

#[test]
fn keys_that_sign_are_named_and_stand_in_no_file_of_buoy() {
    let imported = vrrp("signed");
    let auth = "auth = { keys = [\"2 file:/etc/keepalived/keys/vrrp51\", \"1 file:vrrp-1.key\"], mode = \"permissive\", window = \"7s\" }";
    let toml = imported.toml.clone().expect("it is read");
    assert!(toml.contains(auth), "{}", toml);
    assert!(!toml.contains("000102"), "{}", toml);
    assert!(!toml.contains("password"), "keepalived drops it, too: {}", toml);
    has_note(&imported, 12, "write its 64 hexadecimal digits into vrrp-1.key");
}

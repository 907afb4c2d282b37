//! HAProxy's files.

use super::{accepted, has_lines, has_note, notes, options};
use buoy_import::{Imported, Options, haproxy};

fn import(text: &str) -> Imported {
    haproxy(text, "haproxy.cfg", &Options { vip: Some("10.0.0.100/24".into()), ..options() })
}

#[test]
fn a_pair_of_frontends_and_backends_becomes_services_of_vips() {
    let imported = import(include_str!("haproxy/plain.cfg"));
    let toml = accepted(&imported);
    has_lines(
        &toml,
        &[
            "address = \"10.0.0.100/24\"",
            "port = \"80/tcp\"",
            "port = \"443/tcp\"",
            "port = \"8080/tcp\"",
            "mode = \"proxy\"",
            "backends = [\"web1 10.0.0.21:8443 weight=10 max=200\", \"web2 10.0.0.22:8443 weight=20 max=200\", \"sorry 10.0.0.29:8443 backup\"]",
            "check = { http = \"GET /health\", host = \"www.example.org\", expect = 200, every = \"2s\", timeout = \"500ms\", fall = 3, rise = 2 }",
            "send_proxy = \"v2\"",
            "on_down = \"reset\"",
            "max_connections = 5000",
            "allow = [\"10.0.0.0/8\"]",
            "deny = [\"10.6.6.0/24\", \"10.7.0.1\"]",
            "balance = \"leastconn\"",
            "connect_timeout = \"3s\"",
            "idle_timeout = \"2m\"",
            "address = \"10.0.0.200/24\"",
            "backends = [\"db1 10.0.0.31:5432\", \"dns:db2.example.org:5432 backup\"]",
            "check = { postgres = true, every = \"500ms\", timeout = \"500ms\" }",
            "persist_timeout = \"30m\"",
        ],
    );
    assert_eq!(toml.matches("[[vip]]").count(), 2, "{toml}");
    has_note(&imported, 2, "`global` is not carried");
    has_note(&imported, 9, "`option tcplog` is not carried");
    has_note(&imported, 34, "10.0.0.200 has no prefix");
    has_note(&imported, 39, "is looked up again");
    has_note(&imported, 42, "this host alone");
}

#[test]
fn backends_by_server_name_become_one_service_with_names() {
    let imported = import(include_str!("haproxy/sni.cfg"));
    let toml = accepted(&imported);
    let expected = [
        "port = \"443/tcp\"",
        "mode = \"proxy\"",
        "backends = [\"s1 10.0.0.21:8443\", \"api-s1 10.0.0.31:8443 weight=7\", \"s5 10.0.0.42:8443\"]",
        "sni = { \"api.example.org\" = \"api-s1\", \"*.api.example.org\" = \"api-s1\", \"shop.example.org\" = [\"api-s1\", \"s5\"], \"www.shop.example.org\" = [\"api-s1\", \"s5\"] }",
    ];
    has_lines(&toml, &expected);
    let said = [
        (7, "needs no key"),
        (8, "needs no key"),
        (13, "`api.example.org` has a backend already"),
        (15, "there is no backend `gone`"),
        (16, "the default backend"),
        (17, "by the server name"),
        (18, "by the server name"),
        (22, "what backend api says besides its servers"),
        (26, "is written by its address"),
        (29, "the default backend has it too"),
    ];
    for (line, words) in said {
        has_note(&imported, line, words);
    }
    // Who names nobody else has no default: other names are reset, as in HAProxy.
    let only = "frontend t\n mode tcp\n bind :443\n use_backend a if { req.ssl_sni a.org }\nbackend a\n server a 10.0.0.21\n";
    has_lines(&accepted(&import(only)), &["sni = { \"a.org\" = \"a\" }"]);
    // Where HAProxy reads requests, the name is not what it goes by.
    let http = "frontend t\n mode http\n bind :80\n use_backend a if { req.ssl_sni a.org }\n default_backend a\nbackend a\n server a 10.0.0.21\n";
    has_note(&import(http), 4, "by the server name");
}

#[test]
fn what_tcp_cannot_do_is_named_line_by_line() {
    let text = "\
frontend www
  mode http
  bind *:443 ssl crt /etc/ssl/x.pem
  bind *:80
  http-request redirect scheme https
  use_backend api if { path_beg /api }
  option forwardfor
  compression algo gzip
  default_backend web
backend web
  balance uri depth 2
  cookie SRV insert
  server a 10.0.0.21:80 cookie a check
  server b 10.0.0.22:443 ssl verify none
  server c 10.0.0.23:+1 check
";
    let imported = import(text);
    let toml = accepted(&imported);
    has_lines(
        &toml,
        &["port = \"80/tcp\"", "backends = [\"a 10.0.0.21:80\"]", "balance = \"roundrobin\""],
    );
    assert_eq!(toml.matches("[[vip.service]]").count(), 1);
    let said = [
        (1, "carried as TCP"),
        (3, "it ends TLS"),
        (5, "http-request redirect"),
        (6, "use_backend api"),
        (7, "option forwardfor"),
        (8, "compression"),
        (11, "balance uri"),
        (12, "cookie SRV"),
        (13, "cookie a"),
        (14, "speaks TLS"),
        (15, "not one number"),
    ];
    for (line, words) in said {
        has_note(&imported, line, words);
    }
}

#[test]
fn who_listens_on_every_address_gets_the_vip_that_is_given_or_a_made_up_one() {
    let text = "listen a\n bind *:80\n server a 10.0.0.21\n";
    has_lines(&accepted(&import(text)), &["address = \"10.0.0.100/24\"", "check = false"]);
    let without = haproxy(text, "h", &options());
    has_lines(&accepted(&without), &["address = \"192.0.2.100/24\""]);
    has_note(&without, 2, "--vip");
}

#[test]
fn a_file_without_anything_to_forward_gives_nothing() {
    for text in [
        "",
        "global\n daemon\n",
        "frontend a\n bind *:80\n",
        "frontend a\n bind *:80\n default_backend gone\n",
        "server a 10.0.0.1:80\n",
    ] {
        let imported = import(text);
        assert_eq!(imported.toml, None, "{text}");
        assert!(text.is_empty() || !imported.notes.is_empty(), "{text}");
    }
    assert_eq!(notes(&import("")), Vec::<String>::new());
}

#[test]
fn checks_are_carried_with_their_settings() {
    let cases = [
        ("option smtpchk", "check", "smtp = true"),
        ("option redis-check", "check", "redis = true"),
        ("option mysql-check user x", "check", "mysql = true"),
        ("option ssl-hello-chk", "check", "tls = true"),
        ("option tcp-check", "check", "tcp = true"),
        ("", "check check-ssl verify none", "tls = true"),
        ("option httpchk", "check", "http = \"OPTIONS /\""),
        ("option httpchk /x", "check port 8080", "http = \"OPTIONS /x\", port = 8080"),
        (
            "option httpchk HEAD /x",
            "check check-ssl check-sni w.example.org",
            "http = \"HEAD /x\", tls = true, host = \"w.example.org\"",
        ),
        (
            "option httpchk\n http-check send meth GET uri /y hdr Host w\n http-check expect rstring ^ok",
            "check",
            "http = \"GET /y\", host = \"w\", body_regex = \"^ok\"",
        ),
        (
            "",
            "check inter 10s downinter 1s fall 5 rise 4",
            "tcp = true, every = \"10s\", every_down = \"1s\", fall = 5, rise = 4",
        ),
    ];
    for (option, words, expected) in cases {
        let text = format!("listen a\n bind *:80\n {option}\n server a 10.0.0.21:80 {words}\n");
        let toml = accepted(&import(&text));
        let check = toml
            .lines()
            .find(|line| line.trim_start().starts_with("check"))
            .expect("there is a check");
        assert!(check.contains(expected), "{option}: {check}");
    }
}

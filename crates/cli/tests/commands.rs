//! Runs the built binary as an operator and a script would.

#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests; it does not see that these functions are in one"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("buoy-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_buoy"));
    command.args(arguments).env_remove("COLUMNS").stdin(Stdio::null());
    command
}

fn buoy(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn exit(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

const GOOD: &str = r#"
peers  = { lb1 = "192.0.2.11", lb2 = "192.0.2.12" }
secret = "file:cluster.key"

[[vip]]
address = "192.0.2.100/24"
nodes   = ["lb2"]
"#;

#[test]
fn the_binary_says_what_it_is() {
    let output = buoy(&["version"]);
    assert_eq!(exit(&output), 0);
    assert!(out(&output).starts_with(concat!("buoy ", env!("CARGO_PKG_VERSION"))));
    let output = buoy(&["version", "-o", "json"]);
    let value: serde_json::Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(value["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn help_lists_every_command() {
    let output = buoy(&["--help"]);
    assert_eq!(exit(&output), 0);
    let commands = [
        "agent", "witness", "config", "status", "why", "events", "doctor", "move", "hold",
        "release", "drain", "undrain", "import", "node", "vip", "reload", "backend", "key", "lab",
        "version",
    ];
    for name in commands {
        assert!(out(&output).contains(&format!("\n  {name} ")), "{name}:\n{}", out(&output));
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure() {
    let output = buoy(&["statsu"]);
    assert_eq!(exit(&output), 2);
    assert!(err(&output).contains("status"), "the nearest name is offered: {}", err(&output));
    assert_eq!(exit(&buoy(&["status", "--no-such-option"])), 2);
    assert_eq!(exit(&buoy(&["drain", "--timeout", "3"])), 2, "without --wait it means nothing");
    assert_eq!(exit(&buoy(&["move", "web"])), 2, "to whom?");
    let output = buoy(&["hold", "web", "--for", "10"]);
    assert_eq!(exit(&output), 2);
    assert!(err(&output).contains("the unit is missing"), "{}", err(&output));
    assert_eq!(exit(&buoy(&["drain", "--for", "0s"])), 2);
    assert_eq!(exit(&buoy(&["events", "--since", "yesterday"])), 2);
    assert_eq!(exit(&buoy(&["backend", "remove"])), 2, "which?");
    assert_eq!(exit(&buoy(&["backend", "remove", "10.0.0.100", "--all"])), 2);
    let output = buoy(&["backend", "add", "10.0.0.100/24"]);
    assert_eq!(exit(&output), 2);
    assert!(err(&output).contains("without the prefix: 10.0.0.100"), "{}", err(&output));
}

#[test]
fn a_new_key_is_for_its_owner_only_and_is_never_overwritten() {
    let folder = Folder::new("key");
    let key = folder.0.join("sub/cluster.key");
    let output = buoy(&["key", "new", path(&key)]);
    assert_eq!(exit(&output), 0, "{}", err(&output));
    assert!(out(&output).contains("copy it to every host"), "{}", out(&output));
    assert!(out(&output).contains("secret = \"file:cluster.key\""), "{}", out(&output));
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let first = fs::read_to_string(&key).unwrap();
    buoy_config::key::parse(&first).expect("a key file");

    let output = buoy(&["key", "new", path(&key)]);
    assert_eq!(exit(&output), 1);
    assert!(err(&output).contains("exists and stays as it is"), "{}", err(&output));
    assert_eq!(fs::read_to_string(&key).unwrap(), first);

    let output = buoy(&["key", "new", "-"]);
    buoy_config::key::parse(out(&output)).expect("a key on standard output");
    assert_ne!(out(&output), first, "no two keys are the same");
}

#[test]
fn a_good_file_is_said_to_be_good() {
    let folder = Folder::new("good");
    let file = folder.file("buoy.toml", GOOD);
    let output = buoy(&["config", "check", path(&file), "--offline"]);
    assert_eq!(exit(&output), 0, "{}{}", out(&output), err(&output));
    assert!(out(&output).contains("ok: cluster buoy, 2 nodes, 1 VIP,"), "{}", out(&output));
}

#[test]
fn a_warning_is_an_error_where_it_is_denied() {
    let folder = Folder::new("warned");
    let no_vip = GOOD.split("[[vip]]").next().unwrap();
    let file = folder.file("buoy.toml", no_vip);
    let check = |more: &[&str]| {
        let output = buoy(&[&["config", "check", path(&file), "--offline"], more].concat());
        assert!(out(&output).contains("warning["), "{}", out(&output));
        exit(&output)
    };
    assert_eq!((check(&[]), check(&["--deny-warnings"])), (0, 78));
    let fine = folder.file("fine.toml", GOOD);
    let output = buoy(&["config", "check", path(&fine), "--offline", "--deny-warnings"]);
    assert_eq!(exit(&output), 0, "{}", out(&output));
}

#[test]
fn a_file_of_other_hosts_is_refused_on_this_one() {
    let folder = Folder::new("elsewhere");
    let file = folder.file("buoy.toml", GOOD);
    assert_eq!(exit(&buoy(&["key", "new", path(&folder.0.join("cluster.key"))])), 0);
    let output = buoy(&["config", "check", path(&file)]);
    assert_eq!(exit(&output), 78, "{}{}", out(&output), err(&output));
    assert!(out(&output).contains("this host is not among the peers"), "{}", out(&output));
}

#[test]
fn a_bad_file_is_refused_with_every_problem_at_its_place() {
    let folder = Folder::new("bad");
    let text = GOOD.replace("nodes ", "noods ").replace("192.0.2.100", "192.0.2.300");
    let file = folder.file("buoy.toml", &text);
    let output = buoy(&["config", "check", path(&file), "--offline"]);
    assert_eq!(exit(&output), 78);
    for part in ["buoy.toml:6:", "192.0.2.300", "buoy.toml:7:1", "noods", "nodes", "2 errors"] {
        assert!(out(&output).contains(part), "{part}:\n{}", out(&output));
    }
    assert!(!out(&output).contains('\x1b'), "no colour in a pipe");

    let output = buoy(&["config", "check", path(&file), "--offline", "-o", "json"]);
    assert_eq!(exit(&output), 78);
    let value: serde_json::Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!((&value["ok"], &value["errors"]), (&false.into(), &2.into()));
    let lines: Vec<_> =
        value["problems"].as_array().unwrap().iter().map(|p| p["line"].clone()).collect();
    assert_eq!(lines, [6, 7]);
}

#[test]
fn an_absent_file_is_a_bad_configuration() {
    let output = buoy(&["config", "check", "/nonexistent/buoy.toml", "--offline"]);
    assert_eq!(exit(&output), 78);
    assert!(out(&output).contains("/nonexistent/buoy.toml"), "{}", out(&output));
}

#[test]
fn an_agent_with_a_bad_file_ends_before_anything_changes() {
    let folder = Folder::new("agent");
    let file = folder.file("buoy.toml", "peers = []\n");
    let socket = folder.0.join("api.sock");
    for command in ["agent", "witness"] {
        let output = buoy(&[command, "--config", path(&file), "--socket", path(&socket)]);
        assert_eq!(exit(&output), 78, "{command}: {}", err(&output));
        assert!(err(&output).contains("buoy.toml:1:"), "{command}: {}", err(&output));
        assert!(!socket.exists());
    }
}

#[test]
fn the_doctor_has_less_to_say_without_an_agent_and_fails() {
    let folder = Folder::new("doctor");
    let (file, socket) = (folder.file("buoy.toml", "peers = []\n"), folder.0.join("api.sock"));
    let arguments = ["doctor", "--config", path(&file), "--socket", path(&socket)];
    let output = buoy(&arguments);
    assert_eq!(exit(&output), 2, "{}", err(&output));
    assert_eq!(err(&output), "", "it is all in the findings");
    for part in ["FAIL  agent", "fix: start it", "FAIL  configuration", "ok    clock"] {
        assert!(out(&output).contains(part), "{part}:\n{}", out(&output));
    }
    let output = buoy(&[&arguments[..], &["-o", "json"]].concat());
    assert_eq!(exit(&output), 2);
    let value: serde_json::Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(value["ok"], false);
    assert!(value["findings"].as_array().unwrap().iter().any(|f| f["about"] == "agent"));
}

/// Answers each who comes with a stream of two events, and holds it; it is told what was asked for.
fn streams(socket: &Path, events: [&'static str; 2]) -> std::sync::mpsc::Receiver<String> {
    let listener = std::os::unix::net::UnixListener::bind(socket).expect("a socket of its own");
    let (told, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut clients = Vec::new();
        for mut client in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let [one, two] = events.map(|data| format!("id: 1\nevent: list\ndata: {data}\n\n"));
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{one}{two}");
            // Who has gone is missed at the other end.
            let _ = client.write_all(answer.as_bytes());
            let _ = told.send(String::from_utf8_lossy(&head).into_owned());
            clients.push(client);
        }
    });
    asked
}

#[test]
fn every_list_goes_on_with_each_change_where_that_is_asked_for() {
    let folder = Folder::new("watch");
    let socket = folder.0.join("api.sock");
    let one = r#"{"node":"n1","services":[{"node":"n1"}]}"#;
    let two = r#"{"node":"n2","services":[{"node":"n2"}]}"#;
    let asked = streams(&socket, [one, two]);
    let lists = [
        (&["vip", "ls"][..], "/v1/vips?every=1s"),
        (&["node", "ls"], "/v1/nodes?every=1s"),
        (&["pool", "ls"], "/v1/pools?every=1s"),
        (&["service", "ls"], "/v1/services?every=1s"),
        (&["backend", "ls"], "/v1/services?every=1s"),
        (&["backend", "ls", "web:443/tcp"], "/v1/services/web%3A443%2Ftcp?every=1s"),
    ];
    for (list, target) in lists {
        let watched = [list, &["-w", "-o", "json", "--socket", path(&socket)]].concat();
        let mut child =
            command(&watched).stdout(Stdio::piped()).spawn().expect("the program is there");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        for node in ["n1", "n2"] {
            let line = lines.next().expect("it goes on").expect("it is text");
            assert!(line.contains(&format!("\"node\":\"{node}\"")), "{list:?}: {line}");
        }
        child.kill().expect("it is still there");
        child.wait().expect("it has ended");
        let head = asked.recv().expect("it has asked");
        assert!(head.starts_with(&format!("GET {target} ")), "{head}");
        assert!(head.contains("text/event-stream"), "{head}");
    }
}

#[test]
fn without_an_agent_every_question_says_so_in_one_line() {
    let folder = Folder::new("absent");
    let socket = folder.0.join("api.sock");
    let questions: [&[&str]; 15] = [
        &["status"],
        &["why", "web"],
        &["events"],
        &["move", "web", "--to", "lb2", "--yes"],
        &["hold", "web"],
        &["release", "web"],
        &["drain", "--yes"],
        &["undrain"],
        &["node", "ls"],
        &["whoami"],
        &["vip", "rm", "web"],
        &["service", "rm", "web:443"],
        &["node", "cordon"],
        &["node", "uncordon", "lb2"],
        &["reload"],
    ];
    for question in questions {
        let mut arguments = question.to_vec();
        arguments.extend(["--socket", path(&socket)]);
        let output = buoy(&arguments);
        assert_eq!(exit(&output), 3, "{question:?}: {}", err(&output));
        let expected = format!(
            "buoy: no agent is listening on {}: is `buoy agent` running? (systemctl status buoy)\n",
            socket.display()
        );
        assert_eq!(err(&output), expected, "{question:?}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command(&["version"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(exit(&output), 0);
    assert_eq!(err(&output), "", "and no panic");
}

#[test]
fn a_full_disk_is_a_failure() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output =
        command(&["key", "new", "-"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(exit(&output), 1);
    assert!(err(&output).contains("cannot write to standard output"), "{}", err(&output));
}

#[test]
fn a_file_of_another_program_is_turned_into_one_that_the_check_accepts() {
    let folder = Folder::new("import");
    let vaddrs = folder.file("vaddrs", "10.0.0.100/24 eth0 eth0:1\n");
    let haproxy = folder.file("h.cfg", "listen a\n bind *:80\n server a 10.0.0.21:80 check\n");
    folder.file("part.conf", "vrrp_instance V {\n interface eth0\n virtual_router_id 5\n virtual_ipaddress {\n 10.0.0.100/24\n }\n}\n");
    let keepalived = folder.file("k.conf.txt", "include *.conf\n");
    let peers = ["--peers", "lb1=10.0.0.11,lb2=10.0.0.12"];
    let cases = [
        vec!["import", "keepalived", path(&keepalived), "--host", "lb1"],
        vec!["import", "keepalived", path(&keepalived), "--native"],
        vec!["import", "vaddrs", path(&vaddrs)],
        vec!["import", "haproxy", path(&haproxy), "--vip", "10.0.0.100/24"],
    ];
    for case in cases {
        let output = buoy(&[case.as_slice(), &peers].concat());
        assert_eq!(exit(&output), 0, "{}", err(&output));
        let toml = folder.file("buoy.toml", out(&output));
        let checked = buoy(&["config", "check", "--offline", path(&toml)]);
        assert_eq!(exit(&checked), 0, "{}", out(&checked));
    }
    let output = buoy(&["import", "vaddrs", path(&vaddrs)]);
    let note = format!("{}:1: `eth0:1` is not carried", path(&vaddrs));
    assert!(err(&output).contains(&note), "{}", err(&output));
    let nothing = folder.file("nothing", "words\n");
    for file in [path(&nothing), "/nonexistent"] {
        let output = buoy(&["import", "vaddrs", file]);
        assert_eq!((exit(&output), out(&output)), (2, ""), "{}", err(&output));
    }
    assert_eq!(exit(&buoy(&["import", "vaddrs", path(&vaddrs), "--peers", "x"])), 2);
}

//! HAProxy's language over a real socket, with a fake daemon behind it. Answers are those of HAProxy 2.6.12.

use super::*;
use crate::server::follow::Problem;
use crate::server::haproxy;
use buoy_model::{Duty, OrderedWeight};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tokio::sync::watch;

const EXPORTER: &str = "prometheus-haproxy-exporter";

/// The socket on a thread of its own, until the test ends.
struct Socket {
    fake: Arc<Fake>,
    desired: watch::Sender<Arc<Desired>>,
    problem: Problem,
    folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

impl Socket {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (fake, problem) = (Arc::new(Fake::default()), Problem::default());
        let (sender, desired) = watch::channel(Arc::new(desired()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (agent, known) = (Arc::clone(&fake), Arc::clone(&problem));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::select! {
                    () = haproxy::keep(agent, desired, known) => {}
                    _ = stopped => {}
                }
            });
        });
        let socket = Self { fake, desired: sender, problem, folder, _stop: stop };
        socket.at(Some("haproxy.sock"));
        socket.wait("the socket", || socket.path("haproxy.sock").exists());
        socket
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The configuration has the socket there.
    fn at(&self, name: Option<&str>) {
        let path = name.map(|name| self.path(name).to_str().unwrap().to_owned());
        self.desired.send_modify(|desired| Arc::make_mut(desired).haproxy_socket = path);
    }

    fn wait(&self, what: &str, is_it: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_it() {
            assert!(start.elapsed() < crate::sample::PATIENCE, "no {what}: {:?}", self.problem);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.path("haproxy.sock")).unwrap()
    }

    /// What is answered to a line until the connection ends.
    fn ask(&self, line: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn ordered(&self, name: &str) -> (Duty, OrderedWeight) {
        self.fake.ordered(name).map(|order| (order.duty, order.weight)).unwrap_or_default()
    }
}

/// The rows of a table in text, each with its columns by their names.
fn table(text: &str) -> Vec<std::collections::BTreeMap<String, String>> {
    let mut lines = text.trim_end().lines();
    let heading: Vec<&str> = lines.next().unwrap().trim_start_matches("# ").split(',').collect();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), heading.len(), "{line}");
        heading.iter().zip(cells).map(|(h, c)| ((*h).to_owned(), c.to_owned())).collect()
    };
    lines.map(row).collect()
}

#[test]
fn servers_are_drained_disabled_and_weighed_in_the_words_of_haproxy() {
    let socket = Socket::start();
    let (drain, none) = (Duty::Drain { until: None }, OrderedWeight::Configured);
    let table = [
        ("set server web:443-tcp/web1 state drain", "\n", (drain, none)),
        ("set server web:443-tcp/web1 state maint", "\n", (Duty::Maint, none)),
        ("set server web:443-tcp/web1 state ready", "\n", (Duty::Configured, none)),
        ("disable server web:443-tcp/web1", "\n", (Duty::Maint, none)),
        ("enable server web:443-tcp/web1", "\n", (Duty::Configured, none)),
        (
            "set server web:443-tcp/web1 weight 50%",
            "\n",
            (Duty::Configured, OrderedWeight::Percent(50)),
        ),
        // A service by its own name, and several commands in one line.
        (
            "set weight web:443/tcp/web1 10; get weight web:443-tcp/web1",
            "\n10 (initial 1)\n\n",
            (Duty::Configured, OrderedWeight::Fixed(10)),
        ),
        (
            "set server web:443-tcp/web1 state drain;set weight web:443-tcp/web1 100%",
            "\n\n",
            (drain, OrderedWeight::Percent(100)),
        ),
    ];
    for (line, answer, ordered) in table {
        assert_eq!(socket.ask(line), answer, "{line}");
        assert_eq!(socket.ordered("web1"), ordered, "{line}");
    }
    // As Ansible's module says it, with `shutdown_sessions`.
    let shut = "shutdown sessions server web:443-tcp/web1";
    assert!(socket.ask(shut).starts_with("Connections end here when"), "it is drained only");
    let disable = "get weight web:443-tcp/web1; disable server web:443-tcp/web1";
    assert_eq!(socket.ask(&format!("{disable}; {shut}")), "1 (initial 1)\n\n\n\n");
    assert_eq!(socket.ordered("web1").0, Duty::Maint);
    let who = account::user_name(nix::unistd::getuid().as_raw());
    let reason = socket.fake.ordered("web1").unwrap().reason;
    assert_eq!(reason, format!("by {who}, over the HAProxy socket"));
}

#[test]
fn what_is_no_order_is_refused_as_haproxy_refuses_it() {
    let socket = Socket::start();
    let table = [
        ("set server web:443-tcp/nope state drain", "No such server.\n\n"),
        ("set server nope/web1 state drain", "No such backend.\n\n"),
        (
            "set server web:443-tcp/web1 state foo",
            "'set server <srv> state' expects 'ready', 'drain' and 'maint'.\n\n",
        ),
        (
            "set server web:443-tcp/web1 addr 10.0.0.1",
            "usage: set server <backend>/<server> state | weight\n\n",
        ),
        (
            "set weight web:443-tcp/web1 300",
            "Absolute weight can only be between 0 and 256 inclusive.\n\n",
        ),
        ("set weight web:443-tcp/web1 x", "Empty weight string empty or preceded by garbage\n\n"),
        ("disable server", "Require 'backend/server'.\n\n"),
        ("get weight web", "Require 'backend/server'.\n\n"),
        ("get weight web:443-tcp/x", "No such server.\n\n"),
        ("shutdown sessions server web:443-tcp/x", "No such server.\n\n"),
        ("show servers state nope", "Can't find backend.\n\n"),
        ("set timeout cli 0", "Invalid timeout value.\n\n"),
    ];
    for (line, answer) in table {
        assert_eq!(socket.ask(line), answer, "{line}");
    }
    for line in ["", "show sess", "set map a b c", "\u{1b}[2J"] {
        let answer = socket.ask(line);
        let beginning = "Unknown command. Please enter one of the following commands only:\n";
        assert!(answer.starts_with(beginning), "{line}: {answer}");
        assert!(answer.contains("  set server <bk>/<srv> [opts]  "), "{answer}");
    }
    assert!(socket.ask("help").starts_with("The following commands are valid at this level:\n"));
    assert_eq!(socket.fake.ordered("web1"), None, "nothing was ordered");
}

#[test]
fn statistics_come_in_the_columns_of_haproxy_and_what_is_not_known_is_empty() {
    let socket = Socket::start();
    assert_eq!(socket.ask("set server web:443-tcp/web1 state drain"), "\n");
    let text = socket.ask("show stat");
    assert!(text.starts_with("# pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,"), "{text}");
    assert!(text.ends_with(",\n\n"), "{text}");
    let rows = table(&text);
    assert_eq!(rows[0].len(), 129, "128 columns, and nothing behind the last comma");
    let shown = |row: usize, columns: [&str; 4]| columns.map(|c| rows[row][c].as_str());
    let columns = ["pxname", "svname", "status", "type"];
    assert_eq!(shown(0, columns), ["web:443-tcp", "FRONTEND", "OPEN", "0"]);
    assert_eq!(shown(1, columns), ["web:443-tcp", "web1", "DRAIN", "2"]);
    assert_eq!(shown(2, columns), ["web:443-tcp", "web2", "DOWN", "2"]);
    assert_eq!(shown(3, columns), ["web:443-tcp", "web3", "no check", "2"]);
    assert_eq!(shown(4, columns), ["web:443-tcp", "BACKEND", "UP", "1"]);
    let cells = ["weight", "act", "bck", "addr"];
    assert_eq!(shown(1, cells), ["1", "1", "0", "10.0.0.21:8443"]);
    assert_eq!(shown(1, ["scur", "stot", "qcur", "rate"]), ["3", "", "", ""]);
    // Of a sum that lacks a part nothing is said.
    assert_eq!([2, 0, 4].map(|row| rows[row]["scur"].as_str()), [""; 3]);

    let count = |line: &str| table(&socket.ask(line)).len();
    assert_eq!(count("show stat -1 4 -1"), 3);
    assert_eq!(count("show stat web:443-tcp 1 -1"), 1);
    assert_eq!(count("show stat 2 4 2"), 1);
    assert_eq!(count("show stat 9 -1 -1"), 0);
    assert_eq!(count("show stat up"), 4);
    assert!(socket.ask("show stat json").starts_with("Only 'show stat"));
}

#[test]
fn the_state_of_servers_and_the_process_are_told_as_haproxy_tells_them() {
    let socket = Socket::start();
    socket.ask("set server web:443-tcp/web1 state maint; set weight web:443-tcp/web1 7");
    let text = socket.ask("show servers state");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1");
    assert!(lines[1].starts_with("# be_id be_name srv_id srv_name srv_addr srv_op_state"));
    let columns = lines[1].split(' ').count() - 1;
    let rows: Vec<Vec<&str>> = lines[2..5].iter().map(|line| line.split(' ').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == columns), "{text}");
    assert_eq!(rows[0][..9], ["2", "web:443-tcp", "1", "web1", "10.0.0.21", "0", "1", "7", "1"]);
    assert_eq!(rows[1][5..7], ["0", "0"], "it is down");
    assert_eq!(socket.ask("show backend"), "# name\nweb:443-tcp\n\n");

    let info = socket.ask("show info");
    for line in [
        "Name: HAProxy\n",
        "Version: 2.6.12-buoy-",
        "Release_date: 2023/03/28\n",
        "Pid: 7\n",
        "Uptime: 0d 0h00m",
        "Maxconn: 0\n",
        "node: lb1\n",
    ] {
        assert!(info.contains(line), "{line}: {info}");
    }
}

/// A program that does not outlive its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn hatop_shows_the_servers_and_disables_one() {
    let known = ["/usr/bin", "/usr/local/bin"].map(|at| PathBuf::from(at).join("hatop"));
    let Some(hatop) = known.iter().find(|file| file.is_file()) else {
        eprintln!("SKIPPED: hatop_shows_the_servers_and_disables_one: apt-get install hatop");
        return;
    };
    let socket = Socket::start();
    let line = format!(
        "stty rows 40 cols 120; exec {} -s {}",
        hatop.display(),
        socket.path("haproxy.sock").display()
    );
    // It wants a terminal: `script` gives it one.
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm");
    let mut hatop = Ends(terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let (mut keys, mut screen) = (hatop.0.stdin.take().unwrap(), hatop.0.stdout.take().unwrap());
    let seen = Arc::new(Mutex::new(String::new()));
    let sees = Arc::clone(&seen);
    let reader = std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut piece) {
            sees.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    });
    let shows = |text: &str| {
        socket.wait(text, || {
            // Also what it says when it does not go on.
            let seen = seen.lock().unwrap();
            assert!(!seen.contains("rror"), "{seen}");
            seen.contains(text)
        });
    };
    ["web:443-tcp", "web1", "web3", "FRONTEND"].iter().for_each(|text| shows(text));
    // Its own shell is screen 5, and what stands is on screen 1.
    keys.write_all(b"5").unwrap();
    shows("Welcome on the embedded interactive HAProxy shell");
    keys.write_all(b"disable server web:443-tcp/web1\r").unwrap();
    socket.wait("order", || socket.ordered("web1").0 == Duty::Maint);
    keys.write_all(b"\x1b1").unwrap();
    shows("MAINT");
    keys.write_all(b"q").unwrap();
    let ended = hatop.0.wait().unwrap();
    reader.join().unwrap();
    assert!(ended.success(), "{ended}: {}", seen.lock().unwrap());
}

/// As Ansible's module reads it: without two numbers between its points it takes HAProxy for one that knows no drain,
/// says nothing, and does nothing.
#[test]
fn the_version_has_numbers_between_its_first_points() {
    let info = Socket::start().ask("show info");
    let version = info.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap();
    let numbers: Vec<_> = version.split('.').take(2).map(str::parse::<u32>).collect();
    assert_eq!(numbers, [Ok(2), Ok(6)], "{version}");
}

#[test]
fn the_exporter_of_prometheus_reads_the_servers() {
    let known = ["/usr/bin", "/usr/local/bin"].map(|at| PathBuf::from(at).join(EXPORTER));
    let Some(exporter) = known.iter().find(|file| file.is_file()) else {
        eprintln!(
            "SKIPPED: the_exporter_of_prometheus_reads_the_servers: apt-get install {EXPORTER}"
        );
        return;
    };
    let socket = Socket::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(exporter);
    command.arg(format!("--haproxy.scrape-uri=unix:{}", socket.path("haproxy.sock").display()));
    command.arg(format!("--web.listen-address={free}"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let _exporter = Ends(command.spawn().unwrap());
    let page = || -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(free)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    };
    socket.wait("the exporter", || page().is_ok());
    let all = page().unwrap();
    for line in [
        "haproxy_up 1",
        "haproxy_exporter_csv_parse_failures_total 0",
        "haproxy_server_up{backend=\"web:443-tcp\",server=\"web1\"} 1",
        "haproxy_version_info{release_date=\"2023/03/28\",version=\"2.6.12-buoy-",
    ] {
        assert!(all.contains(line), "{line} is not in {all}");
    }
    socket.ask("disable server web:443-tcp/web1");
    let all = page().unwrap();
    let line = "haproxy_server_up{backend=\"web:443-tcp\",server=\"web1\"} 0";
    assert!(all.contains(line), "{line} is not in {all}");
}

#[test]
fn with_a_prompt_the_connection_stays_and_what_is_too_long_ends_it() {
    let socket = Socket::start();
    let mut stream = socket.connect();
    stream.write_all(b"prompt\nshow version\n").unwrap();
    let expected = format!("\n> 2.6.12-buoy-{}\n\n> ", env!("CARGO_PKG_VERSION"));
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), expected);
    stream.write_all(b"set timeout cli 60\nquit\n").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "\n> ");

    let mut stream = socket.connect();
    // The end may come before all is written.
    let _ = stream.write_all(&vec![b'x'; 64 << 10]);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "a line without an end is no command");
}

#[test]
fn the_socket_is_where_the_file_says_and_for_whom_it_should_be() {
    let socket = Socket::start();
    let first = socket.path("haproxy.sock");
    assert_eq!(std::fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o660);
    socket.at(Some("sub/other.sock"));
    let second = socket.path("sub/other.sock");
    socket.wait("other socket", || second.exists() && !first.exists());
    socket.at(None);
    socket.wait("end of it", || !second.exists());
    std::fs::write(&first, "precious").unwrap();
    socket.at(Some("haproxy.sock"));
    socket.wait("problem", || socket.problem.lock().unwrap().is_some());
    let said = socket.problem.lock().unwrap().clone().unwrap();
    assert!(said.contains("haproxy.sock is not there: what is there is not a socket"), "{said}");
    assert_eq!(std::fs::read_to_string(first).unwrap(), "precious");
}

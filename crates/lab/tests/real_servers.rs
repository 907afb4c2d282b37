//! What checks say of PostgreSQL, MariaDB, Redis, Exim and etcd themselves: up, and down in the server's own words.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says what is wrong")]

mod support;

use buoy_lab::command::find;
use buoy_lab::process::{Process, wait_until};
use buoy_lab::skip;
use buoy_lab::topology::Topology;
use buoy_wire::answer::postgres::startup;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, chown};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Cluster, LEASE, LOCAL, MS, SOON, prepared_on};
use tempfile::TempDir;

/// Where the servers listen, each on its own port or host.
const WEB1: [u8; 4] = [10, 77, 0, 21];
const WEB2: [u8; 4] = [10, 77, 0, 22];

/// Finds a program, or says what is skipped without it.
fn program(test: &str, name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        skip(test, &format!("{name} is not installed"));
    }
    found
}

/// A service for each check, in this order, with the same backends.
fn services(backends: &[&str], checks: &[&str]) -> String {
    let backends: Vec<String> = backends.iter().map(|backend| format!("\"{backend}\"")).collect();
    let backends = backends.join(", ");
    let service = |(number, check): (usize, &&str)| {
        format!(
            "[[vip.service]]\nport = \"{}/tcp\"\nbackends = [{backends}]\n\
             check = {{ {check}, every = \"500ms\", fall = 1, rise = 1 }}\n",
            1000 + number
        )
    };
    LOCAL.to_owned() + &checks.iter().enumerate().map(service).collect::<String>()
}

/// A host whose agent asks, and a folder that the servers' users may enter.
struct World {
    /// First, so that they end before their hosts.
    servers: Vec<Server>,
    cluster: Cluster,
    folder: TempDir,
}

/// A server that is told to end as its own documents say, so that nothing of it stays.
struct Server {
    process: Process,
    end: Signal,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.signal(self.end);
        if let Err(late) = self.process.wait_end(SOON) {
            eprintln!("{late}");
        }
    }
}

impl World {
    fn new(test: &str, vips: &str) -> Option<Self> {
        let cluster = prepared_on(test, Topology::with_nodes(1), LEASE, vips)?;
        let folder = tempfile::Builder::new().prefix("buoy-real-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Some(Self { servers: Vec::new(), cluster, folder })
    }

    /// A folder of that user.
    fn folder(&self, name: &str, user: &User) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        give(&folder, user);
        folder
    }

    /// Starts a server on a host; its number, for [`Self::end`].
    fn start(&mut self, host: &str, command: Command, end: Signal) -> usize {
        let name = Path::new(command.get_program()).file_name().unwrap().to_str().unwrap();
        let log = self.folder.path().join(format!("{name}-{}.log", self.servers.len()));
        let inside = self.cluster.segment.inside(host).unwrap();
        let process = Process::start(inside, command, &log).unwrap();
        self.servers.push(Server { process, end });
        self.servers.len() - 1
    }

    fn start_agent(&mut self) {
        self.cluster.buoy.start_all(&self.cluster.segment).unwrap();
        self.cluster.wait_owned("n1");
    }

    /// A connection from the client's host, once there is somebody.
    fn connect(&self, to: ([u8; 4], u16)) -> TcpStream {
        let client = self.cluster.segment.inside("client").unwrap();
        let to = SocketAddr::from(to);
        let mut stream = None;
        wait_until(SOON, &format!("a server at {to}"), || {
            stream = client.enter(|| TcpStream::connect_timeout(&to, 500 * MS)).unwrap().ok();
            Ok(stream.is_some())
        })
        .inspect_err(|_| self.say_logs())
        .unwrap();
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    /// Waits until the agent says so of the backend of each service: nothing if it is up, or how the reason begins.
    fn wait(&self, backend: &str, what: &[&str]) {
        let mut seen = Vec::new();
        let waited = wait_until(SOON, "what checks say", || {
            let status = self.cluster.buoy.status("n1").unwrap();
            let services = status.vips.into_iter().flat_map(|vip| vip.services);
            let backends = services.flat_map(|service| service.backends);
            let ours = backends.filter(|it| it.name == backend);
            seen = ours.map(|backend| (backend.state, backend.reason)).collect::<Vec<_>>();
            Ok(seen.len() == what.len()
                && seen.iter().zip(what).all(|((state, reason), wanted)| match *wanted {
                    "" => state == "up",
                    wanted => state == "down" && reason.contains(wanted),
                }))
        });
        if waited.is_err() {
            self.say_logs();
        }
        assert!(waited.is_ok(), "of {backend}: {seen:#?}, not {what:#?}");
    }

    fn say_logs(&self) {
        for server in &self.servers {
            eprintln!("--- {}:\n{}", server.process.log().display(), server.process.output());
        }
    }
}

fn give(path: &Path, user: &User) {
    chown(path, Some(user.uid), Some(user.gid)).unwrap();
}

/// Who is to run a server that refuses root.
fn user(name: &str) -> User {
    let found = User::from_name(name).unwrap().or_else(|| User::from_name("nobody").unwrap());
    found.unwrap()
}

fn run_as(program: &Path, user: &User) -> Command {
    let mut command = Command::new(program);
    command.uid(Uid::as_raw(user.uid)).gid(Gid::as_raw(user.gid));
    command
}

/// What a server says after these words.
fn say(stream: &mut TcpStream, words: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(words)?;
    let mut bytes = [0; 1024];
    let length = stream.read(&mut bytes)?;
    Ok(bytes[..length].to_vec())
}

/// Makes the files of a cluster of PostgreSQL, and those of another that will follow it.
fn postgres_files(world: &World, bin: &Path, user: &User) -> [PathBuf; 2] {
    let folder = world.folder("postgres", user);
    let [first, second] = ["primary", "replica"].map(|name| folder.join(name));
    let mut initdb = run_as(&bin.join("initdb"), user);
    initdb.args(["-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"]);
    let done = initdb.arg(&first).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    let hosts = "host all postgres 10.77.0.0/24 trust\nhost replication all 10.77.0.0/24 trust\n\
                 host all asked 10.77.0.0/24 scram-sha-256\n";
    std::fs::write(first.join("pg_hba.conf"), hosts).unwrap();
    // Before it has ever run, a copy is as good as a backup.
    let copied = Command::new("cp").arg("-a").args([&first, &second]).status().unwrap();
    assert!(copied.success());
    std::fs::write(second.join("standby.signal"), "").unwrap();
    [first, second]
}

fn start_postgres(world: &mut World, bin: &Path, user: &User, files: &Path, more: [&str; 2]) {
    let (host, address) = if files.ends_with("primary") { ("web1", WEB1) } else { ("web2", WEB2) };
    let mut command = run_as(&bin.join("postgres"), user);
    command.arg("-D").arg(files).args([
        "-c",
        "unix_socket_directories=",
        "-c",
        "fsync=off",
        "-c",
        "log_connections=on",
    ]);
    command.arg("-c").arg(format!("listen_addresses={}", std::net::Ipv4Addr::from(address)));
    for setting in more {
        command.args(["-c", setting]);
    }
    // "Fast": whoever is connected is sent away.
    world.start(host, command, Signal::SIGINT);
}

/// A session that stays: PostgreSQL is ready for a question.
fn session(world: &World) -> io::Result<TcpStream> {
    let mut stream = world.connect((WEB1, 5432));
    let mut said = say(&mut stream, &startup("postgres"))?;
    while !said.windows(6).any(|bytes| bytes == b"Z\0\0\0\x05I") {
        let mut more = [0; 1024];
        match stream.read(&mut more)? {
            0 => return Err(io::Error::other(String::from_utf8_lossy(&said).into_owned())),
            length => said.extend_from_slice(&more[..length]),
        }
    }
    Ok(stream)
}

/// Debian has its programs on nobody's path, by version.
fn postgres_programs(test: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|bin| bin.join("postgres").exists());
    folders.sort_unstable();
    if folders.is_empty() {
        skip(test, "postgresql is not installed");
    }
    folders.pop()
}

#[test]
fn postgresql_itself_starts_follows_asks_is_full_and_shuts_down() {
    let test = "postgresql_itself_starts_follows_asks_is_full_and_shuts_down";
    let Some(bin) = postgres_programs(test) else { return };
    let checks = [
        "postgres = true",
        "postgres = \"primary\"",
        "postgres = \"replica\"",
        "postgres = true, user = \"asked\"",
        "postgres = \"primary\", user = \"asked\"",
        "postgres = \"primary\", user = \"unknown\"",
    ];
    let backends = ["web1 10.77.0.21:5432", "web2 10.77.0.22:5432"];
    let Some(mut world) = World::new(test, &services(&backends, &checks)) else { return };
    let user = user("postgres");
    let [primary, replica] = postgres_files(&world, &bin, &user);
    // All that it takes are six sessions, and none of them is kept for its administrator.
    let few = ["max_connections=6", "superuser_reserved_connections=0"];
    start_postgres(&mut world, &bin, &user, &primary, few);
    // It looks for what it may have missed as long as this file is there.
    let hold = world.folder.path().join("hold");
    std::fs::write(&hold, "").unwrap();
    let look =
        format!("restore_command=while [ -e {} ]; do sleep 0.1; done; false", hold.display());
    let follow = ["primary_conninfo=host=10.77.0.21 user=postgres", look.as_str()];
    start_postgres(&mut world, &bin, &user, &replica, follow);
    world.start_agent();

    let asks = "it asks for a password: let the user in by `trust` in pg_hba.conf";
    let unknown = "PostgreSQL says no pg_hba.conf entry for host \"10.77.0.11\", user \"unknown\"";
    let not_replica = "it is the primary, not a replica";
    world.wait("web1", &["", "", not_replica, "", asks, unknown]);
    world.wait("web2", &["PostgreSQL says the database system is starting up (57P03)"; 6]);
    std::fs::remove_file(&hold).unwrap();
    // Those that stay down say why at that moment, and nobody turns who would wake others for it.
    let not_primary = "it is a replica, not the primary";
    world.wait("web2", &["", not_primary, "", "", asks, unknown]);

    let mut sessions = Vec::new();
    let full = "PostgreSQL says sorry, too many clients already (53300)";
    wait_until(SOON, "all sessions", || {
        sessions.extend(session(&world).ok());
        Ok(sessions.len() == 6)
    })
    .unwrap();
    world.wait("web1", &[full; 6]);
    sessions.truncate(1);
    world.wait("web1", &["", "", not_replica, "", asks, unknown]);

    // "Smart": it waits for those who are connected.
    world.servers[0].process.signal(Signal::SIGTERM).unwrap();
    world.wait("web1", &["PostgreSQL says the database system is shutting down (57P03)"; 6]);
    drop(sessions);
    world.servers[0].process.wait_end(SOON).unwrap();
    world.wait("web1", &["refused"; 6]);
}

#[test]
fn mariadb_itself_greets_and_has_too_many_connections() {
    let test = "mariadb_itself_greets_and_has_too_many_connections";
    let Some(mariadbd) = program(test, "mariadbd") else { return };
    let vips = services(&["web1 10.77.0.21:3306"], &["mysql = true"]);
    let Some(mut world) = World::new(test, &vips) else { return };
    let user = user("mysql");
    let files = world.folder("mariadb", &user);
    let mut command = run_as(&mariadbd, &user);
    command.args([
        "--no-defaults",
        "--skip-grant-tables",
        "--innodb=OFF",
        "--bind-address=10.77.0.21",
    ]);
    command.args([
        "--default-storage-engine=Aria",
        "--connect-timeout=600",
        "--max-connections=10",
    ]);
    command.arg(format!("--datadir={}", files.display()));
    command.arg(format!("--socket={}", files.join("socket").display()));
    command.arg(format!("--pid-file={}", files.join("pid").display()));
    world.start("web1", command, Signal::SIGTERM);
    world.start_agent();
    world.wait("web1", &[""]);

    // Of the eleventh, which it keeps for its administrator, nobody can say who comes first.
    let held: Vec<_> = (0..14).map(|_| world.connect((WEB1, 3306))).collect();
    world.wait("web1", &["MySQL says error 1040: Too many connections"]);
    drop(held);
    world.wait("web1", &[""]);
    world.servers.clear();
    world.wait("web1", &["refused"]);
}

/// Starts Redis with these settings.
fn start_redis(world: &mut World, redis: &Path, port: u16, more: &str) -> usize {
    let mut command = Command::new(redis);
    command.args(["--bind", "10.77.0.21", "--save", "", "--protected-mode", "no", "--dir"]);
    command.arg(world.folder.path()).args(["--port", &port.to_string()]);
    command.args(more.split_whitespace());
    world.start("web1", command, Signal::SIGTERM)
}

#[test]
fn redis_itself_loads_is_full_has_a_password_and_lost_its_master() {
    let test = "redis_itself_loads_is_full_has_a_password_and_lost_its_master";
    let Some(redis) = program(test, "redis-server") else { return };
    let at = [6379, 6380, 6381, 6382].map(|port| format!("at{port} 10.77.0.21:{port}"));
    let at: Vec<&str> = at.iter().map(String::as_str).collect();
    let Some(mut world) = World::new(test, &services(&at, &["redis = true"])) else { return };
    start_redis(&mut world, &redis, 6379, "");
    start_redis(&mut world, &redis, 6380, "--requirepass secret");
    start_redis(&mut world, &redis, 6381, "--maxclients 2");
    let alone = "--replicaof 10.77.0.99 6379 --replica-serve-stale-data no";
    start_redis(&mut world, &redis, 6382, alone);
    world.start_agent();
    for (backend, says) in [
        ("at6379", ""),
        ("at6380", ""),
        ("at6381", ""),
        ("at6382", "Redis says MASTERDOWN Link with MASTER is down"),
    ] {
        world.wait(backend, &[says]);
    }
    let held: Vec<_> = (0..3).map(|_| world.connect((WEB1, 6381))).collect();
    world.wait("at6381", &["Redis says ERR max number of clients reached"]);
    drop(held);
    world.wait("at6381", &[""]);

    // Keys that it takes ten seconds to load, each a hundredth of a second.
    let mut stream = world.connect((WEB1, 6379));
    let keys: String = (0..1000).map(|n| format!("SET key{n} value\r\n")).collect();
    stream.write_all(format!("{keys}SAVE\r\n").as_bytes()).unwrap();
    let mut said = vec![0; 1001 * 5];
    stream.read_exact(&mut said).unwrap();
    assert!(said == b"+OK\r\n".repeat(1001), "{}", String::from_utf8_lossy(&said));
    stream.write_all(b"SHUTDOWN NOSAVE\r\n").unwrap();
    world.servers[0].process.wait_end(SOON).unwrap();
    world.wait("at6379", &["refused"]);
    let slowly = "--key-load-delay 10000 --loading-process-events-interval-bytes 1024";
    start_redis(&mut world, &redis, 6379, slowly);
    world.wait("at6379", &["Redis says LOADING Redis is loading the dataset in memory"]);
    world.wait("at6379", &[""]);
}

#[test]
fn exim_itself_greets_is_full_and_refuses() {
    let test = "exim_itself_greets_is_full_and_refuses";
    let Some(exim) = program(test, "exim4") else { return };
    let at = ["at25 10.77.0.21:25", "at26 10.77.0.22:25"];
    let Some(mut world) = World::new(test, &services(&at, &["smtp = true"])) else { return };
    let user = user("Debian-exim");
    for (host, address, more) in [
        ("web1", "10.77.0.21", "smtp_accept_max = 2"),
        ("web2", "10.77.0.22", "host_reject_connection = 10.77.0.11"),
    ] {
        let spool = world.folder(host, &user);
        let file = world.folder.path().join(format!("{host}.conf"));
        let text = format!(
            "primary_hostname = mail.test\nhost_lookup =\nkeep_environment =\ntls_advertise_hosts =\n\
             spool_directory = {}\nlog_file_path = {}/%slog\nlocal_interfaces = {address}\n\
             daemon_smtp_ports = 25\n{more}\n",
            spool.display(),
            spool.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(&exim);
        command.args(["-bdf", "-C"]).arg(&file).arg("-oP").arg(spool.join("pid"));
        world.start(host, command, Signal::SIGTERM);
    }
    world.start_agent();
    world.wait("at25", &[""]);
    world.wait("at26", &["SMTP says 554 SMTP service not available instead of 220"]);
    let held: Vec<_> = (0..3).map(|_| world.connect((WEB1, 25))).collect();
    world.wait("at25", &["SMTP says 421 Too many concurrent SMTP connections"]);
    drop(held);
    world.wait("at25", &[""]);
}

#[test]
fn etcd_itself_says_that_it_serves_and_what_it_does_not_know() {
    let test = "etcd_itself_says_that_it_serves_and_what_it_does_not_know";
    let Some(etcd) = program(test, "etcd") else { return };
    let checks = ["grpc = true", "grpc = \"buoy.Unknown\"", "http = \"GET /health\""];
    let vips = services(&["web1 10.77.0.21:2379"], &checks);
    let Some(mut world) = World::new(test, &vips) else { return };
    let mut command = Command::new(&etcd);
    command.arg("--data-dir").arg(world.folder.path().join("etcd"));
    let (client, peer) = ("http://10.77.0.21:2379", "http://10.77.0.21:2380");
    command.args(["--listen-client-urls", client, "--advertise-client-urls", client]);
    command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    world.start("web1", command, Signal::SIGTERM);
    world.start_agent();
    world.wait("web1", &["", "gRPC does not know that service", ""]);
    world.servers.clear();
    world.wait("web1", &["refused"; 3]);
}

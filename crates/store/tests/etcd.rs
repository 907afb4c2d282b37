//! The cases of `nodes.rs` that mean something there, on a real etcd of the test's own.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use buoy_store::{Change, Content, Edit, Etcd, Refused};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const WAIT: Duration = Duration::from_secs(2);

/// A server on the loopback, ended with the test.
struct Server {
    child: Child,
    folder: TempDir,
    ports: (u16, u16),
}

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(folder: &Path, (client, peer): (u16, u16)) -> Option<Child> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    Command::new("etcd")
        .args(["--name", "one", "--data-dir"])
        .arg(folder)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .env("ETCD_UNSUPPORTED_ARCH", "arm64")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

impl Server {
    /// `None`: there is no etcd here.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ports = (free(), free());
        let child = spawn(folder.path(), ports)?;
        let server = Self { child, folder, ports };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.ports.0)).is_err() {
            assert!(Instant::now() < end, "etcd starts");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.child = spawn(self.folder.path(), self.ports).unwrap();
        self.wait();
    }

    async fn node(&self, folder: &TempDir) -> Etcd {
        // The first one is not there: the next one is asked.
        let servers = vec![format!("127.0.0.1:{}", free()), format!("127.0.0.1:{}", self.ports.0)];
        Etcd::start(servers, "prod", folder.path(), WAIT).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn edit(on: u64, id: u64, key: &str, value: u64) -> Edit {
    let content = if value == 0 { Content::AsFile } else { Content::Set(value.into()) };
    Edit {
        id,
        on,
        user: "ann".into(),
        node: "n1".into(),
        reason: "a test".into(),
        at_ms: 7,
        changes: vec![Change { key: key.into(), content }],
    }
}

/// Waits until the node has that revision, and says what an entry is there.
async fn value(node: &Etcd, revision: u64, key: &str) -> Option<u64> {
    let mut state = node.state();
    let has = state.wait_for(|state| state.revision >= revision);
    let state = tokio::time::timeout(Duration::from_secs(10), has).await.unwrap().unwrap();
    match &state.entries.get(key)?.content {
        Content::Set(value) => value.as_u64(),
        Content::AsFile | Content::Hidden => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edits_in_etcd_keep_the_same_rules() {
    let Some(mut server) = Server::start() else {
        println!("SKIPPED: edits_in_etcd_keep_the_same_rules: there is no etcd here");
        return;
    };
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (one, two) = (server.node(&folders[0]).await, server.node(&folders[1]).await);
    assert_eq!(one.edit(edit(0, 1, "vip/a", 1)).await, Ok(1));
    assert_eq!(value(&two, 1, "vip/a").await, Some(1), "it is told, and not asked for");
    // Of two at once one is taken, and the other one knows what came first.
    let (a, b) = tokio::join!(one.edit(edit(1, 2, "vip/a", 2)), two.edit(edit(1, 3, "vip/a", 3)));
    let won = match (&a, &b) {
        (Ok(2), Err(Refused::Moved(2))) => 2,
        (Err(Refused::Moved(2)), Ok(2)) => 3,
        both => panic!("exactly one is taken: {both:?}"),
    };
    for node in [&one, &two] {
        assert_eq!(value(node, 2, "vip/a").await, Some(won));
        assert_eq!(node.state().borrow().history.len(), 2);
    }
    assert_eq!(one.edit(edit(1, won, "vip/a", won)).await, Ok(2), "an answer was lost: it is it");
    let far = Edit { changes: vec![], ..edit(2, 9, "", 1) };
    let many = (0..200).map(|n| Change { key: format!("vip/{n}"), content: Content::Hidden });
    let refused = one.edit(Edit { changes: many.collect(), ..far }).await.unwrap_err();
    assert!(matches!(&refused, Refused::Full(why) if why.contains("etcd refuses")), "{refused:?}");

    server.stop();
    let refused = one.edit(edit(2, 4, "vip/b", 4)).await.unwrap_err();
    assert!(matches!(refused, Refused::NoEtcd(_)), "{refused:?}");
    drop(two);
    let two = server.node(&folders[1]).await;
    assert_eq!(two.state().borrow().revision, 2, "what was known is on disk");
    let end = Instant::now() + Duration::from_secs(10);
    while two.problems().is_empty() {
        assert!(Instant::now() < end, "it is said that etcd is not there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.start_again();
    let end = Instant::now() + Duration::from_secs(10);
    while one.edit(edit(2, 4, "vip/b", 4)).await != Ok(3) {
        assert!(Instant::now() < end, "it is taken when etcd is back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(value(&two, 3, "vip/b").await, Some(4), "and the others follow again");
    let three = server.node(&folders[2]).await;
    assert_eq!(three.state().borrow().revision, 3, "a new node has it before it begins");
    assert_eq!(three.state().borrow().history[1].user, "ann");
}

//! The cases of `nodes.rs` that mean something there, on a real etcd of the test's own.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking")]

use buoy_store::{Change, Content, Edit, Etcd, EtcdTls, Refused};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
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
    certificates: Option<TempDir>,
}

fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(folder: &Path, (client, peer): (u16, u16), certificates: Option<&Path>) -> Option<Child> {
    let scheme = if certificates.is_some() { "https" } else { "http" };
    let client = format!("{scheme}://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    let mut command = Command::new("etcd");
    command.args(["--name", "one", "--data-dir"]).arg(folder);
    if let Some(folder) = certificates {
        command.arg("--client-cert-auth");
        command.arg("--trusted-ca-file").arg(folder.join("ca.pem"));
        command.arg("--cert-file").arg(folder.join("server.pem"));
        command.arg("--key-file").arg(folder.join("server.key"));
    }
    command
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("one={peer}")])
        .env("ETCD_UNSUPPORTED_ARCH", "arm64")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

/// An authority, a server on the loopback and a client that it signed.
fn certify(folder: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (name, of) in [("server", "127.0.0.1"), ("client", "n1.example.org")] {
        let mut params = CertificateParams::new([of.to_owned()]).unwrap();
        // etcd's gateway shows itself the server's.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

impl Server {
    /// `None`: there is no etcd here.
    fn start(certificates: Option<TempDir>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ports = (free(), free());
        let child = spawn(folder.path(), ports, certificates.as_ref().map(TempDir::path))?;
        let server = Self { child, folder, ports, certificates };
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
        let certificates = self.certificates.as_ref().map(TempDir::path);
        self.child = spawn(self.folder.path(), self.ports, certificates).unwrap();
        self.wait();
    }

    async fn node(&self, folder: &TempDir) -> Etcd {
        self.node_with(folder, None).await
    }

    async fn node_with(&self, folder: &TempDir, tls: Option<EtcdTls>) -> Etcd {
        // The first one is not there: the next one is asked.
        let servers = vec![format!("127.0.0.1:{}", free()), format!("127.0.0.1:{}", self.ports.0)];
        Etcd::start((servers, tls), "prod", folder.path(), WAIT).await.unwrap()
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
    let Some(mut server) = Server::start(None) else {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_with_certificates_is_believed_and_believes_us() {
    let test = "etcd_with_certificates_is_believed_and_believes_us";
    let (certificates, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certify(certificates.path());
    certify(others.path());
    let paths = |folder: &Path, name: &str| {
        (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")))
    };
    let ours = certificates.path().to_owned();
    let good = EtcdTls { ca: ours.join("ca.pem"), identity: Some(paths(&ours, "client")) };
    let Some(server) = Server::start(Some(certificates)) else {
        println!("SKIPPED: {test}: there is no etcd here");
        return;
    };
    let folders = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let node = server.node_with(&folders[0], Some(good.clone())).await;
    let end = Instant::now() + Duration::from_secs(20);
    while node.edit(edit(0, 1, "vip/a", 1)).await != Ok(1) {
        assert!(Instant::now() < end, "an edit is taken: {:?}", node.problems());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let second = server.node_with(&folders[1], Some(good.clone())).await;
    assert_eq!(value(&second, 1, "vip/a").await, Some(1));
    // The watch works through it too: nobody asks.
    assert_eq!(node.edit(edit(1, 2, "vip/a", 2)).await, Ok(2));
    assert_eq!(value(&second, 2, "vip/a").await, Some(2));

    let foreign = others.path();
    let wrong = [
        (
            "another authority",
            EtcdTls { ca: foreign.join("ca.pem"), ..good.clone() },
            "invalid peer certificate",
        ),
        ("no certificate", EtcdTls { identity: None, ..good.clone() }, ""),
        (
            "a certificate of another authority",
            EtcdTls { identity: Some(paths(foreign, "client")), ..good.clone() },
            "",
        ),
    ];
    for ((what, tls, why), folder) in wrong.into_iter().zip(&folders[2..]) {
        let node = server.node_with(folder, Some(tls)).await;
        let refused = node.edit(edit(2, 9, "vip/a", 9)).await.unwrap_err();
        let Refused::NoEtcd(said) = &refused else { panic!("{what}: {refused:?}") };
        assert!(said.contains(why), "{what}: {said}");
        assert_eq!(node.state().borrow().revision, 0, "{what}: nothing is learnt");
    }
    let revision = second.state().borrow().revision;
    assert_eq!(revision, 2, "and nothing was written");
}

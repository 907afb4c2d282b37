//! Nodes on the loopback agree on edits, whichever of them come and go.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use buoy_store::{
    Change, Content, Done, Edit, Embedded, Errand, Lost, Options, Pace, Peer, Peers, Refused, State,
};
use buoy_wire::{Key, Keyring};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::watch;

const PACE: Pace = Pace {
    heartbeat: Duration::from_millis(60),
    election: Duration::from_millis(300),
    tidy: Duration::from_millis(200),
};

struct Cluster {
    peers: Vec<Peer>,
    folders: Vec<TempDir>,
    nodes: Vec<Option<Embedded>>,
    // Senders of what nodes watch: dropped, they would say that the agent ends.
    kept: Vec<(watch::Sender<Arc<Peers>>, watch::Sender<Keyring>)>,
}

/// Ports that were free a moment ago.
fn addresses(count: usize) -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

impl Cluster {
    fn new(count: usize) -> Self {
        let peer = |(n, address)| Peer {
            name: format!("n{}", n + 1),
            addresses: vec![address],
            witness: n == 2,
        };
        Self {
            peers: addresses(count).into_iter().enumerate().map(peer).collect(),
            folders: (0..count).map(|_| tempfile::tempdir().unwrap()).collect(),
            nodes: (0..count).map(|_| None).collect(),
            kept: Vec::new(),
        }
    }

    async fn of(count: usize) -> Self {
        let mut cluster = Self::new(count);
        for n in 0..count {
            cluster.start(n).await;
        }
        cluster
    }

    async fn start(&mut self, n: usize) {
        let me = self.peers[n].name.clone();
        let peers = Peers { me, cluster: 7, nodes: self.peers.clone() };
        let (peers_sender, peers) = watch::channel(Arc::new(peers));
        let ring = Keyring::new(vec![Key::new([9; 32])]).unwrap();
        let (keys_sender, keys) = watch::channel(ring);
        self.kept.push((peers_sender, keys_sender));
        let directory = self.folders[n].path().to_owned();
        let options = Options { directory, peers, keys, pace: PACE };
        self.nodes[n] = Some(Embedded::start(options, Duration::from_secs(1)).await.unwrap());
    }

    async fn stop(&mut self, n: usize) {
        self.nodes[n].take().unwrap().stop().await;
    }

    fn node(&self, n: usize) -> &Embedded {
        self.nodes[n].as_ref().unwrap()
    }

    fn state(&self, n: usize) -> Arc<State> {
        self.node(n).state().borrow().clone()
    }

    /// Edits on what the node knows at the moment.
    async fn edit(&self, n: usize, key: &str, value: u64) -> Result<u64, Refused> {
        let edit = edit(self.state(n).revision, key, value);
        self.node(n).edit(edit).await
    }

    /// Waits until the node has that revision, and says what an entry is there.
    async fn value(&self, n: usize, revision: u64, key: &str) -> Option<u64> {
        let mut state = self.node(n).state();
        let has = state.wait_for(|state| state.revision >= revision);
        let state = tokio::time::timeout(Duration::from_secs(10), has).await.unwrap().unwrap();
        match &state.entries.get(key)?.content {
            Content::Set(value) => value.as_u64(),
            Content::AsFile | Content::Hidden => None,
        }
    }

    fn leader(&self, n: usize) -> usize {
        let name = self.node(n).leader().unwrap();
        self.peers.iter().position(|peer| peer.name == name).unwrap()
    }
}

fn edit(on: u64, key: &str, value: u64) -> Edit {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Edit {
        id: NEXT.fetch_add(1, Ordering::SeqCst),
        on,
        user: "ann".into(),
        node: "n1".into(),
        reason: "a test".into(),
        at_ms: 7,
        changes: vec![Change { key: key.into(), content: Content::Set(value.into()) }],
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edit_on_any_node_is_on_all_of_them_and_of_two_at_once_one_is_taken() {
    let cluster = Cluster::of(3).await;
    assert_eq!(cluster.edit(1, "vip/a", 1).await, Ok(1), "the first edit, not on the founder");
    for n in 0..3 {
        assert_eq!(cluster.value(n, 1, "vip/a").await, Some(1), "node {n}");
    }
    let (one, other) = tokio::join!(
        cluster.node(0).edit(edit(1, "vip/a", 2)),
        cluster.node(2).edit(edit(1, "vip/a", 3))
    );
    let (won, value) = match (&one, &other) {
        (Ok(2), Err(Refused::Moved(2))) => (0, 2),
        (Err(Refused::Moved(2)), Ok(2)) => (2, 3),
        both => panic!("exactly one is taken: {both:?}"),
    };
    for n in 0..3 {
        assert_eq!(cluster.value(n, 2, "vip/a").await, Some(value), "{won} won");
        let state = cluster.state(n);
        assert_eq!(state.history[1].user, "ann");
        assert_eq!(state.changed_since("vip/a", 1), Some(("ann".into(), 7, 2)));
    }
    assert_eq!(cluster.node(1).voters(), ["n1", "n2", "n3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_goes_on_without_its_leader_which_catches_up_when_it_is_back() {
    let mut cluster = Cluster::of(3).await;
    assert_eq!(cluster.edit(0, "vip/a", 1).await, Ok(1));
    let lost = cluster.leader(0);
    cluster.stop(lost).await;
    let other = (lost + 1) % 3;
    cluster.value(other, 1, "vip/a").await;
    assert_eq!(cluster.edit(other, "vip/a", 2).await, Ok(2));
    cluster.start(lost).await;
    assert_eq!(cluster.state(lost).revision, 1, "from its disk, before anybody was asked");
    assert_eq!(cluster.value(lost, 2, "vip/a").await, Some(2));
    for n in 0..3 {
        cluster.stop(n).await;
    }
    cluster.start(1).await;
    assert_eq!(cluster.value(1, 2, "vip/a").await, Some(2), "alone, it knows what was agreed");
    cluster.start(0).await;
    assert_eq!(cluster.edit(0, "vip/b", 3).await, Ok(3), "and two of three are a majority");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_lost_its_directory_is_another_member_and_has_everything_again() {
    let mut cluster = Cluster::of(3).await;
    assert_eq!(cluster.edit(0, "vip/a", 1).await, Ok(1));
    let lost = (cluster.leader(0) + 1) % 3;
    cluster.value(lost, 1, "vip/a").await;
    cluster.stop(lost).await;
    cluster.folders[lost] = tempfile::tempdir().unwrap();
    cluster.start(lost).await;
    assert_eq!(cluster.state(lost).revision, 1, "the others told it at the start");
    // As a voter: with one of the others gone it is needed.
    let leads = cluster.leader((lost + 1) % 3);
    let third = 3 - lost - leads;
    let takes_part = || {
        let node = cluster.node(lost);
        node.is_voter() && node.voters() == ["n1", "n2", "n3"]
    };
    until("it takes part again", takes_part).await;
    cluster.stop(third).await;
    assert_eq!(cluster.edit(lost, "vip/a", 2).await, Ok(2));
    assert_eq!(cluster.value(leads, 2, "vip/a").await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_both_are_needed_to_edit_and_one_is_enough_to_know() {
    let mut cluster = Cluster::new(2);
    cluster.start(1).await;
    let refused = cluster.edit(1, "vip/a", 1).await.unwrap_err();
    assert_eq!(refused, Refused::NoFounder("n1".into()), "nothing is begun by half of them");
    cluster.start(0).await;
    assert_eq!(cluster.edit(1, "vip/a", 1).await, Ok(1));
    cluster.value(0, 1, "vip/a").await;
    cluster.stop(1).await;
    let refused = cluster.edit(0, "vip/a", 2).await.unwrap_err();
    let expected = Refused::NoMajority { silent: vec!["n2".into()], needed: 2, of: 2 };
    assert_eq!(refused, expected);
    assert!(refused.to_string().contains("n2 does not answer: start its agent"), "{refused}");
    assert_eq!(cluster.value(0, 1, "vip/a").await, Some(1), "what was agreed is still known");
    cluster.start(1).await;
    until("both are there", || cluster.node(0).leader().is_some()).await;
    assert_eq!(cluster.edit(1, "vip/a", 3).await, Ok(2), "the refused one was not taken later");
}

#[tokio::test]
async fn alone_a_node_needs_nobody() {
    let mut cluster = Cluster::of(1).await;
    assert_eq!(cluster.edit(0, "vip/a", 1).await, Ok(1));
    cluster.stop(0).await;
    cluster.start(0).await;
    assert_eq!(cluster.edit(0, "vip/a", 2).await, Ok(2));
    assert_eq!(cluster.state(0).history.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_errand_is_done_by_the_node_that_it_is_for_or_it_is_said_what_became_of_it() {
    let mut cluster = Cluster::of(2).await;
    let errand = Errand {
        method: "POST".into(),
        target: "/v1/vips/web/release".into(),
        body: "{}".into(),
        user: "ann".into(),
        role: "operate".into(),
    };
    // Both listen, then.
    assert_eq!(cluster.edit(0, "vip/a", 1).await, Ok(1));
    let nobody = cluster.node(0).send("n2", errand.clone()).await;
    assert!(matches!(&nobody, Err(Lost::Unsent(why)) if why.contains("no orders")), "{nobody:?}");
    let stranger = cluster.node(0).send("n9", errand.clone()).await;
    assert!(matches!(stranger, Err(Lost::Unsent(_))), "{stranger:?}");
    let mut arrived = cluster.node(1).errands();
    let report = Done { status: 200, tag: Some("\"7\"".into()), body: "done".into() };
    let (sent, came) = tokio::join!(cluster.node(0).send("n2", errand.clone()), async {
        let one = arrived.recv().await.unwrap();
        one.answer.send(report.clone()).unwrap();
        (one.from, one.errand)
    });
    assert_eq!((sent, came), (Ok(report), ("n1".into(), errand.clone())));
    // Taken, and who does it ends before it has said anything.
    let (sent, ()) = tokio::join!(cluster.node(0).send("n2", errand.clone()), async {
        drop(arrived.recv().await);
    });
    assert!(matches!(sent, Err(Lost::Unsure(_))), "{sent:?}");
    cluster.stop(1).await;
    let silent = cluster.node(0).send("n2", errand).await;
    assert!(matches!(silent, Err(Lost::Unsent(_))), "nothing was sent: {silent:?}");
}

//! Whether parcels reach every peer that is there, over real sockets, and nobody else's are believed.

use super::*;
use crate::sample::{self, PATIENCE};
use buoy_model::Node;
use buoy_wire::Key;

/// Node `n` of three, each on an address of its own of this host, in a network that only this test uses.
fn desired(net: u8, n: usize) -> Arc<Desired> {
    let mut desired = sample::desired(&["10.0.0.100"], "lo", vec![]);
    let name = |n: usize| format!("n{n}");
    let node = |n: usize| {
        let last = u8::try_from(n).unwrap();
        Node::new(&name(n), SocketAddr::from(([127, 77, net, last], 4747)))
    };
    desired.nodes = (1..=3).map(node).collect();
    desired.nodes.sort_by_key(|node| node.id);
    desired.me = NodeId::of(&name(n));
    Arc::new(desired)
}

struct End {
    exchange: Exchange,
    desired: watch::Sender<Arc<Desired>>,
    _keys: watch::Sender<Keyring>,
}

fn start(net: u8, n: usize, key: u8) -> End {
    let (desired, wanted) = watch::channel(desired(net, n));
    let keyring = Keyring::new(vec![Key::new([key; 32])]).unwrap();
    let (keys, keyring) = watch::channel(keyring);
    End { exchange: Exchange::start(wanted, keyring).unwrap(), desired, _keys: keys }
}

impl End {
    fn id(&self) -> NodeId {
        self.desired.borrow().me
    }

    async fn sees(&self, count: usize) {
        let all = async {
            while self.exchange.handle().present().len() != count {
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, all).await.unwrap();
    }
}

async fn next(news: &mut mpsc::Receiver<News>) -> News {
    time::timeout(PATIENCE, news.recv()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_parcel_reaches_all_peers_and_only_readers_of_its_topic() {
    let ends = [start(1, 1, 7), start(1, 2, 7), start(1, 3, 7)];
    for end in &ends {
        end.sees(2).await;
    }
    let mut orders = ends[1].exchange.handle().subscribe(Topic::Orders);
    let mut flows = ends[2].exchange.handle().subscribe(Topic::Flows);
    let mut came = vec![next(&mut orders).await, next(&mut orders).await];
    came.sort_by_key(|news| format!("{news:?}"));
    let mut expected = vec![News::Came(ends[0].id()), News::Came(ends[2].id())];
    expected.sort_by_key(|news| format!("{news:?}"));
    assert_eq!(came, expected, "who is there already is told to a new reader");
    let (_, _) = (next(&mut flows).await, next(&mut flows).await);

    let longest = vec![9; BODY_MAX];
    ends[0].exchange.handle().send(None, Topic::Orders, longest.clone());
    ends[0].exchange.handle().send(Some(ends[2].id()), Topic::Flows, b"one".to_vec());
    assert_eq!(next(&mut orders).await, News::Parcel(ends[0].id(), longest));
    assert_eq!(next(&mut flows).await, News::Parcel(ends[0].id(), b"one".to_vec()));

    // Of a node that is taken out of the configuration nobody hears any more.
    let mut without = Desired::clone(&ends[1].desired.borrow());
    without.nodes.retain(|node| node.id != ends[2].id());
    ends[1].desired.send_replace(Arc::new(without));
    assert_eq!(next(&mut orders).await, News::Left(ends[2].id()));
}

#[tokio::test]
async fn a_node_with_another_key_is_not_heard_and_is_counted() {
    let (ours, other) = (start(2, 1, 7), start(2, 2, 8));
    let heard = async {
        while ours.exchange.handle().counters()["exchange_rejected"] == 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, heard).await.unwrap();
    assert_eq!(ours.exchange.handle().present(), []);
    assert_eq!(other.exchange.handle().present(), []);
}

#[tokio::test]
async fn a_peer_that_starts_again_comes_again() {
    let ours = start(3, 1, 7);
    let mut news = ours.exchange.handle().subscribe(Topic::Answers);
    for _ in 0..2 {
        let other = start(3, 2, 7);
        assert_eq!(next(&mut news).await, News::Came(other.id()));
        other.sees(1).await;
    }
}

#[tokio::test]
async fn a_port_that_somebody_has_is_a_problem_in_words() {
    let holder = std::net::UdpSocket::bind("127.77.4.1:4748").unwrap();
    let ours = start(4, 1, 7);
    let told = async {
        while ours.exchange.handle().problems().is_empty() {
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    time::timeout(PATIENCE, told).await.unwrap();
    let problems = ours.exchange.handle().problems();
    assert!(problems[0].contains("UDP 127.77.4.1:4748"), "{problems:?}");
    drop(holder);
}

//! Backends that are asked on the VIPs of their service, as far as one host can show it.

use super::*;
use buoy_kernel::via::Via;
use buoy_model::{FlowFields, Forward, Node, Via as Word};

/// A service of `forward = "dsr"` with one backend, which is asked on the VIPs.
fn on_vips(vips: &[&str], backend: SocketAddr, others: &[&str]) -> Arc<Desired> {
    let mode = Mode::Xdp { forward: Forward::Dsr, flow: FlowFields::Connection };
    let backends = vec![Backend::new("web", backend)];
    let mut service = sample::service(mode, vips[0], backend.port(), backends);
    service.addresses = vips.iter().map(|vip| vip.parse().unwrap()).collect();
    service.check = Some(Check { via: Some(Word::Direct), ..check(CheckKind::Tcp) });
    let mut desired = sample::desired(vips, "lo", vec![service]);
    let others = others.iter().map(|ip| Node::new(ip, (ip.parse::<IpAddr>().unwrap(), 1).into()));
    desired.nodes.extend(others);
    Arc::new(desired)
}

#[tokio::test]
async fn a_backend_on_this_host_is_asked_on_each_vip() {
    let (_listener, backend) = listener().await;
    let both = on_vips(&["127.0.0.2", "127.0.0.3"], backend, &[]);
    let known = found(Arc::clone(&both)).await;
    if let Err(error) = Via::open() {
        // The check is not lost where the programs cannot be loaded.
        let expected = format!("asked at its own address and not on the VIP: {error}");
        assert_eq!((known.state, known.reason, known.urgent), (BackendState::Up, expected, true));
        return;
    }
    let reason = "on the VIP 127.0.0.2: connection refused".to_owned();
    assert_eq!((known.state, known.reason), (BackendState::Down, reason));
    let _second = TcpListener::bind(("127.0.0.2", backend.port())).await.unwrap();
    let known = found(Arc::clone(&both)).await;
    let reason = "on the VIP 127.0.0.3: connection refused".to_owned();
    assert_eq!((known.state, known.reason), (BackendState::Down, reason));
    let _third = TcpListener::bind(("127.0.0.3", backend.port())).await.unwrap();
    let known = found(both).await;
    assert_eq!((known.state, known.reason), (BackendState::Up, String::new()));
    let known = found(on_vips(&["192.0.2.100"], backend, &[])).await;
    assert!(known.reason.ends_with("run `buoy backend add 192.0.2.100`"), "{}", known.reason);
}

#[tokio::test]
async fn another_host_of_the_cluster_is_asked_at_its_own_address_and_that_is_said() {
    let (_listener, backend) = listener().await;
    let known = found(on_vips(&["127.0.0.2"], backend, &["127.0.0.1"])).await;
    assert_eq!(known.state, BackendState::Up);
    let reason = "asked at its own address and not on the VIP: it is a host of the cluster, which passes \
                  packets for the VIP on";
    assert_eq!((known.reason.as_str(), known.urgent), (reason, false));
}

//! Shows monitoring its page, over the agent's socket, and over TCP where the configuration names an address.
//!
//! Over TCP there is this page and nothing else, for whoever can reach it: it names VIPs, peers and backends, and
//! orders nothing.

use super::failure::Failure;
use super::follow::{self, Named, Problem};
use super::listen::Hall;
use super::{Agent, Asker, Snapshot, guard};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use buoy_config::Role;
use buoy_model::Desired;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Connections at the same time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: u32 = 8;
/// The text format, by the word of its specification.
const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn page<A: Agent>(
    State(agent): State<Arc<A>>,
) -> Result<impl IntoResponse, Failure> {
    let snapshot = Snapshot::of(&*agent, 0).await?;
    let view = snapshot.view();
    let (status, budget) = (view.cluster(), view.budget(snapshot.revision));
    let page = agent.metrics(&status, &budget).map_err(|error| Failure::internal(&error))?;
    Ok(([(CONTENT_TYPE, FORMAT)], page))
}

/// The page over TCP, as the configuration has it.
struct Shown<A>(Arc<A>);

impl<A: Agent> Named for Shown<A> {
    type Wish = Desired;
    type Place = SocketAddr;
    type Socket = TcpListener;

    fn named(&self, desired: &Desired) -> Option<SocketAddr> {
        desired.metrics
    }

    async fn open(&self, at: &SocketAddr) -> Result<TcpListener, String> {
        let refused = |error| format!("`metrics` at {at} cannot be shown: {error}");
        TcpListener::bind(at).await.map_err(refused)
    }

    async fn serve(&self, listener: TcpListener) {
        let router = Router::new()
            .route("/metrics", get(page::<A>))
            .fallback(|| async { Failure::unknown_path() })
            .method_not_allowed_fallback(|| async { Failure::method() })
            .layer(middleware::from_fn(guard::guard))
            .with_state(Arc::clone(&self.0));
        // Ends with this future: nobody is answered at an address that is not in the file any more.
        let (_end, ended) = watch::channel(false);
        let greet = |stream: TcpStream| async { Some((stream, Asker::local(None, Role::Read))) };
        Hall::new(CONNECTIONS_MAX, ended).answer(listener, greet, router).await;
    }
}

/// Keeps the address that the configuration names, for as long as it names it.
pub(crate) async fn keep<A: Agent>(
    agent: Arc<A>,
    desired: watch::Receiver<Arc<Desired>>,
    problem: Problem,
) {
    follow::follow(&Shown(agent), desired, problem).await;
}

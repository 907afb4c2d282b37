//! Keeps a socket that the configuration names, for as long as it names it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A socket that cannot be opened is tried again after so long.
const RETRY: Duration = Duration::from_secs(10);

/// Why what the configuration names is not there, for who is asked about this host.
pub(crate) type Problem = Arc<Mutex<Option<String>>>;

/// A socket of the configuration.
pub(super) trait Named: Sync {
    /// What of the configuration names it.
    type Wish: Send + Sync;
    /// Where it is to be.
    type Place: PartialEq + Send + Sync;
    type Socket: Send;
    /// What the configuration names, if anything.
    fn named(&self, wish: &Self::Wish) -> Option<Self::Place>;
    /// An error is a sentence.
    fn open(
        &self,
        place: &Self::Place,
    ) -> impl Future<Output = Result<Self::Socket, String>> + Send;
    fn serve(&self, socket: Self::Socket) -> impl Future<Output = ()> + Send;
}

/// Opens what is named and serves it until something else is named, or nothing.
pub(super) async fn follow<N: Named>(
    this: &N,
    mut wish: watch::Receiver<Arc<N::Wish>>,
    problem: Problem,
) {
    loop {
        let place = this.named(&wish.borrow_and_update());
        let serving = async {
            let Some(place) = &place else { return std::future::pending().await };
            match this.open(place).await {
                Ok(socket) => {
                    say(&problem, None);
                    this.serve(socket).await;
                }
                Err(why) => {
                    say(&problem, Some(why));
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tokio::select! {
            () = serving => {}
            changed = wish.wait_for(|wish| this.named(wish) != place) => {
                if changed.is_err() {
                    return;
                }
                say(&problem, None);
            }
        }
    }
}

fn say(problem: &Problem, said: Option<String>) {
    let mut known = problem.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(new) = said.as_ref().filter(|new| known.as_ref() != Some(new)) {
        tracing::warn!("{new}");
    }
    *known = said;
}

//! Asks what may wait on the kernel or on a disk on a thread of its own.
//!
//! One question at a time for each check, so that a hanging file system holds up neither the other checks nor
//! the end of the agent, and costs one thread however long it hangs.

use std::sync::Arc;
use std::thread;
use tokio::sync::{Semaphore, oneshot};

/// Bytes of a thread's stack; a question needs a few pages, and the agent's memory is locked.
const STACK: usize = 256 << 10;

/// Threads for what may wait, one at a time.
#[derive(Debug)]
pub(crate) struct Apart {
    turn: Arc<Semaphore>,
}

impl Apart {
    pub(crate) fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)) }
    }

    /// Runs the work on a thread of its own, once the one before has ended. The work can ask whether
    /// its answer is still wanted.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Fn() -> bool) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        // Nobody closes it.
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|e| e.to_string())?;
        let (answer, asked) = oneshot::channel();
        let thread = thread::Builder::new().name("buoy-check".into()).stack_size(STACK);
        thread
            .spawn(move || {
                let said = work(&|| !answer.is_closed());
                drop(turn);
                // Given up meanwhile: then nobody wants to know.
                let _ = answer.send(said);
            })
            .map_err(|e| format!("no thread to ask on: {e}"))?;
        asked.await.unwrap_or_else(|_| Err("the thread that asked has ended".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_question_that_hangs_holds_up_the_next_one_of_its_check_and_nothing_else() {
        let apart = Apart::new();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let hanging = apart.run(move |_| held.recv().map_err(|e| e.to_string()));
        let given_up = tokio::time::timeout(Duration::from_millis(20), hanging).await;
        assert!(given_up.is_err());
        let next = apart.run(|_| Ok(7));
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut next).await.is_err());
        assert_eq!(Apart::new().run(|_| Ok(8)).await, Ok(8), "another check");
        release.send(()).unwrap();
        assert_eq!(next.await, Ok(7));
    }

    #[tokio::test]
    async fn a_question_that_was_given_up_can_know_it() {
        let apart = Apart::new();
        let (tell, told) = std::sync::mpsc::channel();
        let asked = apart.run(move |wanted| {
            while wanted() {
                thread::yield_now();
            }
            tell.send(()).map_err(|e| e.to_string())
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), asked).await.is_err());
        told.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

//! Counts what the kernel translates: all services in one walk through conntrack, and no oftener than that is worth.
//!
//! Conntrack has no index by services, so whoever wants one number walks through every connection of the host. A page
//! and an exporter that ask for each backend by itself would have the kernel do that a thousand times.

use buoy_kernel::conntrack::{self, Flows};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// For so many times as long as it took, what was counted holds: counting takes a tenth of one processor at most.
const KEPT: u32 = 9;

/// How many there are of each.
pub(super) type Counts = BTreeMap<Flows, u64>;

/// What was counted last. Who asks while somebody counts waits for that.
#[derive(Debug, Default)]
pub(super) struct Conntracked(Mutex<Option<Tally>>);

#[derive(Debug)]
struct Tally {
    counts: Arc<Counts>,
    began: Instant,
    took: Duration,
}

impl Tally {
    fn answers(&self, needed: &[Flows], now: Instant) -> bool {
        let age = now.saturating_duration_since(self.began + self.took);
        age <= self.took * KEPT && needed.iter().all(|flows| self.counts.contains_key(flows))
    }
}

impl Conntracked {
    /// How many there are of what is needed, and of `all` others that may be asked for next; why that is not known,
    /// in words.
    pub(super) async fn count(
        &self,
        needed: &[Flows],
        all: impl FnOnce() -> Vec<Flows>,
    ) -> Result<Arc<Counts>, String> {
        if needed.is_empty() {
            return Ok(Arc::default());
        }
        let mut kept = self.0.lock().await;
        let began = Instant::now();
        if let Some(tally) = kept.as_ref().filter(|tally| tally.answers(needed, began)) {
            return Ok(Arc::clone(&tally.counts));
        }
        let each: BTreeSet<Flows> = all().into_iter().chain(needed.iter().copied()).collect();
        let counts = tokio::task::spawn_blocking(move || counted(each))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
            .map(Arc::new)
            .map_err(|error| format!("conntrack cannot be asked: {error}"))?;
        *kept = Some(Tally { counts: Arc::clone(&counts), began, took: began.elapsed() });
        Ok(counts)
    }
}

fn counted(each: BTreeSet<Flows>) -> io::Result<Counts> {
    let each: Vec<Flows> = each.into_iter().collect();
    let counts = conntrack::count(&each)?;
    Ok(each.into_iter().zip(counts.into_iter().map(|n| n as u64)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use buoy_model::{Ports, Protocol};

    #[test]
    fn what_was_counted_holds_nine_times_as_long_as_it_took() {
        let flows = |port| Flows {
            protocol: Protocol::Tcp,
            vip: [10, 0, 0, 100].into(),
            ports: Ports::one(port),
            backend: ([10, 0, 0, 21], port).into(),
        };
        let (began, took) = (Instant::now(), Duration::from_millis(20));
        let tally = Tally { counts: Arc::new([(flows(80), 3)].into()), began, took };
        let table = [
            (80, 20, true),
            (80, 200, true),
            (80, 201, false),
            // A service that was added since.
            (81, 20, false),
        ];
        for (port, ms, answers) in table {
            let now = began + Duration::from_millis(ms);
            assert_eq!(tally.answers(&[flows(port)], now), answers, "{port} after {ms} ms");
        }
        assert!(!tally.answers(&[flows(80), flows(81)], began + took));
    }
}

//! All that is counted, in one place for whoever reads it: the cores' numbers, the names behind their labels, and what
//! belongs to the process as a whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::counters::{CoreMetrics, SharedCounter};
use super::labels::Labels;
use super::turns::Turns;

/// The process's numbers. Made once, before the cores start.
#[derive(Debug)]
pub struct Registry {
    cores: Vec<Arc<CoreMetrics>>,
    /// Names of routes and upstreams.
    pub(crate) labels: Labels,
    /// Configurations taken up by a reload.
    pub(crate) reloads_ok: SharedCounter,
    /// Configurations refused by a reload; the one before stays.
    pub(crate) reloads_failed: SharedCounter,
    /// Processes that were to take over and did not.
    pub(crate) handovers_failed: SharedCounter,
    /// Batches of the access log that could not be written.
    pub(crate) access_log_write_errors: SharedCounter,
    /// Lines that were in those batches.
    pub(crate) access_log_lines_lost: SharedCounter,
    /// When each core ran last.
    pub(crate) turns: Turns,
    ready: AtomicBool,
    started_unix_ms: u64,
}

impl Registry {
    /// A registry for `cores` worker cores, not ready yet.
    pub fn new(cores: usize) -> Arc<Registry> {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Arc::new(Registry {
            cores: (0..cores).map(|_| Arc::new(CoreMetrics::default())).collect(),
            labels: Labels::default(),
            reloads_ok: SharedCounter::default(),
            reloads_failed: SharedCounter::default(),
            handovers_failed: SharedCounter::default(),
            access_log_write_errors: SharedCounter::default(),
            access_log_lines_lost: SharedCounter::default(),
            turns: Turns::new(cores),
            ready: AtomicBool::new(false),
            started_unix_ms: since_epoch.as_millis() as u64,
        })
    }

    /// The numbers of each core, in the order of the cores.
    pub(crate) fn cores(&self) -> &[Arc<CoreMetrics>] {
        &self.cores
    }

    /// The sum of one number over all cores.
    pub(crate) fn sum(&self, read: impl Fn(&CoreMetrics) -> u64) -> u64 {
        self.cores.iter().map(|core| read(core)).sum()
    }

    /// Whether new requests are welcome: true once every core listens, false again from the start of a drain.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Says whether new requests are welcome.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// When the process started, in milliseconds since 1970.
    pub(crate) fn started_unix_ms(&self) -> u64 {
        self.started_unix_ms
    }
}

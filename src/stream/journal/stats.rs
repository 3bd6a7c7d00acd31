//! The numbers of a journal, for whoever scrapes them. The writer alone counts, but for damage, which any reader may find.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::observe::histogram::{DiskSync, Histogram};
use crate::observe::{Counter, SharedCounter};

/// What a journal has done since its start, and what it holds.
#[derive(Debug, Default)]
pub struct Stats {
    /// Records that were written, copies among them.
    pub records: Counter,
    /// Batches with records that were written.
    pub batches: Counter,
    /// Bytes written to segments.
    pub written_bytes: Counter,
    /// Bytes of records that compaction has copied.
    pub copied_bytes: Counter,
    /// Segments that were given back.
    pub removed_segments: Counter,
    /// How long each fdatasync took.
    pub sync: Histogram<DiskSync>,
    /// Records that were found damaged, each time one was.
    pub damaged: SharedCounter,
    segments: AtomicU64,
    bytes: AtomicU64,
    live_bytes: AtomicU64,
    damage: Mutex<Option<(u32, u64)>>,
}

impl Stats {
    /// How many segments there are.
    pub fn segments(&self) -> u64 {
        self.segments.load(Relaxed)
    }

    /// Bytes of all records on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes of those that are wanted.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Relaxed)
    }

    /// The first damage that was found while running: number of the segment, and byte.
    pub fn damage(&self) -> Option<(u32, u64)> {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn held(&self, segments: u64, bytes: u64, live_bytes: u64) {
        self.segments.store(segments, Relaxed);
        self.bytes.store(bytes, Relaxed);
        self.live_bytes.store(live_bytes, Relaxed);
    }

    pub(super) fn damaged(&self, segment: u32, byte: u64) {
        self.damaged.inc();
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((segment, byte));
    }

    /// Does it and observes how long it took.
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer's own thread has no shard and no clock but the system's"
    )]
    pub(super) fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = std::time::Instant::now();
        let result = work();
        self.sync.observe_us(start.elapsed().as_micros() as u64);
        result
    }
}

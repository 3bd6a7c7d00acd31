//! The numbers of a journal, for whoever scrapes them. The writer alone counts, but for damage, which any reader may find.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::record::segment_name;
use crate::telemetry::histogram::{DiskSync, Histogram};
use crate::telemetry::{Counter, SharedCounter};
use crate::tell;

/// What a journal has done since its start, and what it holds.
#[derive(Debug, Default)]
pub struct Stats {
    /// Records that were written, copies among them.
    pub(crate) records: Counter,
    /// Batches with records that were written.
    pub batches: Counter,
    /// Bytes written to segments.
    pub(crate) written_bytes: Counter,
    /// Bytes of records that compaction has copied.
    pub(crate) copied_bytes: Counter,
    /// Segments that were given back.
    pub(crate) removed_segments: Counter,
    /// How long each fdatasync took.
    pub(crate) sync: Histogram<DiskSync>,
    /// Records that were found damaged, each time one was.
    pub(crate) damaged: SharedCounter,
    segments: AtomicU64,
    bytes: AtomicU64,
    live_bytes: AtomicU64,
    /// Where the first was has been written to the log.
    has_told: AtomicBool,
}

impl Stats {
    /// How many segments there are.
    pub(crate) fn segments(&self) -> u64 {
        self.segments.load(Relaxed)
    }

    /// Bytes of all records on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Bytes of those that are wanted.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Relaxed)
    }

    pub(crate) fn held(&self, segments: u64, bytes: u64, live_bytes: u64) {
        self.segments.store(segments, Relaxed);
        self.bytes.store(bytes, Relaxed);
        self.live_bytes.store(live_bytes, Relaxed);
    }

    pub(crate) fn damaged(&self, segment: u32, byte: u64) {
        self.damaged.inc();
        if !self.has_told.swap(true, Relaxed) {
            let name = segment_name(segment);
            tell!(
                "sedge: {name} is damaged at byte {byte}: what was kept there cannot be read. Restore it from a copy, or delete its stream; \
                 further damage is counted by sedge_journal_damaged_total"
            );
        }
    }

    /// Does it and observes how long it took.
    #[expect(
        clippy::disallowed_methods,
        reason = "the writer's own thread has no shard and no clock but the system's"
    )]
    pub(crate) fn timed<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = std::time::Instant::now();
        let result = work();
        self.sync.observe_us(start.elapsed().as_micros() as u64);
        result
    }
}

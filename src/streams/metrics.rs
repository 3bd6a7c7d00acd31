//! Durable streams and their journal, for `GET /metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Streams;
use super::store::journal::Journal;
use super::store::redis::Remote;
use crate::telemetry::histogram::{DiskSync, Totals};
use crate::telemetry::{AppendRefusal, CoreMetrics, Page, Registry};

impl Streams {
    /// Appends what is known of them; the cores count in `registry`.
    pub(crate) fn render(&self, registry: &Registry, out: &mut String) {
        let mut page = Page::new(out);
        let (streams, memory) = self.totals();
        let bounds = self.bounds();
        page.gauge("sedge_durable_streams", "Durable streams there are.", streams);
        page.gauge("sedge_durable_streams_max", "Durable streams there may be.", bounds.streams);
        page.gauge(
            "sedge_durable_memory_bytes",
            "Memory that durable streams and their subscriptions take.",
            memory,
        );
        page.gauge(
            "sedge_durable_memory_max_bytes",
            "Memory that durable streams and their subscriptions may take.",
            bounds.memory,
        );
        let sum = |read: fn(&CoreMetrics) -> u64| registry.sum(read);
        page.gauge(
            "sedge_durable_readers",
            "Connections that wait for what is appended, as events or in a long poll, once for each stream.",
            sum(|core| core.stream_readers.get()),
        );
        page.counter(
            "sedge_durable_appends_total",
            "Appends that durable streams have taken.",
            sum(|core| core.stream_appends.get()),
        );
        page.counter(
            "sedge_durable_appended_bytes_total",
            "Payload of the appends that durable streams have taken.",
            sum(|core| core.stream_appended_bytes.get()),
        );
        page.counter(
            "sedge_durable_deliveries_total",
            "Appends written to connections that get events, once for each; other reads are not counted.",
            sum(|core| core.stream_deliveries.get()),
        );
        let name = "sedge_durable_appends_refused_total";
        page.family(
            name,
            "counter",
            "Appends that a durable stream was asked for and has not taken; duplicates are taken.",
        );
        for reason in AppendRefusal::ALL {
            let refused = registry.sum(|core| core.appends_refused(reason));
            page.labelled(name, &[("reason", reason.label())], refused);
        }
        if let Some(remote) = self.remote() {
            redis(remote, &mut page);
        }
        if let Some(journal) = self.journal() {
            disk(journal, &mut page);
        }
    }
}

fn redis(remote: &Remote, page: &mut Page<'_>) {
    page.gauge("sedge_redis_up", "Whether Redis can be reached: 1, or 0.", u64::from(remote.is_up()));
    let metrics = remote.metrics();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    page.counter("sedge_redis_calls_total", "Calls that Redis has answered.", read(&metrics.calls));
    page.counter(
        "sedge_redis_failures_total",
        "Calls that Redis has refused or not answered.",
        read(&metrics.failures),
    );
    page.counter(
        "sedge_redis_connects_total",
        "Connections to Redis that were made.",
        read(&metrics.connects),
    );
    page.counter("sedge_redis_wakes_total", "Words of something new that were heard.", read(&metrics.wakes));
}

fn disk(journal: &Journal, page: &mut Page<'_>) {
    let stats = journal.stats();
    page.gauge(
        "sedge_journal_full",
        "Whether appends are refused until the disk has room: 1, or 0.",
        u64::from(journal.no_room().is_some()),
    );
    page.gauge(
        "sedge_journal_failed",
        "Whether the disk has failed and nothing more is stored until a restart: 1, or 0.",
        u64::from(journal.failure().is_some()),
    );
    page.gauge("sedge_journal_segments", "Files of the journal.", stats.segments());
    page.gauge("sedge_journal_bytes", "Records on disk.", stats.bytes());
    page.gauge(
        "sedge_journal_live_bytes",
        "Of the records on disk, those that are still wanted.",
        stats.live_bytes(),
    );
    page.counter("sedge_journal_records_total", "Records written, copies among them.", stats.records.get());
    page.counter(
        "sedge_journal_batches_total",
        "Batches of records written, each with one sync at most.",
        stats.batches.get(),
    );
    page.counter(
        "sedge_journal_written_bytes_total",
        "Bytes written to the journal.",
        stats.written_bytes.get(),
    );
    page.counter(
        "sedge_journal_copied_bytes_total",
        "Bytes of records that compaction has copied.",
        stats.copied_bytes.get(),
    );
    page.counter(
        "sedge_journal_segments_removed_total",
        "Files of the journal that were given back.",
        stats.removed_segments.get(),
    );
    page.counter(
        "sedge_journal_damaged_total",
        "Records found damaged when they were read, each time.",
        stats.damaged.get(),
    );
    let mut sync = Totals::default();
    stats.sync.add_to(&mut sync);
    page.totals::<DiskSync>("sedge_journal_sync_seconds", "How long each sync of the disk took.", &sync);
}

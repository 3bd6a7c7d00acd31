//! The numbers of one core. Each field has a single writer, the core that owns the [`CoreMetrics`]; that is what makes an
//! increment a relaxed load and a relaxed store, without the `lock` prefix of a read-modify-write (about 20 cycles each,
//! several times a segment). Two writers would lose counts, so what any thread may count is a [`SharedCounter`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::histogram::{Histogram, Overhead, RequestDuration, TimePerOutputToken, TimeToFirstToken};
use super::labels::LabelId;
use super::outcome::{AppendRefusal, Outcome, Refusal};
use super::retry_reason::{Again, Degraded};

/// Series of (route, upstream, status) a core tells apart. An upstream may answer any status at all, so beyond this many,
/// requests are counted under the route and upstream "other" and the class of their status (200, 400, ...).
pub(crate) const MAX_REQUEST_SERIES: usize = 4096;

/// A number that only grows, with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. For the owner only.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Adds one. For the owner only.
    #[inline]
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// The count so far, for any thread.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls, with one writer: what was added on a core is taken away on the same core.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// Adds `n`. For the owner only.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` away. For the owner only. Never goes below zero: a gauge of 2^64 - 1 would hide every other error.
    #[inline]
    pub(crate) fn sub(&self, n: u64) {
        let now = self.0.load(Relaxed);
        debug_assert!(now >= n, "a gauge of {now} cannot fall by {n}");
        self.0.store(now.saturating_sub(n), Relaxed);
    }

    /// Sets the value. For the owner only.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value now, for any thread.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A counter that any thread may write, for what happens rarely.
#[derive(Debug, Default)]
pub(crate) struct SharedCounter(AtomicU64);

impl SharedCounter {
    /// Adds one.
    pub(crate) fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one core counts. Aligned to two cache lines (prefetchers fetch pairs), so that no core's stores slow another's.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct CoreMetrics {
    /// Events passed on to clients.
    pub(crate) events_relayed: Counter,
    /// Payload bytes passed on to clients: bodies without heads, framing and heartbeats.
    pub(crate) bytes_to_clients: Counter,
    /// Body bytes read from clients.
    pub(crate) bytes_from_clients: Counter,
    /// Heartbeats written to clients.
    pub(crate) heartbeats: Counter,
    /// 16 KiB blocks that hold bytes in flight.
    pub(crate) buffers_in_use: Gauge,
    /// Bytes of requests' heads that have stopped in their middle.
    pub(crate) partial_head_bytes: Gauge,
    /// Blocks ever allocated, because the free list was empty.
    pub(crate) buffers_allocated: Counter,

    /// Client connections accepted.
    pub(crate) connections_accepted: Counter,
    /// Those handed to a core that had fewer, by the one that has accepted them.
    pub(crate) connections_handed: Counter,
    /// Client connections open.
    pub(crate) connections_open: Gauge,
    /// Requests between their head and the end of their answer.
    pub(crate) requests_open: Gauge,
    /// Answers that are being streamed as events.
    pub(crate) streams_open: Gauge,

    /// Upstream connections dialed and established.
    pub(crate) upstream_opened: Counter,
    /// Requests that went out on a pooled connection.
    pub(crate) upstream_reused: Counter,
    /// Pooled connections found closed or too old when they were wanted.
    pub(crate) upstream_discarded_stale: Counter,
    /// Requests of batches whose outcome was told.
    pub(crate) batch_items: Counter,
    /// Pooled connections waiting for a request.
    pub(crate) upstream_idle: Gauge,
    /// Answers that are read on although their client has left.
    pub(crate) answers_abandoned: Counter,
    /// Answers that were to be kept and were not, for want of room or of storage.
    pub(crate) answers_not_kept: Counter,
    /// Answers read to their end although their client had left.
    pub(crate) answers_drained: Counter,
    /// Second upstreams asked beside a slow first.
    pub(crate) hedges: Counter,
    /// Of these, those that answered first.
    pub(crate) hedges_won: Counter,
    retried: [Counter; Again::ALL.len()],
    degraded: [Counter; Degraded::ALL.len()],
    /// Requests that were not sent again although another attempt was allowed: the route's budget was used up.
    pub(crate) retries_over_budget: Counter,
    /// Likewise: what was left of their time would not have sufficed.
    pub(crate) retries_too_late: Counter,
    /// Likewise: its body was larger than is kept for another attempt.
    pub(crate) retries_body_too_large: Counter,
    /// Likewise: there was no room to keep its body.
    pub(crate) retries_no_memory: Counter,
    /// Requests refused because their client's bodies held their share of the memory.
    pub(crate) bodies_over_share: Counter,

    /// Readers that follow durable streams, once for each stream.
    pub(crate) stream_readers: Gauge,
    /// Appends that durable streams have taken.
    pub(crate) stream_appends: Counter,
    /// Their payload, in bytes.
    pub(crate) stream_appended_bytes: Counter,
    /// Appends that were told to those who follow, once for each of them.
    pub(crate) stream_deliveries: Counter,
    appends_refused: [Counter; AppendRefusal::ALL.len()],

    /// Access-log lines dropped because the log's reader could not keep up.
    pub(crate) access_log_dropped: Counter,

    /// From a request's head to the first content of its stream.
    pub(crate) time_to_first_token: Histogram<TimeToFirstToken>,
    /// Between the events of a stream, from its first content on.
    pub(crate) time_per_output_token: Histogram<TimePerOutputToken>,
    /// From a request's head to the last byte of its answer.
    pub(crate) request_duration: Histogram<RequestDuration>,
    /// What of a request's time was spent here: head complete to request written, first byte read to first byte written.
    pub(crate) overhead: Histogram<Overhead>,

    refused: [Counter; Refusal::ALL.len()],
    finished: Mutex<FinishedRequests>,
}

/// Route, upstream and status of a finished request.
pub(crate) type RequestKey = (LabelId, LabelId, u16);

/// Finished requests by their labels. Ids instead of names, so that the end of a request hashes six bytes.
#[derive(Debug, Default)]
pub(crate) struct FinishedRequests {
    pub(crate) by_status: FxHashMap<RequestKey, u64>,
    pub(crate) by_outcome: FxHashMap<(LabelId, Outcome), u64>,
}

impl CoreMetrics {
    /// Counts a connection that was closed before it could carry a request.
    pub(crate) fn connection_refused(&self, reason: Refusal) {
        self.refused[reason as usize].inc();
    }

    /// The connections refused for `reason`.
    pub(crate) fn connections_refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize].get()
    }

    /// Counts an append that was not taken.
    pub(crate) fn append_refused(&self, reason: AppendRefusal) {
        self.appends_refused[reason as usize].inc();
    }

    /// The appends that were not taken for `reason`.
    pub(crate) fn appends_refused(&self, reason: AppendRefusal) -> u64 {
        self.appends_refused[reason as usize].get()
    }

    /// Counts a request that is sent again.
    pub(crate) fn retried(&self, reason: Again) {
        self.retried[reason as usize].inc();
    }

    /// The requests sent again for `reason`.
    pub(crate) fn retries(&self, reason: Again) -> u64 {
        self.retried[reason as usize].get()
    }

    /// Counts an answer in place of the one that was asked for.
    pub(crate) fn degraded(&self, kind: Degraded) {
        self.degraded[kind as usize].inc();
    }

    /// The answers of that kind.
    pub(crate) fn degraded_answers(&self, kind: Degraded) -> u64 {
        self.degraded[kind as usize].get()
    }

    /// Counts a request at its end. `upstream` is [`LabelId::NONE`] when none was asked; `status` is what the client
    /// got, 0 when it got none.
    pub(crate) fn request_finished(&self, route: LabelId, upstream: LabelId, status: u16, outcome: Outcome) {
        let mut finished = self.finished();
        let mut key = (route, upstream, status);
        if finished.by_status.len() >= MAX_REQUEST_SERIES && !finished.by_status.contains_key(&key) {
            key = (LabelId::OTHER, LabelId::OTHER, status / 100 * 100);
        }
        *finished.by_status.entry(key).or_default() += 1;
        *finished.by_outcome.entry((route, outcome)).or_default() += 1;
    }

    /// The finished requests; the core waits for this lock at the end of a request, so copy and let go.
    pub(crate) fn finished(&self) -> MutexGuard<'_, FinishedRequests> {
        // A panic between the two additions leaves both maps whole, so a poisoned lock is still good.
        self.finished.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

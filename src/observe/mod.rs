//! What sedge tells about itself: per-core counters and histograms that are summed when scraped, the access log, and
//! trace identifiers. Nothing here blocks or locks on the path of a segment.
//!
//! Ground rules:
//! - A [`CoreMetrics`] is written by its own core only, so a count is a plain load and store; any thread may read.
//! - The one lock of a core is taken once a request, at its end, and by the scraper while it copies a bounded map.
//! - Labels come from the configuration, never from a client; their number is bounded ([`labels::MAX_NAMES`]).
//! - The access log holds no key, no prompt, no answer and no query string, and losing a line beats waiting for a disk.

#![forbid(unsafe_code)]

pub mod access_log;
mod again;
pub mod counters;
pub mod histogram;
pub mod ids;
mod json;
pub mod labels;
pub mod log_writer;
mod nonces;
pub mod outcome;
pub mod panics;
mod process;
pub mod prometheus;
pub mod registry;
pub mod trace;
pub mod turns;

#[cfg(test)]
mod tests;

pub use access_log::{AccessLog, Record};
pub use again::{Again, Degraded};
pub use counters::{CoreMetrics, Counter, Gauge, SharedCounter};
pub use histogram::Histogram;
pub use ids::{Ids, RequestId, valid_request_id};
pub use labels::{LabelId, Labels};
pub use log_writer::{LogTarget, LogWriter};
pub use nonces::Nonces;
pub use outcome::{AppendRefusal, Outcome, Refusal};
pub use prometheus::{Page, render};
pub use registry::Registry;
pub use trace::TraceContext;

//! What sedge tells about itself: per-core counters and histograms that are summed when scraped, the access log, and
//! trace identifiers. Nothing here blocks or locks on the path of a segment.
//!
//! Ground rules:
//! - A [`CoreMetrics`] is written by its own core only, so a count is a plain load and store; any thread may read.
//! - The one lock of a core is taken once a request, at its end, and by the scraper while it copies a bounded map.
//! - Labels come from the configuration, never from a client; their number is bounded ([`labels::MAX_NAMES`]).
//! - The access log holds no key, no prompt, no answer and no query string, and losing a line beats waiting for a disk.

#![forbid(unsafe_code)]

pub(crate) mod access_log;
mod again;
pub(crate) mod counters;
pub(crate) mod histogram;
pub(crate) mod ids;
mod json;
pub(crate) mod labels;
pub(crate) mod log_writer;
mod nonces;
pub(crate) mod outcome;
pub(crate) mod panics;
mod process;
pub(crate) mod prometheus;
pub(crate) mod registry;
pub(crate) mod trace;
pub(crate) mod turns;

#[cfg(test)]
mod tests;

pub(crate) use access_log::{AccessLog, Record};
pub(crate) use again::{Again, Degraded};
pub(crate) use counters::{CoreMetrics, Counter, Gauge, SharedCounter};
pub use ids::Ids;
pub(crate) use ids::valid_request_id;
pub(crate) use labels::LabelId;
pub(crate) use log_writer::{LogTarget, LogWriter};
pub(crate) use nonces::Nonces;
pub(crate) use outcome::{AppendRefusal, Outcome, Refusal};
pub(crate) use prometheus::{Page, render};
pub use registry::Registry;
pub(crate) use trace::TraceContext;

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
pub(crate) mod counters;
pub(crate) mod histogram;
pub(crate) mod ids;
pub(crate) mod json_line;
pub(crate) mod labels;
pub(crate) mod log_writer;
pub(crate) mod outcome;
pub(crate) mod panics;
pub(crate) mod process;
pub(crate) mod prometheus;
pub(crate) mod registry;
pub(crate) mod retry_reason;
#[cfg(test)]
mod tests;
pub(crate) mod trace;
pub(crate) mod turns;

pub(crate) use self::access_log::{AccessLog, Record};
pub(crate) use self::counters::{CoreMetrics, Counter, Gauge, SharedCounter};
pub use self::ids::Ids;
pub(crate) use self::ids::valid_request_id;
pub(crate) use self::labels::LabelId;
pub(crate) use self::log_writer::{LogTarget, LogWriter};
pub(crate) use self::outcome::{AppendRefusal, Outcome, Refusal};
pub(crate) use self::prometheus::{Page, render};
pub use self::registry::Registry;
pub(crate) use self::retry_reason::{Again, Degraded};
pub(crate) use self::trace::TraceContext;
pub(crate) use crate::runtime::random::Nonces;

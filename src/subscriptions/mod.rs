//! Subscriptions: durable cursors over streams that wake a worker when there is something new (PROTOCOL.md, sections 6 and 7).
//!
//! ```text
//!                          work                                     work
//!            ┌──────── webhook ─────────┐              ┌──────── pull-wake ───────┐
//!            ▼                          │              │                          ▼
//!   ┌──► Delivering ──2xx, no done──┐   └──── Idle ────┘       ┌─not there─ Offered (event in the wake stream)
//!   │     │  │  ▲                   │          ▲               │     ▲          │ claim
//!   │     │  │  └ callback: extends │          │ done,         ▼     │ again    │
//!   │     │  │                      ▼          │ release,   Waiting ─┘          │
//!   │     │  └──done: true──►(auto-ack)────────┤ lease      (backoff)           │
//!   │     │                         Held ──────┘ expired                        │
//!   │     │ refused, unreachable     ▲  └ ack, callback: extends                │
//!   │     │ or no answer in time     └──────────────────────────────────────────┘
//!   │     ▼
//!   └─ Waiting (backoff; the same wake, or a new one if its lease has ended)
//! ```
//!
//! Without socket, clock and task: time and bodies come in, answers and [`Action`]s go out, the streams are asked through
//! [`source::Source`]. Who owns it holds a lock around it, and does what it asks for outside of that lock; or, where many nodes share one,
//! takes a copy of it, and does what it asks for once the copy has become the one that counts.
//!
//! What may never happen, and the simulation holds it to:
//!
//! - the generation of a subscription goes back, or two wakes share one; not over a restart either;
//! - a cursor moves by the word of somebody who does not hold the current wake, moves back, or beyond the stream's end;
//! - there is work and nobody is woken, is about to be, or holds the lease;
//! - two workers hold one wake.
//!
//! Whether there is work is always asked of the streams themselves: news of an append only says where to look. So news may be
//! late, doubled or out of order, and none that comes after its append is visible is too early.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `registry.rs` | all of them: by id, by stream, by time |
//! | `subscription.rs`, `notification.rs`, `phase.rs` | one of them: the machine above |
//! | `patterns.rs` | which of them want a new stream |
//! | `links.rs` | its streams, cursors, and which have work |
//! | `settings.rs`, `progress.rs`, `path.rs`, `glob.rs` | what clients and workers say, read and checked |
//! | `webhook_url.rs`, `address.rs` | where a webhook may lead |
//! | `view.rs`, `refusal.rs` | what they are answered |
//! | `keys.rs`, `token.rs` | signatures and tokens |
//! | `action.rs`, `backoff.rs` | what is to be done outside, and when again |
//! | `record.rs` | what is kept beyond the process |
//! | `question.rs`, `copy.rs` | what is asked by its doors; one that many nodes share, judged on a copy |
//! | `source.rs`, `extents.rs` | what is asked of the streams, and what they say |

#![forbid(unsafe_code)]

pub(crate) mod action;
pub(crate) mod address;
pub(crate) mod backoff;
pub(crate) mod copy;
pub(crate) mod extents;
pub(crate) mod glob;
pub(crate) mod keys;
pub(crate) mod links;
pub(crate) mod notification;
pub(crate) mod path;
pub(crate) mod patterns;
pub(crate) mod phase;
pub(crate) mod progress;
pub(crate) mod question;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod registry;
pub(crate) mod settings;
#[cfg(test)]
mod simulation;
pub(crate) mod source;
pub(crate) mod subscription;
#[cfg(test)]
mod tests;
pub(crate) mod token;
pub(crate) mod view;
pub(crate) mod webhook_url;
pub(crate) mod worker;
#[cfg(test)]
mod world;

use serde_json::Value;

pub(crate) use self::action::{Action, Announcement, Delivered, Delivery};
pub(crate) use self::copy::{Change, Errand, Judged, Snapshot, Step};
pub(crate) use self::extents::{Candidates, Extents};
pub(crate) use self::glob::Glob;
pub(crate) use self::keys::{Keys, SECRET_BYTES, Secret, Signer};
pub(crate) use self::path::RESERVED;
pub(crate) use self::patterns::Patterns;
pub(crate) use self::question::Question;
pub(crate) use self::record::BadRecord;
pub(crate) use self::refusal::{Code, Refusal};
pub(crate) use self::registry::{Scene, Subscriptions};
pub(crate) use self::source::Extent;
pub(crate) use self::view::ROOT;
pub(crate) use self::webhook_url::{Local, WebhookUrl};

/// Milliseconds since 1970: leases and retries outlive the process, so they cannot be told by its own clock.
pub(crate) type UnixMillis = u64;

/// The most subscriptions of a server.
pub(crate) const SUBSCRIPTIONS_MAX: usize = 10_000;

/// The most streams of one subscription.
pub(crate) const STREAMS_MAX: usize = 10_000;

/// The most streams that one wake shows, those with work first; what is left is work for the next one.
pub(crate) const WAKE_STREAMS_MAX: usize = 1_000;

/// The longest id of a subscription, in bytes.
pub(crate) const ID_BYTES_MAX: usize = 256;

/// The longest body of a request about a subscription, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 1 << 20;

/// The longest answer of a webhook's receiver that is read, in bytes; one that is longer is taken for an empty one.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 << 10;

/// The shortest lease, in milliseconds.
pub(crate) const LEASE_MIN_MS: u64 = 1_000;

/// The longest lease, in milliseconds.
pub(crate) const LEASE_MAX_MS: u64 = 600_000;

/// The lease of a subscription that does not say how long, in milliseconds.
pub(crate) const LEASE_DEFAULT_MS: u64 = 30_000;

/// What a subscription costs beside its streams and settings, in bytes of memory.
pub(crate) const OVERHEAD_BYTES: u64 = 1536;

/// What a stream of a subscription costs beside its path, in bytes of memory: the link, its places among those with work and
/// those that are watched.
pub(crate) const LINK_OVERHEAD_BYTES: u64 = 448;

/// What a stream that a webhook has shown costs until the wake is over, in bytes of memory.
pub(crate) const SHOWN_BYTES: u64 = 64;

/// An answer that is no refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// `application/json`; empty with a 204.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn json(status: u16, body: &Value) -> Reply {
        Reply { status, body: body.to_string().into_bytes() }
    }

    fn empty() -> Reply {
        Reply { status: 204, body: Vec::new() }
    }
}

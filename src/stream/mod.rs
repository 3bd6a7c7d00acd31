//! Durable streams: an append-only log with a URL.
//!
//! ```text
//!  append ──► stream (judged, taken) ──► journal, if there is one ──durable──► visible ──one wake a core──► readers
//!                                                                                 each a cursor and a socket, no queue
//! ```
//!
//! | file | what lives there |
//! | --- | --- |
//! | `offset.rs`, `kind.rs`, `lifetime.rs`, `producer.rs`, `json.rs` | the words of the protocol, and its rules |
//! | `log.rs` | the records of one stream |
//! | `stream.rs`, `page.rs`, `append.rs` | one stream: what is read from it, what is appended |
//! | `access.rs`, `owners.rs` | which key may use a stream; how much the streams of each hold |
//! | `stopped.rs` | a response that is being kept, ended by a client |
//! | `streams.rs`, `create.rs` | all of them: by name, made, forked, deleted, over |
//! | [`reserved`] | what only the edge says in an event stream |
//! | [`view`], [`cold`] | a part of a stream as events; its bytes from memory or disk |
//! | [`render`], `text.rs`, `rendered.rs`, `parts.rs` | a part of a stream as events, step by step; whole characters; what readers hold, and share |
//! | [`events`] | events as they are written, and the edge's own |
//! | `wake.rs` | telling the readers of each core |
//! | [`subscription`] | waking workers: cursors, leases, webhooks |
//! | `news.rs` | telling those who listen to many streams at once |
//! | `notes.rs` | what is kept beside the streams |
//! | `entry.rs`, `replay.rs` | what the journal holds of them, and what a start makes of it |
//! | [`journal`] | records on disk |
//! | [`redis`] | streams in Redis, for many nodes |
//! | `asked.rs` | what is asked of them, wherever they are |
//! | `bounds.rs` | how much there may be of anything |
//! | `metrics.rs` | what is told of them in `GET /metrics` |

mod access;
mod append;
mod asked;
mod bounds;
pub(crate) mod cold;
mod create;
pub(crate) mod encode;
mod entry;
pub(crate) mod events;
mod holding;
pub(crate) mod journal;
mod json;
mod kind;
mod lifetime;
mod log;
mod metrics;
mod news;
mod notes;
mod offset;
mod owners;
mod page;
mod parts;
mod producer;
pub(crate) mod redis;
pub(crate) mod render;
mod rendered;
pub(crate) mod replay;
pub(crate) mod reserved;
mod stopped;
#[expect(clippy::module_inception, reason = "one stream, in the room of streams")]
mod stream;
mod streams;
pub(crate) mod subscription;
mod text;
pub(crate) mod view;
mod wake;

pub(crate) use append::{Append, Appended, Refused};
pub(crate) use asked::NotDeleted;
pub(crate) use bounds::{APPEND_BYTES_MAX, Bounds, NAME_BYTES_MAX, WORD_BYTES_MAX};
pub(crate) use create::{Created, Creation, Fork, NotCreated};
pub(crate) use holding::Holding;
pub(crate) use json::{MESSAGES_MAX, Messages, NoMessages};
pub(crate) use kind::{Form, Kind};
pub(crate) use lifetime::Lifetime;
pub(crate) use log::Piece;
pub(crate) use news::Tiding;
pub(crate) use notes::Notes;
pub(crate) use offset::{OFFSET_BYTES, Offset, OffsetError, Start};
pub(crate) use owners::OverQuota;
pub(crate) use page::{Extent, Page, Unreadable};
pub(crate) use parts::PartKey;
pub(crate) use producer::{Claim, NUMBER_MAX};
pub(crate) use replay::open;
pub(crate) use stopped::Stopped;
pub(crate) use stream::{Frame, Look, Stream};
pub(crate) use streams::{Found, Streams};
pub(crate) use wake::{Hub, Seat};

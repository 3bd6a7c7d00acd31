//! Durable streams: an append-only log with a URL.
//!
//! ```text
//!  append ──► stream (judged, taken) ──► journal, if there is one ──durable──► visible ──one wake a core──► readers
//!                                                                                 each a cursor and a socket, no queue
//! ```
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`model`] | the words of the protocol, and its rules; how much there may be of anything |
//! | [`stream`], [`log`], [`page`], [`append`] | one stream: its records, what is read from it, what is appended |
//! | [`access`], [`owners`] | which key may use a stream; how much the streams of each hold |
//! | [`stopped`] | a response that is being kept, ended by a client |
//! | [`registry`], [`create`] | all of them: by name, made, forked, deleted, over |
//! | [`store`] | where they are kept: in memory, on disk, in Redis |
//! | [`fanout`] | telling the readers of each core; a part of a stream as events |
//! | [`render`], [`text`], [`rendered`], [`parts`] | events made step by step; whole characters; what readers hold, and share |
//! | [`reserved`] | what only the edge says in an event stream |
//! | [`change_feed`] | telling those who listen to many streams at once |
//! | [`metrics`] | what is told of them in `GET /metrics` |

pub(crate) mod access;
pub(crate) mod append;
pub(crate) mod change_feed;
pub(crate) mod create;
pub(crate) mod fanout;
pub(crate) mod holding;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod model;
pub(crate) mod owners;
pub(crate) mod page;
pub(crate) mod parts;
pub(crate) mod registry;
pub(crate) mod render;
pub(crate) mod rendered;
pub(crate) mod reserved;
pub(crate) mod stopped;
pub(crate) mod store;
pub(crate) mod stream;
pub(crate) mod text;

pub(crate) use self::append::{Append, Appended, Refused};
pub(crate) use self::change_feed::Tiding;
pub(crate) use self::create::{Created, Creation, Fork, NotCreated};
pub(crate) use self::fanout::notifier::{Hub, Seat};
pub(crate) use self::holding::Holding;
pub(crate) use self::log::Piece;
pub(crate) use self::model::bounds::{APPEND_BYTES_MAX, Bounds, NAME_BYTES_MAX, WORD_BYTES_MAX};
pub(crate) use self::model::json::{MESSAGES_MAX, Messages, NoMessages};
pub(crate) use self::model::kind::{Form, Kind};
pub(crate) use self::model::lifetime::Lifetime;
pub(crate) use self::model::offset::{OFFSET_BYTES, Offset, OffsetError, Start};
pub(crate) use self::model::producer::{Claim, NUMBER_MAX};
pub(crate) use self::owners::OverQuota;
pub(crate) use self::page::{Extent, Page, Unreadable};
pub(crate) use self::parts::PartKey;
pub(crate) use self::registry::{Found, Streams};
pub(crate) use self::stopped::Stopped;
pub(crate) use self::store::facade::NotDeleted;
pub(crate) use self::store::metadata::Notes;
pub(crate) use self::store::recovery::open;
pub(crate) use self::stream::{Frame, Look, Stream};

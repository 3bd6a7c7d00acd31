//! Many nodes, one log: streams that live in Redis, so that any node serves any reader and takes any append.
//!
//! ```text
//!  append ──► script: judged, taken, told of, in one step ──► answer          Redis is the one who judges: no node owns a name
//!                          │ PUBLISH
//!             every node:  wake ──► fetch what is new ──► mirror ──one wake a core──► readers, each a cursor and a socket
//! ```
//!
//! - **One id space.** An entry's id in the Redis Stream is the position where its bytes end; the number in an offset is the
//!   same number, here, in memory and on disk.
//! - **A mirror** is a stream as everywhere else, with the records of the log; payloads that are not the newest are let go of
//!   and fetched again when somebody reads them. Every request that must not be told something old fetches first. Who follows
//!   reads from the mirror; pub/sub only says that there is something to fetch, so a message that is lost costs nothing
//!   but the time to the next.
//! - **Everything that is decided is decided by a script**, which Redis runs as one step. A clock is asked in one place only,
//!   Redis's.
//! - **Answers** ([`Writer`]) are appended as a producer with numbers, so that a batch of which it is not known whether it
//!   was taken is sent again. The node that writes one is on record; when it falls silent another node ends its
//!   answers with an error.
//! - **Subscriptions** are records of the same store, judged by any node on a copy and written down if nobody was faster;
//!   `subscriptions.rs` tells how.
//!
//! What may never happen: a node that tells of what Redis has not taken; one that tells other bytes under an offset that it has
//! told before. Should Redis have lost what it had acknowledged (a failover, a crash between two syncs), a node that knows
//! more gives the stream another epoch, and readers are told so. Subscriptions are lost back to the same moment: cursors still
//! say what was done of what is there, and a wake that is given under a generation that was given before has another id.
//!
//! A log whose key is gone, evicted or deleted, is lost in the same way: the script that finds that out gives the stream another
//! epoch. Producers whose key is gone have to begin a session that nobody has used, for whether their last append was taken
//! nobody knows.
//!
//! While Redis cannot be reached appends are refused, whoever follows goes on waiting, and nothing is guessed.
//!
//! | file | what lives there |
//! | --- | --- |
//! | `link.rs` | the connection: kept up, calls over it, what it hears |
//! | `scripts.rs`, `*.lua` | what Redis does for us |
//! | `meta.rs` | its answers, read |
//! | `mirror.rs` | streams as this node knows them |
//! | `remote.rs` | all of it: finding, ending, staying alive |
//! | `creation.rs`, `append.rs`, `payload.rs` | making a stream, appending, reading what is not held here |
//! | `writer.rs` | an answer on its way there |
//! | `subscriptions.rs` | subscriptions that all nodes share |
//! | `globs.rs` | which of them want a new stream |

pub(crate) mod append;
pub(crate) mod creation;
pub(crate) mod globs;
pub(crate) mod link;
pub(crate) mod long;
pub(crate) mod meta;
pub(crate) mod mirror;
pub(crate) mod payload;
pub(crate) mod remote;
pub(crate) mod scripts;
pub(crate) mod subscriptions;
pub(crate) mod writer;

pub(crate) use self::link::{LinkMetrics, Unavailable, check_address};
pub(crate) use self::remote::Remote;
pub(crate) use self::writer::Writer;

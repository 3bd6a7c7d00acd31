//! A client's connection: what is read from it, what is written to it, and its time limits.
//!
//! The task that serves a connection and the wheel of its core see the same [`connection::Client`]; neither owns the other. While the
//! client does not take its bytes, the one block that could not be written is all that is held.

pub(crate) mod connection;
pub(crate) mod deadlines;
pub(crate) mod outbox;
pub(crate) mod read_buffer;

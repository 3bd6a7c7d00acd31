//! How much of anything is accepted or held.

use super::document::{Table, Value};
use super::units::size;

/// The highest number of connections that can be asked for: more than one process can have.
const CONNECTIONS_MAX: u64 = 100_000_000;

/// Less, and the `model` of a plain request may not be found.
const MODEL_PEEK_MIN_BYTES: u64 = 1024;

/// Less, and no core has enough to serve anyone.
const STREAM_MEMORY_MIN_BYTES: u64 = 1024 * 1024;

/// Less, and hardly anyone's head could come in two pieces.
const HEAD_MEMORY_MIN_BYTES: u64 = 64 * 1024;

/// Bounds for the whole process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at a time.
    pub max_connections: usize,
    /// Client connections at a time from one address; 0 is no limit.
    pub max_connections_per_address: usize,
    /// Bytes of a request's body.
    pub max_body: u64,
    /// Bytes of a JSON body that are held while its `model` is looked for.
    pub max_model_peek: u64,
    /// Bytes held for heads of requests that have begun and are not there yet.
    pub head_memory: u64,
    /// Bytes held for all requests and streams together.
    pub stream_memory: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 100_000,
            max_connections_per_address: 0,
            max_body: 16 << 30,
            max_model_peek: 32 << 20,
            head_memory: 64 << 20,
            stream_memory: 1 << 30,
        }
    }
}

impl Limits {
    /// These, but for what `[limits]` says.
    pub(crate) fn read(mut self, table: &Table<'_>) -> Limits {
        table.set(
            "max_connections",
            |value| value.integer(1..=CONNECTIONS_MAX).map(|n| n as usize),
            &mut self.max_connections,
        );
        let per_address = |value: &Value<'_>| value.integer(0..=CONNECTIONS_MAX).map(|n| n as usize);
        table.set("max_connections_per_address", per_address, &mut self.max_connections_per_address);
        table.set("max_body", size(1), &mut self.max_body);
        table.set("max_model_peek", size(MODEL_PEEK_MIN_BYTES), &mut self.max_model_peek);
        table.set("head_memory", size(HEAD_MEMORY_MIN_BYTES), &mut self.head_memory);
        table.set("stream_memory", size(STREAM_MEMORY_MIN_BYTES), &mut self.stream_memory);
        self
    }
}

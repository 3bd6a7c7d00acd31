//! How much of anything the streams may hold, and which of them every key may use.

use std::collections::HashMap;

use crate::subscriptions::Glob;

/// What a stream costs beside its records, in bytes of memory: itself, its name, its place among the others.
pub(crate) const STREAM_OVERHEAD_BYTES: u64 = 1024;

/// What a stream that is stored keeps of its newest payloads in memory, in bytes: who follows it reads no disk.
pub(crate) const HOT_BYTES: u64 = 256 << 10;

/// The longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 512;

/// The longest producer's or event's name, and the longest `Stream-Seq`, in bytes.
pub(crate) const WORD_BYTES_MAX: usize = 256;

/// The most bytes of one append: what a journal's record holds, and room for what is said about it.
pub(crate) const APPEND_BYTES_MAX: u64 = (crate::streams::store::journal::RECORD_BYTES_MAX / 2) as u64;

/// How deep forks of forks may go.
pub(crate) const FORK_DEPTH_MAX: u32 = 64;

/// Bounds that a user sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of memory for all streams together.
    pub(crate) memory: u64,
    /// Streams at a time.
    pub(crate) streams: usize,
    /// Bytes of one append.
    pub(crate) append: u64,
    /// Producers that one stream knows.
    pub(crate) producers: usize,
    /// Bytes that one stream keeps, the newest; 0 is no limit.
    pub(crate) keep_bytes: u64,
    /// Records that one stream keeps, the newest; 0 is no limit.
    pub(crate) keep_records: usize,
    /// How old a record may become, in milliseconds; 0 is no limit.
    pub(crate) keep_ms: u64,
    /// Streams that every key may use, whichever has made them.
    pub(crate) shared: Vec<Glob>,
    /// Bytes that the streams of a key may hold, by its name, where that is said.
    pub(crate) quotas: HashMap<String, u64>,
}

impl Bounds {
    /// Whether every key may use the stream called `name`.
    pub(crate) fn shares(&self, name: &str) -> bool {
        self.shared.iter().any(|glob| glob.matches(name))
    }
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds {
            memory: 256 << 20,
            streams: 200_000,
            append: 8 << 20,
            producers: 1024,
            keep_bytes: 0,
            keep_records: 0,
            keep_ms: 0,
            shared: Vec::new(),
            quotas: HashMap::new(),
        }
    }
}

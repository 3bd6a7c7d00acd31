//! Memory that is taken beside the streams for what they are used for, counted with theirs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::registry::Streams;
use super::stream::Common;

/// So many bytes of the memory that streams may take, until it is dropped.
#[derive(Debug)]
pub(crate) struct Holding {
    common: Arc<Common>,
    bytes: u64,
}

impl Streams {
    /// Takes `bytes`; whether there are so many is the caller's to ask ([`Streams::room`]).
    pub(crate) fn hold(&self, bytes: u64) -> Holding {
        self.common.held.fetch_add(bytes, Ordering::Relaxed);
        Holding { common: Arc::clone(&self.common), bytes }
    }

    /// Bytes of memory that are left: with a disk payloads are let go of, but not before they are durable.
    pub(crate) fn room(&self) -> u64 {
        let memory = self.bounds().memory;
        let most = if self.common.journal.is_some() { memory.saturating_mul(2) } else { memory };
        most.saturating_sub(self.common.held())
    }
}

impl Holding {
    /// It is so many bytes from now on.
    pub(crate) fn set(&mut self, bytes: u64) {
        let held = &self.common.held;
        if bytes >= self.bytes {
            held.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            held.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.common.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

//! Long payloads that readers take in parts. Redis gives an entry whole or not at all: without these each part of an append of 8 MiB
//! would bring all of it over the network again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::runtime::clock::unix_millis;
use crate::streams::registry::guard;

/// A payload is long from here, in bytes.
pub(crate) const LONG_BYTES: usize = 128 << 10;

/// The most bytes of them that a node holds: one of the longest append that may be configured.
const HELD_BYTES_MAX: usize = 32 << 20;

/// How long one is held that nobody takes a part of, in milliseconds.
const HELD_MS: u64 = 2_000;

/// The long payloads that parts were taken of most recently.
#[derive(Debug, Default)]
pub(crate) struct LongPayloads(Mutex<VecDeque<Long>>);

#[derive(Debug)]
struct Long {
    stream: Arc<str>,
    end: u64,
    bytes: Bytes,
    used: u64,
}

impl LongPayloads {
    /// The payload of the entry of `stream` that ends at `end`.
    pub(crate) fn get(&self, stream: &str, end: u64) -> Option<Bytes> {
        let mut all = guard(&self.0);
        let place = all.iter().position(|long| long.end == end && *long.stream == *stream)?;
        let mut long = all.remove(place)?;
        long.used = unix_millis();
        let bytes = long.bytes.clone();
        all.push_back(long);
        Some(bytes)
    }

    /// Holds one, and lets go of those that were not used for longest.
    pub(crate) fn put(&self, stream: &Arc<str>, end: u64, bytes: &Bytes) {
        let mut all = guard(&self.0);
        all.retain(|long| long.end != end || *long.stream != **stream);
        let mut held = bytes.len() + all.iter().map(|long| long.bytes.len()).sum::<usize>();
        while held > HELD_BYTES_MAX
            && let Some(oldest) = all.pop_front()
        {
            held -= oldest.bytes.len();
        }
        all.push_back(Long { stream: Arc::clone(stream), end, bytes: bytes.clone(), used: unix_millis() });
    }

    /// Lets go of those that nobody uses any more.
    pub(crate) fn forget_unused(&self, now: u64) {
        guard(&self.0).retain(|long| long.used + HELD_MS > now);
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> u64 {
        guard(&self.0).iter().map(|long| long.bytes.len() as u64).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_held_than_may_be_and_what_is_used_stays() {
        let (all, stream) = (LongPayloads::default(), Arc::from("a"));
        let bytes = Bytes::from(vec![0; HELD_BYTES_MAX / 4]);
        (1..=4).for_each(|end| all.put(&stream, end, &bytes));
        assert!(all.get("a", 1).is_some() && all.get("b", 1).is_none());
        all.put(&stream, 5, &bytes);
        assert!(all.get("a", 2).is_none() && all.get("a", 1).is_some());
        assert_eq!(all.held(), HELD_BYTES_MAX as u64);
        all.forget_unused(unix_millis() + HELD_MS + 1000);
        assert_eq!(all.held(), 0);
    }
}

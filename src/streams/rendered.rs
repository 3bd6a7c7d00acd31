//! Bytes that were made for readers, counted for as long as anyone holds them: a reader whose socket does not take them keeps
//! them, though the others have gone on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::registry::Streams;

/// More room than that behind the bytes is given back, in bytes.
const SPARE_BYTES_MAX: usize = 1 << 10;

struct Rendered {
    bytes: Vec<u8>,
    all: Arc<AtomicU64>,
}

impl AsRef<[u8]> for Rendered {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Rendered {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.capacity() as u64, Ordering::Relaxed);
    }
}

impl Streams {
    /// Bytes for one reader or many, counted until the last of them lets go.
    pub(crate) fn count(&self, mut bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() - bytes.len() > SPARE_BYTES_MAX {
            bytes.shrink_to_fit();
        }
        let all = Arc::clone(&self.common.rendered);
        all.fetch_add(bytes.capacity() as u64, Ordering::Relaxed);
        Bytes::from_owner(Rendered { bytes, all })
    }

    /// Bytes of memory that readers hold.
    pub(crate) fn rendered(&self) -> u64 {
        self.common.rendered.load(Ordering::Relaxed)
    }
}

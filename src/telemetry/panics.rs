//! Panics: bugs of this program. Each ends one task, which is mostly one request; it is told on standard error and counted.

use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::tell;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Counts panics from now on, and says what one means. Calling it again changes nothing.
pub(crate) fn watch() {
    static WATCHED: Once = Once::new();
    WATCHED.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            usual(panicked);
            tell!(
                "sedge: this is a bug in sedge; it has ended one request or task, and everything else goes on. Please report the lines above"
            );
        }));
    });
}

/// Panics since [`watch`] was called.
pub(crate) fn count() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

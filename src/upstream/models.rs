//! The last list of models that an upstream gave, over all cores and reloads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::runtime::clock::Millis;
use crate::telemetry::SharedCounter;

/// The longest list that is kept.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// How long an upstream that gave no list is not asked for one.
const FAILED_MS: Millis = 10_000;

/// What is known of an upstream's models.
#[derive(Debug, Default)]
pub(crate) struct Models {
    last: Mutex<Option<Arc<str>>>,
    /// When it last gave none; 0 if it gave one since.
    failed_at: AtomicU64,
    asked: [SharedCounter; 2],
}

impl Models {
    /// The last list, if there was one that may be kept.
    pub(crate) fn last(&self) -> Option<Arc<str>> {
        self.lock().clone()
    }

    /// It gave this list, which everyone may see.
    pub(crate) fn keep(&self, list: String) {
        self.failed_at.store(0, Ordering::Relaxed);
        *self.lock() = (list.len() <= KEPT_BYTES_MAX).then(|| list.into());
    }

    /// It gave none.
    pub(crate) fn failed(&self, now: Millis) {
        self.failed_at.store(now, Ordering::Relaxed);
    }

    /// Whether it gave none a short while ago.
    pub(crate) fn failed_lately(&self, now: Millis) -> bool {
        let at = self.failed_at.load(Ordering::Relaxed);
        at != 0 && now < at + FAILED_MS
    }

    /// Counts whether its own list is part of an answer.
    pub(crate) fn count(&self, came: bool) {
        self.asked[usize::from(came)].inc();
    }

    /// How often its own list was not part of an answer, and how often it was.
    pub(crate) fn counts(&self) -> [u64; 2] {
        [self.asked[0].get(), self.asked[1].get()]
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<str>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_remembered_for_a_while_and_the_list_for_good() {
        let models = Models::default();
        assert!(!models.failed_lately(0));
        models.keep("[]".to_owned());
        models.failed(1000);
        assert!(models.failed_lately(1000 + FAILED_MS - 1) && !models.failed_lately(1000 + FAILED_MS));
        assert_eq!(models.last().as_deref(), Some("[]"));
        models.keep("x".repeat(KEPT_BYTES_MAX + 1));
        assert!(models.last().is_none() && !models.failed_lately(1001));
    }
}

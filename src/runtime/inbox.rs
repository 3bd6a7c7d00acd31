//! What other cores hand to one: connections that they have accepted, of which this one has fewer.
//!
//! What may never happen: that something is put in and nobody looks any more. So it is closed, under its lock, by the core that
//! stops looking, and whoever comes later keeps what it has.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// One core's. How much is in it is bounded by who fills it: a connection has its seat before it is handed over.
pub(crate) struct Inbox<T> {
    /// `None` when nobody looks any more.
    held: Mutex<Option<Vec<T>>>,
    filled: Notify,
}

impl<T> Default for Inbox<T> {
    fn default() -> Inbox<T> {
        Inbox { held: Mutex::new(Some(Vec::new())), filled: Notify::new() }
    }
}

impl<T> Inbox<T> {
    /// Puts something in, and wakes the core.
    ///
    /// # Errors
    /// If it is closed: with what was to be put in.
    pub(crate) fn put(&self, item: T) -> Result<(), T> {
        match &mut *self.held() {
            Some(held) => held.push(item),
            None => return Err(item),
        }
        self.filled.notify_one();
        Ok(())
    }

    /// What there is, once there is something.
    pub(crate) async fn take(&self) -> Vec<T> {
        self.filled.notified().await;
        self.held().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Closes it, with what is still in it.
    pub(crate) fn close(&self) -> Vec<T> {
        self.held().take().unwrap_or_default()
    }

    fn held(&self) -> MutexGuard<'_, Option<Vec<T>>> {
        // A push that panics has pushed nothing.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_after_it_was_closed_keeps_what_it_has() {
        let inbox = Inbox::<i32>::default();
        assert_eq!(inbox.put(1), Ok(()));
        assert_eq!(inbox.put(2), Ok(()));
        assert_eq!(inbox.close(), [1, 2]);
        assert_eq!(inbox.put(3), Err(3));
        assert!(inbox.close().is_empty());
    }
}

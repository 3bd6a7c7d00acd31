//! The streams that a new subscription's pattern matches, looked for a part at a time, so that nobody else on the core waits for
//! the end of it.
//!
//! What was made before the search began is in the list that it goes through; what is made later is told as news, which whoever
//! takes them puts aside for as long as anyone is looking. So nothing is missed in between.

use std::sync::{Arc, PoisonError};

use super::Desk;
use crate::streams::Stream;
use crate::subscriptions::{Glob, STREAMS_MAX};

/// Streams that are looked at before others on the core have their turn.
const SLICE_STREAMS: usize = 256;

/// Streams that were found. Until it is dropped, those that are made are put aside.
pub(crate) struct Sought<'a> {
    desk: &'a Desk,
    pub(crate) streams: Vec<Arc<Stream>>,
}

impl Desk {
    /// Looks for what `glob` matches; not if there is a subscription `id` already, for then nobody needs to know.
    pub(crate) async fn seek(&self, id: &str, glob: &Glob) -> Option<Sought<'_>> {
        let mut sought = {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            if inner.subscriptions.has(id) {
                return None;
            }
            inner.seekers += 1;
            self.streams.news().listen(true);
            Sought { desk: self, streams: Vec::new() }
        };
        for slice in self.streams.names(|_| true).chunks(SLICE_STREAMS) {
            sought.streams.extend(slice.iter().filter(|stream| glob.matches(&stream.name)).cloned());
            // One more than there may be is enough to be refused.
            if sought.streams.len() > STREAMS_MAX {
                break;
            }
            tokio::task::yield_now().await;
        }
        Some(sought)
    }
}

impl Drop for Sought<'_> {
    fn drop(&mut self) {
        let mut inner = self.desk.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.seekers -= 1;
        if inner.seekers == 0 {
            inner.made = Vec::new();
        }
    }
}

//! What has happened to streams, for somebody who listens to many of them at once: which were made, which have more to read or
//! are gone.
//!
//! ```text
//!  made ─────────────────────── anyone listens? ──► queue ──► whoever listens looks for itself
//!  more is visible, or gone ─── listened to? ───┘ once, until it is taken
//! ```
//!
//! News only say where to look. A stream that nobody listens to pays for one look at a flag of its own; one that is listened to
//! stands in the queue once, however much is appended to it, so the queue is no longer than there are streams.
//!
//! Nothing is missed: whoever begins to listen says so first and looks at the stream then, and whoever changes it does so first
//! and looks then whether anyone listens, both under the stream's lock or the names'.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::stream::Stream;

/// One of the news.
#[derive(Clone, Debug)]
pub(crate) enum Tiding {
    /// A stream was made.
    Created(Arc<Stream>),
    /// A stream that is listened to has more to read, or is gone.
    Changed(Arc<Stream>),
}

/// The news that were not taken yet.
#[derive(Debug, Default)]
pub(crate) struct News {
    listening: AtomicBool,
    queue: Mutex<Vec<Tiding>>,
    bell: Notify,
}

/// Whether a stream is listened to.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    listened: AtomicBool,
    queued: AtomicBool,
}

impl News {
    /// Whether streams that are made are told of from now on.
    pub(crate) fn listen(&self, listens: bool) {
        self.listening.store(listens, SeqCst);
    }

    /// Takes what there is.
    pub(crate) fn take(&self) -> Vec<Tiding> {
        let news = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        for tiding in &news {
            if let Tiding::Changed(stream) = tiding {
                stream.heard.queued.store(false, SeqCst);
            }
        }
        news
    }

    /// Until there may be news. For one task.
    pub(crate) async fn arrived(&self) {
        self.bell.notified().await;
    }

    pub(crate) fn created(&self, stream: &Arc<Stream>) {
        if self.listening.load(SeqCst) {
            self.put(Tiding::Created(Arc::clone(stream)));
        }
    }

    pub(crate) fn changed(&self, stream: &Arc<Stream>) {
        let heard = &stream.heard;
        if heard.listened.load(SeqCst) && !heard.queued.swap(true, SeqCst) {
            self.put(Tiding::Changed(Arc::clone(stream)));
        }
    }

    fn put(&self, tiding: Tiding) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push(tiding);
        // Who has been woken takes all that is there.
        if queue.len() == 1 {
            self.bell.notify_one();
        }
    }
}

impl Stream {
    /// What happens to it is told from now on, or no more. To be said before it is looked at.
    pub(crate) fn listen(&self, listens: bool) {
        self.heard.listened.store(listens, SeqCst);
    }
}

//! What is asked of streams, wherever they are: in this process at once, in Redis when it has answered.

use std::sync::Arc;

use super::journal::{AppendError, Ticket};
use super::redis::{Remote, Unavailable, Writer};
use crate::streams::append::{Append, Outcome};
use crate::streams::create::{Created, Creation, NotCreated};
use crate::streams::fanout::notifier::Hub;
use crate::streams::registry::{Found, Streams};
use crate::streams::stream::Stream;

/// Why a stream is not deleted.
#[derive(Debug)]
pub(crate) enum NotDeleted {
    /// It was not there any more.
    Missing,
    /// The word of it cannot be stored.
    Store(AppendError),
    /// Redis cannot be asked.
    Unavailable(Unavailable),
}

impl Streams {
    /// The streams in Redis, if that is where they are.
    pub(crate) fn remote(&self) -> Option<&Arc<Remote>> {
        self.common.remote.as_ref()
    }

    /// What `name` leads to at `now`, in milliseconds since 1970. With `used` it counts as read.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub(crate) async fn reach(
        self: &Arc<Self>,
        name: &str,
        now: u64,
        used: bool,
    ) -> Result<Found, Unavailable> {
        match self.remote() {
            Some(remote) => remote.find(self, name, used).await,
            None => {
                let found = self.find(name, now);
                if let Found::Present(stream) = &found
                    && used
                {
                    stream.touch(now);
                }
                Ok(found)
            }
        }
    }

    /// What is known of it here, which may be old.
    pub(crate) fn remembered(&self, name: &str) -> Option<Arc<Stream>> {
        self.read().get(name).filter(|stream| stream.is_present()).cloned()
    }

    /// The answer that its maker calls so.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub(crate) async fn reach_answer(
        self: &Arc<Self>,
        name: &str,
        now: u64,
    ) -> Result<Option<Arc<Stream>>, Unavailable> {
        match self.remote() {
            Some(remote) => remote.answer(self, name).await,
            None => Ok(self.answer(name, now)),
        }
    }

    /// Makes a stream, or finds the one that is as it was to be made.
    ///
    /// # Errors
    /// See [`NotCreated`].
    pub(crate) async fn begin(
        self: &Arc<Self>,
        creation: &Creation<'_>,
        now: u64,
    ) -> Result<Created, NotCreated> {
        match self.remote() {
            Some(remote) => remote.create(self, creation).await,
            None => self.create(creation, now),
        }
    }

    /// Ends a stream; what has to be durable before anyone is told.
    ///
    /// # Errors
    /// If it was not there, or it cannot be noted that it ended.
    pub(crate) async fn end(self: &Arc<Self>, stream: &Arc<Stream>) -> Result<Option<Ticket>, NotDeleted> {
        match self.remote() {
            None => self.delete(stream).map_err(NotDeleted::Store)?.ok_or(NotDeleted::Missing),
            Some(remote) => match remote.delete(self, stream).await {
                Ok(true) => Ok(None),
                Ok(false) => Err(NotDeleted::Missing),
                Err(unavailable) => Err(NotDeleted::Unavailable(unavailable)),
            },
        }
    }

    /// Brings what is known here of several streams up to now.
    ///
    /// # Errors
    /// If Redis cannot be asked.
    pub(crate) async fn freshen<'a>(
        self: &Arc<Self>,
        streams: impl Iterator<Item = &'a Arc<Stream>>,
    ) -> Result<(), Unavailable> {
        match self.remote() {
            None => Ok(()),
            Some(remote) => remote.freshen(self, streams.map(|stream| stream.name.clone()).collect()).await,
        }
    }

    /// What writes an answer into `stream`, where that is in Redis; `cut` is how it ends if it cannot be kept whole.
    pub(crate) fn writer(&self, stream: &Arc<Stream>, cut: Vec<u8>) -> Option<Writer> {
        self.remote().map(|remote| Writer::new(remote, stream, cut))
    }
}

impl Hub {
    /// Appends to `stream`, and sees to it that readers learn of it. `now` is in milliseconds since 1970.
    pub(crate) async fn post(&self, stream: &Arc<Stream>, append: &Append<'_>, now: u64) -> Outcome {
        let Some(remote) = &stream.common.remote else { return self.append(stream, append, now) };
        let outcome = Outcome { result: remote.append(stream, append).await, ticket: None };
        self.count(&outcome, append);
        outcome
    }
}

//! Which key may use which stream: a stream belongs to the key that has made it, and every key may use what `[streams] shared`
//! names. Where no keys are configured nothing belongs to anyone.
//!
//! What may never happen: a kept response that tells another key that it is there.

use std::sync::Arc;

use super::reply::Reply;
use super::{Visit, is_signed, write};
use crate::proto::openai::ApiError;
use crate::runtime::clock::unix_millis;
use crate::streams::{Found, Stream};

impl Visit<'_> {
    /// The name of the key that the request came with.
    pub(crate) fn key(&self) -> Option<&str> {
        self.request.holder().map(|holder| &*holder.name)
    }

    pub(crate) fn missing(&self) -> ApiError {
        ApiError::new(404, "stream_not_found", format!("There is no stream at {}.", self.request.path()))
    }

    /// What a name leads to. With `used` it counts as read.
    async fn reach(&self, name: &str, used: bool) -> Result<Found, ApiError> {
        let found = self.streams().reach(name, unix_millis(), used).await;
        found.map_err(|error| write::unavailable(&error))
    }

    /// The stream of that name, if the request may use it.
    pub(crate) async fn find(&self, name: &str) -> Result<Arc<Stream>, ApiError> {
        self.admit(self.reach(name, false).await?)
    }

    /// The stream of that name, to be forked.
    pub(crate) async fn fork_source(&self, name: &str) -> Result<Arc<Stream>, ApiError> {
        let gone = |error: ApiError| match error.status {
            404 => write::no_source(),
            410 => write::source_gone(),
            _ => error,
        };
        self.find(name).await.map_err(gone)
    }

    /// Appends to the stream of that name. What is remembered of one in Redis is enough for that: whether it is still the same is
    /// found out with the append.
    pub(crate) async fn append(&self, name: &str, body: &[u8]) -> Result<Reply, ApiError> {
        let remembered = self.streams().remote().and_then(|_| self.streams().remembered(name));
        if let Some(stream) = remembered.filter(|stream| self.may_use(stream)) {
            let reply = write::append(self, &stream, body).await?;
            if reply.status != 404 {
                return Ok(reply);
            }
        }
        write::append(self, &self.find(name).await?, body).await
    }

    /// The stream of that name, for one who reads it. Who follows it can begin with what is known here, and goes on when more can be known.
    pub(crate) async fn find_to_read(&self, name: &str, follows: bool) -> Result<Arc<Stream>, ApiError> {
        match self.reach(name, true).await {
            Ok(found) => self.admit(found),
            Err(error) if follows => {
                self.streams().remembered(name).filter(|stream| self.may_use(stream)).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    fn admit(&self, found: Found) -> Result<Arc<Stream>, ApiError> {
        match found {
            Found::Present(stream) => self.allowed(stream),
            Found::Hidden(stream) => self.allowed(stream).and_then(|_| {
                let message = "The stream was deleted; only its forks can still be read.";
                Err(ApiError::new(410, "stream_gone", message))
            }),
            Found::Missing => Err(self.missing()),
        }
    }

    /// The stream, if the request may use it.
    pub(crate) fn allowed(&self, stream: Arc<Stream>) -> Result<Arc<Stream>, ApiError> {
        match self.may_use(&stream) {
            true => Ok(stream),
            false if stream.is_hidden() => Err(self.missing()),
            false => Err(of_another_key()),
        }
    }

    fn may_use(&self, stream: &Stream) -> bool {
        stream.is_open_to(self.key()) || is_signed(self.request, self.core)
    }
}

/// A stream that is there for another key alone.
pub(crate) fn of_another_key() -> ApiError {
    ApiError::new(
        403,
        "stream_of_another_key",
        "The stream belongs to another key. `shared` of [streams] opens streams to every key.",
    )
}

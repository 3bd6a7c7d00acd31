//! A kept response whose name the client has chosen (`Sedge-Durable: my-id`): its stream is there before an upstream is asked, so
//! that a page that is loaded again before the first token finds it and waits.
//!
//! An id stands for one response. Another request with it is 409, and is told where the response is. Only where nothing came of
//! the request, an error alone, its id may be used again: SDKs send a request once more after a 429 or a 5xx, with the same fields.

use std::rc::Rc;
use std::sync::Arc;

use super::error_response::Failure;
use crate::proto::http1::fields::write_field;
use crate::proto::openai::ApiError;
use crate::proto::sse::blocks;
use crate::relay::context::Core;
use crate::relay::exchange::Exchange;
use crate::relay::pump::recorder::Tee;
use crate::runtime::clock::unix_millis;
use crate::streams::store::payload_reader;
use crate::streams::{Created, Found, NotCreated, Stopped, Stream};
use crate::upstream::client::Stop;

/// The longest id, in bytes.
const ID_BYTES_MAX: usize = 128;

/// A response that has more than this in it is more than an error, in bytes.
const ERROR_BYTES_MAX: u64 = 16 << 10;

/// What an upstream did that has not answered with a stream.
pub(crate) fn no_stream(status: u16) -> ApiError {
    ApiError::new(502, "upstream_error", format!("The upstream answered {status} instead of a stream."))
}

impl Exchange<'_> {
    /// Makes the stream that the client has named, if it has.
    ///
    /// # Errors
    /// If the name is none, or is taken.
    pub(crate) async fn keep_early(&mut self, core: &Rc<Core>) -> Result<Option<Box<Tee>>, Failure> {
        let Some(id) = self.request.sending.as_mut().and_then(|sending| sending.durable_id.take()) else {
            return Ok(None);
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        if id.len() > ID_BYTES_MAX || !id.bytes().all(fits) || matches!(&*id, "." | ".." | "__ds") {
            let what =
                "Sedge-Durable is neither `true` nor an id: 1 to 128 letters, digits, `-`, `_`, `.` and `~`.";
            return Err(ApiError::new(400, "invalid_durable_id", what).into());
        }
        let mut made = self.make_stream(core, &id).await;
        if is_taken(&made) && self.give_up_failed(core, &id).await {
            made = self.make_stream(core, &id).await;
        }
        if is_taken(&made) {
            let mut lines = Vec::with_capacity(64 + id.len());
            write_field(&mut lines, "Location", format!("/v1/stream/{id}").as_bytes());
            // Another try would end as this one.
            write_field(&mut lines, "X-Should-Retry", b"false");
            self.request.kept_at = Some(lines.into());
            let what = format!(
                "There is a stream `{id}` already: read it, or take another id for another response."
            );
            return Err(ApiError::new(409, "durable_id_taken", what).into());
        }
        match made {
            Ok(created) => {
                let tee = self.begin_keeping(core, &created);
                // Nobody is told where it is before a crash would leave it there. If the disk fails the tee finds out.
                let _ = core.hub.durable(created.ticket).await;
                Ok(Some(tee))
            }
            Err(error) => {
                self.go_without(&error);
                Ok(None)
            }
        }
    }

    /// Deletes what an earlier request with that id has left, if it is nothing but an error.
    async fn give_up_failed(&self, core: &Rc<Core>, id: &str) -> bool {
        let streams = &core.shared.streams;
        let Ok(Found::Present(stream)) = streams.reach(id, unix_millis(), false).await else { return true };
        let key = self.request.holder().map(|holder| &*holder.name);
        stream.generated
            && stream.is_open_to(key)
            && has_failed(core, &stream).await
            && streams.end(&stream).await.is_ok()
    }

    /// Nothing came of the request: whoever waits for its stream is told why.
    pub(crate) fn fail_kept(&mut self, kept: Option<Box<Tee>>, failure: &Failure) {
        let Some(mut tee) = kept else { return };
        self.request.kept_at = None;
        let event = |error: &ApiError| self.request.error_form().event_for_all(error, 0);
        tee.finish(Some(match failure {
            Failure::Error(error) => event(error),
            Failure::Stop(Stop::Timeout(timeout)) => event(&self.timeout_error(*timeout)),
            Failure::Stop(_) | Failure::Degraded(_) => event(&ApiError::upstream_closed()),
        }));
    }
}

/// The error of a request whose stream a client has ended.
pub(crate) fn stopped(by: Stopped) -> ApiError {
    match by {
        Stopped::Closed => ApiError::response_stopped(),
        Stopped::Deleted => ApiError::answer_deleted(),
    }
}

fn is_taken(made: &Result<Created, NotCreated>) -> bool {
    match made {
        Ok(created) => !created.new,
        Err(error) => matches!(error, NotCreated::Exists | NotCreated::Foreign),
    }
}

/// Whether a kept response is over, and is an error or nothing.
async fn has_failed(core: &Rc<Core>, stream: &Arc<Stream>) -> bool {
    let status = stream.status();
    if !status.closed || status.tail - status.start > ERROR_BYTES_MAX {
        return false;
    }
    let Ok(page) = stream.page(status.start, status.tail, ERROR_BYTES_MAX) else { return false };
    let Ok(parts) = payload_reader::bytes(&core.shared.streams, &page.pieces).await else { return false };
    let all = parts.concat();
    let is_error = [&b"data: {\"error\":"[..], b"event: error\n"].iter().any(|begin| all.starts_with(begin));
    all.is_empty() || is_error && blocks(&all).count() == 1
}

//! What a client is told when there is no answer to pass on, or no rest of one.
//!
//! Before the first byte it is a whole answer with a status; after it, an event in the stream where one can stand, and a
//! connection that closes without a last chunk.

use std::time::Duration;

use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::Beat;
use crate::proto::openai::{Api, ApiError};
use crate::relay::exchange::{After, Exchange};
use crate::relay::pump::{Download, Framing};
use crate::relay::request::body::UploadError;
use crate::relay::request_record::outcome_of;
use crate::relay::response_head;
use crate::telemetry::Outcome;
use crate::upstream::client::Stop;

/// Why there is no answer to pass on.
pub(crate) enum Failure {
    /// An error of ours.
    Error(ApiError),
    /// Something stood in the way.
    Stop(Stop),
    /// Nobody answers, and this is the body that the route has for then.
    Degraded(Box<[u8]>),
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure::Error(error)
    }
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Failure {
        Failure::Stop(stop)
    }
}

/// The form in which a client is told of errors.
#[derive(Clone, Copy)]
pub(crate) struct ErrorForm<'a> {
    pub(crate) api: Api,
    pub(crate) request_id: &'a str,
    /// It is an EventSource.
    pub(crate) event_source: bool,
}

impl ErrorForm<'_> {
    /// `error` as the last event of a stream, behind `events` others. An EventSource gets none: its page would take it for data, and
    /// that the connection breaks is what it is told by.
    pub(crate) fn event(&self, error: &ApiError, events: u64) -> Vec<u8> {
        if self.event_source { Vec::new() } else { self.event_for_all(error, events) }
    }

    /// The same for whoever reads the stream later.
    pub(crate) fn event_for_all(&self, error: &ApiError, events: u64) -> Vec<u8> {
        self.api.error_event(error, self.request_id, events)
    }
}

impl Exchange<'_> {
    /// The last words to a stream that is cut: an event that says so where one can stand, and no last chunk.
    pub(crate) async fn part(
        &mut self,
        download: &Download,
        error: &ApiError,
        outcome: Outcome,
    ) -> (Outcome, After) {
        let event = download.parting(&self.request.error_form().event(error, download.events));
        self.part_with(event, download.framing(), error, outcome).await
    }

    /// The same, where it is known whether an event can stand: `event` is that, as such a body carries it, or nothing.
    pub(crate) async fn part_with(
        &mut self,
        event: Vec<u8>,
        framing: Framing,
        error: &ApiError,
        outcome: Outcome,
    ) -> (Outcome, After) {
        self.ledger.error = error.code;
        self.last_words();
        let tells = !event.is_empty();
        // Even without an event: what is still being written comes first.
        let told = self.write(event).await.is_ok() && tells;
        // A body that ends by close must not end by one now, unless the stream itself has told.
        let abort = framing == Framing::Close && !told;
        (outcome, if abort { After::Abort } else { After::Close })
    }

    pub(crate) fn last_words(&self) {
        self.client.set_beat(Beat::Hold);
        self.client.deadlines.last_words(self.core.shard.clock.millis());
        self.client.arm();
    }

    /// Answers with an error, if there is still anyone to answer.
    pub(crate) async fn refuse(&mut self, failure: Failure) -> (Outcome, After) {
        if self.left {
            return (Outcome::ClientGone, After::Abort);
        }
        let (error, outcome) = match failure {
            Failure::Degraded(body) => return self.answer_fixed(&body).await,
            Failure::Error(error) => {
                let ours = error.status < 500 || error.status == 503;
                let outcome = if ours { Outcome::Refused } else { Outcome::UpstreamError };
                (error, outcome)
            }
            Failure::Stop(stop) => match self.explain(stop) {
                Some(told) => told,
                None => return (Outcome::ClientGone, After::Abort),
            },
        };
        self.ledger.error = error.code;
        self.last_words();
        let keep = self.upload.ended
            && error.status != 408
            && response_head::keeps(self.request, Framing::Length, self.core);
        let (bytes, after) = match self.early {
            // The status is out; the stream says it.
            Some(framing) => {
                let event = framing.event(&self.request.error_form().event(&error, 0));
                let abort = framing == Framing::Close && event.is_empty();
                (event, if abort { After::Abort } else { After::Close })
            }
            None => {
                self.ledger.status = error.status;
                let after = if keep { After::Next } else { After::Close };
                (response_head::error(&error, self.request, keep, self.core), after)
            }
        };
        match self.write(bytes).await {
            Ok(()) => (outcome, after),
            Err(_) => (outcome, After::Abort),
        }
    }

    fn explain(&self, stop: Stop) -> Option<(ApiError, Outcome)> {
        Some(match stop {
            Stop::Gone | Stop::Upload(UploadError::Gone) => return None,
            Stop::Stopped(by) => (super::durable_id::stopped(by), Outcome::ClientGone),
            Stop::Timeout(Timeout::ClientStall) => return None,
            Stop::Timeout(timeout) => (self.timeout_error(timeout), outcome_of(timeout)),
            Stop::Dial(error) => {
                let name = self.core.shared.registry.labels.name(self.ledger.upstream);
                (ApiError::upstream_connect_failed(&name, &error.to_string()), Outcome::UpstreamError)
            }
            Stop::Closed { .. } | Stop::Upload(UploadError::Upstream(_)) => {
                (ApiError::upstream_closed(), Outcome::UpstreamError)
            }
            Stop::Invalid(why) => (ApiError::upstream_invalid_response(why), Outcome::UpstreamError),
            Stop::Upload(UploadError::Malformed(why)) => {
                (ApiError::new(400, "invalid_request", why), Outcome::Refused)
            }
            Stop::Upload(UploadError::TooLarge) => {
                let max = self.serving().map_or(self.settings.config.limits.max_body, |route| route.max_body);
                (ApiError::body_too_large(max), Outcome::Refused)
            }
            Stop::Upload(UploadError::NotJson) => (self.unreadable(), Outcome::Refused),
            Stop::Upload(UploadError::Ambiguous(doubt)) => (doubt.error(), Outcome::Refused),
        })
    }

    pub(crate) fn timeout_error(&self, timeout: Timeout) -> ApiError {
        let limits = self.serving().map_or(&self.settings.config.timeouts, |route| &route.timeouts);
        match timeout {
            Timeout::Connect => ApiError::connect_timeout(limits.connect),
            Timeout::UpstreamTls => ApiError::tls_timeout(limits.tls),
            Timeout::FirstByte => ApiError::first_byte_timeout(limits.first_byte),
            Timeout::Idle => ApiError::idle_timeout(limits.idle),
            Timeout::RequestBody => ApiError::request_body_timeout(limits.request_body),
            Timeout::Drain => ApiError::draining(),
            Timeout::Authority => ApiError::key_revoked(),
            Timeout::RequestHead | Timeout::KeepAlive => ApiError::request_head_timeout(limits.request_head),
            Timeout::Total | Timeout::ClientStall => {
                // As far as the answer has not begun, both of the client's limits hold.
                let begun = self.ledger.first_byte.is_some() || self.early.is_some();
                let answer = self.request.answer_timeout_ms.filter(|_| !begun);
                let theirs = self.request.timeout_ms.into_iter().chain(answer);
                let theirs = theirs.map(|ms| Duration::from_millis(ms.into()));
                let ours = Some(limits.total).filter(|total| !total.is_zero());
                ApiError::total_timeout(theirs.chain(ours).min().unwrap_or_default())
            }
        }
    }
}

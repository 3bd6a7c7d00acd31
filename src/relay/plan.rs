//! What is decided before an upstream is asked: how much of the body must be seen for it, whether the request may be so large
//! and take so long, and which route takes it.

use std::borrow::Cow;
use std::num::NonZeroU32;

use super::exchange::{Exchange, millis};
use super::finish::error_response::Failure;
use super::request::body::WHOLE_BYTES;
use super::request::media_type::MediaType;
use super::request::model_name;
use super::request::outbound_headers::Left;
use super::settings::Settings;
use crate::config::{Route, Timeouts};
use crate::proto::http1::request::{CONTINUE, RequestBody};
use crate::proto::openai::{ApiError, MAX_MODEL_BYTES, PeekState};
use crate::runtime::clock::Millis;
use crate::upstream::client::{Stop, receive_more};

/// A JSON body of unknown length is held up to here, so that it can be sent with its length.
const HELD_BYTES: u64 = 64 * 1024;

impl Exchange<'_> {
    /// Receives as much of the body as must be seen before the upstream can be asked: all of a small one, and of a large one
    /// what it takes to find the model.
    pub(crate) async fn receive(&mut self) -> Result<(), Failure> {
        self.check_size(self.settings.config.limits.max_body)?;
        self.check_readable()?;
        self.upload.receive(self.client, &self.core.shard).map_err(Stop::Upload)?;
        // Before the rest is waited for: who may not come in does not hold anything meanwhile.
        self.enter_key()?;
        if self.is_awaited() || self.wants_more()? {
            Box::pin(self.receive_rest()).await?;
        }
        self.learn()
    }

    /// Whether the client sends its body when it is told to.
    fn is_awaited(&self) -> bool {
        self.request.expect_continue && self.upload.received == 0 && !self.upload.ended
    }

    async fn receive_rest(&mut self) -> Result<(), Failure> {
        if self.is_awaited() {
            self.write(CONTINUE.to_vec()).await?;
        }
        while self.wants_more()? {
            receive_more(self.client, self.core, &mut self.upload).await?;
        }
        Ok(())
    }

    /// Whether a decision can rest on the body: readers must not disagree how it is read, and it must not be compressed.
    fn check_readable(&self) -> Result<(), Failure> {
        let request = &*self.request;
        if !self.upload.decides().any() || matches!(request.body, RequestBody::None | RequestBody::Length(0))
        {
            return Ok(());
        }
        let by_form = self.upload.decides().model && request.may_be_form();
        if request.encoded && (request.may_be_json() || by_form) {
            return Err(encoded().into());
        }
        if request.media == Some(MediaType::Ambiguous) || by_form && self.upload.peek().is_none() {
            return Err(ambiguous_type().into());
        }
        Ok(())
    }

    /// What is told of a body in which a field that decides cannot be found for certain.
    pub(crate) fn unreadable(&self) -> ApiError {
        match self.request.media {
            Some(MediaType::Form) => unreadable_form(),
            _ => ApiError::not_a_json_object(),
        }
    }

    fn wants_more(&mut self) -> Result<bool, Failure> {
        if self.upload.ended || !self.is_held() {
            return Ok(false);
        }
        // What is held here is held before anyone has agreed to take it: it ends where new requests do.
        if !self.core.has_room(&self.settings) {
            return Err(ApiError::overloaded().into());
        }
        let (core, settings) = (self.core, &self.settings);
        if !self.upload.has_share(|| core.share(self.request.who, settings)) {
            core.metrics.bodies_over_share.inc();
            return Err(ApiError::bodies_over_share().into());
        }
        let max = self.settings.config.limits.max_model_peek;
        if self.upload.must_learn() && self.upload.held_bytes() >= max {
            let error = if self.upload.must_learn_all() { too_long } else { too_late };
            return Err(error(max).into());
        }
        Ok(true)
    }

    /// Whether what comes next of the body is held, and not sent on at once.
    fn is_held(&self) -> bool {
        self.upload.must_learn()
            || match self.request.body {
                RequestBody::Length(length) => length <= WHOLE_BYTES,
                RequestBody::Chunked => {
                    self.request.media == Some(MediaType::Json) && self.upload.held_bytes() < HELD_BYTES
                }
                RequestBody::None => false,
            }
    }

    /// Takes over what the body said of itself.
    fn learn(&mut self) -> Result<(), Failure> {
        if let Some(peek) = self.upload.peek() {
            self.ledger.model = peek.model().map(str::to_owned);
            self.ledger.stream = peek.stream() == Some(true);
            match peek.state() {
                _ if !self.upload.decides().any() => {}
                PeekState::NotObject if !self.request.must_be_json() => {
                    let begins = self.upload.beginning();
                    if self.upload.decides().model && model_name::is_in_fields(begins) {
                        return Err(model_in_fields().into());
                    }
                }
                PeekState::Malformed | PeekState::NotObject | PeekState::NotUtf8 => {
                    return Err(self.unreadable().into());
                }
                // To some it ends where it does, to others it is not whole.
                PeekState::NeedMore if peek.is_form() && self.upload.ended => {
                    return Err(self.unreadable().into());
                }
                _ if peek.model_too_long() => {
                    return Err(ApiError::model_too_long(MAX_MODEL_BYTES).into());
                }
                _ => {}
            }
        }
        if self.upload.decides().model {
            if self.request.path_bytes < self.request.target.len() {
                let named = model_name::in_query(&self.request.target)?;
                self.learn_named(named.map(|(name, _)| name))?;
            }
            let named = model_name::in_path(self.request.path())?;
            self.learn_named(named.map(|(name, _)| name))?;
        }
        Ok(())
    }

    /// A model is named outside of the body as well, or alone.
    fn learn_named(&mut self, named: Option<String>) -> Result<(), Failure> {
        match (&self.ledger.model, named) {
            (_, None) => {}
            (Some(model), Some(name)) if *model != name => return Err(model_name::differs().into()),
            (_, name) => self.ledger.model = name,
        }
        Ok(())
    }

    pub(crate) fn route(&self, settings: &Settings) -> Result<(usize, Option<String>), Failure> {
        let model = self.ledger.model.as_deref();
        match settings.config.route(model, self.request.path()) {
            Some((index, rewrite)) => Ok((index, rewrite.map(Cow::into_owned))),
            None => Err(match model {
                Some(model) => ApiError::model_not_found(model).into(),
                None => ApiError::no_route_without_model(self.request.path()).into(),
            }),
        }
    }

    /// `route`, which is the one at `index`, serves it: its bounds hold from now on.
    pub(crate) fn serve_by(&mut self, index: usize, route: &Route) -> Result<(), Failure> {
        self.serving = NonZeroU32::new(index as u32 + 1);
        self.check_size(route.max_body)?;
        self.upload.limit(route.max_body).map_err(Stop::Upload)?;
        self.limit_total(&route.timeouts);
        Ok(())
    }

    /// The route that serves it, once that is known.
    pub(crate) fn serving(&self) -> Option<&Route> {
        self.settings.config.routes.get(self.serving?.get() as usize - 1)
    }

    pub(crate) fn check_size(&self, max: u64) -> Result<(), Failure> {
        match self.request.body {
            RequestBody::Length(length) if length > max => Err(ApiError::body_too_large(max).into()),
            _ => Ok(()),
        }
    }

    /// Until when the request must be over: the route's total, or less if the client says so; 0 for never.
    pub(crate) fn until(&self, total: u32) -> Millis {
        let ours = Some(total).filter(|&limit| limit > 0);
        let limit = ours.into_iter().chain(self.request.timeout_ms).min();
        limit.map_or(0, |limit| self.ledger.began() / 1000 + Millis::from(limit))
    }

    /// Until when the answer must have begun, if the client has told.
    fn answer_until(&self) -> Option<Millis> {
        let limit = self.request.answer_timeout_ms.filter(|_| self.early.is_none())?;
        Some(self.ledger.began() / 1000 + Millis::from(limit))
    }

    /// The limit on the whole until the answer begins: the sooner of both.
    pub(crate) fn limit_total(&self, timeouts: &Timeouts) {
        let until = Some(self.until(millis(timeouts.total))).filter(|&at| at > 0);
        let nearest = until.into_iter().chain(self.answer_until()).min();
        self.client.deadlines.total(nearest.unwrap_or(0));
    }

    /// What is left for the upstream that is asked now; none if nothing is. An answer that is no stream begins when it is
    /// complete, so both limits are one to whoever makes it.
    pub(crate) fn left(&self, timeouts: &Timeouts) -> Option<Left> {
        let now = self.core.shard.clock.millis();
        let (until, answer) = (self.until(millis(timeouts.total)), self.answer_until());
        let until = Some(until).filter(|&at| at > 0);
        let whole = answer.filter(|_| !self.ledger.stream);
        let total = until.into_iter().chain(whole).min();
        if total.into_iter().chain(answer).any(|at| at <= now) {
            return None;
        }
        Some(Left { total: total.map(|at| at - now), answer: answer.map(|at| at - now) })
    }
}

fn unreadable_form() -> ApiError {
    let message = "The form cannot be read for its `model`, on which its route depends: readers disagree where its parts begin or what they are called. Send each part as CRLF --BOUNDARY CRLF, with a plain `name`.";
    ApiError::new(400, "invalid_form", message).with_param("model")
}

fn model_in_fields() -> ApiError {
    let message = "The body names a `model` in URL-encoded fields, and its route depends on it. Send JSON, or a form of several parts (multipart/form-data).";
    ApiError::new(415, "unsupported_content_type", message).with_param("model")
}

fn ambiguous_type() -> ApiError {
    let message = "The request has two types, or one in another encoding than UTF-8, or an unclear boundary, and readers disagree how to read its body. Send one plain Content-Type.";
    ApiError::new(400, "ambiguous_field", message).with_param("content-type")
}

fn encoded() -> ApiError {
    let message = "The body is compressed, and its route or its limits depend on its fields. Send it without Content-Encoding.";
    ApiError::new(415, "unsupported_content_encoding", message)
}

fn too_long(max: u64) -> ApiError {
    let message = format!(
        "The body is longer than {max} bytes, and its limits on tokens ask for all of it to be seen first. Send less."
    );
    ApiError::new(413, "request_too_large", message)
}

fn too_late(max: u64) -> ApiError {
    ApiError::new(
        413,
        "model_not_found_in_time",
        format!("The first {max} bytes of the body hold no `model`, and the route depends on it. Put `model` first."),
    )
    .with_param("model")
}

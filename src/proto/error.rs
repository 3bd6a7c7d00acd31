//! Errors made here, in OpenAI's shape: all four keys, always, since SDKs read them without asking.
//!
//! Each message says what happened and what to do about it, to the person who reads it in an exception's text.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::http1::Reject;

/// One error, as an answer of its own ([`ApiError::body`]) or inside a stream ([`ApiError::event`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body's `type`.
    pub(crate) kind: &'static str,
    /// The body's `code`.
    pub(crate) code: Option<&'static str>,
    /// What happened and what to do.
    pub(crate) message: Cow<'static, str>,
    /// The field of the request that is to blame.
    pub(crate) param: Option<Cow<'static, str>>,
    /// When to come again, in milliseconds; 0 if that is not known. So small because each connection's task has room for an error.
    pub(crate) retry_after_ms: u32,
}

impl ApiError {
    /// An error whose type follows from its status, as OpenAI's do.
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError {
            status,
            kind: kind_of(status),
            code: Some(code),
            message: message.into(),
            param: None,
            retry_after_ms: 0,
        }
    }

    /// The same error, with the field of the request that is to blame.
    #[must_use]
    pub(crate) fn with_param(self, param: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { param: Some(param.into()), ..self }
    }

    /// The answer's body, `application/json`.
    pub(crate) fn body(&self) -> Vec<u8> {
        format!(
            r#"{{"error":{{"message":{},"type":{},"param":{},"code":{}}}}}"#,
            Value::from(&*self.message),
            Value::from(self.kind),
            Value::from(self.param.as_deref()),
            Value::from(self.code),
        )
        .into_bytes()
    }

    /// The same as one event of a stream. It is the last one: no `[DONE]` may follow it.
    pub(crate) fn event(&self) -> Vec<u8> {
        let mut event = b"data: ".to_vec();
        event.extend_from_slice(&self.body());
        event.extend_from_slice(b"\n\n");
        event
    }

    /// The process ended that was reading an answer for a durable stream.
    pub(crate) fn generation_interrupted() -> ApiError {
        ApiError::new(
            502,
            "generation_interrupted",
            "The edge was restarted while this answer was made, so the rest of it is missing. Ask again.",
        )
    }

    /// More of an answer was waiting to be kept than may wait, or Redis has lost what was kept of it.
    pub(crate) fn answer_not_kept() -> ApiError {
        ApiError::new(
            503,
            "storage_unavailable",
            "Redis was away for too long, or has lost data: this answer could not be kept whole. Ask again.",
        )
    }

    /// What comes next of an answer is not there for a client that has not read it yet.
    pub(crate) fn rest_not_kept() -> ApiError {
        ApiError::new(
            503,
            "rest_not_kept",
            "This client reads more slowly than the answer is kept: what would come next is there no more. Ask again.",
        )
    }

    /// Somebody has deleted the durable stream that an answer was written to.
    pub(crate) fn answer_deleted() -> ApiError {
        ApiError::new(
            409,
            "answer_deleted",
            "The answer was deleted while it was made, so the rest of it is missing.",
        )
    }

    /// A client has closed the durable stream that a response was kept in.
    pub(crate) fn response_stopped() -> ApiError {
        ApiError::new(
            409,
            "response_stopped",
            "The response was stopped by closing its stream, so the rest of it is missing.",
        )
    }

    /// No upstream or page serves this path.
    pub(crate) fn no_route(method: &str, path: &str) -> ApiError {
        ApiError::new(
            404,
            "route_not_found",
            format!(
                "Nothing is served at {method} {path}. Paths below /v1/ are relayed: check the client's base URL."
            ),
        )
    }

    /// No route takes a request that names no model.
    pub(crate) fn no_route_without_model(path: &str) -> ApiError {
        let message = format!(
            "No route takes a request to {path} that names no model. Name one in the body, or add a route that takes every model, models = [\"*\"]."
        );
        ApiError::new(404, "route_not_found", message).with_param("model")
    }

    /// No route takes this model.
    pub(crate) fn model_not_found(model: &str) -> ApiError {
        let message =
            format!("The model `{model}` is not configured here. Check its name, or add a route for it.");
        ApiError::new(404, "model_not_found", message).with_param("model")
    }

    /// A body that has to be a JSON object and is not.
    pub(crate) fn not_a_json_object() -> ApiError {
        ApiError::new(
            400,
            "invalid_json",
            "The request's body is not a JSON object. Send one, as application/json, in UTF-8 without a byte order mark.",
        )
    }

    /// A model's name that is longer than any real one.
    pub(crate) fn model_too_long(max_bytes: usize) -> ApiError {
        let message = format!("The model's name is longer than {max_bytes} bytes. Send a shorter one.");
        ApiError::new(400, "model_too_long", message).with_param("model")
    }

    /// Keys are asked for, and the request has none.
    pub(crate) fn missing_key() -> ApiError {
        ApiError::new(
            401,
            "missing_api_key",
            "No API key was sent. Send one as `Authorization: Bearer KEY`; SDKs take it from OPENAI_API_KEY.",
        )
    }

    /// The key that a stream was read or made with is not among those configured any more.
    pub(crate) fn key_revoked() -> ApiError {
        ApiError::new(401, "key_revoked", "The API key of this request was taken away. Use another one.")
    }

    /// The request's key is not among those configured.
    pub(crate) fn wrong_key() -> ApiError {
        ApiError::new(
            401,
            "invalid_api_key",
            "The API key is not known here. Check that it is one for this edge and not for the upstream behind it.",
        )
    }

    /// The key is known but may not ask this model, or not without naming one that can be seen.
    pub(crate) fn model_not_allowed(key: &str, model: Option<&str>) -> ApiError {
        let message = match model {
            Some(model) => format!(
                "The key `{key}` does not have access to the model `{model}`. Use another model, or have the key's `models` extended."
            ),
            None => format!(
                "The key `{key}` has access to some models alone, and this request does not name one where it can be seen. Name it in a JSON body or a form."
            ),
        };
        let error = ApiError::new(403, "model_not_found", message).with_param("model");
        ApiError { kind: "invalid_request_error", ..error }
    }

    /// The request asks for a longer answer than it may.
    pub(crate) fn max_tokens_too_large(
        field: &'static str,
        asked: u64,
        choices: u64,
        max: u64,
        of: &str,
    ) -> ApiError {
        let all = asked.saturating_mul(choices);
        let asked = match (all, choices) {
            (u64::MAX, _) => "what this request asks for".to_owned(),
            (_, 1) => asked.to_string(),
            _ => format!("{all}, that is {asked} for each of {choices} answers"),
        };
        let message = format!(
            "{field} is too large: {asked}. The {of} allows at most {max} tokens of an answer. Ask for no more."
        );
        ApiError::new(400, "invalid_value", message).with_param(field)
    }

    /// How much is asked for is limited, and cannot be seen.
    pub(crate) fn limits_need_json(of: &str) -> ApiError {
        let message = format!(
            "The {of} limits what a request may ask for, and that can only be seen in plain JSON. Send it as application/json."
        );
        ApiError::new(415, "unsupported_content_type", message)
    }

    /// The request's body is over the limit.
    pub(crate) fn body_too_large(max_bytes: u64) -> ApiError {
        let message =
            format!("The request's body is larger than {max_bytes} bytes. Send less, or raise the limit.");
        ApiError::new(413, "request_too_large", message)
    }

    /// A limit was reached: `kind` is OpenAI's type for it, `what` says whose limit on what, and how much it is.
    pub(crate) fn rate_limited(kind: &'static str, what: &str, retry_after: Duration) -> ApiError {
        let message =
            format!("Rate limit reached for {what}. Please try again in {} s.", seconds(retry_after));
        ApiError { kind, ..ApiError::new(429, "rate_limit_exceeded", message) }
    }

    /// No connection to the upstream came about.
    pub(crate) fn upstream_connect_failed(upstream: &str, reason: &str) -> ApiError {
        ApiError::new(
            502,
            "upstream_connect_failed",
            format!(
                "No connection to the upstream {upstream}: {reason}. Try again; if it stays, check its address."
            ),
        )
    }

    /// The upstream closed the connection before its answer was whole.
    pub(crate) fn upstream_closed() -> ApiError {
        ApiError::new(
            502,
            "upstream_closed",
            "The upstream closed the connection before its answer was complete. What came so far is all there is: try again.",
        )
    }

    /// The upstream ended a stream that has not said that it is over.
    pub(crate) fn upstream_unfinished() -> ApiError {
        ApiError::new(
            502,
            "upstream_unfinished",
            "The upstream ended its stream without a last event, so the rest of it is missing. Try again.",
        )
    }

    /// The upstream's answer is not HTTP, or not HTTP that can be passed on safely.
    pub(crate) fn upstream_invalid_response(reason: &str) -> ApiError {
        let message = format!(
            "The upstream's answer cannot be passed on: {reason}. Check what listens at its address."
        );
        ApiError::new(502, "upstream_invalid_response", message)
    }

    /// The upstream did not accept the connection in time.
    pub(crate) fn connect_timeout(after: Duration) -> ApiError {
        let after = seconds(after);
        ApiError::new(
            504,
            "upstream_connect_timeout",
            format!(
                "The upstream did not accept a connection within {after} s. Try again; if it stays, check its address."
            ),
        )
    }

    /// The upstream did not finish its TLS handshake in time.
    pub(crate) fn tls_timeout(after: Duration) -> ApiError {
        let after = seconds(after);
        ApiError::new(
            504,
            "upstream_tls_timeout",
            format!(
                "The upstream did not finish the TLS handshake within {after} s. Try again; if it stays, check that it speaks TLS."
            ),
        )
    }

    /// The upstream took the request and did not begin to answer in time.
    pub(crate) fn first_byte_timeout(after: Duration) -> ApiError {
        let after = seconds(after);
        ApiError::new(
            504,
            "upstream_first_byte_timeout",
            format!(
                "The upstream did not begin to answer within {after} s. Try again, send a smaller request, or raise the limit."
            ),
        )
    }

    /// The upstream went silent in the middle of its answer.
    pub(crate) fn idle_timeout(after: Duration) -> ApiError {
        let after = seconds(after);
        ApiError::new(
            504,
            "upstream_idle_timeout",
            format!(
                "The upstream sent nothing for {after} s, so its answer was given up. Try again, or raise the limit."
            ),
        )
    }

    /// The whole exchange took too long.
    pub(crate) fn total_timeout(after: Duration) -> ApiError {
        let after = seconds(after);
        ApiError::new(
            504,
            "upstream_total_timeout",
            format!(
                "The answer was not complete within {after} s. Ask for fewer tokens, or raise the limit."
            ),
        )
    }

    /// The client did not send its request's head in time.
    pub(crate) fn request_head_timeout(after: Duration) -> ApiError {
        let after = seconds(after);
        let message =
            format!("The request's head did not arrive within {after} s. Send it again, all at once.");
        ApiError::new(408, "request_head_timeout", message)
    }

    /// The client did not send its request's body in time.
    pub(crate) fn request_body_timeout(after: Duration) -> ApiError {
        let after = seconds(after);
        let message = format!("The request's body stopped arriving for {after} s. Send it again.");
        ApiError::new(408, "request_body_timeout", message)
    }

    /// A bound on connections, streams or memory was reached.
    pub(crate) fn overloaded() -> ApiError {
        ApiError::new(503, "overloaded", "All capacity is in use. Try again in a moment.")
    }

    /// The bodies of one client hold as much memory as is still free for all.
    pub(crate) fn bodies_over_share() -> ApiError {
        let message = "The requests of this key or address hold as much memory as is left for everyone, because their bodies have not arrived or not been answered yet. Send fewer at a time.";
        ApiError { retry_after_ms: 1000, ..ApiError::new(429, "too_many_bodies", message) }
    }

    /// None of a route's upstreams may be asked; `retry_after_ms` is when the first of them may.
    pub(crate) fn upstreams_out(route: &str, retry_after_ms: u64) -> ApiError {
        let wait = seconds(Duration::from_secs(retry_after_ms.div_ceil(1000)));
        let message =
            format!("None of the upstreams of the route `{route}` can be asked now. Try again in {wait} s.");
        ApiError {
            retry_after_ms: retry_after_ms.clamp(1, u32::MAX.into()) as u32,
            ..ApiError::new(503, "upstreams_unavailable", message)
        }
    }

    /// All places at a route's upstreams are taken; `retry_after_ms` is when there is likely to be one.
    pub(crate) fn upstreams_full(route: &str, retry_after_ms: u64) -> ApiError {
        let message = format!(
            "All places at the upstreams of the route `{route}` are taken. Try again in {} s.",
            retry_after_ms.div_ceil(1000)
        );
        ApiError {
            message: message.into(),
            code: Some("overloaded"),
            ..ApiError::upstreams_out(route, retry_after_ms)
        }
    }

    /// The process is about to end.
    pub(crate) fn draining() -> ApiError {
        ApiError::new(503, "draining", "This instance is shutting down. Try again: another one will answer.")
    }
}

/// A message that was refused, told as an API does.
impl From<Reject> for ApiError {
    fn from(reject: Reject) -> ApiError {
        ApiError::new(reject.status, reject.code, reject.message)
    }
}

/// OpenAI's `type` for a status.
fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// Whole seconds as such, anything else with three digits.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => duration.as_secs().to_string(),
        _ => format!("{:.3}", duration.as_secs_f64()),
    }
}

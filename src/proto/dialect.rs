//! The conversation APIs, told by a request's path, and how each of them says that something went wrong.
//!
//! An [`ApiError`] is a neutral value; here alone it becomes bytes. The form follows the path that was asked, since the path is what
//! the client's SDK knows:
//!
//! | path | as a body | as an event |
//! | --- | --- | --- |
//! | `/messages` and below (Anthropic) | `{"type":"error","error":{"type","message","details"},"request_id"}` | `event: error`, and the same |
//! | `/responses` and below | `{"error":{"message","type","param","code"}}` | `event: error`, with `type`, `code`, `message`, `param`, `sequence_number`, and the same `error` |
//! | `...:generateContent`, `/v1beta/` (Gemini) | `{"error":{"code","message","status","details"}}` | the same as data |
//! | all others (OpenAI) | `{"error":{"message","type","param","code"}}` | the same as data |
//!
//! openai-python and openai-node raise at an event whose data has an `error`, whatever its name; anthropic-python at one named `error`;
//! both give the data to the exception. Our own code for the error is where each has a place for one: `code`; Anthropic's
//! `details.error_code`; Google's `reason`.

use serde_json::{Value, json};

use super::error::ApiError;

/// An API by which clients hold conversations, as far as they differ here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Api {
    /// None of those below.
    #[default]
    Other,
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's completions of text.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// Gemini's contents.
    Gemini,
}

/// How paths of Gemini's end, wherever they begin.
const GEMINI_METHODS: [&str; 3] = [":generateContent", ":streamGenerateContent", ":countTokens"];

impl Api {
    /// The API that `path` belongs to.
    pub(crate) fn of(path: &str) -> Api {
        let path = path.trim_end_matches('/');
        let within = |segment: &'static str| {
            let ends = |at: usize| matches!(path.as_bytes().get(at + segment.len()), None | Some(b'/'));
            path.match_indices(segment).any(|(at, _)| ends(at))
        };
        if path.ends_with("/chat/completions") {
            Api::Chat
        } else if path.ends_with("/completions") {
            Api::Completions
        } else if within("/responses") {
            Api::Responses
        } else if within("/messages") && !path.contains("/threads/") && !path.contains("/completions/") {
            Api::Messages
        } else if path.starts_with("/v1beta/") || GEMINI_METHODS.iter().any(|method| path.ends_with(method)) {
            Api::Gemini
        } else {
            Api::Other
        }
    }

    /// Whether each whole stream of it says that it is over.
    pub(crate) fn says_end(self) -> bool {
        self != Api::Other
    }

    /// `error` as a body, `application/json`. `request_id` is the request's, where there is one.
    pub(crate) fn error_body(self, error: &ApiError, request_id: &str) -> Vec<u8> {
        match self {
            Api::Messages => anthropic(error, request_id).to_string().into_bytes(),
            Api::Gemini => gemini(error).to_string().into_bytes(),
            Api::Other | Api::Chat | Api::Completions | Api::Responses => error.body(),
        }
    }

    /// `error` as one event of a stream, behind `events` others. It is the last one.
    pub(crate) fn error_event(self, error: &ApiError, request_id: &str, events: u64) -> Vec<u8> {
        let (name, data) = match self {
            Api::Messages => ("event: error\n", anthropic(error, request_id).to_string()),
            Api::Responses => ("event: error\n", response(error, events).to_string()),
            Api::Gemini => ("", gemini(error).to_string()),
            Api::Other | Api::Chat | Api::Completions => return error.event(),
        };
        format!("{name}data: {data}\n\n").into_bytes()
    }
}

/// Anthropic's form.
fn anthropic(error: &ApiError, request_id: &str) -> Value {
    let kind = match error.status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({
        "type": "error",
        "error": {"type": kind, "message": error.message, "details": {"error_code": error.code}},
        "request_id": request_id,
    })
}

/// The form of an error event of the Responses API. OpenAI's description of it has the members at its top; its servers send, and
/// its SDKs raise at, the ones in `error`.
fn response(error: &ApiError, events: u64) -> Value {
    let (code, param) = (error.code, error.param.as_deref());
    json!({
        "type": "error",
        "code": code,
        "message": error.message,
        "param": param,
        "sequence_number": events,
        "error": {"message": error.message, "type": error.kind, "param": param, "code": code},
    })
}

/// Google's form.
fn gemini(error: &ApiError) -> Value {
    let status = match error.status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        409 => "ABORTED",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        501 => "UNIMPLEMENTED",
        502 | 503 => "UNAVAILABLE",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    };
    let reason = error.code.unwrap_or("unknown").to_ascii_uppercase();
    json!({"error": {
        "code": error.status,
        "message": error.message,
        "status": status,
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "sedge"}],
    }})
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::sse::Scanner;

    #[test]
    fn an_api_is_told_by_its_path() {
        for (path, api) in [
            ("/v1/chat/completions", Api::Chat),
            ("/openai/deployments/x/chat/completions/", Api::Chat),
            ("/v1beta/openai/chat/completions", Api::Chat),
            ("/v1/completions", Api::Completions),
            ("/v1/responses", Api::Responses),
            ("/v1/responses/resp_1", Api::Responses),
            ("/v1/messages", Api::Messages),
            ("/anthropic/v1/messages/count_tokens", Api::Messages),
            ("/v1beta/models/gemini:streamGenerateContent", Api::Gemini),
            ("/v1/projects/p/models/m:generateContent", Api::Gemini),
            ("/v1/threads/t/messages", Api::Other),
            ("/v1/threads/t/messages/m", Api::Other),
            ("/v1/chat/completions/c/messages", Api::Other),
            ("/v1/embeddings", Api::Other),
            ("/v1/my-responses", Api::Other),
            ("/", Api::Other),
        ] {
            assert_eq!(Api::of(path), api, "{path}");
        }
    }

    const ALL: [Api; 6] =
        [Api::Other, Api::Chat, Api::Completions, Api::Responses, Api::Messages, Api::Gemini];

    #[test]
    fn an_event_has_one_line_of_data_that_says_what_the_body_says() {
        let error = ApiError::new(502, "code", "a\r\n\r\nb");
        for api in ALL {
            let event = api.error_event(&error, "req", 7);
            let mut scanner = Scanner::default();
            assert_eq!(scanner.feed(&event), 1);
            assert!(scanner.at_boundary() && !scanner.terminal());
            let text = String::from_utf8(event).unwrap();
            let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            let body: Value = serde_json::from_slice(&api.error_body(&error, "req")).unwrap();
            assert_eq!(data["error"], body["error"], "{api:?}");
            assert_eq!(body["error"]["message"], "a\r\n\r\nb");
        }
    }

    #[test]
    fn each_dialect_has_its_own_words() {
        let body = |api: Api, error: &ApiError| -> Value {
            serde_json::from_slice(&api.error_body(error, "req_1")).unwrap()
        };
        let timeout = ApiError::idle_timeout(Duration::from_secs(1));
        let told = body(Api::Messages, &timeout);
        assert_eq!((&told["type"], &told["request_id"]), (&json!("error"), &json!("req_1")));
        assert_eq!(told["error"]["type"], "timeout_error");
        assert_eq!(told["error"]["details"]["error_code"], "upstream_idle_timeout");
        assert_eq!(body(Api::Messages, &ApiError::overloaded())["error"]["type"], "overloaded_error");
        assert_eq!(body(Api::Messages, &ApiError::wrong_key())["error"]["type"], "authentication_error");
        let told = body(Api::Gemini, &timeout);
        assert_eq!(
            (&told["error"]["code"], &told["error"]["status"]),
            (&json!(504), &json!("DEADLINE_EXCEEDED"))
        );
        assert_eq!(told["error"]["details"][0]["reason"], "UPSTREAM_IDLE_TIMEOUT");
        let event = String::from_utf8(Api::Responses.error_event(&timeout, "", 3)).unwrap();
        assert!(
            event.starts_with("event: error\ndata: {\"type\":\"error\",\"code\":\"upstream_idle_timeout\""),
            "{event}"
        );
        assert!(event.contains("\"sequence_number\":3"), "{event}");
    }
}

//! Which endpoint answers, and what an answer is.

use serde_json::{Value, json};

use super::knobs::Knobs;
use super::{chat, others, responses};
use crate::openai::ApiError;

/// When everything was created, as far as the simulator says: a constant, since the same request gets the same bytes.
pub const CREATED: u64 = 1_735_689_600;

/// Content bytes that are put together in memory at most, for answers that are given whole.
pub const WHOLE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What was asked.
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The body, if it is JSON; empty otherwise.
    pub body: &'a [u8],
    /// How long the body was.
    pub length: u64,
    /// The knobs.
    pub knobs: Knobs,
}

/// An answer.
pub enum Answer {
    /// All at once.
    Whole {
        /// Its status.
        status: u16,
        /// Its type.
        content_type: &'static str,
        /// Its body.
        body: Vec<u8>,
    },
    /// An event stream.
    Events(Script),
}

/// Appends the content event of an index.
pub type Content = Box<dyn Fn(u64, &mut Vec<u8>)>;

/// A stream, event by event; each is one HTTP chunk.
pub struct Script {
    /// Before the content.
    pub opening: Vec<Vec<u8>>,
    /// Events with content.
    pub count: u64,
    /// Appends the content event of an index.
    pub content: Content,
    /// After the content.
    pub closing: Vec<Vec<u8>>,
}

/// Answers.
pub fn answer(asked: &Asked<'_>) -> Answer {
    if let Some(status) = asked.knobs.status {
        let message = format!("The simulator was asked for a {status}.");
        return match status {
            400.. => ApiError::new(status, "simulated", message).into(),
            _ => Answer::Whole { status, content_type: "application/json", body: Vec::new() },
        };
    }
    endpoint(asked).unwrap_or_else(Answer::from)
}

fn endpoint(asked: &Asked<'_>) -> Result<Answer, ApiError> {
    match (asked.method, asked.path) {
        ("POST", "/v1/chat/completions") => chat::chat(&object(asked.body)?, asked.knobs),
        ("POST", "/v1/completions") => others::completion(&object(asked.body)?, asked.knobs),
        ("POST", "/v1/responses") => responses::responses(&object(asked.body)?, asked.knobs),
        ("POST", "/v1/embeddings") => others::embeddings(&object(asked.body)?),
        ("POST", "/v1/audio/speech") => others::speech(asked.knobs),
        ("POST", "/v1/audio/transcriptions") => {
            Ok(json(&json!({"text": format!("{} bytes of sound.", asked.length)})))
        }
        ("POST", "/v1/files") => Ok(others::file(asked.length)),
        ("GET" | "HEAD", "/v1/models") => Ok(others::models()),
        ("GET" | "HEAD", path) if path.starts_with("/v1/models/") => {
            Ok(json(&others::model_named(&path["/v1/models/".len()..])))
        }
        (method, path) => Err(ApiError::new(
            404,
            "unknown_url",
            format!(
                "Unknown request URL: {method} {path}. The simulator serves chat completions, completions, responses, embeddings, models, audio and files."
            ),
        )),
    }
}

/// A whole answer of JSON.
pub fn json(value: &Value) -> Answer {
    Answer::Whole { status: 200, content_type: "application/json", body: value.to_string().into_bytes() }
}

/// A `data:` event of JSON.
pub fn data(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// The model a request names.
pub fn model(request: &Value) -> Result<&str, ApiError> {
    request["model"].as_str().ok_or_else(|| {
        ApiError::new(400, "missing_required_parameter", "Missing required parameter: 'model'.")
            .with_param("model")
    })
}

/// Refuses to put together what does not fit.
pub fn fits(events: u64, knobs: Knobs) -> Result<(), ApiError> {
    let bytes = events.saturating_mul(knobs.bytes.unwrap_or(16));
    if bytes <= WHOLE_BYTES_MAX {
        return Ok(());
    }
    Err(ApiError::new(
        400,
        "invalid_knob",
        format!("this answer is put together in memory, {WHOLE_BYTES_MAX} bytes at most"),
    ))
}

fn object(body: &[u8]) -> Result<Value, ApiError> {
    let value: Result<Value, _> = serde_json::from_slice(body);
    match value {
        Ok(value) if value.is_object() => Ok(value),
        _ => Err(ApiError::not_a_json_object()),
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Answer {
        Answer::Whole { status: error.status, content_type: "application/json", body: error.body() }
    }
}

//! Which endpoint answers, and what an answer is.

use memchr::{memchr, memchr2};
use serde_json::{Value, json};

use super::knobs::Knobs;
use super::{chat, others, responses};
use crate::proto::openai::ApiError;

/// When everything was created, as far as the simulator says: a constant, since the same request gets the same bytes.
pub(crate) const CREATED: u64 = 1_735_689_600;

/// Content bytes that are put together in memory at most, for answers that are given whole; some of them hold it eight times.
pub(crate) const WHOLE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// JSON values of a request that are taken in: more than any conversation or batch of embeddings has, and some 100 MB
/// at the worst (small objects cost most).
pub(crate) const JSON_VALUES_MAX: usize = 512 * 1024;

/// What was asked.
pub(crate) struct Asked<'a> {
    /// The method.
    pub(crate) method: &'a str,
    /// The path, without the query.
    pub(crate) path: &'a str,
    /// The body, if it is JSON; empty otherwise.
    pub(crate) body: &'a [u8],
    /// How long the body was.
    pub(crate) length: u64,
    /// The knobs.
    pub(crate) knobs: Knobs,
}

/// An answer.
pub(crate) enum Answer {
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
pub(crate) type Content = Box<dyn Fn(u64, &mut Vec<u8>)>;

/// A stream, event by event; each is one HTTP chunk.
pub(crate) struct Script {
    /// Before the content.
    pub(crate) opening: Vec<Vec<u8>>,
    /// Events with content.
    pub(crate) count: u64,
    /// Appends the content event of an index.
    pub(crate) content: Content,
    /// After the content.
    pub(crate) closing: Vec<Vec<u8>>,
}

/// Answers.
pub(crate) fn answer(asked: &Asked<'_>) -> Answer {
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
pub(crate) fn json(value: &Value) -> Answer {
    Answer::Whole { status: 200, content_type: "application/json", body: value.to_string().into_bytes() }
}

/// A `data:` event of JSON.
pub(crate) fn data(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}

/// The model a request names.
pub(crate) fn model(request: &Value) -> Result<&str, ApiError> {
    request["model"].as_str().ok_or_else(|| {
        ApiError::new(400, "missing_required_parameter", "Missing required parameter: 'model'.")
            .with_param("model")
    })
}

/// Refuses to put together what does not fit.
pub(crate) fn fits(events: u64, knobs: Knobs) -> Result<(), ApiError> {
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

/// A tree of values takes many times the room of its text, so the values are counted before it is grown.
fn object(body: &[u8]) -> Result<Value, ApiError> {
    if separators(body) > JSON_VALUES_MAX {
        let message = format!("The request's JSON has more than {JSON_VALUES_MAX} values. Send fewer.");
        return Err(ApiError::new(413, "request_too_large", message));
    }
    let value: Result<Value, _> = serde_json::from_slice(body);
    match value {
        Ok(value) if value.is_object() => Ok(value),
        _ => Err(ApiError::not_a_json_object()),
    }
}

/// The bytes outside of strings that begin a value: as many as there are values, or up to twice as many.
fn separators(json: &[u8]) -> usize {
    let (mut count, mut rest) = (0, json);
    while let Some(quote) = memchr(b'"', rest) {
        count += begin_values(&rest[..quote]);
        rest = &rest[quote + 1..];
        loop {
            match memchr2(b'"', b'\\', rest) {
                Some(at) if rest[at] == b'\\' => rest = rest.get(at + 2..).unwrap_or_default(),
                Some(at) => break rest = &rest[at + 1..],
                None => return count,
            }
        }
    }
    count + begin_values(rest)
}

fn begin_values(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| matches!(byte, b',' | b':' | b'[' | b'{')).count()
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Answer {
        Answer::Whole { status: error.status, content_type: "application/json", body: error.body() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_strings_only() {
        assert_eq!(separators(br#"{"a":"x,[{:\",","b":[1,2]}"#), 6);
        assert_eq!(separators(b"[1,1,1]"), 3);
        // Cut anywhere, it ends.
        assert_eq!(separators(br#"{"a\"#), 1);
        assert_eq!(separators(br#"{"a"#), 1);
        assert_eq!(separators(b""), 0);
    }

    /// Two bytes of text, 32 and more of memory: 64 MiB of these once took gigabytes, in the process of the edge.
    #[test]
    fn a_list_of_a_million_values_is_refused_before_it_is_read() {
        let body = [&b"{\"model\":\"m\",\"messages\":["[..], &b"1,".repeat(JSON_VALUES_MAX), b"1]}"].concat();
        assert_eq!(object(&body).unwrap_err().status, 413);
        let long_text = format!(r#"{{"a":"{}"}}"#, ",".repeat(JSON_VALUES_MAX + 1));
        assert!(object(long_text.as_bytes()).is_ok());
    }
}

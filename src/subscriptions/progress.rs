//! What a worker says of a wake: the bodies of claim, ack, callback and release.

use serde_json::{Map, Value};

use super::refusal::{Code, Refusal};
use super::settings::{object, string};
use super::{STREAMS_MAX, path};

/// The longest name of a worker, in bytes.
pub(crate) const WORKER_BYTES_MAX: usize = 256;

/// Which wake is meant, and what was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) wake_id: String,
    pub(crate) generation: u64,
    /// Paths, and the offsets up to which they were processed.
    pub(crate) acks: Vec<(String, String)>,
    /// The worker is finished.
    pub(crate) done: bool,
}

impl Progress {
    pub(crate) fn parse(body: &[u8]) -> Result<Progress, Refusal> {
        let body = object(body)?;
        let Some(wake_id) = string(&body, "wake_id")? else {
            return Err(Refusal::field("wake_id", "is missing: send the one that came with the wake"));
        };
        let Some(generation) = body.get("generation").and_then(Value::as_u64) else {
            return Err(Refusal::field("generation", "must be the number that came with the wake"));
        };
        let done = match body.get("done") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(done)) => *done,
            Some(_) => return Err(Refusal::field("done", "must be true or false")),
        };
        Ok(Progress { wake_id: wake_id.to_owned(), generation, acks: acks(&body)?, done })
    }
}

fn acks(body: &Map<String, Value>) -> Result<Vec<(String, String)>, Refusal> {
    let list = match body.get("acks") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= STREAMS_MAX => list,
        Some(Value::Array(_)) => {
            return Err(Refusal::field("acks", format_args!("has more than {STREAMS_MAX} streams")));
        }
        Some(_) => return Err(Refusal::field("acks", "must be a list")),
    };
    let ack = |item: &Value| {
        let path = item.get("stream").or_else(|| item.get("path")).and_then(Value::as_str);
        let offset = item.get("offset").and_then(Value::as_str);
        let (Some(path), Some(offset)) = (path, offset) else {
            return Err(Refusal::field("acks", "must hold objects with the strings `stream` and `offset`"));
        };
        let path = path::normalize(path);
        let path = path.map_err(|bad| Refusal::field("acks", format_args!("has a stream that {bad}")))?;
        Ok((path, offset.to_owned()))
    };
    list.iter().map(ack).collect()
}

/// The name of the worker that claims.
pub(crate) fn worker(body: &[u8]) -> Result<String, Refusal> {
    let body = object(body)?;
    match string(&body, "worker")? {
        None => Err(Refusal::field("worker", "is missing: name who claims, so that others are told")),
        Some(name) if name.len() > WORKER_BYTES_MAX => {
            Err(Refusal::field("worker", format_args!("is longer than {WORKER_BYTES_MAX} bytes")))
        }
        Some(name) => Ok(name.to_owned()),
    }
}

/// A request without its token.
pub(crate) fn no_token() -> Refusal {
    Refusal::new(
        Code::TokenInvalid,
        "No token was sent. Send the one that came with the wake, as `Authorization: Bearer TOKEN`.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (body, param) in [
            ("{}", "wake_id"),
            (r#"{"wake_id":7}"#, "wake_id"),
            (r#"{"wake_id":"w"}"#, "generation"),
            (r#"{"wake_id":"w","generation":-1}"#, "generation"),
            (r#"{"wake_id":"w","generation":1,"done":1}"#, "done"),
            (r#"{"wake_id":"w","generation":1,"acks":{}}"#, "acks"),
            (r#"{"wake_id":"w","generation":1,"acks":[{"stream":"a"}]}"#, "acks"),
            (r#"{"wake_id":"w","generation":1,"acks":[{"stream":"","offset":"x"}]}"#, "acks"),
        ] {
            assert_eq!(Progress::parse(body.as_bytes()).unwrap_err().param, Some(param), "{body}");
        }
        for body in ["", "{}", r#"{"worker":""}"#, r#"{"worker":7}"#] {
            assert_eq!(worker(body.as_bytes()).unwrap_err().param, Some("worker"), "{body}");
        }
        assert_eq!(worker(br#"{"worker":"w-1"}"#).as_deref(), Ok("w-1"));
    }

    #[test]
    fn a_stream_may_be_called_a_path() {
        let body = br#"{"wake_id":"w","generation":1,"acks":[{"stream":"/a","offset":"x"},{"path":"b","offset":"y"}]}"#;
        let acks = Progress::parse(body).unwrap().acks;
        assert_eq!(acks, [("a".to_owned(), "x".to_owned()), ("b".to_owned(), "y".to_owned())]);
    }
}

//! One request of a batch: sent through a connection of its own to the front door, and its answer read as events.
//!
//! ```text
//!  SENDING ──► HEAD ── 2xx, event stream ──► EVENTS ── each event ──► out
//!                ├──── 2xx, text or JSON ──► WHOLE ─── one event ───► out
//!                └──── any other ──────────► WHOLE ─── its error ───► the outcome
//! ```
//!
//! Nothing is read that has no place to go: whoever polls it has passed on what came before. At most one event, or one
//! answer that is no stream, is held here.

use std::task::{Context, Poll, ready};

use memchr::memmem;
use serde_json::{Value, json};

use crate::proto::http1::body::BodyDecoder;
use crate::proto::http1::fields::{write_field, write_number};
use crate::proto::http1::response;
use crate::proto::openai::{ApiError, FirstContent, Seen, is_error};
use crate::proto::sse::{Events, write_event};
use crate::relay::attempt::retry::retry_after;
use crate::relay::context::Core;
use crate::relay::request::Request;
use crate::relay::request::outbound_headers::Left;
use crate::runtime::net::stream::Stream;

/// The largest event, or answer that is no stream.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How much of a stream is held back until it says something, where the first that does wins.
const HELD_BYTES_MAX: usize = 64 * 1024;

/// The mark of the end of a stream, which an outcome takes the place of.
const DONE: &[u8] = b"[DONE]";

/// A request on its way.
pub(crate) struct Item {
    /// Its place in the batch.
    pub(crate) index: usize,
    name: String,
    stream: Stream,
    request: Vec<u8>,
    sent: usize,
    phase: Phase,
    /// What may not be passed on before it is known who wins; none where there is no race, or it is won.
    held: Option<Vec<u8>>,
    /// It has said something.
    pub(crate) spoke: bool,
    outcome: Outcome,
}

enum Phase {
    Head { bytes: Vec<u8>, scanned: usize },
    Events(BodyDecoder, Events),
    Whole(BodyDecoder, Vec<u8>),
}

/// What became of a request.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Its status, if it was answered.
    pub(crate) status: Option<u16>,
    /// What went wrong, as an error of OpenAI's shape.
    pub(crate) error: Option<Value>,
    request_id: Option<String>,
    retry_after_ms: Option<u64>,
}

impl Item {
    /// Sends `request`, which is head and body. With `race`, nothing of the answer is passed on before it has won.
    pub(crate) fn new(index: usize, stream: Stream, request: Vec<u8>, race: bool) -> Item {
        Item {
            index,
            name: index.to_string(),
            stream,
            request,
            sent: 0,
            phase: Phase::Head { bytes: Vec::new(), scanned: 0 },
            held: race.then(Vec::new),
            spoke: false,
            outcome: Outcome::default(),
        }
    }

    /// It has won: what was held back goes to `out`, and nothing is from now on.
    pub(crate) fn win(&mut self, out: &mut Vec<u8>) {
        out.extend(self.held.take().unwrap_or_default());
    }

    /// One read, at most: ready when something has come, which is appended to `out`, and with the outcome when that was all.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        core: &Core,
        out: &mut Vec<u8>,
    ) -> Poll<Option<Outcome>> {
        self.send(cx);
        // No buffer while it waits.
        if ready!(self.stream.poll_read_ready(cx)).is_err() {
            return Poll::Ready(Some(self.broke_off(core)));
        }
        let mut block = core.shard.blocks.take();
        match ready!(self.stream.poll_read(cx, &mut block)) {
            Ok(read) if read > 0 => Poll::Ready(self.take(&mut block[..read], out, core)),
            _ => Poll::Ready(Some(self.broke_off(core))),
        }
    }

    /// Writes what the door takes. One that takes no more has answered: what it says counts.
    fn send(&mut self, cx: &mut Context<'_>) {
        while self.sent < self.request.len() {
            match self.stream.poll_write(cx, &self.request[self.sent..]) {
                Poll::Ready(Ok(more)) if more > 0 => self.sent += more,
                Poll::Ready(_) => break,
                Poll::Pending => return,
            }
        }
        (self.request, self.sent) = (Vec::new(), 0);
    }

    fn take(&mut self, bytes: &mut [u8], out: &mut Vec<u8>, core: &Core) -> Option<Outcome> {
        let Phase::Head { bytes: head, scanned } = &mut self.phase else {
            return self.body(bytes, out, core);
        };
        head.extend_from_slice(bytes);
        let end = match response::find_head_end(head, *scanned) {
            Ok(Some(end)) => end,
            Ok(None) => {
                *scanned = head.len();
                return None;
            }
            Err(_) => return Some(self.broke_off(core)),
        };
        let mut rest = head.split_off(end);
        let head = std::mem::take(head);
        match self.head(&head) {
            true if rest.is_empty() && !self.is_complete() => None,
            true => self.body(&mut rest, out, core),
            false => Some(self.broke_off(core)),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> bool {
        let Ok(head) = response::parse(bytes, false) else { return false };
        let field = |name| head.field(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let events = field("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
        self.outcome.status = Some(head.status);
        self.outcome.request_id = field("x-request-id");
        self.outcome.retry_after_ms = retry_after(head.field("retry-after-ms"), head.field("retry-after"));
        let decoder = BodyDecoder::from(head.body);
        self.phase = match events && head.status < 300 {
            true => Phase::Events(decoder, Events::default()),
            false => Phase::Whole(decoder, Vec::new()),
        };
        true
    }

    fn is_complete(&self) -> bool {
        match &self.phase {
            Phase::Head { .. } => false,
            Phase::Events(decoder, _) | Phase::Whole(decoder, _) => decoder.finished(),
        }
    }

    fn body(&mut self, bytes: &mut [u8], out: &mut Vec<u8>, core: &Core) -> Option<Outcome> {
        let (decoder, whole) = match &mut self.phase {
            Phase::Head { .. } => return None,
            Phase::Events(decoder, _) => (decoder, false),
            Phase::Whole(decoder, _) => (decoder, true),
        };
        let Ok(decoded) = decoder.decode_in_place(bytes) else { return Some(self.broke_off(core)) };
        let payload = &bytes[..decoded.payload];
        let fits = match &mut self.phase {
            Phase::Events(_, events) => {
                let mut events = std::mem::take(events);
                let fits = events.feed(payload, ANSWER_BYTES_MAX, |data| self.event(data, out)).is_ok();
                if let Phase::Events(_, place) = &mut self.phase {
                    *place = events;
                }
                fits
            }
            Phase::Whole(_, body) => {
                body.extend_from_slice(payload);
                body.len() <= ANSWER_BYTES_MAX
            }
            Phase::Head { .. } => true,
        };
        if !fits {
            return Some(self.fail(&too_large()));
        }
        if !decoded.ended {
            return None;
        }
        if whole {
            self.whole(out);
        }
        Some(std::mem::take(&mut self.outcome))
    }

    /// One event of its stream.
    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if data == DONE {
            return;
        }
        if !self.spoke || memmem::find(data, b"\"error\"").is_some() {
            match FirstContent::default().feed(&[b"data:", data, b"\n"].concat()) {
                Seen::Nothing => {}
                Seen::Content => self.spoke = true,
                Seen::Error => {
                    let event: Value = serde_json::from_slice(data).unwrap_or_default();
                    let errors = [&event["error"], &event["response"]["error"]];
                    self.outcome.error = errors.into_iter().find(|error| !error.is_null()).cloned();
                    if !event["error"].is_null() {
                        // The outcome tells it. The official SDKs raise at the first such event, and drop the whole stream.
                        return;
                    }
                }
            }
        }
        self.emit(data, out);
    }

    /// All of an answer that is no stream.
    fn whole(&mut self, out: &mut Vec<u8>) {
        let Phase::Whole(_, body) = &mut self.phase else { return };
        let body = std::mem::take(body);
        let status = self.outcome.status.unwrap_or_default();
        if status >= 300 {
            let told: Value = serde_json::from_slice(&body).unwrap_or_default();
            self.outcome.error = Some(match &told["error"] {
                Value::Null => {
                    let message =
                        format!("The upstream answered {status}: {}", String::from_utf8_lossy(&body));
                    object(&ApiError::new(status, "upstream_error", message))
                }
                error => error.clone(),
            });
        } else if is_error(&body) {
            let told: Value = serde_json::from_slice(&body).unwrap_or_default();
            self.outcome.error = Some(told["error"].clone());
        } else if std::str::from_utf8(&body).is_err() {
            self.outcome.error = Some(object(&not_text()));
        } else if !body.is_empty() {
            self.spoke = true;
            self.emit(&body, out);
        }
    }

    fn emit(&mut self, data: &[u8], out: &mut Vec<u8>) {
        let place = self.held.as_mut().unwrap_or(out);
        // A number cannot break out of its field.
        let _ = write_event(place, Some(&self.name), None, None, data);
        self.spoke |= self.held.as_ref().is_some_and(|held| held.len() > HELD_BYTES_MAX);
    }

    fn broke_off(&mut self, core: &Core) -> Outcome {
        match (self.outcome.status, &self.outcome.error) {
            // It has told why.
            (Some(_), Some(_)) => std::mem::take(&mut self.outcome),
            (None, _) if core.shared.is_draining() => self.fail(&ApiError::draining()),
            (None, _) => self.fail(&ApiError::overloaded()),
            (Some(_), None) => self.fail(&ApiError::upstream_closed()),
        }
    }

    fn fail(&mut self, error: &ApiError) -> Outcome {
        self.outcome.status.get_or_insert(error.status);
        self.outcome.error = Some(object(error));
        std::mem::take(&mut self.outcome)
    }
}

impl Outcome {
    /// Of a request that ends here, or was never sent.
    pub(crate) fn of(error: &ApiError) -> Outcome {
        Outcome { status: Some(error.status), error: Some(object(error)), ..Outcome::default() }
    }

    /// Of one that another was faster than.
    pub(crate) fn cancelled() -> Outcome {
        let error =
            ApiError::new(499, "cancelled", "Another request of the batch was the first with content.");
        Outcome { error: Some(object(&error)), ..Outcome::default() }
    }

    /// Whether it was answered, and without an error.
    pub(crate) fn is_good(&self) -> bool {
        self.error.is_none() && self.status.is_some_and(|status| status < 300)
    }

    /// The event that tells it. Its error does not stand at the top: there it would be the stream's own to the official SDKs.
    pub(crate) fn write(&self, index: usize, custom_id: Option<&str>, out: &mut Vec<u8>) {
        let mut told =
            json!({"index": index, "custom_id": custom_id, "status": self.status, "error": self.error});
        if let Some(id) = &self.request_id {
            told["request_id"] = id.as_str().into();
        }
        if let Some(ms) = self.retry_after_ms {
            told["retry_after_ms"] = ms.into();
        }
        let told = json!({ "outcome": told }).to_string();
        let _ = write_event(out, Some("outcome"), None, None, told.as_bytes());
    }
}

/// A request of the batch as a request of its own: the batch's fields, but for what is about its body, and its key.
pub(crate) fn request(batch: &Request, index: usize, url: &str, body: &[u8], left: Left) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024 + body.len());
    out.extend_from_slice(format!("POST {url} HTTP/1.1\r\n").as_bytes());
    let host = if batch.host().is_empty() { &b"localhost"[..] } else { batch.host() };
    write_field(&mut out, "Host", host);
    write_field(&mut out, "Connection", b"close");
    for line in batch.fields().split_inclusive(|&byte| byte == b'\n') {
        let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
        if !OWN_FIELDS.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes())) {
            out.extend_from_slice(line);
        }
    }
    batch.write_credentials(&mut out);
    write_field(&mut out, "X-Request-Id", format!("{}-{index}", batch.id).as_bytes());
    write_field(&mut out, "Traceparent", &batch.trace.traceparent());
    if let Some(ms) = left.total {
        write_number(&mut out, "X-Request-Timeout-Ms", ms);
    }
    if let Some(ms) = left.answer {
        write_field(&mut out, "X-Stainless-Timeout", (ms as f64 / 1000.0).to_string().as_bytes());
    }
    write_field(&mut out, "Content-Type", b"application/json");
    write_number(&mut out, "Content-Length", body.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    out
}

/// Fields of a batch that are about its own body, or make it one of a kind.
const OWN_FIELDS: [&str; 10] = [
    "content-type",
    "content-encoding",
    "content-length",
    "content-language",
    "content-md5",
    "accept",
    "origin",
    "sec-fetch-site",
    "idempotency-key",
    "expect",
];

fn object(error: &ApiError) -> Value {
    let mut body: Value = serde_json::from_slice(&error.body()).unwrap_or_default();
    body["error"].take()
}

fn too_large() -> ApiError {
    let message = format!(
        "An event of this answer, or the whole of it, is larger than {ANSWER_BYTES_MAX} bytes. Ask for it outside of a batch."
    );
    ApiError::new(502, "batch_answer_too_large", message)
}

fn not_text() -> ApiError {
    ApiError::new(
        502,
        "batch_answer_not_text",
        "This answer is not text, and events are. Ask for it outside of a batch.",
    )
}

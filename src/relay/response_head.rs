//! Heads towards the client: of an upstream's answer that is passed on, and of answers made here.

use super::context::Core;
use super::pump::Framing;
use super::request::Request;
use super::request::media_type::{essence, is_json};
use crate::admission::rate_fields::{self, Replaced};
use crate::proto::http1::Version;
use crate::proto::http1::fields::{Lines, write_field, write_number};
use crate::proto::http1::response::{ResponseBody, ResponseHead};
use crate::proto::openai::{Api, ApiError};

/// What a stream needs so that nothing between here and the client holds it back or stores it.
const CACHE_CONTROL: (&str, &[u8]) = ("Cache-Control", b"no-cache, no-transform");
const NO_BUFFERING: (&str, &[u8]) = ("X-Accel-Buffering", b"no");

/// What was learnt of an upstream's answer while its head was written anew.
#[derive(Default)]
pub(crate) struct Learnt {
    /// `text/event-stream`.
    pub(crate) events: bool,
    /// JSON.
    pub(crate) json: bool,
    /// It has a `Content-Encoding` other than identity.
    pub(crate) encoded: bool,
    /// The upstream's own name for the request.
    pub(crate) request_id: Option<String>,
    /// How long the upstream keeps its connection, in seconds.
    pub(crate) keep_alive: Option<u64>,
    /// Which of the upstream's rates are not told, since ours are tighter.
    pub(crate) replaced: Replaced,
}

/// Looks through an upstream's head.
pub(crate) fn learn(head: &ResponseHead<'_>) -> Learnt {
    let mut learnt = Learnt::default();
    for field in &head.fields {
        if field.is("content-type") {
            let essence = essence(field.value);
            learnt.events = essence.eq_ignore_ascii_case(b"text/event-stream");
            learnt.json = is_json(field.value);
        } else if field.is("content-encoding") {
            learnt.encoded = !field.value.eq_ignore_ascii_case(b"identity");
        } else if field.is("x-request-id") {
            learnt.request_id = Some(String::from_utf8_lossy(field.value).into_owned());
        } else if field.is("keep-alive") {
            learnt.keep_alive = keep_alive_timeout(field.value);
        }
    }
    learnt
}

/// How the client is told where an upstream's body ends: streams always in chunks, so that a missing last one tells; what
/// has a length keeps it.
pub(crate) fn framing(body: &ResponseBody, learnt: &Learnt, request: &Request) -> Framing {
    match body {
        ResponseBody::None => Framing::None,
        ResponseBody::Length(_) if !learnt.events => Framing::Length,
        _ if request.version == Version::Http10 => Framing::Close,
        _ => Framing::Chunked,
    }
}

/// Whether the client's connection can carry another request after this answer.
pub(crate) fn keeps(request: &Request, framing: Framing, core: &Core) -> bool {
    request.keep_alive && framing != Framing::Close && !core.shared.is_draining()
}

/// An upstream's head, as the client gets it.
pub(crate) fn relayed(
    head: &ResponseHead<'_>,
    learnt: &Learnt,
    request: &Request,
    framing: Framing,
    keep: bool,
    core: &Core,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    status_line(&mut out, head.status, head.reason);
    let mut dated = false;
    let mut lines = Lines::of(head.bytes);
    for field in head.forwarded() {
        dated |= field.is("date");
        let ours = learnt.events && (field.is(CACHE_CONTROL.0) || field.is(NO_BUFFERING.0))
            || request.kept_at.is_some() && (field.is("location") || field.is("stream-next-offset"))
            || request.cross_origin.is_some() && is_cross_origin(field.name)
            || request.degraded.is_some() && field.is("sedge-degraded")
            || learnt.replaced != [false; 2] && rate_fields::is_replaced(field.name, learnt.replaced);
        if !ours {
            lines.push(&mut out, field);
        }
    }
    lines.flush(&mut out);
    if !dated {
        write_field(&mut out, "Date", &core.date());
    }
    if learnt.request_id.is_none() {
        write_field(&mut out, "X-Request-Id", request.id.as_bytes());
    }
    if learnt.events {
        write_field(&mut out, CACHE_CONTROL.0, CACHE_CONTROL.1);
        write_field(&mut out, NO_BUFFERING.0, NO_BUFFERING.1);
    }
    match (framing, head.body) {
        (Framing::Chunked, _) => write_field(&mut out, "Transfer-Encoding", b"chunked"),
        (Framing::Length, ResponseBody::Length(length)) => {
            write_number(&mut out, "Content-Length", length);
        }
        // What a HEAD would have been told; not a length of anything here.
        (Framing::None, _) if request.is_head() || head.status == 304 => {
            if let Some(length) = head.content_length {
                write_number(&mut out, "Content-Length", length);
            }
        }
        _ => {}
    }
    of_the_edge(&mut out, request);
    connection(&mut out, request, keep);
    out.extend_from_slice(b"\r\n");
    out
}

/// The head of an event stream that is begun before the upstream has answered.
pub(crate) fn early(request: &Request, framing: Framing, keep: bool, core: &Core) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    status_line(&mut out, 200, "OK");
    write_field(&mut out, "Content-Type", b"text/event-stream; charset=utf-8");
    write_field(&mut out, "Date", &core.date());
    write_field(&mut out, "X-Request-Id", request.id.as_bytes());
    write_field(&mut out, CACHE_CONTROL.0, CACHE_CONTROL.1);
    write_field(&mut out, NO_BUFFERING.0, NO_BUFFERING.1);
    if framing == Framing::Chunked {
        write_field(&mut out, "Transfer-Encoding", b"chunked");
    }
    of_the_edge(&mut out, request);
    connection(&mut out, request, keep);
    out.extend_from_slice(b"\r\n");
    out
}

/// The head of an answer made here whose body is sent by itself. `lines` are its fields beside the usual ones; `length` is told
/// where there is one.
pub(crate) fn begin(
    status: u16,
    lines: &[u8],
    length: Option<u64>,
    framing: Framing,
    request: &Request,
    keep: bool,
    core: &Core,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(512 + lines.len());
    status_line(&mut out, status, reason(status));
    write_field(&mut out, "Date", &core.date());
    out.extend_from_slice(lines);
    if let Some(length) = length {
        write_number(&mut out, "Content-Length", length);
    }
    if framing == Framing::Chunked {
        write_field(&mut out, "Transfer-Encoding", b"chunked");
    }
    write_field(&mut out, "X-Request-Id", request.id.as_bytes());
    of_the_edge(&mut out, request);
    connection(&mut out, request, keep);
    out.extend_from_slice(b"\r\n");
    out
}

/// An answer made here.
pub(crate) struct Local<'a> {
    /// Its status.
    pub(crate) status: u16,
    /// `Content-Type`.
    pub(crate) content_type: &'a str,
    /// The body; a HEAD gets its length alone.
    pub(crate) body: &'a [u8],
    /// Fields beside the usual ones.
    pub(crate) fields: &'a [(&'a str, &'a str)],
}

impl Local<'_> {
    /// The whole answer, to one whose request was understood.
    pub(crate) fn write(&self, request: &Request, keep: bool, core: &Core) -> Vec<u8> {
        let mut out = self.head(core);
        write_field(&mut out, "X-Request-Id", request.id.as_bytes());
        if self.status >= 400 && request.api() == Api::Messages {
            // The name that Anthropic's SDKs know.
            write_field(&mut out, "Request-Id", request.id.as_bytes());
        }
        of_the_edge(&mut out, request);
        connection(&mut out, request, keep);
        out.extend_from_slice(b"\r\n");
        if !request.is_head() {
            out.extend_from_slice(self.body);
        }
        out
    }

    fn head(&self, core: &Core) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.body.len());
        status_line(&mut out, self.status, reason(self.status));
        // A 204 has no body, nor a length of one (RFC 9110, 8.6).
        if self.status != 204 {
            write_field(&mut out, "Content-Type", self.content_type.as_bytes());
            write_number(&mut out, "Content-Length", self.body.len() as u64);
        }
        write_field(&mut out, "Date", &core.date());
        for (name, value) in self.fields {
            write_field(&mut out, name, value.as_bytes());
        }
        out
    }
}

/// An error made here, as a whole answer.
pub(crate) fn error(error: &ApiError, request: &Request, keep: bool, core: &Core) -> Vec<u8> {
    let body = request.api().error_body(error, &request.id);
    let wait = Some(error.retry_after_ms).filter(|ms| *ms > 0);
    let wait = wait.map(|ms| [ms.div_ceil(1000), ms].map(|wait| wait.to_string()));
    let told =
        wait.as_ref().map(|[seconds, ms]| [("Retry-After", &seconds[..]), ("Retry-After-Ms", &ms[..])]);
    let fields = told.as_ref().map_or(error_fields(error), |fields| &fields[..]);
    Local { status: error.status, content_type: "application/json", body: &body, fields }
        .write(request, keep, core)
}

/// What an error says beside its body: how to authenticate (RFC 9110, 15.5.2), when to come again.
pub(crate) fn error_fields(error: &ApiError) -> &'static [(&'static str, &'static str)] {
    match error.status {
        401 => &[("WWW-Authenticate", "Bearer")],
        503 => &[("Retry-After", "1")],
        _ => &[],
    }
}

fn status_line(out: &mut Vec<u8>, status: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What the edge alone says to the client: who may read the answer, whether it is the one that was asked for, and what is left
/// of its limits.
fn of_the_edge(out: &mut Vec<u8>, request: &Request) {
    if let Some(degraded) = request.degraded {
        write_field(out, "Sedge-Degraded", degraded.label().as_bytes());
    }
    out.extend_from_slice(request.kept_at.as_deref().unwrap_or_default());
    out.extend_from_slice(request.cross_origin.as_deref().unwrap_or_default());
    if let Some(lines) = request.account().and_then(|account| account.fields.as_deref()) {
        out.extend_from_slice(lines);
    }
}

/// Whether `name` tells browsers about pages of other origins: where the edge does, an upstream's own word is dropped.
fn is_cross_origin(name: &str) -> bool {
    name.get(..15).is_some_and(|start| start.eq_ignore_ascii_case("access-control-"))
}

fn connection(out: &mut Vec<u8>, request: &Request, keep: bool) {
    match (keep, request.version) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, Version::Http10) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, Version::Http11) => {}
    }
}

/// The reason phrases of the statuses that are made here (RFC 9110, 15).
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// `timeout=N` of a `Keep-Alive` field.
fn keep_alive_timeout(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parameters = text.split(',').filter_map(|parameter| parameter.trim().split_once('='));
    parameters
        .find(|(name, _)| name.eq_ignore_ascii_case("timeout"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok())
}

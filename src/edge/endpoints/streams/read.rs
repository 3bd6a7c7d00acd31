//! GET and HEAD: where a reader stands, and what there is for it.

use std::sync::Arc;

use bytes::Bytes;

use super::compression::{self, Coded, LAST_CHUNK};
use super::reply::Reply;
use super::target::Query;
use super::write::{bad, field};
use super::{Answer, Visit, live};
use crate::downstream::outbox::write_block;
use crate::proto::http1::coding::Coding;
use crate::proto::http1::fields::write_field;
use crate::proto::openai::ApiError;
use crate::relay::pump::Framing;
use crate::relay::request::Request;
use crate::relay::request_record::Ledger;
use crate::relay::response_head;
use crate::streams::fanout::encode::End;
use crate::streams::fanout::view::View;
use crate::streams::store::payload_reader;
use crate::streams::{Extent, Form, Start, Stream, Unreadable};
use crate::upstream::client::Stop;

/// The most bytes of one answer; a reader of more asks again.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Bytes that are read and written at a time, and so the most that is held for a reader whose socket does not take them.
const PART_BYTES: u64 = 60 << 10;

/// `HEAD`: what is known of a stream.
pub(crate) fn describe(stream: &Stream) -> Reply {
    let status = stream.status();
    Reply::new(200)
        .field("Content-Type", stream.kind.as_str())
        .field("Cache-Control", "no-store")
        .next(stream, status.tail)
        .lifetime(&stream.lifetime)
        .closed_if(status.closed)
}

/// How a reader wants to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    CatchUp,
    LongPoll,
    Events(View),
}

/// Whether a reader waits for what is yet to come.
pub(crate) fn follows(request: &Request, query: &Query) -> bool {
    query.live.is_some() || request.field_values("accept").any(accepts_events)
}

/// Whether it is an EventSource that asks.
pub(crate) fn is_browser(request: &Request, query: &Query) -> bool {
    query.live.is_none() && follows(request, query)
}

/// `GET`.
pub(crate) async fn read(visit: &Visit<'_>, stream: &Arc<Stream>, query: &Query) -> Result<Answer, ApiError> {
    let header = field(visit.request, "last-event-id")?;
    let last_event = header.or(query.last_event_id.as_deref()).filter(|id| !id.is_empty());
    let accepts_events = visit.request.field_values("accept").any(accepts_events);
    let is_browser = last_event.is_some() || accepts_events && query.live.is_none();
    let mode = match query.live.as_deref() {
        None if accepts_events => Mode::Events(View::EventSource),
        None if resumes_response(visit.request, stream, query) => match last_event {
            None => Mode::Events(View::Verbatim),
            Some(_) => Mode::Events(View::EventSource),
        },
        None => Mode::CatchUp,
        Some("long-poll") => Mode::LongPoll,
        Some("sse") => Mode::Events(View::Protocol),
        Some(_) => return Err(bad("live", "is neither `long-poll` nor `sse`")),
    };
    let asked = last_event.or(query.offset.as_deref());
    if asked.is_none() && query.live.is_some() {
        return Err(bad("offset", "is missing: what is yet to come is read from a position"));
    }
    // An EventSource that is refused never comes back, so it is told in-band.
    let resets = is_browser && matches!(mode, Mode::Events(_));
    let mut reset = None;
    let mut reset_to = |reason| {
        reset = Some((reason, asked.unwrap_or_default().to_owned()));
        stream.status().start
    };
    let start = asked.map_or(Ok(Start::Beginning), str::parse::<Start>);
    let position = match start {
        Err(_) if resets => reset_to("unknown"),
        Err(error) => return Err(bad("offset", &format!("cannot be used: {error}"))),
        Ok(start) => match stream.position(start) {
            Ok(position) => position,
            Err(Unreadable::Deleted) => return Err(visit.missing()),
            Err(unreadable) if resets => reset_to(reason(unreadable)),
            Err(Unreadable::Within) => return Err(bad("offset", "leads into the middle of a message")),
            Err(unreadable) => return Ok(Answer::Reply(gone(unreadable))),
        },
    };
    let cursor = match query.cursor.as_deref() {
        None => None,
        // Another server's word: whatever it was, ours goes on from here.
        Some(cursor) => cursor.parse().ok(),
    };
    match mode {
        Mode::CatchUp if start == Ok(Start::Now) => Ok(Answer::Reply(now_only(stream, position))),
        Mode::CatchUp => range(visit, stream, position, None),
        Mode::LongPoll => live::poll(visit, stream, position, cursor).await,
        Mode::Events(view) => {
            let holds_events = stream.kind.is("text/event-stream") && view == View::EventSource;
            let view = if holds_events { View::Published } else { view };
            let is_over = is_browser && reset.is_none() && live::is_over(visit, stream, position, view).await;
            Ok(match is_over {
                true => live::stay_away(stream),
                false => live::follow(visit, stream, position, cursor, view, reset),
            })
        }
    }
}

/// Whether a response that is still being made is to be streamed on as it was: SDKs resume it with a GET of its address that says
/// nothing about how. One that asks from an offset, or for something else, speaks the protocol.
fn resumes_response(request: &Request, stream: &Stream, query: &Query) -> bool {
    let accepts_all = |accept: &[u8]| {
        accept.split(|&byte| byte == b',').any(|one| {
            one.split(|&byte| byte == b';').next().is_some_and(|essence| essence.trim_ascii() == b"*/*")
        })
    };
    let mut accepts = request.field_values("accept").peekable();
    let says_nothing = accepts.peek().is_none() || accepts.any(accepts_all);
    let is_open = || stream.generated && !stream.status().closed;
    query.offset.is_none() && says_nothing && is_open()
}

fn accepts_events(accept: &[u8]) -> bool {
    let mut types = accept.split(|&byte| byte == b',');
    types.any(|one| {
        let essence = one.split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

/// The word for it in a `reset` event.
pub(crate) fn reason(unreadable: Unreadable) -> &'static str {
    match unreadable {
        Unreadable::Epoch(_) => "epoch",
        Unreadable::Ahead(_) => "ahead",
        Unreadable::Trimmed(_) => "trimmed",
        Unreadable::Within | Unreadable::Deleted => "unknown",
    }
}

fn gone(unreadable: Unreadable) -> Reply {
    let (why, earliest) = match unreadable {
        Unreadable::Epoch(earliest) => ("belongs to a log that is gone", earliest),
        Unreadable::Ahead(earliest) => ("lies beyond the end of the stream", earliest),
        Unreadable::Trimmed(earliest) => ("is no longer kept", earliest),
        Unreadable::Within | Unreadable::Deleted => unreachable!("these were answered before"),
    };
    let message = format!("The position {why}. The first that can be read is {earliest}.");
    Reply::error(&ApiError::new(410, "offset_gone", message))
        .field("Stream-Earliest-Offset", &earliest.to_string())
}

/// What is there from now on: nothing yet (PROTOCOL.md, section 8).
fn now_only(stream: &Stream, tail: u64) -> Reply {
    let status = stream.status();
    let body: &'static [u8] = if stream.kind.form == Form::Json { b"[]" } else { b"" };
    Reply::new(200)
        .field("Content-Type", stream.kind.as_str())
        .field("Cache-Control", "no-store")
        .field("Vary", compression::VARY)
        .next(stream, tail)
        .field("Stream-Up-To-Date", "true")
        .closed_if(status.closed && status.tail == tail)
        .body(Bytes::from_static(body))
}

/// A part of a stream on its way.
pub(crate) struct Range {
    stream: Arc<Stream>,
    from: u64,
    next: u64,
    reply: Reply,
    coded: Option<Box<Coded>>,
}

/// All there is from `position` on, or as much as one answer holds; with a cursor, what a long-poll is answered with.
pub(crate) fn range(
    visit: &Visit<'_>,
    stream: &Arc<Stream>,
    position: u64,
    cursor: Option<u64>,
) -> Result<Answer, ApiError> {
    let extent = stream.extent(position, ANSWER_BYTES_MAX).map_err(|_| visit.missing())?;
    let coded = Coded::of_range(visit, stream.kind.as_str(), extent.next - position);
    let coding = coded.as_deref().map_or(Coding::Identity, Coded::coding);
    let etag = etag(stream, position, &extent, coding);
    let described = |reply: Reply| {
        let reply = described(visit, reply, stream, &extent, cursor.is_some()).field("ETag", &etag);
        if let Some(cursor) = cursor { reply.number("Stream-Cursor", cursor) } else { reply }
    };
    if visit.request.field_value("if-none-match").is_some_and(|wanted| names(wanted, &etag)) {
        return Ok(Answer::Reply(described(Reply::new(304))));
    }
    let mut reply = described(Reply::new(200)).field("Content-Type", stream.kind.as_str());
    compression::write_coding(&mut reply.lines, coding);
    Ok(Answer::Range(Range { stream: Arc::clone(stream), from: position, next: extent.next, reply, coded }))
}

fn described(visit: &Visit<'_>, reply: Reply, stream: &Stream, extent: &Extent, is_polled: bool) -> Reply {
    let caching = caching(visit, stream, extent, is_polled);
    let mut reply = reply.field("Cache-Control", caching).next(stream, extent.next);
    reply = reply.closed_if(extent.closed);
    compression::write_vary(&mut reply.lines, compression::varies(visit));
    if extent.up_to_date { reply.field("Stream-Up-To-Date", "true") } else { reply }
}

/// Caching policy of a part. One that ends where a stream does now is another one soon, and that a stream is gone is known by
/// asking: it may be kept, and is asked for each time. Others never change. Those who poll at the same place share a response for as
/// long as the cursor stands (PROTOCOL.md, 10.1).
fn caching(visit: &Visit<'_>, stream: &Stream, extent: &Extent, is_polled: bool) -> &'static str {
    let is_final = extent.closed || !extent.up_to_date;
    // Where there are keys, a response is for whoever showed one.
    let is_private = stream.owner.is_some() || visit.request.holder().is_some();
    match (is_final, is_private) {
        // The address ends, and nobody but its holder is to read by it.
        _ if super::is_signed(visit.request, visit.core) => "private, no-store",
        (true, true) => "private, max-age=60, stale-while-revalidate=300",
        (true, false) => "public, max-age=60, stale-while-revalidate=300",
        (false, true) => "private, no-cache",
        (false, false) if is_polled => "public, max-age=20",
        (false, false) => "no-cache",
    }
}

/// What an answer is known by: what it holds, whether that is the end, and how it is coded.
fn etag(stream: &Stream, from: u64, extent: &Extent, coding: Coding) -> String {
    let closed = if extent.closed { ":c" } else { "" };
    let coded = if coding == Coding::Identity { String::new() } else { format!(":{}", coding.name()) };
    format!("\"{:x}-{:x}:{from}:{}{closed}{coded}\"", stream.epoch, stream.id, extent.next)
}

/// Whether `If-None-Match` names that tag (RFC 9110, 13.1.2).
fn names(wanted: &[u8], etag: &str) -> bool {
    let weak = |tag: &[u8]| tag.strip_prefix(b"W/").unwrap_or(tag) == etag.as_bytes();
    wanted.trim_ascii() == b"*" || wanted.split(|&byte| byte == b',').any(|tag| weak(tag.trim_ascii()))
}

impl Range {
    /// Sends it, part by part: what was announced, or a connection that breaks off. Of what waits for the socket one part is held,
    /// and it is read when the one before has gone out.
    pub(crate) async fn send(mut self, visit: &Visit<'_>, ledger: &mut Ledger) -> (Result<(), Stop>, bool) {
        let framing = if self.coded.is_some() { Framing::Chunked } else { Framing::Length };
        let keep = visit.keeps(framing, false);
        let is_json = self.stream.kind.form == Form::Json;
        let payload = self.next - self.from;
        let length = match is_json {
            false => payload,
            // The last comma gives way to two brackets.
            true if payload > 0 => payload + 1,
            true => 2,
        };
        ledger.status = 200;
        let (core, request) = (visit.core, visit.request);
        let told = self.coded.is_none().then_some(length);
        let mut out = response_head::begin(200, &self.reply.lines, told, framing, request, keep, core);
        let head_bytes = out.len() as u64;
        let mut at = self.from;
        loop {
            let is_first = at == self.from;
            let mut part: Vec<Bytes> = Vec::new();
            if is_json && is_first {
                part.push(Bytes::from_static(b"["));
            }
            if at < self.next {
                let until = self.next.min(at.saturating_add(PART_BYTES));
                let Ok(page) = self.stream.page(at, until, PART_BYTES) else {
                    return (Err(Stop::Gone), false);
                };
                let Ok(pieces) = payload_reader::bytes(visit.streams(), &page.pieces).await else {
                    return (Err(Stop::Gone), false);
                };
                at = page.next;
                part.extend(pieces);
                if let Some(last) = part.last_mut().filter(|_| is_json && at == self.next) {
                    last.truncate(last.len() - 1);
                }
            }
            let is_last = at >= self.next;
            if is_json && is_last {
                part.push(Bytes::from_static(b"]"));
            }
            if let Some(coded) = &mut self.coded {
                let count = part.len();
                for (place, bytes) in part.drain(..).enumerate() {
                    let end = if is_last && place + 1 == count { End::Finish } else { End::More };
                    coded.chunk(&bytes, end, &mut out);
                }
                if is_last {
                    out.extend_from_slice(LAST_CHUNK);
                }
            }
            let all = out.len() + part.iter().map(Bytes::len).sum::<usize>();
            ledger.bytes_out += all as u64 - if is_first { head_bytes } else { 0 };
            let mut block = core.shard.blocks.take_large(all);
            let mut end = 0;
            for bytes in std::iter::once(&out[..]).chain(part.iter().map(|bytes| &bytes[..])) {
                block[end..end + bytes.len()].copy_from_slice(bytes);
                end += bytes.len();
            }
            (out, part) = (Vec::new(), Vec::new());
            drop(part);
            let sent = if end == 0 { Ok(()) } else { write_block(visit.client, block, end).await };
            if is_last || sent.is_err() {
                let keep = keep && sent.is_ok();
                return (sent, keep);
            }
        }
    }
}

/// The head of an event stream that is made here.
pub(crate) fn events_head(visit: &Visit<'_>, stream: Option<&Stream>, coded: Option<&Coded>) -> Vec<u8> {
    let mut reply = Reply::new(200);
    for (name, value) in [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-cache, no-transform"),
        ("X-Accel-Buffering", "no"),
    ] {
        write_field(&mut reply.lines, name, value.as_bytes());
    }
    if stream.is_some_and(|stream| stream.kind.form == Form::Binary) {
        write_field(&mut reply.lines, "Stream-SSE-Data-Encoding", b"base64");
    }
    let coding = coded.map_or(Coding::Identity, Coded::coding);
    compression::write_coding(&mut reply.lines, coding);
    compression::write_vary(&mut reply.lines, compression::events_vary(visit));
    reply.lines
}

//! What is yet to come: an answer that waits for it, or events as it comes.
//!
//! ```text
//!  behind ──events (16 KiB a time, read from the log)──► told all ──wait──┐
//!     ▲                                                    │  │ closed: said, and the answer ends
//!     └──────────────── news ──────────────────────────────┘◄─┘
//! ```
//!
//! Who has been told all waits ([`super::event_reader`]) with a seat at the hub and a position, and nothing else; who comes from
//! the same position gets the same bytes, which were written once. Heartbeats are the wheel's.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::compression::{Coded, LAST_CHUNK};
use super::event_reader::{Reader, Start, Who, Worked};
use super::reply::Reply;
use super::{Answer, Visit, authority, cache_cursor, read};
use crate::downstream::connection::Client;
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::write_all;
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::exchange::millis;
use crate::relay::pump::Framing;
use crate::runtime::clock::unix_millis;
use crate::streams::fanout::encode::End;
use crate::streams::fanout::events::{Events, payload};
use crate::streams::fanout::view::{Published, View, holds_event};
use crate::streams::store::payload_reader;
use crate::streams::{Seat, Stream};
use crate::upstream::client::Stop;

/// How long a browser is to wait before it comes again, in milliseconds: somewhere between these, so that all those that were
/// cut at the same moment do not come back at the same moment.
const RETRY_MS: std::ops::Range<u64> = 1000..5000;

/// Any time to wait within [`RETRY_MS`].
pub(crate) fn retry_ms(core: &Core) -> u32 {
    (RETRY_MS.start + core.chance() % (RETRY_MS.end - RETRY_MS.start)) as u32
}

/// Nothing yet, and when to come again: an EventSource gives up for good on any status that says that something is amiss.
pub(crate) fn come_again(visit: &Visit<'_>) -> Reply {
    let events = retry(visit.core);
    let reply = Reply::new(200).field("Content-Type", "text/event-stream");
    reply
        .field("Cache-Control", "no-cache, no-transform")
        .body(Bytes::copy_from_slice(&events[payload(&events)]))
}

/// Waits for news; what came of it.
async fn news(visit: &Visit<'_>, seat: &Seat, position: u64) -> Result<(), Stop> {
    poll_fn(|cx| poll_seat(cx, visit.client, visit.core, seat, position)).await
}

fn poll_seat(
    cx: &mut Context<'_>,
    client: &Client,
    core: &Core,
    seat: &Seat,
    position: u64,
) -> Poll<Result<(), Stop>> {
    seat.listen(cx);
    poll_news(cx, client, core, || seat.stream().has_news(position))
}

/// Ready when there is something new, a limit has passed, the client has left, or the process is going down.
pub(crate) fn poll_news(
    cx: &mut Context<'_>,
    client: &Client,
    core: &Core,
    is_new: impl Fn() -> bool,
) -> Poll<Result<(), Stop>> {
    if let Poll::Ready(timeout) = client.poll_expired(cx) {
        return Poll::Ready(Err(Stop::Timeout(timeout)));
    }
    if is_new() {
        return Poll::Ready(Ok(()));
    }
    if core.shared.is_draining() {
        return Poll::Ready(Err(Stop::Timeout(Timeout::Drain)));
    }
    // A heartbeat of which the socket has not taken all.
    if client.is_blocked() && ready!(client.poll_pending(cx)).is_err() {
        return Poll::Ready(Err(Stop::Gone));
    }
    client.poll_gone(cx).map(|()| Err(Stop::Gone))
}

/// `live=long-poll`: what there is, or what comes within the time for it.
pub(crate) async fn poll(
    visit: &Visit<'_>,
    stream: &Arc<Stream>,
    position: u64,
    theirs: Option<u64>,
) -> Result<Answer, ApiError> {
    let next = |visit: &Visit<'_>| cache_cursor::next(unix_millis(), theirs, visit.core.chance());
    let status = stream.status();
    if position < status.tail {
        return read::range(visit, stream, position, Some(next(visit)));
    }
    if !status.closed {
        let client = visit.client;
        let limit = millis(visit.core.settings().config.streams.long_poll);
        let seat = visit.hub().sit(stream);
        client.deadlines.phase(Timeout::KeepAlive, visit.core.shard.clock.millis(), limit);
        client.arm();
        let waited = news(visit, &seat, position).await;
        client.deadlines.no_phase();
        match waited {
            // If nobody is there to be told, what is written is found not to arrive.
            Ok(()) => {}
            Err(stop) => authority::check(visit, &stop)?,
        }
        if !stream.is_present() {
            return Err(visit.missing());
        }
    }
    let status = stream.status();
    if position < status.tail {
        return read::range(visit, stream, position, Some(next(visit)));
    }
    let mut reply = Reply::new(204)
        .field("Cache-Control", "no-store")
        .next(stream, status.tail)
        .field("Stream-Up-To-Date", "true")
        .closed_if(status.closed);
    if !status.closed {
        reply = reply.number("Stream-Cursor", next(visit));
    }
    Ok(Answer::Reply(reply))
}

/// A reader of events.
pub(crate) struct Follower {
    pub(crate) seat: Seat,
    pub(crate) position: u64,
    /// Cursors it is told are not less.
    pub(crate) floor: u64,
    /// What others were told too and its socket has not taken, and how much of it that has.
    pub(crate) left: Option<Box<(Bytes, usize)>>,
    pub(crate) view: View,
    /// It has not been told when to come again in an event with data.
    fresh: bool,
    /// The event that it has a part of, of a stream that holds events.
    pub(crate) within: Published,
}

/// What is out of the ordinary about how a reader begins.
#[derive(Default)]
pub(crate) struct Odd {
    pub(crate) reset: Option<(&'static str, String)>,
    /// Of an answer, only events after the one of this number.
    pub(crate) after: Option<u64>,
}

/// An answer from its first event after the one numbered `after`, as its maker has called for it.
pub(crate) fn replay(visit: &Visit<'_>, stream: &Arc<Stream>, after: Option<u64>) -> Answer {
    let follower = Follower::new(visit.hub().sit(stream), stream.status().start, 0, View::Verbatim);
    Answer::Events(Box::new(Who::One(follower, Odd { reset: None, after })))
}

/// The one answer after which an EventSource does not come again.
pub(crate) fn stay_away(stream: &Stream) -> Answer {
    let reply = Reply::new(204).field("Cache-Control", "no-store").next(stream, stream.status().tail);
    Answer::Reply(reply.closed_if(true))
}

/// The longest end of a stream of events that is looked through for events, in bytes: as much as a kept response has at most without
/// one.
const END_BYTES_MAX: u64 = 1 << 20;

/// Whether nothing comes after `position` that an EventSource would notice: of a stream that holds events, comments and an event
/// without its blank line are nothing, and no id stands for them. An EventSource that was told them would come back for ever.
pub(crate) async fn is_over(visit: &Visit<'_>, stream: &Stream, position: u64, view: View) -> bool {
    let status = stream.status();
    if !status.closed || position >= status.tail || view != View::Published {
        return status.closed && position >= status.tail;
    }
    if status.tail - position > END_BYTES_MAX {
        return false;
    }
    let Ok(page) = stream.page(position, u64::MAX, u64::MAX) else { return false };
    match payload_reader::bytes(visit.streams(), &page.pieces).await {
        Ok(parts) => page.closed && !holds_event(parts.concat()),
        Err(_) => false,
    }
}

/// Events from `position` on.
pub(crate) fn follow(
    visit: &Visit<'_>,
    stream: &Arc<Stream>,
    position: u64,
    theirs: Option<u64>,
    view: View,
    reset: Option<(&'static str, String)>,
) -> Answer {
    let floor = match theirs {
        Some(_) => cache_cursor::next(unix_millis(), theirs, visit.core.chance()),
        None => 0,
    };
    let follower = Follower::new(visit.hub().sit(stream), position, floor, view);
    Answer::Events(Box::new(Who::One(follower, Odd { reset, after: None })))
}

impl Follower {
    pub(crate) fn new(seat: Seat, position: u64, floor: u64, view: View) -> Follower {
        let within = Published::default();
        Follower { seat, position, floor, left: None, view, fresh: true, within }
    }

    /// Whether the next events are told otherwise than to the others: with something beside them (clients of an answer take a
    /// field alone for an event), or from within one.
    pub(crate) fn is_apart(&self) -> bool {
        self.fresh && self.view != View::Verbatim || self.is_within()
    }

    /// Whether it has a part of an event, into which nothing else may come.
    pub(crate) fn is_within(&self) -> bool {
        self.within.is_open()
    }
}

/// Tells a reader what there is, up to where it can wait with many others, or to its end: one that is compressed has a course of
/// its own.
pub(crate) async fn tell(
    mut follower: Follower,
    mut odd: Odd,
    start: Option<Start>,
    reader: &Reader,
) -> Worked {
    let Reader { client, core, framing, .. } = reader;
    let (mut first, mut coded) = start.map_or((None, None), |start| (Some(start.head), start.coded));
    let mut begun = None;
    Box::pin(odd.seek(&mut follower, reader)).await?;
    loop {
        let made = follower.frame(&mut odd, begun, reader).await;
        let is_between = begun.is_none() && !follower.view.is_of_events();
        if made.is_err() && is_between && !follower.seat.stream().is_present() {
            let gone = follower.seat.stream().offset(follower.position);
            return tell_gone(&gone.to_string(), Start { head: first.unwrap_or_default(), coded }, reader)
                .await;
        }
        let (mut frame, within) = made?;
        (follower.within, begun) = (within.published, within.begun);
        let all = std::mem::take(&mut frame.bytes);
        let bytes = match framing {
            _ if all.is_empty() || coded.is_some() => all,
            Framing::Close => all.slice(payload(&all)),
            _ => all,
        };
        let length = bytes.len() as u64;
        let is_fresh = follower.fresh && frame.next > follower.position;
        match (first.take(), &mut coded) {
            (head, Some(coded)) => {
                let is_fresh =
                    (is_fresh || head.is_some()) && follower.view != View::Verbatim && !bytes.is_empty();
                let mut out = head.unwrap_or_default();
                if is_fresh {
                    let retry = retry(core);
                    coded.chunk(&retry[payload(&retry)], End::More, &mut out);
                }
                coded.chunk(&bytes[payload(&bytes)], End::Flush, &mut out);
                drop(bytes);
                reader.count(0, out.len() as u64);
                send(client, &reader.streams().count(out)).await
            }
            (Some(head), None) => begin(&follower, reader, head, bytes).await,
            (None, None) if is_fresh => begin(&follower, reader, Vec::new(), bytes).await,
            (None, None) if bytes.is_empty() => Ok(()),
            (None, None) => send(client, &bytes).await,
        }?;
        reader.count(u64::from(begun.is_none()), if coded.is_none() { length } else { 0 });
        core.metrics.stream_deliveries.add(frame.appends.into());
        follower.fresh &= frame.next == follower.position;
        follower.position = frame.next;
        if frame.closed {
            break;
        }
        if !frame.up_to_date {
            continue;
        }
        drop(frame);
        let Some(coded) = &mut coded else {
            // Only with the first of the frames there was something odd about it.
            return Ok(Some(follower));
        };
        let mut news = |cx: &mut Context<'_>| poll_seat(cx, client, core, &follower.seat, follower.position);
        let waited = match follower.is_within() {
            true => poll_fn(news).await,
            false => coded.wait(client, core, &mut news).await,
        };
        match waited {
            Ok(()) => {}
            // Between two events, and to be told apart from an end: it comes back and reads on.
            Err(Stop::Timeout(Timeout::Drain)) if !client.is_blocked() => break,
            Err(stop) => return Err(stop),
        }
    }
    end(coded, reader).await.map(|()| None)
}

/// Tells a reader that the stream is not there any more, which is the end.
async fn tell_gone(place: &str, start: Start, reader: &Reader) -> Worked {
    let Start { head: mut out, mut coded } = start;
    let mut events = Events::default();
    events.gone(place);
    let chunk = events.finish();
    match &mut coded {
        Some(coded) => coded.chunk(&chunk[payload(&chunk)], End::Flush, &mut out),
        None if reader.framing == Framing::Close => out.extend_from_slice(&chunk[payload(&chunk)]),
        None => out.extend_from_slice(&chunk),
    }
    reader.count(1, out.len() as u64);
    send(&reader.client, &reader.streams().count(out)).await?;
    end(coded, reader).await.map(|()| None)
}

/// Ends an answer as one that is whole.
pub(crate) async fn end(coded: Option<Box<Coded>>, reader: &Reader) -> Result<(), Stop> {
    if reader.framing != Framing::Chunked {
        return Ok(());
    }
    let Some(mut coded) = coded else {
        return send(&reader.client, &Bytes::from_static(LAST_CHUNK)).await;
    };
    let mut out = Vec::new();
    coded.chunk(b"", End::Finish, &mut out);
    out.extend_from_slice(LAST_CHUNK);
    write_all(&reader.client, &reader.core.shard, &out).await
}

/// When to come again, in a chunk.
fn retry(core: &Core) -> Vec<u8> {
    let mut events = Events::default();
    events.retry(retry_ms(core));
    events.finish()
}

/// Sends the first events, in one write with the head, and with them when to come again.
async fn begin(follower: &Follower, reader: &Reader, mut out: Vec<u8>, bytes: Bytes) -> Result<(), Stop> {
    // Clients of an answer take a field alone for an event; a browser's first event is soon there.
    if follower.view != View::Verbatim && !bytes.is_empty() {
        let retry = retry(&reader.core);
        match reader.framing {
            Framing::Close => out.extend_from_slice(&retry[payload(&retry)]),
            _ => out.extend_from_slice(&retry),
        }
    }
    out.extend_from_slice(&bytes);
    drop(bytes);
    send(&reader.client, &reader.streams().count(out)).await
}

/// Writes bytes that others read as well.
pub(crate) async fn send(client: &Client, bytes: &Bytes) -> Result<(), Stop> {
    let mut written = 0;
    poll_fn(|cx| {
        if let Poll::Ready(timeout) = client.poll_expired(cx) {
            return Poll::Ready(Err(Stop::Timeout(timeout)));
        }
        while written < bytes.len() {
            match ready!(client.poll_write(cx, &bytes[written..])) {
                Ok(more) => written += more,
                Err(_) => return Poll::Ready(Err(Stop::Gone)),
            }
        }
        client.poll_pending(cx).map_err(|_| Stop::Gone)
    })
    .await
}

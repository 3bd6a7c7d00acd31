//! Several streams on one connection: `GET /v1/stream?name=a&name=b`, since a browser has six connections to one server.
//!
//! Each event says which stream it is of, and its id stands for a place in all of them: the place of its record among all
//! appends to all streams. They are told in that order, so whoever comes back with an id has had everything up to it, of every
//! stream, and nothing after it.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;

use super::following::{Reader, Start as Begin, Who};
use super::live::{end, poll_news, retry_ms, send};
use super::place::{self, Place};
use super::reply::Reply;
use super::target::Query;
use super::write::{bad, field};
use super::{Answer, Visit};
use crate::openai::ApiError;
use crate::relay::ask::Stop;
use crate::relay::deadline::Timeout;
use crate::relay::download::Framing;
use crate::relay::exchange::millis;
use crate::relay::writing::{Beat, write_all};
use crate::shard::clock::Millis;
use crate::stream::encode::End;
use crate::stream::events::{Events, payload};
use crate::stream::{Offset, Piece, Seat, Start, Stream, Streams, Unreadable, cold};

/// What is read of each stream at a time, in bytes.
const BATCH_BYTES: u64 = 16 << 10;

/// How long to wait before Redis is asked again, in milliseconds.
const AWAY_MS: Millis = 500;

/// A reader of several streams.
pub(super) struct Followers {
    each: Vec<(Seat, u64)>,
    /// Up to where it has had everything.
    order: u64,
    /// It has had so many bytes of the append in this place.
    part: (u64, u32),
    /// Up to here it knows that there is nothing any more but what is told.
    told: u64,
    reset: Option<(&'static str, String)>,
}

/// Events of all streams that are named, from where the reader was.
pub(super) async fn follow(visit: &Visit<'_>, query: &Query) -> Result<Answer, ApiError> {
    if query.live.as_deref().is_some_and(|live| live != "sse") {
        return Err(bad("live", "can only be `sse` with several streams"));
    }
    let mut streams: Vec<Arc<Stream>> = Vec::with_capacity(query.names.len());
    for name in &query.names {
        let stream = visit.find_to_read(name, true).await?;
        if !streams.iter().any(|other| other.id == stream.id) {
            streams.push(stream);
        }
    }
    let header = field(visit.request, "last-event-id")?;
    let last_event = header.or(query.last_event_id.as_deref()).filter(|id| !id.is_empty());
    let asked = last_event.or(query.offset.as_deref());
    let (start, within, told) = match asked.map(place::read) {
        None => (Start::Beginning, 0, 0),
        Some(Ok(place)) => place,
        Some(Err(error)) => return Err(bad("offset", &format!("cannot be used: {error}"))),
    };
    let mut followers = Followers { each: Vec::new(), order: 0, part: (0, 0), told, reset: None };
    // Asked before it is looked where they begin: what is given up in between is told.
    let gone = streams.iter().map(|stream| stream.lost()).max().unwrap_or(0);
    let (epoch, order) = visit.streams().place();
    let after = match start {
        Start::Beginning => Some(0),
        Start::Now => Some(order),
        Start::At(offset) if offset.epoch != epoch => None,
        Start::At(offset) if offset.position > order => None,
        Start::At(offset) => Some(offset.position),
    };
    let mut lost = after.is_none().then_some(match start {
        Start::At(offset) if offset.epoch == epoch => "ahead",
        _ => "epoch",
    });
    for stream in streams {
        let at = after.filter(|&after| after > 0).map(|after| stream.after_order(after, told));
        let mut position = match at {
            Some(Some(position)) => position,
            Some(None) => {
                lost.get_or_insert("trimmed");
                stream.status().start
            }
            None => stream.status().start,
        };
        if let Some(after) = after.filter(|_| within > 0)
            && ends_message(&stream, position, after.saturating_add(1), within)
        {
            position += u64::from(within);
            followers.part = (after + 1, within);
        }
        followers.each.push((visit.hub().sit(&stream), position));
    }
    followers.order = after.unwrap_or(0);
    if start == Start::Beginning || lost.is_some() || followers.order == 0 {
        followers.told = gone;
    }
    followers.reset = lost.map(|reason| (reason, asked.unwrap_or_default().to_owned()));
    let over =
        followers.reset.is_none() && followers.each.iter().all(|(seat, at)| is_over(seat.stream(), *at));
    if over {
        return Ok(Answer::Reply(Reply::new(204).field("Cache-Control", "no-store")));
    }
    Ok(Answer::Events(Box::new(Who::Several(followers))))
}

/// Whether what is in this place of all appends comes at `position`, and a message of it that is not the last ends so far into it.
fn ends_message(stream: &Stream, position: u64, order: u64, within: u32) -> bool {
    stream.page(position, u64::MAX, 1).is_ok_and(|page| {
        let piece = page.pieces.first().filter(|piece| piece.order == order);
        piece.is_some_and(|piece| piece.ends.contains(&within) && u64::from(within) < piece.end - piece.start)
    })
}

/// Whether there is nothing to come.
fn is_over(stream: &Stream, position: u64) -> bool {
    let status = stream.status();
    status.closed && status.tail <= position || !stream.is_present()
}

/// A record of one of the streams.
type Part = (usize, Piece, Bytes);

impl Followers {
    /// Tells what there is and what comes, to the end of all of them or of the reader.
    pub(super) async fn run(mut self, start: Begin, reader: &Reader) -> Result<(), Stop> {
        let Begin { head, mut coded } = start;
        let Reader { client, core, framing, .. } = reader;
        // What is done now and then is boxed: the reader that waits keeps no room for it.
        Box::pin(write_all(client, &core.shard, &head)).await?;
        drop(head);
        let every = millis(core.shared.settings.load().config.heartbeat);
        let mut events = self.first(reader);
        loop {
            let parts = Box::pin(self.next(reader)).await?;
            let (told_all, appends) = (parts.is_empty(), parts.len() as u64);
            self.write(&mut events, parts, reader);
            if !events.is_empty() {
                let bytes = std::mem::take(&mut events).finish();
                let bytes = match &mut coded {
                    Some(coded) => {
                        let mut out = Vec::new();
                        coded.chunk(&bytes[payload(&bytes)], End::Flush, &mut out);
                        Bytes::from(out)
                    }
                    None if *framing == Framing::Close => bytes.slice(payload(&bytes)),
                    None => bytes,
                };
                reader.count(1, bytes.len() as u64);
                send(client, &bytes).await?;
            }
            core.metrics.stream_deliveries.add(appends);
            if !told_all {
                continue;
            }
            if self.each.iter().all(|(seat, at)| is_over(seat.stream(), *at)) {
                break;
            }
            let news = |cx: &mut Context<'_>| {
                self.each.iter().for_each(|(seat, _)| seat.listen(cx));
                poll_news(cx, client, core, || self.has_news(reader.streams()))
            };
            let waited = match &mut coded {
                None => {
                    client.deadlines.heartbeat(core.shard.clock.millis(), every);
                    client.arm();
                    client.set_beat(if *framing == Framing::Close { Beat::Bare } else { Beat::Chunk });
                    let waited = poll_fn(news).await;
                    client.set_beat(Beat::Hold);
                    waited
                }
                Some(coded) => Box::pin(coded.wait(client, core, news)).await,
            };
            match waited {
                Ok(()) => {}
                Err(Stop::Timeout(Timeout::Drain)) => break,
                Err(stop) => return Err(stop),
            }
        }
        Box::pin(end(coded, reader)).await
    }

    /// Whether one of them has something that can be told now, or all are over.
    fn has_news(&self, streams: &Streams) -> bool {
        if self.each.iter().all(|(seat, at)| is_over(seat.stream(), *at)) {
            return true;
        }
        if streams.remote().is_some() {
            // What of it can be told is found out when all of them were looked at again.
            return self.each.iter().any(|(seat, at)| seat.stream().has_news(*at));
        }
        match self.look(streams, 1) {
            Ok(parts) => !parts.is_empty(),
            // To be found out again, and to be the end.
            Err(_) => true,
        }
    }

    /// What comes before all else: where the reader is to go on, and when to come again.
    fn first(&mut self, reader: &Reader) -> Events {
        let mut events = Events::default();
        events.retry(retry_ms(&reader.core));
        let (epoch, _) = reader.streams().place();
        let within = if self.part.0 == self.order + 1 { self.part.1 } else { 0 };
        let id = self.id(epoch, self.order, within);
        match self.reset.take() {
            Some((reason, requested)) => events.reset(reason, &requested, &id),
            None => events.place(&id),
        }
        events
    }

    /// Stands for all up to a place among all appends, and a part of the next one.
    fn id(&self, epoch: u64, order: u64, within: u32) -> String {
        Place { offset: Offset { epoch, position: order }, within, told: self.told }.to_string()
    }

    /// The next records of all streams together, in their order: of each up to `max` bytes.
    ///
    /// Whoever has been told of a record comes back to what is after it in the order of all, so nothing before it may be missing:
    /// neither what is not durable yet, nor what is appended to one stream while another is looked at. A place in the order is
    /// taken under the lock of its stream, so whatever has one below that of a moment ago is there to be seen.
    fn look(&self, streams: &Streams, max: u64) -> Result<Vec<(usize, Piece)>, Unreadable> {
        let mut parts: Vec<(usize, Piece)> = Vec::new();
        let (_, last) = streams.place();
        let mut until = last + 1;
        for (place, (seat, at)) in self.each.iter().enumerate() {
            let page = match seat.stream().page(*at, u64::MAX, max) {
                Ok(page) => page,
                Err(Unreadable::Deleted) => continue,
                Err(other) => return Err(other),
            };
            until = until.min(page.settled_before);
            if !page.up_to_date {
                until = until.min(page.pieces.last().map_or(0, |piece| piece.order + 1));
            }
            parts.extend(page.pieces.into_iter().map(|piece| (place, piece)));
        }
        parts.retain(|(_, piece)| piece.order < until);
        parts.sort_by_key(|(_, piece)| piece.order);
        Ok(parts)
    }

    /// The same with their bytes.
    async fn next(&mut self, reader: &Reader) -> Result<Vec<Part>, Stop> {
        loop {
            while reader.streams().freshen(self.each.iter().map(|(seat, _)| seat.stream())).await.is_err() {
                let stopped = poll_fn(|cx| poll_news(cx, &reader.client, &reader.core, || false));
                tokio::select! {
                    stopped = stopped => stopped?,
                    () = reader.core.shard.pause(AWAY_MS) => {}
                }
            }
            // Given up while it was on its way to them: it is cut, comes back, and is told so.
            let parts = self.look(reader.streams(), BATCH_BYTES).map_err(|_| Stop::Gone)?;
            let pieces: Vec<Piece> = parts.iter().map(|(_, piece)| piece.clone()).collect();
            match cold::bytes(reader.streams(), &pieces).await {
                Ok(bytes) => {
                    let whole = parts.into_iter().zip(bytes);
                    return Ok(whole.map(|((place, piece), bytes)| (place, piece, bytes)).collect());
                }
                Err(crate::stream::journal::ReadError::Gone) => {}
                Err(_) => return Err(Stop::Gone),
            }
        }
    }

    fn write(&mut self, events: &mut Events, parts: Vec<Part>, reader: &Reader) {
        let (epoch, _) = reader.streams().place();
        let mut parts = parts.into_iter().peekable();
        let mut last = 0;
        while let Some((place, piece, bytes)) = parts.next() {
            // What a fork has of its source is one record in two streams: only after both it counts as told.
            let comes_again = parts.peek().is_some_and(|(_, next, _)| next.order == piece.order);
            let is_one = !comes_again && last != piece.order;
            last = piece.order;
            if !comes_again {
                self.order = piece.order;
            }
            let had = if self.part.0 == piece.order { self.part.1 } else { 0 };
            events.of_several(self.each[place].0.stream(), &piece, &bytes, |end| match end {
                None => Some(self.id(epoch, self.order, 0)),
                Some(end) => is_one.then(|| self.id(epoch, piece.order - 1, had + end)),
            });
            self.each[place].1 = piece.end;
        }
    }
}

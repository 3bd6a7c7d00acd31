//! Several streams on one connection: `GET /v1/stream?name=a&name=b`, since a browser has six connections to one server.
//!
//! Each event says which stream it is of, and its id stands for a place in all of them: the place of its record among all
//! appends to all streams. They are told in that order, so whoever comes back with an id has had everything up to it, of every
//! stream, and nothing after it.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::awaited::Asker;
use super::event_reader::{Reader, Start as Begin, Who};
use super::live::{end, poll_news, retry_ms, send};
use super::multi_cursor::{self, Place};
use super::reply::Reply;
use super::target::Query;
use super::write::{bad, field};
use super::{Answer, Visit, authority};
use crate::downstream::deadlines::Timeout;
use crate::downstream::outbox::{Beat, write_all};
use crate::proto::openai::ApiError;
use crate::relay::exchange::millis;
use crate::relay::pump::Framing;
use crate::runtime::clock::Millis;
use crate::streams::fanout::encode::End;
use crate::streams::fanout::events::{Events, payload};
use crate::streams::render::Begun;
use crate::streams::{Offset, Seat, Start, Stream, Streams};
use crate::upstream::client::Stop;

/// How often streams that are not there are looked for, in milliseconds.
const ABSENT_MS: Millis = 500;

/// A reader of several streams.
pub(crate) struct Followers {
    pub(crate) each: Vec<(Seat, u64)>,
    /// Up to where it has had everything.
    pub(crate) order: u64,
    /// It has had so many bytes of the append in this place.
    pub(crate) part: (u64, u32),
    /// Up to here it knows that there is nothing any more but what is told.
    told: u64,
    /// An event of one of them of which a part was written.
    pub(crate) begun: Option<Box<(usize, Begun)>>,
    /// The record that it was told of in one stream, and that comes again in another.
    pub(crate) doubled: u64,
    reset: Option<Box<(&'static str, String)>>,
    absent: Option<Box<Absent>>,
}

/// Those of the streams that are not there.
struct Absent {
    names: Vec<String>,
    /// They are followed from when they are made.
    waits: Option<Asker>,
}

/// Events of all streams that are named, from where the reader was.
pub(crate) async fn follow(visit: &Visit<'_>, query: &Query) -> Result<Answer, ApiError> {
    if query.live.as_deref().is_some_and(|live| live != "sse") {
        return Err(bad("live", "can only be `sse` with several streams"));
    }
    let mut streams: Vec<Arc<Stream>> = Vec::with_capacity(query.names.len());
    let mut names = Vec::new();
    for name in &query.names {
        let stream = match visit.find_to_read(name, true).await {
            Ok(stream) => stream,
            // The others are there, or this one will be.
            Err(error) if matches!(error.status, 404 | 410) && (query.names.len() > 1 || query.wait) => {
                names.push(name.clone());
                if names.len() == query.names.len() && !query.wait {
                    return Err(error);
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        if !streams.iter().any(|other| other.id == stream.id) {
            streams.push(stream);
        }
    }
    let header = field(visit.request, "last-event-id")?;
    let last_event = header.or(query.last_event_id.as_deref()).filter(|id| !id.is_empty());
    let asked = last_event.or(query.offset.as_deref());
    let mut lost = None;
    let (start, within, told) =
        asked.map_or(Ok((Start::Beginning, 0, 0)), multi_cursor::read).unwrap_or_else(|_| {
            // An EventSource that is refused never comes back.
            lost = Some("unknown");
            (Start::Beginning, 0, 0)
        });
    let absent = match names.is_empty() && !query.wait {
        true => None,
        false => Some(Box::new(Absent { names, waits: query.wait.then(|| Asker::of(visit)) })),
    };
    let mut followers = Followers {
        each: Vec::new(),
        order: 0,
        part: (0, 0),
        told,
        begun: None,
        doubled: 0,
        reset: None,
        absent,
    };
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
    if after.is_none() {
        lost = Some(match start {
            Start::At(offset) if offset.epoch == epoch => "ahead",
            _ => "epoch",
        });
    }
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
    followers.reset = lost.map(|reason| Box::new((reason, asked.unwrap_or_default().to_owned())));
    if followers.reset.is_none() && followers.is_over() {
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

impl Followers {
    /// Tells what there is and what comes, to the end of all of them or of the reader.
    pub(crate) async fn run(mut self, start: Begin, reader: &Reader) -> Result<(), Stop> {
        let Begin { head, mut coded } = start;
        let Reader { client, core, framing, .. } = reader;
        // What is done now and then is boxed: the reader that waits keeps no room for it.
        Box::pin(write_all(client, &core.shard, &head)).await?;
        drop(head);
        let every = millis(core.shared.settings.load().config.heartbeat);
        let mut events = self.first(reader);
        loop {
            self.part_with_gone(&mut events)?;
            let parts = Box::pin(self.next(reader)).await?;
            let told_all = parts.is_empty();
            let appends = self.write(&mut events, parts, reader);
            if !events.is_empty() {
                let bytes = std::mem::take(&mut events).finish();
                let bytes = match &mut coded {
                    Some(coded) => {
                        let mut out = Vec::new();
                        coded.chunk(&bytes[payload(&bytes)], End::Flush, &mut out);
                        reader.streams().count(out)
                    }
                    None => reader.streams().count(bytes),
                };
                let bytes = match *framing == Framing::Close && coded.is_none() {
                    true => bytes.slice(payload(&bytes)),
                    false => bytes,
                };
                reader.count(1, bytes.len() as u64);
                send(client, &bytes).await?;
            }
            core.metrics.stream_deliveries.add(appends);
            if !told_all {
                continue;
            }
            if self.is_over() {
                break;
            }
            let mut pause = self.waits().map(|_| Box::pin(core.shard.pause(ABSENT_MS)));
            let news = |cx: &mut Context<'_>| {
                if pause.as_mut().is_some_and(|pause| pause.as_mut().poll(cx).is_ready()) {
                    return Poll::Ready(Ok(()));
                }
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
                Ok(()) if self.waits().is_some() => Box::pin(self.join(reader)).await,
                Ok(()) => {}
                Err(Stop::Timeout(Timeout::Drain)) => break,
                Err(stop) if coded.is_none() && !client.is_blocked() => {
                    let Some(over) = authority::over(&stop) else { return Err(stop) };
                    return Box::pin(authority::part(None, over, reader)).await.map(drop);
                }
                Err(stop) => return Err(stop),
            }
        }
        Box::pin(end(coded, reader)).await
    }

    /// Whether nothing more comes of any of them.
    fn is_over(&self) -> bool {
        self.waits().is_none() && self.each.iter().all(|(seat, at)| is_over(seat.stream(), *at))
    }

    /// For whom it waits for streams that are not there.
    fn waits(&self) -> Option<&Asker> {
        self.absent
            .as_ref()
            .filter(|absent| !absent.names.is_empty())
            .and_then(|absent| absent.waits.as_ref())
    }

    /// Tells of streams that were deleted, and goes on with the others.
    fn part_with_gone(&mut self, events: &mut Events) -> Result<(), Stop> {
        while let Some(place) = self.each.iter().position(|(seat, _)| !seat.stream().is_present()) {
            match &mut self.begun {
                // What has begun of it never ends.
                Some(begun) if begun.0 == place => return Err(Stop::Gone),
                Some(begun) if begun.0 > place => begun.0 -= 1,
                _ => {}
            }
            let (seat, _) = self.each.remove(place);
            events.absent(&seat.stream().name, true);
            if let Some(absent) = self.absent.as_mut().filter(|absent| absent.waits.is_some()) {
                absent.names.push(seat.stream().name.as_ref().into());
            }
        }
        Ok(())
    }

    /// Follows those that have been made meanwhile, from their beginning.
    async fn join(&mut self, reader: &Reader) {
        let Some(absent) = &mut self.absent else { return };
        let Some(asker) = &absent.waits else { return };
        for name in std::mem::take(&mut absent.names) {
            match asker.find(&name, reader).await {
                Some(stream) => {
                    let start = stream.status().start;
                    self.each.push((reader.core.hub.sit(&stream), start));
                }
                None => absent.names.push(name),
            }
        }
    }

    /// Whether one of them has something that can be told now, or all are over.
    fn has_news(&self, streams: &Streams) -> bool {
        if self.is_over() || self.each.iter().any(|(seat, _)| !seat.stream().is_present()) {
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
            Some(reset) => events.reset(reset.0, &reset.1, &id),
            None => events.place(&id),
        }
        let absent = self.absent.iter().flat_map(|absent| &absent.names);
        absent.for_each(|name| events.absent(name, false));
        events
    }

    /// Stands for all up to a place among all appends, and a part of the next one.
    pub(crate) fn id(&self, epoch: u64, order: u64, within: u32) -> String {
        Place { offset: Offset { epoch, position: order }, within, told: self.told }.to_string()
    }
}

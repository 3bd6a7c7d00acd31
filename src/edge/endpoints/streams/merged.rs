//! The appends of several streams as one sequence, in the order in which they were made: read, and rendered step by step.

use std::future::poll_fn;

use bytes::Bytes;

use super::event_reader::Reader;
use super::live::poll_news;
use super::multi_stream::Followers;
use crate::runtime::clock::Millis;
use crate::streams::fanout::events::Events;
use crate::streams::render::{Before, PART_BYTES};
use crate::streams::store::journal::ReadError;
use crate::streams::store::payload_reader;
use crate::streams::{Form, Piece, Streams, Unreadable};
use crate::upstream::client::Stop;

/// How long to wait before Redis is asked again, in milliseconds.
const AWAY_MS: Millis = 500;

/// A part of a record of one of the streams, and whether it is the last that ever comes of it.
pub(crate) type Found = (usize, Piece, bool);

/// A part of a record of one of the streams.
pub(crate) struct Part {
    place: usize,
    piece: Piece,
    bytes: Bytes,
    /// What comes before it.
    before: Before,
    /// The same record comes again, in a fork.
    comes_again: bool,
    is_last: bool,
}

impl Followers {
    /// The next records of all streams together, in their order: of each up to `max` bytes, or no more than a part of one.
    ///
    /// Whoever has been told of a record comes back to what is after it in the order of all, so nothing before it may be missing:
    /// neither what is not durable yet, nor what is appended to one stream while another is looked at. A place in the order is
    /// taken under the lock of its stream, so whatever has one below that of a moment ago is there to be seen.
    pub(crate) fn look(&self, streams: &Streams, max: u64) -> Result<Vec<Found>, Unreadable> {
        let mut parts: Vec<Found> = Vec::new();
        let (_, last) = streams.place();
        let mut until = last + 1;
        for (place, (seat, at)) in self.each.iter().enumerate() {
            let begun = self.begun.as_deref().filter(|(begun, _)| *begun == place);
            if self.begun.is_some() && begun.is_none() {
                continue;
            }
            let end = begun.map_or(u64::MAX, |(_, begun)| begun.until);
            let page = match seat.stream().page(*at, end.min(at.saturating_add(PART_BYTES)), max) {
                Ok(page) => page,
                // The others may go on once what has begun of it is over, which it never is.
                Err(Unreadable::Deleted) if begun.is_none() => continue,
                Err(other) => return Err(other),
            };
            until = until.min(page.settled_before);
            if !page.up_to_date {
                until = until.min(page.pieces.last().map_or(0, |piece| piece.order + 1));
            }
            let (count, closed) = (page.pieces.len(), page.closed);
            let found = page.pieces.into_iter().enumerate();
            parts.extend(found.map(|(at, piece)| (place, piece, closed && at + 1 == count)));
        }
        parts.retain(|(_, piece, _)| piece.order < until);
        parts.sort_by_key(|(_, piece, _)| piece.order);
        Ok(parts)
    }

    /// The same with their bytes, about as much as one step takes.
    pub(crate) async fn next(&mut self, reader: &Reader) -> Result<Vec<Part>, Stop> {
        loop {
            while reader.streams().freshen(self.each.iter().map(|(seat, _)| seat.stream())).await.is_err() {
                let stopped = poll_fn(|cx| poll_news(cx, &reader.client, &reader.core, || false));
                tokio::select! {
                    stopped = stopped => stopped?,
                    () = reader.core.shard.pause(AWAY_MS) => {}
                }
            }
            let each = PART_BYTES / self.each.len().max(1) as u64;
            // Given up while it was on its way to them: it is cut, comes back, and is told so.
            let mut found = self.look(reader.streams(), each).map_err(|_| Stop::Gone)?;
            let orders: Vec<u64> = found.iter().map(|(_, piece, _)| piece.order).collect();
            let mut room = PART_BYTES;
            let fits = |(_, piece, _): &Found| {
                let fits = room > 0;
                room = room.saturating_sub(piece.end - piece.start);
                fits
            };
            found.truncate(found.iter().map(fits).take_while(|fits| *fits).count());
            let pieces: Vec<Piece> = found.iter().map(|(_, piece, _)| piece.clone()).collect();
            match self.read(reader, &pieces, &found).await {
                Ok((bytes, before)) => {
                    let parts = found.into_iter().zip(bytes).zip(before).enumerate();
                    let part = |(at, (((place, piece, is_last), bytes), before))| {
                        let comes_again = orders.get(at + 1) == Some(&orders[at]);
                        Part { place, piece, bytes, before, comes_again, is_last }
                    };
                    return Ok(parts.map(part).collect());
                }
                Err(ReadError::Gone) => {}
                Err(_) => return Err(Stop::Gone),
            }
        }
    }

    /// The bytes of pieces, and what of each stream comes before them.
    async fn read(
        &self,
        reader: &Reader,
        pieces: &[Piece],
        found: &[Found],
    ) -> Result<(Vec<Bytes>, Vec<Before>), ReadError> {
        let streams = reader.streams();
        let bytes = payload_reader::bytes(streams, pieces).await?;
        let mut last = vec![None; self.each.len()];
        let mut each = Vec::with_capacity(found.len());
        for ((place, piece, _), bytes) in found.iter().zip(&bytes) {
            let stream = self.each[*place].0.stream();
            let mut before = match last[*place] {
                Some(before) => before,
                None if stream.kind.form == Form::Binary => Before::default(),
                None => payload_reader::before(streams, stream, piece.start).await?,
            };
            each.push(before);
            before.push(bytes);
            last[*place] = Some(before);
        }
        Ok((bytes, each))
    }

    /// Writes their events, or as much as one step takes; how many records were told.
    pub(crate) fn write(&mut self, events: &mut Events, parts: Vec<Part>, reader: &Reader) -> u64 {
        let (epoch, _) = reader.streams().place();
        let mut appends = 0;
        for part in parts {
            let Part { place, piece, bytes, mut before, comes_again, is_last } = part;
            if self.begun.is_none() && events.len() >= PART_BYTES as usize {
                break;
            }
            // What a fork has of its source is one record in two streams: only after both it counts as told.
            let is_one = !comes_again && self.doubled != piece.order;
            let had = if self.part.0 == piece.order { self.part.1 } else { 0 };
            let start = piece.start;
            let order = if comes_again { self.order } else { piece.order };
            let mut begun = self.begun.take().map(|begun| begun.1);
            let id = |end: u64| match end < piece.record_end {
                false => Some(self.id(epoch, order, 0)),
                true => is_one.then(|| self.id(epoch, piece.order - 1, had + (end - start) as u32)),
            };
            let stream = self.each[place].0.stream();
            let stopped = events.of_several(stream, (&piece, &bytes, is_last), &mut before, &mut begun, id);
            let next = stopped.unwrap_or(piece.end);
            self.begun = begun.map(|begun| Box::new((place, begun)));
            self.each[place].1 = next;
            if next < piece.record_end {
                self.part = (piece.order, had + (next - start) as u32);
                break;
            }
            appends += 1;
            self.order = order;
            self.doubled = if comes_again { piece.order } else { 0 };
        }
        appends
    }
}

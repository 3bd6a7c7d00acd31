//! Frames of one stream for those who follow it: made step by step, or found where another reader at the same place had them made.

use std::sync::Arc;

use bytes::Bytes;

use super::cache_cursor;
use super::event_reader::Reader;
use super::live::{Follower, Odd};
use crate::runtime::clock::unix_millis;
use crate::streams::fanout::events::{Control, Events};
use crate::streams::fanout::view::Published;
use crate::streams::render::{Batch, Before, Begun, PART_BYTES, Step};
use crate::streams::store::payload_reader;
use crate::streams::{Form, Frame, Page, PartKey, Stream};
use crate::upstream::client::Stop;

/// Where a reader stands after a frame, beside its position: the event that has not ended there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Within {
    /// Of a stream that holds events: one that was appended in parts.
    pub(crate) published: Published,
    /// A long one, of which a part was written.
    pub(crate) begun: Option<Begun>,
}

impl Follower {
    /// The next frame.
    pub(crate) async fn frame(
        &self,
        odd: &mut Odd,
        begun: Option<Begun>,
        reader: &Reader,
    ) -> Result<(Frame, Within), Stop> {
        let stream = Arc::clone(self.seat.stream());
        let now = cache_cursor::next(unix_millis(), None, 0);
        let cursor = now.max(self.floor);
        let is_plain = odd.reset.is_none() && begun.is_none() && !self.is_within();
        if is_plain && let Some(frame) = stream.frame(self.view as usize, self.position, cursor) {
            return Ok((frame, Within::default()));
        }
        let (view, from) = (self.view, self.position);
        let key = PartKey { stream: stream.id, view, from, begun, cursor };
        let is_long = begun.is_some() && cursor == now;
        if is_long && let Some((frame, begun)) = reader.core.hub.parts.get(&key) {
            return Ok((frame, Within { begun, ..Within::default() }));
        }
        let (page, parts) = read(reader, &stream, self.position, begun.map(|begun| begun.until)).await?;
        let mut events = Events::default();
        if let Some((reason, requested)) = odd.reset.take() {
            events.reset(reason, &requested, &stream.offset(self.position).to_string());
        }
        let mut within = Within { published: self.within, begun };
        let (step, before) = match self.view.is_of_events() {
            true => {
                let published = &mut within.published;
                let (at, all) = (self.position, (&*page.pieces, &*parts));
                let step = events.published_step(self.view, stream.epoch, at, all, published);
                (step, Before::default())
            }
            false => self.render(&mut events, &page, &parts, begun, reader).await?,
        };
        within.begun = step.begun;
        let is_told = step.begun.is_none() && step.next == page.next;
        let (up_to_date, closed) = (page.up_to_date && is_told, page.closed && is_told);
        if !self.view.is_of_events() && step.begun.is_none() {
            let untold = if closed { 0 } else { before.carried(stream.kind.form) as u64 };
            let next = stream.offset(step.next - untold);
            events.control(&Control { next, cursor, up_to_date, closed }, page.pieces.is_empty());
        }
        let frame = Frame {
            from: self.position,
            next: step.next,
            cursor,
            up_to_date,
            closed,
            appends: step.appends,
            bytes: match events.is_empty() {
                true => Bytes::new(),
                false => reader.streams().count(events.finish()),
            },
        };
        // Another's floor is nobody else's business.
        if up_to_date && is_plain && cursor == now && !within.published.is_open() {
            stream.keep_frame(self.view as usize, frame.clone());
        }
        if is_long && stream.readers() > 1 {
            reader.core.hub.parts.put(key, frame.clone(), within.begun);
        }
        Ok((frame, within))
    }

    /// Renders a step of what is no stream of events; what comes before the next one, beside it.
    async fn render(
        &self,
        events: &mut Events,
        page: &Page,
        parts: &[Bytes],
        begun: Option<Begun>,
        reader: &Reader,
    ) -> Result<(Step, Before), Stop> {
        let stream = self.seat.stream();
        let form = stream.kind.form;
        let before = match form {
            Form::Text => payload_reader::before(reader.streams(), stream, self.position).await,
            Form::Json if begun.is_some() => {
                payload_reader::before(reader.streams(), stream, self.position).await
            }
            _ => Ok(Before::default()),
        };
        let before = before.map_err(|_| Stop::Gone)?;
        let (view, epoch, closed, at) = (self.view, stream.epoch, page.closed, self.position);
        let batch = Batch { view, form, epoch, pieces: &page.pieces, bytes: parts, at, before, closed };
        let step = events.render(&batch, begun);
        let mut after = before;
        for (piece, bytes) in page.pieces.iter().zip(parts).filter(|(piece, _)| piece.start < step.next) {
            after.push(&bytes[..(step.next.min(piece.end) - piece.start) as usize]);
        }
        Ok((step, after))
    }
}

/// What comes next of a stream, to the end of an event if one has begun.
async fn read(
    reader: &Reader,
    stream: &Stream,
    from: u64,
    until: Option<u64>,
) -> Result<(Page, Vec<Bytes>), Stop> {
    let until = from.saturating_add(PART_BYTES).min(until.unwrap_or(u64::MAX));
    loop {
        let page = stream.page(from, until, PART_BYTES).map_err(|_| Stop::Gone)?;
        let is_over = || stream.has_failed() || !stream.is_present();
        if page.pieces.is_empty() && !page.closed && is_over() {
            return Err(Stop::Gone);
        }
        match payload_reader::bytes(reader.streams(), &page.pieces).await {
            Ok(parts) => return Ok((page, parts)),
            Err(crate::streams::store::journal::ReadError::Gone) => {}
            Err(_) => return Err(Stop::Gone),
        }
    }
}

impl Odd {
    /// Finds where an answer goes on after the event of a number: nothing of it is written, so it may be as long as it likes.
    pub(crate) async fn seek(&mut self, follower: &mut Follower, reader: &Reader) -> Result<(), Stop> {
        let Some(after) = self.after.take() else { return Ok(()) };
        let stream = Arc::clone(follower.seat.stream());
        let (mut at, mut text) = (follower.position, Vec::new());
        loop {
            let (page, parts) = read(reader, &stream, at, None).await?;
            text.extend(parts.iter().flatten());
            at = page.next;
            let mut done = 0;
            let mut ends = crate::proto::sse::Blocks::default();
            while let Some(end) = ends.next_end(&text[done..]) {
                if !is_at_most(&text[done..done + end], after) {
                    follower.position = at - (text.len() - done) as u64;
                    return Ok(());
                }
                done += end;
                ends.consumed(end);
            }
            text.drain(..done);
            if page.up_to_date {
                // The event that comes next is found when it is whole, or is the last.
                follower.position = at - text.len() as u64;
                return Ok(());
            }
        }
    }
}

/// Whether an event has a `sequence_number` up to that one.
fn is_at_most(block: &[u8], after: u64) -> bool {
    #[derive(serde::Deserialize)]
    struct Numbered {
        sequence_number: u64,
    }
    let mut lines = block.split(|&byte| byte == b'\n');
    let data = lines.find_map(|line| line.strip_prefix(b"data:"));
    let number = data.and_then(|data| serde_json::from_slice::<Numbered>(data.trim_ascii()).ok());
    number.is_some_and(|event| event.sequence_number <= after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_on_after_a_number() {
        for (block, after, is) in [
            (&b"data: {\"sequence_number\":1}\n\n"[..], 1, true),
            (b"event: x\ndata: {\"sequence_number\":2}\n\n", 1, false),
            (b"data: [DONE]\n\n", 1, false),
        ] {
            assert_eq!(is_at_most(block, after), is, "{block:?}");
        }
    }
}

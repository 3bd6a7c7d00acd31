//! Rendering of a part of a stream as events, in bounded steps: an append may have 32 MiB, and each reader of it has a socket
//! that takes what it takes.
//!
//! ```text
//!  records   │ small │ small │ ............ long ............ │ small │
//!  steps     │ events, about PART_BYTES │ data of │ data of ...│ end, events
//! ```
//!
//! A step stops between two events, or within the data of a long one: [`Begun`] is all that has to be known to go on, beside the
//! position. Everything else follows from the bytes before that, so readers at the same place get the same bytes.
//!
//! Text is told in whole characters and whole line ends, however it was divided into appends: a character that an append
//! begins and another one ends belongs to the event of the second, and so for everyone who begins or comes back between them.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::Bytes;

use super::fanout::events::Events;
use super::fanout::view::View;
use super::log::Piece;
use super::model::kind::Form;
use super::model::offset::Offset;
use super::text;

/// Bytes of a stream that are read for one step. One that has written as many begins no other event.
pub(crate) const PART_BYTES: u64 = 16 << 10;

/// A step that has written so many bytes stops wherever it is: a line end takes six times its size.
pub(crate) const STEP_BYTES_MAX: usize = 2 * PART_BYTES as usize;

/// An event of which a part was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Where its data begins in the stream.
    pub(crate) from: u64,
    /// Where its data ends.
    pub(crate) until: u64,
    /// How its data is written.
    pub(crate) shape: Shape,
}

/// How data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Text or base64.
    Plain,
    /// One JSON message, without the comma at its end.
    Message,
    /// Several of them, as an array.
    List,
    /// Text or base64 as a JSON string, with what surrounds it.
    Quoted,
    /// One JSON message, with what surrounds it.
    Wrapped,
}

/// What there is to be rendered.
pub(crate) struct Batch<'a> {
    /// How the reader wants to see it.
    pub(crate) view: View,
    /// What the stream holds.
    pub(crate) form: Form,
    /// Which life of the log it is.
    pub(crate) epoch: u64,
    /// Parts of records, in order and without gaps.
    pub(crate) pieces: &'a [Piece],
    /// Their bytes.
    pub(crate) bytes: &'a [Bytes],
    /// Where they begin in the stream.
    pub(crate) at: u64,
    /// What comes before them.
    pub(crate) before: Before,
    /// They reach to the end of a stream that is closed.
    pub(crate) closed: bool,
}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where to go on.
    pub(crate) next: u64,
    /// The event that has not ended there.
    pub(crate) begun: Option<Begun>,
    /// Records whose end was reached.
    pub(crate) appends: u32,
}

/// A part of an event's data, as it is in the stream.
pub(crate) struct Data<'a> {
    pub(crate) bytes: &'a [u8],
    /// Its place in the stream.
    pub(crate) at: u64,
    /// The byte before it.
    pub(crate) after: Option<u8>,
    /// Nothing completes a character that it ends within.
    pub(crate) is_last: bool,
}

impl Events {
    /// Writes the events of a batch, or as much as one step takes.
    pub(crate) fn render(&mut self, batch: &Batch<'_>, begun: Option<Begun>) -> Step {
        match batch.view {
            View::Protocol => self.render_together(batch, begun),
            _ => self.render_each(batch, begun),
        }
    }

    /// One event for all records.
    fn render_together(&mut self, batch: &Batch<'_>, begun: Option<Begun>) -> Step {
        let (end, until) =
            batch.pieces.last().map_or((batch.at, batch.at), |last| (last.end, last.record_end));
        let before = batch.before;
        let carried = if begun.is_none() { before.carried(batch.form) } else { 0 };
        let bytes = match batch.bytes {
            [only] => before.with_last(carried, only),
            several => Cow::Owned(before.with_last(carried, &several.concat()).into_owned()),
        };
        let (at, is_last) = (batch.at - carried as u64, batch.closed);
        let makes_event = batch.form != Form::Text || is_last || end < until || text::has_whole(&bytes);
        if begun.is_none() && (!makes_event || bytes.is_empty()) {
            let appends = batch.pieces.len() as u32;
            return Step { next: end, begun: None, appends };
        }
        let begun = begun.unwrap_or_else(|| {
            self.begin(Some("data"), Offset { epoch: batch.epoch, position: until });
            let shape = if batch.form == Form::Json { Shape::List } else { Shape::Plain };
            Begun { from: at, until, shape }
        });
        let after = before.byte_before(carried);
        let next = self.write_data(batch.form, &begun, &Data { bytes: &bytes, at, after, is_last });
        let done = next == begun.until;
        let appends = batch.pieces.iter().filter(|piece| piece.record_end <= next).count() as u32;
        Step { next, begun: (!done).then_some(begun), appends }
    }

    /// An event for each record, or for each of its messages if it has a name.
    fn render_each(&mut self, batch: &Batch<'_>, mut begun: Option<Begun>) -> Step {
        let mut step = Step { next: batch.at, begun: None, appends: 0 };
        let mut before = batch.before;
        let id = |position| Offset { epoch: batch.epoch, position };
        let carried = before.carried(batch.form);
        if batch.pieces.is_empty() && batch.closed && carried > 0 {
            // Nothing completes it any more.
            self.begin(None, id(batch.at));
            let (from, until) = (batch.at - carried as u64, batch.at);
            let data = Data { bytes: before.last(carried), at: from, after: None, is_last: true };
            self.write_data(batch.form, &Begun { from, until, shape: Shape::Plain }, &data);
        }
        let last = batch.pieces.last().map_or(batch.at, |piece| piece.end);
        for (piece, bytes) in batch.pieces.iter().zip(batch.bytes) {
            let is_list = begun.is_some_and(|begun| begun.shape == Shape::List);
            let is_one = piece.event.is_none() || is_list;
            let part =
                Part { form: batch.form, piece, bytes, is_one, is_last: batch.closed && piece.end == last };
            let stopped = self.render_record(&part, &mut before, &mut begun, |events, until| {
                events.begin(piece.event.as_deref(), id(until));
                shape(batch.form, piece.event.is_some())
            });
            if let Some(next) = stopped {
                return Step { next, begun, ..step };
            }
            step.next = piece.end;
            step.appends += u32::from(piece.end == piece.record_end);
        }
        step
    }

    /// An event for a part of a record, or for each of its messages; `begin` writes what comes before the data of one that ends at
    /// a position, and says how that is written. Where it stopped, if that is not the end of the part.
    pub(crate) fn render_record(
        &mut self,
        part: &Part<'_>,
        before: &mut Before,
        begun: &mut Option<Begun>,
        mut begin: impl FnMut(&mut Events, u64) -> Shape,
    ) -> Option<u64> {
        let Part { form, piece, bytes, .. } = *part;
        for (start, end, until) in units(piece, part.is_one) {
            if begun.is_none() && self.len() >= PART_BYTES as usize {
                return Some(start);
            }
            let raw = &bytes[(start - piece.start) as usize..(end - piece.start) as usize];
            let carried = if begun.is_none() { before.carried(form) } else { 0 };
            let data = before.with_last(carried, raw);
            let is_last = part.is_last && end == piece.end;
            let makes_event = form != Form::Text || is_last || text::has_whole(&data);
            if begun.is_none() && !makes_event && end < until {
                // With more of it the next step has a character that is whole.
                return Some(start);
            }
            if begun.is_some() || makes_event {
                let at = start - carried as u64;
                let this = begun.unwrap_or_else(|| Begun { from: at, until, shape: begin(self, until) });
                let after = before.byte_before(carried);
                let next = self.write_data(form, &this, &Data { bytes: &data, at, after, is_last });
                *begun = (next < until).then_some(this);
                if begun.is_some() {
                    return Some(next);
                }
            }
            before.push(raw);
        }
        None
    }

    /// Writes data of an event from where it was left, and the end of the event if it reaches that; where it stopped.
    pub(crate) fn write_data(&mut self, form: Form, begun: &Begun, data: &Data<'_>) -> u64 {
        let Data { bytes, at, .. } = *data;
        let ends = at + bytes.len() as u64 == begun.until;
        if at == begun.from {
            self.verbatim(match begun.shape {
                Shape::List => b"[",
                Shape::Quoted => b"\"",
                _ => b"",
            });
        }
        let whole = match form {
            // Bytes that may be the beginning of a character wait for the next step, or the next event.
            Form::Text if !(ends && data.is_last) => bytes.len() - text::incomplete(bytes),
            Form::Text => bytes.len(),
            Form::Json => bytes.len() - usize::from(ends),
            Form::Binary if ends => bytes.len(),
            Form::Binary => bytes.len() - bytes.len() % 3,
        };
        let told = &bytes[..whole];
        let written = match (form, begun.shape) {
            (Form::Binary, _) => self.base64(told),
            (_, Shape::Quoted) => self.escaped(told, STEP_BYTES_MAX),
            _ => {
                let is_begin = at == begun.from;
                let after = if is_begin && form == Form::Json { None } else { data.after };
                self.some_lines(told, after, is_begin, STEP_BYTES_MAX)
            }
        };
        if written < whole || !ends {
            return at + written as u64;
        }
        self.verbatim(match begun.shape {
            Shape::Plain | Shape::Message => b"\n\n",
            Shape::List => b"]\n\n",
            Shape::Quoted => b"\"}\n\n",
            Shape::Wrapped => b"}\n\n",
        });
        begun.until
    }
}

/// How a record is written for a reader of one stream.
fn shape(form: Form, is_named: bool) -> Shape {
    match form {
        Form::Json if is_named => Shape::Message,
        Form::Json => Shape::List,
        Form::Text | Form::Binary => Shape::Plain,
    }
}

/// What becomes one event each of a piece, all of it or each message: where its data begins and ends in the piece, and where it
/// ends in the stream.
fn units(piece: &Piece, is_one: bool) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
    let ends = if is_one { &[][..] } else { &piece.ends };
    let end = |&end: &u32| piece.start + u64::from(end);
    let starts = std::iter::once(piece.start).chain(ends.iter().map(end));
    let complete = starts.zip(ends.iter().map(end)).map(|(start, end)| (start, end, end));
    let rest = ends.last().map_or(piece.start, end);
    let until = if is_one { piece.record_end } else { piece.message_end };
    complete.chain((rest < piece.end).then_some((rest, piece.end, until)))
}

/// A part of a record, to be rendered.
pub(crate) struct Part<'a> {
    pub(crate) form: Form,
    pub(crate) piece: &'a Piece,
    pub(crate) bytes: &'a Bytes,
    /// It is one event, whatever messages are in it.
    pub(crate) is_one: bool,
    /// Nothing comes after it, ever.
    pub(crate) is_last: bool,
}

/// The last bytes before an event, three at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    bytes: [u8; 3],
    length: usize,
}

impl Before {
    /// The last of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Before {
        let mut before = Before::default();
        before.push(bytes);
        before
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[3 - self.length..]
    }

    fn last(&self, count: usize) -> &[u8] {
        &self.bytes[3 - count..]
    }

    /// The last of them, and what follows.
    fn with_last<'a>(&self, count: usize, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match count {
            0 => Cow::Borrowed(bytes),
            _ => Cow::Owned([self.last(count), bytes].concat()),
        }
    }

    /// Bytes of a character that has begun.
    pub(crate) fn carried(&self, form: Form) -> usize {
        if form == Form::Text { text::incomplete(self.bytes()) } else { 0 }
    }

    fn byte_before(&self, carried: usize) -> Option<u8> {
        self.bytes().iter().rev().nth(carried).copied()
    }

    /// More bytes come.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(3)..];
        self.bytes.rotate_left(new.len());
        self.bytes[3 - new.len()..].copy_from_slice(new);
        self.length = 3.min(self.length + new.len());
    }
}

//! A part of a stream as events (PROTOCOL.md, section 5.8), each with its `id:`, in a chunk of their own.
//!
//! | view | events |
//! | --- | --- |
//! | protocol (`live=sse`) | `data` with all that is new, `control` after it |
//! | EventSource | one `data`, or one of the publisher's name, for each record; `control` after them |
//! | published | of a stream that holds events itself, such as an answer: these, each with an id; nothing else |
//! | several streams | as an EventSource's, each with the stream's name around it |
//!
//! The id is where to go on after the event, so a browser that has seen it comes back with exactly that. A record's bytes are
//! text as they are, or base64; each of their lines is a line of the event.

use bytes::Bytes;
use serde_json::Value;

use super::events::Events;
use crate::proto::sse::{Blocks, Unfinished};
use crate::streams::log::Piece;
use crate::streams::model::kind::Form;
use crate::streams::model::offset::Offset;
use crate::streams::render::{Before, Begun, PART_BYTES, Part, Shape, Step};
use crate::streams::reserved::Line;
use crate::streams::stream::Stream;

/// How a reader wants to see events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// As the protocol says.
    Protocol,
    /// One for each record, under the publisher's name for it.
    EventSource,
    /// The events that were appended, each with its id.
    Published,
    /// The same without ids, byte for byte.
    Verbatim,
}

/// How many views there are.
pub(crate) const VIEWS: usize = 4;

impl View {
    /// Whether the events of the stream are told as they are, and nothing beside them.
    pub(crate) fn is_of_events(self) -> bool {
        matches!(self, View::Published | View::Verbatim)
    }
}

/// Where a reader stands in an event that was appended in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Published {
    event: Unfinished,
    line: Line,
}

impl Published {
    /// Whether an event has begun.
    pub(crate) fn is_open(self) -> bool {
        self.event.is_open()
    }
}

impl Events {
    /// Writes events of a stream that holds events: `bytes` are those of each of `pieces`, from `at` on. Where it begins and ends within an event
    /// that was appended in parts, `within` says. How far one step has come; the rest is left to the next.
    pub(crate) fn published_step(
        &mut self,
        view: View,
        epoch: u64,
        at: u64,
        (pieces, bytes): (&[Piece], &[Bytes]),
        within: &mut Published,
    ) -> Step {
        let mut step = Step { next: at, begun: None, appends: 0 };
        for (piece, bytes) in pieces.iter().zip(bytes) {
            let told = match view {
                View::Verbatim => {
                    self.verbatim(bytes);
                    bytes.len()
                }
                _ => self.published(epoch, piece, bytes, within),
            };
            step.next = piece.start + told as u64;
            if told < bytes.len() {
                break;
            }
            step.appends += u32::from(piece.end == piece.record_end);
        }
        step
    }

    /// Events that were published as such. A block of comments alone is left out: clients that have seen an id take the blank
    /// line after it for an event without data. The id comes first, but for an event with an id of its own, for the last one
    /// counts, and one whose beginning was told before.
    ///
    /// It stops after an event once a step is full; how many of the bytes were told.
    fn published(&mut self, epoch: u64, piece: &Piece, bytes: &[u8], within: &mut Published) -> usize {
        let mut at = 0;
        while at < bytes.len() && self.len() < PART_BYTES as usize {
            let (was, was_open) = (*within, within.is_open());
            let rest = &bytes[at..];
            let (blank, end) =
                within.event.end(rest).map_or((rest.len(), None), |(blank, end)| (blank, Some(end)));
            let breaks = |&&byte: &&u8| matches!(byte, b'\r' | b'\n');
            let skip = if was_open { 0 } else { rest[..blank].iter().take_while(breaks).count() };
            let lines = &rest[skip..blank];
            match end {
                Some(end) if was_open || !is_comment(lines) => {
                    let id = Offset { epoch, position: piece.start + (at + end) as u64 }.to_string();
                    let is_first = !was_open && !has_id(lines);
                    if is_first {
                        let _ = self.field("id", &id);
                    }
                    self.foreign(lines, &mut within.line);
                    if !is_first {
                        let _ = self.field("id", &id);
                    }
                    self.verbatim(&rest[blank..end]);
                    within.line = Line::default();
                }
                Some(_) => {}
                None if !was_open && !self.is_empty() && piece.end < piece.record_end => {
                    // It is whole at the beginning of the next step, if it is no longer than one.
                    *within = was;
                    return at;
                }
                None => self.foreign(lines, &mut within.line),
            }
            at += end.unwrap_or(rest.len());
        }
        at
    }

    /// A part of a record of one of several streams, or each of its messages, with that stream's name. `id` goes on in all of them
    /// after what ends at a position, and may have none. Where it stopped, if that is not the end of the part.
    pub(crate) fn of_several(
        &mut self,
        stream: &Stream,
        (piece, bytes, is_last): (&Piece, &Bytes, bool),
        before: &mut Before,
        begun: &mut Option<Begun>,
        id: impl Fn(u64) -> Option<String>,
    ) -> Option<u64> {
        let form = stream.kind.form;
        let is_one = piece.ends.is_empty() && piece.message_end == piece.record_end;
        let part = Part { form, piece, bytes, is_one, is_last };
        self.render_record(&part, before, begun, |events, until| {
            if let Some(name) = piece.event.as_deref() {
                let _ = events.field("event", name);
            }
            if let Some(id) = id(until) {
                let _ = events.field("id", &id);
            }
            events.data();
            let (name, offset) = (Value::from(&*stream.name), stream.offset(until));
            events.verbatim(format!(r#"{{"stream":{name},"offset":"{offset}","data":"#).as_bytes());
            if form == Form::Json { Shape::Wrapped } else { Shape::Quoted }
        })
    }
}

/// Whether an event ends in the text of a stream that holds events, from between two of them to the end of all.
pub(crate) fn holds_event(mut text: Vec<u8>) -> bool {
    if text.ends_with(b"\r") {
        // It is known now that no LF belongs to it.
        text.push(b'\n');
    }
    let mut rest = &text[..];
    while let Some(end) = Blocks::default().next_end(rest) {
        if !is_comment(&rest[..end]) {
            return true;
        }
        rest = &rest[end..];
    }
    false
}

/// Whether every line of a block is a comment, or blank.
fn is_comment(block: &[u8]) -> bool {
    let mut lines = block.split(|byte| matches!(byte, b'\r' | b'\n'));
    lines.all(|line| line.is_empty() || line.starts_with(b":"))
}

/// Whether a block has an id.
fn has_id(block: &[u8]) -> bool {
    let mut lines = block.split(|byte| matches!(byte, b'\r' | b'\n'));
    lines.any(|line| line == b"id" || line.starts_with(b"id:"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::fanout::events::tests::written;
    use crate::streams::log::Source;

    fn piece(bytes: &'static [u8]) -> (Piece, Bytes) {
        let bytes = Bytes::from_static(bytes);
        let end = bytes.len() as u64;
        let source = Source::Here(bytes.clone());
        let (order, event, ends) = (1, None, [].into());
        let (record_start, message_end, record_end) = (0, end, end);
        (Piece { start: 0, end, order, event, ends, record_start, message_end, record_end, source }, bytes)
    }

    #[test]
    fn an_end_without_an_event_is_known() {
        for (text, is) in [
            ("", false),
            (": bye\n\n", false),
            ("data: [DONE]\n", false),
            ("id: 7\ndata: [DONE]", false),
            (": bye\n\ndata: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
        ] {
            assert_eq!(holds_event(text.into()), is, "{text:?}");
        }
    }

    #[test]
    fn published_events_keep_their_bytes_and_get_ids() {
        let (piece, bytes) = piece(b"data: 1\n\n: ping\n\nevent: x\r\ndata: 2\r\n\r\n");
        let mut events = Events::default();
        events.published_step(View::Published, 0, 0, (&[piece], &[bytes]), &mut Published::default());
        let id = "id: 0000000000000000-000000000000000000";
        assert_eq!(written(events), format!("{id}09\ndata: 1\n\n{id}38\nevent: x\r\ndata: 2\r\n\r\n"));
    }
}

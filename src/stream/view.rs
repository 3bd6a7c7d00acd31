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

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::Value;

use super::events::Events;
use super::kind::Form;
use super::log::Piece;
use super::offset::Offset;
use super::stream::Stream;
use crate::sse::{Unfinished, blocks};

/// How a reader wants to see events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
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
pub(super) const VIEWS: usize = 4;

impl View {
    /// Whether the events of the stream are told as they are, and nothing beside them.
    pub fn is_of_events(self) -> bool {
        matches!(self, View::Published | View::Verbatim)
    }
}

impl Events {
    /// Writes a part of a stream: `bytes` are those of each of `pieces`. Where it begins and ends within an event that was
    /// appended in parts, `within` says.
    pub fn part(
        &mut self,
        view: View,
        form: Form,
        epoch: u64,
        pieces: &[Piece],
        bytes: &[Bytes],
        within: &mut Unfinished,
    ) {
        let at = |position| Offset { epoch, position };
        let parts = || pieces.iter().zip(bytes);
        match view {
            View::Protocol => {
                let Some(last) = pieces.last() else { return };
                self.open("data", at(last.end));
                self.unnamed(form, bytes);
            }
            View::Verbatim => bytes.iter().for_each(|bytes| self.verbatim(bytes)),
            View::Published => {
                for (piece, bytes) in parts() {
                    self.published(epoch, piece.start, bytes, within);
                }
            }
            View::EventSource => {
                for (piece, bytes) in parts() {
                    match &piece.event {
                        Some(name) => self.named(name, form, epoch, piece, bytes),
                        None => {
                            self.open("data", at(piece.end));
                            self.unnamed(form, std::slice::from_ref(bytes));
                        }
                    }
                }
            }
        }
    }

    /// Events that were published as such. A block of comments alone is left out: clients that have seen an id take the blank
    /// line after it for an event without data. The id comes first, but for an event with an id of its own, for the last one
    /// counts, and one whose beginning was told before.
    fn published(&mut self, epoch: u64, start: u64, bytes: &[u8], within: &mut Unfinished) {
        let mut at = 0;
        while at < bytes.len() {
            let was_open = within.is_open();
            let rest = &bytes[at..];
            let (blank, end) = within.end(rest).map_or((rest.len(), None), |(blank, end)| (blank, Some(end)));
            let breaks = |&&byte: &&u8| matches!(byte, b'\r' | b'\n');
            let skip = if was_open { 0 } else { rest[..blank].iter().take_while(breaks).count() };
            let lines = &rest[skip..blank];
            match end {
                Some(end) if was_open || !is_comment(lines) => {
                    let id = Offset { epoch, position: start + (at + end) as u64 }.to_string();
                    let is_first = !was_open && !has_id(lines);
                    if is_first {
                        let _ = self.field("id", &id);
                    }
                    self.verbatim(lines);
                    if !is_first {
                        let _ = self.field("id", &id);
                    }
                    self.verbatim(&rest[blank..end]);
                }
                Some(_) => {}
                None => return self.verbatim(lines),
            }
            at += end.unwrap_or(rest.len());
        }
    }

    /// Events of an answer after the one with this `sequence_number`; says whether all that follow belong to them.
    pub fn after_sequence(&mut self, after: u64, bytes: &[u8]) -> bool {
        #[derive(serde::Deserialize)]
        struct Numbered {
            sequence_number: u64,
        }
        let mut passed = false;
        for block in blocks(bytes) {
            let mut lines = block.split(|&byte| byte == b'\n');
            let data = lines.find_map(|line| line.strip_prefix(b"data:"));
            let number = data.and_then(|data| serde_json::from_slice::<Numbered>(data.trim_ascii()).ok());
            passed |= number.is_none_or(|event| event.sequence_number > after);
            if passed {
                self.verbatim(block);
            }
        }
        passed
    }

    /// One event for a record, or for each of its messages.
    fn named(&mut self, name: &str, form: Form, epoch: u64, piece: &Piece, bytes: &Bytes) {
        for (range, end) in messages(piece, bytes.len()) {
            self.open(name, Offset { epoch, position: end });
            match form {
                Form::Binary => self.line(BASE64.encode(&bytes[range]).as_bytes()),
                Form::Json | Form::Text => self.lines([&bytes[range]]),
            }
            self.end();
        }
    }

    /// The data of one event, and its end.
    fn unnamed(&mut self, form: Form, bytes: &[Bytes]) {
        match form {
            Form::Binary => {
                let whole: Vec<u8> = bytes.concat();
                self.line(BASE64.encode(whole).as_bytes());
            }
            Form::Text => self.lines(bytes.iter().map(|bytes| &bytes[..])),
            Form::Json => {
                let last = bytes.last().map_or(&[][..], |bytes| &bytes[..bytes.len() - 1]);
                let others = bytes[..bytes.len() - 1].iter().map(|bytes| &bytes[..]);
                self.lines([&b"["[..]].into_iter().chain(others).chain([last, b"]"]));
            }
        }
        self.end();
    }

    /// One record of one of several streams, or each of its messages, with that stream's name. `id` goes on after it in all of
    /// them; of a message that is not the last it is asked where that ends in the piece, and may have none.
    pub fn of_several(
        &mut self,
        stream: &Stream,
        piece: &Piece,
        bytes: &Bytes,
        id: impl Fn(Option<u32>) -> Option<String>,
    ) {
        let form = stream.kind.form;
        let ranges: Vec<_> = messages(piece, bytes.len()).collect();
        let last = ranges.len() - 1;
        for (place, (range, end)) in ranges.into_iter().enumerate() {
            let name = piece.event.as_deref().unwrap_or("data");
            let _ = self.field("event", name);
            if let Some(id) = id((place < last).then_some((end - piece.start) as u32)) {
                let _ = self.field("id", &id);
            }
            let data = match form {
                Form::Json => String::from_utf8_lossy(&bytes[range]).into_owned(),
                Form::Text => Value::from(&*String::from_utf8_lossy(&bytes[range])).to_string(),
                Form::Binary => Value::from(BASE64.encode(&bytes[range])).to_string(),
            };
            let (name, offset) = (Value::from(&*stream.name), stream.offset(end));
            let head = format!(r#"{{"stream":{name},"offset":"{offset}","data":"#);
            self.lines([head.as_bytes(), data.as_bytes(), b"}"]);
            self.end();
        }
    }
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

/// Each message of a piece without its comma, or all of it, and where it ends in the stream.
fn messages(piece: &Piece, length: usize) -> impl Iterator<Item = (Range<usize>, u64)> + '_ {
    let whole = piece.ends.is_empty().then_some((0..length, piece.end));
    let starts = std::iter::once(0).chain(piece.ends.iter().copied());
    let each = starts
        .zip(&*piece.ends)
        .map(|(start, &end)| (start as usize..end as usize - 1, piece.start + u64::from(end)));
    whole.into_iter().chain(each)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::events::tests::written;
    use crate::stream::log::Source;

    fn piece(bytes: &'static [u8], ends: &[u32], event: Option<&str>) -> (Piece, Bytes) {
        let bytes = Bytes::from_static(bytes);
        let piece = Piece {
            start: 0,
            end: bytes.len() as u64,
            order: 1,
            event: event.map(Into::into),
            ends: ends.into(),
            source: Source::Here(bytes.clone()),
        };
        (piece, bytes)
    }

    #[test]
    fn a_part_is_one_event_for_the_protocol_and_one_a_record_for_a_browser() {
        let (one, first) = piece(b"1,{\"a\":\n2},", &[2, 11], Some("chat"));
        let (two, second) = piece(b"3,", &[2], None);
        let (pieces, bytes) = ([one, two], [first, second]);
        let mut events = Events::default();
        events.part(View::Protocol, Form::Json, 1, &pieces, &bytes, &mut Unfinished::default());
        let id = "id: 0000000000000001-";
        assert_eq!(
            written(events),
            format!("event: data\n{id}00000000000000000002\ndata:[1,{{\"a\":\ndata:2}},3]\n\n")
        );
        let mut events = Events::default();
        events.part(View::EventSource, Form::Json, 1, &pieces, &bytes, &mut Unfinished::default());
        let all = written(events);
        let first = format!("event: chat\n{id}00000000000000000002\ndata:1\n\n");
        let second = format!("event: chat\n{id}00000000000000000011\ndata:{{\"a\":\ndata:2}}\n\n");
        let third = format!("event: data\n{id}00000000000000000002\ndata:[3]\n\n");
        assert_eq!(all, [first, second, third].concat());
    }

    #[test]
    fn published_events_keep_their_bytes_and_get_ids() {
        let (piece, bytes) = piece(b"data: 1\n\n: ping\n\nevent: x\r\ndata: 2\r\n\r\n", &[], None);
        let mut events = Events::default();
        events.part(View::Published, Form::Text, 0, &[piece], &[bytes], &mut Unfinished::default());
        let id = "id: 0000000000000000-000000000000000000";
        assert_eq!(written(events), format!("{id}09\ndata: 1\n\n{id}38\nevent: x\r\ndata: 2\r\n\r\n"));
    }

    #[test]
    fn an_answer_goes_on_after_a_number() {
        let text = b"data: {\"sequence_number\":0}\n\ndata: {\"sequence_number\":1}\n\ndata: {\"sequence_number\":2}\n\n";
        for (after, left) in [(0, &text[29..]), (1, &text[58..]), (2, &text[87..])] {
            let mut events = Events::default();
            assert_eq!(events.after_sequence(after, text), after < 2);
            assert_eq!(written(events).as_bytes(), left);
        }
    }

    #[test]
    fn no_line_of_the_data_is_a_field() {
        let (piece, bytes) = piece(b"a\r\nid: 7\revent: x\n\n", &[], None);
        let mut events = Events::default();
        events.part(View::Protocol, Form::Text, 0, &[piece], &[bytes], &mut Unfinished::default());
        let text = written(events);
        assert!(text.ends_with("data:a\ndata:id: 7\ndata:event: x\ndata:\ndata:\n\n"), "{text}");
    }
}

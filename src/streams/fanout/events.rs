//! Events as they are written (WHATWG HTML, 9.2.6), in a chunk of their own, and those that the edge itself has to say.

use std::fmt::Write;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::streams::model::offset::Offset;
use crate::streams::reserved::Line;

/// Room for the size of a chunk before its data: eight digits and a line end (RFC 9112, 7.1).
const CHUNK_HEAD_BYTES: usize = 10;

/// Events as they are written, in one chunk.
#[derive(Debug)]
pub(crate) struct Events {
    out: Vec<u8>,
}

impl Default for Events {
    fn default() -> Events {
        Events { out: vec![0; CHUNK_HEAD_BYTES] }
    }
}

/// What a control event says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Control {
    /// Where to read on.
    pub(crate) next: Offset,
    /// What is to be said when asking again.
    pub(crate) cursor: u64,
    /// There is no more for now.
    pub(crate) up_to_date: bool,
    /// There never will be.
    pub(crate) closed: bool,
}

impl Events {
    /// Bytes that are events already.
    pub(crate) fn verbatim(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Lines of events that somebody else has written, as they are shown.
    pub(crate) fn foreign(&mut self, lines: &[u8], line: &mut Line) {
        line.show(lines, &mut self.out);
    }

    /// Writes where the reader stands. The id is written where nothing else has told it.
    pub(crate) fn control(&mut self, control: &Control, with_id: bool) {
        let _ = self.field("event", "control");
        if with_id {
            let _ = self.field("id", &control.next.to_string());
        }
        let mut data = format!(r#"{{"streamNextOffset":"{}""#, control.next);
        if !control.closed {
            let _ = write!(data, r#","streamCursor":"{}""#, control.cursor);
        }
        if control.up_to_date {
            data.push_str(r#","upToDate":true"#);
        }
        if control.closed {
            data.push_str(r#","streamClosed":true"#);
        }
        data.push('}');
        self.line(data.as_bytes());
        self.end();
    }

    /// Tells a reader of several streams where it is.
    pub(crate) fn place(&mut self, place: &str) {
        let _ = self.field("event", "control");
        let _ = self.field("id", place);
        self.line(format!(r#"{{"streamNextOffset":"{place}"}}"#).as_bytes());
        self.end();
    }

    /// Tells that one of several streams is not there, or not any more.
    pub(crate) fn absent(&mut self, stream: &str, is_gone: bool) {
        let _ = self.field("event", "control");
        let why = if is_gone { "streamGone" } else { "streamMissing" };
        self.line(format!(r#"{{"stream":{},"{why}":true}}"#, Value::from(stream)).as_bytes());
        self.end();
    }

    /// Tells that the stream is not there any more, and how far it was told.
    pub(crate) fn gone(&mut self, place: &str) {
        let _ = self.field("event", "control");
        self.line(format!(r#"{{"streamNextOffset":"{place}","streamGone":true}}"#).as_bytes());
        self.end();
    }

    /// Tells that what was asked for is not there, and where it goes on instead.
    pub(crate) fn reset(&mut self, reason: &str, requested: &str, earliest: &str) {
        let _ = self.field("event", "reset");
        let _ = self.field("id", earliest);
        let requested = Value::from(requested);
        let data = format!(r#"{{"reason":"{reason}","requested":{requested},"earliest":"{earliest}"}}"#);
        self.line(data.as_bytes());
        self.end();
    }

    /// Tells that there is no more, and why; an EventSource takes it for one of its own errors, with data.
    pub(crate) fn error(&mut self, body: &[u8]) {
        let _ = self.field("event", "error");
        self.line(body);
        self.end();
    }

    /// Says how long a browser is to wait before it comes again, in milliseconds, as a part of the event that follows: a field
    /// alone would not be an event, and some clients take it for one.
    pub(crate) fn retry(&mut self, ms: u32) {
        let _ = self.field("retry", itoa::Buffer::new().format(ms));
    }

    /// Begins an event, up to its data. Without a name it is a browser's `message`.
    pub(crate) fn begin(&mut self, event: Option<&str>, id: Offset) {
        if let Some(event) = event {
            let _ = self.field("event", event);
        }
        let _ = self.field("id", &id.to_string());
        self.data();
    }

    pub(crate) fn field(&mut self, name: &str, value: &str) -> std::fmt::Result {
        for part in [name, ": ", value, "\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }

    pub(crate) fn line(&mut self, data: &[u8]) {
        self.data();
        self.text(data);
        self.out.push(b'\n');
    }

    pub(crate) fn data(&mut self) {
        self.out.extend_from_slice(b"data:");
    }

    /// A part of a line of data. A space right after the colon would be taken off (WHATWG HTML, 9.2.6), so one that is meant
    /// needs another before it; otherwise there is none, which is a byte less on each line.
    pub(crate) fn text(&mut self, part: &[u8]) {
        if part.first() == Some(&b' ') && self.out.last() == Some(&b':') && self.out.ends_with(b"\ndata:") {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(part);
    }

    /// Lines of data: CR, LF and CRLF all end one (WHATWG HTML, 9.2.6). They go on after the byte `after`, and within a line that
    /// was written before but for the first of an event. It stops at a line end once as many bytes as `max` are written; how
    /// many of the data are.
    pub(crate) fn some_lines(&mut self, data: &[u8], after: Option<u8>, is_first: bool, max: usize) -> usize {
        let skip = usize::from(after == Some(b'\r') && data.first() == Some(&b'\n'));
        let mut at = skip;
        if !is_first && matches!(after, Some(b'\r' | b'\n')) && data.get(at) == Some(&b' ') {
            // The colon was written before.
            self.out.push(b' ');
        }
        while let Some(length) = memchr::memchr2(b'\r', b'\n', &data[at..]) {
            let end = at + length;
            self.text(&data[at..end]);
            self.out.push(b'\n');
            self.data();
            at = end + 1;
            if data[end] == b'\r' && data.get(at) == Some(&b'\n') {
                at += 1;
            }
            if self.len() >= max {
                return at;
            }
        }
        self.text(&data[at..]);
        data.len()
    }

    /// Text as it stands in a JSON string, U+FFFD for what is none. It stops once as many bytes as `max` are written; how many
    /// of the text are.
    pub(crate) fn escaped(&mut self, text: &[u8], max: usize) -> usize {
        let mut done = 0;
        for chunk in text.utf8_chunks() {
            for (at, character) in chunk.valid().char_indices() {
                if self.len() >= max {
                    return done + at;
                }
                self.escape(character);
            }
            done += chunk.valid().len() + chunk.invalid().len();
            if !chunk.invalid().is_empty() {
                self.escape(char::REPLACEMENT_CHARACTER);
            }
        }
        text.len()
    }

    fn escape(&mut self, character: char) {
        match character {
            '"' => self.out.extend_from_slice(b"\\\""),
            '\\' => self.out.extend_from_slice(b"\\\\"),
            '\n' => self.out.extend_from_slice(b"\\n"),
            '\r' => self.out.extend_from_slice(b"\\r"),
            '\t' => self.out.extend_from_slice(b"\\t"),
            '\0'..='\x1f' => {
                self.out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => self.out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }

    /// Bytes in base64, as many as there are.
    pub(crate) fn base64(&mut self, bytes: &[u8]) -> usize {
        let start = self.out.len();
        self.out.resize(start + bytes.len().div_ceil(3) * 4, 0);
        let written = BASE64.encode_slice(bytes, &mut self.out[start..]);
        debug_assert_eq!(written, Ok(self.out.len() - start), "room for all of it");
        bytes.len()
    }

    pub(crate) fn end(&mut self) {
        self.out.push(b'\n');
    }

    /// Whether nothing was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.out.len() == CHUNK_HEAD_BYTES
    }

    /// Bytes of events so far.
    pub(crate) fn len(&self) -> usize {
        self.out.len() - CHUNK_HEAD_BYTES
    }

    /// All of it, as a chunk; the events alone are at [`payload`].
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let size = format!("{:08x}\r\n", self.len());
        self.out[..CHUNK_HEAD_BYTES].copy_from_slice(size.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.out
    }
}

/// Where the events are in a chunk; nothing is no chunk.
pub(crate) fn payload(chunk: &[u8]) -> Range<usize> {
    if chunk.is_empty() { 0..0 } else { CHUNK_HEAD_BYTES..chunk.len() - 2 }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of a chunk, whose size is right.
    pub(crate) fn written(events: Events) -> String {
        let chunk = events.finish();
        let events = &chunk[payload(&chunk)];
        let size = std::str::from_utf8(&chunk[..8]).expect("digits");
        assert_eq!(usize::from_str_radix(size, 16), Ok(events.len()));
        String::from_utf8(events.to_vec()).expect("text")
    }

    proptest! {
        /// However the text is divided: a client sees it with each line end as one LF (WHATWG HTML, 9.2.6).
        #[test]
        fn text_arrives_as_it_was_but_for_its_line_ends(parts in prop::collection::vec("[ab:\r\n ]{1,8}", 1..6), max in 1..30_usize) {
            let mut text = "\n".to_owned();
            let mut after = None;
            let mut is_first = true;
            for part in &parts {
                let mut rest = part.as_bytes();
                while !rest.is_empty() {
                    // Each step begins anew, as if what was before had been sent.
                    let mut events = Events::default();
                    if is_first {
                        events.out.extend_from_slice(b"\ndata:");
                    }
                    let told = events.some_lines(rest, after, is_first, max);
                    text += written(events).trim_start_matches(if is_first { "\n" } else { "\0" });
                    (after, is_first) = (rest[..told].last().copied(), false);
                    rest = &rest[told..];
                }
            }
            let text = format!("{}\n", &text[1..]);
            let lines: Vec<_> = text.strip_suffix('\n').expect("a line end").split('\n').collect();
            let seen: Vec<_> = lines
                .iter()
                .map(|line| line.strip_prefix("data:").expect("data"))
                .map(|value| value.strip_prefix(' ').unwrap_or(value))
                .collect();
            let meant = parts.concat().replace("\r\n", "\n").replace('\r', "\n");
            prop_assert_eq!(seen.join("\n"), meant);
        }
    }
}

//! Events as they are written (WHATWG HTML, 9.2.6), in a chunk of their own, and those that the edge itself has to say.

use std::fmt::Write;
use std::ops::Range;

use bytes::Bytes;
use serde_json::Value;

use super::offset::Offset;

/// Room for the size of a chunk before its data: eight digits and a line end (RFC 9112, 7.1).
const CHUNK_HEAD_BYTES: usize = 10;

/// Events as they are written, in one chunk.
#[derive(Debug)]
pub struct Events {
    out: Vec<u8>,
}

impl Default for Events {
    fn default() -> Events {
        Events { out: vec![0; CHUNK_HEAD_BYTES] }
    }
}

/// What a control event says.
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Where to read on.
    pub next: Offset,
    /// What is to be said when asking again.
    pub cursor: u64,
    /// There is no more for now.
    pub up_to_date: bool,
    /// There never will be.
    pub closed: bool,
}

impl Events {
    /// Bytes that are events already.
    pub fn verbatim(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes where the reader stands. The id is written where nothing else has told it.
    pub fn control(&mut self, control: &Control, with_id: bool) {
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
    pub fn place(&mut self, place: &str) {
        let _ = self.field("event", "control");
        let _ = self.field("id", place);
        self.line(format!(r#"{{"streamNextOffset":"{place}"}}"#).as_bytes());
        self.end();
    }

    /// Tells that what was asked for is not there, and where it goes on instead.
    pub fn reset(&mut self, reason: &str, requested: &str, earliest: &str) {
        let _ = self.field("event", "reset");
        let _ = self.field("id", earliest);
        let requested = Value::from(requested);
        let data = format!(r#"{{"reason":"{reason}","requested":{requested},"earliest":"{earliest}"}}"#);
        self.line(data.as_bytes());
        self.end();
    }

    /// Says how long a browser is to wait before it comes again, in milliseconds, as a part of the event that follows: a field
    /// alone would not be an event, and some clients take it for one.
    pub fn retry(&mut self, ms: u32) {
        let _ = self.field("retry", itoa::Buffer::new().format(ms));
    }

    pub(super) fn open(&mut self, event: &str, id: Offset) {
        let _ = self.field("event", event);
        let _ = self.field("id", &id.to_string());
    }

    pub(super) fn field(&mut self, name: &str, value: &str) -> std::fmt::Result {
        for part in [name, ": ", value, "\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }

    pub(super) fn line(&mut self, data: &[u8]) {
        self.data();
        self.text(data);
        self.out.push(b'\n');
    }

    pub(super) fn data(&mut self) {
        self.out.extend_from_slice(b"data:");
    }

    /// A part of a line of data. A space right after the colon would be taken off (WHATWG HTML, 9.2.6), so one that is meant
    /// needs another before it; otherwise there is none, which is a byte less on each line.
    pub(super) fn text(&mut self, part: &[u8]) {
        if part.first() == Some(&b' ') && self.out.last() == Some(&b':') && self.out.ends_with(b"\ndata:") {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(part);
    }

    /// Data in as many lines as it has: CR, LF and CRLF all end one (WHATWG HTML, 9.2.6).
    pub(super) fn lines<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        self.data();
        let mut after_cr = false;
        for part in parts {
            let mut rest = part;
            while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
                let is_second = after_cr && at == 0 && rest[0] == b'\n';
                self.text(&rest[..at]);
                if !is_second {
                    self.out.push(b'\n');
                    self.data();
                }
                after_cr = rest[at] == b'\r';
                rest = &rest[at + 1..];
            }
            if !rest.is_empty() {
                after_cr = false;
            }
            self.text(rest);
        }
        self.out.push(b'\n');
    }

    pub(super) fn end(&mut self) {
        self.out.push(b'\n');
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.out.len() == CHUNK_HEAD_BYTES
    }

    /// Bytes of events so far.
    pub fn len(&self) -> usize {
        self.out.len() - CHUNK_HEAD_BYTES
    }

    /// All of it, as a chunk; the events alone are at [`payload`].
    pub fn finish(mut self) -> Bytes {
        let size = format!("{:08x}\r\n", self.len());
        self.out[..CHUNK_HEAD_BYTES].copy_from_slice(size.as_bytes());
        self.out.extend_from_slice(b"\r\n");
        self.out.into()
    }
}

/// Where the events are in a chunk; nothing is no chunk.
pub fn payload(chunk: &Bytes) -> Range<usize> {
    if chunk.is_empty() { 0..0 } else { CHUNK_HEAD_BYTES..chunk.len() - 2 }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events of a chunk, whose size is right.
    pub(in crate::stream) fn written(events: Events) -> String {
        let chunk = events.finish();
        let events = &chunk[payload(&chunk)];
        let size = std::str::from_utf8(&chunk[..8]).expect("digits");
        assert_eq!(usize::from_str_radix(size, 16), Ok(events.len()));
        String::from_utf8(events.to_vec()).expect("text")
    }

    proptest! {
        /// However the text is divided: a client sees it with each line end as one LF (WHATWG HTML, 9.2.6).
        #[test]
        fn text_arrives_as_it_was_but_for_its_line_ends(parts in prop::collection::vec("[ab:\r\n ]{0,8}", 1..6)) {
            let mut events = Events::default();
            events.out.push(b'\n');
            events.lines(parts.iter().map(|part| part.as_bytes()));
            let text = written(events)[1..].to_owned();
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

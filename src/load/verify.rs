//! What the body of an answer must hold: events of JSON up to one that ends the stream, or one JSON text.
//!
//! [`Scanner`] tells where events end and what they mean, as the relay uses it; beside it the data of each event is gathered
//! here and read as JSON. What is held is one event, never the stream.

use memchr::memchr2;
use serde::de::IgnoredAny;

use super::failure::{Failure, Kind};
use crate::proto::openai::is_error;
use crate::proto::sse::Scanner;

/// The longest line of a stream, and the most data of one event.
pub(crate) const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The longest answer that is not a stream.
pub(crate) const WHOLE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Room that is kept from one event to the next.
const ROOM_KEPT_BYTES: usize = 16 * 1024;

/// Checks one stream.
#[derive(Debug, Default)]
pub(crate) struct StreamCheck {
    scanner: Scanner,
    /// The line that was begun in an earlier piece.
    line: Vec<u8>,
    /// The data of the event so far, its lines joined by LF.
    data: Vec<u8>,
    has_data: bool,
    /// The last piece ended in CR: a LF that follows belongs to it.
    after_cr: bool,
    /// A first line was seen, so a byte order mark is none any more.
    begun: bool,
}

impl StreamCheck {
    /// Takes the next bytes of the body, and counts the events that they completed up to the first fault in them.
    pub(crate) fn feed(&mut self, piece: &[u8], events: &mut u32) -> Result<(), Failure> {
        let (mut at, mut scanned) = (0, 0);
        if self.after_cr && !piece.is_empty() {
            self.after_cr = false;
            at = usize::from(piece[0] == b'\n');
        }
        while let Some(length) = memchr2(b'\n', b'\r', &piece[at..]) {
            let end = at + length;
            let is_blank = if self.line.is_empty() {
                self.end_line(&piece[at..end])?
            } else {
                self.keep(&piece[at..end])?;
                let line = std::mem::take(&mut self.line);
                let is_blank = self.end_line(&line)?;
                self.line = emptied(line);
                is_blank
            };
            at = end + 1;
            if is_blank {
                let completed = self.scanner.feed(&piece[scanned..at]);
                scanned = at;
                self.end_event()?;
                *events += completed;
            }
            if piece[end] == b'\r' {
                self.after_cr = at == piece.len();
                at += usize::from(piece.get(at) == Some(&b'\n'));
            }
        }
        self.scanner.feed(&piece[scanned..]);
        self.keep(&piece[at..])
    }

    /// To be asked when the body has ended by the rules of HTTP.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        match self.scanner.terminal() {
            true => Ok(()),
            false => {
                Err(Failure::new(Kind::Unfinished, "the body ended without [DONE] or another last event"))
            }
        }
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), Failure> {
        if self.line.len() + part.len() > EVENT_BYTES_MAX {
            return Err(TOO_LONG);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    /// Takes a whole line. Returns whether it was a blank one, which ends an event.
    fn end_line(&mut self, line: &[u8]) -> Result<bool, Failure> {
        let line = match std::mem::replace(&mut self.begun, true) {
            false => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            true => line,
        };
        if line.is_empty() {
            return Ok(true);
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return Ok(false),
        };
        if self.data.len() + value.len() >= EVENT_BYTES_MAX {
            return Err(TOO_LONG);
        }
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
        Ok(false)
    }

    fn end_event(&mut self) -> Result<(), Failure> {
        if !std::mem::take(&mut self.has_data) {
            return Ok(());
        }
        if self.scanner.error_seen() || is_error(&self.data) {
            return Err(Failure::of_bytes(Kind::ErrorEvent, &self.data));
        }
        if self.data != b"[DONE]" {
            check_json(&self.data)?;
        }
        self.data.clear();
        self.data.shrink_to(ROOM_KEPT_BYTES);
        Ok(())
    }
}

const TOO_LONG: Failure = Failure::new(Kind::TooLarge, "an event of the stream is longer than 4 MiB");

/// Whether `text` is JSON, whatever it says.
pub(crate) fn check_json(text: &[u8]) -> Result<(), Failure> {
    match serde_json::from_slice::<IgnoredAny>(text) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::of_bytes(Kind::NotJson, text)),
    }
}

fn emptied(mut line: Vec<u8>) -> Vec<u8> {
    line.clear();
    line.shrink_to(ROOM_KEPT_BYTES);
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(body: &[u8], piece: usize) -> Result<u32, Kind> {
        let mut check = StreamCheck::default();
        let mut events = 0;
        for piece in body.chunks(piece) {
            check.feed(piece, &mut events).map_err(|failure| failure.kind)?;
        }
        check.end().map_err(|failure| failure.kind)?;
        Ok(events)
    }

    #[test]
    fn streams_are_judged_alike_however_they_are_cut() {
        for (body, expected) in [
            (&b"data: {\"a\":1}\n\ndata: [DONE]\n\n"[..], Ok(2)),
            (b"\xef\xbb\xbfdata:{}\r\n\r\n: ping\r\ndata:[DONE]\r\n\r\n", Ok(2)),
            (b"data: [1,\rdata: 2]\r\rdata: [DONE]\r\r", Ok(2)),
            (b": only\n\nid: 7\n\nevent: response.completed\ndata: {\"x\":[]}\n\n", Ok(1)),
            (b"data: {\"a\":1}\n\n", Err(Kind::Unfinished)),
            (b"data: {\"a\":1}\n\ndata: [DONE]\n", Err(Kind::Unfinished)),
            (b"", Err(Kind::Unfinished)),
            (b"data: {\"a\":\n\ndata: [DONE]\n\n", Err(Kind::NotJson)),
            (b"data\n\ndata: [DONE]\n\n", Err(Kind::NotJson)),
            (b"data: [DONE]x\n\n", Err(Kind::NotJson)),
            (b"data: {\"error\":{\"code\":null}}\n\n", Err(Kind::ErrorEvent)),
            (b"event: error\ndata: {\"a\":1}\n\ndata: [DONE]\n\n", Err(Kind::ErrorEvent)),
        ] {
            for piece in 1..=body.len().max(1) {
                let text = String::from_utf8_lossy(body);
                assert_eq!(checked(body, piece), expected, "{text:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn an_error_event_is_told_with_its_data() {
        let (mut check, mut events) = (StreamCheck::default(), 0);
        let failure =
            check.feed(b"data: {}\n\ndata: {\"error\":{\"code\":\"cut\"}}\n\n", &mut events).unwrap_err();
        assert_eq!(events, 1, "the one before it arrived");
        assert_eq!(failure.detail, r#"{"error":{"code":"cut"}}"#);
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let kind_of =
            |check: &mut StreamCheck, piece: &[u8]| check.feed(piece, &mut 0).map_err(|failure| failure.kind);
        let mut check = StreamCheck::default();
        let piece = vec![b'x'; 1024 * 1024];
        let kinds: Vec<_> = (0..6).map(|_| kind_of(&mut check, &piece)).collect();
        assert_eq!(kinds[3], Ok(()));
        assert_eq!(kinds[4], Err(Kind::TooLarge));
        let mut check = StreamCheck::default();
        let line = [b"data: ", &piece[..], b"\n"].concat();
        let last = (0..6).map(|_| kind_of(&mut check, &line)).last().unwrap();
        assert_eq!(last, Err(Kind::TooLarge));
    }
}

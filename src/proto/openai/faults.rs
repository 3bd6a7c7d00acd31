//! Errors and ends that the data of events tell, where a cheap look at a segment has shown that there may be one.
//!
//! Nearly every segment is whole events without the bytes of a key `error`: those are never read here. A segment that may hold one, or
//! that ends within an event, is read line by line, and the data of each event as one JSON document ([`Members`]). What an event
//! says counts once a blank line has ended it, as it does for clients.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

use crate::proto::json::members::{Found, Members};

/// Ends the key of every error, and the type of Anthropic's.
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"error\""));

/// Whether `bytes` may hold a member that is an error, or a type that says so.
pub(crate) fn may_be_error(bytes: &[u8]) -> bool {
    ERROR.find(bytes).is_some()
}

/// Whether `piece` ends where an event does, so that nothing of it has to be known for the next.
#[inline]
pub(crate) fn ends_event(piece: &[u8]) -> bool {
    piece.ends_with(b"\n\n") || piece.ends_with(b"\r\n\r\n")
}

/// The events of a stream that are looked into.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    line: Line,
    after_cr: bool,
    /// The data of the event that has begun.
    members: Members,
}

/// The line that the next byte belongs to.
#[derive(Clone, Copy, Debug, Default)]
enum Line {
    #[default]
    Start,
    /// So many bytes of it are the first ones of `data:`.
    Name(u8),
    Data,
    Other,
}

const DATA: &[u8] = b"data:";

impl Faults {
    /// Looks at the next bytes; says what the events have told that ended in them.
    pub(crate) fn feed(&mut self, piece: &[u8]) -> Found {
        let (mut found, mut rest) = (Found::default(), piece);
        while let Some((&byte, tail)) = rest.split_first() {
            if std::mem::take(&mut self.after_cr) && byte == b'\n' {
                rest = tail;
                continue;
            }
            match (self.line, byte) {
                (Line::Start, b'\n' | b'\r') => {
                    let told = std::mem::take(&mut self.members).found();
                    found.error |= told.error;
                    found.terminal |= told.terminal;
                    self.after_cr = byte == b'\r';
                    rest = tail;
                }
                // A byte order mark, which is no part of the first line.
                (Line::Start, 0xEF | 0xBB | 0xBF) => rest = tail,
                (Line::Start, _) => self.line = Line::Name(0),
                (Line::Name(at), _) if DATA.get(usize::from(at)) == Some(&byte) => {
                    let at = at + 1;
                    self.line = if usize::from(at) == DATA.len() { Line::Data } else { Line::Name(at) };
                    rest = tail;
                }
                (Line::Name(_), _) => self.line = Line::Other,
                (Line::Data | Line::Other, _) => {
                    let end = memchr2(b'\n', b'\r', rest);
                    let (line, after) = rest.split_at(end.unwrap_or(rest.len()));
                    if matches!(self.line, Line::Data) {
                        self.members.feed(line);
                    }
                    rest = after;
                    if let Some((&last, after)) = after.split_first() {
                        (self.line, self.after_cr, rest) = (Line::Start, last == b'\r', after);
                    }
                }
            }
        }
        found
    }

    /// Whether no event has begun that has not ended.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.line, Line::Start) && self.members.is_untouched()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Found {
        Faults::default().feed(text.as_bytes())
    }

    #[test]
    fn an_event_is_an_error_when_it_has_ended() {
        for text in [
            "data: {\"error\":{}}\n\n",
            "\u{feff}data:{\"id\":\"x\",\"error\":{}}\r\n\r\n",
            "event: x\r\ndata: {\r\ndata:   \"error\": 1\r\ndata: }\r\n\r\n",
            "data: {\"error\":null}\n\n: \"error\"\n\ndata: {\"type\":\"error\"}\n\n",
        ] {
            assert!(of(text).error, "{text}");
        }
        for text in [
            "data: {\"error\":{}}\n",
            "datas: {\"error\":{}}\n\n",
            ": data: {\"error\":{}}\n\n",
            "data: {\ndata: \"a\":1}\ndata: \"error\"\n\n",
            "data: {\n\ndata: \"error\":{}}\n\n",
        ] {
            assert!(!of(text).error, "{text}");
        }
        assert!(of("data: {\"type\":\"message_stop\"}\n\n").terminal);
    }

    proptest! {
        /// However a stream is cut, the same is found, and it is closed where its events have ended.
        #[test]
        fn cuts_change_nothing(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            let text = b"event: a\r\ndata: {\"x\":1}\r\n\r\n: c\n\ndata: {\ndata: \"error\" :{\ndata: }}\n\ndata:{\"type\":\"message_stop\"}\n\n";
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let (mut faults, mut found) = (Faults::default(), Found::default());
            for pair in at.windows(2) {
                let told = faults.feed(&text[pair[0]..pair[1]]);
                found.error |= told.error;
                found.terminal |= told.terminal;
            }
            prop_assert!(found.error && found.terminal && faults.is_closed());
        }
    }
}

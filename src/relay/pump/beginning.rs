//! The beginning of an event stream on its way to the client: when it says its first, and a byte order mark that comes too late.
//!
//! The head of a stream tells nothing of how soon a model begins: most servers send it before they have asked the model. So what is
//! balanced, broken and reported by time is the first content. It is looked for in each segment until it has come; from then on all of
//! this is a `None` that is looked at once a segment.

use std::ops::Range;

use crate::proto::openai::{FirstContent, Seen};
use crate::runtime::clock::Micros;

/// The most of a line that is held while the first content is awaited; a line that is longer is content.
const LINE_BYTES_MAX: usize = 64 * 1024;

const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// A stream that may not have said anything yet.
#[derive(Default)]
pub(crate) struct Beginning {
    awaited: Option<FirstContent>,
    state: Begun,
    /// Bytes of a byte order mark that were left out.
    bom: u8,
}

#[derive(Clone, Copy, Default)]
enum Begun {
    /// It has said nothing, or nothing but an error, or is no stream.
    #[default]
    Not,
    /// It just has.
    Now,
    At(Micros),
}

impl Beginning {
    /// Of a stream that is looked into.
    pub(crate) fn of_events() -> Beginning {
        Beginning { awaited: Some(FirstContent::default()), ..Beginning::default() }
    }

    /// Whether it has said nothing so far.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Looks for the first content.
    #[inline(never)]
    pub(crate) fn feed(&mut self, payload: &[u8]) {
        let Some(first) = &mut self.awaited else { return };
        let seen = first.feed(payload);
        if seen != Seen::Nothing || first.held_bytes() > LINE_BYTES_MAX {
            self.awaited = None;
            self.state = if seen == Seen::Error { Begun::Not } else { Begun::Now };
        }
    }

    /// Whether the first content has come since this was last asked, which is `now`.
    pub(crate) fn has_just_come(&mut self, now: Micros) -> bool {
        let just = matches!(self.state, Begun::Now);
        if just {
            self.state = Begun::At(now);
        }
        just
    }

    /// When it said its first.
    pub(crate) fn at(&self) -> Option<Micros> {
        match self.state {
            Begun::At(at) => Some(at),
            Begun::Not | Begun::Now => None,
        }
    }

    /// Whether the byte after `bytes` others may belong to a byte order mark at the beginning.
    pub(crate) fn may_go_on_with_bom(&self, bytes: u64) -> bool {
        bytes == u64::from(self.bom) && usize::from(self.bom) < BOM.len()
    }

    /// The part of `payload`, which is next, that does not belong to a byte order mark. Behind a heartbeat a mark does not stand at the beginning any
    /// more: there it would make the first line one that does not begin with `data`, and the first event would be lost.
    #[cold]
    pub(crate) fn without_bom(&mut self, block: &mut [u8], mut payload: Range<usize>) -> Range<usize> {
        let seen = usize::from(self.bom);
        let rest = &BOM[seen..];
        let same = block[payload.clone()].iter().zip(rest).take_while(|(byte, mark)| byte == mark).count();
        if same == rest.len() || same == payload.len() {
            self.bom += same as u8;
            payload.start += same;
        } else {
            // The bytes before were no mark after all. The room for a chunk's size line has place for it as well.
            payload.start -= seen;
            block[payload.start..payload.start + seen].copy_from_slice(&BOM[..seen]);
            self.bom = 0;
        }
        payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::pump::rechunk::HEAD_ROOM;

    /// What comes of a stream that comes in these pieces.
    fn passed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut beginning, mut out, mut bytes) = (Beginning::of_events(), Vec::new(), 0);
        for piece in pieces {
            let mut block = [&[0; HEAD_ROOM], *piece].concat();
            let mut payload = HEAD_ROOM..block.len();
            if beginning.may_go_on_with_bom(bytes) {
                payload = beginning.without_bom(&mut block, payload);
            }
            bytes += piece.len() as u64;
            out.extend_from_slice(&block[payload]);
        }
        out
    }

    #[test]
    fn a_mark_at_the_beginning_is_left_out_and_nothing_else() {
        for text in ["\u{feff}data: \u{feff}\n\n", "\u{feff}", "\u{feff}\u{feff}x"] {
            let bytes = text.as_bytes();
            let rest = &bytes[BOM.len()..];
            assert_eq!(passed(&[bytes]), rest);
            assert_eq!(passed(&bytes.chunks(1).collect::<Vec<_>>()), rest);
            assert_eq!(passed(&[&bytes[..2], &bytes[2..]]), rest);
        }
        for bytes in [&b"data: \xEF\xBB\xBF\n\n"[..], b"\xEF\xBBdata: x\n\n", b"\xEF\xEF\xBB\xBF", b"x"] {
            assert_eq!(passed(&[bytes]), bytes);
            assert_eq!(passed(&bytes.chunks(1).collect::<Vec<_>>()), bytes);
        }
    }

    #[test]
    fn the_first_content_has_a_time_and_an_error_has_none() {
        let mut beginning = Beginning::of_events();
        beginning.feed(b"data: {\"type\":\"response.created\"}\n\n");
        assert!(beginning.is_awaited() && !beginning.has_just_come(1));
        beginning.feed(b"data: {\"type\":\"response.output_text.delta\"}\n\n");
        assert!(!beginning.is_awaited() && beginning.has_just_come(2) && !beginning.has_just_come(3));
        assert_eq!(beginning.at(), Some(2));
        let mut failed = Beginning::of_events();
        failed.feed(b"data: {\"error\":{}}\n\n");
        assert!(!failed.is_awaited() && !failed.has_just_come(1));
        assert_eq!(failed.at(), None);
    }
}

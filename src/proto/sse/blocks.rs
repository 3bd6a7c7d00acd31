//! Where the events of a stream end, byte for byte: with the blank line after them (WHATWG HTML, 9.2.6). For those who keep
//! events apart; [`super::Scanner`] only counts them, and is faster.

use memchr::memchr2;

/// Looks for blank lines in bytes that grow at their end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Blocks {
    /// Where the line begins that has not ended yet.
    line: usize,
}

impl Blocks {
    /// Where the next event ends in `bytes`; `None` until more of them are there. `bytes` begin as they did in the call before.
    /// A lone CR at their end is not known to be a line end until the byte after it is.
    pub(crate) fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(at) = memchr2(b'\r', b'\n', &bytes[self.line..]) {
            let end = self.line + at;
            let after = match (bytes[end], bytes.get(end + 1)) {
                (b'\r', None) => return None,
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            let is_blank = at == 0;
            self.line = after;
            if is_blank {
                return Some(after);
            }
        }
        None
    }

    /// The first `bytes` are gone.
    pub(crate) fn consumed(&mut self, bytes: usize) {
        self.line -= bytes;
    }
}

/// Where a reader stands in an event that has begun and not ended: for those who see its parts and keep none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unfinished {
    open: bool,
    in_line: bool,
    after_cr: bool,
}

impl Unfinished {
    /// Whether an event has begun.
    pub(crate) fn is_open(self) -> bool {
        self.open
    }

    /// Where the event ends in the `bytes` that come next, or the first of them if none has begun: the blank line at its end,
    /// from where to where. `None` if it does not end in them.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Option<(usize, usize)> {
        let mut at = usize::from(self.after_cr && bytes.first() == Some(&b'\n'));
        self.after_cr &= bytes.is_empty();
        while let Some(length) = memchr2(b'\r', b'\n', &bytes[at..]) {
            let end = at + length;
            let is_crlf = bytes[end..].starts_with(b"\r\n");
            at = end + 1 + usize::from(is_crlf);
            if length == 0 && !self.in_line && self.open {
                *self = Unfinished::default();
                return Some((end, at));
            }
            self.open |= length > 0 || self.in_line;
            self.in_line = false;
            self.after_cr = !is_crlf && at == bytes.len() && bytes[end] == b'\r';
        }
        if at < bytes.len() {
            (self.open, self.in_line) = (true, true);
        }
        None
    }
}

/// The events in `bytes`, each with its blank line; the last may have none.
pub(crate) fn blocks(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let end = Blocks::default().next_end(bytes).unwrap_or(bytes.len());
        let (block, rest) = bytes.split_at(end);
        bytes = rest;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_line_end_there_is() {
        let text = b"data: a\n\ndata: b\r\n\r\ndata: c\r\rid: 1\n";
        let found: Vec<_> = blocks(text).map(|block| String::from_utf8_lossy(block).into_owned()).collect();
        assert_eq!(found, ["data: a\n\n", "data: b\r\n\r\n", "data: c\r\r", "id: 1\n"]);
    }

    proptest! {
        /// Seen part by part, an event ends where it ends seen as a whole.
        #[test]
        fn an_unfinished_event_ends_where_it_would(text in "[a:\r\n]{0,40}", cuts in prop::collection::vec(0..40_usize, 0..6)) {
            let bytes = text.as_bytes();
            let ends = |cuts: &[usize]| {
                let (mut state, mut found, mut at) = (Unfinished::default(), Vec::new(), 0);
                for &cut in cuts {
                    while let Some((blank, end)) = state.end(&bytes[at..cut]) {
                        found.push(at + blank);
                        at += end;
                    }
                    at = cut;
                }
                (found, state.is_open())
            };
            let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            prop_assert_eq!(ends(&cuts), ends(&[bytes.len()]));
        }

        /// However the bytes arrive, the ends are the same.
        #[test]
        fn pieces_make_no_difference(text in "[a:\r\n]{0,40}", cuts in prop::collection::vec(0..40_usize, 0..6)) {
            let bytes = text.as_bytes();
            let whole: Vec<usize> = blocks(bytes).scan(0, |at, block| { *at += block.len(); Some(*at) }).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
            ends.sort_unstable();
            ends.push(bytes.len());
            let mut found = Vec::new();
            let mut state = Blocks::default();
            for end in ends {
                while let Some(at) = state.next_end(&bytes[..end]) {
                    found.push(at);
                }
            }
            let complete: Vec<usize> = whole.iter().copied().filter(|end| found.contains(end)).collect();
            prop_assert_eq!(&found, &complete);
            // What is left is one block that has not ended, or ends with a CR that may be half of a line end.
            prop_assert!(whole.len() - found.len() <= 1);
        }
    }
}

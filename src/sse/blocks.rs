//! Where the events of a stream end, byte for byte: with the blank line after them (WHATWG HTML, 9.2.6). For those who keep
//! events apart; [`super::Scanner`] only counts them, and is faster.

use memchr::memchr2;

/// Looks for blank lines in bytes that grow at their end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocks {
    /// Where the line begins that has not ended yet.
    line: usize,
}

impl Blocks {
    /// Where the next event ends in `bytes`; `None` until more of them are there. `bytes` begin as they did in the call before.
    /// A lone CR at their end is not known to be a line end until the byte after it is.
    pub fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
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
    pub fn consumed(&mut self, bytes: usize) {
        self.line -= bytes;
    }
}

/// The events in `bytes`, each with its blank line; the last may have none.
pub fn blocks(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
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

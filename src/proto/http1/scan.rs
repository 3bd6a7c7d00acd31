//! Finding the end of a request head that arrives in any number of pieces.

use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

use super::request::{
    FIELD_COUNT, FIELD_LINE_BYTES, FIELD_SECTION_BYTES, FIELDS_TOO_LARGE, METHOD_BYTES, METHOD_TOO_LONG,
    REQUEST_LINE_BYTES, TARGET_TOO_LONG, TOO_MANY_FIELDS, request_line,
};
use super::{Reject, line};

/// How far into a request its head can reach: an empty line, the request line, the fields.
const HEAD_BYTES: usize = 2 + REQUEST_LINE_BYTES + 2 + FIELD_SECTION_BYTES;

/// Finds where a request head ends, over any number of calls, looking at each byte once.
///
/// A head that comes in one piece, as nearly all do, is only searched for its end, since [`parse`](super::request::parse)
/// is next to look at it. One that comes in several is checked line by line with `parse`'s own grammar, so that a
/// hopeless one is refused before its sender may drag it out.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    /// Everything before this was looked at.
    seen: u32,
    line_start: u32,
    /// Where the field section starts; 0 before the request line was seen.
    section_start: u32,
    fields: u16,
    called: bool,
}

impl HeadScanner {
    /// The length of the head in `buf`, leading empty line and closing empty line included, once it is complete.
    ///
    /// `buf` is all that was received of this request: each call must bring the bytes of the one before, and more.
    pub fn scan(&mut self, buf: &[u8]) -> Result<Option<usize>, Reject> {
        let within = &buf[..buf.len().min(HEAD_BYTES)];
        if !self.called && !buf.is_empty() {
            self.called = true;
            if let Some(end) = empty_line_end(within) {
                return Ok(Some(end));
            }
        }
        self.lines(within)
    }

    fn lines(&mut self, buf: &[u8]) -> Result<Option<usize>, Reject> {
        loop {
            let start = self.line_start as usize;
            let end = line::text_end(buf, self.seen as usize);
            self.seen = end as u32;
            self.check_so_far(buf, start, end)?;
            if end == buf.len() || (buf[end] == b'\r' && end + 1 == buf.len()) {
                return Ok(None);
            }
            let next = line::crlf(buf, end)?;
            if self.section_start == 0 {
                // One empty line may precede (RFC 9112, 2.2); a second one is no request line.
                if end > start || start > 0 {
                    request_line(buf, start)?;
                    self.section_start = next as u32;
                }
            } else if end == start {
                return Ok(Some(next));
            } else {
                line::field(buf, start)?;
                self.fields += 1;
                if usize::from(self.fields) > FIELD_COUNT {
                    return Err(TOO_MANY_FIELDS);
                }
            }
            self.line_start = next as u32;
            self.seen = next as u32;
        }
    }

    /// What can be said of a line of which `buf[start..end]` is known.
    fn check_so_far(&self, buf: &[u8], start: usize, end: usize) -> Result<(), Reject> {
        let length = end - start;
        if self.section_start == 0 {
            if length > REQUEST_LINE_BYTES {
                return Err(TARGET_TOO_LONG);
            }
            if length > METHOD_BYTES && memchr(b' ', &buf[start..=start + METHOD_BYTES]).is_none() {
                return Err(METHOD_TOO_LONG);
            }
            return Ok(());
        }
        if length > FIELD_LINE_BYTES || end + 2 - self.section_start as usize > FIELD_SECTION_BYTES {
            return Err(FIELDS_TOO_LARGE);
        }
        match buf.get(start).and_then(|&first| line::folded(first)) {
            Some(reject) => Err(reject),
            None => Ok(()),
        }
    }
}

static EMPTY_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\n\r\n"));

/// Past the first LF CR LF.
fn empty_line_end(buf: &[u8]) -> Option<usize> {
    EMPTY_LINE.find(buf).map(|at| at + 3)
}

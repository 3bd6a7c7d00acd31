//! The data of each event of a stream that arrives in pieces, for those who make other events of them. Everything else of an
//! event (name, id, comments) is passed over.

use memchr::memchr2;

/// A stream on its way: holds one event at most.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    /// The lines of data of the event so far, each with an LF after it.
    data: Vec<u8>,
    begun: bool,
    /// The last byte was a CR: an LF now belongs to it.
    after_cr: bool,
}

/// An event that is larger than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

impl Events {
    /// Takes the next bytes, and gives the data of each event that has become complete to `each`.
    pub(crate) fn feed(
        &mut self,
        piece: &[u8],
        max_bytes: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), TooLarge> {
        let mut rest = piece;
        while !rest.is_empty() {
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = memchr2(b'\r', b'\n', rest);
            self.line.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            if self.line.len() + self.data.len() > max_bytes {
                return Err(TooLarge);
            }
            let Some(end) = end else { return Ok(()) };
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            self.end_line(&mut each);
        }
        Ok(())
    }

    /// As the standard says (WHATWG HTML, 9.2.6): one space after the colon is not part of the value, an event without data is
    /// none, and what no empty line has ended is not one yet.
    fn end_line(&mut self, each: &mut impl FnMut(&[u8])) {
        let mut line = &self.line[..];
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            if let Some(data) = self.data.strip_suffix(b"\n") {
                each(data);
            }
            self.data.clear();
        } else if let Some(value) =
            line.strip_prefix(b"data").filter(|rest| matches!(rest.first(), None | Some(b':')))
        {
            let value = value.strip_prefix(b":").unwrap_or(value);
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
            self.data.push(b'\n');
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::sse::write_event;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let (mut events, mut found) = (Events::default(), Vec::new());
        for piece in pieces {
            let each = |data: &[u8]| found.push(String::from_utf8_lossy(data).into_owned());
            events.feed(piece, 1000, each).unwrap();
        }
        found
    }

    #[test]
    fn each_event_is_its_data() {
        let stream = b"\xEF\xBB\xBFdata: a\n\n: comment\n\nevent: x\ndata:b\r\ndata:  c\r\nid: 1\r\n\r\ndata\rdatas: x\r\rdata: cut\n";
        assert_eq!(events(&[stream]), ["a", "b\n c", ""]);
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(events(&single), events(&[stream]));
    }

    #[test]
    fn an_event_may_not_grow_without_end() {
        let mut events = Events::default();
        assert_eq!(events.feed(b"data: 1234\n\n", 10, |_| {}), Ok(()));
        assert_eq!(events.feed(b"data: 12345", 10, |_| {}), Err(TooLarge));
        let mut lines = Events::default();
        assert_eq!(lines.feed(&b"data: 1\n".repeat(6), 10, |_| {}), Err(TooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(data in prop::collection::vec("[a-z :\\n]{0,20}", 0..6), cut in 1usize..9) {
            let mut stream = Vec::new();
            for data in &data {
                write_event(&mut stream, Some("name"), None, None, data.as_bytes()).unwrap();
            }
            let pieces: Vec<&[u8]> = stream.chunks(cut).collect();
            prop_assert_eq!(events(&pieces), data);
        }
    }
}

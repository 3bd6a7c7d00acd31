//! What only the edge tells a reader of an event stream about its connection: a publisher could send all readers back to the
//! beginning with it, tell them that they are at the end, or keep them away. Where events that somebody else has written are shown to an
//! EventSource, `event: reset` is `event: published.reset`, `control` likewise, and `retry` is left out.
//!
//! Events may come in parts, cut anywhere: what may become such a line is held back until that is known, a few bytes at most.

/// Events that are the edge's or the browser's own: `open` and `error` are an EventSource's.
pub(crate) const RESERVED_EVENTS: [&str; 4] = ["control", "reset", "open", "error"];

/// Lines that are the edge's own. After the first there may be more.
const OWN: [&[u8]; 5] = [b"retry:", b"event: reset", b"event:reset", b"event: control", b"event:control"];

/// What stands in front of an event's name that is the edge's own.
const PREFIX: &[u8] = b"event: published.";

/// Where a reader stands in a line that somebody else has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    place: Place,
    /// Of [`OWN`], the line that is held back, and how many bytes of it.
    own: u8,
    held: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// In what may still become the edge's own.
    #[default]
    Held,
    /// In what cannot.
    Passed,
    /// In what is left out.
    Dropped,
    /// Behind a line that was left out and ended in CR: a LF that follows belongs to it.
    DroppedCr,
}

impl Line {
    /// Appends to `out` what of the `bytes` that come next is shown. They hold no blank line.
    pub(crate) fn show(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let end = memchr::memchr2(b'\r', b'\n', bytes);
            let next =
                end.map_or(bytes.len(), |end| end + 1 + usize::from(bytes[end..].starts_with(b"\r\n")));
            let (line, rest) = bytes.split_at(next);
            let text = &line[..end.unwrap_or(line.len())];
            match self.place {
                Place::DroppedCr if bytes[0] == b'\n' => {
                    *self = Line::default();
                    bytes = &bytes[1..];
                    continue;
                }
                Place::DroppedCr => {
                    *self = Line::default();
                    continue;
                }
                Place::Passed => out.extend_from_slice(line),
                Place::Dropped => {}
                Place::Held => self.judge(text, &line[text.len()..], out),
            }
            if end.is_some() {
                let is_dropped = self.place == Place::Dropped && line.ends_with(b"\r");
                *self =
                    Line { place: if is_dropped { Place::DroppedCr } else { Place::Held }, own: 0, held: 0 };
            }
            bytes = rest;
        }
    }

    /// Takes more of a line, and its end if that is there.
    fn judge(&mut self, text: &[u8], end: &[u8], out: &mut Vec<u8>) {
        let held = &OWN[usize::from(self.own)][..usize::from(self.held)];
        let line = [held, text].concat();
        let is_retry = line.starts_with(OWN[0]) || line == b"retry" && !end.is_empty();
        if is_retry {
            self.place = Place::Dropped;
        } else if end.is_empty() {
            match OWN.iter().position(|own| own.starts_with(&line)) {
                Some(own) => (self.own, self.held) = (own as u8, line.len() as u8),
                None => {
                    self.place = Place::Passed;
                    out.extend_from_slice(&line);
                }
            }
        } else {
            match OWN[1..].contains(&&line[..]) {
                true => {
                    let name = &line[b"event:".len()..];
                    out.extend_from_slice(PREFIX);
                    out.extend_from_slice(name.trim_ascii_start());
                }
                false => out.extend_from_slice(&line),
            }
            out.extend_from_slice(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(parts: &[&[u8]]) -> String {
        let (mut line, mut out) = (Line::default(), Vec::new());
        parts.iter().for_each(|part| line.show(part, &mut out));
        String::from_utf8(out).expect("text")
    }

    /// However it is cut.
    #[test]
    fn what_is_the_edges_own_is_not_shown_as_such() {
        for (written, told) in [
            ("event: reset\ndata: x\n", "event: published.reset\ndata: x\n"),
            ("event:control\r\ndata: x\r\n", "event: published.control\r\ndata: x\r\n"),
            ("retry: 1\ndata: x\n", "data: x\n"),
            ("retry\r\nretry: 2\r\ndata: x\r\n", "data: x\r\n"),
            ("data: x\rretry: 1\rdata: y\r", "data: x\rdata: y\r"),
            ("event: resets\nretryx: 1\ndata: retry: 1\n", "event: resets\nretryx: 1\ndata: retry: 1\n"),
            ("event:  reset\nid: retry\n", "event:  reset\nid: retry\n"),
        ] {
            assert_eq!(shown(&[written.as_bytes()]), told, "{written:?}");
            for step in 1..4 {
                let parts: Vec<&[u8]> = written.as_bytes().chunks(step).collect();
                // A cut between CR and LF is told apart only where a line was left out, and the text is the same.
                assert_eq!(shown(&parts), told, "{written:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn nothing_else_is_held_back() {
        assert_eq!(shown(&[b"data: o"]), "data: o");
        assert_eq!(shown(&[b"da"]), "da");
        assert_eq!(shown(&[b"event: r"]), "");
        assert_eq!(shown(&[b"event: r", b"ow"]), "event: row");
    }
}

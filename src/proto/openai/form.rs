//! The `model` and `stream` of a form of several parts (`multipart/form-data`, RFC 7578) that arrives in pieces, wherever they
//! stand in it. Nothing of a file is kept: the memory does not grow with the body.
//!
//! ```text
//! Start ── --B ──► Boundary ── CRLF ──► Head ── CRLF CRLF ──► Content ── CRLF --B ──► Boundary ── -- ──► Done
//! ```
//!
//! Forms are read in many ways: with bare line feeds, with names in three encodings, with the first or the last part of a name. Only
//! the form that every reader takes alike is read here, the one that clients send; everything else is [`FormState::Malformed`] or a
//! doubt about the field.

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;

use std::ops::Range;

use memchr::memchr2;

use super::doubt::Reason;
use super::peek::MAX_MODEL_BYTES;

/// The longest boundary (RFC 2046, 5.1.1).
const BOUNDARY_BYTES_MAX: usize = 70;

/// The longest head of a part.
const HEAD_BYTES_MAX: usize = 4096;

/// How far the reading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormState {
    NeedMore,
    /// The last boundary was there.
    Done,
    /// Readers would not agree where its parts are, or what they are called.
    Malformed,
}

/// A form that is being read.
#[derive(Debug)]
pub(crate) struct Form {
    /// `--` and the boundary.
    delimiter: Box<[u8]>,
    at: At,
    /// How many bytes of the delimiter were matched.
    matched: usize,
    /// Bytes that were fed so far.
    offset: u64,
    /// The head of a part, or what follows a boundary, or a value that is wanted.
    text: Vec<u8>,
    /// Where the content of the part began.
    began: u64,
    /// The part that is being read.
    part: Part,
}

/// A field that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) part: Part,
    /// None if it is too long.
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) place: Range<u64>,
}

/// A part, and why readers may disagree about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Model(Option<Reason>),
    Stream(Option<Reason>),
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Boundary,
    Head,
    Content(Line),
    Done,
    Malformed,
}

/// How the place where a delimiter may stand was come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// In the middle of a line.
    Within,
    /// Behind a carriage return.
    Return,
    /// Behind both: here a delimiter is one to everybody.
    Begun,
    /// Behind one of the two alone, or at the beginning: to some.
    Doubtful,
}

impl Form {
    /// By the value of `Content-Type`; none if readers may find another boundary in it.
    pub(crate) fn of(content_type: &[u8]) -> Option<Form> {
        let mut boundary = None;
        for (name, value) in parameters(content_type)? {
            if name.eq_ignore_ascii_case(b"boundary") && boundary.replace(value).is_some()
                || name.contains(&b'*')
            {
                return None;
            }
        }
        let boundary = boundary.filter(|boundary| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=?".contains(byte);
            (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()) && boundary.iter().all(plain)
        })?;
        Some(Form {
            delimiter: [b"--", boundary].concat().into(),
            at: At::Start,
            matched: 0,
            offset: 0,
            text: Vec::new(),
            began: 0,
            part: Part::Other,
        })
    }

    /// Looks at the next bytes; a field that is wanted is handed to `found` when it has been read.
    pub(crate) fn feed(&mut self, piece: &[u8], mut found: impl FnMut(Found)) -> FormState {
        let mut at = 0;
        while at < piece.len() {
            at += self.step(&piece[at..], at as u64, &mut found);
        }
        self.offset += piece.len() as u64;
        match self.at {
            At::Done => FormState::Done,
            At::Malformed => FormState::Malformed,
            _ => FormState::NeedMore,
        }
    }

    /// Takes at least one byte of `rest`, which begins `before` bytes into the piece.
    fn step(&mut self, rest: &[u8], before: u64, found: &mut impl FnMut(Found)) -> usize {
        let byte = rest[0];
        match self.at {
            At::Start => {
                let is_next = self.delimiter[self.matched] == byte;
                self.matched += 1;
                if !is_next {
                    self.at = At::Malformed;
                } else if self.matched == self.delimiter.len() {
                    (self.at, self.matched) = (At::Boundary, 0);
                }
                1
            }
            At::Boundary => {
                self.text.push(byte);
                match &self.text[..] {
                    b"\r\n" => self.at = At::Head,
                    b"--" => self.at = At::Done,
                    b"\r" | b"-" => return 1,
                    _ => self.at = At::Malformed,
                }
                self.text.clear();
                1
            }
            At::Head => {
                self.text.push(byte);
                if self.text.ends_with(b"\r\n\r\n") || self.text == b"\r\n" {
                    self.end_head(self.offset + before + 1);
                } else if self.text.len() > HEAD_BYTES_MAX {
                    self.at = At::Malformed;
                }
                1
            }
            At::Content(line) => self.content(line, rest, before, found),
            At::Done | At::Malformed => rest.len(),
        }
    }

    fn content(&mut self, line: Line, rest: &[u8], before: u64, found: &mut impl FnMut(Found)) -> usize {
        let byte = rest[0];
        match line {
            Line::Within => {
                let end = memchr2(b'\r', b'\n', rest);
                let plain = end.unwrap_or(rest.len());
                self.keep(&rest[..plain]);
                let Some(end) = end else { return rest.len() };
                self.keep(&rest[end..=end]);
                self.at = At::Content(if rest[end] == b'\r' { Line::Return } else { Line::Doubtful });
                end + 1
            }
            Line::Return if byte == b'\n' => {
                self.keep(b"\n");
                self.at = At::Content(Line::Begun);
                1
            }
            Line::Return => {
                self.at = At::Content(Line::Doubtful);
                self.content(Line::Doubtful, rest, before, found)
            }
            Line::Begun | Line::Doubtful if self.delimiter[self.matched] == byte => {
                self.keep(&[byte]);
                self.matched += 1;
                if self.matched == self.delimiter.len() {
                    self.matched = 0;
                    self.at = At::Malformed;
                    if line == Line::Begun {
                        self.at = At::Boundary;
                        self.end_part(self.offset + before + 1, found);
                    }
                }
                1
            }
            Line::Begun | Line::Doubtful => {
                self.matched = 0;
                self.at = At::Content(Line::Within);
                self.content(Line::Within, rest, before, found)
            }
        }
    }

    /// Keeps what a wanted value has, and enough to know that it is too long.
    fn keep(&mut self, bytes: &[u8]) {
        if self.part != Part::Other {
            let room = MAX_MODEL_BYTES + 1 + 2 * self.delimiter.len() + 4;
            let room = room.saturating_sub(self.text.len());
            self.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn end_head(&mut self, began: u64) {
        let part = part(&self.text);
        self.text.clear();
        self.began = began;
        match part {
            Some(part) => (self.part, self.at) = (part, At::Content(Line::Doubtful)),
            None => self.at = At::Malformed,
        }
    }

    /// The delimiter behind a part's content was read up to `end`.
    fn end_part(&mut self, end: u64, found: &mut impl FnMut(Found)) {
        let mut value = std::mem::take(&mut self.text);
        let part = std::mem::replace(&mut self.part, Part::Other);
        if part == Part::Other {
            return;
        }
        let place = self.began..end - self.delimiter.len() as u64 - 2;
        let length = place.end.saturating_sub(place.start) as usize;
        value.truncate(length);
        let value = Some(value).filter(|_| length <= MAX_MODEL_BYTES);
        found(Found { part, value, place });
    }
}

/// Which part it is, by its head; none if readers may find another in it.
fn part(head: &[u8]) -> Option<Part> {
    let (mut disposition, mut plain) = (None, true);
    for line in head.split(|&byte| byte == b'\n') {
        let line = match line {
            [] => continue,
            [line @ .., b'\r'] if !line.contains(&b'\r') => line,
            _ => return None,
        };
        if line.is_empty() {
            continue;
        }
        // A folded line belongs to the one before to some, and is none to others.
        let colon = line.iter().position(|&byte| byte == b':').filter(|_| !line[0].is_ascii_whitespace())?;
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-disposition") {
            if disposition.replace(value).is_some() {
                return None;
            }
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            plain &= [&b"7bit"[..], b"8bit", b"binary"].iter().any(|known| value.eq_ignore_ascii_case(known));
        } else if name.eq_ignore_ascii_case(b"content-type") {
            // Some decode a value by its own charset.
            plain &= !value.to_ascii_lowercase().windows(7).any(|part| part == b"charset")
                || value.to_ascii_lowercase().ends_with(b"utf-8");
        }
    }
    let (mut name, mut clear) = (None, plain);
    for (parameter, value) in parameters(disposition.unwrap_or_default())? {
        if parameter.eq_ignore_ascii_case(b"name") {
            clear &= name.replace(value).is_none();
        }
        // `filename*` is a file's business, unless the part is one that is wanted; `name*` is everybody's.
        if parameter.len() > 4 && parameter[..4].eq_ignore_ascii_case(b"name") && parameter[4] == b'*' {
            return None;
        }
        clear &= !(parameter.len() >= 8 && parameter[..8].eq_ignore_ascii_case(b"filename"));
    }
    let name = name.unwrap_or_default();
    // Written in a way that some decode.
    if name.contains(&b'%') || name.contains(&b'\\') || name.starts_with(b"=?") {
        return None;
    }
    let spelling = |exact: &[u8]| match clear {
        false => Some(Reason::Value),
        true => (name != exact).then_some(Reason::Spelling),
    };
    let trimmed = name.trim_ascii();
    Some(if trimmed.eq_ignore_ascii_case(b"model") {
        Part::Model(spelling(b"model"))
    } else if trimmed.eq_ignore_ascii_case(b"stream") {
        Part::Stream(spelling(b"stream"))
    } else {
        Part::Other
    })
}

/// The parameters behind the first semicolon, values without their quotes but with their escapes. None if a quote is not closed, or
/// something stands behind a closing one.
fn parameters(value: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut parameters = Vec::new();
    let mut rest = match value.iter().position(|&byte| byte == b';') {
        Some(at) => &value[at + 1..],
        None => return Some(parameters),
    };
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(parameters);
        }
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(rest.len());
        let name = rest[..end].trim_ascii();
        if rest.get(end) != Some(&b'=') {
            parameters.push((name, &b""[..]));
            rest = rest.get(end + 1..).unwrap_or_default();
            continue;
        }
        rest = rest[end + 1..].trim_ascii_start();
        let (value, behind) = match rest.strip_prefix(b"\"") {
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.iter().position(|&byte| {
                    let ends = byte == b'"' && !escaped;
                    escaped = byte == b'\\' && !escaped;
                    ends
                })?;
                (&quoted[..end], quoted[end + 1..].trim_ascii_start())
            }
            None => {
                let end = rest.iter().position(|&byte| byte == b';').unwrap_or(rest.len());
                (rest[..end].trim_ascii_end(), &rest[end..])
            }
        };
        parameters.push((name, value));
        rest = match behind {
            [] => behind,
            [b';', behind @ ..] => behind,
            _ => return None,
        };
    }
}

//! Where events end, in a `text/event-stream` body that passes in arbitrary pieces (WHATWG HTML, 9.2.5 and 9.2.6).
//!
//! The scanner owns no bytes. What it must know of a line that is split between pieces is small: whether it is data, a
//! comment or another field, or, as long as that is open, which of the few [`MARKS`] it still may become and how far it
//! has come. The bytes seen so far are then a prefix of that mark and can be written down again; so whole lines and
//! split ones are judged by one function, [`classify`], and no split can change a verdict.
//!
//! What an event said counts only once a blank line has ended it: a client dispatches nothing before that, and a
//! stream that was cut inside its last event must not look finished.
//!
//! It runs on every relayed segment. A line that is whole in its piece is looked at in its first few bytes alone, and
//! otherwise only searched for its end: 230 instructions for an event of OpenAI's of 220 bytes (callgrind, x86-64).

use memchr::memchr2;

const LF: u8 = b'\n';
const CR: u8 = b'\r';
const BOM: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// Longer than any mark: what is cut off here cannot be one.
const JOINED_MAX_BYTES: usize = 32;

/// The lines that say more than "a field". Each stands here once with the optional space after its colon, once without.
const MARKS: [&[u8]; 14] = [
    b"data: [DONE]",
    b"data:[DONE]",
    b"event: error",
    b"event:error",
    b"event: done",
    b"event:done",
    b"event: message_stop",
    b"event:message_stop",
    b"event: response.failed",
    b"event:response.failed",
    b"event: response.completed",
    b"event:response.completed",
    b"event: response.incomplete",
    b"event:response.incomplete",
];

/// Finds the ends of events in a body that passes in pieces. It never holds a byte of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanner {
    /// Bytes of a leading byte order mark that were seen; 3 once that question is settled.
    bom: u8,
    /// The last byte was a CR: a LF that follows belongs to the same line end.
    after_cr: bool,
    line: Line,
    block: Block,
    done: bool,
    terminal: bool,
    error: bool,
}

const _: () = assert!(size_of::<Scanner>() <= 16);

impl Scanner {
    /// Looks at the next bytes of the body; returns how many events they completed.
    ///
    /// An event is a block of lines with at least one `data` field, ended by a blank line. Blocks of comments, or of
    /// other fields alone, end as well but are no events: no client hears of them.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    pub fn feed(&mut self, piece: &[u8]) -> u32 {
        let mut rest = if self.bom < 3 { self.skip_bom(piece) } else { piece };
        if self.after_cr {
            rest = self.skip_lf_after_cr(rest);
        }
        let mut events = 0;
        while let Some(&first) = rest.first() {
            if let Some(end) = last_line_end(rest) {
                self.end_line(&rest[..end]);
                return events + self.end_block();
            }
            // A blank line is most often the very next byte: no search for it.
            let end = if first == LF { Some(0) } else { memchr2(LF, CR, rest) };
            let Some(end) = end else {
                self.line = self.line.extended(rest);
                break;
            };
            let (line, tail) = rest.split_at(end);
            events += self.end_line(line);
            rest = &tail[1..];
            if tail[0] == CR {
                self.after_cr = true;
                rest = self.skip_lf_after_cr(rest);
            }
        }
        events
    }

    /// Whether a comment line may be put in here without ending up inside an event: at a line's start, with no field
    /// waiting for its blank line.
    ///
    /// Not right after a CR, for a LF may follow that belongs to it, and would become a line of its own. (A stream with
    /// bare CRs alone therefore never offers a boundary after its start.)
    #[inline]
    pub fn at_boundary(&self) -> bool {
        self.line == Line::Start && !self.block.fields && !self.after_cr && (self.bom == 0 || self.bom == 3)
    }

    /// Whether an event whose whole data is `[DONE]` has ended: the end of OpenAI's chat and completion streams.
    #[inline]
    pub fn done(&self) -> bool {
        self.done
    }

    /// Whether any event has ended that says the answer is over: `[DONE]`, or one named `response.completed`,
    /// `response.failed`, `response.incomplete`, `message_stop` or `done`.
    #[inline]
    pub fn terminal(&self) -> bool {
        self.terminal
    }

    /// Whether an event named `error` has ended. Errors that the data alone tells of are for
    /// [`Sideband`](crate::proto::openai::Sideband) to see.
    #[inline]
    pub(crate) fn error_seen(&self) -> bool {
        self.error
    }

    /// Ends the line whose last bytes are `part`. Returns 1 if that completed an event, else 0.
    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    fn end_line(&mut self, part: &[u8]) -> u32 {
        let kind = match self.line {
            Line::Start if part.is_empty() => return self.end_block(),
            Line::Start => classify(part),
            open => open.ended(part),
        };
        self.line = Line::Start;
        self.block.add(kind);
        0
    }

    #[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
    #[inline(always)]
    fn end_block(&mut self) -> u32 {
        let block = std::mem::take(&mut self.block);
        if block.data_lines == 0 {
            return 0;
        }
        if block.notable {
            let done = block.first_data == Kind::Done && block.data_lines == 1;
            self.done |= done;
            self.terminal |= done || block.name == Kind::TerminalEvent;
            self.error |= block.name == Kind::ErrorEvent;
        }
        1
    }

    /// Takes a LF that belongs to the CR before it. With no byte to look at, the question stays open.
    fn skip_lf_after_cr<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        match rest {
            [] => rest,
            [LF, tail @ ..] => {
                self.after_cr = false;
                tail
            }
            _ => {
                self.after_cr = false;
                rest
            }
        }
    }

    /// Takes a leading byte order mark, which is no part of the first line. Its beginning alone is.
    #[cold]
    fn skip_bom<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        for (at, &byte) in piece.iter().enumerate() {
            let seen = usize::from(self.bom);
            if seen == BOM.len() {
                return &piece[at..];
            }
            if byte != BOM[seen] {
                self.bom = 3;
                if seen > 0 {
                    self.line = Line::Known(Kind::Field);
                }
                return &piece[at..];
            }
            self.bom += 1;
        }
        &[]
    }
}

/// The index of the first LF, if it ends the one line that `rest` has before a blank one.
///
/// That is what an upstream's segments look like, and all there is to know then is that nothing before is a control
/// character: told by the least byte of each block, which the compiler makes vectors of, for fewer instructions than
/// `memchr2` on so short a line.
#[inline]
fn last_line_end(rest: &[u8]) -> Option<usize> {
    let line = rest.strip_suffix(b"\n\n").filter(|line| line.len() <= QUICK_MAX_BYTES)?;
    // The last block overlaps the one before, so that no bytes are left over.
    let last = line.last_chunk()?;
    let mut blocks = line;
    while let Some(block) = blocks.first_chunk() {
        if has_control(block) {
            return None;
        }
        blocks = &blocks[BLOCK_BYTES..];
    }
    (!has_control(last)).then_some(line.len())
}

const BLOCK_BYTES: usize = 64;
const QUICK_MAX_BYTES: usize = 8 * BLOCK_BYTES;

/// Whether any byte is CR or one of those below it, LF among them.
#[inline]
fn has_control(block: &[u8; BLOCK_BYTES]) -> bool {
    block.iter().fold(u8::MAX, |least, &byte| least.min(byte)) <= CR
}

/// What is known of the lines since the last blank one.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Any field at all: a comment put in now would be inside an event.
    fields: bool,
    /// Something other than plain data was seen: [`Scanner::end_block`] has to look closer.
    notable: bool,
    /// 0, 1, or 2 for more.
    data_lines: u8,
    first_data: Kind,
    /// Of the last `event` field: a later one replaces an earlier one.
    name: Kind,
}

impl Block {
    #[inline]
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Comment => return,
            Kind::Field => {}
            Kind::Data | Kind::Done => {
                if self.data_lines == 0 {
                    self.first_data = kind;
                    self.notable |= kind != Kind::Data;
                }
                self.data_lines = (self.data_lines + 1).min(2);
            }
            Kind::Event | Kind::TerminalEvent | Kind::ErrorEvent => {
                self.name = kind;
                self.notable = true;
            }
        }
        self.fields = true;
    }
}

/// The line that the next byte belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    /// Nothing of it was seen.
    #[default]
    Start,
    /// Its bytes so far are the first `len` of this mark.
    Prefix { mark: u8, len: u8 },
    /// Nothing that follows can change what it is.
    Known(Kind),
}

impl Line {
    /// The line after `part`, which does not end it.
    fn extended(self, part: &[u8]) -> Line {
        if let Line::Known(_) = self {
            return self;
        }
        let mut buffer = [0; JOINED_MAX_BYTES];
        let seen = self.joined(part, &mut buffer);
        match MARKS.iter().position(|mark| mark.starts_with(seen)) {
            // Both fit: there are 14 marks, each shorter than JOINED_MAX_BYTES.
            Some(mark) => Line::Prefix { mark: mark as u8, len: seen.len() as u8 },
            None => Line::Known(classify(seen)),
        }
    }

    /// What the line is, now that `part` ended it.
    #[cold]
    fn ended(self, part: &[u8]) -> Kind {
        if let Line::Known(kind) = self {
            return kind;
        }
        classify(self.joined(part, &mut [0; JOINED_MAX_BYTES]))
    }

    /// The line's first bytes, written down again.
    fn joined<'a>(self, part: &[u8], buffer: &'a mut [u8; JOINED_MAX_BYTES]) -> &'a [u8] {
        let seen = match self {
            Line::Prefix { mark, len } => &MARKS[usize::from(mark)][..usize::from(len)],
            _ => &[],
        };
        let taken = part.len().min(JOINED_MAX_BYTES - seen.len());
        buffer[..seen.len()].copy_from_slice(seen);
        buffer[seen.len()..seen.len() + taken].copy_from_slice(&part[..taken]);
        &buffer[..seen.len() + taken]
    }
}

/// What a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    Comment,
    /// `id`, `retry`, or a field nobody knows.
    #[default]
    Field,
    Data,
    /// The data `[DONE]`.
    Done,
    Event,
    TerminalEvent,
    ErrorEvent,
}

#[allow(clippy::inline_always, reason = "measured: on every segment's way, and a call otherwise")]
#[inline(always)]
fn classify(line: &[u8]) -> Kind {
    if let Some(value) = line.strip_prefix(b"data:") {
        let value = value.strip_prefix(b" ").unwrap_or(value);
        return if value == b"[DONE]" { Kind::Done } else { Kind::Data };
    }
    if let Some(name) = line.strip_prefix(b"event:") {
        return match name.strip_prefix(b" ").unwrap_or(name) {
            b"response.completed"
            | b"response.failed"
            | b"response.incomplete"
            | b"message_stop"
            | b"done" => Kind::TerminalEvent,
            b"error" => Kind::ErrorEvent,
            _ => Kind::Event,
        };
    }
    match line {
        [b':', ..] => Kind::Comment,
        // A line without a colon is a field's name with an empty value.
        b"data" => Kind::Data,
        b"event" => Kind::Event,
        _ => Kind::Field,
    }
}

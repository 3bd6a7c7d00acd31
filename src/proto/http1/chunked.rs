//! The chunked coding (RFC 9112, 7.1), read strictly and in place.
//!
//! ```text
//! Size ──;──> ext-name ──=──> ext-value        Data ──> DataCr ──> DataLf ──> Size
//!   │            │               │              ^
//!   └────CR──────┴───────CR──────┴──> SizeLf ───┤ size > 0
//!                                               └ size = 0 ──> TrailerStart ──CR──> EndLf ──> Ended
//!                                                               ^  └─> TrailerName ─> TrailerValue ─> TrailerLf ┐
//!                                                               └───────────────────────────────────────────────┘
//! ```
//!
//! Anything off these arrows is an error for good. Extensions and trailers are checked and dropped: nobody between
//! two parties may rely on them, clients stumble over them, and a trailer taken for a field is an attack. They cost a
//! reader nothing to hold but do cost time, so their share of a body is bounded.

use std::error::Error;
use std::fmt;

use super::line::is_token_byte;
use super::{Reject, line};

/// The most digits of a chunk size, leading zeros included.
pub(crate) const SIZE_DIGITS: u8 = 16;
/// Chunk sizes stay below 2 to this power.
pub(crate) const SIZE_BITS: u32 = 60;
/// The most bytes of extensions on one chunk.
pub(crate) const EXTENSION_LINE_BYTES: u32 = 4096;
/// How many more bytes of extensions than of payload a body may have brought at any time.
pub(crate) const EXTENSION_EXCESS_BYTES: u32 = 262_144;
/// The longest trailer section.
pub(crate) const TRAILER_SECTION_BYTES: u32 = 65_536;

/// Why a chunked body was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChunkError {
    /// No hexadecimal number where a chunk's size belongs, or junk after it.
    Size,
    /// A chunk size of more than 16 digits or 60 bits.
    SizeTooLarge,
    /// A chunk extension that is not `;name=value`.
    Extension,
    /// More extensions than [`EXTENSION_LINE_BYTES`] and [`EXTENSION_EXCESS_BYTES`] allow.
    ExtensionTooLarge,
    /// A line or a chunk that does not end in CRLF.
    LineEnd,
    /// A trailer that is no field line.
    Trailer,
    /// Trailers longer than [`TRAILER_SECTION_BYTES`].
    TrailerTooLarge,
}

impl ChunkError {
    /// What is wrong, for people.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Size => "a chunk of the body does not start with its size in hexadecimal digits",
            Self::SizeTooLarge => "a chunk of the body has a size of more than 16 digits or 60 bits",
            Self::Extension => "a chunk of the body has a malformed extension",
            Self::ExtensionTooLarge => "the chunks of the body have too many bytes of extensions",
            Self::LineEnd => "a chunk of the body, or a line of its framing, does not end in CR LF",
            Self::Trailer => "the body's trailer section has a malformed line",
            Self::TrailerTooLarge => "the body's trailer section is longer than 65536 bytes",
        }
    }
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl Error for ChunkError {}

impl From<ChunkError> for Reject {
    fn from(error: ChunkError) -> Self {
        Self::bad(error.message())
    }
}

/// What one call of a decoder made of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of payload, now at the front of the buffer.
    pub payload: usize,
    /// Bytes that belonged to this body; what follows them was left as it was.
    pub consumed: usize,
    /// Whether the body has ended.
    pub ended: bool,
}

/// That a buffer is complete chunks and nothing else, see [`ChunkDecoder::whole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Whether the last of them was the last chunk of the body.
    pub ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    SizeSpace,
    ExtStart,
    ExtName,
    ExtNameSpace,
    ExtEquals,
    ExtToken,
    ExtQuoted,
    ExtEscape,
    ExtQuotedEnd,
    ExtValueSpace,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Ended,
    Failed(ChunkError),
}

/// Reads one chunked body, wherever its bytes were cut.
#[derive(Clone, Copy, Debug)]
pub struct ChunkDecoder {
    /// The size being read, then what is left of the chunk.
    remaining: u64,
    /// Extension bytes beyond payload bytes so far.
    excess: u32,
    /// Extension bytes of this chunk, or bytes of the trailer section.
    overhead: u32,
    digits: u8,
    state: State,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkDecoder {
    /// A decoder at the start of a body.
    pub const fn new() -> Self {
        Self { remaining: 0, excess: 0, overhead: 0, digits: 0, state: State::Size }
    }

    /// Whether the body has ended.
    #[inline]
    pub fn finished(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether the next byte is the first of a chunk: all that was read so far were complete ones.
    #[inline]
    pub(crate) fn at_chunk_start(&self) -> bool {
        self.state == State::Size && self.digits == 0
    }

    /// Moves the payload in `buf` to its front, and stops where the body ends.
    pub fn decode_in_place(&mut self, buf: &mut [u8]) -> Result<Decoded, ChunkError> {
        let (mut read, mut payload) = (0, 0);
        while read < buf.len() && self.state != State::Ended {
            if self.state == State::Data {
                let n = self.remaining.min((buf.len() - read) as u64) as usize;
                if read != payload {
                    buf.copy_within(read..read + n, payload);
                }
                payload += n;
                read += n;
                self.take_data(n);
            } else {
                let b = buf[read];
                read += 1;
                self.state = self.step(b).inspect_err(|&error| self.state = State::Failed(error))?;
            }
        }
        Ok(Decoded { payload, consumed: read, ended: self.finished() })
    }

    fn take_data(&mut self, n: usize) {
        self.remaining -= n as u64;
        self.excess = self.excess.saturating_sub(u32::try_from(n).unwrap_or(u32::MAX));
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
    }

    /// Where a byte of framing leads.
    fn step(&mut self, b: u8) -> Result<State, ChunkError> {
        use ChunkError as E;
        use State as S;
        match self.state {
            S::Size => self.size(b),
            S::SizeSpace | S::ExtValueSpace => match b {
                b' ' | b'\t' => self.extension(self.state),
                b';' => self.extension(S::ExtStart),
                _ if self.state == S::SizeSpace => Err(E::Size),
                _ => Err(E::Extension),
            },
            S::ExtStart => match b {
                b' ' | b'\t' => self.extension(S::ExtStart),
                _ if is_token_byte(b) => self.extension(S::ExtName),
                _ => Err(E::Extension),
            },
            S::ExtName | S::ExtNameSpace => match b {
                b'=' => self.extension(S::ExtEquals),
                b';' => self.extension(S::ExtStart),
                b' ' | b'\t' => self.extension(S::ExtNameSpace),
                b'\r' if self.state == S::ExtName => Ok(S::SizeLf),
                _ if self.state == S::ExtName && is_token_byte(b) => self.extension(S::ExtName),
                _ => Err(E::Extension),
            },
            S::ExtEquals => match b {
                b' ' | b'\t' => self.extension(S::ExtEquals),
                b'"' => self.extension(S::ExtQuoted),
                _ if is_token_byte(b) => self.extension(S::ExtToken),
                _ => Err(E::Extension),
            },
            S::ExtToken | S::ExtQuotedEnd => match b {
                b' ' | b'\t' => self.extension(S::ExtValueSpace),
                b';' => self.extension(S::ExtStart),
                b'\r' => Ok(S::SizeLf),
                _ if self.state == S::ExtToken && is_token_byte(b) => self.extension(S::ExtToken),
                _ => Err(E::Extension),
            },
            S::ExtQuoted => match b {
                b'"' => self.extension(S::ExtQuotedEnd),
                b'\\' => self.extension(S::ExtEscape),
                _ if line::is_text_byte(b) => self.extension(S::ExtQuoted),
                _ => Err(E::Extension),
            },
            S::ExtEscape if line::is_text_byte(b) => self.extension(S::ExtQuoted),
            S::ExtEscape => Err(E::Extension),
            S::SizeLf if b == b'\n' => {
                self.overhead = 0;
                self.digits = 0;
                Ok(if self.remaining == 0 { S::TrailerStart } else { S::Data })
            }
            S::DataCr if b == b'\r' => Ok(S::DataLf),
            S::DataLf if b == b'\n' => Ok(S::Size),
            S::TrailerStart => match b {
                b'\r' => Ok(S::EndLf),
                _ if is_token_byte(b) => self.trailer(S::TrailerName),
                _ => Err(E::Trailer),
            },
            S::TrailerName => match b {
                b':' => self.trailer(S::TrailerValue),
                _ if is_token_byte(b) => self.trailer(S::TrailerName),
                _ => Err(E::Trailer),
            },
            S::TrailerValue => match b {
                b'\r' => self.trailer(S::TrailerLf),
                _ if line::is_text_byte(b) => self.trailer(S::TrailerValue),
                _ => Err(E::Trailer),
            },
            S::TrailerLf if b == b'\n' => self.trailer(S::TrailerStart),
            S::EndLf if b == b'\n' => Ok(S::Ended),
            S::SizeLf | S::DataCr | S::DataLf | S::TrailerLf | S::EndLf => Err(E::LineEnd),
            S::Failed(error) => Err(error),
            S::Data | S::Ended => unreachable!("not framing"),
        }
    }

    fn size(&mut self, b: u8) -> Result<State, ChunkError> {
        let digit = HEX[usize::from(b)];
        if digit < 16 {
            self.digits += 1;
            if self.digits > SIZE_DIGITS || self.remaining >> (SIZE_BITS - 4) != 0 {
                return Err(ChunkError::SizeTooLarge);
            }
            self.remaining = self.remaining << 4 | u64::from(digit);
            return Ok(State::Size);
        }
        match b {
            _ if self.digits == 0 => Err(ChunkError::Size),
            b'\r' => Ok(State::SizeLf),
            b';' => self.extension(State::ExtStart),
            b' ' | b'\t' => self.extension(State::SizeSpace),
            _ => Err(ChunkError::Size),
        }
    }

    fn extension(&mut self, next: State) -> Result<State, ChunkError> {
        self.overhead += 1;
        self.excess += 1;
        let too_large = self.overhead > EXTENSION_LINE_BYTES || self.excess > EXTENSION_EXCESS_BYTES;
        if too_large { Err(ChunkError::ExtensionTooLarge) } else { Ok(next) }
    }

    fn trailer(&mut self, next: State) -> Result<State, ChunkError> {
        self.overhead += 1;
        if self.overhead > TRAILER_SECTION_BYTES { Err(ChunkError::TrailerTooLarge) } else { Ok(next) }
    }

    /// Whether `buf`, at the start of a chunk, is nothing but complete chunks with minimal sizes, without extensions and
    /// trailers: such a buffer can be passed on as it stands. If so they count as read, and if not, nothing does.
    ///
    /// An upstream that writes each event as one chunk makes this the rule, so it is all the framing that the relay of
    /// a segment costs.
    #[inline]
    pub fn whole(&mut self, buf: &[u8]) -> Option<Whole> {
        if !self.at_chunk_start() || buf.is_empty() {
            return None;
        }
        let mut rest = buf;
        while !rest.is_empty() {
            let (size, start) = plain_size(rest)?;
            if size == 0 {
                if &rest[start..] != b"\r\n" {
                    return None;
                }
                self.state = State::Ended;
                return Some(Whole { ended: true });
            }
            rest = rest.get(start + size..)?.strip_prefix(b"\r\n")?;
        }
        Some(Whole { ended: false })
    }
}

/// The payloads of a buffer that [`ChunkDecoder::whole`] has found to be whole chunks, in order. On any other buffer it
/// stops where that first shows.
pub fn payloads(buf: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = buf;
    std::iter::from_fn(move || {
        let (size, start) = plain_size(rest).filter(|&(size, _)| size > 0)?;
        let payload = rest.get(start..start + size)?;
        rest = rest[start + size..].strip_prefix(b"\r\n")?;
        Some(payload)
    })
}

/// The size that `buf` starts with, if it is plain and minimal, and where the data starts. Seven digits are more than
/// any buffer holds, and cannot overflow a position.
#[inline]
fn plain_size(buf: &[u8]) -> Option<(usize, usize)> {
    const DIGITS: usize = 7;
    let mut size = usize::from(HEX[usize::from(*buf.first()?)]);
    let mut digits = 1;
    if size > 15 {
        return None;
    }
    while size > 0 {
        let digit = HEX[usize::from(*buf.get(digits)?)];
        if digit > 15 {
            break;
        }
        size = size << 4 | usize::from(digit);
        digits += 1;
        if digits > DIGITS {
            return None;
        }
    }
    (buf.get(digits..digits + 2)? == b"\r\n").then_some((size, digits + 2))
}

/// The value of each hexadecimal digit, 0xff for all other bytes.
static HEX: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8; 5] = b"0\r\n\r\n";
/// The longest size line: 16 digits and CRLF.
pub const SIZE_LINE_BYTES: usize = 18;

/// Writes the size line of a chunk of `n` bytes to the end of `room`, which lies before the data, and says where in
/// `room` it starts. A chunk of no bytes would end the body; its writer has nothing to write.
#[inline]
pub fn size_line(n: usize, room: &mut [u8; SIZE_LINE_BYTES]) -> usize {
    debug_assert!(n > 0, "an empty chunk ends the body");
    room[16] = b'\r';
    room[17] = b'\n';
    let (mut start, mut rest) = (16, n);
    loop {
        start -= 1;
        room[start] = b"0123456789abcdef"[rest & 15];
        rest >>= 4;
        if rest == 0 {
            return start;
        }
    }
}

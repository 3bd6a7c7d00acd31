//! The lines of a head: what a field line, a request line and a status line may consist of, byte for byte.
//!
//! Positions in, positions out, over the whole buffer rather than a cut-out line: that lets several bytes be tested
//! at once up to the line's end without a copy. Each function asks for the CRLF that ends its line, so a caller that
//! walks a head with them has checked every byte of it.

use super::Reject;

const BARE_CR: Reject = Reject::bad("a carriage return in the head is not followed by a line feed");
const BARE_LF: Reject = Reject::bad("a line of the head ends in a line feed without a carriage return");
const CONTROL: Reject = Reject::bad("the head contains a control character");
const FOLDED: Reject = Reject::bad("a field line starts with whitespace; folded fields are not accepted");
const NO_NAME: Reject = Reject::bad("a field line has no name before its colon");
const NO_COLON: Reject = Reject::bad("a field line has no colon");
const SPACE_BEFORE_COLON: Reject = Reject::bad("there is whitespace between a field's name and its colon");
const BAD_NAME: Reject = Reject::bad("a field's name contains a character that is not allowed there");
const NOT_ENDED: Reject = Reject::bad("the head ends within a line");

/// Where the parts of a field line lie in its buffer.
#[derive(Clone, Copy)]
pub(super) struct FieldAt {
    pub(super) name_end: usize,
    pub(super) value_start: usize,
    pub(super) value_end: usize,
    /// Where the next line starts.
    pub(super) next: usize,
}

/// Reads the field line that starts at `at` (RFC 9112, 5): a token, a colon at once after it, a value without control
/// bytes, CRLF.
#[inline]
pub(super) fn field(buf: &[u8], at: usize) -> Result<FieldAt, Reject> {
    let name_end = token_end(buf, at);
    if name_end == at || buf.get(name_end) != Some(&b':') {
        return Err(bad_name(buf, at, name_end));
    }
    let mut value_start = name_end + 1;
    while let Some(b' ' | b'\t') = buf.get(value_start) {
        value_start += 1;
    }
    let line_end = text_end(buf, value_start);
    let next = crlf(buf, line_end)?;
    let mut value_end = line_end;
    while value_end > value_start && matches!(buf[value_end - 1], b' ' | b'\t') {
        value_end -= 1;
    }
    Ok(FieldAt { name_end, value_start, value_end, next })
}

/// Past the CRLF that must stand at `at`, where [`text_end`] stopped.
#[inline]
pub(super) fn crlf(buf: &[u8], at: usize) -> Result<usize, Reject> {
    match (buf.get(at), buf.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(at + 2),
        (Some(b'\r'), Some(_)) => Err(BARE_CR),
        (Some(b'\n'), _) => Err(BARE_LF),
        (None, _) | (Some(b'\r'), None) => Err(NOT_ENDED),
        (Some(_), _) => Err(CONTROL),
    }
}

/// Whether the field line starting with `first` is a folded one: known before its end is.
pub(super) fn folded(first: u8) -> Option<Reject> {
    matches!(first, b' ' | b'\t').then_some(FOLDED)
}

#[cold]
fn bad_name(buf: &[u8], at: usize, end: usize) -> Reject {
    match buf.get(end) {
        Some(b' ' | b'\t') if end == at => FOLDED,
        Some(b':') => NO_NAME,
        Some(b' ' | b'\t') => {
            let after = buf[end..].iter().find(|b| !matches!(b, b' ' | b'\t'));
            if after == Some(&b':') { SPACE_BEFORE_COLON } else { BAD_NAME }
        }
        Some(b'\r') => crlf(buf, end).err().unwrap_or(NO_COLON),
        Some(b'\n') => BARE_LF,
        _ => BAD_NAME,
    }
}

/// Whether `b` may stand in a token (RFC 9110, 5.6.2).
#[inline]
pub(super) fn is_token_byte(b: u8) -> bool {
    TOKEN[b as usize]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = (b as u8).is_ascii_alphanumeric();
        b += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut i = 0;
    while i < others.len() {
        table[others[i] as usize] = true;
        i += 1;
    }
    table
};

/// The first position from `at` on that is no token byte. Four look-ups to a branch.
#[inline]
pub(super) fn token_end(buf: &[u8], at: usize) -> usize {
    let mut rest = &buf[at.min(buf.len())..];
    while let Some((&[a, b, c, d], after)) = rest.split_first_chunk::<4>() {
        if !(is_token_byte(a) & is_token_byte(b) & is_token_byte(c) & is_token_byte(d)) {
            break;
        }
        rest = after;
    }
    while let [b, after @ ..] = rest
        && is_token_byte(*b)
    {
        rest = after;
    }
    buf.len() - rest.len()
}

/// Whether `b` may stand in a field value: anything but control bytes, HTAB excepted, and DEL.
#[inline]
pub(super) const fn is_text_byte(b: u8) -> bool {
    b == b'\t' || !b.is_ascii_control()
}

/// The first position from `at` on that no field value may contain: a control byte other than HTAB, or DEL. In a
/// well-formed head that is the line's CR. Eight bytes are tested at once.
#[inline]
pub(super) fn text_end(buf: &[u8], at: usize) -> usize {
    let mut rest = &buf[at.min(buf.len())..];
    while let Some((bytes, after)) = rest.split_first_chunk::<8>() {
        let hits = controls(u64::from_le_bytes(*bytes));
        if hits == 0 {
            rest = after;
            continue;
        }
        let place = (hits.trailing_zeros() / 8) as usize;
        if bytes[place] != b'\t' {
            return buf.len() - rest.len() + place;
        }
        rest = &rest[place + 1..];
    }
    while let [b, after @ ..] = rest
        && is_text_byte(*b)
    {
        rest = after;
    }
    buf.len() - rest.len()
}

/// Bit 7 of each byte of `x` that is below 0x20 or 0x7f. Adding one lets DEL join the low ones by overflowing into
/// bit 7, which is then set in all; taking 0x21 away clears it in the low ones alone.
#[inline]
const fn controls(x: u64) -> u64 {
    const fn all(b: u8) -> u64 {
        u64::from_le_bytes([b; 8])
    }
    let low_cleared = (((x & all(0x7f)) + all(0x01)) | all(0x80)) - all(0x21);
    !(low_cleared | x) & all(0x80)
}

/// A head's buffer as text, for the tokens in it. One look at the whole costs less than one at each; only a head with
/// values that are not UTF-8 needs that.
#[derive(Clone, Copy)]
pub(super) struct Text<'b> {
    bytes: &'b [u8],
    text: Option<&'b str>,
}

impl<'b> Text<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, text: std::str::from_utf8(bytes).ok() }
    }

    /// The token at `start..end`. The check cannot fail after [`token_end`]; without it this would be `unsafe`.
    #[inline]
    pub(super) fn token(&self, start: usize, end: usize) -> Result<&'b str, Reject> {
        match self.text {
            Some(text) => text.get(start..end).ok_or(BAD_NAME),
            None => std::str::from_utf8(&self.bytes[start..end]).map_err(|_| BAD_NAME),
        }
    }
}

//! The lines of a head: what a field line, a request line and a status line may consist of, byte for byte.
//!
//! Positions in, positions out, over the whole buffer rather than a cut-out line: that lets eight bytes be tested at
//! once up to the line's end without a copy. Each function asks for the CRLF that ends its line, so a caller that
//! walks a head with them has checked every byte of it.

use super::Reject;

/// A word with every byte set to `b`.
const fn word(b: u8) -> u64 {
    u64::from_le_bytes([b; 8])
}

const HIGH: u64 = word(0x80);

const BARE_CR: Reject = Reject::bad("a carriage return in the head is not followed by a line feed");
pub(crate) const BARE_LF: Reject =
    Reject::bad("a line of the head ends in a line feed without a carriage return");
const CONTROL: Reject = Reject::bad("the head contains a control character");
const FOLDED: Reject = Reject::bad("a field line starts with whitespace; folded fields are not accepted");
const NO_NAME: Reject = Reject::bad("a field line has no name before its colon");
const NO_COLON: Reject = Reject::bad("a field line has no colon");
const SPACE_BEFORE_COLON: Reject = Reject::bad("there is whitespace between a field's name and its colon");
const BAD_NAME: Reject = Reject::bad("a field's name contains a character that is not allowed there");
const NOT_ENDED: Reject = Reject::bad("the head ends within a line");

/// Checks the field line that starts at `at` (RFC 9112, 5): a token, a colon at once after it, a value without control
/// bytes, CRLF. Returns where the next line starts.
#[inline]
pub(crate) fn field(buf: &[u8], at: usize) -> Result<usize, Reject> {
    let name_end = token_end(buf, at);
    if name_end == at || buf.get(name_end) != Some(&b':') {
        return Err(bad_name(buf, at, name_end));
    }
    crlf(buf, text_end(buf, name_end + 1))
}

/// Past the CRLF that must stand at `at`, where [`text_end`] stopped.
#[inline]
pub(crate) fn crlf(buf: &[u8], at: usize) -> Result<usize, Reject> {
    match (buf.get(at), buf.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => Ok(at + 2),
        (Some(b'\r'), Some(_)) => Err(BARE_CR),
        (Some(b'\n'), _) => Err(BARE_LF),
        (None, _) | (Some(b'\r'), None) => Err(NOT_ENDED),
        (Some(_), _) => Err(CONTROL),
    }
}

/// Whether the field line starting with `first` is a folded one: known before its end is.
pub(crate) fn folded(first: u8) -> Option<Reject> {
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
pub(crate) const fn is_token_byte(b: u8) -> bool {
    TOKEN[b as usize]
}

const TOKEN: [bool; 256] = {
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

/// Whether `b` may stand in a field value: anything but control bytes, HTAB excepted, and DEL.
#[inline]
pub(crate) const fn is_text_byte(b: u8) -> bool {
    b == b'\t' || !b.is_ascii_control()
}

/// The first position from `at` on that is no token byte. Letters, digits and hyphens, of which nearly all names
/// consist, are tested eight at once.
#[inline]
pub(crate) fn token_end(buf: &[u8], mut at: usize) -> usize {
    while let Some(&bytes) = buf.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let odd = not_alnum_or_hyphen(u64::from_le_bytes(bytes));
        if odd == 0 {
            at += 8;
            continue;
        }
        at += lowest(odd);
        if !is_token_byte(buf[at]) {
            return at;
        }
        at += 1;
    }
    while at < buf.len() && is_token_byte(buf[at]) {
        at += 1;
    }
    at
}

/// The first position from `at` on that no field value may contain: a control byte other than HTAB, or DEL. In a
/// well-formed head that is the line's CR.
#[inline]
pub(crate) fn text_end(buf: &[u8], mut at: usize) -> usize {
    while let Some(&bytes) = buf.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let odd = controls(u64::from_le_bytes(bytes));
        if odd == 0 {
            at += 8;
            continue;
        }
        at += lowest(odd);
        if buf[at] != b'\t' {
            return at;
        }
        at += 1;
    }
    while at < buf.len() && is_text_byte(buf[at]) {
        at += 1;
    }
    at
}

#[inline]
const fn lowest(mask: u64) -> usize {
    (mask.trailing_zeros() / 8) as usize
}

/// Bit 7 of each byte that is below 0x20 or 0x7f; exact up to the lowest one set, which is all that is looked at.
#[inline]
const fn controls(x: u64) -> u64 {
    let below = x.wrapping_sub(word(0x20)) & !x;
    let del = x ^ word(0x7f);
    let del = del.wrapping_sub(word(0x01)) & !del;
    (below | del) & HIGH
}

/// Bit 7 of each byte that is no ASCII letter, digit or hyphen; exact up to the lowest one set.
#[inline]
const fn not_alnum_or_hyphen(x: u64) -> u64 {
    let lower = x | word(0x20);
    let letter = lower.wrapping_add(word(0x80 - b'a')) & !lower.wrapping_add(word(0x7f - b'z'));
    let digit = x.wrapping_add(word(0x80 - b'0')) & !x.wrapping_add(word(0x7f - b'9'));
    let hyphen = !(x ^ word(b'-')).wrapping_add(word(0x7f));
    (!(letter | digit | hyphen) | x) & HIGH
}

//! The text of one JSON string that arrives in pieces, with its escapes resolved, up to a bound (RFC 8259, section 7).

use memchr::memchr2;

/// Decodes what stands between the quotes of a JSON string. Bytes beyond the bound are counted as "too long" and dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    bytes: Vec<u8>,
    too_long: bool,
    escape: Escape,
    /// A `\uD800` to `\uDBFF` that waits for its other half.
    high: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Escape {
    #[default]
    None,
    /// After the backslash.
    Started,
    /// After `\u`.
    Hex { digits: u8, value: u16 },
}

/// What a piece brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fed {
    /// All of it belongs to the string.
    More,
    /// The closing quote stands before this index of the piece.
    Closed(usize),
    /// An escape that JSON does not know, or half a surrogate pair: readers disagree about such a string.
    Bad,
}

impl Text {
    /// Starts a new string; what was allocated for the last one is kept.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
        self.escape = Escape::None;
        self.high = None;
    }

    /// The decoded bytes; `None` if there were more than the bound.
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        (!self.too_long).then_some(&self.bytes)
    }

    /// The string, if nothing of it was seen before `rest` and all of it is there, without an escape and within the bound: then
    /// there is nothing to write down.
    pub(crate) fn whole<'a>(&self, rest: &'a [u8], max_bytes: usize) -> Option<&'a [u8]> {
        let untouched = self.bytes.is_empty()
            && !self.too_long
            && self.high.is_none()
            && matches!(self.escape, Escape::None);
        let end = string_end(rest).filter(|&end| untouched && rest[end] == b'"' && end <= max_bytes)?;
        Some(&rest[..end])
    }

    /// Takes the next bytes after the opening quote, and keeps at most `max_bytes` of the decoded string.
    pub(crate) fn feed(&mut self, piece: &[u8], max_bytes: usize) -> Fed {
        let mut at = 0;
        while at < piece.len() {
            match self.escape {
                Escape::None => {
                    let rest = &piece[at..];
                    let end = memchr2(b'"', b'\\', rest);
                    let plain = &rest[..end.unwrap_or(rest.len())];
                    let pair_broken =
                        self.high.is_some() && (!plain.is_empty() || end.is_some_and(|i| rest[i] == b'"'));
                    if pair_broken {
                        return Fed::Bad;
                    }
                    self.keep(plain, max_bytes);
                    let Some(end) = end else { return Fed::More };
                    at += end + 1;
                    if rest[end] == b'"' {
                        return Fed::Closed(at);
                    }
                    self.escape = Escape::Started;
                }
                Escape::Started => {
                    let byte = piece[at];
                    at += 1;
                    self.escape = Escape::None;
                    if byte == b'u' {
                        self.escape = Escape::Hex { digits: 0, value: 0 };
                        continue;
                    }
                    let Some(plain) = unescaped(byte) else { return Fed::Bad };
                    if self.high.is_some() {
                        return Fed::Bad;
                    }
                    self.keep(&[plain], max_bytes);
                }
                Escape::Hex { digits, value } => {
                    let Some(digit) = char::from(piece[at]).to_digit(16) else { return Fed::Bad };
                    at += 1;
                    // A digit is at most 15, so this is lossless.
                    let value = value << 4 | digit as u16;
                    if digits < 3 {
                        self.escape = Escape::Hex { digits: digits + 1, value };
                        continue;
                    }
                    self.escape = Escape::None;
                    if !self.keep_unit(value, max_bytes) {
                        return Fed::Bad;
                    }
                }
            }
        }
        Fed::More
    }

    /// Keeps one UTF-16 code unit. `false` if it cannot stand where it stands.
    fn keep_unit(&mut self, unit: u16, max_bytes: usize) -> bool {
        let units = match self.high.take() {
            Some(high) => [high, unit],
            None if (0xD800..0xDC00).contains(&unit) => {
                self.high = Some(unit);
                return true;
            }
            None => [unit, 0],
        };
        let Some(Ok(decoded)) = char::decode_utf16(units).next() else { return false };
        self.keep(decoded.encode_utf8(&mut [0; 4]).as_bytes(), max_bytes);
        true
    }

    fn keep(&mut self, plain: &[u8], max_bytes: usize) {
        if self.too_long || plain.len() > max_bytes - self.bytes.len() {
            self.too_long = true;
        } else {
            self.bytes.extend_from_slice(plain);
        }
    }
}

fn unescaped(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 0x08,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// Where the first quote or backslash is. Most strings of a body are keys and short words, for which a call of `memchr2` costs
/// more than the search; so its first bytes are looked at here.
#[inline]
pub(crate) fn string_end(bytes: &[u8]) -> Option<usize> {
    for (at, chunk) in bytes.as_chunks::<8>().0.iter().take(SHORT_CHUNKS).enumerate() {
        let word = u64::from_le_bytes(*chunk);
        let found =
            zero_bytes(word ^ (ONES * u64::from(b'"'))) | zero_bytes(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let seen = bytes.len().min(SHORT_CHUNKS * 8) & !7;
    memchr2(b'"', b'\\', &bytes[seen..]).map(|at| seen + at)
}

const SHORT_CHUNKS: usize = 2;
const ONES: u64 = 0x0101_0101_0101_0101;

/// The highest bit of each byte that is zero; of those behind the first of them it may tell wrong.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// The bytes that matter inside a nested value, outside its strings.
pub(crate) const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b'"' as usize] = true;
    table[b'{' as usize] = true;
    table[b'}' as usize] = true;
    table[b'[' as usize] = true;
    table[b']' as usize] = true;
    table
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_string_ends_at_its_first_quote_or_backslash(
            bytes in prop::collection::vec(prop::sample::select(&b"a\"\\!#[]\x00\xa2\xdc\xff"[..]), 0..40),
            plain in 0usize..40,
        ) {
            let bytes = [vec![b'!'; plain], bytes].concat();
            let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(string_end(&bytes), end);
        }
    }
}

//! The text of one JSON string that arrives in pieces, with its escapes resolved, up to a bound (RFC 8259, section 7).

use memchr::memchr2;

/// Decodes what stands between the quotes of a JSON string. Bytes beyond the bound are counted as "too long" and dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
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
pub(super) enum Fed {
    /// All of it belongs to the string.
    More,
    /// The closing quote stands before this index of the piece.
    Closed(usize),
    /// An escape that JSON does not know, or half a surrogate pair: readers disagree about such a string.
    Bad,
}

impl Text {
    /// Starts a new string; what was allocated for the last one is kept.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.too_long = false;
        self.escape = Escape::None;
        self.high = None;
    }

    /// The decoded bytes; `None` if there were more than the bound.
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        (!self.too_long).then_some(&self.bytes)
    }

    /// The string, if nothing of it was seen before `rest` and all of it is there, without an escape and within the bound: then
    /// there is nothing to write down.
    pub(super) fn whole<'a>(&self, rest: &'a [u8], max_bytes: usize) -> Option<&'a [u8]> {
        let untouched = self.bytes.is_empty()
            && !self.too_long
            && self.high.is_none()
            && matches!(self.escape, Escape::None);
        let end =
            memchr2(b'"', b'\\', rest).filter(|&end| untouched && rest[end] == b'"' && end <= max_bytes)?;
        Some(&rest[..end])
    }

    /// Takes the next bytes after the opening quote, and keeps at most `max_bytes` of the decoded string.
    pub(super) fn feed(&mut self, piece: &[u8], max_bytes: usize) -> Fed {
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

/// The bytes that matter inside a nested value, outside its strings.
pub(super) const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    table[b'"' as usize] = true;
    table[b'{' as usize] = true;
    table[b'}' as usize] = true;
    table[b'[' as usize] = true;
    table[b']' as usize] = true;
    table
};

//! One flat JSON object on one line, written straight into a byte buffer: the access log's path has no serializer and no
//! allocation a line. Whatever bytes come in, what goes out is valid JSON in valid UTF-8 (RFC 8259, sections 7 and 8.1).

/// The most bytes of a value that are written; a peer chooses how long a path or a model's name is.
pub(crate) const MAX_VALUE_BYTES: usize = 1024;

/// An object being written.
pub(crate) struct Object<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

/// A key as it stands before its value, made when this is compiled: a line has some twenty of them.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":")
    };
}
pub(crate) use key;

impl<'a> Object<'a> {
    pub(crate) fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Object { out, start }
    }

    /// Ends the object and the line.
    pub(crate) fn end_line(self) {
        // Every key brings a comma with it; the first one's is in the place of the brace.
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.extend_from_slice(b"}\n");
    }

    /// A string of any bytes, cut to [`MAX_VALUE_BYTES`]; what is not UTF-8 becomes U+FFFD.
    #[inline]
    pub(crate) fn string(&mut self, key: &'static str, value: &[u8]) {
        self.key(key);
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
    }

    /// A string that is written by `write`, which promises to write only printable ASCII without quotes or backslashes.
    #[inline]
    pub(crate) fn plain(&mut self, key: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    /// A word of ours: printable ASCII without quotes or backslashes.
    #[inline]
    pub(crate) fn word(&mut self, key: &'static str, word: &[u8]) {
        debug_assert!(word.iter().all(|byte| byte.is_ascii_graphic() && !needs_escape(*byte)));
        self.plain(key, |out| out.extend_from_slice(word));
    }

    #[inline]
    pub(crate) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        decimal(self.out, value, 1);
    }

    #[inline]
    pub(crate) fn bool(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    /// Microseconds as milliseconds with three decimals, or null.
    pub(crate) fn milliseconds(&mut self, key: &'static str, us: Option<u64>) {
        self.key(key);
        let Some(us) = us else {
            self.out.extend_from_slice(b"null");
            return;
        };
        decimal(self.out, us / 1000, 1);
        let [a, b, c] = three_digits(us % 1000);
        self.out.extend_from_slice(&[b'.', a, b, c]);
    }

    /// A [`key!`]. Keys are ours: they need no escaping.
    #[allow(
        clippy::inline_always,
        reason = "measured: with its length known it is a few moves, and a call otherwise"
    )]
    #[inline(always)]
    fn key(&mut self, key: &'static str) {
        self.out.extend_from_slice(key.as_bytes());
    }
}

/// Writes `value` with at least `width` digits.
pub(crate) fn decimal(out: &mut Vec<u8>, value: u64, width: usize) {
    if value < 10 && width <= 1 {
        out.push(b'0' + value as u8);
        return;
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    for _ in digits.len()..width {
        out.push(b'0');
    }
    out.extend_from_slice(digits);
}

/// The digits of a number below 1000.
pub(crate) fn three_digits(value: u64) -> [u8; 3] {
    [value / 100, value / 10, value].map(|value| b'0' + (value % 10) as u8)
}

fn escape(out: &mut Vec<u8>, value: &[u8]) {
    let (value, is_cut) = cut(value);
    if !is_cut && is_plain(value) {
        out.extend_from_slice(value);
        return;
    }
    for chunk in value.utf8_chunks() {
        let mut rest = chunk.valid().as_bytes();
        while let Some(at) = rest.iter().position(|b| needs_escape(*b)) {
            out.extend_from_slice(&rest[..at]);
            escape_byte(out, rest[at]);
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if is_cut {
        out.extend_from_slice("…".as_bytes());
    }
}

/// Cuts at the bound, before a character that would be split.
fn cut(value: &[u8]) -> (&[u8], bool) {
    if value.len() <= MAX_VALUE_BYTES {
        return (value, false);
    }
    let is_continuation = |b: u8| b & 0xc0 == 0x80;
    let mut end = MAX_VALUE_BYTES;
    // A character has at most three continuation bytes; more of them is not UTF-8, and may be cut anywhere.
    while end > MAX_VALUE_BYTES - 3 && is_continuation(value[end]) {
        end -= 1;
    }
    (&value[..end], true)
}

/// Whether all of it can be written as it is, as nearly every value can.
fn is_plain(value: &[u8]) -> bool {
    // Without a way out of the middle, the test of a chunk is a few vector instructions.
    let all = |bytes: &[u8; PLAIN_LANES]| bytes.iter().fold(true, |plain, byte| plain & is_plain_byte(*byte));
    match (value.as_chunks().0, value.last_chunk()) {
        // The last chunk overlaps the one before, so that no bytes are left over.
        (chunks, Some(last)) => chunks.iter().all(all) && all(last),
        _ => value.iter().all(|byte| PLAIN[usize::from(*byte)]),
    }
}

const PLAIN_LANES: usize = 16;

const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_plain_byte(byte as u8);
        byte += 1;
    }
    table
};

const fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii() & !needs_escape(byte)
}

/// DEL need not be escaped in JSON, but people read logs on terminals.
const fn needs_escape(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\') | (byte == 0x7f)
}

fn escape_byte(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        _ => {
            let mut code = *b"\\u0000";
            super::ids::write_hex(&[byte], &mut code[4..]);
            out.extend_from_slice(&code);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.string(key!("k"), value);
        object.end_line();
        out
    }

    fn read_back(line: &[u8]) -> String {
        assert_eq!(line.iter().filter(|b| **b == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(line).unwrap();
        value["k"].as_str().unwrap().to_owned()
    }

    #[test]
    fn quotes_backslashes_and_controls_are_escaped() {
        assert_eq!(string(b"a\"b\\c\nd\x1b\x7f"), b"{\"k\":\"a\\\"b\\\\c\\nd\\u001b\\u007f\"}\n");
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(read_back(&string(b"a\xffb\xe2\x82")), "a\u{fffd}b\u{fffd}");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let value = format!("{}€€", "x".repeat(MAX_VALUE_BYTES - 2));
        assert_eq!(read_back(&string(value.as_bytes())), format!("{}…", "x".repeat(MAX_VALUE_BYTES - 2)));
    }

    #[test]
    fn numbers_have_their_digits() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.number(key!("zero"), 0);
        object.number(key!("most"), u64::MAX);
        object.milliseconds(key!("ms"), Some(1_002_003));
        object.milliseconds(key!("little"), Some(7));
        object.milliseconds(key!("none"), None);
        object.bool(key!("yes"), true);
        object.end_line();
        let expected =
            r#"{"zero":0,"most":18446744073709551615,"ms":1002.003,"little":0.007,"none":null,"yes":true}"#;
        assert_eq!(String::from_utf8(out).unwrap().trim_end(), expected);
    }

    #[test]
    fn an_empty_object_is_an_object() {
        let mut out = Vec::new();
        Object::begin(&mut out).end_line();
        assert_eq!(out, b"{}\n");
    }

    proptest! {
        #[test]
        fn any_bytes_become_the_json_of_their_lossy_text(value in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(read_back(&string(&value)), String::from_utf8_lossy(&value));
        }
    }
}

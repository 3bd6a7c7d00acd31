//! A number, `true`, `false`, `null`, or what poses as one, that arrives in pieces (RFC 8259, sections 3 and 6).

/// The first bytes of a scalar: enough to tell `true` and `false` from anything else, and to read a number of tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scalar {
    bytes: [u8; 14],
    len: u8,
}

impl Scalar {
    /// `false` if `byte` cannot belong to a scalar: then it is the first after it.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        if !matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') {
            return false;
        }
        if let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
            *slot = byte;
            self.len += 1;
        }
        true
    }

    /// What a word says, if it is one of the two.
    pub(super) fn as_bool(&self) -> Option<bool> {
        match &self.bytes[..usize::from(self.len)] {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// A number of tokens; what is too long to be kept, or is no number, counts as the largest there is.
    pub(super) fn as_tokens(&self) -> Option<u64> {
        let bytes = &self.bytes[..usize::from(self.len)];
        if bytes == b"null" {
            return None;
        }
        let text = std::str::from_utf8(bytes).ok().filter(|_| bytes.len() < self.bytes.len());
        // Some write 1e3; below nothing it is nothing.
        let number = text.and_then(|text| text.parse::<f64>().ok()).filter(|number| number.is_finite());
        Some(number.map_or(u64::MAX, |number| number.ceil() as u64))
    }
}

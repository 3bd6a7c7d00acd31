//! A number, `true`, `false`, `null`, or what poses as one, that arrives in pieces (RFC 8259, sections 3 and 6).

/// The first bytes of a scalar: enough to tell `true` and `false` from anything else, and to read a count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scalar {
    bytes: [u8; 23],
    len: u8,
}

impl Scalar {
    /// `false` if `byte` cannot belong to a scalar: then it is the first after it.
    pub(crate) fn take(&mut self, byte: u8) -> bool {
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
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match &self.bytes[..usize::from(self.len)] {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// Whether it is the word for nothing.
    pub(crate) fn is_null(&self) -> bool {
        &self.bytes[..usize::from(self.len)] == b"null"
    }

    /// A count; none for `null`. What is too large to be kept counts as the largest there is, and one with a fraction as the next
    /// whole number.
    pub(crate) fn as_count(&self) -> Result<Option<u64>, NotACount> {
        if self.is_null() {
            return Ok(None);
        }
        let bytes = &self.bytes[..usize::from(self.len)];
        if !bytes.first().is_some_and(u8::is_ascii_digit) {
            return Err(NotACount);
        }
        if bytes.len() == self.bytes.len() {
            return Ok(Some(u64::MAX));
        }
        // Some write 1e3. What is infinite becomes the largest.
        let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<f64>().ok());
        number.map(|number| Some(number.ceil() as u64)).ok_or(NotACount)
    }
}

/// It is no count, or one below 0: some readers refuse it, some take it for no limit at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotACount;

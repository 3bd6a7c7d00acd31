//! Characters that a piece of text ends within.

/// Length of the character that `bytes` end within, as far as it has come: three bytes at most, and 0 if they end between two
/// characters or with bytes that begin none.
pub(crate) fn incomplete(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let is_continued = |&&byte: &&u8| byte & 0xC0 == 0x80;
    let continued = last.iter().rev().take_while(is_continued).count();
    let Some(lead) = last.len().checked_sub(continued + 1) else { return 0 };
    let begun = &last[lead..];
    match std::str::from_utf8(begun) {
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => begun.len(),
        _ => 0,
    }
}

/// Whether text has anything before the character that it ends within.
pub(crate) fn has_whole(bytes: &[u8]) -> bool {
    incomplete(bytes) < bytes.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_character_that_has_begun_is_incomplete() {
        for (bytes, length) in [
            (&b""[..], 0),
            (b"a", 0),
            (b"\xE2", 1),
            (b"a\xE2\x82", 2),
            (b"\xE2\x82\xAC", 0),
            (b"\xF0\x9F\x98", 3),
            (b"\x82\x82\x82", 0),
            (b"\xFF", 0),
            (b"\xC0", 0),
            (b"\xE2\xE2", 1),
            (b"\xED\xA0", 0),
        ] {
            assert_eq!(incomplete(bytes), length, "{bytes:x?}");
        }
    }

    proptest! {
        /// However text is cut, the part before what is incomplete is text.
        #[test]
        fn a_cut_leaves_whole_characters(text in "\\PC{0,12}", cut in 0..48_usize) {
            let bytes = &text.as_bytes()[..cut.min(text.len())];
            let whole = &bytes[..bytes.len() - incomplete(bytes)];
            prop_assert!(std::str::from_utf8(whole).is_ok());
        }
    }
}

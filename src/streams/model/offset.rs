//! Positions in a stream, as its readers hold them: `<epoch>-<zero padded number>`.
//!
//! Both parts have a fixed width, so that comparing two strings of one epoch compares the positions (PROTOCOL.md, section 8).
//! An epoch is minted when a log is born and changes only if the log was lost: a position of another epoch means other bytes,
//! and must never be served as if it were of this one. A fork goes on with its source's epoch, for it shares its positions.

use std::fmt;
use std::str::FromStr;

/// Hexadecimal digits of an epoch: 64 bits.
const EPOCH_DIGITS: usize = 16;

/// Decimal digits of a position: every `u64` has room.
const POSITION_DIGITS: usize = 20;

/// Length of a written offset, in bytes; the promise is at most 64.
pub(crate) const OFFSET_BYTES: usize = EPOCH_DIGITS + 1 + POSITION_DIGITS;

/// The first position as the protocol's first server writes it. Clients and tests know it by heart, and it means the same here.
const BEGINNING_ELSEWHERE: &str = "0000000000000000_0000000000000000";

/// One position in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Offset {
    /// Which life of the log.
    pub(crate) epoch: u64,
    /// How far into it.
    pub(crate) position: u64,
}

/// Where a reader wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// `-1`, or nothing said.
    Beginning,
    /// `now`: what is appended from here on.
    Now,
    /// Right after what was read before.
    At(Offset),
}

/// Text that no offset of this server looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetError;

impl fmt::Display for OffsetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the offset was not made by this server: use `-1`, `now`, or a `Stream-Next-Offset` as it was received")
    }
}

impl std::error::Error for OffsetError {}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:020}", self.epoch, self.position)
    }
}

impl FromStr for Offset {
    type Err = OffsetError;

    /// Accepts exactly what `Display` writes: a second spelling of one position would break the order of strings.
    fn from_str(text: &str) -> Result<Self, OffsetError> {
        let bytes = text.as_bytes();
        if bytes.len() != OFFSET_BYTES || bytes[EPOCH_DIGITS] != b'-' {
            return Err(OffsetError);
        }
        let (epoch, position) = (&bytes[..EPOCH_DIGITS], &bytes[EPOCH_DIGITS + 1..]);
        let hexadecimal = epoch.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !hexadecimal || !position.iter().all(u8::is_ascii_digit) {
            return Err(OffsetError);
        }
        // All of it is ASCII by now, so these are boundaries of characters.
        let epoch = u64::from_str_radix(&text[..EPOCH_DIGITS], 16).map_err(|_| OffsetError)?;
        let position = text[EPOCH_DIGITS + 1..].parse().map_err(|_| OffsetError)?;
        Ok(Self { epoch, position })
    }
}

impl FromStr for Start {
    type Err = OffsetError;

    fn from_str(text: &str) -> Result<Self, OffsetError> {
        match text {
            "-1" | BEGINNING_ELSEWHERE => Ok(Self::Beginning),
            "now" => Ok(Self::Now),
            _ => text.parse().map(Self::At),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sentinels_are_no_offsets() {
        assert_eq!("-1".parse(), Ok(Start::Beginning));
        assert_eq!("now".parse(), Ok(Start::Now));
        assert_eq!("-1".parse::<Offset>(), Err(OffsetError));
    }

    #[test]
    fn a_second_spelling_is_refused() {
        let offset = Offset { epoch: 0xab, position: 7 }.to_string();
        assert_eq!(offset, "00000000000000ab-00000000000000000007");
        for wrong in [offset.to_uppercase(), offset.replace("-0", "-+"), format!("{offset} "), "a,b".into()] {
            assert_eq!(wrong.parse::<Offset>(), Err(OffsetError), "{wrong}");
        }
        // One more than fits into 64 bits.
        assert_eq!("00000000000000ab-18446744073709551616".parse::<Offset>(), Err(OffsetError));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch: u64, position: u64) {
            let offset = Offset { epoch, position };
            let text = offset.to_string();
            prop_assert!(text.len() <= 64);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
            prop_assert_eq!(text.parse(), Ok(offset));
        }

        #[test]
        fn strings_are_ordered_as_positions(epoch: u64, one: u64, other: u64) {
            let text = |position| Offset { epoch, position }.to_string();
            prop_assert_eq!(text(one).cmp(&text(other)), one.cmp(&other));
        }

        #[test]
        fn nothing_panics(text in ".{0,80}") {
            if let Ok(offset) = text.parse::<Offset>() {
                prop_assert_eq!(offset.to_string(), text);
            }
        }
    }
}

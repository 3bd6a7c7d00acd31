//! Where a reader of several streams is: the id of each of its events, and what it comes back with.
//!
//! ```text
//!  EPOCH-ORDER                    everything up to this place in the order of all appends
//!  EPOCH-ORDER-WITHIN-TOLD        and so many bytes of the next append, which is made of messages (8 hexadecimal digits);
//!                                 and it knows of everything that was given up to so far behind ORDER (hexadecimal)
//! ```
//!
//! The second is written only where the first would not do: between two messages of one append, and until a reader who was told
//! that something is no longer kept has come beyond that.

use std::fmt;

use crate::streams::{OFFSET_BYTES, Offset, OffsetError, Start};

/// A place in several streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The place in the order of all appends up to which all was told.
    pub(crate) offset: Offset,
    /// How much of the append after it was told, in bytes.
    pub(crate) within: u32,
    /// That appends up to this one may be gone is known, whatever `offset` says.
    pub(crate) told: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.offset.fmt(f)?;
        let behind = self.told.saturating_sub(self.offset.position);
        if self.within > 0 || behind > 0 {
            write!(f, "-{:08x}-{behind:x}", self.within)?;
        }
        Ok(())
    }
}

/// Where a reader wants to begin, what it has of the append after that, and up to where it knows of what is gone.
pub(crate) fn read(text: &str) -> Result<(Start, u32, u64), OffsetError> {
    let long = text.split_at_checked(OFFSET_BYTES).filter(|(_, rest)| !rest.is_empty());
    let Some((offset, rest)) = long else {
        return Ok((text.parse()?, 0, 0));
    };
    let offset: Offset = offset.parse()?;
    let parts = rest.strip_prefix('-').and_then(|parts| parts.split_once('-'));
    let (within, behind) = parts.ok_or(OffsetError)?;
    let place = Place {
        offset,
        within: u32::from_str_radix(within, 16).map_err(|_| OffsetError)?,
        told: u64::from_str_radix(behind, 16)
            .ok()
            .and_then(|behind| offset.position.checked_add(behind))
            .ok_or(OffsetError)?,
    };
    // Only what is written here is read.
    let is_ours = place.to_string() == text;
    is_ours.then_some((Start::At(offset), place.within, place.told)).ok_or(OffsetError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// PROTOCOL.md, section 8: at most 64 bytes, so that it may be held anywhere.
    const PLACE_BYTES_MAX: usize = 64;

    proptest! {
        #[test]
        fn what_is_written_is_read(epoch: u64, position: u64, within: u32, behind: u64) {
            let told = position.saturating_add(behind);
            let text = Place { offset: Offset { epoch, position }, within, told }.to_string();
            prop_assert!(text.len() <= PLACE_BYTES_MAX, "{}", text);
            prop_assert_eq!(read(&text), Ok((Start::At(Offset { epoch, position }), within, told)));
        }

        #[test]
        fn any_text_is_read_or_refused(rest in "[-+_0-9a-fé]{0,30}") {
            let offset = Offset { epoch: 7, position: u64::MAX };
            let _ = read(&rest);
            if let Ok((start, within, told)) = read(&format!("{offset}{rest}")) {
                prop_assert_eq!(start, Start::At(offset));
                prop_assert!(rest.is_empty() || (within > 0 && told == u64::MAX), "{}", rest);
            }
        }
    }

    #[test]
    fn a_place_between_appends_is_an_offset() {
        let offset = Offset { epoch: 0xab, position: 7 };
        assert_eq!(Place { offset, within: 0, told: 7 }.to_string(), offset.to_string());
        assert_eq!(Place { offset, within: 3, told: 0 }.to_string(), format!("{offset}-00000003-0"));
        assert_eq!(Place { offset, within: 0, told: 23 }.to_string(), format!("{offset}-00000000-10"));
        assert_eq!(read("-1"), Ok((Start::Beginning, 0, 0)));
        assert_eq!(read("now"), Ok((Start::Now, 0, 0)));
        for wrong in
            ["", "-", "-0-0", "-00000003", "-00000003-", "-00000003-00", "-00000000-0", "-+0000003-0"]
        {
            assert!(wrong.is_empty() || read(&format!("{offset}{wrong}")).is_err(), "{wrong}");
        }
    }
}

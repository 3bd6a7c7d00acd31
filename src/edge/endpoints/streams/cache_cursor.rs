//! Cursors: what a reader of what is yet to come says when it asks again, so that no cache serves it the same answer for ever
//! (PROTOCOL.md, 10.1).

/// When cursors begin to count: 9 October 2024, in milliseconds since 1970.
const EPOCH_MS: u64 = 1_728_432_000_000;

/// How long each of them lasts, in milliseconds.
const INTERVAL_MS: u64 = 20_000;

/// How far beyond a reader's own cursor the next one lies at most, in seconds.
const JITTER_S: u64 = 3600;

/// The cursor of `now`, in milliseconds since 1970, for a reader that came with `theirs`: always greater than that. `chance` is
/// any number.
pub(crate) fn next(now: u64, theirs: Option<u64>, chance: u64) -> u64 {
    let current = now.saturating_sub(EPOCH_MS) / INTERVAL_MS;
    match theirs {
        Some(theirs) if theirs >= current => {
            let jitter = (1 + chance % JITTER_S) * 1000;
            theirs.saturating_add(jitter.div_ceil(INTERVAL_MS))
        }
        _ => current,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_always_greater_than_the_readers_own(now in EPOCH_MS..EPOCH_MS * 2, theirs in 0..1_u64 << 53, chance: u64) {
            prop_assert!(next(now, Some(theirs), chance) > theirs);
            prop_assert!(next(now, None, chance) <= next(now, Some(theirs), chance));
        }
    }

    #[test]
    fn changes_every_twenty_seconds() {
        assert_eq!(next(EPOCH_MS + 19_999, None, 0), 0);
        assert_eq!(next(EPOCH_MS + 20_000, None, 0), 1);
        assert_eq!(next(0, None, 0), 0);
    }
}

//! When to try again: exponential, 1 s to 60 s, with 20 % jitter either way (PROTOCOL.md, section 7.1).

use super::UnixMillis;

const FIRST_MS: UnixMillis = 1_000;
const LONGEST_MS: UnixMillis = 60_000;
const JITTER_PERCENT: u64 = 20;

/// How long to wait after so many failures in a row, the last one included. `random` is any number.
pub(crate) fn delay(failures: u32, random: u64) -> UnixMillis {
    let doublings = failures.saturating_sub(1).min(LONGEST_MS.ilog2());
    let base = (FIRST_MS << doublings).min(LONGEST_MS);
    let spread = base * JITTER_PERCENT / 100;
    base - spread + random % (2 * spread + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_up_to_a_minute() {
        let middle = |failures| (delay(failures, 0) + delay(failures, 2 * delay(failures, 0) / 4)) / 2;
        for (failures, base) in [(0, 1_000), (1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000)] {
            assert_eq!(delay(failures, 0), base * 8 / 10, "{failures}");
            assert_eq!(middle(failures), base, "{failures}");
        }
        assert_eq!(delay(u32::MAX, 0), 48_000);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(failures: u32, random: u64) {
            prop_assert!((800..=72_000).contains(&delay(failures, random)));
        }
    }
}

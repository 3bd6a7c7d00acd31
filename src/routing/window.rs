//! What became of the calls of the last seconds, on one core: a ring of seconds, each packed into one word, so that other cores
//! may read it while its owner writes and never see half of a change.
//!
//! ```text
//! 63                42 41        28 27        14 13         0
//! ├── second mod 2^22 ─┼── calls ───┼── failed ──┼── slow ────┤
//! ```
//!
//! A second's place is taken over by the one that comes [`SECONDS`] later; the second in the word tells whose it is (it comes
//! again after 48 days). Counts that are full are halved together, which leaves their ratio.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seconds that are kept; more than the longest window.
const SECONDS: usize = 64;

const COUNT_BITS: u32 = 14;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const SECOND_MASK: u64 = (1 << 22) - 1;

/// Some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Those whose outcome is known.
    pub(crate) calls: u32,
    /// Those of them that failed, or broke off later.
    pub(crate) failed: u32,
    /// Those of them whose answer began late.
    pub(crate) slow: u32,
}

/// A core's last minute with an upstream. It has a single writer.
#[derive(Debug)]
pub(crate) struct Window {
    seconds: [AtomicU64; SECONDS],
}

impl Default for Window {
    fn default() -> Window {
        Window { seconds: [const { AtomicU64::new(0) }; SECONDS] }
    }
}

impl Window {
    /// Counts `more` into `second`. For the owner only.
    pub(crate) fn add(&self, second: u64, more: Counts) {
        let place = &self.seconds[second as usize % SECONDS];
        let word = place.load(Relaxed);
        let mut counts = if word >> (3 * COUNT_BITS) == second & SECOND_MASK { unpack(word) } else { [0; 3] };
        for (count, more) in counts.iter_mut().zip([more.calls, more.failed, more.slow]) {
            *count += u64::from(more);
        }
        while counts.iter().any(|count| *count > COUNT_MAX) {
            counts = counts.map(|count| count / 2);
        }
        let packed = counts.iter().fold(second & SECOND_MASK, |word, count| word << COUNT_BITS | count);
        place.store(packed, Relaxed);
    }

    /// Adds up the `length` seconds up to and with `second`, but for those before `from`.
    pub(crate) fn sum(&self, second: u64, length: u64, from: u64) -> Counts {
        let first = (second + 1).saturating_sub(length.min(SECONDS as u64)).max(from);
        let mut sum = Counts::default();
        for second in first..=second {
            let word = self.seconds[second as usize % SECONDS].load(Relaxed);
            if word >> (3 * COUNT_BITS) == second & SECOND_MASK {
                let [calls, failed, slow] = unpack(word).map(|count| count as u32);
                sum += Counts { calls, failed, slow };
            }
        }
        sum
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.calls += more.calls;
        self.failed += more.failed;
        self.slow += more.slow;
    }
}

fn unpack(word: u64) -> [u64; 3] {
    [word >> (2 * COUNT_BITS) & COUNT_MAX, word >> COUNT_BITS & COUNT_MAX, word & COUNT_MAX]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: Counts = Counts { calls: 1, failed: 1, slow: 0 };

    #[test]
    fn full_counts_keep_their_ratio() {
        let window = Window::default();
        for call in 0..100_000 {
            window.add(
                7,
                Counts { calls: 1, failed: u32::from(call % 4 == 0), slow: u32::from(call % 2 == 0) },
            );
        }
        let Counts { calls, failed, slow } = window.sum(7, 1, 0);
        assert!(
            calls > 8000 && calls.abs_diff(4 * failed) < 40 && calls.abs_diff(2 * slow) < 40,
            "{calls} {failed} {slow}"
        );
    }

    #[test]
    fn what_is_forgotten_is_not_added_up() {
        let window = Window::default();
        (10..20).for_each(|second| window.add(second, ONE));
        assert_eq!(window.sum(19, 60, 0).calls, 10);
        assert_eq!(window.sum(19, 60, 15).calls, 5);
        assert_eq!(window.sum(19, 60, 20), Counts::default());
    }

    proptest! {
        /// Against a list of all there ever was.
        #[test]
        fn agrees_with_a_list(
            steps in proptest::collection::vec((0u64..100, 0u32..3), 1..100),
            start in prop_oneof![Just(0u64), Just((1 << 22) - 50)],
            length in 1u64..=60,
        ) {
            let (window, mut all, mut now) = (Window::default(), Vec::new(), start);
            for (pass, failed) in steps {
                now += pass;
                let more = Counts { calls: failed + 1, failed, slow: 1 };
                window.add(now, more);
                all.push((now, more));
                let mut expected = Counts::default();
                all.iter().filter(|(second, _)| second + length > now).for_each(|(_, more)| expected += *more);
                prop_assert_eq!(window.sum(now, length, 0), expected);
            }
        }
    }
}

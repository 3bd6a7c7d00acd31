//! How long an upstream takes to begin its responses, as a core sees it: a peak-sensitive moving average. A time that is longer
//! than the average takes its place at once, a shorter one pulls it down over [`DECAY_US`]; so who becomes slow is avoided
//! from the first slow answer on, and who recovers is trusted little by little. While nothing is heard it fades, so that
//! nobody is avoided for ever on the word of one bad answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::runtime::clock::Micros;

/// In this time an average that nothing adds to falls to 1/e.
const DECAY_US: f64 = 10_000_000.0;

/// The longest time that is believed.
const LONGEST_US: f64 = 600_000_000.0;

/// Less than this is as good as not known: there are no answers in no time.
const KNOWN_US: f64 = 1.0;

/// The average. It has a single writer, and only that one reads it.
#[derive(Debug, Default)]
pub(crate) struct Latency {
    /// Microseconds at `at`, as the bits of an `f64`.
    value: AtomicU64,
    at: AtomicU64,
}

impl Latency {
    /// An answer has begun after `took`.
    pub(crate) fn observe(&self, took: Micros, now: Micros) {
        let (took, weight) = ((took as f64).min(LONGEST_US), self.weight(now));
        let old = f64::from_bits(self.value.load(Relaxed));
        let new = if took >= old * weight { took } else { old * weight + took * (1.0 - weight) };
        self.value.store(new.to_bits(), Relaxed);
        self.at.store(now, Relaxed);
    }

    /// The average at `now` in microseconds; none if nothing is known, or not any more.
    pub(crate) fn read(&self, now: Micros) -> Option<f64> {
        let value = f64::from_bits(self.value.load(Relaxed));
        Some(value * self.weight(now)).filter(|value| *value >= KNOWN_US)
    }

    fn weight(&self, now: Micros) -> f64 {
        let passed = now.saturating_sub(self.at.load(Relaxed));
        (-(passed as f64) / DECAY_US).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Micros = 1_000_000;

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let latency = Latency::default();
        assert_eq!(latency.read(0), None);
        latency.observe(1000, SECOND);
        latency.observe(500_000, SECOND);
        assert_eq!(latency.read(SECOND), Some(500_000.0));
        latency.observe(1000, 2 * SECOND);
        let after = latency.read(2 * SECOND).unwrap();
        assert!((400_000.0..500_000.0).contains(&after), "{after}");
        (3..60).for_each(|second| latency.observe(1000, second * SECOND));
        let after = latency.read(60 * SECOND).unwrap();
        assert!((900.0..5000.0).contains(&after), "{after}");
        assert_eq!(latency.read(1000 * SECOND), None);
    }

    proptest! {
        /// Never beyond what was seen, whatever came when.
        #[test]
        fn is_between_nothing_and_the_longest(steps in proptest::collection::vec((0u64..u64::MAX / 1000, 0u64..20_000_000), 1..50)) {
            let (latency, mut now, mut longest) = (Latency::default(), 0, 0.0f64);
            for (took, pass) in steps {
                now += pass;
                latency.observe(took, now);
                longest = longest.max(took as f64);
                let value = latency.read(now).unwrap_or(0.0);
                prop_assert!(value.is_finite() && (0.0..=longest.min(LONGEST_US)).contains(&value));
            }
        }
    }
}

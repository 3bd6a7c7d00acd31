//! Histograms with fixed bounds, observed in microseconds by one core and rendered in seconds. An observation is a table
//! look-up on the number's highest bit, at most three compares (no bound set here has more than that many bounds within
//! one power of two) and two plain stores, as it may happen once a segment.
//!
//! The bounds of the first three are those of OpenTelemetry's semantic conventions for generative AI ("Generative AI
//! model server metrics", ExplicitBucketBoundaries), so that dashboards made for those fit.

use std::marker::PhantomData;

use super::counters::Counter;

/// The most bounds a scale may have.
pub(crate) const MAX_BOUNDS: usize = 16;

/// Upper bounds of buckets, inclusive as Prometheus's `le` is, ascending.
pub(crate) trait Scale {
    /// The bounds in microseconds.
    const BOUNDS_US: &'static [u64];

    /// For each count of significant bits, the first bucket that a number of so many bits can fall into.
    const FIRST_BUCKET: &'static [u8; 65] = &first_buckets(Self::BOUNDS_US);
}

/// Bounds of `gen_ai.server.time_to_first_token`.
#[derive(Debug, Default)]
pub(crate) struct TimeToFirstToken;

impl Scale for TimeToFirstToken {
    const BOUNDS_US: &'static [u64] = &[
        1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 250_000, 500_000, 750_000, 1_000_000,
        2_500_000, 5_000_000, 7_500_000, 10_000_000,
    ];
}

/// Bounds of `gen_ai.server.time_per_output_token`.
#[derive(Debug, Default)]
pub(crate) struct TimePerOutputToken;

impl Scale for TimePerOutputToken {
    const BOUNDS_US: &'static [u64] = &[
        10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 400_000, 500_000, 750_000,
        1_000_000, 2_500_000,
    ];
}

/// Bounds of `gen_ai.server.request.duration`.
#[derive(Debug, Default)]
pub(crate) struct RequestDuration;

impl Scale for RequestDuration {
    const BOUNDS_US: &'static [u64] = &[
        10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 5_120_000,
        10_240_000, 20_480_000, 40_960_000, 81_920_000,
    ];
}

/// Bounds for the time spent in sedge itself: 10 µs to 1 s in steps of 1, 2, 5.
#[derive(Debug, Default)]
pub(crate) struct Overhead;

impl Scale for Overhead {
    const BOUNDS_US: &'static [u64] = &[
        10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
        1_000_000,
    ];
}

/// Bounds for a sync of a disk: 50 µs (a drive with a cache that survives) to 10 s (one that is about to fail).
#[derive(Debug, Default)]
pub(crate) struct DiskSync;

impl Scale for DiskSync {
    const BOUNDS_US: &'static [u64] = &[
        50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 10_000_000,
    ];
}

/// A histogram over the bounds of `S`, with one writer.
#[derive(Debug)]
pub(crate) struct Histogram<S> {
    /// Observations by bucket; the one after the last bound holds what is greater than all of them.
    buckets: [Counter; MAX_BOUNDS + 1],
    sum_us: Counter,
    scale: PhantomData<S>,
}

impl<S> Default for Histogram<S> {
    fn default() -> Self {
        Histogram { buckets: Default::default(), sum_us: Counter::default(), scale: PhantomData }
    }
}

impl<S: Scale> Histogram<S> {
    /// Counts one observation of `us` microseconds. For the owner only.
    #[inline]
    pub(crate) fn observe_us(&self, us: u64) {
        let bits = u64::BITS - us.leading_zeros();
        let mut bucket = S::FIRST_BUCKET[bits as usize] as usize;
        while bucket < S::BOUNDS_US.len() && us > S::BOUNDS_US[bucket] {
            bucket += 1;
        }
        self.buckets[bucket].inc();
        self.sum_us.add(us);
    }

    /// Adds what was observed so far to `totals`. For any thread.
    pub(crate) fn add_to(&self, totals: &mut Totals) {
        for (total, bucket) in totals.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.get();
        }
        totals.sum_us = totals.sum_us.wrapping_add(self.sum_us.get());
    }
}

/// The observations of several histograms of one scale. Read while they are written, so the sum may be an observation
/// ahead of or behind the buckets; the count is made from the buckets and thus always agrees with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Observations by bucket, not cumulative.
    pub(crate) buckets: [u64; MAX_BOUNDS + 1],
    /// The sum of all observations in microseconds.
    pub(crate) sum_us: u64,
}

impl Totals {
    /// The number of observations.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// The smallest number of `bits` significant bits is `2^(bits-1)`: its bucket is where the search for any of them starts.
const fn first_buckets(bounds: &[u64]) -> [u8; 65] {
    assert!(bounds.len() <= MAX_BOUNDS);
    let mut first = [0; 65];
    let mut bits = 1;
    while bits <= 64 {
        let smallest = 1u64 << (bits - 1);
        let mut bucket = 0;
        while bucket < bounds.len() && smallest > bounds[bucket] {
            bucket += 1;
            assert!(bucket == bounds.len() || bounds[bucket] > bounds[bucket - 1], "bounds must ascend");
        }
        first[bits] = bucket as u8;
        bits += 1;
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<S: Scale>() {
        let search = |us| S::BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(S::BOUNDS_US.len());
        let near = |bound: u64| [bound - 1, bound, bound + 1];
        let powers = (0..64).map(|shift| 1u64 << shift).flat_map(near);
        for us in S::BOUNDS_US.iter().copied().flat_map(near).chain(powers).chain([u64::MAX]) {
            let histogram = Histogram::<S>::default();
            histogram.observe_us(us);
            let mut totals = Totals::default();
            histogram.add_to(&mut totals);
            assert_eq!(totals.buckets[search(us)], 1, "{us} µs");
            assert_eq!((totals.count(), totals.sum_us), (1, us));
        }
    }

    #[test]
    fn an_observation_lands_in_the_first_bucket_that_holds_it() {
        check::<TimeToFirstToken>();
        check::<TimePerOutputToken>();
        check::<RequestDuration>();
        check::<Overhead>();
    }

    #[test]
    fn no_observation_needs_more_than_three_compares_that_move_on() {
        fn most<S: Scale>() -> u8 {
            let pairs = S::FIRST_BUCKET[1..].windows(2);
            pairs.map(|pair| pair[1] - pair[0]).max().unwrap()
        }
        assert!(most::<TimeToFirstToken>() <= 3);
        assert!(most::<TimePerOutputToken>() <= 3);
        assert!(most::<RequestDuration>() <= 3);
        assert!(most::<Overhead>() <= 3);
    }
}

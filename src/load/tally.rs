//! What a step has measured: counters, and three histograms of microseconds. Each thread fills its own; they are summed once
//! the step is over.
//!
//! The histograms are HDR ones, exact to three significant digits from 1 µs to an hour, of some 180 KiB each, however many
//! values they hold.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::failure::{Failure, Kind};
use crate::runtime::clock::Micros;

/// The longest time that is told apart; longer ones count as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Significant decimal digits of every latency.
const DIGITS: u8 = 3;

/// Microseconds that occurred.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Latency {
        Latency(Histogram::new_with_bounds(1, LONGEST_US, DIGITS).expect("bounds that fit"))
    }
}

impl Latency {
    /// Adds one value.
    pub(crate) fn record(&mut self, value: Micros) {
        self.0.saturating_record(value);
    }

    /// Adds `count` of the same value.
    pub(crate) fn record_many(&mut self, value: Micros, count: u64) {
        self.0.saturating_record_n(value, count);
    }

    /// What is reported of them.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let at = |quantile| self.0.value_at_quantile(quantile);
        (!self.0.is_empty()).then(|| Summary {
            count: self.0.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: self.0.max(),
        })
    }

    fn add(&mut self, other: &Latency) {
        // They have the same bounds, so nothing can be lost.
        let _ = self.0.add(&other.0);
    }
}

/// Quantiles, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// Values.
    pub(crate) count: u64,
    /// Median.
    pub(crate) p50: Micros,
    /// Nine of ten are at most this.
    pub(crate) p90: Micros,
    /// 99 of 100 are at most this.
    pub(crate) p99: Micros,
    /// The longest.
    pub(crate) max: Micros,
}

/// Failures of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// How many.
    pub(crate) count: u64,
    /// What the first of them told.
    pub(crate) example: String,
}

/// The measurements of a step, or of a thread's share in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Measured requests: those begun within the window.
    pub(crate) requests: u64,
    /// Those of them that ended well.
    pub(crate) completed: u64,
    /// Those that failed, by kind. There are few kinds, and 900 statuses.
    pub(crate) errors: BTreeMap<Kind, Failed>,
    /// Requests that failed though they were begun before the window.
    pub(crate) warmup_failed: u64,
    /// Requests that were sent again because a kept connection turned out to be closed.
    pub(crate) resent: u64,
    /// Requests, whenever begun, that ended well within the window.
    pub(crate) completed_within: u64,
    /// Events that arrived within the window.
    pub(crate) events_within: u64,
    /// From the start to the first byte of the body.
    pub(crate) first_byte: Latency,
    /// Between two events of a stream: of measured requests, and of any that arrived within the window.
    pub(crate) between: Latency,
    /// From the start to the end of those that ended well.
    pub(crate) end: Latency,
}

impl Tally {
    /// Counts a failure of a measured request.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let failed = self
            .errors
            .entry(failure.kind)
            .or_insert_with(|| Failed { count: 0, example: failure.detail.into_owned() });
        failed.count += 1;
    }

    /// Measured requests that failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().map(|failed| failed.count).sum()
    }

    /// Takes another one's measurements in.
    pub(crate) fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        self.completed += other.completed;
        self.warmup_failed += other.warmup_failed;
        self.resent += other.resent;
        self.completed_within += other.completed_within;
        self.events_within += other.events_within;
        for (kind, theirs) in &other.errors {
            let ours =
                self.errors.entry(*kind).or_insert(Failed { count: 0, example: theirs.example.clone() });
            ours.count += theirs.count;
        }
        self.first_byte.add(&other.first_byte);
        self.between.add(&other.between);
        self.end.add(&other.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_three_digits() {
        let mut latency = Latency::default();
        assert_eq!(latency.summary(), None);
        for value in 1..=10_000 {
            latency.record(value);
        }
        let summary = latency.summary().unwrap();
        for (found, exact) in
            [(summary.p50, 5000), (summary.p90, 9000), (summary.p99, 9900), (summary.max, 10_000)]
        {
            assert!(found.abs_diff(exact) * 1000 <= exact, "{found} for {exact}");
        }
        assert_eq!(summary.count, 10_000);
    }

    #[test]
    fn nothing_is_too_short_or_too_long() {
        let mut latency = Latency::default();
        latency.record_many(0, 3);
        latency.record(u64::MAX);
        let summary = latency.summary().unwrap();
        assert_eq!((summary.count, summary.p50), (4, 0));
        assert!(summary.max >= LONGEST_US);
    }

    #[test]
    fn sums_are_those_of_the_parts() {
        let mut sum = Tally::default();
        for value in [10, 30] {
            let mut part = Tally { requests: 2, completed: 1, events_within: value, ..Tally::default() };
            part.fail(Failure::new(Kind::Cut, "this one"));
            part.first_byte.record(value);
            sum.add(&part);
        }
        assert_eq!((sum.requests, sum.completed, sum.failed(), sum.events_within), (4, 2, 2, 40));
        assert_eq!(sum.errors[&Kind::Cut], Failed { count: 2, example: "this one".into() });
        assert_eq!(sum.first_byte.summary().unwrap().max, 30);
    }
}

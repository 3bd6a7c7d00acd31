//! Where more load stops paying.
//!
//! Goodput is what arrives well: events a second (requests a second without streams), less the share of requests that failed.
//! A step is still before the bend when both hold:
//!
//! - its goodput has grown, over the step before, by a tenth at least of what it would have grown in proportion to the load:
//!   after a doubling of the load, by 10 %; after half as much again, by 5 %;
//! - its p99 of the time to the first byte is at most three times the first step's.
//!
//! The knee is the last step before the first one that breaks either rule. It is a rule of thumb that can be recomputed by
//! hand from the table; the first step is taken to be within what the server can do, so begin low.

use serde::Serialize;

use crate::runtime::clock::Micros;

/// The least share of proportional growth.
const GROWTH_SHARE: f64 = 0.1;

/// The most that the p99 of the time to the first byte may have been multiplied by.
const LATENCY_FACTOR: u64 = 3;

/// A step, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// Users, or requests a second.
    pub(crate) load: u32,
    /// What arrived well, a second.
    pub(crate) goodput: f64,
    /// Of the time to the first byte; none if nothing arrived.
    pub(crate) first_byte_p99: Option<Micros>,
}

/// What ended the growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Because {
    /// The next step brought hardly more goodput.
    Goodput,
    /// The next step made the first byte wait more than three times as long as the first step did.
    Latency,
    /// Nothing: it was the last step.
    NotReached,
}

/// The last step that still paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Knee {
    /// Its load.
    pub(crate) load: u32,
    /// What the next step broke.
    pub(crate) because: Because,
}

/// Finds the knee of steps in the order of their load; none if the first one brought nothing.
pub(crate) fn knee(points: &[Point]) -> Option<Knee> {
    let first = points.first().filter(|first| first.goodput > 0.0)?;
    let base = first.first_byte_p99?;
    for pair in points.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        let proportional = f64::from(after.load) / f64::from(before.load) - 1.0;
        let because = if after.goodput / before.goodput - 1.0 < GROWTH_SHARE * proportional {
            Because::Goodput
        } else if after.first_byte_p99.is_none_or(|p99| p99 > base.saturating_mul(LATENCY_FACTOR)) {
            Because::Latency
        } else {
            continue;
        };
        return Some(Knee { load: before.load, because });
    }
    points.last().map(|last| Knee { load: last.load, because: Because::NotReached })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(steps: &[(u32, f64, u64)]) -> Option<Knee> {
        let point = |&(load, goodput, p99): &(u32, f64, u64)| Point {
            load,
            goodput,
            first_byte_p99: (p99 > 0).then_some(p99),
        };
        knee(&steps.iter().map(point).collect::<Vec<_>>())
    }

    #[test]
    fn it_is_where_goodput_stops_growing() {
        let steps = [(50, 1000.0, 10), (100, 1900.0, 12), (200, 2080.0, 14), (400, 2100.0, 16)];
        assert_eq!(of(&steps), Some(Knee { load: 100, because: Because::Goodput }));
        // 10 % more from twice the load is just enough.
        assert_eq!(of(&[(50, 1000.0, 10), (100, 1100.1, 12)]).unwrap().because, Because::NotReached);
        assert_eq!(of(&[(50, 1000.0, 10), (100, 1099.0, 12)]).unwrap().because, Because::Goodput);
    }

    #[test]
    fn it_is_where_the_first_byte_waits_three_times_as_long() {
        let steps = [(50, 1000.0, 10), (100, 2000.0, 30), (200, 4000.0, 31), (400, 8000.0, 10)];
        assert_eq!(of(&steps), Some(Knee { load: 100, because: Because::Latency }));
        assert_eq!(of(&[(1, 1.0, 10), (2, 2.0, 0)]), Some(Knee { load: 1, because: Because::Latency }));
    }

    #[test]
    fn without_a_bend_it_is_the_last_step() {
        let last = Some(Knee { load: 100, because: Because::NotReached });
        assert_eq!(of(&[(50, 1000.0, 10), (100, 2000.0, 10)]), last);
        assert_eq!(of(&[(100, 1000.0, 10)]), last);
    }

    #[test]
    fn where_nothing_arrives_there_is_none() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(50, 0.0, 0), (100, 10.0, 10)]), None);
    }
}

//! How many requests of a route a core may send again. Without a bound, retries multiply the load of an upstream that fails
//! because it is overloaded, and become the outage themselves.
//!
//! A bucket of tokens: each request brings a share of one, each retry or hedge takes a whole one, and it holds
//! [`BURST`] at most. So that a quiet route can fail over, too, a token a second comes by itself. No clock and no core in
//! here: the time comes from the caller.

use crate::runtime::clock::Millis;

/// Retries that may be made at once: the bucket's size, and what it begins with.
pub(crate) const BURST: u32 = 10;

/// Parts of a token that come by themselves each second: one token.
const PARTS_PER_SECOND: u64 = WHOLE as u64;

/// A token in parts: a percent of one is the least that a request can bring.
const WHOLE: u32 = 100;

/// The retries left to a route on a core.
#[derive(Debug)]
pub(crate) struct Budget {
    parts: u32,
    since: Millis,
}

impl Budget {
    /// A full one, at `now`.
    pub(crate) fn new(now: Millis) -> Budget {
        Budget { parts: BURST * WHOLE, since: now }
    }

    /// A request has come, which allows `percent` of a retry.
    pub(crate) fn deposit(&mut self, percent: u32, now: Millis) {
        self.refill(now);
        self.add(percent.into());
    }

    /// Takes a retry, if one is left. With a share of 0 percent none is ever.
    pub(crate) fn withdraw(&mut self, percent: u32, now: Millis) -> bool {
        self.refill(now);
        if percent == 0 || self.parts < WHOLE {
            return false;
        }
        self.parts -= WHOLE;
        true
    }

    fn refill(&mut self, now: Millis) {
        let parts = now.saturating_sub(self.since).saturating_mul(PARTS_PER_SECOND) / 1000;
        if parts > 0 {
            // What is left of the time counts on.
            self.since += parts * 1000 / PARTS_PER_SECOND;
            self.add(parts);
        }
    }

    fn add(&mut self, parts: u64) {
        let full = u64::from(BURST * WHOLE);
        self.parts = u64::from(self.parts).saturating_add(parts).min(full) as u32;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_and_then_a_share() {
        let mut budget = Budget::new(0);
        assert_eq!((0..100).filter(|_| budget.withdraw(20, 0)).count(), BURST as usize);
        for _ in 0..4 {
            budget.deposit(20, 0);
            assert!(!budget.withdraw(20, 0));
        }
        budget.deposit(20, 0);
        assert!(budget.withdraw(20, 0));
        assert!(!budget.withdraw(20, 0));
    }

    #[test]
    fn a_quiet_route_earns_by_the_second() {
        let mut budget = Budget::new(5000);
        while budget.withdraw(1, 5000) {}
        assert!(!budget.withdraw(1, 5990));
        assert!(budget.withdraw(1, 6000));
        assert!(!budget.withdraw(1, 6000));
    }

    #[test]
    fn no_share_is_no_retry() {
        assert!(!Budget::new(0).withdraw(0, 1_000_000));
    }

    proptest! {
        /// Whatever comes when: never more retries than the burst, the share of the requests and one a second.
        #[test]
        fn retries_never_exceed_their_share(steps in proptest::collection::vec((0u64..3000, 0usize..20, 0usize..40), 1..100), percent in 1u32..=100) {
            let (mut budget, mut now, mut asked, mut retried) = (Budget::new(0), 0, 0, 0);
            for (pass, requests, wanted) in steps {
                now += pass;
                for _ in 0..requests {
                    budget.deposit(percent, now);
                    asked += 1;
                }
                retried += (0..wanted).filter(|_| budget.withdraw(percent, now)).count();
                let most = f64::from(BURST) + f64::from(asked) * f64::from(percent) / 100.0 + now as f64 / 1000.0;
                prop_assert!(retried as f64 <= most);
            }
        }
    }
}

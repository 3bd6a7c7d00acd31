//! A rate: so many units in a minute, and as many at once. No clock in here: the time comes from the caller.
//!
//! It is the generic cell rate algorithm, which needs one number: the time at which everything that was let in will have
//! been earned at the rate (the *theoretical arrival time*). What comes moves it on by its cost; it may lie a minute ahead and
//! no further. That number is an atomic that all cores share, and whoever comes changes it in one step, so the rate is kept
//! exactly and not once for each core:
//!
//! - in any `t` minutes, no more than `limit × (1 + t)` units are let in, plus what was given back in them;
//! - what is found to have cost more than was thought is a debt: nothing is let in before it has been earned, for
//!   [`DEBT_MAX_NS`] at most.
//!
//! Costs are rounded down, each by less than a nanosecond: rounded up, the last of a minute's worth would not fit. What that
//! lets in beside is `limit / 60,000,000,000` of a unit for each that comes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Nanoseconds of the monotonic clock.
pub(crate) type Nanos = u64;

/// The time in which the limit is earned, and how far ahead of the rate one may be.
pub(crate) const MINUTE_NS: Nanos = 60_000_000_000;

/// The longest debt. Without a bound, one answer that was guessed far too small could close a door for days.
pub(crate) const DEBT_MAX_NS: Nanos = 60 * MINUTE_NS;

/// How many units come in a minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(u64);

/// How much of a rate is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Units in a minute.
    pub(crate) limit: u64,
    /// Units that could come now.
    pub(crate) remaining: u64,
    /// How long until all could.
    pub(crate) reset: Nanos,
}

impl Rate {
    /// `per_minute` units, one at least.
    pub(crate) fn new(per_minute: u64) -> Rate {
        Rate(per_minute.max(1))
    }

    /// What `units` are taken for: more than ever can come at once are as many as can. They are guessed mostly, and what can
    /// never come in would be refused for a guess.
    pub(crate) fn clamp(self, units: u64) -> u64 {
        units.min(self.0)
    }

    /// The time in which `units` are earned.
    pub(crate) fn cost(self, units: u64) -> Nanos {
        let ns = u128::from(units) * u128::from(MINUTE_NS) / u128::from(self.0);
        ns.try_into().unwrap_or(Nanos::MAX)
    }

    /// Where `units` that come at `now` move the time `at`; or how long they would have to wait.
    fn take(self, at: Nanos, now: Nanos, units: u64) -> Result<Nanos, Nanos> {
        let next = at.max(now).saturating_add(self.cost(units));
        match next.saturating_sub(now) {
            ahead if ahead <= MINUTE_NS => Ok(next),
            ahead => Err(ahead - MINUTE_NS),
        }
    }

    /// Where `at` moves when `taken` units turn out to be `used`.
    fn settle(self, at: Nanos, now: Nanos, taken: u64, used: u64) -> Nanos {
        match used.checked_sub(taken) {
            None => at.saturating_sub(self.cost(taken - used)),
            Some(more) => {
                let owed = at.max(now).saturating_add(self.cost(more));
                // Never earlier than it was: another's debt may have been at the bound already.
                owed.min(now.saturating_add(DEBT_MAX_NS)).max(at)
            }
        }
    }

    fn standing(self, at: Nanos, now: Nanos) -> Standing {
        let ahead = at.saturating_sub(now);
        // A nanosecond more, since what was given back was rounded, too.
        let free = u128::from((MINUTE_NS + 1).saturating_sub(ahead));
        let remaining = (free * u128::from(self.0) / u128::from(MINUTE_NS)).min(u128::from(self.0));
        Standing { limit: self.0, remaining: remaining as u64, reset: ahead }
    }
}

/// What all cores know of one rate: the time by which all that was let in will have been earned.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(AtomicU64);

impl Arrivals {
    /// Lets `units` in at `now`, or says how long they would have to wait.
    pub(crate) fn take(&self, rate: Rate, now: Nanos, units: u64) -> Result<(), Nanos> {
        self.change(|at| rate.take(at, now, units))
    }

    /// How long `units` would have to wait at `now`; nothing is changed.
    pub(crate) fn wait(&self, rate: Rate, now: Nanos, units: u64) -> Option<Nanos> {
        rate.take(self.0.load(Relaxed), now, units).err()
    }

    /// `taken` units were let in, and turn out to be `used`.
    pub(crate) fn settle(&self, rate: Rate, now: Nanos, taken: u64, used: u64) {
        if taken != used {
            let _ = self.change(|at| Ok::<_, ()>(rate.settle(at, now, taken, used)));
        }
    }

    /// How much is used at `now`.
    pub(crate) fn standing(&self, rate: Rate, now: Nanos) -> Standing {
        rate.standing(self.0.load(Relaxed), now)
    }

    /// The number stands for itself and guards no other memory, so no order is asked for.
    fn change<E>(&self, next: impl Fn(Nanos) -> Result<Nanos, E>) -> Result<(), E> {
        let mut at = self.0.load(Relaxed);
        loop {
            match self.0.compare_exchange_weak(at, next(at)?, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(other) => at = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by a bucket that leaks: its level in parts of a unit, exactly.
    struct Bucket {
        level: u128,
        limit: u128,
        since: Nanos,
    }

    impl Bucket {
        fn pass(&mut self, now: Nanos) {
            self.level = self.level.saturating_sub(u128::from(now - self.since) * self.limit);
            self.since = now;
        }

        fn fits(&self, units: u64) -> bool {
            self.level + u128::from(units) * u128::from(MINUTE_NS) <= self.limit * u128::from(MINUTE_NS)
        }

        fn add(&mut self, units: u64) {
            self.level += u128::from(units) * u128::from(MINUTE_NS);
        }

        fn give_back(&mut self, units: u64) {
            self.level = self.level.saturating_sub(u128::from(units) * u128::from(MINUTE_NS));
        }

        fn is_near(&self, units: u64, operations: u128) -> bool {
            let most = self.limit * u128::from(MINUTE_NS);
            (self.level + u128::from(units) * u128::from(MINUTE_NS)).abs_diff(most)
                <= (operations + 1) * self.limit
        }
    }

    #[test]
    fn a_minutes_worth_at_once_and_then_the_rate() {
        let (rate, arrivals, start) = (Rate::new(3), Arrivals::default(), 7 * MINUTE_NS);
        for left in [2, 1, 0] {
            assert_eq!(arrivals.take(rate, start, 1), Ok(()));
            assert_eq!(arrivals.standing(rate, start).remaining, left);
        }
        assert_eq!(arrivals.take(rate, start, 1), Err(20_000_000_000));
        assert_eq!(arrivals.take(rate, start + 19_999_999_999, 1), Err(1));
        assert_eq!(arrivals.take(rate, start + 20_000_000_000, 1), Ok(()));
        assert_eq!(arrivals.standing(rate, start + 20_000_000_000).reset, MINUTE_NS);
    }

    #[test]
    fn what_was_thought_too_much_comes_back_and_what_was_thought_too_little_is_owed() {
        let (rate, arrivals) = (Rate::new(1000), Arrivals::default());
        arrivals.take(rate, MINUTE_NS, 1000).unwrap();
        arrivals.settle(rate, MINUTE_NS, 1000, 100);
        assert_eq!(arrivals.standing(rate, MINUTE_NS).remaining, 900);
        arrivals.settle(rate, MINUTE_NS, 100, 1600);
        assert_eq!(arrivals.standing(rate, MINUTE_NS).remaining, 0);
        assert_eq!(arrivals.wait(rate, MINUTE_NS, 1), Some(36_060_000_000));
        arrivals.settle(rate, MINUTE_NS, 0, 1_000_000_000);
        assert_eq!(arrivals.standing(rate, MINUTE_NS).reset, DEBT_MAX_NS);
    }

    #[test]
    fn cores_share_it_exactly() {
        let (rate, arrivals) = (Rate::new(10_000), Arrivals::default());
        let take = || (0..9000).filter(|_| arrivals.take(rate, MINUTE_NS, 1).is_ok()).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(take));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 10_000);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Take(u64),
        Settle(usize, u64),
    }

    fn step() -> impl Strategy<Value = (Nanos, Step)> {
        let pass = prop_oneof![Just(0), 0..2_000_000_000u64, 0..2 * MINUTE_NS];
        let take = prop_oneof![0..5u64, 0..2000u64].prop_map(Step::Take);
        let settle = (0..8usize, 0..3000u64).prop_map(|(which, used)| Step::Settle(which, used));
        (pass, prop_oneof![3 => take, 1 => settle])
    }

    proptest! {
        #[test]
        fn a_minutes_worth_is_exactly_that(limit in 1..20_000u64, now in 0..MINUTE_NS * 1_000_000) {
            let (rate, arrivals) = (Rate::new(limit), Arrivals::default());
            let taken = (0..limit + 5).take_while(|_| arrivals.take(rate, now, 1).is_ok()).count();
            prop_assert_eq!(taken as u64, limit);
            prop_assert_eq!(arrivals.standing(rate, now).remaining, 0);
        }

        /// Against the bucket: no more and no less but for what is rounded.
        #[test]
        fn it_is_a_bucket_that_leaks(limit in prop_oneof![1..10u64, 1..5000u64, 1..1_000_000_000u64], steps in proptest::collection::vec(step(), 1..120)) {
            let (rate, arrivals, mut now) = (Rate::new(limit), Arrivals::default(), 1);
            let mut bucket = Bucket { level: 0, limit: limit.into(), since: now };
            let (mut taken, mut operations) = (Vec::new(), 0);
            for (pass, step) in steps {
                now += pass;
                bucket.pass(now);
                operations += 1;
                match step {
                    Step::Take(units) => {
                        let units = rate.clamp(units);
                        match arrivals.take(rate, now, units) {
                            Ok(()) => {
                                prop_assert!(bucket.fits(units) || bucket.is_near(units, operations), "let in, and does not fit");
                                bucket.add(units);
                                taken.push(units);
                            }
                            Err(wait) => {
                                prop_assert!(!bucket.fits(units) || bucket.is_near(units, operations), "refused, and fits");
                                prop_assert!(arrivals.wait(rate, now + wait - 1, units).is_some());
                                prop_assert!(arrivals.wait(rate, now + wait, units).is_none());
                            }
                        }
                    }
                    Step::Settle(which, used) if which < taken.len() => {
                        let was = taken.swap_remove(which);
                        // The bucket has no bound on debts.
                        let used = used.min(was + limit);
                        arrivals.settle(rate, now, was, used);
                        if used < was { bucket.give_back(was - used) } else { bucket.add(used - was) }
                    }
                    Step::Settle(..) => {}
                }
                let standing = arrivals.standing(rate, now);
                prop_assert!(standing.remaining <= limit && standing.reset <= DEBT_MAX_NS.max(MINUTE_NS));
            }
        }

        #[test]
        fn no_number_makes_it_panic(limit: u64, at: u64, now: u64, units: u64, used: u64) {
            let rate = Rate::new(limit);
            let _ = rate.take(at, now, units);
            let _ = rate.settle(at, now, units, used);
            let _ = rate.standing(at, now);
        }
    }
}

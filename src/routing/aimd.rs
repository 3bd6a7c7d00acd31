//! How many requests at a time an upstream takes without becoming slow, found out by trying: as long as answers begin in time the
//! limit rises, by one for each of them at first and then by one for each round of them; when one is late or fails it
//! falls by a quarter, once for each round. That is how TCP finds its share of a line (Chiu and Jain, 1989: additive increase,
//! multiplicative decrease), and several edges in front of one upstream find theirs by it.

use crate::config::Concurrency as Rules;
use crate::runtime::clock::Micros;

/// Where the limit begins, if it may.
const FIRST: f64 = 16.0;

/// What is left of it when it was too much.
const LESS: f64 = 0.75;

/// The limit.
#[derive(Debug)]
pub(crate) struct Aimd {
    limit: f64,
    /// It has never been too much.
    rising: bool,
    lowered: Micros,
}

impl Default for Aimd {
    fn default() -> Aimd {
        Aimd { limit: FIRST, rising: true, lowered: 0 }
    }
}

impl Aimd {
    /// Requests that may be on their way at a time.
    pub(crate) fn limit(&self, rules: &Rules) -> u32 {
        self.limit.clamp(rules.min.into(), rules.max.into()) as u32
    }

    /// An answer has begun in time while so many were on their way.
    pub(crate) fn good(&mut self, inside: u32, rules: &Rules) {
        // What is not used up tells nothing about more.
        if inside * 2 >= self.limit(rules) {
            let step = if self.rising { 1.0 } else { 1.0 / self.limit.max(1.0) };
            self.limit = (self.limit + step).clamp(rules.min.into(), rules.max.into());
        }
    }

    /// One was late, or failed.
    pub(crate) fn bad(&mut self, rules: &Rules, now: Micros) {
        self.rising = false;
        // Those that were sent before this would only say the same again.
        if self.lowered == 0 || u128::from(now.saturating_sub(self.lowered)) >= rules.latency.as_micros() {
            self.lowered = now;
            self.limit = (self.limit * LESS).clamp(rules.min.into(), rules.max.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MS: Micros = 1000;

    fn rules(min: u32, max: u32) -> Rules {
        Rules { latency: Duration::from_secs(1), min, max, queue: 0, queue_wait: Duration::ZERO }
    }

    /// An upstream with `places`: what comes beyond them waits for those before it.
    fn settle(places: u32, rounds: u32) -> (u32, u32) {
        let (rules, mut aimd) = (rules(1, 1000), Aimd::default());
        let (mut least, mut most) = (u32::MAX, 0);
        let mut now = MS;
        for round in 0..rounds {
            let inside = aimd.limit(&rules);
            let late = inside > places;
            (0..inside).for_each(|_| if late { aimd.bad(&rules, now) } else { aimd.good(inside, &rules) });
            now += 2000 * MS;
            if round > 30 {
                (least, most) = (least.min(inside), most.max(inside));
            }
        }
        (least, most)
    }

    #[test]
    fn it_finds_what_the_upstream_can_take() {
        for places in [1, 3, 40, 600] {
            let (least, most) = settle(places, 1000);
            assert!(
                most <= places + 1 && f64::from(least) >= (0.7 * f64::from(places)).floor(),
                "{places}: {least} to {most}"
            );
        }
    }

    #[test]
    fn one_round_of_bad_news_counts_once_and_what_is_not_used_does_not_rise() {
        let (rules, mut aimd) = (rules(1, 1000), Aimd::default());
        (0..50).for_each(|_| aimd.bad(&rules, 5000 * MS));
        assert_eq!(aimd.limit(&rules), 12);
        aimd.bad(&rules, 6000 * MS);
        assert_eq!(aimd.limit(&rules), 9);
        (0..1000).for_each(|_| aimd.good(1, &rules));
        assert_eq!(aimd.limit(&rules), 9);
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(steps in proptest::collection::vec((any::<bool>(), 0u32..100, 0u64..3000), 0..300), min in 1u32..20, more in 0u32..50) {
            let (rules, mut aimd, mut now) = (rules(min, min + more), Aimd::default(), 0);
            for (good, inside, pass) in steps {
                now += pass * MS;
                if good { aimd.good(inside, &rules) } else { aimd.bad(&rules, now) }
                prop_assert!((min..=min + more).contains(&aimd.limit(&rules)));
            }
        }
    }
}

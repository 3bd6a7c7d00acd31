//! What a key, a route or an upstream has used of what it may use: requests and tokens by the minute, and requests under way.
//!
//! A [`Meter`] belongs to a name, and outlives the configuration that named it; its [`Quota`] is the configuration's. All
//! cores share it, and each thing it holds is one atomic: a request that is limited costs one exchange for each of its limits,
//! and one that is not costs nothing. What is taken is a [`Taken`], whose seat is given back when it is dropped, whatever the
//! path.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::rate::{Arrivals, Nanos, Rate, Standing};
use crate::config::Quota;

/// How soon to come again for a seat: nobody knows when one will be free.
const SEAT_WAIT_NS: Nanos = 1_000_000_000;

/// Whose limits they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// A client's key.
    Key,
    /// A route.
    Route,
    /// An upstream.
    Upstream,
}

impl Scope {
    /// The word for it in metrics, logs and messages.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Scope::Key => "key",
            Scope::Route => "route",
            Scope::Upstream => "upstream",
        }
    }
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Limit {
    /// Requests in a minute.
    Requests,
    /// Tokens in a minute.
    Tokens,
    /// Requests under way.
    Streams,
    /// Tokens of one answer.
    MaxTokens,
    /// The models that may be asked.
    Models,
}

impl Limit {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Limit; 5] =
        [Limit::Requests, Limit::Tokens, Limit::Streams, Limit::MaxTokens, Limit::Models];

    /// The word for it in metrics and logs.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Limit::Requests => "requests",
            Limit::Tokens => "tokens",
            Limit::Streams => "streams",
            Limit::MaxTokens => "max_tokens",
            Limit::Models => "models",
        }
    }
}

/// What is used, shared by all cores.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    requests: Arrivals,
    tokens: Arrivals,
    streams: AtomicU64,
    /// Tokens that were taken for the requests under way.
    pending: AtomicU64,
    /// Of what was taken for those before, how much was used, in thousandths: the last ones count most.
    used_share: AtomicU64,
    /// How long those took, likewise.
    took: AtomicU64,
    refused: [AtomicU64; Limit::ALL.len()],
}

/// A key, a route or an upstream with limits.
pub(crate) struct Limited {
    /// What it is.
    pub(crate) scope: Scope,
    /// What it is called.
    pub(crate) name: String,
    /// What it may use.
    pub(crate) quota: Quota,
    meter: Arc<Meter>,
}

/// Why it has nothing left.
#[derive(Clone, Debug)]
pub(crate) struct Exhausted {
    /// Who.
    pub(crate) limited: Arc<Limited>,
    /// Of what.
    pub(crate) limit: Limit,
    /// When to come again.
    pub(crate) wait: Nanos,
}

/// What was let in: a request, its tokens, its seat.
pub(crate) struct Taken {
    limited: Arc<Limited>,
    tokens: u64,
    /// Since when.
    since: Nanos,
}

impl Limited {
    /// With what has been used so far.
    pub(crate) fn new(scope: Scope, name: &str, quota: &Quota, meter: Arc<Meter>) -> Arc<Limited> {
        Arc::new(Limited { scope, name: name.to_owned(), quota: quota.clone(), meter })
    }

    /// Lets a request in that will take so many tokens as far as is known, all of it or nothing.
    pub(crate) fn take(self: &Arc<Self>, tokens: u64, now: Nanos) -> Result<Taken, Exhausted> {
        let mut taken = self.enter(now)?;
        match taken.charge(tokens, now) {
            Ok(()) => Ok(taken),
            Err(exhausted) => {
                self.return_request(now);
                Err(exhausted)
            }
        }
    }

    /// Lets a request in whose tokens are charged later, when it is known how many it asks for.
    pub(crate) fn enter(self: &Arc<Self>, now: Nanos) -> Result<Taken, Exhausted> {
        let exhausted = |limit, wait| Exhausted { limited: Arc::clone(self), limit, wait };
        if !self.take_seat() {
            return Err(exhausted(Limit::Streams, SEAT_WAIT_NS));
        }
        let taken = Taken { limited: Arc::clone(self), tokens: 0, since: now };
        if let Some(rate) = self.requests() {
            self.meter.requests.take(rate, now, 1).map_err(|wait| exhausted(Limit::Requests, wait))?;
        }
        Ok(taken)
    }

    /// What would keep such a request out now; nothing is taken.
    pub(crate) fn exhausted(self: &Arc<Self>, tokens: u64, now: Nanos) -> Option<Exhausted> {
        let exhausted = |limit, wait| Exhausted { limited: Arc::clone(self), limit, wait };
        if self.quota.streams.is_some_and(|most| self.meter.streams.load(Relaxed) >= most) {
            return Some(exhausted(Limit::Streams, SEAT_WAIT_NS));
        }
        let requests = self.requests().and_then(|rate| self.meter.requests.wait(rate, now, 1));
        let tokens = || {
            let rate = self.tokens()?;
            let wait = self.meter.tokens.wait(rate, now, rate.clamp(tokens))?;
            Some(self.expected_wait(rate, wait))
        };
        let requests = requests.map(|wait| exhausted(Limit::Requests, wait));
        requests.or_else(|| tokens().map(|wait| exhausted(Limit::Tokens, wait)))
    }

    /// Requests in a minute.
    pub(crate) fn requests_standing(&self, now: Nanos) -> Option<Standing> {
        self.requests().map(|rate| self.meter.requests.standing(rate, now))
    }

    /// Tokens in a minute.
    pub(crate) fn tokens_standing(&self, now: Nanos) -> Option<Standing> {
        self.tokens().map(|rate| self.meter.tokens.standing(rate, now))
    }

    /// Requests under way.
    pub(crate) fn streams_standing(&self) -> Option<Standing> {
        let limit = self.quota.streams?;
        let remaining = limit.saturating_sub(self.meter.streams.load(Relaxed));
        Some(Standing { limit, remaining, reset: if remaining == 0 { SEAT_WAIT_NS } else { 0 } })
    }

    /// Counts a request that was refused for it.
    pub(crate) fn count_refused(&self, limit: Limit) {
        self.meter.refused[limit as usize].fetch_add(1, Relaxed);
    }

    /// The requests refused for `limit`.
    pub(crate) fn refused(&self, limit: Limit) -> u64 {
        self.meter.refused[limit as usize].load(Relaxed)
    }

    /// Whether both count the same.
    #[cfg(test)]
    pub(crate) fn shares_meter(&self, meter: &Arc<Meter>) -> bool {
        Arc::ptr_eq(&self.meter, meter)
    }

    /// What it has used.
    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    fn requests(&self) -> Option<Rate> {
        self.quota.requests_per_minute.map(Rate::new)
    }

    fn tokens(&self) -> Option<Rate> {
        self.quota.tokens_per_minute.map(Rate::new)
    }

    /// A seat is taken even where there is no limit: a reload may bring one.
    fn take_seat(&self) -> bool {
        let most = self.quota.streams.unwrap_or(u64::MAX);
        let one_more = |taken| if taken < most { Some(taken + 1) } else { None };
        self.meter.streams.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }

    /// When there is likely to be room, if that takes `wait` at most. What the requests under way will not have used comes back when
    /// they end, which is nearly all of it mostly: what they were taken for is the most that they may use.
    fn expected_wait(&self, rate: Rate, wait: Nanos) -> Nanos {
        let pending = self.meter.pending.load(Relaxed);
        let unused = pending - pending / 1000 * self.meter.used_share.load(Relaxed).min(1000);
        let until_then = self.meter.took.load(Relaxed).max(SEAT_WAIT_NS);
        match rate.cost(unused) {
            0 => wait,
            back => wait.saturating_sub(back).max(until_then).min(wait),
        }
    }

    fn return_request(&self, now: Nanos) {
        if let Some(rate) = self.requests() {
            self.meter.requests.settle(rate, now, 1, 0);
        }
    }
}

impl fmt::Debug for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limited({} {})", self.scope.label(), self.name)
    }
}

impl Taken {
    /// Whose it is.
    pub(crate) fn limited(&self) -> &Arc<Limited> {
        &self.limited
    }

    /// It takes so many tokens, as far as is known.
    pub(crate) fn charge(&mut self, tokens: u64, now: Nanos) -> Result<(), Exhausted> {
        let Some(rate) = self.limited.tokens() else { return Ok(()) };
        let tokens = rate.clamp(tokens);
        let limited = &self.limited;
        limited.meter.tokens.take(rate, now, tokens).map_err(|wait| Exhausted {
            limited: Arc::clone(limited),
            limit: Limit::Tokens,
            wait: limited.expected_wait(rate, wait),
        })?;
        limited.meter.pending.fetch_add(tokens, Relaxed);
        self.tokens = tokens;
        Ok(())
    }

    /// It has used so many tokens, and is over.
    pub(crate) fn settle(self, used: u64, now: Nanos) {
        let meter = &self.limited.meter;
        if let Some(share) = used.min(self.tokens).saturating_mul(1000).checked_div(self.tokens) {
            // Two at once may lose one of both: these are estimates.
            let learn =
                |average: &AtomicU64, new| average.store((7 * average.load(Relaxed) + new) / 8, Relaxed);
            learn(&meter.used_share, share);
            learn(&meter.took, now.saturating_sub(self.since));
        }
        self.give_back(used, now);
    }

    fn give_back(&self, used: u64, now: Nanos) {
        if let Some(rate) = self.limited.tokens() {
            self.limited.meter.tokens.settle(rate, now, self.tokens, used);
        }
    }

    /// It was not let in after all: nothing of it counts.
    pub(crate) fn undo(self, now: Nanos) {
        self.limited.return_request(now);
        self.give_back(0, now);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.limited.meter.streams.fetch_sub(1, Relaxed);
        if self.tokens > 0 {
            self.limited.meter.pending.fetch_sub(self.tokens, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::rate::MINUTE_NS;

    const NOW: Nanos = MINUTE_NS;

    fn limited(quota: &Quota) -> Arc<Limited> {
        Limited::new(Scope::Key, "team", quota, Arc::default())
    }

    #[test]
    fn a_seat_is_free_again_on_every_path() {
        let limited = limited(&Quota { streams: Some(2), ..Quota::default() });
        let first = limited.take(0, NOW).unwrap();
        let second = limited.take(0, NOW).unwrap();
        let third = limited.take(0, NOW).err().unwrap();
        assert_eq!((third.limit, third.wait), (Limit::Streams, SEAT_WAIT_NS));
        assert!(limited.exhausted(0, NOW).is_some());
        drop(first);
        let first = limited.take(0, NOW).unwrap();
        first.settle(3, NOW);
        second.undo(NOW);
        assert_eq!(limited.streams_standing().unwrap().remaining, 2);
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let quota = Quota {
            requests_per_minute: Some(2),
            tokens_per_minute: Some(100),
            streams: Some(9),
            ..Quota::default()
        };
        let limited = limited(&quota);
        let first = limited.take(90, NOW).unwrap();
        let refused = limited.take(20, NOW).err().unwrap();
        assert_eq!((refused.limit, refused.wait), (Limit::Tokens, 1_000_000_000));
        assert_eq!(limited.requests_standing(NOW).unwrap().remaining, 1);
        assert_eq!(limited.streams_standing().unwrap().remaining, 8);
        first.undo(NOW);
        assert_eq!(limited.requests_standing(NOW).unwrap().remaining, 2);
        assert_eq!(limited.tokens_standing(NOW).unwrap().remaining, 100);
    }

    /// Three images filled a minute's worth as long as they were under way, and a fourth request was told to come in 60 s though
    /// all of it was there again in one.
    #[test]
    fn who_has_to_wait_for_requests_under_way_is_told_so() {
        let limited = limited(&Quota { tokens_per_minute: Some(1000), ..Quota::default() });
        let first = limited.take(1000, NOW).unwrap();
        assert_eq!(limited.take(500, NOW).err().unwrap().wait, 1_000_000_000);
        assert_eq!(limited.exhausted(500, NOW).unwrap().wait, 1_000_000_000);
        first.settle(1000, NOW);
        // Nothing is under way: what is used is used.
        assert_eq!(limited.exhausted(500, NOW).unwrap().wait, 30_000_000_000);
        let mut now = NOW + MINUTE_NS;
        for _ in 0..40 {
            limited.take(1000, now).unwrap().settle(1000, now);
            now += MINUTE_NS;
        }
        // They use what they are taken for, so nothing is likely to come back.
        let _under_way = limited.take(1000, now).unwrap();
        let wait = limited.exhausted(500, now).unwrap().wait;
        assert!((28_000_000_000..=30_000_000_000).contains(&wait), "{wait}");
    }

    #[test]
    fn a_request_that_is_larger_than_the_limit_takes_all_of_it() {
        let limited = limited(&Quota { tokens_per_minute: Some(100), ..Quota::default() });
        let first = limited.take(5000, NOW).unwrap();
        assert_eq!(limited.tokens_standing(NOW).unwrap().remaining, 0);
        first.settle(150, NOW);
        assert_eq!(limited.exhausted(100, NOW).unwrap().wait, 90_000_000_000);
    }

    #[test]
    fn a_new_quota_goes_on_with_what_was_used() {
        let old = limited(&Quota { requests_per_minute: Some(1), ..Quota::default() });
        let under_way = old.take(0, NOW).unwrap();
        let quota = Quota { requests_per_minute: Some(1), streams: Some(1), ..Quota::default() };
        let new = Limited::new(Scope::Key, "team", &quota, Arc::clone(old.meter()));
        assert_eq!(new.exhausted(0, NOW).unwrap().limit, Limit::Streams);
        drop(under_way);
        assert_eq!(new.exhausted(0, NOW).unwrap().limit, Limit::Requests);
    }
}

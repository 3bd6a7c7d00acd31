//! Who is asked: of a route's upstreams the one that its `balance` names, among those that may be asked now.
//!
//! An upstream that has a limit and no place left is passed over, too; where that leaves nobody, it can be waited for.
//!
//! An upstream may be asked if it has weight, has not been tried for this request, has something left of its limits, and its
//! breaker lets a call through. Of several priorities only the first in which there is any is looked at.
//!
//! | `balance` | of those |
//! | --- | --- |
//! | `p2c` | two are drawn by weight, and the one is taken that is likely to begin sooner: the average time to the first content of its streams (for a request without a stream, to the head of its other responses), times the requests that it would have in flight, divided by its weight |
//! | `weighted` | one is drawn by weight |
//! | `first` | the first, as they are written |
//! | `sticky` | the one with the highest score for the key ([`affinity`]) |
//!
//! With `p2c` one of whom nothing is known is asked before all others, but once: until its first answer, a request in flight there
//! counts as if it took for ever. Latency and requests in flight are those of this core, so that choosing touches no other's
//! memory; the cores' choices add up as those of several edges do.
//!
//! The breaker of an upstream of whose rules the configuration does not speak holds only where a route has somewhere else to go:
//! asking the one upstream there is beats refusing.

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;

use std::sync::Arc;

use super::affinity;
use super::breaker::Permit;
use super::call::Call;
use super::concurrency_limiter::Place;
use crate::config::{Balance, Member, Route};
use crate::runtime::clock::{Micros, Millis};
use crate::upstream::target::Target;

/// What a request in flight counts where no answer has ever been seen, in microseconds: more than any answer takes.
const UNKNOWN_US: f64 = 1e12;

/// What a choice depends on.
pub(crate) struct Asked<'a> {
    /// The route.
    pub(crate) route: &'a Route,
    /// The upstreams, by their index.
    pub(crate) targets: &'a [Arc<Target>],
    /// The core that asks.
    pub(crate) core: usize,
    /// Who asks, or for what, as a number: with `sticky`, equal ones go to the same upstream.
    pub(crate) key: u64,
    /// The request is for a stream.
    pub(crate) streamed: bool,
    /// Now.
    pub(crate) now: Micros,
}

/// Who is asked.
pub(crate) struct Pick {
    /// Its index.
    pub(crate) index: usize,
    /// The call that this begins.
    pub(crate) call: Call,
}

/// Nobody can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Out {
    /// When one of those that are out may be asked again, in milliseconds from now; none if it is not because they are out.
    pub(crate) retry_after: Option<Millis>,
    /// One that has no place left: it can be waited for.
    pub(crate) full: Option<usize>,
}

/// Why one cannot be asked.
enum Refused {
    /// Its breaker is open for so long.
    Left(Millis),
    /// It has no place left.
    Full,
}

impl Asked<'_> {
    /// Chooses one that is not among `tried` and of whom `may` says that it has something left. `chance` gives numbers.
    pub(crate) fn pick(
        &self,
        tried: &[usize],
        may: impl Fn(usize) -> bool,
        mut chance: impl FnMut() -> u64,
    ) -> Result<Pick, Out> {
        let mut refused: Vec<usize> = Vec::new();
        let mut soonest = None;
        let fresh = |member: &Member| {
            member.weight > 0
                && !tried.contains(&member.index)
                && may(member.index)
                && self.left(member.index) == 0
        };
        loop {
            let open = |member: &&Member| {
                fresh(member) && !refused.contains(&member.index) && !self.is_full(member.index)
            };
            let Some(member) = self.choose(&open, &mut chance) else { break };
            match self.begin(member.index) {
                Ok(call) => return Ok(Pick { index: member.index, call }),
                // Between the look and the question another core has taken the last place, or it is half-open.
                Err(why) => {
                    refused.push(member.index);
                    if let Refused::Left(left) = why {
                        soonest = soonest.into_iter().chain([left]).min();
                    }
                }
            }
        }
        let full =
            self.choose(&|member: &&Member| fresh(member) && self.is_limited(member.index), &mut chance);
        if let Some(Member { index, .. }) = full {
            return Err(Out { retry_after: Some(self.come_again(index)), full: Some(index) });
        }
        let closed = self.route.upstreams.iter().filter(|member| member.weight > 0 && may(member.index));
        let left = closed.map(|member| self.left(member.index)).filter(|left| *left > 0);
        Err(Out { retry_after: left.chain(soonest).min(), full: None })
    }

    /// Chooses one of `tried` once more, the one whose trial is the longest ago.
    pub(crate) fn again(&self, tried: &[usize], may: impl Fn(usize) -> bool) -> Result<Pick, Out> {
        let last_trials = tried.iter().enumerate().filter(|(at, index)| !tried[at + 1..].contains(index));
        let mut retry_after = None;
        for (_, &index) in last_trials.filter(|(_, index)| may(**index)) {
            match self.begin(index) {
                Ok(call) => return Ok(Pick { index, call }),
                Err(Refused::Left(left)) => {
                    retry_after = retry_after.into_iter().chain([left]).min();
                }
                Err(Refused::Full) => {
                    return Err(Out { retry_after: Some(self.come_again(index)), full: Some(index) });
                }
            }
        }
        Err(Out { retry_after, full: None })
    }

    /// Takes the place that has been waited for at the upstream at `index`.
    pub(crate) fn enter(&self, index: usize, place: Place) -> Result<Pick, Out> {
        let target = &self.targets[index];
        let out = |retry_after| Out { retry_after: Some(retry_after), full: None };
        // A permit that is not used would be lost, a place is given back by itself: the place is looked at first.
        if !place.is_granted() {
            return Err(out(self.come_again(index)));
        }
        let permit = self.permit(target).map_err(out)?;
        place.take();
        Ok(Pick { index, call: Call::begin(target, permit, self) })
    }

    /// How long from now all of them want to be left alone; none if nobody asks their breakers.
    pub(crate) fn soonest(&self) -> Option<Millis> {
        let members = self.route.upstreams.iter().filter(|member| member.weight > 0);
        let gated = members.filter(|member| self.is_gated(&self.targets[member.index]).is_some());
        gated.map(|member| self.left(member.index)).min()
    }

    fn begin(&self, index: usize) -> Result<Call, Refused> {
        let target = &self.targets[index];
        if target.concurrency.as_ref().is_some_and(|rules| !target.health.turnstile.enter(rules)) {
            return Err(Refused::Full);
        }
        match self.permit(target) {
            Ok(permit) => Ok(Call::begin(target, permit, self)),
            Err(left) => {
                if let Some(rules) = &target.concurrency {
                    target.health.turnstile.leave(rules);
                }
                Err(Refused::Left(left))
            }
        }
    }

    fn permit(&self, target: &Target) -> Result<Option<Permit>, Millis> {
        let rules = self.is_gated(target);
        rules.map(|rules| target.health.admit(rules, self.now / 1000)).transpose()
    }

    fn is_limited(&self, index: usize) -> bool {
        self.targets[index].concurrency.is_some()
    }

    /// Whether the upstream at `index` has a limit, and had no place left at the last look.
    fn is_full(&self, index: usize) -> bool {
        self.is_limited(index) && self.targets[index].health.turnstile.is_full()
    }

    /// When a place there is likely, in milliseconds from now.
    fn come_again(&self, index: usize) -> Millis {
        let target = &self.targets[index];
        target.concurrency.as_ref().map_or(1000, |rules| target.health.turnstile.come_again(rules))
    }

    /// For how long the upstream at `index` is certain not to let anyone through.
    fn left(&self, index: usize) -> Millis {
        let target = &self.targets[index];
        self.is_gated(target).map_or(0, |_| target.health.left(self.now / 1000))
    }

    /// The rules by which `target` may refuse this route's requests.
    fn is_gated<'a>(&self, target: &'a Target) -> Option<&'a crate::config::Breaker> {
        target.breaker.as_ref().filter(|_| target.strict || self.route.has_elsewhere())
    }

    fn choose(&self, open: &impl Fn(&&Member) -> bool, chance: &mut impl FnMut() -> u64) -> Option<Member> {
        let members = &self.route.upstreams[..];
        let first = members.iter().find(open)?;
        let tier = || members.iter().filter(|member| member.priority == first.priority).filter(open);
        if members.len() == 1 {
            return Some(*first);
        }
        match &self.route.balance {
            Balance::First => Some(*first),
            Balance::Weighted => draw(tier(), chance),
            Balance::Sticky(_) => {
                let score = |member: &Member| {
                    affinity::score(self.key, self.targets[member.index].identity, member.weight)
                };
                tier().max_by(|one, other| score(one).total_cmp(&score(other))).copied()
            }
            Balance::P2c => {
                let one = draw(tier(), chance)?;
                let others = tier().filter(|member| member.index != one.index);
                let Some(other) = draw(others, chance) else { return Some(one) };
                Some(if self.cost(other) < self.cost(one) { other } else { one })
            }
        }
    }

    /// How long a request more is likely to take there, as far as costs can be compared.
    fn cost(&self, member: Member) -> f64 {
        let view = self.targets[member.index].health.view(self.core);
        let in_flight = view.in_flight.get() as f64;
        let cost = match view.latency(self.streamed).read(self.now) {
            Some(latency) => latency * (in_flight + 1.0),
            None => UNKNOWN_US * in_flight,
        };
        cost / f64::from(member.weight)
    }
}

/// One of them by chance, by weight.
fn draw<'a>(
    members: impl Iterator<Item = &'a Member> + Clone,
    chance: &mut impl FnMut() -> u64,
) -> Option<Member> {
    let total: u64 = members.clone().map(|member| u64::from(member.weight)).sum();
    let mut at = if total == 0 { return None } else { chance() % total };
    for member in members {
        match at.checked_sub(member.weight.into()) {
            Some(rest) => at = rest,
            None => return Some(*member),
        }
    }
    None
}

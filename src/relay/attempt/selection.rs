//! Who of a route's upstreams is asked for a request, and what that one's health learns from it.
//!
//! | what came of it | what is learnt |
//! | --- | --- |
//! | a head below 400, and first content where the route waits for it | the call is good as far as it got; a stream has begun with its first content ([`crate::relay::pump::beginning`]), anything else with its head; how it ends is told by the request's outcome |
//! | 429; 503 or 529 with `Retry-After` | it has too much to do |
//! | any other status from 500 on, but 501; an error in place of a response, whatever its status | it failed |
//! | any other 4xx | the request is to blame |
//! | no connection, a break, silence, no HTTP | it failed, unless it was this process that had no descriptor left |
//! | the client left; its time was over; a hedge was faster | nothing |

use std::task::Poll;

use super::retry::{self, Why};
use crate::config::{Balance, Route};
use crate::relay::exchange::Exchange;
use crate::routing::affinity;
use crate::routing::balancer::{Asked, Out, Pick};
use crate::routing::call::{Call, Verdict};
use crate::routing::concurrency_limiter::Place;
use crate::runtime::clock::Millis;
use crate::telemetry::Outcome;
use crate::upstream::client::{Answered, Stop, guarded};

impl Exchange<'_> {
    /// Chooses one that has not been tried.
    pub(crate) fn choose(&self, route: &Route, tried: &[usize]) -> Result<Pick, Out> {
        self.asked(route).pick(tried, |index| self.may_ask(index), || self.core.chance())
    }

    /// Likewise, or else one of those that have.
    pub(crate) fn choose_again(&self, route: &Route, tried: &[usize]) -> Result<Pick, Out> {
        self.choose(route, tried).or_else(|_| self.asked(route).again(tried, |index| self.may_ask(index)))
    }

    /// How long all of them want to be left alone, if that is known.
    pub(crate) fn soonest(&self, route: &Route) -> Option<Millis> {
        self.asked(route).soonest()
    }

    /// Waits for a place at the upstream at `index`, which has none left.
    pub(crate) async fn wait_turn(
        &self,
        route: &Route,
        index: usize,
        out: Out,
    ) -> Result<Result<Pick, Out>, Stop> {
        let target = &self.settings.targets[index];
        let (Some(rules), Some(mut place)) = (&target.concurrency, Place::wait(target, self.key(None)))
        else {
            return Ok(Err(out));
        };
        self.client.deadlines.no_phase();
        let mut pause = Box::pin(self.core.shard.pause(rules.queue_wait.as_millis() as Millis));
        let turn = guarded(self.client, |cx| match place.poll(cx) {
            Poll::Ready(granted) => Poll::Ready(Some(granted)),
            Poll::Pending => pause.as_mut().poll(cx).map(|()| None),
        });
        match turn.await? {
            Some(true) => Ok(self.asked(route).enter(index, place)),
            Some(false) => Ok(Err(out)),
            None => {
                place.give_up();
                Ok(Err(out))
            }
        }
    }

    fn asked<'a>(&'a self, route: &'a Route) -> Asked<'a> {
        let key = match &route.balance {
            Balance::Sticky(field) => self.key(field.as_deref()),
            _ => 0,
        };
        let shard = &self.core.shard;
        Asked {
            route,
            targets: &self.settings.targets,
            core: shard.index,
            key,
            streamed: self.ledger.stream,
            now: shard.clock.micros(),
        }
    }

    /// What a request goes by: the value of `field`, or else who the client is.
    fn key(&self, field: Option<&str>) -> u64 {
        let request = &*self.request;
        let value = field.and_then(|name| request.affinity_value(name));
        let credentials = || {
            let (authorization, api_key) = request.credentials();
            authorization.or(api_key)
        };
        value.or_else(credentials).map_or(request.who, affinity::hash)
    }

    /// What an attempt has come to is learnt.
    pub(crate) fn judge(&self, call: &mut Call, answered: Result<&Answered, &Stop>) {
        let (now, chance) = (self.core.shard.clock.micros(), self.core.chance());
        match verdict(answered) {
            Some(verdict) => call.end(verdict, now, chance),
            // When it has begun is known when it is known whether it is a stream.
            None => call.head(),
        }
    }

    /// It has not answered, and is not waited for any more.
    pub(crate) fn give_up(&self, call: &mut Call) {
        call.end(Verdict::Abandoned, self.core.shard.clock.micros(), self.core.chance());
    }

    /// Its answer has ended so.
    pub(crate) fn conclude(&self, call: &mut Call, outcome: Outcome) {
        let verdict = match outcome {
            Outcome::Finished => Verdict::Ok,
            Outcome::UpstreamCut | Outcome::UpstreamError | Outcome::TimeoutIdle => Verdict::Failed,
            _ => Verdict::Abandoned,
        };
        call.end(verdict, self.core.shard.clock.micros(), self.core.chance());
    }
}

/// What is to be learnt from the beginning of an answer, or from none; nothing yet from a good one.
pub(crate) fn verdict(answered: Result<&Answered, &Stop>) -> Option<Verdict> {
    let answered = match answered {
        Ok(answered) => answered,
        Err(Stop::Dial(error)) if error.is_ours() => return Some(Verdict::Abandoned),
        Err(stop) => {
            return Some(match Why::of(stop) {
                Some((Why::Connect | Why::ConnectTimeout, _)) => Verdict::ConnectFailed,
                Some(_) => Verdict::Failed,
                None => Verdict::Abandoned,
            });
        }
    };
    match answered.status() {
        _ if answered.failed => Some(Verdict::Failed),
        status @ (429 | 503 | 529) => match retry_after(answered) {
            None if status != 429 => Some(Verdict::Failed),
            retry_after => Some(Verdict::Overloaded { retry_after }),
        },
        501 | 400..500 => Some(Verdict::ClientFault),
        500.. => Some(Verdict::Failed),
        _ => None,
    }
}

/// Why an attempt was not the last, as far as its answer or the lack of one tells.
pub(crate) fn why(answered: Result<&Answered, &Stop>) -> Option<Why> {
    match answered {
        Ok(answered) if answered.failed => Some(Why::Error),
        Ok(answered) => Some(Why::Status(answered.status())),
        Err(stop) => Why::of(stop).map(|(why, _)| why),
    }
}

/// How long an answer asks to be left alone for.
pub(crate) fn retry_after(answered: &Answered) -> Option<Millis> {
    let head = answered.head();
    retry::retry_after(head.field("retry-after-ms"), head.field("retry-after"))
}

//! One upstream after the other, until there is the head of an answer for the client or nobody left to ask.
//!
//! ```text
//!            ┌──────────────── another: rewind the body, wait if need be ◄───────────────┐
//!            ▼                                                                          │ yes
//!  choose ► connect ► send ► head ──── a status that is passed on ──► the answer        │
//!              │        │      │                                                        │
//!              └────────┴──────┴─ it failed, or answered a status of `on` ──► may it be sent again?
//!                                                                                       │ no
//!                                                             what there is: that answer, or the error
//! ```
//!
//! Nothing of an attempt has reached the client when it is followed by another; at most the head of a stream that was begun
//! early, which belongs to no upstream. Who is asked is [`pick`](super::selection)'s word, and who cannot be is not
//! tried. An attempt that failed is dropped, and its connection with it, before the next begins.
//! Whether it is sent again is [`retry`]'s decision; what it costs is taken from the route's [`budget`](super::retry_budget).

use std::rc::Rc;

use super::fallback::Name;
use super::retry::{self, Why};
use super::selection::retry_after;
use crate::config::Route;
use crate::downstream::deadlines::Timeout;
use crate::proto::http1::request::RequestBody;
use crate::proto::openai::ApiError;
use crate::relay::exchange::Exchange;
use crate::relay::finish::error_response::Failure;
use crate::relay::pump::recorder::Tee;
use crate::relay::request::replay_buffer::LetGo;
use crate::relay::settings::Settings;
use crate::routing::balancer::{Out, Pick};
use crate::routing::call::Call;
use crate::runtime::block::BLOCK_BYTES;
use crate::runtime::clock::Millis;
use crate::runtime::net::stream::Stream;
use crate::telemetry::{Degraded, LabelId};
use crate::upstream::client::{Answered, Stop, guarded};

/// An attempt that failed.
pub(crate) struct Failed {
    pub(crate) why: Why,
    /// The upstream may have acted upon the request.
    pub(crate) acted_upon: bool,
    /// How long it wants to be left alone.
    retry_after: Option<Millis>,
}

impl Exchange<'_> {
    /// Asks until there is an answer to pass on: first the upstreams of the route at `index`, by the name that it has for the
    /// model, if it has one. Says whose the answer is.
    pub(crate) async fn attempt(
        &mut self,
        mut index: usize,
        rewrite: Option<String>,
        settings: &Settings,
        kept: Option<&Tee>,
    ) -> Result<(usize, Call, Stream, Answered), Failure> {
        let core = Rc::clone(self.core);
        let asked = &settings.config.routes[index];
        core.budget(self.ledger.route, |budget, now| budget.deposit(asked.retry.budget, now));
        let mut name = Name::of(self.upload.peek());
        name.change(rewrite, self.request, &mut self.upload, &core.shard);
        let first = index;
        let mut routes = Vec::new();
        loop {
            let route = &settings.config.routes[index];
            let came = match self.ask_route(route, settings, kept).await? {
                Came::Answer(call, stream, answered) => return Ok((index, call, stream, answered)),
                came => came,
            };
            let failed = came.failed();
            // Only now: nearly every request has been answered by the first.
            if routes.is_empty() {
                routes.push(first);
            }
            if let Some((next, rename)) = self.fallback(route, failed, &routes, &name, settings) {
                self.request.degraded = Some(Degraded::Fallback);
                self.note(&came, settings.route_labels[index]);
                if let Came::Failed { head, body, .. } = came {
                    self.upload.rewind(&head[body..], &core.shard);
                }
                name.change(Some(rename), self.request, &mut self.upload, &core.shard);
                self.enter_route(next)?;
                self.serve_by(next, &settings.config.routes[next])?;
                routes.push(next);
                index = next;
                continue;
            }
            if route.fallback.is_some() {
                self.note_let_go();
            }
            if let Some(body) = self.fixed(asked) {
                self.note(&came, settings.route_labels[index]);
                return Err(Failure::Degraded(body));
            }
            return match came {
                Came::Answer(call, stream, answered) => Ok((index, call, stream, answered)),
                Came::Failed { result, call, .. } => {
                    result.map(|(stream, answered)| (index, call, stream, answered)).map_err(Failure::from)
                }
                Came::Nobody(Out { retry_after, full }) => {
                    let error =
                        if full.is_some() { ApiError::upstreams_full } else { ApiError::upstreams_out };
                    Err(error(&route.name, retry_after.unwrap_or_default()).into())
                }
            };
        }
    }

    /// Asks the upstreams of `route`.
    async fn ask_route(
        &mut self,
        route: &Route,
        settings: &Settings,
        kept: Option<&Tee>,
    ) -> Result<Came, Failure> {
        let core = Rc::clone(self.core);
        let (mut tried, mut waits) = (Vec::new(), 0);
        let mut picked = self.choose(route, &tried);
        loop {
            if let Err(out @ Out { full: Some(index), .. }) = picked {
                // Boxed: it is rare, and would be part of every request until then.
                picked = Box::pin(self.wait_turn(route, index, out)).await?;
            }
            let Pick { index, mut call } = match picked {
                Ok(pick) => pick,
                Err(Out { retry_after: None, .. }) => return Err(self.exhausted(route)),
                Err(out) => return Ok(Came::Nobody(out)),
            };
            self.enter_upstream(index, route)?;
            self.ledger.upstream = call.target().label;
            let framing = self.upload.framing(&self.request.body);
            let others = tried.len() as u32 + 1 < self.attempts_max(route)
                || route.fallback.is_some()
                || route.hedge.is_some();
            if others {
                self.keep_body(route, settings);
            }
            let left = self.left(&route.timeouts).ok_or(Stop::Timeout(Timeout::Total))?;
            let mut head = self.request.write(call.target(), &framing, left);
            let body = head.len();
            self.upload.join(&mut head, BLOCK_BYTES);
            tried.push(index);
            let result = self.send(&mut call, (&head, body), &mut tried, route, kept).await;
            self.judge(&mut call, result.as_ref().map(|(_, answered)| answered));
            let Some(failed) = failed(&result, route) else {
                self.leave_others(call.target());
                let (stream, answered) = result?;
                return Ok(Came::Answer(call, stream, answered));
            };
            self.leave_upstreams();
            let Some(next) = self.another(route, &failed, &tried, waits) else {
                return Ok(Came::Failed { result, call, failed, head, body });
            };
            drop((result, call));
            core.metrics.retried(failed.why.reason());
            self.ledger.failed(failed.why, &core);
            self.upload.rewind(&head[body..], &core.shard);
            picked = match next {
                Next::Now(pick) => Ok(pick),
                Next::After(wait) => {
                    waits += 1;
                    self.client.deadlines.no_phase();
                    let mut pause = Box::pin(core.shard.pause(wait));
                    guarded(self.client, |cx| pause.as_mut().poll(cx)).await?;
                    self.choose_again(route, &tried)
                }
            };
        }
    }

    /// What came of it is not passed on, but noted.
    fn note(&mut self, came: &Came, route: LabelId) {
        match came {
            Came::Failed { failed, .. } => self.ledger.failed(failed.why, self.core),
            Came::Nobody(Out { full: Some(_), .. }) => self.ledger.failed_by(route, "full", self.core),
            _ => self.ledger.failed_by(route, "out", self.core),
        }
    }

    /// Keeps the body as it is sent, so that it can be sent again, if it is not too large and there is room.
    pub(crate) fn keep_body(&mut self, route: &Route, settings: &Settings) {
        let length = match self.request.body {
            RequestBody::Length(length) => Some(length),
            RequestBody::None | RequestBody::Chunked => None,
        };
        let (core, who) = (self.core, self.request.who);
        match core.has_room(settings) {
            true => self.upload.keep(route.retry.max_body, length, || core.share(who, settings)),
            false => self.upload.keep_nothing(),
        }
    }

    /// The request would be sent again, were its body still here.
    pub(crate) fn note_let_go(&mut self) {
        if self.ledger.let_go.is_none()
            && let Some(why) = self.upload.let_go()
        {
            self.ledger.let_go = Some(why);
            match why {
                LetGo::TooLarge => self.core.metrics.retries_body_too_large.inc(),
                LetGo::NoRoom => self.core.metrics.retries_no_memory.inc(),
            }
        }
    }

    /// How often this request may be sent: once where there is nobody else.
    fn attempts_max(&self, route: &Route) -> u32 {
        let several = route.retry.same || route.upstreams.len() > 1;
        if several { route.retry.attempts } else { 1 }
    }

    /// Whether a request that failed so may be sent to anyone else.
    pub(crate) fn may_follow(&self, route: &Route, failed: &Failed) -> bool {
        retry::may_follow(&route.retry, failed.why, failed.acted_upon, self.request.repeatable)
    }

    /// Who is asked after an attempt that failed, and after how long.
    fn another(&mut self, route: &Route, failed: &Failed, tried: &[usize], waits: u32) -> Option<Next> {
        let (core, policy) = (self.core, &route.retry);
        if self.left || tried.len() as u32 >= self.attempts_max(route) || !self.may_follow(route, failed) {
            return None;
        }
        if !self.upload.can_rewind() {
            self.note_let_go();
            return None;
        }
        let (next, wait) = match self.choose(route, tried) {
            Ok(pick) => (Next::Now(pick), 0),
            Err(_) if !policy.same => return None,
            Err(_) => {
                let asked = self.soonest(route).or(failed.retry_after);
                let wait = retry::wait(policy, waits, core.chance(), asked)?;
                (Next::After(wait), wait)
            }
        };
        if !retry::fits(self.client.deadlines.until(), core.shard.clock.millis(), wait) {
            core.metrics.retries_too_late.inc();
            return None;
        }
        if !core.budget(self.ledger.route, |budget, now| budget.withdraw(policy.budget, now)) {
            core.metrics.retries_over_budget.inc();
            return None;
        }
        Some(next)
    }
}

/// What came of asking a route's upstreams.
enum Came {
    /// This, to be passed on, and whose it is.
    Answer(Call, Stream, Answered),
    /// A failure, and nobody else is asked: what is passed on if there is nothing better.
    Failed {
        result: Result<(Stream, Answered), Stop>,
        call: Call,
        failed: Failed,
        /// What was sent, of which the body begins there.
        head: Vec<u8>,
        body: usize,
    },
    /// Nobody may be asked.
    Nobody(Out),
}

impl Came {
    fn failed(&self) -> Option<&Failed> {
        match self {
            Came::Failed { failed, .. } => Some(failed),
            _ => None,
        }
    }
}

/// Who is asked next.
enum Next {
    /// This one, at once.
    Now(Pick),
    /// Whoever may be asked after so many milliseconds.
    After(Millis),
}

/// What failed, if it is the upstream's doing.
fn failed(result: &Result<(Stream, Answered), Stop>, route: &Route) -> Option<Failed> {
    let answered = match result {
        Ok((_, answered)) => answered,
        Err(stop) => {
            let (why, acted_upon) = Why::of(stop)?;
            return Some(Failed { why, acted_upon, retry_after: None });
        }
    };
    if answered.failed {
        return Some(Failed { why: Why::Error, acted_upon: true, retry_after: None });
    }
    let why = Why::Status(answered.status());
    if !route.retry.on.contains(&answered.status()) {
        return None;
    }
    Some(Failed { why, acted_upon: false, retry_after: retry_after(answered) })
}

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
//! early, which belongs to no upstream. An attempt that failed is dropped, and its connection with it, before the next begins.
//! Whether it is sent again is [`retry`]'s decision; what it costs is taken from the route's [`budget`](super::budget).

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::answer;
use super::ask::{Answered, Asking, Stop, connect, guarded, guarded_if};
use super::client::Client;
use super::core::Core;
use super::deadline::Timeout;
use super::download::Framing;
use super::exchange::{Exchange, millis};
use super::fallback::Name;
use super::hedge::{Hedge, Hedged};
use super::hold::Hold;
use super::refusal::Failure;
use super::retry::{self, Why};
use super::settings::Settings;
use super::upload::Upload;
use crate::config::{HedgeAfter, Route};
use crate::http::request::RequestBody;
use crate::http::response;
use crate::net::stream::Stream;
use crate::observe::{Again, Degraded};
use crate::shard::block::BLOCK_BYTES;
use crate::shard::clock::Millis;
use crate::upstream::target::Target;

/// An attempt that failed.
pub(super) struct Failed {
    pub(super) why: Why,
    /// The upstream may have acted upon the request.
    pub(super) acted_upon: bool,
    /// How long it wants to be left alone.
    retry_after: Option<Millis>,
}

impl Exchange<'_> {
    /// Asks until there is an answer to pass on: first the upstreams of the route at `index`, by the name that it has for the
    /// model, if it has one. Says whose the answer is.
    pub(super) async fn attempt(
        &mut self,
        mut index: usize,
        rewrite: Option<String>,
        settings: &Settings,
    ) -> Result<(usize, Arc<Target>, Stream, Answered), Failure> {
        let core = Rc::clone(self.core);
        let asked = &settings.config.routes[index];
        let mut route = asked;
        core.budget(self.ledger.route, |budget, now| budget.deposit(route.retry.budget, now));
        let mut name = Name::of(self.upload.peek());
        name.change(rewrite, &mut self.upload, &core.shard);
        let (mut left_routes, mut tried, mut waits) = (vec![index], Vec::new(), 0);
        let mut upstream = self.choose(route, &tried).unwrap_or(any(route));
        loop {
            self.enter_upstream(upstream, route)?;
            let mut target = Arc::clone(&settings.targets[upstream]);
            self.ledger.upstream = target.label;
            let framing = self.upload.framing(&self.request.body);
            let others = tried.len() as u32 + 1 < self.attempts_max(route)
                || route.fallback.is_some()
                || route.hedge.is_some();
            if others && core.has_room(settings) {
                self.upload.keep();
            }
            let left = self.left(&route.timeouts).ok_or(Stop::Timeout(Timeout::Total))?;
            let mut head = self.request.write(&target, &framing, left);
            let body = head.len();
            self.upload.join(&mut head, BLOCK_BYTES);
            let busy = [&tried[..], &[upstream]].concat();
            let result = self.send(&mut target, (&head, body), &busy, route).await;
            let Some(failed) = failed(&result, route, self.request.is_head()) else {
                self.leave_others(&target);
                return result
                    .map(|(stream, answered)| (index, target, stream, answered))
                    .map_err(Failure::from);
            };
            self.leave_upstreams();
            tried.push(upstream);
            if let Some((next, wait)) = self.another(route, &failed, &tried, waits) {
                drop(result);
                core.metrics.retried(failed.why.reason());
                self.ledger.failed(failed.why, &core);
                self.upload.rewind(&head[body..], &core.shard);
                if wait > 0 {
                    waits += 1;
                    self.client.deadlines.no_phase();
                    let mut pause = Box::pin(core.shard.pause(wait));
                    guarded(self.client, |cx| pause.as_mut().poll(cx)).await?;
                }
                upstream = next;
            } else if let Some((next, rename)) = self.fallback(route, &failed, &left_routes, &name, settings)
            {
                drop(result);
                self.request.degraded = Some(Degraded::Fallback);
                self.ledger.failed(failed.why, &core);
                self.upload.rewind(&head[body..], &core.shard);
                name.change(Some(rename), &mut self.upload, &core.shard);
                (index, route) = (next, &settings.config.routes[next]);
                self.enter_route(index)?;
                left_routes.push(index);
                (tried, waits) = (Vec::new(), 0);
                upstream = self.choose(route, &tried).unwrap_or(any(route));
            } else if let Some(body) = self.fixed(asked) {
                drop(result);
                self.ledger.failed(failed.why, &core);
                return Err(Failure::Degraded(body));
            } else {
                return result
                    .map(|(stream, answered)| (index, target, stream, answered))
                    .map_err(Failure::from);
            }
        }
    }

    /// How often this request may be sent: once where there is nobody else.
    fn attempts_max(&self, route: &Route) -> u32 {
        let several = route.retry.same || route.upstreams.len() > 1;
        if several { route.retry.attempts } else { 1 }
    }

    /// Who is asked after an attempt that failed, and after how long.
    fn another(
        &self,
        route: &Route,
        failed: &Failed,
        tried: &[usize],
        waits: u32,
    ) -> Option<(usize, Millis)> {
        let (core, policy) = (self.core, &route.retry);
        if self.left
            || tried.len() as u32 >= self.attempts_max(route)
            || !retry::may_follow(policy, failed.why, failed.acted_upon, self.request.repeatable)
            || !self.upload.can_rewind()
        {
            return None;
        }
        let next = self.choose(route, tried)?;
        let wait = match tried.contains(&next) {
            false => 0,
            true if !policy.same => return None,
            true => retry::wait(policy, waits, core.ids.borrow_mut().next_u64(), failed.retry_after)?,
        };
        if !retry::fits(self.client.deadlines.until(), core.shard.clock.millis(), wait) {
            core.metrics.retries_too_late.inc();
            return None;
        }
        if !core.budget(self.ledger.route, |budget, now| budget.withdraw(policy.budget, now)) {
            core.metrics.retries_over_budget.inc();
            return None;
        }
        Some((next, wait))
    }

    /// One attempt: sends the request to `target` and waits for the head of its answer. A pooled connection that turns out to
    /// have been closed is no attempt of its own; the request goes out once more over a fresh one.
    async fn send(
        &mut self,
        target: &mut Arc<Target>,
        (head, body): (&[u8], usize),
        asked: &[usize],
        route: &Route,
    ) -> Result<(Stream, Answered), Stop> {
        let (client, core) = (self.client, Rc::clone(self.core));
        let (whole, to_head) = (self.upload.sent, self.request.is_head());
        let p95 = || core.recent(self.ledger.route, |recent| recent.p95());
        let mut hedge = Hedge::new(route.hedge, p95, &core);
        let mut fresh = false;
        loop {
            self.ledger.attempts += 1;
            let (stream, reused) = connect(client, &core, target, &route.timeouts).await?;
            self.ledger.overhead = core.shard.clock.micros() - self.ledger.began();
            let first_byte = millis(route.timeouts.first_byte);
            client.deadlines.phase(Timeout::FirstByte, core.shard.clock.millis(), first_byte);
            client.arm();
            self.upload.limit_upstream(first_byte);
            let mut asking = Asking::new(stream, head, first_byte);
            let mut hold: Option<Box<Hold>> = None;
            // What the first has answered, if it is nothing to pass on while a second is being asked.
            let mut parked = None;
            let began = core.shard.clock.millis();
            let stop = loop {
                let event = guarded_if(client, !self.left, |cx| {
                    if client.deadlines.early_due.take() {
                        return Poll::Ready(Event::Early);
                    }
                    if parked.is_none()
                        && let Poll::Ready(answered) = poll_first(
                            &mut asking,
                            &mut hold,
                            cx,
                            client,
                            &core,
                            &mut self.upload,
                            route,
                            to_head,
                        )
                    {
                        return Poll::Ready(Event::First(answered));
                    }
                    hedge.poll(cx).map(Event::Hedge)
                });
                match event.await {
                    Ok(Event::Early) => self.begin_early(route).await?,
                    Ok(Event::Hedge(Hedged::Due)) => {
                        hedge = self.second(route, asked, &head[body..]);
                    }
                    Ok(Event::Hedge(Hedged::Done(Some(rival)))) if is_good(&rival.2, route) => {
                        core.metrics.hedges_won.inc();
                        self.note_beginning(route, began);
                        self.ledger.failed("slow", &core);
                        let (winner, stream, answered) = *rival;
                        self.ledger.upstream = winner.label;
                        *target = winner;
                        return Ok((stream, answered));
                    }
                    Ok(Event::Hedge(Hedged::Done(_))) => match parked.take() {
                        Some(Ok(answered)) => return Ok((asking.stream, answered)),
                        Some(Err(stop)) => break stop,
                        None => {}
                    },
                    Ok(Event::First(Ok(answered))) if !hedge.is_running() || is_good(&answered, route) => {
                        self.note_beginning(route, began);
                        return Ok((asking.stream, answered));
                    }
                    Ok(Event::First(Err(stop))) if !hedge.is_running() => break stop,
                    Ok(Event::First(answered)) => parked = Some(answered),
                    Err(Stop::Gone) if self.upload.sent && route.read_on.is_some() => self.leave(route),
                    Err(stop) => break stop,
                }
            };
            let again = match &stop {
                Stop::Closed { untouched } => reused && whole && (*untouched || self.request.repeatable),
                _ => false,
            };
            if !again || fresh {
                return Err(stop);
            }
            fresh = true;
            core.metrics.retried(Again::Stale);
        }
    }

    /// An answer has begun, of an attempt that began at `since`.
    fn note_beginning(&self, route: &Route, since: Millis) {
        if route.hedge == Some(HedgeAfter::P95) {
            let ms = self.core.shard.clock.micros() / 1000 - since;
            let ms = ms.try_into().unwrap_or(u32::MAX);
            self.core.recent(self.ledger.route, |recent| recent.push(ms));
        }
    }

    /// Asks a second upstream beside those that are being asked, if there is one, and the budget and the time for it.
    fn second(&mut self, route: &Route, asked: &[usize], joined: &[u8]) -> Hedge {
        let core = self.core;
        let other = self.choose(route, asked).filter(|index| !asked.contains(index) && !self.left);
        let (Some(index), Some(left)) = (other, self.left(&route.timeouts)) else { return Hedge::Off };
        let target = Arc::clone(&self.settings.targets[index]);
        let length = match self.request.body {
            RequestBody::None => RequestBody::None,
            _ => RequestBody::Length(self.upload.sent_bytes(joined.len())),
        };
        let mut request = self.request.write(&target, &length, left);
        if !self.upload.copy_to(&mut request, joined) {
            return Hedge::Off;
        }
        if !core.budget(self.ledger.route, |budget, now| budget.withdraw(route.retry.budget, now)) {
            core.metrics.retries_over_budget.inc();
            return Hedge::Off;
        }
        if !self.try_upstream(index) {
            return Hedge::Off;
        }
        core.metrics.hedges.inc();
        self.ledger.attempts += 1;
        Hedge::run(core, target, request)
    }

    /// Begins the stream before the upstream has answered, so that heartbeats can keep the client's connection.
    async fn begin_early(&mut self, route: &Route) -> Result<(), Stop> {
        let framing = match self.request.version {
            crate::http::Version::Http10 => Framing::Close,
            crate::http::Version::Http11 => Framing::Chunked,
        };
        let keep = answer::keeps(self.request, framing, self.core);
        self.write(answer::early(self.request, framing, keep, self.core)).await?;
        self.early = Some(framing);
        self.ledger.status = 200;
        self.limit_total(&route.timeouts);
        self.client.set_beat(framing.beat());
        let every = route.heartbeat.unwrap_or(self.settings.config.heartbeat);
        self.client.deadlines.heartbeat(self.core.shard.clock.millis(), millis(every));
        self.client.arm();
        Ok(())
    }
}

/// Somebody to be refused by, where nobody can be asked.
fn any(route: &Route) -> usize {
    let mut weighted = route.upstreams.iter().filter(|(_, weight)| *weight > 0);
    weighted.next().unwrap_or(&route.upstreams[0]).0
}

/// What happens while an upstream is asked.
enum Event {
    /// The stream is to be begun.
    Early,
    /// The first upstream has an answer, or none.
    First(Result<Answered, Stop>),
    /// Something has become of the second.
    Hedge(Hedged),
}

/// Moves the first attempt on: up to the head of its answer, or to its first content where the route says so.
#[expect(clippy::too_many_arguments, reason = "they are the parts of an attempt, each borrowed for itself")]
fn poll_first(
    asking: &mut Asking<'_>,
    hold: &mut Option<Box<Hold>>,
    cx: &mut Context<'_>,
    client: &Client,
    core: &Core,
    upload: &mut Upload,
    route: &Route,
    to_head: bool,
) -> Poll<Result<Answered, Stop>> {
    loop {
        if let Some(hold) = hold {
            return hold.poll(cx, &mut asking.stream, core);
        }
        let answered = ready!(asking.poll(cx, client, core, upload, to_head))?;
        if !route.first_content || !upload.sent || to_head {
            return Poll::Ready(Ok(answered));
        }
        match Hold::begin(answered) {
            Ok(begun) => *hold = Some(begun),
            Err(answered) => return Poll::Ready(Ok(answered)),
        }
    }
}

/// Whether an answer is one to pass on although another may come.
fn is_good(answered: &Answered, route: &Route) -> bool {
    !answered.failed && !route.retry.on.contains(&answered.status)
}

/// What failed, if it is the upstream's doing.
fn failed(result: &Result<(Stream, Answered), Stop>, route: &Route, to_head: bool) -> Option<Failed> {
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
    let why = Why::Status(answered.status);
    if !route.retry.on.contains(&answered.status) {
        return None;
    }
    let head = response::parse(&answered.block[answered.head.clone()], to_head).ok()?;
    let retry_after = retry::retry_after(head.field("retry-after-ms"), head.field("retry-after"));
    Some(Failed { why, acted_upon: false, retry_after })
}

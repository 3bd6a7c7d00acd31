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
use std::task::{Poll, ready};

use super::answer;
use super::ask::{Answered, Asking, Stop, connect, guarded, guarded_if};
use super::deadline::Timeout;
use super::download::Framing;
use super::exchange::{Exchange, millis};
use super::fallback::Name;
use super::hold::Hold;
use super::refusal::Failure;
use super::retry::{self, Why};
use super::settings::Settings;
use crate::config::Route;
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
        let mut upstream = self.choose(route, &tried).unwrap_or(route.upstreams[0].0);
        loop {
            let target = Arc::clone(&settings.targets[upstream]);
            self.ledger.upstream = target.label;
            let framing = self.upload.framing(&self.request.body);
            let others = tried.len() as u32 + 1 < self.attempts_max(route) || route.fallback.is_some();
            if others && core.has_room(settings) {
                self.upload.keep();
            }
            let left = self.left(&route.timeouts).ok_or(Stop::Timeout(Timeout::Total))?;
            let mut head = self.request.write(&target, &framing, left);
            let body = head.len();
            self.upload.join(&mut head, BLOCK_BYTES);
            let result = self.send(&target, &head, route).await;
            let Some(failed) = failed(&result, route, self.request.is_head()) else {
                return result
                    .map(|(stream, answered)| (index, target, stream, answered))
                    .map_err(Failure::from);
            };
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
                left_routes.push(index);
                (tried, waits) = (Vec::new(), 0);
                upstream = self.choose(route, &tried).unwrap_or(route.upstreams[0].0);
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
        target: &Target,
        head: &[u8],
        route: &Route,
    ) -> Result<(Stream, Answered), Stop> {
        let (client, core) = (self.client, Rc::clone(self.core));
        let whole = self.upload.sent;
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
            let stop = loop {
                let answered = guarded_if(client, !self.left, |cx| {
                    if client.deadlines.early_due.take() {
                        return Poll::Ready(Err(Stop::Early));
                    }
                    loop {
                        if let Some(hold) = &mut hold {
                            return hold.poll(cx, &mut asking.stream, &core);
                        }
                        let to_head = self.request.is_head();
                        let answered = ready!(asking.poll(cx, client, &core, &mut self.upload, to_head))?;
                        if !route.first_content || !self.upload.sent || to_head {
                            return Poll::Ready(Ok(answered));
                        }
                        match Hold::begin(answered) {
                            Ok(begun) => hold = Some(begun),
                            Err(answered) => return Poll::Ready(Ok(answered)),
                        }
                    }
                });
                match answered.await.and_then(|answered| answered) {
                    Ok(answered) => return Ok((asking.stream, answered)),
                    Err(Stop::Early) => self.begin_early(route).await?,
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

//! One request to an upstream, from the choice of it to the end of its answer: what the upstream's health learns from it.
//!
//! A call counts once, with the first of these: a good response begins ([`Call::first_content`] of a stream, [`Call::first_byte`] of
//! anything else), or it ends ([`Call::end`]). A stream does not begin with its head: many servers send that before the model has
//! begun. If what has begun breaks off, that is one more failure and not one more call. A call that is dropped without a verdict says nothing about
//! the upstream; what it holds, its place in flight and as a probe, is given back in any case.

use std::sync::Arc;
use std::time::Duration;

use super::balancer::Asked;
use super::breaker::Permit;
use super::window::Counts;
use crate::config::Breaker as Rules;
use crate::runtime::clock::{Micros, Millis};
use crate::upstream::target::Target;

/// How long an attempt that failed counts as having taken at least: who refuses at once is not the fastest.
const FAILED_US: f64 = 1_000_000.0;

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was answered to the end.
    Ok,
    /// The upstream failed: it broke off, fell silent, or answered with an error of its own.
    Failed,
    /// There was no connection.
    ConnectFailed,
    /// It has too much to do, and may have said for how long.
    Overloaded {
        /// How long it wants to be left alone.
        retry_after: Option<Millis>,
    },
    /// The request itself was refused.
    ClientFault,
    /// The client left, or another upstream was faster.
    Abandoned,
}

/// A call. Small, since a stream holds one for as long as it flows.
pub(crate) struct Call {
    target: Arc<Target>,
    began: Micros,
    /// The half-open phase that it is a probe of; 0 if it is none, or none any more.
    epoch: u32,
    core: u16,
    /// The breaker decides about it, and it about the breaker.
    gated: bool,
    /// It asks for a stream.
    streamed: bool,
    progress: Progress,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Asked,
    Answered,
    Ended,
}

impl Call {
    /// Begins one, with a permit of the target's breaker if that was asked, and a place at the target if it has a limit.
    pub(crate) fn begin(target: &Arc<Target>, permit: Option<Permit>, asked: &Asked<'_>) -> Call {
        target.health.view(asked.core).in_flight.add(1);
        Call {
            target: Arc::clone(target),
            began: asked.now,
            epoch: match permit {
                Some(Permit::Probe(epoch)) => epoch,
                _ => 0,
            },
            core: asked.core as u16,
            gated: permit.is_some(),
            streamed: asked.streamed,
            progress: Progress::Asked,
        }
    }

    /// Who is asked.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// The head of a good response has come.
    pub(crate) fn head(&self) {
        self.target.health.connected();
    }

    /// A stream has said its first. `chance` is any number, here and below.
    pub(crate) fn first_content(&mut self, now: Micros, chance: u64) {
        self.begun(true, now, chance);
    }

    /// A good response has begun that is no stream.
    pub(crate) fn first_byte(&mut self, now: Micros, chance: u64) {
        self.begun(false, now, chance);
    }

    fn begun(&mut self, streamed: bool, now: Micros, chance: u64) {
        if self.progress != Progress::Asked {
            return;
        }
        self.progress = Progress::Answered;
        let took = now.saturating_sub(self.began);
        let health = &self.target.health;
        let view = health.view(self.core.into());
        view.observe(streamed, took, now);
        health.connected();
        // How long a response in one piece takes depends on its length, so it is held against no limit of time while streams
        // show how soon this upstream begins.
        let is_telling = streamed || !view.streams_tell(now);
        self.tell(|latency| is_telling.then_some(took < latency), now);
        let slow = is_telling && self.rules().is_some_and(|rules| is_slow(rules, took));
        self.count(Counts { calls: 1, failed: 0, slow: slow.into() }, now, chance);
        self.settle_probe(Some(!slow), now, chance);
    }

    /// It has come to this. Only the first verdict counts; the call stays in flight until it is dropped.
    pub(crate) fn end(&mut self, verdict: Verdict, now: Micros, chance: u64) {
        if verdict == Verdict::Ok {
            self.begun(self.streamed, now, chance);
        }
        let before = std::mem::replace(&mut self.progress, Progress::Ended);
        if before == Progress::Ended {
            return;
        }
        let took = now.saturating_sub(self.began);
        if before == Progress::Answered && self.target.concurrency.is_some() {
            self.target.health.turnstile.note(took);
        }
        let failed = Counts { calls: u32::from(before == Progress::Asked), failed: 1, slow: 0 };
        match verdict {
            Verdict::Abandoned if before == Progress::Asked => {
                self.note_waiting(now);
                self.tell(|latency| if took < latency { None } else { Some(false) }, now);
            }
            Verdict::Ok | Verdict::Abandoned | Verdict::ClientFault => {}
            Verdict::Failed | Verdict::ConnectFailed => {
                self.penalize(now);
                self.tell(|_| (before == Progress::Asked).then_some(false), now);
                self.count(failed, now, chance);
                match verdict {
                    Verdict::ConnectFailed => self.target.health.connect_failed(self.rules(), now, chance),
                    _ => self.target.health.connected(),
                }
                self.settle_probe(Some(false), now, chance);
            }
            Verdict::Overloaded { retry_after } => {
                self.penalize(now);
                self.tell(|_| Some(false), now);
                if let Some(time) = retry_after.filter(|time| *time > 0 && self.rules().is_some()) {
                    self.target.health.park(time, now);
                }
            }
        }
        self.settle_probe(None, now, chance);
    }

    fn rules(&self) -> Option<&Rules> {
        self.target.breaker.as_ref().filter(|_| self.gated)
    }

    fn count(&self, counts: Counts, now: Micros, chance: u64) {
        self.target.health.count(self.core.into(), counts, self.rules(), now, chance);
    }

    /// Tells the upstream's limit, if it has one, whether an answer came in time, if that can be said.
    fn tell(&self, in_time: impl FnOnce(Micros) -> Option<bool>, now: Micros) {
        if let Some(rules) = &self.target.concurrency
            && let Some(in_time) = in_time(rules.latency.as_micros() as Micros)
        {
            self.target.health.turnstile.learn(in_time, rules, now);
        }
    }

    /// Nobody waited for the answer, which would have taken longer still: who is asked after this knows at least that.
    fn note_waiting(&self, now: Micros) {
        let latency = self.target.health.view(self.core.into()).latency(self.streamed);
        let took = now.saturating_sub(self.began);
        if latency.read(now).is_some_and(|known| took as f64 > known) {
            latency.observe(took, now);
        }
    }

    fn penalize(&self, now: Micros) {
        let took = now.saturating_sub(self.began) as f64;
        // Whoever is asked next, for a stream or not, is better asked elsewhere.
        for streamed in [false, true] {
            let latency = self.target.health.view(self.core.into()).latency(streamed);
            latency.observe(took.max(FAILED_US).max(2.0 * latency.read(now).unwrap_or(0.0)) as Micros, now);
        }
    }

    fn settle_probe(&mut self, good: Option<bool>, now: Micros, chance: u64) {
        let epoch = std::mem::take(&mut self.epoch);
        if let Some(rules) = self.target.breaker.as_ref().filter(|_| epoch != 0) {
            self.target.health.probed(epoch, good, rules, now, chance);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // No time and no chance are needed to give a place back.
        self.settle_probe(None, 0, 0);
        self.target.health.view(self.core.into()).in_flight.sub(1);
        if let Some(rules) = &self.target.concurrency {
            self.target.health.turnstile.leave(rules);
        }
    }
}

fn is_slow(rules: &Rules, took: Micros) -> bool {
    rules.slow > Duration::ZERO && u128::from(took) >= rules.slow.as_micros()
}

//! Whether an upstream may be asked, by what it has done. No clock, socket, task or chance in here: what happened, a time and a
//! number in, a decision out.
//!
//! ```text
//!                    too many failed or slow in the window; too many connections failed in a row
//!            CLOSED ────────────────────────────────────────────────────────────────► OPEN ◄─┐
//!              ▲                                                                       │     │
//!              │                                                     the cool-down is over   │ a probe fails:
//!              │                                                                       ▼     │ twice as long
//!              └────────────────── `probes` calls have succeeded ─────────────── HALF-OPEN ──┘
//!                                                                        `probes` calls at most
//! ```
//!
//! | what comes of a call | closed | half-open, if it is a probe |
//! | --- | --- | --- |
//! | its answer begins, below 500 and not 4xx | counts | one more success |
//! | no connection, a break, silence, 5xx, an error inside a 200 | counts as failed | open again |
//! | a 4xx; the client left; another upstream was faster | does not count | the place is free for another |
//! | 429 or 503 with `Retry-After` | does not count | the place is free for another |
//!
//! Beside all of that it may be *parked*: an upstream that has named the time it wants to be left alone for is left alone for
//! exactly that time, and is then what it was before. Of several such words the one that reaches furthest holds.
//!
//! What may never happen: more probes at a time than there are places; a place that is not given back (a probe is an
//! [`epoch`](Permit::Probe) and ends exactly once); a probe of an earlier half-open phase that counts in a later one.

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;

use crate::config::Breaker as Rules;
use crate::runtime::clock::Millis;

/// The longest time that an upstream can ask to be left alone for: beyond it, it is not a limit that it tells of but a mistake.
pub(crate) const PARKED_MAX_MS: Millis = 24 * 3600 * 1000;

/// When to come again while the probes are on their way: what comes of them is not known yet.
const PROBING_MS: Millis = 1000;

/// Doublings of the cool-down; more than its longest time can hold.
const DOUBLINGS_MAX: u32 = 20;

/// The state, as the word for it in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is asked.
    Closed,
    /// It is not asked.
    Open,
    /// A few calls find out.
    HalfOpen,
    /// It has asked to be left alone.
    Parked,
}

impl State {
    /// All of them.
    pub(crate) const ALL: [State; 4] = [State::Closed, State::Open, State::HalfOpen, State::Parked];

    /// The word for it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
            State::Parked => "parked",
        }
    }
}

/// The right to ask once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// Nothing hangs on it.
    Plain,
    /// Of the half-open phase of that number, which is never 0; to be given back by [`Breaker::probed`].
    Probe(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Closed,
    Open { until: Millis },
    HalfOpen { out: u32, good: u32 },
}

/// An upstream's breaker, the same for all cores.
#[derive(Debug)]
pub(crate) struct Breaker {
    phase: Phase,
    parked_until: Millis,
    /// Half-open phases so far.
    epoch: u32,
    /// Times it has opened since it was closed for long.
    streak: u32,
    closed_since: Millis,
    cool_down: Millis,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { phase: Phase::Closed, parked_until: 0, epoch: 0, streak: 0, closed_since: 0, cool_down: 0 }
    }
}

impl Breaker {
    /// What it is at `now`.
    pub(crate) fn state(&self, now: Millis) -> State {
        match self.phase {
            _ if now < self.parked_until => State::Parked,
            Phase::Closed => State::Closed,
            Phase::Open { until } if now < until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Before this time nobody is let through, so nobody need ask; 0 if everybody is.
    pub(crate) fn gate(&self) -> Millis {
        let phase = match self.phase {
            Phase::Closed => 0,
            Phase::Open { until } => until,
            Phase::HalfOpen { .. } => 1,
        };
        phase.max(self.parked_until)
    }

    /// Asks for a call at `now`; a refusal says for how long.
    pub(crate) fn admit(&mut self, rules: &Rules, now: Millis) -> Result<Permit, Millis> {
        if now < self.parked_until {
            return Err(self.parked_until - now);
        }
        self.parked_until = 0;
        match &mut self.phase {
            Phase::Closed => Ok(Permit::Plain),
            Phase::Open { until } if now < *until => Err(*until - now),
            Phase::Open { .. } => {
                self.epoch = self.epoch.wrapping_add(1).max(1);
                self.phase = Phase::HalfOpen { out: 1, good: 0 };
                Ok(Permit::Probe(self.epoch))
            }
            Phase::HalfOpen { out, good } if *out + *good < rules.probes => {
                *out += 1;
                Ok(Permit::Probe(self.epoch))
            }
            Phase::HalfOpen { .. } => Err(PROBING_MS),
        }
    }

    /// A probe of the phase `epoch` is over, and good, bad, or says nothing. Says whether this has opened or closed it; `chance`
    /// is any number.
    pub(crate) fn probed(
        &mut self,
        epoch: u32,
        good: Option<bool>,
        rules: &Rules,
        now: Millis,
        chance: u64,
    ) -> Option<State> {
        let Phase::HalfOpen { out, good: successes } = &mut self.phase else { return None };
        if epoch != self.epoch {
            return None;
        }
        debug_assert!(*out > 0, "a probe was given back twice");
        *out = out.saturating_sub(1);
        match good {
            None => None,
            Some(false) => {
                self.open(rules, now, chance);
                Some(State::Open)
            }
            Some(true) => {
                *successes += 1;
                if *successes < rules.probes {
                    return None;
                }
                (self.phase, self.closed_since) = (Phase::Closed, now);
                Some(State::Closed)
            }
        }
    }

    /// There were too many failures: opens it, if it is closed. Says whether it was.
    pub(crate) fn trip(&mut self, rules: &Rules, now: Millis, chance: u64) -> bool {
        if self.phase != Phase::Closed {
            return false;
        }
        // Closed for longer than it had to cool down: what was before is forgotten.
        if now.saturating_sub(self.closed_since) > 2 * self.cool_down {
            self.streak = 0;
        }
        self.open(rules, now, chance);
        true
    }

    /// The upstream wants to be left alone for so long.
    pub(crate) fn park(&mut self, now: Millis, time: Millis) {
        self.parked_until = self.parked_until.max(now + time.min(PARKED_MAX_MS));
    }

    /// A time between half the cool-down and all of it, so that those who opened together do not come back together.
    fn open(&mut self, rules: &Rules, now: Millis, chance: u64) {
        let [first, longest] = [rules.cool_down, rules.max_cool_down].map(|time| time.as_millis() as Millis);
        self.cool_down = first.saturating_mul(1 << self.streak.min(DOUBLINGS_MAX)).min(longest);
        self.streak = self.streak.saturating_add(1);
        let half = self.cool_down / 2;
        self.phase = Phase::Open { until: now + half + chance % (self.cool_down - half + 1) };
    }
}

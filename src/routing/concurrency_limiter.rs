//! The places at an upstream that has a limit: given to those who come while there are any, and then to those who wait, in
//! the queue's order. One for all cores; behind a lock, which is taken when a call begins, is answered and ends, and only where
//! a limit is configured.
//!
//! Whoever holds a place gives it back exactly once: a [`Call`](super::call::Call) when it is dropped, a [`Place`] that was granted
//! and not taken likewise.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::aimd::Aimd;
use super::fair_queue::{Queue, Ticket, Turn};
use crate::config::Concurrency as Rules;
use crate::runtime::clock::{Micros, Millis};
use crate::telemetry::SharedCounter;
use crate::upstream::target::Target;

/// The time to come again that is told at least, and at most.
const COME_AGAIN_MS: (Millis, Millis) = (1000, 60_000);

/// Of the average time that a call takes, the part that each new one makes up.
const NEWEST: f64 = 0.1;

/// Why a request was not let wait, or not any longer, as the word for it in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Shed {
    /// The queue was full.
    Full,
    /// Its place was given to a key that had fewer.
    Evicted,
    /// It had waited long enough.
    Waited,
}

impl Shed {
    /// All reasons, in the order of their discriminants.
    pub(crate) const ALL: [Shed; 3] = [Shed::Full, Shed::Evicted, Shed::Waited];

    /// The word for it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Shed::Full => "full",
            Shed::Evicted => "evicted",
            Shed::Waited => "waited",
        }
    }
}

/// An upstream's places.
#[derive(Debug, Default)]
pub(crate) struct Turnstile {
    state: Mutex<State>,
    /// There was none left at the last look: spares others the lock.
    full: AtomicBool,
    shed: [SharedCounter; Shed::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    aimd: Aimd,
    inside: u32,
    queue: Queue<Waker>,
    /// How long a call takes, in microseconds.
    takes: f64,
}

impl Turnstile {
    /// Whether there was no place at the last look.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Takes a place, if there is one and nobody waits for it.
    pub(crate) fn enter(&self, rules: &Rules) -> bool {
        self.locked(rules, |state| {
            let free = state.queue.is_empty() && state.inside < state.aimd.limit(rules);
            state.inside += u32::from(free);
            free
        })
    }

    /// Gives one back.
    pub(crate) fn leave(&self, rules: &Rules) {
        self.locked(rules, |state| state.inside = state.inside.saturating_sub(1));
    }

    /// An answer has begun, in time or not, or has failed to.
    pub(crate) fn learn(&self, in_time: bool, rules: &Rules, now: Micros) {
        self.locked(rules, |state| match in_time {
            true => state.aimd.good(state.inside, rules),
            false => state.aimd.bad(rules, now),
        });
    }

    /// A call has taken so long.
    pub(crate) fn note(&self, took: Micros) {
        let mut state = self.lock();
        let took = took as f64;
        state.takes = if state.takes == 0.0 { took } else { state.takes + NEWEST * (took - state.takes) };
    }

    /// The limit, and how many wait.
    pub(crate) fn read(&self, rules: &Rules) -> (u32, usize) {
        let state = self.lock();
        (state.aimd.limit(rules), state.queue.len())
    }

    /// How many were shed for `reason`.
    pub(crate) fn shed(&self, reason: Shed) -> u64 {
        self.shed[reason as usize].get()
    }

    /// When it is likely that all who wait have had their turn, in milliseconds from now.
    pub(crate) fn come_again(&self, rules: &Rules) -> Millis {
        let state = self.lock();
        let rounds = (state.queue.len() + 1) as f64 / f64::from(state.aimd.limit(rules).max(1));
        ((state.takes * rounds / 1000.0) as Millis).clamp(COME_AGAIN_MS.0, COME_AGAIN_MS.1)
    }

    fn locked<T>(&self, rules: &Rules, work: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let done = work(&mut state);
        let mut woken = Vec::new();
        while state.inside < state.aimd.limit(rules)
            && let Some(waker) = state.queue.grant()
        {
            state.inside += 1;
            woken.extend(waker);
        }
        let full = state.inside >= state.aimd.limit(rules);
        if full != self.full.load(Ordering::Relaxed) {
            self.full.store(full, Ordering::Relaxed);
        }
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        done
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of it is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue of an upstream, or at it.
pub(crate) struct Place {
    target: Arc<Target>,
    ticket: Option<Ticket>,
    granted: bool,
}

impl Place {
    /// Waits at `target` for its turn; none if that has no limit, or no room to wait. `key` is whose turn it is to be.
    pub(crate) fn wait(target: &Arc<Target>, key: u64) -> Option<Place> {
        let rules = target.concurrency.as_ref()?;
        let turnstile = &target.health.turnstile;
        let place = turnstile.locked(rules, |state| state.queue.push(key, rules.queue));
        let Some((ticket, evicted)) = place else {
            turnstile.shed[Shed::Full as usize].inc();
            return None;
        };
        if let Some(waker) = evicted {
            waker.wake();
        }
        Some(Place { target: Arc::clone(target), ticket: Some(ticket), granted: false })
    }

    /// Ready with whether it has become its turn.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let (Some(ticket), Some(_)) = (self.ticket, &self.target.concurrency) else {
            return Poll::Ready(false);
        };
        let turnstile = &self.target.health.turnstile;
        match turnstile.lock().queue.look(ticket, cx.waker().clone()) {
            Turn::Waiting => return Poll::Pending,
            Turn::Granted => {}
            Turn::Evicted => {
                turnstile.shed[Shed::Evicted as usize].inc();
                self.ticket = None;
                return Poll::Ready(false);
            }
        }
        (self.ticket, self.granted) = (None, true);
        Poll::Ready(true)
    }

    pub(crate) fn is_granted(&self) -> bool {
        self.granted
    }

    /// The place at the upstream is a call's from here on.
    pub(crate) fn take(mut self) {
        self.granted = false;
    }

    /// It has waited long enough.
    pub(crate) fn give_up(self) {
        self.target.health.turnstile.shed[Shed::Waited as usize].inc();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(rules) = &self.target.concurrency else { return };
        self.target.health.turnstile.locked(rules, |state| {
            let granted = self.ticket.and_then(|ticket| state.queue.forget(ticket)) == Some(Turn::Granted);
            state.inside = state.inside.saturating_sub(u32::from(granted || self.granted));
        });
    }
}

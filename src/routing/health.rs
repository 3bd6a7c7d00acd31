//! What is known of an upstream, by all cores together, and for as long as it has the same name and address: a reload changes
//! rules and routes, and not what has happened.
//!
//! | what | whose | how it is shared |
//! | --- | --- | --- |
//! | calls in flight, latency, the window's counts | each core's own | it alone writes; others read where they need a sum |
//! | the gate | all | one word that is 0 while the breaker is closed: the only thing that a request looks at then |
//! | the breaker | all | behind a lock that is taken when it is not closed, or a call was bad |
//! | places ([`turnstile`](super::concurrency_limiter)) | all | behind a lock, where there is a limit |
//!
//! So the breaker is one, and no core has a view of its own: it opens with the call that exceeds the limit, over all cores, and
//! every request that begins after that sees it closed to itself. What the sums may miss are the calls that other cores are
//! counting at that very moment, and the seconds at the window's two ends, which are counted whole or not at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::breaker::{Breaker, Permit, State};
use super::concurrency_limiter::Turnstile;
use super::latency::Latency;
use super::window::{Counts, Window};
use crate::config::Breaker as Rules;
use crate::runtime::clock::{Micros, Millis};
use crate::telemetry::{Gauge, SharedCounter};
use crate::upstream::models::Models;

const SECOND_US: Micros = 1_000_000;

/// For so long after its last stream, responses in one piece are held against no limit of time.
const STREAMS_TELL_US: Micros = 60 * SECOND_US;

/// Why a breaker has opened, as the word for it in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opened {
    /// Too many of the window's calls failed.
    Errors,
    /// Too many of them were slow.
    Slow,
    /// Too many connections in a row failed.
    Connect,
    /// A call that was to find out failed.
    Probe,
}

impl Opened {
    /// All reasons, in the order of their discriminants.
    pub(crate) const ALL: [Opened; 4] = [Opened::Errors, Opened::Slow, Opened::Connect, Opened::Probe];

    /// The word for it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Opened::Errors => "errors",
            Opened::Slow => "slow",
            Opened::Connect => "connect",
            Opened::Probe => "probe",
        }
    }
}

/// An upstream's health.
#[derive(Debug)]
pub(crate) struct Health {
    gate: AtomicU64,
    breaker: Mutex<Breaker>,
    connect_failures: AtomicU32,
    /// The first second that counts: those before the breaker has closed do not.
    since: AtomicU64,
    opened: [SharedCounter; Opened::ALL.len()],
    parked: SharedCounter,
    checks: [SharedCounter; 2],
    /// Its models.
    pub(crate) models: Models,
    /// Its places, where it has a limit.
    pub(crate) turnstile: Turnstile,
    views: Box<[View]>,
}

/// What one core knows.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct View {
    /// Calls that are not over.
    pub(crate) in_flight: Gauge,
    /// How long streams take to their first content.
    streamed: Latency,
    /// How long anything else takes to its head: of a response in one piece that is the whole time of making it, so the two are not
    /// averaged together.
    whole: Latency,
    /// When a stream last said its first; 0 for never.
    streamed_at: AtomicU64,
    window: Window,
}

impl View {
    /// How long responses take to begin: those that are streamed, or the others.
    pub(crate) fn latency(&self, streamed: bool) -> &Latency {
        if streamed { &self.streamed } else { &self.whole }
    }

    /// A good response has begun after `took`.
    pub(crate) fn observe(&self, streamed: bool, took: Micros, now: Micros) {
        self.latency(streamed).observe(took, now);
        if streamed {
            self.streamed_at.store(now, Ordering::Relaxed);
        }
    }

    /// Whether streams have begun here so lately that nothing else has to tell how soon its responses begin.
    pub(crate) fn streams_tell(&self, now: Micros) -> bool {
        let at = self.streamed_at.load(Ordering::Relaxed);
        at > 0 && now.saturating_sub(at) < STREAMS_TELL_US
    }
}

impl Health {
    /// Of one that nothing is known of, for so many cores.
    pub(crate) fn new(cores: usize) -> Health {
        Health {
            gate: AtomicU64::new(0),
            breaker: Mutex::default(),
            connect_failures: AtomicU32::new(0),
            since: AtomicU64::new(0),
            opened: Default::default(),
            parked: SharedCounter::default(),
            checks: Default::default(),
            models: Models::default(),
            turnstile: Turnstile::default(),
            views: (0..cores.max(1)).map(|_| View::default()).collect(),
        }
    }

    /// What `core` knows.
    pub(crate) fn view(&self, core: usize) -> &View {
        &self.views[core.min(self.views.len() - 1)]
    }

    /// For how long nobody is let through; 0 if it has to be asked for.
    pub(crate) fn left(&self, now: Millis) -> Millis {
        self.gate.load(Ordering::Acquire).saturating_sub(now)
    }

    /// Asks for a call.
    pub(crate) fn admit(&self, rules: &Rules, now: Millis) -> Result<Permit, Millis> {
        match self.gate.load(Ordering::Acquire) {
            0 => Ok(Permit::Plain),
            gate if gate > now => Err(gate - now),
            _ => self.locked(|breaker| breaker.admit(rules, now)),
        }
    }

    /// Counts calls on `core`, and opens the breaker if that is too much; `chance` is any number.
    pub(crate) fn count(&self, core: usize, more: Counts, rules: Option<&Rules>, now: Micros, chance: u64) {
        let second = now / SECOND_US;
        self.view(core).window.add(second, more);
        let Some(rules) = rules.filter(|_| more.failed + more.slow > 0 && self.is_closed()) else { return };
        let sum = self.sum(rules, second);
        let exceeds =
            |some: u32, percent: u32| u64::from(some) * 100 >= u64::from(percent) * u64::from(sum.calls);
        if sum.calls < rules.min_calls {
            return;
        }
        if rules.error_percent > 0 && more.failed > 0 && exceeds(sum.failed, rules.error_percent) {
            self.trip(Opened::Errors, rules, now, chance);
        } else if more.slow > 0 && exceeds(sum.slow, rules.slow_percent) {
            self.trip(Opened::Slow, rules, now, chance);
        }
    }

    /// A connection has failed.
    pub(crate) fn connect_failed(&self, rules: Option<&Rules>, now: Micros, chance: u64) {
        let in_a_row = self.connect_failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if let Some(rules) = rules
            && rules.connect_failures > 0
            && in_a_row >= rules.connect_failures
            && self.is_closed()
        {
            self.trip(Opened::Connect, rules, now, chance);
        }
    }

    /// One has come about.
    pub(crate) fn connected(&self) {
        // Nearly always it is 0 already, and a line that is only read can lie in every core's cache.
        if self.connect_failures.load(Ordering::Relaxed) != 0 {
            self.connect_failures.store(0, Ordering::Relaxed);
        }
    }

    /// A probe is over.
    pub(crate) fn probed(&self, epoch: u32, good: Option<bool>, rules: &Rules, now: Micros, chance: u64) {
        match self.locked(|breaker| breaker.probed(epoch, good, rules, now / 1000, chance)) {
            Some(State::Open) => self.opened[Opened::Probe as usize].inc(),
            Some(_) => {
                self.since.store(now / SECOND_US + 1, Ordering::Relaxed);
                self.connect_failures.store(0, Ordering::Relaxed);
            }
            None => {}
        }
    }

    /// An active probe is over, with `permit`.
    pub(crate) fn checked(
        &self,
        permit: Permit,
        good: bool,
        rules: Option<&Rules>,
        now: Micros,
        chance: u64,
    ) {
        self.checks[usize::from(good)].inc();
        match (permit, rules) {
            (Permit::Probe(epoch), Some(rules)) => self.probed(epoch, Some(good), rules, now, chance),
            _ if good => self.connected(),
            _ => self.connect_failed(rules, now, chance),
        }
    }

    /// Active probes so far: those that failed, and those that went well.
    pub(crate) fn checks(&self) -> [u64; 2] {
        [self.checks[0].get(), self.checks[1].get()]
    }

    /// It has asked to be left alone for `time`.
    pub(crate) fn park(&self, time: Millis, now: Micros) {
        self.parked.inc();
        self.locked(|breaker| breaker.park(now / 1000, time));
    }

    /// What it is now.
    pub(crate) fn state(&self, now: Millis) -> State {
        self.lock().state(now)
    }

    /// How often it has opened for `reason`.
    pub(crate) fn opened(&self, reason: Opened) -> u64 {
        self.opened[reason as usize].get()
    }

    /// How often it has asked to be left alone.
    pub(crate) fn parked(&self) -> u64 {
        self.parked.get()
    }

    /// Calls in flight, over all cores.
    pub(crate) fn in_flight(&self) -> u64 {
        self.views.iter().map(|view| view.in_flight.get()).sum()
    }

    fn is_closed(&self) -> bool {
        self.gate.load(Ordering::Acquire) == 0
    }

    fn sum(&self, rules: &Rules, second: u64) -> Counts {
        let (length, since) = (rules.window.as_secs(), self.since.load(Ordering::Relaxed));
        let mut sum = Counts::default();
        self.views.iter().for_each(|view| sum += view.window.sum(second, length, since));
        sum
    }

    fn trip(&self, reason: Opened, rules: &Rules, now: Micros, chance: u64) {
        if self.locked(|breaker| breaker.trip(rules, now / 1000, chance)) {
            self.opened[reason as usize].inc();
        }
    }

    /// Does something with the breaker, and moves the gate with it.
    fn locked<T>(&self, work: impl FnOnce(&mut Breaker) -> T) -> T {
        let mut breaker = self.lock();
        let done = work(&mut breaker);
        self.gate.store(breaker.gate(), Ordering::Release);
        done
    }

    fn lock(&self) -> MutexGuard<'_, Breaker> {
        // Each change of it is whole before anything can panic.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The health of all upstreams, by what makes one the same after a reload: its name and its address.
#[derive(Debug, Default)]
pub struct Healths {
    known: Mutex<HashMap<String, Arc<Health>>>,
}

impl Healths {
    /// That of the upstream of this identity.
    pub(crate) fn of(&self, identity: &str, cores: usize) -> Arc<Health> {
        let mut known = self.lock();
        let health = known.entry(identity.to_owned()).or_insert_with(|| Arc::new(Health::new(cores)));
        Arc::clone(health)
    }

    /// Forgets those that nobody else speaks of any more.
    pub(crate) fn forget_unused(&self) {
        self.lock().retain(|_, health| Arc::strong_count(health) > 1);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Health>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

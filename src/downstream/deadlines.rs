//! The time limits of a connection: which there are, which is next, which has passed.
//!
//! Cells alone: the hot loop stores the time of the last segment and nothing else, the wheel compares. A limit of 0 is off.

use std::cell::Cell;

use crate::runtime::clock::Millis;

/// Which time limit passed. Each has a name of its own in configuration, metrics, log and error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timeout {
    /// The request head did not arrive in time.
    RequestHead,
    /// The request body did not arrive in time.
    RequestBody,
    /// No next request came on a kept-alive connection.
    KeepAlive,
    /// The upstream did not accept the connection.
    Connect,
    /// The TLS handshake with the upstream.
    UpstreamTls,
    /// The upstream did not begin its answer.
    FirstByte,
    /// The upstream fell silent within its answer.
    Idle,
    /// The request as a whole took too long.
    Total,
    /// The key that the request came with is not known any more.
    Authority,
    /// The client did not read.
    ClientStall,
    /// The process is going down, and the time it gives to what is in flight is over.
    Drain,
}

/// What the wheel has to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// This limit has passed.
    Timeout(Timeout),
    /// A heartbeat is due.
    Heartbeat,
    /// The stream is to be begun although the upstream has not answered.
    Early,
}

/// All limits of a connection.
#[derive(Default)]
pub(crate) struct Deadlines {
    /// The limit that passed and that nobody has seen yet.
    pub(crate) expired: Cell<Option<Timeout>>,
    /// The key of what is answered, if that must not outlive it; 0 is none. See [`crate::admission::api_key::Holder`].
    pub(crate) authority: Cell<u64>,
    phase: Cell<Option<(Timeout, Millis)>>,
    total: Cell<Millis>,
    /// When the upstream last said something.
    activity: Cell<Millis>,
    idle: Cell<u32>,
    heartbeat: Cell<u32>,
    last_heartbeat: Cell<Millis>,
    stall: Cell<u32>,
    blocked_since: Cell<Millis>,
    early: Cell<Millis>,
    /// The time to begin the stream has come, and nobody has seen it yet.
    pub(crate) early_due: Cell<bool>,
    /// The upstream is read whether the client reads or not.
    reads_on: Cell<bool>,
}

impl Deadlines {
    /// The phase that begins now, and when it must be over. It takes the place of the phase before; `limit` 0 is no limit.
    pub(crate) fn phase(&self, timeout: Timeout, now: Millis, limit: u32) {
        self.phase.set((limit > 0).then(|| (timeout, now + Millis::from(limit))));
    }

    /// The same, over at `until`.
    pub(crate) fn phase_at(&self, timeout: Timeout, until: Millis, limit: u32) {
        self.phase.set((limit > 0).then_some((timeout, until)));
    }

    /// No phase has a limit now.
    pub(crate) fn no_phase(&self) {
        self.phase.set(None);
    }

    /// When the request must be over, absolute; 0 for never.
    pub(crate) fn total(&self, at: Millis) {
        self.total.set(at);
    }

    /// When the request must be over; 0 for never.
    pub(crate) fn until(&self) -> Millis {
        self.total.get()
    }

    /// How long the client may read nothing.
    pub(crate) fn stall(&self, limit: u32) {
        self.stall.set(limit);
    }

    /// A streamed answer begins: how long the upstream may be silent, and after how much silence a heartbeat is due.
    pub(crate) fn streaming(&self, now: Millis, idle: u32, heartbeat: u32) {
        self.phase.set(None);
        self.activity.set(now);
        self.idle.set(idle);
        self.heartbeat.set(heartbeat);
    }

    /// How long the upstream may be silent from now on; 0 while it is not read.
    pub(crate) fn idle(&self, limit: u32) {
        self.idle.set(limit);
    }

    /// Whether the upstream is read although the client does not read, so that its silence counts meanwhile.
    pub(crate) fn reads_on(&self, does: bool) {
        self.reads_on.set(does);
    }

    /// Heartbeats only, from now on, while the phase goes on.
    pub(crate) fn heartbeat(&self, now: Millis, every: u32) {
        self.activity.set(now);
        self.heartbeat.set(every);
    }

    /// The stream is to be begun at `at`, answered or not; 0 for never.
    pub(crate) fn early(&self, at: Millis) {
        self.early.set(at);
        self.early_due.set(false);
    }

    /// The upstream said something.
    #[inline]
    pub(crate) fn active(&self, now: Millis) {
        self.activity.set(now);
    }

    /// The socket of the client is full, as of `now`.
    pub(crate) fn blocked(&self, now: Millis) {
        // 0 means "not blocked".
        self.blocked_since.set(now.max(1));
    }

    /// The client has read everything, as of `now`. Says whether it had not before.
    pub(crate) fn unblocked(&self, now: Millis) -> bool {
        let was_blocked = self.blocked_since.replace(0) != 0;
        if was_blocked && !self.reads_on.get() {
            // The upstream was not read meanwhile: its silence counts from here.
            self.activity.set(now);
        }
        was_blocked
    }

    /// No limit of the request counts any more, passed or not, but the client may take no longer than its stall for what
    /// it is still told. Every such end goes through here: a limit that has passed is not armed again, so without another
    /// one the last words would wait for as long as the client likes.
    pub(crate) fn last_words(&self, now: Millis) {
        self.reset();
        self.phase(Timeout::ClientStall, now, self.stall.get());
    }

    /// The request is over: nothing of it limits the next.
    pub(crate) fn reset(&self) {
        self.expired.set(None);
        self.authority.set(0);
        self.phase.set(None);
        self.total.set(0);
        self.idle.set(0);
        self.heartbeat.set(0);
        self.blocked_since.set(0);
        self.early(0);
    }

    /// What is due at `now`; a heartbeat that is due counts as given. `drain` is when the process ends; 0 while it serves.
    pub(crate) fn check(&self, now: Millis, drain: Millis) -> Option<Due> {
        let (at, timeout) = self.nearest_timeout(drain).unwrap_or((Millis::MAX, Timeout::Total));
        if at <= now {
            return Some(Due::Timeout(timeout));
        }
        if self.early.get() > 0 && self.early.get() <= now {
            self.early.set(0);
            return Some(Due::Early);
        }
        if self.next_heartbeat().is_some_and(|at| at <= now) {
            self.last_heartbeat.set(now);
            return Some(Due::Heartbeat);
        }
        None
    }

    /// When to look again.
    pub(crate) fn next(&self, drain: Millis) -> Option<Millis> {
        let mut next = self.nearest_timeout(drain).map_or(Millis::MAX, |(at, _)| at);
        if self.early.get() > 0 {
            next = next.min(self.early.get());
        }
        if let Some(heartbeat) = self.next_heartbeat() {
            next = next.min(heartbeat);
        }
        (next < Millis::MAX).then_some(next)
    }

    /// The limit that passes first; of two at the same time, the one that is more closely about what is going on.
    fn nearest_timeout(&self, drain: Millis) -> Option<(Millis, Timeout)> {
        let mut nearest =
            self.phase.get().map_or((Millis::MAX, Timeout::Total), |(timeout, at)| (at, timeout));
        let mut consider = |at: Millis, timeout| {
            if at < nearest.0 {
                nearest = (at, timeout);
            }
        };
        // 0 is none.
        let absolute = |at: Millis| if at == 0 { Millis::MAX } else { at };
        consider(absolute(self.total.get()), Timeout::Total);
        consider(absolute(drain), Timeout::Drain);
        let (blocked, stall) = (self.blocked_since.get(), self.stall.get());
        let idle = self.idle.get();
        if (blocked == 0 || self.reads_on.get()) && idle > 0 {
            consider(self.activity.get() + Millis::from(idle), Timeout::Idle);
        }
        if blocked != 0 && stall > 0 {
            consider(blocked + Millis::from(stall), Timeout::ClientStall);
        }
        (nearest.0 < Millis::MAX).then_some(nearest)
    }

    fn next_heartbeat(&self) -> Option<Millis> {
        let every = Millis::from(self.heartbeat.get());
        (every > 0).then(|| self.activity.get().max(self.last_heartbeat.get()) + every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_is_the_one_that_passes() {
        let limits = Deadlines::default();
        limits.phase(Timeout::FirstByte, 1000, 500);
        limits.total(1200);
        assert_eq!(limits.next(0), Some(1200));
        assert_eq!(limits.check(1199, 0), None);
        assert_eq!(limits.check(1200, 0), Some(Due::Timeout(Timeout::Total)));
        limits.total(0);
        assert_eq!(limits.check(1500, 0), Some(Due::Timeout(Timeout::FirstByte)));
        assert_eq!(limits.next(1100), Some(1100));
        assert_eq!(limits.check(1100, 1100), Some(Due::Timeout(Timeout::Drain)));
    }

    #[test]
    fn silence_brings_heartbeats_and_then_the_end() {
        let limits = Deadlines::default();
        limits.streaming(1000, 1000, 300);
        assert_eq!(limits.check(1299, 0), None);
        assert_eq!(limits.check(1300, 0), Some(Due::Heartbeat));
        assert_eq!(limits.next(0), Some(1600));
        limits.active(1500);
        assert_eq!(limits.next(0), Some(1800));
        assert_eq!(limits.check(2500, 0), Some(Due::Timeout(Timeout::Idle)));
    }

    #[test]
    fn a_client_that_does_not_read_stops_the_upstreams_clock() {
        let limits = Deadlines::default();
        limits.stall(700);
        limits.streaming(1000, 500, 0);
        limits.blocked(1400);
        assert_eq!(limits.check(1600, 0), None);
        assert_eq!(limits.check(2100, 0), Some(Due::Timeout(Timeout::ClientStall)));
        assert!(limits.unblocked(2050));
        assert!(!limits.unblocked(2060));
        assert_eq!(limits.check(2549, 0), None);
        assert_eq!(limits.check(2550, 0), Some(Due::Timeout(Timeout::Idle)));
    }

    #[test]
    fn an_upstream_that_is_read_on_has_its_own_clock() {
        let limits = Deadlines::default();
        limits.stall(700);
        limits.streaming(1000, 500, 0);
        limits.reads_on(true);
        limits.blocked(1400);
        assert_eq!(limits.check(1500, 0), Some(Due::Timeout(Timeout::Idle)));
        limits.idle(0);
        assert_eq!(limits.check(2100, 0), Some(Due::Timeout(Timeout::ClientStall)));
        limits.idle(500);
        limits.active(1900);
        assert!(limits.unblocked(2050));
        assert_eq!(limits.next(0), Some(2400));
    }

    #[test]
    fn zero_is_off() {
        let limits = Deadlines::default();
        limits.phase(Timeout::RequestHead, 10, 0);
        limits.streaming(10, 0, 0);
        assert_eq!(limits.next(0), None);
        assert_eq!(limits.check(Millis::MAX - 1, 0), None);
    }
}

//! Whether the cores still run: each says so as a part of its housekeeping, and one that does not compares.
//!
//! A core that is stuck in a loop or a blocking call serves none of its connections and cannot report itself. So it stores the
//! time in a cell of its own about ten times a second, one store and nothing on the way of a request, and the watchdog's thread
//! looks whether that has changed. Only time in which the watchdog ran itself counts: a process that was stopped, or whose machine
//! slept, is not taken for one that hangs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often the watchdog looks, in milliseconds.
pub(crate) const LOOK_MS: u64 = 500;

/// A core that has not run for so long is stuck. In milliseconds.
pub(crate) const STUCK_MS: u64 = 5000;

/// The cell of a core that has ended as it should.
const ENDED: u64 = u64::MAX;

/// When each core ran last. Each has a cache line of its own, since each writes its own.
#[derive(Debug)]
pub(crate) struct Turns(Box<[Turn]>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Turn {
    /// In milliseconds of the monotonic clock; 0 before the first time.
    at: AtomicU64,
    /// How long it has been stuck, in milliseconds; 0 while it runs. The watchdog's word.
    stuck_ms: AtomicU64,
}

impl Turns {
    /// For so many workers and the admin's core behind them.
    pub(crate) fn new(workers: usize) -> Turns {
        Turns((0..=workers).map(|_| Turn::default()).collect())
    }

    /// `core` runs, at `now` on the monotonic clock. For that core.
    pub(crate) fn turned(&self, core: usize, now: u64) {
        self.0[core].at.store(now, Relaxed);
    }

    /// `core` has nothing left to do, and runs no more.
    pub(crate) fn ended(&self, core: usize) {
        self.0[core].at.store(ENDED, Relaxed);
    }

    /// The name of a core, in logs and metrics.
    pub(crate) fn name(&self, core: usize) -> String {
        if core + 1 == self.0.len() { "admin".into() } else { core.to_string() }
    }

    /// For each core that has run, for how many milliseconds it has been stuck, as the watchdog has seen it last.
    pub(crate) fn stuck(&self) -> impl Iterator<Item = (usize, u64)> {
        let is_there = |(_, turn): &(usize, &Turn)| turn.at.load(Relaxed) != 0;
        self.0.iter().enumerate().filter(is_there).map(|(core, turn)| (core, turn.stuck_ms.load(Relaxed)))
    }

    /// What is wrong, in one line; none if every core runs.
    pub(crate) fn complaint(&self) -> Option<String> {
        let (core, ms) = self.stuck().max_by_key(|(_, ms)| *ms).filter(|(_, ms)| *ms > 0)?;
        Some(format!("core {} is stuck: it has not run for {} s", self.name(core), ms / 1000))
    }
}

/// What the watchdog remembers.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// When it looked last.
    looked: Option<u64>,
    /// How long it has watched, in milliseconds.
    watched: u64,
    /// Of each core, what stood in its cell, and since when on the watchdog's own time.
    cores: Vec<(u64, u64)>,
}

/// What the watchdog has found out about a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It has not run for long enough to be stuck, for so many milliseconds.
    Stuck(usize, u64),
    /// It runs again, after so many milliseconds.
    Back(usize, u64),
}

impl Watch {
    /// Looks at the cores at `now` on the monotonic clock. Each finding is told once.
    pub(crate) fn look(&mut self, turns: &Turns, now: u64) -> Vec<Finding> {
        // Whatever kept this thread from looking has kept the cores from running.
        let passed = self.looked.map_or(0, |looked| now.saturating_sub(looked)).min(2 * LOOK_MS);
        self.looked = Some(now);
        self.watched += passed;
        self.cores.resize(turns.0.len(), (0, 0));
        let mut findings = Vec::new();
        for (core, (turn, (last, since))) in turns.0.iter().zip(&mut self.cores).enumerate() {
            let (at, before) = (turn.at.load(Relaxed), turn.stuck_ms.load(Relaxed));
            let is_watched = at != 0 && at != ENDED;
            if at != *last || !is_watched {
                (*last, *since) = (at, self.watched);
            }
            let silent = self.watched - *since;
            let stuck = if silent >= STUCK_MS { silent } else { 0 };
            turn.stuck_ms.store(stuck, Relaxed);
            match (before, stuck) {
                (0, 1..) => findings.push(Finding::Stuck(core, stuck)),
                (1.., 0) => findings.push(Finding::Back(core, before)),
                _ => {}
            }
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks for so long, while only `running` run; gives back what was found out.
    fn pass(watch: &mut Watch, turns: &Turns, now: &mut u64, ms: u64, running: &[usize]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for _ in 0..ms / LOOK_MS {
            *now += LOOK_MS;
            running.iter().for_each(|core| turns.turned(*core, *now));
            findings.extend(watch.look(turns, *now));
        }
        findings
    }

    #[test]
    fn a_core_that_does_not_run_is_told_once_and_so_is_its_return() {
        let (turns, mut watch, mut now) = (Turns::new(2), Watch::default(), 1_000_000);
        assert_eq!(pass(&mut watch, &turns, &mut now, 10_000, &[0, 1, 2]), []);
        assert_eq!(turns.complaint(), None);
        assert_eq!(pass(&mut watch, &turns, &mut now, STUCK_MS - LOOK_MS, &[0, 2]), []);
        assert_eq!(turns.complaint(), None);
        assert_eq!(pass(&mut watch, &turns, &mut now, 2000, &[0, 2]), [Finding::Stuck(1, STUCK_MS)]);
        assert_eq!(turns.complaint().unwrap(), "core 1 is stuck: it has not run for 6 s");
        assert_eq!(turns.stuck().collect::<Vec<_>>(), [(0, 0), (1, 6500), (2, 0)]);
        assert_eq!(pass(&mut watch, &turns, &mut now, 1000, &[0, 1, 2]), [Finding::Back(1, 6500)]);
        assert_eq!(turns.complaint(), None);
        pass(&mut watch, &turns, &mut now, 2 * STUCK_MS, &[0, 1]);
        assert_eq!(turns.complaint().unwrap(), "core admin is stuck: it has not run for 10 s");
    }

    #[test]
    fn a_process_that_was_stopped_is_not_stuck() {
        let (turns, mut watch, mut now) = (Turns::new(1), Watch::default(), 5);
        pass(&mut watch, &turns, &mut now, 10_000, &[0, 1]);
        for _ in 0..10 {
            // A night, and the watchdog is the first to run again.
            now += 8 * 3600 * 1000;
            assert_eq!(watch.look(&turns, now), []);
            assert_eq!(pass(&mut watch, &turns, &mut now, LOOK_MS, &[0, 1]), []);
        }
    }

    #[test]
    fn cores_that_have_not_begun_or_have_ended_are_left_alone() {
        let (turns, mut watch, mut now) = (Turns::new(2), Watch::default(), 5);
        assert_eq!(pass(&mut watch, &turns, &mut now, 60_000, &[0]), []);
        assert_eq!(turns.stuck().count(), 1);
        turns.ended(0);
        assert_eq!(pass(&mut watch, &turns, &mut now, 60_000, &[]), []);
        assert_eq!(turns.complaint(), None);
    }
}

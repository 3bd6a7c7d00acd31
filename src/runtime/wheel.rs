//! One hashed timer wheel a core, for every deadline and heartbeat there is.
//!
//! A connection has one entry for its whole life. Arming means "call me no later than": an entry that is already due
//! earlier stays where it is, and when it fires its owner looks at its own cells and arms again. So the hot loop never
//! touches the wheel; it stores a time in a cell. Entries are doubly linked by slab index: arming, moving and removing
//! cost the same for one stream and for a million, and nothing is allocated.
//!
//! An entry fires on the first tick at or after its time, so up to [`TICK_MS`] late and never early.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::{Rc, Weak};

use slab::Slab;

use super::clock::Millis;

/// The wheel's resolution.
pub const TICK_MS: Millis = 50;

/// Slots; one turn of the wheel is 51.2 s, and an entry further away waits in its slot for its turn.
const SLOTS: usize = 1024;

const NONE: u32 = u32::MAX;

/// Something with a deadline.
pub trait Timed {
    /// The time it was armed for has come. Runs on the core's tick, outside of any task.
    fn fire(&self, now: Millis);
}

/// A core's wheel.
pub struct Wheel {
    inner: Rc<Inner>,
    due: RefCell<Vec<Rc<dyn Timed>>>,
}

struct Inner {
    entries: RefCell<Slab<Entry>>,
    slots: RefCell<Box<[u32]>>,
    /// The last tick that was processed, in ticks.
    turned: Cell<u64>,
}

struct Entry {
    target: Weak<dyn Timed>,
    /// The tick it fires at; `u64::MAX` when it is not armed.
    at: u64,
    next: u32,
    previous: u32,
}

/// An entry of the wheel; dropping it takes the entry out.
pub struct Timer {
    wheel: Rc<Inner>,
    index: u32,
    /// The tick that it was armed for last; it has fired, or was never armed, when that is not ahead.
    armed: Cell<u32>,
}

impl Default for Wheel {
    fn default() -> Self {
        let inner = Inner {
            entries: RefCell::default(),
            slots: RefCell::new(vec![NONE; SLOTS].into_boxed_slice()),
            turned: Cell::new(0),
        };
        Wheel { inner: Rc::new(inner), due: RefCell::default() }
    }
}

impl Wheel {
    /// Makes an entry for `target`, not armed.
    pub fn timer(&self, target: Weak<dyn Timed>) -> Timer {
        let entry = Entry { target, at: u64::MAX, next: NONE, previous: NONE };
        let index = self.inner.entries.borrow_mut().insert(entry) as u32;
        Timer { wheel: Rc::clone(&self.inner), index, armed: Cell::new(0) }
    }

    /// Fires everything that is due at `now`. Called once a tick; ticks that were missed are made up for.
    pub fn advance(&self, now: Millis) {
        let tick = now / TICK_MS;
        let from = self.inner.turned.get();
        if tick <= from {
            return;
        }
        let mut due = self.due.take();
        // After a pause longer than a turn each slot needs one visit, not one for each tick missed.
        for passed in (from + 1).max(tick.saturating_sub(SLOTS as u64 - 1))..=tick {
            self.inner.collect((passed % SLOTS as u64) as usize, tick, &mut due);
        }
        self.inner.turned.set(tick);
        for target in due.drain(..) {
            // A bug in one must not cost the others their deadlines. It has been told and counted.
            let _ = catch_unwind(AssertUnwindSafe(|| target.fire(now)));
        }
        self.due.replace(due);
    }
}

impl Inner {
    /// Takes what is due out of a slot.
    fn collect(&self, slot: usize, tick: u64, due: &mut Vec<Rc<dyn Timed>>) {
        let mut entries = self.entries.borrow_mut();
        let mut slots = self.slots.borrow_mut();
        let mut index = slots[slot];
        while index != NONE {
            let entry = &mut entries[index as usize];
            let next = entry.next;
            if entry.at <= tick {
                due.extend(entry.target.upgrade());
                unlink(&mut entries, &mut slots, index);
            }
            index = next;
        }
    }
}

impl Timer {
    /// Asks to be called no later than `at` (to the tick). An earlier call that was asked for stands.
    #[inline]
    pub fn arm(&self, at: Millis) {
        let turned = self.wheel.turned.get();
        let at = at.div_ceil(TICK_MS).max(turned + 1);
        let armed = u64::from(self.armed.get());
        // A request arms half a dozen times, and nearly always for later than it is armed for.
        if armed <= turned || armed > at {
            self.move_to(at);
        }
    }

    fn move_to(&self, at: u64) {
        let mut entries = self.wheel.entries.borrow_mut();
        if entries[self.index as usize].at <= at {
            return;
        }
        // Beyond 32 bits, which are nearly seven years, it is as if it had fired: then the entry itself is asked.
        self.armed.set(u32::try_from(at).unwrap_or_default());
        let mut slots = self.wheel.slots.borrow_mut();
        unlink(&mut entries, &mut slots, self.index);
        let slot = &mut slots[(at % SLOTS as u64) as usize];
        let head = std::mem::replace(slot, self.index);
        if head != NONE {
            entries[head as usize].previous = self.index;
        }
        let entry = &mut entries[self.index as usize];
        (entry.at, entry.next, entry.previous) = (at, head, NONE);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let mut entries = self.wheel.entries.borrow_mut();
        unlink(&mut entries, &mut self.wheel.slots.borrow_mut(), self.index);
        entries.remove(self.index as usize);
    }
}

fn unlink(entries: &mut Slab<Entry>, slots: &mut [u32], index: u32) {
    let entry = &mut entries[index as usize];
    let (at, next, previous) = (entry.at, entry.next, entry.previous);
    if at == u64::MAX {
        return;
    }
    (entry.at, entry.next, entry.previous) = (u64::MAX, NONE, NONE);
    match previous {
        NONE => slots[(at % SLOTS as u64) as usize] = next,
        previous => entries[previous as usize].next = next,
    }
    if next != NONE {
        entries[next as usize].previous = previous;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Probe {
        fired: RefCell<Vec<Millis>>,
    }

    impl Timed for Probe {
        fn fire(&self, now: Millis) {
            self.fired.borrow_mut().push(now);
        }
    }

    fn probe(wheel: &Wheel) -> (Rc<Probe>, Timer) {
        let probe = Rc::new(Probe::default());
        let weak: Weak<Probe> = Rc::downgrade(&probe);
        let timer = wheel.timer(weak);
        (probe, timer)
    }

    fn turn(wheel: &Wheel, until: Millis) {
        let from = wheel.inner.turned.get() * TICK_MS;
        (from..=until).step_by(TICK_MS as usize).for_each(|now| wheel.advance(now));
    }

    #[test]
    fn fires_once_at_the_first_tick_not_before_its_time() {
        let wheel = Wheel::default();
        let (probe, timer) = probe(&wheel);
        timer.arm(101);
        turn(&wheel, 1000);
        assert_eq!(*probe.fired.borrow(), [150]);
    }

    #[test]
    fn an_earlier_call_stands_and_a_later_one_is_moved_forward() {
        let wheel = Wheel::default();
        let (probe, timer) = probe(&wheel);
        timer.arm(5000);
        timer.arm(200);
        timer.arm(400);
        turn(&wheel, 6000);
        assert_eq!(*probe.fired.borrow(), [200]);
    }

    #[test]
    fn waits_for_its_turn_of_the_wheel() {
        let wheel = Wheel::default();
        let (probe, timer) = probe(&wheel);
        let at = SLOTS as u64 * TICK_MS * 3 + 500;
        timer.arm(at);
        turn(&wheel, at - 1);
        assert!(probe.fired.borrow().is_empty());
        turn(&wheel, at);
        assert_eq!(*probe.fired.borrow(), [at]);
    }

    #[test]
    fn a_long_pause_loses_nothing() {
        let wheel = Wheel::default();
        let probes: Vec<_> = (1..2000).map(|n| (n, probe(&wheel))).collect();
        probes.iter().for_each(|(n, (_, timer))| timer.arm(n * 40));
        wheel.advance(10_000_000);
        assert!(probes.iter().all(|(_, (probe, _))| probe.fired.borrow().len() == 1));
    }

    #[test]
    fn a_dropped_timer_never_fires_and_leaves_no_entry() {
        let wheel = Wheel::default();
        let (probe, timer) = probe(&wheel);
        timer.arm(100);
        drop(timer);
        turn(&wheel, 1000);
        assert!(probe.fired.borrow().is_empty());
        assert!(wheel.inner.entries.borrow().is_empty());
    }

    proptest! {
        /// Against a list of times: everything that is still armed fires exactly once, on its tick.
        #[test]
        fn agrees_with_a_list(steps in proptest::collection::vec((0usize..20, 0u64..200_000, 0u64..4000), 1..200)) {
            let wheel = Wheel::default();
            let all: Vec<_> = (0..20).map(|_| probe(&wheel)).collect();
            let mut model: Vec<Option<u64>> = vec![None; 20];
            let mut expected: Vec<Vec<u64>> = vec![Vec::new(); 20];
            let mut now = 0;
            for (who, ahead, pass) in steps {
                all[who].1.arm(now + ahead);
                let at = ((now + ahead).div_ceil(TICK_MS)).max(now / TICK_MS + 1) * TICK_MS;
                model[who] = Some(model[who].map_or(at, |before| before.min(at)));
                for _ in 0..pass / TICK_MS {
                    now = (now / TICK_MS + 1) * TICK_MS;
                    wheel.advance(now);
                    for (who, at) in model.iter_mut().enumerate() {
                        if at.is_some_and(|at| at <= now) {
                            *at = None;
                            expected[who].push(now);
                        }
                    }
                }
            }
            for (who, (probe, _)) in all.iter().enumerate() {
                prop_assert_eq!(&*probe.fired.borrow(), &expected[who]);
            }
        }
    }
}

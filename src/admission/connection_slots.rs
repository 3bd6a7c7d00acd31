//! How many connections may be open: over all, and for one address; and how many each core has.
//!
//! Counted over all cores, in one place, once when a connection comes and once when it goes.
//!
//! The kernel gives a connection to a core by a hash, which is uneven while there are few: of 160 on 16 cores the fullest has 1.6
//! times its share. Where the less loaded of two others drawn by chance has clearly fewer, the connection goes there, as it is
//! accepted and never again (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Limits;

/// A core keeps what it has accepted unless another has fewer by this many at least, and by an eighth: to be handed over costs a
/// connection some 3 µs and the other core a wake, which one that is soon over would not earn back.
const CLEARLY_FEWER: usize = 2;

/// Who sits where.
pub(crate) struct Seats {
    taken: AtomicUsize,
    by_core: Box<[Load]>,
    /// Only while there is a limit for one address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// The connections of one core. Aligned to two cache lines, since each core counts its own much more often than others look.
#[derive(Default)]
#[repr(align(128))]
struct Load(AtomicUsize);

/// One connection's place, until it is dropped.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    address: Option<IpAddr>,
    counted: bool,
    core: Option<u16>,
}

impl Seats {
    /// For so many cores.
    pub(crate) fn new(cores: usize) -> Arc<Seats> {
        let by_core = (0..cores).map(|_| Load::default()).collect();
        Arc::new(Seats { taken: AtomicUsize::default(), by_core, by_address: Mutex::default() })
    }

    /// The core that is to serve what `own` has accepted; `chance` is any number.
    pub(crate) fn lighter(&self, own: usize, chance: u64) -> usize {
        let others = self.by_core.len().saturating_sub(1);
        if others == 0 {
            return own;
        }
        // The first and the second half of the number, so that the two are drawn by themselves.
        let draw = |chance: u64| (own + 1 + chance as usize % others) % self.by_core.len();
        let load = |core: usize| self.by_core[core].0.load(Ordering::Relaxed);
        let (one, other) = (draw(chance >> 32), draw(chance & u64::from(u32::MAX)));
        let lightest = if load(one) <= load(other) { one } else { other };
        let theirs = load(lightest);
        if load(own) >= theirs + CLEARLY_FEWER.max(theirs / 8) { lightest } else { own }
    }

    /// A place for a connection from `address`, if there is one left. An operator always gets one, and takes none from others.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, limits: &Limits, operator: bool) -> Option<Seat> {
        let mut seat = Seat { seats: Arc::clone(self), address: None, counted: false, core: None };
        if operator {
            return Some(seat);
        }
        seat.counted = true;
        if self.taken.fetch_add(1, Ordering::Relaxed) >= limits.max_connections {
            return None;
        }
        if limits.max_connections_per_address > 0 {
            let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = by_address.entry(address).or_default();
            if *taken >= limits.max_connections_per_address {
                return None;
            }
            *taken += 1;
            seat.address = Some(address);
        }
        Some(seat)
    }

    /// Connections that are open.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Seat {
    /// It is at `core`, from now on.
    pub(crate) fn at(&mut self, core: usize) {
        self.leave();
        self.seats.by_core[core].0.fetch_add(1, Ordering::Relaxed);
        self.core = Some(core as u16);
    }

    fn leave(&mut self) {
        if let Some(core) = self.core.take() {
            self.seats.by_core[usize::from(core)].0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
        if self.counted {
            self.seats.taken.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(address) = self.address {
            let mut by_address = self.seats.by_address.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(taken) = by_address.get_mut(&address) {
                *taken -= 1;
                if *taken == 0 {
                    by_address.remove(&address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(all: usize, each: usize) -> Limits {
        Limits { max_connections: all, max_connections_per_address: each, ..Limits::default() }
    }

    #[test]
    fn no_more_than_there_are() {
        let seats = Seats::new(1);
        let one = IpAddr::from([127, 0, 0, 1]);
        let first = seats.take(one, &limits(2, 0), false);
        let second = seats.take(one, &limits(2, 0), false);
        assert!(first.is_some() && second.is_some());
        assert!(seats.take(one, &limits(2, 0), false).is_none());
        assert!(seats.take(one, &limits(2, 0), true).is_some());
        drop(first);
        assert_eq!(seats.taken(), 1);
        assert!(seats.take(one, &limits(2, 0), false).is_some());
    }

    #[test]
    fn few_connections_are_spread_over_many_cores() {
        const CORES: usize = 16;
        let one = IpAddr::from([127, 0, 0, 1]);
        // A number that jumps about is all the chance there is (Steele, Lea, Flood: SplitMix, 2014).
        let mut state = 0_u64;
        let mut chance = move || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed ^ mixed >> 27
        };
        let seats = Seats::new(CORES);
        let (mut all, mut hashed) = (Vec::new(), [0_usize; CORES]);
        for _ in 0..160 {
            let own = (chance() >> 33) as usize % CORES;
            hashed[own] += 1;
            let mut seat = seats.take(one, &limits(1000, 0), false).expect("room");
            seat.at(seats.lighter(own, chance()));
            all.push(seat);
        }
        let fullest = seats.by_core.iter().map(|load| load.0.load(Ordering::Relaxed)).max();
        assert!(fullest <= Some(13), "{fullest:?} of 10");
        assert!(hashed.iter().max() >= Some(&15), "the kernel alone: {hashed:?}");
        drop(all);
        assert!(seats.by_core.iter().all(|load| load.0.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_core_without_others_keeps_all() {
        assert_eq!(Seats::new(1).lighter(0, 7), 0);
    }

    #[test]
    fn each_address_has_its_own() {
        let seats = Seats::new(1);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = seats.take(one, &limits(9, 1), false);
        assert!(first.is_some());
        assert!(seats.take(one, &limits(9, 1), false).is_none());
        assert!(seats.take(two, &limits(9, 1), false).is_some());
        drop(first);
        assert!(seats.take(one, &limits(9, 1), false).is_some());
        assert_eq!(seats.taken(), 0);
        assert!(seats.by_address.lock().unwrap().is_empty());
    }
}

//! How many connections may be open: over all, and for one address.
//!
//! Counted over all cores, in one place, once when a connection comes and once when it goes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Limits;

/// Who sits where.
#[derive(Default)]
pub struct Seats {
    taken: AtomicUsize,
    /// Only while there is a limit for one address.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place, until it is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    address: Option<IpAddr>,
    counted: bool,
}

impl Seats {
    /// A place for a connection from `address`, if there is one left. An operator always gets one, and takes none from others.
    pub fn take(self: &Arc<Self>, address: IpAddr, limits: &Limits, operator: bool) -> Option<Seat> {
        let mut seat = Seat { seats: Arc::clone(self), address: None, counted: false };
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
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
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
        let seats = Arc::new(Seats::default());
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
    fn each_address_has_its_own() {
        let seats = Arc::new(Seats::default());
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

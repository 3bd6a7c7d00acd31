//! Time, as a core sees it: microseconds of the monotonic clock, and the wall clock for those who log.
//!
//! A precise reading is a vDSO call of some 25 ns and 60 instructions, taken once for each relayed segment; everything that can live with the wheel's tick
//! reads the coarse value instead.

use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of the monotonic clock.
pub(crate) type Millis = u64;

/// Microseconds of the monotonic clock.
pub(crate) type Micros = u64;

/// A core's clock.
#[derive(Default)]
pub(crate) struct Clock {
    coarse: Cell<Millis>,
}

impl Clock {
    /// Now, from the kernel; the coarse value is renewed with it.
    pub(crate) fn micros(&self) -> Micros {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec as Micros * 1_000_000 + now.tv_nsec as Micros / 1000;
        self.coarse.set(micros / 1000);
        micros
    }

    /// The last reading, at most one tick of the wheel old.
    pub(crate) fn millis(&self) -> Millis {
        self.coarse.get()
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z.
pub(crate) fn unix_millis() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

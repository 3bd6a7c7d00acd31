//! A descriptor kept for the moment when there are no others.
//!
//! A process without descriptors cannot accept, and cannot refuse either: clients hang in the backlog until they give up.
//! Giving up the reserve lets one be accepted; it is taken back as soon as there is room.

use std::cell::RefCell;
use std::fs::File;

/// The descriptor.
pub struct Reserve {
    held: RefCell<Option<File>>,
}

impl Default for Reserve {
    fn default() -> Reserve {
        let reserve = Reserve { held: RefCell::new(None) };
        reserve.hold();
        reserve
    }
}

impl Reserve {
    /// Gives the descriptor up, so that the next call which needs one succeeds. Says whether there was one to give.
    pub fn release(&self) -> bool {
        self.held.take().is_some()
    }

    /// Takes a descriptor back, if there is one to take.
    pub fn hold(&self) {
        let mut held = self.held.borrow_mut();
        if held.is_none() {
            *held = File::open("/dev/null").ok();
        }
    }
}

//! Descriptors kept for the moment when there are no others.
//!
//! A process without descriptors cannot accept, and cannot refuse either: clients hang in the backlog until they give up.
//! Giving up a reserved one lets one client be accepted. Other threads accept at the same time and may take what was meant for
//! this one, so there are several, and what is missing is taken back whenever there is room.

use std::cell::RefCell;
use std::fs::File;

/// Descriptors in reserve: those that other threads may take between two moments with room, and one.
const RESERVED: usize = 4;

/// The descriptors of one listener.
pub(crate) struct Reserve {
    held: RefCell<Vec<File>>,
}

impl Default for Reserve {
    fn default() -> Reserve {
        let reserve = Reserve { held: RefCell::default() };
        reserve.hold();
        reserve
    }
}

impl Reserve {
    /// Gives one up, so that the next call which needs one succeeds. Says whether there was one to give.
    pub(crate) fn release(&self) -> bool {
        self.held.borrow_mut().pop().is_some()
    }

    /// Takes back what is missing, as far as there is room. Says whether it is whole.
    pub(crate) fn hold(&self) -> bool {
        let mut held = self.held.borrow_mut();
        while held.len() < RESERVED {
            match File::open("/dev/null") {
                Ok(file) => held.push(file),
                Err(_) => return false,
            }
        }
        true
    }
}

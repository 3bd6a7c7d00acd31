//! Clients end a response that is being kept by its stream: whichever node makes it stops its upstream.

use super::stream::{Presence, Stream};

/// How a client has ended a response that is being kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// What there is of it is kept.
    Closed,
    /// Nothing of it is kept.
    Deleted,
}

impl Stream {
    /// Whether a client has ended it while its response was still being made: by closing it, or by deleting it.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        let state = self.lock();
        match state.presence {
            Presence::Present if !state.stopped => None,
            Presence::Present => Some(Stopped::Closed),
            _ => Some(Stopped::Deleted),
        }
    }
}

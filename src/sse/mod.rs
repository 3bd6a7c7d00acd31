//! Server-Sent Events as the WHATWG wrote them down: where events end, and how to write one. No socket, no clock.
//!
//! The scanner never holds bytes back: it looks at what passes and remembers a few bits of state. [`Events`] holds one event,
//! for those who make other events of them.
#![forbid(unsafe_code)]

pub(crate) mod blocks;
pub(crate) mod events;
pub(crate) mod scan;
pub(crate) mod write;

#[cfg(test)]
mod tests;

pub(crate) use blocks::{Blocks, Unfinished, blocks};
pub(crate) use events::Events;
pub use scan::Scanner;
pub use write::HEARTBEAT;
pub use write::write_event;

//! Server-Sent Events as the WHATWG wrote them down: where events end, and how to write one. No socket, no clock.
//!
//! The scanner never holds bytes back: it looks at what passes and remembers a few bits of state. [`Events`] holds one event,
//! for those who make other events of them.
#![forbid(unsafe_code)]

pub(crate) mod blocks;
pub(crate) mod events;
pub(crate) mod scan;
#[cfg(test)]
mod tests;
pub(crate) mod write;

pub(crate) use self::blocks::{Blocks, Unfinished, blocks};
pub(crate) use self::events::Events;
pub use self::scan::Scanner;
pub use self::write::{HEARTBEAT, write_event};

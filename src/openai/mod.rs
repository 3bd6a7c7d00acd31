//! The few things sedge reads of the APIs that it relays: in a request `model`, `stream` and how much it asks for, the side band of a
//! response (usage, finish reason, errors, its end), and the shape of an error in each dialect. Everything else passes unseen.
//!
//! `[DONE]` and the names of events are for [`crate::sse::Scanner`] to see.
#![forbid(unsafe_code)]

pub(crate) mod dialect;
mod doubt;
pub(crate) mod error;
mod faults;
mod field;
pub(crate) mod first;
pub(crate) mod fixed;
mod form;
mod key;
mod keys;
pub(crate) mod media;
mod members;
pub(crate) mod peek;
mod prompts;
mod scalar;
pub(crate) mod sideband;
mod skip;
mod text;
mod usage;

#[cfg(test)]
mod peek_tests;
#[cfg(test)]
mod tests;

pub(crate) use dialect::Api;
pub(crate) use doubt::Doubt;
pub(crate) use doubt::Reason;
pub use doubt::Subject;
pub(crate) use error::ApiError;
pub use first::FirstContent;
pub(crate) use first::Seen;
pub(crate) use fixed::Fixed;
pub(crate) use media::Media;
pub(crate) use members::is_error;
pub(crate) use peek::MAX_MODEL_BYTES;
pub use peek::Peek;
pub use peek::PeekState;
pub(crate) use sideband::FinishReason;
pub use sideband::Sideband;
pub(crate) use usage::Usage;

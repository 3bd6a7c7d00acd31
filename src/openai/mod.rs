//! The few things sedge reads of the APIs that it relays: in a request `model`, `stream` and how much it asks for, the side band of a
//! response (usage, finish reason, errors, its end), and the shape of an error in each dialect. Everything else passes unseen.
//!
//! `[DONE]` and the names of events are for [`crate::sse::Scanner`] to see.
#![forbid(unsafe_code)]

pub mod dialect;
mod doubt;
pub mod error;
mod faults;
mod field;
pub mod first;
pub mod fixed;
mod form;
mod key;
mod keys;
pub mod media;
mod members;
pub mod peek;
mod prompts;
mod scalar;
pub mod sideband;
mod skip;
mod text;
mod usage;

#[cfg(test)]
mod peek_tests;
#[cfg(test)]
mod tests;

pub use dialect::Api;
pub use doubt::{Doubt, Reason, Subject};
pub use error::ApiError;
pub use first::{FirstContent, Seen};
pub use fixed::Fixed;
pub use media::Media;
pub use members::is_error;
pub use peek::{MAX_MODEL_BYTES, Peek, PeekState};
pub use sideband::{FinishReason, Sideband};
pub use usage::{USAGE_MAX_BYTES, Usage};

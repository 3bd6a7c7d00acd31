//! The few things sedge reads of OpenAI's API: in a request `model`, `stream` and how much it asks for, the side band of an answer
//! (usage, finish reason, error, `[DONE]`), and the shape of an error. Everything else passes unseen.
//!
//! `[DONE]` and errors inside a stream are events, so [`crate::sse::Scanner`] tells of them.
#![forbid(unsafe_code)]

mod doubt;
pub mod error;
mod field;
pub mod first;
pub mod fixed;
mod form;
mod key;
pub mod media;
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

pub use doubt::{Doubt, Reason, Subject};
pub use error::ApiError;
pub use first::{FirstContent, Seen};
pub use fixed::Fixed;
pub use media::Media;
pub use peek::{MAX_MODEL_BYTES, Peek, PeekState};
pub use sideband::{FinishReason, Sideband};
pub use usage::{USAGE_MAX_BYTES, Usage};

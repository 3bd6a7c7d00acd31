//! The few things sedge reads of the APIs that it relays: in a request `model`, `stream` and how much it asks for, the side band of a
//! response (usage, finish reason, errors, its end), and the shape of an error in each dialect. Everything else passes unseen.
//!
//! `[DONE]` and the names of events are for [`super::sse::Scanner`] to see.
#![forbid(unsafe_code)]

pub(crate) mod doubt;
pub(crate) mod faults;
pub(crate) mod field;
pub(crate) mod first_content;
pub(crate) mod fixed_response;
pub(crate) mod form;
pub(crate) mod keys;
pub(crate) mod media;
pub(crate) mod peek;
#[cfg(test)]
mod peek_tests;
pub(crate) mod prompts;
pub(crate) mod sideband;
#[cfg(test)]
mod tests;
pub(crate) mod usage;

pub use self::doubt::Subject;
pub(crate) use self::doubt::{Doubt, Reason};
pub use self::first_content::FirstContent;
pub(crate) use self::first_content::Seen;
pub(crate) use self::fixed_response::Fixed;
pub(crate) use self::media::Media;
pub(crate) use self::peek::MAX_MODEL_BYTES;
pub use self::peek::{Peek, PeekState};
pub(crate) use self::sideband::FinishReason;
pub use self::sideband::Sideband;
pub(crate) use self::usage::Usage;
pub(crate) use super::dialect::Api;
pub(crate) use super::error::ApiError;
pub(crate) use super::json::members::is_error;

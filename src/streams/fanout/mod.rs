//! Readers told of what was appended: one wake a core and batch, frames encoded once for all who read the same way.

pub(crate) mod encode;
pub(crate) mod events;
pub(crate) mod notifier;
pub(crate) mod view;

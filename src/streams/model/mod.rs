//! The rules of a durable stream that need no storage: its offsets, its kind, its lifetime, its producers, its bounds.

pub(crate) mod bounds;
pub(crate) mod json;
pub(crate) mod kind;
pub(crate) mod lifetime;
pub(crate) mod offset;
pub(crate) mod producer;

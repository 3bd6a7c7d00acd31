//! Durable streams: an append-only log with a URL.
//!
//! So far the rules of positions ([`offset::Offset`]) and of producers that retry ([`producer::Producers`]), without socket,
//! clock or task, and the journal that keeps records on disk.

pub mod encode;
pub mod journal;
pub mod offset;
pub mod producer;
pub mod subscription;

//! Durable streams: an append-only log with a URL. So far the journal that keeps them on disk.

pub mod journal;

//! Where streams are kept: in memory, on disk ([`journal`]), or in Redis ([`redis`]); and how they come back when the process starts.

pub(crate) mod facade;
pub(crate) mod journal;
pub(crate) mod journal_entry;
pub(crate) mod metadata;
pub(crate) mod payload_reader;
pub(crate) mod recovery;
pub(crate) mod redis;

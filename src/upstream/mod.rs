//! Upstreams: what one is ([`target`]), how a connection to one is made ([`dial`]), and the per-core pool of those that are
//! idle ([`pool`]).
//!
//! A connection is never shared by two requests at a time and never crosses cores. A socket that has anything to say while
//! nobody has asked it is thrown away: an answer nobody waits for can only poison the next request.

pub mod dial;
pub mod pool;
pub mod target;

//! The client of upstreams: what one is, how a connection to it is made and kept, how a request is asked on it.
//!
//! | file | what it is |
//! | --- | --- |
//! | [`target`] | an upstream, as it is dialed and addressed |
//! | [`dial`], [`race`] | a new connection; which address of a name it leads to |
//! | [`resolver`], [`addresses`] | names that were looked up; the addresses of one, and how they have done |
//! | [`pool`] | a core's idle connections |
//! | [`client`], [`head_reader`] | a request on a connection, up to the head of its response; heads as they arrive |
//! | [`probe`], [`models`] | health checks; the last list of models that one gave |
//!
//! A connection is never shared by two requests at a time and never crosses cores. A socket that has anything to say while
//! nobody has asked it is thrown away: an answer nobody waits for can only poison the next request.

pub(crate) mod addresses;
pub(crate) mod client;
pub(crate) mod dial;
pub(crate) mod head_reader;
pub(crate) mod models;
pub(crate) mod pool;
pub(crate) mod probe;
pub(crate) mod race;
pub(crate) mod resolver;
pub(crate) mod target;

//! Upstreams: what one is ([`target`]), which of several is asked ([`choice`]), how a connection to one is made ([`dial`]), and
//! the per-core pool of those that are idle ([`pool`]).
//!
//! | file | what it is |
//! | --- | --- |
//! | [`choice`], [`affinity`] | who is asked; whose keys are whose |
//! | [`call`] | one request to one, and what is learnt from it |
//! | [`dial`], [`race`] | a new connection; which address of a name it leads to |
//! | [`resolver`], [`addresses`] | names that were looked up; the addresses of one, and how they have done |
//! | [`health`] | what is known of one, by all cores |
//! | [`turnstile`], [`aimd`], [`queue`] | places at one that has a limit: how many, and who is next |
//! | [`models`] | the last list of models that one gave |
//! | [`metrics`] | the same for operators |
//! | [`breaker`], [`window`], [`latency`] | whether it may be asked; what became of its calls; how long it takes |
//!
//! A connection is never shared by two requests at a time and never crosses cores. A socket that has anything to say while
//! nobody has asked it is thrown away: an answer nobody waits for can only poison the next request.

pub(crate) mod addresses;
pub(crate) mod affinity;
pub(crate) mod aimd;
pub(crate) mod breaker;
pub(crate) mod call;
pub(crate) mod choice;
pub(crate) mod dial;
pub(crate) mod health;
pub(crate) mod latency;
pub(crate) mod metrics;
pub(crate) mod models;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod race;
pub(crate) mod resolver;
pub(crate) mod target;
pub(crate) mod turnstile;
pub(crate) mod window;
